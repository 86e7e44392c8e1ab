//! The binary as a process: what it says is kept, and it never outlives its test.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::clock::eventually;

/// A running `durward`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// A `durward` that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts the binary with these arguments in `folder`.
    pub fn start(arguments: &[&str], folder: &Path, environment: &[(&str, &str)], input: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_durward"));
        command
            .args(arguments)
            .env_remove("DURWARD_LOG")
            .envs(environment.iter().copied());
        Self::spawn(command, folder, input)
    }

    /// Runs shell lines in `folder`, where `durward` is the binary.
    pub fn shell(lines: &str, folder: &Path) -> Self {
        let binaries = Path::new(env!("CARGO_BIN_EXE_durward"))
            .parent()
            .unwrap()
            .display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", lines])
            .env("PATH", format!("{binaries}:{path}"));
        Self::spawn(command, folder, "")
    }

    fn spawn(mut command: Command, folder: &Path, input: &str) -> Self {
        let mut child = command
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Output::collect(child.stdout.take().unwrap());
        let stderr = Output::collect(child.stderr.take().unwrap());
        // A process that reads nothing may have closed its end.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by the shell's own `kill`.
    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success(),
            "{script}"
        );
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = eventually("the process ends", || self.ended());
        Finished {
            code: status.code().unwrap_or(-1),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "---- stdout of process {}\n{}",
                self.child.id(),
                self.stdout.all()
            );
            eprintln!(
                "---- stderr of process {}\n{}",
                self.child.id(),
                self.stderr.all()
            );
        }
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn durward(arguments: &[&str], folder: &Path) -> Finished {
    Process::start(arguments, folder, &[], "").finish()
}

#[derive(Debug)]
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut piece) {
                into.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Self {
            bytes,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Everything, once the process has ended.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}
