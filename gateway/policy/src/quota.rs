//! Rates, and the generic cell rate algorithm that keeps to them: pure arithmetic on one number a
//! client.
//!
//! The number is the instant at which the client's quota is whole again, in nanoseconds of any clock
//! that never goes backwards. What was never seen, or lies in the past, is a whole quota. In any time
//! `t` no more than `burst + rate * t` are let through.

use std::fmt;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Section};

/// The largest number of a rate, whatever its unit.
pub const MAX_RATE: u32 = 1_000_000;
/// The longest time that a spent quota may take to be whole again.
pub const MAX_QUOTA_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

const ADVICE: &str = "write a number and a unit: 10/s, 100/m, 1000/h or 10000/d";

/// So many of something a second, minute, hour or day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: Duration,
}

/// How much a client may do at once, and how fast that comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The nanoseconds after which one comes back, rounded up.
    interval: u64,
    burst: u32,
}

/// A quota after something was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When it is whole again: the number to keep.
    pub whole_at: u64,
    /// How many more would be let through at once.
    pub remaining: u32,
    /// How long until it is whole again.
    pub whole_in: Duration,
}

/// A quota that is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// How long until one would be let through.
    pub retry_in: Duration,
    /// How long until it is whole again.
    pub whole_in: Duration,
}

impl Rate {
    /// Of a number from 1 to [`MAX_RATE`] and a unit.
    pub const fn new(count: u32, unit: Duration) -> Self {
        Self { count, unit }
    }

