//! How long ago something was, in people's words.

use std::time::{Duration, SystemTime};

/// The time since an RFC 3339 time; nothing when it is none.
pub fn since(time: &str) -> Option<Duration> {
    let then = humantime::parse_rfc3339_weak(time.trim_end_matches('Z')).ok()?;
    // A clock that was set back is no reason to show nothing.
    Some(
        SystemTime::now()
            .duration_since(then)
            .unwrap_or(Duration::ZERO),
    )
}

/// `3 minutes`.
pub fn words(age: Duration) -> String {
    let seconds = age.as_secs();
    let of = |count: u64, unit: &str| match count {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    };
    match seconds {
        0 => "less than a second".to_owned(),
        1..60 => of(seconds, "second"),
        60..3600 => of(seconds / 60, "minute"),
        3600..172_800 => of(seconds / 3600, "hour"),
        172_800..1_209_600 => of(seconds / 86_400, "day"),
        1_209_600..5_184_000 => of(seconds / 604_800, "week"),
        5_184_000..63_072_000 => of(seconds / 2_592_000, "month"),
        _ => of(seconds / 31_536_000, "year"),
    }
}

/// `3 minutes ago`; empty when the time is not known.
pub fn ago(time: Option<&str>) -> String {
    time.and_then(since)
        .map(|age| format!("{} ago", words(age)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_people() {
        for (seconds, text) in [
            (0, "less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (1_300_000, "2 weeks"),
            (63_072_000, "2 years"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
        assert!(since("2020-01-02T03:04:05.123456789Z").unwrap().as_secs() > 0);
        assert_eq!(since("yesterday"), None);
    }
}
