//! The two ends of the link and the futures that drive them.

use std::future::poll_fn;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, ConnectionError, Mode};

use super::outbox::Outbox;
use super::{LinkError, LinkStream, MAX_STREAMS, Preamble, READY, STREAM_WINDOW, StreamKind};

/// A frame with its header is then one write of a virtio-serial port, which takes 32 KiB.
const SPLIT: usize = 32 * 1024 - 12;

/// Streams that yamux keeps: those that are open and those that one side has dropped while the
/// other has not yet heard of it. yamux ends the whole link when there are more.
pub(super) const TABLE: usize = 2 * MAX_STREAMS;

/// How long a stream may take to say what it is.
const PREAMBLE_WAIT: Duration = Duration::from_secs(30);

type Opened = oneshot::Sender<Result<yamux::Stream, LinkError>>;
type Mux<T> = Connection<Compat<Outbox<T>>>;

fn config() -> Config {
    let mut config = Config::default();
    config
        .set_max_num_streams(TABLE)
        .set_max_connection_receive_window(Some(TABLE * STREAM_WINDOW))
        .set_split_send_size(SPLIT)
        .set_read_after_close(true);
    config
}

fn multiplex<T: AsyncRead + AsyncWrite + Unpin>(io: T, mode: Mode) -> Mux<T> {
    Connection::new(Outbox::new(io).compat(), config(), mode)
}

fn broke(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::Closed => LinkError::Closed,
        other => LinkError::Connection(other),
    }
}

/// The host's end of a link: opens streams to the guest. Clones share the link.
#[derive(Debug, Clone)]
pub struct Link {
    requests: mpsc::Sender<Opened>,
    free: Arc<Semaphore>,
}

impl Link {
    /// The link over `io`, and the future that drives it until `io` ends.
    ///
    /// Nothing is spawned here and nothing moves before the future is polled. Dropping the
    /// future closes the link. The future fails when the peer breaks the protocol.
    pub fn host<T>(io: T) -> (Self, impl Future<Output = Result<(), LinkError>> + Send)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, queue) = mpsc::channel(16);
        let mut driver = HostDriver {
            mux: multiplex(io, Mode::Client),
            queue: Some(queue),
            opening: None,
        };
        let free = Arc::new(Semaphore::new(MAX_STREAMS));
        (Self { requests, free }, poll_fn(move |cx| driver.poll(cx)))
    }

    /// Opens a stream for the agent service.
    ///
    /// # Errors
    /// When the link is closed or has [`MAX_STREAMS`] streams already.
    pub async fn open_control(&self) -> Result<LinkStream, LinkError> {
        self.open(StreamKind::Control).await
    }

    /// Opens the stream that a request names by `token`, which must not be 0.
    ///
    /// # Errors
    /// When the link is closed or has [`MAX_STREAMS`] streams already.
    pub async fn open_stdio(&self, token: u64) -> Result<LinkStream, LinkError> {
        self.open(StreamKind::Stdio { token }).await
    }

    /// Opens a connection to a port of the guest's loopback.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when nobody listens there; when the link is closed or has [`MAX_STREAMS`] streams already.
    pub async fn open_connection(&self, port: NonZeroU16) -> Result<LinkStream, LinkError> {
        let port = port.get();
        self.open_ready(StreamKind::Connect { port }).await
    }

    /// Opens the stream of questions for names.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the guest cannot take them from its containers; when the link is closed or has
    /// [`MAX_STREAMS`] streams already.
    pub async fn open_resolver(&self) -> Result<LinkStream, LinkError> {
        self.open_ready(StreamKind::Resolver).await
    }

    async fn open_ready(&self, kind: StreamKind) -> Result<LinkStream, LinkError> {
        let mut stream = self.open(kind).await?;
        match stream.read_u8().await {
            Ok(READY) => Ok(stream),
            Ok(_) | Err(_) => Err(LinkError::Refused),
        }
    }

    async fn open(&self, kind: StreamKind) -> Result<LinkStream, LinkError> {
        let slot = Arc::clone(&self.free)
            .try_acquire_owned()
            .map_err(|_| LinkError::TooManyStreams)?;
        let (reply, opened) = oneshot::channel();
        self.requests
            .send(reply)
            .await
            .map_err(|_| LinkError::Closed)?;
        let stream = opened.await.map_err(|_| LinkError::Closed)??;
        let mut stream = LinkStream::new(stream, Some(slot));
        stream
            .write_all(&Preamble(kind).encode())
            .await
            .map_err(LinkError::Open)?;
        Ok(stream)
    }
}

