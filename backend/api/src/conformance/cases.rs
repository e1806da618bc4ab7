//! The cases. Each panics when the backend is wrong.
#![expect(clippy::missing_panics_doc, reason = "a failing test panics")]

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Fixture, PATIENCE, guest};
use crate::{BackendError, LinkIo, MachineCounters, Nic, Vm, VmExit};

/// Bytes go both ways on the link, whole and in order.
pub async fn the_link_echoes(fixture: &Fixture) {
    let (mut vm, link) = fixture.boot(fixture.config(&[])).await;
    let pid = vm.pid().expect("a running machine has a process");
    assert!(process_exists(pid));
    let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut reader, mut writer) = tokio::io::split(link);
    let mut received = vec![0; sent.len()];
    let exchange =
        async { tokio::try_join!(writer.write_all(&sent), reader.read_exact(&mut received)) };
    within("the echo", &*vm, exchange)
        .await
        .expect("the link works");
    assert!(sent == received, "bytes were changed");
    vm.stop().await.expect("stops");
}

/// The guest sees as many CPUs as were asked for.
pub async fn several_cpus_are_there(fixture: &Fixture) {
    let mut config = fixture.config(&[]);
    config.vcpus = 2;
    let (mut vm, mut link) = fixture.boot(config).await;
    echo(&*vm, &mut link).await;
    let console = vm.diagnostics().console;
    assert!(console.contains(&format!("{}2", guest::CPUS)), "{console}");
    vm.stop().await.expect("stops");
}

