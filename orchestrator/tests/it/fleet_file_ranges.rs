//! Ranges: properties that hold for all of them.

use std::collections::BTreeSet;

use orchestrator::fleet_file::range::{Pattern, RangeErrorKind, compress};
use proptest::prelude::*;

fn expand(text: &str) -> Vec<String> {
    Pattern::parse(text).unwrap().expand().collect()
}

#[test]
fn ranges_expand_in_order_and_keep_their_padding() {
    assert_eq!(expand("gpu-[08-11]"), ["gpu-08", "gpu-09", "gpu-10", "gpu-11"]);
    assert_eq!(expand("gpu-[8-11]"), ["gpu-8", "gpu-9", "gpu-10", "gpu-11"]);
    assert_eq!(expand("n[1,3,7-9]x"), ["n1x", "n3x", "n7x", "n8x", "n9x"]);
    assert_eq!(expand("r[1-2]-n[01-02]"), ["r1-n01", "r1-n02", "r2-n01", "r2-n02"]);
    assert_eq!(expand("[0-1]"), ["0", "1"]);
    assert_eq!(expand("plain"), ["plain"]);
}

#[test]
fn mistakes_are_placed() {
    let mistake = |text: &'static str| {
        let error = Pattern::parse(text).unwrap_err();
        (&text[error.at], error.kind)
    };
    assert_eq!(mistake("a[1-2]b[3-x]"), ("3-x", RangeErrorKind::NotANumber));
    assert_eq!(mistake("a[1,5-2]"), ("5-2", RangeErrorKind::Backwards));
    assert_eq!(mistake("a[1:2]"), ("1:2", RangeErrorKind::Colon));
    assert_eq!(mistake("a[1"), ("[1", RangeErrorKind::Unclosed));
    assert_eq!(mistake("a1]"), ("]", RangeErrorKind::Unopened));
    assert_eq!(mistake("a[]"), ("", RangeErrorKind::Empty));
    assert_eq!(mistake("a[9999999999]"), ("9999999999", RangeErrorKind::NotANumber));
    assert_eq!(mistake("a[[1-2]]"), ("[1-2", RangeErrorKind::NotANumber));
}

#[test]
fn a_count_beyond_u64_saturates_and_expands_nothing() {
    let pattern = Pattern::parse(&"[0-999999999]".repeat(5)).unwrap();
    assert_eq!(pattern.count(), u64::MAX);
}

#[test]
fn compression_is_short() {
    let names = ["gpu-07", "gpu-01", "gpu-02", "gpu-03", "gpu-04", "login"];
    assert_eq!(compress(names), "gpu-[01-04,07],login");
    assert_eq!(compress(["gpu-08", "gpu-09", "gpu-10", "gpu-11"]), "gpu-[08-11]");
    assert_eq!(compress(["n1", "n10", "n9"]), "n[1,9-10]");
    assert_eq!(compress(["r1-n1.x", "r1-n2.x", "r2-n1.x"]), "r1-n[1-2].x,r2-n1.x");
    assert_eq!(compress(["a", "a"]), "a");
    assert_eq!(compress([]), "");
}

/// Splits what `compress` prints at the commas outside brackets.
fn patterns(text: &str) -> Vec<String> {
    let mut depth = 0;
    let pieces = text.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    pieces.filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
}

fn number_set() -> impl Strategy<Value = String> {
    let item = (0u32..500, 0u32..30, 0usize..5).prop_map(|(low, more, width)| {
        if width == 0 {
            format!("{low}-{}", low + more)
        } else {
            format!("{low:04}-{:04}", low + more)
        }
    });
    prop::collection::vec(item, 1..4).prop_map(|items| format!("[{}]", items.join(",")))
}

fn pattern_text() -> impl Strategy<Value = String> {
    let part = prop_oneof!["[a-z.-]{0,4}", number_set()];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_count_is_the_number_of_texts(text in pattern_text()) {
        let pattern = Pattern::parse(&text).unwrap();
        prop_assume!(pattern.count() <= 20_000);
        prop_assert_eq!(pattern.expand().count() as u64, pattern.count());
    }

    #[test]
    fn a_printed_pattern_means_the_same(text in pattern_text()) {
        let pattern = Pattern::parse(&text).unwrap();
        prop_assert_eq!(Pattern::parse(&pattern.to_string()).unwrap(), pattern);
    }

    #[test]
    fn padded_numbers_are_all_of_one_width(low in 0u32..1000, more in 0u32..2000) {
        let texts = expand(&format!("n[{low:05}-{:05}]", low + more));
        prop_assert!(texts.iter().all(|text| text.len() == 6));
    }

    #[test]
    fn what_is_compressed_expands_to_the_same_names(
        names in prop::collection::btree_set("[a-c]{0,2}[0-9]{0,3}[a-b-]{0,1}[0-9]{0,2}", 0..40)
    ) {
        let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let printed = compress(names.iter().map(String::as_str));
        let back: Vec<String> = patterns(&printed).iter().flat_map(|p| expand(p)).collect();
        let unique: BTreeSet<String> = back.iter().cloned().collect();
        prop_assert_eq!(back.len(), unique.len());
        prop_assert_eq!(unique, names);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\[\\]0-9,:a-\u{e9}-]{0,20}") {
        if let Err(error) = Pattern::parse(&text) {
            prop_assert!(text.get(error.at).is_some());
        }
    }
}
