//! Cases of disks, images, and devices that come and go while the guest runs.
#![expect(clippy::missing_panics_doc, reason = "a failing test panics")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::cases::{assert_unsupported, echo, refused};
use super::{Fixture, erofs, guest};
use crate::{BackendError, Device, Disk, Image, LinkIo, Place, Plug, SpareDevices, Vm, VmConfig};

/// The longest disk that may come.
const DISK: u64 = 1 << 20;

/// Waits for the image's block device, which the kernel makes a little later than others: a guest whose kernel makes none
/// waits until the case gives up.
const IMAGE_COMES: &str = "b=/bin/busybox; until [ -b /dev/pmem0 ]; do $b sleep 0.05; done";

/// An image's length is a multiple of this many sectors.
const SECTORS: u64 = 4096;

/// A file of 64 KiB that begins with these words.
fn file(words: &str) -> File {
    let mut file = tempfile();
    file.write_all(words.as_bytes()).expect("writes");
    file.set_len(64 << 10).expect("has a length");
    file
}

/// A file that only its descriptor leads to.
fn tempfile() -> File {
    rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC)
        .expect("a file in memory")
        .into()
}

fn disk(file: &File, read_only: bool) -> Disk {
    Disk {
        file: file.try_clone().expect("a descriptor").into(),
        read_only,
        serial: "cofferdam-7".to_owned(),
    }
}

fn image(file: &File) -> Image {
    Image {
        file: file.try_clone().expect("a descriptor").into(),
    }
}

/// A machine with a shell in its guest.
struct Scene {
    vm: Box<dyn Vm>,
    link: LinkIo,
}

impl Scene {
    async fn boot(fixture: &Fixture, prepare: impl FnOnce(&mut VmConfig)) -> Self {
        let mut config = fixture.config(&[guest::SHELL]);
        prepare(&mut config);
        let (vm, link) = fixture.boot(config).await;
        let mut scene = Self { vm, link };
        // What comes before the guest's kernel has looked at a place is found by it.
        assert_eq!(scene.run("echo up").await, "up");
        scene
    }

    /// What a command of the guest's prints, with its errors.
    async fn run(&mut self, command: &str) -> String {
        guest::run(&*self.vm, &mut self.link, command).await
    }

    fn plug(&self) -> &dyn Plug {
        self.vm.plug().expect("it can")
    }

    /// Plugs a device in and tells the guest.
    async fn add(&mut self, device: Device) -> Place {
        let place = self.plug().plug(device).await.expect("is plugged in");
        let said = self.tell("bind", place).await;
        assert_eq!(said, "", "the guest takes it");
        place
    }

    async fn tell(&mut self, what: &str, place: Place) -> String {
        self.run(&guest::tell(what, place)).await
    }

    /// Has the guest let go of a device, and takes it away.
    async fn remove(&mut self, place: Place) {
        assert_eq!(self.tell("unbind", place).await, "", "the guest lets go");
        self.plug().unplug(place).await.expect("is plugged out");
    }

    /// The guest reads the only image, which begins with these words.
    async fn expect_image(&mut self, words: &str) {
        let read = format!("{IMAGE_COMES}; $b cat /sys/block/pmem0/size; $b head -c 16 /dev/pmem0");
        let said = self.run(&read).await.replace('\0', "");
        assert_eq!(said, format!("{SECTORS}\n{words}"));
    }

    fn census(&self) -> [usize; 2] {
        guest::census(&*self.vm)
    }

    async fn stop(mut self) {
        self.vm.stop().await.expect("stops");
    }
}

