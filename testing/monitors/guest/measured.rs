//! The first program of the guest whose devices are measured: does what its host asks for, a line each, over vsock and, if
//! there is one, a virtio-serial port.
//!
//! `cargo xtask monitors --io` compiles it by `rustc` alone. A program that fails here panics, which ends the guest.
// UNSAFETY: the one call passes an address of the length that it says.
#![expect(unsafe_code, reason = "the standard library has no vsock")]

use std::ffi::c_int;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Instant;

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const Address, length: u32) -> c_int;
}

/// `struct sockaddr_vm`, linux/vm_sockets.h.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u32,
}

const AF_VSOCK: u16 = 40;
const SOCK_STREAM: c_int = 1;
const HOST: u32 = 2;

/// The one that our monitor's agent calls.
const PORT: u32 = 1024;

const O_DIRECT: i32 = 0o40_000;

/// What is read of a disk at once.
const BLOCK: usize = 4096;

/// What is read of a file, and sent, at once.
const PIECE: usize = 64 << 10;

fn main() {
    // Names for its programs.
    let busybox = Command::new("/bin/busybox")
        .args(["--install", "-s", "/bin"])
        .status();
    assert!(busybox.expect("busybox runs").success(), "no programs");
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let mounted = shell(&format!("mount -t {kind} none {place}"));
        assert!(mounted.success(), "{place}: {mounted}");
    }
    if let Some(port) = serial_port() {
        thread::spawn(move || serve(port));
    }
    serve(vsock());
    // The host has hung up: a first program that ends is the guest's end.
}

fn vsock() -> File {
    let address = Address {
        family: AF_VSOCK,
        reserved: 0,
        port: PORT,
        cid: HOST,
        flags: 0,
    };
    // SAFETY: no pointers.
    let fd = unsafe { socket(AF_VSOCK.into(), SOCK_STREAM, 0) };
    assert!(fd >= 0, "no vsock: {}", Error::last_os_error());
    // SAFETY: it was made above and nobody else has it.
    let stream = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let length = size_of::<Address>() as u32;
    // SAFETY: the kernel reads a sockaddr_vm, which this is.
    let done = unsafe { connect(stream.as_raw_fd(), &address, length) };
    assert!(done == 0, "cannot connect: {}", Error::last_os_error());
    stream
}

fn serial_port() -> Option<File> {
    let mut ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let name = ports.find_map(|port| {
        let port = port.ok()?;
        // Consoles have no name.
        fs::read_to_string(port.path().join("name")).ok()?;
        Some(port.file_name())
    })?;
    let path = Path::new("/dev").join(name);
    Some(open(&path, OpenOptions::new().read(true).write(true)))
}

fn open(path: &Path, options: &OpenOptions) -> File {
    let file = options.open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Does what is asked for until the host hangs up.
fn serve(stream: File) {
    let mut answers = stream.try_clone().expect("a descriptor");
    let mut requests = BufReader::with_capacity(PIECE, stream);
    let mut piece = vec![0; PIECE];
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line).expect("a request") == 0 {
            return;
        }
        let line = line.trim_end();
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let answer = match verb {
            // COUNT: so many times sends a byte back.
            "echo" => {
                let mut byte = [0];
                for _ in 0..number(rest) {
                    requests.read_exact(&mut byte).expect("a byte");
                    answers.write_all(&byte).expect("the host reads");
                }
                String::from("done")
            }
            // BYTES
            "take" => {
                let mut left = number(rest);
                while left > 0 {
                    let read = requests.read(&mut piece).expect("bytes");
                    assert!(read > 0, "the host has hung up");
                    left -= read;
                }
                String::from("done")
            }
            // BYTES
            "give" => {
                let mut left = number(rest);
                while left > 0 {
                    let now = left.min(piece.len());
                    answers.write_all(&piece[..now]).expect("the host reads");
                    left -= now;
                }
                String::from("done")
            }
            // SERIAL THREADS COUNT: each thread reads so many blocks of a disk, one after the other.
            "blocks" => {
                let words: Vec<_> = rest.split(' ').collect();
                blocks(words[0], number(words[1]), number(words[2]))
            }
            // FOLDER: reads every file in it; answers with the time in nanoseconds, the files and their bytes.
            "tree" => {
                let mut sum = (0, 0);
                let begin = Instant::now();
                tree(Path::new(rest), &mut piece, &mut sum);
                format!("{} {} {}", begin.elapsed().as_nanos(), sum.0, sum.1)
            }
            // SERIAL: which disk has it.
            "disk" => disk(rest),
            // SCRIPT
            "sh" => {
                let status = shell(rest);
                if status.success() {
                    String::from("done")
                } else {
                    status.to_string()
                }
            }
            _ => panic!("asked for {line:?}"),
        };
        writeln!(answers, "{answer}").expect("the host reads");
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

/// Runs a script with busybox's programs.
fn shell(script: &str) -> ExitStatus {
    let mut shell = Command::new("/bin/busybox");
    let shell = shell
        .args(["sh", "-c", script])
        .env("PATH", "/bin")
        .env("LD_LIBRARY_PATH", "/lib64");
    shell.status().expect("busybox runs")
}

fn disk(serial: &str) -> String {
    let disks = fs::read_dir("/sys/block").expect("disks");
    let names = disks.map(|disk| disk.expect("a disk").file_name());
    let mut names = names.map(|name| name.to_string_lossy().into_owned());
    let found = names.find(|name| {
        let path = format!("/sys/block/{name}/serial");
        fs::read_to_string(path).is_ok_and(|found| found.trim_end() == serial)
    });
    format!("/dev/{}", found.expect("a disk with that serial number"))
}

/// The time it takes in nanoseconds.
fn blocks(serial: &str, threads: usize, count: usize) -> String {
    let path = disk(serial);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_DIRECT);
    let name = path.trim_start_matches("/dev/");
    let sectors = fs::read_to_string(format!("/sys/block/{name}/size")).expect("a size");
    let length = number(sectors.trim_end()) * 512 / BLOCK;
    let begin = Instant::now();
    let readers: Vec<_> = (1..=threads)
        .map(|number| {
            let file = open(Path::new(&path), &options);
            thread::spawn(move || read_blocks(&file, number, count, length))
        })
        .collect();
    for reader in readers {
        reader.join().expect("it has read");
    }
    begin.elapsed().as_nanos().to_string()
}

/// Reads blocks here and there, always the same ones.
fn read_blocks(file: &File, seed: usize, count: usize, length: usize) {
    // Direct reads want an address that is a multiple of the block's size.
    let mut room = vec![0; 2 * BLOCK];
    let start = room.as_ptr().align_offset(BLOCK);
    let block = &mut room[start..start + BLOCK];
    let mut state = seed as u64 * 0x9e37_79b9_7f4a_7c15;
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % length as u64;
        file.read_exact_at(block, at * BLOCK as u64)
            .expect("a block");
        // Each begins with its number.
        let found = u64::from_le_bytes(*block.first_chunk().expect("a number"));
        assert_eq!(found, at, "another block");
    }
}

fn tree(folder: &Path, piece: &mut [u8], sum: &mut (usize, usize)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            tree(&entry.path(), piece, sum);
            continue;
        }
        let mut file = File::open(entry.path()).expect("a file");
        sum.0 += 1;
        loop {
            let read = file.read(piece).expect("bytes");
            if read == 0 {
                break;
            }
            sum.1 += read;
        }
    }
}
