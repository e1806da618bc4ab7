//! Faults of the host: no memory, and files that are not what they were.

use std::fs::{self, File};
use std::path::Path;

use backend_api::{Backend, BackendError, Privileges, Vm, VmExit, chain};
use backend_kvm::{KvmBackend, KvmConfig};
use rustix::process::{Pid, Signal, kill_process};

use crate::devices::server;
use crate::group::Group;
use crate::kernel;
use crate::scene::{Scene, case};

/// Makes the guest take memory until somebody ends it.
const GREED: &str = "more=0123456789abcdef; while :; do more=$more$more; done";

#[test]
fn no_memory_is_left() {
    for shared in [false, true] {
        case(async |fixture| {
            let Some(group) = Group::with_memory(8 << 20) else {
                return;
            };
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = fixture.config(&[]);
            let mut serving = None;
            if shared {
                let (server, share) = server(folder.path()).await;
                config.share = Some(share);
                serving = Some(server);
            }
            // Wherever it is when it is put there, it wants more.
            let scene = Scene::with_job(fixture, config, GREED).await;
            group.add(scene.pid());
            let (exit, report) = scene.end().await;
            assert_eq!(exit, VmExit::Signal(9), "{report}");
            let expected = "the VMM was ended by signal 9: it was killed, or the host or its control group had no memory left";
            assert!(report.starts_with(expected), "{report}");
            assert_eq!(group.killed(), 1);
            if let Some(mut server) = serving {
                server.wait().await.expect("it ends with its VMM");
            }
        });
    }
}

async fn refused(vm: &mut Box<dyn Vm>) -> BackendError {
    let error = vm.boot().await.map(drop).expect_err("it can't boot");
    assert_eq!(vm.pid(), None);
    error
}

fn cut(path: &Path, length: u64) {
    let file = File::options().write(true).open(path).expect("opens");
    file.set_len(length).expect("cuts");
}

#[test]
fn a_kernel_that_is_cut_before_it_is_read() {
    case(async |fixture| {
        // In its header, behind it, and in what is loaded.
        for length in [0, 100, 130] {
            let kernel = kernel::program(&kernel::TRIPLE_FAULT);
            let mut config = fixture.config(&[]);
            config.kernel = kernel.path().into();
            let mut vm = fixture.create(config).await.expect("creates");
            cut(kernel.path(), length);
            let error = chain(&refused(&mut vm).await);
            let begin = "booting the VM: the VMM's monitor refuses: the guest kernel cannot be loaded: Kernel Loader: failed to load ELF kernel image: ";
            assert!(error.starts_with(begin), "{length}: {error}");
        }
    });
}

#[test]
fn files_that_are_cut_afterwards_do_no_harm() {
    case(async |fixture| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = fixture.config(&[]);
        for file in [&mut config.kernel, &mut config.initrd] {
            let copy = folder.path().join(file.file_name().expect("a name"));
            fs::copy(&*file, &copy).expect("copies");
            *file = copy;
        }
        let files = [config.kernel.clone(), config.initrd.clone()];
        let mut scene = Scene::boot(fixture, config).await;
        for file in files {
            cut(&file, 0);
        }
        scene.echo().await;
        scene.stop().await;
    });
}

#[test]
fn programs_that_are_no_vmm() {
    case(async |fixture| {
        let folder = tempfile::tempdir().expect("a folder");
        let text = folder.path().join("text");
        fs::copy("/etc/passwd", &text).expect("copies");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&text, mode).expect("a mode");
        let boot = async |program: &Path, privileges| {
            let backend = KvmBackend::new(KvmConfig {
                program: program.to_owned(),
                vhost_net: true,
            });
            let mut config = fixture.config(&[]);
            config.privileges = privileges;
            let mut vm = backend.create(config).await.expect("creates");
            refused(&mut vm).await
        };
        let error = chain(&boot(&text, fixture.privileges).await);
        let expected = format!(
            "booting the VM: cannot start {}: Exec format error (os error 8)",
            text.display()
        );
        assert_eq!(error, expected);
        // It takes the number of its control socket for its own name.
        let error = chain(&boot(Path::new("/bin/busybox"), fixture.privileges).await);
        let expected =
            "booting the VM: the VMM exited with code 127\nend of the VMM's messages:\n  ";
        assert!(error.starts_with(expected), "{error}");
        // A script needs an interpreter, which a VMM that is alone does not find.
        let slow = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/hangs_up");
        let error = chain(&boot(&slow, Privileges::Inherit).await);
        let expected = "booting the VM: the VMM exited with code 3\nend of the VMM's messages:\n  no machine today";
        assert_eq!(error, expected);
    });
}

/// A stopped process obeys nobody, but can be ended.
#[test]
fn a_vmm_that_is_stopped_can_be_ended() {
    case(async |fixture| {
        let kernel = kernel::program(&kernel::SPIN);
        let mut config = fixture.config(&[]);
        config.kernel = kernel.path().into();
        let scene = Scene::boot(fixture, config).await;
        let pid = Pid::from_raw(scene.pid().cast_signed()).expect("a number");
        kill_process(pid, Signal::STOP).expect("stops");
        scene.stop().await;
    });
}
