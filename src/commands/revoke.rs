//! `durward revoke …`: many sessions at once, or one session, token or key, or everyone.

use std::io::{IsTerminal, Write};

use hyper::Method;
use serde_json::{Map, Value, json};

use super::reach::{told, verdict, waiting};
use super::{print, say, table, text, time};
use crate::cli::{FilterArguments, RevokeArguments};
use crate::configuration::control_client;
use crate::control::client::ControlClient;
use crate::exit::Failure;

/// Sessions that are asked for at a time.
const PAGE: u32 = 1000;
/// Sessions that are listed at most.
const MAX_LISTED: usize = 100_000;
/// Sessions that are shown before the question.
const SHOWN_BEFORE_ASKING: usize = 50;

/// Revokes, or says what it would.
pub async fn run(arguments: RevokeArguments) -> Result<(), Failure> {
    let wish = Wish::of(&arguments)?;
    if wish.mode == Mode::Ask && !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "standard input is no terminal to ask on: look at it with --dry-run, then say --yes".into(),
        ));
    }
    let service = control_client(&arguments.client.config)?;
    match wish.mode {
        Mode::Verify => verify(&service, &wish).await,
        Mode::DryRun => {
            let preview = preview(&service, &wish).await?;
            print(wish.json, &preview, dry_run);
            Ok(())
        }
        Mode::Ask if wish.of_sessions => {
            let preview = preview(&service, &wish).await?;
            eprintln!("{}", listed(&preview, SHOWN_BEFORE_ASKING));
            confirm(&question(&preview))?;
            let selection = text(&preview, "selection").to_owned();
            revoke_sessions(&service, &wish, Some(wish.expect.clone().unwrap_or(selection))).await
        }
        Mode::Ask => {
            confirm(&format!("Revoke {}?", wish.described()))?;
            revoke_other(&service, &wish).await
        }
        Mode::Go if wish.of_sessions => revoke_sessions(&service, &wish, wish.expect.clone()).await,
        Mode::Go => revoke_other(&service, &wish).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Verify,
    DryRun,
    Ask,
    Go,
}

/// What the arguments ask for.
struct Wish {
    mode: Mode,
    json: bool,
    /// The member of the request that says what is to be revoked.
    what: (&'static str, Value),
    /// Whether that is a list of sessions.
    of_sessions: bool,
    expect: Option<String>,
    reason: Option<String>,
    /// Where a real run is asked for.
    path: String,
}

impl Wish {
    fn of(arguments: &RevokeArguments) -> Result<Self, Failure> {
        let filter = filter_of(&arguments.filter)?;
        let whats = [
            ("filter", (!filter.is_empty()).then_some(Value::Object(filter))),
            ("session", arguments.session.clone().map(Value::String)),
            ("token", arguments.token.clone().map(Value::String)),
            ("signing_key", arguments.signing_key.clone().map(Value::String)),
            ("everyone", arguments.everyone.then_some(Value::Bool(true))),
        ];
        let mut said = whats.into_iter().filter_map(|(name, what)| Some((name, what?)));
        let (Some(what), None) = (said.next(), said.next()) else {
            return Err(Failure::Usage(
                "say what to revoke: filters, or one of --session, --token, --signing-key and --everyone"
                    .into(),
            ));
        };
        let of_sessions = !matches!(what.0, "token" | "signing_key");
        let of_list = arguments.dry_run || arguments.verify || arguments.expect.is_some();
        if of_list && !of_sessions {
            return Err(Failure::Usage(
                "--dry-run, --verify and --expect are about lists of sessions".into(),
            ));
        }
        let mode = match (arguments.verify, arguments.dry_run, arguments.yes) {
            (true, _, _) => Mode::Verify,
            (_, true, _) => Mode::DryRun,
            (_, _, true) => Mode::Go,
            _ => Mode::Ask,
        };
        Ok(Self {
            mode,
            json: arguments.client.json,
            what,
            of_sessions,
            expect: arguments.expect.clone(),
            reason: arguments.reason.clone(),
            path: waiting("/revocations", &arguments.wait),
        })
    }

