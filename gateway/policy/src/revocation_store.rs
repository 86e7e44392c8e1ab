//! What `store:` of the `revocations` section is. Where a Redis is and how it is reached, the shell
//! reads.

use durward_config::{Diagnostics, Node};

/// What holds the revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevocationStore {
    /// The auth service in the same process.
    Embedded,
    /// A Redis, however it is run and reached.
    Redis,
}

impl RevocationStore {
    /// Reports and yields nothing where it is neither.
    pub(crate) fn compile(node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let text = node.text("`store`", diagnostics)?;
        if is_redis(text) {
            return Some(Self::Redis);
        }
        node.one_of("`store`", &["embedded", "redis://HOST:PORT"], diagnostics)?;
        Some(Self::Embedded)
    }
}

/// Whether a store is named by a Redis URL of any kind.
fn is_redis(store: &str) -> bool {
    let scheme = store.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        let kind = scheme.split('+').next().unwrap_or_default();
        matches!(kind, "redis" | "rediss")
    })
}
