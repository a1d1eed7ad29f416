//! `toka trust`: what the workstreams of a workspace ask for beyond the workspace and the default walls, in words, and the
//! record that a person trusts them with it. `toka run` and `toka apply` ask the same on a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toka_core::approval::TrustedHost;
use toka_core::capability::Trust;
use toka_core::units::format_duration;
use toka_core::{AgentName, Capability, Declared, ExitCode, ModelConfig, ModelReach, Origin, ProviderConfig};
use toka_prepare::Models;
use toka_prepare::confine::Demands;
use toka_prepare::folders::ProjectFolders;
use toka_prepare::trust::{AnsweredHost, TrustRecord, TrustStore};
use toka_workstream::{Agent, Set};

use super::folders::{Folders, Place, workspace};
use super::policy::{Granted, Grants, WorkspacePolicy, file_of};
use super::workstreams::{Only, Selection, Tell};
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::text::{columns, count, safe};
use toka_terminal::{json, out};

/// Options of `toka trust`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What a workstream may do within its workspace and the default walls needs no trust. Everything else is a \
    demand: paths outside, the network, secrets, variables, another user. It is refused (77) until a person \
    grants it, by `toka trust`, by --allow NAME, or by --trust for one run. A demand that is new, or of \
    another agent, asks again; a changed command does not.\n\
    Exit status: 0 recorded, or nothing is asked for; 65 invalid or no workstream; 77 not trusted."
)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    place: Place,
    /// Record without asking
    #[arg(long, short, conflicts_with_all = ["list", "revoke"])]
    yes: bool,
    /// Show every workspace that is trusted with something, and with what
    #[arg(long, conflicts_with_all = ["paths", "revoke"])]
    list: bool,
    /// Forget what this workspace was trusted with
    #[arg(long, conflicts_with = "paths")]
    revoke: bool,
    /// Print one JSON object; with --list, an array of them
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(&args);
    }
    if args.revoke {
        return revoke(&args);
    }
    let ready = args.selection.ready(&Only::default(), Tell::Everything)?;
    let folders = args.place.folders()?;
    let grants = Grants { allow: Vec::new(), policy: None, trust: false };
    let granted = grants.granted(&folders, &ready.set)?;
    let review = Review::of(&ready.set, &folders, &granted);
    let palette = Palette::for_stream(&std::io::stdout());
    let answer = match (review.asks_nothing_new(), args.yes) {
        (true, _) | (_, true) => Answer::Always,
        (false, false) if args.json => Answer::No,
        (false, false) => {
            print!("{}", review.text(palette));
            ask("Trust them with that?", Choice::YesNo)?
        }
    };
    if answer == Answer::Always {
        keep(&folders, &review, &ready.set, granted.record.as_ref())?;
    }
    let code = if answer == Answer::Always { ExitCode::Success } else { ExitCode::Denied };
    let text = match (args.json, answer) {
        (true, answer) => format!("{}\n", json::line(&review.to_json(answer == Answer::Always))),
        (false, Answer::Always) if review.asks_nothing_new() && !review.is_empty() => {
            format!("{}it is trusted with all of that already\n", review.text(palette))
        }
        (false, Answer::Always) if review.is_empty() => format!(
            "{} asks for nothing beyond the workspace and the default walls\n",
            safe(&folders.workspace.to_string_lossy())
        ),
        (false, Answer::Always) if args.yes => format!("{}recorded\n", review.text(palette)),
        (false, Answer::Always) => "recorded\n".to_owned(),
        (false, _) => "nothing was recorded\n".to_owned(),
    };
    Ok(out::end(&text, code)?)
}

fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let folders = Folders::find(args.place.state_dir.as_deref())?;
    let records = TrustStore::of(&folders.state).list().map_err(unreadable)?;
    if args.json {
        return Ok(out::end(
            &format!("{}\n", json::line(&serde_json::to_value(&records)?)),
            ExitCode::Success,
        )?);
    }
    let palette = Palette::for_stream(&std::io::stdout());
    let mut text = String::new();
    for record in &records {
        let shown = safe(&record.workspace.to_string_lossy());
        let _ = writeln!(text, "{}  since {}", palette.strong.paint(shown), record.recorded);
        for (agent, demands) in &record.agents {
            for demand in demands {
                let _ = writeln!(text, "  {agent} may {}", safe(&demand.in_words()));
            }
        }
        for AnsweredHost { trusted: TrustedHost { agent, host, port, until_ms }, .. } in
            record.hosts.iter().filter(|known| known.is_current(super::ps::now_ms()))
        {
            let until = until_ms.and_then(|until| jiff::Timestamp::from_millisecond(until).ok());
            let until = until
                .map_or_else(String::new, |until| format!(" until {}", until.strftime("%Y-%m-%d %H:%M UTC")));
            let _ = writeln!(text, "  {agent} may reach {}:{port}, as was answered{until}", safe(host));
        }
        if record.policy.is_some() {
            text.push_str("  what its toka.yaml allowed then\n");
        }
    }
    if records.is_empty() {
        text.push_str("no workspace is trusted with anything\n");
    }
    Ok(out::end(&text, ExitCode::Success)?)
}

fn revoke(args: &Args) -> anyhow::Result<ExitCode> {
    let given = args.place.workdir.as_deref();
    let workspace = given.and_then(removed).map_or_else(|| workspace(given), Ok)?;
    let folders = Folders::find(args.place.state_dir.as_deref())?;
    let known = TrustStore::of(&folders.state).revoke(&workspace).map_err(unreadable)?;
    let shown = safe(&workspace.to_string_lossy());
    let text = match (args.json, known) {
        (true, known) => format!("{}\n", json::line(&json!({"workspace": workspace, "revoked": known}))),
        (false, true) => {
            format!("{shown} is trusted with nothing any more; what runs already keeps what it has\n")
        }
        (false, false) => format!("{shown} was trusted with nothing\n"),
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// The path that a workspace had which is not there any more.
fn removed(given: &Path) -> Option<PathBuf> {
    let is_gone = given.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let path = std::path::absolute(given).ok().filter(|_| is_gone)?;
    let parent = path.parent()?;
    Some(parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(path.file_name()?))
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::new(ExitCode::StateFolder, format!("the records of trust cannot be used: {error}"))
}

/// Whether somebody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The person at the terminal, if there is one.
    Person,
    /// Nobody: the output is for a program.
    Nobody,
}

/// What is granted after the person at the terminal was asked for what is not. Where nobody is there, or the answer is no,
/// it is as it was, and the agents are refused with their lines.
///
/// # Errors
/// When the answer cannot be recorded.
pub(crate) fn resolve(
    set: &Set,
    folders: &ProjectFolders,
    mut granted: Granted,
    ask_whom: Ask,
) -> Result<Granted, Failure> {
    if granted.policy.trust == Trust::Everything {
        // What is asked for now, and not what a swapped link makes of it later.
        granted.policy.trust = Trust::Recorded(Review::of(set, folders, &granted).demands());
    }
    let lacks_nothing =
        set.agents.iter().all(|agent| Demands::of(agent, folders, &granted.policy).refused.is_empty());
    if lacks_nothing {
        let asks = |agent: &Agent| {
            agent.confinement.model.as_ref().is_some_and(|model| model.value == ModelReach::Providers)
        };
        if granted.file.as_ref().is_some_and(WorkspacePolicy::is_unheeded) && set.agents.iter().any(asks) {
            tell_unheeded(&granted);
        }
        return Ok(granted);
    }
    let is_attended = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if ask_whom == Ask::Nobody || !is_attended {
        if granted.file.as_ref().is_some_and(|file| file.is_unheeded()) {
            tell_unheeded(&granted);
        }
        return Ok(granted);
    }
    let review = Review::of(set, folders, &granted);
    if review.is_empty() {
        // What is denied cannot be asked for.
        return Ok(granted);
    }
    eprint!("{}", review.text(Palette::for_stream(&std::io::stderr())));
    let answer = ask("Trust them with that?", Choice::YesOnceNo)?;
    if answer == Answer::Always {
        keep(folders, &review, set, granted.record.as_ref())?;
    }
    if answer != Answer::No {
        if let Some(file) = &mut granted.file {
            file.is_trusted = true;
            granted.policy.allow.extend(file.says.allow.iter().cloned());
            let chosen = std::mem::take(&mut granted.models);
            granted.models = chosen.with(file.models.clone());
        }
        granted.policy.trust = Trust::Recorded(review.demands());
    }
    Ok(granted)
}

fn tell_unheeded(granted: &Granted) {
    let Some(file) = &granted.file else { return };
    let what =
        [(!file.says.allow.is_empty(), "allows"), (!file.models.is_empty(), "says of models and budgets")];
    for (_, what) in what.iter().filter(|(is_said, _)| *is_said) {
        eprintln!(
            "note: what toka.yaml {what} does not count: nobody has trusted its content (`toka trust`)"
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    YesNo,
    YesOnceNo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Always,
    Once,
    No,
}

/// Whether a person at the terminal says yes to this; `--yes` is for whoever has none.
///
/// # Errors
/// When nobody is there to be asked.
pub(crate) fn confirm(words: &str) -> Result<bool, Failure> {
    eprintln!("{words}");
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            ExitCode::Denied,
            "nobody is there to be asked: standard input is no terminal",
        )
        .help("say it with --yes"));
    }
    Ok(ask("Is that right?", Choice::YesNo)? == Answer::Always)
}

