//! `PUT /images/{owner}/{name}`.

use std::{io, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    ImageState, MAX_IMAGE_BYTES,
    conditions::{ETag, if_match_fails, if_none_match_hits},
    facts::Facts,
    folder::{Committed, Incoming, KeptFile},
    inspect::verify,
    name::ImageName,
    workers::{in_time, on_disk},
};
use crate::problem::Problem;

/// How long an upload may take to arrive.
const UPLOAD_TIME: Duration = Duration::from_secs(60);

/// Receives an image, decodes it to see that it is one, and keeps it. With
/// `If-Match` or `If-None-Match`, only over what these allow.
pub(super) async fn write_image(
    State(state): State<Arc<ImageState>>,
    name: ImageName,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    refuse_by_head(&parts.headers)?;
    let Ok(_place) = state.uploads.try_acquire() else {
        return Err(Problem::busy("too many uploads are being received"));
    };
    let folder = state.folder.clone();
    let mut incoming = on_disk(move || folder.receive()).await?.map_err(cannot_write)?;
    let etag = in_upload_time(receive(body, &mut incoming)).await?;
    let (incoming, format) = in_time(state.workers.run(move || {
        let format = verify(&mut incoming.file);
        (incoming, format)
    }))
    .await?;
    let facts = Facts {
        format: format?,
        etag,
    };
    let location = name.location();
    let committed = keep(&state, incoming, name, parts.headers).await?;
    state.facts.remember(committed.identity, facts.clone());
    let etag = (header::ETAG, facts.etag.header());
    Ok(if committed.created {
        let location = [(header::LOCATION, location)];
        (StatusCode::CREATED, [etag], location).into_response()
    } else {
        (StatusCode::NO_CONTENT, [etag]).into_response()
    })
}

/// What can be refused before a byte of the body was read.
fn refuse_by_head(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_RANGE) {
        // RFC 9110, section 14.5: taking a part for the whole would destroy it.
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "partial_upload",
            "an image is uploaded whole: Content-Range is not supported",
        ));
    }
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > MAX_IMAGE_BYTES => Err(too_large()),
        _ => Ok(()),
    }
}

/// Writes the body to the incoming file, and returns its tag.
async fn receive(body: Body, incoming: &mut Incoming) -> Result<ETag, Problem> {
    let file = incoming.file.try_clone().map_err(cannot_write)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut digest = Context::new(&SHA256);
    let mut left = MAX_IMAGE_BYTES;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| interrupted(&error))?;
        left = left.checked_sub(chunk.len() as u64).ok_or_else(too_large)?;
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(cannot_write)?;
    }
    file.flush().await.map_err(cannot_write)?;
    Ok(ETag::of(&digest.finish()))
}

async fn in_upload_time<T>(received: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let slow = |_| {
        Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "upload_too_slow",
            "the image took too long to arrive",
        ))
    };
    timeout(UPLOAD_TIME, received).await.unwrap_or_else(slow)
}

async fn keep(
    state: &Arc<ImageState>,
    incoming: Incoming,
    name: ImageName,
    headers: HeaderMap,
) -> Result<Committed, Problem> {
    let state = Arc::clone(state);
    let committed = on_disk(move || {
        let allowed = |existing: Option<&KeptFile>| allowed(&state, existing, &headers);
        state.folder.commit(incoming, &name, allowed)
    });
    Ok(committed.await??)
}

/// Whether the request's conditions allow writing over what is there.
fn allowed(state: &ImageState, existing: Option<&KeptFile>, headers: &HeaderMap) -> bool {
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH];
    if !conditions.iter().any(|condition| headers.contains_key(condition)) {
        return true;
    }
    // A file that is no image counts as none, as it does to a read.
    let current = existing.and_then(|kept| state.facts.of_blocking(kept).ok());
    let current = current.as_ref().map(|facts| &facts.etag);
    !if_match_fails(headers, current) && !if_none_match_hits(headers, current)
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "upload_too_large",
        format!("an image may have at most {MAX_IMAGE_BYTES} bytes"),
    )
}

fn interrupted(error: &axum::Error) -> Problem {
    tracing::debug!(%error, "an upload broke off");
    Problem::new(
        StatusCode::BAD_REQUEST,
        "upload_interrupted",
        "the upload broke off",
    )
}

fn cannot_write(error: io::Error) -> Problem {
    Problem::internal("receiving an image", &error)
}
