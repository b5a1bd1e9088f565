//! Finds the files that a pattern matches, and says where it could not look: a directory that cannot be read is not an empty one.
//!
//! SECURITY: what writes into a log directory is not trusted. A link there may lead anywhere, also to what this container alone may
//! read. So by default, whatever is found is opened with `openat2` beneath the fixed part of its pattern: links that stay there are
//! followed, absolute ones included, those that leave it are refused by the kernel, at the moment of the open and without a race. The
//! fixed part itself is the operator's, and may be a link.
//!
//! Nor may links multiply the work: directories are walked by the paths that go through no link first, and a link is a way only into
//! those that were not walked by then.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{DirEntry, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

#[cfg(test)]
use super::failing_disk::{self, Step};
use super::glob::{Component, Glob};
use super::own::OwnFiles;
use crate::identity::FileKey;

/// How often an open is tried again that the kernel gave up because something was renamed meanwhile.
const RENAME_RACES: usize = 16;
/// Deeper than this, `**` does not look.
const DEEPEST: usize = 64;

/// Which symbolic links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// Those that stay beneath the fixed part of the pattern.
    Beneath,
    /// All.
    All,
}

/// Where a file is: how it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The fixed part of the pattern that it was found by.
    base: Arc<Path>,
    symlinks: Symlinks,
}

impl Place {
    /// Opens for reading, and never waits: a FIFO put in a file's place would keep an ordinary open waiting for its writer.
    pub(crate) fn open(&self) -> io::Result<File> {
        self.open_with(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        match self.symlinks {
            Symlinks::All => std::fs::metadata(&self.path),
            Symlinks::Beneath => self.open_with(OFlags::PATH)?.metadata(),
        }
    }

    fn open_with(&self, flags: OFlags) -> io::Result<File> {
        if self.symlinks == Symlinks::All {
            let flags = i32::try_from(flags.bits()).unwrap_or_default();
            return OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        }
        let relative = self.path.strip_prefix(&self.base).map_err(|_| io::ErrorKind::InvalidFilename)?;
        let base =
            openat(CWD, &*self.base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let open = |relative: &Path| {
            for _ in 0..RENAME_RACES {
                match openat2(&base, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                    // The tree was being changed while the kernel looked; it leaves it to us to look again.
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    opened => return opened,
                }
            }
            Err(Errno::BUSY)
        };
        let opened = match open(relative) {
            // To the kernel, an absolute link leaves the base wherever it leads.
            Err(Errno::XDEV) => self.without_links().map_or(Err(Errno::XDEV), |path| open(&path)),
            opened => opened,
        };
        Ok(opened?.into())
    }

    /// The path from the base to where its links lead, as far as that is beneath the base.
    ///
    /// SECURITY: what is read of links here decides nothing. The kernel holds this path, too, to what is beneath the base.
    fn without_links(&self) -> Option<PathBuf> {
        let path = self.path.canonicalize().ok()?;
        path.strip_prefix(self.base.canonicalize().ok()?).ok().map(Path::to_owned)
    }
}

/// A file that a pattern matches.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) place: Place,
    /// Whether its name is a symbolic link, or goes through one.
    pub(crate) is_link: bool,
    pub(crate) metadata: Metadata,
}

/// What a look at all names has found.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) files: Vec<Found>,
    /// Directories that could not be read, links of which it is not known where they lead, and why.
    pub(crate) failures: Vec<(PathBuf, io::Error)>,
    /// Links that lead out of their pattern's fixed part.
    pub(crate) outside: Vec<PathBuf>,
    /// Directories, or links to some, that a pattern without wildcards names where a file should be.
    pub(super) no_files: Vec<PathBuf>,
    /// The agent's own files, each with a name that the pattern matches.
    pub(super) own: BTreeMap<PathBuf, PathBuf>,
    /// Fixed parts that do not exist.
    pub(crate) missing: Vec<PathBuf>,
    /// Directories that were looked into.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Links that the pattern matches and that are followed wherever they lead, also those that lead nowhere at the moment.
    pub(super) links: Vec<PathBuf>,
}

