//! The confined file-sharing server of one sandbox.

fn main() {}
