//! Rules about the sources themselves: layers, `unsafe`, opening words, promises of the documents.
//!
//! They look at tracked files only, so that what lies about in a checkout is nobody's business.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use toka_tests::workspace_root;

/// Which crates of the workspace each crate may use: `docs/ARCHITECTURE.md` has the same table with its reasons. A
/// crate that is not in it has no place in the layers yet.
const LAYERS: &[(&str, &[&str])] = &[
    ("toka-core", &[]),
    ("toka-files", &[]),
    ("toka-workstream", &["toka-core", "toka-files"]),
    ("toka-wire", &["toka-core"]),
    ("toka-sandbox", &["toka-core", "toka-files"]),
    ("toka-store", &["toka-core"]),
    ("toka-broker", &["toka-core"]),
    ("toka-agent", &["toka-core"]),
    ("toka-keeper", &["toka-core", "toka-sandbox"]),
    ("toka-api", &["toka-core", "toka-workstream"]),
    ("toka-http", &["toka-sandbox"]),
    ("toka-logs", &["toka-core"]),
    ("toka-runtime", &["toka-core", "toka-sandbox", "toka-keeper", "toka-http", "toka-logs"]),
    ("toka-terminal", &["toka-core", "toka-logs", "toka-api"]),
    ("toka-gateway", &["toka-core", "toka-wire", "toka-http"]),
    (
        "toka-prepare",
        &[
            "toka-core",
            "toka-files",
            "toka-workstream",
            "toka-sandbox",
            "toka-keeper",
            "toka-runtime",
            "toka-api",
            "toka-wire",
            "toka-gateway",
        ],
    ),
    ("toka-orchestration", &["toka-core", "toka-workstream", "toka-runtime"]),
    ("toka-session", &["toka-core", "toka-wire", "toka-gateway", "toka-keeper", "toka-runtime"]),
    (
        "toka-doctor",
        &["toka-core", "toka-sandbox", "toka-keeper", "toka-runtime", "toka-api", "toka-prepare"],
    ),
    (
        "toka-project",
        &[
            "toka-core",
            "toka-files",
            "toka-workstream",
            "toka-sandbox",
            "toka-store",
            "toka-keeper",
            "toka-http",
            "toka-logs",
            "toka-runtime",
            "toka-api",
            "toka-prepare",
            "toka-broker",
            "toka-gateway",
            "toka-session",
            "toka-orchestration",
        ],
    ),
    (
        "toka-daemon",
        &[
            "toka-core",
            "toka-workstream",
            "toka-sandbox",
            "toka-store",
            "toka-keeper",
            "toka-logs",
            "toka-runtime",
            "toka-api",
            "toka-prepare",
            "toka-project",
        ],
    ),
];

/// Crates above every layer: they may use all of them.
const ABOVE: &[&str] = &["toka-cli", "toka-tests"];

/// Where `unsafe` may be written, each with its own reasons.
const UNSAFE: &[&str] =
    &["crates/toka-sandbox/src/sys.rs", "crates/toka-sandbox/src/sys/", "tests/src/bin/attack/sys.rs"];

