//! `stele import`: files into the store, part by part, each noted when it is durable.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use stele_format::l0;
use stele_import::{Columns, Format, Mark, Part, Settings, TimeUnit};
use stele_model::{Clock, Limits, Rejection, Rows};
use stele_node::Node;
use stele_runtime::{Config, SystemClock};

use crate::cli::{FileForm, ImportArgs};
use crate::client::Client;
use crate::commands::client;
use crate::output;
use crate::stores::to_write;

/// Refused items shown per file.
const SHOWN: usize = 20;
/// How often a line of progress is written when nobody watches.
const QUIET_PROGRESS: Duration = Duration::from_secs(10);

/// Where the samples go.
enum Sink {
    Store(Box<Node>),
    Server(Client),
    Nowhere,
}

/// How far a file came, kept beside it until it is done.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The file's size and time, the target and the settings: a note of other ones is ignored.
    of: String,
    mark: Mark,
    done: Done,
}

/// What became of the samples of one file.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Done {
    accepted: u64,
    rejected: u64,
    parts: u64,
}

#[derive(Debug, Serialize)]
struct FileReport {
    file: String,
    #[serde(flatten)]
    done: Done,
    /// Where a note said to go on; 0 at the start.
    resumed_at: u64,
    /// The first refused items of this run.
    rejections: Vec<Rejection>,
}

/// Runs the command. Exit code 1 when a sample was refused.
pub async fn run(args: ImportArgs, config: Config) -> anyhow::Result<ExitCode> {
    let sink = match (&args.target.store, args.dry_run) {
        (_, true) => Sink::Nowhere,
        (Some(_), _) => Sink::Store(Box::new(to_write(&args.target, &config).await?)),
        (None, _) => Sink::Server(client(&args.target, &config)),
    };
    let mut reports = Vec::new();
    for file in &args.files {
        let report = import(file, &args, &config, &sink).await;
        let report = report.with_context(|| {
            format!(
                "{}: what was stored stays; run it again to go on",
                file.display()
            )
        })?;
        if !args.json {
            output::line(&described(&report, args.dry_run))?;
        }
        reports.push(report);
    }
    let refused: u64 = reports.iter().map(|report| report.done.rejected).sum();
    if args.json {
        output::json(&serde_json::json!({ "files": reports, "rejected": refused }))?;
    }
    Ok(ExitCode::from(u8::from(refused > 0)))
}

