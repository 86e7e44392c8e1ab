//! Client certificates: on which routes they count, and how they end.

mod support;

use std::sync::Arc;

use durward_contract::{Grant, Sequence, UnixSeconds};
use durward_policy::{
    CertificateName, ClientCertificate, Decision, DigestKey, GrantStanding, GrantedKey, KeyDigest, NoTrace,
    Permit, Policy, Reason, Revocations, Standing, VerifiedToken, decide,
};
use support::{FixedKeys, ISSUERS, NOW, Request, good_token, stale};

const ROUTES: &str = r#"
revocations: { store: embedded }
identity_headers: { X-User-Id: sub }
routes:
  - { path: /users/**, upstream: api }
  - { path: /public/**, upstream: api, access: public }
  - { path: /certified/**, upstream: api, credentials: client_certificate }
  - { path: /lenient/**, upstream: api, credentials: client_certificate, when_unknown: { allow_for: 60s } }
  - { path: /maybe/**, upstream: api, credentials: client_certificate, access: optional }
  - { path: /both/**, upstream: api, credentials: [bearer, client_certificate] }
"#;
const BEGAN: UnixSeconds = UnixSeconds(NOW.0 - 100);
const ENDS: UnixSeconds = UnixSeconds(NOW.0 + 100);

fn policy() -> Policy {
    let own = ISSUERS.split("  - issuer").next().unwrap();
    support::try_policy(&format!("{own}  - use: auth\n{ROUTES}"), true)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn name(text: &str) -> CertificateName {
    CertificateName::parse(text).unwrap()
}

fn certificate(not_before: UnixSeconds, not_after: UnixSeconds) -> ClientCertificate {
    let names = vec![
        CertificateName::fingerprint(b"leaf"),
        name("dns:billing.internal"),
        name("uri:spiffe://example/billing"),
    ];
    ClientCertificate::new(names, not_before, not_after).unwrap()
}

/// News of the grants of these names.
struct News {
    granted: Vec<&'static str>,
    expires_at: Option<UnixSeconds>,
    standing: Standing,
}

fn live(granted: &[&'static str]) -> News {
    News {
        granted: granted.to_vec(),
        expires_at: None,
        standing: Standing::Live,
    }
}

impl Revocations for News {
    fn standing(&self, _token: &VerifiedToken, _now: UnixSeconds) -> Standing {
        self.standing
    }

    fn granted_key(&self, digest: &KeyDigest) -> GrantStanding {
        let found = self
            .granted
            .iter()
            .find(|granted| name(granted).digest() == *digest);
        match (found, self.standing) {
            (Some(granted), _) => {
                let grant = Grant {
                    sequence: Sequence(1),
                    issuer: support::ISSUER.into(),
                    key: (*granted).into(),
                    digest: digest.0,
                    service: "billing".into(),
                    scopes: vec![],
                    expires_at: self.expires_at,
                };
                let key = GrantedKey::new(DigestKey([1; 16]), &grant).unwrap();
                GrantStanding::Known(Arc::new(key))
            }
            (None, Standing::Unknown { stale_for }) => GrantStanding::Unknown { stale_for },
            (None, _) => GrantStanding::Absent,
        }
    }

    fn key_standing(&self, _key: &GrantedKey) -> Standing {
        self.standing
    }
}

fn judged(request: &Request, shown: Option<&ClientCertificate>, news: &News) -> Result<Permit, Reason> {
    let policy = policy();
    let keys = FixedKeys::usual(&policy);
    let facts = request.facts().with_certificate(shown);
    match decide(&policy, &facts, &keys, news, NOW, &mut NoTrace) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Refuse(refusal) => Err(refusal.rejection.reason),
        Decision::Pending(_) => panic!("nothing is looked up here"),
    }
}

const GRANTED: &str = "dns:billing.internal";

#[test]
fn a_certificate_counts_where_a_route_accepts_one() {
    let shown = certificate(BEGAN, ENDS);
    let user = good_token(&[]);
    for (request, reason) in [
        (Request::get("/certified/x"), None),
        (Request::get("/maybe/x"), None),
        (Request::get("/both/x"), None),
        (Request::get("/public/x"), None),
        (Request::get("/users/x"), Some(Reason::NoCredential)),
        (Request::get("/users/x").bearer(&user), None),
        (
            Request::get("/both/x").bearer(&user),
            Some(Reason::SeveralCredentials),
        ),
        (
            Request::get("/certified/x").bearer(&user),
            Some(Reason::SeveralCredentials),
        ),
        (
            Request::get("/certified/x").header("x-api-key", "a"),
            Some(Reason::SeveralCredentials),
        ),
        (
            Request::get("/certified/x?access_token=a"),
            Some(Reason::SeveralCredentials),
        ),
    ] {
        let found = judged(&request, Some(&shown), &live(&[GRANTED]));
        assert_eq!(found.as_ref().err(), reason.as_ref());
        let service = found
            .ok()
            .and_then(|permit| Some(permit.principal()?.service()?.service().to_owned()));
        if let Some(service) = service {
            assert_eq!(service, "billing");
        }
    }
    for (request, reason) in [
        (Request::get("/certified/x"), Some(Reason::NoCredential)),
        (Request::get("/maybe/x"), None),
        (Request::get("/both/x").bearer(&user), None),
        (
            Request::get("/certified/x").bearer(&user),
            Some(Reason::CredentialNotAccepted),
        ),
    ] {
        assert_eq!(
            judged(&request, None, &live(&[GRANTED])).err(),
            reason,
            "{}",
            request.target
        );
    }
}

#[test]
fn it_takes_exactly_one_grant() {
    let shown = certificate(BEGAN, ENDS);
    let request = Request::get("/certified/x");
    let reason = |news: &News| judged(&request, Some(&shown), news).err();
    assert_eq!(reason(&live(&[])), Some(Reason::CertificateUnknown));
    assert_eq!(
        reason(&live(&["dns:other.internal"])),
        Some(Reason::CertificateUnknown)
    );
    assert_eq!(reason(&live(&["uri:spiffe://example/billing"])), None);
    let both = [GRANTED, "uri:spiffe://example/billing"];
    assert_eq!(reason(&live(&both)), Some(Reason::CertificateUnknown));
}

#[test]
fn stale_news_gives_nobody_a_grant_and_takes_one_as_the_route_says() {
    let shown = certificate(BEGAN, ENDS);
    let stale = |granted: &[&'static str]| News {
        standing: stale(30).0,
        ..live(granted)
    };
    for (path, granted, reason) in [
        ("/certified/x", &[GRANTED][..], Some(Reason::RevocationUnknown)),
        ("/lenient/x", &[GRANTED], None),
        ("/lenient/x", &[], Some(Reason::RevocationUnknown)),
    ] {
        let found = judged(&Request::get(path), Some(&shown), &stale(granted));
        assert_eq!(found.err(), reason, "{path} {granted:?}");
    }
}

#[test]
fn it_ends_with_its_time_and_so_does_what_is_open() {
    let request = Request::get("/certified/x");
    let at = |seconds| UnixSeconds(NOW.0 + seconds);
    for (not_before, not_after, reason) in [
        (at(0), at(0), None),
        (at(1), at(9), Some(Reason::CertificateExpired)),
        (at(-9), at(-1), Some(Reason::CertificateExpired)),
    ] {
        let shown = certificate(not_before, not_after);
        assert_eq!(judged(&request, Some(&shown), &live(&[GRANTED])).err(), reason);
    }
    for (grant_ends, expected) in [(None, at(101)), (Some(at(50)), at(50)), (Some(at(500)), at(101))] {
        let news = News {
            expires_at: grant_ends,
            ..live(&[GRANTED])
        };
        let permit = judged(&request, Some(&certificate(BEGAN, ENDS)), &news).unwrap();
        let key = permit.principal().unwrap().service().unwrap();
        assert_eq!(key.expires_at(), Some(expected));
    }
    let news = News {
        expires_at: Some(at(0)),
        ..live(&[GRANTED])
    };
    let ended = judged(&request, Some(&certificate(BEGAN, ENDS)), &news);
    assert_eq!(ended.err(), Some(Reason::ApiKeyExpired));
}
