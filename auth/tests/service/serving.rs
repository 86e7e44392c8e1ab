use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::{House, PASSWORD, Plan};

#[tokio::test]
async fn shutdown_lets_an_open_request_end_and_takes_no_new_one() {
    let plan = Plan::default();
    let (service, _, _) = plan.start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = service.clone();
    let server = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    let head = format!(
        "POST /auth/register HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(address).await.is_err());
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(
        idle.read(&mut [0; 1]).await.unwrap(),
        0,
        "idle connections are closed"
    );
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_happens_is_counted() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house
        .try_login("alice", "wrong password")
        .await
        .refused(401, "invalid_credentials");
    let second = house.refresh(&tokens.refresh).await;
    house.refresh(&second.refresh).await;
    house
        .try_refresh(&tokens.refresh)
        .await
        .refused(400, "refresh_token_reused");
    house.service.attest().await.unwrap();
    let count = |name: &str, outcome: Option<&str>| {
        let families = house.registry.gather();
        let family = families.into_iter().find(|family| family.name() == name).unwrap();
        let metrics = family.get_metric().iter().filter(|metric| {
            outcome.is_none_or(|outcome| metric.get_label().iter().any(|label| label.value() == outcome))
        });
        metrics
            .map(|metric| (metric.get_counter().get_value() + metric.get_gauge().get_value()) as u64)
            .sum::<u64>()
    };
    assert_eq!(count("durward_auth_service_logins_total", Some("logged_in")), 1);
    assert_eq!(
        count("durward_auth_service_logins_total", Some("invalid_credentials")),
        1
    );
    assert_eq!(
        count("durward_auth_service_refreshes_total", Some("refreshed")),
        2
    );
    assert_eq!(
        count(
            "durward_auth_service_refreshes_total",
            Some("refresh_token_reused")
        ),
        1
    );
    assert_eq!(
        count("durward_auth_service_refresh_reuse_detections_total", None),
        1
    );
    assert_eq!(count("durward_auth_service_revocation_log_head", None), 1);
    assert_eq!(count("durward_auth_service_password_hash_in_use", None), 0);
}
