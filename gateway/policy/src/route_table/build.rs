//! From routes to the table: ties are errors, routes that can never match are warnings.

use std::collections::HashMap;

use durward_config::Diagnostics;

use super::hosts::Hosts;
use super::trie::LeafId;
use super::{Leaf, RouteTable};
use crate::Route;
use crate::request_facts::MethodSet;
use crate::rewrite::check_aliases;
use crate::route::{HostPattern, MAX_PARAMS, Segment};

pub(super) fn table(routes: Vec<Route>, diagnostics: &mut Diagnostics) -> RouteTable {
    let leaves = Leaves::group(&routes, diagnostics);
    let has_upper = routes
        .iter()
        .any(|route| route.path.folded() != route.path.segments());
    let mut hosts = Hosts::default();
    for (leaf, first) in &leaves.list {
        hosts.insert(&first.host, &first.path, *leaf);
    }
    warn_of_unreachable(&leaves, diagnostics);
    check_aliases(routes.iter(), diagnostics);
    RouteTable {
        leaves: leaves.compiled,
        compared: routes.iter().map(compared).collect(),
        hosts,
        has_upper,
        routes,
    }
}

/// A bit for each parameter that a rule of the route compares.
fn compared(route: &Route) -> u8 {
    let used = (0..MAX_PARAMS).filter(|index| route.requirement.uses_param(*index));
    used.fold(0, |bits, index| bits | 1 << index)
}

/// The patterns, each with the routes that share it.
#[derive(Default)]
struct Leaves<'r> {
    compiled: Vec<Leaf>,
    /// Each with the first route of its pattern.
    list: Vec<(LeafId, &'r Route)>,
}

impl<'r> Leaves<'r> {
    fn group(routes: &'r [Route], diagnostics: &mut Diagnostics) -> Self {
        let mut leaves = Self::default();
        // Patterns that differ only in the case of letters count as one here.
        let mut known: HashMap<(&HostPattern, Vec<Segment>), (LeafId, &Route)> = HashMap::new();
        for route in routes {
            let next = LeafId(u32::try_from(leaves.compiled.len()).unwrap_or(u32::MAX));
            let (leaf, first) = *known
                .entry((&route.host, route.path.folded()))
                .or_insert((next, route));
            if leaf == next {
                leaves.compiled.push(Leaf::default());
                leaves.list.push((leaf, route));
            }
            if first.path.segments() == route.path.segments() {
                leaves.add(leaf, route, routes, diagnostics);
            } else {
                report_case(route, first, diagnostics);
            }
        }
        leaves
    }

    fn add(&mut self, leaf: LeafId, route: &Route, routes: &[Route], diagnostics: &mut Diagnostics) {
        let leaf = &mut self.compiled[leaf.index()];
        let twin = match route.methods {
            None => leaf.any_method,
            Some(methods) => leaf
                .by_method
                .iter()
                .find(|(taken, _)| taken.intersects(methods))
                .map(|(_, id)| *id),
        };
        if let Some(twin) = twin.and_then(|id| routes.get(id.index())) {
            return report_tie(route, twin, diagnostics);
        }
        match route.methods {
            None => leaf.any_method = Some(route.id),
            Some(methods) => leaf.by_method.push((methods, route.id)),
        }
    }
}

fn report_tie(route: &Route, twin: &Route, diagnostics: &mut Diagnostics) {
    let message = format!("route `{}` ties with the one at {}", route.name, twin.place);
    let advice =
        "one host and path pattern may be written several times only with different `methods`; remove one";
    diagnostics.error(route.place, message, advice);
}

/// A backend may or may not tell them apart, so that every request to either would be ambiguous.
fn report_case(route: &Route, first: &Route, diagnostics: &mut Diagnostics) {
    let message = format!(
        "route `{}` differs from `{}` at {} only in upper and lower case",
        route.name, first.name, first.place
    );
    diagnostics.error(route.place, message, "write both in the same way, or remove one");
}

fn warn_of_unreachable(leaves: &Leaves<'_>, diagnostics: &mut Diagnostics) {
    for (leaf, route) in &leaves.list {
        warn_of_unreachable_by_method(&leaves.compiled[leaf.index()], route, diagnostics);
    }
    let has = |route: &Route, wanted: Segment| route.path.segments().contains(&wanted);
    // Only a `{param}` can take all that a pattern takes and win over it, and only over a `*`.
    for (_, route) in leaves.list.iter().filter(|(_, route)| has(route, Segment::One)) {
        let mut others = leaves
            .list
            .iter()
            .filter(|(_, other)| has(other, Segment::Param) && other.host == route.host);
        if let Some((_, other)) = others.find(|(_, other)| hides(&other.path.folded(), &route.path.folded()))
        {
            let message = format!(
                "route `{}` can never match: `{}` at {} wins always",
                route.name, other.name, other.place
            );
            diagnostics.warning(
                route.place,
                message,
                "remove it, or write `*` for `{name}` in the other",
            );
        }
    }
}

/// A route without methods, beside routes that list all there are.
fn warn_of_unreachable_by_method(leaf: &Leaf, route: &Route, diagnostics: &mut Diagnostics) {
    if leaf.any_method.is_some() && leaf.methods() == MethodSet::ALL {
        let message = format!(
            "the route `{}` without `methods` can never match: others list every one",
            route.name
        );
        diagnostics.warning(route.place, message, "remove it");
    }
}

/// Whether a pattern matches all that the other does, and is more specific.
fn hides(pattern: &[Segment], other: &[Segment]) -> bool {
    let takes = |(left, right): (&Segment, &Segment)| match left {
        Segment::Literal(_) | Segment::Rest => left == right,
        Segment::Param | Segment::One => *right != Segment::Rest,
    };
    let rest = pattern
        .len()
        .checked_sub(1)
        .filter(|last| pattern[*last] == Segment::Rest);
    let (takes_all, pattern_head) = match rest {
        // `**` takes whatever the other goes on with.
        Some(head) => (other.len() >= head, &pattern[..head]),
        None => (other.len() == pattern.len(), pattern),
    };
    takes_all
        && pattern_head.iter().zip(other).all(takes)
        && pattern
            .iter()
            .zip(other)
            .find(|(left, right)| left != right)
            .is_some_and(|(left, right)| left < right)
}
