//! The target that is forwarded, where it is not the one that was sent: `strip_prefix` and `rewrite`.
//!
//! What is judged is the path of the client, as always. What is forwarded is made of its raw bytes
//! afterwards, segment by segment, so that it is the same for the same request and different for two
//! different ones. Two ways from the client to one path of a backend would let a route's rules be
//! evaded by another's; hence three restrictions:
//!
//! - A path whose segments could be counted in more than one way (dot segments, empty segments,
//!   escaped separators) is not rewritten but refused: a backend could resolve it beyond where the
//!   prefix was.
//! - A pattern keeps all that it takes: each parameter and the `**` stand in `rewrite` once.
//! - Routes of one upstream whose forwarded paths can be the same rewrite them in the same way
//!   ([`check_aliases`]).

use durward_config::{Diagnostics, Node};

use crate::path::{JudgedPath, readings};
use crate::route::{PathPattern, Segment};
use crate::{Reason, Rejection, Route};

/// How a route's target is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    parts: Vec<Part>,
    /// From this segment on all are kept as they are.
    rest_from: Option<usize>,
    /// The forwarded paths.
    forwarded: Vec<Segment>,
    /// The same for routes that do the same.
    way: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// The segment of the request's path at this index.
    Kept(usize),
}

impl Rewrite {
    /// Reads `strip_prefix:` and `rewrite:`. The outer option is empty where one is wrong, the inner
    /// where there is none.
    pub(crate) fn compile(
        strip_prefix: Option<&Node>,
        rewrite: Option<&Node>,
        path: &PathPattern,
        diagnostics: &mut Diagnostics,
    ) -> Option<Option<Self>> {
        match (strip_prefix, rewrite) {
            (None, None) => Some(None),
            (Some(node), None) => Self::strip(node, path, diagnostics).map(Some),
            (None, Some(node)) => Self::template(node, path, diagnostics).map(Some),
            (Some(_), Some(node)) => {
                let advice = "write `rewrite` alone: it can leave a prefix out";
                diagnostics.error(node.place, "a route has `strip_prefix` and `rewrite`", advice);
                None
            }
        }
    }

    fn strip(node: &Node, path: &PathPattern, diagnostics: &mut Diagnostics) -> Option<Self> {
        let text = node.text("`strip_prefix`", diagnostics)?;
        let prefix: Vec<_> = text.strip_prefix('/').unwrap_or_default().split('/').collect();
        let is_literal = |(segment, wanted): (&Segment, &&str)| matches!(segment, Segment::Literal(literal) if **literal == **wanted);
        let fits = text.len() > 1
            && text.starts_with('/')
            && prefix.len() <= path.segments().len()
            && path.segments().iter().zip(&prefix).all(is_literal);
        if !fits {
            let message = format!("`{text}` is not how `{}` begins", path.text());
            let advice = "write literal segments that the path begins with, such as `/api`";
            diagnostics.error(node.place, message, advice);
            return None;
        }
        let kept = &path.segments()[prefix.len()..];
        let fixed = kept.iter().filter(|segment| **segment != Segment::Rest).count();
        Some(Self {
            parts: (prefix.len()..prefix.len() + fixed).map(Part::Kept).collect(),
            rest_from: (kept.last() == Some(&Segment::Rest)).then_some(prefix.len() + fixed),
            forwarded: kept.to_vec(),
            way: format!("strip {text}"),
        })
    }

    fn template(node: &Node, path: &PathPattern, diagnostics: &mut Diagnostics) -> Option<Self> {
        let template = PathPattern::compile(node, diagnostics)?;
        let mut wrong = |message: String, advice: &str| {
            diagnostics.error(node.place, message, advice);
            None
        };
        let [from, to] = [path.segments(), template.segments()];
        if from.contains(&Segment::One) || to.contains(&Segment::One) {
            let message = format!("`{}` takes a segment without a name", path.text());
            return wrong(
                message,
                "write `{name}` instead of `*`, and the same name in `rewrite`",
            );
        }
        let rest = [from, to].map(|segments| segments.last() == Some(&Segment::Rest));
        if rest[0] != rest[1] {
            let message = "one of `path` and `rewrite` ends with `**`, and the other does not";
            return wrong(message.into(), "end both with `/**`, or none");
        }
        let names = [&path, &&template].map(|pattern| {
            let mut names = pattern.param_names().to_vec();
            names.sort();
            names
        });
        if names[0] != names[1] {
            let message = "`rewrite` does not have the parameters of `path`";
            return wrong(message.into(), "write each `{name}` of the path once");
        }
        let place_of = |name: &String| {
            let number = path.param_names().iter().position(|known| known == name)?;
            let params = from
                .iter()
                .enumerate()
                .filter(|(_, segment)| **segment == Segment::Param);
            params.map(|(place, _)| place).nth(number)
        };
        let mut params = template.param_names().iter().filter_map(place_of);
        let part = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(Part::Literal(text.clone())),
            Segment::Param => params.next().map(Part::Kept),
            Segment::One | Segment::Rest => None,
        };
        Some(Self {
            parts: to.iter().filter_map(part).collect(),
            rest_from: rest[0].then(|| from.len() - 1),
            forwarded: to.to_vec(),
            way: format!("{} to {}", path.text(), template.text()),
        })
    }

    /// The target that is forwarded for a path that the route's pattern took.
    pub(crate) fn apply(&self, path: JudgedPath<'_>, query: Option<&[u8]>) -> Result<Vec<u8>, Rejection> {
        check_segments(path)?;
        let segments: Vec<&[u8]> = path.bytes()[1..].split(|byte| *byte == b'/').collect();
        let mut target = Vec::with_capacity(path.bytes().len() + query.map_or(0, <[u8]>::len) + 64);
        for part in &self.parts {
            target.push(b'/');
            match part {
                Part::Literal(text) => target.extend_from_slice(text.as_bytes()),
                Part::Kept(index) => match segments.get(*index) {
                    Some(segment) => target.extend_from_slice(segment),
                    None => return Err(Rejection::new(Reason::Internal, "a segment is not there")),
                },
            }
        }
        for segment in self
            .rest_from
            .and_then(|from| segments.get(from..))
            .into_iter()
            .flatten()
        {
            target.push(b'/');
            target.extend_from_slice(segment);
        }
        if target.is_empty() {
            target.push(b'/');
        }
        if let Some(query) = query {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        Ok(target)
    }
}

