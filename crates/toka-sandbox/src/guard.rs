//! Paths that an agent must not make: a mount can protect only what is there, so what has appeared is set aside when the
//! agent has ended. Until then it can be there; nothing of Toka's reads it meanwhile.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use toka_core::Name;

/// Sets aside each of `guarded` that is there now, under a name that nothing obeys; says in words what was done.
pub fn sweep(guarded: &[PathBuf], agent: &Name) -> Vec<String> {
    let appeared = guarded.iter().filter(|path| path.symlink_metadata().is_ok());
    appeared.map(|path| set_aside(path, agent)).collect()
}

fn set_aside(path: &Path, agent: &Name) -> String {
    let mut name = OsString::from(path);
    name.push(format!(".from-{agent}"));
    match fs::rename(path, &name) {
        Ok(()) => format!(
            "{} appeared while {agent} ran, which must not make it; it is now {}",
            path.display(),
            Path::new(&name).display()
        ),
        Err(error) => {
            format!(
                "{} appeared while {agent} ran, which must not make it: remove it ({error})",
                path.display()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appeared_is_set_aside_and_what_did_not_is_no_matter() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = folder.path().join("toka.yaml");
        fs::write(&made, "allow: [sandbox:off]").expect("a file");
        let agent = Name::new("web").expect("a label");
        let said = sweep(&[made.clone(), folder.path().join("absent")], &agent);
        assert_eq!(said.len(), 1);
        assert!(!made.exists());
        assert!(folder.path().join("toka.yaml.from-web").exists());
    }
}
