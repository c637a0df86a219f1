//! NVML's clock throttle reasons (`nvmlClocksThrottleReason*`, `nvmlClocksEventReason*` since
//! R535) as words.

/// Each bit's word. The table is our own, since the wrapper's lacks two bits that matter.
const REASONS: [(u64, &str); 9] = [
    (0x001, "gpu_idle"),
    (0x002, "applications_clocks_setting"),
    (0x004, "sw_power_cap"),
    (0x008, "hw_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "sw_thermal_slowdown"),
    (0x040, "hw_thermal_slowdown"),
    (0x080, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
];

/// The words of a set of bits. Bits of a later driver are kept, in hexadecimal.
pub(super) fn words(bits: u64) -> Vec<String> {
    let known = REASONS.iter().filter(|(bit, _)| bits & bit != 0);
    let mut words: Vec<String> = known.map(|(_, word)| (*word).to_owned()).collect();
    let rest = REASONS.iter().fold(bits, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        words.push(format!("unknown_{rest:#x}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn bits_become_words_and_unknown_bits_are_kept() {
        assert_eq!(words(0), Vec::<String>::new());
        assert_eq!(words(0x48), ["hw_slowdown", "hw_thermal_slowdown"]);
        assert_eq!(words(0x1080), ["hw_power_brake_slowdown", "unknown_0x1000"]);
    }
}
