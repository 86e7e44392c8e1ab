//! Client certificates as a credential: proved in the handshake, granted like API keys, refused from
//! the moment at which that is taken back.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::{
    Ask, Backend, Certificates, Connection, Reply, Service, Setup, TlsClient, eventually, free_address, get,
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
        let tls = format!(
            "{{ address: \"{at}\", tls: {{ certificates: [{{ certificate: edge.pem, key: edge.key }}], \
             client_certificates: {{ ca: clients.pem, required: {required} }} }} }}"
        );
        let files = ["edge.pem", "edge.key", "clients.pem"];
        let setup = Setup::own(&backend)
            .replace("listen: \"@edge\"", &format!("listen: [\"@edge\", {tls}]"))
            .append(ROUTES.trim_start_matches('\n'));
        let service = files
            .iter()
            .fold(setup, |setup, name| setup.file(name, made.text(name)))
            .start();
        Self {
            made,
            backend,
            service,
            at,
        }
    }

    /// Where plain connections become ones of a client that shows this certificate.
    fn with(&self, name: &str) -> SocketAddr {
        let own = [format!("{name}.pem"), format!("{name}.key")].map(|file| self.made.text(&file));
        TlsClient::new(
            &self.made.text("ca.pem"),
            "edge.example",
            Some((&own[0], &own[1])),
        )
        .tunnel(self.at)
    }

    fn without(&self) -> SocketAddr {
        TlsClient::new(&self.made.text("ca.pem"), "edge.example", None).tunnel(self.at)
    }

    #[track_caller]
    fn grant(&self, service: &str, certificate: &str, more: &[&str]) -> String {
        let words = [
            &[
                "apikey",
                "create",
                service,
                "--certificate",
                certificate,
                "--json",
            ],
            more,
        ]
        .concat();
        let made: Value = serde_json::from_str(&self.service.told(&words)).unwrap();
        assert!(made["key"].is_null(), "{made}");
        made["id"].as_str().unwrap().to_owned()
    }
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
fn what_is_taken_back_is_refused_at_once_and_for_good() {
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
    let again = [
        "apikey",
        "create",
        "billing",
        "--certificate",
        "dns:billing.internal",
    ];
    let refused = stand.service.command(&again);
    assert_ne!(refused.code, 0, "{refused:?}");
    // Another name of the same certificate is another grant.
    let second = stand.grant("billing", "uri:spiffe://example/billing", &[]);
    expect(&get("/certified/x"), at, 200, "");
    stand.service.told(&["apikey", "revoke", &second]);
    expect(&get("/certified/x"), at, 401, "certificate_unknown");
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
