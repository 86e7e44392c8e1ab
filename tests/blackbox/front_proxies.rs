//! The proxies that people already run, real ones, with the files of `deploy/` as they are but for
//! their addresses: what reaches the backend, and what the client is told.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{
    Account, Answer, Ask, Backend, Connection, Reply, Service, Setup, Socket, TestFolder, ask, eventually,
    free_address, get, post, put,
};

/// A proxy in front of the backend, and Durward beside it.
struct Stand {
    front: Front,
    service: Service,
    backend: Backend,
    alice: Account,
}

/// The addresses in the files of `deploy/`.
struct Places {
    front: SocketAddr,
    door: SocketAddr,
    backend: SocketAddr,
}

/// A proxy as a process, ended with its test.
struct Front {
    child: Child,
    folder: TestFolder,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Nginx,
    Traefik,
    Caddy,
    Envoy,
    Haproxy,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Nginx,
        Self::Traefik,
        Self::Caddy,
        Self::Envoy,
        Self::Haproxy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether the client gets the problem body and every status; nginx passes on neither.
    fn passes_bodies(self) -> bool {
        self != Self::Nginx
    }

    /// Whether the client is told of its rate limits by answers that pass, too; these two pass on to
    /// the client what is refused, and nothing else.
    fn tells_limits_of_what_passes(self) -> bool {
        !matches!(self, Self::Traefik | Self::Caddy)
    }

    fn command(self, folder: &TestFolder, places: &Places) -> Command {
        let shipped = |name: &str| places.put(&deployed(&format!("{}/{name}", self.name())));
        let write = |name: &str, text: String| folder.write(name, text).to_str().unwrap().to_owned();
        match self {
            Self::Nginx => {
                let site = write("durward.conf", shipped("durward.conf"));
                let main = write("nginx.conf", nginx_main(folder, &site));
                let mut command = Command::new(installed("nginx"));
                command.args(["-p", folder.to_str().unwrap(), "-c", &main]);
                command
            }
            Self::Traefik => {
                let routes = write("durward.yaml", shipped("durward.yaml"));
                let main = shipped("traefik.yaml").replace("/etc/traefik/durward.yaml", &routes);
                let mut command = Command::new(fetched("bin/traefik"));
                command.arg(format!("--configFile={}", write("traefik.yaml", main)));
                command
            }
            Self::Caddy => {
                let file = write("Caddyfile", shipped("Caddyfile"));
                let mut command = Command::new(fetched("bin/caddy"));
                command.args(["run", "--adapter", "caddyfile", "--config", &file]);
                command
                    .env("XDG_DATA_HOME", &**folder)
                    .env("XDG_CONFIG_HOME", &**folder);
                command
            }
            Self::Envoy => {
                let file = write("envoy.yaml", shipped("envoy.yaml"));
                let mut command = Command::new(fetched("bin/envoy"));
                command.args(["--disable-hot-restart", "--concurrency", "1", "-c", &file]);
                command
            }
            Self::Haproxy => {
                let script = write("durward.lua", shipped("durward.lua"));
                let main = shipped("haproxy.cfg").replace("/etc/haproxy/durward.lua", &script);
                let mut command = Command::new(installed("haproxy"));
                command.args(["-db", "-f", &write("haproxy.cfg", main)]);
                command
            }
        }
    }
}

impl Places {
    /// Puts the test's addresses in the place of the shipped ones.
    fn put(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (port, address) in [(8000, self.front), (9180, self.door), (8101, self.backend)] {
            text = text
                .replace(&format!("127.0.0.1:{port}"), &address.to_string())
                .replace(&format!("http://:{port}"), &format!("http://:{}", address.port()))
                .replace(
                    &format!("port_value: {port} "),
                    &format!("port_value: {} ", address.port()),
                );
        }
        text
    }
}

fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn nginx_main(folder: &TestFolder, site: &str) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{temporary}include {site};\n}}\n"
    )
}

/// A program of Debian's.
fn installed(name: &str) -> PathBuf {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no {name}; `make test-tools` installs it"))
}

/// A program of PyPI's.
fn fetched(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/test-tools")
        .join(name);
    assert!(
        path.exists(),
        "there is no {}; `make test-tools` installs it",
        path.display()
    );
    path
}

impl Front {
    fn start(kind: Kind, places: &Places) -> Self {
        let folder = TestFolder::new();
        let log = fs::File::create(folder.join("front.log")).unwrap();
        let mut command = kind.command(&folder, places);
        let spawned = command
            .current_dir(&*folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut front = Self {
            child,
            folder,
            address: places.front,
        };
        eventually("the proxy in front listens", || {
            let ended = front.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", front.log());
            TcpStream::connect(front.address).ok()
        });
        front
    }

    fn log(&self) -> String {
        self.folder.text("front.log")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the proxy in front said\n{}", self.log());
        }
    }
}

