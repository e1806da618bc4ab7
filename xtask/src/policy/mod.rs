//! What the workspace promises about itself: which way dependencies point, and whose code it uses.

pub mod dependencies;
pub mod layers;
mod graph;
mod licence;
