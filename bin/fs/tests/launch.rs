//! What the server refuses, and that it leaves nothing. Needs root.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{bind, config};
use sandbox_share::{Entry, EntryKind, ShareError, ShareServer};
use tokio::time::timeout;

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

async fn refusal(entries: Vec<Entry>) -> String {
    let mut server = ShareServer::spawn(config(entries)).expect("starts");
    let error = server.ready().await.expect_err("it must be refused");
    assert!(matches!(error, ShareError::Entry(_)), "{error:?}");
    assert_eq!(server.pid(), None, "the server is gone");
    error.to_string()
}

#[tokio::test(flavor = "current_thread")]
async fn a_missing_source_is_named() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let error = refusal(vec![
        bind("c1/rootfs", host.path(), false),
        bind("c1/mounts/0", Path::new("/nowhere/data"), false),
    ])
    .await;
    assert_eq!(
        error,
        "share entry c1/mounts/0: cannot open /nowhere/data: no such file or directory"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn paths_that_leave_the_share_are_refused() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    for path in ["", "/etc", "../etc", "c1/../../etc", "./x", ".lower/0"] {
        let error = refusal(vec![bind(path, host.path(), false)]).await;
        assert!(
            error.contains("not a relative path of plain names"),
            "{path:?}: {error}"
        );
    }
    for (one, other) in [("c1", "c1"), ("c1", "c1/rootfs"), ("c1/rootfs", "c1")] {
        let error = refusal(vec![
            bind(one, host.path(), false),
            bind(other, host.path(), false),
        ])
        .await;
        assert!(error.contains("entries must be apart"), "{error}");
    }
    let error = refusal(vec![bind("c1", Path::new("relative"), false)]).await;
    assert!(error.contains("not an absolute path"), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_bad_overlay_is_named() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let overlay = |lower: &Path, upper: &Path| Entry {
        path: "c1/rootfs".into(),
        kind: EntryKind::Overlay {
            lower: vec![lower.to_owned()],
            upper: upper.to_owned(),
            work: host.path().to_owned(),
        },
    };
    let error = refusal(vec![overlay(Path::new("/nowhere"), host.path())]).await;
    assert!(
        error.starts_with("share entry c1/rootfs: cannot open /nowhere:"),
        "{error}"
    );
    let error = refusal(vec![overlay(host.path(), Path::new("/nowhere"))]).await;
    assert!(
        error.starts_with("share entry c1/rootfs: cannot open /nowhere:"),
        "{error}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn the_server_is_confined() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let mut server =
        ShareServer::spawn(config(vec![bind("c1/rootfs", host.path(), false)])).expect("starts");
    server.ready().await.expect("serves");
    let pid = server.pid().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("a field");
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    let kept = u64::from_str_radix(&field("CapEff"), 16).expect("a number");
    let (sys_admin, sys_ptrace, net_admin) = (1 << 21, 1 << 19, 1 << 12);
    assert_eq!(kept & (sys_admin | sys_ptrace | net_admin), 0, "{kept:x}");
    assert_eq!(field("CapBnd"), field("CapEff"));
    for name in ["mnt", "net", "ipc"] {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("reads");
        assert_ne!(
            theirs,
            fs::read_link(format!("/proc/self/ns/{name}")).expect("reads"),
            "{name}"
        );
    }
    let seen: Vec<_> = fs::read_dir(format!("/proc/{pid}/root"))
        .expect("lists")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert_eq!(seen, ["c1"]);
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("reads");
    assert!(environment.is_empty());

    // The VMM's end closes: the server exits by itself.
    drop(server.vmm_socket());
    let exit = timeout(Duration::from_secs(10), server.wait())
        .await
        .expect("it exits")
        .expect("reaped");
    assert_eq!(
        exit.to_string(),
        "exited with code 0",
        "{}",
        server.stderr()
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_dropped_server_is_gone() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let mut server =
        ShareServer::spawn(config(vec![bind("c1/rootfs", host.path(), false)])).expect("starts");
    server.ready().await.expect("serves");
    let pid = server.pid().expect("it runs");
    drop(server);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test(flavor = "current_thread")]
async fn the_server_dies_with_the_one_who_started_it() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let entries = vec![bind("c1/rootfs", host.path(), false)];
    let (server, pid) = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut server = ShareServer::spawn(config(entries)).expect("starts");
            server.ready().await.expect("serves");
            let pid = server.pid().expect("it runs");
            (server, pid)
        })
    })
    .join()
    .expect("the thread ends");
    for _ in 0..200 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            drop(server);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it lives on");
}

#[test]
fn started_by_hand_it_says_what_it_is_for() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cofferdam-fs"))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("runs");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("cofferdam starts this program itself"),
        "{message}"
    );
}
