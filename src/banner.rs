//! What `durward up` prints: where it listens, and lines to paste.

use std::net::SocketAddr;
use std::path::Path;

use crate::commands::say;
use crate::demo::{DemoConfig, DemoUser};

/// Where everything listens.
pub struct Places<'a> {
    /// The edge.
    pub edge: Vec<String>,
    /// Where other proxies ask.
    pub forward_auth: Option<SocketAddr>,
    /// Metrics and health.
    pub admin: Option<SocketAddr>,
    /// The auth service.
    pub auth: SocketAddr,
    /// The control socket.
    pub control: &'a Path,
    /// The demo backends.
    pub demo: Option<&'a DemoConfig>,
}

/// Prints the banner to standard output.
pub fn print(config: &Path, places: &Places<'_>, new_users: &[DemoUser]) {
    places
        .edge
        .iter()
        .for_each(|url| say(format_args!("gateway   {url}")));
    if let Some(address) = places.forward_auth {
        say(format_args!("ask at    http://{address}/auth/"));
    }
    if let Some(address) = places.admin {
        say(format_args!("admin     http://{address}/metrics"));
    }
    say(format_args!("auth      http://{}", places.auth));
    say(format_args!("control   {}", places.control.display()));
    let (Some(demo), Some(edge)) = (places.demo, places.edge.first()) else {
        return;
    };
    demo.api
        .iter()
        .for_each(|address| say(format_args!("demo api  http://{address}")));
    demo.images
        .iter()
        .for_each(|address| say(format_args!("images    http://{address}")));
    if !new_users.is_empty() {
        say(format_args!(
            "\nDemo users, shown this once and kept in {}:",
            demo.passwords.display()
        ));
        new_users
            .iter()
            .for_each(|user| say(format_args!("  {:<6} {}", user.username, user.password)));
    }
    if demo.passwords.exists() {
        say(lines_to_paste(config, edge, demo));
    }
}

fn lines_to_paste(config: &Path, edge: &str, demo: &DemoConfig) -> String {
    let durward = std::env::current_exe().map_or_else(|_| "durward".into(), |path| as_typed(&path));
    let (config, passwords) = (config.display(), demo.passwords.display());
    format!(
        r#"
Paste into another terminal, in this folder:

  PASSWORD=$(awk '$1 == "alice" {{ print $2 }}' {passwords})
  LOGIN=$(curl -s {edge}/auth/login -H 'Content-Type: application/json' -d "{{\"username\":\"alice\",\"password\":\"$PASSWORD\"}}")
  TOKEN=$(printf '%s' "$LOGIN" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -s {edge}/api/me -H "Authorization: Bearer $TOKEN"; echo
  ALICE=$({durward} user list --config {config} | awk '$1 == "alice" {{ print $2 }}')
  curl -s {edge}/images/$ALICE/hello.png -H "Authorization: Bearer $TOKEN" -o hello.png -w '%{{http_code}} %{{content_type}}\n'
  {durward} ban alice --config {config}
  curl -s {edge}/api/me -H "Authorization: Bearer $TOKEN"; echo
  printf '%s' "$TOKEN" | {durward} explain GET {edge}/api/me --token - --config {config}
  {durward} unban alice --config {config}

Ctrl-C stops everything."#
    )
}

/// The path as one would type it from here.
fn as_typed(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(below) if below.components().count() == 1 => format!("./{}", below.display()),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}
