//! One batch of the log on its way into Redis.

use durward_contract::{News, Sequence};

use crate::dial::Node;
use crate::protocol::{EpochKeys, Keys, PUBLISH, push_batch};
use crate::store_error::StoreError;

/// What came of a batch.
pub(crate) enum Published {
    Ok,
    /// The head is another one.
    Head(Sequence),
    /// The epoch is another one.
    Epoch,
    Damaged,
}

/// Entries that go in one script call, and what they follow.
pub(crate) struct Batch {
    after: Sequence,
    /// As the script takes them.
    entries: Vec<String>,
    /// The entries' last number or, where the log's last entries were purged, the log's.
    pub last: Sequence,
}

impl Batch {
    /// Cuts off what fits. `end` is the log's head where `rest` is all that is left.
    pub(crate) fn cut(after: Sequence, rest: &mut &[News], end: Option<Sequence>) -> Self {
        let mut entries = Vec::new();
        let last = push_batch(&mut entries, rest).unwrap_or(after);
        let last = match end {
            Some(end) if rest.is_empty() => last.max(end),
            _ => last,
        };
        Self { after, entries, last }
    }

    /// Appends it, if Redis is still where it follows.
    pub(crate) async fn publish(
        self,
        node: &mut Node,
        keys: &Keys,
        epoch: &EpochKeys,
        stream_entries: u32,
    ) -> Result<Published, StoreError> {
        let mut arguments = vec![
            epoch.epoch.clone(),
            self.after.0.to_string(),
            (self.after.0 + 1).to_string(),
            self.last.0.to_string(),
            stream_entries.to_string(),
        ];
        arguments.extend(self.entries);
        let script_keys = [
            keys.meta.as_str(),
            epoch.entries.as_str(),
            epoch.expiry.as_str(),
            epoch.stream.as_str(),
        ];
        let (word, value): (String, String) = PUBLISH.run(node, &script_keys, &arguments).await?;
        match word.as_str() {
            "ok" => Ok(Published::Ok),
            "head" => match value.parse() {
                Ok(head) => Ok(Published::Head(Sequence(head))),
                Err(_) => Ok(Published::Damaged),
            },
            "epoch" => Ok(Published::Epoch),
            "damaged" => Ok(Published::Damaged),
            _ => Err(StoreError::unexpected("publishing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use durward_contract::{Bar, RevocationEntry, Target};

    use super::*;
    use crate::protocol::{BATCH_BYTES, BATCH_ENTRIES, ENTRY_ARGUMENTS};

    fn ban(sequence: u64, id: usize) -> News {
        News::Revocation(RevocationEntry {
            sequence: Sequence(sequence),
            issuer: "i".into(),
            target: Target::User("u".repeat(id)),
            bar: Bar::Always,
            forget_at: None,
        })
    }

    #[test]
    fn a_batch_is_bounded_and_holds_at_least_one_entry() {
        let large: Vec<News> = (1..=9).map(|sequence| ban(sequence, 60 << 10)).collect();
        let mut rest = large.as_slice();
        let batch = Batch::cut(Sequence(0), &mut rest, Some(Sequence(9)));
        assert_eq!(
            (batch.entries.len(), batch.last, rest.len()),
            (4 * ENTRY_ARGUMENTS, Sequence(4), 5)
        );
        let huge = [ban(1, BATCH_BYTES * 2), ban(2, 1)];
        let mut rest = huge.as_slice();
        let batch = Batch::cut(Sequence(0), &mut rest, None);
        assert_eq!(
            (batch.entries.len(), batch.last, rest.len()),
            (ENTRY_ARGUMENTS, Sequence(1), 1)
        );
        let many: Vec<News> = (1..=u64::from(BATCH_ENTRIES) + 1)
            .map(|sequence| ban(sequence, 1))
            .collect();
        let mut rest = many.as_slice();
        Batch::cut(Sequence(0), &mut rest, None);
        assert_eq!(rest.len(), 1);
    }

    #[test]
    fn the_last_batch_covers_numbers_whose_rows_are_gone() {
        let some = [ban(3, 1)];
        let mut rest = some.as_slice();
        assert_eq!(
            Batch::cut(Sequence(1), &mut rest, Some(Sequence(7))).last,
            Sequence(7)
        );
        let mut rest = some.as_slice();
        assert_eq!(
            Batch::cut(Sequence(1), &mut rest, Some(Sequence(0))).last,
            Sequence(3)
        );
        let mut rest = some.as_slice();
        assert_eq!(Batch::cut(Sequence(1), &mut rest, None).last, Sequence(3));
        let mut none = &some[..0];
        assert_eq!(
            Batch::cut(Sequence(1), &mut none, Some(Sequence(7))).last,
            Sequence(7)
        );
    }
}
