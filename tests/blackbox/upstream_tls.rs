//! Servers that are spoken to over TLS, and over HTTP/2: a real nginx, with certificates of OpenSSL.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::harness::{FOREIGN, Key, Service, Setup, TestFolder, eventually, free_address, get, post};

const NGINX: &str = r#"
daemon off;
master_process off;
worker_processes 1;
pid @folder/nginx.pid;
error_log @folder/error.log;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path @folder/body;
    proxy_temp_path @folder/proxy;
    fastcgi_temp_path @folder/fastcgi;
    uwsgi_temp_path @folder/uwsgi;
    scgi_temp_path @folder/scgi;
    server {
        listen @listen;
        @tls
        location / {
            default_type text/plain;
            return 200 "protocol=$server_protocol host=$host name=$ssl_server_name client=$ssl_client_s_dn proto=$http_x_forwarded_proto\n";
        }
    }
}
"#;

/// Makes an authority, a certificate of it for `api.internal`, one for a client, and another authority.
const CERTIFICATES: &str = r#"
set -e
export OPENSSL_CONF=/dev/null
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.pem" -days 2 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}
signed() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
  printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\n' "$1" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -out "$1.pem" -days "$3" -extfile "$1.ext"
}
authority ca
authority other
signed api.internal ca 2
signed client ca 2
signed stranger other 2
"#;

struct Nginx {
    child: Child,
    folder: TestFolder,
    address: SocketAddr,
}

