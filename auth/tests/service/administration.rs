use durward_contract::{Bar, Target};
use http::Method;
use serde_json::json;

use crate::support::{House, claims};

#[tokio::test]
async fn the_admin_api_is_for_admins() {
    let house = House::new().await;
    let id = house.user("alice", &["editor", "administrator"]).await;
    let alice = house.login("alice").await;
    let routes = [
        (Method::GET, "/auth/admin/users".to_owned()),
        (Method::PUT, format!("/auth/admin/users/{id}/ban")),
        (Method::DELETE, format!("/auth/admin/users/{id}/ban")),
        (Method::PUT, format!("/auth/admin/users/{id}/roles")),
        (Method::GET, format!("/auth/admin/users/{id}/sessions")),
        (Method::DELETE, format!("/auth/admin/users/{id}/sessions")),
    ];
    for (method, path) in routes {
        let body = json!({ "roles": ["admin"] });
        let nobody = house.call(method.clone(), &path).json(body.clone()).send().await;
        nobody.refused(401, "no_credential");
        assert_eq!(nobody.headers["www-authenticate"], "Bearer realm=\"durward\"");
        let refused = house
            .call(method.clone(), &path)
            .bearer(&alice.access)
            .json(body)
            .send()
            .await;
        refused.refused(403, "admin_required");
        assert!(
            refused.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .contains("insufficient_scope")
        );
    }
    assert!(house.recorder.entries().is_empty());
}

#[tokio::test]
async fn users_are_listed_in_pages() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    for n in 0..5 {
        house.user(&format!("user{n}"), &["editor"]).await;
    }
    let admin = house.login("root").await;
    let page = async |query: &str| {
        house
            .get(&format!("/auth/admin/users{query}"))
            .bearer(&admin.access)
            .send()
            .await
    };
    let names = |body: &serde_json::Value| {
        let users = body["users"].as_array().unwrap();
        users
            .iter()
            .map(|user| user["username"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = page("").await.ok();
    assert_eq!(names(&all), ["root", "user0", "user1", "user2", "user3", "user4"]);
    assert_eq!(all["next"], json!(null));
    assert_eq!(all["users"][1]["roles"], json!(["editor"]));
    let first = page("?limit=4").await.ok();
    assert_eq!((names(&first).len(), &first["next"]), (4, &json!("user2")));
    let second = page("?limit=4&after=user2").await.ok();
    assert_eq!(names(&second), ["user3", "user4"]);
    for bad in ["?limit=x", "?sort=epoch", "?after=a&after=b"] {
        page(bad).await.refused(400, "invalid_query");
    }
    assert!(names(&page("?after=%27%20OR%201=1%20--").await.ok()).len() <= 6);
}

#[tokio::test]
async fn taking_a_role_away_refuses_older_tokens_and_giving_one_does_not() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("bob", &["admin", "editor"]).await;
    let (root, bob) = (house.login("root").await, house.login("bob").await);
    let set = |roles: serde_json::Value| {
        house
            .put(&format!("/auth/admin/users/{id}/roles"))
            .bearer(&root.access)
            .json(json!({ "roles": roles }))
            .send()
    };
    assert_eq!(
        set(json!(["admin", "editor", "extra"])).await.ok()["roles"],
        json!(["admin", "editor", "extra"])
    );
    assert!(house.recorder.entries().is_empty());
    house
        .get("/auth/admin/users")
        .bearer(&bob.access)
        .send()
        .await
        .ok();
    set(json!(["editor"])).await.ok();
    house
        .get("/auth/admin/users")
        .bearer(&bob.access)
        .send()
        .await
        .refused(401, "revoked");
    let entries = house.recorder.entries();
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (&Target::User(id.clone()), Bar::EpochBelow(1))
    );
    let bob = house.refresh(&bob.refresh).await;
    assert_eq!(claims(&bob.access)["epoch"], 1);
    house
        .get("/auth/admin/users")
        .bearer(&bob.access)
        .send()
        .await
        .refused(403, "admin_required");
    let many: Vec<String> = (0..33).map(|n| format!("r{n}")).collect();
    for bad in [
        json!([""]),
        json!(["Admin"]),
        json!(["a,b"]),
        json!(["ädmin"]),
        json!(["x".repeat(65)]),
        json!(many),
    ] {
        set(bad).await.refused(400, "invalid_role");
    }
    let nobody = house
        .put("/auth/admin/users/u_nobody/roles")
        .bearer(&root.access)
        .json(json!({ "roles": [] }));
    nobody.send().await.refused(404, "no_such_user");
}

#[tokio::test]
async fn an_admin_sees_and_ends_anybodys_sessions() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("alice", &[]).await;
    let (root, alice) = (house.login("root").await, house.login("alice").await);
    house.login("alice").await;
    let path = format!("/auth/admin/users/{id}/sessions");
    let list = house.get(&path).bearer(&root.access).send().await.ok();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(
        house.delete(&path).bearer(&root.access).send().await.ok(),
        json!({ "ended": 2 })
    );
    house.me(&alice.access).await.refused(401, "revoked");
    let list = house.get(&path).bearer(&root.access).send().await.ok();
    let ended = |session: &serde_json::Value| session["revoked"] == true && session["blacklisted"] == true;
    assert!(list["sessions"].as_array().unwrap().iter().all(ended));
    house
        .get("/auth/admin/users/u_nobody/sessions")
        .bearer(&root.access)
        .send()
        .await
        .refused(404, "no_such_user");
}

#[tokio::test]
async fn the_reason_of_a_ban_is_a_short_text() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let root = house.login("root").await;
    for bad in ["x".repeat(501), "two\nlines".to_owned(), "nul\0".to_owned()] {
        let ban = house
            .put(&format!("/auth/admin/users/{id}/ban"))
            .bearer(&root.access)
            .json(json!({ "reason": bad }));
        ban.send().await.refused(400, "invalid_ban_reason");
    }
    let ban = house
        .put(&format!("/auth/admin/users/{id}/ban"))
        .bearer(&root.access)
        .json(json!({ "reason": null }));
    assert_eq!(ban.send().await.ok()["banned_reason"], json!(null));
}