fn ask(question: &str, choice: Choice) -> Result<Answer, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            ExitCode::Denied,
            "nobody is there to be asked: standard input is no terminal",
        )
        .help("look at the list above; `toka trust --yes` records it"));
    }
    let choices = match choice {
        Choice::YesNo => "[y]es, [N]o",
        Choice::YesOnceNo => "[y]es and remember, [o]nce, [N]o",
    };
    eprint!("{question} {choices}: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    // No answer is no.
    let _ = std::io::stdin().lock().read_line(&mut line);
    Ok(match (line.trim().to_ascii_lowercase().as_str(), choice) {
        ("y" | "yes", _) => Answer::Always,
        ("o" | "once", Choice::YesOnceNo) => Answer::Once,
        _ => Answer::No,
    })
}

/// Records what was reviewed. What was trusted of agents that this command was not about stays.
fn keep(
    folders: &ProjectFolders,
    review: &Review,
    set: &Set,
    before: Option<&TrustRecord>,
) -> Result<(), Failure> {
    let changed = TrustStore::of(&folders.state_dir).change(&folders.workspace, |current| {
        // What somebody has answered or taken back since this was reviewed counts.
        let Some(known) = current.or_else(|| before.is_none().then(TrustRecord::default)) else {
            return Err(std::io::Error::other("somebody has revoked the record meanwhile: look again"));
        };
        let TrustRecord { mut agents, mut files, hosts, .. } = known;
        for agent in &set.agents {
            agents.remove(agent.declared_name());
            files.remove(agent.declared_name());
        }
        for (agent, demands) in review.demands() {
            files.extend(file_of(set, &agent).map(|file| (agent.clone(), file)));
            agents.insert(agent, demands);
        }
        Ok(Some(TrustRecord {
            workspace: folders.workspace.clone(),
            agents,
            files,
            hosts,
            policy: review.policy.as_ref().map(|policy| policy.hash.clone()),
            recorded: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }))
    });
    changed.map_err(|error| {
        Failure::new(ExitCode::StateFolder, format!("what you trust cannot be recorded: {error}"))
    })
}

/// One demand of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    demand: Declared<Capability>,
    is_new: bool,
}

