//! One stream of the link.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// A byte stream in both directions.
///
/// `shutdown` ends this side's direction only; the peer reads an end of file and may go on
/// writing. Dropping the stream ends both. A peer that resets the stream is read as an end of
/// file and written to as a `WriteZero` error.
#[derive(Debug)]
pub struct LinkStream {
    stream: Compat<yamux::Stream>,
    /// The place among the host's streams, free again when this is dropped.
    _slot: Option<OwnedSemaphorePermit>,
}

impl LinkStream {
    pub(super) fn new(stream: yamux::Stream, slot: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            stream: stream.compat(),
            _slot: slot,
        }
    }
}

impl LinkStream {
    /// Whether nothing can go either way any more: both sides have ended their direction, or the peer has reset it.
    pub(super) fn is_closed(&self) -> bool {
        self.stream.get_ref().is_closed()
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // yamux would send an empty frame and take it for an end of file on our side.
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
