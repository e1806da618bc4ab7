//! Connections of host programs to the guest.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::guest::*;
use tempfile::TempDir;
use vmm_vsock::{HANDSHAKES, MOST_CONNECTIONS};

struct Door {
    folder: TempDir,
}

impl Door {
    fn new() -> (Self, Guest) {
        Self::beside(Vec::new())
    }

    fn beside(services: Vec<(u32, OwnedFd)>) -> (Self, Guest) {
        let door = Self {
            folder: TempDir::new().expect("a folder"),
        };
        let listener = UnixListener::bind(door.path()).expect("binds");
        (door, Guest::new(services, Some(listener.into())))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vsock")
    }

    fn knock(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path()).expect("connects");
        stream.write_all(line.as_bytes()).expect("writes");
        stream
    }
}

/// The guest accepts the next that comes.
fn accept(guest: &mut Guest) -> Packet {
    let request = guest.expect(REQUEST);
    let answer = Packet::new(request.dst_port, request.src_port, RESPONSE);
    guest.send(&answer);
    answer
}

fn line(stream: &UnixStream) -> String {
    let mut line = String::new();
    while !line.ends_with('\n') {
        line.push(char::from(exactly(stream, 1)[0]));
    }
    line
}

#[test]
fn a_host_program_talks_to_the_guest() {
    let (door, mut guest) = Door::new();
    // What follows the greeting at once is the guest's.
    let mut host = door.knock("CONNECT 52\nfirst");
    let ours = accept(&mut guest);
    assert_eq!(ours.src_port, 52);
    assert_eq!(line(&host), format!("OK {}\n", ours.dst_port));
    assert_eq!(guest.next().1, b"first");
    guest.write(ours, b"second");
    assert_eq!(exactly(&host, 6), b"second");
    host.write_all(b"third").expect("writes");
    assert_eq!(guest.next().1, b"third");
    // A second to the same port is another connection.
    let other = door.knock("CONNECT 52\n");
    let theirs = accept(&mut guest);
    assert_ne!(ours.dst_port, theirs.dst_port);
    assert!(line(&other).starts_with("OK "));
}

#[test]
fn a_greeting_may_come_in_pieces() {
    let (door, mut guest) = Door::new();
    let mut host = door.knock("");
    for byte in b"CONNECT 4294967295" {
        host.write_all(&[*byte]).expect("writes");
        guest.expect_silence();
    }
    host.write_all(b"\n").expect("writes");
    assert_eq!(accept(&mut guest).src_port, u32::MAX);
    assert!(line(&host).starts_with("OK "));
}

#[test]
fn a_guest_that_refuses_ends_the_connection() {
    let (door, mut guest) = Door::new();
    let host = door.knock("CONNECT 1\n");
    let request = guest.expect(REQUEST);
    guest.send(&Packet::new(request.dst_port, request.src_port, RST));
    assert!(rest(&host).is_empty());
    guest.expect_silence();
}

#[test]
fn what_is_no_greeting_ends_the_connection() {
    let (door, mut guest) = Door::new();
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "CONNECT \n",
        "CONNECT 99999999999999",
        "\n",
    ] {
        let host = door.knock(bad);
        host.shutdown(Shutdown::Write).unwrap_or_default();
        let mut bytes = Vec::new();
        // What was not read makes the end an error.
        let _ = (&host).read_to_end(&mut bytes);
        assert!(bytes.is_empty(), "{bad:?}");
    }
    guest.expect_silence();
    assert_eq!(guest.control.stats().refused(), 4);
}

#[test]
fn a_host_that_leaves_before_the_guest_answers_resets_it() {
    let (door, mut guest) = Door::new();
    let host = door.knock("CONNECT 9\n");
    let request = guest.expect(REQUEST);
    drop(host);
    let reset = guest.expect(RST);
    assert_eq!((reset.src_port, reset.dst_port), (request.src_port, 9));
    guest.send(&Packet::new(9, request.src_port, RESPONSE));
    guest.expect(RST);
}

#[test]
fn handshakes_have_a_limit_and_the_others_wait() {
    let (door, mut guest) = Door::new();
    let mut idle: Vec<_> = (0..HANDSHAKES).map(|_| door.knock("")).collect();
    let late = door.knock("CONNECT 3\n");
    guest.expect_silence();
    idle.pop();
    accept(&mut guest);
    assert!(line(&late).starts_with("OK "));
}

#[test]
fn a_thousand_connections_and_not_one_more() {
    let (_service, far) = pair();
    let (door, mut guest) = Door::beside(vec![(HOST, far)]);
    let mut open = Vec::new();
    for number in 0..MOST_CONNECTIONS as u32 {
        let mut host = door.knock(&format!("CONNECT {number}\n"));
        let ours = accept(&mut guest);
        line(&host);
        host.write_all(&number.to_le_bytes()).expect("writes");
        assert_eq!(guest.next().1, number.to_le_bytes());
        open.push((host, ours));
    }
    // Nor one of the guest's; but its service remains.
    guest.send(&Packet::new(GUEST, HOST, REQUEST));
    guest.expect(RST);
    let waiting = door.knock("CONNECT 5\n");
    guest.expect_silence();
    for (number, (host, ours)) in open.iter().enumerate() {
        guest.write(*ours, &number.to_le_bytes());
        assert_eq!(exactly(host, 8), number.to_le_bytes());
    }
    let mut leave = |guest: &mut Guest| {
        let (_, ours) = open.swap_remove(500);
        while guest.expect(SHUTDOWN).flags != 3 {}
        guest.send(&Packet { op: RST, ..ours });
    };
    leave(&mut guest);
    accept(&mut guest);
    assert!(line(&waiting).starts_with("OK "));
    leave(&mut guest);
    guest.send(&Packet::new(GUEST, HOST, REQUEST));
    guest.expect(RESPONSE);
}

#[test]
fn a_reset_of_the_device_turns_programs_away_and_lets_others_in() {
    let (door, mut guest) = Door::new();
    let host = door.knock("CONNECT 1\n");
    accept(&mut guest);
    line(&host);
    let asked = door.knock("CONNECT 2\n");
    guest.expect(REQUEST);
    guest.restart();
    assert!(rest(&host).is_empty());
    assert!(rest(&asked).is_empty());
    let host = door.knock("CONNECT 1\n");
    accept(&mut guest);
    assert!(line(&host).starts_with("OK "));
}
