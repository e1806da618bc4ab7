//! How `start` is asked and answers. containerd up to 2.2 passes flags and environment, and takes a plain address for
//! the second version of the task service; from 2.3 on it passes a message on stdin and wants one back.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context as _, Result, bail};
use containerd_shim_protos::TASK_API_VERSION;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, LogLevel};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use crate::flags::Flags;
use crate::options;

/// containerd's variable with the address of its TTRPC services.
pub const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// No message that containerd sends is longer.
const INPUT_LIMIT: u64 = 10 << 20;

/// What `start` was asked.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// containerd's main socket: part of the address.
    pub containerd: String,
    /// Where events go.
    pub events: String,
    /// Where sockets shall be.
    pub socket_folder: Option<String>,
    /// The runtime's options.
    pub options: Option<Any>,
    /// Log more.
    pub debug: bool,
    by_message: bool,
}

impl Request {
    /// Reads it.
    pub fn read(flags: &Flags) -> Result<Self> {
        let environment = std::env::var(TTRPC_ADDRESS).unwrap_or_default();
        Self::of(flags, &stdin()?, environment)
    }

    fn of(flags: &Flags, input: &[u8], environment: String) -> Result<Self> {
        let message = BootstrapParams::parse_from_bytes(input)
            .ok()
            .filter(|message| {
                message.instance_id == flags.id && message.namespace == flags.namespace
            });
        let request = match message {
            Some(message) if !input.is_empty() => Self {
                containerd: message.containerd_grpc_address,
                events: message.containerd_ttrpc_address,
                socket_folder: message.socket_dir.filter(|folder| !folder.is_empty()),
                options: message
                    .extensions
                    .into_iter()
                    .filter_map(|extension| extension.value.into_option())
                    .find(options::is_of_runtime),
                debug: flags.debug || message.log_level.value() <= LogLevel::LOG_LEVEL_DEBUG as i32,
                by_message: true,
            },
            _ => Self {
                containerd: flags.address.clone(),
                events: environment,
                socket_folder: None,
                options: Any::parse_from_bytes(input)
                    .ok()
                    .filter(|options| !options.type_url.is_empty()),
                debug: flags.debug,
                by_message: false,
            },
        };
        if request.events.is_empty() {
            bail!(
                "no address for events: {TTRPC_ADDRESS} is not set; containerd 1.6 or newer is needed"
            );
        }
        Ok(request)
    }

    /// Answers with the shim's address.
    pub fn answer(&self, address: &str) -> Result<()> {
        let bytes = if self.by_message {
            let mut answer = BootstrapResult::new();
            answer.version = TASK_API_VERSION;
            answer.address = address.to_owned();
            answer.protocol = "ttrpc".to_owned();
            answer
                .write_to_bytes()
                .context("cannot encode the answer")?
        } else {
            address.as_bytes().to_vec()
        };
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&bytes)
            .and_then(|()| stdout.flush())
            .context("cannot answer containerd")
    }
}

/// All that containerd passes on stdin.
pub fn stdin() -> Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut bytes = Vec::new();
    if !stdin.is_terminal() {
        stdin
            .lock()
            .take(INPUT_LIMIT)
            .read_to_end(&mut bytes)
            .context("cannot read stdin")?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::Extension;

    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "a".to_owned(),
            namespace: "n".to_owned(),
            address: "/c.sock".to_owned(),
            ..Flags::default()
        }
    }

    #[test]
    fn knows_both_ways() {
        let mut message = BootstrapParams::new();
        message.instance_id = "a".to_owned();
        message.namespace = "n".to_owned();
        message.containerd_grpc_address = "/new.sock".to_owned();
        message.containerd_ttrpc_address = "/new.ttrpc".to_owned();
        for kind in ["other.Settings", "runtimeoptions.v1.Options"] {
            let mut extension = Extension::new();
            extension.value.mut_or_insert_default().type_url = kind.to_owned();
            message.extensions.push(extension);
        }
        let bytes = message.write_to_bytes().unwrap();
        let request = Request::of(&flags(), &bytes, String::new()).unwrap();
        assert!(request.by_message);
        assert_eq!(request.containerd, "/new.sock");
        let options = request.options.map(|options| options.type_url);
        assert_eq!(options.as_deref(), Some("runtimeoptions.v1.Options"));

        let mut options = Any::new();
        options.type_url = "containerd.runc.v1.Options".to_owned();
        for input in [Vec::new(), options.write_to_bytes().unwrap()] {
            let request = Request::of(&flags(), &input, "/old.ttrpc".to_owned()).unwrap();
            assert!(!request.by_message);
            assert_eq!(request.options.is_some(), !input.is_empty());
            assert_eq!(
                (request.containerd.as_str(), request.events.as_str()),
                ("/c.sock", "/old.ttrpc")
            );
        }
        assert!(Request::of(&flags(), &[], String::new()).is_err());
    }
}
