//! What a line of the access log is written with: JSON strings, numbers, times and ids, appended to a
//! buffer without a formatter.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

use durward_policy::is_plain;
use memchr::memchr3;
use memchr::memmem::Finder;

/// `{"time":"2023-11-14T22:13:20.120Z","id":"` and the id. The member is left open, without its last
/// quote.
pub(crate) fn push_start(line: &mut Vec<u8>, wall: Duration, id: u64) {
    line.extend_from_slice(b"{\"time\":\"");
    push_time(line, wall);
    line.extend_from_slice(b"\",\"id\":\"");
    push_hex(line, id);
}

/// The line that says how many were left out.
pub(crate) fn push_left_out(line: &mut Vec<u8>, wall: Duration, count: u64) {
    line.extend_from_slice(b"{\"time\":\"");
    push_time(line, wall);
    push_number(line, b"\",\"left_out\":", count);
    line.extend_from_slice(b"}\n");
}

/// The path of a request as [`push_text`] writes it, without what looks like a credential of ours or a
/// token in it: from there to the end of its segment stands `***`.
pub(crate) fn push_path(line: &mut Vec<u8>, start: &[u8], path: &[u8], limit: usize) {
    let Some(found) = find_credential(path) else {
        return push_text(line, start, path, limit);
    };
    let mut shown = Vec::with_capacity(path.len().min(limit));
    let (mut rest, mut next) = (path, Some(found));
    while let Some(at) = next {
        shown.extend_from_slice(&rest[..at]);
        shown.extend_from_slice(b"***");
        let end = rest[at..].iter().position(|byte| *byte == b'/');
        rest = end.map_or(&b""[..], |end| &rest[at + end..]);
        next = find_credential(rest);
    }
    shown.extend_from_slice(rest);
    push_text(line, start, &shown, limit);
}

/// What begins an API key, a refresh token, and, as a JSON object in base64url, every JWT.
const CREDENTIALS: [&[u8]; 3] = [b"dwk_", b"drt_", b"eyJ"];

/// Where the first of them begins; also where some of its bytes are percent-encoded, which a backend
/// undoes.
fn find_credential(path: &[u8]) -> Option<usize> {
    static PLAIN: LazyLock<[Finder<'static>; 3]> = LazyLock::new(|| CREDENTIALS.map(Finder::new));
    // Each has one of the first two: most paths are looked at once.
    memchr3(b'_', b'J', b'%', path)?;
    if path.contains(&b'%') {
        return (0..path.len()).find(|at| CREDENTIALS.iter().any(|start| begins_with(&path[*at..], start)));
    }
    PLAIN.iter().filter_map(|start| start.find(path)).min()
}

/// Whether these are the next bytes, each as it is or percent-encoded.
fn begins_with(mut path: &[u8], start: &[u8]) -> bool {
    start.iter().all(|wanted| {
        let (byte, rest) = match path {
            [b'%', high, low, rest @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    return false;
                };
                (high * 16 + low, rest)
            }
            [byte, rest @ ..] => (u32::from(*byte), rest),
            [] => return false,
        };
        path = rest;
        byte == u32::from(*wanted)
    })
}

/// `start`, which opens a string, and `text`, cut at `limit` bytes. What is not ASCII is written as
/// the bytes' `%XX`, so that a line is always ASCII and one line. The string is left open.
pub(crate) fn push_text(line: &mut Vec<u8>, start: &[u8], text: &[u8], limit: usize) {
    line.extend_from_slice(start);
    let shown = &text[..text.len().min(limit)];
    if is_plain(shown, [b'"', b'\\']) {
        line.extend_from_slice(shown);
    } else {
        push_escaped(line, shown);
    }
    if text.len() > limit {
        line.extend_from_slice(b"...");
    }
}

