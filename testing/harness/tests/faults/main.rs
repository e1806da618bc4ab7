//! Bad input, lost processes and full disks: each gives a clear error, and leaves nothing.
//!
//! What a runtime without a machine can get wrong, too, is in `testing/conformance`.

mod boot;
mod bundle;
mod cgroup;
mod commands;
mod creation;
mod initramfs;
mod lost;
mod machine_cgroup;
mod pods;
mod storage;
mod template;
mod volume;
