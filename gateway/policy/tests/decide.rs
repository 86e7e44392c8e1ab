//! What becomes of requests: tables of route, credential, standing and outcome.

mod support;

use durward_contract::UnixSeconds;
use durward_policy::{
    Cause, Decision, ExplainCredential, NoTrace, Permit, Phase, Policy, Reason, Revocations, Standing, Step,
    Trace, Verdict, decide, explain,
};
use support::{By, FixedKeys, HEADER, LIVE, NOW, Request, Says, claims, good_token, stale, token};

const ROUTES: &str = r#"
  - { path: /public/**, upstream: api, access: public }
  - { path: /maybe/**, upstream: api, access: optional }
  - { path: /api/admin/**, upstream: api, require: { roles: admin } }
  - { path: /api/scoped/**, upstream: api, require: { scope: write } }
  - { path: "/images/{owner}/**", upstream: images, require: { sub: "{owner}" } }
  - { path: /lenient/**, upstream: api, when_unknown: { allow_for: 60s } }
  - { path: /forward/**, upstream: api, forward_credentials: true, strip: [X-Extra] }
  - { path: /api/**, upstream: api }
"#;

fn policy() -> Policy {
    support::policy_of_routes(ROUTES)
}

fn decide_at(
    policy: &Policy,
    request: &Request,
    revocations: &impl Revocations,
    now: UnixSeconds,
) -> Result<Permit, Reason> {
    let keys = FixedKeys::usual(policy);
    match decide(policy, &request.facts(), &keys, revocations, now, &mut NoTrace) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Refuse(refusal) => Err(refusal.rejection.reason),
        Decision::Pending(_) => panic!("nothing is looked up here"),
    }
}

fn outcome(request: &Request) -> Option<Reason> {
    decide_at(&policy(), request, &LIVE, NOW).err()
}

#[test]
fn access_says_who_may_pass() {
    let admin = good_token(&[("roles", r#"["user","admin"]"#)]);
    let writer = good_token(&[("scope", r#""read write""#)]);
    let user = good_token(&[]);
    for (target, bearer, reason) in [
        ("/nothing/here", Some(&user), Some(Reason::NoRoute)),
        ("/public/x", None, None),
        ("/public/x", Some(&"rubbish".to_owned()), None),
        ("/maybe/x", None, None),
        ("/maybe/x", Some(&user), None),
        (
            "/maybe/x",
            Some(&"rubbish".to_owned()),
            Some(Reason::TokenMalformed),
        ),
        ("/api/x", None, Some(Reason::NoCredential)),
        ("/api/x", Some(&user), None),
        ("/api/admin/x", None, Some(Reason::NoCredential)),
        ("/api/admin/x", Some(&user), Some(Reason::RuleRefused)),
        ("/api/admin/x", Some(&admin), None),
        ("/api/scoped/x", Some(&admin), Some(Reason::InsufficientScope)),
        ("/api/scoped/x", Some(&writer), None),
        ("/images/user-1/a.png", Some(&user), None),
        ("/images/user-2/a.png", Some(&user), Some(Reason::RuleRefused)),
        ("/images/user-2/a.png", Some(&admin), Some(Reason::RuleRefused)),
    ] {
        let request = Request::get(target);
        let request = match bearer {
            Some(token) => request.bearer(token),
            None => request,
        };
        assert_eq!(outcome(&request), reason, "{target} {bearer:?}");
    }
}

#[test]
fn there_is_exactly_one_credential() {
    let user = good_token(&[]);
    let api = || Request::get("/api/x");
    for (request, reason) in [
        (api().bearer(&user).bearer(&user), Reason::SeveralCredentials),
        (
            api().header("authorization", "Basic dTpw").bearer(&user),
            Reason::SeveralCredentials,
        ),
        (
            api().bearer(&user).header("authorization", ""),
            Reason::SeveralCredentials,
        ),
        (
            Request::get("/api/x?access_token=a").bearer(&user),
            Reason::SeveralCredentials,
        ),
        (Request::get("/maybe/x?access_token=a"), Reason::CredentialInQuery),
        (
            api().header("authorization", "Basic dTpw"),
            Reason::UnsupportedScheme,
        ),
        (
            Request::get("/maybe/x").header("authorization", "Basic dTpw"),
            Reason::UnsupportedScheme,
        ),
        (
            api().header("authorization", "Bearer"),
            Reason::MalformedCredential,
        ),
        (
            Request::get("/maybe/x").header("authorization", ""),
            Reason::MalformedCredential,
        ),
    ] {
        assert_eq!(
            outcome(&request),
            Some(reason),
            "{:?} {}",
            request.headers,
            request.target
        );
    }
    // What only folds to Authorization is no credential; nor is a cookie.
    let alias = api()
        .header("authorization_", &format!("Bearer {user}"))
        .header("cookie", &format!("access_token={user}"));
    assert_eq!(outcome(&alias), Some(Reason::NoCredential));
}

#[test]
fn times_are_judged_on_every_request_with_the_leeway() {
    let timely = good_token(&[("nbf", "1800000100")]);
    for (now, reason) in [
        (1_800_000_069, Some(Reason::TokenNotYetValid)),
        (1_800_000_070, None),
        (1_800_000_629, None),
        (1_800_000_630, Some(Reason::TokenExpired)),
        (i64::MAX, Some(Reason::TokenExpired)),
        (0, Some(Reason::TokenNotYetValid)),
        (i64::MIN, Some(Reason::TokenNotYetValid)),
    ] {
        let decided = decide_at(
            &policy(),
            &Request::get("/api/x").bearer(&timely),
            &LIVE,
            UnixSeconds(now),
        );
        assert_eq!(decided.err(), reason, "at {now}");
    }
    let plain = Request::get("/api/x").bearer(&good_token(&[]));
    let early = decide_at(&policy(), &plain, &LIVE, UnixSeconds(NOW.0 - 31));
    assert_eq!(early.err(), Some(Reason::TokenNotYetValid), "iat lies ahead");
    assert!(decide_at(&policy(), &plain, &LIVE, UnixSeconds(NOW.0 - 30)).is_ok());
}

#[test]
fn revoked_is_refused_and_unknown_is_the_routes_to_judge() {
    let never = Says(Standing::Unknown { stale_for: None });
    for (target, standing, reason) in [
        (
            "/api/x",
            Says(Standing::Revoked(Cause::Token)),
            Some(Reason::Revoked),
        ),
        (
            "/api/x",
            Says(Standing::Revoked(Cause::Everyone)),
            Some(Reason::Revoked),
        ),
        (
            "/maybe/x",
            Says(Standing::Revoked(Cause::User)),
            Some(Reason::Revoked),
        ),
        (
            "/lenient/x",
            Says(Standing::Revoked(Cause::Session)),
            Some(Reason::Revoked),
        ),
        ("/public/x", Says(Standing::Revoked(Cause::User)), None),
        ("/api/x", stale(6), Some(Reason::RevocationUnknown)),
        ("/api/x", Says(never.0), Some(Reason::RevocationUnknown)),
        ("/lenient/x", stale(60), None),
        ("/lenient/x", stale(61), Some(Reason::RevocationUnknown)),
        ("/lenient/x", Says(never.0), Some(Reason::RevocationUnknown)),
        ("/public/x", Says(never.0), None),
    ] {
        let request = Request::get(target).bearer(&good_token(&[]));
        let decided = decide_at(&policy(), &request, &standing, NOW);
        assert_eq!(decided.err(), reason, "{target} {:?}", standing.0);
    }
}

/// Expiry comes before revocation, and both before the rules: the earlier reason is the one given.
#[test]
fn the_order_is_fixed() {
    let revoked = Says(Standing::Revoked(Cause::User));
    let admin = Request::get("/api/admin/x").bearer(&good_token(&[]));
    assert_eq!(
        decide_at(&policy(), &admin, &revoked, UnixSeconds(NOW.0 + 1000)).err(),
        Some(Reason::TokenExpired)
    );
    assert_eq!(
        decide_at(&policy(), &admin, &revoked, NOW).err(),
        Some(Reason::Revoked)
    );
    assert_eq!(
        decide_at(&policy(), &admin, &LIVE, NOW).err(),
        Some(Reason::RuleRefused)
    );
    let unsayable = good_token(&[("sub", r#""a,b""#)]);
    let admin = Request::get("/api/admin/x").bearer(&unsayable);
    assert_eq!(
        decide_at(&policy(), &admin, &LIVE, NOW).err(),
        Some(Reason::RuleRefused)
    );
    let plain = Request::get("/api/x").bearer(&unsayable);
    assert_eq!(
        decide_at(&policy(), &plain, &LIVE, NOW).err(),
        Some(Reason::IdentityUnusable)
    );
}

fn applied(request: Request) -> Vec<(String, String)> {
    let permit = decide_at(&policy(), &request, &LIVE, NOW).unwrap();
    let mut headers = request.headers;
    permit.apply_to(&mut headers);
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let mut headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    headers.sort();
    headers
}

#[test]
fn identity_is_stripped_always_and_said_when_proved() {
    let spoofed = |target: &str| {
        Request::get(target)
            .header("x-user-id", "root")
            .header("x-user-id", "admin")
            .header("X_User.Id", "root")
            .header("x-user_roles", "admin")
            .header("x-user-idx", "kept")
            .header("x-extra", "e")
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let (host, kept, extra) = (("host", "gw.test"), ("x-user-idx", "kept"), ("x-extra", "e"));
    assert_eq!(applied(spoofed("/public/x")), pairs(&[host, extra, kept]));
    assert_eq!(applied(spoofed("/maybe/x")), pairs(&[host, extra, kept]));
    let said = [("x-user-id", "user-1"), kept, ("x-user-roles", "a,b")];
    let token = good_token(&[("roles", r#"["a","b"]"#)]);
    assert_eq!(
        applied(spoofed("/api/x").bearer(&token)),
        pairs(&[&[host, extra], &said[..]].concat())
    );
    assert_eq!(
        applied(spoofed("/public/x").bearer(&token)),
        pairs(&[host, extra, kept])
    );
    let bearer = format!("Bearer {token}");
    let forwarded = [("authorization", bearer.as_str()), host];
    assert_eq!(
        applied(spoofed("/forward/x").bearer(&token)),
        pairs(&[&forwarded, &said[..]].concat())
    );
    let without_roles = good_token(&[("roles", "")]);
    assert_eq!(
        applied(spoofed("/api/x").bearer(&without_roles)),
        pairs(&[host, extra, ("x-user-id", "user-1"), kept])
    );
}

#[test]
fn a_user_of_one_issuer_is_no_user_of_another() {
    let policy = support::policy(
        "
issuers:
  - { issuer: https://issuer.test, jwks: a, audience: durward-tests, algorithms: [ES256], identity_prefix: 'a:' }
  - { issuer: https://other.test, jwks: b, audience: durward-tests, algorithms: [ES256], identity_prefix: 'b:' }
revocations: none
identity_headers: { X-User-Id: sub }
routes:
  - { path: /a/**, upstream: api, issuers: [https://issuer.test] }
  - { path: /both/**, upstream: api, issuers: [https://issuer.test, https://other.test] }
",
    );
    let (ours, theirs) = (good_token(&[]), good_token(&[("iss", r#""https://other.test""#)]));
    let id = |target: &str, token: &str| {
        let permit = decide_at(&policy, &Request::get(target).bearer(token), &LIVE, NOW)?;
        let value = permit
            .identity_headers()
            .iter()
            .next()
            .map(|(_, value)| value.to_str().unwrap().to_owned());
        Ok(value.unwrap())
    };
    assert_eq!(id("/a/x", &ours), Ok("a:user-1".to_owned()));
    assert_eq!(id("/a/x", &theirs), Err(Reason::IssuerNotAccepted));
    assert_eq!(id("/both/x", &ours), Ok("a:user-1".to_owned()));
    assert_eq!(id("/both/x", &theirs), Ok("b:user-1".to_owned()));
}

#[test]
fn no_policy_refuses_everything() {
    let policy = Policy::refuse_everything(durward_policy::DigestKey([0; 16]));
    for target in ["/", "/public/x", "/api/x"] {
        let decided = decide_at(
            &policy,
            &Request::get(target).bearer(&good_token(&[])),
            &LIVE,
            NOW,
        );
        assert_eq!(decided.err(), Some(Reason::NoRoute));
    }
}

#[derive(Default)]
struct Phases(Vec<Phase>);

impl Trace for Phases {
    fn enter(&mut self, phase: Phase) {
        self.0.push(phase);
    }

    fn step(&mut self, _make: impl FnOnce() -> Step) {}
}

#[test]
fn phases_are_entered_once_and_in_order() {
    let policy = policy();
    let phases = |request: &Request| {
        let mut phases = Phases::default();
        decide(
            &policy,
            &request.facts(),
            &FixedKeys::usual(&policy),
            &LIVE,
            NOW,
            &mut phases,
        );
        phases.0
    };
    assert_eq!(
        phases(&Request::get("/api/x").bearer(&good_token(&[]))),
        Phase::ALL
    );
    assert_eq!(
        phases(&Request::get("/public/x")),
        [Phase::Route, Phase::Identity]
    );
    assert_eq!(phases(&Request::get("/api/x")), [Phase::Route, Phase::Credential]);
    assert_eq!(
        phases(&Request::get("/api/x").bearer("a.b.c")),
        [Phase::Route, Phase::Credential, Phase::Proof]
    );
}

#[test]
fn an_explanation_is_the_decision_in_words_without_the_token() {
    let policy = policy();
    let keys = FixedKeys::usual(&policy);
    let credential = ExplainCredential::FromRequest { keys: &keys };
    let token = good_token(&[]);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for target in [
        "/public/x",
        "/api/x",
        "/api/admin/x",
        "/images/user-2/x",
        "/nothing",
    ] {
        let request = Request::get(target).bearer(&token);
        let explained = explain(&policy, &request.facts(), credential, &LIVE, NOW).unasked();
        let decided = decide_at(&policy, &request, &LIVE, NOW);
        assert_eq!(
            explained.reason,
            decided.as_ref().err().map(|reason| reason.code()),
            "{target}"
        );
        assert_eq!(explained.verdict == Verdict::Permit, decided.is_ok(), "{target}");
        let json = serde_json::to_string(&explained).unwrap();
        assert!(!json.contains(signature) && !json.contains(signed), "{json}");
    }
    let request = Request::get("/api/admin/x").bearer(&token);
    let explained = explain(&policy, &request.facts(), credential, &LIVE, NOW).unasked();
    let explained = serde_json::to_value(explained).unwrap();
    let steps = explained["steps"].as_array().unwrap();
    let rule = steps.iter().find(|step| step["what"] == "claim `roles`").unwrap();
    assert_eq!(rule["outcome"], "refused");
    assert_eq!(rule["phase"], "rules");
    assert_eq!(rule["detail"], r#"wanted "admin", found ["user"]"#);
    assert!(rule["place"].as_str().unwrap().contains(':'));
    assert_eq!(
        (&explained["verdict"], &explained["status"]),
        (&"refuse".into(), &403.into())
    );
}

#[test]
fn claims_may_be_assumed() {
    let policy = policy();
    let assume = |target: &str, claims: &str| {
        let request = Request::get(target);
        let explained = explain(
            &policy,
            &request.facts(),
            ExplainCredential::AssumedClaims(claims),
            &LIVE,
            NOW,
        )
        .unasked();
        (explained.reason, explained.identity_headers)
    };
    let said = vec![("x-user-id".to_owned(), "u7".to_owned())];
    assert_eq!(assume("/images/u7/x", r#"{"sub":"u7"}"#), (None, said));
    assert_eq!(assume("/images/u8/x", r#"{"sub":"u7"}"#).0, Some("rule_refused"));
    assert_eq!(assume("/api/x", "{}").0, Some("claim_missing"));
    assert_eq!(assume("/api/x", "{").0, Some("token_malformed"));
    assert_eq!(
        assume("/api/x", r#"{"sub":"u7","exp":1}"#).0,
        Some("claim_invalid")
    );
    assert_eq!(
        assume("/api/x", r#"{"sub":"u7","iss":"https://nobody.test"}"#).0,
        Some("unknown_issuer")
    );
    assert_eq!(assume("/public/x", "{").0, None, "nobody asks");
}

#[test]
fn a_bad_token_of_every_class_gets_the_same_words() {
    let policy = policy();
    let bodies = [
        "rubbish".to_owned(),
        good_token(&[("exp", "")]),
        token(By::OtherEs256, HEADER, claims(&[])),
        token(By::Es256, HEADER.replace("ec", "nowhere"), claims(&[])),
    ]
    .map(|token| {
        let request = Request::get("/api/x").bearer(&token);
        match decide(
            &policy,
            &request.facts(),
            &FixedKeys::usual(&policy),
            &LIVE,
            NOW,
            &mut NoTrace,
        ) {
            Decision::Permit(_) | Decision::Pending(_) => panic!("refused"),
            Decision::Refuse(refusal) => {
                let challenge = refusal.rejection.reason.challenge().unwrap().header_value();
                assert_eq!(challenge, r#"Bearer realm="durward", error="invalid_token""#);
                refusal
                    .rejection
                    .problem()
                    .replace(refusal.rejection.reason.code(), "REASON")
            }
        }
    });
    assert!(bodies.iter().all(|body| body == &bodies[0]), "{bodies:?}");
}
