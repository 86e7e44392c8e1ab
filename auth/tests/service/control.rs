use axum::Router;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::support::House;

pub struct Control(String);

impl Control {
    pub async fn of(house: &House) -> Self {
        let router: Router = house.service.control_router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum_serve(listener, router).await });
        Self(base)
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.0))
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let response = Client::builder(TokioExecutor::new())
            .build_http()
            .request(request)
            .await
            .unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

#[tokio::test]
async fn the_operator_does_by_name_what_admins_do_by_id() {
    let house = House::new().await;
    assert!(!house.service.has_users().await.unwrap());
    let control = Control::of(&house).await;
    let new = json!({ "username": "Root", "roles": ["admin"], "password": null });
    let (status, root) = control.call(Method::POST, "/users", new).await;
    assert_eq!(
        (status, &root["username"], &root["roles"]),
        (201, &json!("root"), &json!(["admin"]))
    );
    assert_eq!(root["banned"], false);
    let password = root["password"].as_str().unwrap();
    assert!(house.service.has_users().await.unwrap());
    house.try_login("root", password).await.tokens();

    let new = json!({ "username": "alice", "roles": [], "password": "turnip-parade" });
    let (status, alice) = control.call(Method::POST, "/users", new.clone()).await;
    assert_eq!((status, alice.get("password")), (201, None));
    let (status, problem) = control.call(Method::POST, "/users", new).await;
    assert_eq!((status, &problem["reason"]), (409, &json!("username_taken")));

    let (_, list) = control.call(Method::GET, "/users", Value::Null).await;
    assert_eq!(list["users"].as_array().unwrap().len(), 2);
    assert!(list["users"][0]["created_at"].is_i64());

    let change = json!({ "add": ["editor", "extra"], "remove": ["nothing"] });
    let (_, user) = control.call(Method::POST, "/users/alice/roles", change).await;
    assert_eq!(user["roles"], json!(["editor", "extra"]));

    let tokens = house.try_login("alice", "turnip-parade").await.tokens();
    let (_, sessions) = control
        .call(Method::GET, "/users/ALICE/sessions", Value::Null)
        .await;
    let session = sessions["sessions"][0].clone();
    for name in [
        "id",
        "created_at",
        "last_used_at",
        "client_address",
        "user_agent",
        "revoked",
    ] {
        assert!(!session[name].is_null(), "{name}");
    }
    let path = format!("/users/alice/sessions/{}", session["id"].as_str().unwrap());
    assert_eq!(control.call(Method::DELETE, &path, Value::Null).await.0, 200);
    house.me(&tokens.access).await.refused(401, "revoked");
    assert_eq!(
        control
            .call(Method::DELETE, "/users/alice/sessions", Value::Null)
            .await
            .1,
        json!({ "ended": 0 })
    );

    let (status, user) = control
        .call(Method::PUT, "/users/alice/ban", json!({ "reason": "spam" }))
        .await;
    assert_eq!(
        (status, &user["banned"], &user["banned_reason"]),
        (200, &json!(true), &json!("spam"))
    );
    house
        .try_login("alice", "turnip-parade")
        .await
        .refused(403, "banned");
    let (_, user) = control
        .call(Method::DELETE, "/users/alice/ban", Value::Null)
        .await;
    assert_eq!(user["banned"], false);
    house.try_login("alice", "turnip-parade").await.tokens();

    let (_, keys) = control.call(Method::GET, "/keys", Value::Null).await;
    assert_eq!(
        (&keys["keys"][0]["algorithm"], &keys["keys"][0]["state"]),
        (&json!("ES256"), &json!("signing"))
    );
    for path in ["/users/nobody/ban", "/users/%00/ban", "/users/'%20OR%201=1/ban"] {
        let (status, problem) = control.call(Method::PUT, path, json!({})).await;
        assert_eq!((status, &problem["reason"]), (404, &json!("no_such_user")));
    }
    for id in ["%00", "s_%00", "s_unknown"] {
        let path = format!("/users/alice/sessions/{id}");
        let (status, problem) = control.call(Method::DELETE, &path, Value::Null).await;
        assert_eq!((status, &problem["reason"]), (404, &json!("no_such_session")));
    }
    let (status, problem) = control
        .call(Method::GET, "/users/%ff/sessions", Value::Null)
        .await;
    assert_eq!((status, &problem["reason"]), (404, &json!("not_found")));
    let actors = house.query("SELECT DISTINCT actor FROM audit").await;
    assert_eq!(actors, ["local operator"]);
}
