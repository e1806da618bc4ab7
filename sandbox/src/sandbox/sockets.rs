//! A sandbox's socket for programs of the host that want to be connected to programs of its guest, and the other way round.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend_api::{Dial, Sockets};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::SandboxError;

/// The name of the socket in the sandbox's folder.
const NAME: &str = "vsock.sock";

/// The socket in its folder. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Door {
    folder: Arc<Folder>,
}

/// A folder that is reached by its descriptor: addresses of Unix sockets are short, and paths may be long.
#[derive(Debug)]
struct Folder(File);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

impl Door {
    /// Makes the socket, `vsock.sock` in this folder, which only root may use.
    pub(super) fn open(folder: &Path) -> Result<(Self, Sockets), SandboxError> {
        let made = || {
            let door = Self {
                folder: Arc::new(Folder(File::open(folder)?)),
            };
            let path = door.folder.path(NAME);
            // Of a driver of this name that was killed.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            let sockets = Sockets {
                listener: listener.into(),
                dial: Arc::clone(&door.folder) as Arc<dyn Dial>,
            };
            Ok((door, sockets))
        };
        let what = format!("make {}", folder.join(NAME).display());
        made().map_err(SandboxError::system(what))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // With its folder it may be gone already.
        let _ = fs::remove_file(self.folder.path(NAME));
    }
}

impl Dial for Folder {
    /// `vsock.sock_PORT` in the same folder is where a program of the host listens.
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let path = self.path(&format!("{NAME}_{port}"));
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_guest_reaches_who_listens_in_the_folder() {
        // Longer than an address may be.
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("x".repeat(120));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join(NAME), b"left by another").expect("writes");
        let (door, sockets) = Door::open(&folder).expect("opens");
        let mode = fs::metadata(folder.join(NAME))
            .expect("a socket")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let inside = Folder(File::open(&folder).expect("opens"));
        let nobody = sockets.dial.dial(52).expect_err("nobody listens");
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(inside.path("vsock.sock_52")).expect("binds");
        let mut near = UnixStream::from(sockets.dial.dial(52).expect("connects"));
        let (mut far, _) = listener.accept().expect("accepts");
        near.write_all(b"hello").expect("writes");
        let mut word = [0; 5];
        far.read_exact(&mut word).expect("reads");
        assert_eq!(&word, b"hello");
        let wait = near.read(&mut word).expect_err("nothing to read");
        assert_eq!(wait.kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        let refused = sockets.dial.dial(52).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        drop(door);
        assert!(!folder.join(NAME).exists());
    }
}
