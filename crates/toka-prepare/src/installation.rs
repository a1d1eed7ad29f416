//! Where the rest of a program lies that a person has installed for themselves, in a folder that no agent sees otherwise.

use std::path::{Path, PathBuf};

/// What else of an installation a program needs: the packages of node or the virtual environment of Python that it lies in.
pub(crate) fn installation(program: &Path) -> Option<PathBuf> {
    let real = program.canonicalize().ok()?;
    let modules = real
        .ancestors()
        .filter(|folder| folder.file_name().is_some_and(|name| name == "node_modules"))
        .last();
    if let Some(modules) = modules {
        return Some(modules.to_owned());
    }
    let environment = real.parent()?.parent()?;
    environment.join("pyvenv.cfg").is_file().then(|| environment.to_owned())
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
        assert_eq!(installation(&root.join("x")), Some(root.join("lib/node_modules")));
        assert_eq!(installation(&root.join("v/bin/aider")), Some(root.join("v")));
        assert_eq!(installation(&root.join("plain")), None);
    }
}
