//! Starting and ending the server.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backend_process::Exit;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with,
};

use crate::process::Process;
use crate::{Entry, Launch, ShareEditor, ShareError};

/// How many requests a server works on at once. Enough to keep a guest of a few CPUs busy while one request waits for
/// a disk; each costs the server memory.
const THREADS: usize = 2;

/// What a share server is started with.
#[derive(Debug)]
pub struct ShareConfig {
    /// The `cofferdam-fs` program.
    pub program: PathBuf,
    /// What the guest sees from the beginning; [`ShareServer::editor`] changes it later.
    pub entries: Vec<Entry>,
    /// How long laying out the entries may take.
    pub deadline: Duration,
    /// The control groups that the server is in from its beginning, instead of the caller's: their `cgroup.procs`, open for
    /// writing.
    pub groups: Vec<OwnedFd>,
}

/// A share server. Dropping it kills and reaps the process, and with it goes every mount of the share.
#[derive(Debug)]
pub struct ShareServer {
    process: Process,
    vmm: Option<OwnedFd>,
    editor: ShareEditor,
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
        let launch = Launch::Serve {
            entries: config.entries,
            threads: THREADS,
        };
        let process = Process::spawn(
            &config.program,
            config.groups,
            config.deadline,
            &launch,
            listener.as_fd(),
        )?;
        // Not reaped yet, so that the name is its own; the descriptor stays with it afterwards.
        let folder = openat(
            CWD,
            format!("/proc/{}", process.pid().unwrap_or_default()),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| fail("watch")(errno.into()))?;
        Ok(Self {
            process,
            vmm: Some(vmm),
            editor: ShareEditor::new(config.program, config.deadline, Arc::new(folder)),
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
        self.process.answer().await.map(drop)
    }

    /// What changes the share while the server runs; it can be used as soon as the server is
    /// [`ready`](Self::ready).
    #[must_use]
    pub fn editor(&self) -> ShareEditor {
        self.editor.clone()
    }

    /// The server's process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Waits for the server's end. Cancel-safe; answers at once when called again.
    ///
    /// # Errors
    /// When something else has reaped the process.
    pub async fn wait(&mut self) -> Result<Exit, ShareError> {
        self.process.wait().await
    }

    /// Ends the server at once and reaps it.
    ///
    /// # Errors
    /// When something else has reaped the process.
    pub async fn stop(&mut self) -> Result<Exit, ShareError> {
        self.process.stop().await
    }

    /// A line feed and the end of the server's stderr, or nothing.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }
}

/// A listening socket, and the one connection that waits in it. `virtiofsd` takes listeners only; this one has no path
/// on disk, and room for a single connection, which is ours: nobody else can get in before or after.
///
/// # Errors
/// When there are no descriptors left.
pub fn private_listener() -> io::Result<(OwnedFd, OwnedFd)> {
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
