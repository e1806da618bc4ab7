//! The spec's hooks that run on the host.

use std::path::Path;

use oci_spec::runtime::{Hook, Spec};
use sandbox::SandboxError;

/// What hooks read on stdin: the state of the container (runtime-spec 1.2, "State").
pub fn state(id: &str, status: &str, pid: u32, bundle: &Path, spec: &Spec) -> Vec<u8> {
    serde_json::json!({
        "ociVersion": "1.2.0",
        "id": id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    })
    .to_string()
    .into_bytes()
}

/// Runs them. They block; the shim's one thread must not.
pub async fn run(
    stage: &'static str,
    hooks: Option<&Vec<Hook>>,
    state: Vec<u8>,
) -> Result<(), SandboxError> {
    let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()).cloned() else {
        return Ok(());
    };
    let ran = tokio::task::spawn_blocking(move || sandbox::run_hooks(stage, &hooks, &state));
    match ran.await {
        Ok(result) => Ok(result?),
        Err(error) => Err(SandboxError::system(format!("run {stage} hooks"))(
            error.into(),
        )),
    }
}

/// As [`run`] for the stages whose failure is warned of only (runtime-spec 1.2, poststart and poststop).
pub async fn run_after(stage: &'static str, hooks: Option<&Vec<Hook>>, state: Vec<u8>) {
    if let Err(error) = run(stage, hooks, state).await {
        tracing::warn!("{stage} hook failed: {}", sandbox::chain(&error));
    }
}
