//! Mistakes in the file: each is an error with its place, and all are reported at once.

mod support;

use durward_policy::RevocationsMode;
use support::try_policy;

const ISSUER: &str =
    "issuers: [{ issuer: https://i.test, jwks: k.json, audience: a, algorithms: [ES256] }]\n";
const ROUTES: &str = "routes: [{ path: /**, upstream: api }]\n";
const NONE: &str = "revocations: none\n";

fn errors(yaml: &str, own: bool) -> String {
    match try_policy(yaml, own) {
        Ok(_) => panic!("compiled:\n{yaml}"),
        Err(errors) => errors,
    }
}

#[test]
fn issuers_say_all_that_is_needed() {
    for (issuer, message) in [
        ("{ use: auth }", "needs an `auth` section"),
        ("{ use: aut }", "did you mean `auth`"),
        ("{ issuer: https://i.test }", "exactly one source of keys"),
        ("{ issuer: https://i.test }", "`audience` is missing"),
        (
            "{ jwks: k, audience: a, algorithms: [ES256] }",
            "`issuer` is missing",
        ),
        (
            "{ issuer: auth, jwks: k, audience: a, algorithms: [ES256] }",
            "name of the own auth service",
        ),
        (
            "{ issuer: i, jwks: k, pem: { file: p, algorithm: ES256 }, audience: a }",
            "exactly one source of keys",
        ),
        ("{ issuer: i, jwks: k, audience: a }", "`algorithms` is missing"),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [] }",
            "`algorithms` is empty",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [none] }",
            "an algorithm cannot be `none`",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [HS256] }",
            "cannot hold the secret",
        ),
        (
            "{ issuer: i, jwks: k, audience: [], algorithms: [ES256] }",
            "`audience` is empty",
        ),
        (
            "{ issuer: i, jwks: ftp://k, audience: a, algorithms: [ES256] }",
            "cannot be read from `ftp://k`",
        ),
        (
            "{ issuer: i, jwks: 'https://', audience: a, algorithms: [ES256] }",
            "not a URL",
        ),
        (
            "{ issuer: i, jwks: 'https://user:pw@k/', audience: a, algorithms: [ES256] }",
            "a user name or a password in it",
        ),
        (
            "{ issuer: i, jwks: k, jwks_refresh: 1m, audience: a, algorithms: [ES256] }",
            "no `jwks` URL",
        ),
        (
            "{ issuer: i, jwks: k, jwks_max_stale: 1h, audience: a, algorithms: [ES256] }",
            "no `jwks` URL",
        ),
        (
            "{ issuer: i, jwks: 'https://k/', jwks_refresh: 1h, jwks_max_stale: 1h, audience: a, algorithms: [ES256] }",
            "not above `jwks_refresh`",
        ),
        (
            "{ issuer: i, pem: { file: p }, audience: a }",
            "`algorithm` is missing",
        ),
        (
            "{ issuer: i, pem: { file: p, algorithm: HS256 }, audience: a }",
            "public key cannot be for HS256",
        ),
        (
            "{ issuer: i, pem: { file: p, algorithm: RS256 }, audience: a, algorithms: [PS256] }",
            "for RS256 and for nothing else",
        ),
        (
            "{ issuer: i, secret: hunter2, audience: a }",
            "must not stand in the file",
        ),
        (
            "{ issuer: i, secret: { file: s }, audience: a, algorithms: [RS256] }",
            "shared secret cannot be for RS256",
        ),
        (
            "{ issuer: i, secret: { file: s }, audience: a, algorithms: [HS256, HS512] }",
            "exactly one algorithm",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [ES256], typ: id+jwt }",
            "`typ` cannot be `id+jwt`",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [ES256], leeway: 61s }",
            "`leeway` is out of range",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [ES256], leeway: 30 }",
            "must be a duration",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [ES256], max_lifetime: 0s }",
            "out of range",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algorithms: [ES256], identity_prefix: 'a,b' }",
            "`identity_prefix` cannot",
        ),
        (
            "{ issuer: i, jwks: k, audience: a, algoritms: [ES256] }",
            "did you mean `algorithms`",
        ),
    ] {
        let text = errors(&format!("issuers:\n  - {issuer}\n{NONE}{ROUTES}"), false);
        assert!(
            text.contains(message) && text.contains("c.yaml:2:"),
            "{issuer}: {text}"
        );
    }
}

