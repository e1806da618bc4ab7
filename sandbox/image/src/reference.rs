//! Names of images at registries, with docker's defaults.

mod grammar;

use std::fmt;
use std::net::IpAddr;

use oci_client::Reference as OciReference;

use crate::ImageError;

/// A registry reference: `[registry/]repository[:tag][@digest]`.
///
/// Without a registry it means `docker.io`, there without a folder `library/`, and without a tag
/// and digest `:latest`, as docker reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    inner: OciReference,
    text: String,
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`ImageError::BadSource`] when the text is none.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = |reason: String| ImageError::BadSource {
            text: text.chars().take(300).collect(),
            reason,
        };
        let inner = match text.strip_prefix('[') {
            Some(rest) => parse_ipv6(rest).map_err(bad)?,
            None => grammar::parse(text).map_err(bad)?,
        };
        Ok(Self {
            inner,
            text: text.to_owned(),
        })
    }

    /// The full name, e.g. `docker.io/library/busybox:latest`.
    #[must_use]
    pub fn full(&self) -> String {
        self.inner.whole()
    }

    /// As the user wrote it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The registry, with its port when one was given.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.inner.registry()
    }

    /// The repository at the registry, e.g. `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.inner.repository()
    }

    /// The digest, when the reference has one.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.inner.digest()
    }

    /// True when the registry is on this machine, where plain HTTP is nobody's business.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let registry = self.registry();
        let host = match registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => registry.split(':').next().unwrap_or(registry),
        };
        host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Other full names that the text may mean when it is looked up locally: `podman save` and
    /// `podman build` put names without a registry under `localhost/`.
    pub(crate) fn local_aliases(&self) -> Vec<String> {
        let named =
            self.text.starts_with("docker.io/") || self.text.starts_with("index.docker.io/");
        if self.registry() != "docker.io" || named {
            return Vec::new();
        }
        Self::parse(&format!("localhost/{}", self.text))
            .map(|reference| vec![reference.full()])
            .unwrap_or_default()
    }

    pub(crate) fn oci(&self) -> &OciReference {
        &self.inner
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

/// docker's grammar of references has no IPv6 hosts, so the host is cut off before.
fn parse_ipv6(rest: &str) -> Result<OciReference, String> {
    let (address, rest) = rest.split_once(']').ok_or("`[` without `]`")?;
    let address: std::net::Ipv6Addr = address
        .parse()
        .map_err(|_| format!("{address:?} is not an IPv6 address"))?;
    let (port, name) = rest.split_once('/').ok_or("no repository")?;
    let port_is_valid = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.parse::<u16>().is_ok());
    if !port_is_valid {
        return Err(format!("{port:?} is not a port"));
    }
    let named = grammar::parse(&format!("host.invalid/{name}"))?;
    let registry = format!("[{address}]{port}");
    let repository = named.repository().to_owned();
    Ok(match (named.tag(), named.digest()) {
        (Some(tag), Some(digest)) => OciReference::with_tag_and_digest(
            registry,
            repository,
            tag.to_owned(),
            digest.to_owned(),
        ),
        (None, Some(digest)) => OciReference::with_digest(registry, repository, digest.to_owned()),
        (tag, None) => {
            OciReference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_are_dockers() {
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/app:1", "docker.io/me/app:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("quay.io/x/y:z", "quay.io/x/y:z"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().full(), full);
        }
        for bad in [
            "",
            "library/UPPER",
            "a b",
            "x:y:z",
            "[::1/x",
            "[::1]:99999/x",
            "../x",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn only_loopback_may_do_without_tls() {
        for local in [
            "localhost:5000/x",
            "127.0.0.1:5000/x",
            "127.9.9.9/x",
            "[::1]/x",
        ] {
            assert!(Reference::parse(local).unwrap().is_loopback(), "{local}");
        }
        for remote in [
            "busybox",
            "localhost.example.org/x",
            "10.0.0.1:5000/x",
            "[fe80::1]/x",
        ] {
            assert!(!Reference::parse(remote).unwrap().is_loopback(), "{remote}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,80}") {
            let _ = Reference::parse(&text);
        }
    }
}
