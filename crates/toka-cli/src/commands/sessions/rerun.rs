//! `toka sessions replay --model`: what another model would have done, beside what was done.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use toka_api::caller::Caller;
use toka_core::transcript::Entry;
use toka_core::{Amounts, EventKind, ExitCode, Kept, ModelName, Money, SessionKey};
use toka_gateway::{Asks, CallLog, Gate, Gateway, Providers};
use toka_prepare::Models;
use toka_session::{Deeds, deeds_of, rerun};
use toka_wire::ToolDefinition;
use toka_workstream::Set;

use crate::commands::folders::Place;
use crate::commands::policy::Grants;
use crate::commands::reach::block_on;
use toka_terminal::failure::Failure;
use toka_terminal::palette::Palette;
use toka_terminal::screen::columns;
use toka_terminal::table::PIPE_COLUMNS;
use toka_terminal::{json, out, sessions as layout};

/// A person asks for themselves: there is no budget but their patience, and no run in whose journal it would stand.
#[derive(Debug)]
struct OfAPerson;

impl Gate for OfAPerson {
    fn admit(
        &self,
        _call: u64,
        _most: Amounts,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        Box::pin(async { Ok(()) })
    }

    fn admit_host(
        &self,
        host: String,
        _port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>> {
        Box::pin(async move { Err(format!("nothing is run that could reach {host}")) })
    }
}

impl CallLog for OfAPerson {
    fn record(&self, _kind: EventKind) -> Pin<Box<dyn Future<Output = Kept> + Send + 'static>> {
        // What it came to is printed at the end; there is no journal of which it could be missing.
        Box::pin(async { Kept::OnDisk })
    }
}

/// Asks the model, and prints both.
pub(super) fn run(
    place: &Place,
    key: &SessionKey,
    (entries, tools): (Vec<Entry>, Vec<ToolDefinition>),
    model: &str,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let folders = place.folders()?;
    let grants = Grants { allow: Vec::new(), policy: None, trust: false };
    let config = grants.granted(&folders, &Set::default())?.models;
    let models = Models::resolve(&config, &Caller::of_this_process(), &folders, &Set::default());
    let gateway = Gateway::of_this_process().map_err(anyhow::Error::msg).context("no model can be asked")?;
    let asker = gateway.asker(Asks {
        agent: key.agent.clone(),
        declared: vec![ModelName::from(model.to_owned())],
        providers: Arc::clone(models.current()),
        secrets: Arc::clone(models.secrets()),
        log: Arc::new(OfAPerson),
        gate: Arc::new(OfAPerson),
    });
    // In what a person writes, the word before the slash is a provider: a slip would send the session to another one.
    let (wanted, known) = (ModelName::from(model.to_owned()), models.current().get());
    if let Some(of) = wanted.provider.as_deref().filter(|of| known.all().iter().all(|it| it.name != *of)) {
        let why = known.why_not(&wanted).unwrap_or_else(|| format!("there is no provider {of:?}"));
        return Err(Failure::new(ExitCode::Unconfigured, why)
            .help("`toka models` shows whom you can ask")
            .into());
    }
    if let Err(why) = asker.first() {
        return Err(Failure::new(ExitCode::Unconfigured, why)
            .help("`toka models` shows whom you can ask")
            .into());
    }
    let other = block_on(async { rerun(&entries, tools, &asker).await.map_err(anyhow::Error::msg) })?;
    let own = deeds_of(&entries, &other);
    let providers = models.current().get();
    let code = if other.broke_off.is_some() { ExitCode::AgentFailed } else { ExitCode::Success };
    let text = match as_json {
        true => {
            let shown = |deeds: &Deeds| json!({"deeds": deeds, "cost_nano_usd": cost(deeds, &providers).map(|cost| cost.0)});
            json::line(&json!({"session": key, "recorded": shown(&own), "rerun": shown(&other)})) + "\n"
        }
        false => {
            let palette = Palette::for_stream(&std::io::stdout());
            layout::beside(
                ["recorded", "rerun"],
                &rows(&own, &other, &providers),
                columns(PIPE_COLUMNS),
                palette,
            )
        }
    };
    Ok(out::end(&text, code)?)
}

fn rows(own: &Deeds, other: &Deeds, providers: &Providers) -> Vec<(&'static str, String, String)> {
    let both = |name, of: &dyn Fn(&Deeds) -> String| (name, of(own), of(other));
    vec![
        both("model", &|deeds| {
            let mut names: Vec<String> = deeds.answers.iter().map(|(model, _)| model.to_string()).collect();
            names.dedup();
            names.join(", ")
        }),
        both("answers", &|deeds| deeds.answers.len().to_string()),
        both("calls in both", &|deeds| deeds.shared_calls.to_string()),
        both("calls of its own", &|deeds| deeds.own_calls.to_string()),
        both("tokens read", &|deeds| deeds.tokens().read().to_string()),
        both("tokens written", &|deeds| deeds.tokens().output.unwrap_or(0).to_string()),
        both("cost", &|deeds| {
            cost(deeds, providers).map_or_else(|| "unpriced".to_owned(), |cost| cost.to_string())
        }),
        both("end", &|deeds| match &deeds.broke_off {
            Some(why) => format!("broke off: {why}"),
            None => deeds.last.lines().next().unwrap_or_default().to_owned(),
        }),
    ]
}

/// What its answers cost by the prices of now; `None` when one of them has no price.
fn cost(deeds: &Deeds, providers: &Providers) -> Option<Money> {
    let costs = deeds.answers.iter().map(|(model, tokens)| Some(providers.price(model)?.of(tokens)?.0));
    costs.sum::<Option<u64>>().map(Money)
}
