//! QEMU's control channel (QMP).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, watch};

/// The longest message that is read. QEMU may be in the guest's hands.
const MESSAGE_LIMIT: u64 = 64 << 10;

/// How long QEMU may take to set the machine up. That waits for the file server, too, and the host may be busy.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long QEMU may take for a command.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The channel is closed: QEMU is gone or about to be.
    #[error("hung up")]
    HungUp,
    /// QEMU gave no answer.
    #[error("did not answer \"{command}\" within {} s", deadline.as_secs())]
    Silent {
        /// What it was asked.
        command: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// What QEMU needs for it could not be made.
    #[error("could not be used: {0}")]
    System(#[source] io::Error),
    /// QEMU refused.
    #[error("refused \"{command}\": {reason}")]
    Refused {
        /// What it was asked.
        command: &'static str,
        /// What it said.
        reason: String,
    },
}

/// An answer of QEMU to a command.
type Answer = Result<(), String>;

/// What QEMU has told without being asked. No more is kept, since guests can cause any number of events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Whether the guest holds the link's port open, as far as it was told: changes within a second are told at its end.
    pub port_open: bool,
    /// How often it was told that the port is open.
    pub openings: u64,
    /// Whether the machine was written out or read in, once that is decided.
    pub migrated: Option<bool>,
}

/// The channel. A task reads it all the time, so that events, which guests can cause, never pile up in QEMU.
#[derive(Debug)]
pub struct Monitor {
    channel: Mutex<Channel>,
    seen: watch::Receiver<Seen>,
}

#[derive(Debug)]
struct Channel {
    commands: OwnedWriteHalf,
    answers: mpsc::Receiver<Answer>,
}

impl Monitor {
    /// A monitor on a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        let (reader, commands) = socket.into_split();
        // One command at a time gets one answer; more than that is noise and is dropped.
        let (sender, answers) = mpsc::channel(1);
        let (events, seen) = watch::channel(Seen::default());
        tokio::spawn(read_answers(reader, sender, events));
        Self {
            channel: Mutex::new(Channel { commands, answers }),
            seen,
        }
    }

    /// Waits until QEMU has set the machine up and obeys commands.
    pub async fn negotiate(&self) -> Result<(), MonitorError> {
        let message = json!({ "execute": "qmp_capabilities" });
        self.exchange("qmp_capabilities", message, None, START_DEADLINE)
            .await
    }

    /// Has QEMU carry out a command without arguments.
    pub async fn execute(&self, command: &'static str) -> Result<(), MonitorError> {
        let message = json!({ "execute": command });
        self.exchange(command, message, None, DEADLINE).await
    }

    /// Has QEMU carry out a command.
    pub async fn execute_with(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<(), MonitorError> {
        let message = json!({ "execute": command, "arguments": arguments });
        self.exchange(command, message, None, DEADLINE).await
    }

    /// Hands a descriptor over, which later commands call `name`.
    pub async fn give(
        &self,
        name: &'static str,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), MonitorError> {
        let message = json!({ "execute": "getfd", "arguments": { "fdname": name } });
        self.exchange("getfd", message, Some(descriptor), DEADLINE)
            .await
    }

    /// Has the next migration leave out memory that is a file of ours.
    pub async fn ignore_shared_memory(&self) -> Result<(), MonitorError> {
        let on = |name| json!({ "capability": name, "state": true });
        // Events, so that its end is told.
        let capabilities = [on("x-ignore-shared"), on("events")];
        self.execute_with(
            "migrate-set-capabilities",
            json!({ "capabilities": capabilities }),
        )
        .await
    }

    /// Waits until this is so.
    pub async fn until(&self, condition: impl FnMut(&Seen) -> bool) -> Result<Seen, MonitorError> {
        let mut seen = self.seen.clone();
        let seen = seen.wait_for(condition).await;
        seen.map(|seen| *seen).map_err(|_| MonitorError::HungUp)
    }

    async fn exchange(
        &self,
        command: &'static str,
        message: Value,
        descriptor: Option<BorrowedFd<'_>>,
        deadline: Duration,
    ) -> Result<(), MonitorError> {
        let mut channel = self.channel.lock().await;
        let exchange = async {
            // An answer that came after its deadline.
            while channel.answers.try_recv().is_ok() {}
            let mut message = message.to_string().into_bytes();
            message.push(b'\n');
            let sent = match descriptor {
                None => channel.commands.write_all(&message).await,
                Some(descriptor) => send(channel.commands.as_ref(), &message, descriptor).await,
            };
            sent.map_err(|_| MonitorError::HungUp)?;
            match channel.answers.recv().await {
                Some(Ok(())) => Ok(()),
                Some(Err(reason)) => Err(MonitorError::Refused { command, reason }),
                None => Err(MonitorError::HungUp),
            }
        };
        let silent = |_| MonitorError::Silent { command, deadline };
        tokio::time::timeout(deadline, exchange)
            .await
            .map_err(silent)?
    }
}

/// Sends a message with a descriptor.
async fn send(socket: &UnixStream, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let sent = socket
        .async_io(Interest::WRITABLE, || {
            let descriptors = [descriptor];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            let parts = [IoSlice::new(message)];
            Ok(sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    // So short a message is taken whole or not at all.
    if sent < message.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

async fn read_answers(
    reader: OwnedReadHalf,
    answers: mpsc::Sender<Answer>,
    events: watch::Sender<Seen>,
) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while let Ok(true) = read_message(&mut reader, &mut line).await {
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            return;
        };
        let answer = if let Some(error) = message.get("error") {
            let reason = error
                .get("desc")
                .and_then(Value::as_str)
                .unwrap_or("no reason given");
            Err(reason
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect())
        } else if message.get("return").is_some() {
            Ok(())
        } else {
            // The greeting or an event.
            events.send_if_modified(|seen| seen.note(&message));
            continue;
        };
        // Full means that nobody asked.
        let _ = answers.try_send(answer);
    }
}

impl Seen {
    /// Whether the event says something new.
    fn note(&mut self, message: &Value) -> bool {
        let data = |name: &str| message.get("data").and_then(|data| data.get(name));
        match message.get("event").and_then(Value::as_str) {
            Some("VSERPORT_CHANGE") => {
                self.port_open = data("open").and_then(Value::as_bool).unwrap_or_default();
                self.openings = self.openings.saturating_add(u64::from(self.port_open));
            }
            Some("MIGRATION") => {
                self.migrated = match data("status").and_then(Value::as_str) {
                    Some("completed") => Some(true),
                    Some("failed" | "cancelled") => Some(false),
                    _ => return false,
                }
            }
            _ => return false,
        }
        true
    }
}

/// Reads a line; false at the end.
async fn read_message(
    reader: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.clear();
    reader.take(MESSAGE_LIMIT).read_until(b'\n', line).await?;
    Ok(line.ends_with(b"\n"))
}
