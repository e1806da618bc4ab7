//! `check`: says whether containers can run here, and what is missing.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sandbox::SandboxError;
use sandbox::backend::{self, ProbeOutcome};
use sandbox::config::{BackendChoice, Config};
use serde::Serialize;

use crate::cli::CheckArgs;

/// How long a program may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// No version is longer.
const VERSION_LIMIT: u64 = 4096;
/// `statfs` of a cgroup v2 tree and of overlayfs (Linux `include/uapi/linux/magic.h`).
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

const INSTALL_QEMU: &str = "apt-get install --no-install-recommends qemu-system-x86";
const INSTALL_OURS: &str = "make install (in Cofferdam's source tree)";

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    /// Whether containers can run as far as this goes.
    ok: bool,
    found: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    /// Whether containers can run.
    usable: bool,
    /// The backend that is used; nothing when there is none.
    backend: Option<String>,
    /// Why it is not another.
    because: Option<String>,
    findings: Vec<Finding>,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    let outcome = outcome();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print(&outcome);
    }
    Ok(if outcome.usable {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn outcome() -> Outcome {
    let mut findings = vec![root()];
    let config = match Config::load() {
        Ok(config) => {
            findings.push(fine("configuration", config_file()));
            config
        }
        Err(error) => {
            findings.push(bad(
                "configuration",
                sandbox::chain(&error),
                "correct the file (docs/configuration.md explains the keys)",
            ));
            return Outcome {
                usable: false,
                backend: None,
                because: None,
                findings,
            };
        }
    };
    let qemu_only = matches!(
        config.backend,
        BackendChoice::QemuKvm | BackendChoice::QemuTcg
    );
    findings.push(if qemu_only {
        qemu(&config, false)
    } else {
        file("vmm", "vmm", &config.vmm)
    });
    findings.push(file("guest kernel", "kernel", &config.kernel));
    findings.push(file("guest image", "initrd", &config.initrd));
    findings.push(file("file server", "file_server", &config.file_server));
    let complete = findings.iter().all(|finding| finding.ok);
    let (found, works) = kvm(&config, complete);
    findings.push(found);
    if !qemu_only {
        findings.push(qemu(&config, works || config.backend == BackendChoice::Kvm));
    }
    let can_boot = findings.iter().all(|finding| finding.ok);
    findings.push(overlay());
    findings.push(data(&config));
    findings.push(cgroups());
    findings.push(memory(&config));

    let (mut backend, mut because) = (None, None);
    if can_boot {
        match block_on(backend::choose(&config)) {
            Ok(choice) => {
                let accelerator = choice.backend.capabilities().accelerator;
                backend = Some(format!("{} ({accelerator})", choice.backend.name()));
                because = choice.because;
            }
            Err(error) => findings.push(bad(
                "backend",
                format!("{error:#}"),
                "set `backend` and `require_hardware` in the configuration to what this machine has",
            )),
        }
    }
    Outcome {
        usable: backend.is_some() && findings.iter().all(|finding| finding.ok),
        backend,
        because,
        findings,
    }
}

fn print(outcome: &Outcome) {
    for finding in &outcome.findings {
        let mark = if finding.ok { "ok" } else { "--" };
        println!("{mark:<3} {:<15} {}", finding.name, finding.found);
        if let Some(mend) = &finding.mend {
            println!("    {:<15} → {mend}", "");
        }
    }
    println!();
    match &outcome.backend {
        Some(backend) => println!("backend: {backend}"),
        None => println!("backend: none"),
    }
    if let Some(because) = &outcome.because {
        println!("because: {because}");
    }
    println!(
        "{}",
        if outcome.usable {
            "containers can run here"
        } else {
            "containers cannot run here: see the lines that begin with --"
        }
    );
}

fn fine(name: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        name,
        ok: true,
        found: found.into(),
        mend: None,
    }
}

fn bad(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        name,
        ok: false,
        found: found.into(),
        mend: Some(mend.into()),
    }
}

fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        fine("user", "root")
    } else {
        bad("user", "not root", "sudo cofferdam …")
    }
}

fn config_file() -> String {
    match Config::file() {
        Some(path) => path.display().to_string(),
        None => "no file, the defaults count".to_owned(),
    }
}

/// Our own monitor does without it.
fn qemu(config: &Config, own: bool) -> Finding {
    let program = match backend::program(config) {
        Ok(program) => program,
        Err(_) if own => return fine("qemu", "not installed, and not needed"),
        Err(error) => return bad("qemu", sandbox::chain(&error), INSTALL_QEMU),
    };
    match version(&program) {
        Ok(version) => fine("qemu", format!("{} ({version})", program.display())),
        Err(error) => bad(
            "qemu",
            format!("{}: {error:#}", program.display()),
            INSTALL_QEMU,
        ),
    }
}

