//! Faults of the guest.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use backend_api::VmExit;
use backend_api::conformance::guest;
use tokio::time::sleep;

use crate::kernel;
use crate::scene::{LIMIT, Scene, case, says};

const RESET: &str = "the VMM exited with code 0: its guest rebooted, powered off or crashed";

#[test]
fn a_triple_fault() {
    case(async |fixture| {
        let kernel = kernel::program(&kernel::TRIPLE_FAULT);
        let mut config = fixture.config(&[]);
        config.kernel = kernel.path().into();
        let (exit, report) = Scene::boot(fixture, config).await.end().await;
        assert_eq!(exit, VmExit::Code(0));
        // It has printed nothing.
        assert_eq!(report, RESET);
    });
}

#[test]
fn instructions_that_are_nowhere() {
    case(async |fixture| {
        let kernel = kernel::program(&kernel::NOWHERE);
        let mut config = fixture.config(&[]);
        config.kernel = kernel.path().into();
        let (exit, report) = Scene::boot(fixture, config).await.end().await;
        assert_eq!(exit, VmExit::Code(1));
        let expected = "the VMM exited with code 1\nend of the VMM's messages:\n  KVM cannot emulate what the guest has executed";
        assert_eq!(report, expected);
    });
}

#[test]
fn a_guest_that_halts_costs_nothing_and_can_be_stopped() {
    case(async |fixture| {
        for instructions in [&kernel::HALT[..], &kernel::SPIN] {
            let kernel = kernel::program(instructions);
            let mut config = fixture.config(&[]);
            config.kernel = kernel.path().into();
            config.vcpus = 2;
            let scene = Scene::boot(fixture, config).await;
            let pid = scene.pid();
            let wakeups = |name: &str| switches(pid, name);
            // Its threads come to rest.
            sleep(Duration::from_millis(500)).await;
            let before = ["cofferdam-vmm", "devices", "vcpu1"].map(wakeups);
            let halted = wakeups("vcpu0");
            sleep(Duration::from_secs(1)).await;
            assert_eq!(["cofferdam-vmm", "devices", "vcpu1"].map(wakeups), before);
            if instructions == kernel::HALT {
                assert_eq!(wakeups("vcpu0"), halted);
            }
            scene.stop().await;
        }
    });
}

#[test]
fn an_idle_guest_wakes_only_its_own_processors() {
    case(async |fixture| {
        let mut scene = Scene::boot(fixture, fixture.config(&[])).await;
        scene.echo().await;
        let pid = scene.pid();
        let wakeups = || ["cofferdam-vmm", "devices"].map(|name| switches(pid, name));
        // What the boot has freed is still given back, every two seconds some of it.
        let deadline = Instant::now() + LIMIT;
        let mut before = wakeups();
        let woken = loop {
            let guest = switches(pid, "vcpu0");
            sleep(Duration::from_secs(1)).await;
            let now = wakeups();
            if now == before {
                break switches(pid, "vcpu0") - guest;
            }
            assert!(Instant::now() < deadline, "{before:?}, then {now:?}");
            before = now;
        };
        eprintln!("the guest's processor slept {woken} times in 1 s");
        scene.stop().await;
    });
}

/// A file of a thread.
fn thread_file(pid: u32, name: &str, file: &str) -> Option<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks.flatten().find_map(|task| {
        let text = |file| fs::read_to_string(task.path().join(file)).ok();
        (text("comm")?.trim() == name).then(|| text(file))?
    })
}

/// How often a thread has gone to sleep.
fn switches(pid: u32, name: &str) -> u64 {
    let status = thread_file(pid, name, "status").unwrap_or_else(|| panic!("no thread {name}"));
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = count.and_then(|count| count.trim().parse().ok());
    count.expect("a number")
}

/// Whether a thread waits for a descriptor.
fn waits(pid: u32, name: &str) -> bool {
    let call = thread_file(pid, name, "syscall").unwrap_or_default();
    call.starts_with(&format!("{} ", libc::SYS_ppoll))
}

/// Whether a child has ended and was not waited for.
fn has_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| text.contains(") Z "))
}

#[test]
fn a_kernel_without_a_first_program_panics() {
    case(async |fixture| {
        let config = fixture.config(&["rdinit=/nothing"]);
        let (exit, report) = Scene::boot(fixture, config).await.end().await;
        assert_eq!(exit, VmExit::Code(0));
        says(
            &report,
            &[
                RESET,
                "end of the guest's console:",
                "Kernel panic",
                "Unable to mount root fs",
            ],
        );
    });
}

#[test]
fn an_image_that_is_none_is_seen_on_the_console() {
    case(async |fixture| {
        let mut image = tempfile::NamedTempFile::new().expect("a file");
        image.write_all(&[b'x'; 100_000]).expect("writes");
        let mut config = fixture.config(&[]);
        config.initrd = image.path().into();
        let (exit, report) = Scene::boot(fixture, config).await.end().await;
        assert_eq!(exit, VmExit::Code(0));
        says(
            &report,
            &[
                RESET,
                "end of the guest's console:",
                "Kernel panic",
                "Unable to mount root fs",
            ],
        );
    });
}

#[test]
fn the_end_of_the_first_program() {
    case(async |fixture| {
        let config = fixture.config(&[guest::PANIC]);
        let (exit, report) = Scene::boot(fixture, config).await.end().await;
        assert_eq!(exit, VmExit::Code(0));
        says(
            &report,
            &[
                RESET,
                "end of the guest's console:",
                guest::LAST_WORDS,
                "Attempted to kill init",
            ],
        );
    });
}

/// More than a socket holds, while nobody reads, and then the end: the last of it is what matters.
#[test]
fn last_words_reach_a_driver_that_is_busy() {
    case(async |fixture| {
        let job = "i=0; while [ $i -lt 600 ]; do i=$((i + 1)); echo line $i of many words; done
                   echo last words; /bin/busybox reboot -f";
        let scene = Scene::with_job(fixture, fixture.config(&[]), job).await;
        // This thread is the one that reads the console. The processor's waits for it then, for a moment.
        let pid = scene.pid();
        let deadline = Instant::now() + LIMIT;
        while !has_ended(pid) && !waits(pid, "vcpu0") {
            assert!(Instant::now() < deadline, "the guest goes on");
            thread::sleep(Duration::from_millis(50));
        }
        let (exit, report) = scene.end().await;
        assert_eq!(exit, VmExit::Code(0));
        says(
            &report,
            &[
                RESET,
                "end of the guest's console:",
                "line 600 of",
                "last words",
            ],
        );
    });
}
