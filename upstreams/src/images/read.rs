//! `GET` and `HEAD /images/{owner}/{name}`.

use std::{fs::File, ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

use super::{
    ImageState,
    conditions::{ETag, if_match_fails, if_none_match_hits, if_range_holds},
    file_body::file_body,
    folder::{KeptFile, NotKept},
    inspect::BadImage,
    name::ImageName,
    range::{Selected, select},
    thumbnail::{Rendition, Size},
    workers::{in_time, on_disk},
};
use crate::problem::Problem;

/// A browser may keep an image for its user, but asks before it shows it
/// again: a user who lost their access is then refused, and everybody else is
/// answered 304.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");

impl FromRequestParts<Arc<ImageState>> for ImageName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ImageState>) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        // What is not UTF-8 once decoded is no better than the empty name.
        let (owner, name) = path.map_or_else(|_| Default::default(), |Path(segments)| segments);
        Ok(Self::parse(&owner, &name)?)
    }
}

/// Answers with the image, or with what the request's headers ask of it.
pub(super) async fn read_image(
    State(state): State<Arc<ImageState>>,
    name: ImageName,
    size: Result<Query<Size>, QueryRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let width = size.map_err(|_| Size::bad_width())?.width()?;
    let folder = state.folder.clone();
    let kept = on_disk(move || folder.kept(&name)).await?;
    let kept = kept.map_err(BadImage::from)?.ok_or_else(no_such_image)?;
    let image = in_time(represent(&state, kept, width)).await?;
    image.answer(&method, &headers)
}

/// The answer where there is nothing to answer with.
pub(super) fn no_such_image() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_image",
        "there is no image of this owner and name",
    )
}

async fn represent(
    state: &ImageState,
    kept: KeptFile,
    width: Option<u32>,
) -> Result<Representation, Problem> {
    let facts = state.facts.of(&kept, &state.workers).await?;
    let rendition = match width {
        None => Rendition::Original,
        Some(width) => state.thumbnails.of(&kept, &facts, width, &state.workers).await?,
    };
    let (content, etag) = match rendition {
        Rendition::Original => (Content::File(kept.file, kept.length), facts.etag),
        Rendition::Smaller { bytes, etag } => (Content::Memory(bytes), etag),
    };
    Ok(Representation {
        media_type: facts.format.media_type(),
        etag,
        content,
    })
}

/// What there is to send, before the request's conditions are asked.
struct Representation {
    media_type: HeaderValue,
    etag: ETag,
    content: Content,
}

enum Content {
    File(File, u64),
    Memory(Bytes),
}

impl Content {
    fn length(&self) -> u64 {
        match self {
            Self::File(_, length) => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn part(self, range: Range<u64>) -> Body {
        match self {
            Self::File(file, _) => file_body(file, range),
            Self::Memory(bytes) => Body::from(bytes.slice(range.start as usize..range.end as usize)),
        }
    }
}

impl Representation {
    /// The order of RFC 9110, section 13.2.2.
    fn answer(self, method: &Method, headers: &HeaderMap) -> Result<Response, Problem> {
        if if_match_fails(headers, Some(&self.etag)) {
            return Err(NotKept::Precondition.into());
        }
        if if_none_match_hits(headers, Some(&self.etag)) {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            self.describe(response.headers_mut());
            return Ok(response);
        }
        match self.selected(method, headers) {
            Selected::Whole => Ok(self.whole()),
            Selected::Part(range) => Ok(self.part(range)),
            Selected::Unsatisfiable => Ok(self.unsatisfiable()),
        }
    }

    /// A range is defined for GET alone (section 14.2).
    fn selected(&self, method: &Method, headers: &HeaderMap) -> Selected {
        let mut ranges = headers.get_all(header::RANGE).iter();
        match (ranges.next(), ranges.next()) {
            (Some(range), None) if method == Method::GET && if_range_holds(headers, &self.etag) => range
                .to_str()
                .map_or(Selected::Whole, |range| select(range, self.content.length())),
            _ => Selected::Whole,
        }
    }

    /// The headers of every answer that is about this representation.
    fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(header::ETAG, self.etag.header());
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    }

    fn whole(self) -> Response {
        let range = 0..self.content.length();
        self.send(StatusCode::OK, range)
    }

    fn part(self, range: Range<u64>) -> Response {
        let length = self.content.length();
        let sent = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        let mut response = self.send(StatusCode::PARTIAL_CONTENT, range);
        response.headers_mut().insert(header::CONTENT_RANGE, ascii(&sent));
        response
    }

    fn send(self, status: StatusCode, range: Range<u64>) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        self.describe(headers);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        headers.insert(header::CONTENT_TYPE, self.media_type);
        *response.body_mut() = self.content.part(range);
        response
    }

    fn unsatisfiable(&self) -> Response {
        let length = self.content.length();
        let problem = Problem::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            format!("the image has {length} bytes, none of them in this range"),
        );
        let mut response = problem.into_response();
        let whole = ascii(&format!("bytes */{length}"));
        response.headers_mut().insert(header::CONTENT_RANGE, whole);
        response
    }
}

fn ascii(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("digits and punctuation")
}
