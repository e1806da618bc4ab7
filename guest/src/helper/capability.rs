//! Inheritable capabilities.

use libcontainer::capabilities::CapabilityExt;
use oci_spec::runtime::Capabilities;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Makes these the calling thread's inheritable ones, while it may. libcontainer sets them after the permitted ones,
/// when capset(2) takes only what is permitted or inheritable already.
pub(super) fn inherit(wanted: &Capabilities) -> Result<(), Errno> {
    if wanted.is_empty() {
        return Ok(());
    }
    let bits = wanted.iter().fold(0, |bits, capability| {
        bits | 1_u64 << capability.to_cap().index()
    });
    let mut sets = capabilities(None)?;
    sets.inheritable = CapabilitySet::from_bits_retain(bits);
    set_capabilities(None, sets)
}
