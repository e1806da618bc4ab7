//! Starting and ending the server.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use backend_api::Tail;
use backend_process::{Child, Confinement, Exit, Program};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, connect, getsockname, listen, sendmsg, socket_with,
};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::{Answer, Entry, EntryError, Launch, MESSAGE_LIMIT};

/// How much of the server's stderr is kept for errors.
const STDERR_KEPT: usize = 4096;

/// How long the last words of a dead server may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How many requests a server works on at once. Enough to keep a guest of a few CPUs busy while one request waits for
/// a disk; each costs the server memory.
const THREADS: usize = 2;

/// What a share server is started with.
#[derive(Debug, Clone)]
pub struct ShareConfig {
    /// The `cofferdam-fs` program.
    pub program: PathBuf,
    /// What the guest sees.
    pub entries: Vec<Entry>,
    /// How long laying out the entries may take.
    pub deadline: Duration,
}

/// Why a share could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The server could not be started or spoken to.
    #[error("cannot {action} the file server {}", program.display())]
    System {
        /// What failed: "start", "tell" …
        action: &'static str,
        /// The program.
        program: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The server refused an entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The server ended without an answer.
    #[error("the file server {exit} before it was ready{stderr}")]
    Exited {
        /// How it ended.
        exit: Exit,
        /// A line feed and the end of its stderr, or nothing.
        stderr: String,
    },
    /// The server gave no answer in time.
    #[error("the file server {} was not ready after {} s{stderr}", program.display(), deadline.as_secs())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        deadline: Duration,
        /// A line feed and the end of its stderr, or nothing.
        stderr: String,
    },
}

/// A share server. Dropping it kills and reaps the process, and with it goes every mount of the share.
#[derive(Debug)]
pub struct ShareServer {
    config: ShareConfig,
    child: Child,
    control: UnixStream,
    vmm: Option<OwnedFd>,
    stderr: Tail,
}

impl ShareServer {
    /// Starts the server and tells it what to serve. [`vmm_socket`](Self::vmm_socket) is there at once, so that the
    /// VMM can start while the entries are laid out; [`ready`](Self::ready) tells when they are.
    ///
    /// The server dies with the calling thread: call this from one that lives as long as the sandbox, inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the server can't be started.
    pub fn spawn(config: ShareConfig) -> Result<Self, ShareError> {
        let fail = |action| {
            let program = config.program.clone();
            move |source| ShareError::System {
                action,
                program,
                source,
            }
        };
        let (listener, vmm) = private_listener().map_err(fail("make a socket for"))?;
        let (control, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(fail("make a socket for"))?;
        let (stderr_end, stderr) = tokio::net::unix::pipe::pipe()
            .and_then(|(sender, receiver)| Ok((sender.into_blocking_fd()?, receiver)))
            .map_err(fail("make a pipe for"))
            .map(|(sender, receiver)| (sender, Tail::of(receiver, STDERR_KEPT)))?;
        let child = Program {
            path: config.program.clone(),
            args: Vec::new(),
            stdin: Some(theirs.into()),
            stderr: Some(stderr_end),
            inherited: Vec::new(),
            confinement: Confinement::default(),
        }
        .spawn()
        .map_err(fail("start"))?;
        // The server reads at once. One that is dead already breaks the pipe: [`ready`](Self::ready) has its last words.
        match control
            .set_write_timeout(Some(config.deadline))
            .and_then(|()| tell(&control, &config.entries, &listener))
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
            config,
            child,
            control,
            vmm: Some(vmm),
            stderr,
        })
    }

    /// The VMM's end of the vhost-user connection; the first call gets it. The server exits when it is closed.
    pub fn vmm_socket(&mut self) -> Option<OwnedFd> {
        self.vmm.take()
    }

    /// Waits until the server has laid out all entries and has locked itself in. Call it once, before guest code
    /// depends on the share.
    ///
    /// # Errors
    /// [`ShareError::Entry`] names the entry at fault; the server is gone then.
    pub async fn ready(&mut self) -> Result<(), ShareError> {
        let deadline = self.config.deadline;
        let program = self.config.program.clone();
        let answer = tokio::time::timeout(deadline, read_answer(&mut self.control)).await;
        match answer {
            Ok(Ok(Answer::Ready)) => Ok(()),
            Ok(Ok(Answer::Failed(error))) => {
                self.stop().await?;
                Err(error.into())
            }
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
            Ok(Err(source)) => Err(ShareError::System {
                action: "listen to",
                program,
                source,
            }),
            Err(_elapsed) => {
                self.stop().await?;
                Err(ShareError::Silent {
                    program,
                    deadline,
                    stderr: self.stderr(),
                })
            }
        }
    }

    /// The server's process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Waits for the server's end. Cancel-safe; answers at once when called again.
    ///
    /// # Errors
    /// When something else has reaped the process.
    pub async fn wait(&mut self) -> Result<Exit, ShareError> {
        let exit = self.child.wait().await;
        self.stderr.settle(LAST_WORDS).await;
        exit.map_err(|source| self.system("wait for", source))
    }

    /// Ends the server at once and reaps it.
    ///
    /// # Errors
    /// When something else has reaped the process.
    pub async fn stop(&mut self) -> Result<Exit, ShareError> {
        // A server that is about to end by itself tells more with its own exit than with our signal.
        let own = tokio::time::timeout(Duration::from_millis(20), self.child.wait()).await;
        let exit = match own {
            Ok(exit) => exit,
            Err(_elapsed) => self.child.kill().await,
        };
        self.stderr.settle(LAST_WORDS).await;
        exit.map_err(|source| self.system("end", source))
    }

    /// A line feed and the end of the server's stderr, or nothing.
    #[must_use]
    pub fn stderr(&self) -> String {
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
            program: self.config.program.clone(),
            source,
        }
    }
}

/// A listening socket, and the one connection that waits in it. `virtiofsd` takes listeners only; this one has no path
/// on disk, and room for a single connection, which is ours: nobody else can get in before or after.
fn private_listener() -> io::Result<(OwnedFd, OwnedFd)> {
    let socket = |flags| {
        socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            flags | SocketFlags::CLOEXEC,
            None,
        )
    };
    let listener = socket(SocketFlags::empty())?;
    bind(&listener, &SocketAddrUnix::new_unnamed())?;
    listen(&listener, 0)?;
    let address = getsockname(&listener)?;
    // Not blocking: a full queue means that somebody else came first, and is an error instead of a wait.
    let client = socket(SocketFlags::NONBLOCK)?;
    connect(&client, &address)?;
    rustix::io::ioctl_fionbio(&client, false)?;
    Ok((listener, client))
}

/// Sends the launch message, with the listener riding on its first byte.
fn tell(
    control: &std::os::unix::net::UnixStream,
    entries: &[Entry],
    listener: &OwnedFd,
) -> io::Result<()> {
    let launch = Launch::Serve {
        entries: entries.to_vec(),
        threads: THREADS,
    };
    let body = serde_json::to_vec(&launch)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|&length| length as usize <= MESSAGE_LIMIT)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many share entries"))?;
    let fds = [listener.as_fd()];
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
