//! What servers that nobody here wrote take for the path and the user of a request, against what the
//! gateway judged: nginx, Python's WSGI server and Node, which read them in three ways.

use std::process::Command;

use crate::harness::{Key, Service, Setup, claims, get, mint};
use crate::real_backends::Server;

/// Each route has an upstream of its own, which says to the server which route it was.
const CONFIGURATION: &str = r#"
listen: "@edge"
admin: "@admin"
control: control.sock
access_log: off
issuers:
  - issuer: https://login.example.test
    jwks: jwks.json
    audience: gateway
    algorithms: [ES256]
revocations: none
identity_headers: { X-User-Id: sub }
upstreams:
  public: { servers: ["@api"], headers: { X-Route: { file: public } } }
  api: { servers: ["@api"], headers: { X-Route: { file: api } } }
  admin: { servers: ["@api"], headers: { X-Route: { file: admin } } }
  users: { servers: ["@api"], headers: { X-Route: { file: users } } }
routes:
  - { path: /public/**, upstream: public, access: public }
  - { path: /api/**, upstream: api }
  - { path: /admin/**, upstream: admin }
  - { path: "/users/{id}/**", upstream: users, require: { sub: "{id}" } }
"#;

const NGINX: &str = r#"
daemon off;
master_process off;
worker_processes 1;
pid @folder/nginx.pid;
error_log @folder/error.log;
events { worker_connections 64; }
http {
    access_log off;
    underscores_in_headers on;
    client_body_temp_path @folder/body;
    proxy_temp_path @folder/proxy;
    fastcgi_temp_path @folder/fastcgi;
    uwsgi_temp_path @folder/uwsgi;
    scgi_temp_path @folder/scgi;
    server {
        listen @listen;
        location / {
            default_type text/plain;
            return 200 "route=$http_x_route\nuser=$http_x_user_id\npath=$uri\nsent=$request_uri\n";
        }
    }
}
"#;

const WSGI: &str = r#"
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    def get_environ(self):
        return super().get_environ() | {"SENT": self.raw_requestline.decode("latin-1").split(" ")[1]}
    def log_message(self, *arguments):
        pass

def application(environ, start_response):
    names = [("route", "HTTP_X_ROUTE"), ("user", "HTTP_X_USER_ID"), ("path", "PATH_INFO"), ("sent", "SENT")]
    body = "".join(f"{name}={environ.get(key, '')}\n" for name, key in names).encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Handler).serve_forever()
"#;

const NODE: &str = r#"
const folded = name => name.toLowerCase().replace(/[^a-z0-9]/g, "-");
require("http").createServer((request, response) => {
    const users = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
        if (folded(request.rawHeaders[at]) === "x-user-id") users.push(request.rawHeaders[at + 1]);
    }
    const path = new URL(request.url, "http://gw.test").pathname;
    response.end(`route=${request.headers["x-route"]}\nuser=${users.join()}\npath=${path}\nsent=${request.url}\n`);
}).listen(Number(process.argv[2]), "127.0.0.1");
"#;

struct Stand {
    service: Service,
    token: String,
    _server: Server,
}

fn before(server: Server) -> Stand {
    let key = Key::es256("k1");
    let routes = ["public", "api", "admin", "users"];
    let setup = Setup::gateway(CONFIGURATION)
        .set("api", server.address)
        .file("jwks.json", Key::set(&[&key]));
    let setup = routes
        .into_iter()
        .fold(setup, |setup, route| setup.file(route, route));
    Stand {
        service: setup.start(),
        token: mint(&key, &claims("alice")),
        _server: server,
    }
}

fn nginx() -> Stand {
    before(Server::nginx_with(NGINX))
}

fn wsgi() -> Stand {
    before(script("python3", "server.py", WSGI))
}

fn node() -> Stand {
    before(script("node", "server.js", NODE))
}

fn script(program: &str, name: &str, text: &str) -> Server {
    Server::start(|folder, address| {
        let mut command = Command::new(program);
        command
            .arg(folder.write(name, text))
            .arg(address.port().to_string());
        command
    })
}

/// What a server says of a request that it got.
struct Read {
    route: String,
    user: String,
    path: String,
    sent: String,
}

impl Stand {
    /// What the server read, or nothing where the gateway, or the server, refused.
    fn read(&self, target: &str, headers: &[(&str, &str)]) -> Option<Read> {
        let ask = get(target).bearer(&self.token);
        let ask = headers
            .iter()
            .fold(ask, |ask, (name, value)| ask.header(name, *value));
        let answer = self.service.ask(&ask);
        assert!(
            matches!(answer.status, 200 | 400 | 403 | 404),
            "{target}: {}",
            answer.status
        );
        let text = answer.text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        (answer.status == 200).then(|| Read {
            route: value("route="),
            user: value("user="),
            path: value("path="),
            sent: value("sent="),
        })
    }
}

/// Words of the routes, and what is special about paths.
const PIECES: [&str; 40] = [
    "/", "/", "/", "/", "/", "public", "public", "api", "api", "admin", "users", "users", "alice", "alice",
    "bob", "Admin", "..", "..", ".", "%2e", "%2E%2e", "%2f", "%2F", "%5c", "\\", "%252f", "%252e", "%3b",
    ";", ";a=b", "%3f", "%23", "%61", "%2561", "%41", "x", "?", "&", "%c3%a9", "~",
];
const TARGETS: u64 = 600;

/// Targets that are the same in each run (SplitMix64).
fn targets() -> impl Iterator<Item = String> {
    let starts = ["/", "/public/", "/api/", "/users/alice/", "/public/x"];
    (0..TARGETS).map(move |number| {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed >> 33) as usize % below
        };
        let start = starts[next(starts.len())];
        let pieces: String = (0..next(8)).map(|_| PIECES[next(PIECES.len())]).collect();
        format!("{start}{pieces}")
    })
}

/// The route that a path belongs to, by hand.
fn belongs_to(path: &str) -> &'static str {
    let under = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}/"));
    match path {
        _ if under("/public") => "public",
        _ if under("/api") => "api",
        _ if under("/admin") => "admin",
        _ if under("/users/alice") => "users",
        _ => "none, or somebody else's",
    }
}

fn reads_paths_as_they_were_judged(stand: &Stand) {
    let mut let_in = 0;
    for target in targets() {
        println!("case {target}");
        let Some(read) = stand.read(&target, &[]) else {
            continue;
        };
        let_in += 1;
        assert_eq!(read.sent, target, "what is judged is what is forwarded");
        assert_eq!(
            belongs_to(&read.path),
            read.route,
            "{target} read as {}",
            read.path
        );
        let user = if read.route == "public" { "" } else { "alice" };
        assert_eq!(read.user, user, "{target}");
    }
    assert!(let_in > 50, "{let_in} of {TARGETS} were let in: too few to tell");
}

fn reads_the_user_that_was_proved(stand: &Stand) {
    for alias in [
        "X-User-Id",
        "x-user-id",
        "X_User_Id",
        "x_user_id",
        "X-User_Id",
        "x.user.id",
        "X~User~Id",
        "x!user|id",
        "X*User*Id",
        "HTTP_X_USER_ID",
        "HTTP-X-User-Id",
    ] {
        println!("case {alias}");
        for headers in [
            &[(alias, "mallory")][..],
            &[(alias, "mallory"), (alias, "root")],
            &[("Connection", "x-user-id"), (alias, "mallory")],
            &[
                ("Connection", alias),
                ("Connection", "X-Route"),
                (alias, "mallory"),
            ],
            &[("X-Route", "admin"), ("x_route", "admin"), (alias, "mallory")],
        ] {
            for (target, route, user) in [("/api/x", "api", "alice"), ("/public/x", "public", "")] {
                let read = stand.read(target, headers).expect("it is let in");
                assert_eq!((&*read.route, &*read.user), (route, user), "{target} {headers:?}");
            }
        }
    }
}

#[test]
fn nginx_reads_paths_as_they_were_judged() {
    reads_paths_as_they_were_judged(&nginx());
}

#[test]
fn wsgi_reads_paths_as_they_were_judged() {
    reads_paths_as_they_were_judged(&wsgi());
}

#[test]
fn node_reads_paths_as_they_were_judged() {
    reads_paths_as_they_were_judged(&node());
}

#[test]
fn nginx_reads_the_user_that_was_proved() {
    reads_the_user_that_was_proved(&nginx());
}

#[test]
fn wsgi_reads_the_user_that_was_proved() {
    reads_the_user_that_was_proved(&wsgi());
}

#[test]
fn node_reads_the_user_that_was_proved() {
    reads_the_user_that_was_proved(&node());
}
