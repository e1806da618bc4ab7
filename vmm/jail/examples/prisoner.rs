//! A stand-in for a VMM that its guest has taken over: it is started and confined as one, and then tries to get out.
//!
//! `prisoner CONTROL WALLS NUMBER [NAME…]`: tries everything, or what has these names (`wait` does nothing for ever), and writes a line for each try on the
//! descriptor CONTROL: its name, and what the kernel answered. WALLS is what it gives up before: `none`, `files`, or a
//! thread's list with all that goes before it (`setup`, `main`, `devices`, `vcpu`, and `ring-devices` and `ring-vcpu` of
//! machines whose disks are served by `io_uring`). NUMBER is the number of a process
//! that is none of its business.
#![expect(
    unsafe_code,
    reason = "system calls as somebody would make them who has taken over the process"
)]
// UNSAFETY: calls get valid pointers and lengths, or null pointers.

use std::ffi::{CStr, c_long};
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, RawFd};
use std::process::ExitCode;

/// The abstract name of a socket on the host that listens.
const SOCKET: &[u8] = b"\0cofferdam-prisoner";

type Try = fn(c_long) -> c_long;

/// What is tried. Each gets the number of the process that is none of its business.
const TRIES: [(&str, Try); 23] = [
    // First: others leave some open.
    ("descriptors", |_| {
        let open = |fd: &c_long| call(libc::SYS_fcntl, &[*fd, libc::F_GETFD.into()]) >= 0;
        (0..4096).filter(open).count() as c_long
    }),
    // Before there is a child.
    ("kill-all", |_| call(libc::SYS_kill, &[-1, 9])),
    ("host-file", |_| open(c"/etc/passwd", libc::O_RDONLY)),
    ("device", |_| open(c"/dev/kvm", libc::O_RDWR)),
    ("process", |_| open(c"/proc/self/mem", libc::O_RDWR)),
    ("upwards", |_| open(c"../../../etc/passwd", libc::O_RDONLY)),
    ("new-file", |_| {
        open(c"/file", libc::O_CREAT | libc::O_WRONLY)
    }),
    ("new-folder", |_| {
        call(libc::SYS_mkdir, &[address(c"/folder"), 0o700])
    }),
    ("list", |_| {
        let folder = open(c"/", libc::O_DIRECTORY);
        let mut entries = [0_u8; 4096];
        match folder {
            // Of the two that every folder has, in 24 bytes each.
            0.. => call(
                libc::SYS_getdents64,
                &[folder, entries.as_mut_ptr() as c_long, 4096, 0],
            ),
            refused => refused,
        }
    }),
    ("mount", |_| {
        let tmpfs = address(c"tmpfs");
        call(libc::SYS_mount, &[tmpfs, address(c"/"), tmpfs, 0])
    }),
    ("root", |_| call(libc::SYS_chroot, &[address(c"/"), 0])),
    ("execute", |_| {
        call(libc::SYS_execve, &[address(c"/bin/sh"), 0])
    }),
    ("fork", |_| match call(libc::SYS_fork, &[]) {
        0 => call(libc::SYS_exit_group, &[]),
        answer => answer,
    }),
    ("become-root", |_| call(libc::SYS_setuid, &[])),
    ("tcp", |_| {
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 22_u16.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
            },
            sin_zero: [0; 8],
        };
        connect(
            libc::AF_INET,
            &raw const address as c_long,
            size_of_val(&address),
        )
    }),
    ("host-socket", |_| {
        let mut address = [0_u8; 2 + SOCKET.len()];
        address[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        address[2..].copy_from_slice(SOCKET);
        connect(libc::AF_UNIX, address.as_ptr() as c_long, address.len())
    }),
    ("raw-socket", |_| {
        call(
            libc::SYS_socket,
            &[libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0, 0],
        )
    }),
    ("see", |other| call(libc::SYS_kill, &[other, 0])),
    ("trace", |other| {
        call(libc::SYS_ptrace, &[libc::PTRACE_ATTACH.into(), other])
    }),
    ("read-memory", |other| {
        let mut byte = 0_u8;
        let near = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let far = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(0x40_0000),
            iov_len: 1,
        };
        let (near, far) = (&raw const near as c_long, &raw const far as c_long);
        call(libc::SYS_process_vm_readv, &[other, near, 1, far, 1])
    }),
    ("descriptor", |other| {
        call(libc::SYS_pidfd_open, &[other, 0])
    }),
    ("ring", |_| {
        let mut parameters = [0_u64; 15];
        let place = parameters.as_mut_ptr() as c_long;
        // As many requests as a disk's.
        call(libc::SYS_io_uring_setup, &[256, place])
    }),
    ("shared-memory", |_| {
        call(libc::SYS_shmget, &[0x0c0f_fe2d, 4096])
    }),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, control, walls, number, names @ ..] = &arguments[..] else {
        return ExitCode::FAILURE;
    };
    let (Ok(control), Ok(number)) = (control.parse::<RawFd>(), number.parse::<c_long>()) else {
        return ExitCode::FAILURE;
    };
    // SAFETY: the descriptor was left open for this process, and this is the only place that takes it.
    let mut control = unsafe { File::from_raw_fd(control) };
    let version = call(libc::SYS_landlock_create_ruleset, &[0, 0, 1, 0]);
    let _ = writeln!(control, "landlock {version}");
    if let Err(error) = confine(walls) {
        let _ = writeln!(control, "unconfined {error}");
        return ExitCode::FAILURE;
    }
    let _ = writeln!(control, "environment {}", std::env::vars_os().count());
    if names == ["wait"] {
        call(libc::SYS_pause, &[]);
    }
    for (name, attempt) in TRIES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            let answer = attempt(number);
            let _ = writeln!(control, "{name} {answer}");
        }
    }
    ExitCode::SUCCESS
}

fn confine(walls: &str) -> Result<(), vmm_jail::JailError> {
    match walls {
        "none" => return Ok(()),
        "files" => return vmm_jail::restrict_files(),
        _ => {}
    }
    let mut jail = vmm_jail::enter()?;
    if walls.starts_with("ring-") {
        jail.serve_rings()?;
    }
    match walls {
        "main" => jail.main.apply(),
        "devices" | "ring-devices" => jail.devices.apply(),
        "vcpu" | "ring-vcpu" => jail.vcpu.apply(),
        _ => Ok(()),
    }
}

fn address(name: &CStr) -> c_long {
    name.as_ptr() as c_long
}

fn open(name: &CStr, flags: i32) -> c_long {
    call(libc::SYS_open, &[address(name), flags.into(), 0o600, 0])
}

fn connect(family: i32, address: c_long, length: usize) -> c_long {
    match call(
        libc::SYS_socket,
        &[family.into(), libc::SOCK_STREAM.into(), 0, 0],
    ) {
        socket @ 0.. => call(libc::SYS_connect, &[socket, address, length as c_long, 0]),
        refused => refused,
    }
}

/// What the kernel answers: something, or the negative number of an error.
fn call(number: c_long, arguments: &[c_long]) -> c_long {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: see the head of this file.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => -c_long::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        answer => answer,
    }
}
