//! What is followed, and what is remembered of it from one sync to the next: [`Followed`].

use super::git::Repository;
use super::image::ImageSource;
use super::outcome::Revision;
use crate::content::Selection;
use crate::git::GitOptions;
use crate::oci::{Platform, Registry};
use crate::source::{Kind, SourceUrl};

/// What a source's URL names.
#[derive(Debug)]
pub(super) enum Followed {
    /// A manifest or an archive.
    File,
    Repository(Repository),
    Image(ImageSource),
}

impl Followed {
    pub(super) fn new(
        url: &SourceUrl,
        selection: &Selection,
        git: GitOptions,
        platform: Option<Platform>,
    ) -> Self {
        match (url.kind(), url.image()) {
            (Some(Kind::Repository), _) => Self::Repository(Repository::new(url, git, selection)),
            (Some(Kind::Image), Some(image)) => {
                Self::Image(ImageSource::new(Registry::new(image.clone(), platform)))
            }
            _ => Self::File,
        }
    }

    /// What the published release is in its source, where that has names for its states.
    pub(super) fn revision(&self) -> Option<Revision> {
        match self {
            Self::File => None,
            Self::Repository(repository) => {
                repository.commit().map(|commit| Revision::Commit(commit.to_owned()))
            }
            Self::Image(image) => image.digest().map(Revision::Digest),
        }
    }

    /// Makes the next sync compare the volume with the source, whether or not that has changed.
    pub(super) fn distrust(&mut self) {
        match self {
            Self::File => {}
            Self::Repository(repository) => repository.distrust(),
            Self::Image(image) => image.distrust(),
        }
    }
}
