//! `delete`: clears up behind a shim that is gone, from another process and with nothing in memory.

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use sandbox::network::Namespace;

use crate::flags::Flags;
use crate::record::Record;
use crate::{address, rootfs, start};

/// What containerd reports of a container whose shim was killed: as if by SIGKILL.
const KILLED: u32 = 137;
/// How long a killed process may take to be gone.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs the command; tells containerd how the container has ended.
pub fn run(flags: &Flags) -> Result<()> {
    let bundle = start::bundle(flags)?;
    let record = Record::read(&bundle);
    // The helpers end with the shim: this waits until they are gone.
    for process in record.shim.iter().chain(&record.helpers) {
        if !process.kill_and_wait(DEADLINE) {
            bail!("cannot end process {} of {}", process.pid, flags.id);
        }
    }
    // A shim that was killed has left filters on the interfaces there. A namespace that is gone has none.
    if let (Some(path), Some(shim)) = (&record.network, record.shim)
        && let Ok(namespace) = Namespace::open(path)
    {
        sandbox::network::sweep(&namespace, shim.pid.cast_unsigned())
            .context("cannot clear up in the network namespace")?;
    }
    rootfs::unmount_all(&bundle)?;
    sandbox::cgroup::remove(&record.cgroups).context("cannot remove the control groups")?;
    if let Some(socket) = address::read(&bundle).filter(|socket| !address::answers(socket)) {
        let _gone = fs::remove_file(socket);
    }
    let mut response = DeleteResponse::new();
    response.pid = record.pid;
    response.exit_status = KILLED;
    response.exited_at = MessageField::some(SystemTime::now().into());
    let bytes = response
        .write_to_bytes()
        .context("cannot encode the answer")?;
    std::io::stdout()
        .write_all(&bytes)
        .context("cannot answer containerd")
}
