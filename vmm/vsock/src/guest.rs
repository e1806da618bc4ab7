//! Packets from the guest.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use vm_memory::VolatileSlice;
use vmm_virtio::{Flags, Registrar, total};

use crate::GUEST_CID;
use crate::connection::Connection;
use crate::device::CONNECTIONS;
use crate::packet::{HEADER, HOST_CID, Header, STREAM, behind, first, op};
use crate::state::{State, Verdict};
use crate::table::Table;

/// What the host offers to the guest: one connection each.
pub(crate) type Services = BTreeMap<u32, UnixStream>;

impl Table {
    /// Takes one packet.
    pub(crate) fn packet(
        &mut self,
        chain: &[VolatileSlice<'_>],
        services: &mut Services,
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
                return self.request(&header, services, events);
            }
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

    fn request(&mut self, header: &Header, services: &mut Services, events: &Registrar) {
        // A service that there is no room for now is not used up.
        let service = self
            .vacancy()
            .and_then(|slot| Some((slot, services.remove(&header.dst_port)?)));
        let Some((slot, stream)) = service else {
            self.stats.refuse();
            return self.refuse(header);
        };
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
