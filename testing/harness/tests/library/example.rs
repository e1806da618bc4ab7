//! The library's example.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Cofferdam, finish};

/// The example's program. Cargo has built it with these tests, unless they were picked one by one: then this does.
fn program() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "sandbox",
            "--example",
            "pod",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success());
    let tests = std::env::current_exe().expect("a path");
    let folder = tests.parent().and_then(Path::parent).expect("a folder");
    folder.join("examples/pod")
}

#[test]
fn two_containers_of_a_pod_share_a_machine_and_its_loopback_interface() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let rootfs = crate::machine::rootfs(&cofferdam);
    let config = crate::machine::config_file(&cofferdam);
    let done = finish(
        Command::new(program())
            .arg(&rootfs)
            .env("COFFERDAM_CONFIG", config),
        Duration::from_secs(120),
    );
    assert_eq!(done.code, 0, "{done:?}");
    let line = |start: &str| {
        let found = done
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(start));
        found
            .unwrap_or_else(|| panic!("{start:?}: {done:?}"))
            .to_owned()
    };
    assert!(done.stdout.lines().any(|line| line == "ready"), "{done:?}");
    let (server, client) = (line("server: "), line("client: "));
    assert!(server.starts_with("pod, boot "), "{server}");
    assert_eq!(server, client, "one machine, one name");
    cofferdam.assert_nothing_left();
}
