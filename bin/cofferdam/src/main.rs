//! The OCI runtime command and the command people type.

fn main() {}
