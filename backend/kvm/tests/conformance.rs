//! Our VMM passes the backend suite. Skipped, with the reason printed, where KVM can't run a guest, and where there is no
//! guest kernel, VMM program or busybox. `cargo xtask kvm-tests` runs it in the test host there.

mod common;

backend_api::conformance_tests!(common::fixture);
