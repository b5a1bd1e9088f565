//! What the documents point to is there, and what they tell people to type is run.

mod blocks;
mod labs;
mod prose;

use std::path::{Path, PathBuf};

use verify::lab::page;

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() >= 8, "only {pages:?}");
    let broken: Vec<_> = pages.iter().flat_map(|page| broken_links(page)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Each challenge of the live page names a lab of the site, and a file of the clone.
#[test]
fn every_challenge_leads_somewhere() {
    let script = std::fs::read_to_string(root().join("deploy/content/js/challenges.js")).unwrap();
    let named = |key: &str| -> Vec<String> {
        let before = format!("{key}: \"");
        script.split(&before).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    let (titles, labs, code) = (named("title"), named("lab"), named("code"));
    assert_eq!((titles.len(), labs.len(), code.len()), (12, 12, 12));
    let labs = labs.iter().map(|lab| format!("deploy/content/labs/{lab}.html"));
    let missing: Vec<String> = labs.chain(code).filter(|path| !root().join(path).is_file()).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is two folders down")
}

fn pages() -> Vec<PathBuf> {
    page::all(root()).expect("the pages can be listed")
}

/// The pages for learners.
fn learners_pages() -> Vec<PathBuf> {
    let names = ["patterns.md", "object-model.md", "troubleshooting.md"];
    let docs = root().join("docs");
    pages()
        .into_iter()
        .filter(|page| {
            page.starts_with(docs.join("labs")) || names.iter().any(|name| *page == docs.join(name))
        })
        .collect()
}
/// The relative targets of Markdown links and of `src` attributes that are not there, and headings that no page has.
fn broken_links(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page can be read");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let sources = text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let relative = targets.chain(sources).filter(|target| !target.contains("://"));
    let broken = relative.filter(|target| {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let file: PathBuf = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
        !file.exists() || !(heading.is_empty() || has_heading(&file, heading))
    });
    broken.map(|target| format!("{}: {target}", page.display())).collect()
}

/// Headings are linked to as the forges make their anchors: lower case, spaces to hyphens, punctuation dropped.
fn has_heading(page: &Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(page).expect("a page can be read");
    text.lines().filter_map(|line| line.strip_prefix('#')).any(|heading| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading
            .chars()
            .filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter))
            .collect::<String>()
            == anchor
    })
}
