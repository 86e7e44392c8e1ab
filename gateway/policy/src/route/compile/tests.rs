use std::time::Duration;

use durward_config::{Diagnostics, Document, Place};

use super::{Access, MAX_ROUTES, Route, RouteContext, UpstreamId, WhenUnknown, routes};
use crate::{Issuers, MethodSet};

fn compile(yaml: &str) -> (Vec<Route>, String) {
    let document = Document::parse("c.yaml", yaml).unwrap();
    let upstream_names = ["api", "images"].map(|name| (name.to_owned(), Place::default()));
    let issuers = Issuers::default();
    let context = RouteContext {
        upstream_names: &upstream_names,
        issuers: &issuers,
        when_unknown: WhenUnknown::Refuse,
        rate_limits: &[],
    };
    let mut diagnostics = Diagnostics::default();
    let routes = routes(document.root(), &context, &mut diagnostics);
    (routes, diagnostics.located_in(&document).to_string())
}

fn errors(route: &str) -> String {
    compile(&format!("- {{ {route} }}\n")).1
}

#[test]
fn a_route_is_read_with_its_defaults() {
    let (routes, errors) = compile("- { path: /api/**, upstream: api }\n");
    assert_eq!(errors, "");
    let route = &routes[0];
    assert_eq!(
        (route.name.as_str(), route.place),
        ("/api/**", Place { line: 1, column: 3 })
    );
    assert_eq!(
        (route.access, route.upstream),
        (Access::Authenticated, UpstreamId(0))
    );
    assert_eq!((route.methods, route.when_unknown), (None, WhenUnknown::Refuse));
    assert!(route.requirement.is_empty() && route.strip.is_empty() && !route.forward_credentials);
}

#[test]
fn a_route_is_read_with_all_it_can_say() {
    let (routes, errors) = compile(
        "- path: /images/{owner}/**\n  host: \"*.Example.COM\"\n  upstream: images\n  methods: [GET, PUT]\n  \
         require: { sub: \"{owner}\" }\n  access: authenticated\n  when_unknown: { allow_for: 60s }\n  \
         forward_credentials: true\n  strip: [X-Internal]\n",
    );
    assert_eq!(errors, "");
    let route = &routes[0];
    assert_eq!(route.name, "*.example.com/images/{owner}/**");
    assert_eq!(route.upstream, UpstreamId(1));
    assert_eq!(
        route.methods,
        MethodSet::named("GET")
            .zip(MethodSet::named("PUT"))
            .map(|(get, put)| get.union(put))
    );
    assert_eq!(route.param_names(), ["owner"]);
    assert!(route.requirement.uses_param(0) && route.forward_credentials);
    assert_eq!(route.when_unknown, WhenUnknown::AllowFor(Duration::from_secs(60)));
    assert_eq!(route.strip, ["x-internal"]);
}

#[test]
fn every_mistake_is_an_error_at_its_place() {
    for (route, expected) in [
        ("upstream: api", "`path` is missing"),
        ("path: /a", "`upstream` is missing"),
        ("path: 1, upstream: api", "`path` must be text"),
        (
            "path: a, upstream: api",
            "`a` is no path pattern: it does not begin with `/`",
        ),
        ("path: /a, upstream: apy", "did you mean `api`?"),
        ("path: /a, upstream: api, acess: public", "did you mean `access`?"),
        (
            "path: /a, upstream: api, access: everybody",
            "`access` cannot be `everybody`",
        ),
        ("path: /a, upstream: api, access: true", "`access` must be text"),
        ("path: /a, upstream: api, access: null", "`access` must be text"),
        ("path: /a, upstream: api, methods: []", "`methods` is empty"),
        ("path: /a, upstream: api, methods: [get]", "`get` is no method"),
        (
            "path: /a, upstream: api, methods: [TRACE]",
            "`TRACE` is no method",
        ),
        (
            "path: /a, upstream: api, methods: [GET, GET]",
            "`GET` is listed twice",
        ),
        ("path: /a, upstream: api, host: \"*\"", "`host` cannot be `*`"),
        ("path: /a, upstream: api, host: \"a:80\"", "`a:80` is no host"),
        ("path: /a, upstream: api, host: \"*.*.a\"", "is no host"),
        ("path: /a, upstream: api, host: \"a*.b\"", "is no host"),
        (
            "path: /a, upstream: api, host: \"[::1]:80\"",
            "a route has no port",
        ),
        (
            "path: /a, upstream: api, forward_credentials: yes please",
            "must be a boolean",
        ),
        (
            "path: /a, upstream: api, when_unknown: allow",
            "`when_unknown` cannot be `allow`",
        ),
        (
            "path: /a, upstream: api, when_unknown: { allow_for: 60 }",
            "`allow_for` must be a duration",
        ),
        (
            "path: /a, upstream: api, when_unknown: { allow_for: 50h }",
            "out of range",
        ),
        (
            "path: /a, upstream: api, when_unknown: { allow: 60s }",
            "`allow_for` is missing",
        ),
        (
            "path: /a, upstream: api, require: { sub: \"{owner}\" }",
            "no parameter `owner`",
        ),
        ("path: /a, upstream: api, require: {}", "`require` is empty"),
        ("path: /a, upstream: api, strip: [Host]", "cannot be stripped"),
        (
            "path: /a, upstream: api, access: public, require: { roles: admin }",
            "has `require`",
        ),
        (
            "path: /a, upstream: api, access: public, issuers: [auth]",
            "has `issuers`",
        ),
        (
            "path: /a, upstream: api, access: public, when_unknown: refuse",
            "has `when_unknown`",
        ),
        (
            "path: /a, upstream: api, rate_limit: 5",
            "`rate_limit` must be text",
        ),
        ("path: /a, upstream: api, mode: lookup", "`mode` is not supported"),
        (
            "path: /a, upstream: api, headers: {}",
            "`headers` is not supported",
        ),
        ("path: /a, upstream: api, rewrite: b", "`b` is no path pattern"),
        (
            "path: /a, upstream: api, strip_prefix: /b",
            "`/b` is not how `/a` begins",
        ),
        (
            "path: /a, upstream: api, cors: { origins: \"*\", credentials: true }",
            "any origin could read",
        ),
        (
            "path: /a, upstream: api, response_headers: { remove: Content-Length }",
            "`Content-Length` cannot be changed",
        ),
        ("path: /a, upstream: api, max_body: -1", "max_body must be a size"),
        (
            "path: /a, upstream: api, credentials: cookie",
            "a kind of credential cannot be `cookie`",
        ),
    ] {
        let errors = errors(route);
        assert!(
            errors.contains(": error: ") && errors.contains(expected),
            "{route}: {errors}"
        );
        assert!(errors.starts_with("c.yaml:1:"), "{route}: {errors}");
    }
}

