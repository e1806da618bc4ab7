//! Which network a spec asks for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use sandbox_network::{Namespace, NetworkError, Rates};

use crate::config::Config;
use crate::spec::check::{SpecError, unsupported};

/// Annotations with this prefix are ours.
const PREFIX: &str = "io.cofferdam.";
/// Bits a second to the guest.
const RECEIVE: &str = "io.cofferdam.network.rx_rate";
/// Bits a second from the guest.
const SEND: &str = "io.cofferdam.network.tx_rate";

/// The network namespace that a spec asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkOf {
    /// A new one, into which hooks or the engine put interfaces.
    New,
    /// One that exists.
    Path(PathBuf),
}

/// The network namespace of a checked spec.
#[must_use]
pub fn network(spec: &Spec) -> NetworkOf {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    match namespaces
        .iter()
        .find(|one| one.typ() == LinuxNamespaceType::Network)
        .and_then(|one| one.path().clone())
    {
        Some(path) => NetworkOf::Path(path),
        None => NetworkOf::New,
    }
}

/// The host's own network cannot be given to a virtual machine.
pub(super) fn check(path: &Path) -> Result<(), SpecError> {
    let failed = |source| SpecError::Path {
        what: "network namespace",
        path: path.to_owned(),
        source,
    };
    let namespace = Namespace::open(path).map_err(|error| match error {
        NetworkError::Namespace { source, .. } | NetworkError::Kernel { source, .. } => {
            failed(source)
        }
        other => failed(std::io::Error::other(other)),
    })?;
    if namespace.is_hosts().map_err(failed)? {
        return Err(hosts());
    }
    Ok(())
}

/// What is said to whoever asks for the host's network.
pub(super) fn hosts() -> SpecError {
    unsupported(
        "the host's network namespace (`--network host`, `hostNetwork`)",
        "a virtual machine has a network stack of its own, and the host's would have to be taken from the host; use `--network bridge` and publish ports (`-p`, `hostPort`)",
    )
}

/// The limits that annotations set.
///
/// # Errors
/// [`SpecError`] for an annotation of ours that the configuration does not allow, that there is not, or whose value is
/// none.
pub fn rates(spec: &Spec, config: &Config) -> Result<Rates, SpecError> {
    let mut rates = Rates::default();
    let annotations = spec.annotations().iter().flatten();
    for (name, value) in annotations.filter(|(name, _)| name.starts_with(PREFIX)) {
        let which = match name.as_str() {
            RECEIVE => &mut rates.receive,
            SEND => &mut rates.send,
            _ => {
                return Err(unsupported(
                    format!("annotation {name}"),
                    format!("there are {RECEIVE} and {SEND}"),
                ));
            }
        };
        if !config.allowed_annotations.contains(name) {
            return Err(unsupported(
                format!("annotation {name}"),
                "the configuration does not allow it; add it to `allowed_annotations`",
            ));
        }
        *which = Some(bits(value).ok_or_else(|| {
            SpecError::Invalid(format!(
                "annotation {name}: {value:?} is not a number of bits a second, such as 500k, 10M or 1G"
            ))
        })?);
    }
    Ok(rates)
}

/// A number with k, M or G.
fn bits(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 1_000),
        (at, 'M') => (&text[..at], 1_000_000),
        (at, 'G') => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(unit).filter(|&bits| bits > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(name: &str, value: &str) -> Spec {
        serde_json::from_value(
            serde_json::json!({ "ociVersion": "1.0.2", "annotations": { name: value } }),
        )
        .unwrap()
    }

    #[test]
    fn limits_are_numbers_that_the_configuration_allows() {
        let mut config = Config::default();
        let refused = rates(&annotated(RECEIVE, "1M"), &config).unwrap_err();
        assert!(
            refused.to_string().contains("allowed_annotations"),
            "{refused}"
        );
        config.allowed_annotations = vec![RECEIVE.to_owned(), SEND.to_owned()];
        for (text, bits) in [
            ("1M", 1_000_000),
            ("500k", 500_000),
            ("2G", 2_000_000_000),
            ("9", 9),
        ] {
            let rates = rates(&annotated(SEND, text), &config).unwrap();
            assert_eq!((rates.send, rates.receive), (Some(bits), None), "{text}");
        }
        for bad in ["", "M", "0", "-1", "1T", "1.5M", "99999999999999G", "é"] {
            assert!(rates(&annotated(SEND, bad), &config).is_err(), "{bad:?}");
        }
        let unknown = rates(&annotated("io.cofferdam.x", "1"), &config).unwrap_err();
        assert!(unknown.to_string().contains("io.cofferdam.x"), "{unknown}");
        rates(&annotated("io.other.x", "1"), &config).unwrap();
    }
}
