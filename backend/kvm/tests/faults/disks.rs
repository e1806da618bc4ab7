//! Machines that end while their disks are busy: with a ring, and with a thread. What the host's kernel was told to read and
//! write, it does or forgets, and nothing is left.

use backend_api::conformance::Fixture;
use backend_api::{Disk, VmConfig, VmExit};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::scene::{Scene, case};

/// Reads and writes all the time, and says when it has begun.
const BUSY: &str = "b=/bin/busybox
    for i in 1 2 3 4; do
        (while :; do $b dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null; done) &
        (while :; do $b dd if=/dev/zero of=/dev/vdb bs=64k conv=fsync oflag=direct 2>/dev/null; done) &
    done
    for disk in vda vdb; do
        until [ $($b awk '{ print $1 + $5 }' /sys/block/$disk/stat) -gt 50 ]; do $b sleep 0.05; done
    done
    echo both are busy
";

fn with_disks(fixture: &Fixture) -> VmConfig {
    let disk = |read_only| {
        let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("a file in memory");
        ftruncate(&file, 4 << 20).expect("has a length");
        Disk {
            file,
            read_only,
            serial: String::new(),
        }
    };
    let mut config = fixture.config(&[]);
    config.disks = vec![disk(true), disk(false)];
    config
}

#[test]
fn a_machine_that_is_stopped_while_its_disks_are_busy() {
    case(async |fixture| {
        let mut scene = Scene::with_job(fixture, with_disks(fixture), BUSY).await;
        scene.printed("both are busy").await;
        scene.echo().await;
        scene.stop().await;
    });
}

#[test]
fn a_guest_that_reboots_while_its_disks_are_busy() {
    case(async |fixture| {
        let job = format!("{BUSY} $b reboot -f");
        let scene = Scene::with_job(fixture, with_disks(fixture), &job).await;
        scene.printed("both are busy").await;
        let (exit, report) = scene.end().await;
        assert_eq!(exit, VmExit::Code(0), "{report}");
    });
}
