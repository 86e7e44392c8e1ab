//! What the server knows of a kept file: its format and its entity tag.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
};

use aws_lc_rs::digest::{Context, SHA256};
use quick_cache::sync::Cache;

use super::{
    conditions::ETag,
    folder::KeptFile,
    inspect::{BadImage, Format},
    read::no_such_image,
    workers::Workers,
};
use crate::problem::Problem;

/// Files whose facts are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// One state of one file. Images are replaced by renaming a new file over the
/// old, which is another inode; an edit in place by hand moves the times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The facts of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) format: Format,
    pub(super) etag: ETag,
}

/// Facts by file: each file is hashed once for as long as it is remembered.
pub(super) struct FactsCache(Cache<FileIdentity, Facts>);

impl Default for FactsCache {
    fn default() -> Self {
        Self(Cache::new(MAX_REMEMBERED))
    }
}

impl FactsCache {
    /// The facts of `kept`, found by a worker where they are not remembered.
    pub(super) async fn of(&self, kept: &KeptFile, workers: &Workers) -> Result<Facts, Problem> {
        let find = async {
            let file = kept.file.try_clone().map_err(BadImage::from)?;
            workers.run(move || find(file)).await?.map_err(not_served)
        };
        self.0.get_or_insert_async(&kept.identity, find).await
    }

    /// As [`FactsCache::of`], on a thread that may block.
    pub(super) fn of_blocking(&self, kept: &KeptFile) -> Result<Facts, BadImage> {
        let find = || find(kept.file.try_clone()?);
        self.0.get_or_insert_with(&kept.identity, find)
    }

    /// Remembers what an upload has shown already.
    pub(super) fn remember(&self, identity: FileIdentity, facts: Facts) {
        self.0.insert(identity, facts);
    }
}

/// A file that somebody put into the folder and that is no image is none here.
fn not_served(bad: BadImage) -> Problem {
    match bad {
        BadImage::NotAnImage => no_such_image(),
        other => other.into(),
    }
}

fn find(mut file: File) -> Result<Facts, BadImage> {
    let format = Format::announced(&mut file)?;
    let etag = hash(&mut file)?;
    Ok(Facts { format, etag })
}

/// The tag of the whole file, in constant memory.
fn hash(file: &mut File) -> io::Result<ETag> {
    file.rewind()?;
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(ETag::of(&digest.finish())),
            length => digest.update(&chunk[..length]),
        }
    }
}
