//! A model table for GPUs that are fakes: sizes that a CPU can do, and times that say nothing.

/// How long a phase may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub expected_us: u64,
    pub floor_us: u64,
}

/// Ten minutes: no judgement of speed at all. Only a test may have such a table.
pub const ANY: Times = Times { expected_us: 600_000_000, floor_us: 1 };

/// The table with these times for every phase, and two products.
pub fn with(times: Times) -> String {
    with_products(times, 2)
}

/// The same with so many products, which are most of the work of a stand-in.
pub fn with_products(times: Times, products: u8) -> String {
    let Times { expected_us, floor_us } = times;
    let phase = format!(
        "{{ expected_us = {expected_us}, floor_us = {floor_us}, evidence = \"modelled\" }}"
    );
    let profile = |name: &str| {
        format!(
            "[model.{name}]\nsizes = {{ leaf_iterations = 1, blocks = 600, chains = 16, steps = 4, \
             windows = 2, window_shift = 2, gemms = {products}, gemm_dimension = 256 }}\n\
             fill = {phase}\nchain = {phase}\ngemm = {phase}\n"
        )
    };
    format!(
        "# The fakes of the tests: envelopes that judge nothing.\n[[model]]\nid = 4001\n\
         name = \"fake\"\ndriver_names = [\"FAKE GPU (SIMT shim)\"]\ncompute_capability = [9, 0]\n\
         memory_bytes = 67_108_864\nvariant = \"mma\"\n{}{}",
        profile("quick"),
        profile("deep")
    )
}
