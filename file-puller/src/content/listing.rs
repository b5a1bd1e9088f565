//! The files and symbolic links of an archive, a repository or an image's layers, until the links are resolved: [`Listing`].
//!
//! A release has files only. A symbolic link therefore becomes what it points to: a file is linked, a directory gives its
//! files once more, under the link's name. The order in which links and their targets arrive does not matter.
//!
//! SECURITY: a link is resolved within the listing and never on a disk. One that leads out of it, to nothing, or to a
//! directory above itself refuses the whole, by name; and everything that a link expands to counts against the limits.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::path::Conflict;
use super::{Limits, NamesBudget, ReleasePath, Selection};

/// Links that may lead to one another before it is a loop: what Linux follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// What was found under each path; `F` is whatever stands for a file's content.
#[derive(Debug)]
pub(crate) struct Listing<F>(BTreeMap<ReleasePath, Entry<F>>);

#[derive(Debug, Clone)]
enum Entry<F> {
    File(F),
    /// With the text of the link, as it was written.
    Link(Box<str>),
}

/// Why a listing is not a release.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListingError {
    #[error("{link} links to {target:?}, and {why}")]
    Link { link: ReleasePath, target: Box<str>, why: &'static str },
    #[error("{link} links to a directory, and {path:?} in it is refused as a path: {error}")]
    Path { link: ReleasePath, path: String, error: super::path::PathError },
    #[error("its links expand to more than --max-files {0} files")]
    Files(usize),
    #[error("its links expand to more than --max-size {0} bytes")]
    Size(u64),
    #[error("{0}")]
    Names(String),
}

const OUTSIDE: &str = "that leads out of what is published";
/// Also where an archive or an image has an empty directory, which is no content.
const NOTHING: &str = "there is no file at that path or beneath it";
const ABOVE: &str = "that is a directory above the link itself";
const LOOP: &str = "these links lead to one another";

impl<F> Default for Listing<F> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<F: Clone> Listing<F> {
    pub(crate) fn add_file(&mut self, path: ReleasePath, file: F) -> Result<(), Conflict> {
        self.add(path, Entry::File(file))
    }

    pub(crate) fn add_link(&mut self, path: ReleasePath, target: &str) -> Result<(), Conflict> {
        self.add(path, Entry::Link(target.into()))
    }

    /// Adds under one path what there is under another, file or symbolic link: a hard link. Returns whether there is
    /// something, here or in the layers below.
    pub(crate) fn add_copy(
        &mut self,
        path: ReleasePath,
        of: &ReleasePath,
        below: &Self,
    ) -> Result<bool, Conflict> {
        let entry = self.0.get(of).or_else(|| below.0.get(of)).cloned();
        let Some(entry) = entry else { return Ok(false) };
        self.add(path, entry).map(|()| true)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a path can be that of a directory: GNU tar removes a file of that name, and another reader keeps it.
    pub(crate) fn check_directory(&self, path: &ReleasePath) -> Result<(), Conflict> {
        if self.0.contains_key(path) { Err(Conflict::Duplicate) } else { Ok(()) }
    }

    /// Removes a file or a link that has the path of a directory. A directory stays with all that is in it.
    pub(crate) fn make_directory(&mut self, path: &ReleasePath) {
        self.0.remove(path);
    }

    /// Whether something can be added under a path.
    pub(crate) fn check(&self, path: &ReleasePath) -> Result<(), Conflict> {
        self.check_directory(path)?;
        if self.is_directory(path.as_str()) || path.ancestors().any(|above| self.at(above).is_some()) {
            return Err(Conflict::FileUnderFile);
        }
        Ok(())
    }

    fn add(&mut self, path: ReleasePath, entry: Entry<F>) -> Result<(), Conflict> {
        self.check(&path)?;
        self.0.insert(path, entry);
        Ok(())
    }

    /// Puts another listing over this one, as an image's layers lie on one another: what it has replaces what is there.
    pub(crate) fn overlay(&mut self, upper: Self) -> Result<(), (ReleasePath, Conflict)> {
        for (path, entry) in upper.0 {
            // A link would have to be followed to know where the file goes.
            if path.ancestors().any(|above| matches!(self.at(above), Some(Entry::Link(_)))) {
                return Err((path, Conflict::FileUnderFile));
            }
            for above in path.ancestors() {
                self.0.remove(above);
            }
            self.remove(path.as_str());
            self.0.insert(path, entry);
        }
        Ok(())
    }

    /// Removes what is under a path, a directory with everything in it; `""` is the root.
    pub(crate) fn remove(&mut self, path: &str) {
        self.0.remove(path);
        let gone: Vec<_> = self.beneath(path).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.0.remove(&path);
        }
    }

