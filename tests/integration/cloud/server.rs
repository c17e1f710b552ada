//! Servers that run inside the test, and a layer in front of them that makes things go wrong.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Result<Answer, BoxError>> + Send + Sync>;

/// Name and secret that the S3 server lets in.
pub const KEY_ID: &str = "AKTESTKEY";
pub const SECRET: &str = "a-secret-of-the-test";
pub const BUCKET: &str = "bucket";

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out, and answered with this status.
    Status(u16),
    /// It is carried out, and the connection closed instead of an answer.
    LoseAnswer,
    /// The connection breaks after so many bytes of the answer's body.
    ResetAfter(usize),
    /// Its conditions are not looked at.
    IgnoreConditions,
    /// One bit of the answer's body is wrong.
    FlipBit,
    /// The answer to a listing is the first one that was ever given to it.
    StaleList,
}

/// Requests that a fault meets.
pub struct Rule {
    /// `PUT`, `GET`, ...; empty for all.
    pub method: &'static str,
    /// What the path and query hold.
    pub holds: &'static str,
    /// Of every so many such requests, one goes wrong.
    pub every: usize,
    /// Such requests that go right first.
    pub after: usize,
    /// Most faults.
    pub most: usize,
    pub fault: Fault,
}

impl Rule {
    /// One request in `every` of this kind goes wrong.
    pub fn every(every: usize, method: &'static str, holds: &'static str, fault: Fault) -> Self {
        Self { method, holds, every, after: 0, most: usize::MAX, fault }
    }
}

#[derive(Default)]
struct State {
    rules: Vec<(Rule, usize, usize)>,
    lists: HashMap<String, Bytes>,
    faults: usize,
    log: Vec<String>,
    /// Since when requests are told as they come.
    traced: Option<Instant>,
}

/// A server on a free port of this machine, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    is_encrypted: bool,
    root: Option<tempfile::TempDir>,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// An S3 server with an empty bucket.
    pub fn s3() -> Self {
        let root = tempfile::Builder::new().prefix("backstay-s3-").tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let handler = s3_handler(root.path());
        Self::start(handler, Some(root), None)
    }

    /// As [`s3`](Self::s3), over an encrypted connection, with the certificate that vouches for it in PEM.
    pub fn s3_tls() -> (Self, String) {
        let root = tempfile::Builder::new().prefix("backstay-s3-").tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let handler = s3_handler(root.path());
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        (Self::start(handler, Some(root), Some(acceptor)), made.cert.pem())
    }

    /// An S3 server over a folder that stays.
    pub fn s3_at(root: &Path) -> Self {
        Self::start(s3_handler(root), None, None)
    }

    /// A WebDAV server with an empty folder.
    pub fn webdav() -> Self {
        let root = tempfile::Builder::new().prefix("backstay-dav-").tempdir().unwrap();
        let dav = dav_server::DavHandler::builder()
            .filesystem(dav_server::localfs::LocalFs::new(root.path(), false, false, false))
            .locksystem(dav_server::fakels::FakeLs::new())
            .build_handler();
        let path = root.path().to_owned();
        let handler: Handler = Arc::new(move |request| {
            let dav = dav.clone();
            // The server forbids what lies below a file.
            let below = path.join(request.uri().path().trim_matches('/').replace("%20", " "));
            if below.parent().is_some_and(Path::is_file) {
                return Box::pin(async move { Ok(empty(404)) });
            }
            Box::pin(async move {
                Ok(dav.handle(request).await.map(|body| body.map_err(BoxError::from).boxed_unsync()))
            })
        });
        Self::start(handler, Some(root), None)
    }

    fn start(
        handler: Handler,
        root: Option<tempfile::TempDir>,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let is_encrypted = tls.is_some();
        let serving = Arc::clone(&state);
        let path = root.as_ref().map(|root| root.path().to_owned());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                socket.set_nodelay(true).unwrap();
                let (handler, state) = (Arc::clone(&handler), Arc::clone(&serving));
                let (path, tls) = (path.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        serve(Arc::clone(&handler), Arc::clone(&state), path.clone(), request)
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    match tls {
                        None => drop(builder.serve_connection(TokioIo::new(socket), service).await),
                        Some(tls) => {
                            let Ok(socket) = tls.accept(socket).await else { return };
                            drop(builder.serve_connection(TokioIo::new(socket), service).await);
                        }
                    }
                });
            }
        });
        Self { address, is_encrypted, root, state, runtime: Some(runtime) }
    }

    /// Closes all connections and takes no more.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub fn url(&self) -> String {
        format!("http{}://{}", if self.is_encrypted { "s" } else { "" }, self.address)
    }

    /// The folder that holds everything.
    pub fn root(&self) -> PathBuf {
        self.root.as_ref().unwrap().path().to_owned()
    }

    /// Adds a rule for what goes wrong.
    pub fn add(&self, rule: Rule) {
        self.state.lock().unwrap().rules.push((rule, 0, 0));
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// Method, path and query of every request since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    /// Tells requests, with their times, as they come.
    pub fn trace(&self) {
        self.state.lock().unwrap().traced = Some(Instant::now());
    }

    /// How often something went wrong.
    pub fn faults(&self) -> usize {
        self.state.lock().unwrap().faults
    }
}

