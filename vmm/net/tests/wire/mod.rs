//! The other side of a card: a tap in a network namespace of its own, and a socket that sends and sees whole frames.
#![expect(unsafe_code, reason = "namespaces, taps and packet sockets by libc")]
#![allow(dead_code, reason = "each test has a part of it")]
// UNSAFETY: system calls with pointers to values on the stack that outlive them, and descriptors that were just made.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use vmm_virtio::testing::Driver;

pub const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;

/// The length of virtio's header.
pub const HEADER: usize = 12;

/// virtio's header without the number of buffers, as packet sockets have it.
pub const SHORT_HEADER: usize = 10;

pub struct Wire {
    /// Frames as the host sends and sees them, each behind a header.
    socket: File,
    netlink: File,
    index: c_int,
    name: [libc::c_char; libc::IFNAMSIZ],
}

fn checked(result: c_int) -> c_int {
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}

fn ifreq(name: [libc::c_char; libc::IFNAMSIZ]) -> libc::ifreq {
    // SAFETY: plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name = name;
    request
}

impl Wire {
    /// A tap that is up, with so many queues, in a new namespace that nobody else is in; none without the right to.
    pub fn new(queues: usize) -> Option<(Self, Vec<OwnedFd>)> {
        std::thread::spawn(move || Self::build(queues))
            .join()
            .expect("a wire")
    }

    fn build(queues: usize) -> Option<(Self, Vec<OwnedFd>)> {
        // SAFETY: no pointers; this thread ends soon.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            eprintln!(
                "SKIPPED: no network namespace: {}",
                io::Error::last_os_error()
            );
            return None;
        }
        // Nothing but what the tests send; without IPv6 there is nothing to switch off.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(b"wire0") {
            *to = *from as libc::c_char;
        }
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if queues > 1 {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let taps = (0..queues).map(|_| tap(name, flags)).collect();
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers.
        let socket = checked(unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                c_int::from(protocol),
            )
        });
        // SAFETY: no pointers.
        let netlink = checked(unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
        });
        // SAFETY: made above, and nobody else's.
        let (socket, netlink) = unsafe { (File::from_raw_fd(socket), File::from_raw_fd(netlink)) };
        let mut wire = Self {
            socket,
            netlink,
            index: 0,
            name,
        };
        let mut request = ifreq(name);
        wire.control(libc::SIOCGIFINDEX, &mut request);
        // SAFETY: the kernel has written it.
        wire.index = unsafe { request.ifr_ifru.ifru_ifindex };
        // Before the socket is bound: else it would tell that the interface was off.
        wire.switch(true);
        // SAFETY: plain data.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = wire.index;
        // SAFETY: the address lives on.
        checked(unsafe {
            libc::bind(
                wire.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        });
        wire.option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1);
        wire.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20);
        wire.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20);
        Some((wire, taps))
    }

    fn option(&self, level: c_int, option: c_int, value: c_int) {
        // SAFETY: the value lives on.
        checked(unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<c_int>() as u32,
            )
        });
    }

    fn control(&self, request: libc::Ioctl, argument: &mut libc::ifreq) {
        // SAFETY: all requests here take an `ifreq`.
        checked(unsafe { libc::ioctl(self.socket.as_raw_fd(), request, argument) });
    }

    fn flags(&self) -> c_int {
        let mut request = ifreq(self.name);
        self.control(libc::SIOCGIFFLAGS, &mut request);
        // SAFETY: the kernel has written it.
        c_int::from(unsafe { request.ifr_ifru.ifru_flags })
    }

    /// Switches the interface on or off.
    pub fn switch(&self, on: bool) {
        let mut request = ifreq(self.name);
        let flags = if on {
            self.flags() | libc::IFF_UP
        } else {
            self.flags() & !libc::IFF_UP
        };
        request.ifr_ifru.ifru_flags = flags as i16;
        self.control(libc::SIOCSIFFLAGS, &mut request);
    }

    /// Whether something is plugged in.
    pub fn has_carrier(&self) -> bool {
        self.flags() & libc::IFF_RUNNING != 0
    }

    /// Removes the interface while its descriptors are open.
    pub fn remove(&mut self) {
        let mut message = Vec::new();
        message.extend(32_u32.to_ne_bytes());
        message.extend(libc::RTM_DELLINK.to_ne_bytes());
        message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
        message.extend([0; 12]);
        message.extend(self.index.to_ne_bytes());
        message.extend([0; 8]);
        self.netlink.write_all(&message).expect("netlink");
        let mut answer = [0; 256];
        let length = self.netlink.read(&mut answer).expect("netlink");
        assert!(
            length >= 20 && answer[16..20] == [0; 4],
            "{:?}",
            &answer[..length]
        );
    }

    /// Sends a frame behind a header of `SHORT_HEADER` bytes.
    pub fn send_with(&self, header: &[u8; SHORT_HEADER], frame: &[u8]) -> io::Result<()> {
        let bytes = [header, frame].concat();
        (&self.socket).write_all(&bytes)
    }

    /// Sends a plain frame.
    pub fn send(&self, frame: &[u8]) {
        self.send_with(&[0; SHORT_HEADER], frame).expect("sends");
    }

    /// A frame that the guest has sent, and its header, if there is one.
    pub fn try_receive(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut bytes = vec![0; 1 << 17];
        match (&self.socket).read(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                let frame = bytes.split_off(SHORT_HEADER);
                Some((bytes, frame))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // One that the tap took, but whose header can't be told to a socket.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Some(Default::default()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for one.
    pub fn receive(&self) -> (Vec<u8>, Vec<u8>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(received) = self.try_receive() {
                return received;
            }
            assert!(Instant::now() < deadline, "no frame came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn tap(name: [libc::c_char; libc::IFNAMSIZ], flags: c_int) -> OwnedFd {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("/dev/net/tun");
    let mut request = ifreq(name);
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: it takes an `ifreq`.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) });
    file.into()
}

