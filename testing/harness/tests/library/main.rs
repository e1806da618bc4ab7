//! The `sandbox` library as any Rust program uses it: several containers in one virtual machine.

mod example;
mod groups;
mod machine;
mod pods;
