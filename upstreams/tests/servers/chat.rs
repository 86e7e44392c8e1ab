//! The chat of the API server.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use crate::client::Server;

/// A chat that is past its first message, which this checks.
pub async fn chat(server: &Server, user: &str) -> WebSocketStream<TcpStream> {
    let mut chat = connect(server, Some(user)).await.unwrap();
    let hello = chat.next().await.unwrap().unwrap();
    let hello: Value = serde_json::from_str(hello.to_text().unwrap()).unwrap();
    assert_eq!(hello, json!({ "user_id": user, "roles": [] }));
    chat
}

async fn connect(server: &Server, user: Option<&str>) -> Result<WebSocketStream<TcpStream>, Error> {
    let mut request = "ws://demo/api/chat".into_client_request().unwrap();
    if let Some(user) = user {
        request.headers_mut().insert("x-user-id", user.parse().unwrap());
    }
    client_async(request, server.connect().await)
        .await
        .map(|(chat, _response)| chat)
}

#[tokio::test]
async fn a_chat_says_who_you_are_and_echoes() {
    let server = Server::api().await;
    let mut chat = chat(&server, "alice").await;
    let longest = "x".repeat(64 * 1024);
    let messages = [
        Message::text("hello"),
        Message::text("gr\u{fc}\u{df} dich"),
        Message::binary(vec![0, 1, 255]),
        Message::text(""),
        Message::text(longest),
    ];
    for message in messages {
        chat.send(message.clone()).await.unwrap();
        assert_eq!(chat.next().await.unwrap().unwrap(), message);
    }
}

#[tokio::test]
async fn a_ping_is_answered_and_a_close_too() {
    let server = Server::api().await;
    let mut chat = chat(&server, "alice").await;
    chat.send(Message::Ping(Bytes::from_static(b"are you there")))
        .await
        .unwrap();
    let answer = chat.next().await.unwrap().unwrap();
    assert_eq!(answer, Message::Pong(Bytes::from_static(b"are you there")));
    chat.close(None).await.unwrap();
    assert_eq!(chat.next().await.unwrap().unwrap(), Message::Close(None));
    assert!(chat.next().await.is_none());
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_chat() {
    let server = Server::api().await;
    let mut told = chat(&server, "alice").await;
    told.send(Message::text("x".repeat(64 * 1024 + 1))).await.unwrap();
    let Some(Ok(Message::Close(Some(goodbye)))) = told.next().await else {
        panic!("the server did not close");
    };
    assert_eq!(goodbye.code, CloseCode::Size);

    // Far beyond the limit, reading stops before the message is there.
    let mut cut = chat(&server, "alice").await;
    let _ = cut.send(Message::text("x".repeat(1024 * 1024))).await;
    assert!(!matches!(cut.next().await, Some(Ok(Message::Text(_)))));
}

#[tokio::test]
async fn chats_are_counted_while_they_last() {
    let server = Server::api().await;
    let stats = || server.get("/api/admin/stats").for_user("bob").answer();
    let (first, mut second) = (chat(&server, "alice").await, chat(&server, "bob").await);
    assert_eq!(stats().await.json()["chats"], 2);
    second.close(None).await.unwrap();
    while second.next().await.is_some() {}
    while stats().await.json()["chats"] != 1 {
        tokio::task::yield_now().await;
    }
    drop(first);
}

#[tokio::test]
async fn what_is_no_websocket_is_refused() {
    let server = Server::api().await;
    let Err(Error::Http(response)) = connect(&server, None).await else {
        panic!("a chat without a user");
    };
    assert_eq!(response.status(), 400);
    let plain = server.get("/api/chat").for_user("alice").answer().await;
    plain.assert_problem(400, "not_a_websocket");
}