/// Files that open others by name, besides `toka-files`: what lies there, no agent can write, replace or make slow.
const OPENERS: &[(&str, Opens)] = &[
    ("crates/toka-agent/src/attempt.rs", Opens::Kernel),
    ("crates/toka-agent/src/worker.rs", Opens::Inside),
    ("crates/toka-agent/src/hands/", Opens::Inside),
    ("crates/toka-cli/src/commands/keeper.rs", Opens::Kernel),
    ("crates/toka-cli/src/top/machine.rs", Opens::Kernel),
    ("crates/toka-api/src/declaration.rs", Opens::State),
    ("crates/toka-api/src/private_file.rs", Opens::State),
    ("crates/toka-doctor/src/attempt.rs", Opens::Kernel),
    ("crates/toka-doctor/src/facts.rs", Opens::Kernel),
    ("crates/toka-doctor/src/target_dir.rs", Opens::State),
    ("crates/toka-doctor/src/leftovers.rs", Opens::Kernel),
    ("crates/toka-doctor/src/probe.rs", Opens::Kernel),
    ("crates/toka-daemon/src/gc/groups.rs", Opens::Kernel),
    ("crates/toka-daemon/src/gc/processes.rs", Opens::Kernel),
    ("crates/toka-prepare/src/identity.rs", Opens::State),
    ("crates/toka-prepare/src/models.rs", Opens::State),
    ("crates/toka-project/src/reporting/agent_reports.rs", Opens::State),
    ("crates/toka-prepare/src/remove_tree.rs", Opens::Kernel),
    ("crates/toka-prepare/src/user_claims.rs", Opens::State),
    ("crates/toka-prepare/src/workplace.rs", Opens::State),
    ("crates/toka-project/src/stray_groups.rs", Opens::Kernel),
    ("crates/toka-keeper/src/process.rs", Opens::Kernel),
    ("crates/toka-keeper/src/server/", Opens::Kernel),
    ("crates/toka-logs/src/", Opens::State),
    ("crates/toka-prepare/src/trust.rs", Opens::State),
    ("crates/toka-runtime/src/peers.rs", Opens::Kernel),
    ("crates/toka-runtime/src/actor/calls.rs", Opens::Kernel),
    ("crates/toka-sandbox/src/cgroup/", Opens::Kernel),
    ("crates/toka-sandbox/src/confine.rs", Opens::Kernel),
    ("crates/toka-sandbox/src/host.rs", Opens::Kernel),
    ("crates/toka-sandbox/src/renewal.rs", Opens::Kernel),
    ("crates/toka-sandbox/src/namespace.rs", Opens::Kernel),
    ("crates/toka-session/src/transcript/", Opens::State),
    ("crates/toka-store/src/aside.rs", Opens::State),
];

/// What a file opens by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    /// Only files of the kernel: /proc, /sys, /dev.
    Kernel,
    /// Toka's own directories, which are the user's alone and which no grant opens to an agent.
    State,
    /// Files of the agent, by code that runs in its sandbox as the agent itself: what that can be led to, the agent could open.
    Inside,
}

fn tracked() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(workspace_root())
        .output()
        .expect("git is there");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("names of files are UTF-8");
    let paths = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    let paths: Vec<PathBuf> = paths.filter(|path| workspace_root().join(path).is_file()).collect();
    assert!(!paths.is_empty(), "a checkout has files");
    paths
}

/// Tracked Rust files and their text.
fn sources() -> Vec<(PathBuf, String)> {
    let rust =
        tracked().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| {
        let text = read(&path);
        (path, text)
    })
    .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(workspace_root().join(path)).unwrap_or_default()
}

/// Fails with the list, if there is one.
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Lines that hold one of `words` as code: not in a comment.
fn lines_with(sources: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn crates_keep_to_their_layer() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(workspace_root())
        .output()
        .expect("cargo is there");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        if ABOVE.contains(&name) {
            continue;
        }
        let Some(allowed) = layers.get(name) else {
            wrong.push(format!("{name} has no place in the layers"));
            continue;
        };
        let used = package["dependencies"].as_array().expect("dependencies").iter();
        let used = used
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| name.starts_with("toka-"));
        wrong.extend(
            used.filter(|used| !allowed.contains(used)).map(|used| format!("{name} must not use {used}")),
        );
    }
    none("dependencies against the layers", wrong);
    assert!(packages.len() > ABOVE.len(), "the workspace has crates");
}

/// The path of a module, such as `toka-keeper::server::child`, of a file in `crates/*/src`.
fn module_of(path: &Path) -> Option<Vec<String>> {
    let text = path.strip_prefix("crates").ok()?.to_str()?.strip_suffix(".rs")?;
    let (name, inside) = text.split_once("/src/")?;
    let parts = inside.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main"));
    Some(std::iter::once(name).chain(parts).map(str::to_owned).collect())
}

