//! The gate before the planner: `stele-guard` around DataFusion's own parser, which knows a few
//! statements more than SQL has.
//!
//! Nothing here reads data. That names resolve only to this tenant's tables and to functions on
//! the allow-list is for `session`.

use arrow::array::timezone::Tz;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::Statement;
use stele_guard::{Admitted, DIALECT, admit, first_words, tokens};

use crate::error::{Error, Result, not_allowed};

/// A statement that may be planned.
#[derive(Debug)]
pub(crate) enum Checked {
    /// `SELECT`, `WITH`, `VALUES`, or `EXPLAIN` of one of them.
    Query(Box<DfStatement>),
    /// `SHOW TABLES`.
    ShowTables,
    /// `DESCRIBE` of the table named.
    Describe(String),
}

/// Checks `sql` and parses it.
///
/// # Errors
/// Says what is not allowed, or which limit is passed.
pub(crate) fn check(sql: &str, bytes_max: usize) -> Result<Checked> {
    let mut parser = DFParserBuilder::new(tokens(sql, bytes_max)?)
        .with_dialect(&DIALECT)
        .build()
        .map_err(unparsable)?;
    let mut statements = parser.parse_statements().map_err(unparsable)?;
    match (statements.pop_front(), statements.len()) {
        (None, _) => Err(Error::NoQuery),
        (Some(statement), 0) => admit_any(statement),
        (Some(_), more) => Err(not_allowed(format!("a text of {} statements", more + 1))),
    }
}

fn unparsable(error: DataFusionError) -> Error {
    let message = match &error {
        DataFusionError::SQL(inner, _) => inner
            .to_string()
            .trim_start_matches("sql parser error: ")
            .to_owned(),
        other => other.strip_backtrace(),
    };
    Error::Invalid {
        message,
        source: Box::new(error),
    }
}

fn is_zone(name: &str) -> bool {
    name.parse::<Tz>().is_ok()
}

/// Lets only reads through, by the shape of the parsed statement.
fn admit_any(statement: DfStatement) -> Result<Checked> {
    let query = match &statement {
        DfStatement::Statement(inner) => inner,
        DfStatement::Explain(explain) => match explain.statement.as_ref() {
            DfStatement::Statement(inner) if matches!(**inner, Statement::Query(_)) => inner,
            DfStatement::Statement(other) => {
                let what = first_words(&other.to_string());
                return Err(not_allowed(format!("EXPLAIN of {what}")));
            }
            _ => return Err(not_allowed("EXPLAIN of anything but a query")),
        },
        other => return Err(not_allowed(first_words(&other.to_string()))),
    };
    Ok(match admit(query, is_zone)? {
        Admitted::Query => Checked::Query(Box::new(statement)),
        Admitted::ShowTables => Checked::ShowTables,
        Admitted::Describe(name) => Checked::Describe(name),
    })
}

#[cfg(test)]
mod tests;
