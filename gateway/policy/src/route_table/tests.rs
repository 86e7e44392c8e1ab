use durward_config::{Diagnostics, Document, Place};
use http::{HeaderMap, HeaderValue, Method, Version};

use super::{RouteContext, RouteTable};
use crate::claim_rule::Params;
use crate::{Issuers, RawRequest, Reason, Rejection, RequestFacts, WhenUnknown};

mod reference;

fn compile(yaml: &str) -> (RouteTable, String) {
    let document = Document::parse("c.yaml", yaml).unwrap();
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
    (table, diagnostics.located_in(&document).to_string())
}

fn table(routes: &[&str]) -> RouteTable {
    let yaml: String = routes
        .iter()
        .map(|route| format!("- {{ upstream: u, {route} }}\n"))
        .collect();
    let (table, errors) = compile(&yaml);
    assert_eq!(errors, "");
    table
}

/// The line of the route that is chosen, and its parameters.
fn choose(table: &RouteTable, method: &str, host: &str, path: &str) -> Result<(u32, Vec<String>), Rejection> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(host).unwrap());
    let facts = RequestFacts::judge(RawRequest {
        method: &method,
        target: path.as_bytes(),
        authority: None,
        version: Version::HTTP_11,
        headers: &headers,
    })?;
    let found = table.lookup(&facts)?;
    let params = (0..).map_while(|index| found.params.value(index));
    let params = params
        .map(|value| String::from_utf8_lossy(&value).into_owned())
        .collect();
    Ok((found.route.place.line, params))
}

fn line(table: &RouteTable, path: &str) -> Result<u32, Reason> {
    choose(table, "GET", "gw.test", path)
        .map(|(line, _)| line)
        .map_err(|rejection| rejection.reason)
}

const NO_ROUTE: Result<u32, Reason> = Err(Reason::NoRoute);
const AMBIGUOUS: Result<u32, Reason> = Err(Reason::AmbiguousPath);

#[test]
fn the_most_specific_path_wins_segment_by_segment() {
    let table = table(&[
        "path: /**",
        "path: /api/**",
        "path: /api/*/b",
        "path: \"/api/{x}/c\"",
        "path: /api/a",
        "path: /api/a/b/**",
        "path: /api/a/*/d",
    ]);
    for (path, expected) in [
        ("/", 1),
        ("/x", 1),
        ("/apis", 1),
        ("/api", 2),
        ("/api/", 2),
        ("/api/x", 2),
        ("/api/x/b", 3),
        ("/api/x/c", 4),
        ("/api/x/d", 2),
        ("/api/a", 5),
        ("/api/a/b", 6),
        ("/api/a/b/x/y", 6),
        // A literal wins over what would match further on.
        ("/api/a/b/d", 6),
        ("/api/a/x/d", 7),
        // Back from `a`, where nothing matches, to `{x}`.
        ("/api/a/c", 4),
        ("/api/a/x/e", 2),
    ] {
        assert_eq!(line(&table, path), Ok(expected), "{path}");
    }
}

#[test]
fn segments_match_whole() {
    let table = table(&[
        "path: /admin/**",
        "path: \"/images/{owner}/**\"",
        "path: /exact",
        "path: /",
    ]);
    for (path, expected) in [
        ("/admin", Ok(1)),
        ("/admin/", Ok(1)),
        ("/admin/x/", Ok(1)),
        ("/administrator", NO_ROUTE),
        ("/admi", NO_ROUTE),
        ("/x/admin", NO_ROUTE),
        ("/images", NO_ROUTE),
        // An empty segment is no owner.
        ("/images/", NO_ROUTE),
        ("/images/u1", Ok(2)),
        ("/images/u1/", Ok(2)),
        ("/exact", Ok(3)),
        ("/", Ok(4)),
        ("/?a=/admin", Ok(4)),
        ("/exact?/../admin", Ok(3)),
    ] {
        assert_eq!(line(&table, path), expected, "{path}");
    }
}

#[test]
fn a_path_with_readings_on_two_routes_is_refused() {
    let table = table(&[
        "path: /public/**",
        "path: /admin/**",
        "path: /exact",
        "path: \"/x/{a}/y\"",
    ]);
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%252E./admin/x",
        "/public/..%2fadmin",
        "/public/..;/admin",
        "/public\\..\\admin",
        "/public/..%5cadmin/x",
        "//admin/x",
        "/%2fadmin",
        "/;x/admin",
        "/./admin",
        "/admin%2fx",
        "/x/a%2Fb/%79",
        "/admin;x",
        "/admin%3bx",
        "/admin%3f",
        "/admin%23/public",
        "/%61dmin",
        "/adm%69n/x",
        "/%2561dmin",
        "/ADMIN",
        "/Admin/x",
        "/%41dmin",
        "/admin\\x",
        "/%61DMIN",
        "/exact/",
        "/EXACT",
        "/exact//",
        "/exact/.",
        "/exact;a=b",
        "/exact%3fa",
        "/Public/x",
        "/x//a/y",
        "/x/a/b/../y",
        "/x/a/y/",
        "/public/..",
        "/admin/..",
        "/x/%2e%2e/admin",
        "/public/%c0%ae%c0%ae/admin",
        "/%2E/admin",
        "/public/x/../../admin",
        "/public/a%2f..%2f..%2fadmin",
        "/admin%c0%afx",
        "/public/%2e%2e%2f%2e%2e%2fadmin",
    ] {
        assert_eq!(line(&table, path), AMBIGUOUS, "{path}");
    }
}

