//! Finds out how a stream is compressed by looking at it; media types and file names lie.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::ImageError;

/// How a stream was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
}

const BUFFER: usize = 128 << 10;

/// Gives the decompressed stream. `what` names it in errors.
pub(crate) fn decompress<'a>(
    mut input: impl Read + 'a,
    what: &str,
) -> Result<(Box<dyn Read + 'a>, Compression), ImageError> {
    let broken = |source: io::Error| ImageError::BadLayer {
        layer: what.to_owned(),
        source,
    };
    let mut head = Vec::with_capacity(8);
    input
        .by_ref()
        .take(6)
        .read_to_end(&mut head)
        .map_err(broken)?;
    let method = detect(&head).map_err(|method| ImageError::Compression {
        what: what.to_owned(),
        method,
    })?;
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(head).chain(input));
    let plain: Box<dyn Read + 'a> = match method {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(whole).map_err(broken)?)
        }
    };
    Ok((plain, method))
}

/// The method that the first bytes stand for, or the name of one that is not supported.
fn detect(head: &[u8]) -> Result<Compression, &'static str> {
    match head {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        // A frame, or a skippable frame in front of one as zstd:chunked has it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', ..] => Err("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err("xz"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Err("lz4"),
        _ => Ok(Compression::None),
    }
}
