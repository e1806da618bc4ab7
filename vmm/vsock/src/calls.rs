//! Connections of the guest to programs of its host. This process cannot make a socket: its driver is asked, over a socket
//! of its own, and sends a connected one or none.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use vmm_control::{Call, Called, ChannelError, Received, receive, send};
use vmm_virtio::{Flags, Registrar, Watch};

use crate::HANDSHAKES;
use crate::device::CALLS;
use crate::packet::Header;
use crate::table::PROGRAMS;

/// What the driver is asked.
#[derive(Debug)]
pub(crate) struct Calls {
    /// As long as the guest has a driver.
    watch: Option<Watch>,
    socket: OwnedFd,
    /// What waits for an answer, by the host's port and the guest's.
    waiting: BTreeMap<(u32, u32), (u32, Header)>,
    next_ticket: u32,
}

impl Calls {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            watch: None,
            socket,
            waiting: BTreeMap::new(),
            next_ticket: 0,
        })
    }

    pub(crate) fn open(&mut self, events: &Registrar) -> io::Result<()> {
        self.watch = Some(events.watch(&self.socket.as_raw_fd(), Flags::READ, CALLS)?);
        Ok(())
    }

    /// The guest's driver is gone. Answers to its calls are for nobody.
    pub(crate) fn close(&mut self) {
        self.watch = None;
        self.forget_all();
    }

    /// Answers to all that was asked until now are for nobody.
    pub(crate) fn forget_all(&mut self) {
        self.waiting.clear();
    }

    /// The guest wants this connection. False: it cannot have it.
    pub(crate) fn ask(&mut self, request: &Header) -> bool {
        let ports = (request.dst_port, request.src_port);
        // A driver that does not answer has as many to answer, and no more.
        let may = self.waiting.len() < HANDSHAKES && !PROGRAMS.contains(&request.dst_port);
        // Asked twice is not what a guest does.
        if self.forget(ports) || !may {
            return false;
        }
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        let call = Call {
            ticket,
            port: request.dst_port,
        };
        // It fails when the driver is behind or gone.
        let sent = send(self.socket.as_fd(), &call, &[]).is_ok();
        if sent {
            self.waiting.insert(ports, (ticket, *request));
        }
        sent
    }

    /// The guest does not want this any more. Whether it did.
    pub(crate) fn forget(&mut self, ports: (u32, u32)) -> bool {
        self.waiting.remove(&ports).is_some()
    }

    /// The next answer that somebody waits for: what the guest has asked, and the stream if there is one.
    pub(crate) fn answer(&mut self) -> Option<(Header, Option<OwnedFd>)> {
        loop {
            let received: Option<Received<Called>> = match receive(self.socket.as_fd()) {
                Ok(received) => received,
                Err(ChannelError::Socket { source, .. })
                    if source == rustix::io::Errno::WOULDBLOCK =>
                {
                    return None;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of the guest's connections to its host");
                    self.close();
                    return None;
                }
            };
            let Some(mut received) = received else {
                // The driver is gone, and the process is about to follow.
                self.close();
                return None;
            };
            let Called { ticket, stream } = received.message;
            let mut waiting = self.waiting.iter();
            let found = waiting.find(|&(_, &(waits, _))| waits == ticket);
            let Some((&ports, &(_, request))) = found else {
                continue;
            };
            self.waiting.remove(&ports);
            let stream = stream.and_then(|handle| received.take(handle).ok());
            return Some((request, stream));
        }
    }
}
