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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio::sync::Notify;

    use super::*;
    use crate::link::{Link, StreamKind, guest};
    use crate::{Empty, HelloRequest, HelloResponse, ProcessRequest, WaitProcessResponse};

    struct Dummy {
        release: Notify,
    }

    #[async_trait::async_trait]
    impl Agent for Dummy {
        async fn hello(
            &self,
            _: &ttrpc::r#async::TtrpcContext,
            request: HelloRequest,
        ) -> ttrpc::Result<HelloResponse> {
            Ok(HelloResponse {
                version: request.version + 1,
                ..HelloResponse::default()
            })
        }

        async fn wait_process(
            &self,
            _: &ttrpc::r#async::TtrpcContext,
            _: ProcessRequest,
        ) -> ttrpc::Result<WaitProcessResponse> {
            self.release.notified().await;
            Ok(WaitProcessResponse {
                exit_status: 7,
                ..WaitProcessResponse::default()
            })
        }

        async fn shutdown(
            &self,
            _: &ttrpc::r#async::TtrpcContext,
            _: Empty,
        ) -> ttrpc::Result<Empty> {
            self.release.notify_one();
            Ok(Empty::default())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_pass_each_other_and_may_take_for_ever() {
        let (host_io, guest_io) = duplex(4096);
        let (link, host) = Link::host(host_io);
        let (mut incoming, guest) = guest(guest_io);
        let host = tokio::spawn(host);
        tokio::spawn(guest);
        let agent = connect_agent(link.open_control().await.expect("open"));
        let (kind, stream) = incoming.next().await.expect("a stream");
        assert_eq!(kind, StreamKind::Control);
        let dummy = Arc::new(Dummy {
            release: Notify::new(),
        });
        let served = tokio::spawn(serve_agent(stream, dummy));

        let waiting = tokio::spawn({
            let agent = agent.clone();
            async move {
                agent
                    .wait_process(no_deadline(), &ProcessRequest::default())
                    .await
            }
        });
        // The clock is virtual: a day passes at once, unless something times out before.
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert!(!waiting.is_finished());
        let request = HelloRequest {
            version: 41,
            ..HelloRequest::default()
        };
        let answer = agent.hello(no_deadline(), &request).await.expect("hello");
        assert_eq!(answer.version, 42);
        let unknown = agent.next_event(no_deadline(), &Empty::default()).await;
        assert!(
            unknown.is_err(),
            "an answer to what the service does not do"
        );
        let done = agent.shutdown(no_deadline(), &Empty::default()).await;
        done.expect("shutdown");
        let end = waiting.await.expect("no panic").expect("an end");
        assert_eq!(end.exit_status, 7);

        // When the host goes, the service ends, and so do calls that wait.
        let waiting = tokio::spawn(async move {
            agent
                .wait_process(no_deadline(), &ProcessRequest::default())
                .await
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        host.abort();
        served.await.expect("no panic").expect("a normal end");
        assert!(waiting.await.expect("no panic").is_err());
    }
}
