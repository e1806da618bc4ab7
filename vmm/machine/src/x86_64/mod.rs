//! What is specific to this processor.

pub mod cpu;
pub mod layout;
pub mod mptable;
pub mod params;
