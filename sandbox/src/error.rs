//! What can go wrong with a sandbox.

use backend_api::BackendError;
pub use backend_api::chain;
use sandbox_network::NetworkError;
use sandbox_share::ShareError;

use crate::cgroup::CgroupError;
use crate::config::{Config, ConfigError};
use crate::control::{ChannelError, Failure, FailureKind};
use crate::hooks::HookError;
use crate::id::{ContainerId, IdError};
use crate::kernel;
use crate::sandbox::WrongState;
use crate::spec::{LoadError, SpecError};
use crate::state::StateError;
use crate::template::ShelfError;

/// What can go wrong with a sandbox, a container or a process in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A name is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The bundle cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The spec is wrong or asks for what we cannot do.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The container is in another state.
    #[error(transparent)]
    Wrong(#[from] WrongState),
    /// The virtual machine.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The file server.
    #[error("sharing files with the guest")]
    Share(#[from] ShareError),
    /// The host's control groups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A hook said no.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Another process of ours cannot be reached.
    #[error("{phase}: cannot reach the sandbox's driver")]
    Channel {
        /// What was being done.
        phase: &'static str,
        /// Why.
        #[source]
        source: ChannelError,
    },
    /// No backend can be used.
    #[error("no usable backend: {0}")]
    NoBackend(String),
    /// The folder of the templates.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The backend has none.
    #[error("machines that are not emulated boot: there are no templates of them")]
    NoTemplates,
    /// The guest did not come up.
    #[error("booting the guest: {reason}{advice}{diagnostics}")]
    Boot {
        /// What happened instead.
        reason: String,
        /// What may be wrong with a kernel that is not ours.
        advice: String,
        /// The ends of the guest's console and of the VMM's messages.
        diagnostics: String,
    },
    /// The guest is gone while it was needed.
    #[error("{phase}: the virtual machine is gone: {reason}")]
    Gone {
        /// What was being done.
        phase: &'static str,
        /// How it went.
        reason: String,
    },
    /// The agent refused.
    #[error("{phase}: agent: {message}")]
    Agent {
        /// What was being done.
        phase: &'static str,
        /// What the agent said.
        message: String,
    },
    /// The sandbox that a container is to join cannot take it.
    #[error("cannot join sandbox {sandbox}: it {problem}")]
    Join {
        /// The sandbox's first container, which gives it its name.
        sandbox: ContainerId,
        /// What is in the way.
        problem: &'static str,
    },
    /// The sandbox has a container of that name.
    #[error("the sandbox has a container {0} already")]
    Taken(ContainerId),
    /// The process could not be started.
    #[error("{}", .0.message)]
    Process(Failure),
    /// The operating system refused.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl SandboxError {
    /// For `map_err` on a system call.
    pub fn system(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    /// With what may be wrong with the guest's kernel, if it is not ours and the guest did not come up.
    pub(crate) fn with_advice(mut self, config: &Config) -> Self {
        if let Self::Boot { advice, .. } = &mut self
            && config.kernel != Config::default().kernel
        {
            *advice = format!("; {}", kernel::advice(&config.kernel));
        }
        self
    }

    /// For other processes.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Process(failure) => failure.clone(),
            Self::Wrong(_) => Failure {
                kind: FailureKind::State,
                message: self.to_string(),
            },
            _ => Failure {
                kind: FailureKind::Other,
                message: chain(self),
            },
        }
    }
}
