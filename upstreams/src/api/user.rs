//! Who is asking: the identity headers, taken on trust.

use axum::extract::FromRequestParts;
use http::{HeaderMap, StatusCode, request::Parts};
use serde::Serialize;

use crate::problem::Problem;

/// The header that names the user.
const USER_ID: &str = "x-user-id";

/// The header that lists the user's roles, joined with `,`.
const USER_ROLES: &str = "x-user-roles";

/// Bytes of a user id. Longer ones are refused: ids are kept as map keys.
const MAX_USER_ID_BYTES: usize = 256;

/// The user that the gateway vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct User {
    /// The value of `X-User-Id`.
    #[serde(rename = "user_id")]
    pub(super) id: String,
    /// The values of `X-User-Roles`; empty without the header.
    pub(super) roles: Vec<String>,
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers)
    }
}

impl User {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(id) = the_only(headers, USER_ID)? else {
            // Not 401: that word asks for a credential, and this server has no
            // use for one. The request came the wrong way.
            return Err(bad_identity(
                "not_behind_gateway",
                "no X-User-Id header: this server expects to be behind the gateway, \
                 which sets it; send the request there",
            ));
        };
        if id.is_empty() || id.len() > MAX_USER_ID_BYTES {
            return Err(bad_identity("bad_user_id", "X-User-Id must have 1 to 256 bytes"));
        }
        let roles = the_only(headers, USER_ROLES)?.unwrap_or_default();
        let roles = roles.split(',').map(str::trim).filter(|role| !role.is_empty());
        Ok(Self {
            id: id.to_owned(),
            roles: roles.map(str::to_owned).collect(),
        })
    }
}

/// The value of a header that may come once. Twice could mean that somebody
/// added one to the gateway's, so there is no choosing between them.
fn the_only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad_identity(
            "repeated_identity_header",
            "X-User-Id and X-User-Roles may each come once only",
        ));
    }
    let readable = value.to_str().map_err(|_| {
        bad_identity(
            "bad_identity_header",
            "X-User-Id and X-User-Roles must be printable ASCII",
        )
    })?;
    Ok(Some(readable))
}

fn bad_identity(code: &'static str, detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn user(lines: &[(&'static str, &str)]) -> Result<User, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        User::from_headers(&headers)
    }

    #[test]
    fn roles_are_a_list_and_may_be_absent() {
        let cases: [(Option<&str>, &[&str]); 5] = [
            (None, &[]),
            (Some(""), &[]),
            (Some("admin"), &["admin"]),
            (Some("admin,editor"), &["admin", "editor"]),
            (Some("admin, ,editor,"), &["admin", "editor"]),
        ];
        for (header, roles) in cases {
            let mut lines = vec![(USER_ID, "alice")];
            lines.extend(header.map(|value| (USER_ROLES, value)));
            let user = user(&lines).unwrap();
            assert_eq!((user.id.as_str(), &*user.roles), ("alice", &*owned(roles)));
        }
    }

    fn owned(roles: &[&str]) -> Vec<String> {
        roles.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_identity_that_is_not_one_is_refused() {
        let longest = "u".repeat(MAX_USER_ID_BYTES);
        assert!(user(&[(USER_ID, &longest)]).is_ok());
        let too_long = "u".repeat(MAX_USER_ID_BYTES + 1);
        let cases: [(&[(&'static str, &str)], &str); 7] = [
            (&[], "not_behind_gateway"),
            (&[(USER_ROLES, "admin")], "not_behind_gateway"),
            (&[(USER_ID, "")], "bad_user_id"),
            (&[(USER_ID, &too_long)], "bad_user_id"),
            (&[(USER_ID, "j\u{e9}r\u{f4}me")], "bad_identity_header"),
            (
                &[(USER_ID, "alice"), (USER_ID, "bob")],
                "repeated_identity_header",
            ),
            (
                &[(USER_ID, "alice"), (USER_ROLES, "a"), (USER_ROLES, "b")],
                "repeated_identity_header",
            ),
        ];
        for (lines, code) in cases {
            let problem = format!("{:?}", user(lines).unwrap_err());
            assert!(problem.contains(code), "{lines:?}: {problem}");
        }
    }
}
