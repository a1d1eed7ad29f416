//! Where the rest of a program lies that a person has installed for themselves, in a folder that no agent sees otherwise.

use std::path::{Path, PathBuf};

/// What else of an installation a program needs: the packages of node or the virtual environment of Python that it lies in.
pub(crate) fn installation(program: &Path) -> Vec<PathBuf> {
    let Ok(real) = program.canonicalize() else { return Vec::new() };
    let is_modules = |folder: &&Path| folder.file_name().is_some_and(|name| name == "node_modules");
    if let Some(modules) = real.ancestors().filter(is_modules).last() {
        return vec![modules.to_owned()];
    }
    // Of an environment only what Python keeps there: it may have been made in a folder with other things (venv, PEP 405).
    let environment = real.parent().and_then(Path::parent);
    let environment = environment.filter(|folder| folder.join("pyvenv.cfg").is_file());
    let parts = environment
        .into_iter()
        .flat_map(|folder| ["bin", "lib", "lib64", "pyvenv.cfg"].map(|part| folder.join(part)));
    parts.filter(|part| part.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_its_packages_or_its_virtual_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let inner = root.join("lib/node_modules/@x/y/node_modules/z");
        std::fs::create_dir_all(&inner).expect("folders");
        std::fs::create_dir_all(root.join("v/bin")).expect("folders");
        for file in ["lib/node_modules/@x/y/node_modules/z/cli.js", "v/bin/aider", "v/pyvenv.cfg", "plain"] {
            std::fs::write(root.join(file), "").expect("written");
        }
        std::os::unix::fs::symlink(inner.join("cli.js"), root.join("x")).expect("a link");
        assert_eq!(installation(&root.join("x")), [root.join("lib/node_modules")]);
        assert_eq!(installation(&root.join("v/bin/aider")), [root.join("v/bin"), root.join("v/pyvenv.cfg")]);
        assert_eq!(installation(&root.join("plain")), Vec::<PathBuf>::new());
    }
}
