//! The sandbox behind the tasks of a shim.

use std::path::{Path, PathBuf};

use containerd_shim_protos::ttrpc;
use sandbox::config::Config;
use sandbox::state::ProcessIdentity;
use sandbox::{Sandbox, SandboxError, SandboxOptions};

use crate::record::Record;
use crate::status;

/// A running virtual machine, known to the bundle of the container it was made for.
#[derive(Debug)]
pub struct Machine {
    /// Itself.
    pub sandbox: Sandbox,
    /// The VMM: what containerd is told as the pid of every process in it. Whoever kills that pid ends them.
    pub pid: u32,
}

impl Machine {
    /// Boots it and writes down what has to be cleared up when this process is killed.
    pub async fn boot(
        config: &Config,
        options: SandboxOptions,
        bundle: &Path,
        network: Option<PathBuf>,
    ) -> ttrpc::Result<Self> {
        let sandbox = Sandbox::boot(config, options)
            .await
            .map_err(|error| status::failed("create", &error))?;
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
            ..Record::read(bundle)
        };
        if let Err(source) = record.write(bundle) {
            sandbox.kill().await;
            let action = format!("write into {}", bundle.display());
            return Err(status::of(&SandboxError::System { action, source }));
        }
        Ok(Self { sandbox, pid })
    }
}
