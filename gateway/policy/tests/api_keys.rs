//! API keys: their form, what becomes of requests that carry one, and in whose name they go on.

mod support;

use std::sync::Arc;

use durward_contract::{Grant, Sequence, UnixSeconds};
use durward_policy::{
    API_KEY_LENGTH, ApiKey, Cause, Decision, DigestKey, ExplainCredential, GrantStanding, GrantedKey,
    KeyDigest, NoRevocations, NoTrace, Permit, Policy, Reason, Revocations, Standing, VerifiedToken, decide,
    explain,
};
use proptest::prelude::*;
use support::{FixedKeys, ISSUERS, LIVE, NOW, Request, good_token, stale};

const ROUTES: &str = r#"
revocations: { store: embedded }
identity_headers: { X-User-Id: sub, X-User-Roles: roles }
service_headers: { X-Service-Id: id, X-Service-Scopes: scope }
routes:
  - { path: /public/**, upstream: api, access: public }
  - { path: /users/**, upstream: api }
  - { path: /maybe-user/**, upstream: api, access: optional }
  - { path: /services/**, upstream: api, credentials: api_key }
  - { path: /maybe/**, upstream: api, credentials: [api_key], access: optional }
  - { path: /both/**, upstream: api, credentials: [bearer, api_key] }
  - { path: /forward/**, upstream: api, credentials: [bearer, api_key], forward_credentials: true }
  - { path: /lenient/**, upstream: api, credentials: [api_key], when_unknown: { allow_for: 60s } }
  - { path: /scoped/**, upstream: api, credentials: [api_key], require: { scope: "notes:read notes:write" } }
  - { path: "/own/{owner}/**", upstream: api, credentials: [bearer, api_key], require: { sub: "{owner}" } }
  - { path: /roles/**, upstream: api, credentials: [bearer, api_key], require: { any: [{ roles: admin }, { scope: "notes:read" }] } }
"#;

fn policy_text() -> String {
    let own = ISSUERS.split("  - issuer").next().unwrap();
    format!("{own}  - use: auth\n{ROUTES}")
}

fn policy() -> Policy {
    support::try_policy(&policy_text(), true).unwrap_or_else(|errors| panic!("{errors}"))
}

fn key() -> String {
    ApiKey::compose([3; 10], [5; 32])
}

fn granted(text: &str, change: impl FnOnce(&mut Grant)) -> Arc<GrantedKey> {
    let mut grant = Grant {
        sequence: Sequence(1),
        issuer: support::ISSUER.into(),
        key: "k1".into(),
        digest: ApiKey::parse(text).unwrap().digest().0,
        service: "billing".into(),
        scopes: vec!["notes:read".into(), "notes:write".into()],
        expires_at: None,
    };
    change(&mut grant);
    Arc::new(GrantedKey::new(DigestKey([1; 16]), &grant).unwrap())
}

/// News of one key, as fresh as `standing` says.
struct News {
    key: Option<Arc<GrantedKey>>,
    standing: Standing,
}

impl Revocations for News {
    fn standing(&self, _token: &VerifiedToken, _now: UnixSeconds) -> Standing {
        self.standing
    }

    fn granted_key(&self, digest: &KeyDigest) -> GrantStanding {
        match (&self.key, self.standing) {
            (Some(key), _) if key.digest() == *digest => GrantStanding::Known(Arc::clone(key)),
            (_, Standing::Unknown { stale_for }) => GrantStanding::Unknown { stale_for },
            _ => GrantStanding::Absent,
        }
    }

    fn key_standing(&self, _key: &GrantedKey) -> Standing {
        self.standing
    }
}

fn knows(standing: Standing) -> News {
    News {
        key: Some(granted(&key(), |_| {})),
        standing,
    }
}

fn live() -> News {
    knows(Standing::Live)
}

fn judged(request: &Request, news: &impl Revocations) -> Result<Permit, Reason> {
    let policy = policy();
    let keys = FixedKeys::usual(&policy);
    match decide(&policy, &request.facts(), &keys, news, NOW, &mut NoTrace) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Refuse(refusal) => {
            let rejection = refusal.rejection;
            assert!(!rejection.cause.contains(&key()[21..]), "{rejection}");
            Err(rejection.reason)
        }
        Decision::Pending(_) => panic!("nothing is looked up here"),
    }
}

fn with_key(target: &str) -> Request {
    Request::get(target).header("x-api-key", &key())
}

#[test]
fn a_route_says_whom_it_accepts() {
    let user = good_token(&[]);
    for (request, reason) in [
        (with_key("/services/x"), None),
        (with_key("/both/x"), None),
        (with_key("/maybe/x"), None),
        (Request::get("/maybe/x"), None),
        (Request::get("/services/x"), Some(Reason::NoCredential)),
        (Request::get("/both/x"), Some(Reason::NoCredential)),
        (Request::get("/both/x").bearer(&user), None),
        (with_key("/users/x"), Some(Reason::CredentialNotAccepted)),
        (with_key("/maybe-user/x"), Some(Reason::CredentialNotAccepted)),
        (
            Request::get("/services/x").bearer(&user),
            Some(Reason::CredentialNotAccepted),
        ),
        (
            Request::get("/maybe/x").bearer(&user),
            Some(Reason::CredentialNotAccepted),
        ),
        (with_key("/public/x"), None),
        (with_key("/nothing/x"), Some(Reason::NoRoute)),
    ] {
        assert_eq!(judged(&request, &live()).err(), reason, "{}", request.target);
    }
}

#[test]
fn there_is_exactly_one_credential_of_either_kind() {
    let user = good_token(&[]);
    for target in ["/users/x", "/services/x", "/both/x", "/maybe/x"] {
        for request in [
            with_key(target).header("X-API-KEY", &key()),
            with_key(target).header("x-api-key", ""),
            with_key(target).bearer(&user),
            with_key(target).header("authorization", ""),
            with_key(target).header("authorization", "Basic dTpw"),
            Request::get(target).header("x-api-key", "rubbish").bearer(&user),
            with_key(&format!("{target}?access_token=a")),
            with_key(&format!("{target}?k={}", key())),
        ] {
            let refused = judged(&request, &live()).unwrap_err();
            assert_eq!(
                refused,
                Reason::SeveralCredentials,
                "{target} {:?}",
                request.headers
            );
        }
        let in_query = Request::get(&format!("{target}?api_key={}", key()));
        assert_eq!(judged(&in_query, &live()).unwrap_err(), Reason::CredentialInQuery);
    }
    // What only folds to the header is no credential; nor is a key in another place.
    for request in [
        Request::get("/both/x").header("x_api_key", &key()),
        Request::get("/both/x").header("api-key", &key()),
        Request::get("/both/x").header("cookie", &format!("x-api-key={}", key())),
    ] {
        assert_eq!(judged(&request, &live()).unwrap_err(), Reason::NoCredential);
    }
    let as_token = Request::get("/both/x").bearer(&key());
    assert_eq!(judged(&as_token, &live()).unwrap_err(), Reason::TokenMalformed);
}

#[test]
fn a_key_is_known_fresh_and_in_time_or_it_is_refused() {
    let never = Standing::Unknown { stale_for: None };
    let nobody = |standing| News { key: None, standing };
    let ends = |at: i64| News {
        key: Some(granted(&key(), |grant| {
            grant.expires_at = Some(UnixSeconds(at));
        })),
        standing: Standing::Live,
    };
    for (target, news, reason) in [
        ("/services/x", nobody(Standing::Live), Some(Reason::ApiKeyUnknown)),
        ("/services/x", nobody(stale(6).0), Some(Reason::RevocationUnknown)),
        ("/services/x", nobody(never), Some(Reason::RevocationUnknown)),
        // What is not known is not accepted, however lenient a route is about revocation.
        ("/lenient/x", nobody(stale(6).0), Some(Reason::RevocationUnknown)),
        ("/lenient/x", nobody(Standing::Live), Some(Reason::ApiKeyUnknown)),
        ("/services/x", knows(stale(6).0), Some(Reason::RevocationUnknown)),
        ("/services/x", knows(never), Some(Reason::RevocationUnknown)),
        ("/lenient/x", knows(stale(60).0), None),
        ("/lenient/x", knows(stale(61).0), Some(Reason::RevocationUnknown)),
        ("/lenient/x", knows(never), Some(Reason::RevocationUnknown)),
        (
            "/lenient/x",
            knows(Standing::Revoked(Cause::ApiKey)),
            Some(Reason::Revoked),
        ),
        ("/services/x", ends(NOW.0), Some(Reason::ApiKeyExpired)),
        ("/services/x", ends(NOW.0 + 1), None),
    ] {
        let decided = judged(&with_key(target), &news);
        assert_eq!(decided.err(), reason, "{target} {:?}", news.standing);
    }
    // Another key of the same service, and one that only shares the public part.
    for other in [
        ApiKey::compose([4; 10], [5; 32]),
        ApiKey::compose([3; 10], [6; 32]),
    ] {
        let request = Request::get("/services/x").header("x-api-key", &other);
        assert_eq!(judged(&request, &live()).unwrap_err(), Reason::ApiKeyUnknown);
    }
    // Without news of grants nobody is known.
    assert_eq!(
        judged(&with_key("/services/x"), &NoRevocations).unwrap_err(),
        Reason::RevocationUnknown
    );
    assert_eq!(
        judged(&with_key("/services/x"), &LIVE).unwrap_err(),
        Reason::RevocationUnknown
    );
}

/// A table that gives away another key than it was asked for gives nothing.
#[test]
fn the_grant_must_be_of_the_key_that_was_presented() {
    struct Confused(Arc<GrantedKey>);
    impl Revocations for Confused {
        fn standing(&self, _token: &VerifiedToken, _now: UnixSeconds) -> Standing {
            Standing::Live
        }
        fn granted_key(&self, _digest: &KeyDigest) -> GrantStanding {
            GrantStanding::Known(Arc::clone(&self.0))
        }
        fn key_standing(&self, _key: &GrantedKey) -> Standing {
            Standing::Live
        }
    }
    let other = ApiKey::compose([4; 10], [5; 32]);
    let confused = Confused(granted(&other, |_| {}));
    assert_eq!(
        judged(&with_key("/services/x"), &confused).unwrap_err(),
        Reason::Internal
    );
}

#[test]
fn a_malformed_key_is_refused_before_anybody_is_asked() {
    struct NeverAsked;
    impl Revocations for NeverAsked {
        fn standing(&self, _token: &VerifiedToken, _now: UnixSeconds) -> Standing {
            panic!("nobody should ask")
        }
        fn granted_key(&self, _digest: &KeyDigest) -> GrantStanding {
            panic!("nobody should ask")
        }
        fn key_standing(&self, _key: &GrantedKey) -> Standing {
            panic!("nobody should ask")
        }
    }
    let last = if key().ends_with('0') { "1" } else { "0" };
    for text in [
        String::new(),
        "dwk_".into(),
        key()[..40].into(),
        key().to_uppercase(),
        key().replacen("dwk_", "dwx_", 1),
        format!("{}{last}", &key()[..79]),
    ] {
        let request = Request::get("/services/x").header("x-api-key", &text);
        let refused = judged(&request, &NeverAsked).unwrap_err();
        assert_eq!(refused, Reason::ApiKeyMalformed, "{text}");
    }
}

#[test]
fn rules_see_the_scopes_of_a_key_and_nothing_else() {
    let scoped = |scopes: &[&str]| News {
        key: Some(granted(&key(), |grant| {
            grant.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        })),
        standing: Standing::Live,
    };
    for (target, scopes, reason) in [
        ("/scoped/x", &["notes:write", "notes:read"][..], None),
        ("/scoped/x", &["notes:read"], Some(Reason::InsufficientScope)),
        (
            "/scoped/x",
            &["notes:readnotes:write"],
            Some(Reason::InsufficientScope),
        ),
        ("/scoped/x", &[], Some(Reason::InsufficientScope)),
        ("/roles/x", &["notes:read"], None),
        ("/roles/x", &["admin"], Some(Reason::RuleRefused)),
        ("/own/billing/x", &["notes:read"], Some(Reason::RuleRefused)),
        ("/own/k1/x", &["k1"], Some(Reason::RuleRefused)),
    ] {
        let decided = judged(&with_key(target), &scoped(scopes));
        assert_eq!(decided.err(), reason, "{target} {scopes:?}");
    }
    // A user is judged there as anywhere.
    let own = Request::get("/own/user-1/x").bearer(&good_token(&[]));
    assert!(judged(&own, &live()).is_ok());
}

fn applied(request: Request) -> Vec<String> {
    let permit = judged(&request, &live()).unwrap();
    let mut headers = request.headers;
    permit.apply_to(&mut headers);
    let mut lines: Vec<_> = headers
        .iter()
        .filter(|(name, _)| *name != "host")
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_service_is_never_said_to_be_a_user_nor_a_user_a_service() {
    let spoofed = |request: Request| {
        request
            .header("x-service-id", "root")
            .header("x-service-id", "admin")
            .header("X_Service.Id", "root")
            .header("x-service_scopes", "all")
            .header("x-user-id", "root")
            .header("x_user_roles", "admin")
    };
    let service = [
        "x-service-id: billing",
        "x-service-scopes: notes:read notes:write",
    ];
    let user = ["x-user-id: user-1", "x-user-roles: user"];
    let token = good_token(&[]);
    assert_eq!(applied(spoofed(with_key("/both/x"))), service);
    assert_eq!(applied(spoofed(with_key("/services/x"))), service);
    assert_eq!(applied(spoofed(Request::get("/both/x").bearer(&token))), user);
    assert_eq!(applied(spoofed(Request::get("/users/x").bearer(&token))), user);
    for anonymous in ["/public/x", "/maybe/x", "/maybe-user/x"] {
        assert!(
            applied(spoofed(Request::get(anonymous))).is_empty(),
            "{anonymous}"
        );
    }
    // The key itself stays here, in every spelling; a route may forward it.
    let aliases = |request: Request| request.header("x_api_key", "a").header("X.Api-Key", "b");
    assert_eq!(applied(aliases(with_key("/services/x"))), service);
    assert!(applied(aliases(with_key("/public/x"))).is_empty());
    let forwarded = applied(with_key("/forward/x"));
    assert_eq!(
        forwarded,
        [format!("x-api-key: {}", key()).as_str(), service[0], service[1]]
    );
}

#[test]
fn nobody_says_to_be_a_service_where_none_is_accepted() {
    let yaml = "issuers: [{ use: auth }]\nrevocations: none\n\
                routes: [{ path: /**, upstream: api, access: public }]\n";
    let policy = support::try_policy(yaml, true).unwrap();
    let route = policy.routes().iter().next().unwrap().id;
    for name in ["x-service-id", "X_Service_Id", "x.service~id"] {
        assert!(policy.strips(route, name), "{name}");
    }
    let said: Vec<_> = policy.identity_header_names().collect();
    assert_eq!(said, ["x-service-id"]);
}

#[test]
fn the_principal_is_one_or_the_other() {
    let service = judged(&with_key("/both/x"), &live()).unwrap();
    let principal = service.principal().unwrap();
    assert!(principal.user().is_none());
    assert_eq!(principal.service().unwrap().service(), "billing");
    let user = judged(&Request::get("/both/x").bearer(&good_token(&[])), &live()).unwrap();
    let principal = user.principal().unwrap();
    assert!(principal.service().is_none());
    assert_eq!(principal.user().unwrap().subject(), "user-1");
}

#[test]
fn an_explanation_says_hit_and_miss_and_not_the_key() {
    let policy = policy();
    let keys = FixedKeys::usual(&policy);
    let told = |target: &str, news: &News| {
        let request = with_key(target);
        let credential = ExplainCredential::FromRequest { keys: &keys };
        let told = explain(&policy, &request.facts(), credential, news, NOW).unasked();
        assert_eq!(
            told.reason,
            judged(&request, news).err().map(Reason::code),
            "{target}"
        );
        let json = serde_json::to_value(&told).unwrap();
        assert!(!json.to_string().contains(&key()[21..]), "{json}");
        json
    };
    let outcome = |told: &serde_json::Value, what: &str| {
        let steps = told["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["what"] == what);
        step.map(|step| step["outcome"].as_str().unwrap().to_owned())
    };
    let hit = told("/roles/x", &live());
    for what in [
        "x-api-key",
        "form",
        "grant",
        "times",
        "revocation",
        "x-service-id",
    ] {
        assert_eq!(outcome(&hit, what).as_deref(), Some("hit"), "{what}: {hit}");
    }
    assert_eq!(outcome(&hit, "claim `roles`").as_deref(), Some("miss"));
    assert_eq!(
        (&hit["service"], &hit["subject"]),
        (&"billing".into(), &serde_json::Value::Null)
    );
    let nobody = News {
        key: None,
        standing: Standing::Live,
    };
    let refused = told("/services/x", &nobody);
    assert_eq!(outcome(&refused, "api_key_unknown").as_deref(), Some("refused"));
    assert!(
        refused["cause"].as_str().unwrap().contains(&key()[4..20]),
        "{refused}"
    );
    assert_eq!(told("/users/x", &live())["reason"], "credential_not_accepted");
    // Assumed claims are a token's.
    let request = Request::get("/services/x");
    let assumed = ExplainCredential::AssumedClaims(r#"{"sub":"u7"}"#);
    let told = explain(&policy, &request.facts(), assumed, &live(), NOW).unasked();
    assert_eq!(told.reason, Some("credential_not_accepted"));
}

#[test]
fn the_configuration_is_checked() {
    let with = |from: &str, to: &str| {
        let text = policy_text();
        assert!(text.contains(from));
        support::try_policy(&text.replace(from, to), true).map(drop)
    };
    assert_eq!(with("credentials: api_key", "credentials: [api_key]"), Ok(()));
    assert_eq!(
        with(
            "service_headers: { X-Service-Id: id, X-Service-Scopes: scope }\n",
            ""
        ),
        Ok(())
    );
    for (from, to, problem) in [
        (
            "credentials: api_key",
            "credentials: []",
            "`credentials` is empty",
        ),
        (
            "credentials: api_key",
            "credentials: apikey",
            "cannot be `apikey`",
        ),
        (
            "credentials: api_key",
            "credentials: [api_key, api_key]",
            "is listed twice",
        ),
        (
            "credentials: api_key",
            "credentials: [api_key], issuers: [auth]",
            "the route accepts no tokens, and has `issuers`",
        ),
        (
            "access: public",
            "access: public, credentials: [api_key]",
            "a public route does not look at credentials, and has `credentials`",
        ),
        (
            "revocations: { store: embedded }",
            "revocations: none",
            "the route accepts services, and there is no news of their grants",
        ),
        (
            "X-Service-Id: id",
            "X_User_Id: id",
            "cannot tell `x_user_id` from `x-user-id`",
        ),
    ] {
        let errors = with(from, to).unwrap_err();
        assert!(errors.contains(problem), "{to}: {errors}");
    }
    // Keys alone need no issuer.
    let alone =
        "revocations: { store: embedded }\nroutes:\n  - { path: /**, upstream: api, credentials: api_key }\n";
    let policy = support::try_policy(alone, true).unwrap();
    let names: Vec<_> = policy.service_headers().names().collect();
    assert_eq!(names, ["x-service-id"]);
}

fn any_key() -> impl Strategy<Value = String> {
    (any::<[u8; 10]>(), any::<[u8; 32]>()).prop_map(|(id, secret)| ApiKey::compose(id, secret))
}

proptest! {
    #[test]
    fn what_is_composed_is_a_key(text in any_key()) {
        prop_assert_eq!(text.len(), API_KEY_LENGTH);
        let key = ApiKey::parse(&text).unwrap();
        prop_assert_eq!(key.id(), &text[4..20]);
        let said = format!("{key:?} {:?}", key.digest());
        prop_assert!(!said.contains(&text[21..30]));
    }

    #[test]
    fn different_secrets_are_different_keys(id in any::<[u8; 10]>(), left in any::<[u8; 32]>(), right in any::<[u8; 32]>()) {
        let (one, other) = (ApiKey::compose(id, left), ApiKey::compose(id, right));
        prop_assert_eq!(left == right, one == other);
    }

    #[test]
    fn no_character_can_be_mistyped(text in any_key(), place in 0..API_KEY_LENGTH, byte in 0x20..0x7f_u8) {
        let mut bytes = text.clone().into_bytes();
        bytes[place] = byte;
        let typed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(ApiKey::parse(&typed).is_ok(), typed == text);
    }

    #[test]
    fn no_two_neighbours_can_be_swapped(text in any_key(), place in 0..API_KEY_LENGTH - 1) {
        let mut bytes = text.clone().into_bytes();
        bytes.swap(place, place + 1);
        let typed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(ApiKey::parse(&typed).is_ok(), typed == text);
    }

    #[test]
    fn no_part_of_a_key_is_one(text in any_key(), from in 0..API_KEY_LENGTH, to in 0..=API_KEY_LENGTH) {
        if from < to && to - from < API_KEY_LENGTH {
            prop_assert!(ApiKey::parse(&text[from..to]).is_err());
        }
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,100}") {
        let _ = ApiKey::parse(&text);
    }
}
