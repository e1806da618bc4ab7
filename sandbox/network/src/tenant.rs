//! Somebody to be found in a network namespace.

use std::convert::Infallible;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::error::NetworkError;
use crate::namespace::Namespace;

/// A thread that does nothing but be in a network namespace, for programs that know namespaces by pids only
/// (`/proc/PID/ns/net`). Dropping it ends the thread.
#[derive(Debug)]
pub struct Tenant {
    pid: u32,
    /// Hung up before the thread is waited for.
    line: Option<mpsc::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Tenant {
    /// One in this namespace.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`] when it cannot be entered.
    pub fn of(namespace: &Namespace) -> Result<Self, NetworkError> {
        let (line, end) = mpsc::channel::<Infallible>();
        let (sender, moved_in) = mpsc::sync_channel(1);
        let handle = namespace.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("tenant".to_owned())
            .spawn(move || {
                let entered = handle.move_in();
                let stays = entered.is_ok();
                let told = sender.send(entered.map(|()| rustix::thread::gettid()));
                if stays && told.is_ok() {
                    // Nothing is ever sent: it ends when the other side is gone.
                    let _end = end.recv();
                }
            })
            .map_err(|source| namespace.failed(source))?;
        let pid = moved_in
            .recv()
            .map_err(|_| namespace.failed(std::io::Error::other("a thread ended early")))??;
        Ok(Self {
            pid: pid.as_raw_nonzero().get().cast_unsigned(),
            line: Some(line),
            thread: Some(thread),
        })
    }

    /// What finds the namespace in `/proc`: the thread's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        drop(self.line.take());
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_in_its_namespace_until_it_is_dropped() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: network namespaces need root");
        }
        let namespace = Namespace::new().unwrap();
        let tenant = Tenant::of(&namespace).unwrap();
        let path = format!("/proc/{}/ns/net", tenant.pid());
        let seen = Namespace::open(path.as_ref()).unwrap();
        assert_eq!(seen.identity().unwrap(), namespace.identity().unwrap());
        assert!(!seen.is_hosts().unwrap());
        drop(tenant);
        assert!(Namespace::open(path.as_ref()).is_err());
    }
}
