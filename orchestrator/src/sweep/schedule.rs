//! When a sweep is due: the five fields of cron(8), as every cron reads them.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no schedule of cron's five fields (minute hour day month weekday): {why}")]
pub struct InvalidSchedule {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// A schedule such as `*/5 * * * *`.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    fields: [String; 5],
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}
impl Eq for Schedule {}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fields.join(" "))
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let refused = |why: String| InvalidSchedule { text: text.to_owned(), why };
        let fields: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        let count = fields.len();
        let fields: [String; 5] =
            fields.try_into().map_err(|_| refused(format!("there are {count} fields")))?;
        for field in &fields {
            // What this reader would take and a cron daemon would not (L, W, #, ?).
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | ',' | '-' | '/');
            let mut words = field.split(|c: char| !c.is_ascii_alphabetic());
            let names = WEEKDAYS.iter().chain(&MONTHS);
            let named = |word: &str| names.clone().any(|name| name.eq_ignore_ascii_case(word));
            if !field.chars().all(plain) || !words.all(|word| word.is_empty() || named(word)) {
                return Err(refused(format!("cron does not know {field:?}")));
            }
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&fields.join(" ")).map_err(|error| refused(error.to_string()))?;
        Ok(Self { cron, fields })
    }
}

impl Schedule {
    /// The first time after `now_ms`, in milliseconds since the Unix epoch; fields are read in UTC.
    /// `None` where there is none, as for the 31st of February.
    #[must_use]
    pub fn next_after(&self, now_ms: i64) -> Option<i64> {
        let now = jiff::Timestamp::from_millisecond(now_ms).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
        let next = self.cron.find_next_occurrence(&now, false).ok()?;
        Some(next.timestamp().as_millisecond())
    }

    /// The shortest time between two sweeps of the next days.
    #[must_use]
    pub fn shortest_interval(&self, now_ms: i64) -> Option<Duration> {
        let mut at = self.next_after(now_ms)?;
        let mut shortest = None;
        for _ in 0..100 {
            let next = self.next_after(at)?;
            let gap = u64::try_from(next.saturating_sub(at)).ok()?;
            shortest = Some(shortest.map_or(gap, |known: u64| known.min(gap)));
            at = next;
        }
        shortest.map(Duration::from_millis)
    }

    /// The same for systemd.time(7): one or two `OnCalendar` values, since cron takes either of a
    /// day and a weekday where both are named, and systemd would take both.
    #[must_use]
    pub fn on_calendar(&self) -> Vec<String> {
        let [minute, hour, day, month, weekday] = &self.fields;
        let (minute, hour) = (span(minute, 0), span(hour, 0));
        let (day_span, month) = (span(day, 1), span(&numbered(month, &MONTHS, 1), 1));
        let time = format!("{hour}:{minute}:00");
        let by_day = format!("*-{month}-{day_span} {time}");
        let by_weekday = format!("{} *-{month}-* {time}", weekdays(weekday).join(","));
        match (day.starts_with('*'), weekday.starts_with('*')) {
            (_, true) => vec![by_day],
            (true, false) => vec![by_weekday],
            (false, false) => vec![by_day, by_weekday],
        }
    }
}

/// Names in a field as their numbers.
fn numbered(field: &str, names: &[&str], first: usize) -> String {
    let mut text = field.to_ascii_lowercase();
    for (index, name) in names.iter().enumerate() {
        text = text.replace(&name.to_ascii_lowercase(), &(index + first).to_string());
    }
    text
}

/// A field of cron as systemd writes it: `*/5` from the first value on, `1-5` with dots.
fn span(field: &str, first: u32) -> String {
    let part = |part: &str| match part.strip_prefix("*/") {
        Some(step) => format!("{first}/{step}"),
        None => part.replace('-', ".."),
    };
    field.split(',').map(part).collect::<Vec<_>>().join(",")
}

/// The days of a weekday field by name, Sunday first.
fn weekdays(field: &str) -> Vec<&'static str> {
    let field = numbered(field, &WEEKDAYS, 0);
    let mut chosen = [false; 7];
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step = step.parse::<usize>().unwrap_or(1).max(1);
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((from, to)) => (from.parse().unwrap_or(0), to.parse().unwrap_or(7)),
            None => {
                let only = range.parse::<usize>().unwrap_or(0);
                (only, if part.contains('/') { 6 } else { only })
            }
        };
        for day in (from..=to).step_by(step) {
            // Both 0 and 7 are Sunday.
            if let Some(place) = chosen.get_mut(day % 7) {
                *place = true;
            }
        }
    }
    WEEKDAYS.into_iter().zip(chosen).filter_map(|(name, on)| on.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_time_is_found() {
        // 2026-01-31 23:58:30 UTC.
        let now = 1_769_903_910_000;
        let minutes = |text| (schedule(text).next_after(now).unwrap() - (now - 30_000)) / 60_000;
        assert_eq!(minutes("*/5 * * * *"), 2);
        assert_eq!(minutes("59 23 * * *"), 1);
        assert_eq!(minutes("0 0 1 * *"), 2);
        assert_eq!(schedule("0 0 31 2 *").next_after(now), None);
        let shortest = |text| schedule(text).shortest_interval(now).unwrap().as_secs();
        assert_eq!((shortest("*/5 * * * *"), shortest("0,50 * * * *")), (300, 600));
    }

    #[test]
    fn what_cron_does_not_know_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "@hourly",
            "61 * * * *",
            "0 0 L * *",
            "0 0 * * 5#2",
            "0 0 15W * *",
            "? * * * *",
            "* * * * * 2030",
            "a b c d e",
            "*/5 * * * * ; rm",
            "0 0 * * %",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn systemd_gets_the_same_times() {
        for (cron, calendar) in [
            ("*/5 * * * *", &["*-*-* *:0/5:00"][..]),
            ("0,30 8-18 * * 1-5", &["Mon,Tue,Wed,Thu,Fri *-*-* 8..18:0,30:00"]),
            ("0 4 1 jan *", &["*-1-1 4:0:00"]),
            ("0 4 * * sun,7", &["Sun *-*-* 4:0:00"]),
            ("15 3 1,15 * 6", &["*-*-1,15 3:15:00", "Sat *-*-* 3:15:00"]),
            ("0 0 */2 * *", &["*-*-1/2 0:0:00"]),
        ] {
            assert_eq!(schedule(cron).on_calendar(), calendar, "{cron}");
        }
    }
}
