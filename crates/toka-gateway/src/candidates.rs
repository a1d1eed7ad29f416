//! Which models are tried for a request, and in which order. Pure.

use std::sync::Arc;

use toka_core::{ModelName, Wire};
use toka_wire::{Problem, ProblemKind};

use crate::{Provider, Providers, Transport};

/// The word for the models that the person has chosen.
const DEFAULT: &str = "default";

/// A model of a provider that speaks the request's language.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) provider: Arc<Provider>,
    pub(crate) model: String,
}

impl Candidate {
    pub(crate) fn name(&self) -> ModelName {
        ModelName { provider: Some(self.provider.name.clone()), model: self.model.clone() }
    }
}

/// The candidates for a request that asks for `asked` in the language `wire`. `declared` is what the agent may ask; without it,
/// everything.
///
/// # Errors
/// When there is none, with what helps.
pub(crate) fn candidates(
    asked: &str,
    wire: Wire,
    declared: &[ModelName],
    providers: &Providers,
) -> Result<Vec<Candidate>, Problem> {
    let chain = chain(declared, providers);
    let resolve = |name: &ModelName| find(name, wire, providers);
    if asked.is_empty() || asked == DEFAULT {
        let found: Vec<Candidate> = chain.iter().filter_map(resolve).collect();
        return if found.is_empty() { Err(no_default(wire, &chain, providers)) } else { Ok(found) };
    }
    let name = ModelName::from(asked.to_owned());
    let is_it = |known: &ModelName| *known == name || known.model == asked;
    if let Some(at) = chain.iter().position(|known| is_it(known) && resolve(known).is_some()) {
        return Ok(chain[at..].iter().filter_map(resolve).collect());
    }
    if !declared.is_empty() {
        // What is declared is all that there is: its name leads nowhere else.
        if let Some(known) = chain.iter().find(|known| is_it(known)) {
            return Err(not_found(known, wire, providers));
        }
        let names: Vec<String> = chain.iter().map(ToString::to_string).collect();
        let message = format!(
            "{asked} is not among the models of this agent ({}): add it to `spec.model`",
            names.join(", ")
        );
        return Err(Problem::new(ProblemKind::Denied, message));
    }
    match find(&name, wire, providers) {
        Some(candidate) => Ok(vec![candidate]),
        None => Err(not_found(&name, wire, providers)),
    }
}

/// The first of the models of an agent that can be asked, and the language in which it is.
///
/// # Errors
/// When none can, with what helps.
pub(crate) fn first(declared: &[ModelName], providers: &Providers) -> Result<(Wire, Candidate), Problem> {
    /// Those that say most of themselves first.
    const BY_WORTH: [Wire; 4] = [Wire::Anthropic, Wire::OpenAiResponses, Wire::Gemini, Wire::OpenAiChat];
    let chain = chain(declared, providers);
    let speaks = |name: &ModelName| {
        BY_WORTH.into_iter().find_map(|wire| find(name, wire, providers).map(|found| (wire, found)))
    };
    chain.iter().find_map(speaks).ok_or_else(|| no_default(Wire::OpenAiChat, &chain, providers))
}

/// The models that an agent may ask, in their order.
fn chain(declared: &[ModelName], providers: &Providers) -> Vec<ModelName> {
    let expand = |name: &ModelName| match name.to_string() == DEFAULT {
        true => providers.chain().to_vec(),
        false => vec![name.clone()],
    };
    match declared.is_empty() {
        true => providers.chain().to_vec(),
        false => declared.iter().flat_map(expand).collect(),
    }
}

/// The provider of a name. A prefix that no provider has belongs to the model.
fn find(name: &ModelName, wire: Wire, providers: &Providers) -> Option<Candidate> {
    let of = |provider: &Arc<Provider>, model: String| Candidate { provider: Arc::clone(provider), model };
    if let Some(known) = name.provider.as_deref().and_then(|provider| providers.named(provider)) {
        return known.speaks(wire).then(|| of(known, name.model.clone()));
    }
    if name.provider.as_deref().is_some_and(|provider| providers.unusable().contains_key(provider)) {
        return None;
    }
    // A script would make answers up.
    let is_script = |provider: &&Arc<Provider>| matches!(provider.transport, Transport::Script(_));
    let mut all = providers.all().iter().filter(|provider| provider.speaks(wire));
    let first = all.clone().find(|provider| !is_script(provider)).or_else(|| all.next())?;
    Some(of(first, name.to_string()))
}

fn no_default(wire: Wire, chain: &[ModelName], providers: &Providers) -> Problem {
    let message = if chain.is_empty() {
        "no default model is chosen: set DEFAULT_AI_MODEL, or `models: {use: [provider/model]}` in toka.yaml"
            .to_owned()
    } else {
        let names: Vec<String> = chain.iter().map(ToString::to_string).collect();
        let why = chain.iter().filter_map(|name| providers.unusable().get(name.provider.as_ref()?));
        let why: Vec<String> = why.map(|why| format!("; {why}")).collect();
        format!(
            "none of the chosen models ({}) can be asked in the API {wire}{}",
            names.join(", "),
            why.concat()
        )
    };
    Problem::new(ProblemKind::NotFound, message)
}

