//! The end of both servers: in order, and not held up by what never ends.

use axum::body::Body;
use bytes::Bytes;
use durward_upstreams::sample_png;
use futures_util::{SinkExt, StreamExt, stream};
use http::Method;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::yield_now,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    chat::chat,
    client::{Server, TestFolder},
};

#[tokio::test]
async fn open_streams_end_in_order() {
    let server = Server::api().await;
    let mut events = server.get("/api/events").for_user("alice").begin("").await;
    events.body_mut().frame().await.unwrap().unwrap();
    let mut chat = chat(&server, "alice").await;
    chat.send(Message::text("still here")).await.unwrap();
    chat.next().await.unwrap().unwrap();

    server.begin_to_stop();
    let Some(Ok(Message::Close(Some(goodbye)))) = chat.next().await else {
        panic!("the chat was not closed");
    };
    assert_eq!(goodbye.code, CloseCode::Away);
    assert!(chat.next().await.is_none());
    // A body that was cut would be an error here.
    events.into_body().collect().await.unwrap();
    server.has_stopped().await;
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let server = Server::api().await;
    let mut never_used = server.connect().await;
    let mut kept_alive = server.connect().await;
    let request = "GET /api/me HTTP/1.1\r\nhost: demo\r\nx-user-id: alice\r\n\r\n";
    kept_alive.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    assert_ne!(kept_alive.read(&mut answer).await.unwrap(), 0);

    server.begin_to_stop();
    assert_eq!(kept_alive.read(&mut answer).await.unwrap(), 0);
    assert_eq!(never_used.read(&mut answer).await.unwrap_or(0), 0);
    server.has_stopped().await;
}

#[tokio::test]
async fn an_upload_in_flight_is_finished() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let image = sample_png(1);
    let (chunks, mut receiver) = mpsc::channel(1);
    let body = Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context)));
    let (first, rest) = image.split_at(100);
    let chunk = |bytes| Ok::<_, std::io::Error>(Bytes::copy_from_slice(bytes));
    let send = async {
        chunks.send(chunk(first)).await.unwrap();
        while folder.names(".incoming").is_empty() {
            yield_now().await;
        }
        server.begin_to_stop();
        while TcpStream::connect(server.address()).await.is_ok() {
            yield_now().await;
        }
        chunks.send(chunk(rest)).await.unwrap();
        drop(chunks);
    };
    let upload = server.ask(Method::PUT, "/images/alice/a.png").send(body);
    let (answer, ()) = tokio::join!(upload, send);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("connection"), "close");
    server.has_stopped().await;
    assert_eq!(std::fs::read(folder.join("alice/a.png")).unwrap(), image);
}