#[test]
fn a_path_whose_readings_agree_passes_as_it_is() {
    let table = table(&["path: /files/**", "path: /"]);
    for path in [
        "/files/a%2Fb",
        "/files/a%20b",
        "/files//a",
        "/files/a/../b",
        "/files/./a",
        "/files/a;v=1",
        "/files/a\\b",
        "/files/a%3Fb",
        "/files/a%23b",
        "/files/100%25",
        "/files/Caf%C3%A9",
        "/files/A.PNG",
        "/files/a/",
        "/files/;",
        "/files/%252F",
    ] {
        assert_eq!(line(&table, path), Ok(1), "{path}");
    }
    assert_eq!(line(&table, "//"), AMBIGUOUS);
}

#[test]
fn parameters_that_a_rule_compares_have_one_value() {
    let require = "require: { sub: \"{owner}\" }";
    let table = table(&[
        &format!("path: \"/images/{{owner}}/**\", {require}"),
        "path: \"/open/{name}/**\"",
        &format!("path: \"/pairs/{{name}}/{{owner}}/**\", {require}"),
    ]);
    let choose = |path| choose(&table, "GET", "gw.test", path).map_err(|rejection| rejection.reason);
    for (path, owner) in [
        ("/images/u1/a", "u1"),
        ("/images/U1/a", "U1"),
        ("/images/u%31/a", "u1"),
        ("/images/u1/%2e/a", "u1"),
        ("/images/a%20b/c", "a b"),
        ("/images/u1/a;v=1/b%2Fc", "u1"),
        ("/images/100%25/a", "100%"),
    ] {
        assert_eq!(choose(path), Ok((1, vec![owner.to_owned()])), "{path}");
    }
    for path in [
        "/images/u1/../u2/a",
        "/images/u1/..%2fu2/a",
        "/images/u1;x/a",
        "/images/u1%2fx/a",
        "/images/u%2531/a",
        "/images//u1/a",
        "/images/u1%3fx/a",
        "/images/u1\\x",
        "/images/./u1/a",
        "/images/u1%5cx",
        "/pairs/a/b;c",
        "/pairs/a//b",
    ] {
        assert_eq!(choose(path), Err(Reason::AmbiguousPath), "{path}");
    }
    // Nobody compares these.
    assert_eq!(choose("/open/u1;x/a"), Ok((2, vec!["u1;x".to_owned()])));
    assert_eq!(
        choose("/pairs/n;x/o/a"),
        Ok((3, vec!["n;x".to_owned(), "o".to_owned()]))
    );
}

#[test]
fn case_counts_as_a_reading_in_both_directions() {
    // A backend that does not tell cases apart would serve the first for a request to the second.
    let table = table(&[
        "path: /Admin/**, require: { roles: admin }",
        "path: /**",
        "path: \"/API/{x}\"",
    ]);
    assert_eq!(line(&table, "/Admin/x"), Ok(1));
    assert_eq!(line(&table, "/admin/x"), AMBIGUOUS);
    assert_eq!(line(&table, "/admin%2Fx"), AMBIGUOUS);
    assert_eq!(line(&table, "/API/x"), Ok(3));
    assert_eq!(line(&table, "/other"), Ok(2));
    assert_eq!(line(&table, "/Other"), Ok(2));
}

#[test]
fn kelvin_sign_and_long_s_are_letters_of_ascii_to_some() {
    let table = table(&["path: /keys", "path: /**"]);
    assert_eq!(line(&table, "/%E2%84%AAeys"), AMBIGUOUS);
    assert_eq!(line(&table, "/key%C5%BF"), AMBIGUOUS);
}

#[test]
fn exact_hosts_win_over_wildcards_and_those_over_any() {
    let table = table(&[
        "path: /**",
        "path: /**, host: \"*.example\"",
        "path: /**, host: \"*.shop.example\"",
        "path: /a/**, host: a.shop.example",
        "path: /a/b/c",
        "path: /**, host: \"[2001:DB8::1]\"",
        "path: /b, host: Upper.Example.",
    ]);
    for (host, path, expected) in [
        ("other.test", "/a", 1),
        ("example", "/a", 1),
        ("x.example", "/a", 2),
        ("x.y.example", "/a", 2),
        ("shop.example", "/a", 2),
        ("b.shop.example", "/a", 3),
        ("c.b.shop.example", "/a", 3),
        ("bshop.example", "/a", 2),
        ("a.shop.example", "/a/b/c", 4),
        ("A.Shop.Example.:8080", "/a", 4),
        // The exact host has no route for it, so the next best is asked.
        ("a.shop.example", "/x", 3),
        ("[2001:db8:0::1]:80", "/a", 6),
        ("upper.example", "/b", 7),
    ] {
        let chosen = choose(&table, "GET", host, path).map(|(line, _)| line);
        assert_eq!(
            chosen.map_err(|rejection| rejection.reason),
            Ok(expected),
            "{host}{path}"
        );
    }
}

