//! The guest kernel: Debian's source package, our configuration, one stripped ELF.
//!
//! The cache key covers the configuration fragments, the source package's version, the compiler and
//! the steps below. The source version seen last is remembered, so that a build whose result is
//! cached needs no network; `--update` looks for a newer source.

mod build;
mod config;
mod source;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::digest::Inputs;
use crate::places::Places;
use crate::prefix;
use crate::store::Store;

use self::build::Toolchain;
use self::config::Fragments;
use self::source::Source;

/// Kernels kept in the cache: some branches' worth, 20 MB each.
const KEPT: usize = 6;

/// How to build the kernel.
#[derive(Args)]
pub struct Options {
    /// Compilers to run at once [default: one for each processor].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Look for a newer kernel source even if the kernel is cached.
    #[arg(long)]
    update: bool,
}

/// What a kernel was built from; lies beside it as `inputs.json`.
#[derive(Serialize)]
struct Inventory<'a> {
    source: &'a str,
    compiler: &'a str,
    linker: &'a str,
    configuration: &'a str,
}

/// Puts the kernel into the prefix, building it if the cache has none for the present inputs.
pub fn install(places: &Places, options: &Options) -> Result<()> {
    let fragments = Fragments::read(&places.root.join("guest/kernel/config"))?;
    let toolchain = Toolchain::find()?;
    let store = Store::open(&places.cache, "kernel")?;

    let known = source::known(&store)?.filter(|_| !options.update);
    let cached = known.and_then(|source| store.find(&key(&fragments, &toolchain, &source)));
    if let Some(entry) = cached {
        return place(places, &entry);
    }
    let store = store.lock()?;
    let source = source::newest(&store)?;
    let key = key(&fragments, &toolchain, &source);
    if let Some(entry) = store.find(&key) {
        return place(places, &entry);
    }

    let stage = store.stage()?;
    let package = source::fetch(&store, &source)?;
    let jobs = options.jobs.map_or_else(processors, Ok)?;
    let built = build::build(stage.path(), &package, &fragments, &toolchain, jobs)?;
    let inventory = Inventory {
        source: &source.version,
        compiler: &toolchain.compiler,
        linker: &toolchain.linker,
        configuration: &fragments.digest(),
    };
    let path = built.join("inputs.json");
    fs::write(&path, serde_json::to_vec_pretty(&inventory)?)
        .with_context(|| format!("write {}", path.display()))?;
    let entry = store.publish(&built, &key)?;
    place(places, &entry)?;
    eprintln!("removing the kernel's build tree");
    stage.close().context("remove the kernel's build tree")?;
    store.prune(KEPT, |name| name.len() == key.len())
}

fn place(places: &Places, entry: &Path) -> Result<()> {
    let kernel = entry.join("vmlinux");
    prefix::place(&kernel, &places.guest_files().join("vmlinux"), 0o644)?;
    println!("guest kernel: {}", kernel.display());
    Ok(())
}

fn key(fragments: &Fragments, toolchain: &Toolchain, source: &Source) -> String {
    let mut inputs = Inputs::default();
    inputs
        .add(&source.version)
        .add(fragments.digest())
        .add(&toolchain.compiler)
        .add(&toolchain.linker)
        .add(build::STEPS);
    inputs.key()
}

fn processors() -> Result<usize> {
    let processors = std::thread::available_parallelism().context("count the processors")?;
    Ok(processors.get())
}
