//! Random bytes, and the ids made of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longer than any id that was ever made.
const MAX_ID_LENGTH: usize = 64;
const RUN_PREFIX: &str = "r_";
/// Characters of 128 bits.
const BASE32_LENGTH: usize = 26;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bytes from the operating system's generator.
///
/// # Panics
///
/// Where that generator fails; there is no safe way on.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A user's id. The prefix keeps it apart from client ids (RFC 9700 section 4.15).
pub(crate) fn user_id() -> String {
    format!("u_{}", base32(&bytes::<16>()))
}

/// Whether a text has the form of a user's id.
pub(crate) fn is_user_id(text: &str) -> bool {
    text.strip_prefix("u_").is_some_and(is_base32)
}

/// A session's id.
pub(crate) fn session_id() -> String {
    format!("s_{}", base32(&bytes::<16>()))
}

/// The id of a run that revokes many sessions.
pub(crate) fn run_id() -> String {
    format!("{RUN_PREFIX}{}", base32(&bytes::<16>()))
}

/// Whether a text has the form of a run's id.
pub(crate) fn is_run_id(text: &str) -> bool {
    text.strip_prefix(RUN_PREFIX).is_some_and(is_base32)
}

fn is_base32(text: &str) -> bool {
    text.len() == BASE32_LENGTH && text.bytes().all(|byte| BASE32.contains(&byte))
}

/// A token's id.
pub(crate) fn token_id() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<16>())
}

/// Whether a text can be an id at all. PostgreSQL has no text with a NUL in it, so what comes from
/// outside is looked at before it is looked up.
pub(crate) fn could_be_id(text: &str) -> bool {
    text.len() <= MAX_ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text has the form of a token's id.
pub(crate) fn is_token_id(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bits| bits.len() == 16)
}

/// A password for someone who gave none: 130 bits.
pub(crate) fn password() -> String {
    base32(&bytes::<16>())
}

/// Base32 in lower case without padding (RFC 4648 section 6): survives logs, paths and dictation.
fn base32(bytes: &[u8]) -> String {
    let (mut text, mut buffer, mut bits) = (String::with_capacity(bytes.len() * 8 / 5 + 1), 0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(BASE32[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(BASE32[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_agrees_with_rfc_4648() {
        assert_eq!(base32(b"f"), "my");
        assert_eq!(base32(b"fooba"), "mzxw6ytb");
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
    }

    #[test]
    fn ids_are_ascii_and_of_one_length() {
        assert_eq!(user_id().len(), 28);
        assert_eq!(token_id().len(), 22);
        assert!(could_be_id(&session_id()) && !could_be_id("u_\0") && !could_be_id(&"a".repeat(65)));
        assert_ne!(session_id(), session_id());
        assert!(is_run_id(&run_id()) && !is_run_id(&session_id()) && !is_run_id("r_"));
        assert!(is_token_id(&token_id()) && !is_token_id("a.b.c") && !is_token_id(""));
        assert!(
            user_id()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || b"234567_".contains(&byte))
        );
    }
}
