//! The HTTP side of a registry: OCI distribution specification v1.1, "Pull".
//!
//! `oci-client` speaks the token protocol. Manifests and blobs are fetched here, because that
//! crate reads a manifest of any length into memory.

use std::error::Error;
use std::sync::Once;
use std::time::Duration;

use oci_client::RegistryOperation;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use tokio::sync::Mutex;

use crate::{Event, ImageError, Progress, Reference, Settings};

const USER_AGENT: &str = concat!("cofferdam/", env!("CARGO_PKG_VERSION"));
/// Pause before the second attempt; it doubles for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Bytes of an error's body that are shown.
const ERROR_BODY: u64 = 2048;

/// A connection to one repository.
pub(super) struct Repository<'a> {
    reference: &'a Reference,
    settings: &'a Settings,
    progress: &'a dyn Progress,
    login: RegistryAuth,
    http: reqwest::Client,
    tokens: oci_client::Client,
    base: String,
    /// Why TLS is not used, where plain HTTP is allowed.
    tls_failure: Option<String>,
    authorization: Mutex<Option<Authorization>>,
}

/// What goes along with each request once the registry has asked for it.
#[derive(Clone)]
enum Authorization {
    Bearer(String),
    Basic(String, String),
}

/// A failed attempt.
pub(super) enum Attempt {
    /// Trying again may help.
    Transient(String),
    /// It will not.
    Final(ImageError),
}

impl From<ImageError> for Attempt {
    fn from(error: ImageError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Repository<'a> {
    /// Finds out how the registry is reached. Plain HTTP is tried only where it is allowed, and
    /// only after TLS.
    pub(super) async fn connect(
        reference: &'a Reference,
        login: RegistryAuth,
        settings: &'a Settings,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        install_crypto();
        let may_be_plain = reference.is_loopback()
            || settings
                .insecure_registries
                .iter()
                .any(|registry| registry == reference.registry());
        let registry = reference.oci().resolve_registry();
        let unusable = |reason: String| ImageError::Registry {
            what: reference.full(),
            reason,
        };
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .https_only(!may_be_plain);
        if reference.is_loopback() {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| unusable(chain(&error)))?;
        let tls_failure = if may_be_plain {
            let probe = http.get(format!("https://{registry}/v2/")).send();
            match tokio::time::timeout(settings.connect_timeout, probe).await {
                Ok(answer) => answer.err().map(|error| chain(&error)),
                Err(_) => Some("no answer".to_owned()),
            }
        } else {
            None
        };
        let protocol = match tls_failure {
            Some(_) => ClientProtocol::HttpsExcept(vec![registry.to_owned()]),
            None => ClientProtocol::Https,
        };
        let scheme = match tls_failure {
            Some(_) => "http",
            None => "https",
        };
        let tokens = oci_client::Client::try_from(ClientConfig {
            protocol,
            connect_timeout: Some(settings.connect_timeout),
            read_timeout: Some(settings.read_timeout),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        })
        .map_err(|error| unusable(chain(&error)))?;
        Ok(Self {
            http,
            tokens,
            base: format!("{scheme}://{registry}/v2/{}", reference.repository()),
            tls_failure,
            reference,
            settings,
            progress,
            login,
            authorization: Mutex::new(None),
        })
    }

    /// Repeats an attempt while that may help. `what` names the thing.
    pub(super) async fn retry<T, F, A>(&self, what: &str, mut attempt: A) -> Result<T, ImageError>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, Attempt>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut number = 1;
        loop {
            let reason = match attempt().await {
                Ok(value) => return Ok(value),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Transient(reason)) => reason,
            };
            number += 1;
            if number > self.settings.attempts.max(1) {
                return Err(ImageError::Registry {
                    what: what.to_owned(),
                    reason: format!("{reason} (tried {} times)", number - 1),
                });
            }
            self.progress.event(Event::Retrying {
                what,
                attempt: number,
                reason: &reason,
            });
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Begins to fetch `manifests/…` or `blobs/…`, logging in when the registry asks for it.
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Response, Attempt> {
        let mut authorization = self.authorization.lock().await.clone();
        let url = format!("{}/{path}", self.base);
        for _ in 0..2 {
            let mut request = self.http.get(&url).header(ACCEPT, accept);
            request = match &authorization {
                Some(Authorization::Bearer(token)) => request.bearer_auth(token),
                Some(Authorization::Basic(user, password)) => {
                    request.basic_auth(user, Some(password))
                }
                None => request,
            };
            let response = request.send().await.map_err(|error| transient(&error))?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return self.check(response, path).await;
            }
            let fresh = self.log_in(&response).await?;
            *self.authorization.lock().await = Some(fresh.clone());
            authorization = Some(fresh);
        }
        Err(Attempt::Final(
            self.unauthorized("the login was not accepted"),
        ))
    }

