//! The state document of a container (runtime-spec 1.2, "State"), with the fields runc adds.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::state::{Record, Status};

/// What `state` prints, `list` lists and hooks read.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// Version of the runtime-spec that this document follows.
    pub oci_version: &'static str,
    /// Its name.
    pub id: String,
    /// The proxy's pid on the host; 0 when it has stopped.
    pub pid: i32,
    /// Its state's name.
    pub status: &'static str,
    /// Absolute path.
    pub bundle: PathBuf,
    /// On the host.
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    /// Of the spec.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
    /// Who owns it: the runtime runs as root, so nobody else.
    pub owner: &'static str,
}

/// The document of a container that is in this state.
#[must_use]
pub fn oci_state(record: &Record, status: Status) -> OciState {
    OciState {
        oci_version: "1.2.0",
        id: record.id.to_string(),
        pid: match (status, record.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        },
        status: status.as_str(),
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: record.created.clone(),
        annotations: record.annotations.clone(),
        owner: "",
    }
}