/// The modules that a module names by `crate::` and `super::`, its tests not counted.
fn named_by(module: &[String], text: &str, known: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in lines {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':'));
        for word in words.filter(|word| word.starts_with("crate::") || word.starts_with("super::")) {
            let mut at = module.to_vec();
            for part in word.split("::").filter(|part| !part.is_empty()) {
                match part {
                    "crate" => at.truncate(1),
                    "super" => drop(at.pop()),
                    part => at.push(part.to_owned()),
                }
            }
            // What follows the module is an item of it.
            while !at.is_empty() && !known.contains(&at) {
                at.pop();
            }
            found.insert(at);
        }
    }
    found.remove(module);
    found
}

/// Whoever follows the data through a crate comes to no module again: only a module and those within it name each other.
#[test]
fn modules_are_no_knot() {
    let sources: Vec<(Vec<String>, String)> =
        sources().into_iter().filter_map(|(path, text)| Some((module_of(&path)?, text))).collect();
    let known: BTreeSet<Vec<String>> = sources.iter().map(|(module, _)| module.clone()).collect();
    let is_family = |one: &[String], other: &[String]| one.starts_with(other) || other.starts_with(one);
    let edges: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> = sources
        .iter()
        .map(|(module, text)| {
            let mut named = named_by(module, text, &known);
            named.retain(|other| !is_family(module, other));
            (module, named)
        })
        .collect();
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 200, "modules name each other");
    let reached_from = |module: &Vec<String>| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![module.clone()]);
        while let Some(next) = open.pop() {
            let new = edges[&next].iter().filter(|other| seen.insert((*other).clone()));
            open.extend(new.cloned().collect::<Vec<_>>());
        }
        seen
    };
    let knots = edges.keys().filter(|module| reached_from(module).contains(**module));
    none("in a circle of modules", knots.map(|module| module.join("::")).collect());
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    none("files that do not open with `//!`", silent.map(|(path, _)| path.display().to_string()).collect());
}

#[test]
fn unsafe_stays_in_its_modules() {
    let elsewhere: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| !UNSAFE.iter().any(|allowed| path.to_string_lossy().starts_with(allowed)))
        .collect();
    let words =
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "#[unsafe("].map(|word| format!(" {word}"));
    let padded: Vec<_> = elsewhere
        .into_iter()
        .filter(|(path, _)| !path.ends_with("tests/tidy.rs"))
        .map(|(path, text)| (path, text.lines().map(|line| format!(" {line}\n")).collect()))
        .collect();
    none("`unsafe` outside its modules", lines_with(&padded, &words.each_ref().map(String::as_str)));
}

/// Everything else is opened through `toka-files`: below a directory, without links, without waiting.
#[test]
fn nothing_is_opened_by_name_where_an_agent_could_swap_it() {
    let calls = ["fs::read", "File::open", "glob::glob", "fs::rename"].map(|word| format!("{word}("));
    let calls = [&calls[..], &["fs::read_to_string(".to_owned()]].concat();
    let of_product = |path: &Path| {
        let text = path.to_string_lossy();
        let is_test =
            text.ends_with("tests.rs") || text.contains("/tests/") || text.ends_with("test_support.rs");
        text.starts_with("crates/")
            && text.contains("/src/")
            && !text.starts_with("crates/toka-files/")
            && !is_test
    };
    let product: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| of_product(path))
        .map(|(path, text)| (path, text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()))
        .collect();
    let found = lines_with(&product, &calls.iter().map(String::as_str).collect::<Vec<_>>());
    let is_of = |line: &String, opener: &(&str, Opens)| line.starts_with(opener.0);
    let unknown = found.iter().filter(|line| !OPENERS.iter().any(|opener| is_of(line, opener)));
    none("opened by name; use toka-files", unknown.cloned().collect());
    let unused = OPENERS.iter().filter(|opener| !found.iter().any(|line| is_of(line, opener)));
    none("exceptions that nothing needs", unused.map(|(path, opens)| format!("{path} {opens:?}")).collect());
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    none("unfinished code", lines_with(&sources(), &words.each_ref().map(String::as_str)));
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let words = [
        concat!("/work", "/main"),
        concat!("/work", "/shared"),
        concat!("../", "shared"),
        concat!("/tmp/", "toka/"),
    ];
    let mut found = Vec::new();
    for path in tracked() {
        for (number, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none("paths of one machine", found);
}

#[test]
fn every_exception_from_a_lint_has_a_reason() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for opening in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in text.match_indices(opening) {
                let line = text[..at].matches('\n').count() + 1;
                let begins_line =
                    text[..at].rsplit('\n').next().is_some_and(|before| before.trim().is_empty());
                let attribute = text[at..].split(")]").next().unwrap_or_default();
                if begins_line && !attribute.contains("reason = ") {
                    found.push(format!(
                        "{}:{line}: {}",
                        path.display(),
                        attribute.lines().next().unwrap_or_default()
                    ));
                }
            }
        }
    }
    none("exceptions without a reason", found);
}

