//! Listings of directories without an index, where they were asked for: HTML for people, JSON for programs.
//!
//! A listing is made for each request, and its size is the publisher's to choose. So every part of it is taken from the memory
//! budget before it is made, and a listing that does not fit is not given out. A short one has room however many connections rest.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::HeaderMap;
use lifecycle::quality;
use parking_lot::Mutex;
use serde::Serialize;

use crate::content::digest::Digest;
use crate::content::dir::Lookup;
use crate::content::generation::Generation;
use crate::content::live::LiveDirectory;
use crate::content::path::encoded;
use crate::content::public::{Depth, is_public};
use crate::content::representation::{Modified, Representation, Source};
use crate::content::root::Content;
use crate::memory::{Account, Budget, NoRoom, Share};

/// What a client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Html,
    /// For programs.
    Json,
}

impl Form {
    /// JSON for clients that prefer it to HTML.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let quality = |media_type| quality::of_media_type(headers, media_type);
        if quality("application/json") > quality("text/html") { Self::Json } else { Self::Html }
    }
}

/// One line of a listing, ordered as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Item {
    /// Has a listing of its own, or an index.
    Directory {
        /// Without a slash.
        name: String,
    },
    /// Can be had.
    File {
        /// Its last segment.
        name: String,
        /// In bytes.
        size: u64,
        /// RFC 3339.
        modified: String,
    },
}

impl Item {
    fn file(name: &str, size: u64, modified: Modified) -> Self {
        Self::File { name: name.to_owned(), size, modified: modified.to_rfc3339() }
    }
}

/// How often it is said at most that a listing does not fit.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// What an item takes besides its own size and its name: a date, and allocations.
const ITEM: usize = 64;

/// The lines of a listing while it is made.
struct Items {
    items: Vec<Item>,
    share: Share,
}

impl Items {
    fn new(budget: &Arc<Budget>) -> Self {
        Self { items: Vec::new(), share: Share::new(budget, Account::Cache) }
    }

    fn push(&mut self, item: Item) -> Result<(), NoRoom> {
        let (Item::Directory { name } | Item::File { name, .. }) = &item;
        self.share.grow_listing((size_of::<Item>() + ITEM + name.len()) as u64)?;
        self.items.push(item);
        Ok(())
    }
}

/// The bytes of a listing.
struct Page {
    bytes: Vec<u8>,
    share: Share,
}

impl Page {
    fn new(budget: &Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), share: Share::new(budget, Account::Cache) }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.share.grow_listing(bytes.len() as u64)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Lists a directory of a site; `""` is the root. `None` where there is no such directory. Blocks.
///
/// # Errors
/// Where it cannot be read, and where the listing does not fit into memory.
pub(crate) fn list(
    site: &Content,
    directory: &str,
    form: Form,
    budget: &Arc<Budget>,
) -> io::Result<Option<Representation>> {
    let items = match site {
        Content::Waiting(_) => return Ok(None),
        Content::Release(generation) => of_release(generation, directory, budget),
        Content::Live(live) => of_directory(live, directory, budget),
    };
    items.and_then(|items| items.map(|items| render(directory, items, form, budget)).transpose())
}

/// Says that listings do not fit, once a minute: clients decide how often they ask.
#[derive(Debug, Default)]
pub(crate) struct Oversized {
    said: Mutex<Option<Instant>>,
}

impl Oversized {
    /// The listing of a directory did not fit.
    pub(crate) fn note(&self, path: &str) {
        let mut said = self.said.lock();
        if said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            tracing::debug!(path, "its listing does not fit into memory");
            return;
        }
        *said = Some(Instant::now());
        tracing::error!(
            path,
            "its listing does not fit into memory: raise the container's memory limit, or --memory-limit \
             (deploy/README.md, Memory), give the directory an index.html, or leave --autoindex out"
        );
    }
}

