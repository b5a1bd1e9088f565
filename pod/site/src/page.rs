//! One page: Markdown in, a page of the site out, in its look.

use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

/// A document.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    source: &'a Path,
    markdown: &'a str,
}

/// What a reader has to do first whose Pod serves the very page.
const NOTE: &str = "<aside class=\"here\" aria-label=\"Before you begin\">\n<p class=\"label\">Before you begin</p>\n\
     <p>Press Ctrl-C where the Pod runs that serves this page: the lab starts its own, on the same ports. The page stays open in \
     your browser. Type at the repository\u{2019}s root, once <code>cargo demo</code> has run.</p>\n</aside>\n";

/// The pages that all others link to.
const NAVIGATION: [(&str, &str); 9] = [
    ("index.html", "This Pod"),
    ("live.html", "Live"),
    ("pod.html", "What a Pod is"),
    ("immutable.html", "Immutable"),
    ("containers.html", "Not one fat container"),
    ("sidecar.html", "Sidecars"),
    ("patterns.html", "Patterns"),
    ("object-model.html", "Object model"),
    ("labs/index.html", "Labs"),
];

/// Where a document goes, from the repository's root.
pub(crate) fn target(source: &Path) -> PathBuf {
    let within = source.strip_prefix("docs").unwrap_or(source);
    let name = if within.ends_with("README.md") {
        within.with_file_name("index.html")
    } else {
        within.with_extension("html")
    };
    Path::new("deploy/content").join(name)
}

impl<'a> Page<'a> {
    /// The Markdown of the file `source`, named from the repository's root.
    pub(crate) fn new(source: &'a Path, markdown: &'a str) -> Self {
        Self { source, markdown }
    }

    /// The whole page. `sources` are all documents that become pages, in reading order.
    pub(crate) fn html(&self, sources: &[PathBuf]) -> String {
        let up = "../".repeat(target(self.source).components().count() - 3);
        let title = self.markdown.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
        let mut body = String::new();
        html::push_html(&mut body, self.events(sources).into_iter());
        let target = target(self.source);
        let here = target.strip_prefix("deploy/content").unwrap_or(&target);
        let is_listed = NAVIGATION.iter().any(|(page, _)| Path::new(page) == here);
        let items: Vec<String> = NAVIGATION
            .iter()
            .map(|(page, name)| {
                let current = match *page {
                    page if Path::new(page) == here => " aria-current=\"page\"",
                    "labs/index.html" if !is_listed => " aria-current=\"true\"",
                    _ => "",
                };
                format!("      <li><a href=\"{up}{page}\"{current}>{name}</a></li>\n")
            })
            .collect();
        let navigation = items.concat();
        let shown = self.source.display();
        if self.is_lab() {
            body = body.replacen("</h1>\n", &format!("</h1>\n{NOTE}"), 1);
        }
        let pager = self.pager(sources);
        format!(
            "<!DOCTYPE html>\n<!-- Made from {shown} by `cargo run --package site`. -->\n<html lang=\"en\">\n<head>\n  \
             <meta charset=\"utf-8\">\n  <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n  \
             <meta name=\"color-scheme\" content=\"light dark\">\n  <title>{title} · A Pod, from inside</title>\n  \
             <link rel=\"icon\" href=\"{up}favicon.svg\" type=\"image/svg+xml\">\n  \
             <link rel=\"stylesheet\" href=\"{up}css/site.css\">\n  <link rel=\"stylesheet\" href=\"{up}css/labs.css\">\n  \
             <script type=\"module\" src=\"{up}js/copy.js\"></script>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#main\">Skip to the text</a>\n<header class=\"wrap\">\n  <nav aria-label=\"Pages\">\n    \
             <a class=\"home\" href=\"{up}index.html\"><img src=\"{up}favicon.svg\" alt=\"\" width=\"28\" height=\"28\"> A Pod, \
             from inside</a>\n    <ul>\n{navigation}    </ul>\n  </nav>\n</header>\n\
             <main id=\"main\" class=\"wrap\" tabindex=\"-1\">\n<div class=\"prose\">\n{body}{pager}</div>\n</main>\n\
             <footer class=\"wrap\">\n  <p>This page is <code>{shown}</code> of the repository. Its commands are typed and their \
             output is compared by <code>deploy/verify labs</code>.</p>\n</footer>\n</body>\n</html>\n"
        )
    }

