//! What is there to be pasted does what it shows: the session of the README, and the lines that
//! `durward up` prints. (They need `curl`.)

use crate::harness::{Process, Service, Setup};

const README: &str = include_str!("../../README.md");

/// Runs shell lines beside the service, and asserts that these words come, in this order.
#[track_caller]
fn assert_says(service: &Service, lines: &str, words: &[&str]) {
    let finished = Process::shell(lines, &service.folder).finish();
    let mut rest = finished.stdout.as_str();
    for word in words {
        let found = rest.find(word);
        let found = found.unwrap_or_else(|| panic!("{word} does not come, in its place, in\n{finished:#?}"));
        rest = &rest[found + word.len()..];
    }
}

/// The first shell lines after this heading.
fn block_after<'a>(text: &'a str, heading: &str) -> &'a str {
    let after = text
        .split_once(heading)
        .unwrap_or_else(|| panic!("{heading} is not there"))
        .1;
    after
        .split_once("```sh\n")
        .unwrap()
        .1
        .split_once("```")
        .unwrap()
        .0
}

#[test]
fn the_session_of_the_readme_does_what_it_shows() {
    let service = Setup::shipped().start();
    let lines = block_after(README, "## A session to paste");
    let lines = lines.replace("127.0.0.1:8080", &service.edge.to_string());
    assert_says(
        &service,
        &lines,
        &[
            r#""username":"mallory"#,
            r#""user_id":"u_"#,
            "201\n",
            "200\n",
            r#""reason":"rule_refused""#,
            r#""reason":"rule_refused""#,
            ": admin",
            "uptime_seconds",
            r#""reason":"refresh_token_reused""#,
            r#""reason":"revoked""#,
            "101 Switching Protocols",
            " is banned",
            "the WebSocket is gone",
            r#""reason":"revoked""#,
            "revocation",
            "=> 401 revoked",
        ],
    );
}

#[test]
fn the_lines_that_are_printed_at_the_start_do_what_they_show() {
    let service = Setup::shipped().start();
    let printed = service.process.stdout();
    let (_, after) = printed
        .split_once("Paste into another terminal")
        .expect("lines to paste");
    let lines: String = after
        .lines()
        .filter(|line| line.starts_with("  "))
        .map(|line| format!("{line}\n"))
        .collect();
    let words = [
        r#""user_id":"u_"#,
        "200 image/png",
        "alice is banned",
        r#""reason":"revoked""#,
        "=> 401 revoked",
    ];
    assert_says(&service, &lines, &words);
    assert!(printed.contains(&format!("http://{}", service.edge)), "{printed}");
    assert!(
        printed.contains(&format!("http://{}", service.admin)),
        "{printed}"
    );
}