    /// A request with these members besides.
    fn request(&self, mut members: Value) -> Value {
        members[self.what.0] = self.what.1.clone();
        members
    }

    fn described(&self) -> String {
        let what = if self.what.0 == "token" {
            "token"
        } else {
            "signing key"
        };
        format!("{what} {}", self.what.1.as_str().unwrap_or_default())
    }
}

fn filter_of(arguments: &FilterArguments) -> Result<Map<String, Value>, Failure> {
    let FilterArguments {
        ip,
        user_agent,
        issued_before,
        issued_after,
        created_before,
        created_after,
        role,
        user,
        client_ids,
    } = arguments;
    let mut filter = Map::new();
    for (name, values) in [
        ("ip", ip),
        ("user_agent", user_agent),
        ("role", role),
        ("user", user),
        ("client", client_ids),
    ] {
        if !values.is_empty() {
            filter.insert(name.to_owned(), json!(values));
        }
    }
    for (name, flag, instant) in [
        ("issued_before", "--issued-before", issued_before),
        ("issued_after", "--issued-after", issued_after),
        ("created_before", "--created-before", created_before),
        ("created_after", "--created-after", created_after),
    ] {
        if let Some(instant) = instant {
            filter.insert(name.to_owned(), json!(time::parse(flag, instant)?));
        }
    }
    Ok(filter)
}

/// What would be hit, with the whole list.
async fn preview(service: &ControlClient, wish: &Wish) -> Result<Value, Failure> {
    let first = wish.request(json!({ "dry_run": true, "limit": PAGE }));
    let mut answer = service.call(Method::POST, "/revocations", Some(first)).await?;
    while let Some(after) = rest_of(&answer) {
        let next = wish.request(json!({ "dry_run": true, "limit": PAGE, "after": after }));
        append(
            &mut answer,
            service.call(Method::POST, "/revocations", Some(next)).await?,
        );
    }
    if is_whole(&answer) && digest_of(&answer) != text(&answer, "selection") {
        return Err(Failure::Failed(
            "the selection changed while it was being listed: try again".into(),
        ));
    }
    Ok(answer)
}

async fn revoke_sessions(
    service: &ControlClient,
    wish: &Wish,
    expect: Option<String>,
) -> Result<(), Failure> {
    let request =
        wish.request(json!({ "dry_run": false, "limit": PAGE, "expect": expect, "reason": wish.reason }));
    let mut answer = service.call(Method::POST, &wish.path, Some(request)).await?;
    // It is done: what fails from here on is said, and changes nothing.
    if let Err(failure) = list_rest(service, &mut answer).await {
        eprintln!("durward: revoked, but not all of it could be listed: {failure}");
    } else if is_whole(&answer) && digest_of(&answer) != text(&answer, "selection") {
        eprintln!("durward: revoked, but the list is not the selection: read `durward audit`");
    }
    print(wish.json, &answer, |answer| told(revoked(answer), answer));
    verdict(&answer)
}

async fn list_rest(service: &ControlClient, answer: &mut Value) -> Result<(), Failure> {
    while let Some(after) = rest_of(answer) {
        let path = format!("/revocations/{}?limit={PAGE}&after={after}", text(answer, "run"));
        let page = service.call(Method::GET, &path, None).await?;
        append(answer, page);
    }
    Ok(())
}

async fn revoke_other(service: &ControlClient, wish: &Wish) -> Result<(), Failure> {
    let request = wish.request(json!({ "reason": wish.reason }));
    let answer = service.call(Method::POST, &wish.path, Some(request)).await?;
    print(wish.json, &answer, |answer| told(refused(wish, answer), answer));
    verdict(&answer)
}

fn refused(wish: &Wish, answer: &Value) -> String {
    match text(answer, "was") {
        "" => format!("{} is refused; its session goes on", wish.described()),
        "unknown" => format!(
            "{} is refused, for ever; it is none of this service's keys now",
            wish.described()
        ),
        was => format!(
            "{} (it was {was}) is refused, for ever; {} signs; sessions go on",
            wish.described(),
            text(answer, "signing")
        ),
    }
}

async fn verify(service: &ControlClient, wish: &Wish) -> Result<(), Failure> {
    let request = wish.request(json!({ "dry_run": true, "limit": 1 }));
    let answer = service.call(Method::POST, "/revocations", Some(request)).await?;
    let (sessions, tokens) = (
        count(&answer, "sessions"),
        answer["valid_refresh_tokens"].as_u64(),
    );
    let left = format!(
        "{sessions} live sessions and {} valid refresh tokens match",
        tokens.map_or_else(|| "an unknown number of".to_owned(), |tokens| tokens.to_string())
    );
    if wish.json {
        say(format_args!("{answer:#}"));
    }
    if sessions == 0 && tokens == Some(0) {
        if !wish.json {
            say(left);
        }
        return Ok(());
    }
    Err(Failure::No(left))
}

/// After which session the list goes on; nothing where it is whole, or long enough.
fn rest_of(answer: &Value) -> Option<String> {
    let listed = answer["sessions"].as_array().map_or(0, Vec::len);
    let next = answer["next"].as_str().filter(|_| listed < MAX_LISTED)?;
    Some(next.to_owned())
}

fn append(answer: &mut Value, mut page: Value) {
    if let (Some(listed), Some(more)) = (answer["sessions"].as_array_mut(), page["sessions"].as_array_mut()) {
        listed.append(more);
    }
    answer["next"] = page["next"].take();
}

fn is_whole(answer: &Value) -> bool {
    answer["next"].is_null()
}

/// What the service names a selection by: SHA-256 of the ids, each followed by a line feed.
fn digest_of(answer: &Value) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for session in sessions_of(answer) {
        digest.update(text(session, "id").as_bytes());
        digest.update(b"\n");
    }
    let digest = digest.finish();
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sessions_of(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["sessions"].as_array().into_iter().flatten()
}

fn count(answer: &Value, name: &str) -> u64 {
    answer["counts"][name].as_u64().unwrap_or_default()
}

fn counted(answer: &Value) -> String {
    let number = |name: &str, one: &str, many: &str| match count(answer, name) {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let sessions = number("sessions", "session", "sessions");
    format!("{sessions} of {}", number("users", "user", "users"))
}

fn question(preview: &Value) -> String {
    format!("Revoke {}?", counted(preview))
}

/// Asks, and takes nothing but `yes`.
fn confirm(question: &str) -> Result<(), Failure> {
    eprint!("{question} Type yes: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::failed)?;
    if line.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::No("nothing was revoked".into()))
    }
}

fn dry_run(preview: &Value) -> String {
    format!(
        "{}\n{} would be revoked, with {} refresh tokens\nselection {}",
        listed(preview, MAX_LISTED),
        counted(preview),
        count(preview, "refresh_tokens"),
        text(preview, "selection")
    )
}

fn revoked(answer: &Value) -> String {
    let left = match answer["valid_refresh_tokens"].as_u64() {
        Some(0) => "0 valid refresh tokens match now, counted after the commit".to_owned(),
        Some(left) => {
            format!("{left} valid refresh tokens match now, of sessions opened since: run it again")
        }
        None => "what is left could not be counted: ask with --verify".to_owned(),
    };
    format!(
        "{}\n{} revoked, with {} refresh tokens\nrun {}, selection {}\n{left}",
        listed(answer, MAX_LISTED),
        counted(answer),
        count(answer, "refresh_tokens"),
        text(answer, "run"),
        text(answer, "selection"),
    )
}

fn listed(answer: &Value, most: usize) -> String {
    let rows: Vec<Vec<String>> = sessions_of(answer).take(most).map(row).collect();
    let shown = rows.len() as u64;
    let header = ["SESSION", "USER", "ADDRESS", "USER AGENT", "CREATED", "LAST USED"];
    let mut text = table(&header, &rows);
    let more = count(answer, "sessions").saturating_sub(shown);
    if more > 0 {
        text.push_str(&format!("\n… and {more} more"));
    }
    text
}

fn row(session: &Value) -> Vec<String> {
    let mut row: Vec<String> = ["id", "username", "client_address", "user_agent"]
        .map(|name| text(session, name).to_owned())
        .to_vec();
    row.extend(["created_at", "last_used_at"].map(|name| time::shown(session, name)));
    row
}
