use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::support::{House, ON_POSTGRES, Plan, part};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn keys_and_database_are_for_their_owner() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let keys = house.folder.path().join("keys");
    assert_eq!(mode(&keys), 0o700);
    let files: Vec<_> = std::fs::read_dir(&keys)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600));
    if ON_POSTGRES {
        return;
    }
    for name in ["auth.db", "auth.db-wal", "auth.db-shm"] {
        assert_eq!(mode(&house.folder.path().join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_key_that_others_can_read_stops_the_start() {
    for (name, bits) in [("signing-es256.pk8", 0o640), ("refresh.key", 0o604), ("", 0o777)] {
        let plan = Plan::default();
        drop(plan.start().await.unwrap());
        let path = plan.folder.path().join("keys").join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bits)).unwrap();
        let error = plan.start().await.unwrap_err().to_string();
        assert!(error.contains("can be used by others"), "{error}");
    }
}

#[tokio::test]
async fn a_broken_key_stops_the_start_and_is_not_replaced() {
    let plan = Plan::default();
    drop(plan.start().await.unwrap());
    let path = plan.folder.path().join("keys/signing-es256.pk8");
    std::fs::write(&path, b"not a key").unwrap();
    assert!(
        plan.start()
            .await
            .unwrap_err()
            .to_string()
            .contains("does not hold a PKCS#8 key")
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"not a key");
}

#[tokio::test]
async fn keys_and_sessions_survive_a_restart() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let second = house.refresh(&tokens.refresh).await;
    let house = house.restart().await;
    house.me(&tokens.access).await.ok();
    assert_eq!(
        house.refresh(&tokens.refresh).await.refresh,
        second.refresh,
        "the grace window survives it too"
    );
}

#[tokio::test]
async fn every_signing_algorithm_makes_tokens_that_the_policy_proves() {
    for (algorithm, key_type) in [("ES256", "EC"), ("EdDSA", "OKP"), ("RS256", "RSA")] {
        let house = Plan::with(&format!("signing_algorithm: {algorithm}\n"))
            .build()
            .await;
        house.user("alice", &[]).await;
        let tokens = house.login("alice").await;
        assert_eq!(part(&tokens.access, 0)["alg"], algorithm);
        house.me(&tokens.access).await.ok();
        let served = house.get("/.well-known/jwks.json").send().await;
        assert_eq!(served.headers["content-type"], "application/jwk-set+json");
        let offered: serde_json::Value = serde_json::from_slice(&house.service.jwks().borrow()).unwrap();
        assert_eq!(served.body, offered);
        let key = &served.body["keys"][0];
        assert_eq!(
            (&key["kty"], &key["use"], &key["alg"]),
            (&json!(key_type), &json!("sig"), &json!(algorithm))
        );
        assert_eq!(key["kid"].as_str().unwrap().len(), 43, "an RFC 7638 thumbprint");
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key[private].is_null(), "{private}");
        }
    }
}

/// Replicas share a folder of keys. Those that find it empty at the same time agree on what they
/// make.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_start_together_make_the_same_keys() {
    for _ in 0..5 {
        let plan = Plan::default();
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let plan = plan.again();
                tokio::spawn(async move { plan.build().await })
            })
            .collect();
        let mut houses = Vec::new();
        for start in starts {
            houses.push(start.await.unwrap());
        }
        let first = houses.remove(0);
        first.user("alice", &[]).await;
        let tokens = first.login("alice").await;
        let second = first.refresh(&tokens.refresh).await;
        for other in &houses {
            other.me(&tokens.access).await.ok();
            let again = other.refresh(&tokens.refresh).await;
            assert_eq!(
                again.refresh, second.refresh,
                "the same key derives the same successor"
            );
        }
    }
}
