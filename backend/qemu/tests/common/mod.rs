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

/// The emulating backend with the suite's guest.
pub fn fixture() -> Result<Fixture, String> {
    let backend = QemuBackend::new(QemuConfig {
        binary: None,
        accelerator: Accelerator::Emulation,
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
