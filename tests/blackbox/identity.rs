//! The backend never sees an identity that was not proved.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::{
    Ask, Backend, FOREIGN, Key, Recorded, Reply, Service, Setup, claims, get, mint, shipped,
};

/// Names that some backend or other takes for X-User-Id.
const ALIASES: [&str; 9] = [
    "X-User-Id",
    "x-user-id",
    "X-USER-ID",
    "X_User_Id",
    "x_user_id",
    "X-User_Id",
    "x.user.id",
    "X~User~Id",
    "x!user|id",
];
const FORGED: &str = "mallory";

struct Stand {
    backend: Backend,
    service: Service,
    key: Key,
}

fn stand() -> Stand {
    let backend = Backend::answering(|request| match request.values("sec-websocket-key").first() {
        Some(key) => Reply::Open(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            )
            .into_bytes(),
        ),
        None => Reply::ok("upstream"),
    });
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    Stand {
        backend,
        service,
        key,
    }
}

impl Stand {
    fn token(&self, subject: &str) -> String {
        mint(&self.key, &claims(subject))
    }

    /// What the backend gets of a request that is let through.
    #[track_caller]
    fn forwarded(&self, ask: &Ask, status: u16) -> Recorded {
        self.service.connect().begin(ask).expect(status);
        self.backend.take_one()
    }
}

fn upgrade(path: &str) -> Ask {
    get(path)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// Asserts that the one identity is `expected`, and that nothing of the forged one came through.
#[track_caller]
fn assert_identity(request: &Recorded, expected: Option<&str>, told: &str) {
    println!("case {told}");
    let found: Vec<String> = request
        .aliases("X-User-Id")
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let expected: Vec<&str> = expected.into_iter().collect();
    assert_eq!(found, expected, "{told}: {request:?}");
    let text = String::from_utf8_lossy(&request.head).into_owned();
    assert!(!text.contains(FORGED), "{told}: {text}");
}

#[test]
fn a_clients_identity_headers_never_arrive() {
    let stand = stand();
    let token = stand.token("alice");
    for alias in ALIASES {
        let forged = |ask: Ask| ask.header(alias, FORGED);
        for (ask, status, expected) in [
            (forged(get("/public/x")), 200, None),
            (forged(get("/public/x").bearer(&token)), 200, None),
            (forged(get("/maybe/x")), 200, None),
            (forged(get("/maybe/x").bearer(&token)), 200, Some("alice")),
            (forged(get("/api/x").bearer(&token)), 200, Some("alice")),
            (forged(forged(get("/api/x").bearer(&token))), 200, Some("alice")),
            (forged(upgrade("/public/x")), 101, None),
            (forged(upgrade("/api/x").bearer(&token)), 101, Some("alice")),
        ] {
            assert_identity(&stand.forwarded(&ask, status), expected, alias);
        }
    }
}

/// As shipped, where no route accepts services, and with the header's own names.
#[test]
fn a_client_cannot_say_to_be_a_service_where_none_is_accepted() {
    let backend = Backend::answering(|_| Reply::ok("upstream"));
    let thumbnails = Backend::answering(|_| Reply::ok("thumbnail"));
    let whole = shipped();
    let (without_demo, _) = whole.split_once("\ndemo:").unwrap();
    let shipped = Setup::up(without_demo)
        .api(&backend)
        .set("images", backend.address())
        .set("thumbnails", thumbnails.address())
        .start();
    let own = Setup::own(&backend).start();
    for (service, public) in [(&shipped, None), (&own, Some("/public/x"))] {
        let alice = service.account("alice", &[]);
        backend.take();
        for alias in ["X-Service-Id", "x-service-id", "X_Service_Id", "x.service~id"] {
            let forged = |ask: Ask| ask.header(alias, FORGED);
            service.ask(&forged(alice.get("/api/x"))).expect(200);
            assert_identity(&backend.take_one(), Some(&alice.id), alias);
            if let Some(public) = public {
                service.ask(&forged(get(public))).expect(200);
                assert_identity(&backend.take_one(), None, alias);
            }
        }
    }
}

#[test]
fn all_spellings_at_once_leave_the_one_that_was_proved() {
    let stand = stand();
    let token = stand.token("alice");
    let forged = |ask: Ask| ALIASES.iter().fold(ask, |ask, alias| ask.header(alias, FORGED));
    assert_identity(
        &stand.forwarded(&forged(get("/api/x").bearer(&token)), 200),
        Some("alice"),
        "all",
    );
    assert_identity(&stand.forwarded(&forged(get("/public/x")), 200), None, "all");
}

#[test]
fn connection_cannot_name_the_identity_away() {
    let stand = stand();
    let token = stand.token("alice");
    for named in [
        "x-user-id",
        "X-User-Id",
        "close, X-User-Id",
        "x-user-id, keep-alive",
        "X-User-Id,X-User-Id",
    ] {
        let ask = get("/api/x").bearer(&token).header("Connection", named);
        let request = stand.forwarded(&ask, 200);
        assert_identity(&request, Some("alice"), named);
        assert!(
            request
                .values("connection")
                .iter()
                .all(|value| !value.to_lowercase().contains("x-user")),
            "{request:?}"
        );
        let forged = ask.header("X-User-Id", FORGED);
        assert_identity(&stand.forwarded(&forged, 200), Some("alice"), named);
        let two = get("/api/x")
            .bearer(&token)
            .header("Connection", "close")
            .header("Connection", named);
        assert_identity(&stand.forwarded(&two, 200), Some("alice"), named);
    }
    let socket = upgrade("/api/x").bearer(&token).header("Connection", "X-User-Id");
    let mut connection = stand.service.connect();
    connection.begin(&socket);
    for request in stand.backend.take() {
        assert_identity(&request, Some("alice"), "upgrade");
    }
}

#[test]
fn hop_by_hop_headers_end_at_the_gateway() {
    let stand = stand();
    let ask = get("/public/x")
        .header("Connection", "keep-alive, X-Hop")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "X-User-Id")
        .header("TE", "trailers")
        .header("Trailer", "X-User-Id")
        .header("Proxy-Authorization", "Basic dTpw")
        .header("X-Kept", "1");
    let request = stand.forwarded(&ask, 200);
    for gone in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "proxy-authorization",
    ] {
        assert!(request.values(gone).is_empty(), "{gone}: {request:?}");
    }
    assert_eq!(request.values("x-kept"), ["1"]);
}

