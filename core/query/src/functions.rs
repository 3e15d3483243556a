//! The functions a query may call: an allow-list, deny by default.
//!
//! Left out are functions that read or tell anything but their arguments (`input_file_name`,
//! `version`, `random`, `uuid`, `file_row_index`), table functions (`bins` alone exists), and those
//! whose result can be far larger than their arguments (`repeat`, `lpad`, `replace`,
//! `generate_series`, …): the memory pool does not see the strings and lists they make.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use crate::carry::Locf;
use crate::counters::Counter;
use crate::sketches::{Quantile, SketchCount};
use crate::text::Concat;

const SCALAR: &[&str] = &[
    // numbers
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    // choice
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    // time
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "to_char",
    "to_date",
    "to_local_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    // text
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "contains",
    "ends_with",
    "initcap",
    "left",
    "lower",
    "ltrim",
    "octet_length",
    "regexp_count",
    "regexp_like",
    "reverse",
    "right",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "translate",
    "upper",
    // lists, as array_agg makes them
    "array_distinct",
    "array_element",
    "array_has",
    "array_length",
    "array_max",
    "array_min",
    "array_sort",
    "cardinality",
    "make_array",
    // types
    "arrow_typeof",
];

const AGGREGATE: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

const WINDOW: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Functions by every name they answer to.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) scalar: HashMap<String, Arc<ScalarUDF>>,
    pub(crate) aggregate: HashMap<String, Arc<AggregateUDF>>,
    pub(crate) window: HashMap<String, Arc<WindowUDF>>,
}

/// The allowed functions; one set for the process.
pub(crate) static ALLOWED: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions {
        scalar: HashMap::new(),
        aggregate: HashMap::new(),
        window: HashMap::new(),
    };
    for udf in SessionStateDefaults::default_scalar_functions() {
        if SCALAR.contains(&udf.name()) {
            for name in udf.aliases().iter().cloned().chain([udf.name().to_owned()]) {
                functions.scalar.insert(name, Arc::clone(&udf));
            }
        }
    }
    let concat = Arc::new(ScalarUDF::from(Concat::function()));
    functions.scalar.insert(concat.name().to_owned(), concat);
    if let Some(date_bin) = functions.scalar.get("date_bin").cloned() {
        functions.scalar.insert("time_bucket".to_owned(), date_bin);
    }
    for udf in SessionStateDefaults::default_aggregate_functions() {
        if AGGREGATE.contains(&udf.name()) {
            for name in udf.aliases().iter().cloned().chain([udf.name().to_owned()]) {
                functions.aggregate.insert(name, Arc::clone(&udf));
            }
        }
    }
    for udf in SessionStateDefaults::default_window_functions() {
        if WINDOW.contains(&udf.name()) {
            for name in udf.aliases().iter().cloned().chain([udf.name().to_owned()]) {
                functions.window.insert(name, Arc::clone(&udf));
            }
        }
    }
    for udf in [
        AggregateUDF::from(Quantile::new()),
        AggregateUDF::from(SketchCount::new()),
        AggregateUDF::from(Counter::increase()),
        AggregateUDF::from(Counter::rate()),
    ] {
        let name = udf.name().to_owned();
        functions.aggregate.insert(name, Arc::new(udf));
    }
    let locf = Arc::new(WindowUDF::from(Locf::new()));
    functions.window.insert(locf.name().to_owned(), locf);
    functions
});

impl Functions {
    /// Every name a query may use, for "did you mean".
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let scalar = self.scalar.keys().map(String::as_str);
        let aggregate = self.aggregate.keys().map(String::as_str);
        scalar
            .chain(aggregate)
            .chain(self.window.keys().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_name_is_a_function() {
        for name in SCALAR {
            assert!(
                ALLOWED.scalar.contains_key(*name),
                "no scalar function {name}"
            );
        }
        for name in AGGREGATE {
            assert!(ALLOWED.aggregate.contains_key(*name), "no aggregate {name}");
        }
        for name in WINDOW {
            // Aggregates are window functions too.
            let found = ALLOWED.window.contains_key(*name) || ALLOWED.aggregate.contains_key(*name);
            assert!(found, "no window function {name}");
        }
    }

    #[test]
    fn functions_that_blow_up_or_look_around_are_absent() {
        for name in [
            "repeat",
            "lpad",
            "rpad",
            "replace",
            "regexp_replace",
            "overlay",
            "array_repeat",
            "array_resize",
            "generate_series",
            "range",
            "random",
            "uuid",
            "version",
            "input_file_name",
            "file_row_index",
            "levenshtein",
            "arrow_cast",
            "concat_ws",
        ] {
            assert!(!ALLOWED.names().any(|n| n == name), "{name} is allowed");
        }
    }
}
