//! From the driver to the tap (virtio 1.3, 5.1.6.2).
//!
//! ```text
//!           kick: one `writev` per packet      over the limit
//!   idle ◀────────────────────────────▶ sending ─────────────▶ throttled
//!                                          ▲────── timer ─────────┘
//! ```
//!
//! The tap checks headers and packets; what it refuses is counted and forgotten. So is what it has no room for: a card
//! loses packets on a wire that is full, and senders know how to live with that. Waiting instead would keep the driver's
//! buffers for as long as somebody on the host likes. (A tap has no limit of its own unless somebody sets one by
//! `TUNSETSNDBUF`; those that count are the queues behind it, which lose packets, too.)

use std::io;
use std::sync::Arc;

use vmm_virtio::{Broken, Memory, Queue, Registrar, Watch, total, write_vectored};

use crate::receive::{Line, Wire};
use crate::statistics::Direction::Transmitted;
use crate::tap::{HEADER, LONGEST};

/// Packets of one event: 64 of the longest are 4 MiB.
const BATCH: usize = 64;

/// The watch stands before what it watches.
pub(crate) struct Transmitter {
    _kick: Watch,
    queue: Queue,
    memory: Arc<Memory>,
    throttled: bool,
}

impl Transmitter {
    pub(crate) fn new(
        queue: Queue,
        memory: Arc<Memory>,
        events: &Registrar,
    ) -> Result<Self, Broken> {
        let kick = queue
            .watch(events)
            .map_err(|_| Broken("a queue for packets can't be watched"))?;
        Ok(Self {
            _kick: kick,
            queue,
            memory,
            throttled: false,
        })
    }

    /// The driver has kicked.
    pub(crate) fn kicked(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        self.queue.kicked();
        if self.throttled {
            return Ok(Wire::Works);
        }
        self.send(line)
    }

    /// The limit allows packets again.
    pub(crate) fn allowed(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        if !std::mem::take(&mut self.throttled) {
            return Ok(Wire::Works);
        }
        self.send(line)
    }

    fn send(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        let mut wire = Wire::Works;
        self.queue.silence()?;
        for _ in 0..BATCH {
            let Some(chain) = self.queue.pop(&self.memory)? else {
                if self.queue.listen()? {
                    self.queue.silence()?;
                    continue;
                }
                self.queue.notify()?;
                return Ok(wire);
            };
            let length = total(&chain.readable);
            let statistics = line.statistics;
            if !(HEADER + 1..=LONGEST).contains(&length) {
                statistics.error(Transmitted);
            } else if !line.up || wire == Wire::Gone {
                statistics.dropped(Transmitted);
            } else {
                let bytes = length - HEADER;
                if let Some(limit) = line.transmit_limit
                    && !limit.try_take(bytes as u64, 1)
                {
                    self.queue.undo_pop();
                    self.throttled = true;
                    self.queue.notify()?;
                    return Ok(wire);
                }
                match write_vectored(line.tap.file(), &chain.readable) {
                    Ok(_) => statistics.passed(Transmitted, bytes),
                    Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                        tracing::warn!(%error, "a tap can't be written any more");
                        statistics.dropped(Transmitted);
                        wire = Wire::Gone;
                    }
                    Err(error) if is_loss(&error) => statistics.dropped(Transmitted),
                    Err(_) => statistics.error(Transmitted),
                }
            }
            self.queue.complete(chain.head(), 0)?;
        }
        self.queue.notify()?;
        self.queue.again();
        Ok(wire)
    }
}

/// Whether the tap would have taken the packet at another time: it has no room, or is switched off (`EIO`).
fn is_loss(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM | libc::EIO)
    )
}
