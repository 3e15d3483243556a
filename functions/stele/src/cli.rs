//! The command line: what `stele --help` teaches.
//!
//! Flags win over `STELE_*` variables, which win over defaults. Exit codes: 0 done, 1 it failed or
//! found something wrong, 2 the command line is wrong.

mod deletion;
mod drill;
mod tier;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stele_table::{AsOf, PinName};

pub use deletion::{DeletionAction, DeletionArgs};
pub use drill::{DrillAction, DrillArgs, FebruaryArgs, RestoreDrillArgs};
pub use tier::{PolicyArg, RoleArg, TierAction, TierArgs, TierInit};

/// Stele keeps metrics in object storage: what it acknowledged is durable, and answers are exact
/// at every moment.
#[derive(Debug, Parser)]
#[command(
    name = "stele",
    version,
    max_term_width = 100,
    after_help = "\
Try it:
  stele serve --host-metrics            # a server on 127.0.0.1:8686, store in ./stele-data
  curl -d 'cpu,host=a value=1.5' localhost:8686/write
  stele sql \"SELECT * FROM samples LIMIT 5\"

Exit codes: 0 done, 1 it failed or found something wrong, 2 the command line is wrong."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run ingest, compaction and queries in one process.
    Serve(ServeArgs),
    /// Ask in SQL; the query is an argument, or standard input when it is `-`.
    Sql(SqlArgs),
    /// Absorb, seal every closed window and consolidate, to the end; say what was left open.
    Settle(SettleArgs),
    /// Pause or resume sealing. Absorb goes on, and no answer changes.
    Rollups(RollupsArgs),
    /// Read files of line protocol, CSV or Parquet; to go on or to repeat adds nothing twice.
    Import(ImportArgs),
    /// Make, list and revoke the tokens a server asks for; works on the store itself.
    Token(TokenArgs),
    /// Show or set how long each resolution is kept [default: for ever].
    Retention(RetentionArgs),
    /// Pin a version so that nothing deletes it; list, show and drop such snapshots.
    Snapshot(SnapshotArgs),
    /// Bring a dropped snapshot back, within the history (24 h) of its drop.
    Undelete(UndeleteArgs),
    /// Keep the same data in several stores; add, follow, promote and retire them.
    Tier(TierArgs),
    /// Say what a sweep would delete; freeze deletion, and let it go on.
    Deletion(DeletionArgs),
    /// Try out what must never be lost, on stores made for it.
    Drill(DrillArgs),
    /// Check the store: conservation, single consumption, rollup truth, heads, whole objects.
    Verify(VerifyArgs),
    /// Show a running server's backlog, lag and sizes.
    Status(StatusArgs),
}

/// Where to find the data: a running server, or the store itself.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// A running server [default: http://127.0.0.1:8686].
    #[arg(long, value_name = "URL", conflicts_with = "store")]
    pub url: Option<String>,
    /// Work on the store directly: a directory, file:///… or s3://bucket/prefix.
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// The tenant, with --store [default: default].
    #[arg(long, value_name = "NAME", requires = "store")]
    pub tenant: Option<String>,
}

impl Target {
    /// The server to talk to when no store is named.
    pub fn url(&self) -> &str {
        self.url
            .as_deref()
            .unwrap_or("http://127.0.0.1:8686")
            .trim_end_matches('/')
    }
}

