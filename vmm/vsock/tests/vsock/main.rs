//! The device as a driver and host programs see it.

mod guest;
mod hybrid;
mod services;
