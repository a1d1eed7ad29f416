//! `spec.model`, and `models` of `toka.yaml`.

use std::collections::BTreeMap;

use toka_core::{Declared, KeySource, ModelConfig, ModelName, Price, ProviderConfig, Speaks, Wire};

use super::context::Context;
use super::keys::{KEY, MODEL, MODELS, PRICE, PROVIDER};
use super::quantities::{self, amount, duration, integer};
use super::section::{Section, pairs};
use super::texts::{choice, filled, texts_with_nodes, truth};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::ModelUse;
use crate::read::{Node, ScalarKind, Value, shorten};

/// The word for the models that a person has chosen.
pub(crate) const DEFAULT: &str = "default";

/// Tokens of an answer that can be asked for.
const MOST_OUTPUT: std::ops::RangeInclusive<u64> = 16..=1_000_000;

/// Tokens of a request that can be asked for.
const MOST_CONTEXT: std::ops::RangeInclusive<u64> = 2_000..=10_000_000;

const SPEAKS: &[(&str, Speaks)] = &[
    ("openai-chat", Speaks::Wire(Wire::OpenAiChat)),
    ("openai-responses", Speaks::Wire(Wire::OpenAiResponses)),
    ("anthropic", Speaks::Wire(Wire::Anthropic)),
    ("gemini", Speaks::Wire(Wire::Gemini)),
    ("scripted", Speaks::Script),
];

/// Providers that need no declaration.
pub(crate) const BUILT_IN: [&str; 3] = ["anthropic", "openai", "google"];

/// `spec.model`: a name, a list of names, or a map.
pub(crate) fn model(cx: &mut Context<'_>, node: &Node) -> Option<ModelUse> {
    let origin = cx.origin(node);
    let Value::Map(_) = &node.value else {
        let chain = without_default(chain(cx, node));
        return Some(ModelUse {
            chain,
            script: None,
            joins: true,
            batches: false,
            max_output_tokens: None,
            max_context_tokens: None,
            temperature: None,
            origin,
        });
    };
    let section = Section::read(cx, node, &MODEL)?;
    section.exclude(cx, "use", "script");
    let script = section.get("script").and_then(|node| filled(cx, node));
    let chain = section.get("use").map(|node| chain(cx, node)).unwrap_or_default();
    let joins = section.get("join").and_then(|node| truth(cx, node)).unwrap_or(true);
    let batches = section.get("batch").and_then(|node| truth(cx, node)).unwrap_or(false);
    let max_output_tokens = section.get("max_output_tokens").and_then(|node| {
        let most = amount(cx, node)?;
        if !MOST_OUTPUT.contains(&most) {
            let (least, most) = (MOST_OUTPUT.start(), MOST_OUTPUT.end());
            cx.report(cx.at(Code::OutOfRange, format!("an answer has {least} to {most} tokens"), node, ""));
        }
        Some(most)
    });
    let max_context_tokens = section.get("max_context_tokens").and_then(|node| {
        let most = amount(cx, node)?;
        if !MOST_CONTEXT.contains(&most) {
            let (least, most) = (MOST_CONTEXT.start(), MOST_CONTEXT.end());
            cx.report(cx.at(Code::OutOfRange, format!("a request has {least} to {most} tokens"), node, ""));
        }
        Some(most)
    });
    let temperature = section.get("temperature").and_then(|node| quantities::number(cx, node, 0.0..=2.0));
    let chain = without_default(chain);
    Some(ModelUse {
        chain,
        script,
        joins,
        batches,
        max_output_tokens,
        max_context_tokens,
        temperature,
        origin,
    })
}

/// Those that the person has chosen, and nothing else, are not named.
fn without_default(chain: Vec<Declared<ModelName>>) -> Vec<Declared<ModelName>> {
    match chain.as_slice() {
        [one] if one.value.to_string() == DEFAULT => Vec::new(),
        _ => chain,
    }
}

fn chain(cx: &mut Context<'_>, node: &Node) -> Vec<Declared<ModelName>> {
    chain_with_nodes(cx, node).into_iter().map(|(name, _)| name).collect()
}

