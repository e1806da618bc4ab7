//! The sandbox behind the tasks of a shim.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use containerd_shim_protos::ttrpc;
use oci_spec::runtime::Spec;
use sandbox::cgroup::{CgroupError, Groups};
use sandbox::config::Config;
use sandbox::oom_score;
use sandbox::spec::{self, Size};
use sandbox::state::ProcessIdentity;
use sandbox::template;
use sandbox::{HostGroups, Sandbox, SandboxError, SandboxOptions};

use crate::record::Record;
use crate::status;

/// With this word our program makes a template.
pub const TEMPLATE_MAKER: &str = "template-maker";

/// A running virtual machine, known to the bundle of the container it was made for.
#[derive(Debug)]
pub struct Machine {
    /// Itself.
    pub sandbox: Sandbox,
    /// The VMM: what containerd is told as the pid of every process in it. Whoever kills that pid ends them.
    pub pid: u32,
    /// Removed when the processes have ended.
    groups: Mutex<Option<Groups>>,
}

/// A machine that is wanted.
#[derive(Debug)]
pub struct Order<'a> {
    /// Where its record is.
    pub bundle: &'a Path,
    /// Whose control groups, limit and place among the kernel's victims are the machine's.
    pub spec: &'a Spec,
    /// The path of its network namespace, if it has one.
    pub network: Option<PathBuf>,
}

impl Machine {
    /// Boots it and writes down what has to be cleared up when this process is killed.
    pub async fn boot(
        config: &Config,
        mut options: SandboxOptions,
        order: Order<'_>,
    ) -> ttrpc::Result<Self> {
        let failed = |error: SandboxError| status::failed("create", &error);
        let unaccounted = |error: CgroupError| failed(error.into());
        let Order {
            bundle,
            spec,
            network,
        } = order;
        let size = options.size;
        let name = options.name.clone();
        let record = Record::read(bundle);
        let mut cgroups = sandbox::cgroup::folders(spec).map_err(unaccounted)?;
        options.groups = HostGroups::Callers;
        if cgroups.is_empty() {
            cgroups = sandbox::cgroup::own_folders(&options.name).map_err(unaccounted)?;
            options.groups = HostGroups::At(cgroups.clone());
        }
        let record = Record { cgroups, ..record };
        // Before they are made: nobody else would know of them.
        write(&record, bundle)?;
        let groups = Groups::of(spec).map_err(unaccounted)?;
        let visit = groups.visit().map_err(unaccounted)?;
        let sandbox = Sandbox::boot(config, options).await;
        drop(visit);
        let sandbox = sandbox.map_err(failed)?;
        if spec::memory_limit(spec).is_some()
            && let Err(error) = sandbox.limit_memory(&record.cgroups).await
        {
            sandbox.kill().await;
            return Err(failed(error));
        }
        let pid = sandbox.processes().first().copied().unwrap_or_default();
        let record = Record {
            helpers: sandbox
                .processes()
                .iter()
                .filter_map(|pid| ProcessIdentity::of(pid.cast_signed()))
                .collect(),
            pid,
            network,
            // As `start` has written it: a container that joined a group does not end the others' shim.
            ..record
        };
        if let Err(error) = write(&record, bundle) {
            sandbox.kill().await;
            return Err(error);
        }
        let machine = Self {
            sandbox,
            pid,
            groups: Mutex::new(Some(groups)),
        };
        oom_score::begin(spec, machine.sandbox.processes().iter().copied());
        if machine.sandbox.wants_template() {
            order_template((config, size), (&name, bundle));
        }
        Ok(machine)
    }

    /// Tells it of a container that has joined.
    pub fn expose(&self, spec: &Spec) {
        oom_score::join(spec, self.sandbox.processes().iter().copied());
    }

    /// Ends it at once; nothing of it is left then.
    pub async fn end(&self) {
        self.sandbox.kill().await;
        let groups = self
            .groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if groups.is_some() {
            // The kernel may take a moment to let go of what has ended.
            let _removed = tokio::task::spawn_blocking(move || drop(groups)).await;
        }
    }
}

/// Has the template made that was missed, for the next one. The maker logs as this container's shim.
fn order_template((config, size): (&Config, Size), (id, bundle): (&str, &Path)) {
    let order = template::Order {
        config: config.clone(),
        memory: size.memory,
        vcpus: size.vcpus,
        // This process only visits a container's groups.
        accounted: false,
    };
    let words = [
        "-id".as_ref(),
        OsStr::new(id),
        "-bundle".as_ref(),
        bundle.as_os_str(),
        TEMPLATE_MAKER.as_ref(),
    ];
    match template::start("containerd-shim", words, &order) {
        // Reaped, if we are still there then.
        Ok(mut maker) => drop(tokio::task::spawn_blocking(move || maker.wait())),
        Err(error) => tracing::warn!(%error, "cannot have a template made"),
    }
}

fn write(record: &Record, bundle: &Path) -> ttrpc::Result<()> {
    record.write(bundle).map_err(|source| {
        let action = format!("write into {}", bundle.display());
        status::of(&SandboxError::System { action, source })
    })
}
