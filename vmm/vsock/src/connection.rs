//! One connection: a Unix socket on one side, packets on the other, and the credit of both (virtio 1.3, 5.10.6.3).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use vm_memory::VolatileSlice;
use vmm_virtio::{Flags, Watch, read_vectored, write_vectored};

use crate::backlog::Backlog;
use crate::credit::Credit;
use crate::packet::{HOST_CID, Header, STREAM, first, op, shut};
use crate::state::{State, Verdict, Violation};
use crate::{BUFFER, GUEST_CID};

/// The most bytes of a stream in one packet to the guest.
const MOST: u32 = 64 << 10;

/// The most slices that one call writes (`IOV_MAX`).
const SLICES: usize = 1024;

/// The watch is taken off before the socket is closed.
#[derive(Debug)]
struct Socket {
    watch: Watch,
    stream: UnixStream,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
    /// When a handshake is given up.
    pub(crate) deadline: Option<Instant>,
    /// Whether it stands in the row of those that have packets for the guest.
    pub(crate) queued: bool,
    /// `None` once neither direction needs it.
    socket: Option<Socket>,
    /// The socket may have something to read.
    readable: bool,
    /// The line of a host program, as far as it has come.
    greeting: Vec<u8>,
    backlog: Backlog,
    /// A `REQUEST` or `RESPONSE` that was not sent yet.
    opening: Option<u16>,
    credit: Credit,
    /// What each side will not do any more, and what the guest knows of the host's.
    guest_shut: u32,
    host_shut: u32,
    told_shut: u32,
    write_ended: bool,
}

impl Connection {
    fn new(state: State, stream: UnixStream, watch: Watch, opening: Option<u16>) -> Self {
        Self {
            state,
            host_port: 0,
            guest_port: 0,
            deadline: None,
            queued: false,
            socket: Some(Socket { watch, stream }),
            readable: true,
            greeting: Vec::new(),
            backlog: Backlog::default(),
            opening,
            credit: Credit::default(),
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            write_ended: false,
        }
    }

