//! The file of the access log, which others may move away: then a new one is begun in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the file is looked for where it was opened.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A file that is appended to. It is opened anew where it was moved or removed, so that a log can be
/// rotated without a signal.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    identity: Identity,
    looked: Instant,
    failing: bool,
}

/// Device and inode.
type Identity = (u64, u64);

impl LogFile {
    /// Opens it, and makes it where it is not there: for its owner, and for its group to read.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (file, identity) = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            identity,
            looked: Instant::now(),
            failing: false,
        })
    }

    /// Where no new one can be opened, the old one is written on.
    fn follow(&mut self) {
        self.looked = Instant::now();
        if fs::metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity) {
            return;
        }
        match open(&self.path) {
            Ok((file, identity)) => {
                (self.file, self.identity, self.failing) = (file, identity, false);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the access log was moved, and goes on in the file that was moved");
                }
            }
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Whole lines at a time go to one file.
    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        if !lines.is_empty() && self.looked.elapsed() >= LOOK_EVERY {
            self.follow();
        }
        self.file.write_all(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<(File, Identity)> {
    let told = |error: io::Error| {
        let message = format!("cannot open the access log {}: {error}", path.display());
        io::Error::new(error.kind(), message)
    };
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o640).open(path);
    let file = file.map_err(told)?;
    let identity = identity(&file.metadata().map_err(told)?);
    Ok((file, identity))
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
