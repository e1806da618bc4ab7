//! Block devices and `O_DIRECT`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress};
use vmm_virtio::testing::wait;

use super::{ALL, DISCARD, FLUSH, IN, IOERR, OK, OUT, Rig, WRITE_ZEROES, engines, header, options};

/// A request whose data is where `O_DIRECT` wants it: its status.
fn aligned(rig: &mut Rig, kind: u32, sector: u64, length: u32, skew: u64) -> u8 {
    let room = rig.driver.room(length + 8192).next_multiple_of(4096) + skew;
    let head = rig.driver.room(17);
    let memory = &rig.driver.memory;
    memory
        .write_slice(&header(kind, sector), GuestAddress(head))
        .expect("memory");
    if kind == OUT {
        memory
            .write_slice(&vec![0xdd; length as usize], GuestAddress(room))
            .expect("memory");
    }
    let data = (room, length, kind == IN);
    rig.driver
        .add_at(0, &[(head, 16, false), data, (head + 16, 1, true)]);
    rig.driver.kick(0);
    let (_, _, contents) = rig.driver.expect_used(0);
    let (status, data) = contents.split_last().expect("a status");
    if kind == IN && *status == OK {
        assert_eq!(data, rig.contents(sector, length as usize));
    }
    *status
}

#[test]
fn without_the_hosts_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    let contents: Vec<u8> = (0..256_u32).flat_map(|block| [block as u8; 4096]).collect();
    std::fs::write(&path, contents).expect("writes");
    for engine in engines::all() {
        let direct = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let direct = match direct {
            Ok(direct) => direct,
            Err(error) => {
                eprintln!("skipped: no O_DIRECT in the folder for temporary files: {error}");
                return;
            }
        };
        let mut options = options(engine);
        options.block_size = 4096;
        let mut rig = Rig::with(direct, options, ALL);
        rig.file = File::open(&path).expect("opens");
        assert_eq!(aligned(&mut rig, IN, 8, 8192, 0), OK);
        assert_eq!(aligned(&mut rig, OUT, 16, 65536, 0), OK);
        assert_eq!(rig.contents(16, 65536), [0xdd; 65536]);
        assert_eq!(rig.contents(15, 512), [1; 512]);
        // Half blocks, and memory where the storage can't reach it.
        assert_eq!(aligned(&mut rig, IN, 1, 4096, 0), IOERR);
        assert_eq!(aligned(&mut rig, IN, 0, 512, 0), IOERR);
        assert_eq!(aligned(&mut rig, IN, 0, 4096, 1), IOERR);
        assert_eq!(rig.cover(WRITE_ZEROES, 16, 64, 0), OK);
        assert_eq!(rig.contents(16, 32768), [0; 32768]);
        // Many on their way, and a reset.
        for round in 0..20 {
            for number in 0..60_u64 {
                let room = rig.driver.room(8192).next_multiple_of(4096);
                let head = rig.driver.room(17);
                rig.driver
                    .memory
                    .write_slice(&header(IN, number * 8), GuestAddress(head))
                    .expect("memory");
                let pieces = [(head, 16, false), (room, 4096, true), (head + 16, 1, true)];
                rig.driver.add_at(0, &pieces);
            }
            rig.driver.kick(0);
            if round % 2 == 0 {
                for _ in 0..60 {
                    assert_eq!(rig.driver.expect_used(0).2.last(), Some(&OK));
                }
            }
            rig.driver.negotiate(ALL);
            rig.driver.set_up(256);
            rig.driver.write(0x70, 15);
        }
    }
}

/// A loop device, freed when this is dropped.
struct Loop(File);

impl Loop {
    const SET_FD: libc::Ioctl = 0x4c00;
    const CLR_FD: libc::Ioctl = 0x4c01;
    const SET_CAPACITY: libc::Ioctl = 0x4c07;
    const GET_FREE: libc::Ioctl = 0x4c82;

    fn new(file: &File) -> Result<Self, String> {
        let say = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
        let control = File::open("/dev/loop-control").map_err(|error| error.to_string())?;
        // Another may take it in between.
        for _ in 0..10 {
            let number = call(&control, Self::GET_FREE, 0);
            if number < 0 {
                return Err(say("no loop device is free"));
            }
            let path = format!("/dev/loop{number}");
            if !Path::new(&path).exists() {
                return Err(format!("{path} is not there"));
            }
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|error| format!("{path}: {error}"))?;
            if call(&device, Self::SET_FD, file.as_raw_fd()) == 0 {
                return Ok(Self(device));
            }
        }
        Err(say("loop devices are taken away"))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        call(&self.0, Self::CLR_FD, 0);
    }
}

fn call(file: &File, request: libc::Ioctl, argument: i32) -> i32 {
    #[expect(unsafe_code, reason = "ioctl by libc")]
    // SAFETY: these requests take a number.
    unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            request,
            libc::c_ulong::from(argument.cast_unsigned()),
        )
    }
}

#[test]
fn a_block_device_is_a_disk() {
    for engine in engines::all() {
        let file = super::file(2048);
        let device = match Loop::new(&file) {
            Ok(device) => device,
            Err(reason) => {
                eprintln!("skipped: no loop device: {reason}");
                return;
            }
        };
        let clone = device.0.try_clone().expect("a clone");
        let mut rig = Rig::with(clone, options(engine), ALL);
        assert_eq!(rig.driver.config(0, 8), 2048_u64.to_le_bytes());
        assert_eq!(rig.read(2047, 512), (OK, vec![255; 512]));
        assert_eq!(rig.read(2048, 512).0, IOERR);
        assert_eq!(rig.write(5, &[0xaa; 1024]), OK);
        assert_eq!(rig.request(FLUSH, 0, &[], 0).0, OK);
        assert_eq!(rig.contents(5, 1024), [0xaa; 1024]);
        for flags in [0, 1] {
            assert_eq!(rig.write(16, &[0xbb; 8192]), OK);
            assert_eq!(rig.cover(WRITE_ZEROES, 16, 16, flags), OK);
            assert_eq!(rig.read(16, 8192), (OK, vec![0; 8192]));
        }
        assert_eq!(rig.cover(DISCARD, 64, 64, 0), OK);
        // The device grows under the machine.
        file.set_len(4096 * 512).expect("grows");
        assert_eq!(call(&device.0, Loop::SET_CAPACITY, 0), 0);
        wait("the new size", || {
            (rig.control.remeasure().expect("measures") == 4096 * 512).then_some(())
        });
        assert_eq!(rig.read(4095, 512), (OK, vec![0; 512]));
        // Its file is cut off: reads and writes fail, or find nothing; nobody is killed.
        file.set_len(512).expect("shrinks");
        let (status, _) = rig.read(4000, 512);
        assert!([OK, IOERR].contains(&status));
    }
}
