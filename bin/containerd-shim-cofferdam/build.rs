//! Generates the messages of `proto/pod.proto`.
//!
//! The generated file begins with inner attributes, which `include!` accepts only inside a module's braces.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use ttrpc_codegen::{Codegen, ProtobufCustomize};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/pod.proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    Codegen::new()
        .out_dir(&out)
        .input("proto/pod.proto")
        .include("proto")
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .run()?;
    let code = fs::read_to_string(out.join("pod.rs"))?;
    fs::write(out.join("messages.rs"), format!("mod pod {{\n{code}\n}}\n"))?;
    Ok(())
}
