//! The `Range` header (RFC 9110, section 14), for one range of bytes.

use std::ops::Range;

/// What of a representation to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of it: 200. Also the answer to several ranges, to another unit, and
    /// to nonsense, all of which a server may ignore (section 14.2).
    Whole,
    /// These bytes, at least one: 206.
    Part(Range<u64>),
    /// Nothing that there is: 416.
    Unsatisfiable,
}

/// Selects from a representation of `length` bytes what `header` asks for.
pub(super) fn select(header: &str, length: u64) -> Selected {
    parse(header).map_or(Selected::Whole, |asked| asked.of(length))
}

/// One range as it was asked for.
enum Asked {
    /// `first-last` or `first-`.
    From { first: u64, last: u64 },
    /// `-count`: that many at the end.
    Last { count: u64 },
}

impl Asked {
    fn of(self, length: u64) -> Selected {
        let range = match self {
            Self::From { first, last } => first..last.saturating_add(1).min(length),
            Self::Last { count } => length.saturating_sub(count)..length,
        };
        if range.is_empty() {
            Selected::Unsatisfiable
        } else {
            Selected::Part(range)
        }
    }
}

fn parse(header: &str) -> Option<Asked> {
    let (unit, ranges) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = ranges.trim().split_once('-')?;
    match (first, last) {
        ("", count) => Some(Asked::Last {
            count: number(count)?,
        }),
        (first, "") => Some(Asked::From {
            first: number(first)?,
            last: u64::MAX,
        }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From { first, last })
        }
    }
}

/// Digits alone, without the `+` that Rust's parser would take. A number past
/// the largest is past the end of any file.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Selected::*, *};

    #[test]
    fn one_range_of_bytes_is_selected() {
        let cases = [
            ("bytes=0-0", Part(0..1)),
            ("bytes=0-9", Part(0..10)),
            ("bytes=2-5", Part(2..6)),
            ("bytes=9-", Part(9..10)),
            ("bytes=5-99", Part(5..10)),
            ("bytes=5-99999999999999999999999", Part(5..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-10", Part(0..10)),
            ("bytes=-99", Part(0..10)),
            ("BYTES = 1-2", Part(1..3)),
        ];
        for (header, selected) in cases {
            assert_eq!(select(header, 10), selected, "{header}");
        }
    }

    #[test]
    fn a_range_past_the_end_is_unsatisfiable() {
        let cases = [
            "bytes=10-",
            "bytes=10-20",
            "bytes=99999999999999999999-",
            "bytes=-0",
        ];
        for header in cases {
            assert_eq!(select(header, 10), Unsatisfiable, "{header}");
        }
        assert_eq!(select("bytes=0-", 0), Unsatisfiable);
    }

    #[test]
    fn what_is_not_one_range_of_bytes_is_ignored() {
        let cases = [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1",
            "bytes=0-1,3-4",
            "bytes=0 -1",
            "items=0-1",
            "bytes=--1",
            "bytes=1-2-3",
        ];
        for header in cases {
            assert_eq!(select(header, 10), Whole, "{header}");
        }
    }
}