fn chain_with_nodes<'n>(cx: &mut Context<'_>, node: &'n Node) -> Vec<(Declared<ModelName>, &'n Node)> {
    let mut chain: Vec<(Declared<ModelName>, &Node)> = Vec::new();
    for (text, node) in texts_with_nodes(cx, node) {
        let text = text.trim();
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            cx.bad_value(node, "the name of a model is `provider/model`, or `model`, without blanks");
            continue;
        }
        let name = ModelName::from(text.to_owned());
        if chain.iter().any(|(known, _)| known.value == name) {
            let message = format!("`{}` is named twice", shorten(text));
            cx.report(
                cx.at(Code::Conflict, message, node, "")
                    .help("one try of it is enough: the next in the list is another"),
            );
            continue;
        }
        chain.push((Declared::new(name, cx.origin(node)), node));
    }
    chain
}

/// `models` of `toka.yaml`.
pub(crate) fn models(cx: &mut Context<'_>, node: &Node) -> ModelConfig {
    let mut out = ModelConfig::default();
    let Some(section) = Section::read(cx, node, &MODELS) else { return out };
    if let Some(node) = section.get("providers") {
        for entry in pairs(cx, node, "a map of providers").unwrap_or_default() {
            let name = &entry.key.text;
            if name.is_empty() || name.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace()) {
                let message = format!("`{}` cannot be the name of a provider", shorten(name));
                cx.report(
                    Diagnostic::new(Code::BadName, message).at(cx.file, entry.key.span.clone(), "").help(
                        "it stands before the slash of `provider/model`: use letters, digits and dashes",
                    ),
                );
                continue;
            }
            if let Some(provider) = provider(cx, name, &entry.value) {
                out.providers.insert(name.clone(), provider);
            }
        }
    }
    if let Some(node) = section.get("use") {
        let chain = chain_with_nodes(cx, node);
        for (name, node) in &chain {
            report_stranger(cx, node, &name.value, &out);
        }
        out.chain = chain.into_iter().map(|(name, _)| name.value).collect();
    }
    if let Some(node) = section.get("prices") {
        out.prices = prices(cx, node);
    }
    out
}

/// A provider that nobody has declared is most likely misspelt.
fn report_stranger(cx: &mut Context<'_>, node: &Node, name: &ModelName, config: &ModelConfig) {
    let Some(provider) = &name.provider else { return };
    let known = || BUILT_IN.into_iter().chain(config.providers.keys().map(String::as_str));
    // A model may have a slash of its own, where its provider goes without saying.
    let Some(near) = super::nearest(provider, known()).filter(|near| near != provider) else { return };
    if known().any(|known| known == provider) {
        return;
    }
    let message = format!("there is no provider `{}`", shorten(provider));
    cx.report(
        cx.at(Code::BadValue, message, node, "").help(format!("did you mean `{near}/{}`?", name.model)),
    );
}

fn provider(cx: &mut Context<'_>, name: &str, node: &Node) -> Option<ProviderConfig> {
    let section = Section::read(cx, node, &PROVIDER)?;
    let speaks = section.get("wire").and_then(|node| choice(cx, node, SPEAKS));
    let url = section.get("url").and_then(|node| url(cx, node));
    let file = section.get("file").and_then(|node| filled(cx, node));
    let key = section.get("key").and_then(|node| key(cx, node));
    let concurrency = section.get("concurrency").and_then(|node| integer(cx, node, 1..=10_000));
    let timeout = section.get("timeout").and_then(|node| duration(cx, node));
    section.exclude(cx, "url", "file");
    let is_built_in = BUILT_IN.contains(&name);
    let missing = match speaks {
        None if !is_built_in && section.get("wire").is_none() => Some(("wire", "the API that it speaks")),
        Some(Speaks::Script) if section.get("file").is_none() => {
            Some(("file", "the script that it answers from"))
        }
        Some(Speaks::Wire(_)) if !is_built_in && section.get("url").is_none() => Some(("url", "where it is")),
        _ => None,
    };
    if let Some((key, what)) = missing.filter(|(key, _)| !section.perhaps(key)) {
        let message = format!("the provider `{}` needs `{key}`: {what}", shorten(name));
        let problem = Diagnostic::new(Code::Missing, message).at(cx.file, section.span(), "");
        cx.report(problem.help("for example `lab: {wire: openai-chat, url: \"http://127.0.0.1:8000/v1\"}`"));
    }
    Some(ProviderConfig { speaks, url, key, file, concurrency, timeout })
}