/// The first line that a program says of itself.
fn version(program: &Path) -> Result<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("it does not start")?;
    let deadline = Instant::now() + VERSION_DEADLINE;
    let status = loop {
        match child.try_wait().context("it cannot be watched")? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill().context("it cannot be ended")?;
                child.wait().context("it cannot be ended")?;
                anyhow::bail!("it says no version within {} s", VERSION_DEADLINE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(VERSION_LIMIT)
            .read_to_string(&mut text)
            .context("its version is no text")?;
    }
    if !status.success() {
        anyhow::bail!("it ended with {status}");
    }
    Ok(text.lines().next().unwrap_or("no version").to_owned())
}

fn file(name: &'static str, key: &str, path: &Path) -> Finding {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => fine(name, path.display().to_string()),
        Ok(_) => bad(
            name,
            format!("{} is not a file", path.display()),
            format!("set `{key}` in the configuration"),
        ),
        Err(error) => bad(name, format!("{}: {error}", path.display()), INSTALL_OURS),
    }
}

/// Emulation does instead, so that this is not bad by itself. And whether it works.
fn kvm(config: &Config, can_boot: bool) -> (Finding, bool) {
    if config.backend == BackendChoice::QemuTcg {
        return (fine("kvm", "not tried: `backend` is \"qemutcg\""), false);
    }
    if !can_boot {
        return (fine("kvm", "not tried: something else is missing"), false);
    }
    let probed = block_on(backend::probe_kvm(config));
    let needed = matches!(config.backend, BackendChoice::Kvm | BackendChoice::QemuKvm)
        || config.require_hardware;
    let works = matches!(probed, Ok(ProbeOutcome::Works { .. }));
    let found = match probed {
        Ok(ProbeOutcome::Works { elapsed }) => fine(
            "kvm",
            format!("a guest ran to its end in {} ms", elapsed.as_millis()),
        ),
        Ok(ProbeOutcome::Unusable { reason }) if needed => bad(
            "kvm",
            reason.to_string(),
            "allow emulation in the configuration, or use another machine",
        ),
        Ok(ProbeOutcome::Unusable { reason }) => fine("kvm", format!("not used: {reason}")),
        Err(error) => bad("kvm", format!("{error:#}"), INSTALL_OURS),
    };
    (found, works)
}

fn overlay() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.split_ascii_whitespace().any(|word| word == "overlay") {
        fine("overlayfs", "in the kernel")
    } else {
        bad("overlayfs", "not in the kernel", "modprobe overlay")
    }
}

/// The folder itself is made when it is needed; what counts is the file system it will be on.
fn data(config: &Config) -> Finding {
    let folder = &config.data_directory;
    let mend = "set `data_directory` in the configuration";
    let Some(there) = folder.ancestors().find(|folder| folder.exists()) else {
        return bad("data", format!("{} cannot be made", folder.display()), mend);
    };
    match rustix::fs::statfs(there) {
        Ok(found) if found.f_type.cast_unsigned() == OVERLAYFS_MAGIC => bad(
            "data",
            format!(
                "{} is on an overlay, which cannot hold a writable layer",
                folder.display()
            ),
            mend,
        ),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_bsize.cast_unsigned());
            fine(
                "data",
                format!("{} ({} free)", folder.display(), super::images::size(free)),
            )
        }
        Err(errno) => bad("data", format!("{}: {errno}", folder.display()), mend),
    }
}

/// Limits are set inside guests, so that any mode will do.
fn cgroups() -> Finding {
    let tree = Path::new("/sys/fs/cgroup");
    let is_v2 =
        rustix::fs::statfs(tree).is_ok_and(|found| found.f_type.cast_unsigned() == CGROUP2_MAGIC);
    let mode = if is_v2 {
        "v2"
    } else if tree.join("unified").is_dir() {
        "v1 and v2 (hybrid)"
    } else if tree.is_dir() {
        "v1"
    } else {
        "none"
    };
    fine("host's cgroups", mode)
}

fn memory(config: &Config) -> Finding {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    let Some(kibibytes) = kibibytes else {
        return fine("memory", "not known");
    };
    let mebibytes = kibibytes >> 10;
    if mebibytes < config.default_memory_mib {
        return bad(
            "memory",
            format!(
                "{mebibytes} MiB available, a sandbox gets {}",
                config.default_memory_mib
            ),
            "free some, or lower `default_memory_mib` in the configuration",
        );
    }
    fine("memory", format!("{mebibytes} MiB available"))
}

fn block_on<T>(future: impl Future<Output = Result<T, SandboxError>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(future)?)
}
