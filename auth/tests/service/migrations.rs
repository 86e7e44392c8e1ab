use durward_auth::{migrate, pending_migrations};

use crate::support::{House, Plan};

#[tokio::test]
async fn what_is_pending_is_said_and_applied_once() {
    let plan = Plan::default();
    let config = plan.config();
    let pending = pending_migrations(&config).await.unwrap();
    assert_eq!(pending[0].to_string(), "0001 foundation");
    assert_eq!(
        pending_migrations(&config).await.unwrap(),
        pending,
        "asking changes nothing"
    );
    assert!(!plan.folder.path().join("auth.db").exists());
    assert_eq!(migrate(&config).await.unwrap(), pending);
    assert_eq!(pending_migrations(&config).await.unwrap(), []);
    assert_eq!(migrate(&config).await.unwrap(), []);
    plan.build().await.user("alice", &[]).await;
}

#[tokio::test]
async fn a_newer_schema_stops_the_start() {
    let house = House::new().await;
    let plan = house.plan.again();
    house
        .outside()
        .await
        .run(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT 9000, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
    let config = plan.config();
    for said in [
        plan.start().await.unwrap_err().to_string(),
        migrate(&config).await.unwrap_err().to_string(),
        pending_migrations(&config).await.unwrap_err().to_string(),
    ] {
        assert!(said.contains("newer version of Durward"), "{said}");
        assert!(said.contains("9000"), "{said}");
    }
    // Who runs already goes on: that is how a fleet is upgraded.
    house.user("alice", &[]).await;
    house.login("alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_replicas_that_start_together_one_makes_the_tables() {
    let plan = Plan::default();
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let config = plan.config();
            tokio::spawn(async move { migrate(&config).await.unwrap() })
        })
        .collect();
    let mut applied = Vec::new();
    for start in starts {
        applied.push(start.await.unwrap());
    }
    applied.retain(|migrations| !migrations.is_empty());
    assert_eq!(applied.len(), 1);
}