/// A URL without what comes after the version: `http://host/v1/` and `http://host` are the same.
fn url(cx: &mut Context<'_>, node: &Node) -> Option<String> {
    let text = filled(cx, node)?;
    let bare = text.trim().trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v1beta")).unwrap_or(bare);
    let rest = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') && !bare.contains(['?', '#', ' ']) => {
            Some(bare.to_owned())
        }
        Some(host) if host.contains('@') => {
            let problem = cx.at(Code::BadValue, "a URL holds no credentials", node, "");
            cx.report(problem.secret().help("name them with `key: {env: NAME}`"));
            None
        }
        _ => {
            cx.bad_value(node, "expected a URL such as `https://host.example/v1`, without `?` and `#`");
            None
        }
    }
}

fn key(cx: &mut Context<'_>, node: &Node) -> Option<KeySource> {
    // Whoever writes the key itself here has it in a file that is checked in.
    if let Value::Scalar(scalar) = &node.value
        && !scalar.is_null()
    {
        let problem = cx.at(Code::WrongType, "a key is named, not written here", node, "");
        cx.report(
            problem.secret().help(
                "write `key: {env: NAME}`, or `key: {file: path}`; and use another key, if this was one",
            ),
        );
        return None;
    }
    let section = Section::read(cx, node, &KEY)?;
    section.exclude(cx, "env", "file");
    let env = section.get("env").and_then(|node| {
        let name = filled(cx, node)?;
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if is_name(&name) {
            return Some(KeySource::Env(name));
        }
        // Perhaps it is the key itself.
        let problem = cx.at(Code::BadValue, "expected the name of a variable, such as LAB_KEY", node, "");
        cx.report(
            problem
                .secret()
                .help("the key stands in the variable, and not here; use another key, if this was one"),
        );
        None
    });
    env.or_else(|| section.get("file").and_then(|node| filled(cx, node)).map(KeySource::File))
}

fn prices(cx: &mut Context<'_>, node: &Node) -> BTreeMap<String, Price> {
    let mut out = BTreeMap::new();
    for entry in pairs(cx, node, "a map of prices").unwrap_or_default() {
        let name = ModelName::from(entry.key.text.clone());
        if name.provider.is_none() {
            let message = format!("`{}` is a price of no provider", shorten(&entry.key.text));
            cx.report(
                Diagnostic::new(Code::BadName, message)
                    .at(cx.file, entry.key.span.clone(), "")
                    .help("prices are by `provider/model`"),
            );
            continue;
        }
        let Some(section) = Section::read(cx, &entry.value, &PRICE) else { continue };
        let mut amount = |key: &str| section.get(key).and_then(|node| dollars(cx, node));
        let (input, output) = (amount("input"), amount("output"));
        let (cached_read, cached_write) = (amount("cached_read"), amount("cached_write"));
        let batch = section.get("batch").and_then(|node| share(cx, node));
        let price = Price {
            input: input.unwrap_or(0.0),
            cached_read,
            cached_write,
            cached_write_hour: None,
            output: output.unwrap_or(0.0),
            until: None,
            batch,
        };
        let missing =
            ["input", "output"].into_iter().find(|key| section.get(key).is_none() && !section.perhaps(key));
        if let Some(missing) = missing {
            let message = format!("the price of `{}` needs `{missing}`", shorten(&entry.key.text));
            let problem = Diagnostic::new(Code::Missing, message).at(cx.file, section.span(), "");
            cx.report(
                problem.help("in US dollars for a million tokens, such as `{input: 0.1, output: 0.4}`"),
            );
        }
        out.insert(entry.key.text.clone(), price);
    }
    out
}

/// A number, also one with a sign of dollars before it.
fn number(node: &Node) -> Option<f64> {
    let Value::Scalar(scalar) = &node.value else { return None };
    match scalar.kind {
        ScalarKind::Int(number) => Some(number as f64),
        ScalarKind::Float(number) => Some(number),
        _ => scalar.text.trim().trim_start_matches('$').parse().ok(),
    }
}

/// A part of a price.
fn share(cx: &mut Context<'_>, node: &Node) -> Option<f64> {
    let number = number(node);
    if number.is_none_or(|number| !(0.0..=1.0).contains(&number)) {
        cx.bad_value(node, "what a call in a batch costs is a part of its price, from 0 to 1, such as 0.5");
        return None;
    }
    number
}

fn dollars(cx: &mut Context<'_>, node: &Node) -> Option<f64> {
    match number(node) {
        Some(number) if (0.0..1e6).contains(&number) => Some(number),
        Some(_) => {
            cx.bad_value(node, "a price is from 0 to a million US dollars for a million tokens");
            None
        }
        None => {
            cx.wrong_type(node, "a price in US dollars for a million tokens");
            None
        }
    }
}
