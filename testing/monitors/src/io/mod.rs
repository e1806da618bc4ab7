//! What devices cost: streams, disks, networks and files, on our monitor and on QEMU's smallest machine, with the same kernel,
//! guest program, file server, and files in the host's memory.

mod contents;
mod link;
mod machine;
mod measures;
pub mod wire;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use self::contents::Contents;
use self::link::Silent;
use self::machine::{Kind, Machine, Parts};
use self::measures::Figures;
use crate::files::{self, Files};
use crate::monitors::Guest;
use crate::trace::Trace;

/// How often a machine whose guest falls silent is booted.
const BOOTS: u32 = 3;

#[derive(Args)]
pub struct Options {
    /// What `cargo xtask build` made.
    #[arg(long)]
    prefix: PathBuf,
    /// The guest's first program.
    #[arg(long)]
    inside: PathBuf,
    /// Only this one of both.
    #[arg(long)]
    only: Option<Only>,
    /// Guest memory, in MiB: room for the tree.
    #[arg(long, default_value_t = 512)]
    memory: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Own,
    Qemu,
}

/// Measures, and prints the table.
pub fn run(options: &Options) -> Result<()> {
    // Before there are other threads.
    wire::alone()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let figures = runtime.block_on(compare(options))?;
    print!("{}", figures.table());
    Ok(())
}

async fn compare(options: &Options) -> Result<Figures> {
    let files = Files::new()?;
    let program = |name: &str| files.copy(&options.prefix.join("libexec/cofferdam").join(name));
    let own = program("cofferdam-vmm")?;
    let server = program("cofferdam-fs")?;
    let contents = Contents::make(&files, &options.inside)?;
    let guest = Guest {
        kernel: files.copy(&options.prefix.join("lib/cofferdam/vmlinux"))?,
        image: contents.image.clone(),
        memory_mib: options.memory,
    };
    let qemu = files::find("qemu-system-x86_64").context("find qemu-system-x86_64")?;
    files.copy("/usr/share/qemu/qboot.rom".as_ref())?;
    let mut kinds = Vec::new();
    if options.only != Some(Only::Qemu) {
        kinds.push(Kind::Own(own));
    }
    if options.only != Some(Only::Own) {
        let program = files.program(&qemu)?;
        kinds.push(Kind::Qemu(program, files.path().to_owned()));
    }
    let mut trace = Trace::start()?;
    let mut figures = Figures::default();
    let mut number = 0;
    for kind in &kinds {
        for vhost_net in [true, false] {
            let mut boots = 0;
            let measured = loop {
                number += 1;
                boots += 1;
                let parts = Parts {
                    files: &files,
                    contents: &contents,
                    guest: &guest,
                    server: &server,
                    vhost_net,
                    number,
                };
                match one(kind, &parts, &mut trace).await {
                    // A fault of the test host's processor can do that: docs/vmm.md. It is told, as others could be ours.
                    Err(error) if error.is::<Silent>() && boots < BOOTS => {
                        eprintln!("monitors: THE GUEST FELL SILENT, once more: {error:#}");
                    }
                    done => break done?,
                }
            };
            figures.append(measured);
        }
    }
    Ok(figures)
}

/// All figures of one machine.
async fn one(kind: &Kind, parts: &Parts<'_>, trace: &mut Trace) -> Result<Figures> {
    eprintln!("monitors: {}, vhost-net: {}", kind.name(), parts.vhost_net);
    let mut machine = Machine::boot(kind, parts).await?;
    let mut figures = Figures::default();
    figures
        .measure(kind, parts, &mut machine, trace)
        .await
        .with_context(|| format!("measure {}: {}", kind.name(), machine.told()))?;
    Ok(figures)
}
