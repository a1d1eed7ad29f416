//! The policy file, `toka.yaml` in the workspace or what `--policy` names: which capabilities a person allows
//! although they are dangerous, and which they deny although they are not.
//!
//! ```yaml
//! allow: [network:full, "filesystem-outside:/data"]
//! deny: [filesystem-write]
//! budgets: {run: {money: 20}, agent: {money: 2, calls: 500}}
//! approvals: {expire: 30m}
//! models: {use: [lab/qwen3], providers: {lab: {wire: openai-chat, url: "http://127.0.0.1:8000/v1"}}}
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use toka_core::capability::{KNOWN, Policy};
use toka_core::{Capability, ModelConfig};

use crate::decode::{Context, nearest};
use crate::diagnostic::{Code, Diagnostic, FileId, Sources};
use crate::read::{Entry, Found, Node, Value, collect, parse, shorten};

/// The keys of a policy file.
pub(crate) const KEYS: [&str; 5] = ["allow", "deny", "models", "budgets", "approvals"];

/// The name of the policy file of a workspace.
pub const POLICY_FILE: &str = "toka.yaml";

/// What became of a policy file.
#[derive(Debug, Clone)]
pub struct LoadedPolicy {
    /// The policy; `None` when there is any error: half a policy is none.
    pub policy: Option<Policy>,
    /// What it says about models; nothing when there is any error.
    pub models: ModelConfig,
    /// Everything that was found.
    pub diagnostics: Vec<Diagnostic>,
    /// The text that the diagnostics point into.
    pub sources: Sources,
}

/// Reads a policy file and reports everything that is wrong with it. An empty file allows and denies nothing.
pub fn load_policy(path: &Path) -> LoadedPolicy {
    let mut loaded = LoadedPolicy {
        policy: None,
        models: ModelConfig::default(),
        diagnostics: Vec::new(),
        sources: Sources::default(),
    };
    let found = collect(&[path.to_owned()]).next();
    match found {
        Some(Found::Text { path, text }) => loaded.read(&path, text),
        Some(Found::NotUtf8(broken)) => {
            loaded.diagnostics.push(broken.into_diagnostic(&mut loaded.sources));
        }
        Some(Found::Problem(problem)) => loaded.diagnostics.push(problem),
        None => {
            let message = format!("there is no policy file `{}`", path.display());
            loaded.diagnostics.push(Diagnostic::new(Code::Unreadable, message));
        }
    }
    loaded
}

impl LoadedPolicy {
    fn read(&mut self, path: &Path, text: String) {
        let file = self.sources.add(&path.to_string_lossy(), text);
        let mut cx = Context::new(file, &self.sources);
        let (documents, problems) = parse(file, self.sources.text(file));
        problems.into_iter().for_each(|problem| cx.report(problem));
        let (mut policy, mut models) = (Policy::default(), ModelConfig::default());
        for document in &documents {
            sections(&mut cx, &document.root, (&mut policy, &mut models));
        }
        if !cx.failed() {
            (self.policy, self.models) = (Some(policy), models);
        }
        self.diagnostics = cx.finish();
    }
}

/// What the file says: who may do what, and which models there are.
type Said<'a> = (&'a mut Policy, &'a mut ModelConfig);

fn sections(cx: &mut Context<'_>, node: &Node, (policy, models): Said<'_>) {
    match &node.value {
        Value::Map(entries) if entries.iter().any(|entry| entry.key.text == "metadata") => {
            cx.report(named_as_policy(cx.file, node));
        }
        Value::Map(entries) => entries.iter().for_each(|entry| section(cx, entry, (policy, models))),
        _ if node.is_null() => {}
        _ => cx.wrong_type(node, "a map with keys such as `allow` and `models`"),
    }
}

