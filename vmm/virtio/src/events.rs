//! One thread that waits for everything.
#![expect(unsafe_code, reason = "epoll by libc")]
// UNSAFETY: calls of epoll with pointers to values on the stack that outlive the call. Descriptors are borrowed, and a
// watch is taken off before its descriptor's owner can close it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vmm_sys_util::eventfd::EventFd;

/// What a descriptor is ready for, or is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Something can be read, or the end.
    pub const READ: Self = Self(libc::EPOLLIN as u32);
    /// Something can be written.
    pub const WRITE: Self = Self(libc::EPOLLOUT as u32);
    /// Either.
    pub const BOTH: Self = Self(Self::READ.0 | Self::WRITE.0);
    /// Told once per change instead of as long as it is so.
    pub const READ_EDGE: Self = Self(Self::READ.0 | libc::EPOLLET as u32);
    /// Either, told once per change.
    pub const BOTH_EDGE: Self = Self(Self::BOTH.0 | libc::EPOLLET as u32);
    /// Nothing but errors and the other side's end, of which every watch is told.
    pub const NONE: Self = Self(0);

    /// Whether it can be read; also when the other side has hung up.
    #[must_use]
    pub fn readable(self) -> bool {
        self.0 & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }

    /// Whether it can be written; also when that would fail.
    #[must_use]
    pub fn writable(self) -> bool {
        self.0 & (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }

    /// Whether the other side has hung up.
    #[must_use]
    pub fn hung_up(self) -> bool {
        self.0 & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }
}

/// Someone who watches descriptors.
pub trait Handler: Send + Sync {
    /// What was watched under this token is ready. May be told late, after the watch was dropped.
    fn ready(&self, token: u32, flags: Flags);
}

/// The loop. Clones are the same loop.
#[derive(Clone)]
pub struct EventLoop {
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    handlers: Mutex<Handlers>,
    stop: EventFd,
}

#[derive(Default)]
struct Handlers {
    next: u32,
    all: HashMap<u32, Weak<dyn Handler>>,
}

/// The number under which the loop itself watches: no handler gets it.
const STOP: u64 = u64::MAX;

/// How many events are taken at once.
const BATCH: usize = 64;

