//! A task's statistics, in the form that containerd expects on this host.

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::{Code, Result};
use serde_json::Value;

use crate::events::any;
use crate::status::{self, refuse};
use crate::task::container::Body;
use crate::task::{Task, metrics, metrics_v2};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

impl Task {
    /// What it uses, as the guest tells.
    pub async fn statistics(&self) -> Result<Any> {
        let stats = match &self.body {
            Body::Container(container) => container
                .stats()
                .await
                .map_err(|error| status::of(&error))?,
            // It has no process that could use anything.
            Body::Pause(_) => Value::Null,
        };
        let any = if unified() {
            let message = metrics_v2::metrics(&stats);
            message
                .write_to_bytes()
                .map(any::<containerd_shim_protos::cgroups_v2::metrics::Metrics>)
        } else {
            let message = metrics::metrics(&stats);
            message
                .write_to_bytes()
                .map(any::<containerd_shim_protos::cgroups::metrics::Metrics>)
        };
        any.map_err(|error| refuse(Code::INTERNAL, format!("statistics: {error}")))
    }
}

/// Whether the host has cgroup v2 alone: containerd expects its statistics in that form then.
fn unified() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|found| found.f_type == CGROUP2)
}
