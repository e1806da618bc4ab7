//! The words that people use without an engine.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{BundleArgs, ListFormat};

/// How `run` finds out what is meant.
const RUN_HELP: &str = "\
`run` takes an image as docker does, or a bundle as runc does. It is a bundle when --bundle or another option that \
only runc has is given (--pid-file, --console-socket, --no-pivot, --no-new-keyring, --preserve-fds, --keep, \
--no-subreaper); or when there is one word and no option that only images have, and ./config.json exists. Otherwise it \
is an image: an OCI layout folder, a docker-archive or oci-archive tar (plain, gzip or zstd), or a name at a registry. \
Options stand before the image.";

#[derive(Debug, Args)]
#[command(
    after_long_help = RUN_HELP,
    override_usage = "cofferdam run [OPTIONS] IMAGE [COMMAND [ARGUMENT]…]\n       \
                      cofferdam run [OPTIONS] --rootfs DIR COMMAND [ARGUMENT]…\n       \
                      cofferdam run [--bundle DIR] [OPTIONS] CONTAINER-ID"
)]
pub struct RunArgs {
    /// Do not wait for the container's end; print its name.
    #[arg(long, short = 'd')]
    pub detach: bool,
    #[command(flatten)]
    pub image: ImageRunArgs,
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Do not delete the container of a bundle when it has ended.
    #[arg(long, help_heading = "Bundle options")]
    pub keep: bool,
    /// Taken for compatibility.
    #[arg(long, help_heading = "Bundle options")]
    pub no_subreaper: bool,
    /// The image and the command to run in it, or the name of a bundle's container.
    #[arg(
        value_name = "IMAGE|CONTAINER-ID",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<String>,
}

/// What only containers of images have.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Image options")]
pub struct ImageRunArgs {
    /// Pass stdin on; without it the container's is empty.
    #[arg(long, short = 'i')]
    pub interactive: bool,
    /// Give it a terminal.
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Remove the container when it has ended.
    #[arg(long)]
    pub rm: bool,
    /// Name of the container; 64 random digits by default.
    #[arg(long)]
    pub name: Option<String>,
    /// Set an environment variable; without a value, as it is here.
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Show a folder or file in the container. A folder that does not exist is made.
    #[arg(long, short = 'v', value_name = "SOURCE:TARGET[:ro]")]
    pub volume: Vec<String>,
    /// Working directory in the container.
    #[arg(long, short = 'w', value_name = "DIR")]
    pub workdir: Option<String>,
    /// User and group, by name or number, as the image knows them.
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Memory limit, in bytes or with b, k, m or g.
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<String>,
    /// CPU limit, e.g. 1.5.
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Host name in the container.
    #[arg(long)]
    pub hostname: Option<String>,
    /// Make the root file system read-only.
    #[arg(long)]
    pub read_only: bool,
    /// Network: `none` (loopback alone, the default), `bridge`, `ns:PATH` (the interfaces of a network namespace) or
    /// `cni:NAME`.
    #[arg(long, visible_alias = "network", value_name = "NETWORK")]
    pub net: Option<String>,
    /// Lead a port of the host to one of the container; means `--net bridge` unless another is given.
    #[arg(long, short = 'p', value_name = "[ADDRESS:]HOST:GUEST[/udp]")]
    pub publish: Vec<String>,
    /// When to ask the image's registry; when it is missing here, by default.
    #[arg(long, value_enum)]
    pub pull: Option<Pull>,
    /// Run this instead of the image's entrypoint; `""`: none.
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Use this folder as root file system instead of an image's.
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
}

/// When a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// When the image is not here.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Containers that have ended, too.
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Names only.
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// `table` or `json`.
    #[arg(long, short = 'f', value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Name of a container, to list its processes.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: Option<String>,
    /// Taken for compatibility: options of ps(1), whose columns a guest's processes do not have.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Wait for more until the container has ended.
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only the last lines.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub tail: Option<usize>,
    /// Say when each line was written.
    #[arg(long, short = 't')]
    pub timestamps: bool,
    /// Name of the container, or how it begins.
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds between the image's stop signal and SIGKILL.
    #[arg(long, short = 't', default_value_t = 10, value_name = "SECONDS")]
    pub time: u64,
    /// Names of containers, or how they begin.
    #[arg(value_name = "CONTAINER", required = true)]
    pub ids: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Kill those that run.
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Names of containers, or how they begin.
    #[arg(value_name = "CONTAINER", required = true)]
    pub ids: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Ids only.
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// `table` or `json`.
    #[arg(long, value_enum, default_value = "table")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Also images that containers use.
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Names or ids of images.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Name at a registry.
    #[arg(value_name = "NAME")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The archive, or a folder in OCI layout.
    #[arg(long, short = 'i', value_name = "FILE")]
    pub input: PathBuf,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What `template` is about.
const TEMPLATE_HELP: &str = "\
A template is a guest that has booted and waits. Emulated sandboxes start as copies of it, which takes a fraction of a \
boot. One of the default size is made by itself after the first start that misses it; `make` makes one of any size, and \
waits until it is there. They are worth nothing after the host's next boot, and are kept where it removes them.";

#[derive(Debug, Args)]
#[command(after_long_help = TEMPLATE_HELP)]
pub struct TemplateArgs {
    #[command(subcommand)]
    pub command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Make a template unless it is there.
    Make(TemplateMakeArgs),
    /// List templates.
    Ls(TemplateLsArgs),
    /// Remove all templates. Sandboxes that run do not need theirs any more.
    Rm,
}

#[derive(Debug, Args)]
pub struct TemplateMakeArgs {
    /// Guest memory in MiB: that of a sandbox, which is its limit and `memory_overhead_mib`.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1 << 32))]
    pub memory: Option<u64>,
    /// Virtual CPUs.
    #[arg(long, value_name = "NUMBER")]
    pub vcpus: Option<u32>,
}

#[derive(Debug, Args)]
pub struct TemplateLsArgs {
    /// `table` or `json`.
    #[arg(long, short = 'f', value_enum, default_value = "table")]
    pub format: ListFormat,
}

#[derive(Debug, Args)]
pub struct GenerateDocsArgs {
    /// The folder; what it holds under the same names is replaced.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
