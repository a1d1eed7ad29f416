//! The checks of an agent's objectives: which there are, how long each may take, and what is executed for one. Nothing
//! is run here: the project that the agent is of does that.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toka_keeper::Program;
use toka_runtime::program::{self, ProgramError};
use toka_workstream::{Agent, AgentKind, ProcessCommand};

/// How long a check may take when the agent declares no timeout of its own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// An objective that can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The objective's place in the agent's list, from 0.
    pub index: usize,
    /// The objective's description.
    pub description: String,
    /// What says whether it is met, by its exit status.
    pub command: ProcessCommand,
    /// How long it may take.
    pub timeout: Duration,
}

/// The checks that are run when the agent has ended well, in the order of the file. A service has none: its end tells
/// nothing, and while it lives its sandbox belongs to its own processes.
pub fn checks(agent: &Agent) -> Vec<Check> {
    let timeout = timeout(agent);
    let declared = agent.objectives.iter().enumerate().filter(|_| agent.kind == AgentKind::Task);
    let check = |(index, objective): (usize, &toka_workstream::Objective)| {
        let description = objective.description.clone();
        objective.check.clone().map(|command| Check { index, description, command, timeout })
    };
    declared.filter_map(check).collect()
}

/// Whether the agent declares checks that are never run.
pub fn are_ignored(agent: &Agent) -> bool {
    agent.kind == AgentKind::Service && agent.objectives.iter().any(|objective| objective.check.is_some())
}

/// What somebody declared for the agent holds for each of its checks too; the default for agents would be too long.
fn timeout(agent: &Agent) -> Duration {
    let declared = agent.confinement.limits.timeout.as_ref().filter(|timeout| timeout.is_explicit());
    declared.map_or(DEFAULT_TIMEOUT, |timeout| timeout.value)
}

/// The program of a check and its arguments. It is looked for only now, since it may be what the agent was to make.
///
/// # Errors
/// When there is no such program.
pub fn resolve(
    command: &ProcessCommand,
    working_dir: &Path,
    env: &[(OsString, OsString)],
) -> Result<(Program, Vec<OsString>), ProgramError> {
    let argv = match command {
        ProcessCommand::Shell(line) => {
            let argv = ["sh", "-c", line].map(OsString::from).to_vec();
            return Ok((Program::Path(PathBuf::from("/bin/sh")), argv));
        }
        ProcessCommand::Argv(argv) => argv,
    };
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(""), |(_, value)| value);
    let file = program::find(argv.first().map_or("", String::as_str), working_dir, path)?;
    Ok((Program::Path(file), argv.iter().map(OsString::from).collect()))
}

#[cfg(test)]
mod tests {
    use toka_workstream::{LoadOptions, load};

    use super::*;

    fn agent(document: &str) -> Agent {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, document).expect("room");
        let loaded = load(&[file], &LoadOptions::default());
        let mut set = loaded.set.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        set.agents.remove(0)
    }

    const OBJECTIVES: &str = "objectives: [{description: Seen by people}, {description: Built, check: test -e x}, \
        {description: Sound, check: [cargo, test]}]\n";

    #[test]
    fn only_what_has_a_check_is_checked_and_under_its_own_number() {
        let task =
            agent(&format!("metadata: {{name: a}}\nspec: {{process: {{shell: 'true'}}}}\n{OBJECTIVES}"));
        let seen: Vec<_> = checks(&task).into_iter().map(|c| (c.index, c.description, c.timeout)).collect();
        let minutes = Duration::from_secs(300);
        assert_eq!(seen, [(1, "Built".to_owned(), minutes), (2, "Sound".to_owned(), minutes)]);
        assert!(!are_ignored(&task));
    }

    #[test]
    fn a_declared_timeout_is_that_of_the_checks_too() {
        let limits = "security: {resource_limits: {timeout: 90s}}";
        let task = agent(&format!(
            "metadata: {{name: a}}\nspec: {{process: {{shell: 'true'}}}}\n{OBJECTIVES}{limits}\n"
        ));
        assert!(checks(&task).iter().all(|check| check.timeout == Duration::from_secs(90)));
    }

    #[test]
    fn the_checks_of_a_service_are_ignored_and_told() {
        let service = agent(&format!(
            "metadata: {{name: a}}\nspec: {{type: service, process: {{shell: 'true'}}}}\n{OBJECTIVES}"
        ));
        assert_eq!(checks(&service), []);
        assert!(are_ignored(&service));
    }

    #[test]
    fn a_line_goes_to_the_shell_and_a_list_to_the_program_in_the_agents_path() {
        let env = [(OsString::from("PATH"), OsString::from("/no-such-folder:/bin:/usr/bin"))];
        let resolve = |command| resolve(&command, Path::new("/"), &env);
        let (program, argv) = resolve(ProcessCommand::Shell("test -e x".into())).expect("a shell");
        assert!(matches!(program, Program::Path(path) if path == Path::new("/bin/sh")));
        assert_eq!(argv, ["sh", "-c", "test -e x"]);
        let (program, argv) = resolve(ProcessCommand::Argv(vec!["true".into(), "x".into()])).expect("there");
        assert!(matches!(program, Program::Path(path) if path == Path::new("/bin/true")));
        assert_eq!(argv, ["true", "x"]);
        resolve(ProcessCommand::Argv(vec!["toka-no-such-program".into()])).expect_err("nowhere");
    }
}
