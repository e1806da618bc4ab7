//! Faults of what is behind a device: that device stops, and the others go on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use backend_api::{Nic, Share, chain};
use backend_kvm::{KvmBackend, KvmConfig};
use backend_process::Exit;
use rustix::process::{Pid, Signal, kill_process};
use sandbox_share::{Entry, EntryKind, ShareConfig, ShareServer};

use crate::common;
use crate::scene::{LIMIT, Scene, case};
use crate::wire::Wire;

#[test]
fn a_tap_that_is_removed() {
    for vhost_net in [false, true] {
        case(async |fixture| {
            let (wire, queue) = Wire::new();
            let mut config = fixture.config(&[]);
            config.nics.push(Nic {
                mac: [2, 0, 0, 0, 0, 2],
                queues: vec![queue],
            });
            let backend = KvmBackend::new(KvmConfig {
                program: common::program(),
                vhost_net,
            });
            // It sends all the time.
            let job = "b=/bin/busybox; carrier() { $b cat /sys/class/net/eth0/carrier; }
                $b ifconfig eth0 10.9.8.7 netmask 255.255.255.0 up
                (while :; do $b ping -c 1 -W 1 10.9.8.1 >/dev/null; done) &
                (while [ $(carrier) = 1 ]; do $b sleep 0.1; done; echo no carrier) &
                echo carrier $(carrier)";
            let mut scene = Scene::on(&backend, config, job).await;
            scene.echo().await;
            scene.printed("carrier 1").await;
            wire.remove();
            // vhost-net tells nobody of it.
            if !vhost_net {
                scene.printed("no carrier").await;
            }
            scene.echo().await;
            scene.stop().await;
        });
    }
}

/// A file server that shows one folder with one file, and the socket for a VMM.
pub async fn server(folder: &Path) -> (ShareServer, Share) {
    fs::write(folder.join("word"), "from the share\n").expect("writes");
    let program = "../../target/cofferdam/libexec/cofferdam/cofferdam-fs";
    let mut server = ShareServer::spawn(ShareConfig {
        program: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(program),
        entries: vec![Entry {
            path: "folder".into(),
            kind: EntryKind::Bind {
                source: folder.into(),
                readonly: true,
                recursive: false,
            },
        }],
        deadline: LIMIT,
        groups: Vec::new(),
    })
    .expect("starts");
    server.ready().await.expect("serves");
    let share = Share {
        tag: "files".to_owned(),
        socket: server.vmm_socket().expect("a socket"),
    };
    (server, share)
}

fn kill(pid: Option<u32>) {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    kill_process(pid.expect("it runs"), Signal::KILL).expect("kills");
}

#[test]
fn a_file_server_that_is_killed() {
    case(async |fixture| {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, share) = server(folder.path()).await;
        let mut config = fixture.config(&[]);
        config.share = Some(share);
        let job = "b=/bin/busybox; $b mount -t virtiofs files /mnt; $b cat /mnt/folder/word
            (while :; do $b cat /mnt/folder/word >/dev/null; done) &";
        let mut scene = Scene::with_job(fixture, config, job).await;
        scene.echo().await;
        scene.printed("from the share").await;
        kill(server.pid());
        assert_eq!(
            server.wait().await.expect("it was started here"),
            Exit::Signal(9)
        );
        scene.warned("the file server has hung up").await;
        scene.echo().await;
        scene.stop().await;
    });
}

#[test]
fn a_file_server_that_is_dead_already() {
    case(async |fixture| {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, share) = server(folder.path()).await;
        kill(server.pid());
        server.wait().await.expect("it was started here");
        let mut config = fixture.config(&[]);
        config.share = Some(share);
        let mut vm = fixture.create(config).await.expect("creates");
        let refused = vm.boot().await.map(drop).expect_err("no file server");
        let expected = "booting the VM: the VMM's monitor refuses: the file share: cannot agree with the file server: the file server has hung up";
        assert_eq!(chain(&refused), expected);
        assert_eq!(vm.pid(), None);
    });
}

/// Memory that is shared is a file. Whoever has it open can't make it shorter under the guest.
#[test]
fn memory_that_is_shared_keeps_its_length() {
    case(async |fixture| {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut server, share) = server(folder.path()).await;
        let mut config = fixture.config(&[]);
        config.share = Some(share);
        let mut scene = Scene::boot(fixture, config).await;
        scene.echo().await;
        let of_vmm = scene.pid();
        let of_server = server.pid().expect("it runs");
        let mut found = 0;
        for pid in [of_vmm, of_server] {
            for file in memory_files(pid) {
                found += 1;
                let memory = File::options().write(true).open(&file).expect("opens");
                let length = memory.metadata().expect("a file").len();
                for length in [0, length - 4096, length + 4096] {
                    let error = memory.set_len(length).expect_err("it is sealed");
                    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{length}");
                }
            }
        }
        assert!(found > 0, "no memory was found");
        scene.echo().await;
        scene.stop().await;
        server.stop().await.expect("it was started here");
    });
}

/// Where memory of a guest is open in a process.
fn memory_files(pid: u32) -> Vec<PathBuf> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    files
        .map(|file| file.expect("a descriptor").path())
        .filter(|path| {
            let target = fs::read_link(path).unwrap_or_default();
            target.to_string_lossy().contains("memfd:guest-memory")
        })
        .collect()
}
