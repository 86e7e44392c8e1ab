//! The patterns of hosts and paths.

use std::fmt;

use durward_config::{Diagnostics, Node, Place};

use crate::host::canonical_name;

/// The most parameters of a pattern.
pub const MAX_PARAMS: usize = 8;
/// The most segments of a pattern.
pub const MAX_PATTERN_SEGMENTS: usize = 32;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostPattern {
    /// This one.
    Exact(String),
    /// Those with one or more labels before this suffix (`*.example.com`).
    Wildcard(String),
    /// All.
    Any,
}

impl HostPattern {
    /// Reads `host:`.
    pub(crate) fn compile(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Option<Self> {
        const ADVICE: &str = "write a host without a port, such as app.example.com or *.example.com";
        let Some(node) = node else {
            return Some(Self::Any);
        };
        let text = node.text("`host`", diagnostics)?;
        if text == "*" {
            diagnostics.error(
                node.place,
                "`host` cannot be `*`",
                "leave it out: the route is for any host then",
            );
            return None;
        }
        let (suffix, wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        match pattern_host(suffix, wildcard) {
            Ok(name) => Some(if wildcard {
                Self::Wildcard(name)
            } else {
                Self::Exact(name)
            }),
            Err(problem) => {
                diagnostics.error(node.place, format!("`{text}` is no host: {problem}"), ADVICE);
                None
            }
        }
    }

    /// Whether it is for a host in canonical spelling.
    #[cfg(test)]
    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|label| label.len() > 1 && label.ends_with('.')),
            Self::Any => true,
        }
    }
}

/// The canonical spelling that [`crate::host`] gives requests too.
fn pattern_host(text: &str, wildcard: bool) -> Result<String, &'static str> {
    if wildcard || !text.starts_with('[') {
        return Ok(canonical_name(text.as_bytes())?.into_owned());
    }
    let host = crate::host::Host::parse(text.as_bytes())?;
    match host.port() {
        None => Ok(host.name().to_owned()),
        Some(_) => Err("a route has no port"),
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => Ok(()),
        }
    }
}

/// One segment of a path pattern. In the order of precedence: the first that differs decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Segment {
    /// `name`: this segment, byte for byte.
    Literal(Box<str>),
    /// `{name}`: any segment but an empty one, which becomes a parameter.
    Param,
    /// `*`: any segment but an empty one.
    One,
    /// `**`, at the end only: any number of segments, none included.
    Rest,
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    param_names: Vec<String>,
}

impl PathPattern {
    /// Reads `path:`.
    pub(crate) fn compile(node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let text = node.text("`path`", diagnostics)?;
        match Self::parse(text) {
            Ok(pattern) => Some(pattern),
            Err((problem, advice)) => {
                report(text, node.place, problem, advice, diagnostics);
                None
            }
        }
    }

    /// What is wrong, and what to write instead.
    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(("it is too long", "keep a pattern within 1024 bytes"));
        }
        let rest = text
            .strip_prefix('/')
            .ok_or(("it does not begin with `/`", "write it as `/api/**`"))?;
        let mut pattern = Self {
            text: text.to_owned(),
            segments: Vec::new(),
            param_names: Vec::new(),
        };
        for segment in rest.split('/').filter(|_| !rest.is_empty()) {
            pattern.push(segment)?;
        }
        Ok(pattern)
    }

    fn push(&mut self, text: &str) -> Result<(), (&'static str, &'static str)> {
        if self.segments.len() == MAX_PATTERN_SEGMENTS {
            return Err(("it has too many segments", "keep a pattern within 32 segments"));
        }
        if self.segments.last() == Some(&Segment::Rest) {
            return Err((
                "`**` is not at its end",
                "use `*` or `{name}` for a single segment",
            ));
        }
        let segment = match text {
            "**" => Segment::Rest,
            "*" => Segment::One,
            _ => match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
                Some(name) => self.param(name)?,
                None => literal(text)?,
            },
        };
        self.segments.push(segment);
        Ok(())
    }

    fn param(&mut self, name: &str) -> Result<Segment, (&'static str, &'static str)> {
        let named = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !named {
            return Err((
                "a parameter's name is not one",
                "use letters, digits and `_`, as in `{owner}`",
            ));
        }
        if self.param_names.iter().any(|known| known == name) {
            return Err(("two parameters have the same name", "give each a name of its own"));
        }
        if self.param_names.len() == MAX_PARAMS {
            return Err((
                "it has too many parameters",
                "name at most 8; `*` takes a segment without a name",
            ));
        }
        self.param_names.push(name.to_owned());
        Ok(Segment::Param)
    }

    /// As the file writes it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn param_names(&self) -> &[String] {
        &self.param_names
    }

    /// The segments as a backend sees them that does not tell upper from lower case.
    pub(crate) fn folded(&self) -> Vec<Segment> {
        let fold = |segment: &Segment| match segment {
            Segment::Literal(text) => Segment::Literal(text.to_ascii_lowercase().into()),
            other => other.clone(),
        };
        self.segments.iter().map(fold).collect()
    }
}