    /// Whether the document is a lab: its name begins with its number.
    fn is_lab(&self) -> bool {
        let name = self.source.file_name().unwrap_or_default();
        self.source.starts_with("docs/labs")
            && name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)
    }

    /// The document's events, with what is the site's own: anchors, links between pages, and what a block runs on.
    fn events(&self, sources: &[PathBuf]) -> Vec<Event<'a>> {
        let options = Options::ENABLE_TABLES;
        let mut events = Vec::new();
        let mut heading = None;
        let mut unlinked = None;
        let mut tables = 0;
        for event in Parser::new_ext(self.markdown, options) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => heading = Some((level, Vec::new())),
                Event::End(TagEnd::Heading(level)) => {
                    let (_, inner) = heading.take().unwrap_or((level, Vec::new()));
                    events.push(Event::Html(opening(level, &inner)));
                    events.extend(inner);
                    events.push(Event::Html(format!("</{level}>\n").into()));
                }
                event if heading.is_some() => {
                    if let Some((_, inner)) = &mut heading {
                        inner.push(event);
                    }
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    events.push(Event::Html(block_opening(&info)));
                }
                Event::End(TagEnd::CodeBlock) => {
                    events.push(Event::Html("</code></pre>\n</figure>\n".into()));
                }
                Event::Start(Tag::Table(_)) => {
                    tables += 1;
                    let label = format!("aria-label=\"Table {tables}\"");
                    events.push(Event::Html(
                        format!("<div class=\"table\" role=\"region\" {label} tabindex=\"0\">\n").into(),
                    ));
                    events.push(event);
                }
                Event::End(TagEnd::Table) => {
                    events.push(event);
                    events.push(Event::Html("</div>\n".into()));
                }
                Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                    match self.link(&dest_url, sources) {
                        Some(dest_url) => {
                            events.push(Event::Start(Tag::Link {
                                link_type,
                                dest_url: dest_url.into(),
                                title,
                                id,
                            }));
                        }
                        // A file of the repository, which is not on the site: it is named by its path.
                        None => unlinked = Some((self.path(&dest_url), events.len())),
                    }
                }
                Event::End(TagEnd::Link) if unlinked.is_some() => {
                    if let Some((path, begin)) = unlinked.take() {
                        // A text that is the path's end says no more than the path.
                        if path.ends_with(&text(&events[begin..])) {
                            events.truncate(begin);
                            events.push(Event::Code(path.into()));
                        } else {
                            events.extend([
                                Event::Text(" (".into()),
                                Event::Code(path.into()),
                                Event::Text(")".into()),
                            ]);
                        }
                    }
                }
                Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
                    let dest_url = self.link(&dest_url, sources).map_or(dest_url, CowStr::from);
                    events.push(Event::Start(Tag::Image { link_type, dest_url, title, id }));
                }
                event => events.push(event),
            }
        }
        events
    }

    /// A link as the site has it, or nothing where its target is not part of the site.
    fn link(&self, destination: &str, sources: &[PathBuf]) -> Option<String> {
        if destination.contains("://") || destination.starts_with('#') {
            return Some(destination.to_owned());
        }
        let (file, anchor) =
            destination.split_once('#').map_or((destination, None), |(file, at)| (file, Some(at)));
        let file = PathBuf::from(self.path(file));
        let page = if sources.contains(&file) {
            target(&file)
        } else {
            file.starts_with("deploy/content").then_some(file)?
        };
        let relative = relative(target(self.source).parent()?, &page);
        Some(match anchor {
            Some(anchor) => format!("{relative}#{anchor}"),
            None => relative,
        })
    }

    /// What a link names, from the repository's root.
    fn path(&self, destination: &str) -> String {
        let file = destination.split('#').next().unwrap_or_default();
        normal(&self.source.parent().unwrap_or(Path::new("")).join(file)).display().to_string()
    }

    fn pager(&self, sources: &[PathBuf]) -> String {
        let Some(at) = sources.iter().position(|source| source == self.source) else { return String::new() };
        let folder = target(self.source);
        let folder = folder.parent().unwrap_or(Path::new(""));
        let link = |source: Option<&PathBuf>, rel: &str, text: &str| {
            let link = |source: &PathBuf| {
                format!("  <a rel=\"{rel}\" href=\"{}\">{text}</a>\n", relative(folder, &target(source)))
            };
            source.map(link).unwrap_or_default()
        };
        let previous = link(at.checked_sub(1).and_then(|at| sources.get(at)), "prev", "← The page before");
        let next = link(sources.get(at + 1), "next", "The next page →");
        format!("<nav class=\"pager\" aria-label=\"Previous and next page\">\n{previous}{next}</nav>\n")
    }
}

/// A heading's opening tag, with the anchor that the forges give it: lower case, hyphens for spaces, no punctuation.
fn opening(level: HeadingLevel, inner: &[Event<'_>]) -> CowStr<'static> {
    let anchor: String = text(inner)
        .to_lowercase()
        .replace(' ', "-")
        .chars()
        .filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter))
        .collect();
    format!("<{level} id=\"{anchor}\">").into()
}

/// What a reader sees of these events.
fn text(events: &[Event<'_>]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
        _ => None,
    });
    texts.collect()
}

