//! The fuzz targets of the monitor (`vmm/fuzz`), run by cargo-fuzz.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::command;
use crate::places::Places;

/// How long one input may take, in seconds.
const TIMEOUT: u32 = 10;

/// How much memory all of it may take, in MiB; the sanitizer has its part of it.
const MEMORY: u32 = 1024;

/// How much one allocation may take, in MiB: nothing that a guest says is worth more.
const ALLOCATION: u32 = 64;

/// The longest input, in bytes: a script needs few, a kernel's head more.
const LONGEST: u32 = 4096;

/// What to fuzz.
#[derive(Args)]
pub struct Options {
    /// The target; `--list` names them.
    #[arg(required_unless_present_any = ["list", "all"])]
    target: Option<String>,
    /// Each target, one after the other.
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// Name the targets.
    #[arg(long)]
    list: bool,
    /// How long it runs if it finds nothing.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Do not fuzz: add as few of the found inputs to the seeds as reach the same code.
    #[arg(long)]
    keep: bool,
}

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Binary>,
}

#[derive(Deserialize)]
struct Binary {
    name: String,
}

/// Runs targets, with the seeds of the tree and what earlier runs have found.
pub fn run(places: &Places, options: &Options) -> Result<()> {
    let folder = places.root.join("vmm/fuzz");
    let all = targets(&folder)?;
    let targets = match &options.target {
        _ if options.list => {
            for target in all {
                println!("{target}");
            }
            return Ok(());
        }
        Some(target) if all.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "there is no fuzz target {target}; there are {}",
            all.join(", ")
        ),
        None => all,
    };
    find_tools()?;
    for target in &targets {
        fuzz(places, options, &folder, target)?;
    }
    Ok(())
}

fn fuzz(places: &Places, options: &Options, folder: &Path, target: &str) -> Result<()> {
    let found = places.target.join("fuzz").join("found").join(target);
    let corpus = found.join("corpus");
    fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
    let seeds = folder.join("seeds").join(target);
    let mut fuzz = cargo_fuzz(places, folder, target);
    if options.keep {
        // How often code is reached counts while it is fuzzed, not here.
        fuzz.args([&seeds, &corpus]);
        fuzz.args(["--", "-set_cover_merge=1", "-use_counters=0"]);
        return command::run(&mut fuzz);
    }
    fuzz.args([&corpus, &seeds]).args([
        "--".to_owned(),
        format!("-max_total_time={}", options.seconds),
        format!("-timeout={TIMEOUT}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-malloc_limit_mb={ALLOCATION}"),
        format!("-max_len={LONGEST}"),
        format!("-artifact_prefix={}/", found.display()),
        "-print_funcs=0".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    // The sanitizer keeps what was given back: less, so that it is not taken for ours.
    fuzz.env("ASAN_OPTIONS", "quarantine_size_mb=32:detect_leaks=0");
    command::run(&mut fuzz)
        .with_context(|| format!("what was found, if anything, is in {}", found.display()))
}

fn cargo_fuzz(places: &Places, folder: &Path, target: &str) -> Command {
    let mut fuzz = Command::new("cargo");
    // Cargo tells its children which toolchain and package they belong to: these belong to others.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "CARGO_MANIFEST_DIR"] {
        fuzz.env_remove(name);
    }
    fuzz.current_dir(folder)
        .args(["+nightly", "fuzz", "run", "--fuzz-dir", ".", "--target-dir"])
        .arg(places.target.join("fuzz"))
        .arg(target);
    fuzz
}

/// Both are a developer's to install: a build of ours never changes the machine's toolchains.
fn find_tools() -> Result<()> {
    let answers = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.env_remove("RUSTUP_TOOLCHAIN").args(arguments);
        command::output(&mut cargo)
    };
    answers(&["+nightly", "--version"]).context(
        "fuzzing needs a nightly compiler: `rustup toolchain install nightly --profile minimal`",
    )?;
    answers(&["+nightly", "fuzz", "--version"])
        .context("fuzzing needs cargo-fuzz: `cargo install cargo-fuzz --locked`")?;
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let manifest: Manifest =
        toml::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    Ok(manifest.bin.into_iter().map(|bin| bin.name).collect())
}