/// `start` and a number.
pub(crate) fn push_number(line: &mut Vec<u8>, start: &[u8], value: u64) {
    line.extend_from_slice(start);
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn push_escaped(line: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            0x20..0x7f => line.push(*byte),
            byte => line.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

fn push_hex(line: &mut Vec<u8>, value: u64) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    for (byte, pair) in value.to_be_bytes().into_iter().zip(digits.chunks_exact_mut(2)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    line.extend_from_slice(&digits);
}

/// `2023-11-14T22:13:20.`
type Second = [u8; 20];

/// RFC 3339 in UTC, to the millisecond. The calendar is asked once a second and thread.
fn push_time(line: &mut Vec<u8>, wall: Duration) {
    thread_local! {
        static KNOWN: Cell<(u64, Second)> = const { Cell::new((u64::MAX, [0; 20])) };
    }
    let seconds = wall.as_secs();
    let (known, mut second) = KNOWN.get();
    if known != seconds {
        second = calendar(seconds);
        KNOWN.set((seconds, second));
    }
    line.extend_from_slice(&second);
    let digit = |value: u32| b'0' + (value % 10) as u8;
    let millis = wall.subsec_millis();
    line.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

/// Howard Hinnant's `civil_from_days`.
fn calendar(seconds: u64) -> Second {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let day = day + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let mut text = [0; 20];
    let mut place = 0;
    for (value, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day_of_month, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
    ] {
        for power in (0..width).rev() {
            text[place] = b'0' + (value / 10_u64.pow(power) % 10) as u8;
            place += 1;
        }
        text[place] = end;
        place += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.005Z"),
            (1_700_000_000, 120, "2023-11-14T22:13:20.120Z"),
            (1_700_000_000, 987, "2023-11-14T22:13:20.987Z"),
            (4_102_444_800, 0, "2100-01-01T00:00:00.000Z"),
        ] {
            let wall = Duration::from_secs(seconds) + Duration::from_millis(millis);
            assert_eq!(text(|line| push_time(line, wall)), expected);
        }
    }

    #[test]
    fn a_line_starts_with_its_time_and_id() {
        assert_eq!(
            text(|line| push_start(line, Duration::ZERO, 0x0123_4567_89ab_cdef)),
            r#"{"time":"1970-01-01T00:00:00.000Z","id":"0123456789abcdef"#
        );
    }

    #[test]
    fn what_looks_like_a_credential_is_left_out_of_a_path() {
        let pushed = |path: &str| text(|line| push_path(line, b"\"", path.as_bytes(), 40));
        for (path, expected) in [
            ("/a/b", "\"/a/b"),
            ("/reset/eyJhbGciOi.e30.c2ln/x", "\"/reset/***/x"),
            ("/k/dwk_1_2", "\"/k/***"),
            ("/k/xdwk_1/eyJh/y", "\"/k/x***/***/y"),
            ("/k/drt_p5Wl/x", "\"/k/***/x"),
            ("/k/d%77k%5fabc/e%79J%68/%64%72%74%5F1", "\"/k/***/***/***"),
            ("/k/%7/%zz/dwk%5", "\"/k/%7/%zz/dwk%5"),
            ("/eyes/dwk", "\"/eyes/dwk"),
        ] {
            assert_eq!(pushed(path), expected);
        }
    }

    #[test]
    fn a_line_says_how_many_were_left_out() {
        let line = text(|line| push_left_out(line, Duration::ZERO, 17));
        assert_eq!(line, "{\"time\":\"1970-01-01T00:00:00.000Z\",\"left_out\":17}\n");
    }

    #[test]
    fn strings_stay_within_their_line_and_their_limit() {
        let pushed = |bytes: &[u8], limit| text(|line| push_text(line, b"\"", bytes, limit));
        assert_eq!(pushed(b"a\"b\\c\nd\xff", 100), r#""a\"b\\c%0Ad%FF"#);
        assert_eq!(pushed(b"abcdef", 3), r#""abc..."#);
        assert_eq!(pushed(b"ab\"def", 3), r#""ab\"..."#);
    }
}
