//! PAX extended headers: records of the form `length SP key = value LF`.

use std::io;

use super::tar::invalid;

/// The records that matter for unpacking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
}

/// `GNU.sparse.*` records, formats 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    /// Format 1.0: the map stands in front of the content.
    pub(super) map_in_content: bool,
    /// Format 0.1: the map is a record.
    pub(super) map: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
}

/// Reads all records of one extended header.
pub(super) fn parse(mut body: &[u8]) -> io::Result<PaxRecords> {
    let mut records = PaxRecords::default();
    while !body.is_empty() {
        let (key, value, rest) =
            split_record(body).ok_or_else(|| invalid("a malformed PAX record".to_owned()))?;
        records.add(key, value)?;
        body = rest;
    }
    Ok(records)
}

/// Key, value and what follows the first record.
fn split_record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = number(&body[..space])?.try_into().ok()?;
    let record = body.get(space + 1..length)?;
    let (&newline, record) = record.split_last()?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (newline == b'\n').then_some((&record[..equals], &record[equals + 1..], &body[length..]))
}

impl PaxRecords {
    fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let wrong = || {
            invalid(format!(
                "a wrong value in PAX record {:?}",
                String::from_utf8_lossy(key)
            ))
        };
        // POSIX: an empty value takes back what the header block says elsewhere; the block's
        // own field counts then.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value).ok_or_else(wrong)?),
            b"uid" => self.uid = Some(number(value).ok_or_else(wrong)?),
            b"gid" => self.gid = Some(number(value).ok_or_else(wrong)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"GNU.sparse.major" => {
                let format = number(value).ok_or_else(wrong)?;
                self.sparse().map_in_content = format >= 1;
            }
            b"GNU.sparse.name" => self.sparse().name = Some(value.to_vec()),
            b"GNU.sparse.map" => self.sparse().map = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse().real_size = Some(number(value).ok_or_else(wrong)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                return Err(invalid(
                    "sparse format 0.0 is not supported, write the archive with 1.0".to_owned(),
                ));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut PaxSparse {
        self.sparse.get_or_insert_default()
    }
}

/// A decimal number.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    // `parse` would take a plus sign.
    text.starts_with(|first: char| first.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Seconds with an optional fraction, possibly negative: rounded down to a nanosecond.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(number(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_may_contain_newlines() {
        let body = b"29 SCHILY.xattr.user.a=1\n2\n3\n12 path=abc\n";
        let records = parse(body).unwrap();
        assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"1\n2\n3".to_vec())]);
        assert_eq!(records.path.unwrap(), b"abc");
    }

    #[test]
    fn times_round_down() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-12.25"), Some((-13, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        for bad in ["", ".", "1.x", "--1", "+1"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn any_records_parse_or_are_refused(
            pairs in proptest::collection::vec(
                ("(path|size|mtime|uid|GNU.sparse.(map|major|size)|SCHILY.xattr.[a-z]{0,4})", "\\PC{0,30}"),
                0..6,
            )
        ) {
            let mut body = Vec::new();
            for (key, value) in pairs {
                let rest = key.len() + value.len() + 3;
                let length = (rest..rest + 5).find(|length| length.to_string().len() + rest == *length).unwrap();
                body.extend(format!("{length} {key}={value}\n").into_bytes());
            }
            let _ = parse(&body);
        }
    }
}
