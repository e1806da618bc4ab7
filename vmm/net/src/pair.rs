//! A pair of queues, and who serves it.

use std::sync::Arc;

use vmm_virtio::{Broken, Memory, Queue, Registrar};

use crate::receive::Receiver;
use crate::statistics::Statistics;
use crate::tap::Tap;
use crate::transmit::Transmitter;
use crate::vhost::{Carrier, Vhost};

/// A pair of queues that a driver has set up.
pub(crate) enum Pair {
    /// Served here.
    Here(Box<Receiver>, Box<Transmitter>),
    /// Served by vhost-net.
    Kernel(Carrier),
}

/// The tokens of one pair's descriptors, other than those of its queues.
#[derive(Clone, Copy)]
pub(crate) struct Tokens {
    pub(crate) tap: u32,
    pub(crate) vhost: u32,
}

impl Pair {
    pub(crate) fn new(
        queues: [Queue; 2],
        vhost: Option<&Vhost>,
        memory: &Arc<Memory>,
        features: u64,
        events: &Registrar,
        tokens: Tokens,
    ) -> Result<Self, Broken> {
        if let Some(vhost) = vhost {
            let carrier = vhost.start(memory, features, queues, events, tokens.vhost)?;
            return Ok(Self::Kernel(carrier));
        }
        let [receive, transmit] = queues;
        let receiver = Receiver::new(receive, Arc::clone(memory), features, events)?;
        let transmitter = Transmitter::new(transmit, Arc::clone(memory), events)?;
        Ok(Self::Here(Box::new(receiver), Box::new(transmitter)))
    }

    /// Carries packets from now on; with vhost-net only while there is a link.
    pub(crate) fn start(
        &mut self,
        tap: &mut Tap,
        up: bool,
        events: &Registrar,
        tokens: Tokens,
    ) -> Result<(), Broken> {
        tap.attach(true).map_err(refused)?;
        match self {
            Self::Here(receiver, _) => receiver.start(tap, events, tokens.tap),
            Self::Kernel(carrier) => carrier.start(tap, up),
        }
    }

    /// Carries no more packets.
    pub(crate) fn stop(&mut self, tap: &mut Tap, statistics: &Statistics) -> Result<(), Broken> {
        match self {
            Self::Here(receiver, _) => receiver.stop(statistics),
            Self::Kernel(carrier) => carrier.stop(tap)?,
        }
        tap.attach(false).map_err(refused)
    }
}

fn refused(error: std::io::Error) -> Broken {
    tracing::warn!(%error, "a tap refuses to be attached or detached");
    Broken("a tap refuses to be attached or detached")
}
