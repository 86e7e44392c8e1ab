//! Lookup mode when the store fails: whatever it does, nobody passes unasked, and nobody waits.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Backend, Key, RedisServer, Service, Socket, claims, eventually, free_address, get, mint, read_command,
};
use crate::lookup::{Stand, setup};

/// Far beyond every deadline here, and far below what a client would call hanging.
const NO_HANG: Duration = Duration::from_secs(10);

const UNKNOWN: (u16, &str) = (503, "revocation_unknown");

#[track_caller]
fn assert_unknown(service: &Service, token: &str, about: &str) {
    let before = Instant::now();
    let answer = service.ask(&get("/api/x").bearer(token));
    assert_eq!((answer.status, answer.reason().as_str()), UNKNOWN, "{about}");
    assert!(before.elapsed() < NO_HANG, "{about}: {:?}", before.elapsed());
    service.ask(&get("/public/x").bearer(token)).expect(200);
}

#[track_caller]
fn wait_until_permitted(service: &Service, token: &str) {
    eventually("requests are permitted again", || {
        let answer = service.ask(&get("/api/x").bearer(token));
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_store_that_was_killed_is_unknown_until_it_is_back() {
    let mut redis = RedisServer::start();
    let stand = Stand::start(&redis);
    let token = stand.token(&[("jti", "one".into())]);
    stand.service.ask(&get("/api/x").bearer(&token)).expect(200);
    redis.kill();
    for _ in 0..3 {
        assert_unknown(&stand.service, &token, "killed");
    }
    eventually("the metrics say so", || {
        let metrics = stand.service.metrics();
        metrics.contains("durward_revocation_store_up 0").then_some(())
    });
    redis.start_again();
    wait_until_permitted(&stand.service, &token);
    redis.run(&["SET", "blocklist:one", ""]);
    stand
        .service
        .ask(&get("/api/x").bearer(&token))
        .expect_refusal(401, "revoked");
}

#[test]
fn a_store_that_was_stopped_is_unknown_until_it_goes_on() {
    let redis = RedisServer::start();
    let stand = Stand::with(&redis, |setup| setup.replace("deadline: 1s", "deadline: 200ms"));
    let token = stand.token(&[]);
    wait_until_permitted(&stand.service, &token);
    redis.signal("STOP");
    for _ in 0..3 {
        assert_unknown(&stand.service, &token, "stopped");
    }
    redis.signal("CONT");
    wait_until_permitted(&stand.service, &token);
}

#[test]
fn many_who_ask_a_stopped_store_are_all_answered() {
    let redis = RedisServer::start();
    let stand = Stand::with(&redis, |setup| setup.replace("deadline: 1s", "deadline: 200ms"));
    let token = stand.token(&[]);
    redis.signal("STOP");
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| (0..4).for_each(|_| assert_unknown(&stand.service, &token, "stopped")));
        }
    });
    assert!(stand.service.metrics().contains("durward_lookups_in_flight 0"));
    redis.signal("CONT");
    wait_until_permitted(&stand.service, &token);
}

#[test]
fn open_streams_are_cut_when_the_store_says_nothing_for_too_long() {
    let mut redis = RedisServer::start();
    let stand = Stand::start(&redis);
    let bearer = format!("Bearer {}", stand.token(&[]));
    let socket = Socket::open(&stand.service, "/api/chat", &[("Authorization", &bearer)]).unwrap();
    redis.kill();
    socket.wait_until_gone();
    eventually("the cut is counted", || {
        let metrics = stand.service.metrics();
        let line = "durward_streams_cut_total{cause=\"revocation_unknown\"} 1";
        metrics.contains(line).then_some(())
    });
}

#[test]
fn a_replica_is_not_asked() {
    let primary = RedisServer::start();
    let port = primary.address().port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    eventually("the replica follows", || {
        primary.run(&["SET", "x", "y"]);
        (replica.command(&["EXISTS", "x"]) == ":1").then_some(())
    });
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = setup(replica.address(), &backend, &key).listening(|service| service.edge);
    let token = mint(&key, &claims("alice"));
    assert_unknown(&service, &token, "a replica");
    eventually("the log says why", || {
        service
            .process
            .stderr()
            .contains("name the primary")
            .then_some(())
    });
    // A failover: it is the primary now, and is a replica again.
    replica.run(&["REPLICAOF", "NO", "ONE"]);
    wait_until_permitted(&service, &token);
    replica.run(&["REPLICAOF", "127.0.0.1", &port]);
    eventually("it is not asked any more", || {
        let answer = get("/api/x").bearer(&token).send_if_answered(service.edge)?;
        (answer.status == 503).then_some(())
    });
}

