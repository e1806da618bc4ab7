//! What stands for a container's process on the host.

pub mod driver;
pub mod maker;
pub mod proxy;
pub mod spawn;
pub mod terminal;
pub mod victim;
