//! Input that must be refused: with its code, without a panic, and before it costs anything. The clock is
//! only a coarse net here; what bounds the cost are the limits, and that they are what stopped the reading is
//! what is asserted.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use toka_workstream::{Code, LoadOptions, Loaded, Style, load};

/// Generous for a debug build on a busy machine; in a release build all of them take less than 50 ms.
const LONG: Duration = Duration::from_secs(5);

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }
}

fn refused(path: &Path) -> Loaded {
    let start = Instant::now();
    let loaded = load(&[path.to_owned()], &LoadOptions::default());
    let text = loaded.sources.render(&loaded.diagnostics, Style::Plain);
    let json = loaded.sources.to_json(&loaded.diagnostics).to_string();
    assert!(start.elapsed() < LONG, "took {:?}", start.elapsed());
    assert!(loaded.set.is_none(), "it was taken");
    assert!(
        text.len() < 1 << 20 && json.len() < 1 << 20,
        "{} and {} bytes of diagnostics",
        text.len(),
        json.len()
    );
    loaded
}

fn check(bytes: impl AsRef<[u8]>, expected: Code) -> Loaded {
    let case = Case::new();
    let loaded = refused(&case.write("bad.yaml", bytes));
    let first = loaded.diagnostics.first().map(|found| found.code);
    assert_eq!(first, Some(expected), "{}", loaded.sources.render(&loaded.diagnostics, Style::Plain));
    loaded
}

const HEAD: &str = "metadata: {name: a}\nspec: {process: {command: [x]}}\n";

#[test]
fn nothing_in_it() {
    for text in ["", "\n\n", "# a comment\n", "---\n", "---\n---\n", "\u{feff}", "null\n"] {
        check(text, Code::NoWorkstream);
    }
    let case = Case::new();
    assert_eq!(refused(case.folder.path()).diagnostics[0].code, Code::NoWorkstream);
    let loaded = load(&[], &LoadOptions::default());
    assert_eq!(loaded.diagnostics[0].code, Code::NoWorkstream);
}

#[test]
fn not_utf8_names_the_byte() {
    let loaded = check(b"metadata: {name: a}\n# caf\xe9\n", Code::NotUtf8);
    assert!(loaded.diagnostics[0].message.ends_with("byte 25 is 0xe9"), "{}", loaded.diagnostics[0].message);
    let loaded = check(b"\xff\xfem\0e\0", Code::NotUtf8);
    assert!(loaded.diagnostics[0].help.as_ref().is_some_and(|help| help.contains("UTF-16")));
}

#[test]
fn a_hundred_megabytes_are_not_read() {
    let case = Case::new();
    let path = case.folder.path().join("large.yaml");
    // Sparse: were it read, it would be a hundred megabytes of zeros and another code.
    fs::File::create(&path).and_then(|file| file.set_len(100 << 20)).expect("a sparse file");
    let loaded = refused(&path);
    assert_eq!(loaded.diagnostics[0].code, Code::FileTooLarge);
    assert_eq!(loaded.files, 0);
}

#[test]
fn what_cannot_be_read() {
    let case = Case::new();
    symlink("b.yaml", case.folder.path().join("a.yaml")).expect("a link");
    symlink("a.yaml", case.folder.path().join("b.yaml")).expect("a link");
    for name in ["a.yaml", "absent.yaml"] {
        assert_eq!(refused(&case.folder.path().join(name)).diagnostics[0].code, Code::Unreadable);
    }
    let loaded = refused(case.folder.path());
    assert_eq!(loaded.diagnostics.iter().filter(|found| found.code == Code::Unreadable).count(), 2);
    assert!(loaded.diagnostics[0].message.contains("circle"), "{}", loaded.diagnostics[0].message);
    // A device that never ends, and that no reader may block on.
    assert_eq!(refused(Path::new("/dev/zero")).diagnostics[0].code, Code::Unreadable);
}

#[test]
fn bombs_of_depth() {
    for text in [
        "[".repeat(1 << 19),
        "{a: ".repeat(1 << 17),
        "- ".repeat(1 << 18),
        (0..500).fold(String::new(), |mut text, depth| {
            let _ = writeln!(text, "{}a:", " ".repeat(depth));
            text
        }),
    ] {
        check(text, Code::TooComplex);
    }
}

