//! The device.

use std::io;
use std::sync::Arc;

use vmm_virtio::{Activation, Broken, ConfigSpace, Device, Flags, Offer};

use crate::Discard;
use crate::handle::Handle;
use crate::roles::Roles;
use crate::serve::Active;

/// Virtio's number of balloons.
const KIND: u32 = 5;

/// Features (5.5.3), and of rings.
pub(crate) const STATISTICS: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const POISON: u64 = 1 << 4;
pub(crate) const REPORTING: u64 = 1 << 5;
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;

/// Linux wants room for 32 ranges in one report.
const SIZE: u16 = 64;

pub(crate) const INFLATE: usize = 0;
pub(crate) const DEFLATE: usize = 1;

/// By the standard there are five places, the fourth of which belongs to a feature that is not offered.
const QUEUES: usize = 5;

/// The token of a question for statistics. Queues have their numbers.
const ASKED: u32 = 16;

/// Offsets in the configuration (5.5.4).
const ACTUAL: u64 = 4;
const POISON_VALUE: u64 = 12;

/// What a balloon offers besides being a balloon.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The guest takes pages out when it would have to kill a program otherwise.
    pub deflate_on_oom: bool,
    /// The guest reports what is free by itself.
    pub reporting: bool,
    /// The guest says how its memory is, when it is asked.
    pub statistics: bool,
}

/// A balloon.
pub struct Balloon {
    setup: Setup,
    discard: Arc<dyn Discard>,
    poison: u32,
    // Before the handle, whose event it watches.
    active: Option<Active>,
    handle: Handle,
}

impl Balloon {
    /// A balloon that is empty. `discard` is where pages go.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(setup: Setup, discard: Arc<dyn Discard>) -> io::Result<Self> {
        Ok(Self {
            setup,
            discard,
            poison: 0,
            handle: Handle::new()?,
            active: None,
        })
    }

    /// Steers it, whoever has the device.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Device for Balloon {
    fn offer(&self) -> Offer {
        let mut features = INDIRECT | EVENT_IDX;
        for (wanted, feature) in [
            (self.setup.statistics, STATISTICS),
            (self.setup.deflate_on_oom, DEFLATE_ON_OOM),
            (self.setup.reporting, REPORTING | POISON),
        ] {
            features |= if wanted { feature } else { 0 };
        }
        Offer {
            kind: KIND,
            features,
            queues: vec![SIZE; QUEUES],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let target = self.handle.target_pages();
        let actual = self.handle.actual_pages();
        let bytes = [target, actual, 0, self.poison].map(u32::to_le_bytes);
        ConfigSpace(bytes.as_flattened()).read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // Fields are written as a whole (5.5.4).
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else {
            return;
        };
        match offset {
            ACTUAL => self.handle.set_actual_pages(value),
            POISON_VALUE => self.poison = value,
            _ => {}
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let queues = activation.queues;
        let there = |number: usize| queues.get(number).is_some_and(Option::is_some);
        if !there(INFLATE) || !there(DEFLATE) {
            return Err(Broken("a balloon has no queues"));
        }
        let roles = Roles::find(activation.features, there)?;
        let unwatched = |_| Broken("a balloon's queue can't be watched");
        let mut watches = Vec::new();
        let used = [
            Some(INFLATE),
            Some(DEFLATE),
            roles.statistics,
            roles.reporting,
        ];
        for queue in used
            .into_iter()
            .flatten()
            .filter_map(|number| queues[number].as_ref())
        {
            watches.push(queue.watch(&activation.events).map_err(unwatched)?);
        }
        if roles.statistics.is_some() {
            let asked = activation
                .events
                .watch(self.handle.asked(), Flags::READ, ASKED);
            watches.push(asked.map_err(unwatched)?);
        }
        self.handle.connect(Some(activation.interrupt));
        self.active = Some(Active {
            _watches: watches,
            memory: activation.memory,
            queues,
            roles,
            poison_agreed: activation.features & POISON != 0,
            inflated: 0,
            reported: 0,
            held: None,
        });
        Ok(())
    }

    fn event(&mut self, token: u32, _flags: Flags) -> Result<(), Broken> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if token == ASKED {
            // Nothing to read is as good: it was answered already.
            let _ = self.handle.asked().read();
            return active.asked();
        }
        let keeps = !active.poison_agreed || self.poison == 0;
        match token as usize {
            INFLATE => active.inflate(&*self.discard, &self.handle),
            DEFLATE => active.deflate(&self.handle),
            number if active.roles.statistics == Some(number) => active.hear(&self.handle),
            number if active.roles.reporting == Some(number) => {
                active.report(number, keeps.then_some(&*self.discard), &self.handle)
            }
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.handle.connect(None);
        // What was in the balloon is the guest's again.
        self.handle.set_actual_pages(0);
        self.poison = 0;
        self.active = None;
    }
}
