//! The server behind our own monitor's device, and a driver that speaks FUSE. Needs root, nothing else.

mod common;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{bind, config};
use sandbox_share::ShareServer;
use vmm_fs::{Fs, Handle, Server, Setup};
use vmm_virtio::testing::{Driver, wait};

const RINGS: u64 = 1 << 28 | 1 << 29;

/// The urgent queue is number 0.
const REQUESTS: usize = 1;

/// Operations of FUSE (Linux `fuse.h`).
const LOOKUP: u32 = 1;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

async fn serve(folder: &Path) -> (ShareServer, OwnedFd) {
    let entries = vec![bind("share", folder, false)];
    let mut server = ShareServer::spawn(config(entries)).expect("starts");
    let socket = server.vmm_socket().expect("the first call gets it");
    server.ready().await.expect("serves");
    (server, socket)
}

fn plug(socket: OwnedFd) -> (Driver, Handle) {
    plug_with(&Setup::new("cofferdam"), socket)
}

fn plug_with(setup: &Setup, socket: OwnedFd) -> (Driver, Handle) {
    let memory = Driver::shared_memory();
    let device = Fs::connect(setup, socket, &memory).expect("agrees");
    let handle = device.handle();
    (Driver::start_in(Box::new(device), RINGS, memory), handle)
}

/// Sends a request and answers its error and what came with it.
fn ask(driver: &mut Driver, operation: u32, node: u64, body: &[u8], room: u32) -> (i32, Vec<u8>) {
    let head = send(driver, operation, node, body, room);
    answer(driver, head)
}

/// Sends a request and answers by which number it is known.
fn send(driver: &mut Driver, operation: u32, node: u64, body: &[u8], room: u32) -> u16 {
    let mut head = Vec::new();
    head.extend((40 + body.len() as u32).to_le_bytes());
    head.extend(operation.to_le_bytes());
    head.extend(7_u64.to_le_bytes());
    head.extend(node.to_le_bytes());
    head.resize(40, 0);
    let number = driver.add(REQUESTS, &[&head, body], &[16, room]);
    driver.kick(REQUESTS);
    number
}

fn answer(driver: &mut Driver, number: u16) -> (i32, Vec<u8>) {
    let (used, length, bytes) = driver.expect_used(REQUESTS);
    assert_eq!(used, number, "another request came back");
    assert!(length >= 16, "{length}");
    assert_eq!(word(&bytes, 0), length);
    assert_eq!(u64::from(word(&bytes, 8)), 7, "another request's answer");
    let error = word(&bytes, 4).cast_signed();
    (error, bytes[16..length as usize].to_vec())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn lookup(driver: &mut Driver, folder: u64, name: &[u8]) -> (i32, u64) {
    let name = [name, b"\0"].concat();
    let (error, entry) = ask(driver, LOOKUP, folder, &name, 128);
    (error, if error == 0 { long(&entry, 0) } else { 0 })
}

/// Version 7.38, and all features that fit into the first word but those of a longer request.
const INIT_BODY: [u32; 4] = [7, 38, 0, !(1 << 30)];

fn init(driver: &mut Driver) {
    let (error, answer) = ask(driver, INIT, 0, &words(&INIT_BODY), 64);
    assert_eq!((error, word(&answer, 0)), (0, 7));
}

/// All that a guest does to read a file.
fn read(driver: &mut Driver, name: &[u8]) -> Vec<u8> {
    let (error, folder) = lookup(driver, 1, b"share");
    assert_eq!(error, 0);
    let (error, file) = lookup(driver, folder, name);
    assert_eq!(error, 0);
    let (error, open) = ask(driver, OPEN, file, &[0; 8], 16);
    assert_eq!(error, 0);
    let body = [&open[..8], &[0; 8], &words(&[4096, 0, 0, 0, 0, 0])].concat();
    let (error, bytes) = ask(driver, READ, file, &body, 4096);
    assert_eq!(error, 0);
    bytes
}

#[tokio::test(flavor = "current_thread")]
async fn files_are_read_through_the_device_and_again_after_a_reset() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("hello"), "from the host\n").expect("writes");
    let (mut server, socket) = serve(folder.path()).await;
    let (mut driver, handle) = plug(socket);
    assert_eq!(driver.features, RINGS | 1 << 32);
    assert_eq!(driver.read(8), 26);
    assert_eq!(&driver.config(0, 10), b"cofferdam\0");
    assert_eq!(driver.config(36, 4), 1_u32.to_le_bytes());
    for round in 1..4 {
        // The interrupt first: a driver that has seen the answer already may not get one.
        let _ = driver.interrupted();
        let number = send(&mut driver, INIT, 0, &words(&INIT_BODY), 64);
        driver.expect_interrupt();
        assert_eq!(answer(&mut driver, number).0, 0);
        assert_eq!(read(&mut driver, b"hello"), b"from the host\n");
        let (error, _) = lookup(&mut driver, 1, b"missing");
        assert_eq!(error, -rustix::io::Errno::NOENT.raw_os_error());
        // Its answers may come behind the file.
        wait("the last answer", || {
            (handle.server() == Server::Serving).then_some(())
        });
        assert_eq!(handle.starts(), round);
        driver.negotiate(if round == 1 { RINGS } else { 0 });
        assert_eq!(handle.server(), Server::Idle);
        driver.set_up(if round == 1 { 64 } else { 1024 });
        driver.write(0x70, 15);
    }
    drop(driver);
    let exit = server.wait().await.expect("reaped");
    assert_eq!(
        exit.to_string(),
        "exited with code 0",
        "{}",
        server.stderr()
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_reset_closes_the_files_that_the_guest_had_open() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("hello"), "from the host\n").expect("writes");
    let (server, socket) = serve(folder.path()).await;
    let (mut driver, _) = plug(socket);
    let descriptors = format!("/proc/{}/fd", server.pid().expect("it runs"));
    let held = || {
        std::fs::read_dir(&descriptors)
            .expect("reads")
            .filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok())
            .filter(|target| target.ends_with("hello"))
            .count()
    };
    init(&mut driver);
    read(&mut driver, b"hello");
    assert!(held() > 0);
    driver.write(0x70, 0);
    assert_eq!(held(), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn a_killed_server_stops_the_device() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, socket) = serve(folder.path()).await;
    let (mut driver, handle) = plug(socket);
    init(&mut driver);
    server.stop().await.expect("ends");
    driver.expect_reset();
    assert_eq!(handle.server(), Server::Gone("the file server has hung up"));
    // It does not come back, and says so at once.
    driver.negotiate(RINGS);
    driver.set_up(1024);
    driver.write(0x70, 15);
    assert!(driver.needs_reset());
}

