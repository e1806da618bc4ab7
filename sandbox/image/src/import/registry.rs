//! Pulling an image from a registry.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};

use super::http::{Attempt, Repository, transient};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::{credentials, layout};
use crate::store::{ImageStore, Layers, Plan, Session};
use crate::{Digest, Event, Image, ImageError, Limits, Progress, Reference};

/// Layers that are fetched at the same time.
const PARALLEL: usize = 3;
/// Longest time for a manifest or configuration, each attempt.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes a second below which a layer's transfer is given up, on the whole of it.
const SLOWEST: u64 = 4 << 10;
/// Bytes between two progress events.
const PROGRESS_INTERVAL: u64 = 256 << 10;

/// Media types of manifests and indexes.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Pulls an image; layers that the store has are not fetched.
pub(crate) fn from_registry(
    store: &ImageStore,
    reference: &Reference,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let full = reference.full();
    progress.event(Event::Resolving { reference: &full });
    let settings = store.settings();
    let config = credentials::config_path(settings.docker_config.as_deref());
    let login = credentials::find(config.as_deref(), reference.registry(), progress)?;
    let session = store.begin()?;
    // On a thread of its own: the caller may be inside a runtime, where blocking on another one
    // is a panic.
    let plan = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(ImageError::io("start a runtime for", full))?;
            runtime.block_on(async {
                let pull = Pull {
                    store,
                    reference,
                    repository: Repository::connect(reference, login, settings, progress).await?,
                    session: &session,
                    progress,
                };
                pull.fetch().await
            })
        });
        fetching
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    store.import(&session, &plan, &Fetched { session: &session }, progress)
}

struct Pull<'a> {
    store: &'a ImageStore,
    reference: &'a Reference,
    repository: Repository<'a>,
    session: &'a Session,
    progress: &'a dyn Progress,
}