impl EventLoop {
    /// A loop that watches nothing.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: it was made in the line above and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        control(
            &epoll,
            libc::EPOLL_CTL_ADD,
            stop.as_raw_fd(),
            Flags::READ,
            STOP,
        )?;
        Ok(Self {
            shared: Arc::new(Shared {
                epoll,
                handlers: Mutex::default(),
                stop,
            }),
        })
    }

    /// A way to watch descriptors in the name of a handler. The handler is not kept alive by it.
    #[must_use]
    pub fn registrar(&self, handler: Weak<dyn Handler>) -> Registrar {
        let mut handlers = self.shared.lock();
        let number = handlers.next;
        // Only as many as a machine has devices, and those it had: the number never comes round.
        handlers.next = number.wrapping_add(1);
        handlers.all.insert(number, handler);
        drop(handlers);
        Registrar {
            registration: Arc::new(Registration {
                shared: Arc::clone(&self.shared),
                number,
            }),
        }
    }

    /// Waits and tells handlers until [`stop`](Self::stop). It costs nothing while nothing happens.
    ///
    /// # Errors
    /// When the operating system refuses to wait.
    pub fn run(&self) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        loop {
            // SAFETY: `events` has room for BATCH events and lives on.
            let count = unsafe {
                libc::epoll_wait(
                    self.shared.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    BATCH as i32,
                    -1,
                )
            };
            let count = match check(count) {
                Ok(count) => usize::try_from(count).unwrap_or(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let data = event.u64;
                if data == STOP {
                    return Ok(());
                }
                let (number, token) = ((data >> 32) as u32, data as u32);
                let handler = self.shared.lock().all.get(&number).and_then(Weak::upgrade);
                if let Some(handler) = handler {
                    handler.ready(token, Flags(event.events));
                }
            }
        }
    }

    /// Ends [`run`](Self::run), once it has told what it is telling.
    pub fn stop(&self) {
        // It fails only when the counter is full, and then it is ready.
        let _ = self.shared.stop.write(1);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches descriptors in one handler's name. Clones are for the same handler.
#[derive(Clone)]
pub struct Registrar {
    registration: Arc<Registration>,
}

struct Registration {
    shared: Arc<Shared>,
    number: u32,
}

impl Registrar {
    /// Watches a descriptor until the answer is dropped. Drop it before the descriptor is closed.
    ///
    /// # Errors
    /// When the descriptor can't be watched: a plain file, or one that is watched already.
    pub fn watch(&self, fd: &impl AsRawFd, flags: Flags, token: u32) -> io::Result<Watch> {
        let fd = fd.as_raw_fd();
        let watch = Watch {
            registration: Arc::clone(&self.registration),
            fd,
            data: u64::from(self.registration.number) << 32 | u64::from(token),
        };
        let added = control(
            &watch.registration.shared.epoll,
            libc::EPOLL_CTL_ADD,
            fd,
            flags,
            watch.data,
        );
        match added {
            Ok(()) => Ok(watch),
            Err(error) => {
                // What was not added must not be taken off: it may be another's watch.
                std::mem::forget(watch);
                Err(error)
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.lock().all.remove(&self.number);
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").finish_non_exhaustive()
    }
}

/// A descriptor that is watched.
pub struct Watch {
    registration: Arc<Registration>,
    fd: RawFd,
    data: u64,
}

impl Watch {
    /// Watches for something else from now on.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn change(&self, flags: Flags) -> io::Result<()> {
        let epoll = &self.registration.shared.epoll;
        control(epoll, libc::EPOLL_CTL_MOD, self.fd, flags, self.data)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let epoll = &self.registration.shared.epoll;
        // A descriptor that is closed already is not watched any more.
        let _ = control(epoll, libc::EPOLL_CTL_DEL, self.fd, Flags::NONE, 0);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

fn control(epoll: &OwnedFd, operation: i32, fd: RawFd, flags: Flags, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: flags.0,
        u64: data,
    };
    // SAFETY: the event lives on the stack during the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &mut event) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Sender(Mutex<mpsc::Sender<(u32, bool)>>);

    impl Handler for Sender {
        fn ready(&self, token: u32, flags: Flags) {
            let sender = self.0.lock().expect("a lock");
            sender.send((token, flags.readable())).expect("a receiver");
        }
    }

    #[test]
    fn a_watch_tells_until_it_is_dropped() {
        let events = EventLoop::new().expect("a loop");
        let (sender, told) = mpsc::channel();
        let handler: Arc<dyn Handler> = Arc::new(Sender(Mutex::new(sender)));
        let registrar = events.registrar(Arc::downgrade(&handler));
        let one = EventFd::new(libc::EFD_NONBLOCK).expect("an event");
        let two = EventFd::new(libc::EFD_NONBLOCK).expect("an event");
        let watched = registrar.watch(&one, Flags::READ_EDGE, 7).expect("watches");
        assert!(registrar.watch(&one, Flags::READ, 8).is_err(), "twice");
        let other = registrar.watch(&two, Flags::READ_EDGE, 9).expect("watches");
        let running = std::thread::spawn({
            let events = events.clone();
            move || events.run()
        });
        one.write(1).expect("writes");
        assert_eq!(told.recv().expect("told"), (7, true));
        drop(watched);
        one.write(1).expect("writes");
        two.write(1).expect("writes");
        // The first would have come before.
        assert_eq!(told.recv().expect("told"), (9, true));
        drop(other);
        events.stop();
        running.join().expect("no panic").expect("ends");
        assert!(told.try_recv().is_err());
    }
}
