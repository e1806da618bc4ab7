//! A card while a driver has it.

use std::os::fd::AsRawFd;

use vmm_virtio::{Activation, Broken, Flags, Interrupt, RateLimiter, Registrar, Watch};

use crate::control::Control;
use crate::features::{CTRL_VQ, MQ, STATUS};
use crate::pair::{Pair, Tokens};
use crate::statistics::Statistics;
use crate::tap::Tap;
use crate::vhost::Vhost;

/// Tokens of descriptors that are no queue's kick; the first two are followed by the pair's number.
pub(crate) const TAP: u32 = 0x1_0000;
pub(crate) const VHOST: u32 = 0x2_0000;
pub(crate) const RECEIVE_LIMIT: u32 = 0x3_0000;
pub(crate) const TRANSMIT_LIMIT: u32 = 0x3_0001;
pub(crate) const LINK: u32 = 0x3_0002;

/// What the driver has set up.
pub(crate) struct Active {
    watches: Vec<Watch>,
    /// None for those of which it has left out a queue.
    pairs: Vec<Option<Pair>>,
    control: Option<(u32, Control)>,
    /// So many pairs are used.
    used: usize,
    status: bool,
    events: Registrar,
    interrupt: Interrupt,
}

impl Active {
    /// Takes the queues; `most` pairs can be used.
    pub(crate) fn new(
        activation: Activation,
        most: usize,
        vhosts: &[Vhost],
    ) -> Result<Self, Broken> {
        let Activation {
            memory,
            features,
            mut queues,
            events,
            interrupt,
        } = activation;
        let count = if features & MQ == 0 { 1 } else { most };
        let mut take = |number: usize| queues.get_mut(number).and_then(Option::take);
        let mut control = None;
        // Behind all pairs that the driver knows of (5.1.2).
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
                    vhosts.get(number),
                    &memory,
                    features,
                    &events,
                    tokens(number),
                )?),
                _ => None,
            };
            pairs.push(pair);
        }
        Ok(Self {
            watches: Vec::new(),
            pairs,
            control,
            used: 1,
            status: features & STATUS != 0,
            events,
            interrupt,
        })
    }

    /// Watches something of the card's own.
    pub(crate) fn watch(&mut self, fd: &impl AsRawFd, token: u32) -> Result<(), Broken> {
        let watch = self.events.watch(fd, Flags::READ, token);
        let watch = watch.map_err(|_| Broken("a network card's own events can't be watched"))?;
        self.watches.push(watch);
        Ok(())
    }

    /// The first pair carries packets from now on.
    pub(crate) fn start(&mut self, tap: &mut Tap, up: bool) -> Result<(), Broken> {
        let Some(Some(first)) = self.pairs.first_mut() else {
            return Err(Broken("a network card has no queues"));
        };
        first.start(tap, up, &self.events, tokens(0))
    }

    /// A pair, and whether it is used.
    pub(crate) fn pair(&mut self, number: usize) -> Option<(&mut Pair, bool)> {
        let used = number < self.used;
        Some((self.pairs.get_mut(number)?.as_mut()?, used))
    }

    pub(crate) fn is_control(&self, token: u32) -> bool {
        self.control
            .as_ref()
            .is_some_and(|&(number, _)| number == token)
    }

    /// The driver asks for another number of pairs.
    pub(crate) fn control(
        &mut self,
        taps: &mut [Tap],
        up: bool,
        changes: &mut RateLimiter,
        statistics: &Statistics,
    ) -> Result<(), Broken> {
        let Some((_, control)) = &mut self.control else {
            return Ok(());
        };
        let (pairs, used, events) = (&mut self.pairs, &mut self.used, &self.events);
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
                    pair.stop(tap, statistics)?;
                }
            }
            *used = count;
            Ok(true)
        })
    }

    /// Tells the driver that the link has gone up or down, if it listens to that.
    pub(crate) fn status_changed(&self) {
        if self.status {
            self.interrupt.configuration();
        }
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
