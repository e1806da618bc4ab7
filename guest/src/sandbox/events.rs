//! What happens without being asked for.

use cofferdam_protocol::{ContainerOom, Event, event};
use tokio::sync::{Mutex, mpsc};

/// Why there is no event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Somebody else waits.
    #[error("another call waits for the next event")]
    Busy,
    /// The agent is coming down.
    #[error("the guest is being shut down")]
    Ending,
}

/// Events until the host takes them.
#[derive(Debug)]
pub struct Events {
    oom: Mutex<mpsc::Receiver<String>>,
}

impl Events {
    /// Events that `oom` makes: containers that ran out of memory.
    #[must_use]
    pub fn new(oom: mpsc::Receiver<String>) -> Self {
        Self {
            oom: Mutex::new(oom),
        }
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// When another call waits already.
    pub async fn next(&self) -> Result<Event, EventError> {
        let mut oom = self.oom.try_lock().map_err(|_| EventError::Busy)?;
        let container_id = oom.recv().await.ok_or(EventError::Ending)?;
        Ok(Event {
            event: Some(event::Event::Oom(ContainerOom {
                container_id,
                ..ContainerOom::default()
            })),
            ..Event::default()
        })
    }
}
