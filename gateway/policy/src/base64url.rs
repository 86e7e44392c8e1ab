//! base64url as JOSE has it: no padding, no whitespace, one spelling (RFC 7515 section 2).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes, if this is their one spelling: bits that are left over must be zero.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn there_is_one_spelling() {
        assert_eq!(decode("AQ"), Some(vec![1]));
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decode(""), Some(vec![]));
        for bad in [
            "A", "AR", "AQ=", "AQ==", "A Q", "AQ\n", "+/8", "AQIB\0", "AB\u{e9}",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
