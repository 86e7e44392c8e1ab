//! The demo: two backends that know nothing of tokens, and users to try it with.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use durward_config::{Diagnostics, Node};
use durward_upstreams::ImageFolder;
use tokio::net::TcpListener;

use crate::exit::Failure;
use crate::shutdown::Shutdown;

/// The `demo` section.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// Where the API server listens.
    pub api: Vec<SocketAddr>,
    /// Where the image server listens.
    pub images: Vec<SocketAddr>,
    /// The image server's folder.
    pub folder: PathBuf,
    /// The file that keeps the demo users' passwords.
    pub passwords: PathBuf,
}

/// A demo user as it was made.
#[derive(Clone, Debug)]
pub struct DemoUser {
    /// The user name.
    pub username: String,
    /// The password; it is shown once and kept in a file that only the owner reads.
    pub password: String,
}

impl DemoConfig {
    /// Reads the section; relative paths are relative to `base`.
    pub fn compile(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut section = node.section("demo", diagnostics)?;
        let api = section.required("api", "write the API server's addresses", diagnostics);
        let images = section.required("images", "write the image server's addresses", diagnostics);
        let folder = section.required("folder", "write the folder for images", diagnostics);
        let passwords = section.required(
            "passwords",
            "write the file that keeps the demo passwords",
            diagnostics,
        );
        section.finish(diagnostics);
        let mut addresses = |node: Option<&Node>, what| -> Option<Vec<SocketAddr>> {
            node?
                .one_or_many()
                .iter()
                .map(|item| item.socket_address(what, diagnostics))
                .collect()
        };
        let (api, images) = (addresses(api, "demo.api"), addresses(images, "demo.images"));
        let folder = folder?.text("demo.folder", diagnostics);
        let passwords = passwords?.text("demo.passwords", diagnostics);
        Some(Self {
            api: api?,
            images: images?,
            folder: base.join(folder?),
            passwords: base.join(passwords?),
        })
    }

    /// Every address that the backends listen on.
    pub fn listeners(&self) -> impl Iterator<Item = &SocketAddr> {
        self.api.iter().chain(&self.images)
    }
}

/// Starts the backends; they end with `shutdown`.
pub async fn start(config: &DemoConfig, shutdown: &Shutdown) -> Result<(), Failure> {
    for address in &config.api {
        let listener = listen(*address).await?;
        tokio::spawn(durward_upstreams::serve_api(
            listener,
            shutdown.clone().requested(),
        ));
    }
    for address in &config.images {
        let listener = listen(*address).await?;
        let folder = ImageFolder::open(&config.folder).map_err(Failure::failed)?;
        tokio::spawn(durward_upstreams::serve_images(
            listener,
            folder,
            shutdown.clone().requested(),
        ));
    }
    Ok(())
}

/// `durward demo api`.
pub async fn api_alone(address: SocketAddr) -> Result<(), Failure> {
    let (shutdown, _trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let listener = listen(address).await?;
    println!("demo API server on http://{address}");
    durward_upstreams::serve_api(listener, shutdown.requested())
        .await
        .map_err(Failure::failed)
}

/// `durward demo images`.
pub async fn images_alone(address: SocketAddr, folder: PathBuf) -> Result<(), Failure> {
    let (shutdown, _trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let listener = listen(address).await?;
    let folder = ImageFolder::open(folder).map_err(Failure::failed)?;
    println!("demo image server on http://{address}");
    durward_upstreams::serve_images(listener, folder, shutdown.requested())
        .await
        .map_err(Failure::failed)
}

/// Binds a listener, with the address in the error.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {address}: {error}")))
}

/// Writes the demo users' passwords where only the owner can read them. An existing file is never
/// overwritten.
pub fn keep_passwords(path: &Path, users: &[DemoUser]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    for user in users {
        writeln!(file, "{} {}", user.username, user.password)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn passwords_are_for_the_owner_and_written_once() {
        let path = std::env::temp_dir().join(format!("durward-demo-{}/passwords", std::process::id()));
        let users = [DemoUser {
            username: "alice".into(),
            password: "secret".into(),
        }];
        keep_passwords(&path, &users).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(keep_passwords(&path, &users).is_err());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
