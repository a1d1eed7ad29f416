//! `toka models`: whom agents of this workspace may ask, what that costs, and why others cannot be asked.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use toka_api::caller::Caller;
use toka_api::wire::ModelsView;
use toka_core::units::format_duration;
use toka_core::{ExitCode, ModelName, ProjectName};
use toka_gateway::{Provider, Providers, Transport};
use toka_prepare::Models;
use toka_wire::PriceTable;
use toka_workstream::Set;

use super::folders::Place;
use super::policy::{Granted, Grants};
use super::reach::{Reach, block_on, failure};
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::text::safe;
use toka_terminal::{json, out};

/// Options of `toka models`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Providers are anthropic, openai and google where their keys are (ANTHROPIC_API_KEY, OPENAI_API_KEY, GOOGLE_API_KEY), and those that \
    `models` names in ~/.config/toka/toka.yaml, or in the toka.yaml of a workspace that you trust."
)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    grants: Grants,
    /// Have the run of this project ask those again that rest after a refusal
    #[arg(long)]
    wake: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints what there is.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folders = args.place.folders()?;
    let Granted { models, file, .. } = args.grants.granted(&folders, &Set::default())?;
    let models = Models::resolve(&models, &Caller::of_this_process(), &folders, &Set::default());
    let providers = models.current().get();
    let unheeded = file.is_some_and(|file| file.is_unheeded() && !file.models.is_empty());
    let run = of_run(&args.place, &folders.project, args.wake)?;
    let text = match args.json {
        true => json::line(&as_json(&providers, unheeded, run.as_ref())) + "\n",
        false => {
            let palette = Palette::for_stream(&std::io::stdout());
            let run = run.map_or_else(String::new, |run| resting(&run, args.wake, palette));
            as_text(&providers, unheeded, palette) + &run
        }
    };
    Ok(out::end(&text, ExitCode::Success)?)
}

/// What the run of this project says, if it runs.
fn of_run(place: &Place, project: &ProjectName, wake: bool) -> anyhow::Result<Option<ModelsView>> {
    let reach = Reach { project: Some(project.clone()), state_dir: place.state_dir.clone() };
    let running = block_on(reach.running())?;
    let Some(found) = running.iter().find(|found| found.name() == project) else {
        if wake {
            let message = format!("{project} does not run: it has no models that rest");
            return Err(Failure::new(ExitCode::NoDaemon, message).help("`toka ps` lists what runs").into());
        }
        return Ok(None);
    };
    block_on(async {
        let asked = match wake {
            true => found.client.wake_models(project).await,
            false => found.client.models(project).await,
        };
        Ok(Some(asked.map_err(failure)?))
    })
}

/// The models that the run which goes on does not ask for a while.
fn resting(run: &ModelsView, woken: bool, palette: Palette) -> String {
    let mut text = String::from("\n");
    for rest in &run.resting {
        let name = match &rest.model {
            Some(model) => format!("{}/{}", safe(&rest.provider), safe(model)),
            None => format!("all of {}", safe(&rest.provider)),
        };
        let left = format_duration(Duration::from_millis(rest.left_ms));
        let what = match woken {
            true => format!(
                "{name} is asked again from now on; it would have rested for {left}: {}",
                safe(&rest.reason)
            ),
            false => format!("{name} rests for {left}: {}", safe(&rest.reason)),
        };
        let _ = writeln!(text, "{}", palette.warn.paint(what));
    }
    match (run.resting.is_empty(), woken) {
        (true, _) => text.push_str("the run that goes on: no model rests\n"),
        (false, false) => text.push_str("`toka models --wake` has them asked again at once\n"),
        (false, true) => {}
    }
    text
}

/// Where a provider is, without its key.
fn place(provider: &Provider) -> String {
    match &provider.transport {
        Transport::Http { url, .. } => url.clone(),
        Transport::Script(_) => "a script".to_owned(),
    }
}

fn wires(provider: &Provider) -> String {
    let names: Vec<&str> = provider.wires.iter().map(|wire| wire.as_str()).collect();
    names.join(", ")
}

fn as_text(providers: &Providers, unheeded: bool, palette: Palette) -> String {
    let mut text = String::new();
    for provider in providers.all() {
        let name = palette.strong.paint(safe(&provider.name));
        let most =
            provider.most.map_or_else(String::new, |most| format!(", at most {most} calls at one time"));
        let _ = writeln!(text, "{name}  {} at {}{most}", wires(provider), safe(&place(provider)));
    }
    for (name, why) in providers.unusable() {
        let _ =
            writeln!(text, "{}", palette.faint.paint(format!("{}  not asked: {}", safe(name), safe(why))));
    }
    text.push('\n');
    let chain: Vec<String> = providers.chain().iter().map(|name| priced(providers, name)).collect();
    if chain.is_empty() {
        text.push_str("no default model: agents name their own; set DEFAULT_AI_MODEL, or `models: {use: [..]}` in toka.yaml\n");
    } else {
        let _ = writeln!(text, "default: {}", chain.join(", then "));
    }
    let _ = writeln!(text, "{}", palette.faint.paint(format!("prices of {}", PriceTable::date())));
    if unheeded {
        let note = "what the toka.yaml of this workspace says of models does not count: nobody has trusted its content (`toka trust`)";
        let _ = writeln!(text, "{}", palette.warn.paint(note));
    }
    text
}

/// A model with its price, as far as its provider is named.
fn priced(providers: &Providers, name: &ModelName) -> String {
    if let Some(why) = providers.why_not(name) {
        return format!("{} (not asked: {})", safe(&name.to_string()), safe(&why));
    }
    match providers.price(name) {
        Some(price) => {
            format!("{} (${} read, ${} written)", safe(&name.to_string()), price.input, price.output)
        }
        None => format!("{} (unpriced)", safe(&name.to_string())),
    }
}

fn as_json(providers: &Providers, unheeded: bool, run: Option<&ModelsView>) -> Value {
    let provider = |provider: &Provider| {
        json!({
            "name": provider.name, "wires": provider.wires, "at": place(provider), "concurrency": provider.most,
            "timeout_ms": u64::try_from(provider.silence.as_millis()).unwrap_or(u64::MAX),
        })
    };
    let chain = |name: &ModelName| json!({"model": name, "price": providers.price(name), "unusable": providers.why_not(name)});
    json!({
        "providers": providers.all().iter().map(|it| provider(it)).collect::<Vec<_>>(),
        "not_asked": providers.unusable(),
        "default": providers.chain().iter().map(chain).collect::<Vec<_>>(),
        "prices_of": PriceTable::date(),
        "workspace_untrusted": unheeded,
        "run": run,
    })
}
