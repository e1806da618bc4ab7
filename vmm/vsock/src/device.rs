//! The device: three queues, and who is woken by what.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};
use vmm_sys_util::timerfd::TimerFd;
use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, EventFd, Flags, Memory, Offer, Queue, Registrar,
    Watch, copy_to, total,
};

use crate::calls::Calls;
use crate::guest::Host;
use crate::host::Door;
use crate::packet::{HEADER, behind};
use crate::state::State;
use crate::stats::Stats;
use crate::table::{PROGRAMS, Table};
use crate::{GUEST_CID, QUEUE};

/// `VIRTIO_VSOCK_F_STREAM`, and `VIRTIO_VSOCK_F_NO_IMPLIED_STREAM` is not offered: it would say the same.
const STREAM: u64 = 1;
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;

/// Tokens of events. The first three are the queues' numbers.
const TO_GUEST: u32 = 0;
const FROM_GUEST: u32 = 1;
const EVENTS: u32 = 2;
pub(crate) const LISTENER: u32 = 3;
const TIMER: u32 = 4;
const TRANSPORT_RESET: u32 = 5;
pub(crate) const CALLS: u32 = 6;
/// Connections have this and those behind it.
pub(crate) const CONNECTIONS: u32 = 16;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, the only event (virtio 1.3, 5.10.6.7).
const RESET_EVENT: [u8; 4] = 0_u32.to_le_bytes();

/// The device. What is active goes first: its watches before what they watch.
pub struct Vsock {
    active: Option<Active>,
    host: Host,
    door: Option<Door>,
    table: Table,
    timer: Timer,
    control: Control,
}

/// What others may ask of a device that runs. Clones are for the same device.
#[derive(Debug, Clone)]
pub struct Control {
    stats: Stats,
    reset: Arc<Reset>,
}

#[derive(Debug)]
struct Reset {
    wanted: AtomicBool,
    event: EventFd,
}

impl Control {
    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Ends all connections and tells the guest that they are gone, though it sent and got no reset for them: it was
    /// restored where none of them exists (`VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`). Asked of a device that no driver has
    /// started, it happens when one has.
    pub fn transport_reset(&self) {
        self.reset.wanted.store(true, Ordering::Release);
        // It fails only when the counter is full, and then it is pending already.
        let _ = self.reset.event.write(1);
    }
}

/// The watches go before the queues whose kicks they watch.
struct Active {
    _watches: Vec<Watch>,
    memory: Arc<Memory>,
    events: Registrar,
    to_guest: Queue,
    from_guest: Queue,
    told: Queue,
    /// Packets of the guest wait until it has taken resets.
    held: bool,
}

/// The one timer. It is set as long as something can be late, so mostly it is not.
struct Timer {
    clock: TimerFd,
    set: Option<Instant>,
}

impl Timer {
    /// It has gone off, or was set for a driver that is gone.
    fn stop(&mut self) -> Result<(), Broken> {
        self.set = None;
        let stopped = self.clock.clear();
        stopped.map_err(|_| Broken("the timer can't be stopped"))
    }

    fn set(&mut self, deadline: Option<Instant>, now: Instant) -> Result<(), Broken> {
        if deadline == self.set {
            return Ok(());
        }
        let done = match deadline {
            // Nothing at all would stop it.
            Some(deadline) => {
                let rest = deadline.saturating_duration_since(now);
                self.clock.reset(rest.max(Duration::from_millis(1)), None)
            }
            None => self.clock.clear(),
        };
        done.map_err(|_| Broken("the timer can't be set"))?;
        self.set = deadline;
        Ok(())
    }
}

