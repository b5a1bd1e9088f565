//! `file-puller manifest DIR`: describes a directory, so that any static file host can be a content manager.
//!
//! Only what is public is described ([`is_public`]), and a symbolic link as what it points to, for the host serves that there.
//! Modes are written as Git keeps them, 0755 for what its owner may execute and 0644 for the rest: the umask under which
//! the files were checked out is no part of the content, and the same files get the same release id on every machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lifecycle::Ignore as _;
use lifecycle::exit::{Exit, Failure};

use crate::content::{
    Digest, FileMode, Limits, Listing, Manifest, ManifestFile, NamesBudget, ReleasePath, Site, is_public,
};
use crate::progress::{Audience, Progress};
use crate::source::{SIGNATURE_EXTENSION, SigningKey};

/// The arguments of the `manifest` subcommand.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ManifestArgs {
    /// Directory to describe; its own top-level manifest.json is left out
    pub(crate) directory: PathBuf,

    /// File to write, replaced in one step; without it, standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// File with an ed25519 private key (PEM): signs the manifest, into a file beside it that ends in .sig
    #[arg(long, value_name = "KEY", requires = "output")]
    pub(crate) sign: Option<PathBuf>,

    /// Site that the manifest is meant for; a puller with --site NAME accepts no other
    #[arg(long, value_name = "NAME", value_parser = Site::parse)]
    pub(crate) site: Option<Site>,
}

/// The top-level files that are left out: the manifest itself goes there, and no file can hold its own digest; nor its signature.
const EXCLUDED: [&str; 2] = ["manifest.json", "manifest.json.sig"];

/// Describes the directory, to a file or to standard output.
pub(crate) fn run(arguments: &ManifestArgs) -> Result<(), Failure> {
    let key = arguments.sign.as_deref().map(SigningKey::read).transpose();
    let key = key.map_err(|error| Failure::new(error.exit(), error.to_string()))?;
    let manifest = scan(&arguments.directory, arguments.output.as_deref(), arguments.site.clone())?;
    let mut json = Vec::new();
    manifest.write(&mut json).map_err(io_failure("write", Path::new("the manifest")))?;
    let Some(path) = &arguments.output else {
        let written = io::stdout().lock().write_all(&json);
        return written.map_err(io_failure("write", Path::new("standard output")));
    };
    if let Some(key) = key {
        // Before the manifest: a puller that sees one of the two new asks again, and is in time for the other.
        let signature = signature_of(path);
        replace(&signature, key.sign(&json).as_bytes()).map_err(io_failure("write", &signature))?;
    }
    replace(path, &json).map_err(io_failure("write", path))
}

/// Where a manifest's signature goes.
fn signature_of(manifest: &Path) -> PathBuf {
    with_suffix(manifest, SIGNATURE_EXTENSION)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn scan(directory: &Path, output: Option<&Path>, site: Option<Site>) -> Result<Manifest, Failure> {
    // The output may lie in the directory under any name, and from an earlier run.
    let outputs: Vec<PathBuf> = output
        .into_iter()
        .flat_map(|path| [path.to_owned(), signature_of(path)])
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    let mut listing = Listing::default();
    let mut progress = Progress::begin(Audience::Terminal, 0, None);
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        let entries = fs::read_dir(&at).map_err(io_failure("read", &at))?;
        for entry in entries {
            let entry = entry.map_err(io_failure("read", &at))?;
            let path = entry.path();
            let is_own = EXCLUDED.iter().any(|name| path == directory.join(name))
                || (!outputs.is_empty() && fs::canonicalize(&path).is_ok_and(|path| outputs.contains(&path)));
            if is_own {
                continue;
            }
            if !is_public(&entry.file_name().to_string_lossy(), at == directory) {
                tracing::info!(path = %path.display(), "left out: hidden, or left behind by an editor");
                continue;
            }
            let kind = entry.file_type().map_err(io_failure("read", &path))?;
            if kind.is_dir() {
                open.push(path);
                continue;
            }
            progress.read();
            let release_path = release_path(directory, &path)?;
            let added = if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(io_failure("read", &path))?;
                let target =
                    target.to_str().ok_or_else(|| refused(&path, "it links to a name that is not UTF-8"))?;
                listing.add_link(release_path, target)
            } else if kind.is_file() {
                listing.add_file(release_path, read(&path).map_err(io_failure("read", &path))?)
            } else {
                return Err(refused(
                    &path,
                    "it is neither a file, a link nor a directory; remove it or replace it with a file",
                ));
            };
            // A directory has a name once, so this is for one that changes while it is read.
            added.map_err(|conflict| refused(&path, &conflict.to_string()))?;
        }
    }
    if listing.is_empty() {
        let reason =
            format!("{} holds no file, and an empty release is never published", directory.display());
        return Err(Failure::new(Exit::Refused, reason));
    }
    // The puller's limits are its own.
    let files = listing.into_files(&Limits::NONE, NamesBudget::UNLIMITED, |(size, ..)| *size);
    let files =
        files.map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", directory.display())))?;
    let files = files
        .into_iter()
        .map(|(path, (size, digest, mode))| ManifestFile { path, size, digest, mode, url: None })
        .collect();
    Ok(Manifest { created: SystemTime::now(), site, files })
}

fn refused(file: &Path, why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("{} cannot be in a release: {why}", file.display()))
}

fn release_path(directory: &Path, file: &Path) -> Result<ReleasePath, Failure> {
    let relative = file.strip_prefix(directory).unwrap_or(file);
    let name = relative.to_str().ok_or_else(|| refused(file, "its name is not UTF-8"))?;
    ReleasePath::parse(name).map_err(|error| refused(file, &error.to_string()))
}

fn read(path: &Path) -> io::Result<(u64, Digest, FileMode)> {
    let file = File::open(path)?;
    let executable = file.metadata()?.permissions().mode() & 0o100 != 0;
    // The size is what was hashed, also of a file that is being written.
    let mut size = 0;
    let digest = Digest::of_reader(file, |piece| {
        size += piece.len() as u64;
        Ok(())
    })?;
    Ok((size, digest, if executable { FileMode::EXECUTABLE } else { FileMode::PLAIN }))
}

/// A reader sees the manifest before or the manifest after, never a part of it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, &format!(".{}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The first failure is the one to report.
        fs::remove_file(&temporary).ignore();
    }
    written
}

fn io_failure(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::new(Exit::Io, format!("cannot {doing} {}: {error}", path.display()))
}
