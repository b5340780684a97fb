//! What the person at the terminal reads: one line a step, and the diagnosis.

use std::io::{self, Write};
use std::time::Duration;

use super::diagnosis::Failure;

/// Writes each step as it ends.
pub(super) struct Report<'a> {
    output: &'a mut dyn Write,
}

impl std::fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Report")
    }
}

impl<'a> Report<'a> {
    /// Writes to `output`.
    pub(super) fn new(output: &'a mut dyn Write) -> Self {
        Self { output }
    }

    /// A step that passed.
    pub(super) fn passed(&mut self, step: &str, took: Duration, detail: &str) -> io::Result<()> {
        self.line(step, "ok", took, detail)
    }

    /// A step without a result, which by itself is no failure.
    pub(super) fn inconclusive(
        &mut self,
        step: &str,
        took: Duration,
        detail: &str,
    ) -> io::Result<()> {
        self.line(step, "-", took, detail)
    }

    /// The step that failed.
    pub(super) fn failed(
        &mut self,
        step: &str,
        took: Duration,
        failure: &Failure,
    ) -> io::Result<()> {
        self.line(step, "FAILED", took, &failure.to_string())
    }

    /// Something to know that is no step.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")?;
        self.output.flush()
    }

    fn line(&mut self, step: &str, verdict: &str, took: Duration, detail: &str) -> io::Result<()> {
        let milliseconds = took.as_secs_f64() * 1000.0;
        writeln!(
            self.output,
            "{step:<10} {verdict:<6} {milliseconds:>8.1} ms  {detail}"
        )?;
        self.output.flush()
    }
}
