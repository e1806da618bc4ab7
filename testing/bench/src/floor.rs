//! The floor: QEMU with our kernel and guest image, and nothing else of ours on the host.
//!
//! The machine has the memory and the devices of a sandbox, without its file share, its own user and its namespaces. It
//! is up when the agent has answered the first call over the link: earlier bytes come from programs that cannot do
//! anything yet.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use backend_qemu::tsc_khz;
use cofferdam_protocol::link::Link;
use cofferdam_protocol::{HelloRequest, LINK_PORT, PROTOCOL_VERSION, connect_agent, no_deadline};
use tokio::net::UnixStream;

/// Memory of a sandbox whose spec sets no limit.
pub const MEMORY: &str = "256M";

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// A machine that is not up then never will be.
const LIMIT: Duration = Duration::from_secs(60);

const RATE: &str = "cannot find the rate of the time stamp counter";

/// Boots once; the time from QEMU's start until the agent has answered.
pub fn measure(prefix: &Path) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let khz = tsc_khz().await.context(RATE)?;
        match tokio::time::timeout(LIMIT, boot(prefix, khz)).await {
            Ok(done) => done,
            Err(_) => bail!("the agent has not answered within {LIMIT:?}"),
        }
    })
}

async fn boot(prefix: &Path, khz: u64) -> Result<Duration> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().context("cannot make a socket")?;
    ours.set_nonblocking(true)
        .context("cannot make a socket that does not block")?;
    let ours = UnixStream::from_std(ours).context("cannot watch a socket")?;
    let theirs = OwnedFd::from(theirs);
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
        .context("cannot hand a socket over")?;
    let mut command = command(prefix, theirs.as_raw_fd(), khz);
    let start = Instant::now();
    let _machine = Machine(command.spawn().context("cannot start QEMU")?);
    drop(theirs);
    let (link, driver) = Link::host(ours);
    tokio::spawn(driver);
    let control = link.open_control().await.context("no link")?;
    let mut hello = HelloRequest::new();
    hello.version = PROTOCOL_VERSION;
    connect_agent(control)
        .hello(no_deadline(), &hello)
        .await
        .context("the agent does not answer")?;
    Ok(start.elapsed())
}

fn command(prefix: &Path, link: i32, khz: u64) -> Command {
    let files = prefix.join("lib/cofferdam");
    let mut command = Command::new(QEMU);
    machine(
        &mut command,
        &files.join("vmlinux"),
        &files.join("initramfs.cpio"),
        khz,
    );
    command
        .args(["-chardev", &format!("socket,id=link,fd={link}")])
        .args(["-device", "virtio-serial-device,max_ports=2"])
        .args([
            "-device",
            &format!("virtserialport,chardev=link,name={LINK_PORT}"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The rate of the time stamp counter in kHz, for [`machine`].
pub fn rate() -> Result<u64> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .and_then(|runtime| runtime.block_on(tsc_khz()))
        .context(RATE)
}

/// Gives QEMU a machine like a sandbox's, with this guest and no other device than the source of random numbers.
pub fn machine(command: &mut Command, kernel: &Path, image: &Path, khz: u64) {
    command
        .args(["-machine", "microvm,acpi=off,x-option-roms=off,rtc=on,auto-kernel-cmdline=on"])
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-global", "virtio-mmio.force-legacy=off", "-serial", "null"])
        .args(["-device", "virtio-rng-device"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 quiet 8250.nr_uarts=1 panic=-1 reboot=t tsc_early_khz={khz} tsc=reliable \
             no_timer_check nolapic_timer noreplace-smp clearcpuid=cx16"
        ));
}

/// A QEMU that ends with this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Failures mean that it has ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
