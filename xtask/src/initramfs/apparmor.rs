//! The guest's AppArmor profile, compiled for a kernel that may have more or fewer features than this machine's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The compiled profile's name.
pub const FILE: &str = "cofferdam-default.apparmor";

const SOURCE: &str = "guest/apparmor/cofferdam-default";

/// What rules may be about: those of Linux 6.12 and more. A kernel leaves alone what it does not know.
const FEATURES: &str = "/etc/apparmor.d/abi/3.0";

/// The profile as the kernel reads it. Loads nothing here.
pub fn compile(root: &Path) -> Result<Vec<u8>> {
    let compiled = command::output(
        Command::new("apparmor_parser")
            // In sbin, which is not in everybody's path.
            .env("PATH", path())
            .args(["--skip-kernel-load", "--skip-cache", "--quiet", "--stdout"])
            .args([
                format!("--policy-features={FEATURES}"),
                format!("--kernel-features={FEATURES}"),
            ])
            .arg(root.join(SOURCE)),
    )
    .context("compile the AppArmor profile: `make deps` installs apparmor")?;
    Ok(compiled.stdout)
}

fn path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}
