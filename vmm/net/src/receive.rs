//! From the tap to the driver (virtio 1.3, 5.1.6.4).
//!
//! ```text
//!             kick                   a packet
//!   starving ──────▶ listening ───────────────────▶ (delivered) ──┐
//!      ▲                │ ▲  ▲───────────────────────────────────┘
//!      └── no buffers ──┘ │ │ over the limit ┌────────────┐
//!                         │ └───────────────▶│ throttled  │
//!                         └──── timer ───────└────────────┘
//! ```
//!
//! Packets go from the tap into the driver's buffers by one `readv`. A tap does not tell how long the next packet is, so
//! buffers for the longest are held ready, and room on the host for what does not fit all the same: when the driver has
//! too few buffers left, the rest of the packet waits there until it has more. It does not wait for a driver that has
//! offered more than half of its ring and still has no room for one packet: then the packet is lost. A driver that adds
//! buffers at half of its ring, as Linux does, loses nothing.

use std::io;
use std::sync::Arc;

use vm_memory::VolatileSlice;
use vmm_virtio::{Broken, Flags, Memory, Queue, RateLimiter, Registrar, Watch, read_vectored};

use crate::features::{GUEST_CSUM, MRG_RXBUF};
use crate::held::Held;
use crate::statistics::{Direction::Received, Statistics};
use crate::tap::{HEADER, LONGEST, Tap};

/// Packets of one event: 64 of the longest are 4 MiB.
const BATCH: usize = 64;

/// Where the header has its flags and its number of buffers.
const FLAGS: usize = 0;
const BUFFERS: usize = 10;

/// Whether the wire is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Works,
    Gone,
}

impl Wire {
    /// One that is gone is gone.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Gone { self } else { other }
    }
}

/// What packets pass.
pub(crate) struct Line<'a> {
    pub(crate) tap: &'a Tap,
    pub(crate) receive_limit: &'a mut Option<RateLimiter>,
    pub(crate) transmit_limit: &'a mut Option<RateLimiter>,
    pub(crate) statistics: &'a Statistics,
    /// Without a link packets are lost.
    pub(crate) up: bool,
}

/// Why no packets are taken from the tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Listening,
    Starving,
    Throttled,
    /// The tap is gone, or not listened to yet.
    Off,
}

/// A packet that did not fit: it begins in the buffers that are held, and ends on the host.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    length: usize,
    begun: usize,
}

/// Watches stand before what they watch.
pub(crate) struct Receiver {
    _kick: Watch,
    tap: Option<Watch>,
    state: State,
    held: Held,
    queue: Queue,
    mergeable: bool,
    /// The driver does checksums: the header may say something about them.
    checksums: bool,
    overflow: Vec<u8>,
    waiting: Option<Waiting>,
}

impl Receiver {
    pub(crate) fn new(
        mut queue: Queue,
        memory: Arc<Memory>,
        features: u64,
        events: &Registrar,
    ) -> Result<Self, Broken> {
        let kick = queue
            .watch(events)
            .map_err(|_| Broken("a queue for packets can't be watched"))?;
        // Kicks are asked for when there are no buffers.
        queue.silence()?;
        Ok(Self {
            _kick: kick,
            tap: None,
            state: State::Off,
            held: Held::new(memory),
            queue,
            mergeable: features & MRG_RXBUF != 0,
            checksums: features & GUEST_CSUM != 0,
            overflow: vec![0; LONGEST],
            waiting: None,
        })
    }

    /// Listens to the tap from now on.
    pub(crate) fn start(
        &mut self,
        tap: &Tap,
        events: &Registrar,
        token: u32,
    ) -> Result<(), Broken> {
        let watch = events
            .watch(tap, Flags::READ, token)
            .map_err(|_| Broken("a tap can't be watched"))?;
        self.tap = Some(watch);
        self.state = State::Listening;
        Ok(())
    }

    /// Does not listen to the tap any more. What waits is lost, as what is in the tap.
    pub(crate) fn stop(&mut self, statistics: &Statistics) {
        self.tap = None;
        self.state = State::Off;
        if self.waiting.take().is_some() {
            statistics.dropped(Received);
        }
    }

    /// The driver has kicked, or a batch has ended with a packet that waits.
    pub(crate) fn kicked(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        self.queue.kicked();
        if self.state == State::Listening && self.waiting.is_some() {
            return self.receive(line);
        }
        self.resume(State::Starving, line)
    }

    /// The limit allows packets again.
    pub(crate) fn allowed(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        self.resume(State::Throttled, line)
    }

    /// The link has gone up or down.
    pub(crate) fn link_changed(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        self.resume(self.state, line)
    }

    fn resume(&mut self, from: State, line: &mut Line<'_>) -> Result<Wire, Broken> {
        if self.state != from || from == State::Off {
            return Ok(Wire::Works);
        }
        if from == State::Starving {
            self.queue.silence()?;
        }
        self.watch(State::Listening)?;
        self.receive(line)
    }

