//! What a page asks for: its fenced blocks, their commands, and the lines that each command shows.
//!
//! A block of `console` holds commands behind `$ ` (continued behind `> `) and what they print. A block of `sh` holds commands alone,
//! and says nothing of what they print. The words after the language say where the block runs; see [`Block`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where a block's commands run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum RunsOn {
    /// On this machine, with the built binaries
    Processes,
    /// On this machine's Docker
    Compose,
    /// In the cluster of the current context
    Cluster,
    /// Nowhere of its own: each line is one that CI runs anyway.
    #[value(skip)]
    Ci,
    /// Where base images can be pulled.
    #[value(skip)]
    Registry,
    /// By hand, on a quiet machine: a benchmark.
    #[value(skip)]
    Bench,
}

/// What is waited for before the page goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// The reader's own terminal: each command ends, and shows these lines and no others.
    Own,
    /// Another terminal, in which something runs on: these lines appear in this order, with others between them.
    Other(String),
}

/// Whether a command is given once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// It shows what it shows.
    Once,
    /// It is repeated until it shows this: `repeat`.
    Repeat,
}

/// A fenced block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its opening fence, from 1.
    pub line: usize,
    /// The word `compose`, `cluster`, `ci`, `registry` or `bench`; without one, processes.
    pub place: RunsOn,
    /// `terminal=NAME`.
    pub screen: Terminal,
    /// `repeat`.
    pub tries: Tries,
    /// In their order.
    pub steps: Vec<Step>,
}

/// One thing that the reader does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its line in the page, from 1.
    pub line: usize,
    /// What is done.
    pub action: Action,
    /// What is then seen; nothing is promised in a block of `sh`.
    pub shown: Option<Vec<String>>,
}

/// What a reader does in a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Types a command.
    Type(String),
    /// Presses Ctrl-C, written `^C`.
    Interrupt,
    /// Looks.
    Look,
}

/// A line of a page that cannot be read, or that promises what does not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The blocks of commands of a page.
pub fn blocks(text: &str) -> Result<Vec<Block>, Mistake> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines());
    let mut before = "";
    while let Some((line, content)) = lines.next() {
        let Some(info) = content.trim_start().strip_prefix("```") else {
            if before.trim().is_empty() && looks_like_commands(content) {
                return Err(mistake(line, "commands go into a fenced block that says where they run"));
            }
            before = content;
            continue;
        };
        let indent = content.len() - content.trim_start().len();
        let body: Vec<(usize, &str)> = lines
            .by_ref()
            .take_while(|(_, line)| line.trim() != "```")
            .map(|(number, line)| (number, line.get(indent..).unwrap_or("").trim_end()))
            .collect();
        before = "";
        blocks.extend(block(line, info, &body)?);
    }
    Ok(blocks)
}

/// The blocks of the page at `path`.
pub fn read(path: &Path) -> io::Result<Vec<Block>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    blocks(&text).map_err(|mistake| io::Error::other(format!("{}: {mistake}", path.display())))
}

