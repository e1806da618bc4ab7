//! A guest's side: packets as a driver sends and gets them.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vmm_virtio::testing::{Driver, wait};
use vmm_vsock::{Control, Vsock};

pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RST: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const RW: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;

pub const EVENT_IDX: u64 = 1 << 29;

/// What Linux gives a connection.
pub const BUFFER: u32 = 256 << 10;

/// Where buffers are that the driver itself does not use.
const BUFFERS: u64 = 4 << 20;

/// The service of most tests, and the guest's port.
pub const HOST: u32 = 1024;
pub const GUEST: u32 = 5000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Packet {
    pub fn new(src_port: u32, dst_port: u32, op: u16) -> Self {
        Self {
            src_cid: 3,
            dst_cid: 2,
            src_port,
            dst_port,
            len: 0,
            kind: 1,
            op,
            flags: 0,
            buf_alloc: BUFFER,
            fwd_cnt: 0,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let four = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
        Self {
            src_cid: eight(0),
            dst_cid: eight(8),
            src_port: four(16),
            dst_port: four(20),
            len: four(24),
            kind: four(28) as u16,
            op: (four(28) >> 16) as u16,
            flags: four(32),
            buf_alloc: four(36),
            fwd_cnt: four(40),
        }
    }
}

pub struct Guest {
    pub driver: Driver,
    pub control: Control,
    sending: usize,
    posted: u32,
}

impl Guest {
    /// A guest with buffers for packets and events.
    pub fn new(services: Vec<(u32, OwnedFd)>, listener: Option<OwnedFd>) -> Self {
        let mut guest = Self::bare(services, listener);
        guest.stock();
        guest
    }

    /// A guest without buffers.
    pub fn bare(services: Vec<(u32, OwnedFd)>, listener: Option<OwnedFd>) -> Self {
        Self::before(Vsock::new(services, listener).expect("a device"))
    }

    /// A guest with buffers, before this device.
    pub fn with(device: Vsock) -> Self {
        let mut guest = Self::before(device);
        guest.stock();
        guest
    }

    fn before(device: Vsock) -> Self {
        let control = device.control();
        Self {
            driver: Driver::start(Box::new(device), EVENT_IDX),
            control,
            sending: 0,
            posted: 0,
        }
    }

    /// A guest with one service, and the host's end of that.
    pub fn with_service() -> (Self, UnixStream) {
        let (near, far) = pair();
        (Self::new(vec![(HOST, far)], None), near)
    }

    /// The same, with the guest connected to it.
    pub fn connected() -> (Self, UnixStream) {
        let (mut guest, near) = Self::with_service();
        guest.send(&Packet::new(GUEST, HOST, REQUEST));
        guest.expect(RESPONSE);
        (guest, near)
    }

    pub fn stock(&mut self) {
        for _ in 0..128 {
            self.post();
        }
        self.driver.kick(0);
    }

    /// A buffer for a packet, in a place of its own: the driver's room comes round while it waits.
    fn post(&mut self) {
        let place = BUFFERS + u64::from(self.posted % 128) * 4096;
        self.posted += 1;
        self.driver.add_at(0, &[(place, 4096, true)]);
    }

    /// A reset and a new start.
    pub fn restart(&mut self) {
        self.driver.negotiate(0);
        self.driver.set_up(1024);
        self.driver.write(0x70, 15);
        self.sending = 0;
        self.stock();
    }

    pub fn send(&mut self, packet: &Packet) {
        self.send_pieces(&[&packet.bytes()]);
    }

    /// Bytes of a stream.
    pub fn write(&mut self, packet: Packet, bytes: &[u8]) {
        let packet = Packet {
            len: bytes.len() as u32,
            op: RW,
            ..packet
        };
        // As Linux does: pages of their own behind the header.
        let header = packet.bytes();
        let mut pieces = vec![&header[..]];
        pieces.extend(bytes.chunks(4096));
        self.send_pieces(&pieces);
    }

    pub fn send_pieces(&mut self, pieces: &[&[u8]]) {
        // A queue of 128 holds three packets of the largest size.
        while self.sending >= 4 {
            self.driver.expect_used(1);
            self.sending -= 1;
        }
        self.driver.add(1, pieces, &[]);
        self.sending += 1;
        self.driver.kick(1);
        while self.driver.used(1).is_some() {
            self.sending -= 1;
        }
    }

    /// Waits until the device has taken all that was sent.
    pub fn sent(&mut self) {
        while self.sending > 0 {
            self.driver.expect_used(1);
            self.sending -= 1;
        }
    }

    /// The next packet, if there is one, and a new buffer for another.
    pub fn receive(&mut self) -> Option<(Packet, Vec<u8>)> {
        let (_, length, mut contents) = self.driver.used(0)?;
        self.post();
        self.driver.kick(0);
        contents.truncate(length as usize);
        let packet = Packet::parse(&contents);
        assert_eq!(contents.len(), 44 + packet.len as usize, "{packet:?}");
        contents.drain(..44);
        Some((packet, contents))
    }

    pub fn next(&mut self) -> (Packet, Vec<u8>) {
        wait("a packet", || self.receive())
    }

    /// The next packet, which is for this.
    pub fn expect(&mut self, op: u16) -> Packet {
        let (packet, _) = self.next();
        assert_eq!(packet.op, op, "{packet:?}");
        assert_eq!((packet.src_cid, packet.dst_cid), (2, 3));
        packet
    }

    /// A reset, behind what the device tells of credit.
    pub fn expect_end(&mut self) {
        loop {
            let (packet, _) = self.next();
            match packet.op {
                RST => return,
                CREDIT_UPDATE => {}
                _ => panic!("{packet:?}"),
            }
        }
    }

    /// The device has nothing to say: it answers a refusal first that was asked for last.
    pub fn expect_silence(&mut self) {
        let probe = Packet::new(77, 77, CREDIT_REQUEST);
        self.send(&probe);
        let refusal = self.expect(RST);
        assert_eq!((refusal.src_port, refusal.dst_port), (77, 77));
    }
}

/// Both ends of a service.
pub fn pair() -> (UnixStream, OwnedFd) {
    let (near, far) = UnixStream::pair().expect("a pair");
    (near, far.into())
}

/// Reads to the end.
pub fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("reads");
    bytes
}

/// Reads so many bytes.
pub fn exactly(mut stream: &UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("reads");
    bytes
}
