//! What the tests of this backend start machines from.

use std::path::{Path, PathBuf};

use backend_api::Privileges;
use backend_api::conformance::{Fixture, guest};
use backend_kvm::{KvmBackend, KvmConfig};

/// A user that no other software has.
pub const VMM_USER: Privileges = Privileges::Drop {
    uid: 64_124,
    gid: 64_124,
};

/// "kvm" where KVM is known to run guests: `cargo xtask kvm-tests` sets it.
const ACCELERATOR: &str = "COFFERDAM_TEST_ACCELERATOR";

/// The VMM as `cargo xtask build` laid it out, or the one that the environment names.
pub fn program() -> PathBuf {
    let built = "../../target/cofferdam/libexec/cofferdam/cofferdam-vmm";
    std::env::var_os("COFFERDAM_VMM").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(built),
        PathBuf::from,
    )
}

/// The backend with the suite's guest.
pub fn fixture() -> Result<Fixture, String> {
    if std::env::var_os(ACCELERATOR).is_none_or(|name| name != "kvm") {
        return Err(format!(
            "{ACCELERATOR} is not \"kvm\": run `cargo xtask kvm-tests`"
        ));
    }
    Ok(assemble().unwrap_or_else(|why| panic!("{ACCELERATOR} is \"kvm\", and {why}")))
}

fn assemble() -> Result<Fixture, String> {
    let backend = KvmBackend::new(KvmConfig {
        program: program(),
        vhost_net: true,
    });
    backend.program().map_err(|error| error.to_string())?;
    let root = rustix::process::geteuid().is_root();
    Ok(Fixture {
        backend: Box::new(backend),
        kernel: guest::kernel()?,
        initrd: guest::image(Path::new(env!("CARGO_TARGET_TMPDIR")), "conformance", None)?,
        privileges: if root { VMM_USER } else { Privileges::Inherit },
    })
}
