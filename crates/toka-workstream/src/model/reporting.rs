//! How often and where an agent reports, and what it measures.

use serde::Serialize;

/// `reporting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reporting {
    /// How often.
    pub frequency: Frequency,
    /// Where to, free text.
    pub channels: Vec<String>,
    /// What is measured, in the order of the file.
    pub metrics: Vec<Metric>,
}

/// How often an agent reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frequency {
    /// At every change.
    RealTime,
    /// Once an hour.
    Hourly,
    /// Once a day.
    Daily,
    /// Once a week.
    Weekly,
    /// When an objective is met.
    OnMilestone,
    /// When the agent has ended.
    #[default]
    OnCompletion,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What it says.
    pub description: Option<String>,
    /// `counter`, `gauge`, …: free text.
    pub kind: Option<String>,
    /// Its unit, free text.
    pub unit: Option<String>,
}
