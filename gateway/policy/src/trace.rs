//! What a decision tells of itself on the way. [`NoTrace`] compiles to nothing.

use std::borrow::Cow;

use durward_config::Place;
use serde::{Serialize, Serializer};

/// Hears of each phase and each step of a decision.
pub trait Trace {
    /// A phase begins; the one before it has ended.
    fn enter(&mut self, phase: Phase);

    /// A step was taken. `make` is only called where somebody listens.
    fn step(&mut self, make: impl FnOnce() -> Step);
}

/// The stages of a decision, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Host, path and method choose the route.
    Route,
    /// Exactly one credential is found.
    Credential,
    /// Signature, shape and times of the token; whether the route accepts its issuer.
    Proof,
    /// Whether the credential is revoked.
    Revocation,
    /// The route's `require`.
    Rules,
    /// The identity headers.
    Identity,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: &'static [Self] = &[
        Self::Route,
        Self::Credential,
        Self::Proof,
        Self::Revocation,
        Self::Rules,
        Self::Identity,
    ];

    /// The word for it in metrics and explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Credential => "credential",
            Self::Proof => "proof",
            Self::Revocation => "revocation",
            Self::Rules => "rules",
            Self::Identity => "identity",
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It matched, or the check held.
    Hit,
    /// It did not match; others may.
    Miss,
    /// It is why the request is refused.
    Refused,
    /// It was not looked at, and why is in the detail.
    Skipped,
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at: a route's pattern, a claim, a header.
    pub what: Cow<'static, str>,
    /// What came of it.
    pub outcome: Outcome,
    /// The line of the configuration that asks for it, where one does.
    #[serde(
        serialize_with = "as_line_and_column",
        skip_serializing_if = "Option::is_none"
    )]
    pub place: Option<Place>,
    /// What was found; never token bytes.
    pub detail: Cow<'static, str>,
}

impl Step {
    /// A step without a place.
    pub fn new(
        what: impl Into<Cow<'static, str>>,
        outcome: Outcome,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            what: what.into(),
            outcome,
            place: None,
            detail: detail.into(),
        }
    }

    /// The same step, asked for by the line at `place`.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }
}

fn as_line_and_column<S: Serializer>(place: &Option<Place>, serializer: S) -> Result<S::Ok, S::Error> {
    match place {
        Some(place) => serializer.collect_str(place),
        None => serializer.serialize_none(),
    }
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    #[inline(always)]
    fn enter(&mut self, _phase: Phase) {}

    #[inline(always)]
    fn step(&mut self, _make: impl FnOnce() -> Step) {}
}
