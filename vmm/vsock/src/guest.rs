//! Packets from the guest.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use vm_memory::VolatileSlice;
use vmm_virtio::{Flags, Registrar, total};

use crate::GUEST_CID;
use crate::calls::Calls;
use crate::connection::Connection;
use crate::device::CONNECTIONS;
use crate::packet::{HEADER, HOST_CID, Header, STREAM, behind, first, op};
use crate::state::{State, Verdict};
use crate::table::Table;

/// The most answers to calls that are taken at once.
const BATCH: usize = 16;

/// What the guest can connect to.
pub(crate) struct Host {
    /// What the host offers: one connection each.
    pub(crate) services: BTreeMap<u32, UnixStream>,
    /// Who is asked for everything else.
    pub(crate) calls: Option<Calls>,
}

impl Host {
    /// The guest does not want this any more. Whether it waited for it.
    fn forget(&mut self, header: &Header) -> bool {
        let ports = (header.dst_port, header.src_port);
        let calls = self.calls.as_mut();
        calls.is_some_and(|calls| calls.forget(ports))
    }

    /// The guest has forgotten all that it waits for.
    pub(crate) fn forget_calls(&mut self) {
        if let Some(calls) = &mut self.calls {
            calls.forget_all();
        }
    }
}

impl Table {
    /// Takes one packet.
    pub(crate) fn packet(
        &mut self,
        chain: &[VolatileSlice<'_>],
        host: &mut Host,
        events: &Registrar,
    ) {
        self.stats.took();
        let Some(header) = Header::read(chain) else {
            // It has no sender that could be answered.
            return self.stats.violate();
        };
        if header.src_cid != GUEST_CID {
            return self.stats.violate();
        }
        if header.dst_cid != HOST_CID || header.kind != STREAM {
            return self.refuse(&header);
        }
        let Some(slot) = self.find(header.dst_port, header.src_port) else {
            if header.op == op::REQUEST {
                return self.request(&header, host, events);
            }
            // Nothing else comes before the answer.
            host.forget(&header);
            return self.refuse(&header);
        };
        if header.op == op::RST {
            return self.guest_gone(slot);
        }
        let Some(connection) = self.get(slot) else {
            return;
        };
        let state = (&connection.state, header.op);
        match state {
            (State::Asked, op::RESPONSE) if connection.known_to_guest() => {
                let verdict = connection.answered(&header);
                self.opened(slot);
                self.end(slot, &verdict);
            }
            (State::Open, op::RW) => {
                let payload = behind(chain, HEADER);
                let payload = first(&payload, header.len as usize);
                connection.hear(&header);
                let whole = total(&payload) == header.len as usize;
                if !whole || connection.deliver(&payload, header.len).is_err() {
                    return self.violation(slot, &header);
                }
                self.stats.accepted(u64::from(header.len));
            }
            (State::Open, op::SHUTDOWN) => {
                connection.hear(&header);
                connection.guest_shuts(header.flags);
            }
            (State::Open, op::CREDIT_UPDATE) => connection.hear(&header),
            (State::Open, op::CREDIT_REQUEST) => {
                connection.hear(&header);
                connection.want_credit();
            }
            _ => return self.violation(slot, &header),
        }
        self.settle(slot);
    }

    fn violation(&mut self, slot: u32, header: &Header) {
        self.stats.violate();
        self.refuse(header);
        self.end(slot, &Verdict::Drop);
    }

    fn request(&mut self, header: &Header, host: &mut Host, events: &Registrar) {
        // A service that there is no room for now is not used up.
        let service = self
            .vacancy()
            .and_then(|slot| Some((slot, host.services.remove(&header.dst_port)?)));
        let Some((slot, stream)) = service else {
            let calls = host.calls.as_mut().filter(|_| self.vacancy().is_some());
            if !calls.is_some_and(|calls| calls.ask(header)) {
                self.stats.refuse();
                self.refuse(header);
            }
            return;
        };
        self.accept(slot, stream, header, events);
    }

    /// Answers to what the guest has asked for have come.
    pub(crate) fn called(&mut self, host: &mut Host, events: &Registrar) {
        let Some(calls) = &mut host.calls else {
            return;
        };
        for _ in 0..BATCH {
            let Some((request, stream)) = calls.answer() else {
                return;
            };
            match (self.vacancy(), stream) {
                (Some(slot), Some(stream)) => self.accept(slot, stream.into(), &request, events),
                (None, _) | (_, None) => {
                    self.stats.refuse();
                    self.refuse(&request);
                }
            }
        }
    }

    fn accept(&mut self, slot: u32, stream: UnixStream, header: &Header, events: &Registrar) {
        match events.watch(&stream, Flags::READ_EDGE, CONNECTIONS + slot) {
            Ok(watch) => {
                self.insert(slot, Connection::accepted(stream, watch, header));
                self.stats.open();
            }
            Err(error) => {
                tracing::warn!(%error, port = header.dst_port, "a service of the guest's host is lost");
                self.stats.refuse();
                self.refuse(header);
            }
        }
    }
}