fn s3_handler(root: &Path) -> Handler {
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single(KEY_ID, SECRET));
    let service = builder.build();
    let root = root.to_owned();
    Arc::new(move |request: Request<Incoming>| {
        let service = service.clone();
        let is_folder = request.uri().path().trim_matches('/').contains('/')
            && request.uri().query().is_none()
            && root.join(request.uri().path().trim_matches('/')).is_dir();
        if is_folder {
            // The server keeps objects in a folder, and fails where a folder is asked for.
            let status = if request.method() == "DELETE" { 204 } else { 404 };
            return Box::pin(async move { Ok(empty(status)) });
        }
        Box::pin(async move {
            let answer = service.call(request.map(s3s::Body::from)).await.map_err(|e| format!("{e:?}"))?;
            Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        })
    })
}

fn empty(status: u16) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

async fn serve(
    handler: Handler,
    state: Arc<Mutex<State>>,
    root: Option<PathBuf>,
    request: Request<Incoming>,
) -> Result<Answer, BoxError> {
    let method = request.method().to_string();
    let path = request.uri().to_string();
    let fault = fault_of(&mut state.lock().unwrap(), &method, &path);
    if let Some(Fault::Status(status)) = fault {
        // Read first, as servers do: a client that still sends would see a reset instead.
        let _ = request.into_body().collect().await;
        let text = "<Error><Code>SlowDown</Code><Message>planned by a test</Message></Error>";
        let text = if status == 503 { text } else { "" };
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::from_u16(status)?;
        return Ok(answer);
    }
    if let (Some(Fault::IgnoreConditions), Some(root)) = (fault, &root) {
        // The condition is signed: it must stay. So it finds nothing that would be in its way.
        let _ = std::fs::remove_file(root.join(request.uri().path().trim_matches('/')));
    }
    let is_list = method == "GET" && path.contains("list-type=2");
    let answer = handler(request).await?;
    if fault == Some(Fault::LoseAnswer) {
        return Err("the answer is lost, planned by a test".into());
    }
    if fault.is_none() && !is_list {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let mut bytes = body.collect().await?.to_bytes();
    if is_list {
        let first = state.lock().unwrap().lists.entry(path).or_insert_with(|| bytes.clone()).clone();
        if fault == Some(Fault::StaleList) {
            bytes = first;
        }
    }
    if fault == Some(Fault::FlipBit) && !bytes.is_empty() {
        let mut wrong = bytes.to_vec();
        let middle = wrong.len() / 2;
        wrong[middle] ^= 4;
        bytes = wrong.into();
    }
    let body = match fault {
        Some(Fault::ResetAfter(len)) if len < bytes.len() => {
            let pieces = vec![Ok(Frame::data(bytes.slice(..len))), Err("the connection breaks".into())];
            BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(pieces)))
        }
        _ => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
    };
    Ok(Response::from_parts(parts, body))
}

fn fault_of(state: &mut State, method: &str, path: &str) -> Option<Fault> {
    state.log.push(format!("{method} {path}"));
    if let Some(since) = state.traced {
        eprintln!("{:>9.3} s  {method} {path}", since.elapsed().as_secs_f64());
    }
    for (rule, seen, done) in &mut state.rules {
        let fits = (rule.method.is_empty() || rule.method == method) && path.contains(rule.holds);
        if !fits {
            continue;
        }
        *seen += 1;
        if *seen > rule.after && (*seen - rule.after).is_multiple_of(rule.every) && *done < rule.most {
            *done += 1;
            state.faults += 1;
            return Some(rule.fault);
        }
    }
    None
}
