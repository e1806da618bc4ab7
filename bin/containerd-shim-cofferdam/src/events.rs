//! Events for containerd, in their order and kept while it cannot be reached.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{MessageField, MessageFull};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::asynchronous::transport::Socket;
use containerd_shim_protos::ttrpc::context::with_timeout;
use containerd_shim_protos::ttrpc::{Code, Error};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// More events than a pod causes in days; what comes on top while containerd is down is lost.
const LIMIT: usize = 4096;
/// How long containerd may take for one event.
const DEADLINE: Duration = Duration::from_secs(5);
/// First and longest time between attempts to reach it.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Where events are put. Its clones are one.
#[derive(Debug, Clone)]
pub struct Publisher {
    namespace: String,
    queue: Arc<Mutex<VecDeque<Envelope>>>,
    /// How many were put in and how many are out again.
    queued: watch::Sender<u64>,
    delivered: watch::Receiver<u64>,
}

impl Publisher {
    /// Delivers to containerd's TTRPC socket from now on.
    pub fn new(namespace: &str, address: &str) -> Self {
        let queue = Arc::new(Mutex::new(VecDeque::new()));
        let (queued, news) = watch::channel(0);
        let (done, delivered) = watch::channel(0);
        let address = address.strip_prefix("unix://").unwrap_or(address);
        tokio::spawn(deliver(Arc::clone(&queue), news, done, address.to_owned()));
        Self {
            namespace: namespace.to_owned(),
            queue,
            queued,
            delivered,
        }
    }

    /// Puts an event in; never waits.
    pub fn publish<E: MessageFull>(&self, topic: &str, event: &E) {
        let Ok(value) = event.write_to_bytes() else {
            tracing::error!(topic, "event cannot be encoded");
            return;
        };
        let mut envelope = Envelope::new();
        envelope.timestamp = MessageField::some(SystemTime::now().into());
        envelope.namespace.clone_from(&self.namespace);
        topic.clone_into(&mut envelope.topic);
        envelope.event = MessageField::some(any::<E>(value));
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= LIMIT {
            tracing::warn!(topic, "event lost: containerd takes none");
            return;
        }
        queue.push_back(envelope);
        drop(queue);
        self.queued.send_modify(|count| *count += 1);
    }

    /// Waits until all that is in is out again, at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        let goal = *self.queued.borrow();
        let mut delivered = self.delivered.clone();
        let all = delivered.wait_for(|&count| count >= goal);
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("containerd takes no events");
        }
    }
}

/// A message with its type, as containerd names types.
pub fn any<M: MessageFull>(value: Vec<u8>) -> Any {
    let mut any = Any::new();
    M::descriptor().full_name().clone_into(&mut any.type_url);
    any.value = value;
    any
}

async fn deliver(
    queue: Arc<Mutex<VecDeque<Envelope>>>,
    mut news: watch::Receiver<u64>,
    done: watch::Sender<u64>,
    address: String,
) {
    let first = || {
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.front().cloned()
    };
    let mut client = None;
    loop {
        let Some(envelope) = first() else {
            if news.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut pause = PAUSES.0;
        while let Err(error) = forward(&mut client, &address, &envelope).await {
            tracing::debug!(topic = envelope.topic, "event not delivered yet: {error:#}");
            client = None;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        done.send_modify(|count| *count += 1);
    }
}

/// Delivers one. An error is worth another attempt.
async fn forward(
    client: &mut Option<EventsClient>,
    address: &str,
    envelope: &Envelope,
) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => {
            let stream = UnixStream::connect(address)
                .await
                .with_context(|| format!("cannot reach {address}"))?;
            client.insert(EventsClient::new(Client::new(Socket::new(stream))))
        }
    };
    let mut request = ForwardRequest::new();
    request.envelope = MessageField::some(envelope.clone());
    let nanoseconds = i64::try_from(DEADLINE.as_nanos()).unwrap_or(i64::MAX);
    match client.forward(with_timeout(nanoseconds), &request).await {
        Ok(_) => Ok(()),
        // containerd has read it and does not want it: it will not want it later either.
        Err(Error::RpcStatus(status)) if status.code.enum_value() == Ok(Code::INVALID_ARGUMENT) => {
            tracing::warn!(topic = envelope.topic, "event refused: {}", status.message);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use containerd_shim_protos::api::Empty;
    use containerd_shim_protos::events::task::TaskOOM;
    use containerd_shim_protos::shim_async::{Events, create_events};
    use containerd_shim_protos::ttrpc;
    use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;
    use containerd_shim_protos::ttrpc::asynchronous::{Server, TtrpcContext};
    use tokio::sync::mpsc;

    struct Heard(mpsc::UnboundedSender<Envelope>);

    #[async_trait]
    impl Events for Heard {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let _nobody = self.0.send(request.envelope.unwrap_or_default());
            Ok(Empty::new())
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn events_wait_for_containerd_and_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let publisher = Publisher::new("n", path.to_str().unwrap());
        let mut event = TaskOOM::new();
        for id in ["a", "b", "c"] {
            id.clone_into(&mut event.container_id);
            publisher.publish(id, &event);
        }
        publisher.flush(Duration::from_millis(20)).await;

        let (sender, mut heard) = mpsc::unbounded_channel();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut server = Server::new()
            .add_listener(Listener::try_from(listener).unwrap())
            .register_service(create_events(Arc::new(Heard(sender))));
        server.start().await.unwrap();
        publisher.flush(Duration::from_secs(30)).await;
        let mut topics = Vec::new();
        while let Ok(envelope) = heard.try_recv() {
            assert_eq!(envelope.namespace, "n");
            assert_eq!(envelope.event.type_url, "containerd.events.TaskOOM");
            topics.push(envelope.topic);
        }
        assert_eq!(topics, ["a", "b", "c"]);
    }
}
