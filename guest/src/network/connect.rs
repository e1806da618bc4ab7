//! Connections that the host makes to the guest's loopback.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use cofferdam_protocol::link::{LinkStream, READY, relay};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a listener may take that has too many connections already.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects a stream to whoever listens on this port, until either side ends it. Without anybody the stream ends at once.
pub async fn connect(port: u16, mut stream: LinkStream) {
    let Ok(Ok(connection)) = timeout(PATIENCE, dial(port)).await else {
        return;
    };
    // Small pieces of a conversation are not to wait for each other.
    let _as_it_is = connection.set_nodelay(true);
    if stream.write_u8(READY).await.is_ok() {
        relay(connection, stream).await;
    }
}

async fn dial(port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(connection) => Ok(connection),
        Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await,
    }
}