fn section(cx: &mut Context<'_>, entry: &Entry, (policy, models): Said<'_>) {
    let rules = match entry.key.text.as_str() {
        "allow" => &mut policy.allow,
        "deny" => &mut policy.deny,
        "models" => {
            *models = std::mem::take(models).with(crate::decode::models(cx, &entry.value));
            return;
        }
        "budgets" => {
            models.budgets = models.budgets.with(crate::decode::budgets(cx, &entry.value));
            return;
        }
        "approvals" => {
            models.approvals_expire = crate::decode::approvals(cx, &entry.value).or(models.approvals_expire);
            return;
        }
        other => {
            let message = format!("a policy has no key `{}`", shorten(other));
            let problem =
                Diagnostic::new(Code::UnknownKey, message).at(cx.file, entry.key.span.clone(), "unknown key");
            let near = nearest(other, KEYS).map(|near| format!("did you mean `{near}`?"));
            cx.report(
                problem.help(
                    near.unwrap_or_else(|| format!("the keys of a policy are `{}`", KEYS.join("`, `"))),
                ),
            );
            return;
        }
    };
    capabilities(cx, &entry.value, rules);
}

fn capabilities(cx: &mut Context<'_>, node: &Node, rules: &mut BTreeSet<Capability>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| capabilities(cx, item, rules)),
        Value::Scalar(scalar) if !scalar.is_null() => {
            let capability = Capability::parse(&scalar.text);
            if !is_rule(&capability) {
                cx.report(unknown(cx, node, &capability));
            }
            rules.insert(capability);
        }
        _ if node.is_null() => {}
        _ => cx.wrong_type(node, "the name of a capability"),
    }
}

/// Whether a rule about it can ever apply: a known name, or the bare name of one that takes a path.
fn is_rule(capability: &Capability) -> bool {
    match capability {
        capability if !capability.is_sound() => false,
        Capability::Label(text) => KNOWN.iter().any(|row| row.takes_path && row.name == text),
        _ => true,
    }
}

/// A slip of the pen would allow less, or deny less, than was meant: that is an error here.
fn unknown(cx: &Context<'_>, node: &Node, capability: &Capability) -> Diagnostic {
    let message = format!("`{}` is no capability that Toka knows", shorten(&capability.to_string()));
    let problem = cx.at(Code::BadValue, message, node, "");
    match capability.suggestion() {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("`toka explain capabilities` lists them"),
    }
}

/// A policy is no workstream, and a workstream of its name would be read as one.
pub(crate) fn named_as_policy(file: FileId, root: &Node) -> Diagnostic {
    let message = format!("`{POLICY_FILE}` is the name of the policy file, never of a workstream");
    Diagnostic::new(Code::NoWorkstream, message).at(file, root.span.clone(), "").help(
        "give a workstream another name, such as `agent.yaml`; `toka help trust` tells what a policy is",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &[u8]) -> LoadedPolicy {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(POLICY_FILE);
        std::fs::write(&path, text).expect("a file");
        load_policy(&path)
    }

    fn names(rules: &BTreeSet<Capability>) -> Vec<String> {
        rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy() {
        let loaded =
            load(b"allow: [network:full, 'filesystem-outside:/data', device]\ndeny: filesystem_write\n");
        assert_eq!(loaded.diagnostics, []);
        let policy = loaded.policy.expect("a policy");
        assert_eq!(names(&policy.allow), ["network:full", "filesystem-outside:/data", "device"]);
        assert_eq!(names(&policy.deny), ["filesystem-write"]);
        assert!(
            policy
                .decide(
                    &toka_core::AgentName::new("a").expect("a label"),
                    &Capability::Device("/dev/kvm".into())
                )
                .is_ok()
        );
        assert_eq!(load(b"").policy, Some(Policy::default()));
        assert_eq!(load(b"allow:\n").policy, Some(Policy::default()));
    }

    #[test]
    fn half_a_policy_is_none() {
        for (text, message) in [
            (&b"alow: [device]"[..], "a policy has no key `alow`"),
            (b"deny: [filesytem-write]", "`filesytem-write` is no capability that Toka knows"),
            (b"allow: [poetry]", "`poetry` is no capability that Toka knows"),
            (b"[allow]", "expected a map with keys such as `allow` and `models`, found a list"),
            (b"allow: {device: yes}", "expected the name of a capability, found a map"),
        ] {
            let loaded = load(text);
            assert_eq!(loaded.policy, None, "{message}");
            assert_eq!(loaded.diagnostics[0].message, message);
        }
        for text in [&b"\xff"[..], b"a: [", b"allow: &a [*a]"] {
            let loaded = load(text);
            assert!(loaded.policy.is_none() && !loaded.diagnostics.is_empty(), "{text:?}");
        }
        assert!(load_policy(Path::new("/nowhere/toka.yaml")).policy.is_none());
    }
}