impl Vsock {
    /// A device for a guest with the address [`GUEST_CID`].
    ///
    /// `services` are what the guest may connect to: ports of the host (address 2), and for each the end of a pair of
    /// Unix stream sockets. The first connection of the guest gets it; all others are refused, also after the first has
    /// ended, as a pair of sockets can't be connected again. `listener` is a Unix stream socket that is bound and
    /// listens already: host programs come in there. All these descriptors are made non-blocking.
    ///
    /// # Errors
    /// When descriptors run out; `InvalidInput` when one port is given twice, or is one of those that connections of host
    /// programs come from: 2³⁰ to 2³¹ − 1.
    pub fn new(
        services: impl IntoIterator<Item = (u32, OwnedFd)>,
        listener: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for (port, service) in services {
            let service = UnixStream::from(service);
            service.set_nonblocking(true)?;
            if PROGRAMS.contains(&port) || all.insert(port, service).is_some() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        let door = match listener.map(UnixListener::from) {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                Some(Door::new(listener))
            }
            None => None,
        };
        let stats = Stats::default();
        Ok(Self {
            host: Host {
                services: all,
                calls: None,
            },
            door,
            table: Table::new(stats.clone()),
            timer: Timer {
                clock: TimerFd::new()
                    .map_err(|error| io::Error::from_raw_os_error(error.errno()))?,
                set: None,
            },
            control: Control {
                stats,
                reset: Arc::new(Reset {
                    wanted: AtomicBool::new(false),
                    event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
                }),
            },
            active: None,
        })
    }

    /// The guest's connections to ports that are no services are asked for here: a Unix socket (`SOCK_SEQPACKET`), whose
    /// other end answers each `vmm_control::Call`. It is made non-blocking.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn with_calls(mut self, socket: OwnedFd) -> io::Result<Self> {
        self.host.calls = Some(Calls::new(socket)?);
        Ok(self)
    }

    /// A handle to it, for when the machine has it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

impl Device for Vsock {
    fn offer(&self) -> Offer {
        Offer {
            kind: 19,
            features: STREAM | INDIRECT | EVENT_IDX,
            queues: vec![QUEUE, QUEUE, QUEUE],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        ConfigSpace(&GUEST_CID.to_le_bytes()).read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), Broken> {
        let Activation {
            memory,
            mut queues,
            events,
            ..
        } = activation;
        let mut take = |number: u32| {
            let queue = queues.get_mut(number as usize).and_then(Option::take);
            queue.ok_or(Broken("a vsock driver has left out a queue"))
        };
        let (mut to_guest, from_guest, mut told) =
            (take(TO_GUEST)?, take(FROM_GUEST)?, take(EVENTS)?);
        // Buffers are only looked for when there is something to put in.
        to_guest.silence()?;
        told.silence()?;
        let watches = [&to_guest, &from_guest, &told]
            .into_iter()
            .map(|queue| queue.watch(&events))
            .chain([
                events.watch(&self.timer.clock, Flags::READ, TIMER),
                events.watch(&self.control.reset.event, Flags::READ, TRANSPORT_RESET),
            ])
            .collect::<io::Result<_>>()
            .map_err(|_| Broken("a vsock device's events can't be watched"))?;
        if let Some(calls) = &mut self.host.calls {
            let opened = calls.open(&events);
            opened.map_err(|_| Broken("a vsock device's calls can't be watched"))?;
        }
        if let Some(door) = &mut self.door {
            door.adjust(&self.table, &events, Instant::now());
        }
        self.active = Some(Active {
            _watches: watches,
            memory,
            events,
            to_guest,
            from_guest,
            told,
            held: false,
        });
        Ok(())
    }

    fn event(&mut self, token: u32, flags: Flags) -> Result<(), Broken> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let now = Instant::now();
        match token {
            TO_GUEST => {
                active.to_guest.kicked();
                active.to_guest.silence()?;
            }
            FROM_GUEST => {
                active.from_guest.kicked();
                active.take_packets(&mut self.table, &mut self.host)?;
            }
            EVENTS => {
                active.told.kicked();
            }
            LISTENER => {
                if let Some(door) = &mut self.door {
                    door.accept(&mut self.table, &active.events, now);
                }
            }
            CALLS => self.table.called(&mut self.host, &active.events),
            TIMER => {
                self.timer.stop()?;
                self.table.expire(now);
            }
            TRANSPORT_RESET => {
                // What counts is the flag.
                let _ = self.control.reset.event.read();
            }
            _ => {
                let slot = token.saturating_sub(CONNECTIONS);
                match self.table.get(slot).map(|connection| &connection.state) {
                    Some(State::Greeting) => self.table.greeted(slot, now),
                    Some(_) => self.table.ready(slot, flags),
                    None => {}
                }
            }
        }
        if self.control.reset.wanted.load(Ordering::Acquire) && active.tell_reset()? {
            self.control.reset.wanted.store(false, Ordering::Release);
            self.table.clear();
            self.host.forget_calls();
        }
        active.give_packets(&mut self.table)?;
        if active.held && !self.table.is_full() {
            active.held = false;
            active.from_guest.again();
        }
        if let Some(door) = &mut self.door {
            door.adjust(&self.table, &active.events, now);
        }
        let reopens = self.door.as_ref().and_then(Door::shut_until);
        let deadline = [reopens, self.table.next_deadline()];
        self.timer.set(deadline.into_iter().flatten().min(), now)
    }

