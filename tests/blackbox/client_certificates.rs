//! Client certificates as a credential: proved in the handshake, granted like API keys, refused from
//! the moment at which that is taken back.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::{
    Ask, Backend, Certificates, Connection, FleetSetup, RedisServer, Reply, Service, Setup, TlsClient,
    eventually, free_address, get,
};

const MADE: &str = "\
authority ca
authority clients
authority strangers
signed edge ca DNS:edge.example 2
signed billing clients DNS:billing.internal,URI:spiffe://example/billing 2
signed cron clients URI:spiffe://example/cron 2
signed nobody clients DNS:nobody.internal 2
signed past clients DNS:billing.internal 0
signed forged strangers DNS:billing.internal 2";
const ROUTES: &str = r#"
  - { path: /certified/**, upstream: api, credentials: [client_certificate] }
  - { path: /any/**, upstream: api, credentials: [bearer, api_key, client_certificate] }
  - { path: /perhaps/**, upstream: api, credentials: [client_certificate], access: optional }
  - { path: /reports/**, upstream: api, credentials: [client_certificate], require: { scope: "reports:read" } }
"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n";

struct Stand {
    made: Certificates,
    backend: Backend,
    service: Service,
    at: SocketAddr,
}

impl Stand {
    fn start(required: bool) -> Self {
        let made = Certificates::make(MADE);
        let backend = Backend::answering(|request| match request.target().as_slice() {
            b"/certified/events" => Reply::Open(EVENTS.into()),
            _ => Reply::ok("upstream"),
        });
        let at = free_address();
        let service = certified(Setup::own(&backend), &made, at, required).start();
        Self {
            made,
            backend,
            service,
            at,
        }
    }

    fn with(&self, name: &str) -> SocketAddr {
        showing(&self.made, name, self.at)
    }

    fn without(&self) -> SocketAddr {
        TlsClient::new(&self.made.text("ca.pem"), "edge.example", None).tunnel(self.at)
    }

    #[track_caller]
    fn grant(&self, service: &str, certificate: &str, more: &[&str]) -> String {
        grant(&self.service, service, certificate, more)
    }
}

/// With a listener at `at` that asks for certificates, and routes that accept them.
fn certified(setup: Setup, made: &Certificates, at: SocketAddr, required: bool) -> Setup {
    let tls = format!(
        "{{ address: \"{at}\", tls: {{ certificates: [{{ certificate: edge.pem, key: edge.key }}], \
         client_certificates: {{ ca: clients.pem, required: {required} }} }} }}"
    );
    let setup = setup
        .replace("listen: \"@edge\"", &format!("listen: [\"@edge\", {tls}]"))
        .append(ROUTES.trim_start_matches('\n'));
    ["edge.pem", "edge.key", "clients.pem"]
        .iter()
        .fold(setup, |setup, name| setup.file(name, made.text(name)))
}

/// Where plain connections become ones to `at` of a client that shows this certificate.
fn showing(made: &Certificates, name: &str, at: SocketAddr) -> SocketAddr {
    let own = [format!("{name}.pem"), format!("{name}.key")].map(|file| made.text(&file));
    TlsClient::new(&made.text("ca.pem"), "edge.example", Some((&own[0], &own[1]))).tunnel(at)
}

#[track_caller]
fn grant(auth: &Service, service: &str, certificate: &str, more: &[&str]) -> String {
    let words = [
        "apikey",
        "create",
        service,
        "--certificate",
        certificate,
        "--json",
    ];
    let made: Value = serde_json::from_str(&auth.told(&[&words, more].concat())).unwrap();
    assert!(made["key"].is_null(), "{made}");
    made["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn expect(ask: &Ask, at: SocketAddr, status: u16, reason: &str) {
    let answer = ask.send(at);
    if reason.is_empty() {
        answer.expect(status);
    } else {
        answer.expect_refusal(status, reason);
    }
}

#[test]
fn a_certificate_that_was_granted_is_its_service() {
    let stand = Stand::start(false);
    let billing = stand.with("billing");
    // An authority alone makes nobody a service.
    expect(&get("/certified/x"), billing, 401, "certificate_unknown");
    expect(&get("/perhaps/x"), billing, 401, "certificate_unknown");
    stand.grant("billing", "dns:billing.internal", &["--scope", "reports:read"]);
    let spoofed = get("/certified/x")
        .header("X-Service-Id", "root")
        .header("X-User-Id", "root");
    expect(&spoofed, billing, 200, "");
    let seen = stand.backend.take_one();
    assert_eq!(seen.values("x-service-id"), ["billing"]);
    assert!(seen.aliases("x-user-id").is_empty());
    let alice = stand.service.account("alice", &[]);
    for (ask, status, reason) in [
        (get("/any/x"), 200, ""),
        (get("/reports/x"), 200, ""),
        (get("/perhaps/x"), 200, ""),
        (get("/public/x"), 200, ""),
        // Where a certificate is no credential it is not there.
        (get("/api/x"), 401, "no_credential"),
        (alice.get("/api/x"), 200, ""),
        // Where it is one, it is one too many.
        (alice.get("/any/x"), 400, "several_credentials"),
        (alice.get("/certified/x"), 400, "several_credentials"),
        (get("/certified/x?access_token=a"), 400, "several_credentials"),
    ] {
        expect(&ask, billing, status, reason);
    }
    let nobody = stand.without();
    for (ask, status, reason) in [
        (get("/certified/x"), 401, "no_credential"),
        (get("/perhaps/x"), 200, ""),
        (alice.get("/any/x"), 200, ""),
        (alice.get("/certified/x"), 403, "credential_not_accepted"),
        // The header is nobody's proof.
        (
            get("/certified/x").header("X-Client-Cert", "billing"),
            401,
            "no_credential",
        ),
    ] {
        expect(&ask, nobody, status, reason);
    }
    // Nor is there any on a plain listener.
    expect(&get("/certified/x"), stand.service.edge, 401, "no_credential");
    expect(
        &get("/certified/x"),
        stand.with("nobody"),
        401,
        "certificate_unknown",
    );
    stand.grant("cron", "uri:spiffe://example/cron", &[]);
    let cron = stand.with("cron");
    expect(&get("/certified/x"), cron, 200, "");
    expect(&get("/reports/x"), cron, 403, "insufficient_scope");
}

#[test]
fn strangers_and_the_expired_do_not_get_through_the_handshake() {
    for required in [false, true] {
        let stand = Stand::start(required);
        stand.grant("billing", "dns:billing.internal", &[]);
        expect(&get("/certified/x"), stand.with("billing"), 200, "");
        for name in ["past", "forged"] {
            assert!(
                get("/public/x").send_if_answered(stand.with(name)).is_none(),
                "{name}"
            );
        }
        let answered = get("/public/x").send_if_answered(stand.without());
        assert_eq!(answered.is_some(), !required);
        assert!(stand.backend.take().len() <= 2);
    }
}

#[test]
fn what_is_taken_back_is_refused_at_once() {
    let stand = Stand::start(false);
    let id = stand.grant("billing", "dns:billing.internal", &[]);
    let at = stand.with("billing");
    let mut kept = Connection::open(at);
    kept.ask(&get("/certified/x")).expect(200);
    let mut stream = Connection::open(at);
    stream.begin(&get("/certified/events")).expect(200);
    stream.read_until(b"hello");
    stand.service.told(&["apikey", "revoke", &id]);
    kept.ask(&get("/certified/x"))
        .expect_refusal(401, "certificate_unknown");
    stream.read_to_end();
    // On a new connection too: no session is resumed into it.
    expect(&get("/certified/x"), at, 401, "certificate_unknown");
    // Another name of the same certificate is another grant.
    let second = stand.grant("billing", "uri:spiffe://example/billing", &[]);
    expect(&get("/certified/x"), at, 200, "");
    stand.service.told(&["apikey", "revoke", &second]);
    expect(&get("/certified/x"), at, 401, "certificate_unknown");
}

#[test]
fn a_name_that_was_taken_back_can_be_granted_anew() {
    let stand = Stand::start(false);
    let name = "dns:billing.internal";
    let first = stand.grant("billing", name, &["--scope", "reports:read"]);
    let at = stand.with("billing");
    expect(&get("/reports/x"), at, 200, "");
    let twice = stand
        .service
        .command(&["apikey", "create", "billing", "--certificate", name]);
    assert!(twice.code != 0 && twice.stderr.contains("revoke"), "{twice:?}");
    stand.service.told(&["apikey", "revoke", &first]);
    expect(&get("/reports/x"), at, 401, "certificate_unknown");
    let second = stand.grant("reports", name, &["--expires", "never"]);
    assert_ne!(first, second);
    stand.backend.take();
    expect(&get("/certified/x"), at, 200, "");
    assert_eq!(stand.backend.take_one().values("x-service-id"), ["reports"]);
    // What the first one could do is not what this one can.
    expect(&get("/reports/x"), at, 403, "insufficient_scope");
    // To revoke the first again says nothing of the second.
    stand.service.told(&["apikey", "revoke", &first]);
    expect(&get("/certified/x"), at, 200, "");
    stand.service.told(&["apikey", "create", "cron"]);
    let listed = stand.service.told(&["apikey", "list"]);
    let row = |id: &str| listed.lines().find(|row| row.contains(id)).unwrap();
    assert!(listed.starts_with("SERVICE"), "{listed}");
    for word in ["client_certificate", name, "reports:read", "revoked"] {
        assert!(row(&first).contains(word), "{word}: {listed}");
    }
    for word in ["client_certificate", name, "live", "never"] {
        assert!(row(&second).contains(word), "{word}: {listed}");
    }
    assert!(
        row("cron").contains("api_key") && row("cron").contains("live"),
        "{listed}"
    );
    stand.service.told(&["apikey", "revoke", &second]);
    expect(&get("/certified/x"), at, 401, "certificate_unknown");
}

#[test]
fn a_service_is_limited_by_its_name_where_only_certificates_are_accepted() {
    let made = Certificates::make(MADE);
    let backend = Backend::start();
    let at = free_address();
    let service = certified(Setup::own(&backend), &made, at, false)
        .append(
            "  - { path: /limited/**, upstream: api, credentials: [client_certificate], rate_limit: few }\n\
             rate_limits: { few: { by: service, rate: 1/h, burst: 2 } }\n",
        )
        .start();
    let id = grant(&service, "billing", "dns:billing.internal", &[]);
    grant(&service, "cron", "uri:spiffe://example/cron", &[]);
    let (billing, cron) = (showing(&made, "billing", at), showing(&made, "cron", at));
    expect(&get("/limited/x"), billing, 200, "");
    // Another grant of the same service, another name of it, and still the same service.
    service.told(&["apikey", "revoke", &id]);
    grant(&service, "billing", "uri:spiffe://example/billing", &[]);
    expect(&get("/limited/x"), billing, 200, "");
    expect(&get("/limited/x"), billing, 429, "rate_limited");
    expect(&get("/limited/x"), cron, 200, "");
}

#[test]
fn every_gateway_takes_a_name_that_is_granted_anew() {
    let made = Certificates::make(MADE);
    let (backend, redis) = (Backend::start(), RedisServer::start());
    let setup = FleetSetup::on_sqlite(&backend);
    let auth = setup.auth(redis.address(), &[]);
    let gateway = || {
        let at = free_address();
        let service =
            setup.changed_gateway(redis.address(), &auth, |setup| certified(setup, &made, at, false));
        (service, showing(&made, "billing", at))
    };
    let mut gateways = vec![gateway(), gateway()];
    for _ in 0..3 {
        let id = grant(&auth, "billing", "dns:billing.internal", &[]);
        for (_, at) in &gateways {
            eventually("the grant has come", || {
                (get("/certified/x").send(*at).status == 200).then_some(())
            });
        }
        auth.told(&["apikey", "revoke", &id, "--wait"]);
        for (_, at) in &gateways {
            expect(&get("/certified/x"), *at, 401, "certificate_unknown");
        }
    }
    // Who was not there for any of it, and who is given all of it anew.
    grant(&auth, "billing", "dns:billing.internal", &[]);
    gateways.push(gateway());
    for (_, at) in &gateways {
        eventually("the last grant has come", || {
            (get("/certified/x").send(*at).status == 200).then_some(())
        });
    }
}

#[test]
fn two_grants_of_one_certificate_are_none() {
    let stand = Stand::start(false);
    stand.grant("billing", "dns:billing.internal", &[]);
    let other = stand.grant("reports", "uri:spiffe://example/billing", &[]);
    let at = stand.with("billing");
    expect(&get("/certified/x"), at, 401, "certificate_unknown");
    stand.service.told(&["apikey", "revoke", &other]);
    expect(&get("/certified/x"), at, 200, "");
}

#[test]
fn an_authority_that_is_no_longer_believed_lets_nobody_in() {
    let stand = Stand::start(false);
    stand.grant("billing", "dns:billing.internal", &[]);
    let at = stand.with("billing");
    expect(&get("/certified/x"), at, 200, "");
    stand
        .service
        .folder
        .write("clients.pem", stand.made.text("strangers.pem"));
    eventually("the other authority is believed", || {
        get("/public/x").send_if_answered(at).is_none().then_some(())
    });
    expect(&get("/certified/x"), stand.with("forged"), 200, "");
}

#[test]
fn names_that_are_none_are_not_granted() {
    let stand = Stand::start(false);
    for name in ["billing", "dns:*.internal", "cn:billing", "sha256:00", "dns:"] {
        let refused = stand
            .service
            .command(&["apikey", "create", "billing", "--certificate", name]);
        assert_ne!(refused.code, 0, "{name}: {refused:?}");
    }
}
