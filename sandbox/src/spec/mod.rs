//! From an OCI bundle to what the guest is asked for: read, refuse, rewrite, size.

mod apparmor;
mod capabilities;
mod check;
mod devices;
mod hooks;
mod load;
mod namespaces;
mod network;
mod pinned;
mod propagation;
mod resources;
mod rewrite;
mod shm;
mod size;
#[cfg(test)]
mod tests;

pub(crate) use apparmor::translate as translate_apparmor;
pub use check::{SpecError, check, check_process, check_with};
pub use load::{LoadError, load};
pub(crate) use namespaces::sandbox_named;
pub use namespaces::{Neighbours, Owner, is_of_pod, network_path, sandbox_of};
pub use network::{NetworkOf, network, rates};
pub use pinned::{Pinned, pinned};
pub use resources::check as check_resources;
pub use rewrite::{GuestSpec, Rootfs, rewrite, rewrite_with};
pub use size::{Demand, Size, memory_limit, size, size_for};
