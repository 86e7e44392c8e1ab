//! Which route a request takes.
//!
//! # The order
//!
//! A route matches a request where its host pattern matches the host and its path pattern the path.
//! Of those that match, the most specific wins, whatever the order in the file:
//!
//! 1. **Host**: exact over wildcard over any; of two wildcards the longer.
//! 2. **Path**, segment by segment from the left: literal over `{param}` over `*` over `**`; at the end
//!    of the path, a pattern that ends there over one whose `**` takes nothing. The first segment in
//!    which two patterns differ decides.
//! 3. **Method**, among the routes that share the winning host and path pattern: one that lists the
//!    method over one that lists none. Where there is neither the method is not allowed; no less
//!    specific pattern is tried.
//!
//! `{param}` and `*` take a segment that is not empty; `**` takes any number of segments, empty ones
//! included. HEAD is a method of its own: a route that lists GET does not take HEAD.
//!
//! Two patterns that match one path and do not differ in any segment are the same pattern, and two
//! routes of one pattern that share a method (or both list none) are refused at compile time: the order
//! is total over what matches.
//!
//! # Readings
//!
//! The winner is found for the path as it was sent. Where the path can be read otherwise
//! ([`crate::path`]), every reading must have the same winner, and give the parameters that a rule
//! compares the same values; otherwise the request is refused as ambiguous. A backend may also take
//! upper for lower case: then every pattern and every reading count as lower case.

use std::borrow::Cow;

use durward_config::{Diagnostics, Node};

use crate::claim_rule::Params;
use crate::path::{JudgedPath, decoded, decoded_value, fold, folds, readings};
use crate::request_facts::MethodSet;
use crate::route;
use crate::{Reason, Rejection, RequestFacts, Route, RouteId};

mod build;
mod hosts;
mod trie;

pub use crate::route::RouteContext;
use hosts::Hosts;
use trie::{LeafId, Taken};

/// Every route, indexed.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// By [`RouteId`].
    routes: Vec<Route>,
    /// By [`RouteId`]: a bit for each parameter that a rule of the route compares.
    compared: Vec<u8>,
    /// By [`LeafId`].
    leaves: Vec<Leaf>,
    hosts: Hosts,
    /// Whether a pattern has upper-case letters.
    has_upper: bool,
}

/// The routes that share a host and path pattern.
#[derive(Clone, Debug, Default)]
struct Leaf {
    by_method: Vec<(MethodSet, RouteId)>,
    any_method: Option<RouteId>,
}

/// The route of a request.
#[derive(Clone, Copy, Debug)]
pub struct RouteMatch<'t, 'r> {
    /// The route.
    pub route: &'t Route,
    /// What its pattern took from the path.
    pub params: RouteParams<'r>,
}

/// The parameters that a pattern took from a path, by their index in [`Route::param_names`].
#[derive(Clone, Copy, Debug)]
pub struct RouteParams<'r>(Taken<'r>);

impl Params for RouteParams<'_> {
    fn value(&self, index: usize) -> Option<Cow<'_, [u8]>> {
        self.0.get(index).map(decoded_value)
    }
}

impl RouteTable {
    /// Compiles `routes:`. Reports every mistake; the table is whole where there was none.
    pub fn compile(node: &Node, context: &RouteContext<'_>, diagnostics: &mut Diagnostics) -> Self {
        build::table(route::routes(node, context, diagnostics), diagnostics)
    }

    /// The route of a request, or why it has none. Allocates nothing where the path has only plain
    /// readings.
    pub fn lookup<'t, 'r>(&'t self, facts: &'r RequestFacts<'_>) -> Result<RouteMatch<'t, 'r>, Rejection> {
        let (host, path) = (facts.host(), facts.judged_path());
        let mut taken = Taken::default();
        let chosen = self.hosts.find::<false>(host, path.bytes(), &mut taken);
        let route = chosen.and_then(|leaf| self.route_of(leaf, facts.methods()));
        let compared = route.map_or(0, |id| self.compared[id.index()]);
        Winner {
            table: self,
            host,
            chosen,
            taken,
            compared,
        }
        .check_path(path)?;
        match (chosen, route) {
            (_, Some(id)) => Ok(RouteMatch {
                route: &self.routes[id.index()],
                params: RouteParams(taken),
            }),
            (Some(leaf), None) => {
                let allow = self.leaves[leaf.index()].methods().to_string();
                Err(Rejection::method_not_allowed(allow))
            }
            (None, None) => Err(Rejection::new(Reason::NoRoute, "no route matches host and path")),
        }
    }

