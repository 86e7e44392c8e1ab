//! Lookup mode: what the file may say, which keys a token stands for, and what comes of the answers.

mod support;

use std::time::Duration;

use durward_policy::{
    Cause, Decision, ExplainCredential, Explaining, LookupAnswer, NoRevocations, NoTrace, Outcome, Pending,
    Permit, Phase, Policy, Reason, RevocationsMode, Standing, Step, Trace, Verdict, decide, explain,
};
use durward_policy::{MAX_KEY_VALUE_BYTES, MAX_LOOKUP_KEYS, MAX_TEMPLATE_BYTES};
use support::{FixedKeys, ISSUERS, LIVE, NOW, Request, Says, compile, good_token, try_policy};

const IDENTITY: &str = "identity_headers: { X-User-Id: sub }\n";
const ROUTES: &str = r#"routes:
  - { path: /public/**, upstream: api, access: public }
  - { path: /maybe/**, upstream: api, access: optional }
  - { path: /api/admin/**, upstream: api, require: { roles: admin } }
  - { path: "/images/{owner}/**", upstream: images, require: { sub: "{owner}" } }
  - { path: /api/**, upstream: api }
"#;
const USUAL: &str = r#"["blocklist:{jti}", "banned:{sub}"]"#;

fn file(revocations: &str) -> String {
    format!("{ISSUERS}{IDENTITY}revocations: {{ {revocations} }}\n{ROUTES}")
}

fn with_keys(keys: &str) -> Policy {
    let file = file(&format!("mode: lookup, store: redis://localhost, keys: {keys}"));
    try_policy(&file, false).unwrap_or_else(|errors| panic!("{errors}"))
}

fn decision<'p>(policy: &'p Policy, request: &Request) -> Decision<'p> {
    let keys = FixedKeys::usual(policy);
    decide(policy, &request.facts(), &keys, &NoRevocations, NOW, &mut NoTrace)
}

fn pending<'p>(policy: &'p Policy, request: &Request) -> Pending<'p> {
    match decision(policy, request) {
        Decision::Pending(pending) => *pending,
        other => panic!("{other:?}"),
    }
}

fn concluded(policy: &Policy, request: &Request, answer: &LookupAnswer) -> Result<Permit, Reason> {
    let concluded = pending(policy, request).conclude(answer, &mut NoTrace);
    concluded.map_err(|refusal| refusal.rejection.reason)
}

fn found(found: &[bool]) -> LookupAnswer {
    LookupAnswer::Found(found.to_vec())
}

const NEVER: LookupAnswer = LookupAnswer::Unknown { stale_for: None };
const AT_ONCE: LookupAnswer = LookupAnswer::Unknown {
    stale_for: Some(Duration::ZERO),
};

/// The keys that are asked for, or why none are.
fn keys_of(template: &str, claims: &[(&str, &str)]) -> Result<Vec<String>, Reason> {
    let policy = with_keys(&format!("['{template}']"));
    let request = Request::get("/api/x").bearer(&good_token(claims));
    match decision(&policy, &request) {
        Decision::Pending(pending) => Ok(pending.keys().iter().map(str::to_owned).collect()),
        Decision::Refuse(refusal) => Err(refusal.rejection.reason),
        Decision::Permit(_) => panic!("permitted unasked"),
    }
}

#[test]
fn the_file_says_all_that_is_needed() {
    let policy = with_keys(USUAL);
    let RevocationsMode::Lookup(lookup) = policy.revocations() else {
        panic!("{:?}", policy.revocations())
    };
    assert_eq!(lookup.deadline(), Duration::from_millis(50));
    assert_eq!(lookup.recheck(), Duration::from_secs(5));
    assert_eq!(
        lookup.templates().collect::<Vec<_>>(),
        ["blocklist:{jti}", "banned:{sub}"]
    );

    let most = ["'x{jti}'"; MAX_LOOKUP_KEYS + 1].join(", ");
    let long = format!("'{}{{jti}}'", "x".repeat(MAX_TEMPLATE_BYTES - 4));
    let usual = |more: &str| format!("mode: lookup, store: redis://r, keys: {USUAL}, {more}");
    let keys = |keys: &str| format!("mode: lookup, store: redis://r, keys: {keys}");
    for (revocations, message) in [
        ("mode: lookup, store: redis://r".to_owned(), "`keys` is missing"),
        (format!("mode: lookup, keys: {USUAL}"), "`store` is missing"),
        (
            format!("mode: lookup, store: embedded, keys: {USUAL}"),
            "`mode: lookup` asks a Redis",
        ),
        (
            format!("mode: lookup, store: memcached://r, keys: {USUAL}"),
            "`store` cannot be",
        ),
        (usual("redis: { namespace: a }"), "`namespace` is of the mirror"),
        (usual("deadline: 0ms"), "`deadline` is out of range"),
        (usual("deadline: 2s"), "`deadline` is out of range"),
        (usual("recheck: 1ms"), "`recheck` is out of range"),
        (usual("recheck: 5"), "must be a duration"),
        (usual("max_staleness: 5s"), "`max_staleness` is of the mirror"),
        (
            usual("when_unknown: { allow_for: 60s }"),
            "`allow_for` has nothing to count on",
        ),
        (usual("recheks: 5s"), "did you mean `recheck`"),
        (keys("'blocklist:{jti}'"), "`keys` must be a list"),
        (keys("[]"), "`keys` has 0 templates"),
        (keys(&format!("[{most}]")), "`keys` has 9 templates"),
        (keys(&format!("[{long}]")), "is longer than 256 bytes"),
        (keys("[5]"), "a key template must be text"),
        (keys("['blocklist']"), "names no claim"),
        (keys("['a{}']"), "names no claim"),
        (keys("['a{realm..x}']"), "names no claim"),
        (keys("['a{jti']"), "a brace without its other half"),
        (keys("['a}{jti}']"), "a brace without its other half"),
        (keys("['a b{jti}']"), "has a space"),
        (keys("['ä{jti}']"), "non-ASCII"),
        (keys("['{a}{b}{c}{d}{e}']"), "names more than 4 claims"),
        (keys("['a{jti}', 'a{jti}']"), "for the second time"),
    ] {
        let text = try_policy(&file(&revocations), false).expect_err(&revocations);
        assert!(text.contains(message), "{revocations}: {text}");
        assert!(text.contains("c.yaml:"), "{text}");
    }
}

#[test]
fn a_route_is_as_strict_as_the_section() {
    let lenient = format!(
        "{}  - {{ path: /lenient/**, upstream: api, when_unknown: {{ allow_for: 1s }} }}\n",
        file(&format!("mode: lookup, store: redis://r, keys: {USUAL}"))
    );
    let text = try_policy(&lenient, false).unwrap_err();
    assert!(text.contains("`allow_for` has nothing to count on"), "{text}");
}

#[test]
fn beside_an_auth_service_it_has_to_be_meant() {
    let own = |more: &str| {
        format!(
            "issuers: [{{ use: auth, jwks: keys.json }}]\n{IDENTITY}revocations: {{ mode: lookup, store: redis://r, keys: {USUAL}{more} }}\n{ROUTES}"
        )
    };
    for more in ["", ", ignore_own_bans: false"] {
        let text = try_policy(&own(more), true).unwrap_err();
        assert!(text.contains("does not hear of the bans"), "{text}");
    }
    assert!(try_policy(&own(", ignore_own_bans: true"), true).is_ok());
    // No more does a gateway hear of them that runs apart from it.
    let text = compile(&own(""), true, false).unwrap_err();
    assert!(text.contains("does not hear of the bans"), "{text}");
    assert!(compile(&own(", ignore_own_bans: true"), true, false).is_ok());
}

/// There are no grants in such a list, and without a grant no key is anybody's.
#[test]
fn api_keys_have_no_place_here() {
    for credentials in ["[api_key]", "[bearer, api_key]"] {
        let file = format!(
            "{}  - {{ path: /services/**, upstream: api, credentials: {credentials} }}\n",
            file(&format!("mode: lookup, store: redis://r, keys: {USUAL}"))
        );
        let text = try_policy(&file, false).unwrap_err();
        assert!(
            text.contains("in `mode: lookup` there is no news of their grants"),
            "{text}"
        );
        assert!(text.contains("c.yaml:"), "{text}");
    }
}

#[test]
fn templates_become_keys() {
    for (template, claims, key) in [
        ("blocklist:{jti}", &[][..], "blocklist:token-1"),
        ("{jti}", &[], "token-1"),
        ("{iss}|{sub}", &[], "https://issuer.test|user-1"),
        ("b:{sid}:x", &[], "b:session-1:x"),
        ("v:{tenant.id}", &[("tenant", r#"{"id":"t9"}"#)], "v:t9"),
        (
            "{https://example.com/id}",
            &[("https://example.com/id", r#""e""#)],
            "e",
        ),
        ("n:{number}", &[("number", "-7")], "n:-7"),
        (
            "n:{number}",
            &[("number", "18446744073709551615")],
            "n:18446744073709551615",
        ),
        ("{a}{b}", &[("a", r#""x""#), ("b", "0")], "x0"),
        // Nothing of a value means anything but itself.
        ("b:{jti}", &[("jti", r#""*""#)], "b:*"),
        ("b:{jti}", &[("jti", r#""x:y""#)], "b:x:y"),
        ("b:{jti}", &[("jti", r#""{sub}""#)], "b:{sub}"),
        ("b:{jti}", &[("jti", r#""a?[b]\\^$""#)], r"b:a?[b]\^$"),
    ] {
        assert_eq!(
            keys_of(template, claims),
            Ok(vec![key.to_owned()]),
            "{template} {claims:?}"
        );
    }
}

#[test]
fn what_cannot_be_a_key_is_refused() {
    let longest = format!("\"{}\"", "x".repeat(MAX_KEY_VALUE_BYTES));
    let longer = format!("\"{}\"", "x".repeat(MAX_KEY_VALUE_BYTES + 1));
    assert!(keys_of("b:{x}", &[("x", &longest)]).is_ok());
    for (value, reason) in [
        ("", Reason::ClaimMissing),
        ("null", Reason::ClaimMissing),
        (r#""""#, Reason::ClaimInvalid),
        (longer.as_str(), Reason::ClaimInvalid),
        (r#""a b""#, Reason::ClaimInvalid),
        (r#""a\r\nDEL x""#, Reason::ClaimInvalid),
        (r#""a\u0000b""#, Reason::ClaimInvalid),
        (r#""a\u007fb""#, Reason::ClaimInvalid),
        (r#""é""#, Reason::ClaimInvalid),
        (r#""a\u200bb""#, Reason::ClaimInvalid),
        ("1.5", Reason::ClaimInvalid),
        ("1e3", Reason::ClaimInvalid),
        ("1.0", Reason::ClaimInvalid),
        ("true", Reason::ClaimInvalid),
        (r#"["a"]"#, Reason::ClaimInvalid),
        (r#"{"a":1}"#, Reason::ClaimInvalid),
    ] {
        assert_eq!(keys_of("b:{x}", &[("x", value)]), Err(reason), "{value}");
        assert_eq!(keys_of("b:{jti}:{x}", &[("x", value)]), Err(reason), "{value}");
    }
    assert_eq!(
        keys_of("b:{x.y}", &[("x", r#""text""#)]),
        Err(Reason::ClaimMissing)
    );
}

#[test]
fn the_answer_decides() {
    let policy = with_keys(USUAL);
    let user = good_token(&[]);
    let admin = good_token(&[("roles", r#"["admin"]"#)]);
    let unsayable = good_token(&[("sub", r#""a,b""#)]);
    for (target, token, answer, reason) in [
        ("/api/x", &user, found(&[false, false]), None),
        ("/api/x", &user, found(&[true, false]), Some(Reason::Revoked)),
        ("/api/x", &user, found(&[false, true]), Some(Reason::Revoked)),
        ("/maybe/x", &user, found(&[true, true]), Some(Reason::Revoked)),
        ("/api/x", &user, NEVER, Some(Reason::RevocationUnknown)),
        ("/api/x", &user, AT_ONCE, Some(Reason::RevocationUnknown)),
        ("/maybe/x", &user, AT_ONCE, Some(Reason::RevocationUnknown)),
        // An answer that does not speak of every key is none.
        ("/api/x", &user, found(&[]), Some(Reason::RevocationUnknown)),
        ("/api/x", &user, found(&[false]), Some(Reason::RevocationUnknown)),
        (
            "/api/x",
            &user,
            found(&[false; 3]),
            Some(Reason::RevocationUnknown),
        ),
        ("/api/x", &user, found(&[true]), Some(Reason::RevocationUnknown)),
        // What comes after revocation is not skipped, and comes after it.
        (
            "/api/admin/x",
            &user,
            found(&[false, false]),
            Some(Reason::RuleRefused),
        ),
        (
            "/api/admin/x",
            &user,
            found(&[true, false]),
            Some(Reason::Revoked),
        ),
        ("/api/admin/x", &user, NEVER, Some(Reason::RevocationUnknown)),
        ("/api/admin/x", &admin, found(&[false, false]), None),
        ("/images/user-1/x", &user, found(&[false, false]), None),
        ("/images/user%2d1/x", &user, found(&[false, false]), None),
        (
            "/images/user-2/x",
            &user,
            found(&[false, false]),
            Some(Reason::RuleRefused),
        ),
        (
            "/api/x",
            &unsayable,
            found(&[false, false]),
            Some(Reason::IdentityUnusable),
        ),
        ("/api/x", &unsayable, found(&[false, true]), Some(Reason::Revoked)),
    ] {
        let request = Request::get(target).bearer(token);
        let concluded = concluded(&policy, &request, &answer);
        assert_eq!(concluded.as_ref().err(), reason.as_ref(), "{target} {answer:?}");
        if let Ok(permit) = concluded {
            assert_eq!(permit.principal().unwrap().user().unwrap().subject(), "user-1");
            assert_eq!(permit.identity_headers().iter().count(), 1);
        }
    }
}

#[test]
fn nobody_is_asked_about_who_is_refused_anyway_or_is_nobody() {
    let policy = with_keys(USUAL);
    let expired = good_token(&[("iat", "1700000000"), ("exp", "1700000600")]);
    for (target, token, reason) in [
        ("/nothing", None, Some(Reason::NoRoute)),
        ("/public/x", None, None),
        ("/public/x", Some("rubbish"), None),
        ("/maybe/x", None, None),
        ("/api/x", None, Some(Reason::NoCredential)),
        ("/api/x", Some("a.b.c"), Some(Reason::TokenMalformed)),
        ("/api/x", Some(&expired), Some(Reason::TokenExpired)),
    ] {
        let request = Request::get(target);
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        match decision(&policy, &request) {
            Decision::Permit(_) => assert_eq!(reason, None, "{target}"),
            Decision::Refuse(refusal) => assert_eq!(Some(refusal.rejection.reason), reason, "{target}"),
            Decision::Pending(_) => panic!("{target} {token:?} is asked about"),
        }
    }
}

/// Whatever a mirror would say: in lookup mode only the store's answer counts.
#[test]
fn another_source_is_not_asked() {
    let policy = with_keys(USUAL);
    let keys = FixedKeys::usual(&policy);
    let request = Request::get("/api/x").bearer(&good_token(&[]));
    for says in [LIVE, Says(Standing::Revoked(Cause::User))] {
        let decision = decide(&policy, &request.facts(), &keys, &says, NOW, &mut NoTrace);
        assert!(matches!(decision, Decision::Pending(_)), "{decision:?}");
    }
}

#[test]
fn a_key_says_what_it_revokes() {
    for (template, cause) in [
        ("{jti}", Cause::Token),
        ("s:{sid}", Cause::Session),
        ("u:{sub}", Cause::User),
        ("u:{iss}:{sub}", Cause::User),
        ("c:{client_id}", Cause::Client),
        ("t:{tenant}", Cause::Listed),
        ("u:{tenant}:{sub}", Cause::Listed),
        ("i:{iss}", Cause::Listed),
    ] {
        let policy = with_keys(&format!("['{template}']"));
        let request = Request::get("/api/x").bearer(&good_token(&[("tenant", r#""t""#)]));
        let standing = pending(&policy, &request).keys().standing(&found(&[true]));
        assert_eq!(standing, Standing::Revoked(cause), "{template}");
    }
}

#[derive(Default)]
struct Told(Vec<Phase>, Vec<Step>);

impl Trace for Told {
    fn enter(&mut self, phase: Phase) {
        self.0.push(phase);
    }

    fn step(&mut self, make: impl FnOnce() -> Step) {
        self.1.push(make());
    }
}

#[test]
fn the_phases_are_those_of_every_decision() {
    let policy = with_keys(USUAL);
    let keys = FixedKeys::usual(&policy);
    let request = Request::get("/api/x").bearer(&good_token(&[]));
    let mut told = Told::default();
    let decision = decide(&policy, &request.facts(), &keys, &NoRevocations, NOW, &mut told);
    let Decision::Pending(pending) = decision else {
        panic!("{decision:?}")
    };
    assert!(pending.conclude(&found(&[false, false]), &mut told).is_ok());
    assert_eq!(told.0, Phase::ALL);
}

#[test]
fn an_explanation_says_what_was_asked_or_would_be() {
    let policy = with_keys(USUAL);
    let keys = FixedKeys::usual(&policy);
    let credential = ExplainCredential::FromRequest { keys: &keys };
    let request = Request::get("/api/admin/x").bearer(&good_token(&[]));
    let explaining = || explain(&policy, &request.facts(), credential, &NoRevocations, NOW);
    let answered = |answer: &LookupAnswer| match explaining() {
        Explaining::Pending(pending) => pending.conclude(answer),
        Explaining::Done(explanation) => panic!("{explanation:?}"),
    };
    assert_eq!(answered(&found(&[true, false])).reason, Some("revoked"));
    assert_eq!(answered(&NEVER).reason, Some("revocation_unknown"));
    assert_eq!(answered(&found(&[false, false])).reason, Some("rule_refused"));

    let unasked = explaining().unasked();
    assert_eq!(unasked.reason, Some("rule_refused"));
    let step = unasked
        .steps
        .iter()
        .find(|step| step.phase == Some(Phase::Revocation))
        .unwrap();
    assert_eq!(step.step.outcome, Outcome::Skipped);
    assert_eq!(
        step.step.detail,
        "the store was not asked for `blocklist:token-1`, `banned:user-1`"
    );
    let public = Request::get("/public/x");
    let public = explain(&policy, &public.facts(), credential, &NoRevocations, NOW);
    assert_eq!(public.unasked().verdict, Verdict::Permit);
}

#[test]
fn several_issuers_that_share_a_key_are_worth_a_warning() {
    use durward_config::{Diagnostics, Document, Place};
    use durward_policy::{DigestKey, PolicySections};
    let yaml = |keys: &str| {
        format!(
            "issuers:
  - {{ issuer: https://i.test, jwks: k, audience: a, algorithms: [ES256], identity_prefix: 'i:' }}
  - {{ issuer: https://j.test, jwks: k, audience: a, algorithms: [ES256], identity_prefix: 'j:' }}
identity_headers: {{ X-User-Id: sub }}
revocations: {{ mode: lookup, store: redis://r, keys: ['{keys}'] }}
routes: [{{ path: /**, upstream: api, issuers: [https://i.test] }}]
"
        )
    };
    for (keys, warned) in [("banned:{sub}", true), ("banned:{iss}:{sub}", false)] {
        let document = Document::parse("c.yaml", &yaml(keys)).unwrap();
        let section = |key: &str| match &document.root().value {
            durward_config::Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.node),
            _ => None,
        };
        let mut diagnostics = Diagnostics::default();
        let policy = Policy::compile(
            PolicySections {
                issuers: section("issuers"),
                identity_headers: section("identity_headers"),
                service_headers: None,
                strip: None,
                routes: section("routes"),
                revocations: section("revocations"),
                rate_limits: None,
                upstream_names: &[("api".to_owned(), Place::default())],
                own_issuer: None,
                auth_in_process: false,
                file_place: Place::default(),
            },
            DigestKey([1; 16]),
            &mut diagnostics,
        );
        assert!(policy.is_some());
        let text = diagnostics.located_in(&document).to_string();
        assert_eq!(text.contains("does not tell the issuers apart"), warned, "{text}");
    }
}
