//! What stands for one container process on the host: passes signals and terminal sizes on, and ends as it ends.
//!
//! Engines take this process for the container's: they read its pid from `--pid-file`, signal it, and wait for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use sandbox::SandboxError;
use sandbox::control::{Channel, ChannelError, ProcessEvent, ProcessRequest};
use sandbox::state::{ExitStatus, StateError, Store};

use crate::cli::HiddenArgs;
use crate::context::container_id;
use crate::people::storage;
use crate::process::spawn;

/// How long the command that made a container may take to end after the container.
const CREATOR_DEADLINE: Duration = Duration::from_secs(60);

/// The hidden command: a proxy in the background.
pub fn run(args: &HiddenArgs) -> Result<ExitCode> {
    let socket = spawn::adopt_socket()?;
    let signals = Signals::catch()?;
    rustix::process::setsid().context("cannot leave the session")?;
    let stdout = io::stdout();
    let terminal = args.terminal.then(|| stdout.as_fd());
    if let Some(terminal) = terminal {
        // So that the kernel tells us when its size changes.
        rustix::process::ioctl_tiocsctty(terminal).context("cannot take the terminal")?;
    }
    std::env::set_current_dir("/").context("cannot change to /")?;
    // Without root no engine can enter our namespaces either.
    if let Some(rootfs) = &args.rootfs
        && rustix::process::geteuid().is_root()
    {
        enter(rootfs).with_context(|| format!("cannot make {} our root", rootfs.display()))?;
    }
    let exit = stand_for(Channel::new(socket), &signals, terminal);
    if let (Some(root), Some(id)) = (&args.remove_from, &args.id) {
        remove(root, id)?;
    }
    Ok(end_as(exit))
}

/// Gives this process a mount namespace that holds nothing but the container's root file system. Engines enter the mount
/// namespace of the pid that they take for the container's: `podman cp` would write to the host's `/` otherwise, and
/// `podman top` would list the host's processes.
fn enter(rootfs: &Path) -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    // Unmounting on the host has to reach us, so that we keep nothing busy; nothing of ours reaches the host.
    mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    mount_bind(rootfs, rootfs)?;
    std::env::set_current_dir(rootfs)?;
    // As pivot_root(2) has it: the old root lands on top of the new one, and is taken off.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Removes the container that has ended. Killed before, it is removed by the next `run` or `rm`.
fn remove(root: &Path, id: &str) -> Result<()> {
    let store = Store::open(root).map_err(SandboxError::from)?;
    let id = container_id(id)?;
    // While the command that made it is there, that one clears up.
    let Ok(record) = store.load(&id) else {
        return Ok(());
    };
    let _removed_by_force_then = record.creator.wait(CREATOR_DEADLINE);
    match storage::delete(&store, &id, true) {
        Ok(()) | Err(SandboxError::State(StateError::Missing(_))) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// All signals that can be caught, caught.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks signals for the rest of this process's life; they are read instead.
    pub fn catch() -> Result<Self> {
        let mut set = SigSet::all();
        // These tell of our own faults.
        for own in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
        ] {
            set.remove(own);
        }
        set.thread_block().context("cannot block signals")?;
        Ok(Self(
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .context("cannot watch signals")?,
        ))
    }
}

/// Passes on signals and sizes until the process has ended; a driver that dies has taken it along.
pub fn stand_for(
    mut channel: Channel,
    signals: &Signals,
    terminal: Option<BorrowedFd<'_>>,
) -> ExitStatus {
    if let Some(terminal) = terminal {
        resize(&channel, terminal);
    }
    loop {
        let mut ready = [
            PollFd::new(&signals.0, PollFlags::IN),
            PollFd::from_borrowed_fd(channel.socket().as_fd(), PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ExitStatus::LOST,
        }
        let told = !ready[1].revents().is_empty();
        while let Ok(Some(signal)) = signals.0.read_signal() {
            pass_on(&channel, signal.ssi_signo, terminal);
        }
        if told {
            match channel.receive::<ProcessEvent>() {
                Ok((ProcessEvent::Exited(exit), _)) => return exit,
                Ok((ProcessEvent::Started, _)) => {}
                Ok((ProcessEvent::Failed(_), _)) | Err(_) => return ExitStatus::LOST,
            }
        }
    }
}

fn pass_on(channel: &Channel, signal: u32, terminal: Option<BorrowedFd<'_>>) {
    match u8::try_from(signal) {
        // Of our own children, and of Go's scheduler when it signals whole groups.
        Ok(number) if number == Signal::SIGCHLD as u8 || number == Signal::SIGURG as u8 => {}
        Ok(number) if number == Signal::SIGWINCH as u8 && terminal.is_some() => {
            if let Some(terminal) = terminal {
                resize(channel, terminal);
            }
        }
        Ok(number) => tell(channel, &ProcessRequest::Signal(number)),
        Err(_) => {}
    }
}

fn resize(channel: &Channel, terminal: BorrowedFd<'_>) {
    if let Ok(size) = rustix::termios::tcgetwinsize(terminal)
        && size.ws_row > 0
        && size.ws_col > 0
    {
        tell(
            channel,
            &ProcessRequest::Resize {
                rows: size.ws_row,
                columns: size.ws_col,
            },
        );
    }
}

fn tell(channel: &Channel, request: &ProcessRequest) {
    match channel.send(request, &[]) {
        // The next receive learns it too.
        Ok(()) | Err(ChannelError::Closed) => {}
        Err(error) => tracing::debug!(%error, "not passed on"),
    }
}

/// Ends the calling process as the container's ended: by the same signal, so that `waitpid` tells its parent the same.
fn end_as(exit: ExitStatus) -> ExitCode {
    if let Some(signal) = exit
        .signal
        .and_then(|number| Signal::try_from(i32::from(number)).ok())
    {
        // The container's core, not ours.
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _kept = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        let mut set = SigSet::empty();
        set.add(signal);
        let _still_blocked = set.thread_unblock();
        // Returns only where the signal is ignored; the code says it then.
        let _ignored = nix::sys::signal::raise(signal);
    }
    ExitCode::from(exit.code)
}

/// A connected pair for a proxy and the driver.
pub fn pair() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().context("cannot make a socket")
}