/// A block of code, with a line above it that says where its commands are typed.
fn block_opening(info: &str) -> CowStr<'static> {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or("text");
    let mut place = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("terminal", name)) => place.push(format!("in a terminal of its own: {name}")),
            _ => match word {
                "compose" => place.push("needs Docker".to_owned()),
                "cluster" => place.push("needs a cluster".to_owned()),
                "repeat" => place.push("again until it shows this".to_owned()),
                _ => {}
            },
        }
    }
    let caption = if place.is_empty() {
        String::new()
    } else {
        format!("<figcaption>{}</figcaption>", place.join(", "))
    };
    let class = if language == "console" || language == "sh" { "commands" } else { "listing" };
    format!("<figure class=\"{class}\">{caption}<pre tabindex=\"0\"><code>").into()
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, part| {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
        normal
    })
}

/// The way from a folder to a file.
fn relative(folder: &Path, file: &Path) -> String {
    let shared = folder.components().zip(file.components()).take_while(|(a, b)| a == b).count();
    let up = "../".repeat(folder.components().count() - shared);
    let down: PathBuf = file.components().skip(shared).collect();
    format!("{up}{}", down.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(markdown: &str) -> String {
        let source = Path::new("docs/labs/02-shared-volume.md");
        let sources =
            ["docs/labs/README.md", "docs/labs/02-shared-volume.md", "docs/patterns.md"].map(PathBuf::from);
        Page::new(source, markdown).html(&sources)
    }

    #[test]
    fn a_page_links_to_pages_and_names_files() {
        let page = html(
            "# Two\n\n[patterns](../patterns.md#sidecar), [labs](README.md), [`live.rs`](../../web-server/src/live.rs), [the contract](../contract.md#7-the-pod).\n",
        );
        assert!(page.contains("<a href=\"../patterns.html#sidecar\">patterns</a>"), "{page}");
        assert!(page.contains("<a href=\"index.html\">labs</a>"), "{page}");
        assert!(page.contains(", <code>web-server/src/live.rs</code>"), "{page}");
        assert!(page.contains(", the contract (<code>docs/contract.md</code>)."), "{page}");
        let page = html("# Two\n\n![The swap](../../deploy/content/img/swap.svg)\n");
        assert!(page.contains("<img src=\"../img/swap.svg\" alt=\"The swap\" />"), "{page}");
        assert!(page.contains("<title>Two · A Pod, from inside</title>"), "{page}");
        assert!(page.contains("<link rel=\"stylesheet\" href=\"../css/site.css\">"), "{page}");
    }

    #[test]
    fn the_navigation_shows_where_the_reader_is() {
        let sources = ["docs/patterns.md", "docs/questions.md"].map(PathBuf::from);
        let current = |source: &str| {
            let page = Page::new(Path::new(source), "# A\n").html(&sources);
            let items: Vec<&str> = page.lines().filter(|line| line.contains("aria-current")).collect();
            items.concat()
        };
        assert!(
            current("docs/patterns.md")
                .ends_with("\"patterns.html\" aria-current=\"page\">Patterns</a></li>")
        );
        assert!(
            current("docs/questions.md").ends_with("\"labs/index.html\" aria-current=\"true\">Labs</a></li>")
        );
    }

    /// Some of the site's pages are written by hand.
    #[test]
    fn all_pages_have_the_same_navigation() {
        let content = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/content");
        let items = |page: &str| -> Vec<String> {
            let navigation = page.split("<ul>").nth(1).and_then(|rest| rest.split("</ul>").next());
            let items = navigation.unwrap_or_default().split("<a href=\"").skip(1);
            items.map(|item| item.split('"').next().unwrap_or_default().to_owned()).collect()
        };
        let mut pages = 0;
        for entry in std::fs::read_dir(content).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "html") && !path.ends_with("404.html") {
                pages += 1;
                let listed = NAVIGATION.map(|(page, _)| page.to_owned());
                let page = std::fs::read_to_string(&path).unwrap();
                let shown = items(&page).into_iter().map(|page| page.trim_start_matches('/').to_owned());
                assert_eq!(shown.collect::<Vec<_>>(), listed, "{}", path.display());
            }
        }
        assert!(pages > 7);
    }

    #[test]
    fn headings_have_the_forges_anchors_and_blocks_say_where_they_run() {
        let page = html("## What `rename(2)` does\n\n```console terminal=pod\n$ cargo demo <now>\n```\n");
        assert!(
            page.contains("<h2 id=\"what-rename2-does\">What <code>rename(2)</code> does</h2>"),
            "{page}"
        );
        assert!(page.contains("<figcaption>in a terminal of its own: pod</figcaption>"), "{page}");
        assert!(page.contains("$ cargo demo &lt;now&gt;"), "{page}");
    }
}
