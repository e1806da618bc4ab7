//! What must hold in a guest.

mod basics;
mod confinement;
mod faults;
mod limits;
mod stdio;

/// Boots, or ends the test.
macro_rules! machine {
    () => {
        match crate::machine::Machine::boot().await {
            Some(machine) => machine,
            None => return,
        }
    };
}
use machine;
