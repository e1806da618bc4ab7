//! Developer commands: kernel, guest image, layer check, documents.

fn main() {}
