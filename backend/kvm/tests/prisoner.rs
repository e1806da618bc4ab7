//! A VMM that its guest has taken over gets nowhere: a program that is started and confined as one tries to.
//!
//! Each wall is tried without those behind it: namespaces and user alone, then Landlock, then the lists of system calls.
//! Needs root, and no KVM.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use backend_api::Privileges;
use backend_process::{Child, Exit, Program};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, pipe};
use tokio::time::timeout;

/// A user that no other software has.
const VMM_USER: Privileges = Privileges::Drop {
    uid: 64_123,
    gid: 64_123,
};

const PATIENCE: Duration = Duration::from_secs(30);

const SIGSYS: i32 = 31;

/// The names of what is tried that no list allows.
const FORBIDDEN: [&str; 21] = [
    "host-file",
    "device",
    "process",
    "upwards",
    "new-file",
    "new-folder",
    "list",
    "mount",
    "root",
    "execute",
    "fork",
    "become-root",
    "tcp",
    "host-socket",
    "raw-socket",
    "see",
    "kill-all",
    "trace",
    "read-memory",
    "descriptor",
    "shared-memory",
];

/// The program, which is built as the VMM is: without a loader there is no other that could be started.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("a folder");
        let triple = "x86_64-unknown-linux-gnu";
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "vmm-jail",
                "--example",
                "prisoner",
            ])
            .args(["--target", triple, "--target-dir"])
            .arg(target)
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-C target-feature=+crt-static",
            )
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success());
        target.join(triple).join("debug/examples/prisoner")
    })
}

/// A prisoner behind some walls, and what it says.
struct Prisoner {
    child: Child,
    answers: Receiver,
    messages: Receiver,
}

impl Prisoner {
    fn start(walls: &str, other: u32, names: &[&str]) -> Self {
        Self::of(false, walls, other, names)
    }

    /// One of a machine with disks, or without.
    fn of(disks: bool, walls: &str, other: u32, names: &[&str]) -> Self {
        let (control, answers) = pipe().expect("a pipe");
        let control = control.into_blocking_fd().expect("a descriptor");
        let (stderr, messages) = pipe().expect("a pipe");
        let mut args = vec![
            control.as_raw_fd().to_string(),
            walls.to_owned(),
            other.to_string(),
        ];
        args.extend(names.iter().map(ToString::to_string));
        let child = Program {
            path: program().to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            stdin: None,
            stderr: Some(stderr.into_blocking_fd().expect("a descriptor")),
            inherited: vec![control],
            network: None,
            groups: Vec::new(),
            confinement: backend_kvm::confinement(VMM_USER, disks),
        }
        .spawn()
        .expect("starts");
        Self {
            child,
            answers,
            messages,
        }
    }

    /// What it was answered, what it said otherwise, and how it ended.
    async fn end(mut self) -> (BTreeMap<String, i64>, String, Exit) {
        let (mut text, mut messages) = (String::new(), String::new());
        let all = async {
            self.answers.read_to_string(&mut text).await.expect("reads");
            self.messages
                .read_to_string(&mut messages)
                .await
                .expect("reads");
            self.child.wait().await.expect("ends")
        };
        let exit = timeout(PATIENCE, all).await.expect("it ends");
        let answers = text.lines().map(|line| {
            let (name, answer) = line.split_once(' ').expect("two words");
            (
                name.to_owned(),
                answer.parse().unwrap_or_else(|_| panic!("{line}")),
            )
        });
        (answers.collect(), messages, exit)
    }
}

fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn error(errno: Errno) -> i64 {
    -i64::from(errno.raw_os_error())
}

/// Memory that any process of this machine's IPC namespace finds by its key.
struct Segment(i32);

impl Segment {
    #[expect(unsafe_code, reason = "shared memory by libc")]
    fn new() -> Self {
        // SAFETY: numbers only.
        let segment = unsafe { libc::shmget(0x0c0f_fe2d, 4096, libc::IPC_CREAT | 0o666) };
        assert!(segment >= 0, "a segment");
        Self(segment)
    }
}

