//! Several processes on one PostgreSQL.

use durward_testing::postgres::{Database, server};
use serde_json::Value;

use crate::harness::{Backend, OWN, Service, Setup, TestFolder, durward, eventually, get, refresh};

/// One of a fleet: everything in one process, the database and the keys shared.
fn member(backend: &Backend, database: &Database, shared: &TestFolder) -> Service {
    setup(backend, database, shared).start()
}

pub fn setup(backend: &Backend, database: &Database, shared: &TestFolder) -> Setup {
    Setup::own(backend)
        .replace("issuer: http://@edge", "issuer: https://fleet.example.test")
        .replace(
            "database: sqlite:data/auth.db",
            &format!("database: \"{}\"", database.url()),
        )
        .replace(
            "keys: data/keys",
            &format!("keys: {}", shared.join("keys").display()),
        )
}

#[test]
fn a_ban_at_one_process_reaches_the_gateways_of_all() {
    let (backend, shared, database) = (Backend::start(), TestFolder::new(), server().database());
    let one = member(&backend, &database, &shared);
    let other = member(&backend, &database, &shared);
    let mallory = one.account("mallory", &[]);
    let me = get("/api/x").bearer(&mallory.tokens.access);
    one.ask(&me).expect(200);
    other.ask(&me).expect(200);

    one.told(&["ban", "mallory"]);
    one.ask(&me).expect_refusal(401, "revoked");
    let successor = refresh(&mallory.tokens.refresh).send(other.auth);
    successor.expect_refusal(400, "user_banned");
    // The other process reads the log once a second.
    eventually("the other gateway refuses", || {
        (me.send_if_answered(other.edge)?.status == 401).then_some(())
    });
    other.ask(&me).expect_refusal(401, "revoked");
    one.stop();
    other.stop();
}

#[test]
fn the_database_is_brought_up_to_date_by_hand() {
    let (folder, database) = (TestFolder::new(), server().database());
    let text = format!(
        "auth:\n  listen: 127.0.0.1:1\n  issuer: https://a\n  audience: a\n  database: \"{}\"\n",
        database.url()
    );
    let file = folder.write("config.yaml", text);
    let run = |arguments: &[&str]| {
        let config = ["--config", file.to_str().unwrap()];
        durward(&[&["auth", "migrate"], arguments, &config].concat(), &folder)
    };
    let checked = run(&["--check"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.stdout.contains("pending: 0001 foundation"), "{checked:?}");
    let migrated = run(&[]);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    assert!(
        migrated.stdout.contains("applied: 0001 foundation\n"),
        "{migrated:?}"
    );
    for arguments in [&["--check"] as &[&str], &[]] {
        let again = run(arguments);
        assert_eq!(again.code, 0, "{again:?}");
        assert!(again.stdout.contains("is up to date"), "{again:?}");
    }
    let machine: Value = serde_json::from_str(&run(&["--json"]).stdout).unwrap();
    assert_eq!(machine["applied"].as_array().unwrap().len(), 0);
    assert!(!machine.to_string().contains("host="), "{machine}");
}

#[test]
fn a_server_that_cannot_be_reached_stops_the_start_and_says_so() {
    let (finished, _) = Setup::auth(OWN)
        .set("api", "127.0.0.1:1".parse().unwrap())
        .replace(
            "database: sqlite:data/auth.db",
            "database: postgres://durward@127.0.0.1:1/auth\n  database_password: { env: AUTH_PASSWORD }",
        )
        .environment("AUTH_PASSWORD", "hunter2")
        .fail();
    assert_eq!(finished.code, 4, "{finished:?}");
    assert!(
        finished
            .stderr
            .contains("auth.database: postgres://durward@127.0.0.1:1/auth")
    );
    assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
}
