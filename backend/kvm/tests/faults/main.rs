//! What the driver is told when something goes wrong, what goes on, and that nothing is left. Skipped as the suite is; needs
//! root too.

#[path = "../common/mod.rs"]
mod common;

mod agent;
mod census;
mod devices;
mod disks;
mod driver;
mod group;
mod guest;
mod host;
mod kernel;
mod plug;
mod scene;
mod wire;
