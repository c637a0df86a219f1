//! An Ansible inventory, whichever form it was read from.

use std::collections::{BTreeMap, BTreeSet};

use super::ImportError;
use super::ansible_vars::apply;
use super::draft::{Draft, DraftServer};
use crate::fleet_file::MAX_HOSTS;

/// Variables of a host or group, as text.
pub(super) type Vars = BTreeMap<String, String>;

#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub(super) hosts: BTreeSet<String>,
    pub(super) children: BTreeSet<String>,
    pub(super) vars: Vars,
}

/// The inventory: groups, hosts in the order of the source, and their own variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Inventory {
    pub(super) groups: BTreeMap<String, Group>,
    order: Vec<String>,
    host_vars: BTreeMap<String, Vars>,
}

impl Inventory {
    /// Adds the hosts of a pattern to a group.
    pub(super) fn add(
        &mut self,
        group: &str,
        pattern: &str,
        vars: Vars,
    ) -> Result<(), ImportError> {
        for name in expand(pattern)? {
            if !self.host_vars.contains_key(&name) {
                if self.order.len() as u64 >= MAX_HOSTS {
                    return Err(ImportError::TooMany);
                }
                self.order.push(name.clone());
            }
            self.host_vars.entry(name.clone()).or_default().extend(vars.clone());
            self.groups.entry(group.to_owned()).or_default().hosts.insert(name);
        }
        Ok(())
    }

    /// The groups of each host with their distance from the top; a parent comes before its child.
    fn memberships(&self) -> BTreeMap<&str, BTreeMap<&str, usize>> {
        let mut depth: BTreeMap<&str, usize> =
            self.groups.keys().map(|group| (group.as_str(), 0)).collect();
        let mut parents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, group) in &self.groups {
            for child in &group.children {
                parents.entry(child).or_default().push(name);
            }
        }
        // Longest distance; a circle stops growing after as many rounds as there are groups.
        for _ in 0..self.groups.len() {
            let mut changed = false;
            for (child, of) in &parents {
                let above = of.iter().filter_map(|parent| depth.get(parent)).max().copied();
                let below = above.map_or(0, |above| (above + 1).min(self.groups.len()));
                if depth.get(child).is_some_and(|known| *known < below) {
                    depth.insert(child, below);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let mut found: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for (name, group) in &self.groups {
            // This group and everything above it.
            let mut above: BTreeSet<&str> = BTreeSet::new();
            let mut open = vec![name.as_str()];
            while let Some(next) = open.pop() {
                if above.insert(next) {
                    open.extend(parents.get(next).into_iter().flatten());
                }
            }
            for host in &group.hosts {
                let of = found.entry(host).or_default();
                of.extend(
                    above.iter().map(|group| (*group, depth.get(group).copied().unwrap_or(0))),
                );
            }
        }
        found
    }
}

/// Applies the variables, `all` first, then groups from the top down, then the host's own.
pub(super) fn draft(inventory: Inventory) -> Draft {
    let memberships = inventory.memberships();
    let nothing = BTreeMap::new();
    let mut draft = Draft::default();
    for name in &inventory.order {
        let member_of = memberships.get(name.as_str()).unwrap_or(&nothing);
        let mut groups: Vec<(&str, usize)> = member_of.iter().map(|(g, d)| (*g, *d)).collect();
        groups.sort_by_key(|(group, depth)| (*group != "all", *depth, *group));
        let mut vars = Vars::new();
        if !member_of.contains_key("all") {
            vars.extend(
                inventory.groups.get("all").map(|all| all.vars.clone()).unwrap_or_default(),
            );
        }
        for (group, _) in &groups {
            vars.extend(inventory.groups.get(*group).map(|g| g.vars.clone()).unwrap_or_default());
        }
        vars.extend(inventory.host_vars.get(name).cloned().unwrap_or_default());
        let mut server = DraftServer { name: name.clone(), ..DraftServer::default() };
        let labels = groups.iter().filter(|(group, _)| !matches!(*group, "all" | "ungrouped"));
        server.groups = labels.map(|(group, _)| (*group).to_owned()).collect();
        match apply(&mut server, &vars) {
            true => draft.hosts.push(server),
            false => draft.notes.push(format!("{name}: its connection is not SSH")),
        }
    }
    draft
}

/// Expands `web[01:16]`, `db[a:c]` and strides `[0:10:2]`.
fn expand(pattern: &str) -> Result<Vec<String>, ImportError> {
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some((head, tail)) = rest.split_once('[') {
        // `[::1]` is an address.
        let Some((body, after)) = tail.split_once(']').filter(|(body, _)| is_range(body)) else {
            break;
        };
        let items = expand_range(body).ok_or(ImportError::TooMany)?;
        if (done.len() as u64).saturating_mul(items.len() as u64) > MAX_HOSTS {
            return Err(ImportError::TooMany);
        }
        done = done
            .iter()
            .flat_map(|start| items.iter().map(move |item| format!("{start}{head}{item}")))
            .collect();
        rest = after;
    }
    for name in &mut done {
        name.push_str(rest);
    }
    Ok(done)
}

fn is_range(body: &str) -> bool {
    let parts: Vec<&str> = body.split(':').collect();
    let number =
        |text: &&str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let letter = |text: &&str| text.len() == 1 && text.bytes().all(|b| b.is_ascii_alphabetic());
    match parts.as_slice() {
        [low, high] => {
            [low, high].iter().all(|t| number(t)) || [low, high].iter().all(|t| letter(t))
        }
        [low, high, step] => [low, high, step].iter().all(|t| number(t)),
        _ => false,
    }
}

/// The items of a range; none if there are too many.
fn expand_range(body: &str) -> Option<Vec<String>> {
    let mut parts = body.split(':');
    let (low, high) = (parts.next()?, parts.next()?);
    let step: usize = parts.next().map_or(Some(1), |step| step.parse().ok())?.max(1);
    match (low.parse::<u32>(), high.parse::<u32>()) {
        (Ok(first), Ok(last)) => {
            let width = if low.starts_with('0') { low.len() } else { 0 };
            let numbers = (first..=last).step_by(step);
            let few = numbers.size_hint().0 as u64 <= MAX_HOSTS;
            few.then(|| numbers.map(|number| format!("{number:0width$}")).collect())
        }
        _ => {
            let (first, last) = (low.chars().next()?, high.chars().next()?);
            Some((first..=last).filter(char::is_ascii_alphabetic).map(String::from).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ansible_ranges_expand() {
        let expand = |pattern| expand(pattern).unwrap();
        assert_eq!(expand("web[08:10]"), ["web08", "web09", "web10"]);
        assert_eq!(expand("web[1:5:2].x"), ["web1.x", "web3.x", "web5.x"]);
        assert_eq!(expand("db[a:c]"), ["dba", "dbb", "dbc"]);
        assert_eq!(expand("r[1:2]n[1:2]"), ["r1n1", "r1n2", "r2n1", "r2n2"]);
        assert_eq!(expand("[::1]"), ["[::1]"]);
    }

    #[test]
    fn a_huge_range_is_refused_before_it_is_made() {
        assert!(matches!(expand("h[0:999999999]"), Err(ImportError::TooMany)));
        assert!(matches!(expand("h[0:999][0:999]"), Err(ImportError::TooMany)));
    }
}
