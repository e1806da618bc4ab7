//! What a template depends on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backend_api::{BackendError, Phase, VmConfig};

use crate::QemuBackend;
use crate::command::{self, Boot, Clock, Machine, Start};

/// Goes up when templates are made in another way that their command line does not show.
const GENERATION: u32 = 1;

/// Everything that a template depends on, as text.
pub fn identity(backend: &QemuBackend, config: &VmConfig) -> Result<String, BackendError> {
    let mut lines = vec![format!(
        "cofferdam {} {GENERATION}",
        env!("CARGO_PKG_VERSION")
    )];
    for (what, path) in [
        ("VMM program", backend.program()?.as_path()),
        ("guest kernel", &config.kernel),
        ("guest image", &config.initrd),
    ] {
        lines.push(stamp(path).map_err(|source| BackendError::File {
            what,
            path: path.to_owned(),
            source,
        })?);
    }
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| BackendError::System {
            phase: Phase::Create,
            action: format!("cannot read {path}"),
            source,
        })
    };
    // The rate of the time stamp counter does not change while the host is up, and is not known exactly on every host.
    lines.push(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned());
    lines.push(processor(&read("/proc/cpuinfo")?));
    let boot = Boot {
        kernel: 0,
        initrd: 0,
        clock: Clock::Tsc { khz: 0 },
    };
    let arguments = command::arguments(&Machine {
        name: "",
        accelerator: backend.accelerator(),
        memory_mib: config.memory_bytes >> 20,
        vcpus: config.vcpus,
        parameters: &config.cmdline,
        start: Start::Template(boot, 0),
        link: 0,
        console: 0,
        monitor: 0,
        share: None,
        nics: &[],
    });
    lines.extend(
        arguments
            .iter()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    Ok(lines.join("\n"))
}

/// One version of a file.
fn stamp(path: &Path) -> io::Result<String> {
    let data = fs::metadata(path)?;
    Ok(format!(
        "{} {}:{} {} {}.{}",
        path.display(),
        data.dev(),
        data.ino(),
        data.size(),
        data.mtime(),
        data.mtime_nsec()
    ))
}

/// The host's processor: its model and features.
fn processor(cpuinfo: &str) -> String {
    let kept = ["model name", "flags", "microcode"];
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    let lines = first
        .lines()
        .filter(|line| kept.iter().any(|name| line.starts_with(name)));
    lines.collect::<Vec<_>>().join("\n")
}
