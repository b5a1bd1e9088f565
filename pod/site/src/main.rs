//! Renders the labs and the other pages for learners into the sample site, so that they are read where they run, and counts the
//! lines of the README's reading path.
//!
//!     cargo run --package site             writes the pages into deploy/content
//!     cargo run --package site -- --check  fails where one of them is not as it would be written

mod page;
mod path;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lifecycle::Container;
use lifecycle::exit::{Exit, Failure, OrExit as _};

use crate::page::Page;

const SITE: Container = Container { name: "site", admin_port: 0, version: env!("CARGO_PKG_VERSION") };

/// Renders the documents for learners as pages of the sample site
#[derive(Debug, clap::Parser)]
#[command(name = "site")]
struct Flags {
    /// Only compare, and fail where a committed page is not as it would be written
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    lifecycle::cli::main(&SITE, run)
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().or_exit(Exit::Io)?;
    let pages = render(&repository).or_exit(Exit::Io)?;
    let stale = stale(&repository, &pages).or_exit(Exit::Io)?;
    if flags.check {
        return match stale.first() {
            None => Ok(()),
            Some(first) => Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} of {} pages are stale, such as {}: cargo run --package site",
                    stale.len(),
                    pages.len(),
                    first.display()
                ),
            )),
        };
    }
    for (target, html) in &pages {
        let target = repository.join(target);
        let folder = target.parent().map_or(Ok(()), fs::create_dir_all);
        folder.and_then(|()| fs::write(&target, html)).or_exit(Exit::Io)?;
    }
    Ok(())
}

/// Every page: where it goes, from the repository's root, and its HTML.
fn render(repository: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let sources = sources(repository)?;
    let mut pages = Vec::new();
    for source in &sources {
        let markdown = fs::read_to_string(repository.join(source))?;
        pages.push((page::target(source), Page::new(source, &markdown).html(&sources)));
    }
    let readme = fs::read_to_string(repository.join("README.md"))?;
    pages.push(("README.md".into(), path::count(repository, &readme)?));
    Ok(pages)
}

/// The Markdown that is for learners, from the repository's root, in the order in which it is read.
fn sources(repository: &Path) -> io::Result<Vec<PathBuf>> {
    let mut labs = Vec::new();
    for entry in fs::read_dir(repository.join("docs/labs"))? {
        labs.push(Path::new("docs/labs").join(entry?.file_name()));
    }
    labs.retain(|page| {
        page.extension().is_some_and(|extension| extension == "md") && !page.ends_with("README.md")
    });
    labs.sort();
    labs.insert(0, "docs/labs/README.md".into());
    labs.extend(
        ["patterns.md", "object-model.md", "questions.md", "troubleshooting.md"]
            .map(|name| Path::new("docs").join(name)),
    );
    Ok(labs)
}

fn stale(repository: &Path, pages: &[(PathBuf, String)]) -> io::Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for (target, html) in pages {
        match fs::read_to_string(repository.join(target)) {
            Ok(committed) if committed == *html => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => stale.push(target.clone()),
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sites_pages_are_as_fresh_as_the_documents() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pages = render(&repository).unwrap();
        assert!(pages.len() >= 13, "{} pages", pages.len());
        let mut stale = stale(&repository, &pages).unwrap();
        // Lines come and go with every change; pod/verify holds the README to them within bounds.
        stale.retain(|page| !page.ends_with("README.md"));
        assert!(stale.is_empty(), "cargo run --package site renders these anew: {stale:?}");
    }
}
