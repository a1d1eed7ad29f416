//! `toka gc`: removes what runs that ended left, and says what it kept and why.

use std::path::{Path, PathBuf};

use serde::Serialize;
use toka_core::{ByteSize, ExitCode};
use toka_daemon::gc::{Collected, GcOptions, Homes, Item, Kept, Mode, collect};

use super::folders::Folders;
use toka_terminal::failure::Failure;
use toka_terminal::palette::{Paint, Palette};
use toka_terminal::text::{columns, count, safe};
use toka_terminal::{json, out};

/// Options of `toka gc`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Of a project that runs, nothing is touched, and no process is ended, whatever it is. What cannot be removed \
    is told, and makes the status 73."
)]
pub(crate) struct Args {
    /// Tidy up this folder [env: TOKA_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Remove HOME, temporary files and artifacts of agents that are declared no more, too
    #[arg(long)]
    agents: bool,
    /// Show what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Tidies up.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folders = Folders::find(args.state_dir.as_deref())?;
    let state = folders.state.clone();
    let options = GcOptions {
        state_dir: folders.state,
        run_dir: folders.run,
        door_bases: door_bases(),
        homes: if args.agents { Homes::Remove } else { Homes::Keep },
        mode: if args.dry_run { Mode::Show } else { Mode::Remove },
    };
    let collected = collect(&options).map_err(|error| {
        Failure::new(ExitCode::StateFolder, format!("cannot tidy up {}: {error}", state.display()))
    })?;
    let code = if collected.failed.is_empty() { ExitCode::Success } else { ExitCode::StateFolder };
    let text = match args.json {
        true => {
            json::line(&Told { dry_run: args.dry_run, bytes: collected.bytes(), collected: &collected })
                + "\n"
        }
        false => text(&collected, options.mode, &state, Palette::for_stream(&std::io::stdout())),
    };
    Ok(out::end(&text, code)?)
}

/// Where doors are made whose usual paths would be too long.
fn door_bases() -> Vec<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return vec!["/run".into()];
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    own.into_iter().chain(["/tmp".into()]).collect()
}

#[derive(Serialize)]
struct Told<'c> {
    dry_run: bool,
    bytes: u64,
    #[serde(flatten)]
    collected: &'c Collected,
}

fn text(collected: &Collected, mode: Mode, state: &Path, palette: Palette) -> String {
    let is_there = state.exists();
    let (head, verb) = match mode {
        Mode::Show => ("WOULD REMOVE", "would be removed"),
        Mode::Remove => ("REMOVED", "removed"),
    };
    let mut text = String::new();
    if !collected.items.is_empty() {
        let mut rows = vec![[head.to_owned(), "SIZE".to_owned(), "WHERE".to_owned()]];
        rows.extend(collected.items.iter().map(row));
        let widths = [0, 1].map(|at| rows.iter().map(|row| columns(&row[at])).max().unwrap_or(0));
        for (number, [what, size, place]) in rows.iter().enumerate() {
            let line = format!("{}  {}  {place}", padded(what, widths[0]), padded(size, widths[1]));
            text += &if number == 0 { palette.strong.paint(line).to_string() } else { line };
            text.push('\n');
        }
        text.push('\n');
    }
    text += &notes("kept", &collected.kept, palette.faint);
    text += &notes("not removed", &collected.failed, palette.bad);
    let sum = match collected.items.len() {
        0 if !is_there => {
            format!("nothing to remove: there is no state folder {}", safe(&state.to_string_lossy()))
        }
        0 => "nothing to remove".to_owned(),
        several => format!("{several} {verb}, {}", ByteSize(collected.bytes())),
    };
    let kept = match collected.kept.len() {
        0 => String::new(),
        kept => format!("; {} kept", count(kept, "thing")),
    };
    format!("{text}{sum}{kept}\n")
}

fn row(item: &Item) -> [String; 3] {
    let size = item.bytes.map_or_else(|| "–".to_owned(), |bytes| ByteSize(bytes).to_string());
    [item.kind.as_str().to_owned(), size, safe(&item.path.to_string_lossy())]
}

fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

fn notes(title: &str, notes: &[Kept], paint: Paint) -> String {
    let line = |note: &Kept| {
        let path = safe(&note.path.to_string_lossy());
        format!("{} {} {path}: {}\n", paint.paint(title), note.kind.as_str(), safe(&note.why))
    };
    notes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use toka_daemon::gc::Kind;

    use super::*;

    #[test]
    fn what_goes_is_a_table_and_what_stays_has_a_reason() {
        let item = |kind, bytes, path: &str| Item { kind, project: None, path: path.into(), bytes };
        let kept = |path: &str, why: &str| Kept { kind: Kind::Project, path: path.into(), why: why.into() };
        let collected = Collected {
            items: vec![
                item(Kind::ControlGroup, Some(0), "/sys/fs/cgroup/toka-1"),
                item(Kind::RunFolder, Some(20_480), "/run/toka/shop\n\u{1b}[2J"),
                item(Kind::OldEvents, None, "/var/lib/toka/projects/shop/journal.db"),
            ],
            kept: vec![kept("/var/lib/toka/projects/live", "it runs")],
            failed: vec![kept("/x", "Permission denied (os error 13)")],
        };
        insta::assert_snapshot!(text(&collected, Mode::Show, Path::new("/"), Palette::PLAIN));
        let none = |state: &str| text(&Collected::default(), Mode::Remove, Path::new(state), Palette::PLAIN);
        assert_eq!(none("/"), "nothing to remove\n");
        assert_eq!(none("/no/such"), "nothing to remove: there is no state folder /no/such\n");
    }
}
