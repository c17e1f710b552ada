//! A link to a server that is as slow and as far as a test wants.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What one read of a connection takes at most.
const PIECE: usize = 64 << 10;
/// Pieces of one connection that are on their way in one direction: more than a fast link holds.
const IN_FLIGHT: usize = 128;

/// Forwards connections to a server.
pub struct Link {
    pub address: SocketAddr,
    up: Arc<Direction>,
    down: Arc<Direction>,
    runtime: Runtime,
}

/// One direction of the link, which all connections share.
struct Direction {
    latency: Duration,
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
    carried: AtomicU64,
}

impl Direction {
    /// When `bytes` that are sent now arrive.
    fn arrival(&self, bytes: usize) -> Instant {
        self.carried.fetch_add(bytes as u64, Ordering::Relaxed);
        let mut free_at = self.free_at.lock().unwrap();
        let start = free_at.max(Instant::now());
        *free_at = start + Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.bytes_per_second);
        *free_at + self.latency
    }
}

impl Link {
    /// A link whose round trip takes `round_trip` and that carries so many bytes each way.
    pub fn new(server: SocketAddr, round_trip: Duration, bytes_per_second: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let direction = || {
            let _entered = runtime.enter();
            Arc::new(Direction {
                latency: round_trip / 2,
                bytes_per_second,
                free_at: Mutex::new(Instant::now()),
                carried: AtomicU64::new(0),
            })
        };
        let (up, down) = (direction(), direction());
        let link = Self { address, up: Arc::clone(&up), down: Arc::clone(&down), runtime };
        link.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    for stream in [&client, &server] {
                        stream.set_nodelay(true).unwrap();
                    }
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::spawn(carry(from_client, to_server, up));
                    tokio::spawn(carry(from_server, to_client, down));
                });
            }
        });
        link
    }

    /// Bytes that went to the server and came from it since the last call.
    pub fn take_carried(&self) -> (u64, u64) {
        let take = |direction: &Direction| direction.carried.swap(0, Ordering::Relaxed);
        (take(&self.up), take(&self.down))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    direction: Arc<Direction>,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let reader = async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(len) => {
                    piece.truncate(len);
                    if sender.send((direction.arrival(len), piece)).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    tokio::spawn(reader);
    while let Some((arrival, piece)) = pieces.recv().await {
        tokio::time::sleep_until(arrival).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
