//! What is kept on disk about containers, so that any process can find them and clean up.

mod identity;
mod record;
mod store;

pub use identity::ProcessIdentity;
pub use record::{ExitStatus, Record, RunRecord, Status};
pub use store::{StateError, Store};
