//! How many tables a query reads once every `WITH` query stands where it is named.
//!
//! The planner copies a `WITH` query to each place, so twelve lines that each name the line before
//! twice are 4,096 scans.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Query, Visit, Visitor};

use crate::error::{Error, Result, limit};

/// Scans of one statement.
const SCANS_MAX: usize = 64;
/// `WITH` queries of one statement.
const WITHS_MAX: usize = 16;

/// Counts the scans of a query.
///
/// # Errors
/// When it has more than are allowed.
pub(crate) fn check(query: &Query) -> Result<()> {
    let mut weigher = Weigher::default();
    match query.visit(&mut weigher) {
        ControlFlow::Continue(()) => limit("scans", weigher.last, SCANS_MAX),
        ControlFlow::Break(error) => Err(*error),
    }
}

#[derive(Default)]
struct Weigher {
    /// `WITH` queries not yet weighed, by address: the tree does not move while it is walked.
    pending: HashMap<*const Query, String>,
    /// The weight of each name; the heavier where one name stands for two.
    known: HashMap<String, usize>,
    /// The queries being walked, innermost last.
    open: Vec<usize>,
    withs: usize,
    /// The weight of the query that ended last.
    last: usize,
}

impl Visitor for Weigher {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Error>> {
        self.open.push(0);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.withs += 1;
            let name = cte.alias.name.value.to_lowercase();
            self.pending.insert(std::ptr::from_ref(&*cte.query), name);
        }
        match limit("WITH queries", self.withs, WITHS_MAX) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Box<Error>> {
        let plain = name.0.last().and_then(|part| part.as_ident());
        let plain = plain.map(|ident| ident.value.to_lowercase());
        let weight = plain.and_then(|name| self.known.get(&name)).copied();
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_add(weight.unwrap_or(1));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Error>> {
        let weight = self.open.pop().unwrap_or_default();
        self.last = weight;
        if let Some(name) = self.pending.remove(&std::ptr::from_ref(query)) {
            let known = self.known.entry(name).or_default();
            *known = weight.max(*known);
        }
        // A `WITH` query counts where it stands as well, named or not.
        if let Some(outer) = self.open.last_mut() {
            *outer = outer.saturating_add(weight);
        }
        ControlFlow::Continue(())
    }
}
