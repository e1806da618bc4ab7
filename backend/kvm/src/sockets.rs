//! Connections of the guest to programs of its host: made here, where there are names.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use backend_api::Dial;
use vmm_control::{Call, Called, Handle, receive, send};

use crate::control::{packets, retry};

/// Answers the calls of a VMM until it is gone. Its end of the socket is what comes back.
pub fn serve(dial: Arc<dyn Dial>) -> io::Result<OwnedFd> {
    let (socket, theirs) = packets()?;
    tokio::spawn(async move {
        // One at a time: the guest has no more of this process than that.
        while let Ok(Some(received)) = retry(&socket, false, |socket| receive::<Call>(socket)).await
        {
            let Call { ticket, port } = received.message;
            let stream = match dial.dial(port) {
                Ok(stream) => Some(stream),
                Err(error) => {
                    tracing::debug!(%error, port, "the guest is not connected to its host");
                    None
                }
            };
            let called = Called {
                ticket,
                stream: stream.as_ref().map(|_| Handle(0)),
            };
            let with: Vec<_> = stream.iter().map(AsFd::as_fd).collect();
            if let Err(error) = retry(&socket, true, |socket| send(socket, &called, &with)).await {
                tracing::debug!(%error, "the VMM takes no answer");
                return;
            }
        }
    });
    Ok(theirs)
}
