//! Going on in the background: the program starts itself once more, and waits until that one is ready.
//!
//! The child is the same command with [`CHILD_FLAG`] in place of [`PARENT_FLAG`]. It says that it is ready on
//! its standard output, lets go of the terminal, and works on. What fails before is told as in the
//! foreground, with the same exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::cli::explain::{EXIT_FAILED, Failure};
use crate::cli::mount_helper;
use crate::error::Error;

/// What users say.
pub const PARENT_FLAG: &str = "--background";
/// What the child is told instead.
pub const CHILD_FLAG: &str = "--background-child";
const READY: &str = "ready";

/// Where warnings go in the background.
pub struct Log(File);

impl Log {
    /// Opens the file, before anything else can fail.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::options().create(true).append(true).open(path);
        opened.map(Self).map_err(Error::io("write the log", path))
    }
}

/// Starts the program once more, in the background, and returns when it is ready. If it never is, this one
/// ends as that one did.
pub fn start() -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(Error::io("find", "this program itself"))?;
    let mut command = Command::new(&program);
    // They were understood before.
    let args = mount_helper::translate(std::env::args_os().collect()).unwrap_or_default();
    command.args(child_arguments(args.into_iter().skip(1)));
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(Error::io("start", &program))?;
    let mut said = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut said)?;
    }
    if said.trim_end() == READY {
        return Ok(());
    }
    let status = child.wait().map_err(Error::io("wait for", &program))?;
    let code = status.code().filter(|code| *code != 0).unwrap_or(EXIT_FAILED.into());
    // The child has said why.
    std::process::exit(code);
}

/// The first flag before any `--` is replaced.
fn child_arguments(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut over = false;
    args.map(|arg| {
        over |= arg == "--";
        if !over && arg == PARENT_FLAG {
            over = true;
            return OsString::from(CHILD_FLAG);
        }
        arg
    })
    .collect()
}

/// Says that this process, started by [`start`], is ready, and lets go of the terminal.
pub fn announce(log: Option<Log>) -> Result<(), Failure> {
    let nothing = File::options().read(true).write(true).open("/dev/null");
    let nothing = nothing.map_err(Error::io("open", "/dev/null"))?;
    // A terminal that is closed must not end it. This fails for nobody but a leader of its group.
    let _ = rustix::process::setsid();
    // No folder is kept busy.
    let _ = std::env::set_current_dir("/");
    let os = io::Error::from;
    dup2_stdin(&nothing).map_err(os)?;
    match &log {
        Some(Log(file)) => dup2_stderr(file).map_err(os)?,
        None => dup2_stderr(&nothing).map_err(os)?,
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    drop(out);
    Ok(dup2_stdout(&nothing).map_err(os)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_is_told_that_it_is_one() {
        let arguments = |words: &str| {
            child_arguments(words.split(' ').map(OsString::from)).join(std::ffi::OsStr::new(" "))
        };
        assert_eq!(arguments("mount /m --background -v"), "mount /m --background-child -v");
        assert_eq!(arguments("mount -- --background"), "mount -- --background");
    }
}
