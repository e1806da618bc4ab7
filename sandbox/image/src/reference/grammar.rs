//! The grammar of references, as docker has it
//! (<https://pkg.go.dev/github.com/distribution/reference>).
//!
//! `oci-client` has it as one regular expression, whose compilation takes longer than starting a container may.

use oci_client::Reference as OciReference;

/// Longest repository.
const REPOSITORY_LIMIT: usize = 255;
/// Longest tag.
const TAG_LIMIT: usize = 128;
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// Reads `[registry/]repository[:tag][@digest]`; the error says what is wrong.
pub(super) fn parse(text: &str) -> Result<OciReference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        // Behind the last `/`: before it, it is a port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(check_tag(tag)?)),
        _ => (rest, None),
    };
    let (registry, repository) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (check_registry(first)?, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    check_repository(repository)?;
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if repository.len() > REPOSITORY_LIMIT {
        return Err(format!(
            "the repository is longer than {REPOSITORY_LIMIT} bytes"
        ));
    }
    let registry = registry.to_owned();
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => OciReference::with_tag_and_digest(
            registry,
            repository,
            tag.to_owned(),
            digest.to_owned(),
        ),
        (None, Some(digest)) => OciReference::with_digest(registry, repository, digest.to_owned()),
        (tag, None) => {
            OciReference::with_tag(registry, repository, tag.unwrap_or(DEFAULT_TAG).to_owned())
        }
    })
}

/// Whether what stands before the first `/` is a host rather than a folder.
fn is_registry(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

fn check_registry(text: &str) -> Result<&str, String> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        label.bytes().all(plain)
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(is_label) {
        return Err(format!("{host:?} is not a host"));
    }
    if let Some(port) = port
        && (port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(format!("{port:?} is not a port"));
    }
    Ok(if text == "index.docker.io" {
        DEFAULT_REGISTRY
    } else {
        text
    })
}

fn check_repository(text: &str) -> Result<(), String> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a repository is written in small letters".to_owned());
    }
    match text.split('/').find(|component| !is_component(component)) {
        Some("") => Err("a part of its path is empty".to_owned()),
        Some(component) => Err(format!(
            "{component:?} cannot be a part of a repository's path"
        )),
        None => Ok(()),
    }
}

/// Small letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let mut begun = false;
    for letter in text.chars() {
        match u8::try_from(letter) {
            Ok(byte) if is_word(byte) => {
                let joins = matches!(separator.as_str(), "" | "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-');
                if !joins {
                    return false;
                }
                separator.clear();
                begun = true;
            }
            Ok(b'.' | b'_' | b'-') if begun => separator.push(letter),
            _ => return false,
        }
    }
    begun && separator.is_empty()
}

fn check_tag(text: &str) -> Result<&str, String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_tag = text.len() <= TAG_LIMIT
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
    if is_tag {
        Ok(text)
    } else {
        Err(format!("{text:?} is not a tag"))
    }
}

fn check_digest(text: &str) -> Result<&str, String> {
    let digits = match text.split_once(':') {
        Some(("sha256", digits)) => Some((digits, 64)),
        Some(("sha384", digits)) => Some((digits, 96)),
        Some(("sha512", digits)) => Some((digits, 128)),
        _ => None,
    };
    match digits {
        Some((digits, length))
            if digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(text)
        }
        _ => Err(format!("{text:?} is not a digest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the library says.
    fn library(text: &str) -> Option<String> {
        text.parse::<OciReference>().ok().map(|one| one.whole())
    }

    fn ours(text: &str) -> Option<String> {
        parse(text).ok().map(|one| one.whole())
    }

    #[test]
    fn known_ones_are_read_as_the_library_reads_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for text in [
            "busybox",
            "busybox:1.36",
            "a/b/c",
            "localhost/x",
            "localhost:5000",
            "localhost:5000/x:y",
            "index.docker.io/x",
            "docker.io/a/b:c",
            "Registry.Example.org:443/a.b/c_d/e__f/g---h:T.a-g_",
            "1.2.3.4/x",
            "x:",
            "x:.t",
            "/x",
            "x/",
            "a//b",
            "a..b",
            "a___b",
            "a._b",
            "-a.b/x",
            "a-.b/x",
            "a.b:/x",
            "a.b:c/x",
            "a:b:c",
            ":x",
            "@",
            &format!("x@{digest}"),
            &format!("x:t@{digest}"),
            &format!("x@{digest}0"),
            "x@md5:00000000000000000000000000000000",
            &"x".repeat(248),
            &"x".repeat(247),
            &format!("x:{}", "t".repeat(128)),
            &format!("x:{}", "t".repeat(129)),
        ] {
            assert_eq!(ours(text), library(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn others_too(text in "[a-c0._:/@-]{0,14}", host in prop_oneof!["", "localhost/", "a.b:1/"]) {
            let text = format!("{host}{text}");
            prop_assert_eq!(ours(&text), library(&text), "{}", text);
        }
    }
}
