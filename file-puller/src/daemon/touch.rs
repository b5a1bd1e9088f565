//! `--touch-file`: a file whose modification time says when a release was published, for programs that watch a file.

use std::fs::{self, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{self, Component, Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::store::{CURRENT, RELEASES, STAGING};

/// The file of `--touch-file`.
#[derive(Debug, Clone)]
pub(crate) struct TouchFile {
    path: PathBuf,
    volume: PathBuf,
}

impl TouchFile {
    /// Checks that the file is none of a volume's own, as far as this can be seen before there is a release.
    pub(crate) fn new(path: PathBuf, volume: &Path) -> Result<Self, String> {
        let file = Self { path, volume: volume.to_owned() };
        let (path, volume) = (plain(&file.path)?, plain(&file.volume)?);
        let inside = path.strip_prefix(volume).ok().and_then(|inside| inside.components().next());
        let named = inside.and_then(|first| {
            [CURRENT, RELEASES, STAGING].into_iter().find(|name| first.as_os_str() == *name)
        });
        let found = || resolve(&file.path).ok().and_then(|resolved| file.holder(&resolved));
        match named.or_else(found) {
            Some(name) => Err(file.refusal(name)),
            None => Ok(file),
        }
    }

    /// Sets the file's modification time to now, and makes the file where it is missing.
    ///
    /// A failure is logged and no more: what was published stays published.
    pub(crate) fn touch(&self) {
        if let Err(error) = self.try_touch() {
            tracing::warn!(path = %self.path.display(), %error, "cannot touch --touch-file");
        }
    }

    fn try_touch(&self) -> io::Result<()> {
        let resolved = resolve(&self.path)?;
        // A link on the way may point into a release only now that there is one.
        if let Some(name) = self.holder(&resolved) {
            return Err(io::Error::other(self.refusal(name)));
        }
        let mut options = OpenOptions::new();
        // A link that has come since was not looked at, and may lead anywhere.
        options.create(true).append(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        options.open(resolved)?.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }

    /// Which directory of the volume holds this path, also through another mount of the volume.
    fn holder(&self, resolved: &Path) -> Option<&'static str> {
        let inode = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        [RELEASES, STAGING].into_iter().find(|name| {
            let directory = inode(&self.volume.join(name));
            directory.is_some() && resolved.ancestors().any(|above| inode(above) == directory)
        })
    }

    fn refusal(&self, name: &str) -> String {
        let (path, beside) = (self.path.display(), self.volume.join("touched"));
        format!(
            "--touch-file {path} lies in {name}, which holds releases; put it beside, such as {}",
            beside.display()
        )
    }
}

/// An absolute path without `..`, as it reads: the directories need not be there yet.
fn plain(path: &Path) -> Result<PathBuf, String> {
    let absolute = path::absolute(path).map_err(|error| format!("{:?}: {error}", path.display()))?;
    Ok(absolute.components().fold(PathBuf::new(), |mut plain, component| {
        if component == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(component);
        }
        plain
    }))
}

/// Where a file is or will be, without links. A link may point at a file that is not there yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = path::absolute(path)?;
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
            let above = fs::canonicalize(above)?;
            let file = above.join(name);
            // Links that point at each other are another error, so this comes to an end.
            fs::read_link(&file).map_or(Ok(file), |target| resolve(&above.join(target)))
        }
        resolved => resolved,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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
    fn a_path_that_leads_into_a_release_is_refused_whatever_it_looks_like() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        fs::create_dir_all(at("volume/releases/a")).unwrap();
        for (link, target) in
            [("volume/current", "releases/a"), ("to", "volume/current"), ("file", "volume/current/file")]
        {
            symlink(target, at(link)).unwrap();
        }
        let new = |path: PathBuf| TouchFile::new(path, &at("volume"));
        assert!(new(at("volume/../volume/current/x")).unwrap_err().contains("lies in current"));
        assert!(new(at("volume/releases/../touched")).is_ok() && new(at("volume/../touched")).is_ok());
        assert!(new(at("to/x")).unwrap_err().contains("lies in releases"));
        fs::write(at("volume/releases/a/file"), "").unwrap();
        assert!(new(at("file")).unwrap_err().contains("lies in releases"));
        assert!(new(at("volume/touched")).is_ok() && new(at("touched")).is_ok());
    }

    #[test]
    fn a_path_that_leads_into_a_release_later_is_not_touched() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        symlink("volume/current", at("to")).unwrap();
        symlink("volume/current/file", at("file")).unwrap();
        let files = ["to/x", "file"]
            .map(|path| TouchFile::new(at(path), &at("volume")).expect("nothing is there yet"));
        fs::create_dir_all(at("volume/releases/a")).unwrap();
        symlink("releases/a", at("volume/current")).unwrap();
        for file in files {
            file.touch();
        }
        assert_eq!(fs::read_dir(at("volume/releases/a")).unwrap().count(), 0);
    }

    #[test]
    fn it_is_made_where_links_lead() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        fs::create_dir_all(at("volume/releases")).unwrap();
        fs::create_dir(at("run")).unwrap();
        symlink("../link", at("volume/touched")).unwrap();
        symlink(at("run/touched"), at("link")).unwrap();
        let file = TouchFile::new(at("volume/touched"), &at("volume")).unwrap();
        file.touch();
        assert!(at("run/touched").is_file());
        fs::remove_file(at("run/touched")).unwrap();
        symlink("touched", at("run/touched")).unwrap();
        assert!(file.try_touch().is_err(), "a circle leads nowhere");
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
