//! What measures the machine's limits does the work that it counts.

use palmtop_kernels::{Isa, Kernels};

#[test]
fn three_rounds_make_three_times_the_products_of_one() {
    for kernels in Isa::ALL.into_iter().filter_map(Kernels::try_new) {
        let [(once, one), (thrice, three)] = [1, 3].map(|rounds| kernels.peak_multiply(rounds));
        assert!(once > 0 && thrice == 3 * once, "{}: {once} and {thrice}", kernels.isa());
        assert!(one > 0.0 && three == 3.0 * one, "{}: {one} and {three}", kernels.isa());
    }
}

#[test]
fn all_of_the_memory_is_read() {
    for kernels in Isa::ALL.into_iter().filter_map(Kernels::try_new) {
        for vectors in [0, 1, 2, 77, 1000] {
            let memory = vec![1.0; 64 * vectors];
            assert_eq!(kernels.peak_read(&memory), memory.len() as f32, "{}", kernels.isa());
        }
    }
}
