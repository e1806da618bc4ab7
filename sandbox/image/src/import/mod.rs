//! Sources of images: each turns what it has into a [`Plan`](crate::store::Plan) and lets the
//! store do the rest.

mod archive;
mod credentials;
mod directory;
mod docker;
mod files;
mod http;
mod layout;
mod manifest;
mod registry;

use std::path::Path;

use files::Files;

use crate::store::ImageStore;
use crate::{Image, ImageError, Progress};

pub(crate) use registry::from_registry;

/// One image of a layout directory.
pub(crate) fn from_layout(
    store: &ImageStore,
    path: &Path,
    name: Option<&str>,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let files = directory::Directory::open(path)?;
    one(store, &files, name, progress)
}

/// Every image of a layout directory.
pub(crate) fn all_from_layout(
    store: &ImageStore,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ImageError> {
    let files = directory::Directory::open(path)?;
    all(store, &files, progress)
}

/// One image of an archive.
pub(crate) fn from_archive(
    store: &ImageStore,
    path: &Path,
    name: Option<&str>,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let key = archive::key(path, name)?;
    if let Some(key) = &key
        && let Some(image) = store.known_source(key)?
    {
        return Ok(image);
    }
    let session = store.begin()?;
    let files = archive::Archive::open(path, &session, &store.settings().limits)?;
    let image = one(store, &files, name, progress)?;
    if let Some(key) = key
        && archive::key(path, name)?.as_ref() == Some(&key)
        && archive::is_settled(path)
    {
        store.remember_source(&session, &key, &image)?;
    }
    Ok(image)
}

/// Every image of an archive.
pub(crate) fn all_from_archive(
    store: &ImageStore,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ImageError> {
    let session = store.begin()?;
    let files = archive::Archive::open(path, &session, &store.settings().limits)?;
    all(store, &files, progress)
}

/// The image of that name, or the only one.
fn one(
    store: &ImageStore,
    files: &dyn Files,
    name: Option<&str>,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let limits = &store.settings().limits;
    let found = found_in(files, limits, progress)?;
    let chosen = choose(files.path(), &found, name)?;
    import(store, files, chosen, progress)
}

fn all(
    store: &ImageStore,
    files: &dyn Files,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ImageError> {
    found_in(files, &store.settings().limits, progress)?
        .iter()
        .map(|found| import(store, files, found, progress))
        .collect()
}

fn import(
    store: &ImageStore,
    files: &dyn Files,
    found: &Found,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let limits = &store.settings().limits;
    let (plan, blobs) = match &found.form {
        Form::Docker(entry) => docker::plan(files, entry, &found.names, limits)?,
        Form::Oci(descriptor) => layout::plan(files, descriptor, &found.names, limits)?,
    };
    let session = store.begin()?;
    let layers = files::NamedLayers {
        files,
        names: blobs,
    };
    store.import(&session, &plan, &layers, progress)
}

/// An image that an archive or layout lists.
#[derive(Debug)]
struct Found {
    /// Full names.
    names: Vec<String>,
    /// What the list calls it, which may be a bare tag.
    labels: Vec<String>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Docker(docker::Entry),
    Oci(manifest::Descriptor),
}

/// Lists the images. Docker writes both lists into one archive; its own is the one that leaves
/// out what the archive does not contain.
fn found_in(
    files: &dyn Files,
    limits: &crate::Limits,
    progress: &dyn Progress,
) -> Result<Vec<Found>, ImageError> {
    let found = match docker::list(files, limits, progress)? {
        Some(found) => found,
        None => layout::list(files, limits, progress)?.ok_or_else(|| ImageError::NotAnImage {
            path: files.path().to_owned(),
            reason: "it has neither manifest.json (docker) nor index.json (OCI)".to_owned(),
        })?,
    };
    if found.is_empty() {
        return Err(ImageError::NotAnImage {
            path: files.path().to_owned(),
            reason: "its list of images has none for this machine".to_owned(),
        });
    }
    Ok(found)
}

fn choose<'a>(
    path: &Path,
    found: &'a [Found],
    name: Option<&str>,
) -> Result<&'a Found, ImageError> {
    let listed = || {
        let mut names: Vec<&str> = found
            .iter()
            .flat_map(|found| found.labels.iter().map(String::as_str))
            .collect();
        names.truncate(20);
        if names.is_empty() {
            "none has a name".to_owned()
        } else {
            names.join(", ")
        }
    };
    match (name, found) {
        (None, [only]) => Ok(only),
        (None, _) => Err(ImageError::Ambiguous {
            path: path.to_owned(),
            names: listed(),
        }),
        (Some(name), _) => {
            let full = crate::Reference::parse(name).map(|reference| reference.full());
            found
                .iter()
                .find(|found| {
                    found.labels.iter().any(|label| label == name)
                        || full.as_ref().is_ok_and(|full| found.names.contains(full))
                })
                .ok_or_else(|| ImageError::NotAnImage {
                    path: path.to_owned(),
                    reason: format!("it has no image called {name:?} ({})", listed()),
                })
        }
    }
}

/// The full name that a label stands for; a bare tag stands for none.
fn full_name(label: &str, progress: &dyn Progress) -> Option<String> {
    if !label.contains(['/', ':']) {
        return None;
    }
    match crate::Reference::parse(label) {
        Ok(reference) => Some(reference.full()),
        Err(error) => {
            progress.event(crate::Event::Note {
                text: &format!("name left out: {error}"),
            });
            None
        }
    }
}