impl Nginx {
    /// An nginx that listens with these words, and these lines about TLS.
    fn start(listen: &str, tls: &str) -> Self {
        let folder = TestFolder::new();
        let script = folder.write("certificates.sh", CERTIFICATES);
        let made = Command::new("sh")
            .arg(script)
            .current_dir(&*folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = free_address();
        let text = NGINX
            .replace("@tls", tls)
            .replace("@folder", folder.to_str().unwrap())
            .replace("@listen", &format!("{address} {listen}"));
        let file = folder.write("nginx.conf", text);
        let program = [
            "/usr/sbin/nginx",
            "/usr/local/sbin/nginx",
            "/opt/homebrew/bin/nginx",
        ]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .unwrap_or("nginx");
        let mut command = Command::new(program);
        command
            .args(["-p", folder.to_str().unwrap(), "-c", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test-tools` installs it"));
        let mut nginx = Self {
            child,
            folder,
            address,
        };
        eventually("nginx listens", || {
            let ended = nginx.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", nginx.folder.text("error.log"));
            TcpStream::connect(address).ok()
        });
        nginx
    }

    fn tls() -> Self {
        Self::start("ssl", SERVER)
    }

    fn text(&self, name: &str) -> String {
        self.folder.text(name)
    }

    /// The gateway before it, with these keys of the upstream.
    fn before(&self, keys: &str) -> Service {
        Setup::gateway(FOREIGN)
            .set("api", self.address)
            .replace("\"] }", &format!("\"], {keys} }}"))
            .file("jwks.json", Key::set(&[&Key::es256("k1")]))
            .file("ca.pem", self.text("ca.pem"))
            .file("other.pem", self.text("other.pem"))
            .file("client.pem", self.text("client.pem"))
            .file("client.key", self.text("client.key"))
            .file("stranger.pem", self.text("stranger.pem"))
            .file("stranger.key", self.text("stranger.key"))
            .start()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SERVER: &str =
    "ssl_certificate @folder/api.internal.pem; ssl_certificate_key @folder/api.internal.key;";

#[test]
fn a_server_proves_its_name_by_an_authority_that_is_believed() {
    let nginx = Nginx::tls();
    let service = nginx.before("tls: { server_name: api.internal, ca: ca.pem }");
    for _ in 0..3 {
        let text = service.ask(&get("/public/x")).expect(200).text();
        assert!(
            text.contains("protocol=HTTP/1.1") && text.contains("name=api.internal"),
            "{text}"
        );
    }
}

#[test]
fn a_server_that_does_not_is_not_sent_a_byte() {
    let nginx = Nginx::tls();
    for keys in [
        "tls: { server_name: another.internal, ca: ca.pem }",
        "tls: { server_name: api.internal, ca: other.pem }",
        "tls: { server_name: api.internal }",
        "tls: { server_name: 127.0.0.1, ca: ca.pem }",
    ] {
        let service = nginx.before(keys);
        service.ask(&get("/public/x")).expect_refusal(502, "upstream_tls");
    }
    // Nor is one that does not speak it.
    let plain = Nginx::start("", "");
    let service = plain.before("tls: { server_name: api.internal, ca: ca.pem }");
    service.ask(&get("/public/x")).expect_refusal(502, "upstream_tls");
}

#[test]
fn upstreams_that_believe_others_share_no_connection() {
    let nginx = Nginx::tls();
    let both = format!(
        "tls: {{ server_name: api.internal, ca: ca.pem }} }}\n  doubter: {{ servers: [\"{}\"], tls: {{ server_name: \
         api.internal, ca: other.pem }}",
        nginx.address
    );
    let service = Setup::gateway(FOREIGN)
        .set("api", nginx.address)
        .replace("\"] }", &format!("\"], {both} }}"))
        .append("  - { path: /doubted/**, upstream: doubter, access: public }\n")
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .file("ca.pem", nginx.text("ca.pem"))
        .file("other.pem", nginx.text("other.pem"))
        .start();
    for _ in 0..3 {
        service.ask(&get("/public/x")).expect(200);
        service
            .ask(&get("/doubted/x"))
            .expect_refusal(502, "upstream_tls");
    }
}

#[test]
fn the_gateway_proves_who_it_is() {
    let demanding = format!("{SERVER} ssl_client_certificate @folder/ca.pem; ssl_verify_client on;");
    let nginx = Nginx::start("ssl", &demanding);
    let with = |name: &str| {
        nginx.before(&format!(
            "tls: {{ server_name: api.internal, ca: ca.pem, client_certificate: {name}.pem, client_key: {name}.key }}"
        ))
    };
    let text = with("client").ask(&get("/public/x")).expect(200).text();
    assert!(text.contains("client=CN=client"), "{text}");
    with("stranger").ask(&get("/public/x")).expect(400);
    let without = nginx.before("tls: { server_name: api.internal, ca: ca.pem }");
    without.ask(&get("/public/x")).expect(400);
}

#[test]
fn health_checks_use_tls_too() {
    let nginx = Nginx::tls();
    for (ca, up) in [("ca.pem", 1), ("other.pem", 0)] {
        let service = nginx.before(&format!(
            "tls: {{ server_name: api.internal, ca: {ca} }}, health_check: {{ path: /, interval: 100ms }}"
        ));
        let line = format!(
            "durward_upstream_server_up{{upstream=\"api\",server=\"{}\"}} {up}",
            nginx.address
        );
        let checked =
            |text: &str| !text.contains("result=\"passed\"} 0") || !text.contains("result=\"failed\"} 0");
        eventually("the checks say so", || {
            let metrics = service.metrics();
            (checked(&metrics) && metrics.contains(&line)).then_some(())
        });
    }
}

#[test]
fn http_2_is_spoken_over_tls_and_by_prior_knowledge() {
    let tls = Nginx::start("ssl http2", SERVER);
    let plain = Nginx::start("http2", "");
    for (nginx, keys) in [
        (
            &tls,
            "protocol: h2, tls: { server_name: api.internal, ca: ca.pem }",
        ),
        (&plain, "protocol: h2, health_check: { path: /, interval: 100ms }"),
    ] {
        let service = nginx.before(keys);
        let mut connection = service.connect();
        for _ in 0..3 {
            let ask = get("/public/x").header("Host", "front.example");
            let text = connection.ask(&ask).expect(200).text();
            assert!(text.contains("protocol=HTTP/2.0 host=front.example"), "{text}");
        }
        let large = post("/public/x").body(vec![b'x'; 300_000]);
        assert!(matches!(service.ask(&large).status, 200 | 405));
    }
    let service = plain.before("protocol: h2, health_check: { path: /, interval: 100ms }");
    eventually("a health check passed", || {
        let metrics = service.metrics();
        let passed = metrics.lines().any(|line| {
            line.starts_with("durward_upstream_health_checks_total")
                && line.contains("passed")
                && !line.ends_with(" 0")
        });
        passed.then_some(())
    });
}

#[test]
fn files_that_cannot_be_used_are_found_by_check() {
    let nginx = Nginx::tls();
    for (keys, expected) in [
        ("server_name: a, ca: client.key", "does not hold a certificate"),
        (
            "server_name: a, client_certificate: client.pem, client_key: stranger.key",
            "cannot be used with its key",
        ),
        (
            "server_name: a, client_certificate: client.pem, client_key: ca.pem",
            "does not hold a private key",
        ),
        ("server_name: a, ca: nothing.pem", "cannot read"),
    ] {
        let service = nginx.before("balance: round_robin");
        let text = fs::read_to_string(service.file()).unwrap();
        let changed = text.replace("balance: round_robin", &format!("tls: {{ {keys} }}"));
        service.folder.write("config.yaml", changed);
        let checked = service.command(&["check"]);
        let told = format!("{}{}", checked.stdout, checked.stderr);
        assert!(checked.code != 0 && told.contains(expected), "{keys}: {told}");
    }
}
