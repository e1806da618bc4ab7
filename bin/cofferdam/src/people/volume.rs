//! `-v SOURCE:TARGET[:ro]`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A folder or file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Absolute, on the host.
    pub source: PathBuf,
    /// Absolute, in the container.
    pub target: PathBuf,
    /// Not to be written to.
    pub readonly: bool,
}

impl Volume {
    /// Reads what the user gave; relative sources are below `here`.
    pub fn parse(text: &str, here: &Path) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => bail!("volume {text:?} is not SOURCE:TARGET or SOURCE:TARGET:ro"),
        };
        if source.is_empty() {
            bail!("volume {text:?} has no source");
        }
        if !source.contains('/') && !source.starts_with('.') {
            bail!(
                "unsupported: volume {text:?}: there are no named volumes; a folder here is written ./{source}"
            );
        }
        let target_path = Path::new(target);
        let is_plain = target_path.is_absolute()
            && target_path != Path::new("/")
            && !target_path
                .components()
                .any(|part| part == Component::ParentDir);
        if !is_plain {
            bail!("volume {text:?}: target {target:?} is not an absolute path below /");
        }
        let mut readonly = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            readonly = match option {
                "ro" => true,
                "rw" => false,
                _ => bail!("unsupported: volume {text:?}: option {option:?} (ro and rw are known)"),
            };
        }
        Ok(Self {
            source: here.join(source),
            target: target_path.to_owned(),
            readonly,
        })
    }

    /// Makes the source folder when nothing is there, as docker does.
    pub fn prepare(&self) -> Result<()> {
        if self.source.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.source)
            .with_context(|| format!("cannot make volume folder {}", self.source.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_folders_or_files_on_absolute_targets() {
        let here = Path::new("/home/u");
        let volume = |source: &str, target: &str, readonly| Volume {
            source: source.into(),
            target: target.into(),
            readonly,
        };
        for (text, wanted) in [
            ("/a:/b", volume("/a", "/b", false)),
            ("/a:/b:ro", volume("/a", "/b", true)),
            ("/a:/b:rw", volume("/a", "/b", false)),
            ("./x/y:/b/c", volume("/home/u/./x/y", "/b/c", false)),
            ("..:/b", volume("/home/u/..", "/b", false)),
        ] {
            assert_eq!(Volume::parse(text, here).unwrap(), wanted, "{text}");
        }
        for text in [
            "",
            "/a",
            "data:/b",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/x/../..",
            "/a:/b:z",
            "/a:/b:ro:x",
        ] {
            assert!(Volume::parse(text, here).is_err(), "{text}");
        }
    }
}
