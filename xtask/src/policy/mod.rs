//! What the workspace promises about itself: which way dependencies point, and whose code it uses.

pub mod dependencies;
mod graph;
pub mod layers;
mod licence;
