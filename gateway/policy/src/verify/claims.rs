//! The shape of claims: which must be there, and of which type.

use durward_contract::{UnixSeconds, claim};

use crate::issuer::Issuer;
use crate::json::{Json, Object};
use crate::{Reason, Rejection};

/// The longest `sub`, `jti`, `sid` or `client_id`, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// The latest instant that a token may name: the end of the year 9999.
const LATEST: i64 = 253_402_300_799;

/// What is read of every token, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) subject: String,
    pub(super) token_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) epoch: Option<u32>,
    pub(super) expires_at: UnixSeconds,
    pub(super) issued_at: UnixSeconds,
    pub(super) not_before: Option<UnixSeconds>,
}

impl Shape {
    pub(super) fn check(claims: &Object, issuer: &Issuer) -> Result<Self, Rejection> {
        let absent = |name: &&String| matches!(claims.get(name), None | Some(Json::Null));
        if let Some(name) = issuer.required_claims.iter().find(absent) {
            return Err(missing(name));
        }
        check_audience(claims, issuer)?;
        let shape = Self {
            subject: id(claims, claim::SUBJECT)?.ok_or_else(|| missing(claim::SUBJECT))?,
            token_id: id(claims, claim::TOKEN_ID)?,
            session_id: id(claims, claim::SESSION_ID)?,
            client_id: id(claims, claim::CLIENT_ID)?,
            epoch: if issuer.own { Some(epoch(claims)?) } else { None },
            expires_at: required_instant(claims, claim::EXPIRES_AT)?.rounded_down(),
            issued_at: required_instant(claims, claim::ISSUED_AT)?.rounded_down(),
            not_before: instant(claims, claim::NOT_BEFORE)?.map(Instant::rounded_up),
        };
        shape.check_lifetime(issuer)?;
        Ok(shape)
    }

    fn check_lifetime(&self, issuer: &Issuer) -> Result<(), Rejection> {
        if self.expires_at < self.issued_at {
            return Err(Rejection::new(Reason::ClaimInvalid, "exp lies before iat"));
        }
        if self.expires_at > self.issued_at.plus(issuer.max_lifetime) {
            let cause = format!(
                "the token lives longer than the {:?} of {}",
                issuer.max_lifetime,
                issuer.name()
            );
            return Err(Rejection::new(Reason::TokenLifetime, cause));
        }
        Ok(())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let ids = [&self.token_id, &self.session_id, &self.client_id];
        self.subject.capacity() + ids.into_iter().flatten().map(String::capacity).sum::<usize>()
    }
}

fn missing(name: &str) -> Rejection {
    Rejection::new(Reason::ClaimMissing, format!("claim `{name}` is absent"))
}

fn invalid(name: &str, problem: &str) -> Rejection {
    Rejection::new(Reason::ClaimInvalid, format!("claim `{name}` {problem}"))
}

/// RFC 7519 section 4.1.3: one string, or a list of strings of which one is ours.
fn check_audience(claims: &Object, issuer: &Issuer) -> Result<(), Rejection> {
    let ours = |text: &str| issuer.audience.iter().any(|audience| audience == text);
    let problem = || invalid(claim::AUDIENCE, "is neither a string nor a list of strings");
    let found = match claims.get(claim::AUDIENCE) {
        None => return Err(missing(claim::AUDIENCE)),
        Some(Json::Text(text)) => ours(text),
        Some(Json::List(items)) => {
            let texts: Option<Vec<_>> = items.iter().map(Json::as_text).collect();
            texts.ok_or_else(problem)?.into_iter().any(ours)
        }
        Some(_) => return Err(problem()),
    };
    if found {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::WrongAudience,
        format!("aud is not for {}", issuer.audience.join(" or ")),
    ))
}

/// An id: a string of bounded length without control characters, so that it can neither end a log
/// line nor a header, nor be split by a store.
fn id(claims: &Object, name: &str) -> Result<Option<String>, Rejection> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Text(text)) if text.is_empty() => Err(invalid(name, "is empty")),
        Some(Json::Text(text)) if text.len() > MAX_ID_BYTES => Err(invalid(name, "is too long")),
        Some(Json::Text(text)) if text.chars().any(char::is_control) => {
            Err(invalid(name, "has a control character"))
        }
        Some(Json::Text(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid(name, "is not a string")),
    }
}

fn epoch(claims: &Object) -> Result<u32, Rejection> {
    match claims.get(claim::EPOCH) {
        None => Err(missing(claim::EPOCH)),
        Some(Json::Integer(number)) => {
            u32::try_from(*number).map_err(|_| invalid(claim::EPOCH, "is out of range"))
        }
        Some(_) => Err(invalid(claim::EPOCH, "is not a whole number")),
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
#[derive(Clone, Copy)]
enum Instant {
    Whole(i64),
    Fraction(f64),
}

impl Instant {
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    fn rounded_down(self) -> UnixSeconds {
        UnixSeconds(match self {
            Self::Whole(seconds) => seconds,
            Self::Fraction(seconds) => seconds.floor() as i64,
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    fn rounded_up(self) -> UnixSeconds {
        UnixSeconds(match self {
            Self::Whole(seconds) => seconds,
            Self::Fraction(seconds) => seconds.ceil() as i64,
        })
    }
}

fn required_instant(claims: &Object, name: &str) -> Result<Instant, Rejection> {
    instant(claims, name)?.ok_or_else(|| missing(name))
}

fn instant(claims: &Object, name: &str) -> Result<Option<Instant>, Rejection> {
    const RANGE: std::ops::RangeInclusive<f64> = 0.0..=LATEST as f64;
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Integer(seconds)) if (0..=LATEST).contains(seconds) => Ok(Some(Instant::Whole(*seconds))),
        Some(Json::Float(seconds)) if RANGE.contains(seconds) => Ok(Some(Instant::Fraction(*seconds))),
        Some(Json::Integer(_) | Json::Unsigned(_) | Json::Float(_)) => Err(invalid(name, "is out of range")),
        Some(_) => Err(invalid(name, "is not a number")),
    }
}