impl Drop for Segment {
    #[expect(unsafe_code, reason = "shared memory by libc")]
    fn drop(&mut self) {
        // SAFETY: the pointer is not looked at for this command.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// Another sandbox's process, of the same user.
fn neighbour() -> Prisoner {
    Prisoner::start("none", 0, &["wait"])
}

#[tokio::test(flavor = "current_thread")]
async fn namespaces_leave_nothing_to_reach() {
    if !possible() {
        return;
    }
    // What there would be to find on this machine.
    let name = SocketAddr::from_abstract_name("cofferdam-prisoner").expect("a name");
    let _listener = UnixListener::bind_addr(&name).expect("listens");
    let _segment = Segment::new();
    let neighbour = neighbour();
    let other = neighbour.child.pid().expect("it runs");
    let (answers, messages, exit) = Prisoner::start("none", other, &[]).end().await;
    assert_eq!(exit, Exit::Code(0), "{messages}");
    let expected = [
        ("environment", 0),
        // Input, output, messages and control.
        ("descriptors", 4),
        ("host-file", error(Errno::NOENT)),
        ("device", error(Errno::NOENT)),
        ("process", error(Errno::NOENT)),
        ("upwards", error(Errno::NOENT)),
        ("new-file", error(Errno::ROFS)),
        ("new-folder", error(Errno::ROFS)),
        // `.` and `..`.
        ("list", 48),
        ("mount", error(Errno::PERM)),
        ("root", error(Errno::PERM)),
        ("execute", error(Errno::NOENT)),
        ("become-root", error(Errno::PERM)),
        ("tcp", error(Errno::NETUNREACH)),
        ("host-socket", error(Errno::CONNREFUSED)),
        ("raw-socket", error(Errno::PERM)),
        ("see", error(Errno::SRCH)),
        ("trace", error(Errno::SRCH)),
        ("read-memory", error(Errno::SRCH)),
        ("descriptor", error(Errno::SRCH)),
        ("shared-memory", error(Errno::NOENT)),
    ];
    for (name, answer) in expected {
        assert_eq!(answers.get(name), Some(&answer), "{name}: {answers:?}");
    }
    assert!(neighbour.child.pid().is_some());
}

#[tokio::test(flavor = "current_thread")]
async fn landlock_leaves_not_even_the_empty_root() {
    if !possible() {
        return;
    }
    let (answers, messages, exit) = Prisoner::start("files", 1, &["list", "device", "new-folder"])
        .end()
        .await;
    assert_eq!(exit, Exit::Code(0), "{messages}");
    let listed = answers["list"];
    if answers["landlock"] < 1 {
        eprintln!("skipped: this kernel has no landlock");
        return;
    }
    assert_eq!(listed, error(Errno::ACCESS), "{answers:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn the_lists_end_every_attempt() {
    if !possible() {
        return;
    }
    let rings = ["ring-devices", "ring-vcpu"];
    for walls in ["setup", "main", "devices", "vcpu"]
        .into_iter()
        .chain(rings)
    {
        let ring = (walls != "setup").then_some("ring");
        for name in FORBIDDEN.into_iter().chain(ring) {
            let (answers, messages, exit) = Prisoner::start(walls, 1, &[name]).end().await;
            assert_eq!(
                exit,
                Exit::Signal(SIGSYS),
                "{walls}: {name}: {answers:?} {messages}"
            );
            assert_eq!(
                answers.len(),
                2,
                "it was confined and did nothing: {answers:?}"
            );
            assert!(messages.contains("is not allowed here"), "{messages}");
        }
    }
    // Who makes the machine may make one, where the host has them for us.
    let (answers, messages, exit) = Prisoner::of(true, "setup", 1, &["ring"]).end().await;
    assert_eq!(exit, Exit::Code(0), "{messages}");
    let refused = [Errno::PERM, Errno::NOSYS].map(error);
    let ring = answers["ring"];
    assert!(ring >= 0 || refused.contains(&ring), "{answers:?}");
}
