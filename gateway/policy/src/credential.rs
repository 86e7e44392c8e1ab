//! Finding exactly one credential (RFC 6750 section 2): `Authorization: Bearer`, and nothing else.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::{Reason, Rejection, RequestFacts};

/// The parameter that RFC 6750 section 2.3 names; RFC 9700 section 4.3.2 forbids it.
const QUERY_PARAMETER: &[u8] = b"access_token";
const BEARER: &[u8] = b"bearer";

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
        Candidate::find(facts)?.map(Candidate::read).transpose()
    }
}

/// What follows the one `Bearer`, whose bytes have not been looked at.
pub(crate) struct Candidate<'r>(&'r [u8]);

impl<'r> Candidate<'r> {
    /// As [`Credential::find`], but for what only the token's bytes tell.
    pub(crate) fn find(facts: &'r RequestFacts<'_>) -> Result<Option<Self>, Rejection> {
        let in_query = facts.query().is_some_and(has_token);
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

    /// The token, if it is one.
    pub(crate) fn bytes(&self) -> &'r [u8] {
        self.0
    }

    /// Reads a token of the alphabet of RFC 6750 section 2.1.
    pub(crate) fn read(self) -> Result<Credential<'r>, Rejection> {
        let padding = self.0.iter().rev().take_while(|byte| **byte == b'=').count();
        match std::str::from_utf8(self.0) {
            Ok(text) if is_token(&self.0[..self.0.len() - padding]) => Ok(Credential::Bearer(text)),
            _ => Err(Rejection::new(
                Reason::MalformedCredential,
                "what follows Bearer is not one token",
            )),
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

/// Scheme, one or more spaces, and what may be a token.
fn bearer(field: &[u8]) -> Result<Candidate<'_>, Rejection> {
    let malformed = |cause| Rejection::new(Reason::MalformedCredential, cause);
    let field = trim_blanks(field);
    if field.is_empty() {
        return Err(malformed("Authorization is empty"));
    }
    let end_of_scheme = field.iter().position(|byte| *byte == b' ');
    let (scheme, token) = field.split_at(end_of_scheme.unwrap_or(field.len()));
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(if std::str::from_utf8(field).is_err() {
            malformed("Authorization is not ASCII")
        } else {
            Rejection::new(
                Reason::UnsupportedScheme,
                "the scheme of Authorization is not Bearer",
            )
        });
    }
    let start_of_token = token.iter().position(|byte| *byte != b' ');
    let token = start_of_token.and_then(|start| token.get(start..));
    token
        .map(Candidate)
        .ok_or_else(|| malformed("Bearer without a token"))
}

/// Spaces and tabs around a field's value (RFC 9110 section 5.5).
fn trim_blanks(mut field: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = field {
        field = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = field {
        field = rest;
    }
    field
}

fn is_token(text: &[u8]) -> bool {
    let stray = text.iter().fold(0, |stray, byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        // `-`, `.`, `/` and the digits follow each other.
        let mark = byte.wrapping_sub(b'-') < 13;
        let fits = letter | mark | (*byte == b'_') | (*byte == b'~') | (*byte == b'+');
        stray | u8::from(!fits)
    });
    stray == 0 && !text.is_empty()
}

/// Whether a query has the parameter, however its name is escaped.
fn has_token(query: &[u8]) -> bool {
    let parameters = query.split(|byte| matches!(byte, b'&' | b';' | b'?'));
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
    use super::{Credential, has_token, is_token};
    use crate::{Reason, Rejection};

    fn bearer(field: &[u8]) -> Result<Credential<'_>, Rejection> {
        super::bearer(field)?.read()
    }

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
            assert_eq!(is_token(&[byte]), expected, "{byte}");
            assert_eq!(is_token(&[b'a', byte, b'a']), expected, "{byte}");
        }
        assert!(!is_token(b""));
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

    fn has_token_in_query(target: &[u8]) -> bool {
        let start = target.iter().position(|byte| *byte == b'?');
        start.is_some_and(|start| has_token(&target[start + 1..]))
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
