//! The page and the object of a fixed report.

use toka_core::Layer;
use toka_doctor::{Check, Section, Verdict, Weight};

use super::*;
use toka_terminal::text::columns;

fn check(id: &str, section: Section, title: &str, verdict: Verdict, words: [&str; 3]) -> Check {
    let [found, means, fix] = words.map(str::to_owned);
    let (id, title) = (id.to_owned(), title.to_owned());
    Check { id, section, layer: None, title, verdict, weight: Weight::Full, found, means, fix }
}

/// A host with one finding of each kind, but no hole.
fn middling() -> Report {
    use Verdict::{Missing, Ok, Unprovable, Weaker};
    let checks = vec![
        check("host.kernel", Section::Host, "kernel", Ok, ["6.8.0-45-generic", "", ""]),
        check(
            "host.landlock",
            Section::Host,
            "Landlock",
            Weaker,
            [
                "ABI 4",
                "Landlock ABI 4 does not deny ioctl on devices (ABI 5 does); Landlock ABI 4 does not deny signals and abstract sockets (ABI 6 does)",
                "install a kernel of 6.12 or newer, which has ABI 6",
            ],
        ),
        check(
            "groups.layout",
            Section::Groups,
            "layout",
            Missing,
            [
                "none that we may write",
                "limits hold for single processes only, CPU is not limited, nothing is accounted",
                "systemd-run --user --scope -p Delegate=yes toka run …; without a session, first: sudo loginctl enable-linger $USER",
            ],
        ),
        check("layer.mounts", Section::Layers, "a view of files of its own", Ok, ["full", "", ""]),
        check("files.read", Section::Files, "read a file outside", Ok, ["refused: ENOENT", "", ""]),
        check(
            "rights.capabilities",
            Section::Rights,
            "hold capabilities",
            Unprovable,
            [
                "refused: EPERM; without walls, too: EPERM",
                "the refusal inside says nothing about the sandbox",
                "",
            ],
        ),
    ];
    Report { host: "Linux 6.8.0-45-generic on x86_64, user 1000".into(), checks }
}

fn with_a_hole() -> Report {
    let mut report = middling();
    let means = "agents can read files that they were not given";
    let words = ["got through: 21 bytes", means, "run nothing here that you do not trust"];
    let hole = check("files.read", Section::Files, "read a file outside", Verdict::Failed, words);
    report.checks[4] = Check { layer: Some(Layer::Mounts), ..hole };
    report
}

fn page(report: &Report, width: usize, palette: Palette) -> String {
    text::page(report, Strictness::Default, width, palette)
}

#[test]
fn at_80_columns() {
    insta::assert_snapshot!(page(&middling(), 80, Palette::PLAIN));
}

#[test]
fn at_120_columns_with_a_hole() {
    insta::assert_snapshot!(page(&with_a_hole(), 120, Palette::PLAIN));
}

#[test]
fn in_colour() {
    insta::assert_snapshot!(page(&with_a_hole(), 120, Palette::COLOUR).replace('\u{1b}', "␛"));
}

#[test]
fn for_programs() {
    let (report, strictness) = (with_a_hole(), Strictness::Default);
    let text = json::object(&report, strictness, status(&report, strictness)).expect("it can be written");
    insta::assert_snapshot!(text);
}

#[test]
fn it_is_never_wider_than_asked_for() {
    for width in 60..140 {
        let text = page(&with_a_hole(), width, Palette::PLAIN);
        assert!(text.lines().all(|line| columns(line) <= width), "{width}\n{text}");
    }
}

#[test]
fn a_hole_fails_always_and_less_than_full_fails_strictly() {
    for (report, strictness, expected) in [
        (middling(), Strictness::Default, ExitCode::Success),
        (middling(), Strictness::Strict, ExitCode::AgentFailed),
        (with_a_hole(), Strictness::Default, ExitCode::AgentFailed),
    ] {
        assert_eq!(status(&report, strictness), expected);
    }
}