impl Names {
    /// Whether the same names lead to the same files.
    pub(crate) fn lead_to_the_same_as(&self, other: &Self) -> bool {
        let of = |names: &Self| -> Vec<(PathBuf, FileKey)> {
            names.files.iter().map(|found| (found.place.path.clone(), FileKey::of(&found.metadata))).collect()
        };
        of(self) == of(other)
    }

    /// Whether everything beneath this path was seen.
    pub(crate) fn has_seen(&self, path: &Path) -> bool {
        let not_seen = self.failures.iter().map(|(path, _)| path).chain(&self.missing);
        !not_seen.into_iter().any(|directory| path.starts_with(directory))
    }
}

/// A directory, by device and inode, and how many components of the pattern are left there.
type Stage = (u64, u64, usize);

/// A directory behind a link, to be looked into once all others were.
struct Behind<'a> {
    metadata: Metadata,
    components: &'a [Component],
}

/// A look at the names that one pattern matches.
pub(super) struct Walk<'a> {
    base: Arc<Path>,
    symlinks: Symlinks,
    is_excluded: &'a dyn Fn(&Path) -> bool,
    own: &'a OwnFiles,
    /// Directories that need no second look.
    walked: HashSet<Stage>,
    /// By depth, then by path, so that of several paths to a file always the same one is its name.
    behind_links: BTreeMap<(usize, PathBuf, usize), Behind<'a>>,
    /// Whether all paths without links are walked, and those through links are next.
    through_links: bool,
    /// How many files were excluded so far.
    excluded: usize,
    names: &'a mut Names,
}

