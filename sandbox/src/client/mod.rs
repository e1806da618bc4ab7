//! A container as commands see it: its record, and its driver while that lives.

mod delete;
mod join;
mod launch;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Process as ProcessSpec;

pub use delete::{delete, delete_with};
pub use launch::{NewContainer, Undecided, launch};

use crate::control::{
    Channel, ChannelError, Failure, FailureKind, HostStdio, ProcessEvent, Reply, Request, SOCKET,
};
use crate::error::SandboxError;
use crate::id::ContainerId;
use crate::sandbox::WrongState;
use crate::state::{ProcessIdentity, Record, Status, Store};

/// A driver answers anything but long work at once; it may be starved on a loaded machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(150);
/// How long a driver may take to clear up behind its container.
const CLEARING_DEADLINE: Duration = Duration::from_secs(45);

/// One container.
#[derive(Debug)]
pub struct Client {
    store: Store,
    record: Record,
}

impl Client {
    /// Finds a container.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(store: &Store, id: &ContainerId) -> Result<Self, SandboxError> {
        Ok(Self {
            store: store.clone(),
            record: store.load(id)?,
        })
    }

    /// What is written down of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The state it is in now. A container whose driver was killed has stopped.
    ///
    /// # Errors
    /// When its driver lives and gives no answer.
    pub fn status(&mut self) -> Result<Status, SandboxError> {
        if self.record.exit.is_some() {
            return Ok(Status::Stopped);
        }
        let Some(driver) = self.record.driver else {
            return Ok(if self.record.creator.is_alive() {
                Status::Creating
            } else {
                Status::Stopped
            });
        };
        if !driver.is_alive() {
            return Ok(Status::Stopped);
        }
        match self.ask(&Request::Status, &[]) {
            Ok(Reply::Status(status)) => Ok(status),
            Ok(other) => Err(unexpected("asking for the state", &other)),
            Err(ChannelError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // Without the command that creates it a driver undoes what it has made: nobody will start it.
                let creator = self.record.creator.is_alive();
                Ok(if creator {
                    Status::Creating
                } else {
                    Status::Stopped
                })
            }
            // Its container has ended, and it is clearing up; it may have others.
            Err(ChannelError::Closed | ChannelError::Io { .. })
                if self.has_ended() || driver.wait(CLEARING_DEADLINE) =>
            {
                Ok(Status::Stopped)
            }
            Err(source) => Err(SandboxError::Channel {
                phase: "asking for the state",
                source,
            }),
        }
    }

    /// Whether its end has been written down meanwhile.
    fn has_ended(&mut self) -> bool {
        if let Ok(record) = self.store.load(&self.record.id) {
            self.record = record;
        }
        self.record.exit.is_some()
    }

    /// Has its driver do something.
    ///
    /// # Errors
    /// What the driver answers; [`SandboxError::Wrong`] when the container has stopped.
    pub fn request(
        &mut self,
        phase: &'static str,
        request: &Request,
    ) -> Result<Reply, SandboxError> {
        let answer = self.ask(request, &[]);
        match answer {
            Ok(Reply::Failed(failure)) => Err(SandboxError::Process(failure)),
            Ok(reply) => Ok(reply),
            Err(source) => Err(self.unreachable(phase, source)),
        }
    }

    /// Has its driver run one more process; the channel is that process's from then on.
    ///
    /// # Errors
    /// [`SandboxError::Process`] when it did not start.
    pub fn exec(
        &mut self,
        process: &ProcessSpec,
        stdio: &HostStdio,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Channel, SandboxError> {
        const PHASE: &str = "executing in the container";
        let request = Request::Exec {
            process: Box::new(process.clone()),
            stdio: stdio.clone(),
        };
        let told = self.send(&request, descriptors).and_then(|mut channel| {
            let event = channel.receive::<ProcessEvent>()?.0;
            Ok((channel, event))
        });
        match told {
            Ok((channel, ProcessEvent::Started)) => {
                channel
                    .socket()
                    .set_read_timeout(None)
                    .map_err(SandboxError::system("watch the process"))?;
                Ok(channel)
            }
            Ok((_, ProcessEvent::Failed(failure))) => Err(SandboxError::Process(failure)),
            Ok((_, other)) => Err(unexpected(PHASE, &other)),
            Err(source) => Err(self.unreachable(PHASE, source)),
        }
    }

    /// A driver that cannot be reached: most likely its container has stopped.
    fn unreachable(&mut self, phase: &'static str, source: ChannelError) -> SandboxError {
        if let Ok(record) = self.store.load(&self.record.id) {
            self.record = record;
        }
        match self.status() {
            Ok(status @ (Status::Stopped | Status::Creating)) => {
                // In runc's words, which engines look for.
                let message = match status {
                    Status::Stopped => "container not running".to_owned(),
                    _ => WrongState {
                        action: phase,
                        status,
                    }
                    .to_string(),
                };
                SandboxError::Process(Failure {
                    kind: FailureKind::State,
                    message,
                })
            }
            _ => SandboxError::Channel { phase, source },
        }
    }

    fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, ChannelError> {
        Ok(self.send(request, descriptors)?.receive()?.0)
    }

    fn send(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Channel, ChannelError> {
        let io = |source| ChannelError::Io {
            action: "send",
            source,
        };
        let socket = connect(&self.store.folder(&self.record.id)).map_err(io)?;
        socket.set_read_timeout(Some(ANSWER_DEADLINE)).map_err(io)?;
        let channel = Channel::new(socket);
        channel.send(request, descriptors)?;
        Ok(channel)
    }
}

/// A connection to the driver of the container in this folder.
fn connect(folder: &Path) -> io::Result<UnixStream> {
    let folder = std::fs::File::open(folder)?;
    // Through the folder's descriptor: a socket's path may have 108 bytes only.
    UnixStream::connect(format!(
        "/proc/self/fd/{}/{SOCKET}",
        folder.as_fd().as_raw_fd()
    ))
}

/// The driver that listens in this folder.
fn listener(folder: &Path) -> Option<ProcessIdentity> {
    let socket = connect(folder).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    ProcessIdentity::of(peer.pid.as_raw_nonzero().get())
}

fn unexpected(phase: &'static str, answer: &dyn std::fmt::Debug) -> SandboxError {
    SandboxError::Channel {
        phase,
        source: ChannelError::Malformed(format!("unexpected answer {answer:?}")),
    }
}
