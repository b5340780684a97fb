//! The figures, as they are kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::servers::Kind;

/// Everything that a document needs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What was measured on and with, in the order in which it is said.
    pub(crate) setting: Vec<(String, String)>,
    /// Of each server, by name, the rounds' figures by theirs.
    pub(crate) servers: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// What a reader has to know of some figures.
    pub(crate) notes: Vec<String>,
}

/// The figures of one server in one round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    figures: Vec<(String, f64)>,
    notes: Vec<String>,
}

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    /// The figures so far.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.figures
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
    }
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("no results in {}", path.display()))?;
        serde_json::from_slice(&text).context("the results cannot be read")
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Adds a server's figures of one round.
    pub(crate) fn add(&mut self, kind: Kind, round: u32, figures: Figures) {
        let server = self.servers.entry(kind.name().to_owned()).or_default();
        for (name, value) in figures.figures {
            server.entry(name).or_default().push(value);
        }
        for note in figures.notes {
            self.notes
                .push(format!("{}, round {round}: {note}", kind.name()));
        }
    }

    /// How many times another figure one is: the median of the rounds' ratios, or where the rounds
    /// are not the same the ratio of the medians. None of what is 0.
    pub(crate) fn ratio(&self, one: (Kind, &str), other: (Kind, &str)) -> Option<f64> {
        let rounds = |(kind, figure): (Kind, &str)| self.servers.get(kind.name())?.get(figure);
        let (one, other) = (rounds(one)?, rounds(other)?);
        if one.len() == other.len() && !other.contains(&0.0) {
            let pairs = one.iter().zip(other);
            let ratios: Vec<f64> = pairs.map(|(one, other)| one / other).collect();
            return Summary::of(&ratios).map(|ratios| ratios.median);
        }
        let (one, other) = (Summary::of(one)?.median, Summary::of(other)?.median);
        (other > 0.0).then(|| one / other)
    }

    /// The rounds' figures of a server.
    pub(crate) fn rounds(&self, kind: Kind, figure: &str) -> Option<Summary> {
        Summary::of(self.servers.get(kind.name())?.get(figure)?)
    }
}

/// The rounds of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

impl Summary {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0
        } else {
            *sorted.get(middle)?
        };
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
            rounds: sorted.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios_where_there_are_the_same() {
        let (raw, go) = ((Kind::PopupRaw, "rate"), (Kind::WireguardGo, "rate"));
        let results = |of_raw: &[f64], of_go: &[f64]| {
            let mut results = Results::default();
            for ((kind, figure), values) in [(raw, of_raw), (go, of_go)] {
                for value in values {
                    let mut figures = Figures::default();
                    figures.add(figure, *value);
                    results.add(kind, 1, figures);
                }
            }
            results
        };
        // A machine that is twice as slow in the second round, and the ratio of 3, 2 and 4.
        let drifting = results(&[3.0, 1.0, 8.0], &[1.0, 0.5, 2.0]);
        assert_eq!(drifting.ratio(raw, go), Some(3.0));
        let added_later = results(&[3.0, 9.0, 6.0], &[1.0, 3.0]);
        assert_eq!(added_later.ratio(raw, go), Some(3.0));
        assert_eq!(results(&[1.0], &[0.0]).ratio(raw, go), None);
        assert_eq!(results(&[1.0], &[]).ratio(raw, go), None);
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        let median = |values: &[f64]| Summary::of(values).map(|summary| summary.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