#[test]
fn trailers_do_not_become_headers() {
    let stand = stand();
    let token = stand.token("alice");
    let ask = get("/api/x")
        .bearer(&token)
        .header("Transfer-Encoding", "chunked")
        .header("Trailer", "X-User-Id")
        .body("3\r\nabc\r\n0\r\nX-User-Id: mallory\r\n\r\n");
    let request = stand.forwarded(&ask, 200);
    assert_identity(&request, Some("alice"), "trailer");
}

#[test]
fn the_token_stays_at_the_gateway_unless_the_route_wants_it() {
    let stand = stand();
    let token = stand.token("alice");
    for path in ["/api/x", "/public/x", "/maybe/x"] {
        let request = stand.forwarded(&get(path).bearer(&token), 200);
        assert!(request.values("authorization").is_empty(), "{path}: {request:?}");
        assert!(!String::from_utf8_lossy(&request.head).contains(&token), "{path}");
    }
    let request = stand.forwarded(&get("/api/kept/x").bearer(&token), 200);
    assert_eq!(request.values("authorization"), [format!("Bearer {token}")]);
    assert_identity(&request, Some("alice"), "kept");
    // Another kind of credential, of no concern to a public route, is the gateway's to keep as well.
    let basic = get("/public/x").header("Authorization", "Basic dTpw");
    assert!(stand.forwarded(&basic, 200).values("authorization").is_empty());
}

#[test]
fn nobody_says_where_they_come_from() {
    let stand = stand();
    for name in [
        "X-Forwarded-For",
        "x-forwarded-for",
        "X_Forwarded_For",
        "X.Forwarded.For",
        "X-Real-IP",
        "Forwarded",
        "Client-IP",
        "client_ip",
        "Fastly-Client-IP",
        "WL-Proxy-Client-IP",
        "X-ProxyUser-Ip",
        "X-Host",
        "X-HTTP-Host-Override",
        "X-Envoy-External-Address",
        "X-Auth-Request-User",
        "X-SSL-Client-Verify",
        "X-Client-Cert",
        "SSL-Client-Subject-DN",
        "ssl_client_verify",
        "Remote-Groups",
        "X_Remote_Group",
        "X-Remote-Extra-Scopes",
        "X-WEBAUTH-USER",
        "X-Forwarded-Access-Token",
        "X-Durward-Reason",
        "Proxy",
    ] {
        let ask = get("/public/x")
            .header(name, "203.0.113.66")
            .header(name, "203.0.113.67");
        let request = stand.forwarded(&ask, 200);
        let found: Vec<String> = request
            .aliases("x-forwarded-for")
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert_eq!(found, ["127.0.0.1"], "{name}");
        assert!(
            !String::from_utf8_lossy(&request.head).contains("203.0.113."),
            "{name}: {request:?}"
        );
    }
    let ask = get("/public/x")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Forwarded-Proto", "https");
    let request = stand.forwarded(&ask, 200);
    assert_eq!(request.values("x-forwarded-proto"), ["http"]);
    assert!(
        !String::from_utf8_lossy(&request.head).contains("evil.test"),
        "{request:?}"
    );
}