    /// What a selection has of a listing that has nothing else, under the paths of the release.
    pub(crate) fn selected(self, selection: &Selection) -> Result<Self, String> {
        let mut selected = Self::default();
        for (path, entry) in self.0 {
            let name = selection.select(path.as_str().as_bytes()).unwrap_or_default();
            let to = ReleasePath::parse(&String::from_utf8_lossy(name))
                .map_err(|error| format!("{path} is refused as a path: {error}"))?;
            selected.add(to, entry).map_err(|conflict| format!("{path} {conflict}"))?;
        }
        Ok(selected)
    }

    fn at(&self, path: &str) -> Option<&Entry<F>> {
        self.0.get(path)
    }

    fn is_directory(&self, path: &str) -> bool {
        self.beneath(path).next().is_some()
    }

    fn beneath<'l>(
        &'l self,
        directory: &str,
    ) -> impl Iterator<Item = (&'l ReleasePath, &'l Entry<F>)> + use<'l, F> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let range = self.0.range::<str, _>(from);
        range.take_while(move |(path, _)| path.as_str().starts_with(&prefix))
    }

    /// Resolves all links: the files of the release, sorted by path. The listing's own names are in the budget already.
    pub(crate) fn into_files(
        self,
        limits: &Limits,
        names: NamesBudget,
        size_of: impl Fn(&F) -> u64,
    ) -> Result<Vec<(ReleasePath, F)>, ListingError> {
        let files = Vec::with_capacity(self.len());
        let mut expansion = Expansion { listing: &self, limits, names, size_of, size: 0, files };
        for (path, entry) in &self.0 {
            match entry {
                Entry::File(file) => expansion.push(path.clone(), file)?,
                Entry::Link(target) => expansion.link(path, path, target, path, &mut Vec::new())?,
            }
        }
        let mut files = expansion.files;
        files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(files)
    }
}

/// The files of a release while links are resolved.
struct Expansion<'l, F, S> {
    listing: &'l Listing<F>,
    limits: &'l Limits,
    names: NamesBudget,
    size_of: S,
    size: u64,
    files: Vec<(ReleasePath, F)>,
}

