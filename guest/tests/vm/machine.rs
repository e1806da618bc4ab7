//! A virtual machine with the guest program and a busybox root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_protocol::link::Link;
use cofferdam_protocol::{AgentClient, HelloRequest, PROTOCOL_VERSION, connect_agent, no_deadline};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::cpio::Archive;

/// Folder of the initramfs that containers have as their root.
pub const ROOTFS: &str = "/rootfs";

const BOOT: Duration = Duration::from_secs(60);

const TOOLS: &[&str] = &[
    "sh", "cat", "echo", "true", "false", "id", "ls", "sleep", "kill", "grep", "head", "tail",
    "dd", "mount", "hostname", "stty", "tty", "env", "pwd", "touch", "mkdir", "wc", "ps", "sysctl",
    "tr", "stat", "chmod", "rm", "readlink", "test", "seq", "od", "umount", "mknod", "ulimit",
    "nproc", "date", "md5sum",
];

/// A machine that ends with this value.
pub struct Machine {
    qemu: Child,
    folder: tempfile::TempDir,
    pub link: Link,
    driver: tokio::task::AbortHandle,
    pub agent: AgentClient,
    /// Time from QEMU's start until the agent has answered.
    pub answered: Duration,
    /// Nanoseconds after the guest's boot when PID 1 was entered.
    pub entered_ns: u64,
}

struct Needed {
    kernel: PathBuf,
    agent: PathBuf,
    busybox: PathBuf,
    profile: PathBuf,
}

impl Needed {
    fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let kernel = named("COFFERDAM_TEST_KERNEL")
            .unwrap_or_else(|| target.join("cofferdam/lib/cofferdam/vmlinux"));
        let static_target = target.join("x86_64-unknown-linux-gnu");
        let agent = named("COFFERDAM_TEST_AGENT").unwrap_or_else(|| {
            ["guest", "release", "debug"]
                .map(|profile| static_target.join(profile).join("cofferdam-agent"))
                .into_iter()
                .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
                .max()
                .map_or_else(
                    || static_target.join("release/cofferdam-agent"),
                    |(_, path)| path,
                )
        });
        let needed = Self {
            kernel,
            agent,
            busybox: "/bin/busybox".into(),
            profile: static_target.join("guest/cofferdam-default.apparmor"),
        };
        for path in [
            &needed.kernel,
            &needed.agent,
            &needed.busybox,
            &needed.profile,
        ] {
            if !path.exists() {
                return Err(format!("{} does not exist", path.display()));
            }
        }
        let qemu = Command::new("qemu-system-x86_64").arg("--version").output();
        qemu.map_err(|error| format!("qemu-system-x86_64 cannot be run: {error}"))?;
        Ok(needed)
    }
}