impl<'a> Walk<'a> {
    /// Adds to `names` what the pattern matches.
    pub(super) fn run(
        glob: &'a Glob,
        symlinks: Symlinks,
        is_excluded: &'a dyn Fn(&Path) -> bool,
        own: &'a OwnFiles,
        names: &'a mut Names,
    ) {
        let base = glob.base();
        let metadata = match std::fs::metadata(&base) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                names.failures.push((base, error));
                return;
            }
            _ => {
                names.missing.push(base);
                return;
            }
        };
        match glob.components() {
            [] => {
                names.no_files.push(base);
                return;
            }
            [Component::Literal(name)] => {
                let path = base.join(name);
                if path.is_dir() && !is_excluded(&path) {
                    names.no_files.push(path);
                }
            }
            _ => {}
        }
        let mut walk = Self {
            base: base.clone().into(),
            symlinks,
            is_excluded,
            own,
            walked: HashSet::new(),
            behind_links: BTreeMap::new(),
            through_links: false,
            excluded: 0,
            names,
        };
        walk.directory(&base, &metadata, glob.components(), 0);
        walk.through_links = true;
        while let Some(((depth, path, _), Behind { metadata, components })) = walk.behind_links.pop_first() {
            walk.directory(&path, &metadata, components, depth);
        }
    }

    /// Looks into a directory, unless a link leads to it and an earlier look has found everything in it.
    fn directory(
        &mut self,
        directory: &Path,
        metadata: &Metadata,
        components: &'a [Component],
        depth: usize,
    ) {
        let stage = (metadata.dev(), metadata.ino(), components.len());
        if self.through_links && !self.walked.insert(stage) {
            return;
        }
        let excluded = self.excluded;
        self.entries(directory, components, depth);
        // What is excluded by this path may be included by one through a link.
        if self.excluded == excluded {
            self.walked.insert(stage);
        }
    }

    fn entries(&mut self, directory: &Path, components: &'a [Component], depth: usize) {
        let Some((first, rest)) = components.split_first() else { return };
        self.names.directories.insert(directory.to_owned());
        if let Component::Literal(name) = first {
            let path = directory.join(name);
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) => self.entry(path, metadata, rest, depth),
                Err(error) => self.not_seen(directory, error),
            }
            return;
        }
        let entries = match read_dir(directory) {
            Ok(entries) => entries,
            // Gone in between, unless it is where everything begins.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return,
            Err(error) => {
                self.names.failures.push((directory.to_owned(), error));
                return;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.not_seen(directory, error);
                    return;
                }
            };
            let name = entry.file_name();
            let matches = first.matches(&name);
            if !matches && *first != Component::AnyDepth {
                continue;
            }
            let path = entry.path();
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.not_seen(directory, error);
                    continue;
                }
            };
            if *first == Component::AnyDepth {
                self.any_depth(&name, path, metadata, components, depth);
            } else {
                self.entry(path, metadata, rest, depth);
            }
        }
    }

    /// An entry of a directory where `**` is: the rest of the pattern may begin here, or further down.
    fn any_depth(
        &mut self,
        name: &OsStr,
        path: PathBuf,
        metadata: Metadata,
        components: &'a [Component],
        depth: usize,
    ) {
        let rest = &components[1..];
        if !metadata.is_file() && depth < DEEPEST {
            self.entry(path.clone(), metadata.clone(), components, depth);
            // A directory that the next component names, with something behind it.
            if rest.len() > 1 && rest[0].matches(name) {
                self.entry(path.clone(), metadata.clone(), &rest[1..], depth);
            }
        }
        if rest.is_empty() || (rest.len() == 1 && rest[0].matches(name)) {
            self.entry(path, metadata, &[], depth);
        }
    }

    /// What a component matches: a file where it is the last one, else a directory.
    fn entry(&mut self, path: PathBuf, metadata: Metadata, rest: &'a [Component], depth: usize) {
        let is_link = metadata.is_symlink();
        if is_link && self.symlinks == Symlinks::All && !(self.is_excluded)(&path) {
            self.names.links.push(path.clone());
        }
        if rest.is_empty() {
            if !(is_link || metadata.is_file()) {
                return;
            }
            if (self.is_excluded)(&path) {
                self.excluded += 1;
                return;
            }
        }
        let place = Place { path, base: Arc::clone(&self.base), symlinks: self.symlinks };
        let metadata = if is_link { place.metadata() } else { Ok(metadata) };
        match metadata {
            // A directory's link may lead elsewhere by the time that the directory is read: then names are seen, but no file is opened.
            Ok(metadata) if !rest.is_empty() && metadata.is_dir() => {
                if is_link {
                    let key = (depth + 1, place.path, rest.len());
                    self.behind_links.insert(key, Behind { metadata, components: rest });
                } else {
                    self.directory(&place.path, &metadata, rest, depth + 1);
                }
            }
            Ok(metadata) if rest.is_empty() && metadata.is_file() => {
                let target = if is_link { place.path.canonicalize().ok() } else { None };
                if let Some(own) = self.own.find(target.as_ref().unwrap_or(&place.path)) {
                    self.names.own.insert(own.to_owned(), place.path);
                } else {
                    self.names.files.push(Found { place, is_link: is_link || self.through_links, metadata });
                }
            }
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {
                if rest.is_empty() || std::fs::metadata(&place.path).is_ok_and(|to| to.is_dir()) {
                    self.names.outside.push(place.path);
                }
            }
            Err(error) => self.not_seen(&place.path, error),
        }
    }

    /// Nothing is known of what is there.
    fn not_seen(&mut self, path: &Path, error: io::Error) {
        // Gone in between, or a link that leads nowhere, which is known: also one to a name that is longer than names are.
        let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
        let nowhere = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            || is(Errno::LOOP)
            || is(Errno::NAMETOOLONG);
        if !nowhere && self.names.failures.last().is_none_or(|(last, _)| last != path) {
            self.names.failures.push((path.to_owned(), error));
        }
    }
}