#[test]
fn host_and_path_choose_before_the_method_does() {
    let table = table(&[
        "path: /**",
        "path: \"/notes/{id}\", methods: [GET, HEAD]",
        "path: \"/notes/{name}\", methods: [PUT]",
        "path: /any, methods: GET",
        "path: /any",
    ]);
    let choose = |method, path| choose(&table, method, "gw.test", path);
    assert_eq!(choose("GET", "/notes/1").unwrap().0, 2);
    assert_eq!(choose("HEAD", "/notes/1").unwrap().0, 2);
    assert_eq!(choose("PUT", "/notes/1").unwrap(), (3, vec!["1".to_owned()]));
    assert_eq!(choose("GET", "/any").unwrap().0, 4);
    assert_eq!(choose("HEAD", "/any").unwrap().0, 5);
    let refused = choose("DELETE", "/notes/1").unwrap_err();
    assert_eq!(
        (refused.reason, refused.allow.as_deref()),
        (Reason::MethodNotAllowed, Some("GET, HEAD, PUT"))
    );
}

#[test]
fn ties_are_errors_with_both_places() {
    for (first, second) in [
        ("path: /a/**", "path: /a/**"),
        ("path: \"/{a}/b\"", "path: \"/{c}/b\""),
        ("path: /a, methods: [GET, PUT]", "path: /a, methods: [PUT, POST]"),
        ("path: /a, host: A.test", "path: /a, host: a.test."),
        ("path: /a/b", "path: /A/b"),
        ("path: /a/B/**, methods: [GET]", "path: /A/b/**, methods: [PUT]"),
    ] {
        let (_, errors) = compile(&format!(
            "- {{ upstream: u, {first} }}\n- {{ upstream: u, {second} }}\n"
        ));
        assert!(
            errors.starts_with("c.yaml:2:3: error") && errors.contains("at 1:3"),
            "{first}, {second}: {errors}"
        );
    }
    for (first, second) in [
        ("path: /a", "path: /a/**"),
        ("path: \"/{a}\"", "path: /*"),
        ("path: /a, methods: [GET]", "path: /a, methods: [PUT]"),
        ("path: /a, methods: [GET]", "path: /a"),
        ("path: /a, host: a.test", "path: /a"),
        ("path: /a, host: a.test", "path: /a, host: \"*.test\""),
    ] {
        let (table, errors) = compile(&format!(
            "- {{ upstream: u, {first} }}\n- {{ upstream: u, {second} }}\n"
        ));
        assert!(
            !errors.contains("error") && table.len() == 2,
            "{first}, {second}: {errors}"
        );
    }
}

#[test]
fn routes_that_can_never_match_are_warned_of() {
    let all = "methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS]";
    for (hidden, by) in [
        ("path: /a/*", "path: \"/a/{x}\"".to_owned()),
        ("path: /a/*/b", "path: \"/a/{x}/**\"".to_owned()),
        ("path: /a/*/**", "path: \"/a/{x}/**\"".to_owned()),
        ("path: /a/*/b", "path: \"/a/{x}/*\"".to_owned()),
        ("path: /A/*", "path: \"/a/{x}\"".to_owned()),
        ("path: /a", format!("path: /a, {all}")),
    ] {
        let (_, text) = compile(&format!(
            "- {{ upstream: u, {by} }}\n- {{ upstream: u, {hidden} }}\n"
        ));
        assert!(
            text.contains("warning") && text.contains("can never match"),
            "{hidden}: {text}"
        );
    }
    for (seen, by) in [
        ("path: /a/*", "path: \"/b/{x}\""),
        ("path: /a/*/b", "path: \"/a/{x}/c\""),
        ("path: /a/*/**", "path: \"/a/{x}/*\""),
        ("path: /a/*/*", "path: \"/a/{x}\""),
        ("path: /a/*, host: a.test", "path: \"/a/{x}\""),
        ("path: \"/a/*/{x}\"", "path: \"/{x}/b/c\""),
    ] {
        let (_, text) = compile(&format!(
            "- {{ upstream: u, {by} }}\n- {{ upstream: u, {seen} }}\n"
        ));
        assert_eq!(text, "", "{seen}");
    }
}

#[test]
fn without_routes_there_is_no_access() {
    assert_eq!(line(&RouteTable::default(), "/"), NO_ROUTE);
}
