use serde_json::json;

use crate::support::{House, ISSUER, PASSWORD, Plan, claims, part};

#[tokio::test]
async fn a_login_gives_tokens_that_nobody_keeps_and_that_say_what_rfc_9068_asks() {
    let house = House::new().await;
    let id = house.user("alice", &["editor", "admin"]).await;
    let answer = house.try_login("Alice", PASSWORD).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["pragma"], "no-cache");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 600);
    let tokens = answer.tokens();
    assert!(
        tokens.refresh.starts_with("drt_") && tokens.refresh.len() == 47,
        "{}",
        tokens.refresh
    );
    let header = part(&tokens.access, 0);
    assert_eq!(
        (&header["typ"], &header["alg"]),
        (&json!("at+jwt"), &json!("ES256"))
    );
    let jwks = house.get("/.well-known/jwks.json").send().await;
    assert_eq!(jwks.body["keys"][0]["kid"], header["kid"]);
    let claims = claims(&tokens.access);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["sub"], id.as_str());
    assert_eq!(claims["aud"], "example");
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        600
    );
    assert_eq!(claims["roles"], json!(["admin", "editor"]));
    assert_eq!(claims["epoch"], 0);
    assert_eq!(claims["client_id"], "first-party");
    assert!(claims["jti"].is_string() && claims["sid"].is_string());
}

#[tokio::test]
async fn unknown_user_wrong_password_and_banned_user_get_the_same_answer() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let banned = house.user("mallory", &[]).await;
    house.user("root", &["admin"]).await;
    let admin = house.login("root").await;
    house
        .put(&format!("/auth/admin/users/{banned}/ban"))
        .bearer(&admin.access)
        .send()
        .await
        .ok();
    let wrong = house.try_login("alice", "not the password").await;
    wrong.refused(401, "invalid_credentials");
    assert_eq!(wrong.headers["www-authenticate"], "Bearer realm=\"durward\"");
    for username in ["nobody", "mallory", "а-cyrillic", "' OR 1=1 --", "admin\u{0}", ""] {
        let answer = house.try_login(username, "not the password").await;
        assert_eq!(answer.body, wrong.body, "{username}");
        let names = |answer: &crate::support::Answer| {
            answer
                .headers
                .keys()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&answer), names(&wrong), "{username}");
    }
    house.try_login("mallory", PASSWORD).await.refused(403, "banned");
}

#[tokio::test]
async fn guessing_is_slowed_down_for_the_guesser_only() {
    let house = Plan::with("trusted_proxies: [127.0.0.1]\n").build().await;
    house.user("victim", &[]).await;
    let try_from = |address: &'static str, password: &'static str, name: &'static str| {
        let body = json!({ "username": name, "password": password });
        house
            .post("/auth/login")
            .header("x-forwarded-for", address)
            .json(body)
            .send()
    };
    for _ in 0..10 {
        try_from("192.0.2.1", "wrong password", "victim")
            .await
            .refused(401, "invalid_credentials");
    }
    for spelling in ["victim", "VICTIM", "ｖictim"] {
        let slowed = try_from("192.0.2.1", PASSWORD, spelling).await;
        slowed.refused(429, "too_many_attempts");
        assert_eq!(slowed.headers["retry-after"], "30");
    }
    try_from("192.0.2.2", PASSWORD, "victim").await.tokens();
    house.clock.advance(30);
    try_from("192.0.2.1", PASSWORD, "victim").await.tokens();
}

#[tokio::test]
async fn x_forwarded_for_counts_only_from_trusted_proxies() {
    let seen = async |extra: &str, header: &str| {
        let house = Plan::with(extra).build().await;
        house.user("alice", &[]).await;
        let body = json!({ "username": "alice", "password": PASSWORD });
        let login = house
            .post("/auth/login")
            .header("x-forwarded-for", header)
            .header("user-agent", "test/1");
        let tokens = login.json(body).send().await.tokens();
        let list = house
            .get("/auth/sessions")
            .bearer(&tokens.access)
            .send()
            .await
            .ok();
        assert_eq!(list["sessions"][0]["user_agent"], "test/1");
        list["sessions"][0]["client_address"].as_str().unwrap().to_owned()
    };
    assert_eq!(seen("", "203.0.113.9").await, "127.0.0.1");
    assert_eq!(
        seen("trusted_proxies: [10.0.0.0/8]\n", "203.0.113.9").await,
        "127.0.0.1"
    );
    assert_eq!(
        seen("trusted_proxies: [127.0.0.1]\n", "198.51.100.1, 203.0.113.9").await,
        "203.0.113.9"
    );
}

/// With one worker, more than one running and sixteen waiting are refused, and who has a session
/// already is not kept waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_flood_is_refused_at_the_bound_and_refreshes_go_on() {
    let cost = durward_auth::PasswordCost {
        memory_kib: 64 * 1024,
        iterations: 2,
    };
    let house = std::sync::Arc::new(
        Plan {
            cost,
            parallelism: 1,
            ..Plan::default()
        }
        .build()
        .await,
    );
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let flood: Vec<_> = (0..30)
        .map(|n| {
            let house = std::sync::Arc::clone(&house);
            tokio::spawn(async move { house.try_login(&format!("user{n}"), "whatever it is").await })
        })
        .collect();
    while house.service_gauge("durward_auth_service_password_hash_in_use") == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let fresh = house.refresh(&tokens.refresh).await;
    house.me(&fresh.access).await.ok();
    let mut refused = 0;
    for answer in flood {
        let answer = answer.await.unwrap();
        if answer.status == 503 {
            answer.refused(503, "overloaded");
            assert_eq!(answer.headers["retry-after"], "1");
            refused += 1;
        } else {
            answer.refused(401, "invalid_credentials");
        }
    }
    assert!(
        (1..=13).contains(&refused),
        "{refused} of 30 refused; 17 have a place"
    );
}

impl House {
    pub fn service_gauge(&self, name: &str) -> i64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0, |family| family.get_metric()[0].get_gauge().get_value() as i64)
    }
}
