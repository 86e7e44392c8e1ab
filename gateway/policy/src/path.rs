//! The path of a request: what is always refused in one, and how many ways it can be read.
//!
//! The path is never changed. It is forwarded as it was sent; what is judged are its *readings*: all
//! that a backend could take it to be (see [`readings`]). Nearly every path has a single reading, and
//! one pass over its bytes tells so.

use crate::{Reason, Rejection};

mod escapes;
mod readings;

pub(crate) use escapes::{decoded, decoded_value};
pub(crate) use readings::{fold, folds, readings};

/// A path without forbidden bytes, as it was sent. It begins with `/`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JudgedPath<'r> {
    bytes: &'r [u8],
    /// Something in it could be read in more ways than by [`Self::without_trailing_slash`] and by case.
    special: bool,
    upper: bool,
}

impl<'r> JudgedPath<'r> {
    /// Refuses a path that begins with anything but `/`; with raw controls, spaces, `#` or bytes
    /// beyond ASCII (RFC 3986 section 3.3); with a `%` that no two hexadecimal digits follow
    /// (section 2.1); with an escape that turns into a control when it is decoded once or twice.
    pub(crate) fn judge(bytes: &'r [u8]) -> Result<Self, Rejection> {
        if bytes.first() != Some(&b'/') {
            return Err(bad("the path does not begin with a slash"));
        }
        let seen = Seen::in_bytes(bytes);
        if seen.any(FORBIDDEN) {
            return Err(bad("the path has a control, a space, a # or a byte beyond ASCII"));
        }
        if seen.any(ESCAPE) {
            escapes::check(bytes).map_err(bad)?;
        }
        let dots = seen.dot_after_slash && readings::has_dot_segment(bytes);
        Ok(Self {
            bytes,
            special: seen.any(ESCAPE | SPECIAL) || seen.double_slash || dots,
            upper: seen.any(UPPER),
        })
    }

    /// The path as it was sent.
    pub(crate) fn bytes(&self) -> &'r [u8] {
        self.bytes
    }

    /// Whether [`readings`] has to be asked for its readings. Otherwise its only readings are itself
    /// and [`Self::without_trailing_slash`], in any case of letters.
    pub(crate) fn is_special(&self) -> bool {
        self.special
    }

    /// Whether it has upper-case letters.
    pub(crate) fn has_upper(&self) -> bool {
        self.upper
    }

    /// The path without its trailing slash, if it has one and is not the root.
    pub(crate) fn without_trailing_slash(&self) -> Option<&'r [u8]> {
        self.bytes.strip_suffix(b"/").filter(|rest| !rest.is_empty())
    }
}

/// Refuses a query with raw bytes that no query has (RFC 3986 section 3.4). Its escapes are the
/// backend's own business: no route is chosen by them.
pub(crate) fn judge_query(query: &[u8]) -> Result<(), Rejection> {
    if Seen::in_bytes(query).any(FORBIDDEN) {
        return Err(bad(
            "the query has a control, a space, a # or a byte beyond ASCII",
        ));
    }
    Ok(())
}

fn bad(cause: &'static str) -> Rejection {
    Rejection::new(Reason::BadTarget, cause)
}

const FORBIDDEN: u8 = 1;
const ESCAPE: u8 = 2;
const SPECIAL: u8 = 4;
const UPPER: u8 = 8;
const SLASH: u8 = 16;
const DOT: u8 = 32;
/// A query or a fragment begins here, where it comes out of an escape.
const CUT: u8 = 64;
/// Overlong UTF-8 may begin here.
const OVERLONG: u8 = 128;

/// What each byte means to a path.
const CLASS: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let class = match byte as u8 {
            b'#' => FORBIDDEN | CUT,
            b'?' => CUT,
            0xc0 | 0xc1 | 0xe0 => FORBIDDEN | OVERLONG,
            0..=b' ' | 0x7f..=0xff => FORBIDDEN,
            b'%' => ESCAPE,
            b';' | b'\\' => SPECIAL,
            b'A'..=b'Z' => UPPER,
            b'/' => SLASH,
            b'.' => DOT,
            _ => 0,
        };
        classes[byte] = class;
        byte += 1;
    }
    classes
};

/// What one pass over the bytes finds.
struct Seen {
    classes: u8,
    double_slash: bool,
    dot_after_slash: bool,
}

impl Seen {
    #[inline]
    fn in_bytes(bytes: &[u8]) -> Self {
        let (mut classes, mut after_slash, mut previous) = (0, 0, 0);
        for byte in bytes {
            let class = CLASS[usize::from(*byte)];
            classes |= class;
            // All ones where the byte before was a slash.
            after_slash |= class & ((previous & SLASH) >> 4).wrapping_neg();
            previous = class;
        }
        Self {
            classes,
            double_slash: after_slash & SLASH != 0,
            dot_after_slash: after_slash & DOT != 0,
        }
    }

    fn any(&self, classes: u8) -> bool {
        self.classes & classes != 0
    }
}

#[cfg(test)]
mod tests;
