//! Finding exactly one credential (RFC 6750 section 2): `Authorization: Bearer`, and nothing else.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::{Reason, Rejection, RequestFacts};

/// The parameter that RFC 6750 section 2.3 names; RFC 9700 section 4.3.2 forbids it.
const QUERY_PARAMETER: &[u8] = b"access_token";
const BEARER: &str = "bearer";

/// The one credential of a request, unproved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'r> {
    /// A bearer token.
    Bearer(&'r str),
}

/// Says nothing of the token.
impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("Bearer(..)"),
        }
    }
}

impl<'r> Credential<'r> {
    /// The credential of a request; nothing where it has none. More than one, equal or not, or in
    /// two places, is a refusal, and so is one that cannot be read.
    pub fn find(facts: &'r RequestFacts<'_>) -> Result<Option<Self>, Rejection> {
        let in_query = has_token_in_query(facts.target());
        let field = single_field(facts.headers())?;
        match (field, in_query) {
            (None, false) => Ok(None),
            (None, true) => Err(Rejection::new(
                Reason::CredentialInQuery,
                "the query has a parameter access_token",
            )),
            (Some(_), true) => Err(Rejection::new(
                Reason::SeveralCredentials,
                "one in Authorization and one in the query",
            )),
            (Some(field), false) => bearer(field).map(Some),
        }
    }
}

fn single_field(headers: &HeaderMap) -> Result<Option<&[u8]>, Rejection> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => Ok(Some(field.as_bytes())),
        (Some(_), Some(_)) => Err(Rejection::new(
            Reason::SeveralCredentials,
            "more than one Authorization field",
        )),
    }
}

/// Scheme, one or more spaces, and a token of the alphabet of RFC 6750 section 2.1.
fn bearer(field: &[u8]) -> Result<Credential<'_>, Rejection> {
    let malformed = |cause| Rejection::new(Reason::MalformedCredential, cause);
    let field = std::str::from_utf8(field).map_err(|_| malformed("Authorization is not ASCII"))?;
    let field = field.trim_matches([' ', '\t']);
    if field.is_empty() {
        return Err(malformed("Authorization is empty"));
    }
    let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(Rejection::new(
            Reason::UnsupportedScheme,
            "the scheme of Authorization is not Bearer",
        ));
    }
    let token = token.trim_start_matches(' ');
    if token.is_empty() {
        return Err(malformed("Bearer without a token"));
    }
    if !is_token(token.trim_end_matches('=')) {
        return Err(malformed("what follows Bearer is not one token"));
    }
    Ok(Credential::Bearer(token))
}

/// Without branches, and folded without an early end: this runs over every byte of every token, and
/// so becomes vector instructions.
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        let mark = (byte == b'-')
            | (byte == b'.')
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
            | (byte == b'/');
        letter | digit | mark
    };
    text.bytes().fold(!text.is_empty(), |all, byte| all & fits(byte))
}

/// Whether a query has the parameter, however its name is escaped.
fn has_token_in_query(target: &[u8]) -> bool {
    let Some(start) = target.iter().position(|byte| *byte == b'?') else {
        return false;
    };
    let parameters = target[start + 1..].split(|byte| matches!(byte, b'&' | b';' | b'?'));
    parameters.into_iter().any(|parameter| {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        is_token_parameter(name)
    })
}

/// Compares percent-decoded and without case: backends differ in both.
fn is_token_parameter(name: &[u8]) -> bool {
    let mut wanted = QUERY_PARAMETER.iter();
    let mut rest = name;
    while let Some((byte, after)) = decoded_byte(rest) {
        if wanted
            .next()
            .is_none_or(|wanted| *wanted != byte.to_ascii_lowercase())
        {
            return false;
        }
        rest = after;
    }
    wanted.next().is_none()
}

fn decoded_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let hex = |digit: u8| char::from(digit).to_digit(16);
    match text {
        [b'%', high, low, rest @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
            let value = hex(*high).unwrap_or_default() * 16 + hex(*low).unwrap_or_default();
            u8::try_from(value).ok().map(|byte| (byte, rest))
        }
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Credential, bearer, has_token_in_query, is_token};
    use crate::Reason;

    #[test]
    fn one_bearer_token_in_any_case_of_the_scheme() {
        for field in [
            "Bearer a.b-c_d~e+f/g==",
            "bearer t",
            "BEARER   t",
            " Bearer t \t",
            "bEaReR 0",
        ] {
            assert!(
                matches!(bearer(field.as_bytes()), Ok(Credential::Bearer(_))),
                "{field:?}"
            );
        }
        assert_eq!(bearer(b"Bearer   t.u= ").unwrap(), Credential::Bearer("t.u="));
    }

    #[test]
    fn the_alphabet_is_that_of_rfc_6750() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_token(&char::from(byte).to_string()), expected, "{byte}");
        }
        assert!(!is_token(""));
    }

    #[test]
    fn anything_else_is_refused_and_says_which_way() {
        for (field, reason) in [
            ("", Reason::MalformedCredential),
            ("Bearer", Reason::MalformedCredential),
            ("Bearer ", Reason::MalformedCredential),
            ("Bearer ==", Reason::MalformedCredential),
            ("Bearer a=b", Reason::MalformedCredential),
            ("Bearer a b", Reason::MalformedCredential),
            ("Bearer a,b", Reason::MalformedCredential),
            ("Bearer a, Bearer b", Reason::MalformedCredential),
            ("Bearer \"a\"", Reason::MalformedCredential),
            ("Bearer a\u{e9}", Reason::MalformedCredential),
            ("Bearer \ta", Reason::MalformedCredential),
            ("Bearer\ta", Reason::UnsupportedScheme),
            ("Bearer:a", Reason::UnsupportedScheme),
            ("Bearera", Reason::UnsupportedScheme),
            ("Basic dTpw", Reason::UnsupportedScheme),
            ("Token abc", Reason::UnsupportedScheme),
            ("a.b.c", Reason::UnsupportedScheme),
        ] {
            assert_eq!(bearer(field.as_bytes()).unwrap_err().reason, reason, "{field:?}");
        }
        assert_eq!(
            bearer(b"Bearer \xff").unwrap_err().reason,
            Reason::MalformedCredential
        );
    }

    #[test]
    fn a_token_in_the_query_is_seen_however_it_is_spelled() {
        for target in [
            "/?access_token=a",
            "/a?b=c&access_token=",
            "/?access_token",
            "/?ACCESS_TOKEN=a",
            "/?%61ccess%5Ftoken=a",
            "/?a;access_token=b",
            "/??access_token=b",
        ] {
            assert!(has_token_in_query(target.as_bytes()), "{target}");
        }
        for target in [
            "/",
            "/access_token=a",
            "/?access_tokens=a",
            "/?access_toke=a",
            "/?a=access_token",
            "/?%6=1&%",
        ] {
            assert!(!has_token_in_query(target.as_bytes()), "{target}");
        }
    }
}
