//! The readings of a path: every composition of what backends are known to do to one.
//!
//! The steps are: percent-decoding (at most twice; all of the path, or all but its separators, as
//! those do who split the path first and decode its segments then), resolving dot segments (RFC 3986 section 5.2.4;
//! also where the dots are escaped, as the WHATWG URL standard has it), merging slashes, dropping a
//! trailing slash, dropping `;params`, backslash as slash, cutting at a decoded `?` or `#`, and
//! overlong UTF-8 (RFC 3629 section 3 forbids it, some decoders read it). The set is closed: no step
//! leads out of it. Case folding is asked for apart ([`fold`]), since it counts for choosing the route
//! only.

use super::{CUT, ESCAPE, OVERLONG, SPECIAL, Seen};

/// The most readings of one path; a path with more is refused as ambiguous.
pub(crate) const MAX_READINGS: usize = 64;
/// The most bytes of all readings of one path together: what a hostile path may cost.
pub(crate) const MAX_READING_BYTES: usize = 4 * crate::request_facts::MAX_TARGET_BYTES;
/// How often a backend may decode.
const MAX_DECODINGS: u8 = 2;

/// One way to read a path. It begins with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) bytes: Vec<u8>,
    decodings: u8,
}

/// There are more than [`MAX_READINGS`], or they are longer than [`MAX_READING_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyReadings;

/// Every reading of a path, the path itself first.
pub(crate) fn readings(path: &[u8]) -> Result<Vec<Reading>, TooManyReadings> {
    let mut found = vec![Reading {
        bytes: path.to_vec(),
        decodings: 0,
    }];
    let mut bytes = path.len();
    let mut next = 0;
    while let Some(reading) = found.get(next) {
        for successor in successors(reading).collect::<Vec<_>>() {
            if found.iter().any(|known| known.covers(&successor)) {
                continue;
            }
            bytes += successor.bytes.len();
            if found.len() == MAX_READINGS || bytes > MAX_READING_BYTES {
                return Err(TooManyReadings);
            }
            found.push(successor);
        }
        next += 1;
    }
    Ok(found)
}

impl Reading {
    /// The same bytes, with at least as many decodings left.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.decodings <= other.decodings && self.bytes == other.bytes
    }
}

/// What one step makes of a reading, for each step that changes it.
pub(super) fn successors(reading: &Reading) -> impl Iterator<Item = Reading> {
    let Reading { bytes, decodings } = reading;
    let seen = Seen::in_bytes(bytes);
    let decodes: &[Rewrite] = if *decodings < MAX_DECODINGS && seen.any(ESCAPE) {
        &DECODINGS
    } else {
        &[]
    };
    let decoded = decodes
        .iter()
        .filter_map(|decode| decode(bytes))
        .map(move |bytes| Reading {
            bytes,
            decodings: decodings + 1,
        });
    let steps = STEPS.iter().filter(move |(concerns, _)| concerns(&seen));
    let others = steps.filter_map(move |(_, step)| {
        Some(Reading {
            bytes: step(bytes)?,
            decodings: *decodings,
        })
    });
    decoded.chain(others)
}

/// What a step makes of a path; nothing where it changes nothing.
type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

/// Whether a step may change what was seen, and the step.
type Step = (fn(&Seen) -> bool, Rewrite);

/// The steps besides decoding.
const STEPS: [Step; 8] = [
    (|seen| seen.any(SPECIAL), backslashes_to_slashes),
    (|seen| seen.any(SPECIAL), drop_params),
    (|seen| seen.any(CUT), cut_at_query_or_fragment),
    (|seen| seen.dot_after_slash, resolve_dots),
    (|seen| seen.any(ESCAPE), resolve_escaped_dots),
    (|seen| seen.double_slash, merge_slashes),
    (|_| true, drop_trailing_slash),
    (|seen| seen.any(OVERLONG), decode_overlong),
];

/// The steps that count as a decoding.
const DECODINGS: [Rewrite; 2] = [decode, decode_within_segments];

/// Decodes everything but separators. Yields nothing where [`decode`] does the same.
fn decode_within_segments(path: &[u8]) -> Option<Vec<u8>> {
    let mut kept_separator = false;
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(byte) = rest.first() {
        let escape = rest
            .get(..3)
            .filter(|escape| escape[0] == b'%' && escape[1..].iter().all(u8::is_ascii_hexdigit));
        let Some(escape) = escape else {
            decoded.push(*byte);
            rest = &rest[1..];
            continue;
        };
        match super::decoded(escape).next() {
            Some(b'/' | b'\\') => {
                kept_separator = true;
                decoded.extend(escape);
            }
            value => decoded.extend(value),
        }
        rest = &rest[3..];
    }
    (kept_separator && decoded != path).then_some(decoded)
}

fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let decoded: Vec<u8> = super::decoded(path).collect();
    (decoded.len() != path.len()).then_some(decoded)
}

fn backslashes_to_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let slash = |byte: &u8| if *byte == b'\\' { b'/' } else { *byte };
    path.contains(&b'\\').then(|| path.iter().map(slash).collect())
}

fn drop_params(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b';').then(|| {
        let mut inside = false;
        let mut kept = path.to_vec();
        kept.retain(|byte| {
            inside = *byte == b';' || (inside && *byte != b'/');
            !inside
        });
        kept
    })
}

fn cut_at_query_or_fragment(path: &[u8]) -> Option<Vec<u8>> {
    let at = path.iter().position(|byte| matches!(byte, b'?' | b'#'))?;
    Some(path[..at].to_vec())
}

fn resolve_dots(path: &[u8]) -> Option<Vec<u8>> {
    resolve(path, |segment| match segment {
        b"." => Dots::One,
        b".." => Dots::Two,
        _ => Dots::None,
    })
}

fn resolve_escaped_dots(path: &[u8]) -> Option<Vec<u8>> {
    path.contains(&b'%')
        .then(|| resolve(path, escaped_dots))
        .flatten()
}

fn merge_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let mut merged = path.to_vec();
    merged.dedup_by(|right, left| *right == b'/' && *left == b'/');
    (merged.len() != path.len()).then_some(merged)
}

fn drop_trailing_slash(path: &[u8]) -> Option<Vec<u8>> {
    path.strip_suffix(b"/")
        .filter(|rest| !rest.is_empty())
        .map(<[u8]>::to_vec)
}

/// Two and three bytes of UTF-8 that stand for what one byte stands for.
fn decode_overlong(path: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(byte) = rest.first() {
        let (byte, length) = match rest {
            [lead @ 0xc0..=0xc1, low @ 0x80..=0xbf, ..] => ((lead & 1) << 6 | (low & 0x3f), 2),
            [0xe0, high @ 0x80..=0x81, low @ 0x80..=0xbf, ..] => ((high & 1) << 6 | (low & 0x3f), 3),
            _ => (*byte, 1),
        };
        plain.push(byte);
        rest = &rest[length..];
    }
    (plain.len() != path.len()).then_some(plain)
}

enum Dots {
    None,
    One,
    Two,
}

fn escaped_dots(segment: &[u8]) -> Dots {
    if segment.len() > "%2e%2e".len() {
        return Dots::None;
    }
    let mut decoded = super::decoded(segment);
    match (decoded.next(), decoded.next(), decoded.next()) {
        (Some(b'.'), None, _) => Dots::One,
        (Some(b'.'), Some(b'.'), None) => Dots::Two,
        _ => Dots::None,
    }
}

/// RFC 3986 section 5.2.4, segment by segment.
fn resolve(path: &[u8], dots: impl Fn(&[u8]) -> Dots) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut changed = false;
    let mut ends_in_dots = false;
    for segment in path[1..].split(|byte| *byte == b'/') {
        let dots = dots(segment);
        ends_in_dots = !matches!(dots, Dots::None);
        changed |= ends_in_dots;
        match dots {
            Dots::None => kept.push(segment),
            Dots::One => {}
            Dots::Two => {
                kept.pop();
            }
        }
    }
    if ends_in_dots {
        kept.push(b"");
    }
    changed.then(|| {
        let mut resolved = vec![b'/'];
        resolved.extend(kept.join(&b'/'));
        resolved
    })
}

/// Whether a segment is `.` or `..`.
pub(super) fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .any(|segment| matches!(segment, b"." | b".."))
}

/// KELVIN SIGN and LATIN SMALL LETTER LONG S: the characters beyond ASCII that fold to a letter of
/// ASCII (Unicode, CaseFolding.txt).
const KELVIN: &[u8] = "\u{212a}".as_bytes();
const LONG_S: &[u8] = "\u{17f}".as_bytes();

/// Whether case folding changes the path.
pub(crate) fn folds(path: &[u8]) -> bool {
    path.iter().any(u8::is_ascii_uppercase) || (!path.is_ascii() && has_folding_beyond_ascii(path))
}

fn has_folding_beyond_ascii(path: &[u8]) -> bool {
    path.windows(KELVIN.len()).any(|window| window == KELVIN)
        || path.windows(LONG_S.len()).any(|window| window == LONG_S)
}

/// The path as a backend sees it that does not tell upper from lower case.
pub(crate) fn fold(path: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(byte) = rest.first() {
        let (byte, length) = if rest.starts_with(KELVIN) {
            (b'k', KELVIN.len())
        } else if rest.starts_with(LONG_S) {
            (b's', LONG_S.len())
        } else {
            (byte.to_ascii_lowercase(), 1)
        };
        folded.push(byte);
        rest = &rest[length..];
    }
    folded
}
