//! Lookup mode: the list of revoked credentials is the application's own, and its store is asked for
//! each request. Which keys to ask for, and what an answer means, is said here; asking is the
//! shell's.
//!
//! A key is whole: the store compares it byte for byte, so a value that holds `:` or `*` names one
//! key and no other. Two templates can still name the same key (`a:{sub}` with the subject `b:1` and
//! `a:b:{jti}`); the worst that comes of it is a refusal.

use std::fmt;
use std::time::Duration;

use durward_config::Place;
use durward_contract::claim;

use crate::claim_rule::ClaimPath;
use crate::json::Json;
use crate::revocation::{Cause, Standing};
use crate::{Reason, Rejection, VerifiedToken};

mod compile;

pub(crate) use compile::{Surroundings, lookup_section, refuse_allowance};

/// The most key templates.
pub const MAX_LOOKUP_KEYS: usize = 8;
/// The longest key template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 256;
/// The most claims in one template.
pub const MAX_TEMPLATE_CLAIMS: usize = 4;
/// The longest value of a claim that becomes part of a key, in bytes.
pub const MAX_KEY_VALUE_BYTES: usize = 256;

/// The default of `deadline`.
pub const DEFAULT_LOOKUP_DEADLINE: Duration = Duration::from_millis(50);
/// The default of `recheck`.
pub const DEFAULT_LOOKUP_RECHECK: Duration = Duration::from_secs(5);

/// What `mode: lookup` says of keys and times; where the store is, the shell reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    templates: Vec<KeyTemplate>,
    deadline: Duration,
    recheck: Duration,
}

impl Lookup {
    /// How long an answer may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How often it is asked again about what is open.
    pub fn recheck(&self) -> Duration {
        self.recheck
    }

    /// The templates as they were written.
    pub fn templates(&self) -> impl Iterator<Item = String> {
        self.templates.iter().map(KeyTemplate::to_string)
    }

    /// A key of each template that stands for nobody: to see whether the store answers such questions.
    pub fn probe_keys(&self) -> Vec<String> {
        let probe = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Claim(_) => "durward-probe".to_owned(),
        };
        self.templates
            .iter()
            .map(|template| template.parts.iter().map(probe).collect())
            .collect()
    }

    /// What to ask for about a token. One that lacks a claim of a template, or whose claim cannot be
    /// part of a key, is refused: what cannot be asked is not known to be good.
    pub fn keys(&self, token: &VerifiedToken) -> Result<LookupKeys, Rejection> {
        let key = |template: &KeyTemplate| {
            Ok(LookupKey {
                key: template.key(token)?,
                cause: template.cause,
                place: template.place,
            })
        };
        self.templates
            .iter()
            .map(key)
            .collect::<Result<_, _>>()
            .map(LookupKeys)
    }
}

/// The keys that stand for one token. One of them in the store is a revocation, whatever its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupKeys(Box<[LookupKey]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct LookupKey {
    key: String,
    cause: Cause,
    place: Place,
}

impl LookupKeys {
    /// Each key, in the order in which an answer speaks of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|key| key.key.as_str())
    }

    /// What an answer means. One that does not speak of every key is none.
    pub fn standing(&self, answer: &LookupAnswer) -> Standing {
        match answer {
            LookupAnswer::Found(found) if found.len() == self.0.len() => self
                .listed(found)
                .map_or(Standing::Live, |key| Standing::Revoked(key.cause)),
            LookupAnswer::Found(_) => Standing::Unknown { stale_for: None },
            LookupAnswer::Unknown { stale_for } => Standing::Unknown {
                stale_for: *stale_for,
            },
        }
    }

    /// The line of the configuration whose key the store has.
    pub(crate) fn listed_at(&self, answer: &LookupAnswer) -> Option<Place> {
        match answer {
            LookupAnswer::Found(found) => self.listed(found).map(|key| key.place),
            LookupAnswer::Unknown { .. } => None,
        }
    }

    fn listed(&self, found: &[bool]) -> Option<&LookupKey> {
        self.0
            .iter()
            .zip(found)
            .find_map(|(key, found)| found.then_some(key))
    }
}

/// As they are told in explanations.
impl fmt::Display for LookupKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.iter().enumerate() {
            write!(f, "{}`{key}`", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What came of asking the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    /// For each of the keys, in order, whether the store has it.
    Found(Vec<bool>),
    /// There was no answer, or none that is one: an error, a wrong type, garbage, too late.
    Unknown {
        /// Since the store last answered anything; nothing where it never has.
        stale_for: Option<Duration>,
    },
}

/// A key with places for claims.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyTemplate {
    parts: Vec<Part>,
    cause: Cause,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Claim(ClaimPath),
}

impl KeyTemplate {
    fn claims(&self) -> impl Iterator<Item = &ClaimPath> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Claim(claim) => Some(claim),
        })
    }

    fn key(&self, token: &VerifiedToken) -> Result<String, Rejection> {
        let mut key = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => key.push_str(text),
                Part::Claim(claim) => self.push_value(claim, claim.find(token.claims()), &mut key)?,
            }
        }
        Ok(key)
    }

    fn push_value(&self, claim: &ClaimPath, value: Option<&Json>, key: &mut String) -> Result<(), Rejection> {
        match value {
            None | Some(Json::Null) => Err(self.refusal(Reason::ClaimMissing, claim, "is absent")),
            Some(Json::Text(text)) if text.is_empty() => {
                Err(self.refusal(Reason::ClaimInvalid, claim, "is empty"))
            }
            Some(Json::Text(text)) if text.len() > MAX_KEY_VALUE_BYTES => {
                Err(self.refusal(Reason::ClaimInvalid, claim, "is too long"))
            }
            Some(Json::Text(text)) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                key.push_str(text);
                Ok(())
            }
            Some(Json::Text(_)) => Err(self.refusal(
                Reason::ClaimInvalid,
                claim,
                "has a space, a control or a non-ASCII character",
            )),
            Some(Json::Integer(number)) => {
                key.push_str(&number.to_string());
                Ok(())
            }
            Some(Json::Unsigned(number)) => {
                key.push_str(&number.to_string());
                Ok(())
            }
            // One number has many spellings then, and the store would know but one of them.
            Some(Json::Bool(_) | Json::Float(_) | Json::List(_) | Json::Object(_)) => Err(self.refusal(
                Reason::ClaimInvalid,
                claim,
                "is neither a string nor a whole number",
            )),
        }
    }

    fn refusal(&self, reason: Reason, claim: &ClaimPath, problem: &str) -> Rejection {
        let cause = format!(
            "claim `{claim}` {problem}, and the key of line {} needs it",
            self.place.line
        );
        Rejection::new(reason, cause)
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Claim(claim) => write!(f, "{{{claim}}}"),
        })
    }
}

/// What it would mean to find a key with these claims. The issuer only qualifies the others.
fn cause_of<'c>(claims: impl Iterator<Item = &'c ClaimPath>) -> Cause {
    let mut claims = claims.filter(|path| !path.is_just(claim::ISSUER));
    let (Some(only), None) = (claims.next(), claims.next()) else {
        return Cause::Listed;
    };
    [
        (claim::TOKEN_ID, Cause::Token),
        (claim::SESSION_ID, Cause::Session),
        (claim::SUBJECT, Cause::User),
        (claim::CLIENT_ID, Cause::Client),
    ]
    .into_iter()
    .find_map(|(name, cause)| only.is_just(name).then_some(cause))
    .unwrap_or(Cause::Listed)
}
