//! The gate before the planner: is this text one statement that only reads, and small enough to
//! plan?
//!
//! Two of its three checks, in order of what they cost an attacker to get past. Tokens are counted
//! before the parser recurses ([`tokens`]), and the parsed statement must be on a list of allowed
//! shapes ([`admit`]). The third is the engine's: names resolve only to one tenant's tables and to
//! functions on its allow-list. Nothing here plans or reads data, and nothing needs the engine, so
//! that these checks can be fuzzed.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod error;
mod inspect;
mod weight;

use sqlparser::ast::{ObjectName, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use self::error::{limit, not_allowed};
use self::inspect::inspect;

pub use self::error::{Error, Result};

/// The dialect that texts are written in.
pub const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};
/// The one function that may stand in `FROM`.
pub const TABLE_FUNCTION: &str = "bins";

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// `SELECT`, `WITH` or `VALUES`.
    Query,
    /// `SHOW TABLES`.
    ShowTables,
    /// `DESCRIBE` of the table named.
    Describe(String),
}

/// The tokens of `sql`, few enough to be parsed.
///
/// # Errors
/// Says which limit is passed, or where the text is no SQL.
pub fn tokens(sql: &str, bytes_max: usize) -> Result<Vec<TokenWithSpan>> {
    if sql.len() > bytes_max {
        return Err(Error::TooLong {
            bytes: sql.len(),
            limit: bytes_max,
        });
    }
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location();
    let tokens = tokens.map_err(Error::NoTokens)?;
    count_tokens(&tokens)?;
    Ok(tokens)
}

/// Lets only reads through, by the shape of the parsed statement. `is_zone` says whether the
/// engine knows a time zone.
///
/// # Errors
/// Says what is not allowed, or which limit is passed.
pub fn admit(statement: &Statement, is_zone: fn(&str) -> bool) -> Result<Admitted> {
    match statement {
        Statement::Query(query) => inspect(query, is_zone).map(|()| Admitted::Query),
        Statement::ShowTables { .. } => Ok(Admitted::ShowTables),
        Statement::ExplainTable { table_name, .. } => {
            Ok(Admitted::Describe(plain_name(table_name)))
        }
        other => Err(not_allowed(first_words(&other.to_string()))),
    }
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
#[must_use]
pub fn first_words(text: &str) -> String {
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

#[cfg(test)]
mod tests;
