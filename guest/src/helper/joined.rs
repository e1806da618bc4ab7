//! The last steps of a process that has joined a container, in runc's order.

use std::fmt::Display;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use libcontainer::syscall::Syscall;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::{apparmor, capabilities, seccomp};
use nix::sys::personality;
use oci_spec::runtime::{Process, User};
use rustix::fs::{Mode, fstat, fstatfs, major, minor};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{chdir, getcwd, ioctl_tiocsctty, setsid, umask};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{
    Gid, ThreadNameSpaceType, Uid, set_keep_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::create::chain;
use super::report::{Report, Reporter};
use super::{ExecRequest, Stdio, capability, command, home_in};

/// Becomes the process; returns only if that failed, with the report of why.
pub(super) fn become_process(
    request: &ExecRequest,
    console: Option<UnixStream>,
    stdio: Stdio,
    reporter: &Reporter,
) -> Report {
    match prepare(request, console, stdio) {
        Err(error) => Report::Error(error),
        Ok(env) => {
            let process = &request.process;
            let failure = command::find(process).map(|path| {
                reporter.send(&Report::Executing);
                command::execute(&path, process, &env)
            });
            failure.unwrap_or_else(|error| error).into()
        }
    }
}

/// Turns an error into the line of the report.
fn failed<E: Display>(doing: &str) -> impl FnOnce(E) -> String {
    move |error| format!("cannot {doing}: {error}")
}

/// Everything before the command is looked for; the environment it gets.
fn prepare(
    request: &ExecRequest,
    console: Option<UnixStream>,
    stdio: Stdio,
) -> Result<Vec<String>, String> {
    let process = &request.process;
    let user = process.user();
    let syscall = create_syscall();
    setsid().map_err(failed("make a session"))?;
    if request.namespaces & ThreadNameSpaceType::USER.bits() != 0 {
        // Rights over the container's other namespaces are those of its root.
        set_ids(0, 0, syscall.as_ref()).map_err(failed("become the container's root"))?;
    }
    match console {
        Some(socket) => terminal(process, &socket).map_err(failed("make a terminal"))?,
        None => {
            dup2_stdin(&stdio.stdin).map_err(failed("set stdin"))?;
            dup2_stdout(&stdio.stdout).map_err(failed("set stdout"))?;
            dup2_stderr(&stdio.stderr).map_err(failed("set stderr"))?;
        }
    }
    if let Some(domain) = request.personality {
        let domain = personality::Persona::from_bits_retain(domain.cast_signed());
        personality::set(domain).map_err(failed("set the personality"))?;
    }
    if let Some(profile) = process.apparmor_profile() {
        apparmor::apply_profile(profile).map_err(|error| {
            format!("cannot apply AppArmor profile {profile}: {}", chain(&error))
        })?;
    }
    if let Some(mask) = user.umask() {
        umask(Mode::from_raw_mode(mask));
    }
    // As root, who may enter folders that the user may not; a share may refuse even root.
    let entered = enter(process);
    let env = environment(process);
    groups(user).map_err(failed("set the supplementary groups"))?;
    set_ids(user.uid(), user.gid(), syscall.as_ref()).map_err(failed("set the user"))?;
    syscall
        .close_range(0)
        .map_err(|error| format!("cannot close descriptors: {}", chain(&error)))?;
    restrict(request, syscall.as_ref())?;
    entered.or_else(|_| enter(process)).map_err(|errno| {
        format!(
            "chdir to cwd ({:?}) set in config.json failed: {}",
            process.cwd(),
            command::reason(errno.raw_os_error())
        )
    })?;
    // Outside the container's root the kernel gives no path that begins with a slash.
    let cwd = getcwd(Vec::new()).map_err(failed("find the working directory"))?;
    if !cwd.as_bytes().starts_with(b"/") {
        return Err(
            "current working directory is outside of container mount namespace root".into(),
        );
    }
    if process.no_new_privileges() == Some(true) {
        filter(request)?;
    }
    Ok(env)
}

fn enter(process: &Process) -> Result<(), Errno> {
    if process.cwd().as_os_str().is_empty() {
        return Ok(());
    }
    chdir(process.cwd())
}

/// Loads the filter and gives up capabilities. Without `no_new_privs` a filter may be loaded only
/// by someone with rights, so before they are given up.
fn restrict(request: &ExecRequest, syscall: &dyn Syscall) -> Result<(), String> {
    let process = &request.process;
    if process.no_new_privileges() == Some(true) {
        set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    } else {
        filter(request)?;
    }
    let inheritable = process
        .capabilities()
        .as_ref()
        .and_then(|sets| sets.inheritable().clone());
    capability::inherit(&inheritable.unwrap_or_default())
        .map_err(failed("set inheritable capabilities"))?;
    let dropped = capabilities::reset_effective(syscall).and_then(|()| {
        let wanted = process.capabilities().as_ref();
        wanted.map_or(Ok(()), |wanted| {
            capabilities::drop_privileges(wanted, syscall)
        })
    });
    dropped.map_err(|error| format!("cannot set capabilities: {}", chain(&error)))
}

fn filter(request: &ExecRequest) -> Result<(), String> {
    let Some(profile) = &request.seccomp else {
        return Ok(());
    };
    seccomp::initialize_seccomp(profile)
        .map(|_| ())
        .map_err(|error| format!("cannot load the seccomp filter: {}", chain(&error)))
}

fn groups(user: &User) -> Result<(), Errno> {
    let groups: Vec<Gid> = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    match set_thread_groups(&groups) {
        // A user namespace may forbid it; that is an error only if there is something to set.
        Err(Errno::PERM) if groups.is_empty() => Ok(()),
        done => done,
    }
}

/// Changes the user and the group and keeps every capability for the steps that follow.
fn set_ids(uid: u32, gid: u32, syscall: &dyn Syscall) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_keep_capabilities(true)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|errno| errno.to_string())?;
    capabilities::reset_effective(syscall).map_err(|error| chain(&error))?;
    set_keep_capabilities(false).map_err(|errno| errno.to_string())
}

