//! What a language's toolchain needs beyond the system's folders: where it lies in the user's home, and the variables
//! that let it find itself although HOME is private.

use std::path::{Path, PathBuf};

use toka_core::{Capability, NetworkAccess};

use super::Right;
use crate::HostFacts;

/// What one toolchain adds to a plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Paths and what may be done with them.
    pub(crate) paths: Vec<(PathBuf, Right)>,
    /// Variables.
    pub(crate) variables: Vec<(String, String)>,
    /// Folders to search for programs before the others.
    pub(crate) path: Vec<PathBuf>,
}

/// The needs of a capability; `None` when it stands for no toolchain.
pub(crate) fn of(
    capability: &Capability,
    host: &HostFacts,
    home: &Path,
    network: &NetworkAccess,
) -> Option<Toolchain> {
    match capability {
        Capability::Cargo => Some(cargo(host, home, network)),
        Capability::Python => Some(python(host, home, network)),
        Capability::Node => Some(node(host, home, network)),
        _ => None,
    }
}

fn folder(host: &HostFacts, variable: &str, otherwise: PathBuf) -> PathBuf {
    host.toolchain_variables
        .iter()
        .find(|(name, _)| name == variable)
        .map_or(otherwise, |(_, path)| path.clone())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// rustup's proxies and toolchains, and the registry cache for reading. Credentials lie beside these paths, not below.
fn cargo(host: &HostFacts, home: &Path, network: &NetworkAccess) -> Toolchain {
    let cargo = folder(host, "CARGO_HOME", home.join(".cargo"));
    let rustup = folder(host, "RUSTUP_HOME", home.join(".rustup"));
    let mut variables =
        vec![("CARGO_HOME".to_owned(), text(&cargo)), ("RUSTUP_HOME".to_owned(), text(&rustup))];
    if *network == NetworkAccess::None {
        variables.push(("CARGO_NET_OFFLINE".to_owned(), "true".to_owned()));
    }
    Toolchain {
        paths: vec![
            (cargo.join("bin"), Right::Execute),
            (rustup, Right::Execute),
            (cargo.join("registry"), Right::Read),
            (cargo.join("git"), Right::Read),
            (cargo.join("config.toml"), Right::Read),
            (cargo.join("env"), Right::Read),
        ],
        variables,
        path: vec![cargo.join("bin")],
    }
}

/// pyenv, uv and user-installed interpreters. pyenv's shims are shell scripts that cost 50 ms a call and want a writable
/// home, so the chosen version's own folder goes first.
fn python(host: &HostFacts, home: &Path, network: &NetworkAccess) -> Toolchain {
    let pyenv = folder(host, "PYENV_ROOT", home.join(".pyenv"));
    let mut toolchain = Toolchain {
        paths: vec![
            (pyenv.clone(), Right::Execute),
            (home.join(".local/share/uv/python"), Right::Execute),
            (home.join(".local/lib"), Right::Read),
            (home.join(".local/bin"), Right::Execute),
        ],
        variables: vec![("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())],
        path: Vec::new(),
    };
    if *network == NetworkAccess::None {
        // What cannot be reached is not asked five times.
        let offline = [("PIP_RETRIES", "0"), ("PIP_DISABLE_PIP_VERSION_CHECK", "1")];
        toolchain.variables.extend(offline.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let shims = pyenv.join("shims");
    if host.path.contains(&shims) {
        toolchain.variables.push(("PYENV_ROOT".to_owned(), text(&pyenv)));
        toolchain.path.extend(
            host.pyenv_version.iter().map(|version| pyenv.join("versions").join(version).join("bin")),
        );
    }
    if let Some((_, venv)) = host.toolchain_variables.iter().find(|(name, _)| name == "VIRTUAL_ENV") {
        toolchain.paths.push((venv.clone(), Right::Execute));
        toolchain.path.push(venv.join("bin"));
    }
    toolchain
}

/// nvm, fnm, volta and npm's prefix in the home folder.
fn node(host: &HostFacts, home: &Path, network: &NetworkAccess) -> Toolchain {
    let mut variables = vec![("npm_config_update_notifier".to_owned(), "false".to_owned())];
    if *network == NetworkAccess::None {
        // Otherwise npm tries again for more than a minute before it says what is wrong.
        variables.push(("npm_config_offline".to_owned(), "true".to_owned()));
    }
    let nvm = folder(host, "NVM_DIR", home.join(".nvm"));
    Toolchain {
        paths: vec![
            (nvm.join("versions"), Right::Execute),
            (home.join(".local/share/fnm"), Right::Execute),
            (home.join(".volta"), Right::Execute),
            (home.join(".npm/_cacache"), Right::Read),
        ],
        variables,
        path: Vec::new(),
    }
}