fn not_found(name: &ModelName, wire: Wire, providers: &Providers) -> Problem {
    let provider = name.provider.as_deref();
    if let Some(why) = provider.and_then(|provider| providers.unusable().get(provider)) {
        // It was there when the agent was admitted: the next try may find it again.
        return Problem::new(ProblemKind::Upstream, format!("{name} cannot be asked now: {why}"));
    }
    if let Some(known) = provider.and_then(|provider| providers.named(provider)) {
        let speaks: Vec<&str> = known.wires.iter().map(|wire| wire.as_str()).collect();
        let message = format!(
            "{} speaks {}, and the request is in {wire}; Toka translates none into another",
            known.name,
            speaks.join(", ")
        );
        return Problem::new(ProblemKind::NotFound, message);
    }
    let help = match wire {
        Wire::Anthropic => "set ANTHROPIC_API_KEY",
        Wire::OpenAiChat | Wire::OpenAiResponses => "set OPENAI_API_KEY",
        Wire::Gemini => "set GOOGLE_API_KEY",
    };
    let message = format!(
        "no provider speaks the API {wire} here: {help} where Toka is started, or name a provider in toka.yaml (`models`)"
    );
    Problem::new(ProblemKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use toka_wire::PriceTable;

    use super::*;

    fn providers() -> Providers {
        let provider = |name: &str, wires: &[Wire]| {
            let transport = Transport::Http { url: "http://127.0.0.1:1".into(), key: None };
            Provider::new(name.into(), wires.to_vec(), transport, None, Provider::SILENCE)
        };
        let all = vec![
            provider("anthropic", &[Wire::Anthropic]),
            provider("openai", &[Wire::OpenAiChat, Wire::OpenAiResponses]),
            provider("lab", &[Wire::OpenAiChat]),
        ];
        let chain =
            ["lab/qwen3", "openai/gpt-5", "anthropic/claude"].map(|name| ModelName::from(name.to_owned()));
        let unusable = [("google".to_owned(), "GOOGLE_API_KEY is not set".to_owned())].into();
        Providers::new(all, chain.to_vec(), unusable, PriceTable::default())
    }

    fn names(asked: &str, wire: Wire, declared: &[&str]) -> Result<Vec<String>, String> {
        let declared: Vec<ModelName> =
            declared.iter().map(|name| ModelName::from((*name).to_owned())).collect();
        candidates(asked, wire, &declared, &providers())
            .map(|found| found.iter().map(|candidate| candidate.name().to_string()).collect())
            .map_err(|problem| problem.message)
    }

    #[test]
    fn the_chain_is_tried_from_what_was_asked_on_and_within_one_language() {
        let chat = Wire::OpenAiChat;
        assert_eq!(names("default", chat, &[]), Ok(vec!["lab/qwen3".into(), "openai/gpt-5".into()]));
        assert_eq!(names("gpt-5", chat, &[]), Ok(vec!["openai/gpt-5".into()]));
        assert_eq!(names("qwen3", chat, &[]), Ok(vec!["lab/qwen3".into(), "openai/gpt-5".into()]));
        assert_eq!(names("default", Wire::Anthropic, &[]), Ok(vec!["anthropic/claude".into()]));
        assert_eq!(names("default", chat, &["openai/gpt-5"]), Ok(vec!["openai/gpt-5".into()]));
        let both = ["default", "lab/other"];
        let all = ["lab/qwen3", "openai/gpt-5", "lab/other"].map(str::to_owned).to_vec();
        assert_eq!(names("default", chat, &both), Ok(all));
    }

    #[test]
    fn a_name_outside_of_the_chain_goes_to_whom_it_names() {
        let chat = Wire::OpenAiChat;
        assert_eq!(names("lab/other", chat, &[]), Ok(vec!["lab/other".into()]));
        assert_eq!(names("other", chat, &[]), Ok(vec!["openai/other".into()]));
        assert_eq!(names("org/model", chat, &[]), Ok(vec!["openai/org/model".into()]));
        assert_eq!(names("claude-x", Wire::Anthropic, &[]), Ok(vec!["anthropic/claude-x".into()]));
    }

    #[test]
    fn who_cannot_be_asked_is_told_why() {
        let chat = Wire::OpenAiChat;
        for (asked, wire, declared, words) in [
            ("other", chat, &["openai/gpt-5"][..], "is not among the models of this agent (openai/gpt-5)"),
            ("google/gemini", Wire::Gemini, &[], "GOOGLE_API_KEY is not set"),
            ("secret", chat, &["openai/gpt-5", "google/secret"], "GOOGLE_API_KEY is not set"),
            ("claude", chat, &["openai/gpt-5", "anthropic/claude"], "anthropic speaks anthropic"),
            ("lab/x", Wire::Anthropic, &[], "lab speaks openai-chat"),
            ("gemini", Wire::Gemini, &[], "no provider speaks the API gemini here"),
            ("default", Wire::Gemini, &[], "none of the chosen models"),
        ] {
            let message = names(asked, wire, declared).expect_err(asked);
            assert!(message.contains(words), "{message}");
        }
    }
}
