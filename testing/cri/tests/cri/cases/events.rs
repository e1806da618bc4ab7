//! Events, which spare kubelet asking.

use cri::v1::{ContainerEventType, GetEventsRequest};

use crate::lab::Lab;
use crate::pod::script;

pub fn of_a_container(lab: &Lab) {
    if !lab.has((1, 7)) {
        return;
    }
    let mut events = lab
        .runtime(async |mut calls| {
            calls
                .get_container_events(GetEventsRequest::default())
                .await
        })
        .expect("a stream");
    let pod = lab.pod();
    let container = pod.run(script("main", "exit 3"));
    container.wait();
    container.remove().expect("a removal");
    let mut seen = Vec::new();
    // Those of other cases come as well.
    while seen.last() != Some(&ContainerEventType::ContainerDeletedEvent) {
        let event = lab.engine.client.next(&mut events).expect("an event");
        let event = event.expect("the stream goes on");
        if event.container_id == container.id {
            seen.push(event.container_event_type());
        }
    }
    assert_eq!(
        seen,
        [
            ContainerEventType::ContainerCreatedEvent,
            ContainerEventType::ContainerStartedEvent,
            ContainerEventType::ContainerStoppedEvent,
            ContainerEventType::ContainerDeletedEvent,
        ]
    );
}
