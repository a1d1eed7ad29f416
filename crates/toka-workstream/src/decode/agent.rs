//! One document: the sections together, and what follows from more than one of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::Map;
use toka_core::{
    AgentName, Capability, Confinement, Declared, Limits, ModelName, ModelReach, Origin, Priority,
    SandboxMode, SuccessStatus, ToolRules,
};

use super::context::Context;
use super::keys::{DOCUMENT, SPEC};
use super::metadata::{Identity, metadata};
use super::section::{Section, list};
use super::suggest::{elsewhere, nearest, within_two_edits};
use super::tasks::{PRIORITIES, Tasks, tasks};
use super::texts::{choice, filled, text, truth};
use super::{
    dependencies, lifetime, logs, model, objectives, probes, process, quantities, reporting, restart,
    schedule, security, tools,
};
use crate::diagnostic::{Code, Diagnostic, FileId};
use crate::load::LoadOptions;
use crate::model::{
    Agent, AgentKind, Condition, Dependency, Hooks, McpServer, ModelUse, OnEnd, Process, Reporting,
    RestartPolicy, Schedule, Secret, Start, Stop,
};
use crate::presets::PresetData;
use crate::read::{Document, Entry, Node, Value, shorten};
use crate::replicas::MOST;

/// An agent as far as its own document tells.
pub(crate) struct Decoded {
    pub(crate) agent: Agent,
    pub(crate) name: Place,
    /// Positions of dependencies whose condition follows from what they lead to.
    pub(crate) open_conditions: Vec<usize>,
    /// The groups of conditional tasks.
    pub(crate) groups: Vec<String>,
    /// How many agents it stands for, where it says so.
    pub(crate) replicas: Option<Replicas>,
}

/// `spec.replicas`.
#[derive(Debug, Clone)]
pub(crate) struct Replicas {
    /// From 1 to [`crate::replicas::MOST`].
    pub(crate) count: u32,
    /// Where it stands.
    pub(crate) place: Place,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    pub(crate) span: Range<usize>,
}

