//! Finding exactly one credential (RFC 6750 section 2): `Authorization: Bearer`, `X-Api-Key`, or the
//! certificate of the connection, and nothing else.
//!
//! A certificate is the connection's and not the request's: it counts on routes that accept one, and is
//! not there for all others. A token on a connection that proved a certificate is thus one credential
//! where the route wants tokens, and two where it accepts both kinds.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::api_key::{ApiKey, is_announced};
use crate::client_certificate::ClientCertificate;
use crate::{Reason, Rejection, RequestFacts};

/// The header of API keys. What folds to it is stripped like it, and is no credential.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The parameter that RFC 6750 section 2.3 names; RFC 9700 section 4.3.2 forbids it.
const QUERY_PARAMETER: &[u8] = b"access_token";
const BEARER: &[u8] = b"bearer";

/// The one credential of a request, unproved.
#[derive(Clone, Copy)]
pub enum Credential<'r> {
    /// A bearer token.
    Bearer(&'r str),
    /// An API key, of which form and checksum are right.
    ApiKey(ApiKey<'r>),
    /// The certificate of the connection.
    Certificate(&'r ClientCertificate),
}

/// The kinds of credential that a route accepts. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialKinds {
    /// Bearer tokens, of users.
    pub bearer: bool,
    /// API keys, of services.
    pub api_key: bool,
    /// Client certificates, of services.
    pub client_certificate: bool,
}

impl CredentialKinds {
    /// What a route accepts that does not say it.
    pub const BEARER: Self = Self {
        bearer: true,
        api_key: false,
        client_certificate: false,
    };

    /// The fields of a request that the answer depends on, as in `Vary` (RFC 9110 section 12.5.5).
    pub fn vary(self) -> Option<&'static str> {
        match (self.bearer, self.api_key) {
            (true, true) => Some("Authorization, X-Api-Key"),
            (true, false) => Some("Authorization"),
            (false, true) => Some("X-Api-Key"),
            (false, false) => None,
        }
    }

    /// Whether services are accepted.
    pub fn services(self) -> bool {
        self.api_key || self.client_certificate
    }
}

/// Says nothing of the token, nor of the key's secret.
impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("Bearer(..)"),
            Self::ApiKey(key) => std::fmt::Debug::fmt(key, f),
            Self::Certificate(certificate) => std::fmt::Debug::fmt(certificate, f),
        }
    }
}

impl<'r> Credential<'r> {
    /// The credential of a request; nothing where it has none. More than one, equal or not, or in
    /// two places, is a refusal, and so is one of a kind that is not `accepted`, and one that cannot
    /// be read.
    pub fn find(facts: &'r RequestFacts<'_>, accepted: CredentialKinds) -> Result<Option<Self>, Rejection> {
        Candidate::find(facts, accepted)?.map(Candidate::read).transpose()
    }
}

/// The one credential of a request, before a bearer token's bytes have been looked at.
pub(crate) enum Candidate<'r> {
    /// What follows the one `Bearer`.
    Bearer(&'r [u8]),
    /// An API key.
    ApiKey(ApiKey<'r>),
    /// A client certificate.
    Certificate(&'r ClientCertificate),
}

impl<'r> Candidate<'r> {
    /// As [`Credential::find`], but for what only a token's bytes tell.
    pub(crate) fn find(
        facts: &'r RequestFacts<'_>,
        accepted: CredentialKinds,
    ) -> Result<Option<Self>, Rejection> {
        let in_query = facts.query().is_some_and(has_credential);
        let bearer_field = single_field(
            facts.headers(),
            &AUTHORIZATION,
            "more than one Authorization field",
        )?;
        let key_field = single_field(facts.headers(), &API_KEY, "more than one X-Api-Key field")?;
        let certificate = facts.certificate().filter(|_| accepted.client_certificate);
        if let Some(certificate) = certificate {
            return match (bearer_field, key_field, in_query) {
                (None, None, false) => Ok(Some(Self::Certificate(certificate))),
                _ => Err(Rejection::new(
                    Reason::SeveralCredentials,
                    "one in the request and the certificate of the connection",
                )),
            };
        }
        match (bearer_field, key_field, in_query) {
            (None, None, false) => Ok(None),
            (None, None, true) => Err(Rejection::new(
                Reason::CredentialInQuery,
                "the query has a parameter access_token, or an API key",
            )),
            (Some(_), Some(_), _) => Err(Rejection::new(
                Reason::SeveralCredentials,
                "one in Authorization and one in X-Api-Key",
            )),
            (_, _, true) => Err(Rejection::new(
                Reason::SeveralCredentials,
                "one in a header and one in the query",
            )),
            (Some(_), None, false) if !accepted.bearer => Err(not_accepted("Authorization")),
            (Some(field), None, false) => bearer(field).map(Some),
            (None, Some(_), false) if !accepted.api_key => Err(not_accepted("X-Api-Key")),
            (None, Some(field), false) => api_key(field).map(Some),
        }
    }

    /// Reads a token of the alphabet of RFC 6750 section 2.1.
    pub(crate) fn read(self) -> Result<Credential<'r>, Rejection> {
        let bytes = match self {
            Self::Bearer(bytes) => bytes,
            Self::ApiKey(key) => return Ok(Credential::ApiKey(key)),
            Self::Certificate(certificate) => return Ok(Credential::Certificate(certificate)),
        };
        let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
        match std::str::from_utf8(bytes) {
            Ok(text) if is_token(&bytes[..bytes.len() - padding]) => Ok(Credential::Bearer(text)),
            _ => Err(Rejection::new(
                Reason::MalformedCredential,
                "what follows Bearer is not one token",
            )),
        }
    }
}

fn not_accepted(header: &str) -> Rejection {
    let cause = format!("the route does not accept a credential in {header}");
    Rejection::new(Reason::CredentialNotAccepted, cause)
}

fn single_field<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    several: &'static str,
) -> Result<Option<&'h [u8]>, Rejection> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => Ok(Some(field.as_bytes())),
        (Some(_), Some(_)) => Err(Rejection::new(Reason::SeveralCredentials, several)),
    }
}

