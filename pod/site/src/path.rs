//! The README's reading path: how many lines each file has, and all of them together.

use std::fs;
use std::io;
use std::path::Path;

const HEADING: &str = "## One hour of reading";

/// The README with the lines counted again: in the rows of its reading path, and in the sentence above them.
pub(crate) fn count(repository: &Path, readme: &str) -> io::Result<String> {
    let Some((before, section)) = readme.split_once(HEADING) else { return Ok(readme.to_owned()) };
    let (section, after) =
        section.split_once("\n## ").map_or((section, None), |(path, rest)| (path, Some(rest)));
    let mut total = 0;
    let mut counted = String::new();
    for line in section.split_inclusive('\n') {
        let cells: Vec<&str> = line.split('|').collect();
        let file = line
            .starts_with("| [`")
            .then(|| cells[1].split_once("](").and_then(|(_, rest)| rest.split(')').next()));
        match file.flatten() {
            Some(file) if cells.len() > 3 => {
                let lines = round(fs::read_to_string(repository.join(file))?.lines().count());
                total += lines;
                counted.push_str(
                    &["|", cells[1], "| ", &lines.to_string(), " |", &cells[3..].join("|")].concat(),
                );
            }
            _ => counted.push_str(line),
        }
    }
    let sentence = counted.lines().find(|line| line.contains(" lines")).unwrap_or_default().to_owned();
    if let Some((_, rest)) = sentence.split_once(" lines") {
        let said = format!("{},{:03} lines{rest}", total / 1000, total % 1000);
        counted = counted.replacen(&sentence, &said, 1);
    }
    let after = after.map(|rest| ["\n## ", rest].concat()).unwrap_or_default();
    Ok([before, HEADING, &counted, &after].concat())
}

/// To tens: a path that changed with every line would say no more.
fn round(lines: usize) -> usize {
    lines.div_ceil(10) * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_their_sum_are_counted() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let readme = "# x\n\n## One hour of reading\n\n9 lines in this order.\n\n| read | lines | why |\n|---|---|---|\n\
                      | [`Cargo.toml`](Cargo.toml) | 9 | a | b |\n\n## Next\n| [`y`](y) | 1 |\n";
        let counted = count(repository, readme).unwrap();
        let lines = round(fs::read_to_string(repository.join("Cargo.toml")).unwrap().lines().count());
        assert!(counted.contains(&format!("\n0,{lines:03} lines in this order.")), "{counted}");
        assert!(
            counted.contains(&format!("| [`Cargo.toml`](Cargo.toml) | {lines} | a | b |\n")),
            "{counted}"
        );
        assert!(counted.ends_with("\n\n## Next\n| [`y`](y) | 1 |\n"), "{counted}");
    }
}