/// `stele serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; anything but loopback needs a token in the store
    /// [default: 127.0.0.1:8686].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// A directory, file:///…, s3://bucket/prefix (with AWS_* variables) or memory://
    /// [default: ./stele-data].
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// The tenant that requests write to and read from [default: default].
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// How long after its end a window is sealed: 90s, 10m, 1h [default: 10m].
    #[arg(long, value_name = "TIME", value_parser = duration_us)]
    pub seal_delay: Option<i64>,
    /// Keep no quantile sketches in rollups.
    #[arg(long)]
    pub no_sketch: bool,
    /// Take snapshots on a schedule and keep so many of each kind
    /// [default: off; alone: hourly=24,daily=7,weekly=5,monthly=12].
    #[arg(long, value_name = "LADDER", num_args = 0..=1, default_missing_value = "on")]
    pub snapshots: Option<String>,
    /// Record this machine's CPU, memory, disk, network and load every 10 s.
    #[arg(long)]
    pub host_metrics: bool,
    /// Write the server's URL to this file once it answers (for scripts).
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// How logs are written [default: text on a terminal, else json].
    #[arg(long, value_name = "FORM")]
    pub log: Option<LogForm>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `stele sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// One SELECT, WITH, EXPLAIN, SHOW TABLES or DESCRIBE; `-` reads standard input.
    pub query: String,
    #[command(flatten)]
    pub target: Target,
    /// Read the table as it was: a version's number, a time (RFC 3339) or a snapshot's name.
    #[arg(long, value_name = "WHEN")]
    pub as_of: Option<AsOf>,
    /// Say on standard error whether anything of the windows that the query reads is lost.
    #[arg(long)]
    pub coverage: bool,
    /// How rows are printed [default: table on a terminal, else json].
    #[arg(long, value_name = "FORM")]
    pub format: Option<Format>,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// One JSON array of row objects.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// CSV with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

/// `stele import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stele import backup.lp --precision s
  stele import disk.csv --metric disk --time-column when --value-columns read,write
  stele import table/resolution=raw/*/*.parquet --url https://stele.example

A note beside each file (FILE.stele-import) remembers how far it came, until it is done: run the same
command again to go on. Points without a timestamp get the file's modification time.")]
pub struct ImportArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub target: Target,
    /// What the files hold [default: by extension: lp, line, txt, csv, parquet].
    #[arg(long, value_name = "FORM")]
    pub format: Option<FileForm>,
    /// Line protocol: unit of timestamps (ns, us, ms, s, m, h) [default: ns].
    #[arg(long, value_name = "UNIT")]
    pub precision: Option<String>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Let these values replace those that are there. Corrections of a greater rank replace those
    /// of a lesser one.
    #[arg(long, value_name = "RANK", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(i32).range(1..))]
    pub correct: Option<i32>,
    /// Read and check the files, and store nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Begin at the start, whatever a note beside the file says.
    #[arg(long)]
    pub restart: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which column of a CSV or Parquet file is what.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Columns of CSV and Parquet")]
pub struct ColumnArgs {
    /// The metric of all rows; with several value columns it is NAME.COLUMN.
    #[arg(long, value_name = "NAME", conflicts_with = "metric_column")]
    pub metric: Option<String>,
    /// The column of the metric's name [default: metric].
    #[arg(long, value_name = "COLUMN")]
    pub metric_column: Option<String>,
    /// The column of timestamps [default: ts, time, timestamp, _time or date].
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
    /// The unit of numeric timestamps: s, ms, us, ns [default: by their magnitude].
    #[arg(long, value_name = "UNIT")]
    pub time_unit: Option<String>,
    /// The columns of values [default: value].
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub value_columns: Vec<String>,
    /// The columns of tags [default: all others; a column `tags` is a JSON object].
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub tag_columns: Option<Vec<String>>,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileForm {
    /// Influx line protocol.
    Lines,
    /// CSV with a header.
    Csv,
    /// Parquet.
    Parquet,
}

/// `stele settle`.
#[derive(Debug, Args)]
pub struct SettleArgs {
    #[command(flatten)]
    pub target: Target,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `stele rollups`.
#[derive(Debug, Args)]
pub struct RollupsArgs {
    /// What to do with the switch, which is kept in the store.
    pub action: RollupsAction,
    #[command(flatten)]
    pub target: Target,
    /// Print the state as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do with the rollups switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RollupsAction {
    /// Stop sealing.
    Pause,
    /// Seal again.
    Resume,
    /// Say which.
    Status,
}

/// `stele retention`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stele retention                                    # show
  stele retention --raw 30d --60s 90d --15m 365d     # 60 min rollups stay for ever
  stele retention --raw forever --60s forever --15m forever

A setting takes effect after an hour. Raw samples of a day go two days after their retention, and only
when their rollups have been recomputed from them and found identical. Pausing rollups pauses expiry.")]
pub struct RetentionArgs {
    #[command(flatten)]
    pub days: RetentionDays,
    #[command(flatten)]
    pub target: Target,
    /// Print the setting as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Days per resolution; what is not named stays as it is.
#[derive(Debug, Clone, Args)]
pub struct RetentionDays {
    /// Raw samples: days (30d) or forever.
    #[arg(long, value_name = "TIME", value_parser = kept)]
    pub raw: Option<stele_table::Kept>,
    /// 60 s rollups.
    #[arg(long = "60s", value_name = "TIME", value_parser = kept)]
    pub s60: Option<stele_table::Kept>,
    /// 15 min rollups.
    #[arg(long = "15m", value_name = "TIME", value_parser = kept)]
    pub m15: Option<stele_table::Kept>,
    /// 60 min rollups.
    #[arg(long = "60m", value_name = "TIME", value_parser = kept)]
    pub m60: Option<stele_table::Kept>,
}

impl RetentionDays {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        [self.raw, self.s60, self.m15, self.m60]
            .iter()
            .all(Option::is_none)
    }
}

/// `stele token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TokenAction,
    /// The store: a directory, file:///… or s3://bucket/prefix [default: ./stele-data].
    #[arg(long, value_name = "STORE", global = true)]
    pub store: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token and print it, this once.
    Create(TokenCreate),
    /// List all tokens, without their secrets.
    List,
    /// Revoke a token; servers refuse it within 60 s.
    Revoke {
        /// The token's id, as `list` shows it.
        id: String,
    },
}

/// `stele token create`.
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// The tenant it reads and writes [default: default].
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// What it allows: ingest, query, admin; no scope includes another.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
    pub scope: Vec<stele_auth::Scope>,
    /// What it is for.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub note: String,
}

/// `stele snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "\
A snapshot costs nothing but what it keeps from being deleted, and holds every batch that was
acknowledged before it was asked for. Read it with `stele sql --as-of NAME` or `/sql?as_of=NAME`.")]
pub struct SnapshotArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: SnapshotAction,
    /// Where.
    #[command(flatten)]
    pub on: OnStore,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotAction {
    /// Absorb what was accepted, and pin the version that holds it.
    Create(SnapshotCreate),
    /// All snapshots, and until when dropped ones can be brought back.
    List,
    /// Rows, time range, hash and size of each resolution.
    Show {
        /// Its name.
        name: PinName,
    },
    /// Read every object that it needs, and compare it with what was recorded.
    Verify {
        /// Its name.
        name: PinName,
    },
    /// Say what restoring to an empty tenant or store would copy; with --plan, copy it.
    Restore(SnapshotRestore),
    /// Say what would be dropped; with --plan, drop it. Nothing is deleted within the history.
    Drop {
        /// Its name.
        name: PinName,
        /// The hash that the same command without it prints.
        #[arg(long, value_name = "HASH")]
        plan: Option<String>,
    },
}

/// `stele snapshot create`.
#[derive(Debug, Args)]
pub struct SnapshotCreate {
    /// Its name: 1 to 64 of a-z, 0-9, _ and -, with a letter.
    pub name: PinName,
    /// What it is for.
    #[arg(long, default_value = "")]
    pub note: String,
}

/// `stele snapshot restore`.
#[derive(Debug, Args)]
pub struct SnapshotRestore {
    /// Its name.
    pub name: PinName,
    /// The store to restore to [default: the same].
    #[arg(long, value_name = "STORE")]
    pub to_store: Option<String>,
    /// Put the tenant's own table back to what it was: what came later is absorbed again as far as
    /// it still exists, and the plan names what does not.
    #[arg(long, conflicts_with_all = ["to_store", "to_tenant"])]
    pub in_place: bool,
    /// Give a restore in place up that has not come to its end.
    #[arg(long, requires = "in_place", conflicts_with = "plan")]
    pub abandon: bool,
    /// The tenant to restore to, which must be empty [default: the same].
    #[arg(long, value_name = "NAME")]
    pub to_tenant: Option<String>,
    /// The hash that the same command without it prints.
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
}

/// `stele undelete`.
#[derive(Debug, Args)]
pub struct UndeleteArgs {
    /// The snapshot's name.
    pub name: PinName,
    /// Where.
    #[command(flatten)]
    pub on: OnStore,
}

/// A command on the store itself, which no server need serve.
#[derive(Debug, Args)]
pub struct OnStore {
    /// A directory, file:///… or s3://bucket/prefix [default: ./stele-data].
    #[arg(long, value_name = "STORE", global = true)]
    pub store: Option<String>,
    /// The tenant [default: default].
    #[arg(long, value_name = "NAME", global = true)]
    pub tenant: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

impl OnStore {
    /// The store and the tenant.
    pub fn target(&self) -> Target {
        Target {
            url: None,
            store: self.store.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

/// `stele verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The store: a directory, file:///… or s3://bucket/prefix [default: ./stele-data].
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// Only this tenant [default: every tenant of the store].
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Record what is lost, for the table `coverage`, and take back what is whole again.
    #[arg(long)]
    pub record: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `stele status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A running server [default: http://127.0.0.1:8686].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Print the server's JSON as it is.
    #[arg(long)]
    pub json: bool,
}

/// µs of `90s`, `10m`, `1h` or a plain number of seconds.
fn duration_us(text: &str) -> Result<i64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    digits
        .parse::<u32>()
        .map(|n| i64::from(n) * unit * stele_model::time::SECOND_US)
        .map_err(|_| format!("{text:?} is not a time such as 90s, 10m or 1h"))
}

/// Days of `30d`, or `forever`.
fn kept(text: &str) -> Result<stele_table::Kept, String> {
    if text == "forever" {
        return Ok(stele_table::Kept(None));
    }
    let days = text.strip_suffix('d').unwrap_or(text).parse();
    days.map(|days| stele_table::Kept(Some(days)))
        .map_err(|_| format!("{text:?} is neither a number of days such as 30d nor forever"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_take_a_unit() {
        assert_eq!(duration_us("10m"), Ok(600_000_000));
        assert_eq!(duration_us("0"), Ok(0));
        assert!(duration_us("soon").is_err());
        assert!(duration_us("-1s").is_err());
        assert_eq!(kept("30d"), Ok(stele_table::Kept(Some(30))));
        assert_eq!(kept("forever"), Ok(stele_table::Kept(None)));
        assert!(kept("1y").is_err());
    }
}
