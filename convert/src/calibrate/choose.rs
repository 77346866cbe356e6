//! Chooses the matrices that get more bits, so that the summed error is least within a given number of bytes.

/// A matrix that can be stored in few bytes or in more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Bytes in few bits, and in more.
    pub bytes: [u64; 2],
    /// What each costs in accuracy, in a unit that adds up.
    pub costs: [f64; 2],
}

/// Gives, for each candidate, whether it gets more bits; `None` if all in few bits have more than `bytes_max`
/// altogether.
///
/// Bytes go where one of them gains most, until none of what is left fits: no other choice of at most as many bytes has
/// a smaller sum, up to the size of one matrix. Of equal gains the first comes first.
pub fn choose(candidates: &[Candidate], bytes_max: u64) -> Option<Vec<bool>> {
    let mut left = bytes_max.checked_sub(candidates.iter().map(|c| c.bytes[0]).sum())?;
    let gain =
        |c: &Candidate| (c.costs[0] - c.costs[1]) / c.bytes[1].saturating_sub(c.bytes[0]).max(1) as f64;
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| gain(&candidates[b]).total_cmp(&gain(&candidates[a])));
    let mut chosen = vec![false; candidates.len()];
    for i in order {
        let c = &candidates[i];
        let more = c.bytes[1].saturating_sub(c.bytes[0]);
        if more <= left && c.costs[0] > c.costs[1] {
            left -= more;
            chosen[i] = true;
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::normal;

    fn candidate(bytes: u64, few: f64, more: f64) -> Candidate {
        Candidate { bytes: [bytes, 2 * bytes], costs: [few, more] }
    }

    #[test]
    fn bytes_go_where_they_gain_most() {
        let all = [
            candidate(100, 1.0, 0.1),
            candidate(100, 5.0, 0.1),
            candidate(10, 0.6, 0.1),
            candidate(50, 0.1, 0.2),
        ];
        assert_eq!(choose(&all, 259), None);
        assert_eq!(choose(&all, 260).unwrap(), [false; 4]);
        // The small one gains 0.05 a byte, the second 0.049, the first 0.009, the last nothing.
        assert_eq!(choose(&all, 270).unwrap(), [false, false, true, false]);
        assert_eq!(choose(&all, 370).unwrap(), [false, true, true, false]);
        assert_eq!(choose(&all, 10_000).unwrap(), [true, true, true, false]);
        assert!(choose(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn the_choice_is_near_the_best_of_all() {
        for seed in 0..20 {
            let value = |i: u64| f64::from(normal(seed, i).abs()) + 0.01;
            let all: Vec<Candidate> = (0..10)
                .map(|i| candidate((100.0 * value(i)) as u64 + 1, value(20 + i), 0.01 * value(40 + i)))
                .collect();
            let least: u64 = all.iter().map(|c| c.bytes[0]).sum();
            let largest = all.iter().map(|c| c.bytes[0]).max().unwrap();
            let cost = |chosen: &dyn Fn(usize) -> bool| -> (u64, f64) {
                let of = |(i, c): (usize, &Candidate)| {
                    (c.bytes[usize::from(chosen(i))], c.costs[usize::from(chosen(i))])
                };
                all.iter().enumerate().map(of).fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
            };
            for bytes_max in [least, least * 5 / 4, least * 3 / 2, least * 2] {
                let chosen = choose(&all, bytes_max).unwrap();
                let (bytes, got) = cost(&|i| chosen[i]);
                assert!(bytes <= bytes_max);
                // Every choice that leaves room for one matrix more is no better.
                for bits in 0..1u32 << all.len() {
                    let (bytes, other) = cost(&|i| bits >> i & 1 == 1);
                    assert!(
                        bytes + largest > bytes_max || got <= other + 1e-12,
                        "seed {seed}: {got} and {other}"
                    );
                }
            }
        }
    }
}
