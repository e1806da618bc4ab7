//! Where an image comes from.

use std::path::{Path, PathBuf};

use crate::{ImageError, Reference};

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A directory in OCI image layout.
    OciLayout {
        /// The directory, which holds an `oci-layout` file.
        path: PathBuf,
        /// Which image, when there are several.
        name: Option<String>,
    },
    /// A docker-archive or oci-archive tar, plain or compressed.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which image, when there are several.
        name: Option<String>,
    },
    /// A name or id in the store, else a name at a registry.
    Registry(Reference),
}

impl ImageSource {
    /// Reads what a user gives as IMAGE: an existing directory or file, also with `:NAME` behind
    /// it, else a reference. A text that begins with `/` or `.` is always a path.
    ///
    /// # Errors
    /// [`ImageError::NotAnImage`] for a path that is neither, [`ImageError::BadSource`] for text
    /// that is nothing at all.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if let Some(source) = Self::from_path(Path::new(text), None)? {
            return Ok(source);
        }
        if let Some((path, name)) = split_name(text)
            && let Some(source) = Self::from_path(Path::new(path), Some(name))?
        {
            return Ok(source);
        }
        if text.starts_with(['/', '.']) {
            return Err(ImageError::NotAnImage {
                path: text.into(),
                reason: "no such file or directory".to_owned(),
            });
        }
        // An image id as `images` prints it; the store is asked before any registry.
        let reference = text.strip_prefix("sha256:").unwrap_or(text);
        Reference::parse(reference).map(Self::Registry)
    }

    /// `None` when nothing is there.
    fn from_path(path: &Path, name: Option<&str>) -> Result<Option<Self>, ImageError> {
        let Ok(metadata) = path.metadata() else {
            return Ok(None);
        };
        let name = name.map(str::to_owned);
        let path = path.to_owned();
        if !metadata.is_dir() {
            return Ok(Some(Self::Archive { path, name }));
        }
        if path.join("oci-layout").is_file() {
            return Ok(Some(Self::OciLayout { path, name }));
        }
        // A directory that happens to be called as an image must not hide the image.
        let is_plainly_a_path =
            path.is_absolute() || path.starts_with(".") || path.starts_with("..");
        if is_plainly_a_path {
            return Err(ImageError::NotAnImage {
                path,
                reason: "the directory has no oci-layout file (a plain root file system is given with --rootfs)"
                    .to_owned(),
            });
        }
        Ok(None)
    }
}

/// Cuts `PATH:NAME`, where NAME may itself have a colon (`dir/image.tar:busybox:1.36`).
fn split_name(text: &str) -> Option<(&str, &str)> {
    text.match_indices(':')
        .map(|(at, _)| (&text[..at], &text[at + 1..]))
        .find(|(path, name)| !name.is_empty() && Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_registries() {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        let text = layout.to_str().unwrap();
        assert!(matches!(
            ImageSource::parse(text),
            Err(ImageError::NotAnImage { .. })
        ));
        std::fs::write(layout.join("oci-layout"), "{}").unwrap();
        assert_eq!(
            ImageSource::parse(&format!("{text}:a:b")).unwrap(),
            ImageSource::OciLayout {
                path: layout.clone(),
                name: Some("a:b".to_owned())
            }
        );
        let archive = dir.path().join("x.tar");
        std::fs::write(&archive, "").unwrap();
        assert_eq!(
            ImageSource::parse(archive.to_str().unwrap()).unwrap(),
            ImageSource::Archive {
                path: archive,
                name: None
            }
        );
        assert!(matches!(
            ImageSource::parse("./missing.tar"),
            Err(ImageError::NotAnImage { .. })
        ));
        assert!(matches!(
            ImageSource::parse("busybox:1"),
            Ok(ImageSource::Registry(_))
        ));
    }
}
