//! A page from its first command to its last: typed, waited for, compared.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use lifecycle::Ignore as _;

use super::descendants;
use super::expect::{among, shows};
use super::page::{Action, Block, Mistake, RunsOn, Step, Terminal, Tries};
use super::shell::{Outcome, Shell};
use super::workspace::Workspace;

const POLL: Duration = Duration::from_millis(200);
/// How long the last processes of a page may take to be gone, once their Ctrl-C was pressed or their container removed.
const LEAVING: Duration = Duration::from_secs(5);

/// Runs the blocks of one place, in their order. Returns how many commands those were.
pub fn page(
    blocks: &[Block],
    place: RunsOn,
    workspace: &Workspace,
    environment: &[(String, std::ffi::OsString)],
) -> Result<usize, Mistake> {
    let environment = [workspace.environment(), environment].concat();
    let mut reader = Reader { workspace, environment, limit: limit(place), terminals: HashMap::new() };
    let mut typed = 0;
    for block in blocks.iter().filter(|block| block.place == place) {
        for step in &block.steps {
            reader.take(step, block)?;
            typed += usize::from(matches!(step.action, Action::Type(_)));
        }
    }
    let last = blocks.last().map_or(0, |block| block.line);
    reader.leave().map_err(|what| Mistake { line: last, what })?;
    Ok(typed)
}

/// Processes start at once; containers are made, and a cluster has to be asked for everything.
fn limit(place: RunsOn) -> Duration {
    Duration::from_secs(if place == RunsOn::Processes { 60 } else { 180 })
}

/// A student who does what the page says, with as many terminals as it says.
struct Reader<'a> {
    workspace: &'a Workspace,
    environment: Vec<(String, std::ffi::OsString)>,
    limit: Duration,
    terminals: HashMap<Terminal, Shell>,
}

impl Reader<'_> {
    fn take(&mut self, step: &Step, block: &Block) -> Result<(), Mistake> {
        let limit = self.limit;
        let mistake = |what: String| Mistake { line: step.line, what };
        let terminal = self.terminal(&block.screen).map_err(|error| mistake(error.to_string()))?;
        let outcome = match (&block.screen, block.tries) {
            (Terminal::Own, Tries::Once) => own(terminal, step, limit),
            (Terminal::Own, Tries::Repeat) => repeated(terminal, step, limit),
            (Terminal::Other(_), _) => other(terminal, step, limit),
        };
        outcome.map_err(mistake)
    }

    fn terminal(&mut self, screen: &Terminal) -> io::Result<&mut Shell> {
        if !self.terminals.contains_key(screen) {
            let terminal = Shell::open(self.workspace.path(), &self.environment)?;
            self.terminals.insert(screen.clone(), terminal);
        }
        self.terminals.get_mut(screen).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A page cleans up after itself: when its terminals are closed, nothing of it runs.
    fn leave(&mut self) -> Result<(), String> {
        for (screen, mut terminal) in self.terminals.drain() {
            if screen != Terminal::Own {
                // An error means that nothing runs there: the page has stopped it.
                terminal.interrupt().ignore();
            }
            terminal.close();
        }
        let begun = Instant::now();
        loop {
            let left = descendants::all();
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > LEAVING {
                let left: Vec<String> = left.into_iter().map(descendants::command_line).collect();
                return Err(format!("at the end of the page there still runs: {}", left.join("; ")));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The command ends well, and shows just this.
fn own(terminal: &mut Shell, step: &Step, limit: Duration) -> Result<(), String> {
    let Action::Type(command) = &step.action else {
        return Err("only a terminal with a name can be looked at or interrupted".to_owned());
    };
    match ended(terminal, command, limit)? {
        (0, said) if step.shown.as_ref().is_none_or(|shown| shows(shown, &said)) => Ok(()),
        (0, said) => {
            let shown = step.shown.as_deref().unwrap_or_default();
            Err(format!("$ {command}\nthe page shows:\n{}what came:\n{}", indented(shown), indented(&said)))
        }
        (code, said) => Err(format!("$ {command}\nended with exit code {code}:\n{}", indented(&said))),
    }
}

/// The same as often as it takes.
fn repeated(terminal: &mut Shell, step: &Step, limit: Duration) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match own(terminal, step, limit) {
            Ok(()) => return Ok(()),
            Err(last) if begun.elapsed() > limit => {
                return Err(format!("repeated for {limit:?} in vain, at last: {last}"));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn ended(terminal: &mut Shell, command: &str, limit: Duration) -> Result<(i32, Vec<String>), String> {
    terminal.type_in(command).map_err(|error| format!("$ {command}\n{error}"))?;
    match terminal.wait(limit) {
        Outcome::Ended(code, said) => Ok((code, said)),
        Outcome::Runs(said) => {
            Err(format!("$ {command}\nhas not ended within {limit:?}:\n{}", indented(&said)))
        }
    }
}

/// Something runs on there; what the page shows comes sooner or later, in this order.
fn other(terminal: &mut Shell, step: &Step, limit: Duration) -> Result<(), String> {
    match &step.action {
        Action::Type(command) => {
            terminal.type_in(command).map_err(|error| format!("$ {command}\n{error}"))?;
        }
        Action::Interrupt => terminal.interrupt().map_err(|error| error.to_string())?,
        Action::Look => {}
    }
    let shown = step.shown.as_deref().unwrap_or_default();
    let begun = Instant::now();
    loop {
        let unseen = terminal.unseen();
        match among(shown, &unseen) {
            Ok(lines) => {
                terminal.pass(lines);
                return Ok(());
            }
            Err(missing) if begun.elapsed() > limit => {
                return Err(format!(
                    "waited {limit:?} in vain for the line\n    {missing}\nwhat came:\n{}",
                    indented(&unseen)
                ));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn indented(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["    ", line, "\n"]).collect()
}
