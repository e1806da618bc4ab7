//! Sandboxes: a virtual machine that holds containers, which hold processes.
