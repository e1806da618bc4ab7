//! `images`: lists the images of the store.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::SandboxError;
use sandbox::config::Config;
use sandbox_image::ImageSummary;
use serde_json::json;

use super::{age, storage};
use crate::cli::{ImagesArgs, ListFormat};
use crate::oci::list::table;

/// Digits of an id that tell images apart.
const SHORT_ID: usize = 12;

/// Runs the command.
pub fn run(args: &ImagesArgs) -> Result<ExitCode> {
    let config = Config::load().map_err(SandboxError::from)?;
    let images = storage::images(&config)?.list()?;
    if args.quiet {
        for image in &images {
            println!("{}", short(image));
        }
        return Ok(ExitCode::SUCCESS);
    }
    match args.format {
        ListFormat::Json => {
            let images: Vec<_> = images
                .iter()
                .map(|image| {
                    json!({
                        "id": image.digest.to_string(),
                        "names": image.names,
                        "manifestDigest": image.manifest_digest.as_ref().map(ToString::to_string),
                        "created": image.created,
                        "size": image.size,
                        "os": image.os,
                        "architecture": image.architecture,
                        "usedBy": image.used_by,
                    })
                })
                .collect();
            println!("{}", serde_json::to_string(&images)?);
        }
        ListFormat::Table => {
            let rows = images.iter().flat_map(|image| {
                let names = if image.names.is_empty() {
                    vec!["<none>".to_owned()]
                } else {
                    image.names.clone()
                };
                names.into_iter().map(|name| {
                    let (repository, tag) = split(&name);
                    [
                        repository,
                        tag,
                        short(image),
                        age::ago(image.created.as_deref()),
                        size(image.size),
                    ]
                })
            });
            print!(
                "{}",
                table(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], rows)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn short(image: &ImageSummary) -> String {
    image.digest.hex().chars().take(SHORT_ID).collect()
}

/// Repository and tag; docker's own registry is not shown.
fn split(name: &str) -> (String, String) {
    let shown = name
        .strip_prefix("docker.io/library/")
        .or_else(|| name.strip_prefix("docker.io/"))
        .unwrap_or(name);
    let plain = shown.split('@').next().unwrap_or(shown);
    match plain.rsplit_once(':') {
        // A port has a path behind it.
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (plain.to_owned(), "<none>".to_owned()),
    }
}

/// `4.2MB`, by thousands as docker counts.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    if tenths >= 1000 || unit == 0 {
        format!("{}{}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_are_short() {
        for (name, repository, tag) in [
            ("docker.io/library/busybox:latest", "busybox", "latest"),
            ("docker.io/a/b:1", "a/b", "1"),
            ("localhost:5000/a:1", "localhost:5000/a", "1"),
            ("localhost:5000/a@sha256:00", "localhost:5000/a", "<none>"),
            ("<none>", "<none>", "<none>"),
        ] {
            assert_eq!(split(name), (repository.to_owned(), tag.to_owned()));
        }
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1500, "1.5kB"),
            (4_290_000, "4.2MB"),
            (125_000_000, "125MB"),
            (u64::MAX, "1844674TB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
