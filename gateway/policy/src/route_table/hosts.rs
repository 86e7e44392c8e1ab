//! The host patterns, most specific first.

use std::collections::HashMap;

use super::trie::{LeafId, Taken, Trie};
use crate::route::{HostPattern, PathPattern};

/// The path patterns by host pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<String, Paths>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Paths>,
    any: Paths,
}

/// The path patterns of a host pattern, as they are written and in lower case.
#[derive(Clone, Debug, Default)]
struct Paths {
    written: Trie,
    folded: Trie,
}

impl Hosts {
    pub(super) fn insert(&mut self, host: &HostPattern, path: &PathPattern, leaf: LeafId) {
        let paths = match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_default(),
            HostPattern::Any => &mut self.any,
        };
        paths.written.insert(path.segments(), leaf);
        paths.folded.insert(&path.folded(), leaf);
    }

    /// The most specific pattern for a host and a path.
    pub(super) fn find<'p, const FOLD: bool>(
        &self,
        host: &str,
        path: &'p [u8],
        taken: &mut Taken<'p>,
    ) -> Option<LeafId> {
        let find = |paths: &Paths| match FOLD {
            true => paths.folded.find::<true>(path, taken),
            false => paths.written.find::<false>(path, taken),
        };
        self.for_host(host).find_map(find)
    }

    /// The path patterns that a host may choose from, in the order of precedence.
    fn for_host(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let exact = if self.exact.is_empty() {
            None
        } else {
            self.exact.get(host)
        };
        let wildcards = if self.wildcard.is_empty() { "" } else { host };
        let wildcards = wildcards.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        let wildcards = wildcards.filter_map(|(dot, _)| self.wildcard.get(&host[dot + 1..]));
        exact.into_iter().chain(wildcards).chain([&self.any])
    }
}
