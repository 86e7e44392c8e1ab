//! The name of an image: two path segments that are safe as file names.

use std::path::{Path, PathBuf};

use http::StatusCode;
use thiserror::Error;

use crate::problem::Problem;

/// Characters of an owner.
const MAX_OWNER_LENGTH: usize = 64;

/// Characters of an image's own name.
const MAX_NAME_LENGTH: usize = 128;

/// An owner and a name that may be joined to a folder's path as they are.
///
/// Only [`ImageName::parse`] makes one, so a path built from it cannot leave
/// the folder. The folder's file system is expected to tell upper case from
/// lower, as the gateway does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageName {
    owner: String,
    name: String,
}

/// Why two segments are no image name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "an {what} has 1 to {limit} letters (A-Z, a-z), digits, '-', '_' and '.', \
     with no '.' at either end"
)]
pub(super) struct BadName {
    what: &'static str,
    limit: usize,
}

impl ImageName {
    /// Takes the two segments, percent-decoded.
    pub(super) fn parse(owner: &str, name: &str) -> Result<Self, BadName> {
        let cases = [
            (owner, "owner", MAX_OWNER_LENGTH),
            (name, "image name", MAX_NAME_LENGTH),
        ];
        for (segment, what, limit) in cases {
            if !is_safe(segment, limit) {
                return Err(BadName { what, limit });
            }
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The folder of the owner's images under `root`.
    pub(super) fn owner_folder(&self, root: &Path) -> PathBuf {
        root.join(&self.owner)
    }

    /// The file of the image under `root`.
    pub(super) fn file(&self, root: &Path) -> PathBuf {
        self.owner_folder(root).join(&self.name)
    }

    /// The path of the image on this server.
    pub(super) fn location(&self) -> String {
        format!("/images/{}/{}", self.owner, self.name)
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }
}

/// A leading dot would hide a file or climb (`..`), and is how the folder names
/// what is not an image; a trailing one is dropped by some file systems.
fn is_safe(segment: &str, limit: usize) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=limit).contains(&segment.len())
        && segment.bytes().all(safe)
        && !segment.starts_with('.')
        && !segment.ends_with('.')
}

impl From<BadName> for Problem {
    fn from(bad: BadName) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_image_name", bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_or_refused_as_a_whole() {
        let longest = "a".repeat(MAX_OWNER_LENGTH);
        let taken = ["a", "alice", "u-1_2.x", "cat.PNG", "a..b", "-", &longest];
        for segment in taken {
            assert!(ImageName::parse(segment, segment).is_ok(), "{segment:?}");
        }
        let too_long = "a".repeat(MAX_NAME_LENGTH + 1);
        let refused = [
            "",
            ".",
            "..",
            "...",
            ".hidden",
            "dot.",
            "a/b",
            "a\\b",
            "../x",
            "a b",
            "a\0b",
            "a\n",
            "caf\u{e9}",
            "\u{ff0e}\u{ff0e}",
            "a%2fb",
            "C:",
            "a;b",
            "~",
            &too_long,
        ];
        for segment in refused {
            assert!(ImageName::parse(segment, "ok").is_err(), "{segment:?}");
            assert!(ImageName::parse("ok", segment).is_err(), "{segment:?}");
        }
    }

    #[test]
    fn each_segment_has_its_own_length() {
        let name = "n".repeat(MAX_NAME_LENGTH);
        assert!(ImageName::parse("owner", &name).is_ok());
        let owner = "o".repeat(MAX_OWNER_LENGTH + 1);
        let bad = ImageName::parse(&owner, "name").unwrap_err();
        assert_eq!(bad.what, "owner");
    }

    #[test]
    fn the_file_is_inside_the_folder() {
        let name = ImageName::parse("alice", "cat.png").unwrap();
        let file = name.file(Path::new("/folder"));
        assert_eq!(file, Path::new("/folder/alice/cat.png"));
        assert_eq!(name.location(), "/images/alice/cat.png");
    }
}
