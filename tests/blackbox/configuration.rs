//! The configuration file: everything that is wrong with it is said at once, and nothing runs on it.

use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Backend, FOREIGN, Finished, Key, OWN, Setup, TestFolder, durward, free_address};

/// Checks a configuration.
fn check(configuration: &str, arguments: &[&str]) -> Finished {
    let folder = TestFolder::new();
    folder.write("jwks.json", Key::set(&[&Key::es256("k1")]));
    let file = folder.write("config.yaml", addresses(configuration));
    durward(
        &[&["check", "--config", file.to_str().unwrap()], arguments].concat(),
        &folder,
    )
}

/// `check` listens nowhere, so any addresses do.
fn addresses(configuration: &str) -> String {
    let names = ["@edge", "@admin", "@auth", "@api"].into_iter().enumerate();
    names.fold(configuration.to_owned(), |text, (n, name)| {
        text.replace(name, &format!("127.0.0.1:{}", 1000 + n))
    })
}

/// The diagnostics of a check that is expected to fail.
#[track_caller]
fn errors_of(configuration: &str) -> String {
    let finished = check(configuration, &[]);
    assert_eq!(finished.code, 1, "{finished:?}");
    finished.stdout + &finished.stderr
}

#[test]
fn the_shipped_file_is_valid_without_a_warning() {
    let folder = TestFolder::new();
    let file = folder.write("config.yaml", include_str!("../../config.yaml"));
    let checked = durward(&["check", "--config", file.to_str().unwrap(), "--json"], &folder);
    assert_eq!(checked.code, 0, "{checked:?}");
    let answer: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(
        (&answer["valid"], answer["diagnostics"].as_array().unwrap().len()),
        (&true.into(), 0),
        "{answer}"
    );
    assert_eq!(check(OWN, &[]).code, 0);
    assert_eq!(check(FOREIGN, &[]).code, 0);
}