    /// One that a host program has begun.
    pub(crate) fn greeting(stream: UnixStream, watch: Watch, deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::new(State::Greeting, stream, watch, None)
        }
    }

    /// One that the guest has asked for, and gets.
    pub(crate) fn accepted(stream: UnixStream, watch: Watch, request: &Header) -> Self {
        let mut connection = Self {
            host_port: request.dst_port,
            guest_port: request.src_port,
            ..Self::new(State::Open, stream, watch, Some(op::RESPONSE))
        };
        connection.credit.hear(request);
        connection
    }

    /// The guest is going to be asked.
    pub(crate) fn ask(&mut self, host_port: u32, guest_port: u32, deadline: Instant) {
        self.state = State::Asked;
        self.host_port = host_port;
        self.guest_port = guest_port;
        self.deadline = Some(deadline);
        self.opening = Some(op::REQUEST);
    }

    /// The guest has accepted: the host program hears it before all else.
    pub(crate) fn answered(&mut self, response: &Header) -> Verdict {
        self.credit.hear(response);
        self.state = State::Open;
        self.deadline = None;
        let line = format!("OK {}\n", self.host_port);
        let written = match &self.socket {
            Some(socket) => (&socket.stream).write(line.as_bytes()).unwrap_or(0),
            None => 0,
        };
        // The socket has carried nothing yet: there is room, or nobody.
        if written == line.len() {
            Verdict::Keep
        } else {
            Verdict::Reset
        }
    }

    /// Whether the guest may have heard of it.
    pub(crate) fn known_to_guest(&self) -> bool {
        match self.state {
            State::Greeting | State::Draining => false,
            State::Asked => self.opening.is_none(),
            State::Open => true,
        }
    }

    /// Reads the line of a greeting, without its end, and nothing behind it; `None` when it is not complete.
    pub(crate) fn greet(&mut self, longest: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        let mut byte = [0];
        while self.greeting.len() <= longest {
            match (&socket.stream).read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if byte == *b"\n" => return Ok(Some(std::mem::take(&mut self.greeting))),
                Ok(_) => self.greeting.extend(byte),
                Err(error) if later(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Takes note of what a packet says of the guest's buffer.
    pub(crate) fn hear(&mut self, header: &Header) {
        self.credit.hear(header);
    }

    /// The guest wants to know how much room it has.
    pub(crate) fn want_credit(&mut self) {
        self.credit.wanted = true;
    }

    /// Bytes from the guest, for the host.
    pub(crate) fn deliver(
        &mut self,
        payload: &[VolatileSlice<'_>],
        len: u32,
    ) -> Result<(), Violation> {
        if self.guest_shut & shut::SEND != 0 || !self.credit.receive(len) {
            return Err(Violation);
        }
        let mut written = 0;
        if self.backlog.is_empty() && self.host_shut & shut::RECEIVE == 0 {
            written = self.write(&payload[..payload.len().min(SLICES)]);
        }
        if self.host_shut & shut::RECEIVE != 0 {
            // Nobody will read it. The guest may not know yet.
            self.credit.forward(len as usize);
            return Ok(());
        }
        self.credit.forward(written);
        if written < len as usize {
            let begins = self.backlog.is_empty();
            self.backlog.push(payload, written);
            if begins {
                self.watch_for(Flags::BOTH_EDGE);
            }
        }
        Ok(())
    }

    fn write(&mut self, payload: &[VolatileSlice<'_>]) -> usize {
        let Some(socket) = &self.socket else {
            return 0;
        };
        if payload.is_empty() {
            return 0;
        }
        match write_vectored(&socket.stream, payload) {
            Ok(count) => count,
            Err(error) if later(&error) => 0,
            Err(_) => {
                self.host_gone();
                0
            }
        }
    }

    /// The host takes nothing any more.
    fn host_gone(&mut self) {
        self.host_shut |= shut::RECEIVE;
        let lost = self.backlog.clear();
        self.credit.forward(lost);
    }

    fn watch_for(&mut self, flags: Flags) {
        if let Some(socket) = &self.socket
            && socket.watch.change(flags).is_err()
        {
            // What can't be watched would wait for ever.
            self.host_gone();
            self.host_shut = shut::BOTH;
        }
    }

    /// Its socket is ready.
    pub(crate) fn ready(&mut self, flags: Flags) {
        self.readable |= flags.readable();
        if !self.backlog.is_empty() && flags.writable() {
            self.flush();
        }
        if flags.hung_up() {
            self.host_gone();
            if self.guest_shut & shut::RECEIVE != 0 {
                self.host_shut = shut::BOTH;
            }
        }
    }

    fn flush(&mut self) {
        while !self.backlog.is_empty() {
            let Some(socket) = &self.socket else {
                return self.host_gone();
            };
            match (&socket.stream).write_vectored(&self.backlog.slices()) {
                Ok(count) => {
                    self.backlog.consume(count);
                    self.credit.forward(count);
                }
                Err(error) if later(&error) => return,
                Err(_) => return self.host_gone(),
            }
        }
        self.watch_for(Flags::READ_EDGE);
    }

    /// The guest will not do this any more.
    pub(crate) fn guest_shuts(&mut self, flags: u32) {
        self.guest_shut |= flags & shut::BOTH;
        if flags & shut::RECEIVE != 0
            && let Some(socket) = &self.socket
        {
            // Whoever writes on the host hears of it. It fails when the host has gone.
            let _ = socket.stream.shutdown(Shutdown::Read);
        }
    }

    /// The guest has forgotten it, or never knew it.
    pub(crate) fn guest_gone(&mut self) -> Verdict {
        if self.backlog.is_empty() {
            return Verdict::Drop;
        }
        self.state = State::Draining;
        // A host program that waits for its own bytes to go would never read these.
        self.guest_shuts(shut::BOTH);
        Verdict::Keep
    }

    /// What follows from all that has happened.
    pub(crate) fn settle(&mut self) -> Verdict {
        if !self.backlog.is_empty() {
            return Verdict::Keep;
        }
        if self.state == State::Draining {
            return Verdict::Drop;
        }
        if self.guest_shut == shut::BOTH {
            return Verdict::Reset;
        }
        if self.guest_shut & shut::SEND != 0
            && !self.write_ended
            && let Some(socket) = &self.socket
        {
            self.write_ended = true;
            // It fails when the host has gone, and then there is nobody to tell.
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
        Verdict::Keep
    }

    fn may_read(&self) -> bool {
        self.readable
            && self.socket.is_some()
            && self.guest_shut & shut::RECEIVE == 0
            && self.host_shut & shut::SEND == 0
    }

    /// Whether there may be a packet for the guest.
    pub(crate) fn wants(&self) -> bool {
        if self.opening.is_some() {
            return true;
        }
        self.state == State::Open
            && (self.host_shut != self.told_shut
                || self.credit.wanted
                || self.may_read() && (self.credit.room() > 0 || !self.credit.asked))
    }

    /// The next packet for the guest, with its bytes in `room` already, which is not empty.
    pub(crate) fn next(&mut self, room: &[VolatileSlice<'_>]) -> Option<Header> {
        if let Some(op) = self.opening.take() {
            return Some(self.header(op, 0, 0));
        }
        if self.state != State::Open {
            return None;
        }
        if self.may_read()
            && self.credit.room() > 0
            && let Some(len) = self.read(room)
        {
            self.credit.send(len);
            return Some(self.header(op::RW, len, 0));
        }
        if self.host_shut != self.told_shut {
            self.told_shut = self.host_shut;
            if self.host_shut == shut::BOTH {
                self.socket = None;
            }
            return Some(self.header(op::SHUTDOWN, 0, self.host_shut));
        }
        if self.may_read() && self.credit.room() == 0 && !self.credit.asked {
            self.credit.asked = true;
            return Some(self.header(op::CREDIT_REQUEST, 0, 0));
        }
        self.credit
            .wanted
            .then(|| self.header(op::CREDIT_UPDATE, 0, 0))
    }

    fn read(&mut self, room: &[VolatileSlice<'_>]) -> Option<u32> {
        let socket = self.socket.as_ref()?;
        let room = first(room, self.credit.room().min(MOST) as usize);
        match read_vectored(&socket.stream, &room[..room.len().min(SLICES)]) {
            Ok(0) => self.host_shut |= shut::SEND,
            // No more than MOST.
            Ok(count) => return Some(count as u32),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if later(&error) => self.readable = false,
            Err(_) => {
                self.host_gone();
                self.host_shut = shut::BOTH;
            }
        }
        None
    }

    /// A header for the guest. It tells how much was forwarded, so no other packet needs to.
    fn header(&mut self, op: u16, len: u32, flags: u32) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: GUEST_CID,
            src_port: self.host_port,
            dst_port: self.guest_port,
            len,
            kind: STREAM,
            op,
            flags,
            buf_alloc: BUFFER,
            fwd_cnt: self.credit.tell(),
        }
    }

    /// The reset that ends it.
    pub(crate) fn reset(&mut self) -> Header {
        self.header(op::RST, 0, 0)
    }
}

/// Whether an error only means that there is nothing to be done now.
fn later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
