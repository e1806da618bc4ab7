//! All connections of a device, and what waits to be told to the guest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Instant;

use vm_memory::VolatileSlice;
use vmm_virtio::Flags;

use crate::connection::Connection;
use crate::packet::{Header, op};
use crate::state::{State, Verdict};
use crate::stats::Stats;
use crate::{HANDSHAKES, MOST_CONNECTIONS};

/// The ports that connections of host programs come from.
pub(crate) const PROGRAMS: Range<u32> = 1 << 30..1 << 31;

/// The guest's packets wait once so many resets do.
const MOST_RESETS: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// By the host's port and the guest's: those that the guest may send packets of.
    ports: BTreeMap<(u32, u32), u32>,
    /// Those that are not open yet, from the host's side.
    handshakes: BTreeSet<u32>,
    /// Those that may have packets for the guest, each once, in the order of their turns.
    row: VecDeque<u32>,
    resets: VecDeque<Header>,
    next_port: u32,
    pub(crate) stats: Stats,
}

impl Table {
    pub(crate) fn new(stats: Stats) -> Self {
        Self {
            stats,
            ..Self::default()
        }
    }

    /// Forgets everything at once.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            next_port: self.next_port,
            ..Self::new(self.stats.clone())
        };
    }

    /// The place that the next connection gets, if there is one.
    pub(crate) fn vacancy(&self) -> Option<u32> {
        let fresh = u32::try_from(self.slots.len()).ok();
        let fresh = fresh.filter(|_| self.slots.len() < MOST_CONNECTIONS);
        self.free.last().copied().or(fresh)
    }

    /// Whether a host program may begin a connection.
    pub(crate) fn may_greet(&self) -> bool {
        self.handshakes.len() < HANDSHAKES && self.vacancy().is_some()
    }

    /// Puts a connection at the place that [`vacancy`](Self::vacancy) has told.
    pub(crate) fn insert(&mut self, slot: u32, connection: Connection) {
        if self.free.last() == Some(&slot) {
            self.free.pop();
        } else {
            self.slots.push(None);
        }
        if connection.state == State::Greeting {
            self.handshakes.insert(slot);
        } else {
            let ports = (connection.host_port, connection.guest_port);
            self.ports.insert(ports, slot);
        }
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(connection);
        }
        self.enqueue(slot);
    }

    pub(crate) fn get(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn find(&self, host_port: u32, guest_port: u32) -> Option<u32> {
        self.ports.get(&(host_port, guest_port)).copied()
    }

    /// A port of the host's that has no connection to this one of the guest's.
    fn host_port(&mut self, guest_port: u32) -> u32 {
        loop {
            // There are fewer connections than ports, so one is free.
            let port = PROGRAMS.start + self.next_port % (PROGRAMS.end - PROGRAMS.start);
            self.next_port = self.next_port.wrapping_add(1);
            if !self.ports.contains_key(&(port, guest_port)) {
                return port;
            }
        }
    }

    /// A host program has said what it wants.
    pub(crate) fn ask(&mut self, slot: u32, guest_port: u32, deadline: Instant) {
        let host_port = self.host_port(guest_port);
        if let Some(connection) = self.get(slot) {
            connection.ask(host_port, guest_port, deadline);
            self.ports.insert((host_port, guest_port), slot);
            self.enqueue(slot);
        }
    }

    /// Its handshake is over.
    pub(crate) fn opened(&mut self, slot: u32) {
        self.handshakes.remove(&slot);
        self.stats.open();
    }

    /// Takes a connection away, and tells the guest where it must know.
    pub(crate) fn end(&mut self, slot: u32, verdict: &Verdict) {
        if *verdict == Verdict::Keep {
            return;
        }
        let Some(mut connection) = self.slots.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        if *verdict == Verdict::Reset && connection.known_to_guest() {
            self.resets.push_back(connection.reset());
        }
        self.forget_ports(&connection, slot);
        self.handshakes.remove(&slot);
        self.free.push(slot);
    }

    fn forget_ports(&mut self, connection: &Connection, slot: u32) {
        let ports = (connection.host_port, connection.guest_port);
        // One that drains has left its ports to others.
        if self.ports.get(&ports) == Some(&slot) {
            self.ports.remove(&ports);
        }
    }

    /// The guest has forgotten a connection.
    pub(crate) fn guest_gone(&mut self, slot: u32) {
        let Some(connection) = self.get(slot) else {
            return;
        };
        let ports = (connection.host_port, connection.guest_port);
        let verdict = connection.guest_gone();
        self.end(slot, &verdict);
        if self.ports.get(&ports) == Some(&slot) {
            self.ports.remove(&ports);
        }
    }

    /// Draws the conclusions from what has happened to a connection.
    pub(crate) fn settle(&mut self, slot: u32) {
        let Some(connection) = self.get(slot) else {
            return;
        };
        let verdict = connection.settle();
        self.end(slot, &verdict);
        self.enqueue(slot);
    }

    /// An established connection's socket is ready.
    pub(crate) fn ready(&mut self, slot: u32, flags: Flags) {
        let Some(connection) = self.get(slot) else {
            return;
        };
        connection.ready(flags);
        if connection.state == State::Asked && flags.hung_up() {
            return self.end(slot, &Verdict::Reset);
        }
        self.settle(slot);
    }

    /// Gives a connection a turn if it has anything to say.
    fn enqueue(&mut self, slot: u32) {
        if let Some(connection) = self.get(slot)
            && !connection.queued
            && connection.wants()
        {
            connection.queued = true;
            self.row.push_back(slot);
        }
    }

    /// Refuses a packet. A reset is never answered.
    pub(crate) fn refuse(&mut self, packet: &Header) {
        if packet.op != op::RST {
            self.resets.push_back(packet.reset());
        }
    }

    /// Whether the guest must take resets before it may send more.
    pub(crate) fn is_full(&self) -> bool {
        self.resets.len() >= MOST_RESETS
    }

    /// Whether there may be a packet for the guest.
    pub(crate) fn has_packets(&self) -> bool {
        !self.resets.is_empty() || !self.row.is_empty()
    }

    /// The next packet for the guest, of one connection after the other, with its bytes in `room` already.
    pub(crate) fn next_packet(&mut self, room: &[VolatileSlice<'_>]) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        // As many turns as there are now: a socket that can't make up its mind must not keep the loop.
        for _ in 0..self.row.len() {
            let slot = self.row.pop_front()?;
            let Some(connection) = self.get(slot) else {
                continue;
            };
            connection.queued = false;
            let packet = connection.next(room);
            self.settle(slot);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Those whose handshakes have taken too long, and when to look again.
    pub(crate) fn late(&mut self, now: Instant) -> Vec<u32> {
        let all: Vec<u32> = self.handshakes.iter().copied().collect();
        all.into_iter()
            .filter(|&slot| {
                let deadline = self.get(slot).and_then(|connection| connection.deadline);
                deadline.is_some_and(|deadline| deadline <= now)
            })
            .collect()
    }

    /// When the next handshake has taken too long.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.handshakes
            .iter()
            .filter_map(|&slot| self.slots.get(slot as usize)?.as_ref()?.deadline)
            .min()
    }
}
