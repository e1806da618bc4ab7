//! Programs that need no file but their own: statically linked, for where there is no loader and no library.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::images::elf;
use crate::places::Places;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where a program is loaded.
#[derive(Debug, Clone, Copy)]
pub enum Address {
    /// Always at the same address.
    Fixed,
    /// At another one each time: whoever breaks in does not know where anything is.
    Random,
}

impl Address {
    fn flags(self) -> &'static str {
        match self {
            Self::Fixed => "-C target-feature=+crt-static -C relocation-model=static",
            Self::Random => "-C target-feature=+crt-static -C relocation-model=pie",
        }
    }
}

/// A program to build.
#[derive(Debug)]
pub struct Program<'a> {
    /// The package, and the name of its one program.
    pub package: &'a str,
    /// The profile to build it with.
    pub profile: &'a str,
    /// Where it is loaded.
    pub address: Address,
    /// What build scripts are told.
    pub environment: &'a [(&'a str, &'a str)],
}

/// The folder that programs of a profile are built in.
pub fn folder(places: &Places, profile: &str) -> PathBuf {
    places.target.join(TARGET).join(profile)
}

/// Builds a program.
pub fn build(places: &Places, program: &Program<'_>) -> Result<Vec<u8>> {
    let &Program {
        package,
        profile,
        address,
        environment,
    } = program;
    // With --target, the flags stay off build scripts and procedural macros.
    command::run(
        Command::new("cargo")
            .args(["build", "--locked", "--package", package])
            .args(["--profile", profile, "--target", TARGET])
            .current_dir(&places.root)
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                address.flags(),
            )
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .envs(environment.iter().copied()),
    )?;
    let path = folder(places, profile).join(package);
    let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    if elf::needs_interpreter(&content)? {
        bail!("{} is not statically linked", path.display());
    }
    Ok(content)
}
