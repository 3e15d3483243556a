//! Reads CSV as RFC 4180 has it. Numbers are parsed from their text by `str::parse`, which is
//! exact, so a comparison of bits is fair.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

/// A CSV with a header.
#[derive(Debug, Clone)]
pub struct Table {
    /// The position of each column.
    pub columns: HashMap<String, usize>,
    /// The rows; every row has as many fields as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Parses a whole body.
    ///
    /// # Errors
    /// A row with another number of fields than the header.
    pub fn parse(text: &str) -> Result<Self> {
        let mut records = records(text).into_iter();
        let header = records.next().context("a CSV without a header")?;
        let rows: Vec<Vec<String>> = records.collect();
        for row in &rows {
            ensure!(row.len() == header.len(), "{header:?} does not fit {row:?}");
        }
        let columns = header.into_iter().enumerate().map(|(i, c)| (c, i));
        Ok(Self {
            columns: columns.collect(),
            rows,
        })
    }

    /// The field of `row` in `column`.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn text<'a>(&self, row: &'a [String], column: &str) -> Result<&'a str> {
        let at = self.columns.get(column);
        let at = at.with_context(|| format!("no column {column} in {:?}", self.columns))?;
        Ok(&row[*at])
    }

    /// The field of `row` in `column` as a number; an empty field is `None`.
    ///
    /// # Errors
    /// When there is no such column, or the text is no number.
    pub fn number<T: std::str::FromStr>(&self, row: &[String], column: &str) -> Result<Option<T>> {
        let text = self.text(row, column)?;
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().ok();
        let parsed = parsed.with_context(|| format!("{column}: {text:?} is no number"))?;
        Ok(Some(parsed))
    }
}

fn records(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                all.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        all.push(row);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Table;

    #[test]
    fn quoted_fields_keep_commas_and_quotes() {
        let table = Table::parse("tags,n\n\"{\"\"a\"\":\"\"x,y\"\"}\",0.1\r\n,\n").unwrap();
        assert_eq!(
            table.text(&table.rows[0], "tags").unwrap(),
            "{\"a\":\"x,y\"}"
        );
        assert_eq!(table.number(&table.rows[0], "n").unwrap(), Some(0.1));
        assert_eq!(table.number::<f64>(&table.rows[1], "n").unwrap(), None);
    }
}
