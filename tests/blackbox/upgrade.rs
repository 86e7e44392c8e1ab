//! Going on in another process, with the same sockets.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use crate::harness::{
    Ask, Backend, Connection, Key, OWN, PASSWORD, Reply, Service, Setup, claims, eventually, get, login, mint,
};
use crate::streams::open_ended;

pub const NO_WATCH: &str = "reload: { watch: false }\nshutdown_grace: 60s\n";
const PUBLIC: &str = "  - { path: /public/**, upstream: api, access: public }\n";

/// The process that goes on; it does not outlive its test.
pub struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        let script = format!("kill -KILL {}", self.0);
        let _ = Command::new("sh").args(["-c", &script]).status();
    }
}

/// Asks for an upgrade, and waits until the successor serves.
#[track_caller]
pub fn upgrade(service: &Service) -> Successor {
    let successor = begin(service);
    wait_until_served(service, &successor);
    successor
}

/// Asks for an upgrade, and waits until the successor is started.
#[track_caller]
pub fn begin(service: &Service) -> Successor {
    let before = pid_in(service, "a successor starts");
    service.process.signal("USR2");
    eventually("a successor starts", || {
        let pid = pid_in(service, "a successor starts");
        pid.filter(|_| pid != before).map(Successor)
    })
}

#[track_caller]
pub fn wait_until_served(service: &Service, successor: &Successor) {
    eventually("the successor serves", || {
        let pid = pid_in(service, "upgraded: the successor serves")?;
        (pid == successor.0).then_some(())
    });
}

/// The process that the last whole line with this text speaks of.
fn pid_in(service: &Service, text: &str) -> Option<u32> {
    let said = service.process.stderr();
    let whole = &said[..said.rfind('\n')?];
    let line = whole.lines().rfind(|line| line.contains(text))?;
    let pid = line.split("pid=").nth(1)?.split_whitespace().next()?;
    Some(pid.parse().unwrap())
}

/// Does something while two clients ask, one on connections that it keeps as long as it may: each gets its
/// answer.
#[track_caller]
pub fn under_load<T>(edge: SocketAddr, ask: &Ask, act: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = [false, true].map(|keeps| {
            let done = &done;
            scope.spawn(move || {
                let (mut kept, mut count) = (Connection::open(edge), 0);
                while !done.load(Ordering::Relaxed) {
                    let answer = kept.ask(ask).expect(200);
                    if !keeps || answer.header("connection") == "close" {
                        kept = Connection::open(edge);
                    }
                    count += 1;
                }
                count
            })
        });
        // Also where the test fails: nobody would end otherwise.
        let end = Done(&done);
        let acted = act();
        drop(end);
        for client in clients {
            let count: usize = client.join().unwrap();
            assert!(count > 0);
        }
        acted
    })
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
pub fn wait_until_ended(service: &mut Service) {
    let status = eventually("the old process ends", || service.process.ended());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn no_request_is_lost() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let mut service = Setup::foreign(&backend, &[&key]).append(NO_WATCH).start();
    let (edge, token) = (service.edge, mint(&key, &claims("alice")));
    let ask = get("/api/x").bearer(&token);
    under_load(edge, &ask, || {
        let successor = upgrade(&service);
        wait_until_ended(&mut service);
        for _ in 0..10 {
            ask.send(edge).expect(200);
        }
        successor
    });
}

#[test]
fn a_request_that_is_open_ends_at_the_old_one_and_the_next_is_the_new_ones() {
    let key = Key::es256("k1");
    let (pieces, receiver) = channel();
    let receiver = Mutex::new(Some(receiver));
    let backend = Backend::answering(move |_| match receiver.lock().unwrap().take() {
        Some(pieces) => Reply::Pieces(pieces),
        None => Reply::ok("upstream"),
    });
    let mut service = Setup::foreign(&backend, &[&key]).append(NO_WATCH).start();
    let mut connection = service.connect();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    pieces.send(head.to_vec()).unwrap();
    let token = mint(&key, &claims("alice"));
    connection.begin(&get("/api/slow").bearer(&token)).expect(200);
    connection.read_until(b"first");
    // The successor reads the file anew, and may take over what a reload may not.
    let text = service.folder.text("config.yaml").replace(PUBLIC, "");
    let text = text.replace("control: ", "workers: 1\ncontrol: ");
    service.folder.write("config.yaml", text);
    let _successor = upgrade(&service);
    for _ in 0..5 {
        // The one that drains is not asked any more.
        get("/readyz").send(service.admin).expect(200);
    }
    service.ask(&get("/public/x")).expect_refusal(404, "no_route");
    service.ask(&get("/api/x").bearer(&token)).expect(200);
    assert!(service.process.ended().is_none(), "it waits for what is open");
    pieces.send(b"4\r\nlast\r\n0\r\n\r\n".to_vec()).unwrap();
    drop(pieces);
    connection.read_until(b"4\r\nlast\r\n0\r\n\r\n");
    wait_until_ended(&mut service);
    service.ask(&get("/api/x").bearer(&token)).expect(200);
    // The command line reaches the successor.
    service.told(&["reload", "--check"]);
}

#[test]
fn a_successor_that_cannot_serve_changes_nothing() {
    let (backend, key) = (Backend::start(), Key::es256("k1"));
    let mut service = Setup::foreign(&backend, &[&key]).append(NO_WATCH).start();
    let good = service.folder.text("config.yaml");
    service.folder.write("config.yaml", "listen: [\n");
    service.process.signal("USR2");
    eventually("the upgrade fails", || {
        service
            .metrics()
            .contains("durward_upgrade_failures_total 1")
            .then_some(())
    });
    let token = mint(&key, &claims("alice"));
    service.ask(&get("/api/x").bearer(&token)).expect(200);
    assert!(service.process.stderr().contains("this process goes on"));
    service.folder.write("config.yaml", good);
    let _successor = upgrade(&service);
    wait_until_ended(&mut service);
    service.ask(&get("/api/x").bearer(&token)).expect(200);
}

#[test]
fn a_ban_holds_across_an_upgrade_and_finds_what_the_old_one_still_drains() {
    let backend = open_ended();
    let mut service = Setup::own(&backend).append(NO_WATCH).start();
    let [mallory, alice] = ["mallory", "alice"].map(|name| service.account(name, &[]));
    service.told(&["ban", "mallory"]);
    let mut stream = service.connect();
    stream.begin(&alice.get("/api/events")).expect(200);
    let _successor = upgrade(&service);
    service.ask(&mallory.get("/api/x")).expect_refusal(401, "revoked");
    service.ask(&alice.get("/api/x")).expect(200);
    service.ask(&login("alice", PASSWORD)).expect(200);
    assert!(service.process.ended().is_none(), "the old one drains");
    service.told(&["ban", "alice"]);
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
    // Long before the end of its grace.
    stream.discard_to_end();
    wait_until_ended(&mut service);
    service.ask(&alice.get("/api/x")).expect_refusal(401, "revoked");
}

#[test]
fn an_auth_service_alone_goes_on_too() {
    let backend = Backend::start();
    let mut service = Setup::auth(OWN).api(&backend).listening(|service| service.auth);
    let added = service.command_with_input(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    assert_eq!(added.code, 0, "{added:?}");
    let before = service.told(&["user", "list", "--json"]);
    let _successor = upgrade(&service);
    wait_until_ended(&mut service);
    assert_eq!(service.told(&["user", "list", "--json"]), before);
    get("/.well-known/jwks.json").send(service.auth).expect(200);
}
