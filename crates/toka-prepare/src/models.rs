//! Whom the agents of a project ask: what a person says of models, resolved to providers with their keys, and the keys that agents get
//! in the place of those.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use toka_api::caller::Caller;
use toka_api::private_file;
use toka_core::demand::Ground;
use toka_core::{
    AgentName, Budget, BudgetConfig, KeySource, ModelConfig, ModelName, Origin, Price, ProviderConfig, RunId,
    Speaks, Wire,
};
use toka_gateway::script::Script;
use toka_gateway::{Current, Key, KnownSecrets, Provider, Providers, Transport};
use toka_wire::PriceTable;
use toka_workstream::presets::Dialect;
use toka_workstream::{Agent, PresetData, Set};
use uuid::Uuid;

use crate::confine::ground;
use crate::declared_file::DeclaredFile;
use crate::folders::ProjectFolders;

/// Longest key and longest script, in bytes.
const MAX_KEY: u64 = 64 * 1024;
const MAX_SCRIPT: u64 = 16 * 1024 * 1024;

/// The file of a run's folder from which the agents' keys follow.
const SEED: &str = "model-keys";

/// A provider that needs no declaration: what it speaks, where it is, and the variables that hold its key.
struct BuiltIn {
    name: &'static str,
    wires: &'static [Wire],
    url: &'static str,
    variables: &'static [&'static str],
}

const BUILT_IN: [BuiltIn; 3] = [
    BuiltIn {
        name: "anthropic",
        wires: &[Wire::Anthropic],
        url: "https://api.anthropic.com",
        variables: &["ANTHROPIC_API_KEY"],
    },
    BuiltIn {
        name: "openai",
        wires: &[Wire::OpenAiChat, Wire::OpenAiResponses],
        url: "https://api.openai.com",
        variables: &["OPENAI_API_KEY"],
    },
    BuiltIn {
        name: "google",
        wires: &[Wire::Gemini],
        url: "https://generativelanguage.googleapis.com",
        variables: &["GOOGLE_API_KEY", "GEMINI_API_KEY"],
    },
];

