//! The table, and the document around it.

mod figures;

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::options::Options;
use crate::results::{Results, Summary};
use crate::servers::Kind;
use figures::{FIGURES, Figure};

/// Prints the table, and writes the document if one was asked for.
pub(crate) fn publish(results: &Results, options: &Options) -> Result<()> {
    crate::say(&table(results)?)?;
    for note in &results.notes {
        crate::say(&format!("note: {note}"))?;
    }
    if let Some(path) = &options.document {
        let text = document(results)?;
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn measured(results: &Results) -> Vec<Kind> {
    let known = |kind: &Kind| results.servers.contains_key(kind.name());
    Kind::ALL.into_iter().filter(known).collect()
}

/// Markdown that can be read as it is.
fn table(results: &Results) -> Result<String> {
    let kinds = measured(results);
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(kinds.iter().map(|kind| kind.name().to_owned()));
    for figure in &FIGURES {
        let summaries: Vec<_> = kinds
            .iter()
            .map(|kind| results.rounds(*kind, figure.name))
            .collect();
        if summaries.iter().any(Option::is_some) {
            let mut row = vec![format!("{}, {}", figure.title, figure.unit)];
            let reference = results.rounds(Kind::WireguardGo, figure.name);
            row.extend(summaries.iter().zip(&kinds).map(|(summary, kind)| {
                let reference = reference.filter(|_| *kind != Kind::WireguardGo && figure.ratio);
                cell(figure, *summary, reference)
            }));
            rows.push(row);
        }
    }
    let columns = rows[0].len();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "| {cell:width$} ")?;
        }
        text += "|\n";
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let line = "-".repeat(width + 1);
                write!(text, "|{line}{}", if column == 0 { "-" } else { ":" })?;
            }
            text += "|\n";
        }
    }
    Ok(text)
}

/// `median [min-max] (ratio to wireguard-go)`.
fn cell(figure: &Figure, summary: Option<Summary>, reference: Option<Summary>) -> String {
    let Some(summary) = summary else {
        return "–".to_owned();
    };
    let number = |value: f64| match value.abs() {
        0.0..0.0005 => "0".to_owned(),
        0.0..9.995 => format!("{value:.2}"),
        0.0..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let mut text = number(summary.median);
    if summary.rounds > 1 && summary.min < summary.max {
        text += &format!(" [{}-{}]", number(summary.min), number(summary.max));
    }
    if let Some(reference) = reference.filter(|reference| reference.median > 0.0) {
        let ratio = summary.median / reference.median;
        text += &format!(" ({}x)", number(ratio));
    }
    debug_assert!(!figure.name.is_empty());
    text
}

fn document(results: &Results) -> Result<String> {
    let mut text = figures::INTRODUCTION.to_owned();
    text += "\n## Measured on\n\n| | |\n|---|---|\n";
    for (name, value) in &results.setting {
        writeln!(text, "| {name} | {} |", value.replace('|', "/"))?;
    }
    text += "\n## Figures\n\nMedian [least-most of the rounds] (ratio to wireguard-go).\n\n";
    text += &table(results)?;
    text += "\n## What the rows mean\n\n";
    for figure in FIGURES.iter().filter(|figure| !figure.meaning.is_empty()) {
        writeln!(text, "* **{}**: {}", figure.title, figure.meaning)?;
    }
    text += "\n## Goals\n\n";
    text += &figures::goals(results)?;
    if !results.notes.is_empty() {
        text += "\n## Notes of this run\n\n";
        for note in &results.notes {
            writeln!(text, "* {}", note.replace('\n', " "))?;
        }
    }
    Ok(text)
}
