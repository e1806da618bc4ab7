//! Calls that block, with a limit.

use std::path::Path;
use std::time::Duration;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// No call takes that long, on a loaded machine that emulates processors.
const LIMIT: Duration = Duration::from_secs(240);

/// A connection to an engine's socket, for any number of threads.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    /// Connects when the first call is made.
    ///
    /// # Errors
    /// A sentence: the path is no address, or threads cannot be had.
    pub fn new(socket: &Path) -> Result<Self, String> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime for calls: {error}"))?;
        let address = format!("unix://{}", socket.display());
        let endpoint = Endpoint::from_shared(address.clone())
            .map_err(|error| format!("{address} is no address: {error}"))?;
        // The channel spawns its worker where it is made.
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { runtime, channel })
    }

    /// Calls the runtime service.
    ///
    /// # Errors
    /// The engine's, or `DeadlineExceeded` when it does not answer.
    pub fn runtime<R>(
        &self,
        call: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Result<Response<R>, Status>,
    ) -> Result<R, Status> {
        self.bounded(call(RuntimeServiceClient::new(self.channel.clone())))
    }

    /// Calls the image service.
    ///
    /// # Errors
    /// As [`Client::runtime`].
    pub fn images<R>(
        &self,
        call: impl AsyncFnOnce(ImageServiceClient<Channel>) -> Result<Response<R>, Status>,
    ) -> Result<R, Status> {
        self.bounded(call(ImageServiceClient::new(self.channel.clone())))
    }

    /// The next message of a stream that a call gave; nothing when it ended.
    ///
    /// # Errors
    /// As [`Client::runtime`].
    pub fn next<M>(&self, stream: &mut tonic::Streaming<M>) -> Result<Option<M>, Status> {
        self.runtime
            .block_on(async { tokio::time::timeout(LIMIT, stream.message()).await })
            .unwrap_or_else(|_| Err(late()))
    }

    fn bounded<R>(
        &self,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<R, Status> {
        self.runtime
            .block_on(async { tokio::time::timeout(LIMIT, call).await })
            .unwrap_or_else(|_| Err(late()))
            .map(Response::into_inner)
    }
}

fn late() -> Status {
    Status::deadline_exceeded(format!("the engine does not answer within {LIMIT:?}"))
}
