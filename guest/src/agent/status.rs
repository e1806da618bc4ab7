//! Errors as the host sees them.

use std::error::Error as StdError;

use cofferdam_protocol::ttrpc::{Code, Error, get_status};

use crate::container::ContainerError;
use crate::helper::chain;
use crate::network::NetworkError;
use crate::sandbox::{ConfigureError, DeviceError, EventError, ResizeError};

/// An error that has a ttrpc code.
pub(super) trait Coded: StdError + Sized {
    fn code(&self) -> Code;

    fn into_status(self) -> Error {
        Error::RpcStatus(get_status(self.code(), chain(&self)))
    }
}

impl Coded for ContainerError {
    fn code(&self) -> Code {
        match self {
            Self::NoContainer { .. } | Self::NoProcess { .. } => Code::NOT_FOUND,
            Self::ContainerExists { .. } | Self::ProcessExists { .. } => Code::ALREADY_EXISTS,
            Self::State { .. } | Self::Process { .. } => Code::FAILED_PRECONDITION,
            Self::Malformed { .. } | Self::Invalid { .. } | Self::Stream(_) => {
                Code::INVALID_ARGUMENT
            }
            Self::Ending => Code::UNAVAILABLE,
            Self::File { .. }
            | Self::Kernel { .. }
            | Self::Resources { .. }
            | Self::Helper(_)
            | Self::Device(_) => Code::INTERNAL,
        }
    }
}

impl Coded for ConfigureError {
    fn code(&self) -> Code {
        match self {
            Self::Twice { .. } => Code::FAILED_PRECONDITION,
            Self::Invalid { .. } => Code::INVALID_ARGUMENT,
            Self::Kernel { .. } | Self::Share { .. } => Code::INTERNAL,
        }
    }
}

impl Coded for ResizeError {
    fn code(&self) -> Code {
        match self {
            Self::Processors { .. } => Code::INVALID_ARGUMENT,
            Self::Memory { .. } => Code::RESOURCE_EXHAUSTED,
            Self::Kernel { .. } => Code::INTERNAL,
        }
    }
}

impl Coded for DeviceError {
    fn code(&self) -> Code {
        match self {
            Self::NoPlace { .. } | Self::Empty { .. } => Code::NOT_FOUND,
            Self::Driverless { .. } | Self::Silent { .. } | Self::Kernel { .. } => Code::INTERNAL,
        }
    }
}

impl Coded for NetworkError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::INVALID_ARGUMENT,
            Self::NoCard(_) => Code::NOT_FOUND,
            Self::Kernel { .. } => Code::INTERNAL,
        }
    }
}

impl Coded for EventError {
    fn code(&self) -> Code {
        match self {
            Self::Busy => Code::FAILED_PRECONDITION,
            Self::Ending => Code::UNAVAILABLE,
        }
    }
}