/// Everything that the agents of a workspace ask for, beside what was trusted before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Review {
    workspace: PathBuf,
    agents: BTreeMap<AgentName, Vec<Item>>,
    /// What was trusted, and nobody asks for any more.
    gone: Vec<(AgentName, Capability)>,
    policy: Option<ReviewedPolicy>,
    since: Option<String>,
}

/// What `toka.yaml` allows to every agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReviewedPolicy {
    hash: String,
    allows: BTreeSet<Capability>,
    /// What it says of models, in words.
    models: Vec<String>,
    is_new: bool,
}

/// Where requests of agents go that a file sends somewhere, and with which key: what a person must know before they trust it.
fn models_in_words(models: &ModelConfig) -> Vec<String> {
    let provider = |(name, said): (&String, &ProviderConfig)| {
        let place = said.url.as_ref().or(said.file.as_ref()).map_or("its usual address", String::as_str);
        let usual = Models::usual_variables(name);
        let key = match &said.key {
            Some(key) => format!(", with the key in {key}"),
            None if usual.is_empty() => String::new(),
            None => format!(", with your key in {}", usual.join(" or ")),
        };
        format!("{name} is asked at {place}{key}")
    };
    let mut words: Vec<String> = models.providers.iter().map(provider).collect();
    if !models.chain.is_empty() {
        let names: Vec<String> = models.chain.iter().map(ToString::to_string).collect();
        words.push(format!("the default is {}", names.join(", ")));
    }
    if !models.prices.is_empty() {
        words.push(format!("it has {}", count(models.prices.len(), "price")));
    }
    for (whose, budget) in [("the run", models.budgets.run), ("each agent", models.budgets.agent)] {
        if !budget.is_empty() {
            words.push(format!("{whose} may use at most {budget}"));
        }
    }
    if let Some(expire) = models.approvals_expire {
        words.push(format!("approvals wait for {}", format_duration(expire)));
    }
    words
}

impl Review {
    fn of(set: &Set, folders: &ProjectFolders, granted: &Granted) -> Self {
        let known = granted.record.as_ref();
        let mut agents: BTreeMap<AgentName, Vec<Item>> = BTreeMap::new();
        for agent in &set.agents {
            let demands = Demands::of(agent, folders, &granted.policy);
            let items = agents.entry(agent.declared_name().clone()).or_default();
            for demand in demands.dangerous() {
                if items.iter().any(|item| item.demand.value == demand.value) {
                    continue;
                }
                let file = file_of(set, agent.declared_name()).unwrap_or_default();
                let is_new = !known.is_some_and(|it| it.holds(agent.declared_name(), &file, &demand.value));
                items.push(Item { demand: demand.clone(), is_new });
            }
        }
        agents.retain(|_, items| !items.is_empty());
        let asked = |agent: &AgentName, demand: &Capability| {
            agents.get(agent).is_some_and(|items| items.iter().any(|item| item.demand.value == *demand))
        };
        let is_here = |agent: &AgentName| set.agents.iter().any(|it| it.declared_name() == agent);
        let gone = known.iter().flat_map(|record| &record.agents).filter(|(agent, _)| is_here(agent));
        let gone = gone.flat_map(|(agent, demands)| {
            let gone = demands.iter().filter(|demand| !asked(agent, demand));
            gone.map(|demand| (agent.clone(), demand.clone())).collect::<Vec<_>>()
        });
        let policy = granted.file.as_ref().filter(|file| file.opens_something());
        let policy = policy.map(|file| ReviewedPolicy {
            hash: file.hash.clone(),
            allows: file.says.allow.clone(),
            models: models_in_words(&file.models),
            is_new: !file.is_trusted,
        });
        Self {
            workspace: folders.workspace.clone(),
            gone: gone.collect(),
            agents,
            policy,
            since: known.map(|record| record.recorded.clone()),
        }
    }

