//! Our monitor with what a sandbox gives it: a file share and a network card, beside the link.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use backend_api::{Backend, Nic, Share};
use backend_kvm::{KvmBackend, KvmConfig};
use sandbox_share::{ShareConfig, ShareServer};
use tokio::io::AsyncReadExt;

use crate::io::wire::Wire;
use crate::monitors::{self, Guest, Running};

/// How long the file server may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What the agent mounts.
const TAG: &str = "cofferdam";

/// Programs, and what is made before a boot is measured.
pub struct Sandbox {
    pub monitor: PathBuf,
    server: ShareServer,
    nic: Nic,
}

impl Sandbox {
    /// A file server that shows nothing and waits for a monitor, and a tap.
    pub async fn prepare(monitor: &Path, server: &Path, number: u8) -> Result<Self> {
        let mut server = ShareServer::spawn(ShareConfig {
            program: server.to_owned(),
            entries: Vec::new(),
            deadline: LIMIT,
            groups: Vec::new(),
        })?;
        server.ready().await?;
        let (_wire, queue) = Wire::new(number)?;
        Ok(Self {
            monitor: monitor.to_owned(),
            server,
            nic: Nic {
                mac: [2, 0, 0, 0, 0, number],
                queues: vec![queue],
            },
        })
    }

    /// Boots it until the agent has said its first word.
    pub async fn until_agent(mut self, guest: &Guest) -> Result<(Running, ShareServer)> {
        let backend = KvmBackend::new(KvmConfig {
            program: self.monitor,
            vhost_net: true,
        });
        let mut config = monitors::config(guest);
        config.nics.push(self.nic);
        config.share = Some(Share {
            tag: TAG.to_owned(),
            socket: self.server.vmm_socket().context("no socket")?,
        });
        let mut machine = backend.create(config).await?;
        let mut link = machine.boot().await?;
        link.read_u8().await.context("the agent does not call")?;
        Ok((Running::own(machine, link), self.server))
    }
}
