//! The command line as a type: its options, help texts and looks. Each subcommand's options stand beside its code.

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::{Parser, Subcommand, ValueEnum};

use toka_core::{ExitCode, Request};

use crate::commands;
use crate::logging::Unasked;

/// Runs AI agents as confined, supervised processes, declared in YAML workstreams.
#[derive(Debug, Parser)]
#[command(name = "toka", version, styles = STYLES, max_term_width = 100)]
#[command(after_help = "Run `toka COMMAND --help` for the options of a command.")]
pub(crate) struct Cli {
    /// When to use colours; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", display_order = 100)]
    pub(crate) color: ColorWhen,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run workstreams to their end, with live progress
    Run(commands::run::Args),
    /// Check workstream files and show everything that is wrong with them
    Validate(commands::validate::Args),
    /// Show what would run, in which order, and every rule that would be enforced
    Plan(commands::plan::Args),
    /// Show what workstreams ask for beyond their workspace, and record that you trust them with it
    Trust(commands::trust::Args),
    /// Show what agents wrote, while they run and afterwards
    Logs(commands::logs::Args),
    /// Write a commented workstream file to start from
    Init(commands::init::Args),
    /// Explain a diagnostic's code, a key of the workstream file, or a topic
    Explain(commands::explain::Args),
    /// Print the JSON Schema of workstream files
    Schema(commands::schema::Args),
    /// Report progress from inside an agent
    Report(commands::report::Args),
    /// Attach to the terminal of an agent
    Attach(commands::attach::Args),
    /// Run a command in the sandbox of an agent that runs, or of a workstream
    Exec(commands::exec::Args),
    /// Run the daemon that outlives terminals
    Serve(commands::serve::Args),
    /// Make a running project what its files say now, or begin to run it in the background
    Apply(commands::apply::Args),
    /// List what runs
    Ps(commands::ps::Args),
    /// Watch what runs, and control it with keys
    Top(commands::top::Args),
    /// Start agents that have ended, with what they need
    Start(commands::verb::Args),
    /// Stop agents, those first that others of them do not need
    Stop(commands::verb::Args),
    /// Stop agents and start them again
    Restart(commands::verb::Args),
    /// Freeze agents; their clocks stand still
    Pause(commands::verb::Args),
    /// Let frozen agents go on
    Resume(commands::verb::Args),
    /// End agents at once
    Kill(commands::verb::Args),
    /// Send a signal to the main process of agents
    Signal(commands::verb::SignalArgs),
    /// Show what happened in a project, and what happens
    Events(commands::events::Args),
    /// Show which models agents may ask, and what they cost
    Models(commands::models::Args),
    /// Run workstreams, and make a script of what models said, which answers in their place
    Record(commands::record::Args),
    /// Show what calls of models came to, by agent, model, day or run
    Cost(commands::cost::Args),
    /// Show what models and tools have done together, and remove it
    Sessions(commands::sessions::Args),
    /// Talk to an agent: to one that runs, or to one of its own in this folder
    Chat(commands::chat::Args),
    /// Tell the model that works on an agent's tasks something
    Steer(commands::steer::Args),
    /// List and answer what waits for a person
    Approvals(commands::approvals::Args),
    /// Show what was done, granted and refused, and whether that record is whole
    Audit(commands::audit::Args),
    /// Show how well agents and the daemon are, and why they are not better
    Health(commands::health::Args),
    /// Show everything that is known of agents, as JSON
    Inspect(commands::inspect::Args),
    /// Wait until agents have ended, or are ready
    Wait(commands::wait::Args),
    /// Stop a project, or the daemon with everything that runs in it
    Down(commands::down::Args),
    /// Remove what runs that ended left: sockets, secrets, control groups, logs beyond what is kept
    Gc(commands::gc::Args),
    /// Replace the daemon by the program that is installed now; its agents run on
    Upgrade(commands::upgrade::Args),
    /// Show what this host can enforce, and prove it by trying to break out
    Doctor(commands::doctor::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
    /// Print a manual page, or write all of them into a folder
    #[command(hide = true)]
    Man(commands::man::Args),
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    // No doc comments: clap would make a paragraph of each in the help of every command.
    #[default]
    Auto,
    Always,
    Never,
}

impl ColorWhen {
    /// Makes it the choice of every stream of this process.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default())
    .error(AnsiColor::Red.on_default().effects(Effects::BOLD))
    .valid(AnsiColor::Green.on_default())
    .invalid(AnsiColor::Yellow.on_default());

impl Command {
    /// Does what the command line asks; the answer is the status of the process.
    ///
    /// # Errors
    /// Whatever kept the command from doing its work. A [`toka_terminal::failure::Failure`] in it names the status.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => commands::run::run(args),
            Self::Serve(args) => commands::serve::run(args),
            Self::Apply(args) => commands::apply::run(args),
            Self::Attach(args) => commands::attach::run(args),
            Self::Ps(args) => commands::ps::run(args),
            Self::Top(args) => commands::top::run(args),
            Self::Trust(args) => commands::trust::run(args),
            Self::Start(args) => commands::verb::run(Request::Start, args),
            Self::Stop(args) => commands::verb::run(Request::Stop, args),
            Self::Restart(args) => commands::verb::run(Request::Restart, args),
            Self::Pause(args) => commands::verb::run(Request::Pause, args),
            Self::Resume(args) => commands::verb::run(Request::Resume, args),
            Self::Kill(args) => commands::verb::run(Request::Kill, args),
            Self::Signal(args) => commands::verb::signal(args),
            Self::Events(args) => commands::events::run(args),
            Self::Models(args) => commands::models::run(args),
            Self::Record(args) => commands::record::run(args),
            Self::Approvals(args) => commands::approvals::run(args),
            Self::Sessions(args) => commands::sessions::run(args),
            Self::Chat(args) => commands::chat::run(args),
            Self::Steer(args) => commands::steer::run(args),
            Self::Audit(args) => commands::audit::run(args),
            Self::Cost(args) => commands::cost::run(args),
            Self::Health(args) => commands::health::run(args),
            Self::Inspect(args) => commands::inspect::run(args),
            Self::Wait(args) => commands::wait::run(args),
            Self::Down(args) => commands::down::run(args),
            Self::Gc(args) => commands::gc::run(args),
            Self::Upgrade(args) => commands::upgrade::run(args),
            Self::Validate(args) => commands::validate::run(args),
            Self::Plan(args) => commands::plan::run(args),
            Self::Init(args) => commands::init::run(args),
            Self::Explain(args) => commands::explain::run(args),
            Self::Schema(args) => commands::schema::run(args),
            Self::Report(args) => commands::report::run(args),
            Self::Exec(args) => commands::exec::run(args),
            Self::Doctor(args) => commands::doctor::run(args),
            Self::Completions(args) => commands::completions::run(args),
            Self::Logs(args) => commands::logs::run(args),
            Self::Man(args) => commands::man::run(args),
        }
    }

    /// What is logged of it when nobody asks.
    pub(crate) fn log_unasked(&self) -> Unasked {
        if let Self::Serve(_) = self { Unasked::Warnings } else { Unasked::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A line break that somebody typed breaks a sentence where the terminal is narrower, and lines are wrapped anyway.
    #[test]
    fn no_help_breaks_in_the_middle_of_a_sentence() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines().filter(|line| !line.is_empty()) {
                let ends = line.ends_with(['.', ':']);
                assert!(ends, "{}: {line:?}", command.get_name());
            }
        }
    }

    #[test]
    fn every_visible_command_and_option_has_help() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for option in command.get_arguments() {
                assert!(option.get_help().is_some(), "{} {}", command.get_name(), option.get_id());
            }
        }
    }
}
