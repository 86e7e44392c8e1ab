//! User names: one canonical form, in which two names that look alike are either the same or one of
//! them is refused.

use unicode_normalization::UnicodeNormalization;

use crate::problem::Reason;
use crate::random::is_user_id;

/// Longest canonical name.
pub const MAX_USERNAME_LENGTH: usize = 64;
const MIN_LENGTH: usize = 2;
/// Longest text that is looked at.
const MAX_INPUT_BYTES: usize = 256;

/// A canonical user name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(String);

impl Username {
    /// Brings a text into canonical form: NFKC and lower case. What is then not plain ASCII letters,
    /// digits and `._-` is refused, so no name looks like another; and what has the form of a user's id,
    /// since an operator may name a user by either.
    pub fn canonical(text: &str) -> Result<Self, Reason> {
        if text.len() > MAX_INPUT_BYTES {
            return Err(Reason::InvalidUsername);
        }
        let name: String = text.nfkc().flat_map(char::to_lowercase).collect();
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = name.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return Err(Reason::InvalidUsername);
        };
        let good = (MIN_LENGTH..=MAX_USERNAME_LENGTH).contains(&bytes.len())
            && inner(*first)
            && inner(*last)
            && bytes.iter().all(|byte| inner(*byte) || b"._-".contains(byte))
            && !is_user_id(&name);
        if good {
            Ok(Self(name))
        } else {
            Err(Reason::InvalidUsername)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one_name() {
        for spelling in ["admin", "Admin", "ADMIN", "ａdmin", "ＡＤＭＩＮ", "𝐚𝐝𝐦𝐢𝐧"] {
            assert_eq!(
                Username::canonical(spelling).unwrap().as_str(),
                "admin",
                "{spelling}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_a_name_is_refused() {
        for bad in [
            "",
            "a",
            "аdmin",
            "admın",
            "admin\u{200b}",
            " admin",
            "admin ",
            "admin\0",
            "\u{202e}nimda",
            "a b",
            "a,b",
            "a\r\nb",
            "a/b",
            "a@b",
            ".a",
            "a-",
            "ad̈min",
            "' OR 1=1 --",
            "İstanbul",
            "münchen",
            "u_5nzedb4rokhon36bby26xkopoy",
            "U_5NZEDB4ROKHON36BBY26XKOPOY",
        ] {
            assert_eq!(Username::canonical(bad), Err(Reason::InvalidUsername), "{bad:?}");
        }
        assert!(Username::canonical(&"a".repeat(64)).is_ok());
        assert!(Username::canonical(&"a".repeat(65)).is_err());
        assert!(Username::canonical(&"a".repeat(1 << 20)).is_err());
    }
}
