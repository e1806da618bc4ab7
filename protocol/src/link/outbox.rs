//! What stands between yamux and the port: reads in large pieces, writes that never wait.
//!
//! yamux stops reading while an answer to the peer's ping waits for room in the socket. When
//! both directions are full and both sides have such an answer, both stop reading and the link
//! is dead for good. So the socket must take what yamux has: a window's worth for each stream,
//! which is all that an honest peer allows, and [`LIMIT`] altogether for one that allows more.
//! It also turns the header and the body of a frame into one write: each write of a port is an
//! exit of the virtual machine.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use super::STREAM_WINDOW;
use super::connection::TABLE;

/// Bytes that wait to be written at most.
pub(super) const LIMIT: usize = TABLE * STREAM_WINDOW;

/// A buffer that grew beyond this is given back when it has been written.
const KEEP: usize = 1024 * 1024;

const READ_BUFFER: usize = 64 * 1024;

/// Buffers both directions of `T`.
pub(super) struct Outbox<T> {
    io: BufReader<T>,
    waiting: VecDeque<u8>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Outbox<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io: BufReader::with_capacity(READ_BUFFER, io),
            waiting: VecDeque::new(),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, front))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.drain(..written);
        }
        if self.waiting.capacity() > KEEP {
            self.waiting = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Outbox<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Outbox<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= LIMIT {
            ready!(self.poll_drain(cx))?;
        }
        self.waiting.extend(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
