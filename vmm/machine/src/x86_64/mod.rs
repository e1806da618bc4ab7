//! What is specific to this processor.

pub mod cpu;
pub mod ioapic;
pub mod layout;
pub mod mptable;
pub mod params;
