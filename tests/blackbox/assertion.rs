//! The signed assertion of who asks: given where it is asked for, proved with the published key, and
//! never the client's own.

use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::harness::{Backend, OWN, Recorded, Service, Setup, TestFolder, durward, free_address, get, now};

const SECTION: &str =
    "assertion: { key: data/assertion.key, issuer: \"https://gateway.test\", lifetime: 60s }\n";
const ROUTES: &str = "  - { path: /plain/**, upstream: plain }\n  \
                      - { path: /services/**, upstream: api, credentials: [api_key] }\n";

fn start(backend: &Backend) -> Service {
    setup(backend).start()
}

fn setup(backend: &Backend) -> Setup {
    Setup::own(backend).append(ROUTES).append(SECTION).replace(
        &format!("api: {{ servers: [\"{}\"] }}", backend.address()),
        &format!(
            "api: {{ servers: [\"{0}\"], assertion: true }}\n  plain: {{ servers: [\"{0}\"] }}",
            backend.address()
        ),
    )
}

/// The claims of an assertion that the published key proves.
#[track_caller]
fn proved(service: &Service, token: &str) -> Value {
    let keys = get("/assertion/jwks.json").send(service.admin).expect(200);
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    let key = keys.json()["keys"][0].clone();
    let parts: Vec<&str> = token.split('.').collect();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
    assert_eq!(
        (&header["alg"], &header["typ"], &header["kid"]),
        (&"ES256".into(), &"durward-assertion+jwt".into(), &key["kid"])
    );
    let mut point = vec![4];
    point.extend(decode(key["x"].as_str().unwrap()));
    point.extend(decode(key["y"].as_str().unwrap()));
    let message = format!("{}.{}", parts[0], parts[1]);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message.as_bytes(), &decode(parts[2]))
        .unwrap();
    assert!(key["d"].is_null(), "{key}");
    serde_json::from_slice(&decode(parts[1])).unwrap()
}

/// Everything that a backend could take for the assertion.
fn sent(request: &Recorded) -> Vec<String> {
    let aliases = request.aliases("x-durward-assertion");
    aliases.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn a_backend_can_prove_who_asks_and_that_the_gateway_says_so() {
    let backend = Backend::start();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    backend.take();
    service.ask(&alice.get("/api/x")).expect(200);
    let token = sent(&backend.take_one()).remove(0);
    let claims = proved(&service, &token);
    assert_eq!(claims["iss"], "https://gateway.test");
    assert_eq!(claims["aud"], "api");
    assert_eq!(claims["sub"], alice.id.as_str());
    assert_eq!(claims["sub_iss"], format!("http://{}", service.edge));
    let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert_eq!(ends - issued, 60);
    assert!((issued - now()).abs() <= 30, "{claims}");

    let made: Value =
        serde_json::from_str(&service.told(&["apikey", "create", "billing", "--json"])).unwrap();
    let ask = get("/services/x").header("X-Api-Key", made["key"].as_str().unwrap());
    service.ask(&ask).expect(200);
    let claims = proved(&service, &sent(&backend.take_one()).remove(0));
    assert_eq!(claims["service"], "billing");
    assert!(claims["sub"].is_null(), "a service is no user: {claims}");
}

#[test]
fn a_client_never_says_it_itself() {
    let backend = Backend::start();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    for name in [
        "X-Durward-Assertion",
        "x_durward_assertion",
        "X.Durward.Assertion",
        "X-Durward_Assertion",
    ] {
        backend.take();
        for target in ["/public/x", "/maybe/x"] {
            service.ask(&get(target).header(name, "forged")).expect(200);
            assert!(sent(&backend.take_one()).is_empty(), "{name} {target}");
        }
        service
            .ask(&alice.get("/plain/x").header(name, "forged"))
            .expect(200);
        assert!(sent(&backend.take_one()).is_empty(), "{name}");
        service
            .ask(&alice.get("/api/x").header(name, "forged"))
            .expect(200);
        let sent = sent(&backend.take_one());
        assert_eq!(sent.len(), 1, "{name}: {sent:?}");
        proved(&service, &sent[0]);
        // Nor can it have it named away.
        let nominated = alice.get("/api/x").header("Connection", name.to_owned());
        service.ask(&nominated).expect(200);
        assert_eq!(self::sent(&backend.take_one()).len(), 1, "{name}");
    }
}

#[test]
fn one_signature_serves_many_requests_of_one_principal_and_nobody_elses() {
    let backend = Backend::start();
    let service = start(&backend);
    let (alice, bob) = (service.account("alice", &[]), service.account("bob", &[]));
    backend.take();
    let mut connection = service.connect();
    for _ in 0..50 {
        for (account, other) in [(&alice, &bob), (&bob, &alice)] {
            connection.ask(&account.get("/api/x")).expect(200);
            let claims = proved(&service, &sent(&backend.take_one()).remove(0));
            assert_eq!(claims["sub"], account.id.as_str());
            assert_ne!(claims["sub"], other.id.as_str());
        }
    }
    let metrics = service.metrics();
    let signed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("durward_assertions_signed_total "))
        .unwrap();
    // Two, and two more for each half lifetime that the test took.
    assert!(signed.parse::<f64>().unwrap() <= 10.0, "{signed}");
}

