//! Container and exec names.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest name taken: a file name on every file system we keep state on.
const MAX_LENGTH: usize = 255;

/// Why a name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Nothing was given.
    #[error("container id cannot be empty")]
    Empty,
    /// More than 255 bytes.
    #[error("invalid container id: {length} bytes, at most {MAX_LENGTH} are taken")]
    TooLong {
        /// Bytes that were given.
        length: usize,
    },
    /// A character that runc refuses too, or a name that means a folder.
    #[error("invalid container id format: {0:?} (letters, digits and `_ + - .` are taken)")]
    Format(String),
}

/// The name of a container: `[A-Za-z0-9_+.-]+` and neither `.` nor `..`, as runc takes it, so that
/// it is always one plain component of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`IdError`] when the name could not be a container's.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(IdError::TooLong { length: text.len() });
        }
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
        if !plain || text == "." || text == ".." {
            return Err(IdError::Format(text));
        }
        Ok(Self(text))
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder of that name below `parent`.
    #[must_use]
    pub fn below(&self, parent: &Path) -> PathBuf {
        parent.join(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_what_engines_use() {
        for id in ["a", "redis.1", "pod_x-1", "A+b", &"f".repeat(64)] {
            assert_eq!(ContainerId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_what_could_leave_the_state_folder() {
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "a b",
            "a\0",
            "ü",
            &"x".repeat(256),
        ] {
            assert!(ContainerId::new(id).is_err(), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_component(text in ".{0,40}") {
            if let Ok(id) = ContainerId::new(text) {
                let path = id.below(Path::new("/run/x"));
                prop_assert_eq!(path.parent(), Some(Path::new("/run/x")));
                prop_assert_eq!(path.components().count(), 4);
            }
        }
    }
}
