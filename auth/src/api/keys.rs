//! Signing keys: the list, and a rotation. For administrators, and for the control socket.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::json;
use crate::audit::Actor;
use crate::bearer::Admin;
use crate::json_body::OptionalJson;
use crate::key_rotation::{KeyState, Rotation};
use crate::problem::{Problem, Reason};
use crate::service::AuthService;

/// How the signing key is to change.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RotationForm {
    /// Without announcing the new key first.
    now: bool,
    /// Refuses what the old key signed; that is at once, too.
    revoke: bool,
    /// Why it is revoked.
    reason: Option<String>,
}

pub(super) async fn list(State(service): State<AuthService>, _: Admin) -> Result<Response, Problem> {
    Ok(listed(&service))
}

pub(super) async fn rotate(
    State(service): State<AuthService>,
    admin: Admin,
    OptionalJson(form): OptionalJson<RotationForm>,
) -> Result<Response, Problem> {
    form.run(&service, admin.actor()).await
}

/// The keys that are published, the one that signs first.
pub(crate) fn listed(service: &AuthService) -> Response {
    let ring = service.inner.tokens.keys();
    let algorithm = service.config().signing_algorithm.name();
    let mut keys = vec![json!({
        "kid": ring.signing.kid(), "algorithm": algorithm, "state": KeyState::Signing.name(),
    })];
    keys.extend(ring.announced.iter().map(|announced| {
        json!({
            "kid": announced.key.kid(), "algorithm": algorithm, "state": KeyState::Announced.name(),
            "signs_from": announced.signs_from,
        })
    }));
    keys.extend(ring.retiring.iter().map(|key| {
        json!({
            "kid": key.kid(), "algorithm": key.algorithm(), "state": KeyState::Retiring.name(),
            "until": key.until,
        })
    }));
    json(StatusCode::OK, &json!({ "keys": keys }))
}

impl RotationForm {
    /// Does what it says.
    pub(crate) async fn run(self, service: &AuthService, actor: Actor) -> Result<Response, Problem> {
        let Self { now, revoke, reason } = self;
        let body = match revoke {
            true => revoked(service, actor, reason).await?,
            false if reason.is_some() => {
                return Err(Problem::with_detail(
                    Reason::InvalidRevocation,
                    "A reason is for a key that is revoked.",
                ));
            }
            false => rotated(service.inner.rotate_signing_key(actor, now).await?),
        };
        Ok(json(StatusCode::OK, &body))
    }
}

fn rotated(rotation: Rotation) -> Value {
    match rotation {
        Rotation::Announced(new) => json!({
            "announced": new.announced, "signs_from": new.signs_from, "signing": new.signing,
        }),
        Rotation::Done(rotated) => json!({
            "signing": rotated.signing, "retiring": rotated.retiring, "until": rotated.until,
        }),
    }
}

async fn revoked(service: &AuthService, actor: Actor, reason: Option<String>) -> Result<Value, Problem> {
    // Another process may have changed it a moment ago.
    service.inner.read_keys().await?;
    let kid = service.inner.tokens.keys().signing.kid().to_owned();
    let revoked = service
        .inner
        .revoke_signing_key(actor, kid.clone(), reason)
        .await?;
    Ok(json!({ "signing_key": kid, "was": revoked.was.name(), "signing": revoked.signing }))
}