    /// The tap is ready, or has an error, of which it tells also when nothing is expected of it.
    pub(crate) fn ready(&mut self, line: &mut Line<'_>, flags: Flags) -> Result<Wire, Broken> {
        if flags.hung_up() {
            self.stop(line.statistics);
            return Ok(Wire::Gone);
        }
        self.receive(line)
    }

    /// Takes packets from the tap. What is left there when it has taken many makes the tap ready again.
    fn receive(&mut self, line: &mut Line<'_>) -> Result<Wire, Broken> {
        let mut wire = Wire::Works;
        for _ in 0..BATCH {
            if self.state != State::Listening {
                break;
            }
            let got = if line.up {
                self.one(line)?
            } else {
                self.lose(line)
            };
            match got {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "a tap can't be read any more");
                    self.stop(line.statistics);
                    wire = Wire::Gone;
                }
            }
        }
        self.queue.notify()?;
        // The tap may be empty, and the driver was not asked for a kick: nobody else would remember it.
        if self.state == State::Listening && self.waiting.is_some() {
            self.queue.again();
        }
        Ok(wire)
    }

    /// One step: true when another may follow, and an error of the tap's.
    fn one(&mut self, line: &mut Line<'_>) -> Result<io::Result<bool>, Broken> {
        self.held.fill(&mut self.queue)?;
        if let Some(waiting) = self.waiting {
            self.finish(waiting, line.statistics)?;
            return Ok(Ok(true));
        }
        if self.held.count() == 0 {
            self.starve()?;
            return Ok(Ok(true));
        }
        // How much it will be is known only afterwards.
        if let Some(limit) = line.receive_limit
            && !limit.try_take(0, 0)
        {
            self.watch(State::Throttled)?;
            return Ok(Ok(false));
        }
        let mut slices = self.held.slices(self.mergeable);
        slices.push(VolatileSlice::from(&mut self.overflow[..]));
        let read = read_vectored(line.tap.file(), &slices);
        match read {
            Ok(length) => {
                if let Some(limit) = line.receive_limit {
                    limit.pay(length.saturating_sub(HEADER) as u64, 1);
                }
                self.received(length, line.statistics)?;
                Ok(Ok(true))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Ok(false)),
                io::ErrorKind::Interrupted => Ok(Ok(true)),
                io::ErrorKind::InvalidInput => {
                    Err(Broken("a buffer for packets has too many pieces"))
                }
                _ => Ok(Err(error)),
            },
        }
    }

    /// Takes one packet for nobody.
    fn lose(&mut self, line: &Line<'_>) -> io::Result<bool> {
        if self.waiting.take().is_some() {
            line.statistics.dropped(Received);
        }
        let lost = line.tap.discard()?;
        if lost {
            line.statistics.dropped(Received);
        }
        Ok(lost)
    }

    /// A packet has come, into the buffers that are held and behind them into `overflow`.
    fn received(&mut self, length: usize, statistics: &Statistics) -> Result<(), Broken> {
        let begun = if self.mergeable {
            self.held.room()
        } else {
            self.held.first()
        };
        if length < HEADER {
            statistics.error(Received);
        } else if length <= begun {
            self.deliver(length, statistics)?;
        } else if self.mergeable {
            self.waiting = Some(Waiting { length, begun });
        } else {
            statistics.dropped(Received);
        }
        Ok(())
    }

    /// Looks for room for a packet's end.
    fn finish(&mut self, waiting: Waiting, statistics: &Statistics) -> Result<(), Broken> {
        let Waiting { length, begun } = waiting;
        while self.held.room() < length {
            if self.held.take(&mut self.queue)? {
                continue;
            }
            if self.held.count() > usize::from(self.queue.size() / 2) {
                self.waiting = None;
                statistics.dropped(Received);
                return Ok(());
            }
            return self.starve();
        }
        self.waiting = None;
        let end = self.overflow.get(..length - begun).unwrap_or_default();
        self.held.write_behind(begun, end);
        self.deliver(length, statistics)
    }

    /// Gives a packet to the driver that is in its buffers as a whole.
    fn deliver(&mut self, length: usize, statistics: &Statistics) -> Result<(), Broken> {
        // As many as the ring has at most.
        let buffers = self.held.needed(length) as u16;
        self.held.write(BUFFERS, &buffers.to_le_bytes());
        if !self.checksums {
            self.held.write(FLAGS, &[0]);
        }
        self.held.complete(&mut self.queue, length)?;
        statistics.passed(Received, length - HEADER);
        Ok(())
    }

    /// Waits for a kick, unless the driver has added buffers just now.
    fn starve(&mut self) -> Result<(), Broken> {
        if self.queue.listen()? {
            return self.queue.silence();
        }
        self.watch(State::Starving)
    }

    fn watch(&mut self, state: State) -> Result<(), Broken> {
        let flags = if state == State::Listening {
            Flags::READ
        } else {
            Flags::NONE
        };
        self.state = state;
        match &self.tap {
            Some(tap) => tap
                .change(flags)
                .map_err(|_| Broken("a tap can't be watched")),
            None => Ok(()),
        }
    }
}