impl Pull<'_> {
    /// Fetches and verifies everything that the store lacks.
    async fn fetch(&self) -> Result<Plan, ImageError> {
        let limits = &self.store.settings().limits;
        let label = self.reference.full();
        let (bytes, manifest) = self.manifest(limits).await?;
        let expected = manifest.config.digest()?;
        let config = self
            .document(
                &format!("blobs/{expected}"),
                "*/*",
                &format!("configuration of {label}"),
                limits.config_bytes,
                Some(&expected),
            )
            .await?;
        let names = vec![label.clone()];
        let plan = layout::plan_from(label, names, bytes, &manifest, config, limits)?;
        let present = self.store.pin(self.session, &plan.layers)?;
        let missing: Vec<usize> = (0..plan.layers.len())
            .filter(|index| !present[*index])
            .collect();
        self.check_space(&plan, &missing, limits)?;
        stream::iter(missing)
            .map(|index| self.layer(&plan, index))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(plan)
    }

    /// Follows indexes to the manifest for this machine.
    async fn manifest(&self, limits: &Limits) -> Result<(Vec<u8>, Manifest), ImageError> {
        let label = self.reference.full();
        let mut expected: Option<Digest> = self.reference.digest().map(str::parse).transpose()?;
        let mut wanted = match &expected {
            Some(digest) => digest.to_string(),
            None => self.reference.oci().tag().unwrap_or("latest").to_owned(),
        };
        for _ in 0..4 {
            let what = format!("manifest of {label}");
            let path = format!("manifests/{wanted}");
            let bytes = self
                .document(
                    &path,
                    ACCEPT,
                    &what,
                    limits.manifest_bytes,
                    expected.as_ref(),
                )
                .await?;
            match Document::parse(&bytes, &label)? {
                Document::Image(manifest) => {
                    manifest.check(&label)?;
                    return Ok((bytes, manifest));
                }
                Document::Index(entries) => {
                    let entry: &Descriptor = manifest::for_this_machine(&entries)
                        .first()
                        .copied()
                        .ok_or_else(|| manifest::wrong_platform(&label, &entries))?;
                    let digest = entry.digest()?;
                    wanted = digest.to_string();
                    expected = Some(digest);
                }
            }
        }
        Err(layout::too_many_indexes(&label))
    }

    /// Fetches something small into memory.
    async fn document(
        &self,
        path: &str,
        accept: &str,
        what: &str,
        limit: u64,
        expected: Option<&Digest>,
    ) -> Result<Vec<u8>, ImageError> {
        let attempt = || async {
            let fetch = self.document_once(path, accept, what, limit);
            tokio::time::timeout(DOCUMENT_TIMEOUT, fetch)
                .await
                .unwrap_or_else(|_| {
                    Err(Attempt::Transient(format!(
                        "it did not arrive within {} s",
                        DOCUMENT_TIMEOUT.as_secs()
                    )))
                })
        };
        let bytes = self.repository.retry(what, attempt).await?;
        if let Some(expected) = expected {
            layout::verify(&bytes, expected, || what.to_owned())?;
        }
        Ok(bytes)
    }

    async fn document_once(
        &self,
        path: &str,
        accept: &str,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, Attempt> {
        let mut response = self.repository.get(path, accept).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| transient(&error))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Attempt::Final(ImageError::TooLarge {
                    what: what.to_owned(),
                    limit,
                    unit: "bytes",
                }));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Refuses before the first byte what cannot fit.
    fn check_space(
        &self,
        plan: &Plan,
        missing: &[usize],
        limits: &Limits,
    ) -> Result<(), ImageError> {
        let mut sum = 0_u64;
        for index in missing {
            let size = plan.layers[*index]
                .blob
                .as_ref()
                .map_or(0, |(_, size)| *size);
            if size > limits.layer_bytes {
                return Err(ImageError::TooLarge {
                    what: format!("layer {} of {}", index + 1, plan.label),
                    limit: limits.layer_bytes,
                    unit: "bytes",
                });
            }
            sum = sum.saturating_add(size);
        }
        let path = self.session.path("");
        let space = rustix::fs::statvfs(&path)
            .map_err(|errno| ImageError::io("look at", &path)(errno.into()))?;
        if space.f_bavail.saturating_mul(space.f_frsize)
            < sum.saturating_add(limits.keep_free_bytes)
        {
            return Err(ImageError::NoSpace { path });
        }
        Ok(())
    }

    /// Fetches one layer into the session.
    async fn layer(&self, plan: &Plan, index: usize) -> Result<(), ImageError> {
        let Some((digest, size)) = &plan.layers[index].blob else {
            return Ok(());
        };
        let what = format!("layer {} of {}", index + 1, plan.label);
        let path = blob_path(self.session, index);
        let patience = self.store.settings().read_timeout * 2 + Duration::from_secs(size / SLOWEST);
        let attempt = || async {
            let fetch = self.layer_once(&what, digest, *size, &path);
            tokio::time::timeout(patience, fetch)
                .await
                .unwrap_or_else(|_| {
                    Err(Attempt::Transient(format!(
                        "{size} bytes did not arrive within {} s",
                        patience.as_secs()
                    )))
                })
        };
        self.repository.retry(&what, attempt).await
    }

    async fn layer_once(
        &self,
        what: &str,
        digest: &Digest,
        size: u64,
        path: &Path,
    ) -> Result<(), Attempt> {
        let mut file = File::create(path).map_err(ImageError::io("create", path))?;
        let mut response = self
            .repository
            .get(&format!("blobs/{digest}"), "*/*")
            .await?;
        let mut hasher = Sha256::new();
        let mut done = 0_u64;
        let mut told = 0_u64;
        while let Some(chunk) = response.chunk().await.map_err(|error| transient(&error))? {
            done += chunk.len() as u64;
            if done > size {
                return Err(Attempt::Final(ImageError::SizeMismatch {
                    what: what.to_owned(),
                    expected: size,
                    actual: done,
                }));
            }
            hasher.update(&chunk);
            file.write_all(&chunk)
                .map_err(ImageError::io("write", path))?;
            if done - told >= PROGRESS_INTERVAL || done == size {
                told = done;
                self.progress.event(Event::Downloading {
                    layer: digest,
                    done,
                    total: size,
                });
            }
        }
        let actual = Digest::from_hasher(hasher);
        if actual != *digest {
            return Err(Attempt::Final(ImageError::DigestMismatch {
                what: what.to_owned(),
                expected: digest.clone(),
                actual,
            }));
        }
        Ok(())
    }
}

/// Where a layer's blob is kept until it is unpacked.
fn blob_path(session: &Session, index: usize) -> PathBuf {
    session.path(&format!("blob-{index}"))
}

/// The fetched layers.
struct Fetched<'a> {
    session: &'a Session,
}

impl Layers for Fetched<'_> {
    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>, ImageError> {
        let path = blob_path(self.session, index);
        let file = File::open(&path).map_err(ImageError::io("open", &path))?;
        // The descriptor is enough, and the space is free again as soon as the layer is unpacked.
        std::fs::remove_file(&path).map_err(ImageError::io("remove", path))?;
        Ok(Box::new(file))
    }
}
