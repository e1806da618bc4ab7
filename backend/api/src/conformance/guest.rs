//! The guest of the suite: busybox, a script and a program for vsock, packed as an initramfs.

#[path = "shell.rs"]
mod shell;

pub use shell::{census, expect_census, run, tell};

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// A shell and its tools in one static program.
const BUSYBOX: &str = "/bin/busybox";

/// With a port's number behind it: makes the guest serve a port of its host over vsock instead of the virtio-serial port.
pub const VSOCK: &str = "cofferdam.link=vsock:";

/// What `vsock` in the guest is made of.
const VSOCK_SOURCE: &str = include_str!("vsock_guest.rs");

/// Makes the guest answer the functional probe instead of serving.
pub const PROBE: &str = "cofferdam.probe";

/// Makes the guest end its init, which is a kernel panic, after writing [`LAST_WORDS`].
pub const PANIC: &str = "conformance.panic";

/// What a guest writes on its console before it panics.
pub const LAST_WORDS: &str = "conformance: last words";

/// Makes the guest serve one host after the other.
pub const AGAIN: &str = "conformance.again";

/// Makes the guest's link lead to a shell instead of an echo.
pub const SHELL: &str = "conformance.shell";

/// Makes the guest write 300 kB, which is more than a socket holds, and [`FLOODED`] on its console before it serves. Where
/// virtualization is emulated, each byte takes it a fifth of a millisecond.
pub const FLOOD: &str = "conformance.flood";

/// What a guest writes after its flood.
pub const FLOODED: &str = "conformance: flooded";

/// Makes the guest tell of more memory and processors as they come, and of their going, before it serves.
pub const SIZES: &str = "conformance.sizes";

/// What a guest writes before the number of MiB that it has got beyond those of its boot.
pub const MORE: &str = "conformance: more ";

/// What such a guest writes when it has counted what it booted with.
pub const READY: &str = "conformance: ready";

/// What it writes when it has no use for more any longer.
pub const ENOUGH: &str = "conformance: enough";

/// What a guest writes before the number of its CPUs.
pub const CPUS: &str = "conformance: cpus ";

/// Makes the guest connect to port 53 of its host and listen at its own port 52, with an echo at each, before it serves; and
/// connect to port 54 of its host, where nobody is.
pub const SOCKETS: &str = "conformance.sockets";

/// What it writes when nobody was there.
pub const REFUSED: &str = "conformance: refused";

const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
asked() { $b grep -qw "$1" /proc/cmdline; }
say() { echo "$1" >/dev/console; }
say "conformance: cpus $($b nproc)"
if asked cofferdam.probe; then say cofferdam-probe-ok; $b reboot -f; fi
if asked conformance.panic; then say "conformance: last words"; exit 1; fi
if asked conformance.flood; then
    printf '\033]0;owned\007' >/dev/console
    $b yes "$($b printf '%01000d' 0)" | $b head -c 300000 >/dev/console
    say
    say "conformance: flooded"
fi
if asked conformance.sizes; then
    total() { set -- $($b grep MemTotal /proc/meminfo); echo $(($2 / 1024)); }
    boot=$(total)
    say "conformance: ready"
    while [ $(($(total) - boot)) -lt 256 ]; do $b sleep 0.1; done
    say "conformance: more $(($(total) - boot))"
    echo 1 >/sys/devices/system/cpu/cpu1/online
    say "conformance: cpus $($b nproc)"
    echo 0 >/sys/devices/system/cpu/cpu1/online
    say "conformance: cpus $($b nproc)"
    say "conformance: enough"
    while [ $(($(total) - boot)) -gt 0 ]; do $b sleep 0.1; done
    say "conformance: more $(($(total) - boot))"
fi
if asked conformance.sockets; then
    /bin/vsock -l 52 $b cat 2>/dev/console &
    /bin/vsock 53 $b cat 2>/dev/console &
    /bin/vsock 54 $b cat 2>/dev/null || say "conformance: refused"
