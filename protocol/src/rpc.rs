//! The agent service over a stream of the link.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use ttrpc::asynchronous::transport::{Listener, Socket};
use ttrpc::asynchronous::{Client, Server};

use crate::link::LinkStream;
use crate::{Agent, AgentClient, create_agent};

/// A client of the agent at the other end of `stream`.
///
/// Must be called inside a Tokio runtime: the client reads its answers in a task of its own.
#[must_use]
pub fn connect_agent(stream: LinkStream) -> AgentClient {
    AgentClient::new(Client::new(Socket::new(stream)))
}

/// The context of a call that may take as long as it likes, such as `WaitProcess`.
#[must_use]
pub fn no_deadline() -> ttrpc::context::Context {
    ttrpc::context::with_timeout(0)
}

/// Serves `service` on `stream` until the stream ends.
///
/// # Errors
/// Fails if the server cannot be started; a peer that breaks off is a normal end.
pub async fn serve_agent(
    stream: LinkStream,
    service: Arc<dyn Agent + Send + Sync>,
) -> Result<(), ttrpc::Error> {
    let (gone, went) = oneshot::channel();
    let stream = Watched {
        stream,
        _gone: gone,
    };
    // A listener that ended would end the server's accept task; one that waits costs nothing.
    let connections = stream::iter([Ok::<_, io::Error>(stream)]).chain(stream::pending());
    let mut server = Server::new()
        .add_listener(Listener::new(connections))
        .register_service(create_agent(service));
    server.start().await?;
    // The sender is never used, it is dropped with the stream.
    let _ = went.await;
    server.shutdown().await
}

/// A stream whose end can be waited for: ttrpc reports none for a single connection.
struct Watched {
    stream: LinkStream,
    _gone: oneshot::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
