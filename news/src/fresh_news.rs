//! What this process has committed itself and not published yet: SQL need not be asked for it.
//!
//! Only a shortcut. Nothing relies on its being there: whatever is missing is read from SQL.

use durward_contract::News;
use parking_lot::Mutex;

use crate::protocol::BATCH_ENTRIES;

/// The most that waits here. A revocation of many at once, or of a time without Redis, is read from SQL.
const MAX_WAITING: usize = BATCH_ENTRIES as usize;

/// News on its way from a commit to the publisher's task.
#[derive(Debug, Default)]
pub(crate) struct FreshNews(Mutex<Waiting>);

/// What has come since it was last taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// In the order of their numbers. Some between may be missing: others have committed them.
    pub news: Vec<News>,
    /// Whether SQL has more.
    pub more_in_sql: bool,
}

impl FreshNews {
    /// Adds what was committed, in order; nothing where that is not known.
    pub(crate) fn add(&self, news: &[News]) {
        let mut waiting = self.0.lock();
        let is_next = match (waiting.news.last(), news.first()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(last), Some(first)) => first.sequence() > last.sequence(),
        };
        if !is_next {
            waiting.more_in_sql = true;
        } else if waiting.news.len() + news.len() > MAX_WAITING {
            waiting.news.clear();
            waiting.more_in_sql = true;
        } else {
            waiting.news.extend_from_slice(news);
        }
    }

    pub(crate) fn take(&self) -> Waiting {
        std::mem::take(&mut self.0.lock())
    }
}

/// The beginning of `news` whose numbers follow each other.
pub(crate) fn first_run(news: &[News]) -> &[News] {
    let follows = |(before, next): &(&News, &News)| next.sequence().0 == before.sequence().0 + 1;
    let steps = news.iter().zip(news.iter().skip(1)).take_while(follows).count();
    &news[..news.len().min(steps + 1)]
}

#[cfg(test)]
mod tests {
    use durward_contract::{Bar, RevocationEntry, Sequence, Target};

    use super::*;

    fn news(numbers: &[u64]) -> Vec<News> {
        let ban = |number: &u64| {
            News::Revocation(RevocationEntry {
                sequence: Sequence(*number),
                issuer: "i".into(),
                target: Target::User("u".into()),
                bar: Bar::Always,
                forget_at: None,
            })
        };
        numbers.iter().map(ban).collect()
    }

    fn waiting(numbers: &[u64], more_in_sql: bool) -> Waiting {
        let news = news(numbers);
        Waiting { news, more_in_sql }
    }

    #[test]
    fn it_waits_in_order_and_once() {
        let fresh = FreshNews::default();
        assert_eq!(fresh.take(), waiting(&[], false));
        fresh.add(&news(&[3, 4]));
        fresh.add(&news(&[7]));
        assert_eq!(fresh.take(), waiting(&[3, 4, 7], false));
        assert_eq!(fresh.take(), waiting(&[], false));
    }

    #[test]
    fn what_is_not_known_here_is_in_sql() {
        let fresh = FreshNews::default();
        fresh.add(&news(&[3]));
        fresh.add(&[]);
        assert_eq!(fresh.take(), waiting(&[3], true));
        fresh.add(&news(&[5]));
        fresh.add(&news(&[4]));
        assert_eq!(fresh.take(), waiting(&[5], true), "the log went back");
        fresh.add(&news(&[1]));
        let many: Vec<u64> = (2..).take(MAX_WAITING).collect();
        fresh.add(&news(&many));
        assert_eq!(fresh.take(), waiting(&[], true));
    }

    #[test]
    fn a_run_ends_where_a_number_is_missing() {
        for (numbers, run) in [
            (&[][..], 0),
            (&[9], 1),
            (&[9, 10, 11], 3),
            (&[9, 10, 12, 13], 2),
            (&[9, 11], 1),
        ] {
            assert_eq!(first_run(&news(numbers)).len(), run, "{numbers:?}");
        }
    }
}