/// Stopping ends the process; stopping again does nothing; both work in every state.
pub async fn stopping_twice_is_fine(fixture: &Fixture) {
    let mut vm = fixture.create(fixture.config(&[])).await.expect("creates");
    vm.stop().await.expect("stops before it was booted");
    vm.stop().await.expect("stops again");
    assert_eq!(vm.wait().await, VmExit::NeverStarted);

    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    let pid = vm.pid().expect("a process");
    vm.stop().await.expect("stops");
    assert!(!process_exists(pid));
    assert_eq!(vm.pid(), None);
    vm.stop().await.expect("stops again");
    let exit = vm.wait().await;
    assert_eq!(exit, vm.wait().await, "the answer stays the same");
    let end = within("the link's end", &*vm, link.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

/// A machine that is let go leaves nothing.
pub async fn dropping_leaves_no_process(fixture: &Fixture) {
    let (vm, _link) = fixture.boot(fixture.config(&[])).await;
    let pid = vm.pid().expect("a process");
    drop(vm);
    assert!(!process_exists(pid));
}

/// The death of the VMM by any hand ends the wait and the link.
pub async fn a_killed_vmm_is_noticed(fixture: &Fixture) {
    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    let pid = vm.pid().expect("a process");
    kill_process(
        Pid::from_raw(pid.cast_signed()).expect("a pid"),
        Signal::KILL,
    )
    .expect("kills");
    let exit = timeout(PATIENCE, vm.wait())
        .await
        .expect("the death is noticed");
    assert_eq!(exit, VmExit::Signal(9));
    assert_eq!(vm.pid(), None);
    assert!(!process_exists(pid));
    let end = within("the link's end", &*vm, link.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    vm.stop().await.expect("stops what is dead");
}

/// A wait that is given up takes nothing from the next one.
pub async fn waiting_can_be_given_up(fixture: &Fixture) {
    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    for _ in 0..3 {
        let early = timeout(Duration::from_millis(20), vm.wait()).await;
        assert!(early.is_err(), "it runs: {early:?}");
    }
    echo(&*vm, &mut link).await;
    link.shutdown().await.expect("closes");
    drop(link);
    // The guest's script reboots at the end of its input, and a reboot is the machine's end.
    let exit = timeout(PATIENCE, vm.wait()).await.expect("the guest ends");
    assert_eq!(exit, VmExit::Code(0), "{}", vm.diagnostics());
}

/// The error says which file is missing.
pub async fn a_missing_kernel_is_named(fixture: &Fixture) {
    let mut config = fixture.config(&[]);
    config.kernel = "/nowhere/vmlinux".into();
    let error = refused(fixture, config).await;
    assert!(matches!(error, BackendError::File { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/vmlinux"), "{error}");

    let mut config = fixture.config(&[]);
    config.initrd = "/nowhere/initramfs".into();
    let error = refused(fixture, config).await;
    assert!(error.to_string().contains("/nowhere/initramfs"), "{error}");
}

/// The error says that a file is not what it should be.
pub async fn a_file_that_is_no_kernel_is_refused(fixture: &Fixture) {
    let mut config = fixture.config(&[]);
    config.kernel.clone_from(&config.initrd);
    let error = refused(fixture, config).await;
    assert!(matches!(error, BackendError::BadFile { .. }), "{error}");

    let mut config = fixture.config(&[]);
    config.kernel = "/".into();
    let error = refused(fixture, config).await;
    assert!(
        error.to_string().contains("cannot use")
            || error.to_string().contains("not a regular file"),
        "{error}"
    );
}

/// A guest that can't fit is refused before anything starts.
pub async fn too_much_memory_is_refused(fixture: &Fixture) {
    let mut config = fixture.config(&[]);
    config.memory_bytes = 1 << 50;
    let error = refused(fixture, config).await;
    assert!(matches!(error, BackendError::NoMemory { .. }), "{error}");
    assert!(
        error.to_string().starts_with("no memory for the VM"),
        "{error}"
    );
}

/// Settings out of range are refused by name.
pub async fn impossible_settings_are_refused(fixture: &Fixture) {
    let mut config = fixture.config(&[]);
    config.vcpus = 0;
    assert_unsupported(refused(fixture, config).await, "CPU");
    let mut config = fixture.config(&[]);
    config.vcpus = fixture.backend.capabilities().max_vcpus + 1;
    assert_unsupported(refused(fixture, config).await, "CPU");
    for memory in [0, (128 << 20) + 1, 1 << 20] {
        let mut config = fixture.config(&[]);
        config.memory_bytes = memory;
        assert_unsupported(refused(fixture, config).await, "memory");
    }
    let config = fixture.config(&["two words"]);
    assert_unsupported(refused(fixture, config).await, "two words");
    let queues = fixture.backend.capabilities().nic_queues + 1;
    let mut config = fixture.config(&[]);
    config.nics.push(Nic {
        mac: [2, 0, 0, 0, 0, 1],
        queues: (0..queues)
            .map(|_| File::open("/dev/null").expect("opens").into())
            .collect(),
    });
    assert_unsupported(refused(fixture, config).await, "queues");
}

/// A second boot and one after stop are refused, and hurt nothing.
pub async fn booting_is_allowed_once(fixture: &Fixture) {
    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    let again = vm.boot().await.map(drop).expect_err("a second boot");
    assert!(
        matches!(
            again,
            BackendError::State {
                state: "already booted",
                ..
            }
        ),
        "{again}"
    );
    echo(&*vm, &mut link).await;
    vm.stop().await.expect("stops");
    let after = vm.boot().await.map(drop).expect_err("a boot after stop");
    assert!(
        matches!(
            after,
            BackendError::State {
                state: "stopped",
                ..
            }
        ),
        "{after}"
    );

    let mut vm = fixture.create(fixture.config(&[])).await.expect("creates");
    vm.stop().await.expect("stops");
    vm.boot()
        .await
        .map(drop)
        .expect_err("a boot after an early stop");
}

/// The last words of guest and kernel can be read after the machine's end.
pub async fn a_panic_shows_the_end_of_the_console(fixture: &Fixture) {
    let (mut vm, _link) = fixture.boot(fixture.config(&[guest::PANIC])).await;
    timeout(PATIENCE, vm.wait())
        .await
        .expect("a panic ends the machine");
    let shown = vm.diagnostics().to_string();
    assert!(shown.contains(guest::LAST_WORDS), "{shown}");
    assert!(shown.contains("Kernel panic"), "{shown}");
}

/// A guest's console can neither stall the guest, nor fill the host's memory, nor reach the terminal of a reader.
pub async fn a_guest_that_floods_its_console_does_no_harm(fixture: &Fixture) {
    let (mut vm, mut link) = fixture.boot(fixture.config(&[guest::FLOOD])).await;
    echo(&*vm, &mut link).await;
    let console = vm.diagnostics().console;
    assert!(console.contains(guest::FLOODED), "the end is kept");
    assert!(console.len() < 150_000, "{} bytes are kept", console.len());
    assert!(
        console.chars().all(|c| c == '\n' || !c.is_control()),
        "no control characters"
    );
    vm.stop().await.expect("stops");
}

/// A paused guest does nothing and then goes on. Backends that can't pause say so by having no such ability.
pub async fn a_paused_guest_stands_still(fixture: &Fixture) {
    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    assert_eq!(vm.pause().is_some(), fixture.backend.capabilities().pause);
    echo(&*vm, &mut link).await;
    if let Some(pause) = vm.pause() {
        pause.pause().await.expect("pauses");
        pause.pause().await.expect("pauses again");
        link.write_all(b"zzz").await.expect("writes");
        let early = timeout(Duration::from_millis(300), link.read_u8()).await;
        assert!(early.is_err(), "a paused guest answers");
        pause.resume().await.expect("resumes");
        let mut answer = [0; 3];
        within("the answer", &*vm, link.read_exact(&mut answer))
            .await
            .expect("the link works");
        assert_eq!(&answer, b"zzz");
    }
    vm.stop().await.expect("stops");
    if let Some(pause) = vm.pause() {
        pause
            .pause()
            .await
            .expect_err("a stopped machine can't be paused");
    }
}

/// Memory and processors come and go while a guest runs. Backends that can't do that say so, and refuse to make such a
/// machine.
pub async fn a_guest_grows_and_shrinks(fixture: &Fixture) {
    let mut config = fixture.config(&[guest::SIZES]);
    config.spare_memory_bytes = 512 << 20;
    config.spare_vcpus = 1;
    if !fixture.backend.capabilities().resize {
        return assert_unsupported(refused(fixture, config).await, "spare");
    }
    let boot = config.memory_bytes;
    let (mut vm, mut link) = fixture.boot(config).await;
    said(&*vm, guest::READY).await;
    let console = vm.diagnostics().console;
    assert!(console.contains(&format!("{}1", guest::CPUS)), "{console}");
    let resize = vm.resize().expect("it can");
    for wrong in [boot - (2 << 20), boot + (1 << 20), boot + (514 << 20)] {
        let error = resize.resize(wrong).await.expect_err("no such size");
        assert!(matches!(error, BackendError::Monitor { .. }), "{error}");
    }
    let error = resize.resize(1 << 50).await.expect_err("too much");
    assert!(matches!(error, BackendError::NoMemory { .. }), "{error}");
    resize.resize(boot + (256 << 20)).await.expect("grows");
    said(&*vm, &format!("{}256", guest::MORE)).await;
    said(&*vm, &format!("{}2", guest::CPUS)).await;
    said(&*vm, guest::ENOUGH).await;
    let resize = vm.resize().expect("it can");
    resize.resize(boot).await.expect("shrinks");
    said(&*vm, &format!("{}0", guest::MORE)).await;
    echo(&*vm, &mut link).await;
    vm.stop().await.expect("stops");
}

/// A machine that was made without spare memory gets none.
pub async fn a_machine_without_spares_keeps_its_size(fixture: &Fixture) {
    let config = fixture.config(&[]);
    let boot = config.memory_bytes;
    let (mut vm, mut link) = fixture.boot(config).await;
    assert_eq!(vm.resize().is_some(), fixture.backend.capabilities().resize);
    if let Some(resize) = vm.resize() {
        resize.resize(boot).await.expect("it has that size");
        let error = resize.resize(boot + (2 << 20)).await.expect_err("no more");
        assert!(error.to_string().contains("not to grow"), "{error}");
    }
    echo(&*vm, &mut link).await;
    vm.stop().await.expect("stops");
    if let Some(resize) = vm.resize() {
        let error = resize.resize(boot).await.expect_err("it is stopped");
        assert!(matches!(error, BackendError::State { .. }), "{error}");
    }
}

/// What the guest sends and gets is in the counters of one of its devices, and nothing is counted backwards. Backends that
/// do not count say so.
pub async fn what_a_machine_does_is_counted(fixture: &Fixture) {
    const BULK: usize = 100_000;
    let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
    echo(&*vm, &mut link).await;
    assert_eq!(vm.count().is_some(), fixture.backend.capabilities().count);
    if let Some(count) = vm.count() {
        let before = count.counters().await.expect("counts");
        let console = counter(&before, "console", "printed_bytes");
        assert!(console > 0, "the guest has printed: {before:?}");
        let (mut reader, mut writer) = tokio::io::split(link);
        let sent = vec![b'x'; BULK];
        let mut received = vec![0; BULK];
        let exchange =
            async { tokio::try_join!(writer.write_all(&sent), reader.read_exact(&mut received)) };
        within("the echo", &*vm, exchange)
            .await
            .expect("the link works");
        let after = count.counters().await.expect("counts again");
        for name in [
            "rx_bytes",
            "tx_bytes",
            "rx_packets",
            "tx_packets",
            "kicks",
            "interrupts",
        ] {
            let [before, after] = [&before, &after].map(|all| counter(all, "sockets", name));
            let least = if name.ends_with("_bytes") {
                BULK as u64
            } else {
                1
            };
            assert!(after >= before + least, "{name}: {before}, then {after}");
        }
        let exits = after.exits.values().sum::<u64>();
        assert!(
            exits > 0 && exits >= before.exits.values().sum(),
            "{after:?}"
        );
        assert_eq!(counter(&after, "sockets", "breaks"), 0);
    }
    vm.stop().await.expect("stops");
    if let Some(count) = vm.count() {
        let error = count.counters().await.expect_err("it is stopped");
        assert!(matches!(error, BackendError::State { .. }), "{error}");
    }
}

fn counter(counters: &MachineCounters, kind: &str, name: &str) -> u64 {
    let mut devices = counters.devices.iter();
    let device = devices.find(|device| device.kind == kind);
    let number = device.and_then(|device| device.numbers.get(name));
    *number.unwrap_or_else(|| panic!("no {name} of {kind} in {counters:?}"))
}

/// Waits until the guest has written this on its console.
pub(super) async fn said(vm: &dyn Vm, words: &str) {
    let written = async {
        while !vm.diagnostics().console.contains(words) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(words, vm, written).await;
}

pub(super) async fn refused(fixture: &Fixture, config: crate::VmConfig) -> BackendError {
    fixture
        .create(config)
        .await
        .map(drop)
        .expect_err("it must be refused")
}

pub(super) fn assert_unsupported(error: BackendError, word: &str) {
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains(word), "{error}");
}

/// Sends a word and waits for it to come back: the guest is up.
pub(super) async fn echo(vm: &dyn Vm, link: &mut LinkIo) {
    link.write_all(b"are you there").await.expect("writes");
    let mut answer = [0; 13];
    within("the echo", vm, link.read_exact(&mut answer))
        .await
        .expect("the link works");
    assert_eq!(&answer, b"are you there");
}

pub(super) async fn within<T>(what: &str, vm: &dyn Vm, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what} did not come{}", vm.diagnostics()),
    }
}

fn process_exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
