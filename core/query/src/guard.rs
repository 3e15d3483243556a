//! The gate before the planner: is this text one statement that only reads, and small enough to
//! plan?
//!
//! Three checks in order of what they cost an attacker to get past. Tokens are counted before
//! the parser recurses, the parsed statement must be on a list of allowed shapes, and (in
//! `session`) names resolve only to this tenant's tables and to functions on the allow-list.
//! Nothing here reads data.

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{ObjectName, Statement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Result};

use self::inspect::inspect;

/// Open parentheses and brackets at once.
const DEPTH_MAX: usize = 40;
/// `CASE` expressions open at once.
const CASE_DEPTH_MAX: usize = 12;
/// Operators of one statement: each may be a level of a left-deep tree.
const OPERATORS_MAX: usize = 600;
/// Comma-separated items of one list.
const LIST_MAX: usize = 2_000;
/// `UNION`, `EXCEPT` and `INTERSECT` of one statement.
const SET_OPERATIONS_MAX: usize = 24;
/// Words with nothing else between them: the parser descends for some of them (`INTERVAL`).
const WORDS_MAX: usize = 100;
/// `EXPLAIN`s of one statement, each of which the parser descends into.
const EXPLAINS_MAX: usize = 2;
/// Tables and subqueries named in `FROM` clauses of one statement.
const RELATIONS_MAX: usize = 32;
/// `SELECT`s of one statement.
const SELECTS_MAX: usize = 32;

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
    if sql.len() > bytes_max {
        return Err(Error::TooLong {
            bytes: sql.len(),
            limit: bytes_max,
        });
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|e| unparsable(ParserError::from(e).into()))?;
    count_tokens(&tokens)?;
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&dialect)
        .build()
        .map_err(unparsable)?;
    let mut statements = parser.parse_statements().map_err(unparsable)?;
    match (statements.pop_front(), statements.len()) {
        (None, _) => Err(Error::NoQuery),
        (Some(statement), 0) => admit(statement),
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

fn not_allowed(what: impl Into<String>) -> Error {
    Error::NotAllowed { what: what.into() }
}

fn limit(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value > limit {
        return Err(Error::TooComplex { what, value, limit });
    }
    Ok(())
}

/// Counts what makes the parser or the planner recurse, without parsing.
fn count_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    let (mut operators, mut set_operations, mut cases) = (0, 0, 0usize);
    let (mut selects, mut joins, mut explains, mut words) = (0, 0, 0, 0);
    let mut commas = vec![0usize];
    for token in tokens {
        words = match &token.token {
            Token::Word(_) => words + 1,
            Token::Whitespace(_) => words,
            _ => 0,
        };
        limit("words in a row", words, WORDS_MAX)?;
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // `int[][]` and `a[1][1]` nest without being nested.
                operators += usize::from(token.token != Token::LParen);
                commas.push(0);
                limit("nested parentheses", commas.len() - 1, DEPTH_MAX)?;
            }
            Token::RParen | Token::RBracket | Token::RBrace if commas.len() > 1 => {
                commas.pop();
            }
            Token::Comma => {
                let items = commas
                    .last_mut()
                    .expect("starts with one level, pops above one");
                *items += 1;
                limit("items in one list", *items + 1, LIST_MAX)?;
            }
            Token::Word(word) => match word.keyword {
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::IN
                | Keyword::IS
                | Keyword::NOTNULL
                | Keyword::COLLATE
                | Keyword::AT => operators += 1,
                Keyword::SELECT => selects += 1,
                Keyword::JOIN => joins += 1,
                Keyword::EXPLAIN => explains += 1,
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => set_operations += 1,
                Keyword::CASE => {
                    cases += 1;
                    limit("nested CASE expressions", cases, CASE_DEPTH_MAX)?;
                }
                Keyword::END => cases = cases.saturating_sub(1),
                _ => {}
            },
            Token::Whitespace(_)
            | Token::EOF
            | Token::SemiColon
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::RParen
            | Token::RBracket
            | Token::RBrace => {}
            _ => operators += 1,
        }
        limit("operators", operators, OPERATORS_MAX)?;
        limit("set operations", set_operations, SET_OPERATIONS_MAX)?;
        limit("SELECTs", selects, SELECTS_MAX)?;
        limit("JOINs", joins, RELATIONS_MAX)?;
        limit("EXPLAINs", explains, EXPLAINS_MAX)?;
    }
    Ok(())
}

/// Lets only reads through, by the shape of the parsed statement.
fn admit(statement: DfStatement) -> Result<Checked> {
    match &statement {
        DfStatement::Statement(inner) => match inner.as_ref() {
            Statement::Query(query) => {
                inspect(query)?;
                Ok(Checked::Query(Box::new(statement)))
            }
            Statement::ShowTables { .. } => Ok(Checked::ShowTables),
            Statement::ExplainTable { table_name, .. } => {
                Ok(Checked::Describe(plain_name(table_name)))
            }
            other => Err(not_allowed(first_words(&other.to_string()))),
        },
        DfStatement::Explain(explain) => match explain.statement.as_ref() {
            DfStatement::Statement(inner) => match inner.as_ref() {
                Statement::Query(query) => {
                    inspect(query)?;
                    Ok(Checked::Query(Box::new(statement)))
                }
                other => Err(not_allowed(format!(
                    "EXPLAIN of {}",
                    first_words(&other.to_string())
                ))),
            },
            _ => Err(not_allowed("EXPLAIN of anything but a query")),
        },
        other => Err(not_allowed(first_words(&other.to_string()))),
    }
}

/// A table name without its quotes.
fn plain_name(name: &ObjectName) -> String {
    let parts: Vec<String> = name
        .0
        .iter()
        .map(|part| {
            part.as_ident()
                .map_or_else(|| part.to_string(), |ident| ident.value.clone())
        })
        .collect();
    parts.join(".")
}

/// The leading keywords of a statement: enough to name it, never its content.
fn first_words(text: &str) -> String {
    let words: Vec<&str> = text
        .split_whitespace()
        .take_while(|word| word.bytes().all(|b| b.is_ascii_uppercase()))
        .take(2)
        .collect();
    if words.is_empty() {
        "this statement".to_owned()
    } else {
        words.join(" ")
    }
}

mod inspect;
mod weight;

#[cfg(test)]
mod tests;
