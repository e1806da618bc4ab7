//! Running another process in a container.
//!
//! libcontainer can join a container too, but drops the filter of system calls on the way, and
//! looks at neither the user namespace nor a cgroup that the container has divided. So this is
//! ours; capabilities, filter and profile are still set by libcontainer's functions.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use libcontainer::syscall::syscall::create_syscall;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::create::chain;
use super::report::{Report, Reporter};
use super::{ExecRequest, Stdio, joined, processors};
use crate::syscalls::{Fork, fork_sibling};

/// Joins the container, forks the process into it and reports its id.
pub(super) fn run(request: ExecRequest, stdio: Stdio, reporter: &Reporter) -> Result<(), String> {
    // While paths still are those of the guest.
    let console = request
        .console
        .as_deref()
        .map(UnixStream::connect)
        .transpose();
    let console = console.map_err(|error| format!("cannot connect the console socket: {error}"))?;
    let init = Pid::from_raw(request.init).ok_or("the container has no process")?;
    let init = pidfd_open(init, PidfdFlags::empty())
        .map_err(|errno| format!("cannot find the container's process: {errno}"))?;
    join_cgroup(&request.cgroup, request.init)
        .map_err(|error| format!("cannot join cgroup {}: {error}", request.cgroup.display()))?;
    processors::as_the_cgroup()
        .map_err(|errno| format!("cannot be given the container's processors: {errno}"))?;
    if let Some(score) = request.process.oom_score_adj() {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|error| format!("cannot set oomScoreAdj {score}: {error}"))?;
    }
    // Raising a hard limit takes a right that only the guest's own user namespace gives.
    for limit in request.process.rlimits().iter().flatten() {
        create_syscall()
            .set_rlimit(limit)
            .map_err(|error| format!("cannot set rlimit {:?}: {}", limit.typ(), chain(&error)))?;
    }
    // From here on processes of the container see this one: they may not look into it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| format!("cannot hide from the container: {errno}"))?;
    let namespaces = ThreadNameSpaceType::from_bits_retain(request.namespaces);
    move_into_thread_name_spaces(rustix::fd::AsFd::as_fd(&init), namespaces)
        .map_err(|errno| format!("cannot join the container's namespaces: {errno}"))?;
    drop(init);
    match fork_sibling().map_err(|error| format!("cannot fork: {error}"))? {
        Fork::Parent(pid) => {
            reporter.send(&Report::Pid(pid));
            Ok(())
        }
        Fork::Child => {
            let failure = joined::become_process(&request, console, stdio, reporter);
            reporter.send(&failure);
            std::process::exit(1);
        }
    }
}

/// Moves this process into the container's cgroup or, when the container has divided that, into
/// the part where its first process is: only leaves can hold processes.
fn join_cgroup(cgroup: &Path, init: i32) -> io::Result<()> {
    match fs::write(cgroup.join("cgroup.procs"), "0") {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        done => return done,
    }
    let of_init = fs::read_to_string(format!("/proc/{init}/cgroup"))?;
    let path = of_init
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or(io::ErrorKind::NotFound)?;
    fs::write(
        Path::new(crate::cgroup::ROOT)
            .join(path)
            .join("cgroup.procs"),
        "0",
    )
}
