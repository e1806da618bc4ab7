//! A child that is alone sees nothing of this machine. Needs root and a busybox that is linked statically.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use backend_process::{Child, Confinement, Exit, Identity, Limits, Program};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, pipe};
use tokio::time::timeout;

const BUSYBOX: &str = "/bin/busybox";

/// The program's own, not the test's: whatever it does wrong must end.
const PATIENCE: Duration = Duration::from_secs(20);

fn program(path: &str, script: &str) -> Program {
    Program {
        path: path.into(),
        args: ["sh", "-c", script].map(Into::into).into(),
        stdin: None,
        stderr: None,
        inherited: Vec::new(),
        network: None,
        groups: Vec::new(),
        confinement: Confinement {
            identity: Some(Identity {
                uid: 64_125,
                gid: 64_126,
                groups: Vec::new(),
            }),
            namespaces: true,
            alone: true,
            device: None,
            limits: Limits {
                descriptors: Some(20),
                // More than anybody has: it stays what it is.
                processes: Some(u64::MAX - 1),
                locked_bytes: Some(0),
            },
        },
    }
}

fn start(script: &str) -> (Child, Receiver) {
    let (sender, receiver) = pipe().expect("a pipe");
    let mut program = program(BUSYBOX, script);
    program.stderr = Some(sender.into_blocking_fd().expect("a descriptor"));
    (program.spawn().expect("starts"), receiver)
}

fn possible() -> bool {
    let possible = rustix::process::geteuid().is_root() && Path::new(BUSYBOX).exists();
    if !possible {
        eprintln!("skipped: needs root and {BUSYBOX}");
    }
    possible
}

/// A thread can be started here, and so can a child that is not alone.
fn nothing_sticks() {
    std::thread::spawn(|| {}).join().expect("a thread");
    let link = |name| fs::read_link(format!("/proc/thread-self/ns/{name}")).expect("a namespace");
    assert_eq!(link("pid"), link("pid_for_children"));
}

#[test]
fn namespaces_are_asked_for() {
    let mut program = program(BUSYBOX, "");
    program.confinement.namespaces = false;
    let error = program.spawn().expect_err("alone among others");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "current_thread")]
async fn inside_there_is_nothing() {
    if !possible() {
        return;
    }
    let script = "echo $$ $PPID $0 >&2; echo /* /.* >&2; cd .. && echo * >&2; echo > /file; set >&2; kill -9 -1; echo end >&2";
    let (mut child, mut stderr) = start(script);
    nothing_sticks();
    let mut text = String::new();
    let read = timeout(PATIENCE, stderr.read_to_string(&mut text));
    read.await.expect("it ends").expect("reads");
    assert_eq!(child.wait().await.expect("ends"), Exit::Code(0));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["1 0 sh", "/* /. /..", "*"], "{text}");
    assert!(lines[3].ends_with("Read-only file system"), "{text}");
    // What the shell sets itself, and nothing of ours.
    let own = [
        "FUNCNAME", "HOSTNAME", "IFS", "LINENO", "OLDPWD", "OPTIND", "PATH", "PPID", "PS1", "PS2",
        "PS4", "PWD", "SHLVL",
    ];
    for line in lines[4..].iter().filter(|line| line.contains('=')) {
        let (name, _) = line.split_once('=').expect("an assignment");
        assert!(own.contains(&name), "{text}");
    }
    assert_eq!(*lines.last().expect("a line"), "end", "{text}");
}

#[tokio::test(flavor = "current_thread")]
async fn outside_it_is_seen_to_be_alone() {
    if !possible() {
        return;
    }
    let (child, mut stderr) = start("echo ready >&2; while :; do :; done");
    let mut byte = [0];
    let read = timeout(PATIENCE, stderr.read_exact(&mut byte));
    read.await.expect("it starts").expect("reads");
    let pid = child.pid().expect("it runs");
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("a process");
    for name in ["mnt", "net", "ipc", "uts", "pid"] {
        let of = |process: &str| {
            fs::read_link(format!("/proc/{process}/ns/{name}")).expect("a namespace")
        };
        assert_ne!(of(&pid.to_string()), of("self"), "{name}");
    }
    let status = file("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.expect("a field")
            .split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
    };
    assert_eq!(field("NSpid:")[1..], ["1"]);
    assert_eq!(field("Uid:"), ["64125"; 4]);
    assert_eq!(field("Gid:"), ["64126"; 4]);
    assert!(field("Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(file("environ"), "");
    let mounts = file("mountinfo");
    let mounts: Vec<_> = mounts.lines().collect();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    let options: BTreeSet<_> = mounts[0]
        .split(' ')
        .nth(5)
        .expect("options")
        .split(',')
        .collect();
    assert!(
        options.is_superset(&["ro", "nosuid", "nodev", "noexec"].into()),
        "{mounts:?}"
    );
    assert!(mounts[0].contains(" - tmpfs "), "{mounts:?}");
    let root = fs::read_dir(format!("/proc/{pid}/root")).expect("a root");
    assert_eq!(root.count(), 0);
    let limits = file("limits");
    let processes = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
    let processes = processes.map_or((u64::MAX - 1).to_string(), |most| most.to_string());
    for (name, most) in [
        ("Max core file size", "0"),
        ("Max open files", "20"),
        ("Max processes", processes.as_str()),
        ("Max locked memory", "0"),
    ] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a limit");
        let values: Vec<_> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(values, [most, most], "{name}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_program_that_cannot_start_leaves_nothing_behind() {
    if !possible() {
        return;
    }
    // The second needs a loader, which is not in an empty root.
    for path in ["/nowhere/program", "/bin/sh"] {
        let error = program(path, "true").spawn().expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{path}");
        nothing_sticks();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn it_dies_with_the_thread_that_started_it() {
    if !possible() {
        return;
    }
    let mut child = std::thread::scope(|scope| {
        let runtime = tokio::runtime::Handle::current();
        let start = move || {
            let _inside = runtime.enter();
            // Inside, it is the one process that no signal of its own can end.
            start("trap '' TERM; while :; do :; done").0
        };
        scope.spawn(start).join().expect("the thread ends")
    });
    let exit = timeout(PATIENCE, child.wait()).await.expect("it dies");
    assert_eq!(exit.expect("reaped"), Exit::Signal(9));
}
