//! The device before servers that behave, and before such as do not.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemory, GuestRegionMmap};
use vmm_fs::{Error, Fault, Fs, Handle, Server, Setup};
use vmm_virtio::Memory;
use vmm_virtio::testing::{Driver, MEMORY, wait};

const RINGS: u64 = 1 << 28 | 1 << 29;

/// Requests of vhost-user, by their numbers.
const GET_FEATURES: u32 = 1;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;
const RESET_DEVICE: u32 = 34;

/// What a server does with a request.
enum Act {
    /// What it should.
    Answer,
    /// As it should, with this value.
    Value(u64),
    Nothing,
    Bytes(Vec<u8>),
    HangUp,
}

type Seen = Arc<Mutex<Vec<(u32, Vec<u8>)>>>;

/// A server that asks `act` about each request. Ends with the connection.
fn server(mut act: impl FnMut(u32) -> Act + Send + 'static) -> (UnixStream, Seen) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    std::thread::spawn(move || {
        while let Some((request, flags, body)) = receive(&theirs) {
            let usual = match request {
                GET_FEATURES => Some(RINGS | 1 << 30 | 1 << 32 | 1 << 26),
                GET_PROTOCOL_FEATURES => Some(1 | 1 << 3 | 1 << 9 | 1 << 13),
                GET_QUEUE_NUM => Some(2),
                // Nothing was taken.
                GET_VRING_BASE => Some(u64::from(body[0])),
                _ => (flags & 8 != 0).then_some(0),
            };
            record.lock().expect("a lock").push((request, body));
            let answer = |value: u64| {
                let head = [request, 5, 8].map(u32::to_ne_bytes).concat();
                [head, value.to_ne_bytes().to_vec()].concat()
            };
            let bytes = match act(request) {
                Act::Answer => usual.map(answer).unwrap_or_default(),
                Act::Value(value) => answer(value),
                Act::Nothing => Vec::new(),
                Act::Bytes(bytes) => bytes,
                Act::HangUp => break,
            };
            if (&theirs).write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = theirs.shutdown(Shutdown::Both);
    });
    (ours, seen)
}

fn receive(mut socket: &UnixStream) -> Option<(u32, u32, Vec<u8>)> {
    let mut head = [[0; 4]; 3];
    socket.read_exact(head.as_flattened_mut()).ok()?;
    let [request, flags, length] = head.map(u32::from_ne_bytes);
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body).ok()?;
    Some((request, flags, body))
}

fn good(_request: u32) -> Act {
    Act::Answer
}

/// At one request something else is done, once it has come so many times.
fn but(at: u32, mut times: u32, act: impl Fn() -> Act) -> impl FnMut(u32) -> Act {
    move |request| {
        if request == at {
            if times == 0 {
                return act();
            }
            times -= 1;
        }
        Act::Answer
    }
}

fn setup() -> Setup {
    Setup {
        patience: Duration::from_secs(20),
        ..Setup::new("tag")
    }
}

fn impatient() -> Setup {
    Setup {
        patience: Duration::from_millis(200),
        ..Setup::new("tag")
    }
}

fn connect(setup: &Setup, act: impl FnMut(u32) -> Act + Send + 'static) -> Result<Fs, Error> {
    Fs::connect(setup, server(act).0.into(), &Driver::shared_memory())
}

fn found(setup: &Setup, socket: UnixStream) -> (Driver, Handle) {
    let memory = Driver::shared_memory();
    let device = Fs::connect(setup, socket.into(), &memory).expect("agrees");
    let handle = device.handle();
    let mut driver = Driver::find(Box::new(device), memory);
    driver.negotiate(RINGS);
    driver.set_up(1024);
    (driver, handle)
}

fn start(driver: &Driver) {
    driver.write(0x70, 15);
}

fn serving(handle: &Handle) {
    wait("the server's answers", || {
        (handle.server() == Server::Serving).then_some(())
    });
}