#[test]
fn bombs_of_aliases() {
    // Nine lists of nine aliases each: a thousand million values when written out.
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let alias = format!("*a{}, ", level - 1).repeat(9);
        let _ = writeln!(text, "a{level}: &a{level} [{}]", alias.trim_end_matches(", "));
    }
    check(&text, Code::TooComplex);
    check(format!("a: &a x\nb: [{}]\n", "*a, ".repeat(2000)), Code::TooComplex);
    check("a: &a [*a]\n", Code::Syntax);
}

#[test]
fn too_many_values_and_too_long_ones() {
    check("[x,".to_owned() + &"x,".repeat(100_000) + "]", Code::TooComplex);
    check(format!("{HEAD}notes: \"{}\"\n", "x".repeat(200_000)), Code::TooComplex);
}

#[test]
fn a_flood_of_problems_is_cut() {
    let mut text = String::from("metadata: {name: a}\nspec:\n");
    for key in 0..8_000 {
        let _ = writeln!(text, "  k{key}: 1");
    }
    let loaded = check(&text, Code::UnknownKey);
    assert_eq!(loaded.diagnostics.len(), 101);
    assert!(
        loaded.diagnostics[100].message.starts_with("7900 more problems"),
        "{:?}",
        loaded.diagnostics[100]
    );
}

#[test]
fn a_flood_of_documents_is_cut_too() {
    let text = (0..1500).map(|_| format!("---\n{HEAD}")).collect::<String>();
    let loaded = check(&text, Code::DuplicateAgent);
    assert!(loaded.diagnostics.len() <= 101, "{}", loaded.diagnostics.len());
    let names = (0..9000).map(|number| format!("d{number}, ")).collect::<String>();
    let case = Case::new();
    let path = case.write("edges.yaml", format!("{HEAD}dependencies: {{required: [{names}]}}\n"));
    let loaded = toka_workstream::check(&[path], &LoadOptions::default());
    assert!(loaded.diagnostics.len() <= 101, "{}", loaded.diagnostics.len());
}

#[test]
fn duplicate_keys_at_any_depth() {
    check(format!("{HEAD}spec: {{}}\n"), Code::DuplicateKey);
    check(format!("{HEAD}mine: {{a: [{{b: 1, b: 2}}]}}\n"), Code::DuplicateKey);
    let loaded = check("metadata: {name: a, name: b}\nspec: {process: {command: [x]}}\n", Code::DuplicateKey);
    assert_eq!(loaded.diagnostics[0].labels.len(), 2);
}

#[test]
fn tabs() {
    check("metadata:\n\tname: a\n", Code::Tab);
    check("metadata:\n  name: a\n \tversion: b\n", Code::Tab);
}

#[test]
fn broken_yaml() {
    for text in ["metadata: [", "a: b: c: d", "'open", "%YAML 9.9\n---\na: 1", "a: ]", "a: *nowhere"] {
        check(text, Code::Syntax);
    }
}

#[test]
fn units_and_limits() {
    let limit = |line: &str| format!("{HEAD}security: {{resource_limits: {{{line}}}}}\n");
    for line in ["max_memory: 5 parsecs", "max_memory: lots", "timeout: soon", "max_cpu: 3 cores"] {
        check(limit(line), Code::BadQuantity);
    }
    for line in [
        "max_memory: -5MB",
        "max_memory: 99999999999999999999TB",
        "max_memory: 1",
        "max_cpu: -1",
        "max_cpu: 99999999999",
        "timeout: 0",
        "timeout: 1000000w",
        "max_processes: -1",
        "max_processes: 99999999999999999999",
        "max_open_files: 0",
        "max_processes: .inf",
    ] {
        check(limit(line), Code::OutOfRange);
    }
    for line in [
        "max_processes: many",
        "max_processes: 1.5",
        "max_processes: .nan",
        "max_memory: [1]",
        "timeout: true",
    ] {
        check(limit(line), Code::WrongType);
    }
}

#[test]
fn texts_that_cannot_be_what_they_should_be() {
    for line in [
        "security: {filesystem: {read: ['a***b[']}}",
        "security: {filesystem: {write: ['']}}",
        "security: {network: {allow: ['example.org:99999']}}",
        "security: {network: {allow: ['-bad-.org:1']}}",
    ] {
        check(format!("{HEAD}{line}\n"), Code::BadValue);
    }
    for process in
        ["command: []", "command: ['']", "command: [x, \"a\\0b\"]", "shell: ' '", "command: [x], user: 'a b'"]
    {
        check(format!("metadata: {{name: a}}\nspec: {{process: {{{process}}}}}\n"), Code::BadValue);
    }
}