impl Machine {
    /// Boots; `None`, with a line that says why, where that is impossible.
    pub async fn boot() -> Option<Self> {
        let needed = match Needed::find() {
            Ok(needed) => needed,
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let initramfs = folder.path().join("initramfs");
        fs::write(&initramfs, archive(&needed)).expect("the initramfs");
        let socket = folder.path().join("link");
        let start = Instant::now();
        let mut qemu = start_qemu(&needed.kernel, &initramfs, folder.path(), "");
        let connected = timeout(BOOT, async {
            let stream = loop {
                match UnixStream::connect(&socket).await {
                    Ok(stream) => break stream,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            };
            let (link, driver) = Link::host(stream);
            let driver = tokio::spawn(driver).abort_handle();
            let control = link.open_control().await.expect("the control stream");
            let agent = connect_agent(control);
            let hello = HelloRequest {
                version: PROTOCOL_VERSION,
                ..HelloRequest::default()
            };
            let answer = agent.hello(no_deadline(), &hello).await.expect("an answer");
            (link, driver, agent, answer.init_entered_ns)
        });
        let Ok((link, driver, agent, entered_ns)) = connected.await else {
            let _ = qemu.kill();
            panic!(
                "no answer within {BOOT:?}; console:\n{}",
                console(folder.path())
            );
        };
        Some(Self {
            qemu,
            folder,
            link,
            driver,
            agent,
            answered: start.elapsed(),
            entered_ns,
        })
    }

    /// Boots for a probe only and returns what the console shows when the machine has ended.
    pub fn probe() -> Option<(String, Duration)> {
        let needed = match Needed::find() {
            Ok(needed) => needed,
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let initramfs = folder.path().join("initramfs");
        fs::write(&initramfs, archive(&needed)).expect("the initramfs");
        let start = Instant::now();
        let mut qemu = start_qemu(&needed.kernel, &initramfs, folder.path(), "cofferdam.probe");
        while qemu.try_wait().expect("wait").is_none() {
            assert!(start.elapsed() < BOOT, "the machine does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some((console(folder.path()), start.elapsed()))
    }

    /// Whether the machine has ended by itself within `patience`.
    pub async fn ends(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < patience {
            if self.qemu.try_wait().expect("wait").is_some() {
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Processor time the machine has used: unlike time by the clock, the same on a busy host.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.qemu.id())).into_iter();
        let nanoseconds = tasks.flatten().flatten().filter_map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Closes the host's end of the link.
    pub fn unplug(&self) {
        self.driver.abort();
    }

    pub fn console(&self) -> String {
        console(self.folder.path())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            eprintln!("console:\n{}", self.console());
        }
    }
}

fn console(folder: &Path) -> String {
    fs::read_to_string(folder.join("console")).unwrap_or_default()
}

fn archive(needed: &Needed) -> Vec<u8> {
    let mut archive = Archive::default();
    for name in ["dev", "etc", "proc", "sys", "run", "tmp"] {
        archive.folder(name);
    }
    let profile = fs::read(&needed.profile).expect("the profile");
    archive.file("etc/cofferdam-default.apparmor", 0o600, &profile);
    archive.character_device("dev/console", (5, 1));
    archive.file("init", 0o755, &fs::read(&needed.agent).expect("the agent"));
    let root = ROOTFS.trim_start_matches('/');
    archive.folder(root);
    for name in ["bin", "dev", "proc", "sys", "etc", "tmp", "root", "data"] {
        archive.folder(&format!("{root}/{name}"));
    }
    let busybox = fs::read(&needed.busybox).expect("busybox");
    archive.file(&format!("{root}/bin/busybox"), 0o755, &busybox);
    for tool in TOOLS {
        archive.link(&format!("{root}/bin/{tool}"), "busybox");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/data:/bin/sh\n";
    archive.file(&format!("{root}/etc/passwd"), 0o644, passwd);
    archive.file(&format!("{root}/bin/plain"), 0o644, b"#!/bin/sh\n");
    archive.file(&format!("{root}/bin/garbage"), 0o755, b"\x00\x01\x02");
    archive.finish()
}

fn start_qemu(kernel: &Path, initramfs: &Path, folder: &Path, words: &str) -> Child {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("cpuinfo");
    let mhz: f64 = cpuinfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("cpu MHz")?
                .split_once(':')?
                .1
                .trim()
                .parse()
                .ok()
        })
        .expect("a clock rate");
    let khz = (mhz * 1000.0) as u64;
    let lpj = khz * 2;
    let append = format!(
        "console=ttyS0 quiet panic=-1 reboot=t nolapic_timer noreplace-smp 8250.nr_uarts=1 \
         tsc_early_khz={khz} lpj={lpj} no_timer_check tsc=reliable clearcpuid=cx16 {words}"
    );
    let link = format!(
        "socket,id=link,path={},server=on,wait=off",
        folder.join("link").display()
    );
    Command::new("qemu-system-x86_64")
        .args([
            "-M",
            "microvm,acpi=off,x-option-roms=off,rtc=on,auto-kernel-cmdline=on",
        ])
        .args(["-accel", "tcg", "-cpu", "max", "-m", "256"])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-serial")
        .arg(format!("file:{}", folder.join("console").display()))
        .args(["-device", "virtio-serial-device", "-chardev", &link])
        .args(["-device", "virtserialport,chardev=link,name=cofferdam.link"])
        .args(["-append", &append])
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu")
}
