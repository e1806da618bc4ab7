//! The program that holds a pod's namespaces where something has to and there is no pause image: the first process of a
//! process namespace that containers share, or of namespaces with sysctls of their own. It waits for ever and has its
//! kernel reap the orphans that it gets. It needs nothing but itself in its file system.
//!
//! It is written here as the machine knows it: a file of one page, without a compiler's runtime for its twenty
//! instructions, so that the shim needs no second program beside it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where it is in its file system.
pub const PATH: &str = "/pause";

/// Folders that its spec mounts something on.
const MOUNT_POINTS: [&str; 2] = ["proc", "dev"];

/// Where the file is mapped; the usual place of programs that are not moved.
const ADDRESS: u64 = 0x40_0000;

/// Both headers of the file.
const HEADERS: u64 = 64 + 56;

/// Its instructions and their one operand.
const CODE: [u8; 60] = [
    0x6a, 0x0d, //                               push 13      rt_sigaction
    0x58, //                                     pop rax
    0x6a, 0x11, //                               push 17      SIGCHLD
    0x5f, //                                     pop rdi
    0x48, 0x8d, 0x35, 0x0f, 0x00, 0x00, 0x00, // lea rsi, [ignore]
    0x31, 0xd2, //                               xor edx, edx no old action wanted
    0x6a, 0x08, //                               push 8       bytes of a signal set
    0x41, 0x5a, //                               pop r10
    0x0f, 0x05, //                               syscall
    // again:
    0x6a, 0x22, //                               push 34      pause
    0x58, //                                     pop rax
    0x0f, 0x05, //                               syscall
    0xeb, 0xf9, //                               jmp again
    // ignore: struct sigaction { SIG_IGN, no flags, no restorer, an empty set }
    0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0,
];

/// Makes the file system that it is run in.
///
/// # Errors
/// When it cannot be written.
pub fn write(root: &Path) -> io::Result<()> {
    for folder in MOUNT_POINTS {
        fs::create_dir_all(root.join(folder))?;
    }
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(root.join(PATH.trim_start_matches('/')))?
        .write_all(&program())
}

/// The file, elf(5).
fn program() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut number = |value: u64, bytes: usize| file.extend(&value.to_le_bytes()[..bytes]);
    number(2, 2); // ET_EXEC
    number(62, 2); // EM_X86_64
    number(1, 4); // EV_CURRENT
    number(ADDRESS + HEADERS, 8); // entry
    number(64, 8); // program headers
    number(0, 8); // no section headers
    number(0, 4); // no flags
    number(64, 2); // size of this header
    number(56, 2); // size of a program header
    number(1, 2); // of which there is one
    number(0, 6); // no section headers
    let length = HEADERS + CODE.len() as u64;
    number(1, 4); // PT_LOAD
    number(5, 4); // PF_R | PF_X
    number(0, 8); // offset
    number(ADDRESS, 8);
    number(ADDRESS, 8);
    number(length, 8); // in the file
    number(length, 8); // in memory
    number(0x1000, 8); // alignment
    file.extend(CODE);
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn waits_until_it_is_killed_and_heeds_no_end_of_a_child() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let mut holder = Command::new(folder.path().join("pause")).spawn().unwrap();
        let status = format!("/proc/{}/status", holder.id());
        // Signals that it ignores: SIGCHLD is number 17.
        let ignores = || {
            let text = fs::read_to_string(&status).unwrap();
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().to_owned()
            };
            let ignored = u64::from_str_radix(&field("SigIgn:"), 16).unwrap();
            ignored & (1 << 16) != 0 && field("State:") == "S"
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ignores() {
            assert!(Instant::now() < deadline, "it does not wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(holder.try_wait().unwrap().is_none());
        holder.kill().unwrap();
        assert_eq!(holder.wait().unwrap().signal(), Some(9));
    }
}
