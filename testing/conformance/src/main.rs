//! OCI runtime conformance cases that know only a command name.

fn main() {}
