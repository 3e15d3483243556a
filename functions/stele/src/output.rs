//! How results reach a person or a script: aligned tables, JSON lines, sizes with units.
//!
//! The only place that writes to standard output. A closed pipe ends the program quietly.

use std::io::{IsTerminal, Write};

use serde_json::Value;

/// Writes bytes to standard output.
///
/// # Errors
/// When standard output cannot take them; a closed pipe is not an error.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes one line to standard output.
///
/// # Errors
/// When standard output cannot take it.
pub fn line(text: &str) -> anyhow::Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a value as pretty JSON on a terminal and on one line otherwise.
///
/// # Errors
/// When standard output cannot take it.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(&if is_terminal() {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    })
}

/// Whether a person is likely to read standard output.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Rows of JSON objects as aligned columns, numbers to the right.
pub fn table(rows: &[serde_json::Map<String, Value>]) -> String {
    let Some(first) = rows.first() else {
        return "(no rows)\n".to_owned();
    };
    let names: Vec<&String> = first.keys().collect();
    let cell = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => escape(text),
        Some(other) => other.to_string(),
    };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| names.iter().map(|name| cell(row.get(*name))).collect())
        .collect();
    let width = |column: usize| {
        let widest = cells
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0);
        widest.max(names[column].chars().count())
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let numeric: Vec<bool> = names
        .iter()
        .map(|name| {
            rows.iter()
                .all(|r| matches!(r.get(*name), None | Some(Value::Null | Value::Number(_))))
        })
        .collect();
    let mut out = String::new();
    let mut push = |row: &[String]| {
        let padded = row
            .iter()
            .zip(&widths)
            .zip(&numeric)
            .map(|((text, width), numeric)| match numeric {
                true => format!("{text:>width$}"),
                false => format!("{text:<width$}"),
            });
        out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    };
    push(&names.iter().map(|name| escape(name)).collect::<Vec<_>>());
    push(
        &widths
            .iter()
            .map(|width| "-".repeat(*width))
            .collect::<Vec<_>>(),
    );
    cells.iter().for_each(|row| push(row));
    out.push_str(&format!(
        "({} row{})\n",
        rows.len(),
        if rows.len() == 1 { "" } else { "s" }
    ));
    out
}

/// Control characters made visible, so stored text cannot drive a terminal.
pub fn escape(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A size with a binary unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "printed with one decimal")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_and_cannot_drive_the_terminal() {
        let rows: Vec<serde_json::Map<String, Value>> =
            serde_json::from_str(r#"[{"metric":"a\u001b[2J","n":1},{"metric":"bb","n":22}]"#)
                .expect("valid");
        let want = "metric   n\n------  --\na\u{fffd}[2J    1\nbb      22\n(2 rows)\n";
        assert_eq!(table(&rows), want);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            (size(512), size(1536)),
            ("512 B".to_owned(), "1.5 KiB".to_owned())
        );
    }
}
