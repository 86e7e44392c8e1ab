//! The same program as another process, in another role.
//!
//! The parent writes the role as one line of JSON to the child's standard input and keeps it open;
//! the child answers in lines of JSON on its standard output, and ends when its input does. So it
//! ends with its parent, however that ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::backend::BackendRole;
use crate::bare_proxy::BareProxyRole;
use crate::child::Child;
use crate::load::LoadRole;
use crate::{Fallible, backend, bare_proxy, instructions, load};

/// What a process is started under.
#[derive(Clone, Debug)]
pub enum Under {
    /// `taskset`, with its list of processors, such as `0,2-3`.
    Processors(String),
    /// Valgrind's callgrind, which counts nothing until it is told to. Its files go to this folder.
    Callgrind(PathBuf),
}

/// The argument that asks for a role.
const ARGUMENT: &str = "--in-role";

/// What a child process can be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    /// A server with one fixed answer.
    Backend(BackendRole),
    /// Pingora's proxy and nothing else.
    BareProxy(BareProxyRole),
    /// The load generator.
    Load(LoadRole),
}

/// Plays the role that this process was started for; nothing where it was started by a person.
pub fn play_if_asked() -> Option<ExitCode> {
    if std::env::args().nth(1).as_deref() != Some(ARGUMENT) {
        return None;
    }
    Some(match read_role().and_then(play) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

/// Reads the role, and sees to it that this process ends with its parent.
pub fn read_role() -> Fallible<Role> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let role = serde_json::from_str(&line)?;
    std::thread::spawn(|| {
        // Nothing more is ever written to it: the end of the input, or an error, is the parent's end.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    Ok(role)
}

fn play(role: Role) -> Fallible<()> {
    match role {
        Role::Backend(role) => backend::play(&role),
        Role::BareProxy(role) => bare_proxy::play(&role),
        Role::Load(role) => load::play(role),
    }
}

/// Tells the parent something.
pub(crate) fn tell(message: &impl Serialize) -> Fallible<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(message)?)?;
    output.flush()?;
    Ok(())
}

/// A child process in a role.
pub struct RoleProcess {
    child: Child,
    name: String,
    /// Open for as long as the child is to run.
    _input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl RoleProcess {
    /// Starts this program again in a role.
    pub fn start(name: &str, role: &Role, under: Option<&Under>) -> Fallible<Self> {
        Self::start_program(&std::env::current_exe()?, name, role, under)
    }

    /// Starts another program of this crate in a role.
    pub fn start_program(program: &Path, name: &str, role: &Role, under: Option<&Under>) -> Fallible<Self> {
        let mut command = command(program, under);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = Child::start(name, &mut command)?;
        let (Some(mut input), Some(output)) = child.take_streams() else {
            return Err(format!("{name} has no pipes").into());
        };
        writeln!(input, "{}", serde_json::to_string(role)?)?;
        input.flush()?;
        Ok(Self {
            child,
            name: name.into(),
            _input: input,
            output: BufReader::new(output),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits for what it tells next.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Fallible<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("{} ended before it was done", self.name).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// A command that runs a program.
pub(crate) fn command(program: &Path, under: Option<&Under>) -> Command {
    match under {
        None => Command::new(program),
        Some(Under::Processors(list)) => {
            let mut command = Command::new("taskset");
            command.arg("--cpu-list").arg(list).arg(program);
            command
        }
        Some(Under::Callgrind(folder)) => {
            let files = folder.join(instructions::FILES);
            let mut command = Command::new("valgrind");
            command
                .args(["--quiet", "--tool=callgrind", "--instr-atstart=no"])
                .arg(format!("--callgrind-out-file={}", files.display()))
                .arg(program);
            command
        }
    }
}
