//! `toka completions SHELL`: a script that asks `toka` itself for every word, so that it knows what runs: the names of
//! agents and projects, the codes of diagnostics, the keys of the file format.
//!
//! A word is asked for by the variable [`ASK`] in the environment; `main` answers before it reads its command line.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use toka_core::ExitCode;
use toka_core::capability::KNOWN;

use super::reach::{Found, Reach, block_on};
use super::workstreams::Selection;
use crate::cli::Cli;

/// The variable by which a script asks for words. A name of our own: others may have a `COMPLETE`.
const ASK: &str = "TOKA_COMPLETE";

/// Longest wait for a daemon: a person who pressed Tab looks at the screen.
const LONGEST: Duration = Duration::from_millis(500);

/// Options of `toka completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shells = Shells::builtins();
    let shell = shells
        .completer(&args.shell.to_string())
        .ok_or_else(|| anyhow::anyhow!("there is no completion for {}", args.shell))?;
    let mut script = Vec::new();
    shell.write_registration(ASK, "toka", "toka", "toka", &mut script)?;
    Ok(toka_terminal::out::end(&String::from_utf8(script)?, ExitCode::Success)?)
}

/// Prints the words that fit and ends the process, if a shell asked for them.
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).var(ASK).bin("toka").completer("toka").complete();
}

/// The command line with where the words of each argument come from. An argument takes its words by the name of its value.
fn command() -> Command {
    Cli::command().mut_subcommands(|command| {
        let command = command.mut_args(with_words);
        let declares = matches!(command.get_name(), "run" | "record" | "apply" | "plan");
        command.mut_args(|arg| if declares && of_files(&arg) { arg.add(declared_words()) } else { arg })
    })
}

/// Whether it names agents that files declare, and that need not run.
fn of_files(arg: &Arg) -> bool {
    ["only", "exit_code_from"].contains(&arg.get_id().as_str())
}

