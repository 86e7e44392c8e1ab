//! Refusals: problem details (RFC 9457) with one reason from a closed vocabulary, and the error
//! shapes of RFC 6749 where OAuth clients look for them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::store::StoreError;

/// Declares the vocabulary once: variant, code, status and sentence stand in one row.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:ident, $detail:literal;)+) => {
        /// Why the auth service refuses, beyond what is wrong with an access token (for that it
        /// uses the gateway's reasons).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word for it in bodies, logs, metrics and docs.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The status of the response.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The sentence for people, where there is none that is more exact.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)+ }
            }
        }
    };
}

reasons! {
    /// The body is not a JSON object with exactly the fields that the endpoint knows.
    InvalidBody = "invalid_body", BAD_REQUEST, "The body is not a JSON object with the fields that are known here.";
    /// The query has what the endpoint does not know.
    InvalidQuery = "invalid_query", BAD_REQUEST, "The query has a parameter or a value that is not known here.";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.";
    /// The body is compressed.
    ContentEncodingRefused = "content_encoding_refused", UNSUPPORTED_MEDIA_TYPE, "A body with a Content-Encoding is not accepted.";
    /// The body is too large.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large.";
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "The body did not arrive in time.";
    /// The user name cannot be one.
    InvalidUsername = "invalid_username", BAD_REQUEST, "A user name has 2 to 64 letters a-z, digits, dots, dashes and underscores, and begins and ends with a letter or digit.";
    /// The password is too short.
    PasswordTooShort = "password_too_short", BAD_REQUEST, "The password must have at least 8 characters.";
    /// The password is too long.
    PasswordTooLong = "password_too_long", BAD_REQUEST, "The password must have at most 256 characters.";
    /// The password is one of the first that an attacker tries.
    PasswordTooCommon = "password_too_common", BAD_REQUEST, "The password is too easy to guess.";
    /// A role's name cannot be one, or there are too many.
    InvalidRole = "invalid_role", BAD_REQUEST, "A role has 1 to 64 letters a-z, digits, dashes and underscores; a user has at most 32.";
    /// The text for a ban is too long or has control characters.
    InvalidBanReason = "invalid_ban_reason", BAD_REQUEST, "The reason of a ban is a text of at most 500 characters.";
    /// The name of a service cannot be one.
    InvalidService = "invalid_service", BAD_REQUEST, "A service has a name of 1 to 64 letters a-z, digits, dashes and dots, and begins and ends with a letter or digit.";
    /// A scope cannot be one, or there are too many.
    InvalidScope = "invalid_scope", BAD_REQUEST, "A scope has 1 to 64 letters, digits and . _ : / -; a key has at most 32.";
    /// The life of a key is too long, or no time.
    InvalidExpiry = "invalid_expiry", BAD_REQUEST, "expires_in is from one second to ten years, in seconds, or the word never.";
    /// The name of a client certificate cannot be one.
    InvalidCertificate = "invalid_certificate", BAD_REQUEST, "A certificate is named dns:HOST, uri:URI or sha256:FINGERPRINT, without wildcards.";
    /// The certificate belongs to a service, or its grant was revoked.
    CertificateTaken = "certificate_taken", CONFLICT, "The certificate is granted already; revoke that grant first.";
    /// No more API keys are accepted at a time.
    TooManyApiKeys = "too_many_api_keys", CONFLICT, "There are too many API keys; revoke some.";
    /// The user name belongs to somebody.
    UsernameTaken = "username_taken", CONFLICT, "The user name is taken.";
    /// Accounts are made by the operator only.
    RegistrationClosed = "registration_closed", FORBIDDEN, "Registration is closed.";
    /// User name and password do not belong together. The same for an unknown user.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "The user name or the password is wrong.";
    /// The user is banned; said only to who knows the password or holds a token.
    Banned = "banned", FORBIDDEN, "The user is banned.";
    /// Too many failures or too many requests.
    TooManyAttempts = "too_many_attempts", TOO_MANY_REQUESTS, "Too many attempts; try again later.";
    /// The refresh token is not one that is known here.
    RefreshTokenUnknown = "refresh_token_unknown", BAD_REQUEST, "The refresh token is not valid.";
    /// The refresh token, or its session, has expired.
    RefreshTokenExpired = "refresh_token_expired", BAD_REQUEST, "The refresh token has expired.";
    /// The refresh token had been used before: its session was ended.
    RefreshTokenReused = "refresh_token_reused", BAD_REQUEST, "The refresh token had been used before; its session is ended.";
    /// The session of the refresh token has been ended.
    SessionEnded = "session_ended", BAD_REQUEST, "The session has been ended.";
    /// The refresh token's user is banned.
    UserBanned = "user_banned", BAD_REQUEST, "The user is banned.";
    /// Only for users with the role admin.
    AdminRequired = "admin_required", FORBIDDEN, "Only an administrator may do this.";
    /// No such user.
    NoSuchUser = "no_such_user", NOT_FOUND, "There is no such user.";
    /// No such session, or not one of this user.
    NoSuchSession = "no_such_session", NOT_FOUND, "There is no such session.";
    /// No such API key.
    NoSuchApiKey = "no_such_api_key", NOT_FOUND, "There is no such API key.";
    /// What is to be revoked is not said, or not in a form that can be.
    InvalidRevocation = "invalid_revocation", BAD_REQUEST, "Name exactly one of filter, session, token, signing_key and everyone.";
    /// The sessions that are meant are no longer those that were expected.
    SelectionChanged = "selection_changed", CONFLICT, "The selection has changed; nothing was revoked.";
    /// More sessions are meant than one run ends.
    SelectionTooLarge = "selection_too_large", CONFLICT, "Too many sessions are meant; narrow the filter.";
    /// No such run.
    NoSuchRevocation = "no_such_revocation", NOT_FOUND, "There is no such revocation.";
    /// More old signing keys are still published than should be.
    TooManyKeys = "too_many_keys", CONFLICT, "Too many old keys are still published; wait until one has been retired.";
    /// A rotation is under way.
    KeyAnnounced = "signing_key_announced", CONFLICT, "A new signing key is announced already; rotate now to have it sign at once.";
    /// No such path.
    NotFound = "not_found", NOT_FOUND, "Nothing is served here.";
    /// The path does not take the method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here.";
    /// A limit on concurrent work is reached.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The service is overloaded; try again.";
    /// The key that signs is revoked, or keys are being changed elsewhere.
    KeysUnavailable = "signing_key_unavailable", SERVICE_UNAVAILABLE, "There is no signing key to be had at present; try again.";
    /// The database does not answer.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The service cannot answer at present; try again.";
    /// A fault of the service's own.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The service has failed.";
}

