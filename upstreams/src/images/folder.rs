//! The folder: `{owner}/{name}` for what is kept, `.incoming/` for what is
//! being received. An image appears, and is replaced, whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use http::StatusCode;
use thiserror::Error;

use super::{
    facts::FileIdentity,
    name::{BadName, ImageName},
    sample::sample_png,
};
use crate::problem::Problem;

/// Images of one owner; the next is refused with 507.
const MAX_IMAGES_OF_AN_OWNER: usize = 1000;

/// Owners with a folder; the next is refused with 507.
const MAX_OWNERS: usize = 10_000;

/// Where uploads are received. No image name begins with a dot.
const INCOMING: &str = ".incoming";

/// The age at which a file in [`INCOMING`] can belong to no upload any more,
/// not even to one of another process on the same folder.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// A folder of images by owner and name. Clones share it.
///
/// Several processes may serve one folder; the limits on the number of images
/// then hold for each of them.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    root: PathBuf,
    /// Held to look at what is there and change it in one step.
    commits: Arc<Mutex<()>>,
}

impl ImageFolder {
    /// Opens the folder at `path`, creating it and its parents where missing,
    /// and removes what uploads that were interrupted have left there.
    ///
    /// # Errors
    ///
    /// When the folder cannot be created, read and written.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let root = path.into();
        let incoming = root.join(INCOMING);
        fs::create_dir_all(&incoming)?;
        let folder = Self {
            root,
            commits: Arc::default(),
        };
        // A new file tells the time there, and that the folder can be written.
        let now = folder.receive()?.file.metadata()?.modified()?;
        remove_abandoned(&incoming, now)?;
        Ok(folder)
    }

    /// Puts a generated image at `owner` and `name`, one pattern per owner,
    /// unless an image is there already.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when `owner` or `name` is no valid segment of an image's
    /// path; otherwise when the folder cannot be written, or is full.
    pub fn put_sample(&self, owner: &str, name: &str) -> io::Result<()> {
        let invalid = |bad: BadName| io::Error::new(ErrorKind::InvalidInput, bad);
        let name = ImageName::parse(owner, name).map_err(invalid)?;
        let mut incoming = self.receive()?;
        incoming.file.write_all(&sample_png(seed_of(&name)))?;
        match self.commit(incoming, &name, |existing| existing.is_none()) {
            Ok(_) | Err(NotKept::Precondition) => Ok(()),
            Err(NotKept::Io(error)) => Err(error),
            Err(full) => Err(io::Error::other(full)),
        }
    }

    /// Opens the image's file; `None` where there is none.
    pub(super) fn kept(&self, name: &ImageName) -> io::Result<Option<KeptFile>> {
        match KeptFile::open(&name.file(&self.root)) {
            Ok(kept) => Ok(kept),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new file to receive an upload in.
    pub(super) fn receive(&self) -> io::Result<Incoming> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = LAST.fetch_add(1, Relaxed);
            let path = self
                .root
                .join(INCOMING)
                .join(format!("{}-{number}", process::id()));
            let created = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            match created {
                Ok(file) => {
                    let path = Some(path);
                    return Ok(Incoming { file, path });
                }
                // Left by an earlier process, or by one in another container.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes `incoming` the image `name`, on disk before this returns, if
    /// `allowed` agrees with what is there now.
    pub(super) fn commit(
        &self,
        mut incoming: Incoming,
        name: &ImageName,
        allowed: impl FnOnce(Option<&KeptFile>) -> bool,
    ) -> Result<Committed, NotKept> {
        incoming.file.sync_all()?;
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let existing = self.kept(name)?;
        if !allowed(existing.as_ref()) {
            return Err(NotKept::Precondition);
        }
        if existing.is_none() {
            self.make_room(name)?;
        }
        incoming.move_to(&name.file(&self.root))?;
        sync_folder(&name.owner_folder(&self.root))?;
        Ok(Committed {
            created: existing.is_none(),
            identity: FileIdentity::from(&incoming.file.metadata()?),
        })
    }

    /// Creates the owner's folder where it is missing, within the limits.
    fn make_room(&self, name: &ImageName) -> Result<(), NotKept> {
        let folder = name.owner_folder(&self.root);
        let images = match fs::read_dir(&folder) {
            Ok(images) => images.count(),
            Err(error) if error.kind() == ErrorKind::NotFound => return self.add_owner(&folder),
            Err(error) => return Err(error.into()),
        };
        if images >= MAX_IMAGES_OF_AN_OWNER {
            return Err(NotKept::OwnerFull);
        }
        Ok(())
    }

    fn add_owner(&self, folder: &Path) -> Result<(), NotKept> {
        // One more for the folder of incoming files.
        if fs::read_dir(&self.root)?.count() > MAX_OWNERS {
            return Err(NotKept::FolderFull);
        }
        fs::create_dir(folder)?;
        Ok(sync_folder(&self.root)?)
    }
}

/// A file that is kept, open, so that a replacement does not change it.
pub(super) struct KeptFile {
    pub(super) file: File,
    pub(super) identity: FileIdentity,
    pub(super) length: u64,
}

impl KeptFile {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then(|| Self {
            file,
            identity: FileIdentity::from(&metadata),
            length: metadata.len(),
        }))
    }
}

/// An upload's temporary file, removed unless it is committed.
pub(super) struct Incoming {
    pub(super) file: File,
    path: Option<PathBuf>,
}

impl Incoming {
    fn move_to(&mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "an upload's file stays behind");
        }
    }
}

/// What a commit has done.
#[derive(Debug)]
pub(super) struct Committed {
    /// Whether there was no such image before.
    pub(super) created: bool,
    pub(super) identity: FileIdentity,
}

/// Why an upload was not kept.
#[derive(Debug, Error)]
pub(super) enum NotKept {
    #[error("the image is not in the state that the request asks for")]
    Precondition,
    #[error("an owner may have at most {MAX_IMAGES_OF_AN_OWNER} images")]
    OwnerFull,
    #[error("this server keeps images for at most {MAX_OWNERS} owners")]
    FolderFull,
    #[error("the folder cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl From<NotKept> for Problem {
    fn from(not_kept: NotKept) -> Self {
        let (status, code) = match &not_kept {
            NotKept::Precondition => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            NotKept::OwnerFull => (StatusCode::INSUFFICIENT_STORAGE, "too_many_images"),
            NotKept::FolderFull => (StatusCode::INSUFFICIENT_STORAGE, "too_many_owners"),
            NotKept::Io(cause) => return Self::internal("keeping an image", cause),
        };
        Self::new(status, code, not_kept.to_string())
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A rename is on disk once its folder is (`fsync(2)`).
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes what is older than [`ABANDONED_AFTER`] at `now`, a time of the
/// folder's own file system.
fn remove_abandoned(incoming: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(incoming)? {
        match remove_if_abandoned(&entry?, now) {
            // Another process has just done the same, or finished its upload.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

fn remove_if_abandoned(entry: &fs::DirEntry, now: SystemTime) -> io::Result<()> {
    let modified = entry.metadata()?.modified()?;
    // A file from the future, by a clock that was set back, is young.
    let age = now.duration_since(modified).unwrap_or_default();
    if age < ABANDONED_AFTER {
        return Ok(());
    }
    fs::remove_file(entry.path())
}

fn seed_of(name: &ImageName) -> u64 {
    let digest = digest(&SHA256, name.owner().as_bytes());
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(*first)
}
