//! No spelling of a protected path is let in by a route that protects it less.

use std::sync::LazyLock;

use durward_config::{Diagnostics, Document, Place};
use durward_policy::{
    Access, Issuers, Params, RawRequest, Reason, RequestFacts, Route, RouteContext, RouteTable, WhenUnknown,
};
use http::{HeaderMap, HeaderValue, Method, Version};
use proptest::prelude::*;

const ROUTES: &str = r#"
- { path: /public/**, upstream: u, access: public }
- { path: /api/**, upstream: u }
- { path: /api/health, upstream: u, access: public }
- { path: /admin/**, upstream: u, require: { roles: admin } }
- { path: "/images/{owner}/**", upstream: u, require: { sub: "{owner}" } }
- { path: /images/catalogue/**, upstream: u, access: public }
"#;

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| {
    let document = Document::parse("c.yaml", ROUTES).unwrap();
    let upstream_names = [("u".to_owned(), Place::default())];
    let issuers = Issuers::default();
    let context = RouteContext {
        upstream_names: &upstream_names,
        issuers: &issuers,
        when_unknown: WhenUnknown::Refuse,
    };
    let mut diagnostics = Diagnostics::default();
    let table = RouteTable::compile(document.root(), &context, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    table
});

/// What becomes of a request: the route's name, whether it is public, and its first parameter.
type Chosen = (String, bool, Option<Vec<u8>>);

fn choose(target: &[u8]) -> Result<Chosen, Reason> {
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
enum Step {
    Decode,
    Dots,
    Merge,
    Trailing,
    Params,
    Backslash,
    Cut,
    Lower,
}

const STEPS: [Step; 8] = [
    Step::Decode,
    Step::Dots,
    Step::Merge,
    Step::Trailing,
    Step::Params,
    Step::Backslash,
    Step::Cut,
    Step::Lower,
];

fn apply(step: Step, path: &str) -> String {
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

fn percent_decode(path: &str) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let byte = rest
            .get(at + 1..at + 3)
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
fn belongs_to(path: &str) -> Option<&'static str> {
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

/// Paths made of the words of the routes and of what is special about paths.
fn tricky_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "/",
        "public",
        "admin",
        "admin",
        "api",
        "health",
        "images",
        "catalogue",
        "u1",
        "u2",
        "Admin",
        "..",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%252f",
        "%252e",
        "%3b",
        ";",
        ";a=b",
        "%3f",
        "%23",
        "%61",
        "%2561",
        "%41",
        "x",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// A way to write a path so that some backend reads it as before.
fn disguise(path: &str, at: usize, how: u8) -> String {
    let chars: Vec<char> = path.chars().collect();
    let at = 1 + at % (chars.len() - 1).max(1);
    let (head, tail): (String, String) = (chars[..at].iter().collect(), chars[at..].iter().collect());
    let next = tail.chars().next();
    match (how % 10, next) {
        (0, Some(next)) => format!("{head}%{:02x}{}", u32::from(next), &tail[next.len_utf8()..]),
        (1, Some(next)) => format!("{head}%25{:02X}{}", u32::from(next), &tail[next.len_utf8()..]),
        (2, _) => format!("/x/..{path}"),
        (3, _) => format!("/public/%2e%2e{path}"),
        (4, _) => format!("/{path}"),
        (5, _) => format!("/.{path}"),
        (6, Some('/')) => format!("{head};a=b{tail}"),
        (7, Some('/')) => format!("{head}\\{}", &tail[1..]),
        (8, Some(next)) => format!("{head}{}{}", next.to_ascii_uppercase(), &tail[next.len_utf8()..]),
        _ => format!("{path}%3Fx"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever a backend makes of a path that was let in, it belongs to the route that let it in.
    #[test]
    fn every_view_of_a_path_belongs_to_the_route_that_let_it_in(
        path in tricky_path(),
        steps in prop::collection::vec(prop::sample::select(STEPS.to_vec()), 0..8),
    ) {
        let Ok((route, _, owner)) = choose(path.as_bytes()) else {
            return Ok(());
        };
        let mut decodings = 0;
        let mut folded = false;
        let mut view = path.clone();
        for step in steps {
            decodings += u8::from(matches!(step, Step::Decode));
            folded |= matches!(step, Step::Lower);
            if decodings <= 2 {
                view = apply(step, &view);
            }
        }
        prop_assert_eq!(belongs_to(&view), Some(route.as_str()), "{} read as {}", path, view);
        if let (Some(owner), false) = (owner, folded) {
            let seen = view["/images/".len()..].split('/').next().unwrap_or_default();
            prop_assert_eq!(percent_decode(seen).into_bytes(), owner, "{} read as {}", path, view);
        }
    }

    /// A protected path in disguise is refused, or let in by its own route.
    #[test]
    fn a_protected_path_in_disguise_is_still_protected(
        path in prop::sample::select(vec!["/admin", "/admin/users", "/api/notes/7", "/images/u1/cat.png"]),
        disguises in prop::collection::vec((any::<usize>(), any::<u8>()), 1..3),
    ) {
            let (own, _, owner) = choose(path.as_bytes()).unwrap();
        let disguised = disguises.iter().fold(path.to_owned(), |path, (at, how)| disguise(&path, *at, *how));
        if let Ok((route, public, param)) = choose(disguised.as_bytes()) {
            prop_assert_eq!(&route, &own, "{}", disguised);
            prop_assert!(!public);
            if let Some(owner) = owner {
                let same = param.is_some_and(|param| param.eq_ignore_ascii_case(&owner));
                prop_assert!(same, "{}", disguised);
            }
        }
    }

    #[test]
    fn arbitrary_targets_are_judged_without_a_panic(target in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = choose(&target);
        let path = [b"/images/", &*target].concat();
        let _ = choose(&path);
    }
}

#[test]
fn what_backends_need_is_let_in() {
    for (path, route) in [
        ("/api/projects/group%2Fname", "/api/**"),
        ("/public/caf%C3%A9/Menu%20%231.PDF", "/public/**"),
        ("/images/U1/Holiday%20(1).JPG", "/images/{owner}/**"),
        (
            "/api/search?q=../../admin&x=%00#".trim_end_matches('#'),
            "/api/**",
        ),
        ("/api/health?verbose", "/api/health"),
        ("/public/a;v=2/b", "/public/**"),
    ] {
        assert_eq!(
            choose(path.as_bytes()).map(|(route, ..)| route),
            Ok(route.to_owned()),
            "{path}"
        );
    }
}
