//! Servers of others, that `scripts/servers` installs, started on free ports.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::BUCKET;

/// A server in a process of its own, ended when it is dropped.
pub struct External {
    pub url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for External {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the servers are installed.
pub fn installed() -> PathBuf {
    let named = std::env::var_os("BACKSTAY_TEST_SERVERS").map(PathBuf::from);
    let cache = || match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
    };
    named.unwrap_or_else(|| cache().join("backstay-test-servers"))
}

impl External {
    /// An S3 server written in Python, with an empty bucket.
    pub fn moto() -> Result<Self, String> {
        let server = Self::start("moto/bin/moto_server", |port| {
            vec!["-H".into(), "127.0.0.1".into(), format!("-p{port}")]
        })?;
        let answer = server.request(&format!("PUT /{BUCKET}"), "");
        assert!(answer.starts_with("HTTP/1.1 200"), "no bucket: {answer}");
        Ok(server)
    }

    /// An emulator of Azure's blob service, with an empty container.
    pub fn azurite() -> Result<Self, String> {
        let server = Self::start("azurite/node_modules/.bin/azurite-blob", |port| {
            let words = "--blobHost 127.0.0.1 --silent --inMemoryPersistence --skipApiVersionCheck --disableTelemetry";
            let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            words.extend(["--blobPort".to_owned(), port.to_string()]);
            words
        })?;
        let path = "/devstoreaccount1/container";
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
            .unwrap();
        let headers = format!("x-ms-date:{date}\nx-ms-version:2021-08-06\n");
        let to_sign = format!("PUT{}{headers}/devstoreaccount1{path}\nrestype:container", "\n".repeat(12));
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &decode(key));
        let signature = encode(ring::hmac::sign(&key, to_sign.as_bytes()).as_ref());
        let headers = format!(
            "x-ms-date: {date}\r\nx-ms-version: 2021-08-06\r\n\
             Authorization: SharedKey devstoreaccount1:{signature}\r\n"
        );
        let answer = server.request(&format!("PUT {path}?restype=container"), &headers);
        assert!(answer.starts_with("HTTP/1.1 201"), "no container: {answer}");
        Ok(server)
    }

    /// Fails where the program is not installed.
    fn start(program: &str, arguments: impl FnOnce(u16) -> Vec<String>) -> Result<Self, String> {
        let program = installed().join(program);
        if !program.exists() {
            return Err(format!("{} is not installed", program.display()));
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(arguments(port))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { url: format!("http://127.0.0.1:{port}"), child, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended at once");
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// Sends a request without a body; the answer as it comes.
    fn request(&self, line: &str, headers: &str) -> String {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        let text = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn decode(text: &str) -> Vec<u8> {
    let letters: Vec<u32> =
        text.bytes().filter_map(|b| LETTERS.iter().position(|l| *l == b)).map(|at| at as u32).collect();
    let group = |group: &[u32]| {
        let bits = (0..4).fold(0, |bits, at| bits << 6 | group.get(at).copied().unwrap_or(0));
        [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8][..group.len() * 6 / 8].to_vec()
    };
    letters.chunks(4).flat_map(group).collect()
}

fn encode(bytes: &[u8]) -> String {
    let group = |group: &[u8]| -> String {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        let letter = |at: usize| char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]);
        (0..4).map(|at| if at <= group.len() { letter(at) } else { '=' }).collect()
    };
    bytes.chunks(3).map(group).collect()
}
