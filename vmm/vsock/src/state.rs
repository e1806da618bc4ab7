//! Where a connection stands, and what becomes of it. The crate's documentation draws it.

/// How far a connection is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A host program is saying which port it wants.
    Greeting,
    /// The guest was asked, or is about to be.
    Asked,
    /// Bytes flow.
    Open,
    /// The guest has forgotten it; what it sent before is on its way to the host.
    Draining,
}

/// A violation: the guest gets a reset and the connection is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation;

/// What is to be done with a connection after something has happened to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Keep,
    /// It has ended and the guest knows.
    Drop,
    /// It has ended and the guest must be told.
    Reset,
}