/// Disks and images that a machine boots with are there, and nobody writes where he may not. Backends that have none refuse
/// to make such a machine.
pub async fn disks_and_images_are_there_at_the_boot(fixture: &Fixture) {
    let [first, second] = ["first disk", "second disk"].map(file);
    let files = erofs::image(b"from the image");
    let mut third = tempfile();
    third.write_all(&files).expect("writes");
    let prepare = |config: &mut VmConfig| {
        config.disks = vec![disk(&first, false), disk(&second, true)];
        config.images = vec![image(&third)];
    };
    if fixture.backend.capabilities().devices < 3 {
        let mut config = fixture.config(&[]);
        prepare(&mut config);
        return assert_unsupported(refused(fixture, config).await, "disks and images");
    }
    let mut scene = Scene::boot(fixture, prepare).await;
    let read = "b=/bin/busybox; $b head -c 16 /dev/vda; echo; $b head -c 16 /dev/vdb";
    let said = scene.run(read).await.replace('\0', "");
    assert_eq!(said, "first disk\nsecond disk");
    // Without DAX it would mount all the same.
    let mount = format!(
        "{IMAGE_COMES}; $b mount -t erofs -o ro,dax=always /dev/pmem0 /mnt
        $b grep -o dax=always /proc/mounts; $b cat /mnt/{}; $b umount /mnt",
        erofs::NAME
    );
    assert_eq!(scene.run(&mount).await, "dax=always\nfrom the image");
    let said = scene.run("/bin/busybox cat /sys/block/vda/serial").await;
    assert_eq!(said, "cofferdam-7");
    let write =
        "echo -n written | $b dd of=/dev/vda bs=512 seek=2 conv=notrunc,fsync 2>/dev/null; echo $?
        echo no | $b dd of=/dev/vdb conv=notrunc,fsync 2>/dev/null; echo $?";
    assert_eq!(scene.run(write).await, "0\n1");
    // The image's driver believes that it can; nobody hears of it.
    let _ = scene
        .run("echo no | $b dd of=/dev/pmem0 conv=notrunc,fsync 2>/dev/null")
        .await;
    assert_eq!(bytes(&first, 1024, 7), b"written");
    assert_eq!(bytes(&second, 0, 11), b"second disk", "nothing was written");
    assert_eq!(bytes(&third, 0, files.len()), files, "nothing was written");
    scene.stop().await;
}

fn bytes(mut file: &File, at: u64, count: usize) -> Vec<u8> {
    let mut found = vec![0; count];
    file.seek(SeekFrom::Start(at)).expect("seeks");
    file.read_exact(&mut found).expect("reads");
    found
}

/// Disks and images are plugged in and out while the guest runs, places are used again, and nothing is left of what went.
/// Backends that can't do that say so, and refuse to prepare for it.
pub async fn devices_come_and_go(fixture: &Fixture) {
    let spare = SpareDevices {
        places: 2,
        disk_bytes: DISK,
        share: false,
    };
    if !fixture.backend.capabilities().plug {
        let mut config = fixture.config(&[]);
        config.spare_devices = spare;
        assert_unsupported(refused(fixture, config).await, "places");
        let (mut vm, mut link) = fixture.boot(fixture.config(&[])).await;
        assert!(vm.plug().is_none());
        echo(&*vm, &mut link).await;
        return vm.stop().await.expect("stops");
    }
    let mut scene = Scene::boot(fixture, |config| config.spare_devices = spare).await;
    let none = "cd /dev; echo vd* pmem*";
    assert_eq!(scene.run(none).await, "vd* pmem*");
    let before = scene.census();
    let mut places = Vec::new();
    for round in 0..3 {
        let [on_disk, on_image] = [format!("disk {round}"), format!("image {round}")];
        let (of_disk, of_image) = (file(&on_disk), file(&on_image));
        let first = scene.add(Device::Disk(disk(&of_disk, false))).await;
        let second = scene.add(Device::Image(image(&of_image))).await;
        let read = "b=/bin/busybox; $b head -c 16 /dev/vda
            echo -n back | $b dd of=/dev/vda bs=512 seek=1 conv=notrunc,fsync 2>/dev/null";
        let said = scene.run(read).await.replace('\0', "");
        assert_eq!(said, on_disk);
        scene.expect_image(&on_image).await;
        assert_eq!(bytes(&of_disk, 512, 4), b"back");
        if round == 0 {
            let full = scene.plug().plug(Device::Disk(disk(&of_disk, true))).await;
            refuses(full.map(drop), "no place left");
        }
        scene.remove(first).await;
        scene.remove(second).await;
        assert_eq!(scene.run(none).await, "vd* pmem*");
        guest::expect_census(&*scene.vm, before).await;
        places.push((first, second));
    }
    assert!(places.iter().all(|&pair| pair == places[0]), "{places:?}");
    let gone = scene.plug().unplug(places[0].0).await;
    refuses(gone, "nothing was plugged into place");
    scene.stop().await;
}

