//! The committed man pages are those that the command line's description makes, so that packagers can take them as they
//! are. They depend on nothing but that description.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man")
}

/// Runs `toka man --out` with this environment variable set.
fn write_pages(folder: &Path, variable: (&str, &str)) {
    let status = Command::new(env!("CARGO_BIN_EXE_toka"))
        .args(["man", "--out"])
        .arg(folder)
        .env(variable.0, variable.1)
        .status()
        .expect("the toka binary");
    assert!(status.success(), "{status}");
}

/// Names of a folder's files, and what is in them.
fn pages(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).expect("a page is text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}

#[test]
fn the_man_pages_are_fresh() {
    let folder = tempfile::tempdir().expect("a folder");
    write_pages(folder.path(), ("LANG", "C.UTF-8"));
    let expected = pages(folder.path());
    if std::env::var_os("TOKA_UPDATE").is_some() {
        update(&expected);
    }
    let found = pages(&committed());
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
    const HINT: &str = "run `TOKA_UPDATE=1 cargo test -p toka-cli --test man`";
    assert_eq!(names(&found), names(&expected), "docs/man has other pages than the commands; {HINT}");
    for (name, text) in &expected {
        assert!(found[name] == *text, "docs/man/{name} is stale; {HINT}");
    }
}

/// Makes the committed folder hold exactly these pages.
fn update(pages: &BTreeMap<String, String>) {
    let folder = committed();
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir(&folder).expect("a folder").flatten() {
        fs::remove_file(entry.path()).expect("a stale page goes");
    }
    for (name, text) in pages {
        fs::write(folder.join(name), text).expect("a page is written");
    }
}

#[test]
fn the_environment_leaves_no_trace_in_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, other) = (folder.path().join("plain"), folder.path().join("other"));
    write_pages(&plain, ("COLUMNS", "200"));
    write_pages(&other, ("TOKA_STATE_DIR", "/a/place/of/this/machine"));
    assert_eq!(pages(&plain), pages(&other));
    assert!(pages(&other).values().all(|page| !page.contains("/a/place")));
}

#[test]
fn a_command_is_a_page_and_no_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let print = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toka"));
        command.arg("man").args(words).current_dir(folder.path()).output().expect("the toka binary")
    };
    let (run, all) = (print(&["run"]), tempfile::tempdir().expect("a folder"));
    write_pages(all.path(), ("LANG", "C.UTF-8"));
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&run.stdout), pages(all.path())["toka-run.1"]);
    assert!(print(&[]).stdout.starts_with(b".ie"), "the page of toka itself");
    let unknown = print(&["pages"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--out DIR"));
    assert_eq!(fs::read_dir(folder.path()).expect("ours").count(), 0, "nothing is made");
}
