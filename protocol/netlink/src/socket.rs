//! The socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::retry_on_intr;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

use crate::message::{Message, Received, parse};

/// The kernel sends dumps in pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;

const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// A dump during which what is dumped has changed.
const INTERRUPTED: u16 = 0x10;
/// How often a dump is begun again for that reason.
const DUMPS: usize = 16;

/// Asks the kernel. It belongs to the network namespace of the thread that opened it, and works from any; one request
/// at a time, or each would take the other's answers.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            fd: open(0, SocketFlags::CLOEXEC)?,
            sequence: 0,
        })
    }

    /// Has the kernel do something.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn request(&mut self, message: Message) -> io::Result<()> {
        let sequence = self.send(message, ACK)?;
        loop {
            for answer in self.receive(sequence)? {
                if answer.kind == ERROR {
                    return outcome(&answer);
                }
            }
        }
    }

    /// Reads a whole table.
    ///
    /// # Errors
    /// The kernel's refusal, or a table that never holds still.
    pub fn dump(&mut self, message: &Message) -> io::Result<Vec<Received>> {
        for _ in 0..DUMPS {
            if let Some(complete) = self.dump_once(message.clone())? {
                return Ok(complete);
            }
        }
        Err(io::Error::other("a table changes faster than it is read"))
    }

    fn dump_once(&mut self, message: Message) -> io::Result<Option<Vec<Received>>> {
        let sequence = self.send(message, DUMP)?;
        let mut all = Vec::new();
        let mut interrupted = false;
        loop {
            for answer in self.receive(sequence)? {
                interrupted |= answer.flags & INTERRUPTED != 0;
                match answer.kind {
                    ERROR => {
                        outcome(&answer)?;
                        return Ok(Some(all));
                    }
                    DONE => return Ok((!interrupted).then_some(all)),
                    NOOP | OVERRUN => {}
                    _ => all.push(answer),
                }
            }
        }
    }

    fn send(&mut self, message: Message, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let bytes = message.finish(sequence, flags);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, &bytes, SendFlags::empty(), &kernel)?;
        Ok(sequence)
    }

    /// Answers to one request; those to an earlier one, which was given up, are skipped.
    fn receive(&mut self, sequence: u32) -> io::Result<Vec<Received>> {
        let mut answers = datagram(&self.fd)?;
        answers.retain(|answer| answer.sequence == sequence);
        Ok(answers)
    }
}

/// Hears of changes in a network namespace.
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
}

impl Events {
    /// Listens to these groups (`RTMGRP_…`) in the calling thread's network namespace. The socket does not block.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn open(groups: u32) -> io::Result<Self> {
        Ok(Self {
            fd: open(groups, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?,
        })
    }

    /// Forgets all that has been heard so far: who asks afterwards sees at least that. Whether there was anything.
    ///
    /// # Errors
    /// When the socket is broken; not when it has missed something, which counts as heard.
    pub fn drain(&self) -> io::Result<bool> {
        let mut heard = false;
        loop {
            match datagram(&self.fd) {
                Ok(_) => heard = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    heard = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn open(groups: u32, flags: SocketFlags) -> io::Result<OwnedFd> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&fd, &SocketAddrNetlink::new(0, groups))?;
    Ok(fd)
}

fn datagram(fd: &OwnedFd) -> io::Result<Vec<Received>> {
    let mut buffer = vec![0; BUFFER];
    let (length, real) = retry_on_intr(|| recv(fd, &mut buffer[..], RecvFlags::TRUNC))?;
    if real > length {
        return Err(io::Error::other("the kernel's answer is longer than any"));
    }
    Ok(parse(&buffer[..length]))
}

/// `struct nlmsgerr` begins with a negative error number, or 0 for success.
fn outcome(answer: &Received) -> io::Result<()> {
    let code = answer
        .payload
        .first_chunk()
        .map(|code| i32::from_ne_bytes(*code));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
