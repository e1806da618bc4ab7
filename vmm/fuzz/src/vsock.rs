//! Sockets between the guest and programs of the host.

#[path = "../../vsock/tests/vsock/guest.rs"]
#[allow(
    dead_code,
    reason = "the tests' guest has a thread that serves its device"
)]
mod guest;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};

use guest::{CREDIT_REQUEST, Packet};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vmm_control::{Call, Called, Handle, receive, send};
use vmm_virtio::testing::Driver;
use vmm_vsock::{Control, Vsock};

use crate::input::Input;
use crate::script::{self, Subject};

/// The queues' numbers.
const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;

/// The host's ports that stand for something.
const SERVICES: u32 = 3;

/// The most programs of the host at a time.
const PROGRAMS: usize = 8;

/// The first port that a program of the host gets.
const FIRST: u32 = 1 << 30;

struct Host {
    door: SocketAddr,
    programs: Vec<UnixStream>,
    /// Where the guest's calls arrive.
    operator: OwnedFd,
    control: Control,
}

impl Subject for Host {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        let choice = input.byte();
        match choice & 15 {
            0 | 1 => {
                let place = usize::from(choice >> 4) % PROGRAMS;
                self.program(place, input);
            }
            2 => self.call(b"CONNECT 5000\n"),
            3 => {
                let words = input.byte();
                self.call(input.bytes(usize::from(words)));
            }
            4 => self.control.transport_reset(),
            5 => {
                let length = u32::from(input.byte()) << (choice >> 4);
                driver.add(TO_GUEST, &[], &[44 + length]);
                driver.kick(TO_GUEST);
            }
            6 => {
                for _ in 0..8 {
                    driver.add(TO_GUEST, &[], &[4096]);
                }
                driver.kick(TO_GUEST);
            }
            7 => script::serve(driver),
            8 => self.answer(input),
            _ => {
                let packet = packet(input);
                let length = packet.len.min(u32::from(u16::MAX)) as usize;
                driver.add(FROM_GUEST, &[&packet.bytes(), &vec![5; length]], &[]);
                driver.kick(FROM_GUEST);
                if choice & 0x80 == 0 {
                    script::serve(driver);
                }
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        for _ in 0..32 {
            driver.add(TO_GUEST, &[], &[4096]);
        }
        driver.kick(TO_GUEST);
        let probe = Packet::new(77, 77, CREDIT_REQUEST);
        driver.add(FROM_GUEST, &[&probe.bytes()], &[]);
        driver.kick(FROM_GUEST);
        loop {
            let (_, length, mut contents) = driver.expect_used(TO_GUEST);
            contents.truncate(length as usize);
            let packet = Packet::parse(&contents);
            assert_eq!(contents.len(), 44 + packet.len as usize, "{packet:?}");
            if packet.dst_port == 77 {
                assert_eq!(packet.op, guest::RST);
                return;
            }
        }
    }
}

impl Host {
    /// Another program connects.
    fn call(&mut self, words: &[u8]) {
        if self.programs.len() >= PROGRAMS {
            return;
        }
        let stream = UnixStream::connect_addr(&self.door).expect("connects");
        stream.set_nonblocking(true).expect("a socket");
        let _ = (&stream).write(words);
        self.programs.push(stream);
    }

    /// The machine's driver answers the next call, or one that nobody has made.
    fn answer(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let call = receive::<Call>(&self.operator).ok().flatten();
        let ticket = match call {
            Some(call) if choice & 1 == 0 => call.message.ticket,
            Some(_) | None => u32::from(input.byte()),
        };
        let mut stream = None;
        if choice & 2 != 0 && self.programs.len() < PROGRAMS {
            let (near, far) = guest::pair();
            near.set_nonblocking(true).expect("a socket");
            rustix::io::ioctl_fionbio(&far, true).expect("a socket");
            self.programs.push(near);
            stream = Some(far);
        }
        let called = Called {
            ticket,
            stream: stream.as_ref().map(|_| Handle(u16::from(choice >> 7))),
        };
        let with: Vec<_> = stream.iter().map(AsFd::as_fd).collect();
        // The device may have hung up, and may not have read for long.
        let _ = send(&self.operator, &called, &with);
    }

    /// One does something.
    fn program(&mut self, place: usize, input: &mut Input<'_>) {
        let Some(mut program) = self.programs.get(place) else {
            return;
        };
        // Any of these may fail, as the other end may be gone or full.
        match input.byte() & 7 {
            0..=2 => drop(program.write(&vec![3; usize::from(input.short())])),
            3 | 4 => drop(program.read(&mut vec![0; usize::from(input.short())])),
            5 => drop(program.shutdown(Shutdown::Write)),
            6 => drop(program.shutdown(Shutdown::Read)),
            _ => drop(self.programs.swap_remove(place)),
        }
    }
}

/// A packet that is nearly right.
fn packet(input: &mut Input<'_>) -> Packet {
    let choice = input.byte();
    let src_port = if choice & 1 == 0 {
        5000
    } else {
        u32::from(input.byte())
    };
    let dst_port = match choice >> 1 & 3 {
        0 | 1 => u32::from(input.byte()) % (SERVICES + 2),
        2 => FIRST + u32::from(input.byte() & 7),
        _ => input.word(),
    };
    let mut packet = Packet::new(src_port, dst_port, u16::from(input.byte()) % 9);
    packet.flags = u32::from(input.byte() & 3);
    if choice & 8 != 0 {
        packet.len = input.length();
    }
    if choice & 16 != 0 {
        packet.buf_alloc = input.length();
        packet.fwd_cnt = input.length();
    }
    if choice & 0xe0 == 0xe0 {
        packet.src_cid = input.long();
        packet.dst_cid = input.long();
        packet.kind = input.short();
    }
    packet
}

/// Plays a script.
pub fn run(data: &[u8]) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("cofferdam-fuzz-{}-{number}", std::process::id());
    let door = SocketAddr::from_abstract_name(name).expect("a name");
    let listener = UnixListener::bind_addr(&door).expect("a socket");
    let (mut programs, mut services) = (Vec::new(), Vec::new());
    for port in 0..SERVICES {
        let (near, far) = guest::pair();
        near.set_nonblocking(true).expect("a socket");
        programs.push(near);
        services.push((port, far));
    }
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (operator, calls) = socketpair(AddressFamily::UNIX, kind, flags, None).expect("a pair");
    let device = Vsock::new(services, Some(listener.into()));
    let device = device.and_then(|device| device.with_calls(calls));
    let device = device.expect("a device");
    let control = device.control();
    let mut host = Host {
        door,
        programs,
        operator,
        control,
    };
    script::run(Box::new(device), &mut host, &mut Input::new(data));
}
