//! The stdio streams that the host has opened, until a request names them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_protocol::link::LinkStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a request waits for a stream it names. The host opens it before, or just after.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a stream cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It did not come.
    #[error("no stdio stream with token {token} was opened within {PATIENCE:?}")]
    Missing {
        /// Its token.
        token: u64,
    },
    /// Another request waits for it.
    #[error("the stdio stream with token {token} is wanted twice")]
    Twice {
        /// Its token.
        token: u64,
    },
}

#[derive(Debug, Default)]
struct Table {
    arrived: HashMap<u64, (Instant, LinkStream)>,
    wanted: HashMap<u64, oneshot::Sender<LinkStream>>,
}

/// Streams and requests that look for each other.
#[derive(Debug, Default)]
pub struct Streams {
    table: Mutex<Table>,
}

impl Streams {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream has come.
    pub fn arrived(&self, token: u64, stream: LinkStream) {
        let mut table = self.table();
        // The link bounds their number; those of requests that never came are closed here.
        table
            .arrived
            .retain(|_, (since, _)| since.elapsed() < PATIENCE * 6);
        let stream = match table.wanted.remove(&token) {
            None => stream,
            Some(waiter) => match waiter.send(stream) {
                Ok(()) => return,
                // The request has gone; a repetition of it may come.
                Err(stream) => stream,
            },
        };
        table.arrived.insert(token, (Instant::now(), stream));
    }

    /// The stream with `token`; `None` for token 0, which names none.
    ///
    /// # Errors
    /// When it does not come in time, or two requests want it.
    pub async fn take(&self, token: u64) -> Result<Option<LinkStream>, StreamError> {
        if token == 0 {
            return Ok(None);
        }
        let waiter = {
            let mut table = self.table();
            if let Some((_, stream)) = table.arrived.remove(&token) {
                return Ok(Some(stream));
            }
            table.wanted.retain(|_, waiter| !waiter.is_closed());
            if table.wanted.contains_key(&token) {
                return Err(StreamError::Twice { token });
            }
            let (sender, receiver) = oneshot::channel();
            table.wanted.insert(token, sender);
            receiver
        };
        match timeout(PATIENCE, waiter).await {
            Ok(Ok(stream)) => Ok(Some(stream)),
            _ => Err(StreamError::Missing { token }),
        }
    }
}
