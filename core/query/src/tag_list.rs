//! The table `tags`: which tags the series have, how many values each, in how many series.
//!
//! It is a view over `series`: the pairs of every series' tags, unnested and counted. Exact, and
//! as current as every other table.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, UnnestOptions, exec_err};
use datafusion::functions_aggregate::expr_fn::{count, count_distinct};
use datafusion::logical_expr::{
    ColumnarValue, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, col, lit,
};
use stele_model::tags;

/// The view over the plan of `series`.
///
/// # Errors
/// When the plan cannot be built.
pub(crate) fn view(series: LogicalPlan) -> Result<LogicalPlan> {
    let part = |part: Part| ScalarUDF::from(TagParts { part }).call(vec![col("tags")]);
    let each = UnnestOptions::new().with_preserve_nulls(false);
    LogicalPlanBuilder::from(series)
        .project(vec![
            part(Part::Names).alias("tag"),
            part(Part::Values).alias("value"),
        ])?
        .unnest_columns_with_options(vec!["tag".into(), "value".into()], each)?
        .aggregate(
            vec![col("tag")],
            vec![
                count_distinct(col("value")).alias("value_count"),
                count(lit(1)).alias("series_count"),
            ],
        )?
        .build()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Names,
    Values,
}

/// The names, or the values, of the tags in canonical tag text, in the order of the names.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TagParts {
    part: Part,
}

impl ScalarUDFImpl for TagParts {
    fn name(&self) -> &'static str {
        match self.part {
            Part::Names => "tag_names",
            Part::Values => "tag_values",
        }
    }

    fn signature(&self) -> &Signature {
        static SIGNATURE: LazyLock<Signature> =
            LazyLock::new(|| Signature::any(1, Volatility::Immutable));
        &SIGNATURE
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        let item = Field::new_list_field(DataType::Utf8, true);
        Ok(DataType::List(Arc::new(item)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts] = args.args.as_slice() else {
            return exec_err!("{} takes tags", self.name());
        };
        let texts = cast(&texts.to_array(args.number_rows)?, &DataType::Utf8)?;
        let mut out = ListBuilder::new(StringBuilder::new());
        for text in texts.as_string::<i32>() {
            for (name, value) in text.into_iter().flat_map(tags::iter) {
                out.values().append_value(match self.part {
                    Part::Names => name,
                    Part::Values => value,
                });
            }
            out.append(true);
        }
        let out: ArrayRef = Arc::new(out.finish());
        Ok(ColumnarValue::Array(out))
    }
}