#[test]
fn what_the_server_is_told() {
    let (socket, seen) = server(good);
    let (mut driver, handle) = found(&setup(), socket);
    assert_eq!(handle.server(), Server::Idle);
    // Not what is not ours to offer: logging of writes, the protocol's own.
    assert_eq!(driver.features, RINGS | 1 << 32);
    assert_eq!(driver.config(0, 44)[..4], *b"tag\0");
    start(&driver);
    serving(&handle);
    driver.negotiate(RINGS);
    assert_eq!((handle.server(), handle.starts()), (Server::Idle, 1));
    let seen = std::mem::take(&mut *seen.lock().expect("a lock"));
    let requests: Vec<u32> = seen.iter().map(|(request, _)| *request).collect();
    let queue = [8, 10, 9, 13, 12, 18];
    let expected = [
        &[1, 15, 16, 17, 3, 5, 2][..],
        &queue,
        &queue,
        &[18, 11, 10, 18, 11, 10, 34],
    ];
    assert_eq!(requests, expected.concat());
    let table = &seen[5].1;
    let words = [0, MEMORY, 0, 0].map(u64::to_ne_bytes).concat();
    assert_eq!((table[0], &table[8..]), (1, &words[..]));
    let features = RINGS | 1 << 30 | 1 << 32;
    assert_eq!(seen[6].1, features.to_ne_bytes());
    // The guest's addresses: descriptors, the device's ring, the driver's.
    let (request, ring) = &seen[9];
    assert_eq!(*request, SET_VRING_ADDR);
    let base = 1_u64 << 20;
    let words = [base, base + 0xc000, base + 0x8000, 0].map(u64::to_ne_bytes);
    assert_eq!(ring[8..], words.concat());
}

#[test]
fn what_can_not_be_set_up_is_refused() {
    let named = |tag: &str| connect(&Setup::new(tag), good).err();
    assert!(matches!(named(""), Some(Error::Tag(0))));
    assert!(matches!(named("a\0"), Some(Error::Tag(2))));
    assert!(matches!(named(&"x".repeat(37)), Some(Error::Tag(37))));
    assert!(named(&"x".repeat(36)).is_none());
    for request_queues in [0, 65] {
        let setup = Setup {
            request_queues,
            ..setup()
        };
        assert!(matches!(connect(&setup, good), Err(Error::Queues(_))));
    }
    for queue_size in [0, 3, 1023] {
        let setup = Setup {
            queue_size,
            ..setup()
        };
        assert!(matches!(connect(&setup, good), Err(Error::QueueSize(_))));
    }
    let setup = Setup {
        request_queues: 2,
        ..setup()
    };
    let few = connect(&setup, good);
    assert!(matches!(few, Err(Error::FewQueues { has: 2, wanted: 3 })));
}

#[test]
fn memory_that_a_server_can_not_have_is_refused() {
    let connect = |memory: &Memory| Fs::connect(&setup(), server(good).0.into(), memory).err();
    let error = connect(&Driver::memory()).expect("refused");
    assert!(matches!(error, Error::NoDescriptor(0)), "{error}");

    let shared = Driver::shared_memory();
    let region = shared.iter().next().expect("a region");
    let file = region.file_offset().expect("a file").clone();
    let private = MmapRegionBuilder::new(1 << 20)
        .with_file_offset(file.clone())
        // MAP_PRIVATE | MAP_NORESERVE; readable and writable.
        .with_mmap_flags(0x4002)
        .with_mmap_prot(3)
        .build()
        .expect("maps");
    let region = GuestRegionMmap::new(private, GuestAddress(4096)).expect("a region");
    let memory = Memory::from_regions(vec![region]).expect("memory");
    assert!(matches!(connect(&memory), Some(Error::Private(4096))));

    let many = (0..33).map(|number| {
        let offset = FileOffset::from_arc(Arc::clone(file.arc()), number * 4096);
        (GuestAddress(number * 8192), 4096, Some(offset))
    });
    let memory = Memory::from_ranges_with_files(many).expect("memory");
    assert!(matches!(connect(&memory), Some(Error::Regions(33))));
}

#[test]
fn servers_that_lack_something_are_refused() {
    let offering = |at, value| {
        let server = but(at, 0, move || Act::Value(value));
        connect(&setup(), server).err().expect("refused")
    };
    for (at, value, lacks) in [
        (GET_FEATURES, 1 << 30, "virtio 1"),
        (GET_FEATURES, 1 << 32, "features of the protocol"),
        (GET_PROTOCOL_FEATURES, 1, "answers to each request"),
        (GET_PROTOCOL_FEATURES, 8, "more than one queue"),
    ] {
        let error = offering(at, value);
        assert!(error.to_string().ends_with(lacks), "{error}");
    }
    let error = offering(SET_MEM_TABLE, 1);
    let refused = matches!(error, Error::Server(Fault::Refused(_)));
    assert!(refused, "{error:?}");
    // One without a way to forget is told to stop only.
    let offers = || Act::Value(1 | 1 << 3);
    let (socket, seen) = server(but(GET_PROTOCOL_FEATURES, 0, offers));
    let (driver, handle) = found(&setup(), socket);
    start(&driver);
    serving(&handle);
    driver.write(0x70, 0);
    let last = seen.lock().expect("a lock").last().map(|seen| seen.0);
    assert_eq!(last, Some(SET_VRING_BASE));
}

