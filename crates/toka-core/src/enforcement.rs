//! What of an agent's confinement is in force, layer by layer (ledger T14): the sandbox returns it, and people see it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The layers of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A mount namespace of its own.
    Mounts,
    /// Landlock rules on files, ports, signals and abstract sockets.
    Landlock,
    /// The system call filter.
    Seccomp,
    /// What the network rule asks for.
    Network,
    /// Control groups: memory, CPU, processes, freeze, kill.
    Cgroup,
    /// no_new_privs, rlimits, capabilities, session, signals, descriptors, keyring.
    Process,
}

impl Layer {
    /// Every layer, in the order that people see them.
    pub const ALL: [Self; 6] =
        [Self::Mounts, Self::Landlock, Self::Seccomp, Self::Network, Self::Cgroup, Self::Process];

    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Network => "network",
            Self::Cgroup => "cgroup",
            Self::Process => "process",
        }
    }
}

/// How much of a layer is in force. Ordered: more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Nothing.
    None,
    /// Some of it; the reasons say what is missing.
    Partial,
    /// All that the plan asked for.
    Full,
}

/// One layer's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Which layer.
    pub layer: Layer,
    /// How much of it.
    pub coverage: Coverage,
    /// What is missing and why; empty when full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl fmt::Display for LayerReport {
    /// The layer, and in brackets why it is not complete: `landlock (this kernel has no Landlock)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reasons.as_slice() {
            [] => f.write_str(self.layer.as_str()),
            reasons => write!(f, "{} ({})", self.layer.as_str(), reasons.join("; ")),
        }
    }
}

/// The report of all layers of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Enforcement {
    /// One report per layer, in the order of [`Layer::ALL`].
    pub layers: Vec<LayerReport>,
}

impl Enforcement {
    /// Sets the report of a layer, keeping the order.
    pub fn set(&mut self, layer: Layer, coverage: Coverage, reasons: Vec<String>) {
        self.layers.retain(|report| report.layer != layer);
        self.layers.push(LayerReport { layer, coverage, reasons });
        self.layers.sort_by_key(|report| report.layer);
    }

    /// The coverage of a layer; a layer that was not reported is not there.
    pub fn coverage(&self, layer: Layer) -> Coverage {
        self.layers
            .iter()
            .find(|report| report.layer == layer)
            .map_or(Coverage::None, |report| report.coverage)
    }

    /// The least coverage of all layers.
    pub fn overall(&self) -> Coverage {
        Layer::ALL.iter().map(|layer| self.coverage(*layer)).min().unwrap_or(Coverage::None)
    }
}

impl fmt::Display for Enforcement {
    /// `full`, or what falls short: `partial (mounts none, cgroup partial)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: Vec<String> = Layer::ALL
            .iter()
            .filter_map(|layer| match self.coverage(*layer) {
                Coverage::Full => None,
                Coverage::Partial => Some(format!("{} partial", layer.as_str())),
                Coverage::None => Some(format!("{} none", layer.as_str())),
            })
            .collect();
        match (short.len(), self.overall()) {
            (0, _) => f.pad("full"),
            (_, Coverage::None)
                if short.iter().all(|s| s.ends_with("none")) && short.len() == Layer::ALL.len() =>
            {
                f.pad("none")
            }
            _ => f.pad(&format!("partial ({})", short.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_layer_decides() {
        let mut enforcement = Enforcement::default();
        assert_eq!(enforcement.to_string(), "none");
        for layer in Layer::ALL {
            enforcement.set(layer, Coverage::Full, Vec::new());
        }
        assert_eq!(enforcement.to_string(), "full");
        enforcement.set(Layer::Cgroup, Coverage::Partial, vec!["no cpu controller".into()]);
        assert_eq!(enforcement.overall(), Coverage::Partial);
        assert_eq!(enforcement.to_string(), "partial (cgroup partial)");
    }
}