/// A guest's death must not be needed for the server to go with it: the device's is enough.
#[tokio::test(flavor = "current_thread")]
async fn the_server_ends_with_the_device() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, socket) = serve(folder.path()).await;
    let copy = socket.try_clone().expect("a copy");
    let (mut driver, _) = plug(socket);
    init(&mut driver);
    drop(driver.transport.unplug().expect("a device"));
    let exit = server.wait().await.expect("reaped");
    assert_eq!(
        exit.to_string(),
        "exited with code 0",
        "{}",
        server.stderr()
    );
    drop(copy);
}

/// Such a ring keeps the server's thread busy for ever (virtiofsd 1.14 asks again and again). It costs the guest its
/// share, and nobody else anything.
#[tokio::test(flavor = "current_thread")]
async fn a_ring_that_keeps_the_server_busy_blocks_no_reset() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, socket) = serve(folder.path()).await;
    let setup = Setup {
        patience: Duration::from_secs(3),
        ..Setup::new("cofferdam")
    };
    let (mut driver, handle) = plug_with(&setup, socket);
    init(&mut driver);
    driver.claim(REQUESTS, 0x8000);
    driver.kick(REQUESTS);
    let begun = Instant::now();
    driver.negotiate(RINGS);
    assert!(begun.elapsed() < Duration::from_secs(2), "it waited");
    driver.set_up(1024);
    driver.write(0x70, 15);
    // It comes back, or is given up.
    wait("an end", || {
        (handle.server() != Server::Starting).then_some(())
    });
    drop(driver);
    server.stop().await.expect("ends");
}

/// Requests that are under way when the driver goes do not stay in the next one's way.
#[tokio::test(flavor = "current_thread")]
async fn resets_in_the_middle_of_requests_are_survived() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("hello"), "from the host\n").expect("writes");
    let (mut server, socket) = serve(folder.path()).await;
    let (mut driver, handle) = plug(socket);
    for round in 0..100_u32 {
        init(&mut driver);
        // Questions for what is not there: nobody waits for the answers.
        for _ in 0..round % 20 {
            send(&mut driver, LOOKUP, 1, b"missing\0", 128);
        }
        driver.negotiate(RINGS);
        driver.set_up(1024);
        driver.write(0x70, 15);
    }
    drop(driver);
    assert!(!matches!(handle.server(), Server::Gone(_)));
    let exit = server.wait().await.expect("reaped");
    assert_eq!(
        exit.to_string(),
        "exited with code 0",
        "{}",
        server.stderr()
    );
}
