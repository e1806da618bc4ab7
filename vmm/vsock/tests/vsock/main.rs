//! The device as a driver and host programs see it.

mod calls;
mod flow;
mod guest;
mod hostile;
mod hybrid;
mod model;
mod services;
