//! A route's `require`: which claims the principal must have, compared by type, exactly.
//!
//! An absent claim is a refusal, and so is one of another type: there is no conversion, no prefix,
//! no case folding. Adding an entry can only narrow access.

use std::borrow::Cow;

use durward_config::Place;

use crate::json::{Json, Object};
use crate::trace::{Outcome, Step, Trace};
use crate::{Reason, Rejection};

mod claim_path;
mod compile;

pub use claim_path::ClaimPath;

/// The name of the claim that is a space-separated set (RFC 8693 section 4.2).
pub(crate) const SCOPE: &str = "scope";

/// The parameters that a route's pattern took from a path, percent-decoded.
pub trait Params {
    /// The value of the parameter at `index` in the list of names that the requirement was compiled
    /// with.
    fn value(&self, index: usize) -> Option<Cow<'_, [u8]>>;
}

impl Params for [&str] {
    fn value(&self, index: usize) -> Option<Cow<'_, [u8]>> {
        self.get(index).map(|value| Cow::Borrowed(value.as_bytes()))
    }
}

/// A compiled `require`. The default requires nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirement {
    /// All of these must hold.
    entries: Vec<Entry>,
    /// Of each group one must hold.
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    place: Place,
    claim: ClaimPath,
    /// One of these must be held.
    wanted: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq)]
struct Group {
    place: Place,
    alternatives: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Scope tokens, all of which must be in the set.
    Scopes(Vec<String>),
    /// The parameter at this index of the route's names.
    Param {
        index: usize,
        name: String,
    },
}

impl Requirement {
    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.groups.is_empty()
    }

    /// Whether claims with nothing but `scope` could meet it: those of an API key.
    pub(crate) fn can_be_met_by_scopes(&self) -> bool {
        let some_can = |group: &Group| group.alternatives.iter().any(Self::can_be_met_by_scopes);
        self.entries.iter().all(|entry| entry.claim.is_just(SCOPE)) && self.groups.iter().all(some_can)
    }

    /// Whether a rule compares the parameter at `index`.
    pub fn uses_param(&self, index: usize) -> bool {
        let in_entry = |entry: &Entry| {
            entry
                .wanted
                .iter()
                .any(|wanted| matches!(wanted, Wanted::Param { index: used, .. } if *used == index))
        };
        self.entries.iter().any(in_entry)
            || self
                .alternatives()
                .any(|alternative| alternative.uses_param(index))
    }

    /// Whether it compares who the user is (`sub`) with a parameter without saying whose users are meant
    /// (`iss`).
    pub(crate) fn binds_users_of_any_issuer(&self) -> bool {
        let names_issuer = self.entries.iter().any(|entry| entry.claim.is_just("iss"));
        let binds = |entry: &Entry| {
            entry.claim.is_just("sub")
                && entry
                    .wanted
                    .iter()
                    .any(|wanted| matches!(wanted, Wanted::Param { .. }))
        };
        !names_issuer
            && (self.entries.iter().any(binds) || self.alternatives().any(Self::binds_users_of_any_issuer))
    }

    fn alternatives(&self) -> impl Iterator<Item = &Self> {
        self.groups.iter().flat_map(|group| &group.alternatives)
    }

    /// Whether these claims meet it; the refusal names the claim, never its value.
    pub(crate) fn check<T: Trace>(
        &self,
        claims: &Object,
        params: &(impl Params + ?Sized),
        trace: &mut T,
    ) -> Result<(), Rejection> {
        self.check_claims(claims, params, Outcome::Refused, trace)
    }

    /// `unmet` is what an entry that does not hold is: within `any` a miss, as another may hold.
    fn check_claims<T: Trace>(
        &self,
        claims: &Object,
        params: &(impl Params + ?Sized),
        unmet: Outcome,
        trace: &mut T,
    ) -> Result<(), Rejection> {
        for entry in &self.entries {
            let held = entry.is_held_by(claims, params);
            trace.step(|| entry.step(claims, params, if held { Outcome::Hit } else { unmet }));
            if !held {
                return Err(entry.refusal(claims));
            }
        }
        self.groups
            .iter()
            .try_for_each(|group| group.check(claims, params, unmet, trace))
    }
}