/// Every reading of the path has to have the same number of segments, none of them empty or of dots.
fn check_segments(path: JudgedPath<'_>) -> Result<(), Rejection> {
    if !path.is_special() {
        return Ok(());
    }
    let count = |bytes: &[u8]| {
        let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
        let mut count = 0;
        for segment in bytes.get(1..).unwrap_or_default().split(|byte| *byte == b'/') {
            if matches!(segment, b"" | b"." | b"..") {
                return None;
            }
            count += 1;
        }
        Some(count)
    };
    let ambiguous = || {
        Rejection::new(
            Reason::AmbiguousPath,
            "the path has no certain segments to rewrite",
        )
    };
    let sent = count(path.bytes()).ok_or_else(ambiguous)?;
    let readings = readings(path.bytes()).map_err(|_| ambiguous())?;
    if readings.iter().all(|reading| count(&reading.bytes) == Some(sent)) {
        Ok(())
    } else {
        Err(ambiguous())
    }
}

/// Refuses routes of one upstream that lead to one path of it in different ways.
pub(crate) fn check_aliases<'r>(
    routes: impl Iterator<Item = &'r Route> + Clone,
    diagnostics: &mut Diagnostics,
) {
    let rewritten = routes
        .clone()
        .filter_map(|route| Some((route, route.rewrite.as_ref()?)));
    for (route, rewrite) in rewritten {
        let alias = routes.clone().find(|other| {
            // Of two that are rewritten, the first reports.
            let earlier = other.rewrite.is_some() && other.id < route.id;
            other.upstream == route.upstream
                && !earlier
                && way_of(other) != rewrite.way
                && overlap(forwarded_of(other), &rewrite.forwarded)
        });
        if let Some(other) = alias {
            let message = format!(
                "`{}` and `{}` (line {}) lead to the same path of one upstream in different ways, so that the rules of \
                 one can be evaded by the other",
                route.name, other.name, other.place.line
            );
            let advice = "rewrite both alike, or give one an upstream of its own if that is meant";
            diagnostics.error(route.place, message, advice);
        }
    }
}

fn way_of(route: &Route) -> &str {
    route.rewrite.as_ref().map_or("", |rewrite| &rewrite.way)
}

fn forwarded_of(route: &Route) -> &[Segment] {
    match &route.rewrite {
        Some(rewrite) => &rewrite.forwarded,
        None => route.path.segments(),
    }
}