#[test]
fn without_a_store_at_start_it_listens_and_is_not_ready() {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let store = free_address();
    let service = setup(store, &backend, &key).listening(|service| service.edge);
    let token = mint(&key, &claims("alice"));
    assert_unknown(&service, &token, "no store");
    let ready = get("/readyz").send(service.admin);
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("the first answer of the revocation store"),
        "{ready:?}"
    );
    let _redis = RedisServer::at(store);
    wait_until_permitted(&service, &token);
    get("/readyz").send(service.admin).expect(200);
}

#[test]
fn a_user_that_may_not_ask_is_told_at_start() {
    let redis = RedisServer::start();
    redis.run(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">secret",
        "~blocklist:*",
        "+exists",
        "+role",
        "+select",
    ]);
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = setup(redis.address(), &backend, &key)
        .replace(
            "  deadline: 1s\n",
            "  deadline: 1s\n  redis: { username: app, password: { file: password } }\n",
        )
        .file("password", "secret")
        .listening(|service| service.edge);
    let token = mint(&key, &claims("alice"));
    assert_unknown(&service, &token, "not every key may be asked for");
    eventually("the log says why", || {
        service
            .process
            .stderr()
            .to_uppercase()
            .contains("NOPERM")
            .then_some(())
    });
    redis.run(&["ACL", "SETUSER", "app", "~banned:*"]);
    wait_until_permitted(&service, &token);
}

/// A store that answers as the test says.
struct Liar {
    address: SocketAddr,
    exists: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Liar {
    /// Answers truthfully that it has nothing.
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let exists = Arc::new(Mutex::new(Some(b":0\r\n".to_vec())));
        let told = Arc::clone(&exists);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                thread::spawn(move || serve(stream, &told));
            }
        });
        Self { address, exists }
    }

    /// What it answers to EXISTS from here on; nothing for silence.
    fn say(&self, reply: Option<&[u8]>) {
        *self.exists.lock().unwrap() = reply.map(<[u8]>::to_vec);
    }
}

fn serve(mut stream: TcpStream, exists: &Mutex<Option<Vec<u8>>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(command) = read_command(&mut reader) {
        let reply = match command[0].to_ascii_uppercase().as_slice() {
            b"EXISTS" => exists.lock().unwrap().clone().unwrap_or_default(),
            b"ROLE" => b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        };
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

#[test]
fn nothing_but_no_is_read_as_no() {
    let liar = Liar::start();
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = setup(liar.address, &backend, &key)
        .replace("deadline: 1s", "deadline: 200ms")
        .start();
    let token = mint(&key, &claims("alice"));
    for reply in [
        &b"-ERR something\r\n"[..],
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-MOVED 3999 127.0.0.1:1\r\n",
        b"-ASK 3999 127.0.0.1:1\r\n",
        b"-TRYAGAIN later\r\n",
        b":2\r\n",
        b":-1\r\n",
        b":00000000000000000000000000000000\r\n:",
        b":99999999999999999999\r\n",
        b":\r\n",
        b"+OK\r\n",
        b"+0\r\n",
        b"$-1\r\n",
        b"$1\r\n0\r\n",
        b"*0\r\n",
        b"*1\r\n:0\r\n",
        b"*-1\r\n",
        b"#f\r\n",
        b"_\r\n",
        b",0\r\n",
        b"%0\r\n",
        b"0\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\0\r\n",
        b"\xff\xfe\r\n",
        b":0",
        b"$1073741824\r\n",
        b"$9223372036854775807\r\n",
        b"*1073741824\r\n",
        b"*9223372036854775807\r\n",
        b"%9223372036854775807\r\n",
        b"~1073741824\r\n",
    ] {
        liar.say(Some(b":0\r\n"));
        wait_until_permitted(&service, &token);
        liar.say(Some(reply));
        let about = String::from_utf8_lossy(reply).into_owned();
        for _ in 0..2 {
            assert_unknown(&service, &token, &about);
        }
    }
    liar.say(Some(b":0\r\n"));
    wait_until_permitted(&service, &token);
    liar.say(None);
    for _ in 0..3 {
        assert_unknown(&service, &token, "silence");
    }
    liar.say(Some(b":0\r\n"));
    wait_until_permitted(&service, &token);
    liar.say(Some(b":1\r\n"));
    eventually("listed", || {
        let answer = service.ask(&get("/api/x").bearer(&token));
        assert!(matches!(answer.status, 401 | 503), "{answer:?}");
        (answer.status == 401).then_some(())
    });
    service.stop();
}
