//! SQL texts before they are planned.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, Statement, Visit, Visitor};
use sqlparser::parser::Parser;
use stele_guard::{Admitted, DIALECT, admit, tokens};

/// The most bytes of a text.
const BYTES_MAX: usize = 16 << 10;

/// What passes holds reads alone.
pub fn sql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(tokens) = tokens(text, BYTES_MAX) else {
        return;
    };
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    let Ok(statements) = parser.parse_statements() else {
        return;
    };
    for statement in &statements {
        match admit(statement, |zone| zone == "UTC") {
            Ok(Admitted::Query) => assert!(statement.visit(&mut Reads).is_continue(), "{text}"),
            Ok(Admitted::Describe(_) | Admitted::ShowTables) => {}
            Err(error) => assert!((400..500).contains(&error.kind().status())),
        }
    }
}

/// Stops at anything but a query, and at a query that repeats or locks.
struct Reads;

impl Visitor for Reads {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        match recursive || !query.locks.is_empty() {
            false => ControlFlow::Continue(()),
            true => ControlFlow::Break(()),
        }
    }
}
