//! Nonces that somebody else chooses, who sends each when it is its turn.
//!
//! Who asks for a challenge and does not trust us must know that nothing could be prepared: it keeps
//! the nonce of a round until the round before has been answered. So the challenge waits for it here,
//! with a limit, because a GPU is held meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

/// A round whose nonce is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedRound {
    /// Every memory is filled: the nonce that says where they are walked.
    Probe,
    /// Every root has come: the nonce that says what is opened.
    Open,
}

impl fmt::Display for AskedRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probing",
            Self::Open => "opening",
        })
    }
}

/// The nonce of a round did not come in time, or will never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no nonce for {round} came within {} ms", patience.as_millis())]
pub struct NoNonce {
    /// The round.
    pub round: AskedRound,
    /// How long it was waited for.
    pub patience: Duration,
}

/// Where the challenge takes them from.
#[derive(Debug)]
pub struct AskedNonces {
    fill: [u8; 32],
    patience: Duration,
    next: Mutex<mpsc::Receiver<(AskedRound, [u8; 32])>>,
}

/// Where they are put in.
#[derive(Debug)]
pub struct NonceSender(mpsc::Sender<(AskedRound, [u8; 32])>);

impl AskedNonces {
    /// Nonces that begin with this one for the fill; each later one may take `patience`, from when it
    /// is its turn.
    #[must_use]
    pub fn new(fill: [u8; 32], patience: Duration) -> (NonceSender, Arc<Self>) {
        // One round at a time.
        let (sender, next) = mpsc::channel(1);
        (NonceSender(sender), Arc::new(Self { fill, patience, next: Mutex::new(next) }))
    }

    /// The nonce of the fill.
    #[must_use]
    pub fn fill(&self) -> [u8; 32] {
        self.fill
    }

    /// Waits for the nonce of a round.
    ///
    /// # Errors
    /// [`NoNonce`]: the time is over, nobody can send one any more, or it is for another round.
    ///
    /// # Cancel safety
    /// A nonce that was not returned is still there.
    pub async fn next(&self, round: AskedRound) -> Result<[u8; 32], NoNonce> {
        let none = NoNonce { round, patience: self.patience };
        let mut next = self.next.lock().await;
        match tokio::time::timeout(self.patience, next.recv()).await {
            Ok(Some((of, nonce))) if of == round => Ok(nonce),
            _ => Err(none),
        }
    }
}

impl NonceSender {
    /// Hands in the nonce of a round. `false` when the challenge takes none any more.
    pub async fn send(&self, round: AskedRound, nonce: [u8; 32]) -> bool {
        self.0.send((round, nonce)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_nonce_comes_in_its_turn_or_not_at_all() {
        let patience = Duration::from_secs(5);
        let (sender, nonces) = AskedNonces::new([1; 32], patience);
        assert_eq!(nonces.fill(), [1; 32]);
        assert!(sender.send(AskedRound::Probe, [2; 32]).await);
        assert_eq!(nonces.next(AskedRound::Probe).await, Ok([2; 32]));
        // Of another round.
        assert!(sender.send(AskedRound::Probe, [3; 32]).await);
        let none = NoNonce { round: AskedRound::Open, patience };
        assert_eq!(nonces.next(AskedRound::Open).await, Err(none));
        // Not in time: the clock of this test stands still until all wait.
        let began = tokio::time::Instant::now();
        assert_eq!(nonces.next(AskedRound::Open).await, Err(none));
        assert_eq!(began.elapsed(), patience);
        // Never any more, and the other way round.
        drop(sender);
        assert_eq!(nonces.next(AskedRound::Open).await, Err(none));
        let (sender, nonces) = AskedNonces::new([1; 32], patience);
        drop(nonces);
        assert!(!sender.send(AskedRound::Probe, [2; 32]).await);
    }
}
