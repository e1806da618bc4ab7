//! What host and guest say to each other: the agent service, the version handshake and the link.
