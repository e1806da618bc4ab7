//! Network cards and file shares that come and go while the guest runs; disks and images are the suite's.

use backend_api::conformance::{Fixture, guest};
use backend_api::{Backend, Device, Nic, Place, SpareDevices};
use backend_kvm::{KvmBackend, KvmConfig};

use crate::common;
use crate::devices::server;
use crate::scene::{Scene, case};
use crate::wire::Wire;

/// A machine with two spare places, and a shell in its guest.
async fn scene(fixture: &Fixture, backend: &dyn Backend) -> Scene {
    let mut config = fixture.config(&[guest::SHELL]);
    config.spare_devices = SpareDevices {
        places: 2,
        disk_bytes: 0,
        share: true,
    };
    let mut vm = backend.create(config).await.expect("creates");
    let link = vm.boot().await.unwrap_or_else(|error| panic!("{error}"));
    let mut scene = Scene { vm, link };
    assert_eq!(run(&mut scene, "echo up").await, "up");
    scene
}

async fn run(scene: &mut Scene, command: &str) -> String {
    guest::run(&*scene.vm, &mut scene.link, command).await
}

async fn add(scene: &mut Scene, device: Device) -> Place {
    let plug = scene.vm.plug().expect("it can");
    let place = plug
        .plug(device)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(run(scene, &guest::tell("bind", place)).await, "");
    place
}

async fn take(scene: &Scene, place: Place) {
    let plug = scene.vm.plug().expect("it can");
    plug.unplug(place)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_card_comes_and_goes() {
    for vhost_net in [false, true] {
        case(async |fixture| {
            let backend = KvmBackend::new(KvmConfig {
                program: common::program(),
                vhost_net,
            });
            let mut scene = scene(fixture, &backend).await;
            let cards = "cd /sys/class/net; echo e*";
            assert_eq!(run(&mut scene, cards).await, "e*");
            let before = guest::census(&*scene.vm);
            for round in 0..2 {
                let (wire, queue) = Wire::new();
                wire.answer("10.9.8.1/24");
                let nic = Nic {
                    mac: [2, 0, 0, 0, 0, round],
                    queues: vec![queue],
                };
                let place = add(&mut scene, Device::Nic(nic)).await;
                let ping = "b=/bin/busybox; $b ifconfig eth0 10.9.8.7 netmask 255.255.255.0 up
                    $b cat /sys/class/net/eth0/address
                    $b ping -c 1 -W 30 10.9.8.1 | $b grep -c ' 0% packet loss'";
                let said = run(&mut scene, ping).await;
                assert_eq!(said, format!("02:00:00:00:00:0{round}\n1"));
                if round == 0 {
                    assert_eq!(run(&mut scene, &guest::tell("unbind", place)).await, "");
                }
                // The second one is taken from a guest that uses it.
                take(&scene, place).await;
                guest::expect_census(&*scene.vm, before).await;
                assert_eq!(run(&mut scene, "echo alive").await, "alive");
            }
            scene.stop().await;
        });
    }
}

#[test]
fn a_share_comes_and_goes() {
    case(async |fixture| {
        let mut scene = scene(fixture, &*fixture.backend).await;
        let before = guest::census(&*scene.vm);
        for round in 0..2 {
            let folder = tempfile::tempdir().expect("a folder");
            let (mut server, share) = server(folder.path()).await;
            let place = add(&mut scene, Device::Share(share)).await;
            let read = "b=/bin/busybox; $b mount -t virtiofs files /mnt; $b cat /mnt/folder/word";
            assert_eq!(run(&mut scene, read).await, "from the share");
            if round == 0 {
                assert_eq!(run(&mut scene, "/bin/busybox umount /mnt").await, "");
                assert_eq!(run(&mut scene, &guest::tell("unbind", place)).await, "");
            }
            // The second one is taken from a guest that has it mounted.
            take(&scene, place).await;
            guest::expect_census(&*scene.vm, before).await;
            assert_eq!(run(&mut scene, "echo alive").await, "alive");
            server.stop().await.expect("it was started here");
        }
        scene.stop().await;
    });
}
