//! Every block of commands says where it runs, and there is something that runs it there.

use std::collections::HashSet;

use verify::lab::page::{self, Action, RunsOn};

use super::{pages, root};

#[test]
fn every_block_of_commands_is_run_somewhere() {
    let unread: Vec<String> =
        pages().iter().filter_map(|page| page::read(page).err()).map(|error| error.to_string()).collect();
    assert!(unread.is_empty(), "{unread:#?}");

    let used: HashSet<RunsOn> =
        pages().iter().flat_map(|page| page::read(page).unwrap()).map(|block| block.place).collect();
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(
        ci.lines().any(|line| line == "deploy/verify labs"),
        ".ci/run does not run the documents' commands"
    );
    assert!(
        !used.contains(&RunsOn::Compose)
            || ci.lines().any(|line| line.starts_with("deploy/verify labs --on compose")),
        ".ci/run does not run the documents' commands on Compose"
    );
}

/// A block may leave it to CI to run its commands, if that does: in `.ci/run`, or in a job of its own beside it.
#[test]
fn what_is_left_to_ci_is_in_ci() {
    let mut ci = commands(&std::fs::read_to_string(root().join(".ci/run")).unwrap());
    let workflow = std::fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    let jobs = workflow.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("run: "));
    ci.extend(jobs.flat_map(commands));
    let recipes = std::fs::read_to_string(root().join("justfile")).unwrap();
    let mut missing = Vec::new();
    for page in pages() {
        for block in page::read(&page).unwrap().into_iter().filter(|block| block.place == RunsOn::Ci) {
            for step in block.steps {
                let Action::Type(command) = step.action else { panic!("{}: {step:?}", page.display()) };
                let command = command.split(" #").next().unwrap().trim();
                let lines = match command.strip_prefix("just ") {
                    Some(recipe) => commands(recipe_of(&recipes, recipe)),
                    None => HashSet::from([command.to_owned()]),
                };
                let run =
                    !lines.is_empty() && lines.iter().all(|line| line == ".ci/run" || ci.contains(line));
                if !run {
                    missing.push(format!("{}:{}: {command}", page.display(), step.line));
                }
            }
        }
    }
    assert!(missing.is_empty(), "CI does not run: {missing:#?}");
}

/// Benchmarks are run by hand, and stand in one document.
#[test]
fn only_benchmarks_are_run_by_hand() {
    for page in pages() {
        let by_hand =
            page::read(&page).unwrap().into_iter().filter(|block| block.place == RunsOn::Bench).count();
        assert!(by_hand == 0 || page.ends_with("docs/benchmarks.md"), "{}", page.display());
    }
}

/// The three programs' own pages can be followed while a Pod runs: what they start takes none of its ports.
#[test]
fn the_programs_own_pages_leave_a_running_pod_alone() {
    let mut taken = Vec::new();
    for program in ["file-puller", "web-server", "log-agent"] {
        let page = root().join(program).join("README.md");
        let steps: Vec<_> = page::read(&page).unwrap().into_iter().flat_map(|block| block.steps).collect();
        let starts = |command: &str| command.contains("target/demo/");
        assert!(steps.iter().any(|step| matches!(&step.action, Action::Type(command) if starts(command))));
        for step in steps {
            let Action::Type(command) = step.action else { continue };
            let admin_port = starts(&command) && !command.contains("--once");
            if (admin_port && !command.contains("--admin-addr 127.0.0.1:0"))
                || (9876..=9880).any(|port| command.contains(&format!(":{port}")))
            {
                taken.push(format!("{}:{}: {command}", page.display(), step.line));
            }
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
}

/// A Docker line in the text is not run. It mounts a folder that the page has made before, so that what the reader sees is there.
#[test]
fn a_docker_line_mounts_what_the_page_has_made() {
    let mut mounts = 0;
    let mut unmade = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let made: Vec<String> = page::read(&page)
            .unwrap()
            .into_iter()
            .flat_map(|block| block.steps)
            .filter_map(|step| match step.action {
                Action::Type(command) => Some(command),
                _ => None,
            })
            .collect();
        for line in text.split("`docker run ").skip(1).map(|rest| rest.split('`').next().unwrap()) {
            for folder in line.split("$PWD/").skip(1).map(|rest| rest.split(':').next().unwrap()) {
                mounts += 1;
                if !made.iter().any(|command| command.contains(&format!("mkdir -p {folder} "))) {
                    unmade.push(format!("{}: {folder}", page.display()));
                }
            }
        }
    }
    assert!(mounts > 0);
    assert!(unmade.is_empty(), "{unmade:#?}");
}

/// The lines of a script; `--locked` is how CI says the same.
fn commands(script: &str) -> HashSet<String> {
    // `beside NAME COMMAND` runs the command while others run.
    let command = |line: &'_ str| match line.strip_prefix("beside ").and_then(|rest| rest.split_once(' ')) {
        Some((_name, command)) => command.replace(" --locked", ""),
        None => line.replace(" --locked", ""),
    };
    script.lines().map(|line| command(line.trim())).filter(|line| !line.is_empty()).collect()
}

fn recipe_of<'a>(recipes: &'a str, name: &str) -> &'a str {
    let after = recipes.split_once(&format!("\n{name}:\n")).map_or("", |(_, after)| after);
    after.split_once("\n\n").map_or(after, |(recipe, _)| recipe)
}
