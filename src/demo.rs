//! The demo: two backends that know nothing of tokens, and users to try it with.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use durward_config::{Diagnostics, Node};
use durward_gateway::Sockets;
use durward_upstreams::ImageFolder;
use tokio::net::TcpListener;

use crate::commands::say;
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
pub async fn start(sockets: &Sockets, config: &DemoConfig, shutdown: &Shutdown) -> Result<(), Failure> {
    for address in &config.api {
        let listener = listen_on(sockets, *address)?;
        tokio::spawn(durward_upstreams::serve_api(
            listener,
            shutdown.clone().requested(),
        ));
    }
    for address in &config.images {
        let listener = listen_on(sockets, *address)?;
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
    say(format_args!("demo API server on http://{address}"));
    durward_upstreams::serve_api(listener, shutdown.requested())
        .await
        .map_err(Failure::failed)
}

/// `durward demo images`.
pub async fn images_alone(address: SocketAddr, folder: PathBuf) -> Result<(), Failure> {
    let (shutdown, _trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let listener = listen(address).await?;
    let folder = ImageFolder::open(folder).map_err(Failure::failed)?;
    say(format_args!("demo image server on http://{address}"));
    durward_upstreams::serve_images(listener, folder, shutdown.requested())
        .await
        .map_err(Failure::failed)
}

/// The listener at an address, which may have been handed over, with the address in the error.
pub fn listen_on(sockets: &Sockets, address: SocketAddr) -> Result<TcpListener, Failure> {
    sockets
        .bind(address)
        .and_then(TcpListener::from_std)
        .map_err(|error| Failure::Failed(format!("cannot listen on {address}: {error}")))
}

/// Binds a listener, with the address in the error.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {address}: {error}")))
}

impl DemoUser {
    /// A user with 26 random characters of Base32 for a password: 130 bits.
    pub fn with_new_password(username: &str) -> Self {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut random = [0; 26];
        aws_lc_rs::rand::fill(&mut random).expect("the system's random source");
        let password = random.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
        Self {
            username: username.to_owned(),
            password: password.iter().collect(),
        }
    }
}

/// Writes the demo users' passwords where only the owner can read them, in place of those of an
/// earlier database.
pub fn keep_passwords(path: &Path, users: &[DemoUser]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let partial = path.with_extension(format!("{}.part", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    for user in users {
        writeln!(file, "{} {}", user.username, user.password)?;
    }
    file.sync_all()?;
    fs::rename(partial, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn passwords_are_for_the_owner_and_replace_stale_ones() {
        let path = std::env::temp_dir().join(format!("durward-demo-{}/passwords", std::process::id()));
        let users = ["alice", "bob"].map(DemoUser::with_new_password);
        assert_ne!(users[0].password, users[1].password);
        keep_passwords(&path, &users[..1]).unwrap();
        keep_passwords(&path, &users).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = fs::read_to_string(&path).unwrap();
        assert_eq!(kept.lines().nth(1).unwrap(), format!("bob {}", users[1].password));
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
