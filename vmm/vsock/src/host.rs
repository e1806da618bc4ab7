//! Host programs that want to be connected to the guest.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use vmm_virtio::{Flags, Registrar, Watch};

use crate::connection::Connection;
use crate::device::{CONNECTIONS, LISTENER};
use crate::state::Verdict;
use crate::table::Table;

/// How long a program may take to say what it wants.
const GREETING: Duration = Duration::from_secs(10);

/// How long the guest may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How long nobody is accepted after that has failed.
const REST: Duration = Duration::from_secs(1);

/// The most programs that are accepted at once.
const BATCH: usize = 16;

/// The longest greeting: `CONNECT 4294967295`.
const LONGEST: usize = 18;

/// The door for host programs.
#[derive(Debug)]
pub(crate) struct Door {
    /// Only as long as there is room: the others wait in the socket's own row.
    watch: Option<Watch>,
    listener: UnixListener,
    /// Until when it stays shut, after a failure.
    shut: Option<Instant>,
}

impl Door {
    pub(crate) fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            watch: None,
            shut: None,
        }
    }

    pub(crate) fn close(&mut self) {
        self.watch = None;
        self.shut = None;
    }

    /// When it will open again, if it is shut.
    pub(crate) fn shut_until(&self) -> Option<Instant> {
        self.shut
    }

    /// Watches for programs while there is room for them.
    pub(crate) fn adjust(&mut self, table: &Table, events: &Registrar, now: Instant) {
        if self.shut.is_some_and(|until| until <= now) {
            self.shut = None;
        }
        if self.shut.is_some() || !table.may_greet() {
            self.watch = None;
        } else if self.watch.is_none() {
            match events.watch(&self.listener, Flags::READ, LISTENER) {
                Ok(watch) => self.watch = Some(watch),
                Err(_) => self.shut = Some(now + REST),
            }
        }
    }

    /// Somebody is there.
    pub(crate) fn accept(&mut self, table: &mut Table, events: &Registrar, now: Instant) {
        for _ in 0..BATCH {
            if !table.may_greet() {
                return;
            }
            let Some(slot) = table.vacancy() else {
                return;
            };
            let accepted = self.listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                let watch = events.watch(&stream, Flags::READ_EDGE, CONNECTIONS + slot)?;
                Ok((stream, watch))
            });
            match accepted {
                Ok((stream, watch)) => {
                    let deadline = now + GREETING;
                    table.insert(slot, Connection::greeting(stream, watch, deadline));
                    // What it wants may be there already, and was before the watch.
                    table.greeted(slot, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the guest");
                    self.shut = Some(now + REST);
                    return;
                }
            }
        }
    }
}

impl Table {
    /// Reads what a program wants, not a byte more: what follows is the guest's.
    pub(crate) fn greeted(&mut self, slot: u32, now: Instant) {
        let wanted = match self.get(slot) {
            Some(connection) => connection.greet(LONGEST),
            None => return,
        };
        match wanted {
            Ok(None) => {}
            Ok(Some(line)) => match port(&line) {
                Some(port) => self.ask(slot, port, now + ANSWER),
                None => self.turn_away(slot),
            },
            Err(_) => self.turn_away(slot),
        }
    }

    fn turn_away(&mut self, slot: u32) {
        self.stats.refuse();
        self.end(slot, &Verdict::Drop);
    }

    /// Gives up handshakes that have taken too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        for slot in self.late(now) {
            self.stats.refuse();
            self.end(slot, &Verdict::Reset);
        }
    }
}

/// The port of `CONNECT <port>`.
fn port(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use vm_memory::VolatileSlice;
    use vmm_virtio::{EventLoop, Handler};

    use super::*;
    use crate::packet::op;

    struct Nobody;

    impl Handler for Nobody {
        fn ready(&self, _token: u32, _flags: Flags) {}
    }

    /// A table with one program that has said this.
    fn table(said: &[u8], now: Instant) -> (Table, UnixStream, EventLoop) {
        let events = EventLoop::new().expect("a loop");
        let handler: Arc<dyn Handler> = Arc::new(Nobody);
        let registrar = events.registrar(Arc::downgrade(&handler));
        let (mut near, far) = UnixStream::pair().expect("a pair");
        far.set_nonblocking(true).expect("sets");
        near.write_all(said).expect("writes");
        let mut table = Table::default();
        let slot = table.vacancy().expect("room");
        let watch = registrar
            .watch(&far, Flags::READ_EDGE, slot)
            .expect("watches");
        table.insert(slot, Connection::greeting(far, watch, now + GREETING));
        table.greeted(slot, now);
        (table, near, events)
    }

    fn next(table: &mut Table) -> Option<u16> {
        let mut buffer = [0_u8; 100];
        let room = [VolatileSlice::from(&mut buffer[..])];
        table.next_packet(&room).map(|header| header.op)
    }

    /// The program reads the end.
    fn ended(mut near: UnixStream) -> bool {
        matches!(near.read(&mut [0]), Ok(0))
    }

    #[test]
    fn a_program_that_says_nothing_is_turned_away() {
        let now = Instant::now();
        let (mut table, near, _events) = table(b"CONN", now);
        assert_eq!(table.next_deadline(), Some(now + GREETING));
        table.expire(now + GREETING - Duration::from_millis(1));
        assert_eq!(table.next_deadline(), Some(now + GREETING));
        table.expire(now + GREETING);
        assert_eq!(table.next_deadline(), None);
        assert_eq!(next(&mut table), None);
        assert!(ended(near));
        assert_eq!(table.stats.refused(), 1);
    }

    #[test]
    fn a_guest_that_does_not_answer_is_given_up() {
        for asked in [true, false] {
            let now = Instant::now();
            let (mut table, near, _events) = table(b"CONNECT 5\n", now);
            assert_eq!(table.next_deadline(), Some(now + ANSWER));
            if asked {
                assert_eq!(next(&mut table), Some(op::REQUEST));
            }
            table.expire(now + ANSWER);
            assert_eq!(table.next_deadline(), None);
            // A guest that has not heard of it needs no reset.
            assert_eq!(next(&mut table), asked.then_some(op::RST));
            assert!(ended(near));
        }
    }

    #[test]
    fn a_greeting_is_exactly_this() {
        assert_eq!(port(b"CONNECT 1024"), Some(1024));
        assert_eq!(port(b"CONNECT 4294967295"), Some(u32::MAX));
        for bad in [
            "CONNECT 4294967296",
            "CONNECT",
            "CONNECT ",
            "CONNECT +1",
            "CONNECT  1",
            "CONNECT 1 ",
            "CONNECT 1\r",
            "connect 1",
            "",
            "CONNECT 0x10",
        ] {
            assert_eq!(port(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
