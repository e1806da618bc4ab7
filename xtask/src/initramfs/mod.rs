//! The initial RAM disk: the agent, statically linked, as the only program of the guest, and its AppArmor profile.

mod apparmor;
pub mod cpio;

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::places::Places;
use crate::prefix;
use crate::standalone::{self, Address, Program};

use self::cpio::Archive;

const PACKAGE: &str = "cofferdam-agent";
const PROFILE: &str = "guest";

/// Folders that the agent mounts on, and that of the profile.
const DIRECTORIES: [&str; 6] = ["dev", "etc", "proc", "sys", "run", "tmp"];

/// Builds the agent and puts the RAM disk into the prefix.
pub fn install(places: &Places) -> Result<()> {
    let libraries =
        command::text(Command::new("pkg-config").args(["--variable=libdir", "libseccomp"]))
            .context("find libseccomp: `make deps` installs libseccomp-dev")?;
    let agent = standalone::build(
        places,
        &Program {
            package: PACKAGE,
            profile: PROFILE,
            // Relocating a program costs tens of milliseconds for each exec when the processor is emulated.
            address: Address::Fixed,
            environment: &[
                ("LIBSECCOMP_LINK_TYPE", "static"),
                ("LIBSECCOMP_LIB_PATH", libraries.trim()),
            ],
        },
    )?;
    let target = places.guest_files().join("initramfs.cpio");
    let profile = apparmor::compile(&places.root)?;
    // The guest's own tests pack an image of their own.
    let beside = standalone::folder(places, PROFILE).join(apparmor::FILE);
    prefix::place_bytes(&profile, &beside, 0o644)?;
    prefix::place_bytes(&pack(&agent, &profile)?, &target, 0o644)?;
    println!(
        "guest image: {} ({} KiB)",
        target.display(),
        agent.len().div_ceil(1024)
    );
    Ok(())
}

fn pack(agent: &[u8], profile: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory, 0o755)?;
    }
    // The kernel opens it for PID 1 before anything is mounted.
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, agent)?;
    archive.file(&format!("etc/{}", apparmor::FILE), 0o600, profile)?;
    Ok(archive.finish()?)
}
