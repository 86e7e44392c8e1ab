//! Percent escapes (RFC 3986 section 2.1).

use std::borrow::Cow;

/// Bytes with each escape replaced by what it stands for. A `%` without two hexadecimal digits stands
/// for itself, as lenient decoders have it; [`check`] has refused those that were sent.
pub(crate) fn decoded(bytes: &[u8]) -> Decoded<std::iter::Copied<std::slice::Iter<'_, u8>>> {
    Decoded(bytes.iter().copied())
}

/// The value of a path segment.
pub(crate) fn decoded_value(segment: &[u8]) -> Cow<'_, [u8]> {
    if segment.contains(&b'%') {
        Cow::Owned(decoded(segment).collect())
    } else {
        Cow::Borrowed(segment)
    }
}

/// Refuses escapes that are none, and such as turn into controls when decoded once or twice.
pub(super) fn check(path: &[u8]) -> Result<(), &'static str> {
    let mut rest = path;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err("the path has a % that no two hexadecimal digits follow"),
        }
    }
    let once = decoded(path);
    if has_control(once.clone()) || has_control(Decoded(once)) {
        return Err("the path has an escaped control");
    }
    Ok(())
}

/// Whether there is a control (RFC 3986 section 7.3), be it as overlong UTF-8.
fn has_control(bytes: impl Iterator<Item = u8>) -> bool {
    let mut before = (0, 0);
    for byte in bytes {
        let overlong = match before {
            (_, 0xc0) | (0xe0, 0x80) => (0x80..=0x9f).contains(&byte),
            (_, 0xc1) | (0xe0, 0x81) => byte == 0xbf,
            _ => false,
        };
        if overlong || byte.is_ascii_control() {
            return true;
        }
        before = (before.1, byte);
    }
    false
}

/// See [`decoded`].
#[derive(Clone, Debug)]
pub(crate) struct Decoded<I>(I);

impl<I: Iterator<Item = u8> + Clone> Iterator for Decoded<I> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let byte = self.0.next()?;
        if byte != b'%' {
            return Some(byte);
        }
        let mut ahead = self.0.clone();
        let (high, low) = (ahead.next().and_then(digit), ahead.next().and_then(digit));
        let (Some(high), Some(low)) = (high, low) else {
            return Some(byte);
        };
        self.0 = ahead;
        Some(high << 4 | low)
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}
