//! The device.

use std::num::NonZeroU64;
use std::os::fd::AsRawFd;

use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, Flags, Interrupt, Offer, RateLimiter, Rates,
    Registrar, Watch,
};

use crate::PAIRS;
use crate::config::{self, Settings};
use crate::control::Control;
use crate::error::NetError;
use crate::features::{CTRL_VQ, MQ, STATUS, offered};
use crate::link::Link;
use crate::pair::{Pair, Tokens};
use crate::receive::{Line, Wire};
use crate::statistics::Statistics;
use crate::tap::Tap;
use crate::vhost::Vhost;

/// Virtio's number of network cards.
const KIND: u32 = 1;

/// The sizes of queues: for packets as other machines have them, and for commands, of which there is one at a time.
const PACKETS: u16 = 256;
const COMMANDS: u16 = 16;

/// Tokens of descriptors that are no queue's kick; those of pairs are followed by the pair's number.
const TAP: u32 = 0x1_0000;
const VHOST: u32 = 0x2_0000;
const RECEIVE_LIMIT: u32 = 0x3_0000;
const TRANSMIT_LIMIT: u32 = 0x3_0001;
const LINK: u32 = 0x3_0002;

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

/// Of one driver.
struct Active {
    _watches: Vec<Watch>,
    pairs: Vec<Option<Pair>>,
    control: Option<(u32, Control)>,
    /// So many pairs are used.
    used: usize,
    status: bool,
    events: Registrar,
    interrupt: Interrupt,
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
        let taps = (0..)
            .zip(settings.taps)
            .map(|(number, fd)| Tap::new(fd, number, count > 1))
            .collect::<Result<Vec<_>, _>>()?;
        let vhosts = (0..)
            .zip(settings.vhosts)
            .map(|(number, fd)| Vhost::new(fd, number))
            .collect::<Result<Vec<_>, _>>()?;
        let uso = taps.first().is_some_and(Tap::has_uso);
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
        let active = self.active.as_mut()?;
        let up = self.link.is_up() && number < active.used;
        let pair = active.pairs.get_mut(number)?.as_mut()?;
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
        if let Some(active) = &self.active
            && active.status
        {
            active.interrupt.configuration();
        }
        Ok(wire)
    }

    fn control(&mut self) -> Result<(), Broken> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let Some((_, control)) = &mut active.control else {
            return Ok(());
        };
        let (pairs, used, events) = (&mut active.pairs, &mut active.used, &active.events);
        let (taps, up) = (&mut self.taps, self.link.is_up());
        let changes = &mut self.changes;
        control.serve(|count| {
            let count = usize::from(count);
            if count == *used {
                return Ok(true);
            }
            let possible = pairs.get(..count);
            if count == 0 || possible.is_none_or(|pairs| pairs.iter().any(Option::is_none)) {
                return Ok(false);
            }
            // Each change has the host wait for all of its CPUs: who does nothing else is refused.
            if !changes.try_take(0, 1) {
                changes.expired();
                return Ok(false);
            }
            for (number, (pair, tap)) in pairs.iter_mut().zip(&mut *taps).enumerate() {
                let Some(pair) = pair else { continue };
                if (*used..count).contains(&number) {
                    pair.start(tap, up, events, tokens(number))?;
                } else if (count..*used).contains(&number) {
                    pair.stop(tap)?;
                }
            }
            *used = count;
            Ok(true)
        })
    }

    fn start(&mut self, activation: Activation) -> Result<Active, Broken> {
        let Activation {
            memory,
            features,
            mut queues,
            events,
            interrupt,
        } = activation;
        let count = if features & MQ == 0 {
            1
        } else {
            self.taps.len()
        };
        let mut take = |number: usize| queues.get_mut(number).and_then(Option::take);
        let mut control = None;
        if features & CTRL_VQ != 0
            && let Some(queue) = take(2 * count)
        {
            let number = u32::from(queue.number());
            control = Some((number, Control::new(queue, memory.clone(), &events)?));
        }
        let mut pairs = Vec::new();
        for number in 0..count {
            let pair = match (take(2 * number), take(2 * number + 1)) {
                (Some(receive), Some(transmit)) => Some(Pair::new(
                    [receive, transmit],
                    self.vhosts.get(number),
                    &memory,
                    features,
                    &events,
                    tokens(number),
                )?),
                _ => None,
            };
            pairs.push(pair);
        }
        let (Some(Some(first)), Some(tap)) = (pairs.first_mut(), self.taps.first_mut()) else {
            return Err(Broken("a network card has no queues"));
        };
        tap.set_features(features)
            .map_err(|_| Broken("a tap refuses what its driver has accepted"))?;
        let watch = |fd: &dyn AsRawFd, token: u32| {
            events
                .watch(&fd.as_raw_fd(), Flags::READ, token)
                .map_err(|_| Broken("a network card's timer can't be watched"))
        };
        let mut watches = vec![watch(&self.link, LINK)?];
        for (limit, token) in [
            (&self.receive_limit, RECEIVE_LIMIT),
            (&self.transmit_limit, TRANSMIT_LIMIT),
        ] {
            if let Some(limit) = limit {
                watches.push(watch(limit, token)?);
            }
        }
        first.start(tap, self.link.is_up(), &events, tokens(0))?;
        Ok(Active {
            _watches: watches,
            pairs,
            control,
            used: 1,
            status: features & STATUS != 0,
            events,
            interrupt,
        })
    }
}

fn tokens(number: usize) -> Tokens {
    // At most PAIRS.
    let number = number as u32;
    Tokens {
        tap: TAP + number,
        vhost: VHOST + number,
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
        self.active = Some(self.start(activation)?);
        Ok(())
    }

    fn event(&mut self, token: u32, flags: Flags) -> Result<(), Broken> {
        let control = self
            .active
            .as_ref()
            .and_then(|active| active.control.as_ref());
        let is_control = control.is_some_and(|&(number, _)| number == token);
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
        for tap in self.taps.iter_mut().skip(1) {
            // What comes to the others would come to nobody.
            if let Err(error) = tap.attach(false) {
                tracing::warn!(%error, "a tap can't be detached");
            }
        }
    }
}