impl Group {
    fn check<T: Trace>(
        &self,
        claims: &Object,
        params: &(impl Params + ?Sized),
        unmet: Outcome,
        trace: &mut T,
    ) -> Result<(), Rejection> {
        let mut last = None;
        for alternative in &self.alternatives {
            match alternative.check_claims(claims, params, Outcome::Miss, trace) {
                Ok(()) => return Ok(()),
                Err(rejection) => last = Some(rejection),
            }
        }
        trace.step(|| Step::new("any", unmet, "no alternative holds").at(self.place));
        Err(match last {
            // Where only scopes were asked for, more scope is what the client lacks.
            Some(rejection) if self.is_of_scopes() => rejection,
            _ => Rejection::new(Reason::RuleRefused, "no alternative of `any` holds"),
        })
    }

    fn is_of_scopes(&self) -> bool {
        self.alternatives.iter().all(|alternative| {
            alternative.groups.iter().all(Self::is_of_scopes)
                && alternative.entries.iter().all(|entry| entry.claim.is_just(SCOPE))
        })
    }
}

impl Entry {
    fn is_held_by(&self, claims: &Object, params: &(impl Params + ?Sized)) -> bool {
        let Some(value) = self.claim.find(claims) else {
            return false;
        };
        self.wanted.iter().any(|wanted| wanted.is_held_by(value, params))
    }

    fn refusal(&self, claims: &Object) -> Rejection {
        let reason = if self.claim.is_just(SCOPE) {
            Reason::InsufficientScope
        } else {
            Reason::RuleRefused
        };
        let cause = match self.claim.find(claims) {
            None => format!("claim `{}` is absent, line {}", self.claim, self.place.line),
            Some(_) => format!(
                "claim `{}` is not what line {} requires",
                self.claim, self.place.line
            ),
        };
        Rejection::new(reason, cause)
    }

    fn step(&self, claims: &Object, params: &(impl Params + ?Sized), outcome: Outcome) -> Step {
        let found = match self.claim.find(claims) {
            None => "absent".to_owned(),
            Some(value) => value.to_string(),
        };
        let wanted: Vec<_> = self.wanted.iter().map(|wanted| wanted.describe(params)).collect();
        let detail = format!("wanted {}, found {found}", wanted.join(" or "));
        Step::new(format!("claim `{}`", self.claim), outcome, detail).at(self.place)
    }
}

impl Wanted {
    fn is_held_by(&self, value: &Json, params: &(impl Params + ?Sized)) -> bool {
        match (self, value) {
            (Self::Text(wanted), value) => holds_text(value, wanted.as_bytes()),
            (Self::Param { index, .. }, value) => params
                .value(*index)
                .is_some_and(|wanted| !wanted.is_empty() && holds_text(value, &wanted)),
            (Self::Integer(wanted), Json::Integer(found)) => wanted == found,
            (Self::Float(wanted), Json::Float(found)) => wanted == found,
            (Self::Bool(wanted), Json::Bool(found)) => wanted == found,
            (Self::Scopes(wanted), Json::Text(found)) => wanted
                .iter()
                .all(|scope| found.split(' ').any(|held| held == scope)),
            _ => false,
        }
    }

    fn describe(&self, params: &(impl Params + ?Sized)) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Scopes(scopes) => format!("{:?}", scopes.join(" ")),
            Self::Param { index, name } => {
                let value = params.value(*index).unwrap_or_default();
                format!("{:?} (`{{{name}}}`)", String::from_utf8_lossy(&value))
            }
        }
    }
}

/// A string is the text; a list of strings has it. A list that holds anything else holds nothing.
fn holds_text(value: &Json, wanted: &[u8]) -> bool {
    match value {
        Json::Text(text) => text.as_bytes() == wanted,
        Json::List(items) => {
            items.iter().all(|item| matches!(item, Json::Text(_)))
                && items
                    .iter()
                    .any(|item| item.as_text().is_some_and(|text| text.as_bytes() == wanted))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