/// Whom agents ask, and with which keys they ask us.
#[derive(Clone, Default)]
pub struct Models {
    /// Whom they ask.
    current: Arc<Current>,
    /// Scripts that agents have in their place, by the paths that they name.
    scripts: Arc<BTreeMap<String, Result<Arc<Current>, String>>>,
    seed: Arc<str>,
    budgets: BudgetConfig,
    secrets: Arc<KnownSecrets>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Models {
    /// Resolves what a person says. A provider that cannot be asked is none, with the reason. Reads files: not for the daemon's loop.
    pub fn resolve(config: &ModelConfig, caller: &Caller, project: &ProjectFolders, set: &Set) -> Self {
        let ground = ground(project);
        let (mut all, mut unusable) = (Vec::new(), BTreeMap::new());
        let nothing = ProviderConfig::default();
        let built_in = BUILT_IN.iter().map(|known| {
            let said = config.providers.get(known.name).unwrap_or(&nothing);
            (known.name, built_in(known, said, caller, (&ground, &project.workspace)))
        });
        let own =
            config.providers.iter().filter(|(name, _)| BUILT_IN.iter().all(|known| known.name != *name));
        let own = own.map(|(name, said)| {
            (name.as_str(), of_config(name, said, caller, (&ground, &project.workspace)))
        });
        for (name, resolved) in built_in.chain(own) {
            match resolved {
                Ok(provider) => all.push(provider),
                Err(why) => drop(unusable.insert(name.to_owned(), why)),
            }
        }
        let prices = PriceTable::new(config.prices.clone());
        let providers = Arc::new(Providers::new(all, config.chain.clone(), unusable, prices));
        let current = Arc::new(Current::new(providers));
        let scripts = set.agents.iter().filter_map(|agent| agent.model.as_ref()?.script.as_ref());
        let scripts: BTreeMap<_, _> =
            scripts.map(|path| (path.clone(), alone(path, (&ground, &project.workspace)))).collect();
        let (scripts, secrets) = (Arc::new(scripts), Arc::default());
        Self { current, scripts, seed: Arc::from(""), budgets: config.budgets, secrets }
    }

    /// Whom this agent asks: the script that it names, or everybody.
    ///
    /// # Errors
    /// What is wrong with its script.
    pub fn of(&self, agent: &Agent) -> Result<&Arc<Current>, &str> {
        let Some(script) = agent.model.as_ref().and_then(|model| model.script.as_ref()) else {
            return Ok(&self.current);
        };
        match self.scripts.get(script) {
            Some(found) => found.as_ref().map_err(String::as_str),
            None => Err("its script was not read"),
        }
    }

    /// The models of this agent, the first before the others; none when it asks none, or names none and the person has chosen none.
    pub fn offers(&self, agent: &Agent) -> Vec<ModelOffer> {
        if agent.confinement.model.is_none() {
            return Vec::new();
        }
        let Ok(current) = self.of(agent) else { return Vec::new() };
        let current = current.get();
        let offer = |name: &ModelName, origin: Option<Origin>| {
            let (price, unusable) = (current.price(name), current.why_not(name));
            ModelOffer { model: name.clone(), price, unusable, origin }
        };
        // A script is named where it is declared.
        let script = agent.model.as_ref().filter(|model| model.script.is_some());
        let from = || script.map(|model| model.origin.clone());
        let chosen = || current.chain().iter().map(|name| offer(name, from())).collect::<Vec<_>>();
        let named: Vec<ModelOffer> = agent
            .model
            .iter()
            .flat_map(|model| &model.chain)
            .flat_map(|name| match name.value.to_string() == "default" {
                true => chosen(),
                false => vec![offer(&name.value, Some(name.origin.clone()))],
            })
            .collect();
        if named.is_empty() { chosen() } else { named }
    }

    /// The API in which the program of a preset asks the first of the agent's models; none when there is no preset, or it speaks none that
    /// the model's provider does.
    pub(crate) fn spoken(&self, agent: &Agent) -> Option<&'static Dialect> {
        let preset = agent.process.as_ref()?.preset?;
        let first = self.asked_by_program(agent).0;
        let speaks = |wire| first.as_ref().is_none_or(|offer| self.speaks(agent, offer, wire));
        PresetData::of(preset).dialects.iter().find(|dialect| speaks(dialect.wire))
    }

    /// The first model that the program of a preset is to ask, which can be asked if any can, and the last that it asks in the same API.
    pub(crate) fn asked_by_program(&self, agent: &Agent) -> (Option<ModelOffer>, Option<ModelOffer>) {
        let offers = self.offers(agent);
        let usable = offers.iter().find(|offer| offer.unusable.is_none());
        let first = usable.or(offers.first()).cloned();
        let of = |offer: &ModelOffer| offer.model.provider.clone();
        let same = offers
            .iter()
            .rev()
            .find(|offer| offer.unusable.is_none() && first.as_ref().map(of) == Some(of(offer)));
        let last = same.cloned().or_else(|| first.clone());
        (first, last)
    }

    /// Whether the provider of a model speaks an API; one that is not known speaks all.
    fn speaks(&self, agent: &Agent, offer: &ModelOffer, wire: Wire) -> bool {
        let Ok(current) = self.of(agent) else { return true };
        let providers = current.get();
        let of = offer.model.provider.as_ref();
        let provider = providers.all().iter().find(|provider| Some(&provider.name) == of);
        provider.is_none_or(|provider| provider.speaks(wire))
    }

    /// What this agent may use, and the run; none when it asks no models.
    pub fn budget(&self, agent: &Agent) -> Option<BudgetOffer> {
        agent.confinement.model.as_ref()?;
        let declared = agent.confinement.budget.as_ref();
        let value = declared.map(|declared| declared.value).unwrap_or_default();
        let budget = self.budgets.of_agent(value);
        // What a person has lowered is their word.
        let declared = declared.filter(|_| budget == Budget::OF_AGENT.with(self.budgets.agent).with(value));
        Some(BudgetOffer {
            agent: budget,
            run: self.budgets.of_run(),
            origin: declared.map(|declared| declared.origin.clone()),
            is_persons: !self.budgets.agent.is_empty(),
            is_run_persons: !self.budgets.run.is_empty(),
        })
    }

