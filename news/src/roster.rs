//! Which gateways there are: by their reports in Redis, and by what was heard of them before.
//!
//! Redis may lose the reports with everything else. Who was known then and has not reported since is
//! no less there: nobody may say of it that it refuses somebody.

use std::collections::{BTreeMap, HashMap, HashSet};

use redis::cmd;

use crate::dial::Node;
use crate::protocol::{Keys, Report, read};
use crate::store_error::StoreError;

/// Ticks of silence after which a gateway counts as gone, for each publisher.
pub(crate) const GONE_AFTER_TICKS: u32 = 30;
/// The most gateways that are told apart.
pub(crate) const MAX_GATEWAYS: usize = 10_000;

/// The gateways that this publisher has heard of, by id.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    known: HashMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    /// The tick of its last report, as it stands there: whoever lives changes it.
    tick: String,
    /// For how many of our cycles it has not changed.
    silent: u32,
}

impl Roster {
    /// Takes note of who is there and who has left in order.
    pub(crate) fn hear(&mut self, reports: &Reports) {
        for (id, said) in &reports.0 {
            let Some((tick, said)) = said else { continue };
            match said {
                Said::Left => drop(self.known.remove(id)),
                Said::Report(report) => {
                    let room = self.known.len() < MAX_GATEWAYS;
                    let news = self.known.get(id).map_or(room, |known| known.tick != *tick);
                    if news {
                        let known = Known {
                            name: report.name.clone(),
                            tick: tick.clone(),
                            silent: 0,
                        };
                        self.known.insert(id.clone(), known);
                    }
                }
            }
        }
    }

    /// The same once a cycle, which is what silence is counted in: while Redis does not answer, nobody
    /// falls silent. In Redis silence is counted in ticks, of which there is one for each cycle of each
    /// publisher, so both forget after the same time.
    pub(crate) fn hear_in_cycle(&mut self, reports: &Reports) {
        self.known.values_mut().for_each(|known| known.silent += 1);
        self.hear(reports);
        // Whose old report still stands would be taken for somebody new otherwise.
        let standing: HashSet<&str> = reports.0.iter().map(|(id, _)| id.as_str()).collect();
        self.known
            .retain(|id, known| !known.is_gone() || standing.contains(id.as_str()));
    }

    /// Everybody that was heard of lately: id and name.
    pub(crate) fn names(&self) -> BTreeMap<String, String> {
        let name = |(id, known): (&String, &Known)| (id.clone(), known.name.clone());
        self.known
            .iter()
            .filter(|(_, known)| !known.is_gone())
            .map(name)
            .collect()
    }
}

impl Known {
    fn is_gone(&self) -> bool {
        self.silent > GONE_AFTER_TICKS
    }
}

/// What stands in Redis of each gateway, by id; nothing where it cannot be read.
#[derive(Debug)]
pub(crate) struct Reports(Vec<(String, Option<(String, Said)>)>);

/// What a gateway said last.
#[derive(Debug)]
pub(crate) enum Said {
    Report(Report),
    /// It has stopped in order.
    Left,
}

impl Reports {
    fn read(raw: Vec<(String, String)>) -> Self {
        let said = |(id, text): (String, String)| {
            let (tick, rest) = text.split_once(' ').unwrap_or((&text, ""));
            let said = if rest == Report::LEFT {
                Some(Said::Left)
            } else {
                Report::read(&text).map(Said::Report)
            };
            (id, said.map(|said| (tick.to_owned(), said)))
        };
        Self(raw.into_iter().take(MAX_GATEWAYS).map(said).collect())
    }

    /// By id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Said)> {
        self.0
            .iter()
            .filter_map(|(id, said)| Some((id.as_str(), &said.as_ref()?.1)))
    }
}

/// Asks what stands there.
pub(crate) async fn ask(node: &mut Node, keys: &Keys) -> Result<Reports, StoreError> {
    Ok(Reports::read(read(
        node.ask(cmd("HGETALL").arg(&keys.gateways)).await?,
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(of: &[(&str, &str)]) -> Reports {
        let owned = |(id, text): &(&str, &str)| ((*id).to_owned(), (*text).to_owned());
        Reports::read(of.iter().map(owned).collect())
    }

    fn names(roster: &Roster) -> Vec<String> {
        roster.names().into_values().collect()
    }

    #[test]
    fn who_was_known_is_known_although_redis_lost_it() {
        let mut roster = Roster::default();
        roster.hear_in_cycle(&reports(&[("a", "7 l 1 edge a"), ("b", "7 l 1 edge b")]));
        // Lost, and one of the two is back.
        roster.hear_in_cycle(&reports(&[]));
        roster.hear(&reports(&[("a", "1 l 1 edge a")]));
        assert_eq!(names(&roster), ["edge a", "edge b"]);
        // It has been silent for as many cycles as anybody may be, the one above included.
        for tick in 2..=GONE_AFTER_TICKS {
            roster.hear_in_cycle(&reports(&[("a", &format!("{tick} l 1 edge a"))]));
            assert_eq!(names(&roster), ["edge a", "edge b"], "{tick}");
        }
        roster.hear_in_cycle(&reports(&[("a", "99 l 1 edge a")]));
        assert_eq!(names(&roster), ["edge a"]);
    }

    #[test]
    fn a_report_that_stands_still_is_silence() {
        let mut roster = Roster::default();
        for _ in 0..=GONE_AFTER_TICKS {
            roster.hear_in_cycle(&reports(&[("a", "7 l 1 edge")]));
            assert_eq!(names(&roster), ["edge"]);
        }
        for _ in 0..2 {
            roster.hear_in_cycle(&reports(&[("a", "7 l 1 edge")]));
            assert_eq!(names(&roster), [""; 0]);
        }
        roster.hear_in_cycle(&reports(&[]));
        assert!(roster.known.is_empty());
    }

    #[test]
    fn who_left_in_order_is_forgotten_and_what_cannot_be_read_says_nothing() {
        let mut roster = Roster::default();
        roster.hear(&reports(&[("a", "7 l 1 edge a"), ("b", "7 l 1 edge b")]));
        roster.hear(&reports(&[("a", "8 left"), ("b", "8 l x edge"), ("c", "")]));
        assert_eq!(names(&roster), ["edge b"]);
    }

    #[test]
    fn no_more_gateways_are_told_apart_than_the_bound() {
        let mut roster = Roster::default();
        for number in 0..=MAX_GATEWAYS {
            roster.hear(&reports(&[(&number.to_string(), "7 l 1 edge")]));
        }
        assert_eq!(roster.known.len(), MAX_GATEWAYS);
    }
}