    /// Whether nothing is asked for and nothing was trusted.
    fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.policy.is_none() && self.gone.is_empty()
    }

    /// Whether a person has trusted all of it before.
    fn asks_nothing_new(&self) -> bool {
        let known = |items: &Vec<Item>| items.iter().all(|item| !item.is_new);
        self.agents.values().all(known) && self.policy.as_ref().is_none_or(|policy| !policy.is_new)
    }

    fn demands(&self) -> BTreeMap<AgentName, BTreeSet<Capability>> {
        let values = |items: &Vec<Item>| items.iter().map(|item| item.demand.value.clone()).collect();
        self.agents.iter().map(|(agent, items)| (agent.clone(), values(items))).collect()
    }

    fn text(&self, palette: Palette) -> String {
        let mut text = String::new();
        let number = self.agents.values().map(Vec::len).sum::<usize>();
        let shown = palette.strong.paint(safe(&self.workspace.to_string_lossy()));
        let things = count(number, "thing");
        let _ =
            writeln!(text, "The workstreams of {shown} ask for {things} beyond it and the default walls.");
        if number > 0 {
            text.push_str("They want to:\n");
        }
        for (agent, items) in &self.agents {
            let _ = writeln!(text, "\n  {}", palette.accent.paint(agent));
            let words: Vec<String> = items.iter().map(|item| safe(&item.demand.value.in_words())).collect();
            let width = words.iter().map(|words| columns(words)).max().unwrap_or(0);
            for (item, words) in items.iter().zip(&words) {
                let sign = if item.is_new { palette.warn.paint("+") } else { " ".to_owned() };
                let origin = palette.faint.paint(place(&item.demand.origin, &self.workspace));
                let gap = " ".repeat(width - columns(words));
                let _ = writeln!(text, "  {sign} {words}{gap}   {origin}");
            }
        }
        if let Some(policy) = &self.policy {
            let sign = if policy.is_new { palette.warn.paint("+") } else { " ".to_owned() };
            let allows: Vec<String> = policy.allows.iter().map(|it| safe(&it.to_string())).collect();
            text.push('\n');
            if !allows.is_empty() {
                let _ = writeln!(text, "{sign} toka.yaml allows every agent: {}", allows.join(", "));
            }
            for words in &policy.models {
                let _ = writeln!(text, "{sign} toka.yaml, of models: {}", safe(words));
            }
        }
        for (agent, demand) in &self.gone {
            let _ = writeln!(text, "- {agent} does not ask any more to {}", safe(&demand.in_words()));
        }
        if let Some(since) = self.since.as_ref().filter(|_| !self.asks_nothing_new()) {
            let _ = writeln!(text, "\n+ is new since {since}, when you trusted this workspace last.");
        }
        text.push('\n');
        text
    }

    fn to_json(&self, is_recorded: bool) -> Value {
        let items = |items: &Vec<Item>| -> Vec<Value> {
            let value = |item: &Item| {
                json!({
                    "demand": item.demand.value, "words": item.demand.value.in_words(),
                    "origin": item.demand.origin, "new": item.is_new,
                })
            };
            items.iter().map(value).collect()
        };
        json!({
            "workspace": self.workspace,
            "agents": self.agents.iter().map(|(agent, list)| (agent.to_string(), items(list).into())).collect::<serde_json::Map<_, Value>>(),
            "policy": self.policy.as_ref().map(|policy| json!({"allows": policy.allows, "models": policy.models, "new": policy.is_new})),
            "gone": self.gone.iter().map(|(agent, demand)| json!({"agent": agent, "demand": demand})).collect::<Vec<_>>(),
            "recorded": is_recorded,
        })
    }
}

/// The place of a demand, below the workspace where it lies there.
fn place(origin: &Origin, workspace: &Path) -> String {
    let Origin::File { file, line, .. } = origin else { return origin.to_string() };
    let file = Path::new(file.as_ref() as &str);
    let shown = file.strip_prefix(workspace).unwrap_or(file);
    safe(&format!("{}:{line}", shown.display()))
}
