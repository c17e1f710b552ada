//! `backstay serve`

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use serde_json::json;
use zeroize::Zeroizing;

use crate::browse::{Browser, BrowserOptions, DEFAULT_TEMPLATES, Templates};
use crate::cli::explain::{Failure, Outcome};
use crate::cli::progress::Progress;
use crate::cli::selection::SelectionArgs;
use crate::cli::settings::Settings;
use crate::cli::{heaps, output, session, signals};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::webdav::{self, Login, WebdavOptions};

/// Longest file with a login.
const LOGIN_MAX_BYTES: u64 = 4096;

/// Serve snapshots over the network
#[derive(Debug, Args)]
#[command(long_about = "Serve the snapshots of a repository to other programs, for reading, until Ctrl-C.")]
pub struct ServeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Webdav(WebdavArgs),
}

/// Serve snapshots over WebDAV
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  backstay serve webdav --listen 127.0.0.1:8080")]
struct WebdavArgs {
    /// The address and port to listen at; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = parse_address)]
    listen: SocketAddr,

    /// File whose first line is USER:PASSWORD, which clients must know
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,

    /// Listen where others than this machine can reach it: unencrypted
    #[arg(long, requires = "auth_file")]
    allow_remote: bool,

    #[command(flatten)]
    selection: SelectionArgs,
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "it must be an address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

pub fn run(settings: &Settings, args: &ServeArgs) -> Result<Outcome, Failure> {
    let What::Webdav(args) = &args.what;
    heaps::use_few();
    let login = args.auth_file.as_deref().map(read_login).transpose()?;
    let templates = Templates::new(&DEFAULT_TEMPLATES, None, TimeZone::system())?;
    let progress = Progress::beside_output(settings);
    let repo = session::open_indexed(settings, &progress)?;
    progress.finish();
    let observer: Arc<dyn Observer> = Arc::new(progress);
    let options = BrowserOptions { filter: args.selection.filter(), templates, only: None };
    let browser = Browser::new(repo, options, Arc::clone(&observer))?;
    let options = WebdavOptions { listen: args.listen, login, allow_remote: args.allow_remote };
    let server = webdav::listen(Arc::clone(&browser), options, Arc::clone(&observer))?;
    let url = format!("http://{}/", server.address()?);
    let stop = signals::stop_flag();
    session::hold(&browser, "serve webdav", &*observer, || {
        if settings.json {
            output::print_json_line(&json!({"message_type": "serving", "url": url}))?;
        } else {
            output::say(settings, &format!("serving at {url}: press Ctrl-C to end"))?;
        }
        server.run(stop);
        Ok(Outcome::Done)
    })
}

fn read_login(path: &Path) -> Result<Login> {
    let mut text = Zeroizing::new(Vec::new());
    let reading = Error::io("read", path);
    let file = std::fs::File::open(path).and_then(|file| file.take(LOGIN_MAX_BYTES).read_to_end(&mut text));
    file.map_err(reading)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    Login::new(line)
        .ok_or_else(|| Error::Usage(format!("{} does not begin with USER:PASSWORD", path.display())))
}