/// Where a path leads is for the policy to decide: the text arrives as it stands, with its place.
#[test]
fn paths_outside_of_the_workspace_are_kept() {
    let case = Case::new();
    let text = format!("{HEAD}security:\n  filesystem:\n    read: [/etc/hosts, ../other]\n");
    let loaded = load(&[case.write("good.yaml", text)], &LoadOptions::default());
    let set = loaded.set.expect("valid");
    let read: Vec<_> = set.agents[0].confinement.read.iter().map(|path| path.value.as_str()).collect();
    assert_eq!(read, ["/etc/hosts", "../other"]);
    let second = set.agents[0].confinement.read[1].origin.clone();
    assert!(matches!(second, toka_core::Origin::File { line: 5, column: 24, .. }), "{second:?}");
}

#[test]
fn names_that_meet() {
    let case = Case::new();
    case.write("one.yaml", HEAD);
    case.write("two.yaml", HEAD);
    let loaded = refused(case.folder.path());
    let found = &loaded.diagnostics[0];
    assert_eq!(found.code, Code::DuplicateAgent);
    let files: Vec<_> = found.labels.iter().map(|label| loaded.sources.path(label.file)).collect();
    assert!(files[0].ends_with("two.yaml") && files[1].ends_with("one.yaml"), "{files:?}");
    check(format!("{HEAD}dependencies: {{required: [a]}}\n"), Code::SelfDependency);
    check(format!("{HEAD}dependencies: {{optional: {{a: why}}}}\n"), Code::SelfDependency);
}

#[test]
fn every_file_and_every_document_is_looked_at() {
    let case = Case::new();
    case.write("a.yaml", "metadata: {name: A}\n---\nmetadata: {name: b}\nspec: {proces: 1}\n");
    case.write("b.yaml", "metadata: [\n");
    case.write("c.yml", b"\xff");
    let mut codes: Vec<Code> =
        refused(case.folder.path()).diagnostics.iter().map(|found| found.code).collect();
    codes.dedup();
    assert_eq!(codes, [Code::BadName, Code::UnknownKey, Code::Syntax, Code::NotUtf8]);
}

/// What one document may not have, a thousand may have together.
#[test]
fn a_thousand_documents_are_one_file() {
    let document = |at: usize| {
        format!(
            "---\nmetadata: {{name: agent-{at}, version: v1}}\nspec: {{description: some work, process: {{command: [work, \
             '{at}', --fast]}}, restart: {{policy: on-failure, max_restarts: 3}}}}\nsecurity: {{resource_limits: \
             {{max_memory: 64MB, timeout: 1m}}}}\n"
        )
    };
    let text: String = (0..1000).map(document).collect();
    let loaded = toka_workstream::load_texts([(Path::new("a.yaml"), text.as_str())], &LoadOptions::default());
    assert_eq!(loaded.agents, 1000, "{:?}", loaded.diagnostics.first());
}

#[test]
fn a_place_that_reports_cannot_go_to() {
    let of = |channel: &str| {
        check(format!("{HEAD}reporting: {{channels: [file, '{channel}']}}\n"), Code::BadValue)
    };
    let shown = |loaded: &Loaded| loaded.sources.render(&loaded.diagnostics, Style::Plain);
    let text = shown(&of("file: A B"));
    assert!(text.contains("channels: [file, 'file: A B']"), "its line is drawn: {text}");
    let text = shown(&of("https://me:hunter2@host/"));
    assert!(text.contains("bad.yaml:3:30") && !text.contains("hunter2"), "its place is named alone: {text}");
}

#[test]
fn a_task_list_has_no_exit_codes_of_its_own() {
    let tasks = "metadata: {name: a}\nspec: {success_exit_codes: [42]}\ntasks: {default: [{description: d, run: 'true'}]}\n";
    check(tasks, Code::Conflict);
}

#[test]
fn a_section_in_the_wrong_place_is_led_to_its_own() {
    for (key, help) in [
        ("security: {network: none}", "write it at the top level, beside `spec`"),
        ("dependencies: [b]", "write it at the top level, beside `spec`"),
        ("permissions: [git-access]", "that stands in `security.capabilities_required`"),
    ] {
        let text = format!("metadata: {{name: a}}\nspec:\n  process: {{command: [x]}}\n  {key}\n");
        let loaded = check(&text, Code::UnknownKey);
        let shown = loaded.sources.render(&loaded.diagnostics, Style::Plain);
        assert!(shown.contains(help), "{shown}");
    }
}
