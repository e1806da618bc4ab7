//! The device.

use std::num::NonZeroU64;

use vmm_virtio::{Activation, Broken, ConfigSpace, Device, Flags, Offer, RateLimiter, Rates};

use crate::PAIRS;
use crate::active::{Active, LINK, RECEIVE_LIMIT, TAP, TRANSMIT_LIMIT, VHOST};
use crate::config::{self, Settings};
use crate::error::NetError;
use crate::features::{CTRL_VQ, offered};
use crate::link::Link;
use crate::pair::Pair;
use crate::receive::{Line, Wire};
use crate::statistics::Statistics;
use crate::tap::Tap;
use crate::vhost::Vhost;

/// Virtio's number of network cards.
const KIND: u32 = 1;

/// The sizes of queues: for packets as other machines have them, and for commands, of which there is one at a time.
const PACKETS: u16 = 256;
const COMMANDS: u16 = 16;

/// How often in a second the driver may change the number of its queues.
const CHANGES: Option<NonZeroU64> = NonZeroU64::new(10);

/// A network card. Watches are dropped before what they watch: `active` stands first.
pub struct Net {
    active: Option<Active>,
    taps: Vec<Tap>,
    vhosts: Vec<Vhost>,
    receive_limit: Option<RateLimiter>,
    transmit_limit: Option<RateLimiter>,
    changes: RateLimiter,
    link: Link,
    /// As the host sees it.
    carrier: bool,
    mac: [u8; 6],
    mtu: Option<u16>,
    features: u64,
    statistics: Statistics,
}

impl Net {
    /// A card that nobody uses yet. With vhost-net, a thread is made for each pair.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn new(settings: Settings) -> Result<Self, NetError> {
        let count = settings.taps.len();
        if !(1..=PAIRS).contains(&count) {
            return Err(NetError::Pairs(count));
        }
        if let Some(mtu) = settings.mtu.filter(|&mtu| mtu < 68) {
            return Err(NetError::Mtu(mtu));
        }
        if !settings.vhosts.is_empty() {
            if settings.vhosts.len() != count {
                return Err(NetError::Vhosts {
                    given: settings.vhosts.len(),
                    pairs: count,
                });
            }
            if settings.receive.limited() || settings.transmit.limited() {
                return Err(NetError::VhostLimits);
            }
        }
        let mut taps = (0..)
            .zip(settings.taps)
            .map(|(number, fd)| Tap::new(fd, number, count > 1))
            .collect::<Result<Vec<_>, _>>()?;
        let vhosts = (0..)
            .zip(settings.vhosts)
            .map(|(number, fd)| Vhost::new(fd, number))
            .collect::<Result<Vec<_>, _>>()?;
        let uso = taps.first_mut().is_some_and(Tap::has_uso);
        let lacking = vhosts.iter().fold(0, |lacks, vhost| lacks | vhost.lacks());
        let limit = |rates: Rates| {
            let limiter = rates.limited().then(|| RateLimiter::new(rates));
            limiter.transpose().map_err(NetError::Descriptor)
        };
        let changes = Rates {
            bytes: None,
            operations: CHANGES,
        };
        Ok(Self {
            active: None,
            features: offered(count, settings.mtu.is_some(), uso) & !lacking,
            taps,
            vhosts,
            receive_limit: limit(settings.receive)?,
            transmit_limit: limit(settings.transmit)?,
            changes: RateLimiter::new(changes).map_err(NetError::Descriptor)?,
            link: Link::new().map_err(NetError::Descriptor)?,
            carrier: true,
            mac: settings.mac,
            mtu: settings.mtu,
            statistics: Statistics::default(),
        })
    }

    /// What it counts.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Its plug.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// A pair that the driver has set up, and what its packets pass. Those of one that is not used are lost.
    fn pair(&mut self, number: usize) -> Option<(&mut Pair, Line<'_>)> {
        let (pair, used) = self.active.as_mut()?.pair(number)?;
        let up = self.link.is_up() && used;
        let line = Line {
            tap: self.taps.get(number)?,
            receive_limit: &mut self.receive_limit,
            transmit_limit: &mut self.transmit_limit,
            statistics: &self.statistics,
            up,
        };
        Some((pair, line))
    }

    fn kicked(&mut self, queue: usize) -> Result<Wire, Broken> {
        match self.pair(queue / 2) {
            Some((Pair::Here(receiver, _), mut line)) if queue.is_multiple_of(2) => {
                receiver.kicked(&mut line)
            }
            Some((Pair::Here(_, transmitter), mut line)) => transmitter.kicked(&mut line),
            _ => Ok(Wire::Works),
        }
    }

    fn tap_ready(&mut self, number: usize, flags: Flags) -> Result<Wire, Broken> {
        match self.pair(number) {
            Some((Pair::Here(receiver, _), mut line)) => receiver.ready(&mut line, flags),
            _ => Ok(Wire::Works),
        }
    }

    fn receive_allowed(&mut self) -> Result<Wire, Broken> {
        if let Some(limit) = &mut self.receive_limit {
            limit.expired();
        }
        let mut wire = Wire::Works;
        for number in 0..self.taps.len() {
            if let Some((Pair::Here(receiver, _), mut line)) = self.pair(number) {
                wire = wire.and(receiver.allowed(&mut line)?);
            }
        }
        Ok(wire)
    }

    fn transmit_allowed(&mut self) -> Result<Wire, Broken> {
        if let Some(limit) = &mut self.transmit_limit {
            limit.expired();
        }
        let mut wire = Wire::Works;
        for number in 0..self.taps.len() {
            if let Some((Pair::Here(_, transmitter), mut line)) = self.pair(number) {
                wire = wire.and(transmitter.allowed(&mut line)?);
            }
        }
        Ok(wire)
    }

    fn link_changed(&mut self) -> Result<Wire, Broken> {
        self.link.noticed();
        let up = self.link.is_up();
        if up == self.carrier {
            return Ok(Wire::Works);
        }
        self.carrier = up;
        // A tap that is gone has none, and an old kernel (before 5.0) leaves it on: packets are lost here then.
        if let Some(Err(error)) = self.taps.first().map(|tap| tap.set_carrier(up)) {
            tracing::debug!(%error, "a tap's carrier can't be set");
        }
        let mut wire = Wire::Works;
        for number in 0..self.taps.len() {
            match self.pair(number) {
                Some((Pair::Here(receiver, _), mut line)) => {
                    wire = wire.and(receiver.link_changed(&mut line)?);
                }
                Some((Pair::Kernel(carrier), line)) => carrier.set_link(line.tap, line.up)?,
                None => {}
            }
        }
        if let Some(active) = &self.active {
            active.status_changed();
        }
        Ok(wire)
    }

    fn control(&mut self) -> Result<(), Broken> {
        match &mut self.active {
            Some(active) => active.control(
                &mut self.taps,
                self.link.is_up(),
                &mut self.changes,
                &self.statistics,
            ),
            None => Ok(()),
        }
    }
}

