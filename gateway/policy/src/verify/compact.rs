//! The form of a token: a JWS in compact serialization (RFC 7515 section 7.1), and its header.

use crate::base64url;
use crate::issuer::Algorithm;
use crate::json::{self, Json, Limits, Object};
use crate::key_set::MAX_KID_BYTES;
use crate::{Reason, Rejection};

/// The longest token, in bytes. Longer ones are refused before anything is decoded.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Header members that refuse a token. `crit` and `b64` ask for what is not understood (RFC 7515
/// section 4.1.11, RFC 7797 section 7); `zip` and `enc` are a JWE's (RFC 8725 section 3.6); the
/// others bring a key or say where to fetch one, which is never trusted nor fetched (RFC 8725 section
/// 3.10), so that a token which carries one is refused rather than read without it.
const REFUSED_MEMBERS: [&str; 8] = ["crit", "b64", "zip", "enc", "jwk", "jku", "x5c", "x5u"];

/// A token's parts, and what its header says. Nothing of it is proved.
pub(super) struct Compact<'t> {
    token: &'t str,
    /// Where the signature begins.
    signature: usize,
    payload: Vec<u8>,
    header: Object,
    algorithm: Algorithm,
}

impl<'t> Compact<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejection::new(
                Reason::TokenTooLarge,
                "the token is longer than any that is accepted",
            ));
        }
        let [header, payload, signature] = three_parts(token)?;
        let header = part(header, "the header is not base64url")?;
        let payload = part(payload, "the claims are not base64url")?;
        if part(signature, "the signature is not base64url")?.is_empty() {
            return Err(malformed("the signature is empty"));
        }
        let header = json::parse_object(&header, Limits::TOKEN)
            .map_err(|error| malformed(format!("the header is not accepted: {error}")))?;
        check_members(&header)?;
        Ok(Self {
            token,
            signature: token.len() - signature.len(),
            payload,
            algorithm: algorithm(&header)?,
            header,
        })
    }

    /// The claims, unproved.
    pub(super) fn claims(&self) -> Result<Object, Rejection> {
        json::parse_object(&self.payload, Limits::TOKEN)
            .map_err(|error| malformed(format!("the claims are not accepted: {error}")))
    }

    /// What is signed: the first two parts with their dot.
    pub(super) fn message(&self) -> &'t str {
        &self.token[..self.signature - 1]
    }

    /// The third part.
    pub(super) fn signature(&self) -> &'t str {
        &self.token[self.signature..]
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn typ(&self) -> Option<&str> {
        self.header.get("typ").and_then(Json::as_text)
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.header.get("kid").and_then(Json::as_text)
    }
}

/// Exactly three, of nothing but base64url's letters: five are a JWE, and anything else in between
/// is what two parsers would disagree on.
fn three_parts(token: &str) -> Result<[&str; 3], Rejection> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !token.bytes().all(fits) {
        return Err(malformed("a character that no JWT has"));
    }
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) => Ok([header, payload, signature]),
        _ => Err(malformed("not three parts")),
    }
}

fn part(text: &str, problem: &'static str) -> Result<Vec<u8>, Rejection> {
    base64url::decode(text).ok_or_else(|| malformed(problem))
}

fn check_members(header: &Object) -> Result<(), Rejection> {
    if let Some(member) = REFUSED_MEMBERS.iter().find(|member| header.get(member).is_some()) {
        let cause = format!("the header has `{member}`, which is never accepted");
        return Err(Rejection::new(Reason::TokenHeader, cause));
    }
    match header.get("kid") {
        None => Ok(()),
        Some(Json::Text(kid)) if !kid.is_empty() && kid.len() <= MAX_KID_BYTES => Ok(()),
        Some(_) => Err(Rejection::new(
            Reason::TokenHeader,
            "kid is not a string of 1 to 256 bytes",
        )),
    }
}

fn algorithm(header: &Object) -> Result<Algorithm, Rejection> {
    let named = header
        .get("alg")
        .and_then(Json::as_text)
        .and_then(Algorithm::of_name);
    named.ok_or_else(|| Rejection::new(Reason::TokenAlgorithm, "alg is absent, or none that is supported"))
}

fn malformed(cause: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::new(Reason::TokenMalformed, cause)
}
