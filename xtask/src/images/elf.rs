//! Just enough ELF to tell static programs from dynamic ones.

use anyhow::{Context, Result, bail};

const INTERPRETER: u32 = 3;

/// Whether a 64-bit little-endian ELF program asks for a dynamic loader.
pub fn needs_interpreter(program: &[u8]) -> Result<bool> {
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF program");
    }
    let table = usize::try_from(number::<8>(program, 32)?)?;
    let size = usize::try_from(number::<2>(program, 54)?)?;
    let count = usize::try_from(number::<2>(program, 56)?)?;
    for index in 0..count {
        let header = table
            .checked_add(index * size)
            .context("program headers beyond the address space")?;
        if number::<4>(program, header)? == u64::from(INTERPRETER) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn number<const SIZE: usize>(program: &[u8], offset: usize) -> Result<u64> {
    let bytes = program
        .get(offset..)
        .and_then(|rest| rest.get(..SIZE))
        .context("the ELF program is cut off")?;
    let mut wide = [0; 8];
    wide[..SIZE].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_dynamic_and_garbage_is_refused() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(needs_interpreter(&own).unwrap());
        assert!(needs_interpreter(&own[..60]).is_err());
        assert!(needs_interpreter(b"#!/bin/sh").is_err());
    }
}
