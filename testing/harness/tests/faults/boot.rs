//! Machines that do not come up: the error names the phase and the thing, and shows what the machine said.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Cofferdam, Outcome, image, patient, wait_until};
use serde_json::json;

use crate::bundle::{
    LIMIT, SLEEP, assert_refused, begin, bundle, bundle_with, call, configure, open_to_all, script,
    text,
};
use crate::initramfs;
use harness::descendant;

/// Emulation only: that a probe of KVM fails first is another matter.
const EMULATED: &str = "backend = \"qemutcg\"";

/// No probe either: our own VMM where KVM is known to run guests, else emulation.
fn unprobed() -> &'static str {
    match std::env::var_os("COFFERDAM_TEST_ACCELERATOR") {
        Some(name) if name == "kvm" => "backend = \"kvm\"",
        _ => EMULATED,
    }
}

fn run(cofferdam: &Cofferdam) -> Outcome {
    let bundle = bundle(cofferdam, "b", &["true"]);
    cofferdam.run(["run", "--bundle", text(&bundle), "c"])
}

/// `create` and `run` are both refused with these words.
fn refused(config: &str, prepare: impl FnOnce(&Cofferdam) -> String, words: &[&str]) {
    let Some(cofferdam) = Cofferdam::with_config(config) else {
        return;
    };
    let lines = prepare(&cofferdam);
    configure(&cofferdam, &lines);
    assert_refused(&cofferdam, &run(&cofferdam), words);
    let bundle = bundle(&cofferdam, "b", &["true"]);
    assert_refused(
        &cofferdam,
        &call(&cofferdam, &["create", "--bundle", text(&bundle), "c"]),
        words,
    );
}

/// The kernel that is in use.
fn kernel(cofferdam: &Cofferdam) -> PathBuf {
    let prefix = cofferdam
        .program()
        .parent()
        .and_then(Path::parent)
        .map(Path::to_owned)
        .expect("a prefix");
    prefix.join("lib/cofferdam/vmlinux")
}

