//! Reading a bundle's `config.json`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::Value;

use super::capabilities;

/// A larger configuration is refused rather than read.
const SPEC_LIMIT: u64 = 16 << 20;

/// What can be wrong with a bundle before anything of it is looked at.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or its folder cannot be read.
    #[error("cannot read bundle configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Larger than any real one.
    #[error("bundle configuration {0} is larger than {limit} MiB", limit = SPEC_LIMIT >> 20)]
    TooLarge(PathBuf),
    /// Not JSON, or a field of the wrong type.
    #[error("bundle configuration {path}: {field}{detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Path of the field, with a colon and a space behind; may be empty.
        field: String,
        /// What was expected, at which line.
        detail: String,
    },
}

/// Reads `config.json` of a bundle.
///
/// # Errors
/// [`LoadError`].
pub fn load(bundle: &Path) -> Result<Spec, LoadError> {
    let path = bundle.join("config.json");
    let read = |source| LoadError::Read {
        path: path.clone(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(&path)
        .map_err(read)?
        .take(SPEC_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > SPEC_LIMIT {
        return Err(LoadError::TooLarge(path));
    }
    let malformed = |(field, detail)| LoadError::Malformed {
        path: path.clone(),
        field,
        detail,
    };
    match parse(&bytes) {
        Err((field, _)) if field.starts_with("`process.capabilities.") => {
            let mut document: Value = parse(&bytes).map_err(malformed)?;
            let dropped = document.get_mut("process").map(capabilities::drop_unknown);
            tracing::warn!(
                "ignoring unknown or unavailable capabilities: {:?}",
                dropped.unwrap_or_default()
            );
            parse(document.to_string().as_bytes()).map_err(malformed)
        }
        parsed => parsed.map_err(malformed),
    }
}

/// Parses JSON; an error is the path of the field and what is wrong with it.
fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, (String, String)> {
    // A list would be taken for the fields in their order.
    if bytes
        .trim_ascii_start()
        .first()
        .is_some_and(|&byte| byte != b'{')
    {
        return Err((String::new(), "not a JSON object".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => String::new(),
            path => format!("`{path}`: "),
        };
        (field, error.into_inner().to_string())
    })?;
    json.end()
        .map_err(|error| (String::new(), error.to_string()))?;
    Ok(value)
}