/// Reads a document; `None` when it has no name to call it by. Problems go to the context.
pub(crate) fn decode(
    cx: &mut Context<'_>,
    document: &Document,
    path: &Path,
    options: &LoadOptions,
) -> Option<Decoded> {
    cx.take_kept();
    let root = &*document.root;
    if !matches!(root.value, Value::Map(_)) {
        let message = format!("a workstream is a map of sections, not {}", root.describe());
        let start = root.span.start..root.span.start;
        let problem = Diagnostic::new(Code::NotAMap, message).at(cx.file, start, "");
        cx.report(problem.help("it begins with `metadata:`; `toka init` writes one to start from"));
        return None;
    }
    let sections = Section::read_open(cx, root, &DOCUMENT)?;
    let extras = extras(cx, &sections);
    let identity = metadata(cx, sections.get_or_null("metadata"), document, sections.span());
    let mut spec = spec(cx, sections.get("spec"));
    let mut tasks = sections.get("tasks").map(|node| tasks(cx, node, options)).unwrap_or_default();
    if let Some((origin, span)) = spec.chat.take() {
        tasks.talk(origin, span);
    }
    let edges =
        sections.get("dependencies").map(|node| dependencies::dependencies(cx, node)).unwrap_or_default();
    let objectives =
        sections.get("objectives").map(|node| objectives::objectives(cx, node)).unwrap_or_default();
    let (capabilities_primary, capabilities_secondary) =
        sections.get("capabilities").map(|node| objectives::capabilities(cx, node)).unwrap_or_default();
    let reporting =
        sections.get("reporting").map_or_else(Reporting::default, |node| reporting::reporting(cx, node));
    let logs = sections.get("logs").map(|node| logs::logs(cx, node)).unwrap_or_default();
    let mut confinement =
        sections.get("security").map(|node| security::security(cx, node)).unwrap_or_default();
    if let Some(priority) = &spec.priority {
        confinement.priority = priority.clone();
    }
    let first_in_words = tasks.tasks.iter().find(|task| task.run.is_none());
    let in_words = spec.process.is_none() && !spec.has_process && first_in_words.is_some();
    if let Some(name) = options.model.as_ref().filter(|_| spec.model.is_some() || in_words) {
        spec.model = Some(chosen(name, spec.model.take()));
    }
    let named = &confinement.capabilities;
    let names_no_model = spec.model.is_none() && !named.iter().any(|it| it.value == Capability::ModelAccess);
    confinement.model = match &spec.model {
        Some(ModelUse { script: Some(_), origin, .. }) => {
            Some(Declared::new(ModelReach::Script, origin.clone()))
        }
        Some(ModelUse { origin, .. }) => Some(Declared::new(ModelReach::Providers, origin.clone())),
        None => {
            let named = confinement.capabilities.iter().find(|it| it.value == Capability::ModelAccess);
            let named = named.map(|named| named.origin.clone());
            // What stands there in words alone, nothing but a model can do.
            let of_task = || in_words.then(|| first_in_words.map(|task| task.origin.clone())).flatten();
            named.or_else(of_task).map(|origin| Declared::new(ModelReach::Providers, origin))
        }
    };
    confinement.by_model = in_words;
    if !in_words {
        for key in ["tools", "autonomy", "mcp"] {
            report_no_tools(cx, sections.get("spec"), key);
        }
    }
    if in_words {
        report_blind(cx, &confinement, &tasks);
    }
    if in_words && names_no_model {
        report_model(cx, &tasks);
    }
    if spec.kind == AgentKind::Task && confinement.limits.timeout.is_none() {
        confinement.limits.timeout = Some(Declared::by_default(Limits::TASK_TIMEOUT, "timeout of a task"));
    }
    let Identity { name, version, workstream, rest } = identity;
    let own_name = name.as_ref().map(|(name, _)| name);
    let (dependencies, open_conditions) = edges_of(cx, edges, own_name);
    report_nothing_to_do(cx, &sections, &spec, &tasks);
    spec.probes.report_without_network(cx, &confinement);
    spec.probes.report_out_of_reach(cx, &confinement);
    let (name, span) = name?;
    let is_idle = spec.runs_tasks() && tasks.any && tasks.tasks.is_empty();
    let idle_groups = if is_idle { tasks.groups.clone() } else { Vec::new() };
    let agent = Agent {
        version: version.unwrap_or_else(|| "v0".to_owned()),
        workstream: workstream.unwrap_or_else(|| stem(path)),
        metadata: rest,
        title: spec.title.unwrap_or_else(|| name.to_string()),
        domain: spec.domain.unwrap_or_else(|| "general".to_owned()),
        description: spec.description,
        priority: confinement.priority.value,
        kind: spec.kind,
        process: spec.process,
        tasks: tasks.tasks,
        dependencies,
        secrets: spec.secrets,
        restart: spec.restart.for_kind(spec.kind),
        probes: spec.probes.probes,
        schedule: spec.schedule,
        start: spec.start,
        on_end: spec.on_end,
        success: spec.success,
        idle_groups,
        watchdog: spec.watchdog,
        stop: spec.stop,
        hooks: spec.hooks,
        model: spec.model,
        tools: spec.tools,
        mcp: spec.mcp,
        objectives,
        capabilities_primary,
        capabilities_secondary,
        reporting,
        logs,
        confinement,
        extras,
        kept: cx.take_kept(),
        spec_places: spec.places,
        origin: cx.origin_of(&span),
        file: path.to_owned(),
        name,
        replica: None,
    };
    let (name, groups, replicas) = (Place { file: cx.file, span }, tasks.groups, spec.replicas);
    Some(Decoded { agent, name, open_conditions, groups, replicas })
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// `spec` while its kind is being found out.
#[derive(Default)]
struct Spec {
    title: Option<String>,
    domain: Option<String>,
    description: Option<String>,
    priority: Option<Declared<Priority>>,
    kind: AgentKind,
    process: Option<Process>,
    /// Whether there is a `process`, even one that could not be read.
    has_process: bool,
    secrets: Vec<Secret>,
    /// Where it stands that a person may talk to it.
    chat: Option<(Origin, Range<usize>)>,
    restart: restart::Declared,
    probes: probes::Declared,
    watchdog: Option<std::time::Duration>,
    stop: Stop,
    hooks: Hooks,
    model: Option<ModelUse>,
    tools: ToolRules,
    mcp: Vec<McpServer>,
    replicas: Option<Replicas>,
    schedule: Option<Schedule>,
    start: Start,
    on_end: OnEnd,
    success: Vec<SuccessStatus>,
    places: BTreeMap<String, Origin>,
}

const KINDS: &[(&str, AgentKind)] = &[("task", AgentKind::Task), ("service", AgentKind::Service)];

fn spec(cx: &mut Context<'_>, node: Option<&Node>) -> Spec {
    let mut out = Spec::default();
    let Some(section) = node.and_then(|node| Section::read(cx, node, &SPEC)) else { return out };
    out.title = section.get("name").and_then(|node| filled(cx, node));
    out.domain = section.get("domain").and_then(|node| filled(cx, node));
    out.description = section.get("description").and_then(|node| text(cx, node));
    out.priority = section
        .get("priority")
        .and_then(|node| Some(Declared::new(choice(cx, node, PRIORITIES)?, cx.origin(node))));
    if let Some(node) = section.get("process") {
        out.has_process = true;
        out.process = process::process(cx, node);
    }
    out.secrets = section.get("secrets").map(|node| process::secrets(cx, node)).unwrap_or_default();
    out.restart = section.get("restart").map(|node| restart::restart(cx, node)).unwrap_or_default();
    out.probes = probes::probes(cx, &section);
    out.watchdog = section.get("watchdog").and_then(|node| quantities::duration(cx, node));
    out.stop = section.get("stop").map(|node| process::stop(cx, node)).unwrap_or_default();
    out.hooks = section.get("hooks").map(|node| process::hooks(cx, node)).unwrap_or_default();
    out.model = match section.get("model") {
        Some(node) => model::model(cx, node),
        None => out.process.as_ref().and_then(models_of_preset),
    };
    out.tools = section.get("tools").map(|node| tools::tools(cx, node)).unwrap_or_default();
    out.mcp = section.get("mcp").map(|node| tools::servers(cx, node)).unwrap_or_default();
    if let Some(node) = section.get("autonomy") {
        out.tools.autonomy = tools::autonomy(cx, node);
    }
    if let Some(node) = section.get("chat") {
        let talks = truth(cx, node).unwrap_or(false);
        if talks && out.has_process {
            let message = "`chat` is for an agent on whose tasks a model of Toka's works, and this one has a program of its own";
            let problem = cx.at(Code::Conflict, message, node, "");
            cx.report(problem.help("leave `process` out; a program with a terminal of its own (`process: {tty: true}`) is talked to with `toka attach`"));
        }
        out.chat = (talks && !out.has_process).then(|| (cx.origin(node), node.span.clone()));
    }
    out.replicas = section.get("replicas").and_then(|node| {
        let count = quantities::integer(cx, node, 1..=MOST)?;
        Some(Replicas { count, place: Place { file: cx.file, span: node.span.clone() } })
    });
    let declared = section.get("type").and_then(|node| choice(cx, node, KINDS));
    out.schedule = section.get("schedule").and_then(|node| schedule::schedule(cx, node));
    out.start = lifetime::start(cx, &section);
    out.on_end = section.get("on_end").map(|node| lifetime::on_end(cx, node)).unwrap_or_default();
    if let Some(node) = section.get("success_exit_codes") {
        out.success = lifetime::success(cx, node);
        if out.runs_tasks() {
            let message = "`success_exit_codes` is about the end of `spec.process`; a task succeeds with 0";
            let problem = cx
                .at(Code::Conflict, message, node, "")
                .help("end the task's command with `|| [ $? -eq CODE ]`, or give the agent a `spec.process`");
            cx.report(problem);
        }
    }
    out.kind = declared.unwrap_or_else(|| kind_of(&out));
    let filled = section.every().iter().filter(|entry| !entry.value.is_null());
    out.places = filled.map(|entry| (entry.key.text.clone(), cx.origin_of(&entry.key.span))).collect();
    schedule::report_conflicts(cx, &section, declared, out.restart.policy);
    out
}

impl Spec {
    /// Whether Toka's runner works through the tasks.
    fn runs_tasks(&self) -> bool {
        let by_preset = || self.process.as_ref().is_some_and(|process| process.command.is_none());
        !self.has_process || by_preset()
    }
}

/// The model that a person chose for this run, in the place of those that the file names.
fn chosen(name: &ModelName, declared: Option<ModelUse>) -> ModelUse {
    let origin = Origin::CommandLine(format!("--model {name}").into());
    let chain = vec![Declared::new(name.clone(), origin.clone())];
    let usual = ModelUse {
        chain: Vec::new(),
        script: None,
        joins: true,
        batches: false,
        max_output_tokens: None,
        max_context_tokens: None,
        temperature: None,
        origin: origin.clone(),
    };
    ModelUse { chain, script: None, origin, ..declared.unwrap_or(usual) }
}

/// A program that is known asks the models that it usually does, where none are declared.
fn models_of_preset(process: &Process) -> Option<ModelUse> {
    let usual = &PresetData::of(process.preset?).models;
    let origin = process.command_origin.clone();
    let name = |name: &String| Declared::new(ModelName::from(name.clone()), origin.clone());
    Some(ModelUse {
        chain: usual.iter().map(name).collect(),
        script: None,
        joins: true,
        batches: false,
        max_output_tokens: None,
        max_context_tokens: None,
        temperature: None,
        origin: origin.clone(),
    })
}

/// What runs to its end each time that the clock says so is a task. What keeps running is a service: one that is always restarted, that a person talks to, or that can be asked how it is.
fn kind_of(spec: &Spec) -> AgentKind {
    if spec.schedule.is_some() {
        return AgentKind::Task;
    }
    let restarted = matches!(spec.restart.policy, Some(RestartPolicy::Always | RestartPolicy::UnlessStopped));
    if restarted || spec.chat.is_some() || spec.probes.probes.any() {
        AgentKind::Service
    } else {
        AgentKind::Task
    }
}

fn edges_of(
    cx: &mut Context<'_>,
    drafts: Vec<dependencies::Draft>,
    own_name: Option<&AgentName>,
) -> (Vec<Dependency>, Vec<usize>) {
    let (mut edges, mut open) = (Vec::new(), Vec::new());
    for draft in drafts {
        if Some(&draft.on) == own_name {
            dependencies::report_self(cx, &draft);
            continue;
        }
        if draft.condition.is_none() {
            open.push(edges.len());
        }
        edges.push(Dependency {
            on: draft.on,
            need: draft.need,
            reason: draft.reason,
            condition: draft.condition.unwrap_or(Condition::CompletedSuccessfully),
            if_skipped: draft.if_skipped,
            origin: cx.origin_of(&draft.span),
        });
    }
    (edges, open)
}

/// Sections that Toka does not know, verbatim; one that is nearly a known one is an error.
fn extras(cx: &mut Context<'_>, sections: &Section<'_>) -> Map<String, serde_json::Value> {
    let mut extras = Map::new();
    for entry in sections.every() {
        let word = entry.key.text.as_str();
        if DOCUMENT.names.contains(&word) {
            continue;
        }
        match within_two_edits(word, DOCUMENT.names.iter().copied()) {
            Some(near) => cx.report(misspelt(cx, entry, near)),
            None => {
                if let Some(place) = elsewhere(word) {
                    cx.report(misplaced(cx, entry, place));
                }
                extras.insert(word.to_owned(), entry.value.to_json());
            }
        }
    }
    extras
}

/// A section that people know from other files, where it does something: whoever writes it here relies on that.
fn misplaced(cx: &Context<'_>, entry: &Entry, place: &str) -> Diagnostic {
    let message = format!("`{}` is no section of a workstream", shorten(&entry.key.text));
    let problem =
        Diagnostic::new(Code::UnknownKey, message).at(cx.file, entry.key.span.clone(), "does nothing here");
    problem.help(format!("that stands in {place}"))
}

fn misspelt(cx: &Context<'_>, entry: &Entry, near: &str) -> Diagnostic {
    let message = format!("`{}` is not a section, but nearly one", shorten(&entry.key.text));
    let problem =
        Diagnostic::new(Code::MisspeltSection, message).at(cx.file, entry.key.span.clone(), "misspelt?");
    problem.help(format!("did you mean `{near}`? A section of your own needs a name that is less like it"))
}

fn report_nothing_to_do(cx: &mut Context<'_>, sections: &Section<'_>, spec: &Spec, tasks: &Tasks) {
    if !spec.runs_tasks() || tasks.any || cx.failed() {
        return;
    }
    if let Some(process) = &spec.process {
        let message = "the agent has nothing to do: its program is to work through tasks, and there is none";
        let problem = Diagnostic::new(Code::Missing, message).at(cx.file, sections.span(), "");
        let help = format!(
            "say what it is to do, `tasks: {{default: [\"Mend the failing test.\"]}}`, or start it another way with `command: [{}, ..]`",
            process.preset.map_or("program", |preset| PresetData::of(preset).program.as_str())
        );
        cx.report(problem.help(help));
        return;
    }
    let message = "the agent has nothing to do: neither `spec.process` nor a task";
    let mut problem = Diagnostic::new(Code::Missing, message).at(cx.file, sections.span(), "");
    // A file of another program is told from a slip by what it has instead.
    let strangers: Vec<&str> = sections.every().iter().map(|entry| entry.key.text.as_str()).collect();
    problem = match strangers.iter().find_map(|word| nearest(word, ["tasks", "spec"])) {
        Some(near) if !strangers.contains(&near) => problem.help(format!("did you mean `{near}`?")),
        _ => problem.help(format!(
            "write `spec: {{process: {{command: [program]}}}}`, or `tasks: {{default: [..]}}`; the sections are {}",
            list(DOCUMENT.names)
        )),
    };
    cx.report(problem);
}

/// A model that sees no file has nothing to work on, and what it writes is lost: that is seldom what is wanted.
fn report_blind(cx: &mut Context<'_>, confinement: &Confinement, tasks: &Tasks) {
    let sees = |it: &Declared<Capability>| {
        matches!(it.value, Capability::FilesystemRead(_) | Capability::FilesystemWrite(_))
    };
    let is_open = confinement.sandbox.value == SandboxMode::Off || confinement.capabilities.iter().any(sees);
    if is_open || !confinement.read.is_empty() || !confinement.write.is_empty() {
        return;
    }
    let message = "a model is to work on this, and it sees nothing of the workspace: the folder that it works in is empty, and what it writes there is lost";
    let mut problem = Diagnostic::new(Code::NoEffect, message);
    for span in tasks.without_run().take(1) {
        problem = problem.at(cx.file, span, "");
    }
    let help = "declare what it may see and change: `security: {capabilities_required: [filesystem-read, filesystem-write]}`";
    cx.report(problem.help(help));
}

/// What is said of tools counts where a model of Toka's works on tasks, and nowhere else.
fn report_no_tools(cx: &mut Context<'_>, spec: Option<&Node>, key: &str) {
    let Some(Value::Map(entries)) = spec.map(|spec| &spec.value) else { return };
    let Some(entry) = entries.iter().find(|entry| entry.key.text == key && !entry.value.is_null()) else {
        return;
    };
    let message = format!("`{key}` has no effect: no task of this agent stands in words alone");
    let problem = Diagnostic::new(Code::NoEffect, message).at(cx.file, entry.key.span.clone(), "");
    cx.report(problem.help("it is about the tools of a model that Toka asks; a program has its own"));
}

/// Tasks that a model works on, of which the file does not say which.
fn report_model(cx: &mut Context<'_>, tasks: &Tasks) {
    let waiting: Vec<_> = tasks.tasks.iter().filter(|task| task.run.is_none()).collect();
    let Some(first) = waiting.first() else { return };
    let message = match waiting.len() {
        1 => format!("the task `{}` needs a model, and the file names none", shorten(&first.description)),
        count => format!(
            "{count} tasks need a model, and the file names none; the first is `{}`",
            shorten(&first.description)
        ),
    };
    let mut problem = Diagnostic::new(Code::NeedsModel, message);
    for span in tasks.without_run().take(5) {
        problem = problem.at(cx.file, span, "only a description");
    }
    cx.report(problem.help("write `spec: {model: default}` for the models that you have chosen, or `model: provider/name`; a task that needs none has a command, `run: \"..\"`"));
}
