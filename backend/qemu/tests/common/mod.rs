//! What the tests of this backend start machines from.

use std::path::Path;

use backend_api::conformance::{Fixture, guest};
use backend_api::{Accelerator, Privileges};
use backend_qemu::{QemuBackend, QemuConfig};

/// A user that no other software has.
pub const VMM_USER: Privileges = Privileges::Drop {
    uid: 64_123,
    gid: 64_123,
};

/// Names the accelerator of the machines: `kvm` where it works, emulation otherwise.
const ACCELERATOR: &str = "COFFERDAM_TEST_ACCELERATOR";

/// The backend with the suite's guest; it emulates unless the environment says otherwise.
pub fn fixture() -> Result<Fixture, String> {
    let accelerator = match std::env::var(ACCELERATOR) {
        Ok(name) if name == "kvm" => Accelerator::Kvm,
        Ok(name) => panic!("{ACCELERATOR} is {name}: only kvm is known"),
        Err(_) => Accelerator::Emulation,
    };
    let backend = QemuBackend::new(QemuConfig {
        binary: None,
        accelerator,
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
