//! The helper itself: waits for requests and forks a worker for each.

use std::fs::File;
use std::io::{self, BufReader, IoSliceMut, Seek};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::report::Reporter;
use super::{DESCRIPTORS, Helper, Request, Stdio, create, exec};
use crate::syscalls::{Fork, default_broken_pipe, fork, fork_sibling};

/// Forks the helper; its process id too. The calling process must have one thread only.
///
/// # Errors
/// When there is no socket or no process for it.
pub fn start() -> io::Result<(Helper, i32)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match fork()? {
        Fork::Parent(pid) => Ok((Helper::new(ours), pid)),
        Fork::Child => {
            drop(ours);
            std::process::exit(match serve(theirs) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("cofferdam-helper: {error}");
                    1
                }
            });
        }
    }
}

/// Serves until the agent is gone.
fn serve(socket: OwnedFd) -> io::Result<()> {
    default_broken_pipe();
    // Workers of containers without stdio of their own, and what libraries print, get these.
    let null = Stdio::null()?;
    dup2_stdin(&null.stdin)?;
    dup2_stdout(&null.stdout)?;
    let console = rustix::io::dup(rustix::stdio::stderr())?;
    rustix::io::fcntl_setfd(&console, rustix::io::FdFlags::CLOEXEC)?;
    loop {
        let Some(order) = receive(&socket)? else {
            return Ok(());
        };
        match fork_sibling() {
            Ok(Fork::Parent(_)) => {}
            Ok(Fork::Child) => {
                // Nothing that is near a container may hold what the helper obeys.
                drop(socket);
                // A failed duplication would only send lines to the console.
                let _ = dup2_stderr(&null.stderr);
                std::process::exit(work(order));
            }
            Err(error) => order
                .reporter
                .error(&format!("cannot fork a worker: {error}")),
        }
    }
}

struct Order {
    request: OwnedFd,
    reporter: Reporter,
    stdio: Stdio,
}

/// The next request; `None` when the agent has gone.
fn receive(socket: &OwnedFd) -> io::Result<Option<Order>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut message = [IoSliceMut::new(&mut byte)];
    let received = loop {
        match recvmsg(socket, &mut message, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            done => break done?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
    Ok(Some(Order {
        request: next()?,
        reporter: Reporter::new(next()?),
        stdio: Stdio {
            stdin: next()?,
            stdout: next()?,
            stderr: next()?,
        },
    }))
}

/// The life of a worker; its exit code, which nobody reads: the report says everything.
fn work(order: Order) -> i32 {
    let Order {
        request,
        reporter,
        stdio,
    } = order;
    // The helper is shielded from the out-of-memory killer, a container is not.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "0") {
        reporter.error(&format!("cannot write /proc/self/oom_score_adj: {error}"));
        return 1;
    }
    reporter.log_errors();
    let done = match read(request) {
        Err(error) => Err(format!("cannot read the request: {error}")),
        Ok(Request::Create(request)) => create::run(*request, stdio, &reporter),
        Ok(Request::Exec(request)) => exec::run(*request, stdio, &reporter),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            reporter.error(&error);
            1
        }
    }
}

fn read(request: OwnedFd) -> io::Result<Request> {
    let mut file = File::from(request);
    file.rewind()?;
    // As libcontainer reads its files: one translation of the parser's code serves both.
    Ok(serde_json::from_reader(BufReader::new(file))?)
}
