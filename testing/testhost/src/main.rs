//! Runs a command in a test host. `cargo xtask testhost` prepares what it boots from and starts it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use testhost::{Config, Error, Host, Images, Job, Served};
use tokio::io::copy;

/// What this program exits with when the command ran too long, as timeout(1) does.
const OVERDUE: u8 = 124;

/// And when it is the test host that failed.
const FAILED: u8 = 125;

/// How long a boot may take: six seconds on a machine that does nothing else, but it often does.
const BOOT: Duration = Duration::from_secs(90);

#[derive(Parser)]
#[command(name = "testhost", about = "A disposable machine with KVM for tests")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a command, or without one a shell.
    Run(Options),
    /// Serve this machine's files, or a folder, to the QEMU that is connected to standard input.
    #[command(hide = true)]
    Serve {
        /// The folder.
        folder: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Options {
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
    /// The folder that is shared writable, at the same path.
    #[arg(long, value_name = "FOLDER")]
    results: PathBuf,
    /// Folders that are shown even if they lie in /tmp or another folder that the test host has for itself.
    #[arg(long, value_name = "FOLDER")]
    show: Vec<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().action {
        Action::Serve { folder } => {
            testhost::serve(folder.map_or(Served::Root, Served::Folder)).map(|()| 0)
        }
        Action::Run(options) => run(options),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref() {
                Some(Error::Overdue { .. }) => ExitCode::from(OVERDUE),
                _ => ExitCode::from(FAILED),
            }
        }
    }
}

fn run(options: Options) -> Result<u8> {
    let config = Config {
        program: env::current_exe().context("find this program")?,
        images: Images::find(&options.images)?,
        memory_mib: options.memory,
        counted: options.icount,
        results: options.results,
        folders: options.show,
        boot: BOOT,
    };
    let job = Job {
        command: options.command,
        directory: env::current_dir().context("find the working directory")?,
        environment: ["PATH", "HOME"]
            .into_iter()
            .filter_map(|name| Some((name.into(), env::var_os(name)?)))
            .collect(),
        limit: options.timeout.map(Duration::from_secs),
        terminal: None,
    };
    // One thread: the test host dies with the thread that started it, and this one lives to the end.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut host = Host::boot(&config, &job).await?;
        let (stdout, stderr) = (host.stdout(), host.stderr());
        let out = tokio::spawn(async move {
            if let Some(mut from) = stdout {
                copy(&mut from, &mut tokio::io::stdout()).await?;
            }
            std::io::Result::Ok(())
        });
        let err = tokio::spawn(async move {
            if let Some(mut from) = stderr {
                copy(&mut from, &mut tokio::io::stderr()).await?;
            }
            std::io::Result::Ok(())
        });
        let code = host.wait().await?;
        out.await??;
        err.await??;
        Ok(u8::try_from(code)?)
    })
}