/// The entries of a directory; an error among them says that not all were seen.
fn read_dir(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    #[cfg(test)]
    failing_disk::at(Step::Open, directory)?;
    let entries = std::fs::read_dir(directory)?;
    #[cfg(test)]
    let entries = failing_disk::at(Step::Entries, directory).err().map(Err).into_iter().chain(entries);
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a pattern beneath a directory matches.
    fn walk(dir: &Path, pattern: &str) -> Names {
        let mut names = Names::default();
        let glob = Glob::new(&format!("{}/{pattern}", dir.display())).unwrap();
        Walk::run(&glob, Symlinks::Beneath, &|_| false, &OwnFiles::default(), &mut names);
        names
    }

    #[test]
    fn links_to_where_they_are_do_not_multiply() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.log"), "").unwrap();
        (0..100).for_each(|link| symlink(".", dir.path().join(format!("l{link}"))).unwrap());
        let names = walk(dir.path(), "*/*/*.log");
        assert_eq!(found(dir.path(), &names), [Path::new("l0/l0/a.log")]);
        assert_eq!(names.directories.len(), 3, "one for each component: {:?}", names.directories);
    }

    #[test]
    fn links_into_a_chain_of_directories_do_not_multiply_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = dir.path().to_owned();
        for depth in 0..20 {
            at.push("d");
            std::fs::create_dir(&at).unwrap();
            (0..4).for_each(|link| symlink(&at, dir.path().join(format!("l{depth}-{link}"))).unwrap());
        }
        std::fs::write(at.join("a.log"), "").unwrap();
        let names = walk(dir.path(), "**/*.log");
        assert_eq!(found(dir.path(), &names), [at.join("a.log").strip_prefix(dir.path()).unwrap()]);
    }

    #[test]
    fn a_path_that_goes_through_no_link_comes_first_and_one_that_is_excluded_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("releases/1/sub")).unwrap();
        std::fs::write(dir.path().join("releases/1/sub/app.log"), "").unwrap();
        symlink("releases/1", dir.path().join("current")).unwrap();
        let names = walk(dir.path(), "**/*.log");
        assert_eq!(found(dir.path(), &names), [Path::new("releases/1/sub/app.log")]);
        assert!(!names.files[0].is_link);
        let mut names = Names::default();
        let glob = Glob::new(&format!("{}/**", dir.path().display())).unwrap();
        let is_excluded = |path: &Path| path.starts_with(dir.path().join("releases/1/sub"));
        Walk::run(&glob, Symlinks::Beneath, &is_excluded, &OwnFiles::default(), &mut names);
        assert_eq!(found(dir.path(), &names), [Path::new("current/sub/app.log")]);
        assert!(names.files[0].is_link, "a name through a link");
    }

    /// The files that are found, by their names beneath the directory.
    fn found(dir: &Path, names: &Names) -> Vec<PathBuf> {
        let relative = |found: &Found| found.place.path.strip_prefix(dir).unwrap().to_owned();
        let mut found: Vec<_> = names.files.iter().map(relative).collect();
        found.sort();
        found
    }

    #[test]
    fn two_stars_go_through_links_to_directories_and_not_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("logs/real/deep")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("logs/real/deep/a.log"), "").unwrap();
        std::fs::write(dir.path().join("outside/b.log"), "").unwrap();
        symlink("real", dir.path().join("logs/link")).unwrap();
        symlink("../outside", dir.path().join("logs/out")).unwrap();
        let logs = dir.path().join("logs");
        let names = walk(&logs, "**/*.log");
        assert_eq!(found(&logs, &names), [Path::new("real/deep/a.log")]);
        assert_eq!(names.outside, [logs.join("out")]);
        assert_eq!(found(&logs, &walk(&logs, "**/link/*/*.log")), [Path::new("link/deep/a.log")]);
        let mut names = Names::default();
        let glob = Glob::new(&format!("{}/**/*.log", logs.display())).unwrap();
        Walk::run(&glob, Symlinks::All, &|_| false, &OwnFiles::default(), &mut names);
        let all = ["out/b.log", "real/deep/a.log"].map(PathBuf::from);
        assert_eq!(found(&logs, &names), all);
        symlink("../..", dir.path().join("logs/real/up")).unwrap();
        symlink("..", dir.path().join("logs/real/deep/up")).unwrap();
        for circle in 0..20 {
            symlink(".", dir.path().join(format!("logs/l{circle}"))).unwrap();
        }
        assert_eq!(found(&logs, &walk(&logs, "**/*.log")), [Path::new("real/deep/a.log")]);
    }

    #[test]
    fn the_agents_own_files_are_not_found_whatever_leads_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(logs.join("state")).unwrap();
        for name in ["a.log", "out.log", "real.log", "state/sent.ndjson"] {
            std::fs::write(logs.join(name), "").unwrap();
        }
        symlink("out.log", logs.join("link.log")).unwrap();
        symlink("logs", dir.path().join("alias")).unwrap();
        symlink("logs/real.log", dir.path().join("elsewhere")).unwrap();
        symlink("logs/later.log", dir.path().join("dangling")).unwrap();
        for (sink, own) in [
            ("logs/./out.log", "out.log"),
            ("logs//out.log", "out.log"),
            ("logs/state/../out.log", "out.log"),
            ("alias/out.log", "out.log"),
            ("elsewhere", "real.log"),
            ("dangling", "later.log"),
        ] {
            let own_files = OwnFiles::new([logs.join("../alias/state/sent.ndjson"), dir.path().join(sink)]);
            // As a sink does that is opened only now.
            std::fs::write(logs.join("later.log"), "").unwrap();
            let mut names = Names::default();
            let glob = Glob::new(&format!("{}/**", logs.display())).unwrap();
            Walk::run(&glob, Symlinks::Beneath, &|_| false, &own_files, &mut names);
            std::fs::remove_file(logs.join("later.log")).unwrap();
            let expected = ["a.log", "later.log", "link.log", "out.log", "real.log"].map(PathBuf::from);
            let is_own =
                |name: &PathBuf| name.ends_with(own) || (own == "out.log" && name.ends_with("link.log"));
            let expected: Vec<_> = expected.into_iter().filter(|name| !is_own(name)).collect();
            assert_eq!(found(&logs, &names), expected, "{sink}");
        }
    }

    #[test]
    fn a_directory_in_the_place_of_a_file_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sub/app")).unwrap();
        symlink("sub", dir.path().join("link")).unwrap();
        let patterns = [("sub", "sub"), ("sub/", "sub"), ("link", "link"), ("*/", ""), ("*", ""), ("**", "")];
        for (pattern, noted) in patterns.into_iter().chain([("*/app", ""), ("**/app", "")]) {
            let expected: Vec<_> =
                [dir.path().join(noted)].into_iter().filter(|_| !noted.is_empty()).collect();
            assert_eq!(walk(dir.path(), pattern).no_files, expected, "{pattern}");
        }
        let mut names = Names::default();
        let glob = Glob::new(&format!("{}/sub", dir.path().display())).unwrap();
        Walk::run(&glob, Symlinks::Beneath, &|_| true, &OwnFiles::default(), &mut names);
        assert!(names.no_files.is_empty(), "an excluded one");
    }

    #[test]
    fn an_absolute_link_is_followed_where_it_stays_beneath() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(logs.join("sub")).unwrap();
        std::fs::write(logs.join("sub/a.txt"), "a").unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        symlink(logs.join("sub/a.txt"), logs.join("cur.log")).unwrap();
        symlink(logs.join("sub"), logs.join("dir")).unwrap();
        symlink(dir.path().join("secret"), logs.join("secret.log")).unwrap();
        symlink(logs.join("../secret"), logs.join("dots.log")).unwrap();
        let names = walk(&logs, "*.log");
        assert_eq!(found(&logs, &names), [Path::new("cur.log")]);
        assert_eq!(std::io::read_to_string(names.files[0].place.open().unwrap()).unwrap(), "a");
        assert_eq!(names.outside.len(), 2, "{names:?}");
        assert_eq!(found(&logs, &walk(&logs, "*/*.txt")), [Path::new("sub/a.txt")]);
    }

    #[test]
    fn a_link_to_a_name_that_cannot_be_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        symlink("x".repeat(256), dir.path().join("a.log")).unwrap();
        let names = walk(dir.path(), "*.log");
        assert!(names.files.is_empty() && names.failures.is_empty(), "{names:?}");
    }
}
