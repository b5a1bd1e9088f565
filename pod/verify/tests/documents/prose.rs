//! The learners' pages: all parts of a lab, and names of functions that are there.

use std::path::{Path, PathBuf};

use verify::lab::page;

use super::{learners_pages, root};

/// A lab has a goal, commands, what they show and why, code to read, and questions with answers to unfold.
#[test]
fn every_lab_has_all_its_parts() {
    let labs: Vec<PathBuf> = learners_pages().into_iter().filter(|page| is_a_lab(page)).collect();
    assert_eq!(labs.len(), 12, "{labs:?}");
    let overview = std::fs::read_to_string(root().join("docs/labs/README.md")).unwrap();
    for lab in labs {
        let text = std::fs::read_to_string(&lab).unwrap();
        for part in [
            "\n**Goal.**",
            "\n**Runs on**",
            "**Takes**",
            "\n**Why.**",
            "\n## Read the code\n",
            "\n## Questions\n",
        ] {
            assert!(text.contains(part), "{}: no {part:?}", lab.display());
        }
        assert!(text.matches("<details><summary>").count() >= 2, "{}: questions", lab.display());
        let steps = page::read(&lab).unwrap().into_iter().flat_map(|block| block.steps);
        let shown = steps.filter(|step| step.shown.as_ref().is_some_and(|lines| !lines.is_empty())).count();
        assert!(shown >= 5, "{}: only {shown} commands show what you should see", lab.display());
        let name = lab.file_name().unwrap().to_str().unwrap();
        assert!(overview.contains(&format!("({name})")), "{name} is not in the overview");
    }
}

/// A listing that says `of=FILE` shows lines of that file, in their order, each with a remark at its end at most.
#[test]
fn listings_are_of_the_files_that_they_name() {
    let mut listings = 0;
    for page in learners_pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for listing in text.split("```yaml of=").skip(1) {
            listings += 1;
            let (file, body) = listing.split_once('\n').unwrap();
            let source = std::fs::read_to_string(root().join(file)).unwrap();
            let mut left = source.lines();
            for line in body.split("```").next().unwrap().lines() {
                let shown = line.split("  #").next().unwrap().trim_end();
                let there = left.any(|line| line.trim_end() == shown);
                assert!(
                    there,
                    "{}: {file} has no such line, or not after the one before: {shown}",
                    page.display()
                );
            }
        }
    }
    assert!(listings > 0);
}

/// Its name begins with its number.
fn is_a_lab(page: &Path) -> bool {
    let name = page.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(|first: char| first.is_ascii_digit())
}

/// `- [`file.rs`](…): `name` …` promises that the file has that function, type or constant.
#[test]
fn the_code_to_read_is_there() {
    let mut missing = Vec::new();
    for page in learners_pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for line in text.lines().filter(|line| line.starts_with("- [`")) {
            let Some((target, rest)) = line.split_once("](").and_then(|(_, rest)| rest.split_once(')'))
            else {
                continue;
            };
            let Ok(source) = std::fs::read_to_string(page.with_file_name(target)) else { continue };
            let is_code = Path::new(target).extension().is_some_and(|extension| extension == "rs");
            let names = rest.split('`').skip(1).step_by(2).filter(|name| is_a_name(name));
            missing.extend(
                names
                    .filter(|name| is_code && !declares(&source, name))
                    .map(|name| format!("{}: {target} has no `{name}`", page.display())),
            );
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The README promises what can be read in an hour, in lines. Code grows and moves; a file that
/// is half as long again as was promised, or a path that is a quarter longer, must be counted again.
#[test]
fn the_reading_path_is_as_long_as_it_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let Some((_, path)) = readme.split_once("## One hour of reading") else { panic!("no reading path") };
    let path = path.split("\n## ").next().unwrap();
    let mut promised_in_all = 0;
    let mut lines_in_all = 0;
    let mut wrong = Vec::new();
    for row in path.lines().filter(|line| line.starts_with("| [`")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let promised: usize = cells[2].parse().unwrap_or_else(|_| panic!("no number of lines in {row}"));
        let target = cells[1].split_once("](").and_then(|(_, rest)| rest.split(')').next()).unwrap();
        let lines = std::fs::read_to_string(root().join(target)).unwrap().lines().count();
        promised_in_all += promised;
        lines_in_all += lines;
        if lines.abs_diff(promised) * 2 > lines {
            wrong.push(format!("{target} has {lines} lines, not {promised}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(lines_in_all.abs_diff(promised_in_all) * 4 <= lines_in_all, "{lines_in_all} lines in all");
    let total = format!("{},{:03} lines", promised_in_all / 1000, promised_in_all % 1000);
    assert!(path.contains(&total), "the rows add up to {total}, which the section does not say");
}

/// A drawing has at most eight files, and the README's path takes files of the three programs from the drawings, in their order.
#[test]
fn the_reading_path_follows_the_drawings() {
    let architecture = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut drawn = Vec::new();
    for drawing in architecture.split("\n## ").skip(1) {
        let rows = drawing.lines().filter(|line| line.starts_with("| ") && line.contains("](../"));
        let files: Vec<&str> = rows.flat_map(|row| row.split("](../").skip(1)).collect();
        assert!((1..=8).contains(&files.len()), "{files:?}");
        drawn.extend(files.into_iter().filter_map(|rest| rest.split(')').next()));
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, path) = readme.split_once("## One hour of reading").unwrap();
    let rows = path.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| [`"));
    let read = rows.filter_map(|row| row.split("](").nth(1)?.split(')').next());
    let programs = ["file-puller/", "web-server/", "log-agent/"];
    let mut left = drawn.iter();
    for file in read.filter(|file| programs.iter().any(|program| file.starts_with(program))) {
        assert!(left.any(|next| *next == file), "{file} is in no drawing, or not after the file before it");
    }
}

fn is_a_name(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn declares(source: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"].iter().any(|word| {
        let declared = format!("{word} {name}");
        source.match_indices(&declared).any(|(at, _)| {
            let after = source[at + declared.len()..].chars().next();
            after.is_none_or(|letter| !(letter.is_alphanumeric() || letter == '_'))
        })
    })
}
