//! A container's log: a line each, `TIME stdout|stderr F|P TEXT`, as Kubernetes' CRI has it
//! (<https://kubernetes.io/docs/concepts/cluster-administration/logging/>).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// A longer line is written in parts marked `P`.
const LINE_LIMIT: usize = 16 << 10;

/// A log file that several streams write to.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<File>>);

impl Log {
    /// Opens it for appending.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// What one stream of the container writes through.
    #[must_use]
    pub fn stream(&self, name: &'static str) -> LogStream {
        LogStream {
            log: self.clone(),
            name,
            line: Vec::new(),
        }
    }
}

/// One stream of a log; the rest of an unfinished line is written when it is dropped.
#[derive(Debug)]
pub struct LogStream {
    log: Log,
    name: &'static str,
    line: Vec<u8>,
}

impl LogStream {
    /// Takes bytes as they come, and writes the lines they complete.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        for part in data.split_inclusive(|&byte| byte == b'\n') {
            let mut part = part;
            while self.line.len() + part.len() > LINE_LIMIT {
                let (head, rest) = part.split_at(LINE_LIMIT - self.line.len());
                self.line.extend_from_slice(head);
                self.emit('P')?;
                part = rest;
            }
            self.line.extend_from_slice(part);
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
                self.emit('F')?;
            }
        }
        Ok(())
    }

    fn emit(&mut self, mark: char) -> io::Result<()> {
        let time = humantime::format_rfc3339_nanos(SystemTime::now());
        let mut record = format!("{time} {} {mark} ", self.name).into_bytes();
        record.append(&mut self.line);
        record.push(b'\n');
        self.log
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&record)
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // The last words are as good as the disk is.
            let _unwritable = self.emit('P');
        }
    }
}

/// One record of a log.
#[derive(Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// RFC 3339.
    pub time: &'a str,
    /// Whether it is of stderr.
    pub stderr: bool,
    /// Whether the line ends here.
    pub complete: bool,
    /// Without the line feed.
    pub text: &'a [u8],
}

/// Takes a record apart; nothing when it is not one.
#[must_use]
pub fn parse_record(line: &[u8]) -> Option<LogRecord<'_>> {
    let mut fields = line.splitn(4, |&byte| byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let stderr = match fields.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let complete = fields.next()? == b"F";
    Some(LogRecord {
        time,
        stderr,
        complete,
        text: fields.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(chunks: &[Vec<u8>]) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stream = Log::open(file.path()).unwrap().stream("stderr");
        for chunk in chunks {
            stream.write(chunk).unwrap();
        }
        drop(stream);
        let mut bytes = Vec::new();
        for line in std::fs::read(file.path())
            .unwrap()
            .split_inclusive(|&byte| byte == b'\n')
        {
            let record = parse_record(line.strip_suffix(b"\n").unwrap()).unwrap();
            assert!(record.stderr && record.text.len() <= LINE_LIMIT);
            bytes.extend_from_slice(record.text);
            if record.complete {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn long_lines_are_cut_and_come_back_whole() {
        let line = vec![b'x'; 3 * LINE_LIMIT + 5];
        assert_eq!(
            written(&[line.clone(), b"\nend".to_vec()]),
            [line, b"\nend".to_vec()].concat()
        );
    }

    proptest! {
        #[test]
        fn every_byte_comes_back(chunks in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 0..6)) {
            prop_assert_eq!(written(&chunks), chunks.concat());
        }
    }
}
