//! A client of Kubernetes' container runtime interface, as kubelet is one: blocking, every call bounded.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

pub use k8s_cri::v1 as api;
pub use tonic::Code;

/// No call of a test takes longer, on a loaded machine that emulates processors.
const LIMIT: Duration = Duration::from_secs(180);

/// A connection to a runtime's socket.
#[derive(Debug)]
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    client: RuntimeServiceClient<Channel>,
}

impl Cri {
    /// Connects with the first call.
    ///
    /// # Panics
    /// When no thread can be had for it.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = {
            let _inside = runtime.enter();
            // The address is only a form: the connector knows the socket.
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
        };
        Self {
            runtime,
            client: RuntimeServiceClient::new(channel),
        }
    }

    /// One call.
    ///
    /// # Errors
    /// What the runtime answers; `DeadlineExceeded` when it does not.
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let client = self.client.clone();
        self.runtime.block_on(async move {
            match tokio::time::timeout(LIMIT, call(client)).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded("no answer")),
            }
        })
    }
}
