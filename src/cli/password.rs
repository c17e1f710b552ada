//! Where passwords come from. No password is ever printed, nor a part of one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use zeroize::{Zeroize, Zeroizing};

use crate::cli::args::GlobalArgs;
use crate::cli::names::quoted;
use crate::crypto::kdf::Password;
use crate::env::withhold_secrets;
use crate::error::{Error, Result};

/// Longest password file, so that a wrong path cannot take all memory.
const PASSWORD_MAX_BYTES: u64 = 64 * 1024;

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a shell command prints.
    Command(OsString),
    /// The variable `BACKSTAY_PASSWORD`.
    Variable,
    /// The user, at a terminal.
    Prompt,
    /// The user, at a terminal, in place of options for a new password.
    PromptForNew,
    /// Two options at once.
    Ambiguous,
}

impl PasswordSource {
    /// What is written on the command line comes before the environment.
    pub fn of_options(args: &GlobalArgs, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let given = args.password_on_command_line;
        match (&args.password_file, &args.password_command) {
            (Some(_), Some(_)) if given.file && given.command => Self::Ambiguous,
            (_, Some(command)) if given.command => Self::Command(command.clone()),
            (Some(file), _) => Self::File(file.clone()),
            (None, Some(command)) => Self::Command(command.clone()),
            (None, None) if variable("BACKSTAY_PASSWORD").is_some_and(|value| !value.is_empty()) => {
                Self::Variable
            }
            (None, None) => Self::Prompt,
        }
    }

    /// For a new password: it has options and variables of its own.
    pub fn of_new_password(file: Option<&PathBuf>, command: Option<&OsString>) -> Self {
        match (file, command) {
            (Some(_), Some(_)) => Self::Ambiguous,
            (Some(file), None) => Self::File(file.clone()),
            (None, Some(command)) => Self::Command(command.clone()),
            (None, None) => Self::PromptForNew,
        }
    }

    /// The password of an existing repository.
    pub fn read(&self) -> Result<Password> {
        not_empty(match self {
            Self::Prompt | Self::PromptForNew => self.prompt("password: ")?,
            _ => self.read_silently()?,
        })
    }

    /// A password that is chosen now: at a terminal it is asked for twice.
    pub fn read_new(&self) -> Result<Password> {
        if !matches!(self, Self::Prompt | Self::PromptForNew) {
            return not_empty(self.read_silently()?);
        }
        let first = self.prompt("new password: ")?;
        if first.is_empty() {
            return not_empty(first);
        }
        let second = self.prompt("new password again: ")?;
        if *first != *second {
            return Err(Error::Usage("the two passwords are not the same".to_owned()));
        }
        not_empty(first)
    }

    fn read_silently(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::File(path) => read_file(path),
            Self::Command(command) => read_command(command),
            Self::Variable => {
                let value = std::env::var_os("BACKSTAY_PASSWORD").unwrap_or_default();
                Ok(Zeroizing::new(value.into_vec()))
            }
            Self::Prompt | Self::PromptForNew => Err(self.no_password()),
            Self::Ambiguous => {
                let text = "the password is given in two ways: choose one of a file and a command";
                Err(Error::Usage(text.to_owned()))
            }
        }
    }

    fn no_password(&self) -> Error {
        let (which, ways) = match self {
            Self::PromptForNew => {
                ("new password", "give --new-password-file, or set BACKSTAY_NEW_PASSWORD_FILE")
            }
            _ => ("password", "set BACKSTAY_PASSWORD_FILE, BACKSTAY_PASSWORD_COMMAND or BACKSTAY_PASSWORD"),
        };
        Error::Usage(format!("no {which} is given and there is no terminal to ask for it: {ways}"))
    }

    fn prompt(&self, text: &str) -> Result<Zeroizing<Vec<u8>>> {
        if !io::stderr().is_terminal() {
            return Err(self.no_password());
        }
        match rpassword::prompt_password(text) {
            Ok(password) => Ok(Zeroizing::new(password.into_bytes())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Error::Interrupted),
            Err(_) => Err(self.no_password()),
        }
    }
}

fn not_empty(mut bytes: Zeroizing<Vec<u8>>) -> Result<Password> {
    if bytes.is_empty() {
        return Err(Error::Usage("the password is empty: it would protect nothing".to_owned()));
    }
    Ok(Password::new(std::mem::take(&mut *bytes)))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let error = || Error::io("read the password from", path);
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(error())?;
    file.take(PASSWORD_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(error())?;
    if bytes.len() as u64 > PASSWORD_MAX_BYTES {
        return Err(Error::Usage(format!("{} is too long to be a password file", quoted(path))));
    }
    Ok(first_line(bytes))
}

fn read_command(command: &OsString) -> Result<Zeroizing<Vec<u8>>> {
    let error = || Error::io("run the password command in", "/bin/sh");
    let mut shell = Command::new("/bin/sh");
    withhold_secrets(&mut shell);
    let mut child =
        shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(error())?;
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(output) = child.stdout.take() {
        output.take(PASSWORD_MAX_BYTES).read_to_end(&mut bytes).map_err(error())?;
    }
    let status = child.wait().map_err(error())?;
    if !status.success() {
        // The command itself may hold a secret, so it is not quoted.
        return Err(Error::Command { command: "for the password".to_owned(), outcome: outcome(status) });
    }
    Ok(first_line(bytes))
}

fn outcome(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// What stands before the first line break; a byte-order mark is no part of it.
fn first_line(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    if let Some(rest) = bytes.get_mut(end..) {
        rest.zeroize();
    }
    bytes.truncate(end);
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn source(words: &str, has_variable: bool) -> PasswordSource {
        let words = format!("backstay {words} snapshots");
        let cli = args::parse(words.split_whitespace().map(OsString::from)).unwrap();
        PasswordSource::of_options(&cli.global, &|_| has_variable.then(|| OsString::from("x")))
    }

    #[test]
    fn the_command_line_comes_first() {
        assert_eq!(source("--password-file f", true), PasswordSource::File("f".into()));
        assert_eq!(source("--password-command c", true), PasswordSource::Command("c".into()));
        assert_eq!(source("--password-file f --password-command c", false), PasswordSource::Ambiguous);
        assert_eq!(source("", true), PasswordSource::Variable);
        assert_eq!(source("", false), PasswordSource::Prompt);
    }

    #[test]
    fn a_password_is_the_first_line() {
        for (text, expected) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\nmore\n", b"secret"),
            (b" se cret \n\n", b" se cret "),
            (b"\xef\xbb\xbfsecret\n", b"secret"),
            (b"\n", b""),
            (b"\xff\xfe", b"\xff\xfe"),
        ] {
            assert_eq!(*first_line(Zeroizing::new(text.to_vec())), expected);
        }
    }

    #[test]
    fn files_and_commands_give_passwords_and_failures_say_why() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        assert_eq!(*read_file(file.path()).unwrap(), b"secret");
        assert!(matches!(read_file(Path::new("/no/such")), Err(Error::Io { .. })));
        assert_eq!(*read_command(&"echo secret; echo more".into()).unwrap(), b"secret");
        let error = read_command(&"echo hush; exit 3".into()).unwrap_err().to_string();
        assert!(error.contains("status 3") && !error.contains("hush"), "{error}");
        let empty = PasswordSource::Command("true".into());
        assert!(matches!(empty.read(), Err(Error::Usage(text)) if text.contains("empty")));
    }
}
