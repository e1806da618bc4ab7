//! The calls of the agent service, each handed to who does it.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_protocol::ttrpc::asynchronous::TtrpcContext;
use cofferdam_protocol::ttrpc::{Code, Error, Result, get_status};
use cofferdam_protocol::{
    Agent, ConfigureSandboxRequest, ContainerRequest, ContainerStatsResponse,
    CreateContainerRequest, CreateContainerResponse, DeviceRequest, Empty, Event,
    ExecProcessRequest, ExecProcessResponse, HelloRequest, HelloResponse, ListProcessesResponse,
    PROTOCOL_VERSION, PlugDeviceResponse, ProcessRequest, ResizePtyRequest, ResizeSandboxRequest,
    SignalProcessRequest, StartContainerResponse, UpdateContainerRequest, UpdateNetworkRequest,
    WaitProcessResponse,
};

use super::status::Coded;
use crate::container::{Containers, Failure};
use crate::sandbox::Sandbox;

/// The service.
pub(super) struct Service {
    sandbox: Arc<Sandbox>,
    entered: u64,
}

impl Service {
    pub(super) fn new(sandbox: Arc<Sandbox>, entered: u64) -> Self {
        Self { sandbox, entered }
    }

    fn containers(&self) -> &Containers {
        &self.sandbox.containers
    }
}

fn empty() -> Empty {
    Empty::default()
}

/// A process id or why there is none, as responses have them.
fn split(made: std::result::Result<i32, Failure>) -> (u32, Option<Failure>) {
    match made {
        Ok(pid) => (pid.unsigned_abs(), None),
        Err(failure) => (0, Some(failure)),
    }
}

#[async_trait]
impl Agent for Service {
    async fn hello(&self, _: &TtrpcContext, request: HelloRequest) -> Result<HelloResponse> {
        if request.version != PROTOCOL_VERSION {
            let message = format!(
                "the host speaks protocol version {}, the guest {PROTOCOL_VERSION}",
                request.version
            );
            return Err(Error::RpcStatus(get_status(
                Code::FAILED_PRECONDITION,
                message,
            )));
        }
        Ok(HelloResponse {
            version: PROTOCOL_VERSION,
            kernel_release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            init_entered_ns: self.entered,
            answered_ns: crate::init::boot_nanoseconds(),
            ..HelloResponse::default()
        })
    }

    async fn configure_sandbox(
        &self,
        _: &TtrpcContext,
        request: ConfigureSandboxRequest,
    ) -> Result<Empty> {
        let done = self.sandbox.configure(request).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn update_network(
        &self,
        _: &TtrpcContext,
        request: UpdateNetworkRequest,
    ) -> Result<Empty> {
        let done = self.sandbox.network.update(request).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn resize_sandbox(
        &self,
        _: &TtrpcContext,
        request: ResizeSandboxRequest,
    ) -> Result<Empty> {
        let done = self.sandbox.resize(request).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn plug_device(
        &self,
        _: &TtrpcContext,
        request: DeviceRequest,
    ) -> Result<PlugDeviceResponse> {
        let found = crate::sandbox::plug(request.place).await;
        found.map_err(Coded::into_status)
    }

    async fn unplug_device(&self, _: &TtrpcContext, request: DeviceRequest) -> Result<Empty> {
        let done = crate::sandbox::unplug(request.place).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse> {
        let made = self.containers().create(request).await;
        let (pid, failure) = split(made.map_err(Coded::into_status)?);
        Ok(CreateContainerResponse {
            pid,
            failure: failure.map(Into::into).into(),
            ..CreateContainerResponse::default()
        })
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: ContainerRequest,
    ) -> Result<StartContainerResponse> {
        let started = self.containers().start(&request.container_id).await;
        let failure = started.map_err(Coded::into_status)?.err();
        Ok(StartContainerResponse {
            failure: failure.map(Into::into).into(),
            ..StartContainerResponse::default()
        })
    }

    async fn exec_process(
        &self,
        _: &TtrpcContext,
        request: ExecProcessRequest,
    ) -> Result<ExecProcessResponse> {
        let made = self.containers().exec(request).await;
        let (pid, failure) = split(made.map_err(Coded::into_status)?);
        Ok(ExecProcessResponse {
            pid,
            failure: failure.map(Into::into).into(),
            ..ExecProcessResponse::default()
        })
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: ProcessRequest,
    ) -> Result<WaitProcessResponse> {
        let end = self
            .containers()
            .wait(&request.container_id, &request.exec_id);
        end.await.map_err(Coded::into_status)
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> Result<Empty> {
        self.containers()
            .signal(
                &request.container_id,
                &request.exec_id,
                request.signal,
                request.all,
            )
            .map(|()| empty())
            .map_err(Coded::into_status)
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        self.containers()
            .resize(
                &request.container_id,
                &request.exec_id,
                request.rows,
                request.columns,
            )
            .map(|()| empty())
            .map_err(Coded::into_status)
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: ContainerRequest,
    ) -> Result<ListProcessesResponse> {
        let processes = self.containers().list(&request.container_id);
        Ok(ListProcessesResponse {
            processes: processes.map_err(Coded::into_status)?,
            ..ListProcessesResponse::default()
        })
    }

    async fn pause_container(&self, _: &TtrpcContext, request: ContainerRequest) -> Result<Empty> {
        let done = self.containers().pause(&request.container_id).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn resume_container(&self, _: &TtrpcContext, request: ContainerRequest) -> Result<Empty> {
        let done = self.containers().resume(&request.container_id).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> Result<Empty> {
        let done = self
            .containers()
            .update(&request.container_id, &request.resources)
            .await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn container_stats(
        &self,
        _: &TtrpcContext,
        request: ContainerRequest,
    ) -> Result<ContainerStatsResponse> {
        let stats = self.containers().stats(&request.container_id);
        Ok(ContainerStatsResponse {
            stats: stats.map_err(Coded::into_status)?,
            ..ContainerStatsResponse::default()
        })
    }

    async fn delete_container(&self, _: &TtrpcContext, request: ContainerRequest) -> Result<Empty> {
        let done = self.containers().delete(&request.container_id).await;
        done.map(|()| empty()).map_err(Coded::into_status)
    }

    async fn delete_process(&self, _: &TtrpcContext, request: ProcessRequest) -> Result<Empty> {
        self.containers()
            .forget(&request.container_id, &request.exec_id)
            .map(|()| empty())
            .map_err(Coded::into_status)
    }

    async fn next_event(&self, _: &TtrpcContext, _: Empty) -> Result<Event> {
        self.sandbox.events.next().await.map_err(Coded::into_status)
    }

    async fn shutdown(&self, _: &TtrpcContext, _: Empty) -> Result<Empty> {
        self.sandbox.shutdown().await;
        Ok(empty())
    }
}
