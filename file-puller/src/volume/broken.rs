//! Volumes of which a part cannot do what it should, for tests of what becomes of that.

use std::os::fd::OwnedFd;

use super::Volume;

impl Volume {
    /// The volume with something else in the place of its directory of releases.
    pub(crate) fn with_releases(self, releases: OwnedFd) -> Self {
        Self { releases, ..self }
    }
}
