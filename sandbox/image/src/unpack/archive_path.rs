//! Paths as an archive writes them, made harmless.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{BadEntry, Limits};

/// Longest component that Linux file systems take.
const COMPONENT: usize = 255;

/// A relative path without `.`, `..` and empty components. May be empty: the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArchivePath {
    components: Vec<Vec<u8>>,
}

impl ArchivePath {
    /// A leading `/` is dropped, as docker does; `..` is refused.
    pub(super) fn parse(raw: &[u8], limits: &Limits) -> Result<Self, BadEntry> {
        if raw.len() > limits.path_bytes {
            return Err(BadEntry::BadPath("it is too long"));
        }
        let mut components = Vec::new();
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(BadEntry::Escapes),
                _ if component.contains(&0) => return Err(BadEntry::BadPath("it has a NUL byte")),
                _ if component.len() > COMPONENT => {
                    return Err(BadEntry::BadPath("a component is too long"));
                }
                _ => components.push(component.to_vec()),
            }
        }
        if components.len() > limits.path_depth {
            return Err(BadEntry::BadPath("it is too deep"));
        }
        Ok(Self { components })
    }

    pub(super) fn components(&self) -> &[Vec<u8>] {
        &self.components
    }

    /// Parent components and the last one; `None` for the root.
    pub(super) fn split_last(&self) -> Option<(&[Vec<u8>], &OsStr)> {
        let (name, parents) = self.components.split_last()?;
        Some((parents, OsStr::from_bytes(name)))
    }
}

/// Joins components again.
pub(super) fn join(components: &[Vec<u8>]) -> PathBuf {
    components
        .iter()
        .map(|component| Path::new(OsStr::from_bytes(component)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_become_relative() {
        let parse = |text: &str| {
            ArchivePath::parse(text.as_bytes(), &Limits::default())
                .map(|path| join(path.components()))
        };
        assert_eq!(parse("/etc//./passwd/").unwrap(), Path::new("etc/passwd"));
        assert_eq!(parse("./").unwrap(), Path::new(""));
        assert_eq!(parse("...").unwrap(), Path::new("..."));
        for bad in [
            "../x",
            "a/../b",
            "a/..",
            "..",
            "/../x",
            "a\0b",
            &"a".repeat(256),
            &"a/".repeat(300),
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_root(raw in "[./a]{0,40}") {
            if let Ok(path) = ArchivePath::parse(raw.as_bytes(), &Limits::default()) {
                let joined = join(path.components());
                prop_assert!(joined.is_relative());
                prop_assert!(joined.components().all(|component| matches!(component, std::path::Component::Normal(_))));
            }
        }
    }
}
