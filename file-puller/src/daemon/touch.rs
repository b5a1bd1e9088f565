//! `--touch-file`: a file whose modification time says when a release was published, for programs that watch a file.

use std::fs::{FileTimes, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::store::{CURRENT, RELEASES, STAGING};

/// The file of `--touch-file`.
#[derive(Debug, Clone)]
pub(crate) struct TouchFile(PathBuf);

impl TouchFile {
    /// Checks that the file is none of a volume's own.
    pub(crate) fn new(path: PathBuf, volume: &Path) -> Result<Self, String> {
        let inside = path.strip_prefix(volume).ok().and_then(|inside| inside.components().next());
        let taken = inside.and_then(|first| {
            [CURRENT, RELEASES, STAGING].into_iter().find(|name| first.as_os_str() == *name)
        });
        match taken {
            Some(name) => Err(format!(
                "--touch-file {} lies in {name}, which holds releases; put it beside, such as {}",
                path.display(),
                volume.join("touched").display()
            )),
            None => Ok(Self(path)),
        }
    }

    /// Sets the file's modification time to now, and makes the file where it is missing.
    ///
    /// A failure is logged and no more: what was published stays published.
    pub(crate) fn touch(&self) {
        if let Err(error) = self.try_touch() {
            tracing::warn!(path = %self.0.display(), %error, "cannot touch --touch-file");
        }
    }

    fn try_touch(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(&self.0)?;
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_beside_what_the_volume_holds() {
        let new = |path: &str| TouchFile::new(path.into(), Path::new("/content"));
        for path in ["/content/touched", "/run/touched", "/contents/current", "/content/currently"] {
            assert!(new(path).is_ok(), "{path}");
        }
        for path in ["/content/current", "/content/current/x", "/content/./releases/x", "/content/.staging/x"]
        {
            assert!(new(path).unwrap_err().contains("/content/touched"), "{path}");
        }
    }

    #[test]
    fn it_is_made_and_then_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("touched");
        let file = TouchFile::new(path.clone(), Path::new("/content")).unwrap();
        file.touch();
        let made = path.metadata().unwrap();
        std::fs::write(&path, "of somebody").unwrap();
        let long_ago = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        OpenOptions::new().write(true).open(&path).unwrap().set_times(long_ago).unwrap();
        file.touch();
        assert!(path.metadata().unwrap().modified().unwrap() >= made.modified().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"of somebody", "its content is left alone");
    }
}
