//! Reading the figures of this host. Disks are not among them: to list all that are mounted waits for a network file system that does
//! not answer, and the one that counts is asked by its directory ([`crate::disk_space`]).

use sysinfo::{MemoryRefreshKind, System};
use toka_api::host::HostFigures;

/// Looks at the host: a few files in /proc. `None` when the kernel does not tell.
pub fn look() -> Option<HostFigures> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::everything());
    let load = System::load_average().ok()?;
    let figures = HostFigures {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        load: [load.one, load.five, load.fifteen],
        memory_total: system.total_memory(),
        memory_available: system.available_memory(),
        swap_total: system.total_swap(),
        swap_free: system.free_swap(),
    };
    Some(figures).filter(|figures| figures.memory_total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_the_kernel_says() {
        let figures = look().expect("the kernel tells");
        let text = std::fs::read_to_string("/proc/meminfo").expect("a Linux host");
        let total = text.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        assert_eq!(Some(figures.memory_total), total.map(|kib| kib * 1024));
        assert!(
            figures.memory_available > 0 && figures.memory_available <= figures.memory_total,
            "{figures:?}"
        );
        assert!(figures.swap_free <= figures.swap_total && figures.cpus > 0, "{figures:?}");
        assert!(figures.load.iter().all(|load| load.is_finite() && *load >= 0.0), "{figures:?}");
    }
}
