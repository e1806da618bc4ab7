//! Starting our own program again, as driver or proxy. It gets its socket as stdin.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use oci_spec::runtime::Spec;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandbox::network;
use sandbox::spec::{self, NetworkOf};
use sandbox::template::{self, Order};

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

/// Starts a child in the network namespace that a container's spec asks for: engines look there for the container's, to
/// put interfaces in.
pub fn in_network_of<T: Send>(
    spec: &Spec,
    start: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    // What a thread enters, its children are in; the caller stays where it is.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_network_of(spec)?;
            start()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))
    })
}

/// The network namespace that the calling thread was in when this was made, and is again when it is dropped.
#[derive(Debug)]
pub struct Home(File);

impl Home {
    /// Remembers where the calling thread is.
    pub fn remember() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let network = Some(LinkNameSpaceType::Network);
        if let Err(error) = move_into_link_name_space(self.0.as_fd(), network)
            && rustix::process::geteuid().is_root()
        {
            tracing::error!(%error, "cannot return to the host's network");
        }
    }
}

/// Takes the calling thread into the network namespace that a container's spec asks for.
pub fn enter_network_of(spec: &Spec) -> io::Result<()> {
    // Without root there is no entering, for engines neither.
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match spec::network(spec) {
        NetworkOf::New => network::enter_for_good(None),
        NetworkOf::Path(path) => network::enter_for_good(Some(&path)),
    }
}

/// Starts a process that makes a template, and logs where the driver does.
pub fn maker(driver: &HiddenArgs, order: &Order) -> io::Result<Child> {
    let mut arguments = vec![OsStr::new("template-maker")];
    if let Some(log) = &driver.log {
        arguments.extend(["--log".as_ref(), log.as_os_str()]);
        arguments.extend(["--log-format", driver.log_format.as_str()].map(OsStr::new));
    }
    if driver.debug {
        arguments.push("--debug".as_ref());
    }
    template::start(NAME, arguments, order)
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
