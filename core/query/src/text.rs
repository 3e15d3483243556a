//! The text functions that DataFusion lacks or that need a bound: `tags->>'key'`, `||`, `concat`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, StringArray, StringBuilder, StringViewArray, StringViewBuilder,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use stele_model::tags;

/// Bytes one `||` or `concat` may make: nesting them would otherwise double without end.
const CONCAT_BYTES_MAX: usize = 8 << 10;
/// Bytes one `||` or `concat` may make of all rows of one batch, which no pool accounts for.
const CONCAT_BATCH_BYTES_MAX: usize = 8 << 20;
/// Dictionaries whose values are remembered by one query.
const MEMO_MAX: usize = 64;

/// Plans `->>` and `||`, which DataFusion's parser knows and its planner does not, or not safely.
#[derive(Debug)]
pub(crate) struct Operators {
    tag_value: Arc<ScalarUDF>,
    concat: Arc<ScalarUDF>,
}

impl Operators {
    pub(crate) fn new() -> Self {
        Self {
            tag_value: Arc::new(ScalarUDF::from(TagValue::default())),
            concat: Arc::new(ScalarUDF::from(Concat::operator())),
        }
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let udf = match expr.op {
            BinaryOperator::LongArrow => &self.tag_value,
            BinaryOperator::StringConcat => {
                // Lists that are joined again and again double without end.
                for side in [&expr.left, &expr.right] {
                    if side.get_type(schema)?.is_nested() {
                        return plan_err!("|| joins texts, not lists");
                    }
                }
                &self.concat
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let call = ScalarFunction::new_udf(Arc::clone(udf), vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// `tag_value(tags, key)`: the value of one tag in canonical tag text, NULL when absent.
///
/// Tags come dictionary-encoded, and the batches of a row group share one dictionary: its values
/// are looked up once and remembered by the dictionary's address, which the memo keeps alive.
#[derive(Default)]
pub(crate) struct TagValue {
    memo: Mutex<Vec<Memo>>,
}

struct Memo {
    dictionary: StringArray,
    key: String,
    values: StringViewArray,
}

impl fmt::Debug for TagValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagValue")
    }
}

/// There is one function of this name: instances differ only in what they remember.
impl PartialEq for TagValue {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for TagValue {}

impl Hash for TagValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "tag_value".hash(state);
    }
}

/// Whether two string arrays are the same memory.
pub(crate) fn same_memory(a: &StringArray, b: &StringArray) -> bool {
    a.len() == b.len()
        && a.value_data().as_ptr() == b.value_data().as_ptr()
        && a.offsets().as_ptr() == b.offsets().as_ptr()
}

fn look_up(texts: &StringArray, key: &str) -> StringViewArray {
    let mut out = StringViewBuilder::with_capacity(texts.len());
    for text in texts {
        out.append_option(text.and_then(|text| tags::get(text, key)));
    }
    out.finish()
}

impl TagValue {
    /// The tag's value per entry of the dictionary.
    fn of_dictionary(&self, dictionary: &StringArray, key: &str) -> StringViewArray {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |m: &&Memo| same_memory(&m.dictionary, dictionary) && m.key == key;
        if let Some(found) = memo.iter().rev().find(same) {
            return found.values.clone();
        }
        let values = look_up(dictionary, key);
        if memo.len() == MEMO_MAX {
            memo.remove(0);
        }
        memo.push(Memo {
            dictionary: dictionary.clone(),
            key: key.to_owned(),
            values: values.clone(),
        });
        values
    }

    fn of_array(&self, texts: &ArrayRef, key: &str) -> Result<ArrayRef> {
        if let Some(dictionary) = texts.as_dictionary_opt::<Int32Type>() {
            let texts = cast(dictionary.values(), &DataType::Utf8)?;
            let values = self.of_dictionary(texts.as_string(), key);
            return Ok(take(&values, dictionary.keys(), None)?);
        }
        let texts = cast(texts, &DataType::Utf8)?;
        Ok(Arc::new(look_up(texts.as_string(), key)))
    }
}

fn literal(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

impl ScalarUDFImpl for TagValue {
    fn name(&self) -> &'static str {
        "tag_value"
    }

    fn signature(&self) -> &Signature {
        static SIGNATURE: std::sync::LazyLock<Signature> =
            std::sync::LazyLock::new(|| Signature::any(2, Volatility::Immutable));
        &SIGNATURE
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let is_text = |t: &DataType| match t {
            DataType::Dictionary(_, value) => value.is_string(),
            other => other.is_string() || other.is_null(),
        };
        if arguments.iter().all(is_text) {
            Ok(DataType::Utf8View)
        } else {
            exec_err!("->> takes tags and a tag's name, both text")
        }
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        match arguments {
            [tags, key] => Ok(format!("{} ->> {}", tags.schema_name(), key.schema_name())),
            _ => exec_err!("->> takes two arguments"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts, key] = args.args.as_slice() else {
            return exec_err!("->> takes two arguments");
        };
        let ColumnarValue::Scalar(key) = key else {
            return exec_err!("the tag's name after ->> must be a literal");
        };
        let Some(key) = literal(key) else {
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(None)));
        };
        match texts {
            ColumnarValue::Array(texts) => Ok(ColumnarValue::Array(self.of_array(texts, key)?)),
            ColumnarValue::Scalar(text) => {
                let value = literal(text).and_then(|text| tags::get(text, key));
                let value = value.map(|v| v.into_owned());
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(value)))
            }
        }
    }
}