impl<F: Clone, S: Fn(&F) -> u64> Expansion<'_, F, S> {
    fn push(&mut self, path: ReleasePath, file: &F) -> Result<(), ListingError> {
        self.size = self.size.saturating_add((self.size_of)(file));
        if self.files.len() >= self.limits.files {
            return Err(ListingError::Files(self.limits.files));
        }
        if self.size > self.limits.size {
            return Err(ListingError::Size(self.limits.size));
        }
        self.files.push((path, file.clone()));
        Ok(())
    }

    /// Adds what a link at `at` with this text points to, under the path `to`. `named` is the link that messages name,
    /// and `expanded` the directories in whose expansion this is.
    fn link(
        &mut self,
        named: &ReleasePath,
        at: &ReleasePath,
        target: &str,
        to: &ReleasePath,
        expanded: &mut Vec<String>,
    ) -> Result<(), ListingError> {
        let refuse = |why| ListingError::Link { link: at.clone(), target: target.into(), why };
        let real = self.resolve(at.as_str(), target).map_err(refuse)?;
        if let Some(Entry::File(file)) = self.listing.at(&real) {
            return self.push(to.clone(), file);
        }
        let is_above = |path: &str| {
            real.is_empty()
                || path == real
                || path.strip_prefix(real.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        if is_above(at.as_str()) || expanded.iter().any(|directory| is_above(directory)) {
            return Err(refuse(ABOVE));
        }
        let listing = self.listing;
        let mut found = listing.beneath(&real).peekable();
        if found.peek().is_none() {
            return Err(refuse(NOTHING));
        }
        expanded.push(real.clone());
        for (path, entry) in found {
            let text = format!("{to}{}", &path.as_str()[real.len()..]);
            let to = ReleasePath::parse(&text).map_err(|error| ListingError::Path {
                link: named.clone(),
                path: text,
                error,
            })?;
            self.names.add(&to).map_err(ListingError::Names)?;
            match entry {
                Entry::File(file) => self.push(to, file)?,
                Entry::Link(target) => self.link(named, path, target, &to, expanded)?,
            }
        }
        expanded.pop();
        Ok(())
    }

    /// The path that a link leads to, with every link on the way resolved, as the kernel would within the listing.
    fn resolve(&self, link: &str, target: &str) -> Result<String, &'static str> {
        if target.starts_with('/') {
            return Err(OUTSIDE);
        }
        let mut at: Vec<&str> = link.split('/').collect();
        at.pop();
        // What is still to be walked, its next segment last.
        let mut ahead: Vec<&str> = target.rsplit('/').collect();
        let mut links = 0;
        while let Some(segment) = ahead.pop() {
            match segment {
                "" | "." => {}
                ".." if at.is_empty() => return Err(OUTSIDE),
                ".." if !self.listing.is_directory(&at.join("/")) => return Err(NOTHING),
                ".." => drop(at.pop()),
                name => {
                    at.push(name);
                    if let Some(Entry::Link(target)) = self.listing.at(&at.join("/")) {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(LOOP);
                        }
                        if target.starts_with('/') {
                            return Err(OUTSIDE);
                        }
                        at.pop();
                        ahead.extend(target.rsplit('/'));
                    }
                }
            }
        }
        Ok(at.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { manifest: 0, files: 100, directories: 100, file_size: 0, size: 1000, min_free: 0 };

    fn path(text: &str) -> ReleasePath {
        ReleasePath::parse(text).unwrap()
    }

    /// Files are `path`, links `path -> target`.
    fn listing(entries: &[&str]) -> Listing<u64> {
        let mut listing = Listing::default();
        for (number, entry) in (1..).zip(entries) {
            let added = match entry.split_once(" -> ") {
                Some((at, target)) => listing.add_link(path(at), target),
                None => listing.add_file(path(entry), number),
            };
            added.unwrap();
        }
        listing
    }

    fn files(entries: &[&str]) -> Result<Vec<(String, u64)>, String> {
        let files = listing(entries).into_files(&LIMITS, NamesBudget::UNLIMITED, |number| *number);
        let files = files.map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|(path, number)| (path.to_string(), number)).collect())
    }

    #[track_caller]
    fn expands(entries: &[&str], expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(path, number)| ((*path).to_owned(), *number)).collect();
        assert_eq!(files(entries), Ok(expected));
    }

    #[test]
    fn a_link_becomes_what_it_points_to() {
        expands(&["a/x", "b -> a/x", "c/d -> ../a/./x"], &[("a/x", 1), ("b", 1), ("c/d", 1)]);
        expands(&["b -> a", "a/x", "a/y/z"], &[("a/x", 2), ("a/y/z", 3), ("b/x", 2), ("b/y/z", 3)]);
        // Through other links, of which one lies on the way.
        expands(
            &["v1/x", "current -> v1", "latest -> current", "f -> latest/x"],
            &[("current/x", 1), ("f", 1), ("latest/x", 1), ("v1/x", 1)],
        );
        // A directory that is expanded has links of its own.
        expands(&["a/x", "a/y -> x", "b -> a"], &[("a/x", 1), ("a/y", 1), ("b/x", 1), ("b/y", 1)]);
    }

    #[test]
    fn a_link_that_is_no_content_refuses_the_whole_by_name() {
        for (entries, why) in [
            (&["x", "b -> /etc/passwd"][..], "b links to \"/etc/passwd\", and that leads out"),
            (&["x", "a/b -> ../../x"], "a/b links to \"../../x\", and that leads out"),
            (&["x", "b -> y"], "b links to \"y\", and there is no file"),
            (&["x", "b -> x/y"], "and there is no file"),
            (&["x", "b -> ."], "and that is a directory above"),
            (&["a/x", "a/b/c -> .."], "a/b/c links to \"..\", and that is a directory above"),
            (&["a/x", "a/l -> ../b", "b/x", "b/l -> ../a"], "and that is a directory above"),
            (&["x", "a -> b", "b -> a"], "lead to one another"),
            (&["x", "a -> b", "b -> /x"], "that leads out"),
        ] {
            let error = files(entries).unwrap_err();
            assert!(error.contains(why), "{entries:?}: {error}");
        }
    }

    /// Ten links to a directory of ten links to a directory: a few entries, a thousand files.
    #[test]
    fn what_links_expand_to_counts_against_the_limits() {
        let mut entries = vec!["c/x".to_owned()];
        for number in 0..10 {
            entries.push(format!("b/{number} -> ../c"));
            entries.push(format!("a/{number} -> ../b"));
        }
        let entries: Vec<_> = entries.iter().map(String::as_str).collect();
        assert_eq!(files(&entries).unwrap_err(), "its links expand to more than --max-files 100 files");
        let links = ["x", "y -> x", "z -> x"];
        let few = Limits { size: 2, ..LIMITS };
        let unlimited = NamesBudget::UNLIMITED;
        assert_eq!(listing(&links).into_files(&few, unlimited, |_| 1), Err(ListingError::Size(2)));
        // A link's own name was counted when it was read; what it expands to was not.
        let room_for = |bytes| {
            let mut names = NamesBudget::new(Some(64 << 20), 0);
            names.add_others((53_u64 << 20) - bytes).unwrap();
            names
        };
        let resolved = listing(&links).into_files(&LIMITS, room_for(0), |_| 1);
        assert_eq!(resolved.unwrap().len(), 3);
        let directory = ["d/x", "d/y", "e -> d"];
        assert!(listing(&directory).into_files(&LIMITS, room_for(2000), |_| 1).is_ok());
        let refused = listing(&directory).into_files(&LIMITS, room_for(500), |_| 1);
        assert!(matches!(refused, Err(ListingError::Names(_))), "{refused:?}");
    }

    #[test]
    fn a_layer_replaces_what_lies_below_it() {
        let mut image = listing(&["a/x", "a/y", "b", "c/d/e"]);
        image.remove("a/y");
        image.remove("c");
        image.overlay(listing(&["b/x", "a"])).unwrap();
        let files = image.into_files(&LIMITS, NamesBudget::UNLIMITED, |_| 0).unwrap();
        assert_eq!(files, [(path("a"), 2), (path("b/x"), 1)]);
        let mut image = listing(&["x", "a -> b"]);
        assert!(image.overlay(listing(&["a/x"])).is_err());
        image.make_directory(&path("a"));
        assert!(image.overlay(listing(&["a/x"])).is_ok());
    }

    #[test]
    fn conflicts() {
        for (entries, conflict) in [
            (["a", "a"], Conflict::Duplicate),
            (["a", "a/b"], Conflict::FileUnderFile),
            (["a/b", "a"], Conflict::FileUnderFile),
        ] {
            let mut listing = Listing::default();
            listing.add_file(path(entries[0]), ()).unwrap();
            assert_eq!(listing.add_file(path(entries[1]), ()), Err(conflict));
        }
    }
}
