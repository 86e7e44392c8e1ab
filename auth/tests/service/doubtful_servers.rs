//! Servers that must not be trusted with revocations, or not before they have proved who they are.

use durward_testing::postgres::{Kind, OWNER, Server};

use crate::support::Plan;

/// Starts the service on that database; the error as text where it does not start.
async fn start_on(database: String) -> Result<(), String> {
    let plan = Plan {
        database,
        ..Plan::default()
    };
    match plan.start().await {
        Ok((service, ..)) => {
            service.close().await;
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A standby's log is an older one: what it lacks would be accepted again.
#[tokio::test]
async fn a_standby_is_refused() {
    let server = Server::start(Kind::Standby);
    let error = start_on(server.url()).await.unwrap_err();
    assert!(error.contains("the server is a standby"), "{error}");
}

#[tokio::test]
async fn a_server_has_to_prove_its_name_where_the_configuration_says_so() {
    let server = Server::start(Kind::Tls);
    let authority = server.authority();
    let url = |host: &str, parameters: String| {
        format!(
            "postgres://{OWNER}@{host}:{}/postgres?{parameters}",
            server.port()
        )
    };
    let verified = format!("sslmode=verify-full&sslrootcert={}", authority.display());

    start_on(url("localhost", verified.clone())).await.unwrap();

    // Its certificate is for another name.
    let error = start_on(url("127.0.0.1", verified)).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    // Nobody who is trusted has signed its certificate.
    let error = start_on(url("localhost", "sslmode=verify-full".to_owned()))
        .await
        .unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_has_to_prove_its_name() {
    let server = Server::start(Kind::Exposed);
    let url = |mode: &str| {
        let port = server.port();
        format!("postgres://{OWNER}@localhost:{port}/postgres?sslmode={mode}")
    };
    let error = start_on(url("verify-full")).await.unwrap_err();
    assert!(error.contains("TLS"), "{error}");
    start_on(url("disable")).await.unwrap();
}