/// At each request of the beginning.
#[test]
fn servers_that_fail_to_answer_are_not_waited_for_without_end() {
    for at in [
        GET_FEATURES,
        GET_PROTOCOL_FEATURES,
        GET_QUEUE_NUM,
        SET_MEM_TABLE,
    ] {
        let fault = |setup: &Setup, act: fn() -> Act| match connect(setup, but(at, 0, act)) {
            Err(Error::Server(fault)) => fault,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it can't be connected"),
        };
        assert_eq!(fault(&impatient(), || Act::Nothing), Fault::Silent);
        let half = || Act::Bytes(vec![0; 19]);
        assert_eq!(fault(&impatient(), half), Fault::Silent);
        let wrong = || Act::Bytes(vec![0; 20]);
        assert_eq!(fault(&setup(), wrong), Fault::Garbled);
        assert_eq!(fault(&setup(), || Act::HangUp), Fault::HungUp);
    }
}

#[test]
fn a_server_that_does_not_answer_blocks_no_virtual_cpu() {
    let setup = Setup {
        patience: Duration::from_secs(2),
        ..setup()
    };
    let (socket, _) = server(but(SET_VRING_ENABLE, 1, || Act::Nothing));
    let (driver, handle) = found(&setup, socket);
    let begun = Instant::now();
    start(&driver);
    assert!(begun.elapsed() < Duration::from_secs(1), "it waited");
    assert_eq!(handle.server(), Server::Starting);
    driver.expect_reset();
    assert!(begun.elapsed() >= Duration::from_secs(2), "too early");
    let why = "the file server did not answer in time";
    assert_eq!(handle.server(), Server::Gone(why));
}

#[test]
fn a_server_that_hangs_is_not_waited_for_at_a_reset() {
    let (socket, _) = server(but(GET_VRING_BASE, 0, || Act::Nothing));
    let (mut driver, handle) = found(&impatient(), socket);
    start(&driver);
    serving(&handle);
    driver.negotiate(RINGS);
    assert!(matches!(handle.server(), Server::Gone(_)));
    driver.set_up(1024);
    start(&driver);
    assert!(driver.needs_reset());
}

#[test]
fn requests_that_were_taken_are_waited_for() {
    let taken = || Act::Value(3 << 32);
    let (socket, _) = server(but(GET_VRING_BASE, 1, taken));
    let (mut driver, handle) = found(&setup(), socket);
    start(&driver);
    serving(&handle);
    // The second queue's ring: as if the server gave them back one by one.
    let index = GuestAddress((1 << 20) + (1 << 17) + 0xc002);
    let memory = Arc::clone(&driver.memory);
    let given_back = Arc::new(AtomicBool::new(false));
    let giving = std::thread::spawn({
        let given_back = Arc::clone(&given_back);
        move || {
            for count in 1..4_u16 {
                std::thread::sleep(Duration::from_millis(50));
                given_back.store(count == 3, Ordering::SeqCst);
                memory
                    .store(count.to_le(), index, Ordering::SeqCst)
                    .expect("memory");
            }
        }
    });
    driver.negotiate(RINGS);
    assert!(given_back.load(Ordering::SeqCst), "it did not wait");
    assert_eq!(handle.server(), Server::Idle);
    giving.join().expect("no panic");
    // Now they do not come.
    driver.set_up(1024);
    start(&driver);
    serving(&handle);
    driver.negotiate(RINGS);
    let why = "the file server did not finish a driver's requests in time";
    assert_eq!(handle.server(), Server::Gone(why));
}

/// A guest can keep it from that for ever.
#[test]
fn a_server_that_does_not_forget_blocks_no_virtual_cpu() {
    let (socket, _) = server(but(RESET_DEVICE, 0, || Act::Nothing));
    let (mut driver, handle) = found(&setup(), socket);
    start(&driver);
    serving(&handle);
    let begun = Instant::now();
    driver.negotiate(RINGS);
    assert!(begun.elapsed() < setup().patience / 2, "it waited");
    driver.set_up(1024);
    start(&driver);
    // Its next answer is not the one that was expected.
    driver.expect_reset();
    assert!(matches!(handle.server(), Server::Gone(_)));
}

