//! The functional probe tells working accelerators from those that only look so.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend_api::{Accelerator, Privileges};
use backend_probe::{Probe, ProbeOutcome, Unusable, cached};
use backend_qemu::{QemuBackend, QemuConfig};

fn backend(binary: Option<PathBuf>, accelerator: Accelerator) -> QemuBackend {
    QemuBackend::new(QemuConfig {
        binary,
        accelerator,
    })
}

fn probe(accelerator: Accelerator) -> Option<Probe> {
    let backend = backend(None, accelerator);
    match common::fixture() {
        Ok(fixture) => Some(Probe {
            program: backend.program().expect("the fixture has looked"),
            backend: Arc::new(backend),
            kernel: fixture.kernel,
            initrd: fixture.initrd,
            privileges: fixture.privileges,
            deadline: Duration::from_secs(60),
        }),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn emulation_runs_guest_code_to_its_end() {
    let Some(probe) = probe(Accelerator::Emulation) else {
        return;
    };
    let outcome = probe.run().await.expect("an answer");
    assert!(matches!(outcome, ProbeOutcome::Works { .. }), "{outcome:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn kvm_is_believed_only_when_it_ran_a_guest() {
    let Some(mut probe) = probe(Accelerator::Kvm) else {
        return;
    };
    probe.deadline = Duration::from_secs(20);
    let start = Instant::now();
    let outcome = probe.run().await.expect("an answer");
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "the deadline holds"
    );
    eprintln!("kvm on this machine: {outcome:?}");
    match outcome {
        ProbeOutcome::Works { .. } => assert!(Path::new("/dev/kvm").exists()),
        ProbeOutcome::Unusable {
            reason: Unusable::NoDevice,
        } => assert!(!Path::new("/dev/kvm").exists()),
        ProbeOutcome::Unusable { reason } => {
            assert!(reason.to_string().contains("/dev/kvm"), "{reason}")
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_hangs_is_unusable_and_says_what_it_wrote_last() {
    let Some(mut probe) = probe(Accelerator::Emulation) else {
        return;
    };
    probe.deadline = Duration::from_millis(100);
    let outcome = probe.run().await.expect("an answer");
    assert!(
        matches!(
            outcome,
            ProbeOutcome::Unusable {
                reason: Unusable::GuestHung { .. }
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_vmm_that_aborts_is_quoted() {
    let Some(mut probe) = probe(Accelerator::Emulation) else {
        return;
    };
    probe.privileges = Privileges::Inherit;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/aborts");
    probe.backend = Arc::new(backend(Some(program.clone()), Accelerator::Emulation));
    probe.program = program;
    let outcome = probe.run().await.expect("an answer");
    let ProbeOutcome::Unusable { reason } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        reason.to_string(),
        "/dev/kvm opens, but cannot run a guest kernel: the VMM was ended by signal 6: failed to set MSR 0x10a"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn an_outcome_is_remembered_until_something_changes() {
    let Some(mut probe) = probe(Accelerator::Emulation) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("probe.json");
    let kernel = folder.path().join("vmlinux");
    std::fs::copy(&probe.kernel, &kernel).expect("copies");
    probe.kernel.clone_from(&kernel);
    // The other tests rewrite theirs.
    let initrd = folder.path().join("initramfs");
    std::fs::copy(&probe.initrd, &initrd).expect("copies");
    probe.initrd = initrd;

    let first = cached(&probe, &file).await.expect("an answer");
    let start = Instant::now();
    assert_eq!(cached(&probe, &file).await.expect("an answer"), first);
    assert!(
        start.elapsed() < Duration::from_millis(50),
        "nothing was booted"
    );

    std::fs::write(&file, b"{ not whole").expect("writes");
    let again = cached(&probe, &file)
        .await
        .expect("a damaged file costs a probe, nothing more");
    assert!(matches!(again, ProbeOutcome::Works { .. }), "{again:?}");

    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&kernel, b"another").expect("writes");
    cached(&probe, &file)
        .await
        .expect_err("a changed kernel is probed, and this one is none");
    assert_eq!(
        std::fs::read_to_string(&file).expect("reads"),
        text,
        "a failure is not remembered"
    );
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("lists").collect();
    assert_eq!(left.len(), 3, "no drafts are left: {left:?}");
}
