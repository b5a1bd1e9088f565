//! What is followed, and what is remembered of it from one sync to the next: [`Followed`].

use super::error::SyncError;
use super::git::Repository;
use super::image::ImageSource;
use crate::git::GitOptions;
use crate::oci::{Platform, Registry, RegistryError};
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
    pub(super) fn new(url: &SourceUrl, git: GitOptions, platform: Option<Platform>) -> Self {
        match (url.kind(), url.image()) {
            (Some(Kind::Repository), _) => Self::Repository(Repository::new(git)),
            (Some(Kind::Image), Some(image)) => {
                Self::Image(ImageSource::new(Registry::new(image.clone(), platform)))
            }
            _ => Self::File,
        }
    }

    /// The repository, where that is what is followed.
    pub(super) fn repository(&mut self) -> Result<&mut Repository, SyncError> {
        match self {
            Self::Repository(repository) => Ok(repository),
            Self::File | Self::Image(_) => Err(SyncError::Repository("no repository is followed".to_owned())),
        }
    }

    /// The image, where that is what is followed.
    pub(super) fn image(&mut self) -> Result<&mut ImageSource, SyncError> {
        match self {
            Self::Image(image) => Ok(image),
            Self::File | Self::Repository(_) => {
                Err(RegistryError::Refused("no image is followed".to_owned()).into())
            }
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
