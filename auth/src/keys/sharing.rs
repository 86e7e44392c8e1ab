//! What several processes need that share one folder of keys: one at a time changes it, and each
//! notices what another has changed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use super::{KeyError, KeyFolder, RETIRING_PREFIX, RETIRING_SUFFIX};
use crate::config::SigningAlgorithm;

const LOCK_FILE: &str = ".lock";
/// How long a change waits for one that another process makes.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Held while this process alone changes the folder. The operating system takes it back from one
/// that dies.
#[derive(Debug)]
pub(crate) struct FolderLock(#[expect(dead_code, reason = "closing it gives it back")] File);

/// What the files of the folder are, without their contents. Every change is a new file under the
/// name, so two that are equal are of the same contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<(OsString, FileFacts)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileFacts {
    inode: u64,
    size: u64,
    mode: u32,
    changed: (i64, i64),
}

impl KeyFolder {
    /// Waits for whoever changes the folder, for a while. Blocks.
    pub fn lock(&self) -> Result<FolderLock, KeyError> {
        let path = self.0.join(LOCK_FILE);
        let failed = |cause| KeyError::Io {
            path: path.clone(),
            cause,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let asked = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(FolderLock(file)),
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
                Err(TryLockError::WouldBlock) if asked.elapsed() >= LOCK_WITHIN => {
                    return Err(failed(io::ErrorKind::TimedOut.into()));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
            }
        }
    }

    /// What the signing keys' files are now.
    pub fn fingerprint(&self, algorithm: SigningAlgorithm) -> Result<Fingerprint, KeyError> {
        let failed = |cause| KeyError::Io {
            path: self.0.clone(),
            cause,
        };
        let single = [self.signing_file(algorithm), self.announced_file(algorithm)];
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let retiring = text.starts_with(RETIRING_PREFIX) && text.ends_with(RETIRING_SUFFIX);
            if !(retiring || single.contains(&entry.path())) {
                continue;
            }
            let facts = match fs::metadata(entry.path()) {
                Ok(facts) => facts,
                // It went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let facts = FileFacts {
                inode: facts.ino(),
                size: facts.size(),
                mode: facts.mode(),
                changed: (facts.mtime(), facts.mtime_nsec()),
            };
            files.push((name, facts));
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Fingerprint(files))
    }
}
