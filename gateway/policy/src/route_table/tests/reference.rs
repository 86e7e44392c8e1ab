//! The table against a reference without a tree or an order of search: only the definition.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::{AMBIGUOUS, choose, compile, line};
use crate::path::{decoded_value, fold, readings};
use crate::route::{HostPattern, Segment};
use crate::{Reason, Route, RouteTable};

/// The pattern that wins for a path, and what its parameters take.
fn reference<'p>(
    routes: &[&'p Route],
    host: &str,
    path: &'p [u8],
    folded: bool,
) -> Option<(&'p Route, Vec<&'p [u8]>)> {
    let segments: Vec<&[u8]> = if path == b"/" {
        Vec::new()
    } else {
        path[1..].split(|byte| *byte == b'/').collect()
    };
    let pattern = |route: &Route| {
        if folded {
            route.path.folded()
        } else {
            route.path.segments().to_vec()
        }
    };
    let winner = routes
        .iter()
        .filter(|route| route.host.matches(host) && matches(&pattern(route), &segments))
        .min_by(|left, right| {
            let (left, right) = ((&left.host, pattern(left)), (&right.host, pattern(right)));
            host_order(left.0, right.0).then_with(|| rank(&left.1).cmp(&rank(&right.1)))
        })?;
    let taken = winner
        .path
        .segments()
        .iter()
        .zip(&segments)
        .filter(|(kind, _)| **kind == Segment::Param);
    Some((winner, taken.map(|(_, segment)| *segment).collect()))
}

fn matches(pattern: &[Segment], segments: &[&[u8]]) -> bool {
    match (pattern, segments) {
        ([Segment::Rest], _) => true,
        ([], []) => true,
        ([Segment::Literal(text), pattern @ ..], [segment, segments @ ..]) => {
            text.as_bytes() == *segment && matches(pattern, segments)
        }
        ([Segment::Param | Segment::One, pattern @ ..], [segment, segments @ ..]) => {
            !segment.is_empty() && matches(pattern, segments)
        }
        _ => false,
    }
}

fn rank(pattern: &[Segment]) -> Vec<u8> {
    let rank = |segment: &Segment| match segment {
        Segment::Literal(_) => 0,
        Segment::Param => 1,
        Segment::One => 2,
        Segment::Rest => 4,
    };
    // 3: the pattern ends.
    pattern.iter().map(rank).chain([3]).collect()
}

fn host_order(left: &HostPattern, right: &HostPattern) -> Ordering {
    let rank = |host: &HostPattern| match host {
        HostPattern::Exact(_) => (0, 0),
        HostPattern::Wildcard(suffix) => (1, usize::MAX - suffix.len()),
        HostPattern::Any => (2, 0),
    };
    rank(left).cmp(&rank(right))
}

fn reference_lookup(table: &RouteTable, host: &str, path: &[u8]) -> Result<(u32, Vec<String>), Reason> {
    let routes: Vec<&Route> = table.iter().collect();
    let sent = reference(&routes, host, path, false);
    let line = |found: &Option<(&Route, Vec<&[u8]>)>| found.as_ref().map(|(route, _)| route.place.line);
    for reading in readings(path).map_err(|_| Reason::AmbiguousPath)? {
        let read = reference(&routes, host, &reading.bytes, false);
        let folded = fold(&reading.bytes);
        if line(&read) != line(&sent) || line(&reference(&routes, host, &folded, true)) != line(&sent) {
            return Err(Reason::AmbiguousPath);
        }
        let (Some((route, sent)), Some((_, read))) = (&sent, &read) else {
            continue;
        };
        for (index, (sent, read)) in sent.iter().zip(read).enumerate() {
            if route.requirement.uses_param(index) && decoded_value(sent) != decoded_value(read) {
                return Err(Reason::AmbiguousPath);
            }
        }
    }
    let (route, params) = sent.ok_or(Reason::NoRoute)?;
    let params = params
        .into_iter()
        .map(|value| String::from_utf8_lossy(&decoded_value(value)).into_owned());
    Ok((route.place.line, params.collect()))
}

fn any_route() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec!["", "", "h", "*.h", "*.w.h", "a.w.h"]);
    let segment = prop::sample::select(vec!["a", "b", "A", "c.d", "{}", "{}", "*"]);
    let rest = prop::sample::select(vec!["", "/**"]);
    let rule = any::<bool>();
    (host, prop::collection::vec(segment, 0..4), rest, rule).prop_map(|(host, segments, rest, rule)| {
        let mut path = String::new();
        let mut params = 0;
        for segment in segments {
            path.push('/');
            path.push_str(&segment.replace("{}", &format!("{{p{params}}}")));
            params += usize::from(segment == "{}");
        }
        path.push_str(rest);
        let path = if path.is_empty() { "/" } else { &path };
        let host = if host.is_empty() {
            String::new()
        } else {
            format!(", host: \"{host}\"")
        };
        let rule = if rule && params > 0 {
            ", require: { sub: \"{p0}\" }"
        } else {
            ""
        };
        format!("- {{ upstream: u, path: \"{path}\"{host}{rule} }}\n")
    })
}

fn any_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "a",
        "a",
        "b",
        "A",
        "B",
        "x",
        "c.d",
        "%61",
        "%2f",
        "%2F",
        "..",
        ".",
        "/../",
        ";",
        "\\",
        "%252e",
        "%20",
        "%3f",
        "%41",
        "%E2%84%AA",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// A table of those of the routes that go together, and their text.
fn compatible(routes: &[String]) -> (RouteTable, String) {
    let mut yaml = String::from("[]");
    for route in routes {
        let with = if yaml == "[]" {
            route.clone()
        } else {
            format!("{yaml}{route}")
        };
        if !compile(&with).1.contains("error") {
            yaml = with;
        }
    }
    (compile(&yaml).0, yaml)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_table_is_the_reference(
        routes in prop::collection::vec(any_route(), 1..10),
        host in prop::sample::select(vec!["h", "x.h", "a.w.h", "b.w.h", "b.a.w.h", "other"]),
        paths in prop::collection::vec(any_path(), 1..20),
    ) {
        let (table, yaml) = compatible(&routes);
        for path in paths {
            let found = choose(&table, "GET", host, &path).map_err(|rejection| rejection.reason);
            prop_assert_eq!(found, reference_lookup(&table, host, path.as_bytes()), "{}\n{}", path, yaml);
        }
    }

    #[test]
    fn another_route_takes_requests_to_itself_only(
        routes in prop::collection::vec(any_route(), 1..8),
        added in any_route(),
        paths in prop::collection::vec(any_path(), 1..20),
    ) {
        let (before, yaml) = compatible(&routes);
        let (after, errors) = compile(&format!("{yaml}{added}"));
        if errors.contains("error") {
            return Ok(());
        }
        let new = after.len();
        for path in paths {
            match (line(&before, &path), line(&after, &path)) {
                (_, Ok(line)) if line as usize == new => {}
                (before, after) => prop_assert!(before == after || after == AMBIGUOUS, "{path} {before:?} {after:?}"),
            }
        }
    }

    #[test]
    fn a_route_that_is_warned_of_is_never_chosen(
        routes in prop::collection::vec(any_route(), 2..8),
        paths in prop::collection::vec(any_path(), 1..20),
    ) {
        let (table, yaml) = compatible(&routes);
        let (_, warnings) = compile(&yaml);
        for path in paths {
            if let Ok(line) = line(&table, &path) {
                prop_assert!(!warnings.contains(&format!("c.yaml:{line}:3: warning")), "{path} {yaml} {warnings}");
            }
        }
    }
}