/// The environment, with a home folder if none was given.
fn environment(process: &Process) -> Vec<String> {
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = std::fs::File::open("/")
            .map(|root| home_in(root, "/etc/passwd".as_ref(), process.user().uid()))
            .unwrap_or_else(|_| "/".to_owned());
        env.push(format!("HOME={home}"));
    }
    env
}

/// Opens a terminal of the container's own, makes it the process's and sends the other side.
fn terminal(process: &Process, socket: &UnixStream) -> io::Result<()> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags)?;
    verify(&controller)?;
    unlockpt(&controller)?;
    let terminal = ioctl_tiocgptpeer(&controller, flags)?;
    if let Some(size) = process.console_size() {
        tcsetwinsize(&controller, winsize(size.height(), size.width()))?;
    }
    let descriptors = [controller.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        socket,
        &[IoSlice::new(b"t")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    ioctl_tiocsctty(&terminal)?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    Ok(())
}

/// What a spec or a caller gives in numbers of any size.
fn winsize(rows: u64, columns: u64) -> Winsize {
    let clamp = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    Winsize {
        ws_row: clamp(rows),
        ws_col: clamp(columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The container decides what stands at /dev/ptmx: it must be a real one.
fn verify(controller: &OwnedFd) -> io::Result<()> {
    const DEVPTS: i64 = 0x1cd1;
    let rdev = fstat(controller)?.st_rdev;
    if (major(rdev), minor(rdev)) != (5, 2) || fstatfs(controller)?.f_type != DEVPTS {
        return Err(io::Error::other(
            "/dev/ptmx of the container is not a devpts multiplexer",
        ));
    }
    Ok(())
}
