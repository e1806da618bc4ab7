//! The options that containerd passes for a runtime: where its configuration is.

use std::path::Path;

use containerd_shim_protos::protobuf::CodedInputStream;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::{self, Code};
use sandbox::config::Config;

use crate::status::{self, refuse};

/// containerd's options for runtimes it does not know: `ConfigPath` in its configuration, `--runtime-config-path` of ctr.
const GENERIC: &str = "runtimeoptions.v1.Options";
/// Those of its runc shim, which some engines pass to any runtime. They are about runc's program and folders.
const RUNC: &str = "containerd.runc.v1.Options";

/// The configuration to use.
pub fn config(options: Option<&Any>) -> ttrpc::Result<Config> {
    load(path(options)?.as_deref().map(Path::new))
}

/// Reads the configuration that was named, or else the machine's.
pub fn load(path: Option<&Path>) -> ttrpc::Result<Config> {
    let loaded = match path {
        Some(path) => Config::from_file(path),
        None => Config::load(),
    };
    loaded.map_err(|error| status::of(&error.into()))
}

/// Whether these are options for a runtime, as far as they are known.
pub fn is_of_runtime(options: &Any) -> bool {
    [GENERIC, RUNC].contains(&kind(options))
}

fn kind(options: &Any) -> &str {
    options.type_url.rsplit('/').next().unwrap_or_default()
}

/// The configuration that is named.
pub fn path(options: Option<&Any>) -> ttrpc::Result<Option<String>> {
    let Some(options) = options.filter(|options| !options.type_url.is_empty()) else {
        return Ok(None);
    };
    match kind(options) {
        RUNC => Ok(None),
        GENERIC => {
            let (path, has_body) = generic(&options.value).map_err(|error| {
                refuse(Code::INVALID_ARGUMENT, format!("runtime options: {error}"))
            })?;
            if has_body {
                return Err(refuse(
                    Code::UNIMPLEMENTED,
                    "unsupported: a configuration in the runtime options: put it into a file and pass ConfigPath",
                ));
            }
            Ok(path)
        }
        other => Err(refuse(
            Code::INVALID_ARGUMENT,
            format!("runtime options of type {other}: {GENERIC} is known"),
        )),
    }
}

/// `config_path` (2), and whether there is a `config_body` (3); `type_url` (1) says what our configuration is anyway.
fn generic(bytes: &[u8]) -> containerd_shim_protos::protobuf::Result<(Option<String>, bool)> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let (mut path, mut has_body) = (None, false);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        // Field and wire type; all three are of type 2, bytes behind their length.
        match tag {
            0x12 => path = Some(input.read_string()?).filter(|path| !path.is_empty()),
            0x1a => has_body = !input.read_bytes()?.is_empty(),
            _ => input.skip_field(wire_type(tag))?,
        }
    }
    Ok((path, has_body))
}

fn wire_type(tag: u32) -> containerd_shim_protos::protobuf::rt::WireType {
    use containerd_shim_protos::protobuf::rt::WireType;
    WireType::new(tag & 7).unwrap_or(WireType::LengthDelimited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: &str, value: &[u8]) -> Any {
        let mut any = Any::new();
        kind.clone_into(&mut any.type_url);
        any.value = value.to_vec();
        any
    }

    #[test]
    fn the_path_is_found_and_the_rest_is_told() {
        assert_eq!(path(None).unwrap(), None);
        assert_eq!(path(Some(&options(RUNC, b""))).unwrap(), None);
        let with_path = options(GENERIC, b"\x0a\x01t\x12\x04/a/b");
        assert_eq!(path(Some(&with_path)).unwrap().as_deref(), Some("/a/b"));
        for (wrong, named) in [
            (options(GENERIC, b"\x1a\x01x"), "ConfigPath"),
            (options(GENERIC, b"\x12\x70x"), "runtime options"),
            (options("other.Options", b""), "other.Options"),
        ] {
            let error = path(Some(&wrong)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
