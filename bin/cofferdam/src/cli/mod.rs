//! The command line: runc's words in `oci`, those of people in `people` and `debug`.

mod debug;
mod oci;
mod people;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use debug::*;
pub use oci::*;
pub use people::*;

/// Runs each container in a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version = long_version(), disable_version_flag = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// Print version.
    #[arg(long = "version", short = 'v', visible_short_alias = 'V', action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

/// `runtime-spec` in the version text is what engines look for.
fn long_version() -> &'static str {
    concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0")
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Directory for the state of containers (should be on a tmpfs).
    #[arg(long, default_value = "/run/cofferdam")]
    pub root: PathBuf,
    /// File that errors are written to beside stderr.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Format of that file.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log more.
    #[arg(long)]
    pub debug: bool,
    /// Taken for compatibility: limits are set inside the guest, where no systemd runs.
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Taken for compatibility: the guest's control groups are always ours.
    #[arg(long, value_parser = ["true", "false", "auto"])]
    pub rootless: Option<String>,
    /// Taken for compatibility: nothing is checkpointed.
    #[arg(long)]
    pub criu: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container of a bundle; `start` runs its process.
    Create(CreateArgs),
    /// Run the process of a created container.
    Start(IdArgs),
    /// Create and start a container, of an image or of a bundle.
    Run(Box<RunArgs>),
    /// Print a container's state as JSON.
    State(IdArgs),
    /// Signal a container's first process.
    Kill(KillArgs),
    /// Remove a container and all that is left of it.
    Delete(DeleteArgs),
    /// Run one more process in a container.
    Exec(ExecArgs),
    /// List containers.
    List(ListArgs),
    /// List the containers that `run` made of images, or the processes of one container.
    Ps(PsArgs),
    /// Print what a container has written.
    Logs(LogsArgs),
    /// Ask containers to stop, then make them.
    Stop(StopArgs),
    /// Remove containers.
    Rm(RmArgs),
    /// List images.
    Images(ImagesArgs),
    /// Remove images.
    Rmi(RmiArgs),
    /// Fetch an image from its registry.
    Pull(PullArgs),
    /// Take the images of an archive or an OCI layout.
    Load(LoadArgs),
    /// Make, list and remove templates of booted guests.
    Template(TemplateArgs),
    /// Say whether containers can run here, and what is missing.
    Check(CheckArgs),
    /// Look into how machines work here.
    Debug(DebugArgs),
    /// Freeze a container.
    Pause(IdArgs),
    /// Thaw a container.
    Resume(IdArgs),
    /// Change a container's limits.
    Update(UpdateArgs),
    /// Print a container's use of resources.
    Events(EventsArgs),
    /// Write a sample config.json.
    Spec(SpecArgs),
    /// Print what this runtime can do, as JSON.
    Features,
    /// Write the command line reference, manual pages and completions into a folder.
    #[command(hide = true)]
    GenerateDocs(GenerateDocsArgs),
    /// Not supported.
    #[command(hide = true)]
    Checkpoint(AnyArgs),
    /// Not supported.
    #[command(hide = true)]
    Restore(AnyArgs),
    /// Connects containers of `run` to their network.
    #[command(hide = true)]
    Network(NetworkArgs),
    /// The background process that owns a sandbox.
    #[command(hide = true)]
    Driver(HiddenArgs),
    /// What stands for a container's process on the host.
    #[command(hide = true)]
    Proxy(HiddenArgs),
    /// Makes a template beside a new container.
    #[command(hide = true)]
    TemplateMaker(HiddenArgs),
    /// Is killed for want of memory.
    #[command(hide = true)]
    Victim,
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn options_of_runc_are_taken() {
        for words in [
            "--criu /usr/sbin/criu list",
            "--rootless auto list",
            "update --cpu-rt-period 1 --cpu-rt-runtime -1 c",
            "update --l3-cache-schema L3:0=f --mem-bw-schema MB:0=20 c",
            "update --memory 64M --memory-reservation 1g --memory-swap -1 c",
            "kill c 0",
        ] {
            let words = ["cofferdam"].into_iter().chain(words.split(' '));
            Cli::try_parse_from(words).unwrap();
        }
        for (words, kind) in [
            (&["cofferdam", "-v"][..], ErrorKind::DisplayVersion),
            (&["cofferdam", "--version"], ErrorKind::DisplayVersion),
            (
                &["cofferdam", "--rootless", "perhaps", "list"],
                ErrorKind::InvalidValue,
            ),
            (
                &["cofferdam", "update", "--memory", "foo", "c"],
                ErrorKind::ValueValidation,
            ),
            // Not a list that has commands which nobody calls.
            (
                &["cofferdam"],
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ),
        ] {
            assert_eq!(
                Cli::try_parse_from(words).unwrap_err().kind(),
                kind,
                "{words:?}"
            );
        }
    }
}
