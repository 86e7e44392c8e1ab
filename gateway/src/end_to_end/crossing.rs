//! One identity per request on shared HTTP/2 connections: every request has a marker of its own, the
//! backend answers with whom and what it saw, and no answer may speak of another. Many are reset midway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use durward_contract::{Follower, Snapshot};
use http::Request;

use super::edge::Edge;

const CONNECTIONS: usize = 4;
/// Streams of one connection that are open at once.
const AT_ONCE: usize = 40;
const ROUNDS: usize = 30;
const USERS: usize = 10;

/// A backend that answers with the user, the path and the body that it saw, at length.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Ends with the connection, however it ends.
fn serve(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let (mut user, mut length, mut chunked) = (String::new(), 0, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                Some(("x-user-id" | "X-User-Id", value)) => user = format!("{user}{value}"),
                Some(("content-length" | "Content-Length", value)) => length = value.parse().ok()?,
                Some(("transfer-encoding" | "Transfer-Encoding", _)) => chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
                let mut piece = vec![0; size + 2];
                reader.read_exact(&mut piece).ok()?;
                body.extend_from_slice(&piece[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            body.resize(length, 0);
            reader.read_exact(&mut body).ok()?;
        }
        let said = format!("{user} {path} {}", String::from_utf8_lossy(&body));
        let text = format!("{said};{};{said}", ".".repeat(path.len() * 997 % 20_000));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        stream
            .write_all(&[head.as_bytes(), text.as_bytes()].concat())
            .ok()?;
    }
}

type Client = h2::client::SendRequest<Bytes>;

/// One request: a user's with a body or without, or nobody's.
async fn ask(client: Client, tokens: &[String], marker: &str, number: usize) {
    let user = number * 7 % USERS;
    let body = if number.is_multiple_of(2) {
        format!("body-of-{marker}")
    } else {
        String::new()
    };
    let (path, expected) = match number % 3 {
        0 => (format!("/public/{marker}"), String::new()),
        _ => (format!("/api/{marker}"), format!("user-{user}")),
    };
    let request = Request::builder()
        .method(if body.is_empty() { "GET" } else { "POST" })
        .uri(format!("http://edge.example{path}"))
        .header("authorization", format!("Bearer {}", tokens[user]))
        .header("x-user-id", "mallory")
        .body(())
        .unwrap();
    let mut client = client.ready().await.unwrap();
    let (response, mut sent) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        // In two pieces, so that other streams' frames come between.
        let (one, other) = body.split_at(body.len() / 2);
        sent.send_data(Bytes::copy_from_slice(one.as_bytes()), false)
            .unwrap();
        tokio::task::yield_now().await;
        if number.is_multiple_of(10) {
            sent.send_reset(h2::Reason::CANCEL);
            return;
        }
        sent.send_data(Bytes::copy_from_slice(other.as_bytes()), true)
            .unwrap();
    }
    let response = response.await.unwrap();
    let status = response.status();
    let given_up = number % 11 == 5;
    let mut received = response.into_body();
    let mut text = Vec::new();
    while let Some(piece) = received.data().await {
        let piece = piece.unwrap();
        received.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
        if status == 200 && given_up {
            // Dropped midway: the stream is reset.
            break;
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(status, 200, "{marker}: {text}");
    let said = format!("{expected} {path} {body}");
    let begins_so = text.starts_with(&format!("{said};")) || (given_up && said.starts_with(&text));
    assert!(begins_so, "{said}: {}", &text[..text.len().min(200)]);
    assert!(
        given_up || text.ends_with(&format!(";{said}")),
        "{said}: {}",
        text.len()
    );
}

#[test]
fn no_answer_and_no_identity_crosses_between_streams() {
    let edge = Edge::before(backend(), "");
    drop(edge.connect());
    let tokens: Vec<String> = (0..USERS)
        .map(|user| edge.token(&format!("user-{user}")))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tried = CONNECTIONS * AT_ONCE * ROUNDS;
    println!("cases {tried}");
    let all = async {
        let mut connections = Vec::new();
        for connection in 0..CONNECTIONS {
            let stream = TcpStream::connect(edge.address).unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let (client, driver) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(driver);
            let (tokens, edge) = (&tokens, &edge);
            connections.push(async move {
                for round in 0..ROUNDS {
                    // However long it takes, the news is no older than a round.
                    edge.feed.load(Snapshot::default());
                    let asked = (0..AT_ONCE).map(|number| {
                        let marker = format!("m{connection}-{round}-{number}");
                        let client = client.clone();
                        async move { ask(client, tokens, &marker, round * AT_ONCE + number).await }
                    });
                    futures_util::future::join_all(asked).await;
                }
            });
        }
        futures_util::future::join_all(connections).await;
    };
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(300), all).await })
        .expect("it hangs");
}
