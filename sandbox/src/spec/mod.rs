//! From an OCI bundle to what the guest is asked for: read, refuse, rewrite, size.

mod apparmor;
mod check;
mod load;
mod network;
mod rewrite;
mod size;
#[cfg(test)]
mod tests;

pub(crate) use apparmor::translate as translate_apparmor;
pub use check::{SpecError, check, check_process};
pub use load::{LoadError, load};
pub use network::{NetworkOf, network, rates};
pub use rewrite::{GuestSpec, Rootfs, rewrite};
pub use size::{Size, size};
