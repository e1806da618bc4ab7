//! The command line: runc's words, and those of people.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs each container in a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version = long_version(), disable_help_subcommand = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// `runtime-spec` in the version text is what engines look for.
fn long_version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0")
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
    /// Taken for compatibility.
    #[arg(long, hide = true)]
    pub rootless: Option<String>,
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
    /// Create and start a container.
    Run(RunArgs),
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
    /// List the processes of a container.
    Ps(PsArgs),
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
    /// Not supported.
    #[command(hide = true)]
    Checkpoint(AnyArgs),
    /// Not supported.
    #[command(hide = true)]
    Restore(AnyArgs),
    /// The background process that owns a sandbox.
    #[command(hide = true)]
    Driver(HiddenArgs),
    /// What stands for a container's process on the host.
    #[command(hide = true)]
    Proxy(HiddenArgs),
}

#[derive(Debug, Args)]
pub struct IdArgs {
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<OsString>,
}

/// Our hidden commands; their socket is stdin.
#[derive(Debug, Args)]
pub struct HiddenArgs {
    /// File to log to.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Format of that file.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log more.
    #[arg(long)]
    pub debug: bool,
    /// Shown in process lists.
    #[arg(long)]
    pub id: Option<String>,
    /// stdout is a terminal whose size counts.
    #[arg(long)]
    pub terminal: bool,
}

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Folder of the bundle; the current one by default.
    #[arg(long, short = 'b')]
    pub bundle: Option<PathBuf>,
    /// Socket that gets the master of the container's terminal.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File that gets the pid that stands for the container's process.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Taken for compatibility: the guest's root always can be pivoted.
    #[arg(long)]
    pub no_pivot: bool,
    /// Taken for compatibility: the guest's kernel has its own session keys.
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Number of further descriptors to pass; descriptors end at the virtual machine's wall, so only 0 works.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// Do not wait for the container's end.
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Do not delete the container when it has ended.
    #[arg(long)]
    pub keep: bool,
    /// Taken for compatibility.
    #[arg(long)]
    pub no_subreaper: bool,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal every process of the container.
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Name (`TERM`, `SIGTERM`) or number.
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kill it first if it has not stopped; do not mind if it is not there.
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Socket that gets the master of the process's terminal.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Working directory in the container.
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable.
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give it a terminal.
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Taken for docker's habit: stdin is always passed.
    #[arg(long, short = 'i')]
    pub interactive: bool,
    /// User id, and group id after a colon.
    #[arg(long, short = 'u', value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Supplementary group ids.
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with a runtime-spec process object.
    #[arg(long, short = 'p', value_name = "PROCESS.JSON")]
    pub process: Option<PathBuf>,
    /// Do not wait for its end.
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// File that gets the pid that stands for the process.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// SELinux label.
    #[arg(long)]
    pub process_label: Option<String>,
    /// AppArmor profile.
    #[arg(long)]
    pub apparmor: Option<String>,
    /// Forbid it to gain privileges.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability.
    #[arg(long, short = 'c')]
    pub cap: Vec<String>,
    /// Only 0 works: descriptors end at the virtual machine's wall.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Refused: processes run in the container's own cgroup.
    #[arg(long)]
    pub cgroup: Vec<String>,
    /// Refused: a paused container runs nothing.
    #[arg(long)]
    pub ignore_paused: bool,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// `table` or `json`.
    #[arg(long, short = 'f', value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Names only.
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// `table` or `json`.
    #[arg(long, short = 'f', value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Taken for compatibility: options of ps(1), whose columns a guest's processes do not have.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// File with a runtime-spec resources object; `-`: stdin. The other options do not count then.
    #[arg(long, short = 'r')]
    pub resources: Option<PathBuf>,
    /// Weight for block devices, 10 to 1000.
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// CPU period in microseconds.
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU time per period in microseconds.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Relative weight for CPU time.
    #[arg(long, visible_alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    /// CPUs to use.
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit in bytes; -1: none.
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Soft memory limit in bytes.
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Limit of memory and swap in bytes; -1: none.
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Most processes; -1: no limit.
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Seconds between two prints.
    #[arg(long, default_value = "5s", value_parser = parse_interval)]
    pub interval: std::time::Duration,
    /// Print once and end.
    #[arg(long)]
    pub stats: bool,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        Ok(_) => Err("must be longer than nothing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Folder to write config.json to; the current one by default.
    #[arg(long, short = 'b')]
    pub bundle: Option<PathBuf>,
    /// Refused: the runtime runs as root.
    #[arg(long)]
    pub rootless: bool,
}
