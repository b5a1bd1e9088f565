//! The cluster that kubectl is sent to. It is always named, so that nothing runs on a cluster that happens to be current.

use std::io;
use std::process::Command;

use crate::engine::command::{run, text};

/// A context of the kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    name: Option<String>,
}

impl Context {
    /// The context that `--context` names, or the only one that there is. Without any, kubectl finds its cluster by itself, as
    /// inside a Pod.
    ///
    /// SAFETY of the user's clusters: with several contexts and none named, this refuses. The current one may be production.
    pub fn choose(named: Option<&str>) -> io::Result<Self> {
        let known = text(&run("kubectl", ["config", "get-contexts", "--output=name"])?);
        let known: Vec<&str> = known.lines().collect();
        Self::among(&known, named)
    }

    fn among(known: &[&str], named: Option<&str>) -> io::Result<Self> {
        let all = known.join(", ");
        match (named, known) {
            (Some(named), _) if known.contains(&named) => Ok(Self { name: Some(named.to_owned()) }),
            (Some(named), _) => Err(io::Error::other(format!(
                "--context {named}: the kubeconfig has no such context; it has: {all}"
            ))),
            (None, []) => Ok(Self { name: None }),
            (None, [only]) => Ok(Self { name: Some((*only).to_owned()) }),
            (None, _) => {
                Err(io::Error::other(format!("there are several clusters; name one with --context: {all}")))
            }
        }
    }

    /// `kubectl`, sent to this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.args(self.name.iter().map(|name| format!("--context={name}")));
        command
    }

    /// A kubeconfig that knows this cluster alone, with its credentials.
    pub fn kubeconfig(&self) -> io::Result<Vec<u8>> {
        let mut view = self.kubectl();
        view.args(["config", "view", "--minify", "--flatten", "--raw"]);
        crate::engine::command::run_prepared(&mut view)
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name.as_deref().unwrap_or("of this Pod's own cluster"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_unless_it_is_the_only_one() {
        let name = |known: &[&str], named| Context::among(known, named).map(|context| context.name);
        assert_eq!(name(&["kind-a", "production"], Some("kind-a")).unwrap().as_deref(), Some("kind-a"));
        assert_eq!(name(&["kind-a"], None).unwrap().as_deref(), Some("kind-a"));
        assert_eq!(name(&[], None).unwrap(), None);
        let refused = name(&["kind-a", "production"], None).unwrap_err().to_string();
        assert!(refused.contains("--context: kind-a, production"), "{refused}");
        let refused = name(&["kind-a"], Some("kind-b")).unwrap_err().to_string();
        assert!(refused.contains("kind-b") && refused.contains("it has: kind-a"), "{refused}");
    }
}