struct HostDriver<T> {
    mux: Mux<T>,
    /// `None` once every [`Link`] is gone: streams that are open go on.
    queue: Option<mpsc::Receiver<Opened>>,
    opening: Option<Opened>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> HostDriver<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            // First, because it also clears away the streams that were dropped.
            match self.mux.poll_next_inbound(cx) {
                Poll::Pending => {}
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(_))) => return Poll::Ready(Err(LinkError::UnexpectedStream)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broke(error))),
            }
            if !self.poll_open(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Whether a request was answered and another may be waiting.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> bool {
        if self.opening.is_none() {
            let Some(queue) = &mut self.queue else {
                return false;
            };
            match queue.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.opening = Some(request),
                Poll::Ready(None) => self.queue = None,
                Poll::Pending => {}
            }
        }
        let Some(request) = self.opening.take() else {
            return false;
        };
        if request.is_closed() {
            return true;
        }
        match self.mux.poll_new_outbound(cx) {
            Poll::Pending => {
                self.opening = Some(request);
                false
            }
            Poll::Ready(stream) => {
                // A caller that has gone away drops the stream, which resets it.
                let _ = request.send(stream.map_err(broke));
                true
            }
        }
    }
}

/// The guest's end of a link: the streams that the host opened, as they come.
#[derive(Debug)]
pub struct Incoming {
    streams: mpsc::Receiver<(StreamKind, LinkStream)>,
}

impl Incoming {
    /// The next stream; `None` when the link has ended.
    pub async fn next(&mut self) -> Option<(StreamKind, LinkStream)> {
        self.streams.recv().await
    }
}

/// The guest's end of the link over `io`, and the future that drives it until `io` ends.
///
/// A stream is handed out when its preamble has been read; one that is slow to send it delays
/// no other. The future fails when the peer breaks the protocol.
pub fn guest<T>(io: T) -> (Incoming, impl Future<Output = Result<(), LinkError>> + Send)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ready, streams) = mpsc::channel(TABLE);
    let mut driver = GuestDriver {
        mux: multiplex(io, Mode::Server),
        unnamed: FuturesUnordered::new(),
        ready,
    };
    (Incoming { streams }, poll_fn(move |cx| driver.poll(cx)))
}

/// `None`: the stream ended, or took too long, before it said what it is.
type Named = Result<Option<(StreamKind, LinkStream)>, LinkError>;

struct GuestDriver<T> {
    mux: Mux<T>,
    unnamed: FuturesUnordered<BoxFuture<'static, Named>>,
    ready: mpsc::Sender<(StreamKind, LinkStream)>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> GuestDriver<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            match self.mux.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    self.unnamed
                        .push(name(LinkStream::new(stream, None)).boxed());
                    continue;
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broke(error))),
                Poll::Pending => {}
            }
            match self.unnamed.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Some(stream)))) => {
                    // There is room for every stream there can be; when nobody takes them any
                    // more the stream is dropped, which tells the host.
                    let _ = self.ready.try_send(stream);
                }
                Poll::Ready(Some(Ok(None))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

async fn name(mut stream: LinkStream) -> Named {
    let mut head = [0; Preamble::LEN];
    let read = tokio::time::timeout(PREAMBLE_WAIT, stream.read_exact(&mut head));
    if !matches!(read.await, Ok(Ok(_))) {
        return Ok(None);
    }
    let Preamble(kind) = Preamble::decode(head)?;
    Ok(Some((kind, stream)))
}
