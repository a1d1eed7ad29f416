//! What the benchmarks share: samples and their medians, one tidy table, and the machine that it holds for. A figure
//! without its machine, its spread and something measured beside it says nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Figures of one thing, measured several times; all in the same unit.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a figure.
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Adds a time, in milliseconds.
    pub fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1e3);
    }

    /// Runs `work` and adds how many milliseconds it took.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.add_time(begun.elapsed());
        result
    }

    /// The figure below which `share` (0 to 1) of the figures lie; not a number without any.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// What a benchmark prints: a line for each thing measured, and below it the machine.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<[String; 6]>,
}

impl Table {
    /// An empty table with this title, which says what was measured and how often.
    pub fn new(title: impl Into<String>) -> Self {
        let head = ["", "median", "least", "90 %", "ratio", "target"].map(str::to_owned);
        Self { title: title.into(), rows: vec![head] }
    }

    /// Adds a line about `samples`, in `unit`; the ratio is that of its median to the median of `beside`.
    pub fn row(&mut self, name: &str, samples: &Samples, unit: &str, beside: Option<&Samples>, target: &str) {
        let figure = |value: f64| format!("{} {unit}", digits(value)).trim_end().to_owned();
        let ratio = beside.map(|beside| format!("{:.2}×", samples.median() / beside.median()));
        self.rows.push([
            name.to_owned(),
            figure(samples.median()),
            figure(samples.quantile(0.0)),
            figure(samples.quantile(0.9)),
            ratio.unwrap_or_default(),
            target.to_owned(),
        ]);
    }

    /// Prints it.
    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
        println!("\n{}\n", self.title);
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 | 5 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        println!("\n  {}", machine());
    }
}

/// Three digits that matter, or all those before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Processors, kernel and load of this machine, in one line.
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let release = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    format!("{cpus} CPUs ({model}), Linux {}, load {load}", release.trim())
}

/// A folder for what a benchmark makes: where `TMPDIR` says, else in memory where that can be had. Toka makes some ten folders
/// for an agent, and a disk's file system would be measured with it: ext4 without a journal, as virtual machines have it,
/// searches past every inode that was freed in the last minutes, and a benchmark frees thousands.
///
/// # Panics
/// When no folder can be made.
pub fn scratch() -> TempDir {
    static MEMORY: LazyLock<Option<PathBuf>> = LazyLock::new(|| memory_of_our_own().ok());
    let made = match (std::env::var_os("TMPDIR"), &*MEMORY) {
        (None, Some(memory)) => tempfile::tempdir_in(memory),
        _ => tempfile::tempdir(),
    };
    made.expect("a temporary folder")
}

/// A file system in memory that only this program and what it starts see, and that goes with them: in
/// place of `/srv`. Not below `/tmp` or
/// `/dev/shm`, where an agent sees a folder of its own, into which Toka then makes the way to its other folders. Needs root,
/// and to be asked before there is a second thread.
fn memory_of_our_own() -> std::io::Result<PathBuf> {
    let place = PathBuf::from("/srv");
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok(place)
}

/// How many rounds: the first number among the program's arguments, or `usual`.
pub fn rounds(usual: usize) -> usize {
    std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(usual)
}

/// Compiles a C file with `cc`, optimised.
///
/// # Panics
/// When there is no C compiler, or it refuses.
pub fn compile_c(source: &Path, options: &[&str], program: &Path) {
    let status = Command::new("cc").arg("-O2").args(options).arg(source).arg("-o").arg(program).status();
    let status = status.expect("a C compiler, called cc");
    assert!(status.success(), "cc {}: {status}", source.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_median_whatever_the_order() {
        let mut samples = Samples::default();
        for figure in [9.0, 1.0, 5.0, 3.0, 7.0] {
            samples.add(figure);
        }
        assert_eq!([samples.quantile(0.0), samples.median(), samples.quantile(1.0)], [1.0, 5.0, 9.0]);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn figures_have_the_digits_that_matter() {
        assert_eq!([0.0, 0.567, 12.34, 1234.5].map(digits), ["0", "0.57", "12.3", "1234"]);
    }
}
