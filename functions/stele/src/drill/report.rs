//! What a drill says: a line for each step while it runs, and the sums at its end.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::output;

/// One step of a drill.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// When it was done, seconds since the start.
    pub secs: f64,
    /// What was done.
    pub step: &'static str,
    /// What came of it.
    pub result: String,
}

/// The steps, as they are done.
pub struct Timeline {
    began: Instant,
    is_quiet: bool,
    bar: ProgressBar,
    entries: Vec<Entry>,
}

impl Timeline {
    /// `is_quiet`: nothing is printed until the end.
    pub fn new(steps: u64, is_quiet: bool) -> Self {
        let bar = match is_quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(steps),
        };
        let style = "{wide_bar} {pos}/{len} {elapsed} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            began: Instant::now(),
            is_quiet,
            bar,
            entries: Vec::new(),
        }
    }

    /// Seconds since the start.
    pub fn secs(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Notes a step that is done.
    pub fn done(&mut self, step: &'static str, result: String) -> anyhow::Result<()> {
        let secs = self.secs();
        self.bar.inc(1);
        if !self.is_quiet {
            let text = format!("{secs:6.1} s  {step}: {}", output::escape(&result));
            match self.bar.is_hidden() {
                true => output::line(&text)?,
                false => self.bar.println(text),
            }
        }
        self.entries.push(Entry { secs, step, result });
        Ok(())
    }

    /// The steps that were done.
    pub fn finish(self) -> Vec<Entry> {
        self.bar.finish_and_clear();
        self.entries
    }
}