#[test]
fn issuers_are_told_apart() {
    let two = |rest: &str, more: &str| {
        format!(
            "issuers:
  - {{ issuer: https://i.test, jwks: k, audience: a, algorithms: [ES256]{rest} }}
  - {{ issuer: https://j.test, jwks: k, audience: a, algorithms: [ES256]{more} }}
identity_headers: {{ X-User-Id: sub }}
{NONE}routes: [{{ path: /**, upstream: api, issuers: [https://i.test] }}]
"
        )
    };
    assert!(try_policy(&two(", identity_prefix: 'i:'", ", identity_prefix: 'j:'"), false).is_ok());
    assert!(errors(&two("", ", identity_prefix: 'j:'"), false).contains("has no prefix"));
    assert!(errors(&two(", identity_prefix: j", ", identity_prefix: 'j:'"), false).contains("also begins"));
    assert!(
        try_policy(
            &two("", "").replace("identity_headers: { X-User-Id: sub }\n", ""),
            false
        )
        .is_ok()
    );
    let twice = two("", "").replace("j.test", "i.test");
    assert!(errors(&twice, false).contains("for the second time"));
    let silent =
        two(", identity_prefix: i", ", identity_prefix: j").replace(", issuers: [https://i.test]", "");
    assert!(errors(&silent, false).contains("does not say whose tokens"));
    let unknown =
        two(", identity_prefix: i", ", identity_prefix: j").replace("[https://i.test]", "[https://x.test]");
    assert!(errors(&unknown, false).contains("no issuer is called `https://x.test`"));

    // User 42 of one is another than user 42 of the other.
    let owned = |issuers: &str, require: &str| {
        let path = "path: '/images/{owner}/**', upstream: api";
        two(", identity_prefix: 'i:'", ", identity_prefix: 'j:'").replace(
            "path: /**, upstream: api, issuers: [https://i.test]",
            &format!("{path}, issuers: [{issuers}], require: {require}"),
        )
    };
    let both = "https://i.test, https://j.test";
    for (issuers, require, refused) in [
        (both, "{ sub: '{owner}' }", true),
        (both, "{ any: [{ roles: admin }, { sub: '{owner}' }] }", true),
        (both, "{ sub: '{owner}', iss: https://i.test }", false),
        (
            both,
            "{ any: [{ roles: admin }, { sub: '{owner}', iss: https://i.test }] }",
            false,
        ),
        (both, "{ tenant: '{owner}' }", false),
        ("https://i.test", "{ sub: '{owner}' }", false),
    ] {
        let result = try_policy(&owned(issuers, require), false);
        let told = result.err().unwrap_or_default();
        let expected = if refused { "accepts several issuers" } else { "" };
        assert!(
            told.contains(expected) && told.is_empty() != refused,
            "{require}: {told}"
        );
    }
}

#[test]
fn revocations_are_written_out() {
    let file = |revocations: &str| format!("{ISSUER}{revocations}{ROUTES}");
    assert_eq!(
        try_policy(&file(NONE), false).unwrap().revocations(),
        &RevocationsMode::None
    );
    let embedded = try_policy(
        &file("revocations: { store: embedded, max_staleness: 2s }\n"),
        true,
    )
    .unwrap();
    assert_eq!(embedded.revocations(), &RevocationsMode::Embedded);
    assert_eq!(embedded.max_staleness().as_secs(), 2);
    for store in [
        "redis://r",
        "rediss://r:1/2",
        "redis+sentinel://a,b/m",
        "rediss+cluster://a",
    ] {
        let file = file(&format!(
            "revocations: {{ store: '{store}', redis: {{ namespace: x }} }}\n"
        ));
        let elsewhere = try_policy(&file, false).unwrap();
        assert_eq!(elsewhere.revocations(), &RevocationsMode::Redis);
    }
    for (revocations, message) in [
        ("", "`revocations` is missing"),
        ("revocations:\n", "cannot be nothing"),
        ("revocations: never\n", "`revocations` cannot be text"),
        ("revocations: { max_staleness: 5s }\n", "`store` is missing"),
        ("revocations: { store: embeded }\n", "did you mean `embedded`"),
        (
            "revocations: { store: embedded }\n",
            "needs the auth service in the same process",
        ),
        (
            "revocations: { store: embedded, redis: {} }\n",
            "how to reach a store that is not there",
        ),
        (
            "revocations: { store: embedded, mode: lockup }\n",
            "did you mean `lookup`",
        ),
        (
            "revocations: { store: embedded, keys: [a] }\n",
            "`keys` belongs to `mode: lookup`",
        ),
        (
            "revocations: { store: embedded, max_staleness: 5 }\n",
            "must be a duration",
        ),
        (
            "revocations: { store: embedded, stale: 5s }\n",
            "unknown key `stale`",
        ),
    ] {
        let text = errors(&file(revocations), false);
        assert!(text.contains(message), "{revocations}: {text}");
    }
}

#[test]
fn no_routes_no_policy_and_no_credential_without_issuers() {
    for routes in ["", "routes: []\n", "routes:\n"] {
        assert!(
            errors(&format!("{ISSUER}{NONE}{routes}"), false).contains("route"),
            "{routes}"
        );
    }
    assert!(errors(&format!("{NONE}{ROUTES}"), false).contains("no issuer is configured"));
    let public = "routes: [{ path: /**, upstream: api, access: public }]\n";
    assert!(try_policy(&format!("{NONE}{public}"), false).is_ok());
}

#[test]
fn every_error_is_reported_at_once() {
    let text = errors(
        "issuers: [{ use: auth }]
identity_headers: { Host: sub }
strip: [Content-Length]
revocations: off
routes: [{ path: /**, upstream: api, require: { roles: [] } }]
",
        false,
    );
    for place in ["c.yaml:1:", "c.yaml:2:", "c.yaml:3:", "c.yaml:4:", "c.yaml:5:"] {
        assert!(text.contains(place), "{place} {text}");
    }
}
