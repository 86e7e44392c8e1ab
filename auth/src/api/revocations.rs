//! `POST /auth/admin/revocations` and `GET /auth/admin/revocations/{run}`; the control socket takes and
//! gives the same.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Parameter, json};
use crate::audit::Actor;
use crate::bearer::Admin;
use crate::json_body::Json;
use crate::problem::{Problem, Reason};
use crate::random;
use crate::selection::{Selection, Totals};
use crate::service::AuthService;
use crate::session_filter::FilterForm;
use crate::store::selections::Selected;

/// Sessions that a page lists where the request does not say.
const DEFAULT_PAGE: u32 = 200;

/// What is to be revoked: exactly one of the first five.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Revocation {
    filter: Option<FilterForm>,
    session: Option<String>,
    token: Option<String>,
    signing_key: Option<String>,
    everyone: Option<bool>,
    dry_run: bool,
    /// The selection that a dry run named.
    expect: Option<String>,
    reason: Option<String>,
    /// Of the list.
    limit: Option<u32>,
    /// The rest of a dry run's list.
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: Option<u32>,
}

enum What {
    Sessions(Selection),
    Token(String),
    SigningKey(String),
}

pub(super) async fn revoke(
    State(service): State<AuthService>,
    admin: Admin,
    Json(form): Json<Revocation>,
) -> Result<Response, Problem> {
    form.run(&service, admin.actor()).await
}

pub(super) async fn list(
    State(service): State<AuthService>,
    _: Admin,
    Parameter(run): Parameter<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    list_run(&service, &run, page).await
}

impl Revocation {
    /// Does, or tries, what it says.
    pub(crate) async fn run(self, service: &AuthService, actor: Actor) -> Result<Response, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_PAGE);
        let (dry_run, after) = (self.dry_run, self.after.clone());
        let (expect, reason) = (self.expect.clone(), self.reason.clone());
        let selection = match self.what()? {
            What::Sessions(selection) => selection,
            // Neither is a list of sessions that could be tried or expected.
            _ if dry_run || expect.is_some() || after.is_some() => return Err(without_sessions()),
            What::Token(id) => {
                let forget_at = service.inner.revoke_token(actor, id.clone(), reason).await?;
                return Ok(json(
                    StatusCode::OK,
                    &json!({ "token": id, "refused_until": forget_at }),
                ));
            }
            What::SigningKey(kid) => {
                let revoked = service
                    .inner
                    .revoke_signing_key(actor, kid.clone(), reason)
                    .await?;
                let body =
                    json!({ "signing_key": kid, "was": revoked.was.name(), "signing": revoked.signing });
                return Ok(json(StatusCode::OK, &body));
            }
        };
        if dry_run {
            let mut read = service.inner.store.snapshot().await?;
            service.inner.still_stands(&mut read, &actor).await?;
        }
        let body = match (dry_run, after) {
            (true, Some(after)) => {
                let (listed, next) = service.inner.preview_rest(&selection, after, limit).await?;
                json!({ "dry_run": true, "sessions": listed_bodies(&listed), "next": next })
            }
            (true, None) => preview(service, &selection, limit).await?,
            (false, Some(_)) => return Err(Reason::InvalidRevocation.into()),
            (false, None) => real(service, actor, selection, expect, reason, limit).await?,
        };
        Ok(json(StatusCode::OK, &body))
    }

    fn what(self) -> Result<What, Problem> {
        let said = (
            self.filter,
            self.session,
            self.token,
            self.signing_key,
            self.everyone,
        );
        match said {
            (Some(filter), None, None, None, None) => Ok(What::Sessions(Selection::Filter(filter))),
            (None, Some(id), None, None, None) => Ok(What::Sessions(Selection::Session(id))),
            (None, None, Some(id), None, None) => Ok(What::Token(id)),
            (None, None, None, Some(kid), None) => Ok(What::SigningKey(kid)),
            (None, None, None, None, Some(true)) => Ok(What::Sessions(Selection::Everyone)),
            _ => Err(Reason::InvalidRevocation.into()),
        }
    }
}

/// A page of the sessions that a run ended.
pub(crate) async fn list_run(
    service: &AuthService,
    run: &str,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|_| Problem::new(Reason::InvalidQuery))?;
    if !random::is_run_id(run) {
        return Err(Reason::NoSuchRevocation.into());
    }
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    let (listed, next) = service.inner.revoked_by(run, &page.after, limit).await?;
    let body = json!({ "run": run, "sessions": listed_bodies(&listed), "next": next });
    Ok(json(StatusCode::OK, &body))
}

async fn preview(service: &AuthService, selection: &Selection, limit: u32) -> Result<Value, Problem> {
    let preview = service.inner.preview_revocation(selection, limit).await?;
    let mut body = totals_body(selection, &preview.totals);
    body["dry_run"] = json!(true);
    body["valid_refresh_tokens"] = json!(preview.valid_refresh_tokens);
    body["sessions"] = json!(listed_bodies(&preview.listed));
    body["next"] = json!(preview.next);
    Ok(body)
}

async fn real(
    service: &AuthService,
    actor: Actor,
    selection: Selection,
    expect: Option<String>,
    reason: Option<String>,
    limit: u32,
) -> Result<Value, Problem> {
    let outcome = service
        .inner
        .revoke_sessions(actor, selection.clone(), expect, reason)
        .await?;
    let mut body = totals_body(&selection, &outcome.totals);
    body["dry_run"] = json!(false);
    body["run"] = json!(outcome.run);
    body["at"] = json!(outcome.at);
    body["valid_refresh_tokens"] = json!(outcome.valid_refresh_tokens);
    // It is done and acknowledged, even where it cannot be listed at present.
    let (listed, next) = service
        .inner
        .revoked_by(&outcome.run, "", limit)
        .await
        .unwrap_or_default();
    body["sessions"] = json!(listed_bodies(&listed));
    body["next"] = json!(next);
    Ok(body)
}

fn totals_body(selection: &Selection, totals: &Totals) -> Value {
    let mut body = selection.described();
    body["selection"] = json!(totals.digest);
    body["counts"] = json!({
        "sessions": totals.sessions,
        "users": totals.users,
        "refresh_tokens": totals.refresh_tokens,
    });
    body
}

fn listed_bodies(listed: &[Selected]) -> Vec<Value> {
    listed
        .iter()
        .map(|found| {
            let session = &found.session;
            json!({
                "id": session.id,
                "user_id": session.user_id,
                "username": found.username,
                "client_id": session.client_id,
                "client_address": session.client_address,
                "user_agent": session.user_agent,
                "created_at": session.created_at,
                "last_used_at": session.last_used_at,
            })
        })
        .collect()
}

fn without_sessions() -> Problem {
    Problem::with_detail(
        Reason::InvalidRevocation,
        "A token and a signing key are not lists of sessions: there is nothing to try, expect or list.",
    )
}
