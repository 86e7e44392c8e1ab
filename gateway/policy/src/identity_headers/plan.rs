//! From claims to header values, once per proof.

use http::{HeaderName, HeaderValue};

use durward_config::Place;

use super::MAX_IDENTITY_VALUE_BYTES;
use crate::claim_rule::ClaimPath;
use crate::json::{Json, Object};
use crate::{Reason, Rejection};

/// The configured identity headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct IdentityPlan {
    pub(super) headers: Vec<PlannedHeader>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedHeader {
    pub(super) name: HeaderName,
    pub(super) claim: ClaimPath,
    pub(super) place: Place,
}

/// The values of one token, or why they cannot be said.
pub(crate) type IdentityValues = Result<Box<[(HeaderName, HeaderValue)]>, Rejection>;

impl IdentityPlan {
    /// The headers' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|header| header.name.as_str())
    }

    /// Each header with the claim that it carries and its line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &ClaimPath, Place)> {
        self.headers
            .iter()
            .map(|header| (&header.name, &header.claim, header.place))
    }

    /// The values that a token's claims give. An absent claim gives no header.
    pub(crate) fn values(&self, claims: &Object, prefix: Option<&str>) -> IdentityValues {
        let mut values = Vec::with_capacity(self.headers.len());
        for header in &self.headers {
            let Some(claim) = header.claim.find(claims) else {
                continue;
            };
            let value = sayable(claim, prefix.unwrap_or_default()).map_err(|problem| {
                let cause = format!(
                    "claim `{}` cannot be said in {}: {problem}",
                    header.claim, header.name
                );
                Rejection::new(Reason::IdentityUnusable, cause)
            })?;
            if let Some(value) = value {
                values.push((header.name.clone(), value));
            }
        }
        Ok(values.into())
    }
}

/// The header value of a claim; nothing for an empty list.
fn sayable(claim: &Json, prefix: &str) -> Result<Option<HeaderValue>, &'static str> {
    let items = match claim {
        Json::List(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    };
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(prefix);
        push_item(&mut text, item)?;
        if text.len() > MAX_IDENTITY_VALUE_BYTES {
            return Err("it is too long");
        }
    }
    if items.is_empty() {
        return Ok(None);
    }
    HeaderValue::try_from(text)
        .map(Some)
        .map_err(|_| "it is no header value")
}

fn push_item(text: &mut String, item: &Json) -> Result<(), &'static str> {
    match item {
        Json::Text(item) => {
            check_text(item)?;
            text.push_str(item);
        }
        Json::Integer(_) | Json::Unsigned(_) | Json::Bool(_) => text.push_str(&item.to_string()),
        Json::Null | Json::Float(_) | Json::List(_) | Json::Object(_) => {
            return Err("it is no text, whole number or boolean, nor a list of such");
        }
    }
    Ok(())
}

/// A comma would make one value two; spaces at the ends are lost on the way (RFC 9110 section 5.5).
fn check_text(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("it has a control or non-ASCII character");
    }
    if text.contains(',') {
        return Err("it has a comma");
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err("it begins or ends with a space");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MAX_IDENTITY_VALUE_BYTES, sayable};
    use crate::json::{Limits, parse};

    fn said(claim: &str, prefix: &str) -> Result<Option<String>, &'static str> {
        let claim = parse(claim.as_bytes(), Limits::TOKEN).unwrap();
        let value = sayable(&claim, prefix)?;
        Ok(value.map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn values_are_said_as_they_are_and_lists_are_joined() {
        for (claim, value) in [
            (r#""u-1""#, "u-1"),
            (r#""two words""#, "two words"),
            (r#"["a","b"]"#, "a,b"),
            ("7", "7"),
            ("18446744073709551615", "18446744073709551615"),
            ("true", "true"),
        ] {
            assert_eq!(said(claim, ""), Ok(Some(value.to_owned())), "{claim}");
        }
        assert_eq!(said(r#"["a","b"]"#, "p:"), Ok(Some("p:a,p:b".to_owned())));
        assert_eq!(said("[]", "p:"), Ok(None));
    }

    #[test]
    fn what_a_backend_could_misread_is_refused() {
        for claim in [
            r#""a,b""#,
            r#"["a","b,c"]"#,
            r#""a\r\nX: y""#,
            r#""a\u0000""#,
            r#""a\t""#,
            r#""\u007f""#,
            r#""\u00e9""#,
            r#""""#,
            r#"["a",""]"#,
            r#"" a""#,
            r#""a ""#,
            "null",
            "1.5",
            "{}",
            r#"[["a"]]"#,
        ] {
            assert!(said(claim, "").is_err(), "{claim}");
        }
    }

    #[test]
    fn the_length_is_bounded() {
        let claim = |length: usize| format!("\"{}\"", "x".repeat(length));
        assert!(said(&claim(MAX_IDENTITY_VALUE_BYTES), "").is_ok());
        assert!(said(&claim(MAX_IDENTITY_VALUE_BYTES + 1), "").is_err());
    }
}
