//! What gRPC needs of a proxy, between a client and a server of HTTP/2: both directions at once, bytes
//! as they come, and trailers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::edge::Edge;

/// A call that a backend got.
type Call = http::request::Parts;

/// A backend that answers each piece of a call with the same piece, and the end with trailers.
async fn backend() -> (SocketAddr, UnboundedReceiver<Call>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (calls, received) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, calls.clone()));
        }
    });
    (address, received)
}

async fn serve(stream: TcpStream, calls: UnboundedSender<Call>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (call, body) = request.into_parts();
        calls.send(call).unwrap();
        tokio::spawn(echo(body, respond));
    }
}

async fn echo(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).unwrap();
        if stream.send_data(piece, false).is_err() {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("grpc-message", HeaderValue::from_static("done"));
    stream.send_trailers(trailers).unwrap();
}

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await })
        .expect("it hangs");
}

pub(super) async fn client(edge: &Edge) -> h2::client::SendRequest<Bytes> {
    let address = edge.address;
    drop(edge.connect());
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn call(path: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://edge.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

#[test]
fn a_call_goes_both_ways_and_ends_with_trailers() {
    run(async {
        let (address, mut calls) = backend().await;
        let edge = Edge::before(address, "protocol: h2");
        let mut client = client(&edge).await;
        let token = edge.token("alice");
        let request = call("/api/package.Service/Method")
            .header("authorization", format!("Bearer {token}"))
            .header("x-user-id", "mallory")
            .body(())
            .unwrap();
        let (response, mut sent) = client.send_request(request, false).unwrap();
        sent.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "one");
        sent.send_data(Bytes::from_static(b"two"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "two");
        sent.send_data(Bytes::new(), true).unwrap();
        while let Some(piece) = body.data().await {
            assert!(piece.unwrap().is_empty());
        }
        let trailers = body.trailers().await.unwrap().expect("trailers");
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
        assert_eq!(trailers.get("grpc-message").unwrap(), "done");

        let call = calls.recv().await.unwrap();
        assert_eq!(call.uri.path(), "/api/package.Service/Method");
        assert_eq!(call.uri.authority().unwrap(), "edge.example");
        assert_eq!(call.headers.get("te").unwrap(), "trailers");
        let said: Vec<_> = call.headers.get_all("x-user-id").iter().collect();
        assert_eq!(said, ["alice"]);
        assert!(call.headers.get("authorization").is_none());
    });
}

#[test]
fn calls_share_a_connection_and_none_waits_for_another() {
    run(async {
        let (address, mut calls) = backend().await;
        let edge = Edge::before(address, "protocol: h2");
        let mut client = client(&edge).await;
        let mut open = Vec::new();
        for number in 0..20 {
            let request = call(&format!("/public/{number}")).body(()).unwrap();
            open.push(client.send_request(request, false).unwrap());
            calls.recv().await.unwrap();
        }
        for (number, (response, mut sent)) in open.into_iter().enumerate().rev() {
            let text = Bytes::from(format!("call {number}"));
            sent.send_data(text.clone(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), text);
            assert!(body.data().await.is_none());
            assert!(body.trailers().await.unwrap().is_some());
        }
    });
}

#[test]
fn a_call_that_is_silent_is_ended_in_time() {
    run(async {
        let (address, mut calls) = backend().await;
        // The backend says the head at once, so that only the whole is late.
        let edge = Edge::before(address, "protocol: h2\n    total_timeout: 300ms");
        let mut client = client(&edge).await;
        let request = call("/public/x").body(()).unwrap();
        let (response, _sent) = client.send_request(request, false).unwrap();
        calls.recv().await.unwrap();
        let mut body = response.await.unwrap().into_body();
        while let Some(Ok(_)) = body.data().await {}
        let metrics = edge.admin("/metrics").body;
        assert!(
            metrics.contains("durward_streams_cut_total{cause=\"upstream_total_timeout\"} 1"),
            "{metrics}"
        );
        // The connection to the server is not lost for it.
        let request = call("/public/y").body(()).unwrap();
        let (response, mut sent) = client.send_request(request, false).unwrap();
        sent.send_data(Bytes::from_static(b"again"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "again");
    });
}
