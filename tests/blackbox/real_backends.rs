//! Servers that nobody here wrote, in the place of the demo backends and without a change.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::harness::{
    Answer, FOREIGN, Key, Service, Setup, TestFolder, claims, eventually, free_address, get, mint,
};

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
        root @folder/files;
        location /api/ {
            default_type text/plain;
            return 200 "user=$http_x_user_id uri=$uri sent=$request_uri authorization=$http_authorization\n";
        }
    }
}
"#;

/// A server of somebody else's, ended with its test.
pub struct Server {
    child: Child,
    folder: TestFolder,
    pub address: SocketAddr,
}

impl Server {
    fn nginx() -> Self {
        Self::nginx_with(NGINX)
    }

    /// nginx with this configuration, in which `@folder` and `@listen` are put in.
    pub fn nginx_with(configuration: &str) -> Self {
        Self::start(|folder, address| {
            let text = configuration
                .replace("@folder", folder.to_str().unwrap())
                .replace("@listen", &address.to_string());
            let file = folder.write("nginx.conf", text);
            let found = [
                "/usr/sbin/nginx",
                "/usr/bin/nginx",
                "/usr/local/sbin/nginx",
                "/opt/homebrew/bin/nginx",
            ];
            let program = found
                .into_iter()
                .find(|path| fs::exists(path).unwrap_or(false))
                .unwrap_or("nginx");
            let mut command = Command::new(program);
            command.args(["-p", folder.to_str().unwrap(), "-c", file.to_str().unwrap()]);
            command
        })
    }

    fn python() -> Self {
        Self::start(|folder, address| {
            let mut command = Command::new("python3");
            command.args([
                "-m",
                "http.server",
                &address.port().to_string(),
                "--bind",
                "127.0.0.1",
            ]);
            command.current_dir(folder.join("files"));
            command
        })
    }

    /// What `command` starts, once it listens at the address that it is given.
    pub fn start(command: impl FnOnce(&TestFolder, SocketAddr) -> Command) -> Self {
        let folder = TestFolder::new();
        for user in ["alice", "bob"] {
            fs::create_dir_all(folder.join("files/users").join(user)).unwrap();
            folder.write(
                &format!("files/users/{user}/photo.txt"),
                format!("a photo of {user}"),
            );
        }
        fs::create_dir_all(folder.join("files/public")).unwrap();
        folder.write("files/public/hello.txt", "hello");
        let address = free_address();
        let mut command = command(&folder, address);
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child =
            spawned.unwrap_or_else(|error| panic!("{command:?}: {error}; `make test-tools` installs it"));
        let mut server = Self {
            child,
            folder,
            address,
        };
        eventually("the server listens", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", server.folder.text("error.log"));
            TcpStream::connect(address).ok()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Stand {
    service: Service,
    token: String,
    _server: Server,
}

fn before(server: Server) -> Stand {
    let key = Key::es256("k1");
    let service = Setup::gateway(FOREIGN)
        .set("api", server.address)
        .file("jwks.json", Key::set(&[&key]))
        .start();
    Stand {
        service,
        token: mint(&key, &claims("alice")),
        _server: server,
    }
}

impl Stand {
    fn ask(&self, target: &str) -> Answer {
        self.service.ask(&get(target).bearer(&self.token))
    }
}

/// What every server of files must do behind the gateway.
fn serves_files_to_their_owner(stand: &Stand) {
    assert_eq!(
        stand.ask("/users/alice/photo.txt").expect(200).text(),
        "a photo of alice"
    );
    assert_eq!(
        stand.service.ask(&get("/public/hello.txt")).expect(200).text(),
        "hello"
    );
    stand
        .ask("/users/bob/photo.txt")
        .expect_refusal(403, "rule_refused");
    stand
        .service
        .ask(&get("/users/bob/photo.txt"))
        .expect_refusal(401, "no_credential");
    stand.ask("/users/alice/nothing").expect(404);
    for target in [
        "/users/alice/../bob/photo.txt",
        "/users/alice/%2e%2e/bob/photo.txt",
        "/users/alice/..%2fbob/photo.txt",
        "/users/alice%2f..%2fbob/photo.txt",
        "/public/../users/bob/photo.txt",
        "/public/%2e%2e/users/bob/photo.txt",
        "/public/..%2fusers/bob/photo.txt",
        "//users/bob/photo.txt",
        "/users//bob/photo.txt",
        "/public//../users/bob/photo.txt",
        "/./users/bob/photo.txt",
        "/users/./bob/photo.txt",
        "/users/bob%2fphoto.txt",
        "/public/x/../../users/bob/photo.txt",
        "/public/..;/users/bob/photo.txt",
    ] {
        for answer in [stand.ask(target), stand.service.ask(&get(target))] {
            assert!(
                matches!(answer.status, 400 | 401 | 403 | 404),
                "{target}: {}",
                answer.status
            );
            assert!(!answer.text().contains("a photo of bob"), "{target}");
        }
    }
    // Odd paths that stay within what was judged are the server's to read.
    for target in [
        "/users/alice//photo.txt",
        "/users/alice/./photo.txt",
        "/users/alice/x/../photo.txt",
        "/users/al%69ce/photo.txt",
    ] {
        let answer = stand.ask(target);
        assert!(
            matches!(answer.status, 200 | 301 | 404),
            "{target}: {}",
            answer.status
        );
    }
}

#[test]
fn nginx_serves_files_behind_the_gateway() {
    let stand = before(Server::nginx());
    serves_files_to_their_owner(&stand);
    // A range, a condition and a HEAD are the server's own affair.
    let range = get("/public/hello.txt").header("Range", "bytes=1-2");
    assert_eq!(stand.service.ask(&range).expect(206).text(), "el");
    let etag = stand
        .service
        .ask(&get("/public/hello.txt"))
        .header("etag")
        .to_owned();
    stand
        .service
        .ask(&get("/public/hello.txt").header("If-None-Match", etag))
        .expect(304);
    let head = stand
        .service
        .ask(&crate::harness::ask("HEAD", "/public/hello.txt"))
        .expect(200);
    assert_eq!(head.header("content-length"), "5");
}

#[test]
fn nginx_reads_the_identity_and_nothing_of_the_token() {
    let stand = before(Server::nginx());
    let mut connection = stand.service.connect();
    for forged in ["X-User-Id", "x_user_id", "X.User.Id"] {
        let ask = get("/api/a%2Fb?c=%2F").bearer(&stand.token).header(forged, "bob");
        let text = connection.ask(&ask).expect(200).text();
        assert_eq!(
            text,
            "user=alice uri=/api/a/b sent=/api/a%2Fb?c=%2F authorization=\n"
        );
    }
}

#[test]
fn pythons_server_serves_files_behind_the_gateway() {
    serves_files_to_their_owner(&before(Server::python()));
}
