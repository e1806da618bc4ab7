//! Programs of host and guest that connect to each other by ports.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Cofferdam, wait_until};

use crate::LIMIT;

/// A program of the guest: `vsock PORT PROGRAM…` and `vsock -l PORT PROGRAM…`. The backends' suite uses the same.
const SOURCE: &str = "../../backend/api/src/conformance/vsock_guest.rs";

/// Compiles it, static, for a guest without a library.
fn program(folder: &Path) -> PathBuf {
    let program = folder.join("vsock");
    let words = "--crate-name=vsock --edition=2024 -Cpanic=abort -Ctarget-feature=+crt-static -o";
    let done = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(words.split_ascii_whitespace())
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE))
        .stdout(Stdio::null())
        .status()
        .expect("compiles");
    assert!(done.success());
    program
}

fn echoes(mut stream: &UnixStream) {
    stream.write_all(b"there and back").expect("writes");
    let mut words = [0; 14];
    stream.read_exact(&mut words).expect("reads");
    assert_eq!(&words, b"there and back");
}

#[test]
fn programs_of_host_and_container_connect_by_ports() {
    let Some(cofferdam) = Cofferdam::with_config("vsock = true") else {
        return;
    };
    let volume = cofferdam.folder().join("volume");
    fs::create_dir(&volume).expect("a folder");
    program(&volume);
    let mount = format!("{}:/v", volume.display());
    let image = cofferdam.busybox();
    let run = |rest: &[&str]| {
        let begin = ["run", "-d", "--name", "v", "-v", &mount, image];
        cofferdam.run(begin.iter().chain(rest))
    };
    let done = run(&["/v/vsock", "-l", "77", "cat"]);
    if std::env::var_os("COFFERDAM_TEST_ACCELERATOR").is_none_or(|name| name != "kvm") {
        // Those are QEMU's.
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains("vsock = true"), "{done:?}");
        cofferdam.assert_nothing_left();
        return;
    }
    assert_eq!(done.code, 0, "{done:?}");
    let socket = cofferdam.root().join("v/vsock.sock");
    let mode = fs::metadata(&socket).expect("the socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let mut knocked = None;
    let listens = wait_until(LIMIT, || {
        let mut stream = UnixStream::connect(&socket).expect("connects");
        stream.write_all(b"CONNECT 77\n").expect("writes");
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, &stream);
        reader.read_line(&mut line).expect("reads");
        let open = line.starts_with("OK ");
        knocked = open.then_some(stream);
        open
    });
    assert!(listens, "{}", cofferdam.log());
    echoes(&knocked.expect("a connection"));
    cofferdam.ok(["rm", "-f", "v"]);
    assert!(!socket.exists());

    // The other way: nobody is there, then somebody.
    let script = "until /v/vsock 78 cat 2>/dev/null; do sleep 0.1; done";
    let done = run(&["sh", "-c", script]);
    assert_eq!(done.code, 0, "{done:?}");
    let listener = UnixListener::bind(cofferdam.root().join("v/vsock.sock_78")).expect("binds");
    let (stream, _) = listener.accept().expect("the container connects");
    echoes(&stream);
    drop(stream);
    cofferdam.wait_for_status("v", "stopped");
    cofferdam.ok(["rm", "v"]);
    cofferdam.assert_nothing_left();
}