fi
served="$b cat"
if asked conformance.shell; then served="$b sh"; fi
if [ -f /job ]; then $b sh /job >/dev/console 2>&1; fi
for word in $($b cat /proc/cmdline); do
    case $word in cofferdam.link=vsock:*) vsock=${word#*vsock:} ;; esac
done
if [ "$vsock" ]; then
    serve() { /bin/vsock "$vsock" $served; }
    serve 2>/dev/console
else
    port=$($b grep -lx cofferdam.link /sys/class/virtio-ports/*/name)
    port=${port%/name}
    serve() { $served <&3 >&3; }
    exec 3<>"/dev/${port##*/}"
    serve
fi
if asked conformance.again; then
    if [ ! "$vsock" ]; then
        exec 3>&-
        exec 3<>"/dev/${port##*/}"
    fi
    # Without a host the port ends at once; closing it would lose what the next host has sent.
    while serve; do $b sleep 0.05; done
fi
$b reboot -f
"#;

/// The guest kernel for tests: what the environment's `COFFERDAM_KERNEL` names, or the one that `cargo xtask kernel`
/// built in this workspace.
///
/// # Errors
/// A sentence that says what is missing, and what to do.
pub fn kernel() -> Result<PathBuf, String> {
    let built = "../../target/cofferdam/lib/cofferdam/vmlinux";
    let path = std::env::var_os("COFFERDAM_KERNEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(built),
        PathBuf::from,
    );
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "no guest kernel at {}: build it or set COFFERDAM_KERNEL",
            path.display()
        ))
    }
}

/// Writes an initramfs of busybox and the suite's script to `folder/name.cpio`, replacing an earlier one whole. `job` is
/// a shell script that the guest runs before it serves, with its output on the console.
///
/// # Errors
/// A sentence that says what is missing, and what to do.
pub fn image(folder: &Path, name: &str, job: Option<&str>) -> Result<PathBuf, String> {
    let busybox = std::fs::read(BUSYBOX)
        .map_err(|error| format!("{BUSYBOX}: {error}: install busybox-static"))?;
    let vsock = vsock(folder)?;
    let path = folder.join(format!("{name}.cpio"));
    replace(&path, |draft| {
        std::fs::write(draft, pack(&busybox, &vsock, job))
    })
    .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Puts a file in its place whole: tests of several processes may make it at the same time.
fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static WRITTEN: AtomicU32 = AtomicU32::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let draft = path.with_extension(format!("{}.{number}", std::process::id()));
    write(&draft)?;
    std::fs::rename(&draft, path)
}

/// The program for vsock, compiled where that has not been done.
fn vsock(folder: &Path) -> Result<Vec<u8>, String> {
    // The compiler names what it leaves on its way after the process.
    static COMPILING: Mutex<()> = Mutex::new(());
    let _alone = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    let program = folder.join("vsock");
    let source = folder.join("vsock.rs");
    let said = |error: io::Error| format!("{}: {error}", program.display());
    // The source is put there after the program: one that is as it should be tells of both.
    if std::fs::read(&source).is_ok_and(|found| found == VSOCK_SOURCE.as_bytes()) {
        return std::fs::read(&program).map_err(said);
    }
    replace(&program, compile).map_err(said)?;
    replace(&source, |draft| std::fs::write(draft, VSOCK_SOURCE)).map_err(said)?;
    std::fs::read(&program).map_err(said)
}

fn compile(program: &Path) -> io::Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let words = "--crate-name=vsock --edition=2024 -Copt-level=s -Cpanic=abort -Cstrip=symbols \
                 -Ctarget-feature=+crt-static -";
    let mut compiler = Command::new(rustc)
        .args(words.split_ascii_whitespace())
        .arg("-o")
        .arg(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut source) = compiler.stdin.take() {
        source.write_all(VSOCK_SOURCE.as_bytes())?;
    }
    let done = compiler.wait_with_output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&done.stderr)))
}

fn pack(busybox: &[u8], vsock: &[u8], job: Option<&str>) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "mnt", "proc", "sys"] {
        archive.add(folder, 0o040_755, (0, 0), &[]);
    }
    archive.add("dev/console", 0o020_600, (5, 1), &[]);
    archive.add("bin/busybox", 0o100_755, (0, 0), busybox);
    archive.add("bin/vsock", 0o100_755, (0, 0), vsock);
    archive.add("init", 0o100_755, (0, 0), INIT.as_bytes());
    if let Some(job) = job {
        archive.add("job", 0o100_644, (0, 0), job.as_bytes());
    }
    archive.add("TRAILER!!!", 0, (0, 0), &[]);
    archive.bytes
}

/// A cpio archive in the "newc" format (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let fields = [
            self.entries,
            mode as usize,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            name.len() + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
