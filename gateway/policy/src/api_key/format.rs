//! How an API key is written: `dwk_<id>_<secret><checksum>`, 80 characters.
//!
//! The prefix is for scanners of leaked secrets. The id is public: it stands in lists and logs. The
//! secret has 256 bits. The checksum (CRC-32) is no defence against anybody: it has a mistyped or cut
//! key refused without a look at any table. One alphabet, Crockford's base 32 in lower case, without
//! the letters that look like digits; there is one spelling of a key, so an upper-case one is none.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// Bytes of randomness in a key's id.
pub const API_KEY_ID_BYTES: usize = 10;
/// Bytes of randomness in a key's secret.
pub const API_KEY_SECRET_BYTES: usize = 32;
/// Characters of a key.
pub const API_KEY_LENGTH: usize = SECRET_AT + SECRET_LENGTH + CHECKSUM_LENGTH;

const PREFIX: &str = "dwk_";
const SEPARATOR: u8 = b'_';
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_LENGTH: usize = (API_KEY_ID_BYTES * 8).div_ceil(5);
const SECRET_LENGTH: usize = (API_KEY_SECRET_BYTES * 8).div_ceil(5);
const CHECKSUM_LENGTH: usize = 7;
const SECRET_AT: usize = PREFIX.len() + ID_LENGTH + 1;

/// A key whose form and checksum are right. Whether anybody was given it is another question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKey<'k>(&'k str);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyFormat {
    /// It is shorter or longer than a key.
    Length,
    /// It does not begin like one.
    Prefix,
    /// It has a character that no key has, or its parts are not where they are in a key.
    Alphabet,
    /// It was mistyped.
    Checksum,
}

/// SHA-256 of a whole key: what is kept of one, and what it is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl<'k> ApiKey<'k> {
    /// Reads a key as a client sends it.
    pub fn parse(text: &'k str) -> Result<Self, ApiKeyFormat> {
        if text.len() != API_KEY_LENGTH {
            return Err(ApiKeyFormat::Length);
        }
        if !text.starts_with(PREFIX) {
            return Err(ApiKeyFormat::Prefix);
        }
        let bytes = text.as_bytes();
        let is_part = |part: &[u8]| part.iter().all(|byte| ALPHABET.contains(byte));
        let (id, rest) = bytes[PREFIX.len()..].split_at(ID_LENGTH);
        let [SEPARATOR, rest @ ..] = rest else {
            return Err(ApiKeyFormat::Alphabet);
        };
        if !is_part(id) || !is_part(rest) {
            return Err(ApiKeyFormat::Alphabet);
        }
        let (signed, checksum) = bytes.split_at(API_KEY_LENGTH - CHECKSUM_LENGTH);
        if checksum != checksum_of(signed) {
            return Err(ApiKeyFormat::Checksum);
        }
        Ok(Self(text))
    }

    /// The key of an id and a secret, both of them random.
    pub fn compose(id: [u8; API_KEY_ID_BYTES], secret: [u8; API_KEY_SECRET_BYTES]) -> String {
        let mut text = String::with_capacity(API_KEY_LENGTH);
        text.push_str(PREFIX);
        push_base32(&mut text, &id);
        text.push(char::from(SEPARATOR));
        push_base32(&mut text, &secret);
        let checksum = checksum_of(text.as_bytes());
        text.extend(checksum.map(char::from));
        text
    }

    /// The public part.
    pub fn id(&self) -> &'k str {
        &self.0[PREFIX.len()..PREFIX.len() + ID_LENGTH]
    }

    /// What the key is found by.
    pub fn digest(&self) -> KeyDigest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        KeyDigest(bytes)
    }
}

/// Whether a text begins like a key. `next` yields its bytes.
pub(crate) fn is_announced(next: impl IntoIterator<Item = u8>) -> bool {
    let mut next = next.into_iter();
    PREFIX
        .bytes()
        .all(|expected| next.next().is_some_and(|byte| byte == expected))
}

impl ApiKeyFormat {
    /// The sentence for the log.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Length => "the API key has another length than keys have",
            Self::Prefix => "the API key does not begin like one",
            Self::Alphabet => "the API key has a character that no key has",
            Self::Checksum => "the checksum of the API key is wrong",
        }
    }
}

/// Says the id and nothing of the secret.
impl fmt::Debug for ApiKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, ..)", self.id())
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

/// Five bits a character, the first ones first; the last character is filled up with zeros.
fn push_base32(text: &mut String, bytes: &[u8]) {
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(buffer >> bits));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(letter(buffer << (5 - bits)));
    }
}

fn letter(bits: u32) -> char {
    char::from(ALPHABET[(bits & 31) as usize])
}

fn checksum_of(text: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let sum = crc32(text);
    std::array::from_fn(|index| ALPHABET[(sum >> (5 * (CHECKSUM_LENGTH - 1 - index)) & 31) as usize])
}

/// CRC-32 as in ISO 3309 and gzip (RFC 1952 section 8), in a value that shifts by 35 bits.
fn crc32(text: &[u8]) -> u64 {
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ CRC_TABLE[usize::from((sum as u8) ^ *byte)];
    u64::from(!text.iter().fold(u32::MAX, step))
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                value >> 1 ^ 0xedb8_8320
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn base32_takes_the_first_bits_first() {
        let mut text = String::new();
        push_base32(&mut text, &[0xff, 0x00, 0x80]);
        assert_eq!(text, "zw080");
    }

    #[test]
    fn the_form_is_fixed() {
        let key = ApiKey::compose([0; API_KEY_ID_BYTES], [0xff; API_KEY_SECRET_BYTES]);
        assert_eq!(key.len(), 80);
        assert!(key.starts_with("dwk_0000000000000000_zzzz"), "{key}");
        let parsed = ApiKey::parse(&key).unwrap();
        assert_eq!(parsed.id(), "0000000000000000");
        assert_eq!(format!("{parsed:?}"), "ApiKey(0000000000000000, ..)");
        for (text, problem) in [
            (String::new(), ApiKeyFormat::Length),
            (key[..79].to_owned(), ApiKeyFormat::Length),
            (format!("{key}0"), ApiKeyFormat::Length),
            (key.replacen("dwk_", "dwt_", 1), ApiKeyFormat::Prefix),
            (key.to_uppercase(), ApiKeyFormat::Prefix),
            (key.replacen("_z", "_Z", 1), ApiKeyFormat::Alphabet),
            (key.replacen("_z", "_l", 1), ApiKeyFormat::Alphabet),
            (key.replacen("_z", "zz", 1), ApiKeyFormat::Alphabet),
            (key.replacen("_z", "_y", 1), ApiKeyFormat::Checksum),
            (key.replacen("_0", "_1", 1), ApiKeyFormat::Checksum),
            // Eighty bytes that are not eighty characters.
            (key.replacen("zz", "\u{e9}", 1), ApiKeyFormat::Alphabet),
        ] {
            assert_eq!(ApiKey::parse(&text).unwrap_err(), problem, "{text}");
        }
    }
}
