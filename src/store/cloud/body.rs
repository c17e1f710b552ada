//! Bodies of requests and answers, on their way: counted, paced, and watched for standing still.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody};
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::limits::STORE_BODY_PIECE_BYTES;
use crate::store::cloud::failure;
use crate::store::cloud::http::{StalledError, refused};
use crate::store::cloud::pace::Pace;

/// When a request last got on.
#[derive(Debug)]
pub(super) struct Progress(Mutex<Instant>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// It got on, or does so after `wait`.
    fn touch(&self, wait: Duration) {
        let now = Instant::now();
        *self.0.lock() = now.checked_add(wait).unwrap_or(now);
    }

    /// How long it has been standing still.
    pub(super) fn idle(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// One direction of the traffic of a store.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) bytes: AtomicU64,
    pub(super) pace: Option<Pace>,
}

impl Direction {
    fn take(&self, bytes: usize) -> Duration {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.take(bytes))
    }
}

/// What a request sends, in pieces.
pub(super) struct Sent {
    body: HttpRequestBody,
    /// The rest of a part of the body.
    rest: Bytes,
    direction: Arc<Direction>,
    progress: Arc<Progress>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Sent {
    pub(super) fn new(body: HttpRequestBody, direction: Arc<Direction>, progress: Arc<Progress>) -> Self {
        Self { body, rest: Bytes::new(), direction, progress, wait: None }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                other => return Poll::Ready(other),
            }
        }
        let pace = self.direction.pace.as_ref();
        let most = pace.map_or(STORE_BODY_PIECE_BYTES, |pace| pace.piece().min(STORE_BODY_PIECE_BYTES));
        let len = self.rest.len().min(most);
        let piece = self.rest.split_to(len);
        // Sent now, and paid for before the next one.
        let wait = self.direction.take(len);
        self.progress.touch(wait);
        self.wait = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + self.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}

/// What an answer brings. `B` fails where the connection does.
pub(super) struct Received<B> {
    body: B,
    direction: Arc<Direction>,
    /// A piece that has come, and may not be used yet.
    early: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
    stall: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Bytes that may come yet, and how many there could be in all.
    left: u64,
    most: u64,
    /// The right to occupy a connection.
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl<B> Received<B> {
    pub(super) fn new(
        body: B,
        direction: Arc<Direction>,
        stall: Duration,
        most: u64,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep(stall));
        Self { body, direction, early: None, stall, deadline, left: most, most, _permit: permit }
    }
}

impl<B> Body for Received<B>
where
    B: Body<Data = Bytes, Error = HttpError> + Unpin,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Some((frame, mut wait)) = self.early.take() {
            if wait.as_mut().poll(context).is_pending() {
                self.early = Some((frame, wait));
                return Poll::Pending;
            }
            self.restart();
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(other) => return Poll::Ready(other),
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(context));
                let error = StalledError { after: self.stall };
                return Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, error))));
            }
        };
        let len = frame.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(len as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(refused(failure::endless(self.most))))),
        }
        let wait = self.direction.take(len);
        if wait.is_zero() {
            self.restart();
            return Poll::Ready(Some(Ok(frame)));
        }
        self.early = Some((frame, Box::pin(tokio::time::sleep(wait))));
        self.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.early {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

impl<B> Received<B> {
    fn restart(&mut self) {
        let now = tokio::time::Instant::now();
        if let Some(deadline) = now.checked_add(self.stall) {
            self.deadline.as_mut().reset(deadline);
        }
    }
}