    /// The secrets of the run's agents, which are looked for in what leaves.
    pub fn secrets(&self) -> &Arc<KnownSecrets> {
        &self.secrets
    }

    /// Whom agents without a script ask.
    pub fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// Takes over what a person says now, also for agents that run.
    pub fn renew(&mut self, newer: &Self) {
        self.current.set(newer.current.get());
        let mut scripts = BTreeMap::clone(&newer.scripts);
        for (path, script) in &mut scripts {
            if let (Some(Ok(known)), Ok(new)) = (self.scripts.get(path), &*script) {
                known.set(new.get());
                *script = Ok(Arc::clone(known));
            }
        }
        // Agents that go on with one that is named no more keep what they have.
        self.scripts = Arc::new(scripts);
    }

    /// The same with the seed that is kept in a folder which no agent sees, so that agents keep their keys when a daemon
    /// succeeds another.
    ///
    /// # Errors
    /// When the seed can neither be read nor be written.
    pub fn keyed(self, folder: &Path) -> io::Result<Self> {
        let path = folder.join(SEED);
        let seed = match std::fs::read_to_string(&path) {
            Ok(seed) if !seed.is_empty() => seed,
            _ => {
                // Each has 74 random bits (RFC 9562, 5.7).
                let seed: String = (0..4).map(|_| Uuid::now_v7().simple().to_string()).collect();
                private_file::replace(&path, seed.as_bytes())?;
                seed
            }
        };
        Ok(Self { seed: Arc::from(seed), ..self })
    }

    /// The key that is good at the port of this agent in this run, and nowhere else.
    pub fn key_of(&self, run: RunId, agent: &AgentName) -> String {
        let text = format!("{}\n{run}\n{agent}", self.seed);
        let digits: String = Sha256::digest(text).iter().take(20).map(|byte| format!("{byte:02x}")).collect();
        format!("sk-toka-{digits}")
    }

    /// The variables in which the key of a built-in provider is looked for; none for others.
    pub fn usual_variables(provider: &str) -> &'static [&'static str] {
        BUILT_IN.iter().find(|known| known.name == provider).map_or(&[], |known| known.variables)
    }

    /// The variables of the caller that hold keys.
    pub fn variables(config: &ModelConfig) -> Vec<&str> {
        let named = config.providers.values().filter_map(|said| match &said.key {
            Some(KeySource::Env(name)) => Some(name.as_str()),
            Some(KeySource::File(_)) | None => None,
        });
        BUILT_IN.iter().flat_map(|known| known.variables).copied().chain(named).collect()
    }
}

/// What an agent may use, as people see it before anything is asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BudgetOffer {
    /// The agent.
    pub agent: Budget,
    /// All agents of the run together.
    pub run: Budget,
    /// Where the agent's is declared.
    pub origin: Option<Origin>,
    /// Whether a person says something of the budgets of agents.
    pub is_persons: bool,
    /// Whether a person says something of the budget of the run.
    pub is_run_persons: bool,
}

/// A model that an agent may ask, as people see it before anything is asked.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ModelOffer {
    /// The model.
    pub model: ModelName,
    /// What it costs, where that is known.
    pub price: Option<Price>,
    /// Why it cannot be asked.
    pub unusable: Option<String>,
    /// Where it is named; absent for those that the person has chosen.
    pub origin: Option<Origin>,
}

/// The files that a person's words name lie here.
type Places<'a> = (&'a Ground<'a>, &'a Path);

