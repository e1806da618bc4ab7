//! eBPF: instructions, and the calls that bring a program into the kernel.

mod assembly;
mod calls;

pub use assembly::{Assembly, Instruction, Jump};
pub use calls::{attach, insert, link, load, socket_map};
