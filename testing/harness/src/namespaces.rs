//! Network namespaces of a test's own: nothing outside of them is touched.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::outcome::{Outcome, finish};

const LIMIT: Duration = Duration::from_secs(60);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Network namespaces. Dropping them removes them with all that is in them.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    names: Vec<&'static str>,
}

impl Namespaces {
    /// Makes namespaces by these names.
    ///
    /// # Panics
    /// When one cannot be made.
    #[must_use]
    pub fn new(names: &[&'static str]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut all = Self {
            prefix: format!("cft{}-{number}", std::process::id()),
            names: Vec::new(),
        };
        for name in names {
            ok(ip().args(["netns", "add", &all.full(name)]));
            all.names.push(name);
            all.ip(name, "link set lo up");
        }
        all
    }

    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The path of one.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.full(name))
    }

    /// Runs `ip` in one, with these words, and wants success.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, name: &str, words: &str) -> String {
        ok(ip().args(["-n", &self.full(name)]).args(words.split(' ')))
    }

    /// Connects two by a pair of interfaces with these names, switched on.
    ///
    /// # Panics
    /// When that fails.
    pub fn connect(&self, (one, first): (&str, &str), (other, second): (&str, &str)) {
        let other_full = self.full(other);
        self.ip(
            one,
            &format!("link add {first} type veth peer name {second} netns {other_full}"),
        );
        self.ip(one, &format!("link set {first} up"));
        self.ip(other, &format!("link set {second} up"));
    }

    /// A command that runs in one; mounts are those of everybody.
    #[must_use]
    pub fn command(&self, name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path(name).display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a busybox applet in one.
    #[must_use]
    pub fn busybox(&self, name: &str, words: &str) -> Outcome {
        let mut command = self.command(name, "busybox");
        finish(command.args(words.split(' ')), LIMIT)
    }

    /// Runs something on a thread in one.
    ///
    /// # Panics
    /// When it cannot be entered, and when the work panics.
    pub fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.path(name), work)
    }

    /// Hears every frame that arrives in one.
    ///
    /// # Panics
    /// When that is not allowed.
    #[must_use]
    pub fn listen(&self, name: &str) -> Frames {
        // ETH_P_ALL, as it travels.
        let everything = Protocol::from_raw(0x0300.try_into().expect("not zero"));
        let socket = self.inside(name, || {
            socket_with(
                AddressFamily::PACKET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(everything),
            )
        });
        Frames(socket.expect("a packet socket"))
    }

    /// Words of traffic control in one: what is left of a sandbox would be among them.
    #[must_use]
    pub fn traits(&self, name: &str) -> String {
        let mut tc = self.command(name, "tc");
        let mut text = ok(tc.arg("qdisc"));
        text += &self.ip(name, "-o link");
        text
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let deleted = ip().args(["netns", "delete", &self.full(name)]).status();
            if !deleted
                .as_ref()
                .is_ok_and(std::process::ExitStatus::success)
            {
                eprintln!("namespace {} is left: {deleted:?}", self.full(name));
            }
        }
    }
}

/// Frames that arrive.
#[derive(Debug)]
pub struct Frames(OwnedFd);

impl Frames {
    /// The next one; nothing when none comes within the limit.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn next(&self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        if poll(&mut ready, Some(&limit))? == 0 {
            return Ok(None);
        }
        let mut buffer = [MaybeUninit::uninit(); 70_000];
        let ((frame, _), _) = recv(&self.0, &mut buffer, RecvFlags::empty())?;
        Ok(Some(frame.to_vec()))
    }
}

fn ip() -> Command {
    Command::new("ip")
}

fn ok(command: &mut Command) -> String {
    let done = finish(command, LIMIT);
    assert_eq!(done.code, 0, "{command:?}: {done:?}");
    done.stdout
}

/// Runs something on a thread in a network namespace.
///
/// # Panics
/// When it cannot be entered, and when the work panics.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(namespace).expect("a namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("a way into the namespace");
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
