//! Listings of directories without an index, where they were asked for: HTML for people, JSON for programs.

use std::fmt::Write as _;
use std::io;

use http::HeaderValue;
use http::header::HeaderMap;
use lifecycle::{Ignore as _, quality};
use serde::Serialize;

use crate::content::digest::Digest;
use crate::content::dir::Lookup;
use crate::content::generation::Generation;
use crate::content::live::LiveDirectory;
use crate::content::path::encoded;
use crate::content::public::{Depth, is_public};
use crate::content::representation::{Modified, Representation, Source};
use crate::content::root::Content;

/// What a client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Html,
    /// For programs.
    Json,
}

impl Form {
    /// JSON for clients that like it better than HTML.
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

/// Lists a directory of a site; `""` is the root. `None` where there is no such directory. Blocks.
///
/// # Errors
/// Where it cannot be read.
pub(crate) fn list(site: &Content, directory: &str, form: Form) -> io::Result<Option<Representation>> {
    let items = match site {
        Content::Waiting(_) => None,
        Content::Release(generation) => of_release(generation, directory),
        Content::Live(live) => of_directory(live, directory)?,
    };
    items.map(|items| render(directory, items, form)).transpose()
}

fn of_release(generation: &Generation, directory: &str) -> Option<Vec<Item>> {
    if !directory.is_empty() && !generation.index.has_directory(directory) {
        return None;
    }
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let below = |path: &str| path.strip_prefix(&prefix).filter(|name| !name.contains('/')).map(str::to_owned);
    let files = generation.listing().filter_map(|file| {
        let name = below(file.path)?;
        Some(Item::file(&name, file.size, file.modified))
    });
    let directories =
        generation.index.directories().filter_map(|path| Some(Item::Directory { name: below(path)? }));
    Some(directories.chain(files).collect())
}

fn of_directory(live: &LiveDirectory, directory: &str) -> io::Result<Option<Vec<Item>>> {
    let mut names = match live.directory().entries(directory) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let place = if directory.is_empty() { Depth::Top } else { Depth::Below };
    let mut items = Vec::new();
    while let Some(name) = names.next()? {
        let Ok(name) = String::from_utf8(name) else { continue };
        if !is_public(&name, place) || name.contains('\\') {
            continue;
        }
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        match live.directory().inspect(&path)? {
            Lookup::File(file) => {
                let modified = Modified::at(file.state.last_change());
                items.push(Item::file(&name, file.state.size, modified));
            }
            Lookup::Dir => items.push(Item::Directory { name }),
            Lookup::None => {}
        }
    }
    Ok(Some(items))
}

fn render(directory: &str, mut items: Vec<Item>, form: Form) -> io::Result<Representation> {
    items.sort_unstable();
    let (body, content_type) = match form {
        Form::Json => {
            let mut json = serde_json::to_vec(&items).map_err(io::Error::other)?;
            json.push(b'\n');
            (json, HeaderValue::from_static("application/json"))
        }
        Form::Html => {
            (html(directory, &items).into_bytes(), HeaderValue::from_static("text/html; charset=utf-8"))
        }
    };
    // The time of a listing is that of whatever changed last in it, which no date tells when a file goes: the tag does.
    let modified = Modified::at(std::time::SystemTime::now());
    Ok(Representation::new(Digest::of(&body), modified, content_type, Source::Memory(body.into())))
}

fn html(directory: &str, items: &[Item]) -> String {
    let title = escaped(&format!("/{directory}"));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n"
    );
    if !directory.is_empty() {
        page.push_str("<li><a href=\"../\">../</a>\n");
    }
    for item in items {
        // `./` keeps a name with a colon from being read as a scheme. Writing to a String cannot fail.
        match item {
            Item::Directory { name } => {
                writeln!(page, "<li><a href=\"./{}/\">{}/</a>", escaped(&encoded(name)), escaped(name))
            }
            Item::File { name, size, modified } => writeln!(
                page,
                "<li><a href=\"./{}\">{}</a> {size} bytes, {modified}",
                escaped(&encoded(name)),
                escaped(name)
            ),
        }
        .ignore();
    }
    page.push_str("</ul>\n</html>\n");
    page
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
        let page = html("a&b", &items);
        assert!(page.contains("<h1>/a&amp;b</h1>"), "{page}");
        assert!(page.contains(">&lt;b&gt;&quot;&amp;&quot;.html</a>"), "{page}");
        assert!(page.contains("href=\"./%3Cb%3E%22&amp;%22.html\""), "{page}");
    }
}
