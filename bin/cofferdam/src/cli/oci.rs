//! The words that runc takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::LogFormat;
use crate::people::quantity;

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
    /// State directory: the container is removed from there when it has ended.
    #[arg(long)]
    pub remove_from: Option<PathBuf>,
    /// Root file system on the host, which becomes the proxy's own.
    #[arg(long)]
    pub rootfs: Option<PathBuf>,
}

/// Options of the hooks that connect containers of `run`.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Connect or disconnect.
    #[arg(value_enum)]
    pub step: NetworkStep,
    /// `bridge` or `cni:NAME`.
    #[arg(long)]
    pub net: String,
    /// Ports of the host.
    #[arg(long)]
    pub publish: Vec<String>,
    /// The container's state directory.
    #[arg(long = "state")]
    pub root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkStep {
    /// Before the container is made.
    Up,
    /// When it has gone.
    Down,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bundle options")]
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
pub struct KillArgs {
    /// Signal every process of the container.
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Name of the container.
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Name (`TERM`, `SIGTERM`) or number; 0 asks whether it runs.
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
    #[arg(long, short = 'w', visible_alias = "workdir")]
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
    /// User and group, by number or by name as the container knows them.
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
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
    /// Refused: the guest has cgroup v2, which shares out no real time.
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Refused, as --cpu-rt-period.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Refused: cache classes belong to the host's kernel.
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// Refused, as --l3-cache-schema.
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
    /// Relative weight for CPU time.
    #[arg(long, visible_alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    /// CPUs to use.
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit, in bytes or with b, k, m or g; -1: none.
    #[arg(long, allow_hyphen_values = true, value_parser = quantity::limit)]
    pub memory: Option<i64>,
    /// Soft memory limit.
    #[arg(long, allow_hyphen_values = true, value_parser = quantity::limit)]
    pub memory_reservation: Option<i64>,
    /// Limit of memory and swap together; -1: none.
    #[arg(long, allow_hyphen_values = true, value_parser = quantity::limit)]
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