/// Seconds of `Retry-After` where a limit on concurrent work was reached.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    code: &'static str,
    status: StatusCode,
    detail: Cow<'static, str>,
    challenge: Option<&'static str>,
    retry_after: Option<Duration>,
    oauth_error: Option<&'static str>,
}

impl Problem {
    /// The refusal of this reason with its own sentence.
    pub fn new(reason: Reason) -> Self {
        let challenge = match reason {
            // RFC 9110 section 15.5.2: every 401 carries a challenge.
            Reason::InvalidCredentials => Some(r#"Bearer realm="durward""#),
            Reason::AdminRequired => Some(r#"Bearer realm="durward", error="insufficient_scope""#),
            _ => None,
        };
        Self {
            code: reason.code(),
            status: reason.status(),
            detail: Cow::Borrowed(reason.detail()),
            challenge,
            retry_after: (reason.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SOON),
            oauth_error: None,
        }
    }

    /// The refusal of this reason with a sentence that is more exact. It goes to the client.
    pub fn with_detail(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            detail: detail.into(),
            ..Self::new(reason)
        }
    }

    /// 429 with the time after which another attempt may succeed.
    pub fn too_many_attempts(retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(Reason::TooManyAttempts)
        }
    }

    /// 500: the cause goes to the log only.
    pub fn internal(doing: &'static str, cause: &dyn fmt::Display) -> Self {
        tracing::error!(%cause, "failed while {doing}");
        Self::new(Reason::Internal)
    }

    /// The word of the vocabulary.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The same refusal as RFC 6749 section 5.2 wants it from a token endpoint: `error` and
    /// `error_description` beside the members of RFC 9457, as application/json.
    #[must_use]
    pub fn at_token_endpoint(mut self) -> Self {
        let grant = [
            Reason::RefreshTokenUnknown,
            Reason::RefreshTokenExpired,
            Reason::RefreshTokenReused,
            Reason::SessionEnded,
            Reason::UserBanned,
        ];
        self.oauth_error = Some(if grant.iter().any(|reason| reason.code() == self.code) {
            "invalid_grant"
        } else if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            "server_error"
        } else if self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS {
            "temporarily_unavailable"
        } else {
            "invalid_request"
        });
        self
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

/// What is wrong with a request or its credential is said in the gateway's words. The cause is for
/// the log only.
impl From<durward_policy::Rejection> for Problem {
    fn from(rejection: durward_policy::Rejection) -> Self {
        tracing::debug!(reason = rejection.reason.code(), cause = %rejection.cause, "credential refused");
        Self {
            code: rejection.reason.code(),
            status: rejection.reason.status(),
            detail: Cow::Owned(format!("{}.", rejection.reason.title())),
            challenge: rejection
                .reason
                .challenge()
                .map(durward_policy::Challenge::header_value),
            retry_after: None,
            oauth_error: None,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::QueueFull => Self::new(Reason::Overloaded),
            StoreError::Sql(cause) => {
                tracing::error!(%cause, "the database refused");
                Self::new(Reason::StoreUnavailable)
            }
            StoreError::Silent | StoreError::Aborted => {
                tracing::error!(cause = %error, "the database refused");
                Self::new(Reason::StoreUnavailable)
            }
            StoreError::Corrupt(what) => Self::internal("reading the database", &what),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "reason": self.code,
        });
        let mut media_type = "application/problem+json";
        if let Some(error) = self.oauth_error {
            body["error"] = error.into();
            body["error_description"] = body["detail"].clone();
            media_type = "application/json";
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_words_and_unique() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        );
    }

    #[test]
    fn every_401_has_a_challenge_and_every_503_says_when_to_come_back() {
        for reason in Reason::ALL {
            let response = Problem::new(*reason).into_response();
            assert_eq!(response.status() == 401, reason.status() == 401);
            if response.status() == 401 {
                assert!(
                    response.headers().contains_key("www-authenticate"),
                    "{}",
                    reason.code()
                );
            }
            if response.status() == 503 {
                assert_eq!(response.headers()["retry-after"], "1");
            }
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
    }

    #[test]
    fn waiting_is_rounded_up_to_whole_seconds() {
        let response = Problem::too_many_attempts(Duration::from_millis(1500)).into_response();
        assert_eq!(response.headers()["retry-after"], "2");
    }
}