fn built_in(
    known: &BuiltIn,
    said: &ProviderConfig,
    caller: &Caller,
    places: Places<'_>,
) -> Result<Provider, String> {
    let wires = match said.speaks {
        Some(Speaks::Script) => return of_config(known.name, said, caller, places),
        Some(Speaks::Wire(wire)) => vec![wire],
        None => known.wires.to_vec(),
    };
    let usual = |name: &&str| Key::new(caller.variable(name).filter(|value| !value.is_empty())?.to_str()?);
    let key = match &said.key {
        Some(source) => key(source, caller, places)?,
        None => known
            .variables
            .iter()
            .find_map(usual)
            .ok_or_else(|| format!("{} is not set", known.variables.join(" or ")))?,
    };
    let url = said.url.clone().unwrap_or_else(|| known.url.to_owned());
    let transport = Transport::Http { url, key: Some(key) };
    Ok(Provider::new(known.name.to_owned(), wires, transport, said.concurrency, silence(said)))
}

fn of_config(
    name: &str,
    said: &ProviderConfig,
    caller: &Caller,
    places: Places<'_>,
) -> Result<Provider, String> {
    let (wires, transport) = match (said.speaks, &said.url, &said.file) {
        (Some(Speaks::Script), _, Some(file)) => {
            (Wire::ALL.to_vec(), Transport::Script(script(file, places)?))
        }
        (Some(Speaks::Wire(wire)), Some(url), _) => {
            let key = said.key.as_ref().map(|source| key(source, caller, places)).transpose()?;
            (vec![wire], Transport::Http { url: url.clone(), key })
        }
        _ => return Err(format!("toka.yaml says too little of the provider {name}")),
    };
    Ok(Provider::new(name.to_owned(), wires, transport, said.concurrency, silence(said)))
}

/// A script as the one provider that there is.
fn alone(path: &str, places: Places<'_>) -> Result<Arc<Current>, String> {
    if let DeclaredFile::Outside(outside) = DeclaredFile::find(path, places.0) {
        return Err(format!("the script {} lies outside of the workspace", outside.display()));
    }
    let transport = Transport::Script(script(path, places)?);
    let provider = Provider::new("script".to_owned(), Wire::ALL.to_vec(), transport, None, Provider::SILENCE);
    let chain = vec![ModelName::from("script/scripted".to_owned())];
    let providers = Providers::new(vec![provider], chain, BTreeMap::new(), PriceTable::default());
    Ok(Arc::new(Current::new(Arc::new(providers))))
}

fn silence(said: &ProviderConfig) -> Duration {
    said.timeout.unwrap_or(Provider::SILENCE)
}

fn key(source: &KeySource, caller: &Caller, (ground, workspace): Places<'_>) -> Result<Key, String> {
    let text = match source {
        KeySource::Env(name) => match caller.variable(name).and_then(|value| value.to_str()) {
            Some(value) if !value.is_empty() => value.to_owned(),
            _ => return Err(format!("its key is to be in the variable {name}, which is not set")),
        },
        KeySource::File(path) => {
            let file = DeclaredFile::find(path, ground);
            if let DeclaredFile::InWorkspace(_) = file {
                return Err(format!(
                    "its key lies in the workspace, where agents could read it: keep {path} elsewhere"
                ));
            }
            let bytes = file.read(workspace, MAX_KEY).map_err(|why| {
                format!("its key cannot be read from {}: {why}", file.path(workspace).display())
            })?;
            String::from_utf8(bytes).map_err(|_| format!("the key in {path} is no text"))?
        }
    };
    Key::new(&text)
        .ok_or_else(|| format!("what {source} holds cannot be a key: it is empty or has blanks in it"))
}

