//! Real container engines with Cofferdam as their OCI runtime.
//!
//! Every case runs with `runc` first: that proves the case. What it observes has to be the same then.

mod containerd;
mod pinned;
mod podman;
mod runtime;
