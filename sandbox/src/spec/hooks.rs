//! Refusing hooks that cannot run where the runtime-spec wants them.

use oci_spec::runtime::{Hook, Hooks};

use super::check::{SpecError, invalid, unsupported};

/// Looks at every list, also those whose turn comes late: a wrong one there would be found when the container has run.
pub(super) fn check(hooks: &Hooks) -> Result<(), SpecError> {
    let prestart = hooks.prestart();
    for (stage, list) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (number, hook) in list.iter().flatten().enumerate() {
            check_one(&format!("hooks.{stage}[{number}]"), hook)?;
        }
    }
    if hooks
        .create_container()
        .as_ref()
        .is_some_and(|hooks| !hooks.is_empty())
    {
        return Err(unsupported(
            "hooks.createContainer",
            "the container's namespaces are inside the virtual machine, where the host's program is not; use createRuntime or startContainer",
        ));
    }
    Ok(())
}

fn check_one(name: &str, hook: &Hook) -> Result<(), SpecError> {
    if !hook.path().is_absolute() {
        return Err(invalid(format!(
            "{name}.path {:?} must be an absolute path",
            hook.path()
        )));
    }
    match hook.timeout() {
        Some(seconds) if seconds <= 0 => Err(invalid(format!(
            "{name}.timeout {seconds} must be greater than zero"
        ))),
        _ => Ok(()),
    }
}
