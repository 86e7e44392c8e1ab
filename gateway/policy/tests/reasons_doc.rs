//! `docs/REASONS.md` says what the code says. `DURWARD_WRITE_DOCS=1` writes it.

use std::path::Path;

use durward_policy::{Challenge, Reason};

#[test]
fn the_page_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/REASONS.md");
    let page = page();
    if std::env::var_os("DURWARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/REASONS.md is out of date: run the tests once with DURWARD_WRITE_DOCS=1"
    );
}

fn page() -> String {
    let rows: String = Reason::ALL.iter().map(|reason| row(*reason)).collect();
    format!(
        "# Reasons

Every refusal has exactly one of these reasons: in the body (`reason`), in the access log, in the label
`reason` of `durward_auth_decisions_total`, and in `durward explain`. The body says no more than this table;
what exactly was wrong is in the log, on the line whose `id` the refusal's `X-Request-Id` says. This page is
checked against the code by a test.

| reason | status | `WWW-Authenticate` error | what the client is told |
| --- | --- | --- | --- |
{rows}"
    )
}

fn row(reason: Reason) -> String {
    let challenge = match reason.challenge() {
        None => "no challenge".to_owned(),
        Some(Challenge::Bare) => "challenge without an error".to_owned(),
        Some(challenge) => format!("`{}`", challenge.error().unwrap_or_default()),
    };
    let status = reason.status();
    format!(
        "| `{reason}` | {} | {challenge} | {} |\n",
        status.as_u16(),
        reason.title()
    )
}
