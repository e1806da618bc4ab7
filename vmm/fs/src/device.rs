//! The device.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;
use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, Flags, Memory, Offer, Queue, Registrar, Watch,
};

use crate::link::{Fault, Link};
use crate::session::Session;
use crate::{Error, Handle};

/// Virtio's number of a file system device (5.11.1).
const KIND: u32 = 26;

/// The longest tag (5.11.4).
const TAG: usize = 36;

const SOCKET: u32 = 0;
const TIMER: u32 = 1;

/// What a share is set up with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The name by which the guest mounts it: 1 to 36 bytes.
    pub tag: String,
    /// How many queues for requests there are, besides the one for urgent ones.
    pub request_queues: u16,
    /// The largest size of each queue.
    pub queue_size: u16,
    /// How long the server may take for the answers to one step (the beginning, a start, a reset) before it counts as
    /// dead.
    pub patience: Duration,
}

impl Setup {
    /// A share with one request queue of 1024 entries, and 10 s for each step.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            request_queues: 1,
            queue_size: 1024,
            patience: Duration::from_secs(10),
        }
    }
}

/// A share.
pub struct Fs {
    configuration: [u8; TAG + 4],
    offer: Offer,
    queues: u16,
    patience: Duration,
    // Before the timer and the session: a watch has to go before its descriptor.
    watches: Watches,
    timer: TimerFd,
    /// When answers to the queues' hand-over are due.
    due: Option<Instant>,
    /// What the driver has set up.
    active: Option<(Vec<Queue>, Arc<Memory>)>,
    /// None when it is gone.
    session: Option<Session>,
    handle: Handle,
}

#[derive(Default)]
struct Watches {
    socket: Option<Watch>,
    timer: Option<Watch>,
}

impl Fs {
    /// Agrees with the server at the other end of the socket on everything but queues, and gives it the guest's memory.
    /// This waits for the server, at most for `patience`.
    ///
    /// # Errors
    /// What is wrong with the set-up or with the server: see [`Error`].
    pub fn connect(setup: &Setup, socket: OwnedFd, memory: &Memory) -> Result<Self, Error> {
        let tag = setup.tag.as_bytes();
        if !(1..=TAG).contains(&tag.len()) || tag.contains(&0) {
            return Err(Error::Tag(tag.len()));
        }
        if !(1..=64).contains(&setup.request_queues) {
            return Err(Error::Queues(setup.request_queues));
        }
        if !setup.queue_size.is_power_of_two() {
            return Err(Error::QueueSize(setup.queue_size));
        }
        let mut configuration = [0; TAG + 4];
        configuration[..tag.len()].copy_from_slice(tag);
        configuration[TAG..].copy_from_slice(&u32::from(setup.request_queues).to_le_bytes());
        let queues = setup.request_queues + 1;
        let timer = TimerFd::new().map_err(|error| Error::Timer(error.into()))?;
        let link = Link::new(socket).map_err(|_| Fault::System)?;
        let deadline = Instant::now() + setup.patience;
        let session = Session::open(link, memory, u64::from(queues), deadline)?;
        Ok(Self {
            configuration,
            offer: Offer {
                kind: KIND,
                features: session.features,
                queues: vec![setup.queue_size; usize::from(queues)],
            },
            queues,
            patience: setup.patience,
            timer,
            watches: Watches::default(),
            due: None,
            active: None,
            session: Some(session),
            handle: Handle::default(),
        })
    }

    /// Tells how the share is, whoever has the device.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    fn start(&mut self, features: u64, events: &Registrar) -> Result<(), Fault> {
        let session = self.session.as_mut().ok_or(Fault::HungUp)?;
        let queues = self.active.as_ref().map(|(queues, _)| &queues[..]);
        self.handle.starting();
        self.due = Some(Instant::now() + self.patience);
        session.start(features, queues.unwrap_or_default())?;
        self.timer
            .reset(self.patience, None)
            .map_err(|_| Fault::System)?;
        let watch = |watched: std::io::Result<Watch>| watched.map_err(|_| Fault::System);
        self.watches.timer = Some(watch(events.watch(&self.timer, Flags::READ, TIMER))?);
        self.watches.socket = Some(watch(events.watch(&session.link, Flags::READ, SOCKET))?);
        Ok(())
    }

    fn answers(&mut self) -> Result<(), Fault> {
        let session = self.session.as_mut().ok_or(Fault::HungUp)?;
        // As many as are outstanding at most: one more is a fault.
        while session.link.next()?.is_some() {}
        if session.link.settled() && self.due.take().is_some() {
            self.disarm();
            // A thread of the server's that was late with a kick for the queue's last driver has taken this one's with
            // it, and has not looked: the queue was not enabled yet.
            for queue in self.active.iter().flat_map(|(queues, _)| queues) {
                queue.again();
            }
            self.handle.serving();
        }
        Ok(())
    }

    fn disarm(&mut self) {
        self.due = None;
        self.watches.timer = None;
        // It fails for no valid timer.
        let _ = self.timer.clear();
    }

    /// The server is not spoken to any more. The event loop may be what this runs in: nothing is waited for.
    fn give_up(&mut self, fault: Fault) -> Broken {
        self.disarm();
        self.watches = Watches::default();
        self.session = None;
        self.handle.gone(fault.text());
        fault.into()
    }
}

impl Device for Fs {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        ConfigSpace(&self.configuration).read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let queues: Vec<Queue> = activation.queues.into_iter().flatten().collect();
        if queues.len() != usize::from(self.queues) {
            return Err(Broken("the driver left a share's queue out"));
        }
        self.active = Some((queues, activation.memory));
        self.start(activation.features, &activation.events)
            .map_err(|fault| self.give_up(fault))
    }

    fn event(&mut self, token: u32, _flags: Flags) -> Result<(), Broken> {
        let result = match token {
            SOCKET => self.answers(),
            TIMER if self.due.is_some_and(|due| due <= Instant::now()) => Err(Fault::Silent),
            _ => Ok(()),
        };
        result.map_err(|fault| self.give_up(fault))
    }

    fn reset(&mut self) {
        self.disarm();
        // Its answers are read here now, and the event loop must not wait for this device's lock meanwhile.
        self.watches = Watches::default();
        self.handle.idle();
        if let Some((queues, memory)) = self.active.take()
            && let Some(session) = &mut self.session
            && let Err(fault) = session.stop(&queues, &memory, Instant::now() + self.patience)
        {
            self.give_up(fault);
        }
    }
}
