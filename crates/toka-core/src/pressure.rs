//! Whether the host has room for one agent more: a start waits while too much of what is there already waits for memory or
//! storage. Restarts of a whole set under pressure would make it worse, and end in the out-of-memory killer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Pressure;

/// Above this share of the last ten seconds spent waiting for memory, in percent, nothing starts. A host whose programs fit
/// shows less than one; systemd-oomd kills at 60, and an agent above [`MEMORY_PRESSURE`](crate::health::MEMORY_PRESSURE)
/// (40) is degraded: what could be avoided by waiting has to be seen well before both.
pub const MEMORY: u32 = 20;
/// The same for storage. Builds and copies wait for it half of the time and work well: only what is above that is trouble,
/// and it is below the [`IO_PRESSURE`](crate::health::IO_PRESSURE) (70) that degrades an agent.
pub const IO: u32 = 60;
/// No pressure is above it.
pub const NEVER: u32 = 100;

/// Up to which pressure agents start, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureLimits {
    /// For memory; [`MEMORY`] when nobody says anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// For storage; [`IO`] when nobody says anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<u32>,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scarce {
    /// Memory.
    Memory,
    /// Storage.
    Io,
}

/// Why a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What there is too little of.
    pub scarce: Scarce,
    /// The share of the last ten seconds in which something waited for it, in percent, rounded up.
    pub percent: u32,
    /// Up to which agents start.
    pub limit: u32,
}

/// Whether an agent starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admittance {
    /// Now.
    Go,
    /// Later.
    Wait(Hold),
}

impl PressureLimits {
    /// Decides by what the kernel tells. What it does not tell holds nothing up; of two reasons to wait, memory is told: it
    /// is what ends in kills.
    pub fn decide(&self, pressure: Pressure) -> Admittance {
        let memory = above(Scarce::Memory, pressure.memory, self.memory.unwrap_or(MEMORY));
        let io = || above(Scarce::Io, pressure.io, self.io.unwrap_or(IO));
        memory.or_else(io).map_or(Admittance::Go, Admittance::Wait)
    }

    /// Whether somebody asked for any of it.
    pub fn is_declared(&self) -> bool {
        self.memory.or(self.io).is_some()
    }
}

fn above(scarce: Scarce, share: Option<f64>, limit: u32) -> Option<Hold> {
    let share = share.filter(|share| *share > f64::from(limit))?;
    // A float that does not fit becomes the nearest number that does.
    Some(Hold { scarce, percent: share.ceil() as u32, limit })
}

/// How many of those that wait may start at a look that finds no pressure: twice as many as at the look before, from one.
/// What all of them together would do to the host shows only some seconds after the first.
pub fn allowed(calm_looks: u32) -> usize {
    1_usize.checked_shl(calm_looks.min(usize::BITS - 1)).unwrap_or(usize::MAX)
}

impl Scarce {
    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Io => "storage",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scarce, percent, limit } = self;
        let scarce = scarce.as_str();
        write!(f, "the host is short of {scarce}: {percent} % of the time waiting, limit {limit} %")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(memory: Option<f64>, io: Option<f64>) -> Pressure {
        Pressure { cpu: Some(100.0), memory, io }
    }

    #[test]
    fn figures_and_limits_decide() {
        let usual = PressureLimits::default();
        let held = |scarce, percent, limit| Admittance::Wait(Hold { scarce, percent, limit });
        for (memory, io, expected) in [
            (None, None, Admittance::Go),
            (Some(0.0), Some(0.0), Admittance::Go),
            (Some(20.0), Some(60.0), Admittance::Go),
            (Some(20.01), Some(0.0), held(Scarce::Memory, 21, 20)),
            (None, Some(61.5), held(Scarce::Io, 62, 60)),
            (Some(50.0), Some(90.0), held(Scarce::Memory, 50, 20)),
        ] {
            assert_eq!(usual.decide(of(memory, io)), expected, "{memory:?} {io:?}");
        }
        let other = PressureLimits { memory: Some(NEVER), io: Some(10) };
        assert_eq!(other.decide(of(Some(100.0), Some(10.0))), Admittance::Go);
        assert_eq!(other.decide(of(Some(100.0), Some(11.0))), held(Scarce::Io, 11, 10));
        let told = Hold { scarce: Scarce::Io, percent: 62, limit: 60 }.to_string();
        assert_eq!(told, "the host is short of storage: 62 % of the time waiting, limit 60 %");
    }

    #[test]
    fn those_that_waited_come_in_growing_groups() {
        assert_eq!([0, 1, 2, 10].map(allowed), [1, 2, 4, 1024]);
        assert!(allowed(u32::MAX) >= allowed(62));
    }

    prop_compose! {
        fn share()(share in prop::option::of(0.0..=100.0)) -> Option<f64> { share }
    }

    prop_compose! {
        fn limits()(memory in prop::option::of(0u32..=100), io in prop::option::of(0u32..=100)) -> PressureLimits {
            PressureLimits { memory, io }
        }
    }

    proptest! {
        #[test]
        fn more_pressure_never_lets_anything_start(
            limits in limits(), memory in share(), io in share(), more in 0.0..100.0_f64
        ) {
            let worse = of(memory.map(|share| (share + more).min(100.0)), io.map(|share| (share + more).min(100.0)));
            if limits.decide(of(memory, io)) != Admittance::Go {
                prop_assert_ne!(limits.decide(worse), Admittance::Go);
            }
        }

        #[test]
        fn a_wait_names_a_figure_above_its_limit(limits in limits(), memory in share(), io in share()) {
            match limits.decide(of(memory, io)) {
                Admittance::Wait(hold) => {
                    let (share, limit) = match hold.scarce {
                        Scarce::Memory => (memory, limits.memory.unwrap_or(MEMORY)),
                        Scarce::Io => (io, limits.io.unwrap_or(IO)),
                    };
                    let share = share.expect("a figure");
                    prop_assert!(share > f64::from(limit) && hold.limit == limit && hold.percent > limit);
                    prop_assert!((f64::from(hold.percent) - share).abs() < 1.0);
                }
                Admittance::Go => {
                    prop_assert!(memory.is_none_or(|share| share <= f64::from(limits.memory.unwrap_or(MEMORY))));
                    prop_assert!(io.is_none_or(|share| share <= f64::from(limits.io.unwrap_or(IO))));
                }
            }
        }

        #[test]
        fn a_limit_of_a_hundred_holds_nothing_up(memory in share(), io in share()) {
            let limits = PressureLimits { memory: Some(NEVER), io: Some(NEVER) };
            prop_assert_eq!(limits.decide(of(memory, io)), Admittance::Go);
        }
    }
}
