//! Container images: from a layout directory, an archive or a registry to unpacked layers.
//!
//! An [`ImageStore`] is a directory that several processes use at the same time. Resolving an
//! [`ImageSource`] gives an [`Image`]: its run configuration and one directory per layer, ready
//! to be the lower directories of an overlay mount.
//!
//! Images come from strangers, so everything about them is checked before it is believed:
//! every digest is computed again, every size and count has a bound ([`Limits`]), and unpacking
//! cannot write outside the layer's own directory.
//!
//! ```no_run
//! use sandbox_image::{ImageSource, ImageStore, PullPolicy, Silent};
//!
//! # fn main() -> Result<(), sandbox_image::ImageError> {
//! let store = ImageStore::open("/var/lib/cofferdam/images".as_ref())?;
//! let source = ImageSource::parse("busybox:latest")?;
//! let image = store.resolve(&source, PullPolicy::Missing, &Silent)?;
//! store.lease(&image, "container-1")?;
//! println!("{:?} over {} layers", image.config.command(), image.layers.len());
//! # Ok(())
//! # }
//! ```

mod digest;
mod error;
mod image;
mod import;
mod progress;
mod reference;
mod settings;
mod source;
mod store;
mod unpack;

pub use digest::Digest;
pub use error::{BadEntry, ImageError};
pub use image::{Image, ImageConfig, ImageSummary, Removed};
pub use progress::{Event, Progress, Silent};
pub use reference::Reference;
pub use settings::{Limits, PullPolicy, Settings};
pub use source::ImageSource;
pub use store::ImageStore;
