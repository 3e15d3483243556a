//! What can go wrong with a query, and which kind of failure each is.
//!
//! A message names the value and the limit and may be shown to the sender; the causes that lie
//! inside (paths, store errors) are kept as sources for the log and never sent.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use stele_model::ErrorKind;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A query that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is none that may be planned.
    #[error(transparent)]
    Guard(#[from] stele_guard::Error),
    /// A table that does not exist.
    #[error("there is no table {name:?}{}", crate::nearest::hint(.nearest))]
    NoSuchTable {
        /// The name as written.
        name: String,
        /// The nearest existing name, or all of them.
        nearest: Vec<String>,
    },
    /// A column that does not exist.
    #[error("there is no column {name:?}{}", crate::nearest::hint(.nearest))]
    NoSuchColumn {
        /// The name as written.
        name: String,
        /// The nearest existing name, or all of them.
        nearest: Vec<String>,
    },
    /// A function that does not exist or is not on the list of allowed ones.
    #[error("there is no function {name:?}{}", crate::nearest::hint(.nearest))]
    NoSuchFunction {
        /// The name as written.
        name: String,
        /// The nearest existing names.
        nearest: Vec<String>,
    },
    /// SQL that cannot be parsed, planned or evaluated.
    #[error("{message}")]
    Invalid {
        /// What to tell the sender.
        message: String,
        /// Where it came from.
        source: Box<DataFusionError>,
    },
    /// The answer is larger than its cap.
    #[error("the answer has more than {limit} {what}; narrow the query or add a LIMIT")]
    OverLimit {
        /// `rows` or `bytes`.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The operators needed more memory than there is.
    #[error("the query needs more memory than its limit of {limit} bytes: {detail}")]
    OverMemory {
        /// The size of the pool.
        limit: usize,
        /// What asked for how much.
        detail: String,
    },
    /// The query ran past its deadline.
    #[error("the query ran longer than its deadline of {secs} s")]
    Deadline {
        /// The deadline.
        secs: u64,
    },
    /// An output format that does not exist.
    #[error("there is no output format {name:?}; there are json, ndjson, csv, arrow and parquet")]
    NoSuchFormat {
        /// The name as sent.
        name: String,
    },
    /// A switch that is neither on nor off.
    #[error("{name}={value:?} is neither 0 nor 1")]
    NoSwitch {
        /// The parameter.
        name: &'static str,
        /// Its value as sent, shortened.
        value: String,
    },
    /// A list or a struct where only plain values can stand.
    #[error("column {column:?} holds lists or structs, which CSV cannot say; ask for JSON")]
    NotTabular {
        /// The column.
        column: String,
    },
    /// A type that Parquet does not have.
    #[error("column {column:?} holds intervals, which Parquet cannot say; ask for Arrow or JSON")]
    NotInParquet {
        /// The column.
        column: String,
    },
    /// A request to `/sql` without any SQL.
    #[error("no SQL text: send it as the body of POST /sql or as GET /sql?q=")]
    NoQuery,
    /// The body of a request is no UTF-8 text or broke off.
    #[error("the body is no UTF-8 text")]
    NotText,
    /// Files vanished under the query, again and again.
    #[error("the table was compacted under the query {attempts} times; try again")]
    Vanished {
        /// How often it was started.
        attempts: u32,
    },
    /// An object that the newest version needs is not in the store, and nobody replaced it.
    #[error(
        "{object} is missing: the newest version of the table needs it (`stele verify` says what else)"
    )]
    Missing {
        /// Its key.
        object: String,
    },
    /// A stored object is not what its log entry says.
    #[error("a data file is damaged: {why}")]
    Corrupt {
        /// What disagrees.
        why: String,
    },
    /// Stored objects cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] stele_store::Error),
    /// The table's log or ledger cannot be read.
    #[error("the table cannot be read")]
    Table(#[from] stele_table::Error),
    /// The table cannot be read as it was: the message is for the sender.
    #[error(transparent)]
    AsOf(stele_table::Error),
    /// Stored rows cannot be decoded.
    #[error("stored rows cannot be decoded")]
    Format(#[from] stele_format::Error),
    /// Open windows cannot be merged.
    #[error("open windows cannot be merged")]
    Merge(#[from] stele_compact::Error),
    /// A failure of the store below a Parquet scan.
    #[error("the store cannot be read")]
    Scan(#[source] Box<DataFusionError>),
    /// The table found for a request is not its tenant's: a defect of the server's wiring.
    #[error("internal error")]
    OtherTenant,
    /// A defect.
    #[error("internal error")]
    Internal(#[source] Box<DataFusionError>),
}

impl Error {
    /// Why an old version cannot be read: in the table's words where they are about the version.
    pub(crate) fn as_of(error: stele_table::Error) -> Self {
        match error.kind() {
            ErrorKind::Malformed | ErrorKind::NotFound => Self::AsOf(error),
            _ => Self::Table(error),
        }
    }

    /// The kind, which alone decides the HTTP status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Guard(e) => e.kind(),
            Self::OverLimit { .. } | Self::OverMemory { .. } => ErrorKind::Unexecutable,
            Self::NoSuchTable { .. }
            | Self::NoSuchColumn { .. }
            | Self::NoSuchFunction { .. }
            | Self::NotInParquet { .. }
            | Self::NotTabular { .. }
            | Self::Invalid { .. } => ErrorKind::InvalidQuery,
            Self::NoSuchFormat { .. } | Self::NoSwitch { .. } | Self::NoQuery | Self::NotText => {
                ErrorKind::Malformed
            }
            Self::Deadline { .. } => ErrorKind::QueryTimeout,
            Self::Vanished { .. } | Self::Scan(_) => ErrorKind::Unavailable,
            Self::Corrupt { .. } | Self::Missing { .. } => ErrorKind::Corrupt,
            Self::Internal(_) | Self::OtherTenant => ErrorKind::Internal,
            Self::Store(e) => e.kind(),
            Self::Table(e) | Self::AsOf(e) => e.kind(),
            Self::Format(e) => e.kind(),
            Self::Merge(e) => e.kind(),
        }
    }
}

/// Something that is not a read of the tables.
pub(crate) fn not_allowed(what: impl Into<String>) -> Error {
    let what = what.into();
    Error::Guard(stele_guard::Error::NotAllowed { what })
}

/// Our own errors travel through DataFusion as external ones.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

/// Finds the first error of type `T` among `error` and its causes.
pub(crate) fn find_cause<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a T> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(DataFusionError::Shared(inner)) = error.downcast_ref::<DataFusionError>()
            && let Some(found) = find_cause::<T>(inner.as_ref())
        {
            return Some(found);
        }
        at = error.source();
    }
    None
}

