//! The kernel inside a bzImage. Unpacking it once saves the emulated machine from doing so at each boot.
//!
//! Follows Linux `Documentation/arch/x86/boot.rst` for where the compressed kernel is, and LZ4's
//! `doc/lz4_Frame_format.md`, "Legacy frame", for what it is: blocks behind their lengths. Debian compresses with LZ4.

use anyhow::{Context, Result, bail};

const SECTORS: usize = 0x1f1;
const HEADER: (usize, &[u8]) = (0x202, b"HdrS");
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

const LEGACY_FRAME: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// The most that one block is unpacked to.
const BLOCK: usize = 8 << 20;

/// The kernel as ELF.
pub fn extract(image: &[u8]) -> Result<Vec<u8>> {
    let (at, mark) = HEADER;
    if image.get(at..at + mark.len()) != Some(mark) {
        bail!("not a bzImage");
    }
    let sectors = match image.get(SECTORS) {
        // As the boot protocol has it.
        Some(0) | None => 4,
        Some(&sectors) => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + number(image, PAYLOAD_OFFSET)?;
    let length = number(image, PAYLOAD_LENGTH)?;
    let payload = image
        .get(start..)
        .and_then(|rest| rest.get(..length))
        .context("the image is cut off")?;
    let kernel = unpack(payload)?;
    if kernel.get(..4) != Some(b"\x7fELF") {
        bail!("what is in it is no ELF file");
    }
    Ok(kernel)
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>> {
    if payload.get(..4) != Some(&LEGACY_FRAME) {
        bail!("the kernel is not compressed with LZ4");
    }
    // The kernel's build appends the size of what is unpacked.
    let end = payload.len().checked_sub(4).context("too short")?;
    let size = number(payload, end)?;
    let mut unpacked = Vec::with_capacity(size.min(256 << 20));
    let mut offset = 4;
    while offset < end {
        let length = number(payload, offset)?;
        offset += 4;
        let block = payload
            .get(offset..end)
            .and_then(|rest| rest.get(..length))
            .context("a block is cut off")?;
        let block = lz4_flex::block::decompress(block, BLOCK).context("unpack a block")?;
        unpacked.extend_from_slice(&block);
        offset += length;
    }
    if unpacked.len() != size {
        bail!("{} bytes instead of {size} were in it", unpacked.len());
    }
    Ok(unpacked)
}

fn number(bytes: &[u8], offset: usize) -> Result<usize> {
    let field = bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .context("the image is cut off")?;
    Ok(usize::try_from(u32::from_le_bytes(*field))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kernel: &[u8]) -> Vec<u8> {
        let mut payload = LEGACY_FRAME.to_vec();
        for block in kernel.chunks(1000) {
            let block = lz4_flex::block::compress(block);
            payload.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
            payload.extend_from_slice(&block);
        }
        payload.extend_from_slice(&u32::try_from(kernel.len()).unwrap().to_le_bytes());
        let mut image = vec![0; 2 * SECTOR + 100];
        image[SECTORS] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 100;
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length);
        image.extend_from_slice(&payload);
        image
    }

    #[test]
    fn the_kernel_comes_out_whole() {
        let mut kernel = b"\x7fELF".to_vec();
        kernel.extend((0..5000_u32).map(|number| (number % 251) as u8));
        let image = image(&kernel);
        assert_eq!(extract(&image).unwrap(), kernel);
        assert!(extract(&image[..image.len() - 5]).is_err());
        assert!(extract(b"").is_err());
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let error = extract(&image(b"a text")).unwrap_err();
        assert!(error.to_string().contains("no ELF"), "{error}");
    }
}