impl Device for Net {
    fn offer(&self) -> Offer {
        let mut queues = vec![PACKETS; 2 * self.taps.len()];
        if self.features & CTRL_VQ != 0 {
            queues.push(COMMANDS);
        }
        Offer {
            kind: KIND,
            features: self.features,
            queues,
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // At most PAIRS.
        let pairs = self.taps.len() as u16;
        let space = config::space(self.mac, self.link.is_up(), pairs, self.mtu);
        ConfigSpace(&space).read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let features = activation.features;
        let mut active = Active::new(activation, self.taps.len(), &self.vhosts)?;
        active.watch(&self.link, LINK)?;
        for (limit, token) in [
            (&self.receive_limit, RECEIVE_LIMIT),
            (&self.transmit_limit, TRANSMIT_LIMIT),
        ] {
            if let Some(limit) = limit {
                active.watch(limit, token)?;
            }
        }
        let tap = self.taps.first_mut();
        let tap = tap.ok_or(Broken("a network card has no tap"))?;
        match tap.set_features(features) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => self.link.lose(),
            Err(_) => return Err(Broken("a tap refuses what its driver has accepted")),
        }
        active.start(tap, self.link.is_up())?;
        self.active = Some(active);
        Ok(())
    }

    fn event(&mut self, token: u32, flags: Flags) -> Result<(), Broken> {
        let active = self.active.as_ref();
        let is_control = active.is_some_and(|active| active.is_control(token));
        let wire = match token {
            LINK => self.link_changed()?,
            RECEIVE_LIMIT => self.receive_allowed()?,
            TRANSMIT_LIMIT => self.transmit_allowed()?,
            VHOST.. => {
                if let Some((Pair::Kernel(carrier), _)) = self.pair((token - VHOST) as usize)
                    && carrier.has_failed()
                {
                    return Err(Broken("vhost-net can't go on with its driver's rings"));
                }
                Wire::Works
            }
            TAP.. => self.tap_ready((token - TAP) as usize, flags)?,
            _ if is_control => {
                self.control()?;
                Wire::Works
            }
            _ => self.kicked(token as usize)?,
        };
        if wire == Wire::Gone {
            self.link.lose();
        }
        Ok(())
    }

    fn reset(&mut self) {
        // With vhost-net: this waits until the kernel has let go of the guest's memory.
        self.active = None;
        for (number, tap) in self.taps.iter_mut().enumerate() {
            // What comes to the others would come to nobody; and what has come to the first may be what only the last
            // driver could take.
            let done = if number == 0 {
                tap.set_features(0).and_then(|()| tap.empty())
            } else {
                tap.attach(false)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a tap can't be reset");
            }
        }
    }
}
