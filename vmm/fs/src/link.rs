//! The vhost-user socket: messages out, answers in, in order and never blocking but in [`Link::settle`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Header flags: version 1, "this is an answer", "an answer is wanted" (vhost-user, "Header").
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const ANSWER: u32 = 1 << 2;
const WANTED: u32 = 1 << 3;

const HEADER: usize = 12;

/// Every answer that is ever asked for has a body of 8 bytes.
const BODY: usize = 8;

/// Why the conversation with the server is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub enum Fault {
    /// The socket has ended.
    HungUp,
    /// Something came that was not asked for, or not in the form it must have.
    Garbled,
    /// The server has said no.
    Refused(&'static str),
    /// It took longer than it may.
    Silent,
    /// The requests of a driver that is gone took longer than they may.
    Unfinished,
    /// The operating system refused.
    System,
}

impl Fault {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::HungUp => "the file server has hung up",
            Self::Garbled => "the file server does not keep to the protocol",
            Self::Refused(what) => what,
            Self::Silent => "the file server did not answer in time",
            Self::Unfinished => "the file server did not finish a driver's requests in time",
            Self::System => "the file server's socket can't be used",
        }
    }
}

/// What is done with an answer.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// It says whether the request was carried out; if it was not, this is said.
    Done(&'static str),
    /// It is a value.
    Value,
}

/// An answer that was expected.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// The request was carried out.
    Done,
    Value(u64),
}

/// The socket, and which answers have not come yet.
#[derive(Debug)]
pub(crate) struct Link {
    socket: UnixStream,
    expected: VecDeque<(u32, Expected)>,
    answer: [u8; HEADER + BODY],
    filled: usize,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            expected: VecDeque::new(),
            answer: [0; HEADER + BODY],
            filled: 0,
        })
    }

    /// Sends a request that has no answer.
    pub(crate) fn tell(&mut self, request: FrontendReq, body: &[u8]) -> Result<(), Fault> {
        self.send(request, VERSION, body, &[])
    }

    /// Sends a request whose answer is a value: the server always gives it.
    pub(crate) fn ask(&mut self, request: FrontendReq, body: &[u8]) -> Result<(), Fault> {
        self.send(request, VERSION, body, &[])?;
        self.expected.push_back((request as u32, Expected::Value));
        Ok(())
    }

    /// Sends a request, and wants to be told that it was carried out. `refused` is what is said if it was not.
    pub(crate) fn order(
        &mut self,
        request: FrontendReq,
        body: &[u8],
        descriptors: &[RawFd],
        refused: &'static str,
    ) -> Result<(), Fault> {
        self.send(request, VERSION | WANTED, body, descriptors)?;
        let expected = Expected::Done(refused);
        self.expected.push_back((request as u32, expected));
        Ok(())
    }

    fn send(
        &mut self,
        request: FrontendReq,
        flags: u32,
        body: &[u8],
        descriptors: &[RawFd],
    ) -> Result<(), Fault> {
        let length = u32::try_from(body.len()).map_err(|_| Fault::System)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        for word in [request as u32, flags, length] {
            message.extend(word.to_ne_bytes());
        }
        message.extend(body);
        loop {
            match self.socket.send_with_fds(&[&message[..]], descriptors) {
                Ok(sent) if sent == message.len() => return Ok(()),
                // All messages together are shorter than the socket's room: nobody reads them.
                Ok(_) => return Err(Fault::Silent),
                Err(error) => match io::Error::from_raw_os_error(error.errno()).kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Err(Fault::Silent),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                        return Err(Fault::HungUp);
                    }
                    _ => return Err(Fault::System),
                },
            }
        }
    }

    /// Takes the next answer if it is there. Never waits.
    pub(crate) fn next(&mut self) -> Result<Option<Answer>, Fault> {
        while self.filled < self.answer.len() {
            match self.socket.read(&mut self.answer[self.filled..]) {
                Ok(0) => return Err(Fault::HungUp),
                Ok(count) => self.filled += count,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(None),
                    ErrorKind::ConnectionReset => return Err(Fault::HungUp),
                    _ => return Err(Fault::System),
                },
            }
        }
        self.filled = 0;
        let [request, flags, length] =
            [0, 4, 8].map(|at| u32::from_ne_bytes(bytes(&self.answer, at)));
        let value = u64::from_ne_bytes(bytes(&self.answer, HEADER));
        let Some((asked, expected)) = self.expected.pop_front() else {
            return Err(Fault::Garbled);
        };
        if request != asked
            || flags & (VERSION_MASK | ANSWER) != VERSION | ANSWER
            || length as usize != BODY
        {
            return Err(Fault::Garbled);
        }
        match expected {
            Expected::Done(refused) if value != 0 => Err(Fault::Refused(refused)),
            Expected::Done(_) => Ok(Some(Answer::Done)),
            Expected::Value => Ok(Some(Answer::Value(value))),
        }
    }

    /// Whether every answer has come.
    pub(crate) fn settled(&self) -> bool {
        self.expected.is_empty()
    }

    /// Waits until every answer has come, and answers those that are values.
    pub(crate) fn settle(&mut self, deadline: Instant) -> Result<Vec<u64>, Fault> {
        let mut values = Vec::new();
        while !self.settled() {
            match self.next()? {
                Some(Answer::Value(value)) => values.push(value),
                Some(Answer::Done) => {}
                None => self.wait(deadline)?,
            }
        }
        Ok(values)
    }

    fn wait(&self, deadline: Instant) -> Result<(), Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Silent);
        }
        let left = Timespec::try_from(left).map_err(|_| Fault::System)?;
        let mut waiting = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut waiting, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(_) => Err(Fault::System),
        }
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The server is to notice even if somebody else has a copy of the socket. A dead one does not mind.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// `N` bytes of an answer.
fn bytes<const N: usize>(answer: &[u8; HEADER + BODY], at: usize) -> [u8; N] {
    std::array::from_fn(|index| answer[at + index])
}
