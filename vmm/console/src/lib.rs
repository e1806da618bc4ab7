//! One console: virtio-console with one port (virtio 1.3, 5.3).
//!
//! What the guest prints goes to a descriptor, a pipe or a stream socket; what is typed there may come back. The guest
//! never waits for the host: each request is given back at once. What the descriptor does not take is kept, the last
//! 64 KiB of it, and written when it takes more; what is lost is counted.
//!
//! ```text
//!                   activate                    a request, the descriptor is full
//!   idle ─────────────────────────▶ printing ──────────────────────────────────────▶ behind
//!    ▲                                ▲ │                                             │ │
//!    │                                │ └─ a request: written ─┐     nothing is kept  │ └─ a request: kept, and as
//!    │                                │◀───────────────────────┘◀────────────────────┘    much of the oldest lost
//!    └───────────────── reset ────────┴─── (from either; what is kept stays, for the next driver's time)
//! ```
//!
//! What is kept when the guest ends is written by [`LastWords`].
//!
//! Neither sizes (`F_SIZE`) nor further ports (`F_MULTIPORT`) are offered: the agent has terminals, this is for what the
//! kernel says.

mod input;
mod last_words;
mod output;
mod statistics;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, Flags, Memory, Offer, Queue, Registrar, Watch,
};

use input::Input;
pub use last_words::LastWords;
use output::Output;
pub use statistics::{Counts, Statistics};

/// Virtio's number of consoles.
const KIND: u32 = 3;

const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;

/// The queues' numbers, and the tokens of their kicks.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// Tokens of the descriptors.
const OUTPUT: u32 = 2;
const INPUT: u32 = 3;

/// Linux fills the first with a page for each descriptor, and sends by the second one request at a time.
const SIZES: [u16; 2] = [8, 16];

/// `cols`, `rows`, `max_nr_ports` and `emerg_wr`: none of them means anything without features that are not offered.
const CONFIGURATION: [u8; 12] = [0; 12];

/// The device.
pub struct Console {
    output: Arc<Mutex<Output>>,
    input: Option<Input>,
    statistics: Statistics,
    active: Option<Active>,
}

/// Of one driver. Watches stand before what they watch.
struct Active {
    _kicks: [Watch; 2],
    receive: Queue,
    transmit: Queue,
    memory: Arc<Memory>,
    events: Registrar,
}

impl Console {
    /// A console that prints to one descriptor and reads from another, if there is one. Both are made non-blocking.
    /// Either may be closed at its other end at any time; the process ignores `SIGPIPE`, as Rust programs do.
    ///
    /// # Errors
    /// When they can't be.
    pub fn new(output: OwnedFd, input: Option<OwnedFd>) -> io::Result<Self> {
        let statistics = Statistics::default();
        let input = input.map(non_blocking).transpose()?;
        Ok(Self {
            output: Arc::new(Mutex::new(Output::new(
                non_blocking(output)?,
                statistics.clone(),
            ))),
            input: input.map(|file| Input::new(file, statistics.clone())),
            statistics,
            active: None,
        })
    }

    /// What it counts.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Whoever ends the process writes by this what is kept.
    #[must_use]
    pub fn last_words(&self) -> LastWords {
        LastWords(Arc::clone(&self.output))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        lock(&self.output).pause();
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

fn non_blocking(fd: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd.into())
}

impl Device for Console {
    fn offer(&self) -> Offer {
        Offer {
            kind: KIND,
            features: INDIRECT | EVENT_IDX,
            queues: SIZES.to_vec(),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        ConfigSpace(&CONFIGURATION).read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let [receive, transmit] = <[Option<Queue>; 2]>::try_from(activation.queues)
            .ok()
            .and_then(|[receive, transmit]| receive.zip(transmit))
            .map(<[Queue; 2]>::from)
            .ok_or(Broken("a console's driver has left out a queue"))?;
        let events = activation.events;
        let watch = |queue: &Queue| {
            queue
                .watch(&events)
                .map_err(|_| Broken("a console's queue can't be watched"))
        };
        let kicks = [watch(&receive)?, watch(&transmit)?];
        lock(&self.output).go_on(&events);
        self.active = Some(Active {
            _kicks: kicks,
            receive,
            transmit,
            memory: activation.memory,
            events,
        });
        Ok(())
    }

    fn event(&mut self, token: u32, flags: Flags) -> Result<(), Broken> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        match token {
            RECEIVE | INPUT => {
                if token == RECEIVE {
                    active.receive.kicked();
                }
                match &mut self.input {
                    Some(input) => input.read(&mut active.receive, &active.memory, &active.events),
                    None => Ok(()),
                }
            }
            TRANSMIT => {
                active.transmit.kicked();
                lock(&self.output).print(&mut active.transmit, &active.memory, &active.events)
            }
            OUTPUT => {
                lock(&self.output).writable(flags);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.active = None;
        lock(&self.output).pause();
        if let Some(input) = &mut self.input {
            input.pause();
        }
    }
}
