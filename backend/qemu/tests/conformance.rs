//! QEMU passes the backend suite. Skipped, with the reason printed, where there is no guest kernel, QEMU or busybox.

mod common;

backend_api::conformance_tests!(common::fixture);
