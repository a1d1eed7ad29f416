//! What an agent declared about its walls: the input of the sandbox, before anything is resolved on a host.

use serde::{Deserialize, Serialize};

use crate::{Budget, Capability, Declared, Limits, NetworkAccess, Origin, Priority};

/// Whether the agent is confined at all. `Off` is dangerous and must be granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxMode {
    /// Confined.
    #[default]
    On,
    /// An ordinary process of the user, with limits only.
    Off,
}

/// What to do when the host cannot enforce a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compatibility {
    /// Files and system calls must be confined, or the start is refused; the rest is reported.
    #[default]
    Default,
    /// Every layer in full, or the start is refused.
    Strict,
    /// Nothing is refused, everything is reported.
    BestEffort,
}

/// Who answers at the port where an agent reaches models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelReach {
    /// Providers, with keys and money of the person, who must have granted it.
    Providers,
    /// A script: nothing leaves the host, and nothing is paid.
    Script,
}

/// Everything an agent declared about its walls, each with the place it was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// `security.sandbox`.
    pub sandbox: Declared<SandboxMode>,
    /// `security.capabilities_required`.
    pub capabilities: Vec<Declared<Capability>>,
    /// `security.filesystem.read`: paths or globs, relative to the workspace.
    pub read: Vec<Declared<String>>,
    /// `security.filesystem.write`.
    pub write: Vec<Declared<String>>,
    /// `security.filesystem.execute`.
    pub execute: Vec<Declared<String>>,
    /// `security.network`.
    pub network: Declared<NetworkAccess>,
    /// `security.resource_limits`.
    pub limits: Limits,
    /// `security.compatibility`.
    pub compatibility: Declared<Compatibility>,
    /// `spec.priority`, which sets the CPU weight.
    pub priority: Declared<Priority>,
    /// `spec.model`, or the capability that asks for one: it gets a port at which it reaches models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Declared<ModelReach>>,
    /// A model works on its tasks, and the daemon asks it: the agent's own processes have no way to models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_model: bool,
    /// `security.budget`: what it may use of models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Declared<Budget>>,
    /// `security.network.ask`: a person is asked about hosts that are not listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_hosts: bool,
    /// `security.filesystem.ask`: a person is asked about a path at which it ends; where that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks_paths: Option<Origin>,
}

impl Confinement {
    /// Whether it has a port at which Toka serves it: it asks models, or reaches hosts.
    pub fn has_port(&self) -> bool {
        self.has_model_port() || matches!(self.network.value, NetworkAccess::Allow(_))
    }

    /// Whether its own processes reach models at that port.
    pub fn has_model_port(&self) -> bool {
        self.model.is_some() && !self.by_model
    }

    /// Where its values come from, all of them.
    pub fn places(&mut self) -> Vec<&mut Origin> {
        let Self {
            sandbox,
            capabilities,
            read,
            write,
            execute,
            network,
            limits,
            compatibility,
            priority,
            model,
            by_model: _,
            budget,
            asks_hosts: _,
            asks_paths,
        } = self;
        let mut places = limits.places();
        places.extend([
            &mut sandbox.origin,
            &mut network.origin,
            &mut compatibility.origin,
            &mut priority.origin,
        ]);
        places.extend(asks_paths);
        places.extend(model.iter_mut().map(|it| &mut it.origin));
        places.extend(budget.iter_mut().map(|it| &mut it.origin));
        places.extend(capabilities.iter_mut().map(|it| &mut it.origin));
        places.extend([read, write, execute].into_iter().flatten().map(|it| &mut it.origin));
        places
    }
}

impl Default for Confinement {
    fn default() -> Self {
        Self {
            sandbox: Declared::by_default(SandboxMode::On, "confined"),
            capabilities: Vec::new(),
            read: Vec::new(),
            write: Vec::new(),
            execute: Vec::new(),
            network: Declared::by_default(NetworkAccess::None, "no network"),
            limits: Limits::default(),
            compatibility: Declared::by_default(Compatibility::Default, "compatibility"),
            priority: Declared::by_default(Priority::Medium, "priority"),
            model: None,
            budget: None,
            asks_hosts: false,
            asks_paths: None,
            by_model: false,
        }
    }
}
