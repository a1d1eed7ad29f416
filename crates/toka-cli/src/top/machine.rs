//! How busy the machine is as a whole: its load and its pressure, as far as the kernel tells.

use std::fs;

/// The machine at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Machine {
    /// Processes that ran or wanted to, averaged over 1, 5 and 15 minutes (proc_loadavg(5)).
    pub(crate) load: Option<[f64; 3]>,
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
            load: read("/proc/loadavg".to_owned()).and_then(|text| load(&text)),
            pressure: WAITED_FOR
                .map(|what| read(format!("/proc/pressure/{what}")).and_then(|text| some(&text))),
        }
    }
}

fn load(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_whitespace().map_while(|word| word.parse().ok());
    Some([words.next()?, words.next()?, words.next()?])
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
        assert_eq!(load("0.52 0.30 1.20 1/345 6789\n"), Some([0.52, 0.30, 1.20]));
        assert_eq!(load("nonsense"), None);
        let text =
            "some avg10=1.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0 avg300=0 total=1\n";
        assert_eq!(some(text), Some(1.25));
        assert_eq!(some("full avg10=9.00"), None);
    }
}
