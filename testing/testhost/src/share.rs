//! Starting the file servers.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use backend_process::{Child, Confinement, Program};
use sandbox_share::private_listener;

/// Starts the program of this crate as a file server; gives QEMU's end of the connection too.
pub fn start(
    program: &Path,
    arguments: Vec<OsString>,
    messages: OwnedFd,
) -> io::Result<(Child, OwnedFd)> {
    let (listener, client) = private_listener()?;
    let child = Program {
        path: program.to_owned(),
        args: arguments,
        stdin: Some(listener),
        stderr: Some(messages),
        inherited: Vec::new(),
        network: None,
        groups: Vec::new(),
        confinement: Confinement::default(),
    }
    .spawn()?;
    Ok((child, client))
}