    fn reset(&mut self) {
        self.active = None;
        self.table.clear();
        if let Some(door) = &mut self.door {
            door.close();
        }
        if let Some(calls) = &mut self.host.calls {
            calls.close();
        }
        // If that fails it goes off once more.
        let _ = self.timer.stop();
    }
}

impl Active {
    /// Takes what the guest has sent, up to one queue of it.
    fn take_packets(&mut self, table: &mut Table, host: &mut Host) -> Result<(), Broken> {
        self.from_guest.silence()?;
        let mut left = self.from_guest.size();
        let mut taken = false;
        loop {
            if table.is_full() {
                self.held = true;
                break;
            }
            if left == 0 {
                self.from_guest.again();
                break;
            }
            left -= 1;
            match self.from_guest.pop(&self.memory)? {
                Some(chain) => {
                    table.packet(&chain.readable, host, &self.events);
                    self.from_guest.complete(chain.head(), 0)?;
                    taken = true;
                }
                None if self.from_guest.listen()? => {}
                None => break,
            }
        }
        if taken {
            self.from_guest.notify()?;
        }
        Ok(())
    }

    /// Gives the guest what there is for it, up to one queue of it.
    fn give_packets(&mut self, table: &mut Table) -> Result<(), Broken> {
        let mut left = self.to_guest.size();
        let mut given = false;
        while table.has_packets() {
            if left == 0 {
                self.to_guest.again();
                break;
            }
            left -= 1;
            let Some(chain) = self.to_guest.pop(&self.memory)? else {
                if self.to_guest.listen()? {
                    continue;
                }
                break;
            };
            let room = behind(&chain.writable, HEADER);
            if room.is_empty() {
                return Err(Broken("a vsock buffer has no room for a packet"));
            }
            let Some(header) = table.next_packet(&room) else {
                self.to_guest.undo_pop();
                continue;
            };
            header.write(&chain.writable);
            table.stats.gave(u64::from(header.len));
            // A packet is less than 4 GiB.
            let written = (HEADER as u32).saturating_add(header.len);
            self.to_guest.complete(chain.head(), written)?;
            given = true;
        }
        if given {
            self.to_guest.notify()?;
        }
        Ok(())
    }

    /// Tells the guest that all connections are gone, if it has left a buffer for that.
    fn tell_reset(&mut self) -> Result<bool, Broken> {
        let chain = match self.told.pop(&self.memory)? {
            Some(chain) => chain,
            None if self.told.listen()? => match self.told.pop(&self.memory)? {
                Some(chain) => chain,
                None => return Ok(false),
            },
            None => return Ok(false),
        };
        if total(&chain.writable) < RESET_EVENT.len() {
            return Err(Broken("a vsock buffer has no room for an event"));
        }
        copy_to(&chain.writable, &RESET_EVENT);
        self.told.complete(chain.head(), RESET_EVENT.len() as u32)?;
        self.told.notify()?;
        self.told.silence()?;
        Ok(true)
    }
}
