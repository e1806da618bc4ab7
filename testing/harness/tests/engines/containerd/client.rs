//! A client of a shim's task service, for what `ctr` does not show: codes of errors, states, order.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::protobuf::{EnumOrUnknown, Message};
use containerd_shim_protos::ttrpc::{Client, Code, Error, Request};

/// A call never takes as long.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a shim.
pub struct Task(Client);

impl Task {
    /// Connects.
    pub fn connect(socket: &Path) -> Self {
        let address = format!("unix://{}", socket.display());
        Self(Client::connect(&address).expect("the shim's socket"))
    }

    /// One call; an error is the name of its code and its text.
    pub fn call<A: Message>(&self, method: &str, request: &impl Message) -> Result<A, Refusal> {
        let mut call = Request::new();
        // What containerd before 2.0 speaks; runc's shim there knows no other.
        "containerd.task.v2.Task".clone_into(&mut call.service);
        method.clone_into(&mut call.method);
        call.timeout_nano = i64::try_from(LIMIT.as_nanos()).expect("a short time");
        call.payload = request.write_to_bytes().expect("a request");
        match self.0.request(call) {
            Ok(answer) => Ok(A::parse_from_bytes(&answer.payload).expect("an answer")),
            Err(Error::RpcStatus(status)) => Err(Refusal {
                code: status.code,
                text: status.message,
            }),
            Err(other) => panic!("{method}: {other}"),
        }
    }

    /// The code of a call's answer, whatever it is.
    pub fn code(&self, method: &str, request: &impl Message) -> Code {
        match self.call::<containerd_shim_protos::api::Empty>(method, request) {
            Ok(_) => Code::OK,
            Err(refusal) => refusal.code.enum_value().unwrap_or(Code::UNKNOWN),
        }
    }

    /// One call that has to be refused; answers its code.
    pub fn refused(&self, method: &str, request: &impl Message) -> Code {
        let answer = self.call::<containerd_shim_protos::api::Empty>(method, request);
        let refusal = answer.expect_err(method);
        refusal
            .code
            .enum_value()
            .unwrap_or_else(|code| panic!("{method}: code {code}: {}", refusal.text))
    }
}

/// Why a call was refused.
#[derive(Debug)]
pub struct Refusal {
    code: EnumOrUnknown<Code>,
    text: String,
}