impl Stand {
    fn start(kind: Kind) -> Self {
        let services = "  - { path: /services/**, upstream: api, credentials: [api_key] }\n";
        Self::with_routes(kind, services)
    }

    /// With these routes beside those of [`OWN`](crate::harness::OWN).
    fn with_routes(kind: Kind, routes: &str) -> Self {
        let backend = Backend::answering(|request| {
            if request.values("upgrade").is_empty() {
                Reply::ok("upstream")
            } else {
                Reply::Echo(accepting(request))
            }
        });
        let places = Places {
            front: free_address(),
            door: free_address(),
            backend: backend.address(),
        };
        let section = format!(
            "forward_auth: {{ listen: \"{}\", trusted: [127.0.0.1], proxies: [{}] }}\n",
            places.door,
            kind.name()
        );
        let service = Setup::own(&backend)
            .append(routes)
            .append(
                "  - { path: /limited/**, upstream: api, access: public, rate_limit: few }\n\
                 rate_limits: { few: { by: address, rate: 1/h, burst: 2 } }\n",
            )
            .append(&section)
            .start();
        let alice = service.account("alice", &["reader"]);
        let front = Front::start(kind, &places);
        // It may listen before it has read where to.
        eventually("the proxy in front is ready", || {
            let answer = get("/public/ready").send_if_answered(front.address)?;
            (answer.status == 200).then_some(())
        });
        backend.take();
        Self {
            front,
            service,
            backend,
            alice,
        }
    }

    #[track_caller]
    fn ask(&self, ask: &Ask) -> Answer {
        ask.send(self.front.address)
    }
}

/// Switches to whatever is asked for, as a backend does that speaks it.
fn accepting(request: &crate::harness::Recorded) -> Vec<u8> {
    let key = request
        .values("sec-websocket-key")
        .first()
        .cloned()
        .unwrap_or_default();
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let protocol = request.values("upgrade").join(", ");
    let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n");
    format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes()
}

/// What each of them must do.
fn guards_the_backend(kind: Kind) {
    let stand = Stand::start(kind);
    let Stand {
        service,
        backend,
        alice,
        ..
    } = &stand;

    // What is allowed reaches the backend, with who asks and without the credential.
    let asked = alice
        .with(post("/api/notes?x=1%2F2"))
        .header("X-Kept", "yes")
        .body("a note");
    stand.ask(&asked).expect(200);
    let request = backend.take_one();
    assert_eq!(request.line(), "POST /api/notes?x=1%2F2 HTTP/1.1");
    assert_eq!(request.values("x-user-id"), [alice.id.as_str()]);
    assert_eq!(request.values("x-user-roles"), ["reader"]);
    assert_eq!(request.values("x-kept"), ["yes"]);
    assert_eq!(request.values("authorization"), [""; 0]);
    assert!(
        request.body.windows(6).any(|piece| piece == b"a note"),
        "{request:?}"
    );

    // What a client says of itself never does.
    for forged in ["X-User-Id", "x-user-id", "X-User-Roles", "X-Service-Id"] {
        for ask in [get("/public/x"), get("/maybe/x"), alice.get("/api/x")] {
            stand.ask(&ask.header(forged, "forged")).expect(200);
            assert_nothing_forged(backend, forged);
        }
    }
    for forged in ["x_user_id", "X.User.Id", "x-user_id", "X_Service-Id"] {
        for ask in [get("/public/x"), alice.get("/api/x")] {
            let answer = stand.ask(&ask.header(forged, "forged"));
            assert!(matches!(answer.status, 200 | 400), "{forged}: {answer:?}");
            assert_nothing_forged(backend, forged);
        }
    }
    identity_cannot_be_named_away(&stand);
    nothing_but_websockets_is_upgraded_to(&stand);
    other_proxies_headers_say_nothing(&stand);

    // Refusals have their status, their challenge and their reason.
    let refused = stand.ask(&get("/api/x")).expect(401);
    assert_eq!(refused.header("x-durward-reason"), "no_credential");
    assert!(
        refused.header("www-authenticate").contains("Bearer"),
        "{refused:?}"
    );
    let forbidden = stand.ask(&alice.get("/api/admin/x")).expect(403);
    assert_eq!(forbidden.header("x-durward-reason"), "rule_refused");
    stand.ask(&alice.get("/nowhere")).expect(404);
    stand.ask(&get("/api/x").bearer("a.b.c")).expect(401);
    if kind.passes_bodies() {
        assert_eq!(forbidden.reason(), "rule_refused", "{forbidden:?}");
        assert_eq!(forbidden.header("content-type"), "application/problem+json");
    }
    assert!(backend.take().is_empty(), "a refused request reached the backend");

    hostile_paths_do_not_pass(&stand);
    keys_of_services_work(&stand);
    websockets_pass(&stand);
    limits_are_told(&stand, kind);

    // A ban is the next refused request, on a connection that is open too.
    let root = service.account("root", &["admin"]);
    let mut warm = Connection::open(stand.front.address);
    warm.ask(&alice.get("/api/x")).expect(200);
    let ban = put(format!("/auth/admin/users/{}/ban", alice.id)).json(&json!({ "reason": "spam" }));
    service.ask(&root.with(ban)).expect(200);
    backend.take();
    let banned = warm.ask(&alice.get("/api/x")).expect(401);
    assert_eq!(banned.header("x-durward-reason"), "revoked");
    assert!(
        banned.header("www-authenticate").contains("invalid_token"),
        "{banned:?}"
    );
    assert!(backend.take().is_empty());

    // Without an answer nothing passes, not even what is public.
    service.process.signal("KILL");
    eventually("nobody answers", || {
        TcpStream::connect(service.edge).is_err().then_some(())
    });
    let answer = stand.ask(&get("/public/x"));
    assert!(matches!(answer.status, 500..=503), "{answer:?}");
    assert!(backend.take().is_empty());
}