fn of_release(generation: &Generation, directory: &str, budget: &Arc<Budget>) -> io::Result<Option<Items>> {
    if !directory.is_empty() && !generation.index.has_directory(directory) {
        return Ok(None);
    }
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let below = |path: &str| path.strip_prefix(&prefix).filter(|name| !name.contains('/')).map(str::to_owned);
    let files = generation.listing().filter_map(|file| {
        let name = below(file.path)?;
        Some(Item::file(&name, file.size, file.modified))
    });
    let directories =
        generation.index.directories().filter_map(|path| Some(Item::Directory { name: below(path)? }));
    let mut items = Items::new(budget);
    for item in directories.chain(files) {
        items.push(item)?;
    }
    Ok(Some(items))
}

fn of_directory(live: &LiveDirectory, directory: &str, budget: &Arc<Budget>) -> io::Result<Option<Items>> {
    let mut names = match live.directory().entries(directory) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let place = if directory.is_empty() { Depth::Top } else { Depth::Below };
    let mut items = Items::new(budget);
    while let Some(name) = names.next()? {
        let Ok(name) = String::from_utf8(name) else { continue };
        if !is_public(&name, place) || name.contains('\\') {
            continue;
        }
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        match live.directory().inspect(&path)? {
            Lookup::File(file) => {
                let modified = Modified::at(file.state.last_change());
                items.push(Item::file(&name, file.state.size, modified))?;
            }
            Lookup::Dir => items.push(Item::Directory { name })?,
            Lookup::None => {}
        }
    }
    Ok(Some(items))
}

fn render(directory: &str, mut items: Items, form: Form, budget: &Arc<Budget>) -> io::Result<Representation> {
    items.items.sort_unstable();
    let mut page = Page::new(budget);
    let content_type = match form {
        Form::Json => {
            json(&items.items, &mut page)?;
            HeaderValue::from_static("application/json")
        }
        Form::Html => {
            html(directory, &items.items, &mut page)?;
            HeaderValue::from_static("text/html; charset=utf-8")
        }
    };
    // The time of a listing is that of whatever changed last in it, which no date tells when a file goes: the tag does.
    let modified = Modified::at(std::time::SystemTime::now());
    let digest = Digest::of(&page.bytes);
    let source = Source::Memory(page.share.hold(page.bytes));
    Ok(Representation::new(digest, modified, content_type, source))
}

fn json(items: &[Item], page: &mut Page) -> io::Result<()> {
    page.push(b"[")?;
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            page.push(b",")?;
        }
        page.push(&serde_json::to_vec(item)?)?;
    }
    page.push(b"]\n")?;
    Ok(())
}

fn html(directory: &str, items: &[Item], page: &mut Page) -> Result<(), NoRoom> {
    let title = escaped(&format!("/{directory}"));
    let head = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n"
    );
    page.push(head.as_bytes())?;
    if !directory.is_empty() {
        page.push(b"<li><a href=\"../\">../</a>\n")?;
    }
    for item in items {
        // `./` keeps a name with a colon from being read as a scheme.
        let line = match item {
            Item::Directory { name } => {
                format!("<li><a href=\"./{}/\">{}/</a>\n", escaped(&encoded(name)), escaped(name))
            }
            Item::File { name, size, modified } => format!(
                "<li><a href=\"./{}\">{}</a> {size} bytes, {modified}\n",
                escaped(&encoded(name)),
                escaped(name)
            ),
        };
        page.push(line.as_bytes())?;
    }
    page.push(b"</ul>\n</html>\n")
}

/// SECURITY: a file may be called anything, `<script>` included.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_becomes_markup() {
        let items = [Item::file("<b>\"&\".html", 1, Modified::at(std::time::UNIX_EPOCH))];
        let mut page = Page::new(&Budget::hidden(None));
        html("a&b", &items, &mut page).unwrap();
        let page = String::from_utf8(page.bytes).unwrap();
        assert!(page.contains("<h1>/a&amp;b</h1>"), "{page}");
        assert!(page.contains(">&lt;b&gt;&quot;&amp;&quot;.html</a>"), "{page}");
        assert!(page.contains("href=\"./%3Cb%3E%22&amp;%22.html\""), "{page}");
    }
}