    /// Reads `100/m`.
    pub fn compile(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Self> {
        let text = node.text(what, diagnostics)?;
        let parsed = parse(text);
        if parsed.is_none() {
            let message = format!("{what} is no rate from 1 to {MAX_RATE} a unit: `{text}`");
            diagnostics.error(node.place, message, ADVICE);
        }
        parsed
    }

    /// What comes back within the rate's unit.
    pub const fn count(self) -> u32 {
        self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit.as_secs() {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

fn parse(text: &str) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = count
        .parse()
        .ok()
        .filter(|count| (1..=MAX_RATE).contains(count))?;
    Some(Rate::new(count, Duration::from_secs(seconds)))
}

impl Quota {
    /// At most `burst` (at least 1) at once, which come back at `rate`.
    pub const fn new(rate: Rate, burst: u32) -> Self {
        let unit = rate.unit.as_secs() * 1_000_000_000;
        Self {
            interval: unit.div_ceil(rate.count as u64),
            burst,
        }
    }

    /// Reads `rate`, which is required, and `burst`: by default as many as the rate has in its unit.
    pub fn compile(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let place = section.place();
        let rate = section.required("rate", ADVICE, diagnostics);
        let burst = section.optional("burst");
        let rate = rate.and_then(|node| Rate::compile(node, "`rate`", diagnostics));
        let burst = match burst {
            Some(node) => Some(
                node.integer("`burst`", 1..=i64::from(MAX_RATE), diagnostics)
                    .and_then(|burst| u32::try_from(burst).ok())?,
            ),
            None => None,
        };
        let rate = rate?;
        let quota = Self::new(rate, burst.unwrap_or(rate.count));
        if quota.window() > MAX_QUOTA_WINDOW {
            let days = MAX_QUOTA_WINDOW.as_secs() / 86_400;
            let message =
                format!("at `rate: {rate}` such a `burst` takes longer than {days} days to come back");
            diagnostics.error(place, message, "write a smaller `burst`, or a higher `rate`");
            return None;
        }
        Some(quota)
    }

    /// How many are let through at once.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// The time after which one comes back.
    pub const fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// The time in which a spent quota is whole again.
    pub const fn window(self) -> Duration {
        Duration::from_nanos(self.interval.saturating_mul(self.burst as u64))
    }

    /// Takes one at `now` from a quota that is whole at `whole_at`.
    pub fn take(self, whole_at: u64, now: u64) -> Result<Taken, Spent> {
        let owed = self.owed(whole_at, now);
        let tolerance = self.tolerance();
        if owed > tolerance {
            return Err(self.spent(owed));
        }
        let remaining = (tolerance - owed) / self.interval;
        Ok(Taken {
            whole_at: now.saturating_add(owed).saturating_add(self.interval),
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            whole_in: Duration::from_nanos(owed + self.interval),
        })
    }

    /// Whether one would be let through at `now`.
    pub fn check(self, whole_at: u64, now: u64) -> Result<(), Spent> {
        let owed = self.owed(whole_at, now);
        if owed > self.tolerance() {
            return Err(self.spent(owed));
        }
        Ok(())
    }

    /// For a store that counts by microseconds: the time after which one comes back, rounded up, and what
    /// may be owed where one is still let through.
    pub const fn microseconds(self) -> (u64, u64) {
        let interval = self.interval.div_ceil(1000);
        (interval, interval * (self.burst as u64 - 1))
    }

    /// What such a store's answer means: whether it let one through, and what is owed then. There is no
    /// number to keep.
    pub fn told(self, passed: bool, owed: Duration) -> Result<Taken, Spent> {
        let owed = u64::try_from(owed.as_nanos()).unwrap_or(u64::MAX);
        if !passed {
            return Err(Spent {
                retry_in: Duration::from_nanos(owed.saturating_sub(self.tolerance())),
                whole_in: Duration::from_nanos(owed),
            });
        }
        let remaining = (self.tolerance() + self.interval).saturating_sub(owed) / self.interval;
        Ok(Taken {
            whole_at: 0,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            whole_in: Duration::from_nanos(owed),
        })
    }

    /// What was taken and has not come back. No more than all of it, though it may have been taken
    /// from a larger quota that the same client had before.
    fn owed(self, whole_at: u64, now: u64) -> u64 {
        whole_at.saturating_sub(now).min(self.tolerance() + self.interval)
    }

    fn tolerance(self) -> u64 {
        self.interval * u64::from(self.burst - 1)
    }

    fn spent(self, owed: u64) -> Spent {
        Spent {
            retry_in: Duration::from_nanos(owed - self.tolerance()),
            whole_in: Duration::from_nanos(owed),
        }
    }
}

impl Spent {
    /// The value of Retry-After (RFC 9110 section 10.2.3): whole seconds, after which it is worth it.
    pub fn retry_after(&self) -> u32 {
        whole_seconds(self.retry_in).max(1)
    }
}

/// Seconds, rounded up.
pub fn whole_seconds(duration: Duration) -> u32 {
    let up = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs() + up).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use durward_config::Document;
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn quota(text: &str, burst: u32) -> Quota {
        Quota::new(parse(text).unwrap(), burst)
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for (text, interval) in [
            ("1/s", SECOND),
            ("100/m", SECOND * 6 / 10),
            ("3/s", 333_333_334),
            ("1000000/s", 1000),
            ("24/d", 3600 * SECOND),
        ] {
            assert_eq!(quota(text, 1).interval, interval, "{text}");
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "1",
            "/s",
            "0/s",
            "1/",
            "1/min",
            "+1/s",
            "1.5/s",
            "1000001/s",
            "1 /s",
            "1/s ",
            "x/s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    fn compile(text: &str) -> (Option<Quota>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("it", &mut diagnostics).unwrap();
        let quota = Quota::compile(&mut section, &mut diagnostics);
        section.finish(&mut diagnostics);
        (quota, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn the_burst_is_the_number_of_the_rate_where_it_is_not_said() {
        assert_eq!(compile("rate: 100/m\n").0.unwrap().burst(), 100);
        assert_eq!(compile("{ rate: 100/m, burst: 20 }").0.unwrap().burst(), 20);
        for (text, expected) in [
            ("{ burst: 1 }", "`rate` is missing"),
            ("rate: 100", "`rate` must be text"),
            (
                "rate: often",
                "`rate` is no rate from 1 to 1000000 a unit: `often`",
            ),
            ("{ rate: 1/s, burst: 0 }", "`burst` is out of range"),
            (
                "{ rate: 1/d, burst: 31 }",
                "takes longer than 30 days to come back",
            ),
            ("{ rate: 1/s, bursts: 3 }", "did you mean `burst`?"),
        ] {
            let (_, said) = compile(text);
            assert!(said.contains(expected), "{expected} is not in\n{said}");
        }
    }

    #[test]
    fn a_burst_passes_at_once_and_comes_back_one_by_one() {
        let quota = quota("1/s", 3);
        let mut whole_at = 0;
        let now = 100 * SECOND;
        for remaining in [2, 1, 0] {
            let taken = quota.take(whole_at, now).unwrap();
            assert_eq!(taken.remaining, remaining);
            whole_at = taken.whole_at;
        }
        let spent = quota.take(whole_at, now).unwrap_err();
        assert_eq!(spent.retry_after(), 1);
        assert_eq!(spent.whole_in, Duration::from_secs(3));
        assert_eq!(quota.check(whole_at, now), Err(spent));
        assert!(quota.take(whole_at, now + SECOND - 1).is_err());
        let taken = quota.take(whole_at, now + SECOND).unwrap();
        assert!(quota.take(taken.whole_at, now + SECOND).is_err());
        assert_eq!(quota.take(whole_at, now + 3 * SECOND).unwrap().remaining, 2);
    }

    #[test]
    fn what_is_owed_to_a_larger_quota_is_owed_no_longer_than_the_own_one_lasts() {
        let small = quota("1/s", 2);
        let spent = small.take(1_000_000 * SECOND, 0).unwrap_err();
        assert_eq!(spent.whole_in, small.window());
        assert_eq!(spent.retry_in, Duration::from_secs(1));
    }

    #[test]
    fn a_store_that_counts_is_understood() {
        let quota = quota("3/s", 3);
        assert_eq!(quota.microseconds(), (333_334, 666_668));
        let taken = quota.told(true, Duration::from_micros(333_334)).unwrap();
        assert_eq!((taken.remaining, taken.whole_in.as_micros()), (1, 333_334));
        assert_eq!(quota.told(true, Duration::from_secs(9)).unwrap().remaining, 0);
        let spent = quota.told(false, Duration::from_micros(1_000_002)).unwrap_err();
        assert_eq!(spent.retry_after(), 1);
        assert_eq!(spent.whole_in.as_micros(), 1_000_002);
    }

    proptest! {
        #[test]
        fn no_window_lets_more_through_than_burst_and_rate(
            count in 1_u32..2000,
            unit in prop::sample::select(vec![1_u64, 60, 3600]),
            burst in 1_u32..50,
            pauses in prop::collection::vec(0_u64..3 * SECOND, 1..120),
        ) {
            let quota = Quota::new(Rate::new(count, Duration::from_secs(unit)), burst);
            let (mut now, mut whole_at, mut passed) = (0, 0, Vec::new());
            for pause in pauses {
                now += pause;
                match quota.take(whole_at, now) {
                    Ok(taken) => {
                        prop_assert!(taken.whole_at > whole_at);
                        prop_assert!(taken.whole_in <= quota.window());
                        prop_assert!(quota.check(whole_at, now).is_ok());
                        whole_at = taken.whole_at;
                        passed.push(now);
                    }
                    Err(spent) => {
                        let wait = u64::try_from(spent.retry_in.as_nanos()).unwrap();
                        prop_assert!(wait > 0);
                        prop_assert!(quota.check(whole_at, now + wait - 1).is_err());
                        prop_assert!(quota.check(whole_at, now + wait).is_ok());
                    }
                }
            }
            for (index, start) in passed.iter().enumerate() {
                for (more, end) in passed[index..].iter().enumerate() {
                    let allowed = u128::from(burst)
                        + u128::from(end - start) * u128::from(count) / (u128::from(unit) * u128::from(SECOND));
                    prop_assert!((more as u128) < allowed, "{} within {}", more + 1, end - start);
                }
            }
        }
    }
}
