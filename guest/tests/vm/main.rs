//! The guest program in a real virtual machine.
//!
//! Needs QEMU, a guest kernel, the static guest program and a static busybox; a test that lacks
//! one says so and passes. `COFFERDAM_TEST_KERNEL` and `COFFERDAM_TEST_AGENT` name other files
//! than those of the build.

mod cases;
mod cpio;
mod machine;
mod session;