#[test]
fn a_route_with_a_mistake_is_no_route_and_the_others_keep_their_order() {
    let (routes, errors) = compile(
        "- { path: /a, upstream: api, require: { sub: [] } }\n- { path: /b, upstream: api }\n- { path: /c/, upstream: \
         api }\n- { path: /d, upstream: images }\n",
    );
    assert!(
        errors.contains("c.yaml:1:") && errors.contains("c.yaml:3:"),
        "{errors}"
    );
    assert_eq!(
        routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(),
        ["/b", "/d"]
    );
    assert!(
        routes
            .iter()
            .enumerate()
            .all(|(index, route)| route.id.index() == index)
    );
}

#[test]
fn rules_on_an_optional_route_are_warned_of() {
    let (routes, text) =
        compile("- { path: /a, upstream: api, access: optional, require: { roles: admin } }\n");
    assert!(
        text.contains("warning") && !text.contains("error") && routes.len() == 1,
        "{text}"
    );
}

#[test]
fn routes_are_a_list_and_bounded() {
    assert!(
        compile("{ path: /a, upstream: api }\n")
            .1
            .contains("`routes` must be a list")
    );
    assert!(compile("- /a\n").1.contains("a route must be a mapping"));
    let many = |count: usize| {
        (0..count)
            .map(|index| format!("- {{ path: /{index}, upstream: api }}\n"))
            .collect::<String>()
    };
    let (routes, errors) = compile(&many(MAX_ROUTES));
    assert_eq!((routes.len(), errors.as_str()), (MAX_ROUTES, ""));
    let (routes, errors) = compile(&many(MAX_ROUTES + 1));
    assert!(
        routes.is_empty() && errors.contains("more than 10000 routes"),
        "{errors}"
    );
}

#[test]
fn what_no_key_can_meet_is_a_warning() {
    for (require, warned) in [
        ("{ sub: billing }", true),
        ("{ scope: read, roles: admin }", true),
        ("{ any: [{ roles: admin }, { sub: x }] }", true),
        ("{ scope: read }", false),
        ("{ any: [{ roles: admin }, { scope: read }] }", false),
    ] {
        for (kinds, alone) in [("[api_key]", true), ("[bearer, api_key]", false)] {
            let text = errors(&format!(
                "path: /a, upstream: api, credentials: {kinds}, require: {require}"
            ));
            assert_eq!(
                text.contains("warning: no API key meets `require`"),
                warned && alone,
                "{require} {kinds}: {text}"
            );
        }
    }
}

#[test]
fn credentials_are_tokens_unless_the_route_says_more() {
    use crate::CredentialKinds;
    for (route, bearer, api_key) in [
        ("path: /a, upstream: api", true, false),
        ("path: /a, upstream: api, access: optional", true, false),
        ("path: /a, upstream: api, credentials: api_key", false, true),
        (
            "path: /a, upstream: api, credentials: [api_key, bearer]",
            true,
            true,
        ),
        ("path: /a, upstream: api, access: public", false, false),
    ] {
        let (routes, errors) = compile(&format!("- {{ {route} }}\n"));
        assert_eq!(errors, "", "{route}");
        assert_eq!(
            routes[0].credentials,
            CredentialKinds {
                bearer,
                api_key,
                client_certificate: false
            },
            "{route}"
        );
    }
}
