//! How fresh an attestation is, on the gateway's own monotonic clock.
//!
//! A publisher raises the tick to k, then reads SQL, then attests k. So the SQL read behind
//! attestation k began after the tick became k, and that was after any read that still saw a lower
//! tick was sent. The newest such read bounds the age from above. No other machine's clock is asked.

use std::collections::VecDeque;
use std::time::Duration;

/// How many ticks are remembered. With more publishers than this a second, freshness is coarser,
/// never too good.
const RING: usize = 256;

/// The ticks that were seen on one connection, and when the newest read that saw each was sent.
#[derive(Debug, Default)]
pub(crate) struct FreshnessRing {
    /// Ticks rise strictly, and instants do not fall.
    seen: VecDeque<(u64, Duration)>,
}

impl FreshnessRing {
    /// A read that was sent at this instant of a monotonic clock saw this tick.
    pub(crate) fn observe(&mut self, sent: Duration, tick: u64) {
        match self.seen.back_mut() {
            // The counter was lost: what was seen belongs to another one.
            Some((last, _)) if tick < *last => self.seen.clear(),
            Some((last, newest)) if tick == *last => {
                *newest = sent.max(*newest);
                return;
            }
            _ => {}
        }
        self.seen.push_back((tick, sent));
        if self.seen.len() > RING {
            self.seen.pop_front();
        }
    }

    /// From when on the attestation with this tick is known to be true; nothing where that cannot be
    /// told.
    pub(crate) fn since(&self, attested: u64) -> Option<Duration> {
        // One that has not been yet cannot have been attested.
        let (newest, _) = self.seen.back()?;
        if attested > *newest {
            return None;
        }
        let before = self.seen.partition_point(|(tick, _)| *tick < attested);
        before.checked_sub(1).map(|index| self.seen[index].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(instant: u64) -> Duration {
        Duration::from_millis(instant)
    }

    #[test]
    fn the_newest_read_that_saw_less_is_the_bound() {
        let mut ring = FreshnessRing::default();
        assert_eq!(ring.since(1), None);
        for (sent, tick) in [(0, 4), (10, 5), (20, 5), (30, 6)] {
            ring.observe(ms(sent), tick);
        }
        assert_eq!(ring.since(4), None);
        assert_eq!(ring.since(5), Some(ms(0)));
        assert_eq!(ring.since(6), Some(ms(20)));
        assert_eq!(ring.since(7), None);
        ring.observe(ms(40), 2);
        assert_eq!(ring.since(2), None);
        ring.observe(ms(50), 3);
        assert_eq!(ring.since(3), Some(ms(40)));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Begin,
        Attest(usize),
        Read { way: u64, back: u64 },
        Lose,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => Just(Event::Begin),
            3 => (0usize..4).prop_map(Event::Attest),
            6 => (0u64..5, 0u64..5).prop_map(|(way, back)| Event::Read { way, back }),
            1 => Just(Event::Lose),
        ];
        prop::collection::vec(event, 0..400)
    }

    proptest! {
        /// Against a model of Redis that knows when each SQL read really began.
        #[test]
        fn an_attestation_is_never_believed_fresher_than_its_read(events in events()) {
            let mut ring = FreshnessRing::default();
            let (mut now, mut tick, mut attested) = (0u64, 0u64, None::<(u64, u64)>);
            // Ticks that were begun and when SQL was read for them.
            let mut begun: Vec<(u64, u64)> = Vec::new();
            for event in events {
                now += 1;
                match event {
                    Event::Begin => {
                        tick += 1;
                        now += 1;
                        begun.push((tick, now));
                    }
                    Event::Attest(back) => {
                        let found = begun.len().checked_sub(back + 1).map(|index| begun[index]);
                        if let Some((tick, read)) = found && attested.is_none_or(|(top, _)| tick > top) {
                            attested = Some((tick, read));
                        }
                    }
                    Event::Read { way, back } => {
                        let sent = now;
                        now += way;
                        ring.observe(ms(sent), tick);
                        if let Some((attested, read)) = attested && let Some(since) = ring.since(attested) {
                            prop_assert!(since < ms(read), "{since:?} {read}");
                        }
                        now += back;
                    }
                    // The counter, its notes and its attestation are one key.
                    Event::Lose => {
                        (tick, attested) = (0, None);
                        begun.clear();
                    }
                }
            }
        }

        #[test]
        fn it_stays_small_and_in_order(reads in prop::collection::vec((0u64..50, 0u64..1000), 0..2000)) {
            let mut ring = FreshnessRing::default();
            let mut now = 0;
            for (pause, tick) in reads {
                now += pause;
                ring.observe(ms(now), tick);
                prop_assert!(ring.seen.len() <= RING);
                prop_assert!(ring.seen.iter().zip(ring.seen.iter().skip(1)).all(|(a, b)| a.0 < b.0 && a.1 <= b.1));
            }
        }
    }
}
