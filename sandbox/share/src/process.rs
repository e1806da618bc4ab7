//! One `cofferdam-fs` process: told once what to do, answers once.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backend_api::Tail;
use backend_process::{Child, Confinement, Exit, Program};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::{Answer, Launch, MESSAGE_LIMIT, ShareError};

/// How much of its stderr is kept for errors.
const STDERR_KEPT: usize = 4096;

/// How long the last words of a dead process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The process. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    program: PathBuf,
    deadline: Duration,
    child: Child,
    control: UnixStream,
    stderr: Tail,
}

impl Process {
    /// Starts it, in these control groups if there are any, and tells it what to do.
    pub(crate) fn spawn(
        program: &Path,
        groups: Vec<OwnedFd>,
        deadline: Duration,
        launch: &Launch,
        descriptor: BorrowedFd<'_>,
    ) -> Result<Self, ShareError> {
        let fail = |action| {
            move |source| ShareError::System {
                action,
                program: program.to_owned(),
                source,
            }
        };
        let (control, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(fail("make a socket for"))?;
        let (stderr_end, stderr) = tokio::net::unix::pipe::pipe()
            .and_then(|(sender, receiver)| Ok((sender.into_blocking_fd()?, receiver)))
            .map_err(fail("make a pipe for"))
            .map(|(sender, receiver)| (sender, Tail::of(receiver, STDERR_KEPT)))?;
        let child = Program {
            path: program.to_owned(),
            args: Vec::new(),
            stdin: Some(theirs.into()),
            stderr: Some(stderr_end),
            inherited: Vec::new(),
            network: None,
            groups,
            confinement: Confinement::default(),
        }
        .spawn()
        .map_err(fail("start"))?;
        // It reads at once. One that is dead already breaks the pipe: its last words come instead of an answer.
        match control
            .set_write_timeout(Some(deadline))
            .and_then(|()| tell(&control, launch, descriptor))
        {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(fail("tell")(error));
            }
            _ => {}
        }
        let control = control
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(control))
            .map_err(fail("listen to"))?;
        Ok(Self {
            program: program.to_owned(),
            deadline,
            child,
            control,
            stderr,
        })
    }

    /// Waits for its answer; without one, or with an error as the answer, the process is gone afterwards.
    pub(crate) async fn answer(&mut self) -> Result<Answer, ShareError> {
        match tokio::time::timeout(self.deadline, read_answer(&mut self.control)).await {
            Ok(Ok(Answer::Failed(error))) => {
                self.stop().await?;
                Err(error.into())
            }
            Ok(Ok(answer)) => Ok(answer),
            // A reset: it has not read what it was told.
            Ok(Err(source))
                if matches!(
                    source.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                let exit = self.stop().await?;
                Err(ShareError::Exited {
                    exit,
                    stderr: self.stderr(),
                })
            }
            Ok(Err(source)) => Err(self.system("listen to", source)),
            Err(_elapsed) => {
                self.stop().await?;
                Err(ShareError::Silent {
                    program: self.program.clone(),
                    deadline: self.deadline,
                    stderr: self.stderr(),
                })
            }
        }
    }

    /// Its id while it was not reaped.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Waits for its end. Cancel-safe; answers at once when called again.
    pub(crate) async fn wait(&mut self) -> Result<Exit, ShareError> {
        let exit = self.child.wait().await;
        self.stderr.settle(LAST_WORDS).await;
        exit.map_err(|source| self.system("wait for", source))
    }

    /// Ends it at once and reaps it.
    pub(crate) async fn stop(&mut self) -> Result<Exit, ShareError> {
        // One that is about to end by itself tells more with its own exit than with our signal.
        let own = tokio::time::timeout(Duration::from_millis(20), self.child.wait()).await;
        let exit = match own {
            Ok(exit) => exit,
            Err(_elapsed) => self.child.kill().await,
        };
        self.stderr.settle(LAST_WORDS).await;
        exit.map_err(|source| self.system("end", source))
    }

    /// A line feed and the end of its stderr, or nothing.
    pub(crate) fn stderr(&self) -> String {
        let text = self.stderr.printable();
        if text.trim().is_empty() {
            String::new()
        } else {
            format!("\n{}", text.trim_end())
        }
    }

    fn system(&self, action: &'static str, source: io::Error) -> ShareError {
        ShareError::System {
            action,
            program: self.program.clone(),
            source,
        }
    }
}

/// Sends the launch message, with the descriptor riding on its first byte.
fn tell(
    control: &std::os::unix::net::UnixStream,
    launch: &Launch,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let body = serde_json::to_vec(launch)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|&length| length as usize <= MESSAGE_LIMIT)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many share entries"))?;
    let fds = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let head = length.to_le_bytes();
    let sent = sendmsg(
        control,
        &[IoSlice::new(&head)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    if sent != head.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    io::Write::write_all(&mut &*control, &body)
}

async fn read_answer(control: &mut UnixStream) -> io::Result<Answer> {
    let length = control.read_u32_le().await? as usize;
    if length > MESSAGE_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its answer is too long",
        ));
    }
    let mut body = vec![0; length];
    control.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}
