//! A check of the checks: each kind of thing that can be left is left, and seen.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use harness::{GROUPS, remove_groups};

use crate::counts::{Counts, Scope};

/// Leaves one of everything, and wants each to be told of.
pub fn are_seen() {
    let scope = Scope {
        cgroup: format!("cofferdam-leak-{}", std::process::id()),
        storage: "/run/nowhere".into(),
    };
    let before = Counts::take(&scope);
    before.assert_again(&scope, "when nothing happened");

    let folder = Path::new("/run/cofferdam-leak");
    fs::create_dir(folder).expect("a folder");
    mount(
        "none",
        folder,
        "tmpfs",
        MountFlags::NOSUID,
        None::<&std::ffi::CStr>,
    )
    .expect("a mount");
    fs::write(folder.join("state"), "").expect("a file");
    let first = Path::new(GROUPS).join("pids");
    let hierarchy = if first.exists() {
        &first
    } else {
        Path::new(GROUPS)
    };
    let has_groups = fs::create_dir(hierarchy.join(&scope.cgroup)).is_ok();
    let listener = UnixListener::bind(folder.join("s")).expect("a socket");
    let script =
        "exec 7< /etc/hostname; ip tuntap add leaked mode tap; sleep 1000 & exec sleep 1000";
    let mut process = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare starts");
    let expected = [
        "process sleep: 0 before, 2 after",
        "descriptor of sleep: /etc/hostname: 0 before, 2 after",
        "mnt namespace: ",
        "net namespace: ",
        "mount /run/cofferdam-leak: 0 before, 2 after",
        "interface leaked: 0 before, 1 after",
        "socket /run/cofferdam-leak/s: 0 before, 1 after",
        "file /run/cofferdam-leak/state: 0 before, 1 after",
    ];
    let mut told = String::new();
    let all = harness::wait_until(std::time::Duration::from_secs(60), || {
        told = before.differences(&Counts::take(&scope));
        expected.iter().all(|line| told.contains(line))
    });
    assert!(all, "{expected:#?} are not all in\n{told}");
    if has_groups {
        assert!(told.contains("control group"), "{told}");
    }

    drop(listener);
    // Before its parent has gone, and it is somebody else's.
    let child = harness::descendant(process.id().cast_signed(), "sleep");
    let _ended = process.kill();
    for pid in child.into_iter().filter_map(rustix::process::Pid::from_raw) {
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let _reaped = process.wait();
    unmount(folder, UnmountFlags::empty()).expect("no mount");
    fs::remove_dir(folder).expect("no folder");
    remove_groups(&scope.cgroup);
    before.assert_again(&scope, "behind all leaks");
}
