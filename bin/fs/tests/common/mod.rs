//! A machine with a share, and a guest that does a job on it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use backend_api::conformance::{PATIENCE, guest};
use backend_api::{Accelerator, Backend, Privileges, Share, SpareDevices, Vm, VmConfig};
use backend_qemu::{QemuBackend, QemuConfig};
use sandbox_share::{Entry, EntryKind, ShareConfig, ShareEditor, ShareServer};
use tokio::time::timeout;

/// Why tests with a guest can't run here, printed; true when they can.
pub fn possible() -> bool {
    let reason = if rustix::process::geteuid().is_root() {
        guest::kernel().err()
    } else {
        Some("needs root".to_owned())
    };
    if let Some(reason) = &reason {
        eprintln!("skipped: {reason}");
    }
    reason.is_none()
}

/// The configuration of a server of these entries.
pub fn config(entries: Vec<Entry>) -> ShareConfig {
    ShareConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_cofferdam-fs")),
        entries,
        deadline: Duration::from_secs(20),
        groups: Vec::new(),
    }
}

/// A bind entry.
pub fn bind(path: &str, source: &Path, readonly: bool) -> Entry {
    Entry {
        path: path.into(),
        kind: EntryKind::Bind {
            source: source.to_owned(),
            readonly,
            recursive: true,
        },
    }
}

/// Boots a guest with these entries mounted on `/mnt`, has it run the script, and returns what the script wrote.
pub async fn run(name: &str, entries: Vec<Entry>, script: &str) -> String {
    run_with(name, entries, script, async |_, _| {}).await
}

/// A guest's console while the guest runs.
pub struct Console<'a>(&'a dyn Vm);

impl Console<'_> {
    /// Waits until the guest has written this line.
    pub async fn shows(&self, line: &str) {
        let line = format!("{line}\n");
        let shown = timeout(PATIENCE, async {
            while !self
                .0
                .diagnostics()
                .console
                .replace('\r', "")
                .contains(&line)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if shown.await.is_err() {
            panic!("no {line:?} came{}", self.0.diagnostics());
        }
    }
}

/// As [`run`]; meanwhile `change` works on the share.
pub async fn run_with(
    name: &str,
    entries: Vec<Entry>,
    script: &str,
    change: impl AsyncFnOnce(ShareEditor, Console<'_>),
) -> String {
    let job = format!(
        "b=/bin/busybox\n$b mount -t virtiofs cofferdam /mnt || exit\ncd /mnt\n{script}\necho job-done\n"
    );
    let initrd = guest::image(Path::new(env!("CARGO_TARGET_TMPDIR")), name, Some(&job))
        .expect("a guest image");
    let mut server = ShareServer::spawn(config(entries)).expect("starts");
    let backend = QemuBackend::new(QemuConfig {
        binary: None,
        accelerator: Accelerator::Emulation,
    });
    let mut vm = backend
        .create(VmConfig {
            name: name.to_owned(),
            kernel: guest::kernel().expect("a kernel"),
            initrd,
            cmdline: Vec::new(),
            memory_bytes: 192 << 20,
            spare_memory_bytes: 0,
            vcpus: 1,
            spare_vcpus: 0,
            share: Some(Share {
                tag: "cofferdam".to_owned(),
                socket: server.vmm_socket().expect("the first call gets it"),
            }),
            huge_pages: false,
            sockets: None,
            nics: Vec::new(),
            disks: Vec::new(),
            images: Vec::new(),
            spare_devices: SpareDevices::default(),
            network: None,
            groups: Vec::new(),
            privileges: Privileges::Drop {
                uid: 64_124,
                gid: 64_124,
            },
        })
        .await
        .expect("creates");
    let (booted, ready) = tokio::join!(vm.boot(), server.ready());
    ready.unwrap_or_else(|error| panic!("serves: {error}"));
    let _link = booted.unwrap_or_else(|error| panic!("boots: {error}"));
    change(server.editor(), Console(vm.as_ref())).await;
    Console(vm.as_ref()).shows("job-done").await;
    let console = vm.diagnostics().console;
    vm.stop().await.expect("stops");
    let exit = timeout(PATIENCE, server.wait())
        .await
        .expect("the server ends with the VMM")
        .expect("reaped");
    assert_eq!(
        exit.to_string(),
        "exited with code 0",
        "{}",
        server.stderr()
    );
    console
}
