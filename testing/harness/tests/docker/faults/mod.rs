//! Daemons and processes that die, with daemons of their own; and what cannot start, which has to be told soon and leave
//! nothing.

mod build;
mod daemons;
mod machines;

use crate::runtime::Release;

/// A test with daemons of its own.
pub type Fault = fn(&Release);

/// All of them.
pub const FAULTS: &[(&str, Fault)] = &[
    (
        "faults::docker_dies_and_adopts",
        daemons::docker_dies_and_adopts,
    ),
    ("faults::containerd_dies", daemons::containerd_dies),
    (
        "faults::processes_of_a_machine_die",
        machines::processes_of_a_machine_die,
    ),
    (
        "faults::what_cannot_start_is_told_soon",
        machines::what_cannot_start_is_told_soon,
    ),
    ("faults::images_are_built", build::images_are_built),
];

/// Those that releases of Docker go different ways in: the older one runs these.
pub const DIFFERENT: &[&str] = &["faults::docker_dies_and_adopts"];