/// `a || b` (NULL when either is) and `concat(a, …)` (NULLs are left out), with bounded results.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Concat {
    name: &'static str,
    null_wins: bool,
    signature: Signature,
}

impl Concat {
    pub(crate) fn operator() -> Self {
        Self {
            name: "||",
            null_wins: true,
            signature: Signature::any(2, Volatility::Immutable),
        }
    }

    pub(crate) fn function() -> Self {
        Self {
            name: "concat",
            null_wins: false,
            signature: Signature::one_of(vec![TypeSignature::VariadicAny], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let parts = args
            .args
            .into_iter()
            .map(|part| Ok(cast(&part.into_array(rows)?, &DataType::Utf8)?))
            .collect::<Result<Vec<_>>>()?;
        let parts: Vec<&StringArray> = parts.iter().map(|p| p.as_string::<i32>()).collect();
        let mut out = StringBuilder::new();
        let mut text = String::new();
        let mut bytes = 0;
        for row in 0..rows {
            text.clear();
            if self.null_wins && parts.iter().any(|part| part.is_null(row)) {
                out.append_null();
                continue;
            }
            for part in parts.iter().filter(|part| !part.is_null(row)) {
                text.push_str(part.value(row));
            }
            if text.len() > CONCAT_BYTES_MAX {
                return exec_err!(
                    "{} would make {} bytes of text, the limit is {CONCAT_BYTES_MAX}",
                    self.name,
                    text.len()
                );
            }
            bytes += text.len();
            if bytes > CONCAT_BATCH_BYTES_MAX {
                return exec_err!(
                    "{} would make more than {CONCAT_BATCH_BYTES_MAX} bytes of text of {rows} rows",
                    self.name
                );
            }
            out.append_value(&text);
        }
        let out: ArrayRef = Arc::new(out.finish());
        if all_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?));
        }
        Ok(ColumnarValue::Array(out))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array};
    use arrow::datatypes::Field;
    use datafusion::config::ConfigOptions;

    use super::*;

    fn call(udf: &dyn ScalarUDFImpl, args: Vec<ColumnarValue>, rows: usize) -> Result<ArrayRef> {
        let field = |t: DataType| Arc::new(Field::new("x", t, true));
        let args = ScalarFunctionArgs {
            arg_fields: args.iter().map(|a| field(a.data_type())).collect(),
            args,
            number_rows: rows,
            return_field: field(DataType::Utf8View),
            config_options: Arc::new(ConfigOptions::default()),
        };
        udf.invoke_with_args(args)?.into_array(rows)
    }

    fn text(s: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(s.to_owned())))
    }

    #[test]
    fn a_tag_is_looked_up_once_per_dictionary_and_absent_is_null() {
        let udf = TagValue::default();
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            r#"{"host":"a\"b"}"#,
            r#"{"host":"b","z":"1"}"#,
            "{}",
        ]));
        for keys in [vec![0, 1, 2, 1], vec![2, 2, 0, 1]] {
            let column = DictionaryArray::new(Int32Array::from(keys.clone()), Arc::clone(&texts));
            let got = call(
                &udf,
                vec![ColumnarValue::Array(Arc::new(column)), text("host")],
                4,
            )
            .unwrap();
            let want = keys
                .iter()
                .map(|k| [Some("a\"b"), Some("b"), None][*k as usize]);
            assert_eq!(got.as_string_view(), &want.collect::<StringViewArray>());
        }
        assert_eq!(udf.memo.lock().unwrap().len(), 1);
    }

    #[test]
    fn text_of_any_form_has_tags() {
        let udf = TagValue::default();
        let plain: ArrayRef = Arc::new(StringViewArray::from(vec![Some(r#"{"a":"1"}"#), None]));
        let got = call(&udf, vec![ColumnarValue::Array(plain), text("a")], 2).unwrap();
        assert_eq!(
            got.as_string_view(),
            &StringViewArray::from(vec![Some("1"), None])
        );
        let got = call(&udf, vec![text(r#"{"a":"1"}"#), text("b")], 1).unwrap();
        assert!(got.is_null(0));
    }

    #[test]
    fn concatenation_is_bounded() {
        let long = "x".repeat(CONCAT_BYTES_MAX - 1);
        assert!(call(&Concat::operator(), vec![text(&long), text("y")], 1).is_ok());
        let error = call(&Concat::operator(), vec![text(&long), text("yz")], 1).unwrap_err();
        assert!(error.to_string().contains("limit is 8192"), "{error}");
    }

    #[test]
    fn null_wins_in_the_operator_and_is_skipped_by_the_function() {
        let null = || ColumnarValue::Scalar(ScalarValue::Utf8(None));
        let got = call(&Concat::operator(), vec![text("a"), null()], 1).unwrap();
        assert!(got.is_null(0));
        let got = call(&Concat::function(), vec![text("a"), null(), text("b")], 1).unwrap();
        assert_eq!(got.as_string::<i32>().value(0), "ab");
    }
}
