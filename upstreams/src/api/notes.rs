//! `/api/notes`: the notes of the user who asks, and of nobody else.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{
        FromRequest, Path, Request, State,
        rejection::{JsonRejection, PathRejection},
    },
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    ApiState,
    note_store::{Note, NoteRefused},
    user::User,
};
use crate::problem::Problem;

/// Bytes of a request body: a note at its limit, every byte of it written as
/// a JSON escape, fits.
pub(super) const MAX_BODY_BYTES: usize = 32 * 1024;

/// How long a request body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What a client sends to add a note.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewNote {
    text: String,
}

/// The user's notes, oldest first.
#[derive(Debug, Serialize)]
pub(super) struct Notes {
    notes: Vec<Note>,
}

/// `GET /api/notes`.
pub(super) async fn list(State(state): State<Arc<ApiState>>, user: User) -> Json<Notes> {
    Json(Notes {
        notes: state.notes.list(&user.id),
    })
}

/// `POST /api/notes`: 201 with the note and its `Location`.
pub(super) async fn add(
    State(state): State<Arc<ApiState>>,
    user: User,
    request: Request,
) -> Result<Response, Problem> {
    let new = new_note(request).await?;
    let note = state.notes.add(&user.id, &new.text)?;
    let location = format!("/api/notes/{}", note.id);
    let created = StatusCode::CREATED;
    Ok((created, [(header::LOCATION, location)], Json(note)).into_response())
}

/// `GET /api/notes/{id}`.
pub(super) async fn read(
    State(state): State<Arc<ApiState>>,
    user: User,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<Note>, Problem> {
    let Path(id) = id.map_err(|_| no_such_note())?;
    let note = state.notes.get(&user.id, id);
    note.map(Json).ok_or_else(no_such_note)
}

/// `DELETE /api/notes/{id}`: 204.
pub(super) async fn delete(
    State(state): State<Arc<ApiState>>,
    user: User,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| no_such_note())?;
    if state.notes.delete(&user.id, id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_such_note())
    }
}

async fn new_note(request: Request) -> Result<NewNote, Problem> {
    let body = timeout(BODY_TIME, Json::<NewNote>::from_request(request, &()));
    let Json(new) = body.await.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            "the body took too long to arrive",
        )
    })??;
    Ok(new)
}

/// The same for a note that never was and one of somebody else's.
fn no_such_note() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_note",
        "you have no note of this id",
    )
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = match &rejection {
            JsonRejection::MissingJsonContentType(_) => "not_json",
            JsonRejection::JsonSyntaxError(_) | JsonRejection::JsonDataError(_) => "bad_body",
            _ if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            _ => "unreadable_body",
        };
        Self::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<NoteRefused> for Problem {
    fn from(refused: NoteRefused) -> Self {
        // 409 where the user can make room, 507 where they cannot.
        let (status, code) = match refused {
            NoteRefused::Empty => (StatusCode::UNPROCESSABLE_ENTITY, "empty_note"),
            NoteRefused::TooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "note_too_long"),
            NoteRefused::TooMany { .. } => (StatusCode::CONFLICT, "too_many_notes"),
            NoteRefused::StoreFull => (StatusCode::INSUFFICIENT_STORAGE, "store_full"),
        };
        Self::new(status, code, refused.to_string())
    }
}
