//! QEMU as a process: what it may do, how it starts and how it dies.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backend_api::conformance::{Fixture, PATIENCE};
use backend_api::{Accelerator, Backend, BackendError, Privileges};
use backend_qemu::{QemuBackend, QemuConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn fixture(needs_root: bool) -> Option<Fixture> {
    let reason = match common::fixture() {
        Ok(_) if needs_root && !rustix::process::geteuid().is_root() => "needs root".to_owned(),
        Ok(fixture) => return Some(fixture),
        Err(reason) => reason,
    };
    eprintln!("skipped: {reason}");
    None
}

/// One of the programs that stand in QEMU's place. They are files of the source tree: a script that this process wrote
/// itself may be "busy" while another thread forks.
fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(name)
}

/// A backend with another program in QEMU's place.
fn with_program(program: PathBuf) -> QemuBackend {
    QemuBackend::new(QemuConfig {
        binary: Some(program),
        accelerator: Accelerator::Emulation,
    })
}

#[tokio::test(flavor = "current_thread")]
async fn qemu_has_no_rights() {
    let Some(fixture) = fixture(true) else { return };
    let (mut vm, _link) = fixture.boot(fixture.config(&[])).await;
    let folder = PathBuf::from(format!("/proc/{}", vm.pid().expect("a process")));
    let status = fs::read_to_string(folder.join("status")).expect("reads");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("a field");
        line.trim_start_matches(':')
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(field("Uid"), "64123 64123 64123 64123");
    assert_eq!(field("Gid"), "64123 64123 64123 64123");
    assert_eq!(field("Groups"), "");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    for name in ["mnt", "net", "ipc"] {
        let theirs = fs::read_link(folder.join("ns").join(name)).expect("reads");
        assert_ne!(
            theirs,
            fs::read_link(format!("/proc/self/ns/{name}")).expect("reads"),
            "{name}"
        );
    }
    assert!(fs::read(folder.join("environ")).expect("reads").is_empty());
    assert_eq!(
        fs::read_link(folder.join("cwd")).expect("reads"),
        Path::new("/")
    );
    let mounts = fs::read_to_string(folder.join("mounts")).expect("reads");
    assert!(
        mounts.lines().all(|line| line
            .split(' ')
            .nth(3)
            .is_some_and(|options| options.starts_with("ro,"))),
        "{mounts}"
    );
    // Files of the host that are open for writing: none but the null device.
    for entry in fs::read_dir(folder.join("fd")).expect("lists") {
        let target = fs::read_link(entry.expect("entry").path()).expect("reads");
        let target = target.to_string_lossy();
        let harmless = target.starts_with("socket:")
            || target.starts_with("pipe:")
            || target.starts_with("anon_inode:")
            || target == "/dev/null"
            || target.ends_with("/vmlinux")
            || target.ends_with(".cpio");
        assert!(harmless, "{target}");
    }
    vm.stop().await.expect("stops");
}

#[tokio::test(flavor = "current_thread")]
async fn qemu_dies_with_the_one_who_booted_it() {
    let Some(fixture) = fixture(false) else {
        return;
    };
    let (vm, pid) = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (vm, _link) = fixture.boot(fixture.config(&[])).await;
            let pid = vm.pid().expect("a process");
            (vm, pid)
        })
    })
    .join()
    .expect("the thread ends");
    for _ in 0..500 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            drop(vm);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it lives on");
}

#[tokio::test(flavor = "current_thread")]
async fn files_that_only_root_may_read_reach_qemu() {
    let Some(mut fixture) = fixture(true) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    for (path, name) in [
        (&mut fixture.kernel, "vmlinux"),
        (&mut fixture.initrd, "initramfs"),
    ] {
        let copy = folder.path().join(name);
        fs::copy(&*path, &copy).expect("copies");
        fs::set_permissions(&copy, Permissions::from_mode(0o600)).expect("chmod");
        *path = copy;
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("chmod");
    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    link.write_all(b"x").await.expect("writes");
    let answer = timeout(PATIENCE, link.read_u8()).await;
    assert_eq!(
        answer.expect("an answer").expect("a byte"),
        b'x',
        "{}",
        vm.diagnostics()
    );
    vm.stop().await.expect("stops");
}

#[tokio::test(flavor = "current_thread")]
async fn a_qemu_that_refuses_is_quoted() {
    let Some(mut fixture) = fixture(false) else {
        return;
    };
    fixture.privileges = Privileges::Inherit;
    let mut vm = with_program(stand_in("refuses"))
        .create(fixture.config(&[]))
        .await
        .expect("creates");
    let error = timeout(PATIENCE, vm.boot())
        .await
        .expect("at once")
        .map(drop)
        .expect_err("it refuses");
    assert!(matches!(error, BackendError::Exited { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("booting the VM: the VMM exited with code 1"),
        "{text}"
    );
    assert!(text.contains("option not supported"), "{text}");
    assert_eq!(vm.pid(), None);
    vm.stop().await.expect("stops");
}

#[tokio::test(flavor = "current_thread")]
async fn a_missing_qemu_is_named() {
    let Some(fixture) = fixture(false) else {
        return;
    };
    let backend = with_program("/nowhere/qemu".into());
    let error = backend
        .create(fixture.config(&[]))
        .await
        .map(drop)
        .expect_err("it is missing");
    assert_eq!(
        error.to_string(),
        "creating the VM: cannot use the VMM program /nowhere/qemu"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_qemu_that_can_not_be_executed_is_named() {
    let Some(mut fixture) = fixture(false) else {
        return;
    };
    fixture.privileges = Privileges::Inherit;
    let program = stand_in("broken");
    let mut vm = with_program(program.clone())
        .create(fixture.config(&[]))
        .await
        .expect("creates");
    let error = vm.boot().await.map(drop).expect_err("it can't be executed");
    assert_eq!(
        error.to_string(),
        format!("booting the VM: cannot start {}", program.display())
    );
    assert!(std::error::Error::source(&error).is_some());
}
