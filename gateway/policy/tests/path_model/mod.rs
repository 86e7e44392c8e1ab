//! What a backend may make of a path, written anew and plainly, and the routes that it is tried on: for
//! the properties and for the fuzz target `path_readings`.

use std::sync::LazyLock;

use durward_config::{Diagnostics, Document, Place};
use durward_policy::{
    Access, Issuers, Params, RawRequest, Reason, RequestFacts, Route, RouteContext, RouteTable, WhenUnknown,
};
use http::{HeaderMap, HeaderValue, Method, Version};

/// The routes of the model.
pub const ROUTES: &str = r#"
- { path: /public/**, upstream: u, access: public }
- { path: /api/**, upstream: u }
- { path: /api/health, upstream: u, access: public }
- { path: /admin/**, upstream: u, require: { roles: admin } }
- { path: "/images/{owner}/**", upstream: u, require: { sub: "{owner}" } }
- { path: /images/catalogue/**, upstream: u, access: public }
"#;

pub static TABLE: LazyLock<RouteTable> = LazyLock::new(|| {
    let document = Document::parse("c.yaml", ROUTES).unwrap();
    let upstream_names = [("u".to_owned(), Place::default())];
    let issuers = Issuers::default();
    let context = RouteContext {
        upstream_names: &upstream_names,
        issuers: &issuers,
        when_unknown: WhenUnknown::Refuse,
        rate_limits: &[],
    };
    let mut diagnostics = Diagnostics::default();
    let table = RouteTable::compile(document.root(), &context, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    table
});

/// What becomes of a request: the route's name, whether it is public, and its first parameter.
pub type Chosen = (String, bool, Option<Vec<u8>>);

pub fn choose(target: &[u8]) -> Result<Chosen, Reason> {
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("gw.test"))]);
    let raw = RawRequest {
        method: &Method::GET,
        target,
        authority: None,
        version: Version::HTTP_11,
        headers: &headers,
    };
    let facts = RequestFacts::judge(raw).map_err(|rejection| rejection.reason)?;
    assert_eq!(
        facts.forward_target(),
        target,
        "what is judged is what is forwarded"
    );
    let found = TABLE.lookup(&facts).map_err(|rejection| rejection.reason)?;
    let Route { name, access, .. } = found.route;
    let param = found.params.value(0).map(|value| value.into_owned());
    Ok((name.clone(), *access == Access::Public, param))
}

/// What a backend may do to a path, written anew and plainly: whole passes over text.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Decode,
    Dots,
    Merge,
    Trailing,
    Params,
    Backslash,
    Cut,
    Lower,
}

pub const STEPS: [Step; 8] = [
    Step::Decode,
    Step::Dots,
    Step::Merge,
    Step::Trailing,
    Step::Params,
    Step::Backslash,
    Step::Cut,
    Step::Lower,
];

pub fn apply(step: Step, path: &str) -> String {
    match step {
        Step::Decode => percent_decode(path),
        Step::Dots => resolve_dots(path),
        Step::Merge => {
            let mut path = path.to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            path
        }
        Step::Trailing if path.len() > 1 && path.ends_with('/') => path[..path.len() - 1].to_owned(),
        Step::Trailing => path.to_owned(),
        Step::Params => {
            let segments = path
                .split('/')
                .map(|segment| segment.split(';').next().unwrap_or_default());
            segments.collect::<Vec<_>>().join("/")
        }
        Step::Backslash => path.replace('\\', "/"),
        Step::Cut => path.split(['?', '#']).next().unwrap_or_default().to_owned(),
        Step::Lower => path.to_lowercase(),
    }
}

pub fn percent_decode(path: &str) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let byte = rest
            .get(at + 1..at + 3)
            // The library takes `+a` for a number, too.
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                decoded.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded + rest
}

/// RFC 3986 section 5.2.4, letter by letter.
fn resolve_dots(path: &str) -> String {
    let mut input = path.to_owned();
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..2, "");
        } else if input == "/." {
            input = "/".to_owned();
        } else if input.starts_with("/../") || input == "/.." {
            input = if input == "/.." {
                "/".to_owned()
            } else {
                input[3..].to_owned()
            };
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input.replace_range(..end, "");
        }
    }
    output
}

/// The route that a backend's view of the path belongs to, by hand.
pub fn belongs_to(path: &str) -> Option<&'static str> {
    let under = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}/"));
    let image = path
        .strip_prefix("/images/")
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    match path {
        "/api/health" => Some("/api/health"),
        _ if under("/public") => Some("/public/**"),
        _ if under("/api") => Some("/api/**"),
        _ if under("/admin") => Some("/admin/**"),
        _ if under("/images/catalogue") => Some("/images/catalogue/**"),
        _ if image => Some("/images/{owner}/**"),
        _ => None,
    }
}
