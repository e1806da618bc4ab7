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

use crate::patience::Manner;

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
    /// What is watched under this token is ready. Nothing is told of a watch that was dropped before; one that is dropped by
    /// another thread just now may still be told of.
    fn ready(&self, token: u32, flags: Flags);
}

/// The loop. Clones are the same loop.
#[derive(Clone)]
pub struct EventLoop {
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    watches: Mutex<Watches>,
    stop: EventFd,
    manner: Arc<Manner>,
}

/// Who is told, by the number of a watch. No number comes twice, so that nobody is told of a watch that is gone: an event
/// may have been fetched before.
#[derive(Default)]
struct Watches {
    last: u64,
    all: HashMap<u64, (Weak<dyn Handler>, u32)>,
}

/// The number under which the loop itself watches.
const STOP: u64 = 0;

/// How many events are taken at once.
const BATCH: usize = 64;

const NO_EVENT: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

/// As `epoll_wait` takes it.
const FOREVER: i32 = -1;

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
                watches: Mutex::default(),
                stop,
                manner: Arc::default(),
            }),
        })
    }

    /// A way to watch descriptors in the name of a handler. The handler is not kept alive by it.
    #[must_use]
    pub fn registrar(&self, handler: Weak<dyn Handler>) -> Registrar {
        Registrar {
            shared: Arc::clone(&self.shared),
            handler,
        }
    }

    /// Waits and tells handlers until [`stop`](Self::stop). It costs nothing while nothing happens.
    ///
    /// # Errors
    /// When the operating system refuses to wait.
    pub fn run(&self) -> io::Result<()> {
        let mut events = [NO_EVENT; BATCH];
        while self.turn(&mut events, FOREVER)?.is_some() {}
        Ok(())
    }

    /// Tells handlers of what is ready, once, and waits at most so many milliseconds for that: how many were told. For
    /// tests whose devices are to do nothing meanwhile.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[cfg(feature = "testing")]
    pub fn serve(&self, patience: u16) -> io::Result<usize> {
        let told = self.turn(&mut [NO_EVENT; BATCH], i32::from(patience))?;
        Ok(told.unwrap_or(0))
    }

    /// How many events there were; none at the end.
    fn turn(
        &self,
        events: &mut [libc::epoll_event; BATCH],
        patience: i32,
    ) -> io::Result<Option<usize>> {
        self.shared.manner.adopt();
        // SAFETY: `events` has room for BATCH events and lives on.
        let count = unsafe {
            libc::epoll_wait(
                self.shared.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                BATCH as i32,
                patience,
            )
        };
        let count = match check(count) {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            let number = event.u64;
            if number == STOP {
                return Ok(None);
            }
            let told = self.shared.lock().all.get(&number).cloned();
            if let Some((handler, token)) = told
                && let Some(handler) = handler.upgrade()
            {
                handler.ready(token, Flags(event.events));
            }
        }
        Ok(Some(count))
    }

    /// Ends [`run`](Self::run), once it has told what it is telling.
    pub fn stop(&self) {
        // It fails only when the counter is full, and then it is ready.
        let _ = self.shared.stop.write(1);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches descriptors in one handler's name. Clones are for the same handler.
#[derive(Clone)]
pub struct Registrar {
    shared: Arc<Shared>,
    handler: Weak<dyn Handler>,
}

impl Registrar {
    /// Watches a descriptor until the answer is dropped. Drop it before the descriptor is closed.
    ///
    /// # Errors
    /// When the descriptor can't be watched: a plain file, or one that is watched already.
    pub fn watch(&self, fd: &impl AsRawFd, flags: Flags, token: u32) -> io::Result<Watch> {
        let fd = fd.as_raw_fd();
        let mut watches = self.shared.lock();
        // One each nanosecond would take centuries to come round.
        let number = watches.last + 1;
        control(&self.shared.epoll, libc::EPOLL_CTL_ADD, fd, flags, number)?;
        watches.last = number;
        watches.all.insert(number, (self.handler.clone(), token));
        drop(watches);
        Ok(Watch {
            shared: Arc::clone(&self.shared),
            fd,
            number,
        })
    }

    pub(crate) fn manner(&self) -> Arc<Manner> {
        Arc::clone(&self.shared.manner)
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").finish_non_exhaustive()
    }
}

/// A descriptor that is watched.
pub struct Watch {
    shared: Arc<Shared>,
    fd: RawFd,
    number: u64,
}

impl Watch {
    /// Watches for something else from now on.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn change(&self, flags: Flags) -> io::Result<()> {
        let epoll = &self.shared.epoll;
        control(epoll, libc::EPOLL_CTL_MOD, self.fd, flags, self.number)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A descriptor that is closed already is not watched any more.
        let _ = control(
            &self.shared.epoll,
            libc::EPOLL_CTL_DEL,
            self.fd,
            Flags::NONE,
            self.number,
        );
        self.shared.lock().all.remove(&self.number);
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

    /// Whoever is told first drops the other's watch.
    struct Rival {
        other: Arc<Mutex<Option<Watch>>>,
        told: mpsc::Sender<u32>,
    }

    impl Handler for Mutex<Rival> {
        fn ready(&self, token: u32, _flags: Flags) {
            let rival = self.lock().expect("a lock");
            drop(rival.other.lock().expect("a lock").take());
            rival.told.send(token).expect("a receiver");
        }
    }

    #[test]
    fn an_event_that_was_fetched_is_not_told_once_its_watch_is_gone() {
        let events = EventLoop::new().expect("a loop");
        let (sender, told) = mpsc::channel();
        let event = || EventFd::new(libc::EFD_NONBLOCK).expect("an event");
        let ready = [event(), event()];
        let watches = [(); 2].map(|()| Arc::new(Mutex::new(None)));
        let mut handlers = Vec::new();
        for (number, token) in [(0, 0), (1, 1)] {
            let handler: Arc<dyn Handler> = Arc::new(Mutex::new(Rival {
                other: Arc::clone(&watches[1 - number]),
                told: sender.clone(),
            }));
            let registrar = events.registrar(Arc::downgrade(&handler));
            let watch = registrar.watch(&ready[number], Flags::READ_EDGE, token);
            *watches[number].lock().expect("a lock") = Some(watch.expect("watches"));
            handlers.push(handler);
        }
        // Both in one batch.
        for event in &ready {
            event.write(1).expect("writes");
        }
        let running = std::thread::spawn({
            let events = events.clone();
            move || events.run()
        });
        told.recv().expect("one is told");
        events.stop();
        running.join().expect("no panic").expect("ends");
        assert!(told.try_recv().is_err(), "the other's watch was gone");
    }
}