#[test]
fn a_refusal_stops_the_device() {
    // The features, and everything of the second queue.
    for (at, times) in [(2, 0), (8, 1), (9, 1), (10, 1), (12, 1), (13, 1), (18, 1)] {
        let (socket, _) = server(but(at, times, || Act::Value(1)));
        let (driver, handle) = found(&setup(), socket);
        start(&driver);
        driver.expect_reset();
        let Server::Gone(why) = handle.server() else {
            panic!("{:?}", handle.server());
        };
        assert!(why.contains("refused"), "{why}");
    }
}

#[test]
fn a_driver_that_leaves_a_queue_out_can_try_again() {
    let (socket, seen) = server(good);
    let (mut driver, handle) = found(&setup(), socket);
    driver.write(0x30, 1);
    driver.write(0x44, 0);
    start(&driver);
    assert!(driver.needs_reset());
    driver.negotiate(RINGS);
    driver.set_up(1024);
    start(&driver);
    serving(&handle);
    let seen = seen.lock().expect("a lock");
    assert!(!seen.iter().any(|(request, _)| *request == RESET_DEVICE));
}

#[test]
fn a_reset_before_the_answers_came_is_a_reset() {
    let (socket, _) = server(|request| {
        if request == SET_VRING_ADDR {
            std::thread::sleep(Duration::from_millis(20));
        }
        Act::Answer
    });
    let (mut driver, handle) = found(&setup(), socket);
    for _ in 0..20 {
        start(&driver);
        driver.negotiate(RINGS);
        assert_eq!(handle.server(), Server::Idle);
        driver.set_up(1024);
    }
    start(&driver);
    serving(&handle);
}

#[test]
fn words_that_were_not_asked_for_stop_the_device() {
    for bytes in [vec![0; 20], vec![18, 0, 0, 0, 5, 0, 0, 0, 8]] {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (socket, _) = server(good);
        // In between: passes everything on, and can speak itself.
        let pump = |from: &UnixStream, to: &UnixStream| {
            let [from, to] = [from, to].map(|end| end.try_clone().expect("a copy"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(Shutdown::Both);
            });
        };
        pump(&theirs, &socket);
        pump(&socket, &theirs);
        let (driver, handle) = found(&setup(), ours);
        start(&driver);
        serving(&handle);
        (&theirs).write_all(&bytes).expect("writes");
        theirs.shutdown(Shutdown::Write).expect("ends");
        driver.expect_reset();
        assert!(matches!(handle.server(), Server::Gone(_)));
    }
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn act() -> impl Strategy<Value = Option<Vec<u8>>> {
        let bytes = prop::collection::vec(any::<u8>(), 1..64).prop_map(Some);
        let nearly = (0..40_u32, 0..16_u32, 0..16_u32, any::<u64>()).prop_map(|(a, b, c, d)| {
            let head = [a, b, c].map(u32::to_ne_bytes).concat();
            Some([head, d.to_ne_bytes().to_vec()].concat())
        });
        prop_oneof![20 => Just(None), 1 => bytes, 1 => nearly]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a server says, the device serves or is gone, and a driver may do with it what it likes.
        #[test]
        fn any_server(acts in prop::collection::vec(act(), 0..60), resets in 0..3) {
            let mut acts = acts.into_iter();
            let (socket, _) = server(move |_| match acts.next().flatten() {
                Some(bytes) => Act::Bytes(bytes),
                None => Act::Answer,
            });
            let memory = Driver::shared_memory();
            let Ok(device) = Fs::connect(&impatient(), socket.into(), &memory) else {
                return Ok(());
            };
            let handle = device.handle();
            let mut driver = Driver::find(Box::new(device), memory);
            for _ in 0..=resets {
                driver.negotiate(RINGS);
                driver.set_up(64);
                start(&driver);
                wait("the end of the beginning", || {
                    (handle.server() != Server::Starting).then_some(())
                });
                driver.kick(1);
            }
        }

        /// Whatever a driver writes, the device works after a reset.
        #[test]
        fn any_driver(accesses in prop::collection::vec((0..0x140_u64, any::<u32>()), 0..60)) {
            let (socket, _) = server(good);
            let (mut driver, handle) = found(&setup(), socket);
            for (register, value) in accesses {
                driver.write(register, value);
                let _ = driver.read(register);
            }
            driver.negotiate(RINGS);
            driver.set_up(1024);
            start(&driver);
            serving(&handle);
        }
    }
}
