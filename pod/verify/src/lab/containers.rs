//! What a page has made on Docker or in a cluster, so that it can be seen to have taken it away, and be helped where it has not.
//!
//! Pages call what they make `lab-…`, and Compose does so for them when it is told its project's name.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::page::RunsOn;
use crate::engine::command::{run_prepared, text};

/// What the names of everything begin with that a page makes.
pub const PREFIX: &str = "lab-";

/// A kind of things that a page may leave: what lists their names, and what removes one.
#[derive(Debug)]
struct Kind {
    program: &'static str,
    list: &'static [&'static str],
    remove: &'static [&'static str],
}

/// On Docker, in the order in which they can be removed.
const DOCKER: [Kind; 3] = [
    Kind {
        program: "docker",
        list: &["ps", "--all", "--format", "{{.Names}}"],
        remove: &["rm", "--force", "--volumes"],
    },
    Kind {
        program: "docker",
        list: &["volume", "ls", "--format", "{{.Name}}"],
        remove: &["volume", "rm", "--force"],
    },
    Kind { program: "docker", list: &["network", "ls", "--format", "{{.Name}}"], remove: &["network", "rm"] },
];

/// In a cluster everything is in a namespace, and goes with it.
const CLUSTER: [Kind; 1] = [Kind {
    program: "kubectl",
    list: &["get", "namespaces", "--output=jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}"],
    remove: &["delete", "namespace", "--timeout=120s"],
}];

/// What was there before a page.
#[derive(Debug)]
pub struct Present {
    kinds: Vec<(&'static Kind, HashSet<String>)>,
    /// The kubeconfig of the cluster, where that is the place.
    kubeconfig: Option<PathBuf>,
}

impl Present {
    /// Takes note. Of processes there is nothing to note.
    pub fn of(place: RunsOn, kubeconfig: Option<&Path>) -> io::Result<Self> {
        let kinds: &[Kind] = match place {
            RunsOn::Compose => &DOCKER,
            RunsOn::Cluster => &CLUSTER,
            _ => &[],
        };
        let mut present = Self { kinds: Vec::new(), kubeconfig: kubeconfig.map(Path::to_owned) };
        for kind in kinds {
            let names = present.listed(kind)?;
            present.kinds.push((kind, names));
        }
        Ok(present)
    }

    /// Removes what has come since, and returns what that was.
    pub fn remove_newer(self) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        for (kind, before) in &self.kinds {
            for name in self.listed(kind)?.difference(before) {
                run_prepared(self.command(kind.program).args(kind.remove).arg(name))?;
                left.push(name.clone());
            }
        }
        Ok(left)
    }

    fn listed(&self, kind: &Kind) -> io::Result<HashSet<String>> {
        let names = text(&run_prepared(self.command(kind.program).args(kind.list))?);
        Ok(names.lines().filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
    }
}