#[track_caller]
fn assert_nothing_forged(backend: &Backend, about: &str) {
    for request in backend.take() {
        let head = String::from_utf8_lossy(&request.head).into_owned();
        assert!(!head.contains("forged"), "{about}: {head}");
    }
}

/// `Connection` names what is for the next hop alone: not what the gateway says.
fn identity_cannot_be_named_away(stand: &Stand) {
    let ask = stand
        .alice
        .get("/api/x")
        .header("Connection", "keep-alive, X-User-Id, X-User-Roles");
    let answer = stand.ask(&ask);
    for request in stand.backend.take() {
        assert_eq!(
            request.values("x-user-id"),
            [stand.alice.id.as_str()],
            "answered {}: {request:?}",
            answer.status
        );
        // A backend may have a hop of its own.
        let named = request.values("connection").join(",").to_lowercase();
        assert!(!named.contains("x-user"), "{request:?}");
    }
}

/// After an upgrade to what carries requests, nobody would be asked about those.
fn nothing_but_websockets_is_upgraded_to(stand: &Stand) {
    for protocols in [
        &["h2c"][..],
        &["H2C"],
        &["websocket, h2c"],
        &["h2c, websocket"],
        &["websocket", "h2c"],
        &["h2c", "websocket"],
        &["HTTP/2.0"],
        &["TLS/1.0"],
    ] {
        for ask in [get("/public/x"), stand.alice.get("/api/x")] {
            let ask = ask
                .header("Connection", "Upgrade, HTTP2-Settings")
                .header("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA");
            let ask = protocols
                .iter()
                .fold(ask, |ask, protocol| ask.header("Upgrade", *protocol));
            let status = Connection::open(stand.front.address).begin(&ask).status;
            for request in stand.backend.take() {
                let asked = request.values("upgrade");
                assert!(
                    asked.is_empty() || asked == ["websocket"],
                    "{protocols:?} was answered {status}: {request:?}"
                );
            }
        }
    }
}