fn script(path: &str, (ground, workspace): Places<'_>) -> Result<Script, String> {
    let file = DeclaredFile::find(path, ground);
    let bytes = file
        .read(workspace, MAX_SCRIPT)
        .map_err(|why| format!("its script cannot be read from {}: {why}", file.path(workspace).display()))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("the script {path} is not UTF-8"))?;
    let value = toka_workstream::load_value(path, &text)?;
    serde_json::from_value(value).map_err(|error| format!("the script {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use toka_core::Name;

    use super::*;

    fn caller(variables: &[(&str, &str)]) -> Caller {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Caller { environment, home: "/nowhere".into() }
    }

    fn folders(workspace: &Path) -> ProjectFolders {
        ProjectFolders {
            state_dir: "/nowhere/state".into(),
            run_dir: "/nowhere/run".into(),
            project: Name::new("w").expect("a label"),
            workspace: workspace.to_owned(),
            user_home: "/nowhere".into(),
        }
    }

    fn config(json: serde_json::Value) -> ModelConfig {
        serde_json::from_value(json).expect("a configuration")
    }

    #[test]
    fn a_provider_is_there_when_its_key_is_and_else_it_is_told_why_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let key = elsewhere.path().canonicalize().expect("a path").join("key");
        std::fs::write(&key, "sk-file\n").expect("room");
        std::fs::write(folder.path().join("key"), "sk-file\n").expect("room");
        std::fs::write(folder.path().join("s.yaml"), "turns: [{text: hi}]\n").expect("room");
        std::fs::write(folder.path().join("bad.yaml"), "turns: [{txt: hi}]\n").expect("room");
        let workspace = folder.path().canonicalize().expect("a path");
        let config = config(serde_json::json!({"providers": {
            "lab": {"speaks": {"wire": "openai-chat"}, "url": "http://127.0.0.1:1", "key": {"file": key}},
            "open": {"speaks": {"wire": "openai-chat"}, "url": "http://127.0.0.1:1", "key": {"file": "key"}},
            "demo": {"speaks": "script", "file": "s.yaml"},
            "google": {"speaks": "script", "file": "s.yaml"},
            "bad": {"speaks": "script", "file": "bad.yaml"},
            "gone": {"speaks": "script", "file": "absent.yaml"},
            "poor": {"speaks": {"wire": "gemini"}, "url": "http://127.0.0.1:1", "key": {"env": "ABSENT"}},
        }}));
        let models = Models::resolve(
            &config,
            &caller(&[("OPENAI_API_KEY", "sk-x")]),
            &folders(&workspace),
            &Set::default(),
        );
        let providers = models.current().get();
        let names: Vec<&str> = providers.all().iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(
            names,
            ["openai", "google", "demo", "lab"],
            "a script needs no key, whatever it is called"
        );
        let why = providers.unusable();
        for (name, words) in [
            ("anthropic", "ANTHROPIC_API_KEY is not set"),
            ("open", "its key lies in the workspace"),
            ("bad", "unknown field `txt`"),
            ("gone", "absent.yaml"),
            ("poor", "the variable ABSENT, which is not set"),
        ] {
            assert!(why[name].contains(words), "{name}: {}", why[name]);
        }
        let of = |name: &str| ModelName::from(name.to_owned());
        assert_eq!(providers.price(&of("demo/any")), Some(Price::default()), "a script costs nothing");
        assert_eq!(providers.price(&of("lab/any")), None, "nobody tells what it costs");
        assert_eq!(providers.why_not(&of("lab/any")), None);
        assert_eq!(providers.why_not(&of("lap/any")).as_deref(), Some("no provider has this name"));
        assert_eq!(providers.why_not(&of("any")), None, "who has it depends on the API");
        assert!(!format!("{models:?}").contains("sk-"), "no key is shown");
        assert!(Models::variables(&config).contains(&"ABSENT"));
    }

    #[test]
    fn a_key_is_the_same_after_a_daemon_and_another_for_each_agent_and_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |text| Name::new(text).expect("a label");
        let (one, two) = (RunId::from_uuid(Uuid::nil()), RunId::from_uuid(Uuid::max()));
        let models = Models::default().keyed(folder.path()).expect("room");
        let again = Models::default().keyed(folder.path()).expect("room");
        let key = models.key_of(one, &name("a"));
        assert_eq!(again.key_of(one, &name("a")), key);
        assert_ne!(models.key_of(one, &name("b")), key);
        assert_ne!(models.key_of(two, &name("a")), key);
        let other = tempfile::tempdir().expect("a folder");
        assert_ne!(Models::default().keyed(other.path()).expect("room").key_of(one, &name("a")), key);
        assert_eq!(key.len(), "sk-toka-".len() + 40);
    }
}
