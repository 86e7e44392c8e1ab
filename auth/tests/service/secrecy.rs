use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::House;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_password_and_no_token_reaches_log_metrics_or_errors() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let house = House::new().await;
    let (password, other) = ("marmalade-lantern-52", "zeppelin-orchard-77");
    let new = json!({ "username": "secretive", "password": password });
    house.post("/auth/register").json(new.clone()).send().await.ok();
    let mut errors = vec![house.post("/auth/register").json(new).send().await];
    let first = house.try_login("secretive", password).await.tokens();
    errors.push(house.try_login("secretive", other).await);
    let second = house.refresh(&first.refresh).await;
    let truncated = &second.access[..second.access.len() - 3];
    errors.push(house.me(truncated).await);
    house.clock.advance(11);
    errors.push(house.try_refresh(&first.refresh).await);
    errors.push(house.me(&second.access).await);
    let bad = format!(
        "{{\"refresh_token\":\"{}\",\"{}\":1}}",
        second.refresh, second.refresh
    );
    errors.push(
        house
            .post("/auth/refresh")
            .header("content-type", "application/json")
            .raw(bad)
            .send()
            .await,
    );
    house.service.close().await;
    errors.push(house.try_login("secretive", password).await);

    let mut said = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(said.contains("refresh_token_reused"), "the log was listened to");
    for error in errors {
        assert!(error.status >= 400);
        said.push_str(&error.body.to_string());
        said.push_str(&format!("{:?}", error.headers));
    }
    for family in house.registry.gather() {
        said.push_str(&format!("{family:?}"));
    }
    said.push_str(&format!("{:?}", house.service));
    let signature = |token: &str| token.rsplit('.').next().unwrap()[..20].to_owned();
    let secrets = [
        password.to_owned(),
        other.to_owned(),
        first.refresh[4..24].to_owned(),
        second.refresh[4..24].to_owned(),
        signature(&first.access),
        signature(&second.access),
        "$argon2id".to_owned(),
    ];
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret}");
    }
}
