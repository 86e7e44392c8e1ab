//! The stream as a follower reads it: batches, each with the numbers that it covers.

use durward_contract::{News, Sequence, wire};
use redis::Value;

/// One item of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub first: Sequence,
    pub last: Sequence,
    /// Fewer than its numbers where some were purged.
    pub news: Vec<News>,
    /// How many entries could not be read.
    pub unreadable: usize,
}

/// `[[key, [[id, [field, value, ..]], ..]]]`; nothing where it is something else.
pub(crate) fn read_batches(reply: Value) -> Option<Vec<Batch>> {
    let Value::Array(streams) = reply else { return None };
    let [Value::Array(stream)] = streams.as_slice() else {
        return None;
    };
    let [_, Value::Array(items)] = stream.as_slice() else {
        return None;
    };
    items.iter().map(read_batch).collect()
}

fn read_batch(item: &Value) -> Option<Batch> {
    let Value::Array(parts) = item else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = parts.as_slice() else {
        return None;
    };
    let last = std::str::from_utf8(id).ok()?.strip_suffix("-0")?.parse().ok()?;
    let (head, entries) = fields.split_at_checked(2)?;
    let [Value::BulkString(name), Value::BulkString(first)] = head else {
        return None;
    };
    let first = std::str::from_utf8(first).ok()?.parse().ok()?;
    if name != b"first" || first > last || entries.len() % 2 != 0 {
        return None;
    }
    let mut batch = Batch {
        first: Sequence(first),
        last: Sequence(last),
        news: Vec::with_capacity(entries.len() / 2),
        unreadable: 0,
    };
    let mut highest = first.checked_sub(1)?;
    for pair in entries.chunks_exact(2) {
        let [Value::BulkString(name), Value::BulkString(text)] = pair else {
            return None;
        };
        match wire::decode(text) {
            Ok(news) if name == b"e" => {
                // Numbers that do not rise within the batch are not what was published.
                let sequence = news.sequence().0;
                if sequence <= highest || sequence > last {
                    return None;
                }
                highest = sequence;
                batch.news.push(news);
            }
            _ => batch.unreadable += 1,
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use durward_contract::{Bar, RevocationEntry, Target};

    use super::*;

    fn bulk(text: impl Into<Vec<u8>>) -> Value {
        Value::BulkString(text.into())
    }

    fn ban(sequence: u64) -> News {
        News::Revocation(RevocationEntry {
            sequence: Sequence(sequence),
            issuer: "i".into(),
            target: Target::User("u".into()),
            bar: Bar::Always,
            forget_at: None,
        })
    }

    fn item(id: &str, first: &str, entries: &[Value]) -> Value {
        let mut fields = vec![bulk("first"), bulk(first)];
        for entry in entries {
            fields.extend([bulk("e"), entry.clone()]);
        }
        Value::Array(vec![bulk(id), Value::Array(fields)])
    }

    fn text(sequence: u64) -> Value {
        bulk(wire::encode(&ban(sequence)))
    }

    #[test]
    fn a_batch_is_read_and_may_have_holes() {
        let batch = read_batch(&item("9-0", "5", &[text(6), text(8)])).unwrap();
        assert_eq!(
            (batch.first, batch.last, batch.unreadable),
            (Sequence(5), Sequence(9), 0)
        );
        assert_eq!(batch.news, [ban(6), ban(8)]);
        let newer = read_batch(&item("9-0", "9", &[bulk("[\"z\",9]")])).unwrap();
        assert_eq!((newer.news.len(), newer.unreadable), (0, 1));
    }

    #[test]
    fn what_nobody_published_is_no_batch() {
        for item in [
            item("9-1", "5", &[]),
            item("9", "5", &[]),
            item("4-0", "5", &[]),
            item("0-0", "0", &[]),
            item("9-0", "x", &[]),
            item("9-0", "5", &[text(4)]),
            item("9-0", "5", &[text(10)]),
            item("9-0", "5", &[text(6), text(6)]),
            Value::Nil,
            Value::Array(vec![bulk("9-0"), Value::Nil]),
            Value::Array(vec![bulk("9-0"), Value::Array(vec![bulk("first")])]),
        ] {
            assert_eq!(read_batch(&item), None, "{item:?}");
        }
        assert_eq!(read_batches(Value::Okay), None);
    }
}
