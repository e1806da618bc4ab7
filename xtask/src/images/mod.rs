//! Container images for the tests, made on this machine: no registry is needed.
//!
//! | image     | forms in `target/images`                                                   |
//! |-----------|----------------------------------------------------------------------------|
//! | `busybox` | `busybox.rootfs.tar`, `busybox.docker.tar`, `busybox.oci` (layout directory) |
//! | `debian`  | `debian.docker.tar`                                                        |
//!
//! They are symbolic links into the cache; the same inputs give the same bytes.

pub mod elf;

mod archive;
mod busybox;
mod debian;
mod layer;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::places::Places;
use crate::store::Store;

/// Which images to build.
#[derive(Args)]
pub struct Options {
    /// The images [default: all of them].
    #[arg(value_enum)]
    images: Vec<Image>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Image {
    /// Every applet of the static busybox, and a few users.
    Busybox,
    /// A minimal Debian, made by debootstrap (needs root and the Debian archive).
    Debian,
}

/// Builds what the cache does not hold, and links it into `target/images`.
pub fn install(places: &Places, options: &Options) -> Result<()> {
    let images = if options.images.is_empty() {
        Image::value_variants()
    } else {
        &options.images
    };
    let links = places.target.join("images");
    fs::create_dir_all(&links).with_context(|| format!("create {}", links.display()))?;
    let store = Store::open(&places.cache, "images")?;
    for image in images {
        let entry = match image {
            Image::Busybox => busybox::find_or_build(&store)?,
            Image::Debian => debian::find_or_build(&store)?,
        };
        for file in fs::read_dir(&entry).with_context(|| format!("read {}", entry.display()))? {
            let file = file.with_context(|| format!("read {}", entry.display()))?;
            let link = links.join(file.file_name());
            point(&link, &file.path())?;
            println!("{}", link.display());
        }
    }
    Ok(())
}

/// Makes or renews a symbolic link, without a moment in which there is none.
fn point(link: &Path, target: &PathBuf) -> Result<()> {
    if fs::read_link(link).is_ok_and(|present| present == *target) {
        return Ok(());
    }
    let draft = link.with_extension("draft");
    let _ = fs::remove_file(&draft);
    symlink(target, &draft)
        .and_then(|()| fs::rename(&draft, link))
        .with_context(|| format!("link {}", link.display()))
}
