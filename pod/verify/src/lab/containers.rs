//! What a page has made on Docker, so that it can be seen to have taken it away, and be helped where it has not.
//!
//! Pages call what they make `lab-…`, and Compose does so for them when it is told its project's name.

use std::collections::HashSet;
use std::io;

use super::page::RunsOn;
use crate::engine::command::{run, text};

/// What the names of everything begin with that a page makes.
pub const PREFIX: &str = "lab-";

/// The kinds of things that a page may leave on Docker, in the order in which they can be removed: what lists them, what
/// removes one.
const KINDS: [(&[&str], &[&str]); 3] = [
    (&["ps", "--all", "--format", "{{.Names}}"], &["rm", "--force", "--volumes"]),
    (&["volume", "ls", "--format", "{{.Name}}"], &["volume", "rm", "--force"]),
    (&["network", "ls", "--format", "{{.Name}}"], &["network", "rm"]),
];

/// What was there before a page.
#[derive(Debug)]
pub struct Present(Option<[HashSet<String>; 3]>);

impl Present {
    /// Takes note; nowhere but on Docker is there anything to note.
    pub fn of(place: RunsOn) -> io::Result<Self> {
        if place != RunsOn::Compose {
            return Ok(Self(None));
        }
        let [containers, volumes, networks] = KINDS.map(|(list, _)| listed(list));
        Ok(Self(Some([containers?, volumes?, networks?])))
    }

    /// Removes what has come since, and returns what that was.
    pub fn remove_newer(self) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        for (before, (list, remove)) in self.0.into_iter().flatten().zip(KINDS) {
            for name in listed(list)?.difference(&before) {
                run("docker", remove.iter().copied().chain([name.as_str()]))?;
                left.push(name.clone());
            }
        }
        Ok(left)
    }
}

fn listed(list: &[&str]) -> io::Result<HashSet<String>> {
    let names = text(&run("docker", list)?);
    Ok(names.lines().filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
}
