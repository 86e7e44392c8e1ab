//! What `durward up` prints: where it listens, and lines to paste.

use std::net::SocketAddr;
use std::path::Path;

use crate::demo::{DemoConfig, DemoUser};

/// Prints the banner to standard output.
pub fn print(
    config: &Path,
    edge: &[SocketAddr],
    admin: Option<SocketAddr>,
    demo: Option<&DemoConfig>,
    new_users: &[DemoUser],
) {
    for address in edge {
        println!("gateway   http://{address}");
    }
    if let Some(address) = admin {
        println!("admin     http://{address}/metrics");
    }
    let (Some(demo), Some(edge)) = (demo, edge.first()) else {
        return;
    };
    if !new_users.is_empty() {
        println!(
            "\nDemo users, shown this once and kept in {}:",
            demo.passwords.display()
        );
        for user in new_users {
            println!("  {:<6} {}", user.username, user.password);
        }
    }
    println!("{}", lines_to_paste(config, *edge, demo));
}

fn lines_to_paste(config: &Path, edge: SocketAddr, demo: &DemoConfig) -> String {
    let durward = std::env::current_exe().map_or_else(|_| "durward".into(), |path| relative(&path));
    let (config, passwords) = (config.display(), demo.passwords.display());
    format!(
        r#"
Paste into another terminal, in this folder:

  PASSWORD=$(awk '$1 == "alice" {{ print $2 }}' {passwords})
  LOGIN=$(curl -s http://{edge}/auth/login -H 'Content-Type: application/json' -d "{{\"username\":\"alice\",\"password\":\"$PASSWORD\"}}")
  TOKEN=$(printf '%s' "$LOGIN" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -s http://{edge}/api/me -H "Authorization: Bearer $TOKEN"; echo
  ALICE=$({durward} user list --config {config} | awk '$1 == "alice" {{ print $2 }}')
  curl -s http://{edge}/images/$ALICE/hello.png -H "Authorization: Bearer $TOKEN" -o hello.png -w '%{{http_code}} %{{content_type}}\n'
  {durward} ban alice --config {config}
  curl -s http://{edge}/api/me -H "Authorization: Bearer $TOKEN"; echo
  {durward} explain GET http://{edge}/api/me --token "$TOKEN" --config {config}

Ctrl-C stops everything."#
    )
}

/// The path as one would type it from here.
fn relative(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
