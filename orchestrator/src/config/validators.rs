//! `[validator_challenges]`, `[validator_containers]`: what validators may have done on hosts.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::Keys;
use crate::byte_size;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[validator_challenges]`: challenges of GPUs with the validator's own nonces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorChallenges {
    /// Whether there are any.
    pub enabled: bool,
    /// How many one validator may have under way.
    pub max_per_validator: usize,
    /// How many one validator may begin within `rate_limit_window`.
    pub rate_limit: usize,
    /// See [`Self::rate_limit`].
    pub rate_limit_window: Duration,
    /// How long a validator may take for the nonce of the next round.
    pub round_timeout: Duration,
    /// The model table; `None` is the built-in one.
    pub models: Option<PathBuf>,
}

pub(super) fn challenges(keys: &Keys<'_, '_>) -> ValidatorChallenges {
    // A GPU does nothing else meanwhile, and the lease that holds it lasts half an hour.
    let round = Duration::from_millis(100)..=Duration::from_secs(300);
    ValidatorChallenges {
        enabled: keys.flag("enabled", true),
        max_per_validator: keys.count("max_per_validator", 1..=1024, 4),
        rate_limit: keys.count("rate_limit", 1..=100_000, 60),
        rate_limit_window: keys.time("rate_limit_window", Duration::from_secs(60)..=DAY, HOUR),
        round_timeout: keys.time("round_timeout", round, Duration::from_secs(30)),
        models: keys.path("models"),
    }
}

/// `[validator_containers]`: containers that validators run on their hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorContainers {
    /// Whether there are any.
    pub enabled: bool,
    /// What may be run.
    pub images: Vec<ImageRule>,
    /// When an image is pulled.
    pub pull: PullPolicy,
    /// Whether they have a network besides their own loopback.
    pub network: bool,
    /// How many of one validator may run at a time.
    pub max_per_validator: usize,
    /// How many one validator may start within `rate_limit_window`.
    pub rate_limit: usize,
    /// See [`Self::rate_limit`].
    pub rate_limit_window: Duration,
    /// The most GPUs of one.
    pub gpus: usize,
    /// The most memory of one, bytes; also what it gets unless it asks for less.
    pub memory_bytes: u64,
    /// The most processors of one, likewise.
    pub cpus: u64,
    /// The most processes of one.
    pub pids: u64,
    /// The longest that one may run, likewise.
    pub timeout: Duration,
    /// How long after its time limit one that has ended is kept, for its log to be read.
    pub keep_ended: Duration,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the host does not have it.
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which images may be run: one by its whole name, or all whose names begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRule {
    /// This one, with its tag or digest.
    Exactly(String),
    /// `path/*`: everything below it.
    Below(String),
    /// `name:*`: every tag of it.
    Tagged(String),
}

impl ImageRule {
    /// Reads a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/@".contains(&b))
                && text.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        let (name, rule) = match (text.strip_suffix("/*"), text.strip_suffix(":*")) {
            (Some(path), _) => (path, Self::Below(format!("{path}/"))),
            (_, Some(name)) => (name, Self::Tagged(format!("{name}:"))),
            (None, None) => {
                let last = text.rsplit('/').next().unwrap_or_default();
                let latest = if last.contains([':', '@']) { "" } else { ":latest" };
                (text, Self::Exactly(format!("{text}{latest}")))
            }
        };
        if plain(name) {
            return Ok(rule);
        }
        Err(format!("{text:?} is neither an image (registry/path:tag) nor `path/*` nor `name:*`"))
    }

    /// Whether it allows an image, by its whole name.
    #[must_use]
    pub fn allows(&self, image: &str) -> bool {
        match self {
            Self::Exactly(name) => name == image,
            Self::Below(path) => image.starts_with(path.as_str()),
            // What comes after the port of a registry is no tag; with a digest it is another image
            // than the tag says.
            Self::Tagged(name) => {
                image.strip_prefix(name.as_str()).is_some_and(|tag| !tag.contains(['/', '@']))
            }
        }
    }
}

pub(super) fn containers(keys: &Keys<'_, '_>) -> ValidatorContainers {
    let pulls = [
        ("missing", PullPolicy::Missing),
        ("always", PullPolicy::Always),
        ("never", PullPolicy::Never),
    ];
    let memory = |text: &str| match byte_size::parse(text) {
        // The engine takes no less than 6 MiB.
        Ok(bytes) if bytes >= 6 << 20 => Ok(bytes),
        Ok(_) => Err("it must be 6M at least".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let config = ValidatorContainers {
        enabled: keys.flag("enabled", false),
        images: images(keys),
        pull: keys.choice("pull", &pulls, "missing", PullPolicy::Missing),
        network: keys.choice("network", &[("none", false), ("bridge", true)], "none", false),
        max_per_validator: keys.count("max_per_validator", 1..=1024, 4),
        rate_limit: keys.count("rate_limit", 1..=100_000, 60),
        rate_limit_window: keys.time("rate_limit_window", Duration::from_secs(60)..=DAY, HOUR),
        gpus: keys.count("gpus", 0..=64, 8),
        memory_bytes: keys.parsed("memory", "16G", false, memory, || 16 << 30),
        cpus: keys.count("cpus", 1..=4096, 8),
        pids: keys.count("pids", 16..=4096, 1024),
        timeout: keys.time("timeout", Duration::from_secs(1)..=DAY * 7, HOUR),
        keep_ended: keys.time("keep_ended", Duration::from_secs(1)..=DAY * 7, HOUR),
    };
    if config.enabled && config.images.is_empty() {
        let span = keys.section().map(|section| section.key_span("enabled"));
        let message = "`enabled` needs `images`: without any there is nothing to run";
        keys.problems().error(span.unwrap_or_default(), message);
    }
    config
}

fn images(keys: &Keys<'_, '_>) -> Vec<ImageRule> {
    let mut rules = Vec::new();
    for text in keys.texts("images", &[]) {
        match ImageRule::parse(&text) {
            Ok(rule) => rules.push(rule),
            Err(error) => {
                let span = keys.section().map(|section| section.key_span("images"));
                keys.problems().error(span.unwrap_or_default(), format!("`images`: {error}"));
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_allowed_by_its_name_its_folder_or_its_tags() {
        for (rule, allowed, refused) in [
            ("busybox", vec!["busybox:latest"], vec!["busybox:1", "busybox2:latest"]),
            ("a.io/b:1", vec!["a.io/b:1"], vec!["a.io/b:2", "a.io/b:1@sha256:00"]),
            (
                "a.io/*",
                vec!["a.io/b:1", "a.io/b/c@sha256:00"],
                vec!["a.io.evil/b:1", "a.io:5000/b:1"],
            ),
            ("a.io/b:*", vec!["a.io/b:1"], vec!["a.io/b/c:1", "a.io/bc:1", "a.io/b:1@sha256:00"]),
            // A registry's port is no tag.
            ("host:*", vec!["host:1"], vec!["host:5000/evil:1"]),
        ] {
            let parsed = ImageRule::parse(rule).unwrap();
            assert!(allowed.iter().all(|image| parsed.allows(image)), "{rule}");
            assert!(!refused.iter().any(|image| parsed.allows(image)), "{rule}");
        }
        for text in ["", "*", "/*", ":*", "a*", "a/../*", "a//b", "a b", "a/*/b"] {
            assert!(ImageRule::parse(text).is_err(), "{text}");
        }
    }
}