/// A frame with a protocol that nobody knows.
pub fn frame(to: [u8; 6], from: [u8; 6], contents: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], contents].concat()
}

/// Bytes that are all different enough to see what has moved.
pub fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// The internet's checksum of some bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 frame with TCP (6) or UDP (17), whose checksum is left to others: the sum of the pseudo header stands there.
pub fn internet(to: [u8; 6], from: [u8; 6], protocol: u8, ports: [u16; 2], data: &[u8]) -> Vec<u8> {
    let header = if protocol == 6 { 20 } else { 8 };
    let length = (header + data.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, protocol]);
    pseudo.extend(length.to_be_bytes());
    let partial = (!checksum(&pseudo)).to_be_bytes();
    let mut transport = Vec::new();
    for port in ports {
        transport.extend(port.to_be_bytes());
    }
    if protocol == 6 {
        transport.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff]);
        transport.extend(partial);
        transport.extend([0, 0]);
    } else {
        transport.extend(length.to_be_bytes());
        transport.extend(partial);
    }
    [&to[..], &from, &[8, 0], &ip, &transport, data].concat()
}

/// Whether the checksum of an IPv4 frame's TCP or UDP is right.
pub fn is_whole(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let transport = &ip[20..length];
    let mut bytes = ip[12..20].to_vec();
    bytes.extend([0, ip[9]]);
    bytes.extend((transport.len() as u16).to_be_bytes());
    bytes.extend(transport);
    checksum(&bytes) == 0
}

/// Resets the card and starts it.
pub fn start(driver: &mut Driver, features: u64) {
    driver.negotiate(features);
    driver.set_up(256);
    driver.write(0x70, 15);
}

/// Resets the card, and sees that frames pass both ways; whatever else is still under way is passed over.
pub fn works(wire: &Wire, driver: &mut Driver, features: u64) {
    start(driver, features);
    let out = frame(
        HOST,
        GUEST,
        b"out, and after all that was before it it still is the same",
    );
    let into = frame(
        GUEST,
        HOST,
        b"into, and after all that was before it it still is the same",
    );
    driver.request(TRANSMIT, &[&[0; HEADER], &out], &[]);
    while wire.receive().1 != out {}
    wire.send(&into);
    for _ in 0..200 {
        driver.add(RECEIVE, &[], &[2048]);
    }
    driver.kick(RECEIVE);
    loop {
        let (_, length, bytes) = driver.expect_used(RECEIVE);
        if bytes[HEADER.min(length as usize)..length as usize] == into {
            break;
        }
    }
}
