//! Connecting to real servers of every kind, and to what is none.

mod parties;
mod servers;

use std::time::{Duration, Instant};

use durward_news::{Connector, StoreFault, Timeouts};
use parties::{Gateway, MemoryLog, publish, until};
use redis::{AsyncCommands, cmd, pipe};
use servers::{PATIENCE, Server, connector, free_port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    response: Duration::from_millis(500),
};

#[tokio::test]
async fn one_server_with_a_password_and_a_database() {
    let server = Server::start(&["--requirepass", "hunter2"]);
    let password = server.folder.join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let options = format!("password: {{ file: {} }}", password.display());
    let third = connector(&format!("{}/3", server.url()), &options);
    news_travels_by(&third).await;
    let mut connection = third.connect(Timeouts::default()).await.unwrap();
    let _: () = connection.set("a", "b").await.unwrap();
    let (first, second): (String, Option<String>) = pipe()
        .get("a")
        .get("c")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!((first.as_str(), second), ("b", None));
    let refused = server.connector().connect(SHORT).await;
    let error = match refused {
        // Redis lets anybody connect, and nobody ask.
        Ok(mut connection) => connection.get::<_, Option<String>>("a").await.unwrap_err().into(),
        Err(error) => error,
    };
    assert_eq!(error.fault, StoreFault::Login, "{error}");
}

/// What loads has a connection of its own, which logs in by itself.
async fn news_travels_by(connector: &Connector) {
    let log = MemoryLog::new();
    log.ban("alice");
    let _publisher = publish(connector, &log);
    let gateway = Gateway::new(&log);
    let task = gateway.follow(connector, "edge");
    until("fresh", || gateway.is_fresh()).await;
    assert!(gateway.refuses("alice") && task.status().loads == 1);
}

#[tokio::test]
async fn sentinels_are_asked_for_the_master_each_time() {
    let mut first = Server::start(&[]);
    let second = Server::start(&["--replicaof", &format!("127.0.0.1 {}", first.port)]);
    let sentinel = Server::sentinel(first.port);
    let dead = free_port();
    let store = format!(
        "redis+sentinel://127.0.0.1:{dead},127.0.0.1:{}/main",
        sentinel.port
    );
    let connector = connector(&store, "");
    let mut connection = connector.connect(SHORT).await.unwrap();
    let _: () = connection.set("a", "b").await.unwrap();
    let start = Instant::now();
    while !second.ask(&["GET", "a"]).contains('b')
        || !sentinel
            .ask(&["SENTINEL", "REPLICAS", "main"])
            .contains(&second.port.to_string())
    {
        assert!(start.elapsed() < PATIENCE, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.kill();
    let start = Instant::now();
    let mut connection = loop {
        if let Ok(connection) = connector.connect(SHORT).await {
            break connection;
        }
        assert!(start.elapsed() < PATIENCE, "no failover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(connection.get::<_, String>("a").await.unwrap(), "b");
    let _: () = connection.set("a", "c").await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_routed_by_key() {
    let nodes = servers::cluster().await;
    let connector = connector(&format!("redis+cluster://127.0.0.1:{}", nodes[1].port), "");
    let mut connection = connector.connect(Timeouts::default()).await.unwrap();
    let keys: Vec<String> = (0..50).map(|number| format!("key{number}")).collect();
    for key in &keys {
        let _: () = connection.set(key, key).await.unwrap();
    }
    let mut pipeline = pipe();
    for key in &keys {
        pipeline.get(key);
    }
    let values: Vec<String> = pipeline.query_async(&mut connection).await.unwrap();
    assert_eq!(values, keys);
    assert!(nodes.iter().all(|node| !node.ask(&["DBSIZE"]).contains(":0\r")));
    let pong: String = cmd("PING").query_async(&mut connection).await.unwrap();
    assert_eq!(pong, "PONG");
}

#[tokio::test]
async fn what_is_no_redis_is_an_error_in_time() {
    let refused = connector(&format!("redis://127.0.0.1:{}", free_port()), "");
    let error = refused.connect(SHORT).await.unwrap_err();
    assert_eq!(error.fault, StoreFault::Unreachable, "{error}");

    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = connector(&format!("redis://{}", hole.local_addr().unwrap()), "");
    let start = Instant::now();
    let error = silent.connect(SHORT).await.unwrap_err();
    assert_eq!(error.fault, StoreFault::Timeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));

    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"$1073741824\r\n",
        b"*1048577\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = format!("redis://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            std::future::pending::<()>().await;
        });
        let error = connector(&store, "").connect(SHORT).await.unwrap_err();
        assert_eq!(error.fault, StoreFault::Garbage, "{error}");
        served.abort();
    }
}

#[tokio::test]
async fn tls_trusts_whom_it_was_told_to_and_shows_its_certificate() {
    let folder = servers::new_folder();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=redis",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ])
        .args([
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "extendedKeyUsage=serverAuth,clientAuth",
        ])
        .args([
            "-out".as_ref(),
            cert.as_os_str(),
            "-keyout".as_ref(),
            key.as_os_str(),
        ])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    let (tls, cert, key) = (
        free_port().to_string(),
        cert.to_str().unwrap(),
        key.to_str().unwrap(),
    );
    let _server = Server::start(&[
        "--tls-port",
        &tls,
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        cert,
    ]);
    let both = format!("tls: {{ ca: {cert}, cert: {cert}, key: {key} }}");
    let encrypted = connector(&format!("rediss://127.0.0.1:{tls}"), &both);
    news_travels_by(&encrypted).await;
    let mut connection = encrypted.connect(Timeouts::default()).await.unwrap();
    let _: () = connection.set("a", "b").await.unwrap();
    // No client certificate, and a server that nobody vouches for.
    for options in [format!("tls: {{ ca: {cert} }}"), String::new()] {
        let connected = connector(&format!("rediss://127.0.0.1:{tls}"), &options)
            .connect(SHORT)
            .await;
        let refused = match connected {
            // TLS 1.3 lets a client believe for a moment that it was accepted.
            Ok(mut connection) => connection.get::<_, Option<String>>("a").await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{options}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
