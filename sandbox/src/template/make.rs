//! Making a template.

use std::error::Error;
use std::time::Duration;

use backend_api::{Greeting, LinkIo};
use cofferdam_protocol::link::Link;
use cofferdam_protocol::{HelloRequest, PROTOCOL_VERSION, connect_agent, no_deadline};
use serde::{Deserialize, Serialize};

use super::shelf::ShelfError;
use super::{Key, Shelf};
use crate::backend;
use crate::config::Config;
use crate::error::{SandboxError, chain};
use crate::sandbox::vm_config;
use crate::spec::Size;

/// How long the whole may take: a boot, a second until QEMU tells that the guest waits, and some writing, at the lowest
/// priority on a host that is busy.
const DEADLINE: Duration = Duration::from_secs(120);

/// A template that a process of its own is to make.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// How sandboxes are made here.
    pub config: Config,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Whether the process that makes it begins in a container's control groups, which it must leave: they are that
    /// container's account, and removed with it.
    pub accounted: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    New,
    /// It was there.
    Present,
    /// Another process is making one.
    Busy,
}

/// Makes the template of this size unless there is one. With `wait` that another process is making one only means to
/// wait for it. Blocks the calling thread while it waits, which has to outlive the machine.
///
/// # Errors
/// [`SandboxError::NoTemplates`] where the backend can't; whatever kept the guest from coming up or the file from being
/// written.
pub async fn make(order: &Order, wait: bool) -> Result<Made, SandboxError> {
    let config = &order.config;
    let size = Size {
        memory: order.memory,
        vcpus: order.vcpus,
    };
    let backend = backend::choose(config).await?.backend;
    let (Some(key), Some(templates)) = (Key::of(&*backend, config, size)?, backend.templates())
    else {
        return Err(SandboxError::NoTemplates);
    };
    let shelf = Shelf::open(&config.template_directory)?;
    let Some(lock) = shelf.lock(wait)? else {
        return Ok(Made::Busy);
    };
    if shelf.find(&key)?.is_some() {
        return Ok(Made::Present);
    }
    shelf.forget_failure(&key)?;
    let draft = shelf.draft(&lock)?;
    let out = draft.file().try_clone().map_err(|source| ShelfError::Io {
        action: "write",
        path: config.template_directory.clone(),
        source,
    })?;
    let greeting: Greeting = Box::new(|link| Box::pin(greet(link)));
    let vm = vm_config(config, "template", size, None);
    let captured = tokio::time::timeout(DEADLINE, templates.capture(vm, greeting, out)).await;
    let done = match captured {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(SandboxError::Boot {
            reason: format!("the template is not done within {} s", DEADLINE.as_secs()),
            advice: String::new(),
            diagnostics: String::new(),
        }),
    };
    match done {
        Ok(()) => {
            draft.keep(&key)?;
            tracing::info!(template = %key, "a template is made");
            Ok(Made::New)
        }
        Err(error) => {
            shelf.note_failure(&key, &chain(&error));
            Err(error)
        }
    }
}

/// Has the agent answer the first call: it is there, and of our version.
async fn greet(io: LinkIo) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (link, driver) = Link::host(io);
    let call = async {
        let agent = connect_agent(link.open_control().await?);
        let mut hello = HelloRequest::new();
        hello.version = PROTOCOL_VERSION;
        // The guest refuses another version.
        agent.hello(no_deadline(), &hello).await?;
        Ok(())
    };
    tokio::select! {
        done = call => done,
        ended = driver => match ended {
            Ok(()) => Err("the link has ended".into()),
            Err(error) => Err(error.into()),
        },
    }
}
