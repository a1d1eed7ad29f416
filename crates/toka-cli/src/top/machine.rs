//! How busy the machine is as a whole: its load, its memory and its pressure, as far as the kernel tells.

use std::fs;

use toka_api::host::HostFigures;
use toka_prepare::host_figures;

/// The machine at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Machine {
    /// Load and memory; none before the first look.
    pub(crate) host: Option<HostFigures>,
    /// Share of the last ten seconds in which something waited for a CPU, for memory, for I/O, in percent
    /// (<https://docs.kernel.org/accounting/psi.html>).
    pub(crate) pressure: [Option<f64>; 3],
}

/// What the figures of [`Machine::pressure`] are about.
pub(crate) const WAITED_FOR: [&str; 3] = ["cpu", "memory", "io"];

impl Machine {
    /// Looks at it.
    pub(crate) fn look() -> Self {
        let read = |path: String| fs::read_to_string(path).ok();
        Self {
            host: host_figures::look(),
            pressure: WAITED_FOR
                .map(|what| read(format!("/proc/pressure/{what}")).and_then(|text| some(&text))),
        }
    }
}

/// `some avg10` of a file below `/proc/pressure`.
fn some(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        let text =
            "some avg10=1.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0 avg300=0 total=1\n";
        assert_eq!(some(text), Some(1.25));
        assert_eq!(some("full avg10=9.00"), None);
    }
}
