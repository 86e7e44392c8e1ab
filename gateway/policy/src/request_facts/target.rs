//! The forms of a request target (RFC 9112 section 3.2).

use http::{Method, Version};

use crate::host::Host;
use crate::path::{JudgedPath, judge_query};
use crate::{Reason, Rejection};

/// The longest request target, in bytes (RFC 9110 section 4.1 asks for at least 8000).
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The schemes of an absolute-form, with the port that each means.
const SCHEMES: [(&str, u16); 2] = [("http://", 80), ("https://", 443)];

/// The target in origin-form, as a part of what came.
pub(super) fn origin_form<'r>(
    target: &'r [u8],
    method: &Method,
    version: Version,
    host: &Host<'_>,
) -> Result<&'r [u8], Rejection> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(Rejection::new(Reason::UriTooLong, "the target is too long"));
    }
    match target.first() {
        Some(b'/') => Ok(target),
        Some(b'*') if target.len() == 1 && *method == Method::OPTIONS => Err(Rejection::new(
            Reason::NoRoute,
            "there are no routes for the asterisk-form",
        )),
        // RFC 9113 section 8.3.1: `:path` is never in absolute-form.
        _ if version == Version::HTTP_2 => Err(bad(":path does not begin with a slash")),
        _ => from_absolute_form(target, host),
    }
}

/// Judges path and query.
pub(super) fn judge(target: &[u8]) -> Result<JudgedPath<'_>, Rejection> {
    let end = target
        .iter()
        .position(|byte| *byte == b'?')
        .unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    judge_query(query)?;
    JudgedPath::judge(path)
}

/// Absolute-form is accepted where it names the host that Host names: whichever of the two a backend
/// goes by, it serves the host that was judged.
fn from_absolute_form<'r>(target: &'r [u8], host: &Host<'_>) -> Result<&'r [u8], Rejection> {
    let scheme = SCHEMES.iter().find(|(scheme, _)| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    });
    let Some((scheme, default_port)) = scheme else {
        return Err(bad("the target does not begin with a slash"));
    };
    let rest = &target[scheme.len()..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, origin) = rest.split_at(end);
    if authority.contains(&b'@') {
        return Err(bad("the target has userinfo"));
    }
    let named = Host::parse(authority).map_err(bad)?;
    if !named.is_same(host, *default_port) {
        return Err(Rejection::new(Reason::BadHost, "the target and Host differ"));
    }
    match origin.first() {
        None => Ok(b"/"),
        Some(b'/') => Ok(origin),
        Some(_) => Err(bad("the target has no path")),
    }
}

fn bad(cause: &'static str) -> Rejection {
    Rejection::new(Reason::BadTarget, cause)
}
