//! The tables of README.md are printed from the structs they describe; these tests compare.

use stele_model::Limits;
use stele_runtime::Config;

const README: &str = include_str!("../../../README.md");

/// What stands between the marker comment that begins with `name` and the next blank-line break
/// after the table.
fn section(name: &str) -> &'static str {
    let marker = format!("<!-- {name}:");
    let (_, after) = README
        .split_once(&marker)
        .expect("the marker is in README.md");
    let (_, table) = after.split_once("-->\n").expect("the marker ends");
    table
        .split_once("\n\n")
        .map_or(table, |(table, _)| table)
        .trim()
}

#[test]
fn the_limits_table_is_the_struct() {
    let mut want = String::from("| limit | value | meaning |\n|---|---:|---|");
    for limit in Limits::default().table() {
        want.push_str(&format!(
            "\n| `{}` | {} | {} |",
            limit.name, limit.value, limit.meaning
        ));
    }
    assert_eq!(section("limits"), want, "put this into README.md:\n{want}");
}

#[test]
fn the_settings_table_is_the_struct() {
    let mut want = String::from("| variable | default | meaning |\n|---|---|---|");
    for variable in Config::table() {
        let row = format!(
            "\n| `{}` | {} | {} |",
            variable.name, variable.default, variable.meaning
        );
        want.push_str(&row);
    }
    assert_eq!(
        section("settings"),
        want,
        "put this into README.md:\n{want}"
    );
}
