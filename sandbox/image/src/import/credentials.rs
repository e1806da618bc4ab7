//! Credentials from docker's client configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::{Event, ImageError, Progress};

/// Bytes that a configuration file may have.
const LONGEST: u64 = 1 << 20;

/// What docker writes for its own registry.
const DOCKER_HUB: [&str; 4] = [
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
    "registry-1.docker.io",
];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClientConfig {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

/// Where credentials may be: the file that was configured, else docker's places.
pub(super) fn config_path(configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    let directory = match std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

/// Finds the login for a registry; without one the registry is asked anonymously.
pub(super) fn find(
    path: Option<&Path>,
    registry: &str,
    progress: &dyn Progress,
) -> Result<RegistryAuth, ImageError> {
    let Some(path) = path else {
        return Ok(RegistryAuth::Anonymous);
    };
    let bad = |reason: String| ImageError::BadCredentials {
        path: path.to_owned(),
        reason,
    };
    let bytes = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > LONGEST => {
            return Err(bad(format!("it has more than {LONGEST} bytes")));
        }
        Ok(_) => fs::read(path).map_err(ImageError::io("read", path))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(RegistryAuth::Anonymous);
        }
        Err(error) => return Err(ImageError::io("read", path)(error)),
    };
    let config: ClientConfig =
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let login = config
        .auths
        .iter()
        .find(|(name, _)| is_for(name, registry))
        .map(|(_, login)| login);
    if let Some(auth) = login
        .map(Login::auth)
        .transpose()
        .map_err(|reason| bad(format!("the login for {registry} {reason}")))?
        && auth != RegistryAuth::Anonymous
    {
        return Ok(auth);
    }
    let helper = config
        .cred_helpers
        .iter()
        .find(|(name, _)| is_for(name, registry))
        .map(|(_, helper)| helper)
        // A store holds every login that `auths` lists with an empty entry.
        .or_else(|| config.creds_store.as_ref().filter(|_| login.is_some()));
    if let Some(helper) = helper {
        progress.event(Event::Note {
            text: &format!(
                "the login for {registry} is kept by docker-credential-{helper}, which is not asked; \
                 going on without a login (an `auths` entry in {} would be used)",
                path.display()
            ),
        });
    }
    Ok(RegistryAuth::Anonymous)
}

/// Entries are called `host`, `host:port`, or as URLs.
fn is_for(name: &str, registry: &str) -> bool {
    if registry == "docker.io" {
        return DOCKER_HUB.contains(&name.trim_end_matches("/v2/"));
    }
    let host = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"))
        .unwrap_or(name);
    host.split('/').next() == Some(registry)
}

impl Login {
    fn auth(&self) -> Result<RegistryAuth, &'static str> {
        if let Some(token) = self
            .registrytoken
            .as_ref()
            .filter(|token| !token.is_empty())
        {
            return Ok(RegistryAuth::Bearer(token.clone()));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let decoded = STANDARD.decode(auth.trim()).map_err(|_| "is not base64")?;
            let text = String::from_utf8(decoded).map_err(|_| "is not UTF-8")?;
            let (user, password) = text.split_once(':').ok_or("has no colon")?;
            // Docker pads with NUL bytes.
            return Ok(RegistryAuth::Basic(
                user.to_owned(),
                password.trim_end_matches('\0').to_owned(),
            ));
        }
        match (&self.username, &self.password) {
            (Some(user), Some(password)) if !user.is_empty() => {
                Ok(RegistryAuth::Basic(user.clone(), password.clone()))
            }
            _ => Ok(RegistryAuth::Anonymous),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    fn find_in(config: &str, registry: &str) -> Result<RegistryAuth, ImageError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), config).unwrap();
        find(Some(file.path()), registry, &Silent)
    }

    #[test]
    fn logins_are_found_by_host() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "localhost:5000": {"username": "u", "password": "p:q"},
            "https://quay.io/v2/": {"auth": "cTpw"},
            "empty.example": {}
        }, "credsStore": "desktop", "credHelpers": {"gcr.io": "gcloud"}}"#;
        let basic = |user: &str, password: &str| RegistryAuth::Basic(user.into(), password.into());
        assert_eq!(find_in(config, "docker.io").unwrap(), basic("hub", "pw"));
        assert_eq!(
            find_in(config, "localhost:5000").unwrap(),
            basic("u", "p:q")
        );
        assert_eq!(find_in(config, "quay.io").unwrap(), basic("q", "p"));
        for anonymous in [
            "gcr.io",
            "empty.example",
            "localhost",
            "index.docker.io.evil.example",
        ] {
            assert_eq!(find_in(config, anonymous).unwrap(), RegistryAuth::Anonymous);
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        for bad in ["", "[1", r#"{"auths": {"a.example": {"auth": "%%%"}}}"#] {
            assert!(find_in(bad, "a.example").is_err(), "{bad:?}");
        }
    }
}