/// A client may add what another proxy would be believed.
fn other_proxies_headers_say_nothing(stand: &Stand) {
    for (name, value) in [
        ("X-Original-URI", "/public/x"),
        ("X-Original-Method", "OPTIONS"),
        ("X-Forwarded-Uri", "/public/x"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-Forwarded-Prefix", "/public"),
        ("X-Envoy-Original-Path", "/public/x"),
    ] {
        let answer = stand.ask(&stand.alice.get("/api/admin/x").header(name, value));
        assert!(matches!(answer.status, 400 | 403), "{name}: {answer:?}");
        assert!(stand.backend.take().is_empty(), "{name}");
    }
}

/// However a path is written, what a backend could take for an admin's stays the admins'.
fn hostile_paths_do_not_pass(stand: &Stand) {
    for target in [
        "/public/../api/admin/x",
        "/public/%2e%2e/api/admin/x",
        "/public/..%2fapi/admin/x",
        "/public/%252e%252e/api/admin/x",
        "/public/..;/api/admin/x",
        "/public/..\\api\\admin\\x",
        "/public//../api/admin/x",
        "//api/admin/x",
        "/./api/admin/x",
        "/api//admin/x",
        "/api/%61dmin/x",
        "/api/./admin/x",
        "/api/x/../admin/x",
        "/API/ADMIN/x",
        "/api/admin%00/x",
        "/api/admin;a=b/x",
        "http://other.test/api/admin/x",
    ] {
        for ask in [get(target), stand.alice.get(target)] {
            let answer = ask.send_if_answered(stand.front.address);
            let status = answer.as_ref().map(|answer| answer.status);
            for request in stand.backend.take() {
                let target = String::from_utf8_lossy(&request.target()).to_lowercase();
                assert!(
                    !target.contains("admin") && !target.contains("%61dmin"),
                    "{target} was answered {status:?}: {request:?}"
                );
            }
        }
    }
    // A method that is asked for in another way than by the method.
    let override_ = stand
        .alice
        .with(post("/api/x"))
        .header("X-HTTP-Method-Override", "DELETE");
    let answer = stand.ask(&override_);
    assert_eq!(
        (answer.status, stand.backend.take().len()),
        (400, 0),
        "{answer:?}"
    );
    // Odd paths within what was judged pass, byte for byte where the proxy keeps them.
    stand.ask(&stand.alice.get("/api/a%20b?c=%zz")).expect(200);
    let target = stand.backend.take_one().target();
    assert_eq!(String::from_utf8_lossy(&target), "/api/a%20b?c=%zz");
    stand.ask(&stand.alice.with(ask("HEAD", "/api/x"))).expect(200);
    stand.ask(&ask("HEAD", "/api/x")).expect(401);
    stand.backend.take();
}

fn keys_of_services_work(stand: &Stand) {
    let told = stand.service.told(&["apikey", "create", "billing", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&told).unwrap();
    let ask = get("/services/x")
        .header("X-Api-Key", made["key"].as_str().unwrap())
        .header("X-User-Id", "forged");
    stand.ask(&ask).expect(200);
    let request = stand.backend.take_one();
    assert_eq!(request.values("x-service-id"), ["billing"]);
    assert!(
        request.values("x-user-id").iter().all(String::is_empty),
        "{request:?}"
    );
    assert_eq!(request.values("x-api-key"), [""; 0]);
}

/// A request too many is 429 in front of each proxy, with when to try again.
fn limits_are_told(stand: &Stand, kind: Kind) {
    for left in ["1", "0"] {
        let answer = stand.ask(&get("/limited/x")).expect(200);
        if kind.tells_limits_of_what_passes() {
            let standing = answer.header("ratelimit");
            assert!(standing.starts_with(&format!("\"few\";r={left};")), "{answer:?}");
        }
    }
    assert_eq!(stand.backend.take().len(), 2);
    // A client cannot say to be another one.
    let refused = stand
        .ask(&get("/limited/x").header("X-Forwarded-For", "192.0.2.1"))
        .expect(429);
    assert_eq!(refused.header("x-durward-reason"), "rate_limited");
    let retry_after: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3600).contains(&retry_after), "{retry_after}");
    assert_eq!(refused.header("ratelimit-policy"), "\"few\";q=2;w=7200");
    assert!(
        refused.header("ratelimit").starts_with("\"few\";r=0;"),
        "{refused:?}"
    );
    if kind.passes_bodies() {
        assert_eq!(refused.reason(), "rate_limited");
    }
    assert!(stand.backend.take().is_empty());
}

fn websockets_pass(stand: &Stand) {
    let bearer = format!("Bearer {}", stand.alice.tokens.access);
    let headers = [("Authorization", bearer.as_str()), ("X-User-Id", "forged")];
    let socket = Socket::open_at(stand.front.address, "/api/chat", &headers);
    assert!(socket.is_ok(), "{socket:?}");
    let request = stand.backend.take_one();
    assert_eq!(request.values("x-user-id"), [stand.alice.id.as_str()]);
    let refused = Socket::open_at(stand.front.address, "/api/chat", &[]);
    assert_eq!(refused.err(), Some(401));
    assert!(stand.backend.take().is_empty());
}

/// The files name the header of services, which is there where no route accepts them too.
#[test]
fn each_asks_where_no_route_accepts_services() {
    for kind in Kind::ALL {
        println!("case {}", kind.name());
        let stand = Stand::with_routes(kind, "");
        for ask in [get("/public/x"), stand.alice.get("/api/x")] {
            stand.ask(&ask.header("X-Service-Id", "forged")).expect(200);
            let said = stand.backend.take_one().aliases("X-Service-Id");
            assert!(said.iter().all(|(_, value)| value.is_empty()), "{said:?}");
        }
    }
}

#[test]
fn nginx_asks() {
    guards_the_backend(Kind::Nginx);
}

#[test]
fn traefik_asks() {
    guards_the_backend(Kind::Traefik);
}

#[test]
fn caddy_asks() {
    guards_the_backend(Kind::Caddy);
}

#[test]
fn envoy_asks() {
    guards_the_backend(Kind::Envoy);
}

#[test]
fn haproxy_asks() {
    guards_the_backend(Kind::Haproxy);
}
