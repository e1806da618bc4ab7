//! QEMU's control channel (QMP).

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc};

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

/// The channel. A task reads it all the time, so that events, which guests can cause, never pile up in QEMU.
#[derive(Debug)]
pub struct Monitor {
    channel: Mutex<Channel>,
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
        tokio::spawn(read_answers(reader, sender));
        Self {
            channel: Mutex::new(Channel { commands, answers }),
        }
    }

    /// Waits until QEMU has set the machine up and obeys commands.
    pub async fn negotiate(&self) -> Result<(), MonitorError> {
        self.exchange("qmp_capabilities", START_DEADLINE).await
    }

    /// Has QEMU carry out a command without arguments.
    pub async fn execute(&self, command: &'static str) -> Result<(), MonitorError> {
        self.exchange(command, DEADLINE).await
    }

    async fn exchange(
        &self,
        command: &'static str,
        deadline: Duration,
    ) -> Result<(), MonitorError> {
        let mut channel = self.channel.lock().await;
        let exchange = async {
            // An answer that came after its deadline.
            while channel.answers.try_recv().is_ok() {}
            let mut message = json!({ "execute": command }).to_string().into_bytes();
            message.push(b'\n');
            channel
                .commands
                .write_all(&message)
                .await
                .map_err(|_| MonitorError::HungUp)?;
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

async fn read_answers(reader: OwnedReadHalf, answers: mpsc::Sender<Answer>) {
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
            continue;
        };
        // Full means that nobody asked.
        let _ = answers.try_send(answer);
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