fn with_words(arg: Arg) -> Arg {
    if !arg.get_action().takes_values() {
        return arg;
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match (name.as_deref(), arg.get_id().as_str()) {
        (Some("AGENT"), _) if of_files(&arg) => arg,
        (Some("AGENT"), _) => arg.add(ArgValueCompleter::new(agents)),
        (Some("SIGNAL"), _) => arg.add(ArgValueCompleter::new(signals)),
        (Some("NAME"), "allow") => arg.add(ArgValueCompleter::new(capabilities)),
        (Some("NAME"), "project") => arg.add(ArgValueCompleter::new(projects)),
        (Some("TOPIC"), _) => arg.add(ArgValueCompleter::new(topics)),
        (Some("DIR"), _) => arg.value_hint(ValueHint::DirPath),
        (Some("COMMAND"), _) => arg.value_hint(ValueHint::CommandName),
        (Some("PATH" | "FILE"), _) => arg,
        // Whatever it is, it is no file: without this, shells offer the files of the folder.
        _ if arg.get_value_hint() == ValueHint::Unknown => arg.value_hint(ValueHint::Other),
        _ => arg,
    }
}

/// What runs, as far as it answers in time, and what of the typed words says where to look.
fn running() -> (Reach, Vec<Found>) {
    let words: Vec<String> = std::env::args().collect();
    let value = |option: &str| {
        let joined = format!("{option}=");
        let after = words.iter().position(|word| word == option).and_then(|at| words.get(at + 1));
        after.map(String::as_str).or_else(|| words.iter().find_map(|word| word.strip_prefix(&joined)))
    };
    let project = value("--project").and_then(|name| name.parse().ok());
    let reach = Reach { project, state_dir: value("--state-dir").map(Into::into) };
    let found = block_on(async { tokio::time::timeout(LONGEST, reach.running()).await? });
    (reach, found.unwrap_or_default())
}

/// The agents of the project that is meant; those of all others with their project.
fn agents(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let (reach, running) = running();
    let here: BTreeSet<_> = match &reach.project {
        Some(project) => BTreeSet::from([project.clone()]),
        None => Reach::of_this_folder(&running).into_iter().collect(),
    };
    let is_meant = |found: &Found| here.contains(found.name()) && !current.contains('/');
    let mut words = Vec::new();
    for found in &running {
        if reach.project.is_some() && !here.contains(found.name()) {
            continue;
        }
        let prefix = if is_meant(found) { String::new() } else { format!("{}/", found.name()) };
        for agent in &found.project.agents {
            words.push((format!("{prefix}{}", agent.name), agent.state.as_str().to_owned()));
        }
    }
    if words.iter().any(|(word, _)| !word.contains('/')) {
        words.retain(|(word, _)| !word.contains('/'));
    }
    fitting(current, words)
}

/// Signals that people send, the most asked for first.
const SIGNALS: [(&str, &str); 8] = [
    ("TERM", "ask to end"),
    ("HUP", "read the settings again, by custom"),
    ("INT", "as Ctrl-C"),
    ("QUIT", "as Ctrl-\\"),
    ("USR1", ""),
    ("USR2", ""),
    ("WINCH", "another size of its terminal"),
    ("KILL", "end at once"),
];

fn signals(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = SIGNALS.map(|(name, help)| (name.to_owned(), help.to_owned()));
    fitting(&current.to_string_lossy(), words.into())
}

/// Those that a person has to grant.
fn capabilities(current: &OsStr) -> Vec<CompletionCandidate> {
    let granted = KNOWN.iter().filter(|row| row.dangerous);
    let words = granted.map(|row| (row.name.to_owned(), row.meaning.to_owned()));
    fitting(&current.to_string_lossy(), words.collect())
}

fn projects(current: &OsStr) -> Vec<CompletionCandidate> {
    let (_, running) = running();
    let word =
        |found: &Found| (found.name().to_string(), found.project.overview.workspace.display().to_string());
    fitting(&current.to_string_lossy(), running.iter().map(word).collect())
}

fn topics(current: &OsStr) -> Vec<CompletionCandidate> {
    fitting(&current.to_string_lossy(), super::explain::topics())
}

fn declared_words() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let names = declared().map(|set| set.agents.iter().map(|agent| agent.name.to_string()).collect());
        let names: Vec<String> = names.unwrap_or_default();
        let words = names.into_iter().map(|name| (name, String::new())).collect();
        fitting(&current.to_string_lossy(), words)
    })
}

/// What the files of the current folder declare, if they can be read.
fn declared() -> Option<toka_workstream::Set> {
    let selection = Selection::default();
    toka_workstream::load(&selection.paths().ok()?, &selection.options()).set
}

/// Those words that begin as what was typed, each with what is said of it.
fn fitting(current: &str, words: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    let fits = words.into_iter().filter(|(word, _)| word.starts_with(current));
    let candidate = |(word, help): (String, String)| {
        CompletionCandidate::new(word).help((!help.is_empty()).then(|| help.into()))
    };
    fits.map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_asks_for_its_words() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let shells = Shells::builtins();
            let completer = shells.completer(&shell.to_string()).expect("every shell has one");
            let mut script = Vec::new();
            completer.write_registration(ASK, "toka", "toka", "toka", &mut script).expect("in memory");
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains(ASK), "{shell}");
        }
    }

    #[test]
    fn no_argument_offers_words_of_the_shell() {
        command().debug_assert();
        for subcommand in command().get_subcommands() {
            for arg in subcommand.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                let has_words = arg.get::<ArgValueCompleter>().is_some()
                    || !arg.get_possible_values().is_empty()
                    || arg.get_value_hint() != ValueHint::Unknown;
                assert!(has_words, "{} {}", subcommand.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn the_codes_are_offered() {
        let found = topics(OsStr::new("TK001"));
        assert!(found.iter().any(|word| word.get_value() == "TK0010"), "{found:?}");
        assert_eq!(signals(OsStr::new("US")).len(), 2);
        assert!(capabilities(OsStr::new("network")).iter().any(|word| word.get_value() == "network:full"));
        assert!(topics(OsStr::new("-")).is_empty());
        assert_eq!(topics(OsStr::new("TK")).len(), toka_workstream::Code::ALL.len());
    }
}