/// Whether a data file was gone when it was read: the signal to start over with a new view.
pub(crate) fn is_not_found(error: &(dyn StdError + 'static)) -> bool {
    matches!(
        find_cause::<object_store::Error>(error),
        Some(object_store::Error::NotFound { .. })
    ) || find_cause::<stele_store::Error>(error).is_some_and(|e| e.kind() == ErrorKind::NotFound)
}

/// Sorts an error of DataFusion into ours.
pub(crate) fn from_datafusion(error: DataFusionError, memory_limit: usize) -> Error {
    let error = match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(inner) => DataFusionError::External(inner),
        },
        other => other,
    };
    if let Some(copy) = find_cause::<Error>(&error).and_then(restate) {
        return copy;
    }
    if find_cause::<object_store::Error>(&error).is_some()
        || find_cause::<std::io::Error>(&error).is_some()
    {
        return Error::Scan(Box::new(error));
    }
    if let Some(unknown) = unknown_function(&error) {
        return unknown;
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(detail) => Error::OverMemory {
            limit: memory_limit,
            detail: detail.lines().next().unwrap_or_default().to_owned(),
        },
        DataFusionError::SchemaError(schema, _) => {
            crate::nearest::column_error(schema).unwrap_or_else(|| invalid(error))
        }
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Collection(_) => invalid(error),
        DataFusionError::ArrowError(arrow, _) if is_arithmetic(arrow) => invalid(error),
        DataFusionError::ParquetError(_) => Error::Corrupt {
            why: "it is not readable as Parquet".to_owned(),
        },
        _ => Error::Internal(Box::new(error)),
    }
}

/// The planner's complaint about a function, which names it only in its text.
fn unknown_function(error: &DataFusionError) -> Option<Error> {
    let DataFusionError::Plan(text) = error.find_root() else {
        return None;
    };
    let (name, _) = text.strip_prefix("Invalid function '")?.split_once('\'')?;
    Some(Error::NoSuchFunction {
        name: name.to_owned(),
        nearest: crate::nearest::nearest(name, crate::functions::ALLOWED.names()),
    })
}

fn is_arithmetic(error: &ArrowError) -> bool {
    matches!(
        error,
        ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
            | ArrowError::CastError(_)
            | ArrowError::ParseError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::InvalidArgumentError(_)
    )
}

fn invalid(error: DataFusionError) -> Error {
    let text = error.strip_backtrace();
    let prefixes = [
        "Error during planning: ",
        "Execution error: ",
        "SQL error: ",
        "Schema error: ",
        "Arrow error: ",
    ];
    let plain = prefixes.iter().fold(text.as_str(), |text, prefix| {
        text.trim_start_matches(prefix)
    });
    Error::Invalid {
        message: plain.to_owned(),
        source: Box::new(error),
    }
}

/// One of our errors that is only borrowed, said again. The sources stay with the original.
fn restate(error: &Error) -> Option<Error> {
    Some(match error {
        Error::OverLimit { what, limit } => Error::OverLimit {
            what,
            limit: *limit,
        },
        Error::Corrupt { why } => Error::Corrupt { why: why.clone() },
        Error::NoSuchTable { name, nearest } => Error::NoSuchTable {
            name: name.clone(),
            nearest: nearest.clone(),
        },
        Error::NoSuchFunction { name, nearest } => Error::NoSuchFunction {
            name: name.clone(),
            nearest: nearest.clone(),
        },
        Error::Guard(stele_guard::Error::NotAllowed { what }) => not_allowed(what),
        _ => return None,
    })
}