/// A literal has only characters that have a single reading, so that a request for it has one too.
fn literal(text: &str) -> Result<Segment, (&'static str, &'static str)> {
    const PLAIN: &[u8] = b"-._~!$&'()+,=:@";
    match text {
        "" => {
            return Err((
                "it has an empty segment",
                "leave out the slash; `/docs/**` takes `/docs/` too",
            ));
        }
        "." | ".." => return Err(("it has a dot segment", "write the path that is meant")),
        _ => {}
    }
    if text.contains('*') || text.contains(['{', '}']) {
        return Err((
            "`*` and `{name}` stand for whole segments",
            "write them between slashes, as in `/files/*/raw`",
        ));
    }
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || PLAIN.contains(&byte))
    {
        return Err((
            "it has a character that can be read in more ways than one",
            "use letters, digits and - . _ ~ ! $ & ' ( ) + , = : @; `*` takes a segment with anything else",
        ));
    }
    Ok(Segment::Literal(text.into()))
}

fn report(text: &str, place: Place, problem: &str, advice: &str, diagnostics: &mut Diagnostics) {
    diagnostics.error(place, format!("`{text}` is no path pattern: {problem}"), advice);
}

#[cfg(test)]
mod tests {
    use super::{MAX_PARAMS, MAX_PATTERN_BYTES, MAX_PATTERN_SEGMENTS, PathPattern, Segment};

    #[test]
    fn patterns_are_read() {
        let literal = |text: &str| Segment::Literal(text.into());
        for (text, segments) in [
            ("/", vec![]),
            ("/**", vec![Segment::Rest]),
            ("/api/v1.0", vec![literal("api"), literal("v1.0")]),
            (
                "/a/*/{b}/**",
                vec![literal("a"), Segment::One, Segment::Param, Segment::Rest],
            ),
            ("/.well-known/x", vec![literal(".well-known"), literal("x")]),
            ("/API/a:b@c", vec![literal("API"), literal("a:b@c")]),
        ] {
            assert_eq!(PathPattern::parse(text).unwrap().segments(), segments, "{text}");
        }
        assert_eq!(
            PathPattern::parse("/{a}/{b_2}").unwrap().param_names(),
            ["a", "b_2"]
        );
    }

    #[test]
    fn what_no_request_could_match_beyond_doubt_is_no_pattern() {
        for text in [
            "", "a", "api/**", "/a/", "//", "//a", "/a//b", "/.", "/a/../b", "/a/**/b", "/**/**", "/***",
            "/a*", "/*.png", "/{a", "/a}", "/{}", "/{a}b", "/x{a}", "/{1}", "/{a-b}", "/{a}/{a}", "/{a}{b}",
            "/a%20b", "/a%2fb", "/%61", "/a;b", "/a\\b", "/a?b", "/a#b", "/a b", "/a\tb", "/\u{e9}", "/a|b",
            "/^a$^",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns_are_bounded() {
        assert!(PathPattern::parse(&"/a".repeat(MAX_PATTERN_SEGMENTS)).is_ok());
        assert!(PathPattern::parse(&"/a".repeat(MAX_PATTERN_SEGMENTS + 1)).is_err());
        let params = |count: usize| {
            (0..count)
                .map(|index| format!("/{{p{index}}}"))
                .collect::<String>()
        };
        assert!(PathPattern::parse(&params(MAX_PARAMS)).is_ok());
        assert!(PathPattern::parse(&params(MAX_PARAMS + 1)).is_err());
        assert!(PathPattern::parse(&format!("/{}", "a".repeat(MAX_PATTERN_BYTES - 1))).is_ok());
        assert!(PathPattern::parse(&format!("/{}", "a".repeat(MAX_PATTERN_BYTES))).is_err());
    }
}
