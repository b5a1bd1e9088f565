//! From a commit to the list of what is in it.
//!
//! SECURITY: a tree may name the same subtree many times over, so both the files and the trees that are visited are counted.

use super::error::GitError;
use super::known::KnownWriter;
use super::object_id::{ObjectId, ObjectKind};
use super::objects::Objects;
use super::pack::OBJECT;
use crate::content::path::MAX_SEGMENTS;
use crate::content::{FileMode, Limits, Listing, NamesBudget, ReleasePath, Selection};
use crate::fetch::{Arrived, Rules};

/// Bytes that are in memory for each file besides, measured where all of them change: its object, and that of the published commit.
const KEPT_FOR_EACH: u64 = 450;
/// The longest target of a symbolic link: `PATH_MAX`.
const MAX_TARGET: u64 = 4096;
/// The longest pointer of Git LFS, and how it begins (its specification).
const MAX_POINTER: u64 = 1024;
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// Annotated tags that may name one another.
const MAX_TAGS: usize = 8;

/// What becomes of a file that Git LFS keeps elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum GitLfs {
    /// Refuse the release
    #[default]
    Refuse,
    /// Publish the pointer as it is
    Pointer,
}

/// Lists what a commit has, and counts what that takes.
pub(super) fn list(
    objects: &mut Objects,
    wanted: &ObjectId,
    Rules { selection, limits, .. }: &Rules,
    lfs: GitLfs,
    known: &mut KnownWriter,
) -> Result<(ObjectId, Listing<Arrived>, NamesBudget), GitError> {
    let (commit, tree) = root(objects, wanted)?;
    let names = NamesBudget::of_container(KEPT_FOR_EACH);
    let mut walk =
        Walk { objects, selection, lfs, limits, known, visited: 0, listing: Listing::default(), names };
    walk.tree(&tree, &mut Vec::new())?;
    let others = walk.objects.count().saturating_sub(walk.listing.len()) as u64;
    walk.names.add_others(others * OBJECT).map_err(GitError::Refused)?;
    Ok((commit, walk.listing, walk.names))
}

/// The commit behind an annotated tag, and its tree.
fn root(objects: &Objects, wanted: &ObjectId) -> Result<(ObjectId, ObjectId), GitError> {
    let mut id = *wanted;
    for _ in 0..MAX_TAGS {
        match objects.kind_of(&id) {
            Some(ObjectKind::Tag) => id = field(&objects.read(&id, ObjectKind::Tag)?, "object")?,
            Some(kind @ (ObjectKind::Tree | ObjectKind::Blob)) => {
                return Err(GitError::refused(format!("{wanted} names a {kind:?} and not a commit")));
            }
            _ => return Ok((id, field(&objects.read(&id, ObjectKind::Commit)?, "tree")?)),
        }
    }
    Err(GitError::refused(format!("{wanted} is a tag of a tag of a tag")))
}

/// The id in the first line of a commit or a tag.
fn field(content: &[u8], name: &str) -> Result<ObjectId, GitError> {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let id = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
    id.and_then(ObjectId::parse).ok_or_else(|| GitError::refused(format!("an object names no {name}")))
}

struct Walk<'w> {
    objects: &'w mut Objects,
    selection: &'w Selection,
    lfs: GitLfs,
    limits: &'w Limits,
    known: &'w mut KnownWriter,
    visited: usize,
    listing: Listing<Arrived>,
    names: NamesBudget,
}

impl Walk<'_> {
    fn tree(&mut self, id: &ObjectId, path: &mut Vec<u8>) -> Result<(), GitError> {
        self.visited += 1;
        // The root and what lies above a --subdir are visited as well.
        let limit = self.limits.directories;
        if self.visited > limit.saturating_add(MAX_SEGMENTS) {
            return Err(GitError::refused(format!("it has more than --max-directories {limit} directories")));
        }
        let content = self.objects.read(id, ObjectKind::Tree)?;
        self.known.tree(id, &content)?;
        let bad = || GitError::refused(format!("tree {id} is not a tree"));
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let mode =
                std::str::from_utf8(&rest[..space]).ok().and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let mode = mode.ok_or_else(bad)?;
            rest = &rest[space + 1..];
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(bad)?;
            let (name, after) = (&rest[..end], &rest[end + 1..]);
            let id_len = id.as_bytes().len();
            let entry = after
                .get(..id_len)
                .and_then(|bytes| ObjectId::of_bytes(id.format(), bytes))
                .ok_or_else(bad)?;
            rest = &after[id_len..];
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.entry(mode, &entry, path)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, mode: u32, id: &ObjectId, path: &mut Vec<u8>) -> Result<(), GitError> {
        const TREE: u32 = 0o040_000;
        if mode == TREE {
            if self.selection.enters(path) {
                // No deeper than a path of the release can be, and what is stripped from it.
                if path.split(|byte| *byte == b'/').count() > 2 * MAX_SEGMENTS {
                    return Err(GitError::refused(format!("{} is too deep", shown(path))));
                }
                self.tree(id, path)?;
            }
            return Ok(());
        }
        let Some(selected) = self.selection.select(path) else { return Ok(()) };
        let refuse = |why: &str| Err(GitError::refused(format!("{} {why}", shown(path))));
        let Ok(text) = std::str::from_utf8(selected) else { return refuse("is not UTF-8") };
        let release_path = match ReleasePath::parse(text) {
            Ok(path) => path,
            Err(error) => return refuse(&format!("is refused as a path: {error}")),
        };
        self.limits.check_one_more(self.listing.len()).map_err(GitError::Refused)?;
        self.names.add(&release_path).map_err(GitError::Refused)?;
        let added = match mode & 0o170_000 {
            0o100_000 => {
                let mode = if mode & 0o100 == 0 { FileMode::PLAIN } else { FileMode::EXECUTABLE };
                let file = self.file(id, mode, &release_path)?;
                self.listing.add_file(release_path, file)
            }
            0o120_000 => {
                let Some(target) = self.objects.small_blob(id, MAX_TARGET)? else {
                    return refuse("is a symbolic link with a longer target than any path");
                };
                self.known.link(id, &target)?;
                let Ok(target) = std::str::from_utf8(&target) else {
                    return refuse("is a symbolic link whose target is not UTF-8");
                };
                self.listing.add_link(release_path, target)
            }
            0o160_000 => {
                return refuse(
                    "is a submodule, which is a repository of its own: follow that in a container of its own, or --exclude it",
                );
            }
            _ => return refuse("is neither a file, a link nor a directory"),
        };
        match added {
            Ok(()) => Ok(()),
            Err(conflict) => refuse(&conflict.to_string()),
        }
    }

    fn file(&mut self, id: &ObjectId, mode: FileMode, path: &ReleasePath) -> Result<Arrived, GitError> {
        let file = self.objects.file(id, mode)?;
        self.limits.check_size(path, file.size).map_err(GitError::Refused)?;
        if self.lfs == GitLfs::Refuse && file.file.is_some() && file.size <= MAX_POINTER {
            let content = self.objects.small_blob(id, MAX_POINTER)?.unwrap_or_default();
            if content.starts_with(POINTER) {
                return Err(GitError::refused(format!(
                    "{path} is kept in Git LFS, and the repository has only a pointer to it; --exclude it, or publish pointers with --git-lfs pointer"
                )));
            }
        }
        self.known.blob(id, &file.digest, file.size)?;
        Ok(file)
    }
}

fn shown(path: &[u8]) -> String {
    lifecycle::escape::escaped(&String::from_utf8_lossy(path)).to_string()
}
