//! A folder for one run, removed with everything in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Fallible;

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A folder in the system's place for temporary files, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one that nobody else can open.
    pub fn new(name: &str) -> Fallible<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("durward-{name}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        FOLDERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        FOLDERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|path| *path != self.0);
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes the folders of a run that ends without dropping anything. More than one try: this process
/// may still be writing into them.
pub(crate) fn remove_all() {
    for path in FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = (0..TRIES).any(|_| fs::remove_dir_all(&path).is_ok() || !path.exists());
    }
}

const TRIES: usize = 10;

/// Copies a folder with what is in it.
pub fn copy_folder(from: &Path, to: &Path) -> Fallible<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}
