//! The built-in model table, and texts that are none.

use pow_kernels::models::ModelTableError;
use pow_kernels::{Evidence, Mode, ModelTable};

const TEXT: &str = include_str!("../../../config/gpu-models.toml");

#[test]
fn the_built_in_table_is_the_file_and_finds_models() {
    let table = ModelTable::embedded();
    assert_eq!(table, &ModelTable::parse(TEXT).unwrap());
    let h100 = table.by_driver_name("NVIDIA H100 80GB HBM3").unwrap();
    assert_eq!(table.by_id(h100.id), Some(h100));
    assert_eq!(h100.profile(Mode::Quick).sizes.blocks, 4_697_798);
    assert_eq!(h100.profile(Mode::Deep).sizes.steps, 256);
    assert_eq!(table.by_driver_name("NVIDIA H100"), None, "names are whole names");
}

/// Changes to `measured` are for whoever has timed a trusted card.
#[test]
fn nothing_is_shipped_as_measured() {
    for model in ModelTable::embedded().models() {
        for profile in [&model.quick, &model.deep] {
            for phase in [profile.fill, profile.chain, profile.gemm] {
                assert_eq!(phase.evidence, Evidence::Modelled, "{}", model.name);
            }
        }
    }
}

/// A product, its tree, the records and a context need room beside the fill.
#[test]
fn every_profile_leaves_room_on_its_device() {
    for model in ModelTable::embedded().models() {
        for profile in [&model.quick, &model.deep] {
            let sizes = &profile.sizes;
            let trees = 64 * (sizes.product_bytes() / 1024 * u64::from(sizes.gemms))
                + 64 * u64::from(sizes.chains);
            let need = sizes.memory_bytes()
                + sizes.product_bytes()
                + sizes.record_bytes()
                + trees
                + (600 << 20);
            assert!(need < model.memory_bytes, "{}: {need}", model.name);
        }
    }
}

/// More than seven eighths of a card: N - 1 cards cannot hold N fills, for N up to 8.
#[test]
fn no_eight_fills_fit_into_seven_cards() {
    for model in ModelTable::embedded().models() {
        for profile in [&model.quick, &model.deep] {
            assert!(8 * profile.sizes.memory_bytes() > 7 * model.memory_bytes, "{}", model.name);
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let twice = format!("{TEXT}\n{}", &TEXT[TEXT.find("[[model]]").unwrap()..]);
    assert!(matches!(ModelTable::parse(&twice), Err(ModelTableError::Duplicate { .. })));
    let small = TEXT.replacen("memory_bytes = 34_089_205_760", "memory_bytes = 30_000_000_000", 1);
    assert!(matches!(ModelTable::parse(&small), Err(ModelTableError::FillTooLarge { .. })));
    let fast = TEXT.replacen("expected_us = 24_225", "expected_us = 19_000", 1);
    assert!(matches!(ModelTable::parse(&fast), Err(ModelTableError::BelowFloor { .. })));
    for (from, to) in [
        ("chains = 131_072", "chains = 131_073"),
        ("gemm_dimension = 4_096", "gemm_dimension = 2_097_152"),
        ("steps = 8", "steps = 0"),
        ("variant = \"dp4a\"", "variant = \"dp5a\""),
        ("id = 1", "id = 1\ncolour = 3"),
    ] {
        let text = TEXT.replacen(from, to, 1);
        assert_ne!(text, TEXT);
        assert!(matches!(ModelTable::parse(&text), Err(ModelTableError::Toml(_))), "{to}");
    }
}
