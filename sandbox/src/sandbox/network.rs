//! The network of a running sandbox: told to the guest at its start, and whenever the namespace changes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_protocol::{
    NetworkAddress, NetworkInterface, NetworkNeighbour, NetworkRoute, NetworkRouteMetric,
    UpdateNetworkRequest,
};
use sandbox_network::{Network, NetworkError, Plan};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::{SandboxError, chain};
use crate::sandbox::guest::Guest;
use crate::sandbox::names::Names;

/// Engines change several things in a row: the guest is told once.
const GATHERING: Duration = Duration::from_millis(10);

/// Follows the network until it is stopped or dropped; then nothing of it is left in the namespace.
#[derive(Debug)]
pub(crate) struct Following {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Following {
    /// Gives the guest its network, and follows changes from then on.
    pub(crate) async fn start(network: Network, guest: Arc<Guest>) -> Result<Self, SandboxError> {
        let plan = network.plan();
        tell(&guest, &plan).await?;
        let mut names = Names::new(Arc::clone(&guest), network.resolver().clone());
        // Containers that ask at once shall be heard.
        names.follow(plan.snapshot.resolver).await;
        let (stop, stopping) = watch::channel(false);
        let (settler, settling) = mpsc::channel(1);
        if network.is_unfinished() {
            guest.settle_by(settler);
        }
        let task = tokio::spawn(follow(network, names, guest, stopping, settling));
        Ok(Self {
            stop,
            task: Mutex::new(Some(task)),
        })
    }

    /// Returns when the namespace is as it was.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take() {
            // A panic in it has dropped what it held, too.
            let _ended = task.await;
        }
    }
}

async fn follow(
    mut network: Network,
    mut names: Names,
    guest: Arc<Guest>,
    mut stopping: watch::Receiver<bool>,
    mut settling: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let following = async {
        loop {
            let asked = tokio::select! {
                heard = network.heard() => {
                    heard?;
                    tokio::time::sleep(GATHERING).await;
                    None
                }
                Some(asked) = settling.recv() => Some(asked),
            };
            match network.follow() {
                Ok(None) => {}
                Ok(Some(plan)) => {
                    if let Err(error) = tell(&guest, &plan).await {
                        tracing::warn!(
                            error = chain(&error),
                            "the guest does not follow its network"
                        );
                    }
                    names.follow(plan.snapshot.resolver).await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "a change of the network is not followed"
                    );
                }
            }
            if let Some(asked) = asked {
                // Nobody waits any more otherwise.
                let _heard = asked.send(());
            }
        }
    };
    let ended: Result<(), NetworkError> = tokio::select! {
        ended = following => ended,
        // An error: the sandbox was dropped.
        _ = stopping.wait_for(|&stop| stop) => Ok(()),
        () = guest.unless_gone(std::future::pending()) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::error!(
            error = chain(&error),
            "the network is not followed any more"
        );
    }
}

async fn tell(guest: &Guest, plan: &Plan) -> Result<(), SandboxError> {
    let request = request(plan);
    guest
        .call("setting up the network", async |agent, context| {
            agent.update_network(context, &request).await
        })
        .await?;
    Ok(())
}

fn request(plan: &Plan) -> UpdateNetworkRequest {
    let mut request = UpdateNetworkRequest::new();
    for interface in &plan.snapshot.interfaces {
        let card = plan.cards.iter().find(|(_, name)| *name == interface.name);
        let Some((card, _)) = card else { continue };
        request.interfaces.push(NetworkInterface {
            card: card.to_vec(),
            name: interface.name.clone(),
            mac: interface.mac.to_vec(),
            mtu: interface.mtu,
            up: interface.up,
            arp: interface.arp,
            ipv6: interface.ipv6,
            addresses: interface.addresses.iter().map(address).collect(),
            ..NetworkInterface::default()
        });
    }
    request.routes = plan.snapshot.routes.iter().map(route).collect();
    request.neighbours = plan
        .snapshot
        .neighbours
        .iter()
        .map(|neighbour| NetworkNeighbour {
            interface: neighbour.interface.clone(),
            ip: octets(neighbour.ip),
            mac: neighbour.mac.to_vec(),
            ..NetworkNeighbour::default()
        })
        .collect();
    request
}

fn address(address: &sandbox_network::Address) -> NetworkAddress {
    NetworkAddress {
        ip: octets(address.ip),
        prefix: address.prefix.into(),
        peer: address.peer.map(octets).unwrap_or_default(),
        broadcast: address
            .broadcast
            .map(|broadcast| octets(broadcast.into()))
            .unwrap_or_default(),
        scope: address.scope.into(),
        ..NetworkAddress::default()
    }
}

fn route(route: &sandbox_network::Route) -> NetworkRoute {
    let (destination, prefix) = route.destination;
    NetworkRoute {
        kind: route.kind.into(),
        destination: octets(destination),
        prefix: prefix.into(),
        interface: route.interface.clone().unwrap_or_default(),
        gateway: route.gateway.map(octets).unwrap_or_default(),
        source: route.source.map(octets).unwrap_or_default(),
        metric: route.metric,
        scope: route.scope.into(),
        onlink: route.onlink,
        metrics: route
            .metrics
            .iter()
            .map(|&(kind, value)| NetworkRouteMetric {
                kind: kind.into(),
                value,
                ..NetworkRouteMetric::default()
            })
            .collect(),
        ..NetworkRoute::default()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
