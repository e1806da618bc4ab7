//! The front end of a file share, between a driver and a server of which neither means well.
//!
//! What the server says is in its socket before it is asked: so one thread is enough.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmm_fs::{Fs, Handle, Server, Setup};
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

/// How long the share waits for its server: hardly, as what is not there will not come.
const PATIENCE: Duration = Duration::from_millis(1);

/// Requests of vhost-user that are answered, in the order in which a share is connected, and what a good server says.
const BEGINNING: [(u32, u64); 5] = [
    // GET_FEATURES, with the protocol's own.
    (1, 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32),
    // GET_PROTOCOL_FEATURES: several queues, answers, a reset.
    (15, 1 | 1 << 3 | 1 << 13),
    // GET_QUEUE_NUM
    (17, 2),
    // SET_OWNER
    (3, 0),
    // SET_MEM_TABLE
    (5, 0),
];

/// Those of a start: SET_FEATURES, and for each of two queues its size, base, addresses, call, kick and SET_VRING_ENABLE.
const START: [u32; 13] = [2, 8, 10, 9, 13, 12, 18, 8, 10, 9, 13, 12, 18];

/// Those of a reset: SET_VRING_ENABLE, GET_VRING_BASE and SET_VRING_BASE for each queue, and RESET_DEVICE.
const STOP: [u32; 7] = [18, 11, 10, 18, 11, 10, 34];

struct Peer {
    socket: UnixStream,
    handle: Option<Handle>,
}

impl Peer {
    fn say(&mut self, bytes: &[u8]) {
        // It may be full or closed.
        let _ = (&self.socket).write(bytes);
    }

    fn answer(&mut self, request: u32, value: u64) {
        let head = [request, 5, 8].map(u32::to_ne_bytes).concat();
        self.say(&[head, value.to_ne_bytes().to_vec()].concat());
    }

    fn act(&mut self, input: &mut Input<'_>) {
        match input.byte() & 15 {
            0..=3 => START
                .into_iter()
                .for_each(|request| self.answer(request, 0)),
            4..=6 => STOP.into_iter().for_each(|request| self.answer(request, 0)),
            7 => {
                let (request, value) = (input.byte(), input.long());
                self.answer(u32::from(request), value);
            }
            8 | 9 => {
                let request = input.below(START.len());
                self.answer(START[request], u64::from(input.byte()));
            }
            10 => {
                let words = [input.word(), input.word(), input.word()];
                let value = input.long().to_ne_bytes().to_vec();
                let head = words.map(u32::to_ne_bytes).concat();
                self.say(&[head, value].concat());
            }
            11 => {
                let length = input.below(64);
                self.say(input.bytes(length));
            }
            12 => {
                let _ = self.socket.shutdown(Shutdown::Write);
            }
            // Messages that nobody reads fill the socket.
            _ => while matches!((&self.socket).read(&mut [0; 4096]), Ok(1..)) {},
        }
    }
}

impl Subject for Peer {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        Peer::act(self, input);
        script::serve(driver);
    }

    /// A server that broke its word is gone for good, and the driver is told. Nothing else is to be seen from here.
    fn works(&mut self, driver: &mut Driver) {
        script::serve(driver);
        let server = self.handle.as_ref().map(Handle::server);
        let gone = matches!(server, Some(Server::Gone(_)));
        assert_eq!(driver.needs_reset(), gone, "{server:?}");
    }
}

/// Connects a share, and plays a script with it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (socket, its) = UnixStream::pair().expect("sockets");
    socket.set_nonblocking(true).expect("a socket");
    let mut peer = Peer {
        socket,
        handle: None,
    };
    for (request, value) in BEGINNING {
        match input.byte() {
            0..=239 => peer.answer(request, value),
            240..=247 => peer.answer(request, input.long()),
            _ => peer.act(&mut input),
        }
    }
    let setup = Setup {
        patience: PATIENCE,
        ..Setup::new("tag")
    };
    let memory = Driver::shared_memory();
    let Ok(device) = Fs::connect(&setup, its.into(), &memory) else {
        return;
    };
    peer.handle = Some(device.handle());
    script::run_in(Box::new(device), memory, &mut peer, &mut input);
}
