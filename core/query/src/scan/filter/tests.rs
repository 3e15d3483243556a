//! Claims about which conditions are recognised and what they match.

use datafusion::logical_expr::{col, lit};
use proptest::prelude::*;

use super::*;

fn us(t: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(
        Some(t),
        Some("UTC".into()),
    ))
}

fn ns(t: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(t), None))
}

#[test]
fn bounds_on_ts_become_one_range() {
    let filters = [
        col("ts").gt_eq(us(10)),
        us(20).gt(col("ts")).and(col("ts").lt_eq(us(50))),
    ];
    let conditions = Conditions::of(&filters).unwrap();
    assert_eq!(conditions.ts, TsRange { from: 10, to: 19 });
}

#[test]
fn literals_finer_than_a_microsecond_do_not_shift_the_range() {
    let range = |e: Expr| Conditions::of(&[e]).unwrap().ts;
    assert_eq!(range(col("ts").gt_eq(ns(1_500))).from, 2);
    assert_eq!(range(col("ts").gt(ns(1_500))).from, 2);
    assert_eq!(range(col("ts").gt_eq(ns(2_000))).from, 2);
    assert_eq!(range(col("ts").lt(ns(1_500))).to, 1);
    assert_eq!(range(col("ts").lt_eq(ns(1_500))).to, 1);
    assert_eq!(range(col("ts").lt(ns(2_000))).to, 1);
    assert!(range(col("ts").eq(ns(1_500))).is_empty());
}

proptest! {
    #[test]
    fn a_range_holds_exactly_what_the_comparison_says(ts in -50i64..50, literal in -50_000i64..50_000, op in 0..5) {
        let op = [Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq, Operator::Eq][op as usize];
        let range = compare(op, literal_us(&ScalarValue::TimestampNanosecond(Some(literal), None)).unwrap()).unwrap();
        let ns = ts * 1_000;
        let want = match op {
            Operator::Lt => ns < literal,
            Operator::LtEq => ns <= literal,
            Operator::Gt => ns > literal,
            Operator::GtEq => ns >= literal,
            _ => ns == literal,
        };
        prop_assert_eq!(range.holds(ts, ts), want);
    }
}

#[test]
fn conditions_over_several_columns_are_left_to_others() {
    assert!(is_exact(
        &col("metric").eq(lit("a")).and(col("ts").gt(us(1)))
    ));
    assert!(!is_exact(
        &col("metric").eq(lit("a")).or(col("ts").gt(us(1)))
    ));
    assert!(!is_exact(&col("metric").eq(col("tags"))));
    assert!(!is_exact(&col("value").gt(lit(1.0))));
    assert!(!is_exact(&col("ts").not_eq(us(1))));
}

#[test]
fn listed_texts_are_candidates_and_other_conjuncts_thin_them_out() {
    let filters = [
        col("metric").in_list(vec![lit("a"), lit("b"), lit("c")], false),
        col("metric").not_eq(lit("b")),
    ];
    let condition = Conditions::of(&filters).unwrap().metric.unwrap();
    let want: BTreeSet<String> = ["a", "c"].into_iter().map(str::to_owned).collect();
    assert_eq!(condition.candidates(), Some(&want));
    assert!(condition.may_match("a", "b") && !condition.may_match("b", "b"));
}

#[test]
fn a_condition_gives_the_same_verdict_on_texts_dictionaries_and_columns() {
    let filter = col("tags").like(lit("%x%"));
    let condition = Conditions::of(&[filter]).unwrap().tags.unwrap();
    assert_eq!(condition.candidates(), None);
    let texts = StringArray::from(vec!["x", "y", "axb"]);
    let dictionary = condition.of_dictionary(&texts).unwrap();
    assert_eq!(dictionary, BooleanArray::from(vec![true, false, true]));
    for (text, verdict) in texts.iter().zip(&dictionary) {
        assert_eq!(condition.of_text(text.unwrap()).unwrap(), verdict.unwrap());
    }
    let keys = Int32Array::from(vec![2, 1, 1, 0]);
    let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(texts)));
    let rows = condition.of_column(&column).unwrap();
    assert_eq!(rows, BooleanArray::from(vec![true, false, false, true]));
}
