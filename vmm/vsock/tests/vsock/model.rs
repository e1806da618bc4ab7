//! Every packet in every state of a connection, against a model.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use super::guest::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// The guest sends this, with so many bytes behind it.
    Guest {
        op: u16,
        flags: u32,
        len: u32,
    },
    /// The host's program does this.
    Writes(u32),
    EndsWriting,
    Leaves,
    /// A new program asks for the guest.
    Asks,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0..1000_u32, 1 => Just(BUFFER + 1)];
    prop_oneof![
        12 => (0..9_u16, 0..4_u32, len).prop_map(|(op, flags, len)| Step::Guest { op, flags, len }),
        // The commonest, so that states last.
        6 => (0..1000_u32).prop_map(|len| Step::Guest { op: RW, flags: 0, len }),
        4 => Just(Step::Guest { op: RESPONSE, flags: 0, len: 0 }),
        4 => (1..1000_u32).prop_map(Step::Writes),
        1 => Just(Step::EndsWriting),
        1 => Just(Step::Leaves),
        6 => Just(Step::Asks),
    ]
}

/// What the model knows of the one connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Model {
    None,
    Asked,
    Open {
        guest_shut: u32,
        host_shut: u32,
        received: u32,
    },
}

struct World {
    guest: Guest,
    folder: tempfile::TempDir,
    host: Option<UnixStream>,
    model: Model,
    /// The host's port of the connection.
    port: u32,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::TempDir::new().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("vsock")).expect("binds");
        Self {
            guest: Guest::new(Vec::new(), Some(listener.into())),
            folder,
            host: None,
            model: Model::None,
            port: HOST,
        }
    }

    fn asks(&mut self) {
        if self.model != Model::None {
            return;
        }
        let path = self.folder.path().join("vsock");
        let mut host = UnixStream::connect(path).expect("connects");
        host.write_all(b"CONNECT 5000\n").expect("writes");
        self.port = self.guest.expect(REQUEST).src_port;
        self.host = Some(host);
        self.model = Model::Asked;
    }

    fn writes(&mut self, count: u32) {
        let Model::Open {
            guest_shut,
            host_shut,
            ..
        } = self.model
        else {
            return;
        };
        let (Some(host), 0) = (&mut self.host, host_shut & 2) else {
            return;
        };
        let bytes: Vec<u8> = (0..count).map(|at| at as u8).collect();
        if guest_shut & 1 != 0 {
            assert!(host.write_all(&bytes).is_err());
            return;
        }
        host.write_all(&bytes).expect("writes");
        let (packet, data) = self.guest.next();
        assert_eq!((packet.op, data), (RW, bytes));
    }

    fn ends_writing(&mut self) {
        let Model::Open {
            guest_shut,
            host_shut,
            ..
        } = &mut self.model
        else {
            return;
        };
        let (Some(host), 0) = (&self.host, *host_shut & 2) else {
            return;
        };
        if *guest_shut & 1 != 0 {
            // The host's writing was ended for it.
            return;
        }
        host.shutdown(Shutdown::Write).expect("shuts");
        // Where the guest has ended the other direction nothing is left of the socket.
        *host_shut = if *guest_shut & 2 != 0 { 3 } else { 2 };
        let (mut flags, wanted) = (0, *host_shut);
        while flags != wanted {
            flags = self.guest.expect(SHUTDOWN).flags;
        }
    }

    fn leaves(&mut self) {
        let Some(host) = self.host.take() else {
            return;
        };
        drop(host);
        match &mut self.model {
            Model::None => {}
            Model::Asked => {
                self.guest.expect(RST);
                self.model = Model::None;
            }
            Model::Open { host_shut, .. } => {
                while *host_shut != 3 {
                    *host_shut = self.guest.expect(SHUTDOWN).flags;
                }
            }
        }
    }

    /// The connection has ended: the host's program sees it.
    fn over(&mut self) {
        self.model = Model::None;
        if let Some(host) = self.host.take() {
            assert!(rest(&host).is_empty());
        }
    }

    fn sends(&mut self, op: u16, flags: u32, len: u32) {
        let header = Packet {
            op,
            flags,
            len,
            ..Packet::new(GUEST, self.port, op)
        };
        let bytes: Vec<u8> = (0..len).map(|at| (at * 3) as u8).collect();
        self.guest.send_pieces(&[&header.bytes(), &bytes]);
        let violation = match (&mut self.model, op) {
            (Model::None, RST) => false,
            (Model::None, _) => {
                self.guest.expect(RST);
                false
            }
            (_, RST) => {
                self.over();
                false
            }
            (Model::Asked, RESPONSE) => {
                let line = format!("OK {}\n", self.port);
                let host = self.host.as_ref().expect("a program");
                assert_eq!(exactly(host, line.len()), line.as_bytes());
                self.model = Model::Open {
                    guest_shut: 0,
                    host_shut: 0,
                    received: 0,
                };
                false
            }
            (Model::Open { guest_shut, .. }, RW) if *guest_shut & 2 != 0 || len > BUFFER => true,
            (Model::Open { received, .. }, RW) => {
                *received += len;
                if let Some(host) = &self.host {
                    assert_eq!(exactly(host, len as usize), bytes);
                }
                false
            }
            (
                Model::Open {
                    guest_shut,
                    host_shut,
                    ..
                },
                SHUTDOWN,
            ) => {
                *guest_shut |= flags;
                if *guest_shut == 3 {
                    self.guest.expect(RST);
                    self.over();
                } else if *guest_shut == 2 && *host_shut == 2 {
                    // Both have ended: the host's socket is over.
                    *host_shut = self.guest.expect(SHUTDOWN).flags;
                    assert_eq!(*host_shut, 3);
                }
                false
            }
            (Model::Open { .. }, CREDIT_UPDATE) => false,
            (Model::Open { received, .. }, CREDIT_REQUEST) => {
                let told = *received;
                assert_eq!(self.guest.expect(CREDIT_UPDATE).fwd_cnt, told);
                false
            }
            _ => true,
        };
        if violation {
            self.guest.expect(RST);
            self.over();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_connection_is_what_its_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Guest { op, flags, len } => world.sends(op, flags, len),
                Step::Writes(count) => world.writes(count),
                Step::EndsWriting => world.ends_writing(),
                Step::Leaves => world.leaves(),
                Step::Asks => world.asks(),
            }
            // It says nothing else.
            world.guest.expect_silence();
        }
    }
}