    async fn log_in(&self, response: &Response) -> Result<Authorization, Attempt> {
        let challenges: Vec<_> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_ascii_lowercase)
            .collect();
        if challenges
            .iter()
            .any(|challenge| challenge.starts_with("bearer"))
        {
            let granted = self
                .tokens
                .auth(self.reference.oci(), &self.login, RegistryOperation::Pull)
                .await
                .map_err(|error| match error {
                    oci_client::errors::OciDistributionError::RequestError(error) => {
                        transient(&error)
                    }
                    error => Attempt::Final(self.unauthorized(&chain(&error))),
                })?;
            return granted
                .map(Authorization::Bearer)
                .ok_or_else(|| Attempt::Final(self.unauthorized("it gave no token")));
        }
        match &self.login {
            RegistryAuth::Basic(user, password) => {
                Ok(Authorization::Basic(user.clone(), password.clone()))
            }
            RegistryAuth::Bearer(token) => Ok(Authorization::Bearer(token.clone())),
            RegistryAuth::Anonymous => Err(Attempt::Final(self.unauthorized("a login is needed"))),
        }
    }

    async fn check(&self, mut response: Response, path: &str) -> Result<Response, Attempt> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND && path.starts_with("manifests/") {
            return Err(Attempt::Final(ImageError::NotAtRegistry {
                reference: self.reference.full(),
            }));
        }
        let body = read_start(&mut response).await;
        let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
        let reason = format!("the registry answers {status} {body}")
            .trim_end()
            .to_owned();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Attempt::Final(self.unauthorized(&reason))
            }
            status if status.is_server_error() => Attempt::Transient(reason),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Attempt::Transient(reason)
            }
            _ => Attempt::Final(ImageError::Registry {
                what: format!("{} of {}", path, self.reference.full()),
                reason: match &self.tls_failure {
                    // A registry with TLS whose certificate is not trusted answers plain
                    // requests in this way.
                    Some(failure) if status == StatusCode::BAD_REQUEST => {
                        format!("{reason} (asked in plain text, because over TLS: {failure})")
                    }
                    _ => reason,
                },
            }),
        })
    }

    fn unauthorized(&self, reason: &str) -> ImageError {
        let used = match self.login {
            RegistryAuth::Anonymous => "without a login: `docker login` writes one",
            RegistryAuth::Basic(..) | RegistryAuth::Bearer(_) => {
                "with the login of docker's config.json"
            }
        };
        ImageError::Unauthorized {
            registry: self.reference.registry().to_owned(),
            reference: self.reference.full(),
            hint: format!(" ({reason}; asked {used})"),
        }
    }
}

/// An error of the connection; trying again may help.
pub(super) fn transient(error: &reqwest::Error) -> Attempt {
    Attempt::Transient(chain(error))
}

/// The beginning of an error's body, without what would garble a terminal.
async fn read_start(response: &mut Response) -> String {
    let mut body = Vec::new();
    while (body.len() as u64) < ERROR_BODY {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&body)
        .chars()
        .filter(|character| !character.is_control())
        .take(300)
        .collect()
}

/// An error with its causes, which `reqwest` keeps apart.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// TLS by `ring`: smaller to build than the default provider.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::debug!("the program has chosen a TLS provider itself");
        }
    });
}
