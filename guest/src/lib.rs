//! Everything that runs inside the guest: init, services, containers.
