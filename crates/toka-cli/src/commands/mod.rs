//! The subcommands, one file each: its options (`Args`) and what it does (`run`).

pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod completions;
pub(crate) mod declare;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod dry_run;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod folders;
pub(crate) mod foreground;
pub(crate) mod gc;
pub(crate) mod health;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod keeper;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod manager;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod ps;
pub(crate) mod reach;
pub(crate) mod refusal;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod top;
pub(crate) mod trust;
pub(crate) mod upgrade;
pub(crate) mod validate;
pub(crate) mod verb;
pub(crate) mod wait;
pub(crate) mod workstreams;

use toka_core::{ExitCode, Request};

use crate::cli::Command;

/// Does what the command line asks; the answer is the status of the process.
///
/// # Errors
/// Whatever kept the command from doing its work. A [`crate::failure::Failure`] in it names the status.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Apply(args) => apply::run(args),
        Command::Attach(args) => attach::run(args),
        Command::Ps(args) => ps::run(args),
        Command::Top(args) => top::run(args),
        Command::Trust(args) => trust::run(args),
        Command::Start(args) => verb::run(Request::Start, args),
        Command::Stop(args) => verb::run(Request::Stop, args),
        Command::Restart(args) => verb::run(Request::Restart, args),
        Command::Pause(args) => verb::run(Request::Pause, args),
        Command::Resume(args) => verb::run(Request::Resume, args),
        Command::Kill(args) => verb::run(Request::Kill, args),
        Command::Signal(args) => verb::signal(args),
        Command::Events(args) => events::run(args),
        Command::Health(args) => health::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Wait(args) => wait::run(args),
        Command::Down(args) => down::run(args),
        Command::Gc(args) => gc::run(args),
        Command::Upgrade(args) => upgrade::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Init(args) => init::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Report(args) => report::run(args),
        Command::Exec(args) => exec::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Man(args) => man::run(args),
    }
}
