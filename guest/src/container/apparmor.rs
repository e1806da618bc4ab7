//! AppArmor inside the guest: the one profile that the guest's image brings is loaded when a process is to have it.

use std::fs;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use cofferdam_protocol::APPARMOR_PROFILE;
use oci_spec::runtime::Process;

use super::ContainerError;

/// The compiled profile, as `cargo xtask build` puts it into the guest's image.
const POLICY: &str = "/etc/cofferdam-default.apparmor";

/// Takes a compiled profile, new or known (Linux `security/apparmor/apparmorfs.c`).
const LOAD: &str = "/sys/kernel/security/apparmor/.replace";

static LOADED: Mutex<bool> = Mutex::new(false);

/// Has the kernel know the profile that a process asks for.
pub(super) fn prepare(process: &mut Process) -> Result<(), ContainerError> {
    match process.apparmor_profile().as_deref() {
        None => Ok(()),
        Some("") => {
            process.set_apparmor_profile(None);
            Ok(())
        }
        Some(APPARMOR_PROFILE) => load(),
        Some(_) => Err(ContainerError::invalid(
            "process.apparmorProfile",
            "is not one that the guest has",
        )),
    }
}

fn load() -> Result<(), ContainerError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if *loaded {
        return Ok(());
    }
    let policy = fs::read(POLICY).map_err(ContainerError::file("read", POLICY))?;
    match fs::write(LOAD, policy) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ContainerError::invalid(
            "process.apparmorProfile",
            "needs AppArmor, which the guest's kernel has not; use `unconfined`",
        )),
        done => {
            done.map_err(ContainerError::file("write", LOAD))?;
            *loaded = true;
            Ok(())
        }
    }
}
