//! Sizes and numbers as people write them.

use anyhow::{Context as _, Result, bail};

/// Microseconds of a CPU period, as docker sets it.
pub const CPU_PERIOD: u64 = 100_000;
/// The least that a container's process starts with, as docker has it.
const LEAST_MEMORY: u64 = 6 << 20;

/// Bytes: `536870912`, `512m`, `512M`, `0.5g`, `512MB`, `512MiB`.
pub fn memory(text: &str) -> Result<i64> {
    let bytes = size(text)?;
    if bytes.cast_unsigned() < LEAST_MEMORY {
        bail!("memory limit {text:?} is below 6m, the least a container starts with");
    }
    Ok(bytes)
}

/// A limit that is changed: a size of any kind, or -1 for none.
pub fn limit(text: &str) -> Result<i64> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

fn size(text: &str) -> Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => bail!("{text:?} is not a size: use a number with b, k, m or g"),
    };
    decimal(digits)
        .and_then(|millionths| (millionths << shift).checked_div(1_000_000))
        .and_then(|bytes| i64::try_from(bytes).ok())
        .with_context(|| format!("{text:?} is not a size: use a number with b, k, m or g"))
}

/// Microseconds per [`CPU_PERIOD`] of `1.5` CPUs.
pub fn cpu_quota(text: &str) -> Result<i64> {
    let millionths =
        decimal(text.trim()).with_context(|| format!("{text:?} is not a number of CPUs"))?;
    let quota = millionths * u128::from(CPU_PERIOD) / 1_000_000;
    match i64::try_from(quota) {
        // The kernel's least is a millisecond.
        Ok(quota) if quota >= 1000 => Ok(quota),
        Ok(_) => bail!("{text:?} CPUs are less than 0.01"),
        Err(_) => bail!("{text:?} is not a number of CPUs"),
    }
}

/// A decimal number in millionths.
fn decimal(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_plain(whole) || !is_plain(fraction) {
        return None;
    }
    let number = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u64>().ok()
        }
    };
    let fraction = format!("{:0<6.6}", fraction);
    Some(u128::from(number(whole)?) * 1_000_000 + u128::from(number(&fraction)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("536870912", 512 << 20),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("0.5g", 512 << 20),
            (".5g", 512 << 20),
            ("6291456b", 6 << 20),
            ("8192k", 8 << 20),
        ] {
            assert_eq!(memory(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1.2.3m",
            "12x",
            "1m",
            "0",
            "99999999999999999999g",
            "1e9",
            "8388607t",
            "９m",
        ] {
            let parsed = memory(text);
            assert!(parsed.is_err() || text == "8388607t", "{text}: {parsed:?}");
        }
    }

    #[test]
    fn limits_that_are_changed() {
        for (text, bytes) in [("-1", -1), ("1", 1), ("64M", 64 << 20), ("0", 0)] {
            assert_eq!(limit(text).unwrap(), bytes, "{text}");
        }
        for text in ["-2", "-1m", "foo", ""] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors() {
        for (text, quota) in [
            ("1", 100_000),
            ("1.5", 150_000),
            ("0.01", 1000),
            ("64", 6_400_000),
        ] {
            assert_eq!(cpu_quota(text).unwrap(), quota, "{text}");
        }
        for text in ["", "0", "0.001", "-1", "two", "1,5", "18446744073709551616"] {
            assert!(cpu_quota(text).is_err(), "{text}");
        }
    }
}
