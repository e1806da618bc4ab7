//! Starting the file servers.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use backend_process::{Child, Confinement, Program};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with,
};

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
        confinement: Confinement::default(),
    }
    .spawn()?;
    Ok((child, client))
}

/// A listening socket without a name, and the one connection that waits in it: `virtiofsd` takes listeners only.
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
    let client = socket(SocketFlags::NONBLOCK)?;
    connect(&client, &getsockname(&listener)?)?;
    rustix::io::ioctl_fionbio(&client, false)?;
    Ok((listener, client))
}
