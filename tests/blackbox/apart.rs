//! Auth service and gateway in processes of their own, which know of each other by HTTP alone.

use crate::harness::{Backend, FOREIGN, OWN, PASSWORD, Service, Setup, free_address, get, login, refresh};

/// The issuer that an auth service writes into its tokens.
fn issuer_of(auth: &Service) -> String {
    format!("http://{}", auth.edge)
}

#[test]
fn a_gateway_elsewhere_takes_the_auth_services_tokens() {
    let backend = Backend::start();
    let auth = Setup::auth(OWN)
        .set("api", free_address())
        .listening(|service| service.auth);
    let keys = format!("http://{}/.well-known/jwks.json", auth.auth);
    let edge = Setup::gateway(FOREIGN)
        .replace("https://login.example.test", &issuer_of(&auth))
        .replace("jwks: jwks.json", &format!("jwks: {keys}"))
        .replace("audience: gateway", "audience: example")
        .api(&backend)
        .start();

    let added = auth.command_with_input(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    assert_eq!(added.code, 0, "{added:?}");
    let tokens = login("alice", PASSWORD).send(auth.auth).expect(200).json();
    let access = tokens["access_token"].as_str().unwrap();
    edge.ask(&get("/api/x").bearer(access)).expect(200);
    let user = backend.take_one().values("x-user-id").remove(0);
    assert!(user.starts_with("u_"), "{user}");

    // The auth service guards itself at once; a gateway without its news goes by the token's time.
    auth.told(&["ban", "alice"]);
    get("/auth/me")
        .bearer(access)
        .send(auth.auth)
        .expect_refusal(401, "revoked");
    let successor = refresh(tokens["refresh_token"].as_str().unwrap()).send(auth.auth);
    successor.expect_refusal(400, "user_banned");
    edge.ask(&get("/api/x").bearer(access)).expect(200);
    // The auth service alone listens nowhere else.
    for address in [auth.edge, auth.admin] {
        assert!(std::net::TcpStream::connect(address).is_err(), "{address}");
    }
    edge.stop();
    auth.stop();
}

#[test]
fn nobody_but_the_proxy_says_where_a_client_is() {
    let auth = Setup::auth(OWN)
        .set("api", free_address())
        .replace("trusted_proxies: [127.0.0.1]", "trusted_proxies: [192.0.2.0/24]")
        .listening(|service| service.auth);
    let added = auth.command_with_input(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    assert_eq!(added.code, 0, "{added:?}");
    let claimed = login("alice", PASSWORD).header("X-Forwarded-For", "203.0.113.9");
    claimed.send(auth.auth).expect(200);
    let sessions = auth.told(&["sessions", "alice"]);
    assert!(
        sessions.contains("127.0.0.1") && !sessions.contains("203.0.113.9"),
        "{sessions}"
    );
}