#[test]
fn only_a_proxy_says_what_proxies_say() {
    let stand = stand();
    for name in [
        "CF-Connecting-IP",
        "True-Client-IP",
        "X-Client-IP",
        "X-Original-URL",
        "x_original_uri",
        "X-Rewrite-URL",
        "X.Rewrite.Url",
        "X-Accel-Redirect",
        "X-Authenticated-Scope",
        "X-Authenticated-User",
        "Remote-User",
        "X-HTTP-Method-Override",
    ] {
        let request = stand.forwarded(&get("/public/x").header(name, FORGED), 200);
        assert!(
            !String::from_utf8_lossy(&request.head).contains(FORGED),
            "{name}: {request:?}"
        );
    }
    // What no proxy says is the client's to say.
    let request = stand.forwarded(&get("/public/x").header("X-Originality", "mine"), 200);
    assert_eq!(request.values("x-originality"), ["mine"]);
}

#[test]
fn a_backends_own_key_is_set_by_the_gateway_alone() {
    const SECRET: &str = "the backend's own key";
    let backend = Backend::start();
    let key = Key::es256("k1");
    let fixed = r#"api: { servers: ["@api"], headers: { X-Api-Key: { file: api-key } } }"#;
    let service = Setup::gateway(FOREIGN)
        .replace(r#"api: { servers: ["@api"] }"#, fixed)
        .api(&backend)
        .file("jwks.json", Key::set(&[&key]))
        .file("api-key", format!("{SECRET}\n"))
        .start();
    for name in ["X-Api-Key", "x-api-key", "X_Api_Key", "x.api.key"] {
        for path in ["/public/x", "/maybe/x"] {
            if path == "/maybe/x" && name.eq_ignore_ascii_case("x-api-key") {
                // There it is a credential, and of a kind that the route does not accept.
                service
                    .ask(&get(path).header(name, "guessed"))
                    .expect_refusal(403, "credential_not_accepted");
                continue;
            }
            service
                .ask(&get(path).header(name, "guessed").header(name, "again"))
                .expect(200);
            let found: Vec<String> = backend
                .take_one()
                .aliases("x-api-key")
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            assert_eq!(found, [SECRET], "{name}");
        }
    }
    let named_away = get("/public/x").header("Connection", "X-Api-Key");
    service.ask(&named_away).expect(200);
    assert_eq!(backend.take_one().values("x-api-key"), [SECRET]);
}

#[test]
fn identity_is_of_the_request_and_never_of_the_connection() {
    let stand = stand();
    let [alice, bob] = ["alice", "bob"].map(|user| stand.token(user));
    let mut forged = stand.token("carol");
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let mut connection = stand.service.connect();
    for _ in 0..20 {
        for (ask, status, expected) in [
            (get("/api/x").bearer(&alice), 200, Some("alice")),
            (get("/maybe/x"), 200, None),
            (get("/api/x").bearer(&bob), 200, Some("bob")),
            (get("/api/x").bearer(&forged), 401, None),
            (get("/public/x"), 200, None),
            (get("/api/x"), 401, None),
            (get("/maybe/x").bearer(&forged), 401, None),
            (get("/maybe/x").bearer(&alice), 200, Some("alice")),
        ] {
            connection.ask(&ask).expect(status);
            let requests = stand.backend.take();
            assert_eq!(requests.len(), usize::from(status == 200), "{ask:?}");
            requests
                .iter()
                .for_each(|request| assert_identity(request, expected, "interleaved"));
        }
    }
}

#[test]
fn what_cannot_be_said_in_a_header_is_refused() {
    let stand = stand();
    for subject in ["alice,root", "alice\nX-Role: admin", "al\u{ed}ce", "alice\u{7f}"] {
        let answer = stand.service.ask(&get("/api/x").bearer(&stand.token(subject)));
        assert!(
            matches!(answer.status, 401 | 403),
            "{subject:?}: {}",
            answer.text()
        );
        assert!(stand.backend.take().is_empty(), "{subject:?}");
    }
}

#[test]
fn a_request_that_is_given_up_answers_nobody_else() {
    let backend = Backend::answering(|request| Reply::ok([&request.target()[..], &[b'.'; 20_000]].concat()));
    let service = Setup::foreign(&backend, &[&Key::es256("k1")]).start();
    let mut kept = service.connect();
    for n in 0..100 {
        let mut given_up = service.connect();
        given_up.send(format!("GET /public/given-up-{n} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        if n % 2 == 0 {
            given_up.read_until(b"given-up");
        }
        drop(given_up);
        let path = format!("/public/kept-{n}");
        let answer = kept.ask(&get(&path)).expect(200);
        assert!(
            answer.text().starts_with(&format!("{path}.")),
            "{n}: {}",
            &answer.text()[..40]
        );
    }
}
