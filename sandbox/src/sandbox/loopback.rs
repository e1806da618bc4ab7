//! Connections to loopback of the sandbox's namespace on the host: they go to loopback of the guest.

use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_protocol::link::{relay, reset};
use sandbox_network::Loopback;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::error::chain;
use crate::sandbox::guest::Guest;

/// Connections at the same time; more wait. Half of the link's streams: the others are for processes.
const MOST: usize = 128;

/// How long a listener in the guest may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Passes connections on until the machine ends or this is dropped.
#[derive(Debug)]
pub(crate) struct Forwarding(JoinHandle<()>);

impl Forwarding {
    pub(crate) fn start(loopback: Loopback, guest: Arc<Guest>) -> Self {
        Self(tokio::spawn(async move {
            let accepting = accept(&loopback, &guest);
            guest.unless_gone(accepting).await;
        }))
    }

    pub(crate) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.end();
    }
}

async fn accept(loopback: &Loopback, guest: &Arc<Guest>) {
    const PAUSE: Duration = Duration::from_millis(500);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = loopback.accept(), if open.len() < MOST => match accepted {
                Ok((connection, wanted)) => {
                    open.spawn(forward(connection, wanted.port(), Arc::clone(guest)));
                }
                // Out of descriptors, most likely: some come back.
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection to the guest");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn forward(connection: TcpStream, port: u16, guest: Arc<Guest>) {
    let Some(port) = NonZeroU16::new(port) else {
        return reset(connection);
    };
    // Small pieces of a conversation are not to wait for each other.
    let _as_it_is = connection.set_nodelay(true);
    let error = tokio::select! {
        opened = tokio::time::timeout(PATIENCE, guest.open_connection(port)) => match opened {
            Ok(Ok(stream)) => return relay(connection, stream).await,
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        },
        error = broken(&connection) => error.to_string(),
    };
    tracing::debug!(port, error, "a connection to the guest is reset");
    reset(connection);
}

/// Waits until a connection is broken. That the peer has sent all is no reason to give it up.
async fn broken(connection: &TcpStream) -> io::Error {
    match connection.ready(tokio::io::Interest::ERROR).await {
        Ok(_) => match connection.take_error() {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => io::ErrorKind::ConnectionAborted.into(),
        },
        Err(error) => error,
    }
}
