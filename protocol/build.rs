//! Generates the agent's messages and its ttrpc client and server from `proto/agent.proto`.
//!
//! Parser and generators are Rust: no protoc is needed. The generated files begin with inner
//! attributes, which `include!` accepts only inside a module's braces, so they are wrapped here.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/agent.proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    Codegen::new()
        .out_dir(&out)
        .input("proto/agent.proto")
        .include("proto")
        .rust_protobuf()
        .customize(Customize {
            async_all: true,
            ..Default::default()
        })
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .run()?;

    let mut wrapped = String::new();
    for module in ["agent", "agent_ttrpc"] {
        let code = fs::read_to_string(out.join(format!("{module}.rs")))?;
        wrapped.push_str(&format!("pub mod {module} {{\n{code}\n}}\n"));
    }
    fs::write(out.join("generated.rs"), wrapped)?;
    Ok(())
}
