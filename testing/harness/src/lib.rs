//! What the end-to-end tests share: a built prefix, an installation of one's own for each test, and bounded commands.
//!
//! ```no_run
//! let Some(cofferdam) = harness::Cofferdam::new() else { return };
//! let done = cofferdam.run(["run", "--rm", cofferdam.busybox(), "echo", "hello"]);
//! assert_eq!((done.code, done.stdout.as_str()), (0, "hello\n"), "{done:?}");
//! cofferdam.assert_nothing_left();
//! ```

mod cofferdam;
mod containerd;
pub mod enclosure;
mod groups;
mod namespaces;
mod outcome;
mod patience;
mod prefix;
mod processes;
mod registry;
mod slot;
mod terminal;

pub use cofferdam::Cofferdam;
pub use containerd::{CNI_PLUGINS, Containerd, PAUSE, cri_settings};
pub use groups::{GROUPS, remove_groups};
pub use namespaces::{Frames, Namespaces, inside};
pub use outcome::{Outcome, Running, finish, start};
pub use patience::{assert_soon, patient};
pub use prefix::{Prefix, engine, image};
pub use processes::{Actors, VMM, descendant, is_alive, members, wait_until};
pub use registry::Registry;
pub use terminal::Terminal;
