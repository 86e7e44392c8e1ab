//! Request bodies: JSON objects with exactly the fields that the endpoint knows.
//!
//! serde's derived readers refuse unknown and repeated fields, serde_json refuses everything after
//! the object, lone surrogates and deep nesting; that they do is what the tests hold on to. What the
//! derived readers would let pass is refused here: an array in the place of an object.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::{Problem, Reason};

/// Largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that must be there.
#[derive(Debug)]
pub(crate) struct Json<T>(pub T);

/// A body that may be left out; the fields then have their defaults.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
        check_media_type(request.headers())?;
        parse(&read(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
        let media_type = check_media_type(request.headers());
        let body = read(request).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        media_type?;
        parse(&body).map(Self)
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| value.as_bytes() != b"identity");
    if encoded {
        Err(Reason::ContentEncodingRefused.into())
    } else {
        Ok(())
    }
}

/// A browser sends application/json to another site only after asking it (a CORS preflight, which
/// nothing here answers), so this also keeps other sites' forms out.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Reason::UnsupportedMediaType.into());
    };
    let mut parts = value.to_str().unwrap_or_default().split(';').map(str::trim);
    let essence = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let parameters = parts.all(|parameter| {
        parameter.eq_ignore_ascii_case("charset=utf-8") || parameter.eq_ignore_ascii_case("charset=\"utf-8\"")
    });
    if essence && parameters {
        Ok(())
    } else {
        Err(Reason::UnsupportedMediaType.into())
    }
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Err(_) => Err(Reason::BodyTimeout.into()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Reason::BodyTooLarge.into()),
        Ok(Err(_)) => Err(Problem::with_detail(Reason::InvalidBody, "The body broke off.")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let value = if object {
        serde_json::from_slice(body).ok()
    } else {
        None
    };
    value.ok_or_else(|| Reason::InvalidBody.into())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        name: String,
        #[serde(default)]
        roles: Vec<String>,
        #[serde(default)]
        reason: Option<String>,
    }

    #[test]
    fn only_an_object_with_known_fields_each_once_is_a_body() {
        assert!(parse::<Form>(br#" {"name":"a","roles":["x"],"reason":null} "#).is_ok());
        let deep = format!(r#"{{"name":{}"#, "[".repeat(10_000));
        for bad in [
            "",
            "null",
            r#"["a",[],null]"#,
            r#"{"name":"a","name":"a"}"#,
            r#"{"name":"a","reason":null,"reason":"b"}"#,
            r#"{"name":"a","admin":true}"#,
            r#"{"name":"a","Name":"b"}"#,
            r#"{"name":1}"#,
            r#"{"name":null}"#,
            r#"{}"#,
            r#"{"name":"a"} {}"#,
            r#"{"name":"a",}"#,
            r#"{"name":"\ud800"}"#,
            "{\"name\":\"a\nb\"}",
            "\u{feff}{\"name\":\"a\"}",
            &deep,
            &"[".repeat(1_000_000),
        ] {
            assert!(
                parse::<Form>(bad.as_bytes()).is_err(),
                "{}",
                &bad[..bad.len().min(60)]
            );
        }
        assert!(parse::<Form>(b"{\"name\":\"\xc0\xaf\"}").is_err());
    }

    /// A body that never comes.
    struct Silence;

    impl axum::body::HttpBody for Silence {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for_long() {
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
        let request = request.body(axum::body::Body::new(Silence)).unwrap();
        let refused = Json::<Form>::from_request(request, &()).await.unwrap_err();
        assert_eq!(refused, Problem::new(Reason::BodyTimeout));
    }

    #[test]
    fn only_json_that_is_not_compressed_is_read() {
        let with = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(
                check_media_type(&with(header::CONTENT_TYPE, good)).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "application/json; charset=utf-16",
            "",
        ] {
            assert!(
                check_media_type(&with(header::CONTENT_TYPE, bad)).is_err(),
                "{bad}"
            );
        }
        let mut twice = with(header::CONTENT_TYPE, "application/json");
        twice.append(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert!(check_media_type(&twice).is_err());
        assert!(check_media_type(&HeaderMap::new()).is_err());
        assert!(check_encoding(&with(header::CONTENT_ENCODING, "gzip")).is_err());
        assert!(check_encoding(&HeaderMap::new()).is_ok());
    }
}
