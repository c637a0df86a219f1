//! Rates and counts for each caller, in memory of a fixed size.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use governor::clock::DefaultClock;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::hotkey::Hotkey;

/// So many in a second, after so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run. 0 is taken as 1.
    pub per_second: u32,
    /// At once. 0 is taken as 1.
    pub burst: u32,
}

/// The rates of an axon's callers, for all its listeners together. They can be changed while it runs.
#[derive(Clone)]
pub struct Rates(Arc<RwLock<Arc<Limiters>>>);

struct Limiters {
    rates: (Rate, Rate),
    address: Limiter<IpAddr>,
    hotkey: Limiter<Hotkey>,
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rates").field(&self.now().rates).finish()
    }
}

impl Rates {
    /// So much for each address, before anything is checked, and for each hotkey, after its
    /// signature was.
    #[must_use]
    pub fn new(per_address: Rate, per_hotkey: Rate) -> Self {
        Self(Arc::new(RwLock::new(Limiters::of(per_address, per_hotkey))))
    }

    /// Takes other rates from now on, for connections that are open, too. What callers have spent is
    /// forgotten then; the same rates again change nothing.
    pub fn set(&self, per_address: Rate, per_hotkey: Rate) {
        let mut limiters = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if limiters.rates != (per_address, per_hotkey) {
            *limiters = Limiters::of(per_address, per_hotkey);
        }
    }

    pub(super) fn allow_address(&self, address: &IpAddr) -> bool {
        self.now().address.allows(address)
    }

    pub(super) fn allow_hotkey(&self, hotkey: &Hotkey) -> bool {
        self.now().hotkey.allows(hotkey)
    }

    fn now(&self) -> Arc<Limiters> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Limiters {
    fn of(per_address: Rate, per_hotkey: Rate) -> Arc<Self> {
        let (address, hotkey) = (Limiter::new(per_address), Limiter::new(per_hotkey));
        Arc::new(Self { rates: (per_address, per_hotkey), address, hotkey })
    }
}

/// Cells of one limiter: 512 KiB. Callers share a cell by accident of a keyed hash only, and nobody
/// can aim at another's. A map of callers would isolate them and grow with every address of a botnet.
const CELLS: usize = 1 << 16;

/// A rate for each key, in [`CELLS`] cells.
pub struct Limiter<K: Hash>(RateLimiter<K, Cells<K>, DefaultClock>);

impl<K: Hash> Limiter<K> {
    pub fn new(rate: Rate) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota =
            Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
        let cells = (0..CELLS).map(|_| InMemoryState::default()).collect();
        let cells = Cells { cells, hasher: RandomState::new(), key: std::marker::PhantomData };
        Self(RateLimiter::new(quota, cells, DefaultClock::default()))
    }
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// Whether one more is within the rate; it counts then.
    pub fn allows(&self, key: &K) -> bool {
        self.0.check_key(key).is_ok()
    }
}

struct Cells<K> {
    cells: Box<[InMemoryState]>,
    hasher: RandomState,
    key: std::marker::PhantomData<fn(K)>,
}

impl<K: Hash> StateStore for Cells<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let place = self.hasher.hash_one(key) as usize % CELLS;
        let cell = self.cells.get(place).expect("the place is below the number of cells");
        cell.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

/// Open connections of each address: as many entries as there are connections.
#[derive(Clone)]
pub struct Connections {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
}

impl Connections {
    pub fn new(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// A place for one more connection of this address; `None` when it has enough.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { connections: self.clone(), address })
    }
}

/// A connection's place, free again when it is dropped.
pub struct Place {
    connections: Connections,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_burst() {
        // One in a second: nothing comes back while the test runs, whatever the machine does.
        let limiter = Limiter::new(Rate { per_second: 1, burst: 3 });
        let one = IpAddr::from([192, 0, 2, 1]);
        let passed = (0..1_000).filter(|_| limiter.allows(&one)).count();
        assert!((3..100).contains(&passed), "{passed}");
        // Others are untouched, but for those of the same cell by accident.
        let others = (0..=255).filter(|last| limiter.allows(&IpAddr::from([198, 51, 100, *last])));
        assert!(others.count() > 250);
    }

    #[test]
    fn places_are_counted_for_each_address_and_come_back() {
        let connections = Connections::new(2);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = connections.enter(one).unwrap();
        let _second = connections.enter(one).unwrap();
        assert!(connections.enter(one).is_none());
        assert!(connections.enter(other).is_some());
        drop(first);
        assert!(connections.enter(one).is_some());
        assert_eq!(connections.open.lock().unwrap().len(), 1, "no entry without a connection");
    }
}
