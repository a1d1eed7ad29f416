//! Which dangerous capabilities a declaration asks for, whether it names them or not: a path outside the workspace under
//! `security.filesystem` is a demand like any other.

use std::path::Path;

use toka_core::{Capability, Confinement, Declared, SandboxMode};

use super::compile::normalise;

/// Every capability that must be granted before an agent may start, in the order of declaration.
pub fn demands(confinement: &Confinement, workspace: &Path, user_home: &Path) -> Vec<Declared<Capability>> {
    let mut demands: Vec<Declared<Capability>> = confinement.capabilities.clone();
    if confinement.sandbox.value == SandboxMode::Off {
        demands.push(Declared::new(Capability::SandboxOff, confinement.sandbox.origin.clone()));
    }
    if let Some(capability) = confinement.network.value.demands() {
        demands.push(Declared::new(capability, confinement.network.origin.clone()));
    }
    for declared in confinement.read.iter().chain(&confinement.write).chain(&confinement.execute) {
        let path = match declared.value.strip_prefix("~/") {
            Some(rest) => user_home.join(rest),
            None => workspace.join(&declared.value),
        };
        let path = normalise(&path);
        if !path.starts_with(workspace) {
            let capability = Capability::Outside(path.to_string_lossy().into_owned());
            demands.push(Declared::new(capability, declared.origin.clone()));
        }
    }
    demands
}

#[cfg(test)]
mod tests {
    use toka_core::{NetworkAccess, Origin};

    use super::*;

    #[test]
    fn what_is_dangerous_is_found_wherever_it_is_written() {
        let here = || Origin::default_of("test");
        let confinement = Confinement {
            sandbox: Declared::new(SandboxMode::Off, here()),
            network: Declared::new(NetworkAccess::Full, here()),
            read: vec![Declared::new("docs".into(), here()), Declared::new("../other".into(), here())],
            write: vec![Declared::new("/data/*".into(), here())],
            execute: vec![Declared::new("~/bin".into(), here())],
            ..Confinement::default()
        };
        let found: Vec<String> = demands(&confinement, Path::new("/srv/app"), Path::new("/home/me"))
            .into_iter()
            .map(|demand| demand.value.to_string())
            .collect();
        assert_eq!(
            found,
            [
                "sandbox:off",
                "network:full",
                "filesystem-outside:/srv/other",
                "filesystem-outside:/data/*",
                "filesystem-outside:/home/me/bin"
            ]
        );
    }
}
