//! A TCP connection and a stream of the link as one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use super::LinkStream;

/// Bytes on their way in each direction, beside those that the two sides buffer.
const PIECE: usize = 16 * 1024;

/// Moves bytes both ways until both directions have ended. The end of one is passed on, the other goes on; what breaks
/// one side breaks the other: a connection is reset then, so that nobody takes a part for the whole.
pub async fn relay(mut connection: TcpStream, stream: LinkStream) {
    let mut stream = Side {
        stream,
        is_shut: false,
    };
    let moved = copy_bidirectional_with_sizes(&mut connection, &mut stream, PIECE, PIECE).await;
    if moved.is_err() {
        reset(connection);
    }
}

/// Closes a connection so that the peer sees an error, not an end of file.
pub fn reset(connection: TcpStream) {
    // It fails when the peer was faster.
    let _gone = connection.set_zero_linger();
}

/// A stream of the link that tells a reset from an end, as long as its own direction is open.
struct Side {
    stream: LinkStream,
    is_shut: bool,
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let is_end = buf.filled().len() == before && buf.remaining() > 0;
        if is_end && !self.is_shut && self.stream.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::TcpListener;

    use super::super::{Link, LinkError, READY, StreamKind, guest};
    use super::*;

    const PORT: NonZeroU16 = NonZeroU16::new(80).unwrap();
    const MUCH: usize = 3 << 20;

    /// A connection whose other end is behind the link, and that end.
    async fn through() -> (TcpStream, TcpStream) {
        let (host_io, guest_io) = duplex(4096);
        let (link, driver) = Link::host(host_io);
        tokio::spawn(driver);
        let (mut incoming, driver) = guest(guest_io);
        tokio::spawn(driver);
        let (outer, host) = connection().await;
        let (inner, server) = connection().await;
        tokio::spawn(async move {
            let (kind, mut stream) = incoming.next().await.expect("a stream");
            assert_eq!(kind, StreamKind::Connect { port: PORT.get() });
            stream.write_u8(READY).await.expect("a listener");
            relay(inner, stream).await;
        });
        let stream = link.open_connection(PORT).await.expect("a stream");
        tokio::spawn(relay(host, stream));
        (outer, server)
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("a connection"), other.expect("the same").0)
    }

    /// The end of one direction passes, and the other goes on.
    #[tokio::test]
    async fn directions_end_apart() {
        let (mut client, mut server) = through().await;
        let sent: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
        let all = sent.clone();
        let asked = tokio::spawn(async move {
            client.write_all(&all).await.expect("all is taken");
            client.shutdown().await.expect("an end");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("an answer");
            answer
        });
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.expect("the question");
        assert!(heard == sent, "{} bytes", heard.len());
        server.write_all(&heard).await.expect("all is taken");
        drop(server);
        let answer = asked.await.expect("an answer");
        assert!(answer == sent, "{} bytes", answer.len());
    }

    #[tokio::test]
    async fn what_breaks_one_side_breaks_the_other() {
        let (mut client, server) = through().await;
        reset(server);
        let error = client.read_u8().await.expect_err("a broken connection");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let (client, mut server) = through().await;
        reset(client);
        let error = server.read_u8().await.expect_err("a broken connection");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let (host_io, guest_io) = duplex(4096);
        let (link, driver) = Link::host(host_io);
        tokio::spawn(driver);
        let (mut incoming, driver) = guest(guest_io);
        tokio::spawn(driver);
        tokio::spawn(async move { while incoming.next().await.is_some() {} });
        let refused = link.open_connection(PORT).await;
        assert!(matches!(refused, Err(LinkError::Refused)), "{refused:?}");
    }
}