fn described(report: &FileReport, is_dry: bool) -> String {
    let Done {
        accepted, rejected, ..
    } = report.done;
    let verb = if is_dry { "holds" } else { "imported" };
    let mut text = format!(
        "{}: {verb} {accepted} samples",
        output::escape(&report.file)
    );
    if report.resumed_at > 0 {
        text.push_str(&format!(" (went on at {})", report.resumed_at));
    }
    if rejected > 0 {
        text.push_str(&format!(", refused {rejected}:"));
    }
    for refused in &report.rejections {
        let reason = output::escape(&refused.reason);
        text.push_str(&format!("\n  {}: {reason}", refused.position));
    }
    let more = rejected - report.rejections.len() as u64;
    if more > 0 && rejected > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

fn settings(path: &Path, args: &ImportArgs) -> anyhow::Result<Settings> {
    let format = match args.format {
        Some(FileForm::Lines) => Format::Lines,
        Some(FileForm::Csv) => Format::Csv,
        Some(FileForm::Parquet) => Format::Parquet,
        None => Format::of(path)
            .with_context(|| format!("{}: say what it holds with --format", path.display()))?,
    };
    let unit = |name: &str| {
        TimeUnit::of_name(name).with_context(|| format!("{name:?} is not one of s, ms, us, ns"))
    };
    let columns = args.columns.clone();
    Ok(Settings {
        format,
        precision: match &args.precision {
            None => stele_wire::Precision::default(),
            Some(name) => name.parse()?,
        },
        columns: Columns {
            metric: columns.metric,
            metric_column: columns.metric_column,
            time_column: columns.time_column,
            time_unit: columns.time_unit.as_deref().map(unit).transpose()?,
            value_columns: columns.value_columns,
            tag_columns: columns.tag_columns,
        },
        limits: Limits::default(),
        now_us: SystemClock.now_us(),
    })
}

async fn import(
    path: &Path,
    args: &ImportArgs,
    config: &Config,
    sink: &Sink,
) -> anyhow::Result<FileReport> {
    let settings = settings(path, args)?;
    let of = identity(path, args, config, &settings)?;
    let beside = note_path(path);
    let note = read_note(&beside).filter(|note| note.of == of && !args.restart && !args.dry_run);
    let from = note.as_ref().map_or(Mark::default(), |note| note.mark);
    let mut report = FileReport {
        file: path.display().to_string(),
        done: note.map(|note| note.done).unwrap_or_default(),
        resumed_at: from.offset,
        rejections: Vec::new(),
    };
    let mut source = stele_import::open(path, &settings, from)?;
    let mut progress = Progress::new(path, source.total(), from.offset, report.done.accepted);
    while let Some(part) = source.next_part()? {
        let mark = part.end;
        store(part, args.correct, sink, &mut report).await?;
        progress.show(mark.offset, &report.done);
        if !args.dry_run {
            let (of, done) = (of.clone(), report.done);
            write_note(&beside, &Note { of, mark, done });
        }
    }
    progress.finish();
    // Done: to import the file again is to read it again, and adds nothing twice.
    let _ = std::fs::remove_file(&beside);
    Ok(report)
}

async fn store(
    part: Part,
    correct: Option<i32>,
    sink: &Sink,
    report: &mut FileReport,
) -> anyhow::Result<()> {
    let mut rows = part.decoded.rows;
    let rejections = part.decoded.rejections;
    report.done.parts += 1;
    report.done.rejected += rejections.total;
    let room = SHOWN - report.rejections.len();
    report
        .rejections
        .extend(rejections.named.into_iter().take(room));
    if rows.is_empty() {
        return Ok(());
    }
    let count = rows.len() as u64;
    match sink {
        Sink::Nowhere => report.done.accepted += count,
        Sink::Store(node) => {
            if let Some(rank) = correct {
                stele_import::rank(&mut rows, rank);
            }
            node.ingestor.accept(rows).await?;
            report.done.accepted += count;
        }
        Sink::Server(client) => send(client, rows, correct, report).await?,
    }
    Ok(())
}

/// Sends one part; what the server refuses is named by the row within the part.
async fn send(
    client: &Client,
    rows: Rows,
    correct: Option<i32>,
    report: &mut FileReport,
) -> anyhow::Result<()> {
    let object = l0::encode(&[stele_format::batch(rows)])?;
    let path = match correct {
        None => "/admin/import".to_owned(),
        Some(rank) => format!("/admin/import?correct={rank}"),
    };
    let answer = client.post_again(&path, object.bytes).await?;
    let number = |name: &str| answer.get(name).and_then(serde_json::Value::as_u64);
    let accepted = number("accepted").context("the server did not say what it accepted")?;
    report.done.accepted += accepted;
    report.done.rejected += number("rejected").unwrap_or(0);
    let named = answer.get("rejections").cloned().unwrap_or_default();
    let named: Vec<Rejection> = serde_json::from_value(named).unwrap_or_default();
    let room = SHOWN - report.rejections.len();
    report.rejections.extend(named.into_iter().take(room));
    Ok(())
}

/// What a note must agree with.
fn identity(
    path: &Path,
    args: &ImportArgs,
    config: &Config,
    settings: &Settings,
) -> anyhow::Result<String> {
    let metadata = std::fs::metadata(path)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?;
    let target = match &args.target.store {
        Some(store) => format!("{store} {:?}", args.target.tenant),
        None => crate::commands::url(&args.target, config),
    };
    let Settings {
        format,
        precision,
        columns,
        ..
    } = settings;
    Ok(format!(
        "{} bytes, {} us, {target}, {format:?}, {precision:?}, {columns:?}, {:?}",
        metadata.len(),
        modified.as_micros(),
        args.correct
    ))
}

fn note_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".stele-import");
    PathBuf::from(name)
}

fn read_note(path: &Path) -> Option<Note> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// A note that cannot be written costs only the going on.
fn write_note(path: &Path, note: &Note) {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let written = serde_json::to_vec(note)
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(&fresh, bytes))
        .and_then(|()| std::fs::rename(&fresh, path));
    if let Err(error) = written {
        tracing::debug!(%error, path = %path.display(), "cannot note how far the import came");
    }
}

/// A bar for a person, a line now and then otherwise; both on standard error.
struct Progress {
    bar: ProgressBar,
    name: String,
    total: u64,
    began: Instant,
    /// Samples that earlier runs accepted.
    before: u64,
    told: Instant,
}

impl Progress {
    fn new(path: &Path, total: u64, at: u64, before: u64) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = output::escape(&name.to_string_lossy());
        let bar = ProgressBar::new(total);
        let style = "{msg} {wide_bar} {percent}% {elapsed} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_position(at);
        bar.reset_eta();
        bar.set_message(name.clone());
        Self {
            bar,
            name,
            total,
            began: Instant::now(),
            before,
            told: Instant::now(),
        }
    }

    fn show(&mut self, at: u64, done: &Done) {
        let samples = done.accepted.saturating_sub(self.before);
        #[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
        let rate = samples as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        self.bar.set_position(at);
        let message = format!("{}: {samples} samples, {rate:.0}/s", self.name);
        if self.bar.is_hidden() && self.told.elapsed() >= QUIET_PROGRESS {
            self.told = Instant::now();
            let percent = (at * 100).checked_div(self.total).unwrap_or(100);
            eprintln!("{message}, {percent} %");
        }
        self.bar.set_message(message);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
