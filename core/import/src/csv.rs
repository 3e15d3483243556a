//! CSV with a header, in parts of whole records.

use std::fs::File;
use std::io::SeekFrom;

use csv::{Position, Reader, StringRecord};
use stele_model::Limits;
use stele_wire::assemble::{Assembler, Loose, pairs};

use crate::columns::{Metric, Plan, metric_name};
use crate::error::Result;
use crate::time::of_text;
use crate::{Mark, Part, Settings, Source};

/// Records of one part.
const PART_RECORDS: u64 = 50_000;
/// Samples after which a part ends early: few, so that wide records do not outgrow a request.
const PART_SAMPLES: usize = 250_000;

pub(crate) struct Csv {
    reader: Reader<File>,
    plan: Plan,
    total: u64,
    at: Mark,
    limits: Limits,
    now_us: i64,
}

impl Csv {
    pub(crate) fn open(file: File, settings: &Settings, from: Mark) -> Result<Self> {
        let total = file.metadata()?.len();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
        let header = reader.headers()?.iter().map(str::to_owned);
        let header: Vec<String> = header.collect();
        let plan = settings.columns.plan(&header, &[])?;
        let mut at = from;
        if from == Mark::default() {
            at.offset = reader.position().byte();
            at.items = 1;
        } else {
            let mut position = Position::new();
            position.set_byte(from.offset);
            reader.seek_raw(SeekFrom::Start(from.offset), position)?;
        }
        Ok(Self {
            reader,
            plan,
            total,
            at,
            limits: settings.limits,
            now_us: settings.now_us,
        })
    }

    /// One record; its samples, or why there is none.
    fn record(&self, record: &StringRecord, out: &mut Assembler<'_>) -> Result<()> {
        let position = self.at.items + 1;
        let cell = |at: usize| record.get(at).unwrap_or_default();
        let time = cell(self.plan.time);
        let Some(ts_us) = of_text(time, self.plan.time_unit) else {
            out.refuse(position, || {
                format!("time {} is not understood", quoted(time))
            });
            return Ok(());
        };
        let metric = match &self.plan.metric {
            Metric::Fixed(name) => name,
            Metric::Column(at) => cell(*at),
        };
        let json = self
            .plan
            .tags_json
            .map(cell)
            .filter(|text| !text.is_empty());
        let json = match json.map(pairs) {
            None => Vec::new(),
            Some(Some(json)) => json,
            Some(None) => {
                out.refuse(position, || {
                    "tags are not a JSON object of texts".to_owned()
                });
                return Ok(());
            }
        };
        let named = self.plan.tags.iter().map(|(at, name)| (&**name, cell(*at)));
        let named = named.filter(|(_, value)| !value.is_empty());
        let json = json.iter().map(|(name, value)| (&**name, &**value));
        let mut tags: Vec<(&str, &str)> = json.chain(named).collect();
        for (at, field) in &self.plan.values {
            let text = cell(*at).trim();
            if text.is_empty() {
                continue;
            }
            let Ok(value) = text.parse::<f64>() else {
                out.refuse(position, || format!("value {} is no number", quoted(text)));
                continue;
            };
            let metric = metric_name(metric, field.as_deref());
            let sample = Loose {
                metric: &metric,
                ts_us,
                value,
                extra: None,
            };
            out.push(position, sample, &mut tags)?;
        }
        Ok(())
    }
}

/// A cell in a message, cut.
fn quoted(text: &str) -> String {
    let head: String = text.chars().take(40).collect();
    format!("{head:?}")
}

impl Source for Csv {
    fn total(&self) -> u64 {
        self.total
    }

    fn next_part(&mut self) -> Result<Option<Part>> {
        let limits = self.limits;
        let mut out = Assembler::new(self.now_us, &limits);
        let mut record = StringRecord::new();
        let mut records = 0;
        while records < PART_RECORDS && out.len() < PART_SAMPLES {
            if !self.reader.read_record(&mut record)? {
                break;
            }
            self.record(&record, &mut out)?;
            records += 1;
            self.at.items += 1;
        }
        if records == 0 {
            return Ok(None);
        }
        self.at.offset = self.reader.position().byte();
        Ok(Some(Part {
            decoded: out.finish(),
            end: self.at,
        }))
    }
}