#[test]
fn the_door_for_other_proxies_gives_it_too() {
    let (backend, door) = (Backend::start(), free_address());
    let service = setup(&backend)
        .append(&format!(
            "forward_auth: {{ listen: \"{door}\", trusted: [127.0.0.1], proxies: [envoy] }}\n"
        ))
        .start();
    let alice = service.account("alice", &[]);
    let answer = alice.get("/auth/envoy/api/x").send(door).expect(200);
    let claims = proved(&service, answer.header("x-durward-assertion"));
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&alice.id.as_str().into(), &"api".into())
    );
    for answer in [
        alice.get("/auth/envoy/plain/x").send(door),
        get("/auth/envoy/public/x")
            .header("X-Durward-Assertion", "forged")
            .send(door),
    ] {
        let answer = answer.expect(200);
        let set: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-durward-assertion"))
            .collect();
        assert_eq!(set.len(), 1, "{answer:?}");
        assert_eq!(set[0].1, "", "{answer:?}");
    }
    get("/auth/envoy/public/x")
        .header("x_durward_assertion", "forged")
        .send(door)
        .expect_refusal(400, "bad_header");
}

#[test]
fn its_key_is_private_and_survives_a_restart() {
    let backend = Backend::start();
    let service = start(&backend);
    let alice = service.account("alice", &[]);
    let file = service.folder.join("data/assertion.key");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    backend.take();
    service.ask(&alice.get("/api/x")).expect(200);
    let token = sent(&backend.take_one()).remove(0);
    let service = service.restart();
    proved(&service, &token);

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let checked = service.command(&["check"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("can be used by others"), "{said}");
}

#[test]
fn what_cannot_work_is_an_error_of_the_configuration() {
    let check = |text: String| {
        let folder = TestFolder::new();
        folder.write("c.yaml", text);
        let finished = durward(&["check", "--config", "c.yaml"], &folder);
        (finished.code, format!("{}{}", finished.stdout, finished.stderr))
    };
    let text = OWN
        .replace("@edge", "127.0.0.1:1")
        .replace("@admin", "127.0.0.1:2")
        .replace("@auth", "127.0.0.1:3");
    let with = |api: &str, rest: &str| text.replace("[\"@api\"] }", &format!("[127.0.0.1:4]{api} }}")) + rest;
    for (yaml, expected) in [
        (with(", assertion: true", ""), "asks for an assertion"),
        (
            with(
                ", assertion: true",
                &SECTION.replace("lifetime: 60s", "header: X-User-Id"),
            ),
            "the identity header `x-user-id` is the assertion's",
        ),
        (with(", assertion: yes please", SECTION), "assertion must be"),
    ] {
        let (code, said) = check(yaml);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    let (code, said) = check(with("", SECTION));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("no upstream is given the assertion"), "{said}");
}
