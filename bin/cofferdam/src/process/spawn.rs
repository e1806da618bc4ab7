//! Starting our own program again, as driver or proxy. It gets its socket as stdin.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use sandbox::template::Order;

use crate::cli::HiddenArgs;
use crate::context::Context;

/// The running program, also when its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

/// As process lists call it.
const NAME: &str = "cofferdam";

fn ourselves() -> Command {
    let mut command = Command::new(OURSELVES);
    command.arg0(NAME);
    command
}

/// Starts a driver with its end of the socket to us.
pub fn driver(context: &Context, id: &str, socket: UnixStream) -> io::Result<Child> {
    let mut command = ourselves();
    command.args(["driver", "--id", id]);
    if let Some(log) = &context.log {
        command
            .arg("--log")
            .arg(std::path::absolute(log)?)
            .args(["--log-format", context.log_format.as_str()]);
    }
    if context.debug {
        command.arg("--debug");
    }
    command
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Starts a process that makes a template, and logs where the driver does.
pub fn maker(driver: &HiddenArgs, order: &Order) -> io::Result<Child> {
    let mut command = Command::new(OURSELVES);
    command.arg("template-maker");
    if let Some(log) = &driver.log {
        command
            .arg("--log")
            .arg(log)
            .args(["--log-format", driver.log_format.as_str()]);
    }
    if driver.debug {
        command.arg("--debug");
    }
    let mut maker = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // A page that fits the pipe: nobody waits.
    let written = match maker.stdin.take() {
        Some(mut stdin) => stdin.write_all(&serde_json::to_vec(order)?),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    if written.is_err() {
        maker.kill()?;
    }
    written.map(|()| maker)
}

/// Starts a proxy that speaks over `socket`; `terminal` becomes its controlling terminal.
/// With `remove_from` it removes the container from that state directory when it has ended; with `rootfs` that is what
/// the file system looks like to it.
pub fn proxy(
    id: &str,
    socket: UnixStream,
    terminal: Option<OwnedFd>,
    remove_from: Option<&Path>,
    rootfs: Option<&Path>,
) -> io::Result<Child> {
    let mut command = ourselves();
    command.args(["proxy", "--id", id]);
    if terminal.is_some() {
        command.arg("--terminal");
    }
    if let Some(root) = remove_from {
        command.arg("--remove-from").arg(root);
    }
    if let Some(rootfs) = rootfs {
        command.arg("--rootfs").arg(rootfs);
    }
    let stdout = terminal.map_or_else(Stdio::null, Stdio::from);
    command
        .stdin(OwnedFd::from(socket))
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
}

/// Closes every descriptor beyond stdio that came along: they belong to a caller who waits for their ends.
pub fn close_inherited() -> Result<()> {
    for number in inherited().context("cannot list our descriptors")? {
        // Gone already: the one that listed them.
        let _gone = nix::unistd::close(number);
    }
    Ok(())
}

/// Takes our name and the socket from stdin, and closes what came along.
pub fn adopt_socket() -> Result<UnixStream> {
    // The kernel has called us by the file's name, which is "exe".
    rustix::thread::set_name(c"cofferdam").context("cannot set our name")?;
    close_inherited()?;
    let socket = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot take the socket")?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot release stdin")?;
    Ok(socket.into())
}

fn inherited() -> io::Result<Vec<i32>> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let numbers = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers.filter(|&number: &i32| number > 2).collect())
}

/// The pid of a child as the kernel counts.
pub fn pid(child: &Child) -> i32 {
    child.id().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_open_descriptors() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(
            inherited()
                .unwrap()
                .contains(&std::os::fd::AsRawFd::as_raw_fd(&file))
        );
    }
}