/// A key as it was given, nothing around it.
fn api_key(field: &[u8]) -> Result<Candidate<'_>, Rejection> {
    let malformed = |cause| Rejection::new(Reason::ApiKeyMalformed, cause);
    let text = std::str::from_utf8(field).map_err(|_| malformed("X-Api-Key is not ASCII"))?;
    ApiKey::parse(text.trim_matches([' ', '\t']))
        .map(Candidate::ApiKey)
        .map_err(|format| malformed(format.cause()))
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
        .map(Candidate::Bearer)
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

/// Whether a query has the parameter of bearer tokens, however its name is escaped, or an API key as
/// the value of any parameter: keys have no parameter of their own, and backends have an `api_key`.
fn has_credential(query: &[u8]) -> bool {
    let parameters = query.split(|byte| matches!(byte, b'&' | b';' | b'?'));
    parameters.into_iter().any(|parameter| {
        let (name, value) = match parameter.iter().position(|byte| *byte == b'=') {
            Some(end) => (&parameter[..end], &parameter[end + 1..]),
            None => (parameter, parameter),
        };
        is_token_parameter(name) || is_announced(decoded(value))
    })
}

/// Compares percent-decoded and without case: backends differ in both.
fn is_token_parameter(name: &[u8]) -> bool {
    decoded(name)
        .map(|byte| byte.to_ascii_lowercase())
        .eq(QUERY_PARAMETER.iter().copied())
}

fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, after) = decoded_byte(rest)?;
        rest = after;
        Some(byte)
    })
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
    use super::{Candidate, Credential, has_credential, is_token};
    use crate::{Reason, Rejection};

    fn bearer(field: &[u8]) -> Result<Credential<'_>, Rejection> {
        super::bearer(field)?.read()
    }

    fn api_key(field: &[u8]) -> Result<Credential<'_>, Rejection> {
        super::api_key(field).and_then(Candidate::read)
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
        assert!(matches!(
            bearer(b"Bearer   t.u= "),
            Ok(Credential::Bearer("t.u="))
        ));
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

    fn has_credential_in_query(target: &str) -> bool {
        let query = target.split_once('?').map(|(_, query)| query);
        query.is_some_and(|query| has_credential(query.as_bytes()))
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
            "/?api_key=dwk_x",
            "/?a=b&k=dwk%5Fx",
            "/?%64wk_x",
        ] {
            assert!(has_credential_in_query(target), "{target}");
        }
        for target in [
            "/",
            "/access_token=a",
            "/?access_tokens=a",
            "/?access_toke=a",
            "/?a=access_token",
            "/?%6=1&%",
            "/?api_key=x",
            "/?a=xdwk_",
            "/dwk_x?dwk",
        ] {
            assert!(!has_credential_in_query(target), "{target}");
        }
    }

    #[test]
    fn an_api_key_is_sent_as_it_was_given() {
        let key = crate::ApiKey::compose([1; 10], [2; 32]);
        for field in [key.clone(), format!(" {key}\t")] {
            assert!(matches!(api_key(field.as_bytes()), Ok(Credential::ApiKey(_))));
        }
        for field in [
            "".to_owned(),
            format!("Bearer {key}"),
            format!("\"{key}\""),
            format!("{key},{key}"),
            key[..79].to_owned(),
            key.to_uppercase(),
        ] {
            let refused = api_key(field.as_bytes()).unwrap_err();
            assert_eq!(refused.reason, Reason::ApiKeyMalformed, "{field}");
            assert!(!refused.cause.contains(&key[4..]), "{refused}");
        }
        let mut bytes = key.into_bytes();
        bytes[30] = 0xff;
        assert_eq!(api_key(&bytes).unwrap_err().reason, Reason::ApiKeyMalformed);
    }
}
