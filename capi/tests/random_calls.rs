//! Calls in random order with random arguments, always the same ones. `fuzz` goes on from here.

#[path = "../../fuzz/src/calls.rs"]
mod calls;

/// Bytes of no pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn any_calls_in_any_order_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let model = calls::tiny_model(folder.path());
    let mut done = [0; 3];
    for seed in 0..300 {
        // Begin with something to play with: a model, a session, features, a picture and an answer.
        let mut bytes = vec![0, 0, 2, 0, 1, 0, 3, 0, 4, 0, 0, 6, 16, 12, 0, 0, 0, 0, 0, 8];
        bytes.extend(noise(seed, 1500));
        let more = calls::play(&bytes, &model);
        done.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    // Not only errors.
    assert!(done[0] > 300 && done[1] > 60 && done[2] > 20, "{done:?}");
}
