//! The image server: a folder of PNG and JPEG files by owner and name.

mod conditions;
mod ending;
mod facts;
mod file_body;
mod folder;
mod inspect;
mod name;
mod range;
mod read;
mod sample;
mod thumbnail;
mod workers;
mod write;

use std::{io, sync::Arc};

use axum::{Router, middleware, response::Response, routing::get};
use http::{HeaderValue, header};
use tokio::{net::TcpListener, sync::Semaphore};

use self::{facts::FactsCache, thumbnail::ThumbnailCache, workers::Workers};
pub use self::{folder::ImageFolder, sample::sample_png};
use crate::{
    problem::{no_such_method, no_such_path},
    serve,
};

/// Bytes of one image; a longer body is refused with 413.
const MAX_IMAGE_BYTES: u64 = 10 * 1024 * 1024;

/// Uploads received at once, each a temporary file of up to
/// [`MAX_IMAGE_BYTES`]; one more is refused with 503.
const MAX_UPLOADS: usize = 64;

/// Runs the image server for `folder` on `listener` until `shutdown` resolves.
///
/// `GET`, `HEAD` and `PUT` on `/images/{owner}/{name}`; both segments take 1 to
/// 64, and 1 to 128, letters, digits, `-`, `_` and inner `.`:
///
/// - `PUT` takes a PNG or a JPEG that decodes, whatever its name and
///   `Content-Type` say: 201 for a new image, 204 for a replaced one.
/// - `GET` and `HEAD` know strong ETags, `If-Match` and `If-None-Match`; `GET`
///   single ranges with `If-Range`.
/// - `?width=N`, 1 to 2048, asks for a smaller rendition, with its own ETag; an
///   image that is not wider than that is answered as it is.
///
/// Originals are kept byte for byte, with whatever metadata they carry. Nobody
/// is asked who they are: whether a user may read or write an owner's images is
/// the gateway's rule for the path.
///
/// # Errors
///
/// When the listener's own address cannot be read.
pub async fn serve_images(
    listener: TcpListener,
    folder: ImageFolder,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(Arc::new(ImageState::new(folder)));
    serve::serve(listener, router, serve::lifetime(), shutdown).await
}

/// What the handlers share.
struct ImageState {
    folder: ImageFolder,
    uploads: Semaphore,
    workers: Workers,
    facts: FactsCache,
    thumbnails: ThumbnailCache,
}

impl ImageState {
    fn new(folder: ImageFolder) -> Self {
        Self {
            folder,
            uploads: Semaphore::new(MAX_UPLOADS),
            workers: Workers::default(),
            facts: FactsCache::default(),
            thumbnails: ThumbnailCache::default(),
        }
    }
}

fn router(state: Arc<ImageState>) -> Router {
    let image = get(read::read_image).put(write::write_image);
    Router::new()
        .route("/images/{owner}/{name}", image)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::map_response(never_sniffed))
        .with_state(state)
}

/// The bytes are a user's: a browser must take them for the image that their
/// `Content-Type` says, and for nothing else.
async fn never_sniffed(mut response: Response) -> Response {
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
