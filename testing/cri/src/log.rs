//! The format of container logs: `TIME STREAM TAG TEXT`, one line each, as kubelet reads them.

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether the line goes on in the next entry.
    pub partial: bool,
    /// Without its end.
    pub text: String,
}

/// Reads a log.
///
/// # Errors
/// The first line that is none.
pub fn parse(log: &str) -> Result<Vec<Line>, String> {
    log.lines()
        .map(|line| {
            parse_line(line).ok_or_else(|| format!("no line of a container's log: {line:?}"))
        })
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut parts = line.splitn(4, ' ');
    let time = parts.next()?.to_owned();
    let stream = parts.next()?.to_owned();
    let partial = match parts.next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    let is_time = time.contains('T') && time.len() >= "2026-01-01T00:00:00Z".len();
    (is_time && ["stdout", "stderr"].contains(&stream.as_str())).then(|| Line {
        time,
        stream,
        partial,
        text: parts.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_are_taken_apart() {
        let lines =
            parse("2026-01-02T03:04:05.6Z stdout F a b  c\n2026-01-02T03:04:05.6Z stderr P \n")
                .expect("a log");
        assert_eq!(lines[0].text, "a b  c");
        assert!(!lines[0].partial);
        assert_eq!(
            (lines[1].stream.as_str(), lines[1].text.as_str()),
            ("stderr", "")
        );
        assert!(lines[1].partial);
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "plain",
            "now stdout F x",
            "2026-01-02T03:04:05.6Z stdin F x",
            "2026-01-02T03:04:05.6Z stdout X x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
