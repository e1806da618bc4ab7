//! Running a command, with its output on this program's.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use testhost::{Config, Host, Images, Job};
use tokio::io::{AsyncWrite, copy, stderr, stdin, stdout};
use tokio::net::UnixStream;

use crate::terminal::{self, Raw};

/// How long a boot may take: five seconds on a machine that does nothing else, but it often does.
const BOOT: Duration = Duration::from_secs(120);

/// The same where instructions are counted.
const COUNTED_BOOT: Duration = Duration::from_secs(600);

/// What the command gets of this environment, beside what begins with one of the [`PREFIXES`].
const VARIABLES: [&str; 6] = ["HOME", "LANG", "PATH", "TERM", "RUST_BACKTRACE", "RUST_LOG"];
const PREFIXES: [&str; 2] = ["COFFERDAM_", "LC_"];

/// Names the results folder to the command.
const RESULTS: &str = "COFFERDAM_TESTHOST_RESULTS";

/// What to run, and in what.
#[derive(Args)]
pub struct Options {
    /// The folder with kernel, modules and initial RAM disk.
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// Memory of the test host.
    #[arg(long, value_name = "MIB", default_value_t = 2000)]
    memory: u64,
    /// How long the command may run.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Count instructions instead of time: slower, but what is measured does not depend on this machine's load.
    #[arg(long)]
    icount: bool,
    /// The folder that is shared writable, at the same path. COFFERDAM_TESTHOST_RESULTS names it to the command.
    #[arg(long, value_name = "FOLDER")]
    results: PathBuf,
    /// Folders that are shown even if they lie in /tmp or another folder that the test host has for itself.
    #[arg(long, value_name = "FOLDER")]
    show: Vec<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Runs the command; its exit code is the answer.
pub fn run(options: Options) -> Result<u8> {
    let (command, terminal) = if options.command.is_empty() {
        let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        (vec![shell], Some(terminal::size()?))
    } else {
        (options.command, None)
    };
    let config = Config {
        program: env::current_exe().context("find this program")?,
        images: Images::find(&options.images)?,
        memory_mib: options.memory,
        counted: options.icount,
        results: absolute(options.results)?,
        folders: options
            .show
            .into_iter()
            .map(absolute)
            .collect::<Result<_>>()?,
        boot: if options.icount { COUNTED_BOOT } else { BOOT },
    };
    let mut environment: Vec<_> = env::vars_os()
        .filter(|(name, _)| {
            let name = name.to_string_lossy();
            VARIABLES.contains(&&*name) || PREFIXES.iter().any(|start| name.starts_with(start))
        })
        .collect();
    environment.push((RESULTS.into(), config.results.clone().into()));
    let job = Job {
        command,
        directory: env::current_dir().context("find the working directory")?,
        environment,
        limit: options.timeout.map(Duration::from_secs),
        terminal,
    };
    // One thread: the test host dies with the thread that started it, and this one lives to the end.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(in_host(&config, &job));
    // A thread may be waiting for keys.
    runtime.shutdown_background();
    let code = result?;
    u8::try_from(code).with_context(|| format!("the command exited with {code}"))
}

async fn in_host(config: &Config, job: &Job) -> Result<i32> {
    let mut host = Host::boot(config, job).await?;
    let (out, err, terminal) = (host.stdout(), host.stderr(), host.terminal());
    let raw = terminal.as_ref().map(|_| Raw::enter()).transpose()?;
    let ended = async { host.wait().await.context("run the command") };
    let (code, (), (), ()) = tokio::try_join!(
        ended,
        pass_on(out, stdout()),
        pass_on(err, stderr()),
        talk(terminal),
    )?;
    drop(raw);
    Ok(code)
}

async fn pass_on(from: Option<UnixStream>, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    if let Some(mut from) = from {
        copy(&mut from, &mut to)
            .await
            .context("pass on the command's output")?;
    }
    Ok(())
}

/// Passes keys to the command and shows what it answers, until the test host ends.
async fn talk(terminal: Option<UnixStream>) -> Result<()> {
    let Some(mut terminal) = terminal else {
        return Ok(());
    };
    let (mut shown, mut keys) = terminal.split();
    let (mut input, mut output) = (stdin(), stdout());
    let typed = async {
        copy(&mut input, &mut keys).await?;
        // No more keys: the command may still have something to say.
        std::future::pending::<io::Result<u64>>().await
    };
    tokio::select! {
        result = copy(&mut shown, &mut output) => result.context("show what the command says")?,
        result = typed => result.context("pass on what was typed")?,
    };
    Ok(())
}

fn absolute(folder: PathBuf) -> Result<PathBuf> {
    folder
        .canonicalize()
        .with_context(|| format!("find {}", folder.display()))
}