    /// Each route, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// The route at an index.
    pub fn get(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id.index())
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none: no access.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The method chooses among the routes of a pattern.
    fn route_of(&self, leaf: LeafId, method: MethodSet) -> Option<RouteId> {
        let leaf = &self.leaves[leaf.index()];
        let listed = leaf
            .by_method
            .iter()
            .find(|(methods, _)| methods.intersects(method));
        listed.map(|(_, id)| *id).or(leaf.any_method)
    }

    /// For the log: never the path, which the access log has, but the two routes.
    fn name_of(&self, leaf: Option<LeafId>) -> String {
        let Some(leaf) = leaf.and_then(|leaf| self.leaves.get(leaf.index())) else {
            return "no route".to_owned();
        };
        match leaf.first().and_then(|id| self.get(id)) {
            Some(route) => format!("`{}` (line {})", route.name, route.place.line),
            None => "no route".to_owned(),
        }
    }
}

impl Leaf {
    /// The methods that are listed.
    fn methods(&self) -> MethodSet {
        self.by_method
            .iter()
            .fold(MethodSet::default(), |all, (methods, _)| all.union(*methods))
    }

    fn first(&self) -> Option<RouteId> {
        self.by_method
            .iter()
            .map(|(_, id)| *id)
            .chain(self.any_method)
            .min()
    }
}

/// What was found for the path as it was sent; every reading has to find the same.
struct Winner<'t, 'r> {
    table: &'t RouteTable,
    host: &'r str,
    chosen: Option<LeafId>,
    taken: Taken<'r>,
    /// The parameters that a rule of the route compares.
    compared: u8,
}

impl Winner<'_, '_> {
    fn check_path(&self, path: JudgedPath<'_>) -> Result<(), Rejection> {
        if path.is_special() {
            return self.check_readings(path.bytes());
        }
        self.check_case(path.bytes(), path.has_upper())?;
        match path.without_trailing_slash() {
            Some(shorter) => {
                self.check(shorter)?;
                self.check_case(shorter, path.has_upper())
            }
            None => Ok(()),
        }
    }

    /// Checks what a backend sees that does not tell upper from lower case. `path` is ASCII, or folded
    /// already.
    fn check_case(&self, path: &[u8], has_upper: bool) -> Result<(), Rejection> {
        if !has_upper && !self.table.has_upper {
            return Ok(());
        }
        let found = self
            .table
            .hosts
            .find::<true>(self.host, path, &mut Taken::default());
        self.agree(found)
    }

    fn check_readings(&self, path: &[u8]) -> Result<(), Rejection> {
        let readings = readings(path)
            .map_err(|_| Rejection::new(Reason::AmbiguousPath, "the path has too many readings"))?;
        for reading in &readings {
            self.check(&reading.bytes)?;
            if self.table.has_upper || folds(&reading.bytes) {
                self.check_case(&fold(&reading.bytes), true)?;
            }
        }
        Ok(())
    }

    /// Checks a reading: the same route, and the same values where a rule compares them.
    fn check(&self, reading: &[u8]) -> Result<(), Rejection> {
        let mut taken = Taken::default();
        let found = self.table.hosts.find::<false>(self.host, reading, &mut taken);
        self.agree(found)?;
        let differs =
            |index: &usize| self.compared & (1 << index) != 0 && !self.taken.is_same(&taken, *index);
        match (0..route::MAX_PARAMS).find(differs) {
            None => Ok(()),
            Some(index) => Err(Rejection::new(
                Reason::AmbiguousPath,
                format!(
                    "another reading of the path gives parameter {} another value",
                    index + 1
                ),
            )),
        }
    }

    fn agree(&self, found: Option<LeafId>) -> Result<(), Rejection> {
        if found == self.chosen {
            return Ok(());
        }
        let (sent, read) = (self.table.name_of(self.chosen), self.table.name_of(found));
        let cause = format!("as sent the path is for {sent}, in another reading for {read}");
        Err(Rejection::new(Reason::AmbiguousPath, cause))
    }
}

impl Taken<'_> {
    /// Whether a parameter has the same value, percent-decoded.
    fn is_same(&self, other: &Taken<'_>, index: usize) -> bool {
        match (self.get(index), other.get(index)) {
            (Some(left), Some(right)) => left == right || decoded(left).eq(decoded(right)),
            (None, None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
