//! Which claim a name in the file means.

use std::fmt;

use crate::json::{Json, Object};

/// The way to a claim. Dots step into nested objects (`realm_access.roles`); a name with `:` or `/`
/// is a collision-resistant name (RFC 7519 section 4.2) and is taken whole
/// (`https://example.com/roles`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    steps: Box<[String]>,
}

impl ClaimPath {
    /// The way that a name means; nothing where a step is empty.
    pub fn new(name: &str) -> Option<Self> {
        let steps: Box<[String]> = if name.contains([':', '/']) {
            Box::new([name.to_owned()])
        } else {
            name.split('.').map(str::to_owned).collect()
        };
        steps
            .iter()
            .all(|step| !step.is_empty())
            .then_some(Self { steps })
    }

    /// The claim, if the token has it.
    pub fn find<'c>(&self, claims: &'c Object) -> Option<&'c Json> {
        let (first, rest) = self.steps.split_first()?;
        rest.iter()
            .try_fold(claims.get(first)?, |value, step| match value {
                Json::Object(object) => object.get(step),
                _ => None,
            })
    }

    /// Whether it is the top-level claim of that name.
    pub fn is_just(&self, name: &str) -> bool {
        matches!(&*self.steps, [step] if step == name)
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.steps.join("."))
    }
}
