//! Network namespaces.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::NetworkError;

/// A network namespace, kept alive by a descriptor.
#[derive(Debug)]
pub struct Namespace {
    handle: OwnedFd,
    path: PathBuf,
    unfinished: bool,
}

/// What tells one namespace from another as long as both exist: device and inode.
pub type Identity = (u64, u64);

impl Namespace {
    /// The namespace that a path stands for: a mount below `/run/netns`, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`] when there is none.
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Namespace {
            path: path.to_owned(),
            source,
        };
        let handle = File::open(path).map_err(failed)?;
        let namespace = Self {
            handle: handle.into(),
            path: path.to_owned(),
            unfinished: false,
        };
        // The only way to see that a file is one: a plain file would be found out much later.
        namespace.enter(|| Ok(()))?;
        Ok(namespace)
    }

    /// A new one, with nothing but loopback, for as long as this value lives.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`] when there can be none.
    pub fn new() -> Result<Self, NetworkError> {
        let path = PathBuf::from("/proc/thread-self/ns/net");
        let failed = |source| NetworkError::Namespace {
            path: path.clone(),
            source,
        };
        let handle = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_for_good(None)?;
                File::open(&path)
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))
        });
        Ok(Self {
            handle: handle.map_err(failed)?.into(),
            path,
            unfinished: true,
        })
    }

    /// The same, when its first interfaces may still be on their way.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self {
            unfinished: true,
            ..self
        }
    }

    /// Whether its first interfaces may still be on their way.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells it from others.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn identity(&self) -> io::Result<Identity> {
        identity(&self.handle)
    }

    /// Whether it is the one that the calling thread or PID 1 is in: the host's.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn is_hosts(&self) -> io::Result<bool> {
        let this = self.identity()?;
        if identity(File::open("/proc/thread-self/ns/net")?)? == this {
            return Ok(true);
        }
        // Nobody may look at PID 1 of a container that the runtime itself runs in.
        match File::open("/proc/1/ns/net") {
            Ok(first) => Ok(identity(first)? == this),
            Err(_) => Ok(false),
        }
    }

    /// The same once more.
    pub(crate) fn try_clone(&self) -> Result<Self, NetworkError> {
        let handle = self.handle.try_clone();
        Ok(Self {
            handle: handle.map_err(|source| self.failed(source))?,
            path: self.path.clone(),
            unfinished: self.unfinished,
        })
    }

    /// Takes the calling thread into it.
    pub(crate) fn move_in(&self) -> Result<(), NetworkError> {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| self.failed(errno.into()))
    }

    pub(crate) fn failed(&self, source: io::Error) -> NetworkError {
        NetworkError::Namespace {
            path: self.path.clone(),
            source,
        }
    }

    /// Runs something in it, on a thread of its own: the caller's never leaves its namespace.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`] when it cannot be entered, and those of `work`.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, NetworkError> + Send,
    ) -> Result<T, NetworkError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || {
                    self.move_in()?;
                    work()
                })
                .map_err(|source| self.failed(source))?;
            thread
                .join()
                .unwrap_or_else(|_| Err(self.failed(io::Error::other("a thread ended early"))))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn identity(handle: impl AsFd) -> io::Result<Identity> {
    let status = rustix::fs::fstat(handle)?;
    Ok((status.st_dev, status.st_ino))
}

/// Moves the calling thread into a network namespace: the one at `path`, or a new one. Children started by this thread
/// are in it too.
///
/// # Errors
/// The operating system's answer.
pub fn enter_for_good(path: Option<&Path>) -> io::Result<()> {
    match path {
        Some(path) => {
            let handle = File::open(path)?;
            Ok(move_into_link_name_space(
                handle.as_fd(),
                Some(LinkNameSpaceType::Network),
            )?)
        }
        None => Ok(nix::sched::unshare(CloneFlags::CLONE_NEWNET)?),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A new one whose loopback is up; none without the right to make one.
    pub(crate) fn with_loopback() -> Option<Namespace> {
        let namespace = Namespace::new()
            .inspect_err(|error| eprintln!("SKIPPED: {error} (root?)"))
            .ok()?;
        let raised = namespace.enter(|| {
            let mut socket = cofferdam_netlink::Socket::open().expect("a socket");
            let index = crate::link::index(&mut socket, "lo").expect("loopback");
            crate::link::switch_on(&mut socket, index).expect("switched on");
            Ok(())
        });
        raised.expect("a namespace");
        Some(namespace)
    }
}
