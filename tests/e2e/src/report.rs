//! Figures of many trials, as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;
use crate::trial::Trial;

/// What many trials of one fault amount to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// How often it was tried.
    pub runs: usize,
    /// Rows acknowledged in all runs.
    pub acknowledged: usize,
    /// Promises broken in all runs.
    pub violations: usize,
    /// Outage: half of the runs were shorter (ms).
    pub p50: f64,
    /// 99 of 100 were shorter (ms). With fewer than 100 runs this is the longest.
    pub p99: f64,
    /// The longest (ms).
    pub max: f64,
}

/// The figures of an earlier run, to add to; none if there is no such file. One that cannot be read is an error: it would be
/// written over.
pub fn earlier<T: Default + DeserializeOwned>(file: &Path) -> Result<T> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not from this program; name another one", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
    }
}

/// The value below which `share` of all are, by the nearest rank.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// One line for each fault.
pub fn lines(trials: &[Trial]) -> BTreeMap<Fault, Line> {
    let mut by_fault: BTreeMap<Fault, Vec<&Trial>> = BTreeMap::new();
    for trial in trials {
        by_fault.entry(trial.fault).or_default().push(trial);
    }
    by_fault
        .into_iter()
        .map(|(fault, trials)| {
            let mut outages: Vec<f64> = trials.iter().map(|t| t.outage_ms).collect();
            outages.sort_by(f64::total_cmp);
            let line = Line {
                runs: trials.len(),
                acknowledged: trials.iter().map(|t| t.acknowledged).sum(),
                violations: trials.iter().map(|t| t.violations.len()).sum(),
                p50: percentile(&outages, 0.5),
                p99: percentile(&outages, 0.99),
                max: outages.last().copied().unwrap_or(0.0),
            };
            (fault, line)
        })
        .collect()
}

/// A Markdown table.
pub fn table(lines: &BTreeMap<Fault, Line>) -> String {
    let mut text = "| fault | runs | rows acknowledged | promises broken | outage p50 | p99 | longest |\n|---|--:|--:|--:|--:|--:|--:|\n".to_owned();
    for (fault, l) in lines {
        let seconds = |ms: f64| {
            if ms == 0.0 {
                "< 0.2 s".to_owned()
            } else {
                format!("{:.2} s", ms / 1000.0)
            }
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            fault.name(),
            l.runs,
            l.acknowledged,
            l.violations,
            seconds(l.p50),
            seconds(l.p99),
            seconds(l.max)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(percentile(&ten, 0.5), 5.0);
        assert_eq!(percentile(&ten, 0.99), 10.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn earlier_figures_are_added_to_and_never_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("figures.json");
        assert!(earlier::<Vec<u64>>(&file).unwrap().is_empty());
        std::fs::write(&file, "[1, 2]").unwrap();
        assert_eq!(earlier::<Vec<u64>>(&file).unwrap(), [1, 2]);
        std::fs::write(&file, "{}").unwrap();
        assert!(earlier::<Vec<u64>>(&file).unwrap_err().to_string().contains("not from"));
        let folder = earlier::<Vec<u64>>(dir.path()).unwrap_err();
        assert!(folder.to_string().contains("cannot be read"));
    }
}