#[test]
fn all_errors_are_told_at_once_with_place_and_advice() {
    let broken = "\
listen: nowhere
admin: 127.0.0.1:9090
lisen: 127.0.0.1:8080
shutdown_grace: soon
auth:
  listen: 127.0.0.1:8081
  issuer: 5
  audience: example
  access_token_ttl: 2h
  refresh_tokn_ttl: 30d
  database: sqlite:data/auth.db
issuers:
  - use: auht
revocations:
  store: memcached
identity_headers:
  X-User-Id: sub
  x_user_id: sub
upstreams:
  api: { servers: [127.0.0.1] }
routes:
  - { path: /api/**, upstream: apo }
  - { path: api, upstream: api }
  - { path: \"/a/{id}/**\", upstream: api, require: { sub: \"{user}\" } }
  - { path: /b/**, upstream: api, acess: public }
  - { path: /c/**, upstream: api, access: everyone }
  - { path: /d/**, upstream: api }
  - { path: /d/**, upstream: api }
";
    let said = errors_of(broken);
    for (line, what) in [
        (1, "nowhere"),
        (3, "did you mean `listen`"),
        (4, "soon"),
        (7, "issuer"),
        (9, "access_token_ttl"),
        (10, "did you mean `refresh_token_ttl`"),
        (13, "auht"),
        (15, "memcached"),
        (18, "x_user_id"),
        (20, "127.0.0.1"),
        (22, "did you mean `api`"),
        (23, "api"),
        (24, "user"),
        (25, "did you mean `access`"),
        (26, "everyone"),
        (28, "/d/**"),
    ] {
        let place = format!("config.yaml:{line}:");
        assert!(said.contains(&place), "no error at line {line}:\n{said}");
        assert!(said.contains(what), "{what} is not in\n{said}");
    }
}

#[test]
fn json_output_has_the_same_diagnostics() {
    let broken = OWN.replace("audience: example", "audiense: example");
    let finished = check(&broken, &["--json"]);
    assert_eq!(finished.code, 1, "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(answer["valid"], false);
    let diagnostics = answer["diagnostics"].as_array().unwrap();
    let unknown = diagnostics
        .iter()
        .find(|item| item["message"].as_str().unwrap().contains("audiense"))
        .unwrap();
    assert_eq!(unknown["severity"], "error");
    assert!(
        unknown["line"].as_u64().unwrap() > 1 && unknown["column"].as_u64().unwrap() > 0,
        "{unknown}"
    );
    assert!(!unknown["advice"].as_str().unwrap().is_empty(), "{unknown}");
}

/// [`FOREIGN`] with more routes.
fn with_routes(routes: &[&str]) -> String {
    let lines = routes
        .iter()
        .map(|route| format!("  - {{ {route}, upstream: api }}\n"));
    FOREIGN.to_owned() + &lines.collect::<String>()
}

#[test]
fn unreachable_routes_are_warnings() {
    let hidden = with_routes(&["path: \"/things/{id}/x\"", "path: /things/*/x"]);
    let finished = check(&hidden, &["--json"]);
    assert_eq!(finished.code, 0, "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    let [warning] = &answer["diagnostics"].as_array().unwrap()[..] else {
        panic!("{answer}")
    };
    assert_eq!(
        (&answer["valid"], &warning["severity"]),
        (&true.into(), &"warning".into()),
        "{answer}"
    );
    let message = warning["message"].as_str().unwrap();
    assert!(message.contains("`/things/*/x` can never match"), "{message}");
    assert_eq!(warning["line"], hidden.lines().count());
    let human = check(&hidden, &[]);
    assert_eq!(human.code, 0);
    assert!(
        human.stdout.contains("warning") && human.stdout.contains("/things/*/x"),
        "{human:?}"
    );
}

#[test]
fn an_auth_service_alone_writes_to_no_store_by_a_misspelling() {
    let free = free_address();
    for (revocations, said) in [
        ("mode: lokup, store: \"redis://@free\"", "did you mean `lookup`"),
        ("mod: lookup, store: \"redis://@free\"", "did you mean `mode`"),
        ("store: \"redsi://@free\"", "`store` cannot be"),
        ("mode: mirror", "`store` is missing"),
    ] {
        let revocations = revocations.replace("@free", &free.to_string());
        let (finished, _) = Setup::auth(OWN)
            .set("api", free)
            .replace("store: embedded", &revocations.replace(", ", "\n  "))
            .fail();
        assert_eq!(finished.code, 1, "{revocations}: {finished:?}");
        assert!(finished.stderr.contains(said), "{revocations}: {finished:?}");
    }
}

#[test]
fn a_key_that_signs_before_gateways_read_it_is_a_warning() {
    let with = |refresh: &str| {
        let jwks = "https://auth.example.test/.well-known/jwks.json";
        let issuer = format!("- {{ use: auth, jwks: {jwks}, jwks_refresh: {refresh} }}");
        check(&OWN.replace("- use: auth", &issuer), &[])
    };
    let late = with("15m");
    assert_eq!(late.code, 0, "{late:?}");
    assert!(
        late.stdout.contains("a new key signs before it is read"),
        "{late:?}"
    );
    let early = with("7m");
    assert!(!early.stdout.contains("a new key signs"), "{early:?}");
}

#[test]
fn routes_that_cannot_be_told_apart_are_errors() {
    for (routes, said) in [
        (
            [
                "path: /same/**, methods: [GET]",
                "path: /same/**, methods: [HEAD, GET]",
            ],
            "ties with",
        ),
        (["path: \"/one/{a}/**\"", "path: \"/one/{b}/**\""], "ties with"),
        (["path: /case/**", "path: /Case/**"], "upper and lower case"),
        (["path: /dots/../x", "path: /dots"], "/dots/../x"),
        (["path: /a/**/b", "path: /dots"], "/a/**/b"),
        (["path: no-slash", "path: /dots"], "no-slash"),
    ] {
        let text = errors_of(&with_routes(&routes));
        assert!(text.contains(said), "{routes:?}: {text}");
    }
}

#[test]
fn what_is_not_built_is_an_error_and_never_ignored() {
    for (from, to, said) in [
        (
            "sqlite:data/auth.db",
            "postgres://user:hunter2@db/auth",
            "must not hold a password",
        ),
        (
            "listen: \"@edge\"",
            "listen: [{ address: \"@edge\", tls: { cert: a, key: b } }]",
            "`certificates` is missing",
        ),
        (
            "api: { servers: [\"@api\"] }",
            "api: { servers: [\"@api\"], discovery: dns }",
            "unknown key `discovery`",
        ),
    ] {
        assert!(OWN.contains(from), "{from}");
        let said_so = errors_of(&OWN.replace(from, to));
        assert!(said_so.contains(said), "{to}: {said_so}");
    }
}

#[test]
fn a_cookie_credential_is_an_error() {
    let said = errors_of(&OWN.replace(
        "- { path: /api/**, upstream: api }",
        "- { path: /api/**, upstream: api, credential: cookie }",
    ));
    assert!(said.contains("credential"), "{said}");
}

#[test]
fn secrets_do_not_stand_in_the_file() {
    let inline = OWN.replace(
        "api: { servers: [\"@api\"] }",
        "api: { servers: [\"@api\"], headers: { X-Api-Key: hunter2 } }",
    );
    let said = errors_of(&inline);
    assert!(said.contains("must not stand in the file itself"), "{said}");
    let secret = FOREIGN.replace("jwks: jwks.json", "secret: hunter2hunter2hunter2hunter2hunter2");
    let said = errors_of(&secret);
    assert!(said.contains("must not stand in the file itself"), "{said}");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for (configuration, from, to) in [
        (OWN, "sqlite:data/auth.db", "postgres://user:hunter2@db/auth"),
        (
            OWN,
            "[\"@api\"] }",
            "[\"@api\"], headers: { X-Api-Key: hunter2 } }",
        ),
        (FOREIGN, "jwks: jwks.json", "secret: hunter2"),
    ] {
        assert!(configuration.contains(from), "{from}");
        let said = errors_of(&configuration.replace(from, to));
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn nothing_is_said_twice_in_the_file_either() {
    for (from, to) in [
        ("revocations:", "revocations: { store: embedded }\nrevocations:"),
        ("  X-User-Id: sub\n", "  X-User-Id: sub\n  X-User-Id: roles\n"),
        ("  X-User-Id: sub\n", "  X-User-Id: sub\n  X_User_Id: roles\n"),
        (
            "  audience: example\n",
            "  audience: example\n  audience: example\n",
        ),
        ("  - use: auth\n", "  - use: auth\n  - use: auth\n"),
    ] {
        let twice = OWN.replace(from, to);
        assert_ne!(twice, OWN);
        errors_of(&twice);
    }
}

#[test]
fn the_check_finds_that_keys_are_not_there() {
    let said = errors_of(&FOREIGN.replace("jwks: jwks.json", "jwks: absent.json"));
    assert!(said.contains("absent.json"), "{said}");
}

#[test]
fn what_is_no_yaml_or_no_file_is_said_to_be_none() {
    for bad in [
        "",
        "- a\n- b\n",
        "listen: [",
        "just text",
        "a: &a [*a]",
        "\0",
        "listen: !!binary aGk=\n",
    ] {
        let finished = check(bad, &[]);
        assert_eq!(finished.code, 1, "{bad:?}: {finished:?}");
    }
    let folder = TestFolder::new();
    let finished = durward(&["check", "--config", "absent.yaml"], &folder);
    assert_eq!(finished.code, 4, "{finished:?}");
    assert!(finished.stderr.contains("absent.yaml"), "{finished:?}");
}

#[test]
fn an_invalid_file_starts_nothing() {
    let backend = Backend::start();
    let key = Key::set(&[&Key::es256("k1")]);
    for setup in [
        Setup::up(OWN).replace(
            "upstream: api, require: { roles: admin }",
            "upstream: api, requires: { roles: admin }",
        ),
        Setup::up(OWN).replace("access: optional", "acess: optional"),
        Setup::up(OWN).append("surprise: 1\n"),
        Setup::gateway(FOREIGN).replace("path: /admin/**", "path: /admin/*/**/x"),
    ] {
        let (finished, addresses) = setup.api(&backend).file("jwks.json", &key).fail();
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.stderr.contains("config.yaml:"), "{finished:?}");
        for address in addresses {
            assert!(TcpStream::connect(address).is_err(), "{address} is listened on");
        }
    }
}

#[test]
fn a_port_that_is_taken_is_another_kind_of_failure() {
    let backend = Backend::start();
    let setup = Setup::up(OWN)
        .replace("\"@auth\"", &format!("\"{}\"", backend.address()))
        .api(&backend);
    let (finished, _) = setup.fail();
    assert_eq!(finished.code, 4, "{finished:?}");
    assert!(
        finished.stderr.contains(&backend.address().to_string()),
        "{finished:?}"
    );
}

#[test]
fn a_second_service_on_the_same_socket_does_not_start() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let second = durward(
        &["up", "--config", service.file().to_str().unwrap()],
        &service.folder,
    );
    assert_eq!(second.code, 4, "{second:?}");
    assert!(second.stderr.contains("control.sock"), "{second:?}");
    // And the first one is none the worse.
    let alice = service.account("alice", &[]);
    service.ask(&alice.get("/api/x")).expect(200);
    service.stop();
}

#[test]
fn commands_without_a_service_say_so() {
    let folder = TestFolder::new();
    let file = folder.write("config.yaml", addresses(OWN));
    for command in [
        &["ban", "alice"][..],
        &["user", "list"],
        &["sessions", "alice"],
        &["keys", "list"],
    ] {
        let finished = durward(
            &[command, &["--config", file.to_str().unwrap()]].concat(),
            &folder,
        );
        assert_eq!(finished.code, 3, "{finished:?}");
        assert!(finished.stderr.contains("control.sock"), "{finished:?}");
    }
    assert_eq!(durward(&["ban"], &folder).code, 2);
    assert_eq!(durward(&["fly"], &folder).code, 2);
}