fn file(cofferdam: &Cofferdam, name: &str, bytes: &[u8]) -> PathBuf {
    open_to_all(cofferdam);
    let path = cofferdam.folder().join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

#[test]
fn a_missing_qemu_is_named() {
    let missing = |_: &Cofferdam| "qemu = \"/nonexistent/qemu\"".to_owned();
    refused(EMULATED, missing, &["/nonexistent/qemu"]);
    refused("backend = \"qemukvm\"", missing, &["/nonexistent/qemu"]);
}

#[test]
fn a_missing_kernel_or_image_is_named() {
    refused(
        unprobed(),
        |_| "kernel = \"/nonexistent/vmlinux\"".to_owned(),
        &["guest kernel", "/nonexistent/vmlinux"],
    );
    refused(
        unprobed(),
        |_| "initrd = \"/nonexistent/initramfs\"".to_owned(),
        &["guest image", "/nonexistent/initramfs"],
    );
}

#[test]
fn a_kernel_that_is_none_is_named() {
    let garbage =
        |cofferdam: &Cofferdam| format!("kernel = {:?}", file(cofferdam, "garbage", &[b'x'; 4096]));
    refused(unprobed(), garbage, &["kernel", "garbage"]);
    let empty = |cofferdam: &Cofferdam| format!("kernel = {:?}", file(cofferdam, "empty", b""));
    refused(unprobed(), empty, &["kernel", "empty"]);
}

#[test]
fn a_kernel_that_was_cut_off_does_not_boot() {
    let cut = |cofferdam: &Cofferdam| {
        let whole = fs::read(kernel(cofferdam)).expect("a kernel");
        format!(
            "boot_timeout_seconds = 5\nkernel = {:?}",
            file(cofferdam, "cut", &whole[..whole.len() / 3])
        )
    };
    refused(unprobed(), cut, &["boot"]);
}

/// Debian's, which boots test hosts: its drivers of virtio are modules, and it looks for processors and devices in ACPI's
/// tables.
#[test]
fn a_kernel_that_lacks_what_a_guest_needs_is_told_where_that_stands() {
    let debian = image("../testhost/vmlinux");
    let debian = debian.and_then(|path| fs::read(path).map_err(|error| error.to_string()));
    let debian = match debian {
        Ok(debian) => debian,
        Err(reason) => {
            eprintln!(
                "SKIPPED a kernel that lacks something: {reason} (or `cargo xtask testhost`)"
            );
            return;
        }
    };
    let lacks = |cofferdam: &Cofferdam| {
        format!(
            "boot_timeout_seconds = {}\nkernel = {:?}",
            patient(Duration::from_secs(10)).as_secs(),
            file(cofferdam, "debian", &debian)
        )
    };
    let mut words = vec![
        "booting the guest",
        "/debian does not say what is built into it (CONFIG_IKCONFIG)",
        "see `kernel` in docs/configuration.md",
    ];
    // Of our own monitor's devices it finds none to write to.
    if unprobed() == EMULATED {
        words.push("end of the guest's console:");
    }
    refused(unprobed(), lacks, &words);
}

/// Its configuration says more than the kernel's own words. A guest image that is none ends the boot.
#[test]
fn a_kernel_of_ones_own_is_told_what_it_lacks() {
    let copied = |cofferdam: &Cofferdam| {
        let whole = fs::read(kernel(cofferdam)).expect("a kernel");
        format!(
            "initrd = {:?}\nkernel = {:?}",
            file(cofferdam, "garbage", &[b'x'; 4096]),
            file(cofferdam, "copy", &whole)
        )
    };
    refused(
        unprobed(),
        copied,
        &[
            "/copy has built in what it cannot come up without",
            "Kernel panic",
        ],
    );
}

#[test]
fn a_guest_that_panics_shows_its_console() {
    let garbage =
        |cofferdam: &Cofferdam| format!("initrd = {:?}", file(cofferdam, "garbage", &[b'x'; 4096]));
    refused(unprobed(), garbage, &["booting the guest", "Kernel panic"]);
}

#[test]
fn an_agent_that_does_not_answer_shows_the_console() {
    let Some(cofferdam) = Cofferdam::with_config(unprobed()) else {
        return;
    };
    let image = cofferdam.folder().join("sleeper.cpio");
    open_to_all(&cofferdam);
    if !initramfs::write(
        &image,
        "echo here sleeps an init > /dev/console\nexec /bin/busybox sleep 100000",
    ) {
        return;
    }
    // Long enough for the kernel to reach its init on a loaded machine.
    configure(
        &cofferdam,
        &format!("initrd = {image:?}\nboot_timeout_seconds = 15"),
    );
    let began = Instant::now();
    assert_refused(
        &cofferdam,
        &run(&cofferdam),
        &[
            "booting the guest",
            "agent has not answered within 15 s",
            "here sleeps an init",
        ],
    );
    assert!(
        began.elapsed() < patient(Duration::from_secs(75)),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn an_agent_that_speaks_nonsense_is_refused() {
    let Some(cofferdam) = Cofferdam::with_config(unprobed()) else {
        return;
    };
    let image = cofferdam.folder().join("liar.cpio");
    open_to_all(&cofferdam);
    let liar = "/bin/busybox mkdir /sys; /bin/busybox mount -t sysfs s /sys; /bin/busybox mount -t devtmpfs d /dev
for port in /sys/class/virtio-ports/*; do /bin/busybox yes nonsense > /dev/${port##*/} & done
exec /bin/busybox sleep 100000";
    if !initramfs::write(&image, liar) {
        return;
    }
    configure(
        &cofferdam,
        &format!("initrd = {image:?}\nboot_timeout_seconds = 20"),
    );
    assert_refused(&cofferdam, &run(&cofferdam), &["booting the guest"]);
}

#[test]
fn a_qemu_that_fails_shows_what_it_said() {
    let failing = |cofferdam: &Cofferdam| {
        format!(
            "qemu = {:?}",
            script(cofferdam, "qemu", "echo the flux is low >&2; exit 1")
        )
    };
    refused(EMULATED, failing, &["boot", "VMM", "the flux is low"]);
}

#[test]
fn a_qemu_that_says_nothing_is_given_up() {
    let silent = |cofferdam: &Cofferdam| {
        format!(
            "boot_timeout_seconds = 3\nqemu = {:?}",
            script(cofferdam, "qemu", "exec sleep 100000")
        )
    };
    refused(EMULATED, silent, &["boot", "VMM"]);
}

#[test]
fn a_machine_that_hangs_is_given_up() {
    let Some(cofferdam) = Cofferdam::with_config(EMULATED) else {
        return;
    };
    // -S: the processor never runs.
    let hanging = script(&cofferdam, "qemu", "exec qemu-system-x86_64 -S \"$@\"");
    configure(
        &cofferdam,
        &format!("boot_timeout_seconds = 3\nqemu = {hanging:?}"),
    );
    let began = Instant::now();
    assert_refused(
        &cofferdam,
        &run(&cofferdam),
        &["booting the guest", "agent has not answered within 3 s"],
    );
    assert!(
        began.elapsed() < patient(Duration::from_secs(60)),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_qemu_that_dies_while_booting_is_told_of() {
    let Some(cofferdam) = Cofferdam::with_config(EMULATED) else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for moment in [0, 30, 100, 300] {
        let create = begin(&cofferdam, &["create", "--bundle", text(&bundle), "c"]);
        let mut qemu = None;
        let found = wait_until(LIMIT, || {
            qemu = descendant(create.pid(), "qemu-system");
            qemu.is_some()
        });
        assert!(found, "QEMU is not started");
        std::thread::sleep(Duration::from_millis(moment));
        cofferdam.kill9(qemu.expect("a pid"));
        let done = create.finish();
        if done.code == 0 {
            // Quicker than we: it died after the boot.
            cofferdam.ok(["delete", "--force", "c"]);
            cofferdam.assert_nothing_left();
        } else {
            assert_refused(&cofferdam, &done, &["VMM", "signal 9"]);
        }
    }
}

#[test]
fn a_missing_or_broken_file_server_is_named() {
    refused(
        unprobed(),
        |_| "file_server = \"/nonexistent/fs\"".to_owned(),
        &["sharing files", "/nonexistent/fs"],
    );
    let broken = |cofferdam: &Cofferdam| {
        format!(
            "file_server = {:?}",
            script(cofferdam, "fs", "echo no share today >&2; exit 3")
        )
    };
    refused(unprobed(), broken, &["sharing files", "no share today"]);
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let Some(cofferdam) = Cofferdam::with_config(unprobed()) else {
        return;
    };
    let bundle = bundle_with(&cofferdam, "b", &["true"], |config| {
        config["linux"]["resources"] = json!({ "memory": { "limit": 1_u64 << 44 } });
    });
    let done = cofferdam.run(["run", "--bundle", text(&bundle), "c"]);
    assert_refused(&cofferdam, &done, &["no memory for the VM"]);
}

#[test]
fn a_guest_without_enough_memory_says_so() {
    let Some(cofferdam) = Cofferdam::with_config(unprobed()) else {
        return;
    };
    configure(
        &cofferdam,
        "default_memory_mib = 64\nkernel_parameters = [\"mem=24M\"]\nboot_timeout_seconds = 10",
    );
    assert_refused(&cofferdam, &run(&cofferdam), &["booting the guest"]);
}

#[test]
fn a_configuration_that_is_wrong_is_named() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    configure(&cofferdam, "defualt_vcpus = 3");
    assert_refused(
        &cofferdam,
        &run(&cofferdam),
        &["config.toml", "defualt_vcpus"],
    );
    File::create(cofferdam.config()).expect("an empty configuration");
}