/// Names of functions in the sources, among them every test.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources() {
        for (at, _) in text.match_indices("fn ") {
            let name = text[at + 3..].split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
            names.extend(name.map(str::to_owned));
        }
    }
    names
}

/// Words in backquotes that name a file of the project or, as `module::function`, a test.
fn claims(text: &str) -> (Vec<&str>, Vec<&str>) {
    let words = text.split('`').skip(1).step_by(2).filter(|word| !word.contains(char::is_whitespace));
    let (mut files, mut tests) = (Vec::new(), Vec::new());
    for word in words {
        let first = word.split('/').next().unwrap_or_default();
        if word.contains('/') && ["crates", "tests", "agents", "docs", "schemas", ".ci"].contains(&first) {
            files.push(word.split("::").next().unwrap_or(word));
        }
        let name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let function = word.rsplit("::").next().unwrap_or_default();
        if word.contains("::")
            && name(function)
            && word.split("::").all(|part| name(&part.replace(['/', '.', '-'], "_")))
        {
            tests.push(function);
        }
    }
    (files, tests)
}

#[test]
fn documents_mention_only_what_exists() {
    let functions = functions();
    let mut wrong = Vec::new();
    let documents =
        tracked().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    // The reference of workstreams shows paths of other people's projects; the change log those of other times.
    let others = ["CHANGELOG.md", "docs/workstream.md"].map(Path::new);
    for path in documents.filter(|path| !others.contains(&path.as_path())) {
        let text = read(&path);
        let (files, tests) = claims(&text);
        let missing =
            files.into_iter().filter(|file| !workspace_root().join(file.trim_end_matches("/*")).exists());
        wrong.extend(missing.map(|file| format!("{}: no file {file}", path.display())));
        // Only the ledger's page promises tests; others may show any path of an API.
        if path.ends_with("docs/features.md") {
            let missing = tests.into_iter().filter(|test| !functions.contains(*test));
            wrong.extend(missing.map(|test| format!("{}: no test {test}", path.display())));
        }
    }
    none("promises of the documents", wrong);
}

#[test]
fn claims_are_found_in_a_document() {
    let text = "see `tests/tests/run.rs`, `attack_files::as_root::links`, `crates/toka-core/src/exit.rs::tests::x`, `a b/c`, \
                `toka run`, `Type::new`";
    let (files, tests) = claims(text);
    assert_eq!(files, ["tests/tests/run.rs", "crates/toka-core/src/exit.rs"]);
    assert_eq!(tests, ["links", "x"]);
}

#[test]
fn the_ci_script_is_well_formed_and_can_be_run() {
    use std::os::unix::fs::PermissionsExt;

    let script = workspace_root().join(".ci/run");
    let mode = fs::metadata(&script).expect("the script").permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "it is executable");
    let parsed = Command::new("bash").arg("-n").arg(&script).output().expect("bash is there");
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}