/// Whether a path can be of both patterns. Backends may not tell upper from lower case.
fn overlap(left: &[Segment], right: &[Segment]) -> bool {
    match (left, right) {
        ([Segment::Rest, ..], _) | (_, [Segment::Rest, ..]) | ([], []) => true,
        ([], _) | (_, []) => false,
        ([Segment::Literal(one), left @ ..], [Segment::Literal(other), right @ ..]) => {
            one.eq_ignore_ascii_case(other) && overlap(left, right)
        }
        ([_, left @ ..], [_, right @ ..]) => overlap(left, right),
    }
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(path: &str, keys: &str) -> Result<Option<Rewrite>, String> {
        let document = Document::parse("c", &format!("{{ path: '{path}', {keys} }}")).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("a route", &mut diagnostics).unwrap();
        let path = PathPattern::compile(section.optional("path").unwrap(), &mut diagnostics).unwrap();
        let [strip, rewrite] = [section.optional("strip_prefix"), section.optional("rewrite")];
        let compiled = Rewrite::compile(strip, rewrite, &path, &mut diagnostics);
        compiled.ok_or_else(|| diagnostics.located_in(&document).to_string())
    }

    fn forwarded(rewrite: &Rewrite, target: &str) -> Result<String, Reason> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (target, None),
        };
        let path = JudgedPath::judge(path.as_bytes()).unwrap();
        let made = rewrite.apply(path, query).map_err(|rejection| rejection.reason)?;
        Ok(String::from_utf8(made).unwrap())
    }

    #[test]
    fn targets_are_made_of_the_raw_bytes() {
        for (path, keys, target, expected) in [
            ("/api/**", "strip_prefix: /api", "/api/a/b", "/a/b"),
            ("/api/**", "strip_prefix: /api", "/api", "/"),
            ("/api/**", "strip_prefix: /api", "/api/", "/"),
            (
                "/api/**",
                "strip_prefix: /api",
                "/api/a/?x=/api/y",
                "/a/?x=/api/y",
            ),
            ("/api/**", "strip_prefix: /api", "/api?", "/?"),
            (
                "/api/**",
                "strip_prefix: /api",
                "/api/a%20b;c/%C3%A4",
                "/a%20b;c/%C3%A4",
            ),
            ("/api/v1/{x}", "strip_prefix: /api", "/api/v1/2", "/v1/2"),
            ("/a/b", "strip_prefix: /a/b", "/a/b", "/"),
            (
                "/u/{id}/**",
                "rewrite: '/v2/{id}/users/**'",
                "/u/7/x/",
                "/v2/7/users/x/",
            ),
            ("/u/{id}/**", "rewrite: '/v2/{id}/**'", "/u/7", "/v2/7"),
            ("/{a}/{b}", "rewrite: '/{b}/{a}'", "/1/2?q", "/2/1?q"),
            ("/old", "rewrite: /new/place", "/old", "/new/place"),
        ] {
            let rewrite = compile(path, keys).unwrap().unwrap();
            assert_eq!(
                forwarded(&rewrite, target),
                Ok(expected.to_owned()),
                "{path} {keys} {target}"
            );
        }
    }

    #[test]
    fn what_could_be_resolved_beyond_the_prefix_is_refused() {
        let rewrite = compile("/api/**", "strip_prefix: /api").unwrap().unwrap();
        for target in [
            "/api//evil.example/x",
            "/api/x/..",
            "/api/../api/x",
            "/api/./x",
            "/api/%2e%2e/api/x",
            "/api/%252e%252e/api/x",
            "/api/a%2Fb",
            "/api/a%252Fb",
            "/api/a%5Cb",
            "/api/a\\b",
            "/api/..;/api/x",
            "/api/a%3Fx/b",
            "/api/%2F",
        ] {
            assert_eq!(
                forwarded(&rewrite, target),
                Err(Reason::AmbiguousPath),
                "{target}"
            );
        }
    }

    #[test]
    fn what_would_lose_a_part_of_the_path_is_an_error() {
        for (path, keys) in [
            ("/api/**", "strip_prefix: /ap"),
            ("/api/**", "strip_prefix: /api/v1"),
            ("/api/**", "strip_prefix: /"),
            ("/api/**", "strip_prefix: api"),
            ("/api/**", "strip_prefix: /api/"),
            ("/{a}/b", "strip_prefix: /x"),
            ("/api/**", "strip_prefix: /api, rewrite: /x/**"),
            ("/api/**", "rewrite: /x"),
            ("/api/x", "rewrite: /x/**"),
            ("/api/{a}", "rewrite: /x"),
            ("/api/{a}", "rewrite: '/x/{b}'"),
            ("/api/{a}", "rewrite: '/x/{a}/{b}'"),
            ("/api/*", "rewrite: /x/*"),
            ("/api/**", "rewrite: 'http://x/**'"),
            ("/api/**", "rewrite: '/../**'"),
            ("/api/**", "rewrite: '/x?y/**'"),
        ] {
            assert!(compile(path, keys).is_err(), "{path} {keys}");
        }
    }

    #[test]
    fn patterns_overlap_where_a_path_is_of_both() {
        let segments = |text: &str| {
            let document = Document::parse("c", &format!("'{text}'")).unwrap();
            let pattern = PathPattern::compile(document.root(), &mut Diagnostics::default()).unwrap();
            pattern.segments().to_vec()
        };
        for (left, right, expected) in [
            ("/**", "/admin/**", true),
            ("/a/**", "/b/**", false),
            ("/a/{x}", "/{y}/b", true),
            ("/a/{x}", "/a", false),
            ("/a/**", "/A", true),
            ("/a/b", "/a/b/**", true),
            ("/a/b", "/a/c", false),
        ] {
            assert_eq!(
                overlap(&segments(left), &segments(right)),
                expected,
                "{left} {right}"
            );
            assert_eq!(
                overlap(&segments(right), &segments(left)),
                expected,
                "{right} {left}"
            );
        }
    }
}