/// The repository's documents, in the order of their names.
pub fn all(repository: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for folder in [
        "",
        "file-puller",
        "web-server",
        "log-agent",
        "deploy",
        "benches",
        "docs",
        "docs/decisions",
        "docs/labs",
    ] {
        for entry in std::fs::read_dir(repository.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// An indented line that starts a block: Markdown shows it as code, but it does not say where it runs.
fn looks_like_commands(line: &str) -> bool {
    const PROGRAMS: [&str; 14] = [
        "$",
        "cargo",
        "docker",
        "kubectl",
        "podman",
        "curl",
        "just",
        ".ci",
        "benches",
        "deploy",
        "target",
        // Folders with scripts, and the binaries.
        "file-puller",
        "web-server",
        "log-agent",
    ];
    let code = line.strip_prefix("    ").filter(|code| !code.starts_with(' '));
    code.and_then(|code| code.split([' ', '/']).next()).is_some_and(|word| PROGRAMS.contains(&word))
}

fn block(line: usize, info: &str, body: &[(usize, &str)]) -> Result<Option<Block>, Mistake> {
    let mut words = info.split_whitespace();
    let language = words.next().unwrap_or_default();
    if !matches!(language, "console" | "sh" | "bash" | "shell") {
        return match body.iter().find(|(_, content)| content.starts_with("$ ")) {
            Some((line, _)) => Err(mistake(*line, "a command stands in a block of `console`")),
            None => Ok(None),
        };
    }
    let mut block = Block {
        line,
        place: RunsOn::Processes,
        screen: Terminal::Own,
        tries: Tries::Once,
        steps: Vec::new(),
    };
    for word in words {
        match word {
            "compose" => block.place = RunsOn::Compose,
            "cluster" => block.place = RunsOn::Cluster,
            "ci" => block.place = RunsOn::Ci,
            "registry" => block.place = RunsOn::Registry,
            "bench" => block.place = RunsOn::Bench,
            "repeat" => block.tries = Tries::Repeat,
            _ => match word.strip_prefix("terminal=") {
                Some(name) if !name.is_empty() => block.screen = Terminal::Other(name.to_owned()),
                _ => return Err(mistake(line, &format!("`{word}` is no known word for a block"))),
            },
        }
    }
    block.steps = if language == "console" { session(&block.screen, body)? } else { script(body) };
    if block.steps.is_empty() {
        return Err(mistake(line, "a block of commands without a command"));
    }
    Ok(Some(block))
}

/// Each line is a command.
fn script(body: &[(usize, &str)]) -> Vec<Step> {
    let commands = body.iter().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    commands
        .map(|(line, command)| Step { line: *line, action: Action::Type((*command).to_owned()), shown: None })
        .collect()
}

/// Commands behind their prompt, and what they show.
fn session(screen: &Terminal, body: &[(usize, &str)]) -> Result<Vec<Step>, Mistake> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, content) in body {
        let step = |action| Step { line: *line, action, shown: Some(Vec::new()) };
        if let Some(command) = content.strip_prefix("$ ") {
            steps.push(step(Action::Type(command.to_owned())));
        } else if *content == "^C" {
            steps.push(step(Action::Interrupt));
        } else if let Some(last) = steps.last_mut() {
            match (&mut last.action, content.strip_prefix("> "), &mut last.shown) {
                (Action::Type(command), Some(more), Some(shown)) if shown.is_empty() => {
                    command.push('\n');
                    command.push_str(more);
                }
                (_, _, shown) => shown.get_or_insert_default().push((*content).to_owned()),
            }
        } else if *screen == Terminal::Own {
            return Err(mistake(*line, "a block of `console` begins with `$ ` and a command"));
        } else {
            steps.push(Step { shown: Some(vec![(*content).to_owned()]), ..step(Action::Look) });
        }
    }
    Ok(steps)
}

fn mistake(line: usize, what: &str) -> Mistake {
    Mistake { line, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_what_they_show() {
        let page = "Prose.\n\n```console compose repeat\n$ echo one \\\n> two\none two\n$ true\n```\n";
        let blocks = blocks(page).unwrap();
        assert_eq!((blocks[0].place, blocks[0].tries, blocks[0].line), (RunsOn::Compose, Tries::Repeat, 3));
        let typed = Action::Type("echo one \\\ntwo".to_owned());
        let first = Step { line: 4, action: typed, shown: Some(vec!["one two".to_owned()]) };
        assert_eq!(blocks[0].steps[0], first);
        assert_eq!(blocks[0].steps[1].shown, Some(vec![]));
    }

    #[test]
    fn another_terminal_is_looked_at_and_interrupted() {
        let page = "```console terminal=pod\nup\n^C\ndown\n```\n";
        let steps = &blocks(page).unwrap()[0].steps;
        assert_eq!(
            steps.iter().map(|step| &step.action).collect::<Vec<_>>(),
            [&Action::Look, &Action::Interrupt]
        );
        assert_eq!(steps[1].shown, Some(vec!["down".to_owned()]));
    }

    #[test]
    fn a_block_that_is_never_run_is_a_mistake() {
        for (page, line) in [
            ("```console somewhere\n$ true\n```\n", 1),
            ("```text\n$ true\n```\n", 2),
            ("```console\n```\n", 1),
            ("```console\nno prompt\n```\n", 2),
            ("Run:\n\n    cargo demo\n", 3),
            ("Run:\n\n    log-agent/tests/wire/run.sh\n", 3),
            ("Run:\n\n    $ curl localhost\n", 3),
        ] {
            assert_eq!(blocks(page).unwrap_err().line, line, "{page}");
        }
        assert_eq!(blocks("```json\n{}\n```\n\n    GET /manifest.json\n"), Ok(vec![]));
    }
}
