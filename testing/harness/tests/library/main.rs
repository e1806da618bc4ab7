//! The `sandbox` library as any Rust program uses it: several containers in one virtual machine.

mod example;
mod machine;
mod pods;
