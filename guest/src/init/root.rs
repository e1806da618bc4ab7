//! The root file system.
//!
//! The kernel unpacks the initramfs into its first mount, which cannot be moved and so cannot be
//! the old root of a `pivot_root`, which every container needs. A bind mount of it, moved over
//! it, can.

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{mount_bind, mount_move};
use rustix::process::{chdir, chroot};

use super::InitError;

const STEP: &str = "/newroot";

/// Makes `/` a mount of its own.
pub(super) fn switch() -> Result<(), InitError> {
    inner().map_err(InitError::Root)
}

fn inner() -> Result<(), Errno> {
    match mkdirat(CWD, STEP, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    mount_bind("/", STEP)?;
    // What was mounted so far is below the old root.
    mount_move("/proc", "/newroot/proc")?;
    chdir(STEP)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")
}
