//! Configuration fragments, and the proof that the kernel took every line of them.
//!
//! Kconfig drops in silence what depends on something that is off, and turns on what something else
//! selects. Both would be found much later, by a container that fails; so each request is checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::digest;

const FRAGMENT: &str = "config";

/// All fragments of a folder, in the order of their names.
pub struct Fragments {
    text: String,
    requests: BTreeMap<String, Request>,
}

struct Request {
    /// The value asked for; none: the option must be off.
    value: Option<String>,
    /// File and line that ask for it.
    place: String,
}

impl Fragments {
    /// Reads a folder's `*.config` files. An option may be named only once.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in
            fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?
        {
            let path = entry
                .with_context(|| format!("read {}", directory.display()))?
                .path();
            if path.extension().is_some_and(|end| end == FRAGMENT) {
                files.push(path);
            }
        }
        files.sort();
        let mut fragments = Self {
            text: String::new(),
            requests: BTreeMap::new(),
        };
        for file in files {
            let text =
                fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            fragments.add(&name, &text)?;
        }
        if fragments.requests.is_empty() {
            bail!("no *.{FRAGMENT} files in {}", directory.display());
        }
        Ok(fragments)
    }

    fn add(&mut self, name: &str, text: &str) -> Result<()> {
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            let Some((option, value)) = parse(line) else {
                if !line.is_empty() && !line.starts_with('#') {
                    bail!("{place}: neither an option nor a comment: {line}");
                }
                continue;
            };
            let request = Request { value, place };
            if let Some(first) = self.requests.get(&option) {
                bail!(
                    "{}: {option} is already named at {}",
                    request.place,
                    first.place
                );
            }
            self.requests.insert(option, request);
        }
        self.text.push_str(text);
        Ok(())
    }

    /// The fragments one after the other, as kconfig takes them.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The digest of what is requested. Comments and order do not count.
    pub fn digest(&self) -> String {
        let mut requests = String::new();
        for (option, request) in &self.requests {
            requests.push_str(option);
            requests.push('=');
            requests.push_str(request.value.as_deref().unwrap_or("n"));
            requests.push('\n');
        }
        digest::of_bytes(requests.as_bytes())
    }

    /// Compares with the configuration that kconfig made; names everything that was not taken.
    pub fn verify(&self, configuration: &str) -> Result<()> {
        let taken: BTreeMap<String, Option<String>> =
            configuration.lines().filter_map(parse).collect();
        let mut lost = Vec::new();
        for (option, request) in &self.requests {
            let value = taken.get(option).and_then(Option::as_ref);
            if value != request.value.as_ref() {
                lost.push(format!(
                    "{}: {option} should be {}, is {}",
                    request.place,
                    request.value.as_deref().unwrap_or("off"),
                    value.map_or("off", String::as_str)
                ));
            }
        }
        if !lost.is_empty() {
            bail!(
                "the kernel did not take these options (a dependency is missing, or another option selects them):\n  {}",
                lost.join("\n  ")
            );
        }
        Ok(())
    }
}

/// An option and its value from one line of a configuration; none for comments and empty lines.
fn parse(line: &str) -> Option<(String, Option<String>)> {
    let is_option = |name: &str| {
        name.strip_prefix("CONFIG_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
    };
    if let Some(option) = line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"))
    {
        return is_option(option).then(|| (option.to_owned(), None));
    }
    let (option, value) = line.split_once('=')?;
    is_option(option).then(|| (option.to_owned(), Some(value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(text: &str) -> Result<Fragments> {
        let mut fragments = Fragments {
            text: String::new(),
            requests: BTreeMap::new(),
        };
        fragments.add("a.config", text)?;
        Ok(fragments)
    }

    #[test]
    fn lost_options_are_named_with_their_line() {
        let fragments = fragments(
            "# A group.\nCONFIG_A=y\nCONFIG_N=64\n# CONFIG_OFF is not set\nCONFIG_LOST=y\n# CONFIG_ON is not set\n",
        )
        .unwrap();
        let error = fragments
            .verify("CONFIG_A=y\nCONFIG_N=8\nCONFIG_ON=y\n# CONFIG_LOST is not set\n")
            .unwrap_err()
            .to_string();
        for expected in [
            "a.config:3: CONFIG_N should be 64, is 8",
            "a.config:5: CONFIG_LOST should be y, is off",
            "a.config:6: CONFIG_ON should be off, is y",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        assert!(!error.contains("CONFIG_OFF"), "{error}");
        fragments
            .verify("CONFIG_A=y\nCONFIG_N=64\nCONFIG_LOST=y\n")
            .unwrap();
    }

    #[test]
    fn naming_an_option_twice_or_mistyping_it_is_refused() {
        assert!(fragments("CONFIG_A=y\n# CONFIG_A is not set\n").is_err());
        assert!(fragments("CONFG_A=y\n").is_err());
        assert!(fragments("CONFIG_A y\n").is_err());
    }

    #[test]
    fn comments_do_not_change_the_digest() {
        let one = fragments("# Why.\nCONFIG_A=y\nCONFIG_B=n\n").unwrap();
        let two = fragments("CONFIG_B=n\nCONFIG_A=y\n").unwrap();
        let three = fragments("CONFIG_A=y\n").unwrap();
        assert_eq!(one.digest(), two.digest());
        assert_ne!(one.digest(), three.digest());
    }
}