/// A guest that does not let go of a device loses it all the same, at once, and can go on with another.
pub async fn a_guest_that_keeps_a_device_loses_it(fixture: &Fixture) {
    if !fixture.backend.capabilities().plug {
        return;
    }
    let spare = SpareDevices {
        places: 1,
        disk_bytes: DISK,
        share: false,
    };
    let mut scene = Scene::boot(fixture, |config| config.spare_devices = spare).await;
    let before = scene.census();
    let kept = file("kept");
    let place = scene.add(Device::Disk(disk(&kept, false))).await;
    let busy = "b=/bin/busybox; (while :; do $b dd if=/dev/vda of=/dev/null iflag=direct bs=4096 2>/dev/null; done) </dev/null >/dev/null &
        until [ $($b awk '{ print $1 }' /sys/block/vda/stat) -gt 100 ]; do $b sleep 0.05; done";
    assert_eq!(scene.run(busy).await, "");
    scene.plug().unplug(place).await.expect("is plugged out");
    guest::expect_census(&*scene.vm, before).await;
    assert_eq!(scene.run("echo alive").await, "alive");
    // The place reads as empty, also for the driver that has not let go.
    let kind = scene.plug().unplug(place).await;
    refuses(kind, "nothing was plugged into place");
    let next = file("next");
    let again = scene.plug().plug(Device::Disk(disk(&next, false))).await;
    assert_eq!(again.expect("is plugged in"), place);
    assert_eq!(scene.run("echo alive").await, "alive");
    scene.plug().unplug(place).await.expect("is plugged out");
    // So with an image: the guest reads nothing any more where it was.
    guest::expect_census(&*scene.vm, before).await;
    scene.stop().await;
}

/// What a machine was not prepared for is refused, and nothing is left of it.
pub async fn what_cannot_be_plugged_is_refused(fixture: &Fixture) {
    if !fixture.backend.capabilities().plug {
        return;
    }
    let some = file("some");
    let scene = Scene::boot(fixture, |_| ()).await;
    let unprepared = scene.plug().plug(Device::Disk(disk(&some, true))).await;
    refuses(unprepared.map(drop), "without spare places");
    scene.stop().await;

    let spare = SpareDevices {
        places: 1,
        disk_bytes: DISK,
        share: false,
    };
    let most = fixture.backend.capabilities().devices;
    let mut config = fixture.config(&[]);
    config.spare_devices = SpareDevices {
        places: most + 1,
        ..spare
    };
    assert_unsupported(refused(fixture, config).await, "places");
    let mut scene = Scene::boot(fixture, |config| config.spare_devices = spare).await;
    let before = scene.census();
    let long = file("long");
    long.set_len(DISK + 512).expect("has a length");
    let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
    let named = Disk {
        serial: "a serial number that is too long".to_owned(),
        ..disk(&some, true)
    };
    let cases: [(Device, &str); 5] = [
        (
            Device::Disk(disk(&long, false)),
            "longer than the machine was made for",
        ),
        (Device::Disk(named), "serial number"),
        (Device::Image(image(&tempfile())), "empty"),
        (
            Device::Image(Image { file: reader }),
            "file or a block device",
        ),
        (
            Device::Share(crate::Share {
                tag: "files".to_owned(),
                socket: some.try_clone().expect("a descriptor").into(),
            }),
            "not to be shared",
        ),
    ];
    for (device, words) in cases {
        refuses(scene.plug().plug(device).await.map(drop), words);
    }
    guest::expect_census(&*scene.vm, before).await;
    // It can be read.
    let place = scene.add(Device::Disk(disk(&long, true))).await;
    let said = scene.run("/bin/busybox head -c 4 /dev/vda").await;
    assert_eq!(said, "long");
    scene.remove(place).await;
    scene.stop().await;
}

fn refuses(answer: Result<(), BackendError>, words: &str) {
    let error = answer.expect_err("it must be refused");
    assert!(matches!(error, BackendError::Monitor { .. }), "{error}");
    assert!(error.to_string().contains(words), "{words}: {error}");
}
