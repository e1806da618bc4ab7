//! The process that makes a template beside a container that has just been started.
//!
//! A program of ours starts itself again for it, with arguments that only it knows, and the order on standard input.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::{Made, Order, make};
use crate::cgroup;
use crate::error::SandboxError;

/// The running program, also when its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

/// No order is longer.
const ORDER_LIMIT: u64 = 64 << 10;

/// The lowest priority: containers come first.
const NICENESS: i32 = 19;

/// Starts the calling program again, as `name` with `arguments`: it must call [`serve`] then. The caller reaps it.
///
/// # Errors
/// When it cannot be started or told the order.
pub fn start(
    name: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    order: &Order,
) -> io::Result<Child> {
    let text = serde_json::to_vec(order)?;
    let mut maker = Command::new(OURSELVES)
        .arg0(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // A page that fits the pipe: nobody waits.
    let written = match maker.stdin.take() {
        Some(mut stdin) => stdin.write_all(&text),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    if written.is_err() {
        maker.kill()?;
        maker.wait()?;
    }
    written.map(|()| maker)
}

/// Makes the template whose order is on standard input, in a session of its own and at the lowest priority.
///
/// # Errors
/// When the order cannot be understood, the process cannot be set up, or as [`make`].
pub fn serve() -> Result<Made, SandboxError> {
    // No signal of the caller's terminal reaches it.
    rustix::process::setsid()
        .map_err(io::Error::from)
        .map_err(SandboxError::system("leave the session"))?;
    std::env::set_current_dir("/").map_err(SandboxError::system("change to /"))?;
    rustix::process::nice(NICENESS)
        .map_err(io::Error::from)
        .map_err(SandboxError::system("lower the priority"))?;
    let mut text = String::new();
    io::stdin()
        .take(ORDER_LIMIT)
        .read_to_string(&mut text)
        .map_err(SandboxError::system("read the order of a template"))?;
    let order: Order = serde_json::from_str(&text)
        .map_err(io::Error::from)
        .map_err(SandboxError::system("understand the order of a template"))?;
    if order.accounted {
        cgroup::leave()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SandboxError::system("start the runtime"))?;
    runtime.block_on(make(&order, false))
}
