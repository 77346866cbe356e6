//! From logits to the next token.

use std::cmp::Ordering;

use palmtop_kernels::Kernels;

use crate::error::Result;
use crate::system::memory::Reserve;

/// How the next token is chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the so many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 0 or 1 for all.
    pub top_p: f32,
    /// The same seed gives the same answer.
    pub seed: u64,
}

/// Memory for choosing, and the state of the random numbers.
pub(crate) struct Sampler {
    /// Tokens, partly ranked.
    order: Vec<u32>,
    /// Of each token; the likeliest has 1.
    weights: Vec<f32>,
    random: u64,
}

/// A token and the probability that the model gave to it (at temperature 1, whatever the sampling).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub token: u32,
    pub probability: f32,
}

impl Sampler {
    pub fn new(reserve: &mut Reserve, vocab: usize) -> Result<Self> {
        Ok(Self { order: reserve.filled(vocab, 0)?, weights: reserve.filled(vocab, 0.0)?, random: 0 })
    }

    /// Starts the random numbers of an answer.
    pub fn seed(&mut self, seed: u64) {
        self.random = seed;
    }

    /// Random numbers so far, to go on with later.
    pub fn state(&self) -> u64 {
        self.random
    }

    /// Chooses from a row of logits.
    pub fn choose(&mut self, kernels: &Kernels, logits: &[f32], how: &Sampling) -> Choice {
        let (best, max) = likeliest(logits);
        let total = kernels.sum_exp(logits, max);
        let token = if how.temperature > 0.0 { self.draw(logits, best, max, how) } else { best };
        let probability = probability(kernels, logits[token as usize], max, total);
        Choice { token, probability }
    }

    /// Chooses among some tokens of a row of logits, at least one, named in ascending order; the choice's token is an
    /// index into them. Only their logits are read, and none if there is one token. What the row holds is used up.
    pub fn choose_among(
        &mut self,
        kernels: &Kernels,
        logits: &mut [f32],
        tokens: &[u32],
        how: &Sampling,
    ) -> Choice {
        if tokens.len() == 1 {
            return Choice { token: 0, probability: 1.0 };
        }
        // Ascending, so what is moved to the front has been read before.
        for (i, &token) in tokens.iter().enumerate() {
            logits[i] = logits[token as usize];
        }
        self.choose(kernels, &logits[..tokens.len()], how)
    }

    /// The same, with the probability among all tokens of the row: all logits are read.
    pub fn choose_with_all(
        &mut self,
        kernels: &Kernels,
        logits: &mut [f32],
        tokens: &[u32],
        how: &Sampling,
    ) -> Choice {
        let (_, max) = likeliest(logits);
        let total = kernels.sum_exp(logits, max);
        if let [token] = *tokens {
            return Choice {
                token: 0,
                probability: probability(kernels, logits[token as usize], max, total),
            };
        }
        let Choice { token, .. } = self.choose_among(kernels, logits, tokens, how);
        // The chosen one's logit has been moved to its place among the allowed ones.
        Choice { token, probability: probability(kernels, logits[token as usize], max, total) }
    }

    /// Draws a token by chance; `best` is the likeliest, which has the logit `max`.
    ///
    /// Tokens are ranked by logit, equal ones by number. Those that take part are the first `top_k` of this ranking,
    /// and of them no more than needed to reach `top_p` of their weight; that is where the ranking is cut. It is not
    /// sorted for that, which would take longer than all else: selecting the n-th takes time in proportion to the
    /// tokens. Weights are whole numbers, so that their sums are exact in any order, and nothing small is lost in a
    /// large vocabulary.
    fn draw(&mut self, logits: &[f32], best: u32, max: f32, how: &Sampling) -> u32 {
        let all = logits.len();
        let weights = &mut self.weights[..all];
        for (w, &logit) in weights.iter_mut().zip(logits) {
            *w = libm::expf((logit - max) / how.temperature);
        }
        let order = &mut self.order[..all];
        order.iter_mut().enumerate().for_each(|(i, o)| *o = i as u32);
        let ranking = |a: &u32, b: &u32| rank(logits, *a, *b);
        let mut n = all;
        if how.top_k > 0 && how.top_k < all {
            n = how.top_k;
            order.select_nth_unstable_by(n - 1, ranking);
        }
        if how.top_p > 0.0 && how.top_p < 1.0 {
            let sum = |tokens: &[u32]| tokens.iter().map(|&t| whole(weights[t as usize])).sum::<u64>();
            let wanted = share(sum(&order[..n]), how.top_p);
            // The first `from` are too few; the first `n` are enough.
            let (mut from, mut before) = (0, 0);
            while n - from > 1 {
                let middle = from + (n - from) / 2;
                order[from..n].select_nth_unstable_by(middle - from, ranking);
                let with_half = before + sum(&order[from..middle]);
                if with_half >= wanted {
                    n = middle;
                } else {
                    (from, before) = (middle, with_half);
                }
            }
        }
        // The last that takes part; one place further on are those that do not.
        let last = (n < all).then(|| order[..n].iter().copied().max_by(ranking)).flatten();
        let takes_part = |token: u32| last.is_none_or(|last| rank(logits, token, last).is_le());
        let candidates = || (0..all as u32).filter(|&token| takes_part(token));
        let total: u64 = candidates().map(|token| whole(weights[token as usize])).sum();
        let mut point = below(self.random_bits(), total);
        for token in candidates() {
            let weight = whole(self.weights[token as usize]);
            if point < weight {
                return token;
            }
            point -= weight;
        }
        // No weight is a number.
        best
    }

    /// 64 random bits by SplitMix64 (Steele, Lea, Flood 2014).
    fn random_bits(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The order of likelihood, the likelier one first; of equal ones the one of the smaller number. NaN counts as
/// impossible.
fn rank(logits: &[f32], a: u32, b: u32) -> Ordering {
    let logit =
        |token: u32| Some(logits[token as usize]).filter(|x| !x.is_nan()).unwrap_or(f32::NEG_INFINITY);
    logit(b).partial_cmp(&logit(a)).expect("neither is NaN").then(a.cmp(&b))
}

/// A weight in 0..=1 as a whole number of 2⁻⁴⁰; NaN has none. A vocabulary of up to 2²³ tokens adds up in 64 bits.
fn whole(weight: f32) -> u64 {
    (f64::from(weight) * (1u64 << 40) as f64) as u64
}

/// The least whole number that is at least `p` of `total`, and not more than `total`; at least 1 if there is as much.
fn share(total: u64, p: f32) -> u64 {
    let share = (f64::from(p) * total as f64).ceil() as u64;
    share.max(1).min(total)
}

/// `random` of the range of 64 bits, as the same part of 0..`total`.
fn below(random: u64, total: u64) -> u64 {
    ((u128::from(random) * u128::from(total)) >> 64) as u64
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> (u32, f32) {
    const BLOCK: usize = 1024;
    let block_max = |block: &[f32]| block.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let (mut best, mut max) = (0, f32::NEG_INFINITY);
    for (i, block) in logits.chunks(BLOCK).enumerate() {
        let m = block_max(block);
        if m > max {
            (best, max) = (i, m);
        }
    }
    let from = best * BLOCK;
    let inside = logits[from..].iter().position(|&x| x == max).unwrap_or(0);
    ((from + inside) as u32, max)
}

fn probability(kernels: &Kernels, logit: f32, max: f32, total: f64) -> f32 {
    (kernels.sum_exp(&[logit], max) / total) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(vocab: usize) -> Sampler {
        Sampler::new(&mut Reserve::taking(false), vocab).unwrap()
    }

    fn kernels() -> Kernels {
        Kernels::select().unwrap()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut logits = vec![0.0; 5000];
        logits[3000] = 2.0;
        logits[4000] = 2.0;
        let choice = sampler(5000).choose(&kernels(), &logits, &Sampling::default());
        assert_eq!(choice.token, 3000);
        let e = 2f64.exp();
        assert!((f64::from(choice.probability) - e / (2.0 * e + 4998.0)).abs() < 1e-7);
    }

    #[test]
    fn logits_of_nothing_but_nan_still_give_a_token() {
        let choice = sampler(10).choose(&kernels(), &[f32::NAN; 10], &Sampling::default());
        assert!(choice.token < 10);
        let how = Sampling { temperature: 1.0, top_k: 3, top_p: 0.5, seed: 1 };
        assert!(sampler(10).choose(&kernels(), &[f32::NAN; 10], &how).token < 10);
    }

    #[test]
    fn a_choice_among_some_tokens_is_that_of_a_row_of_them() {
        let logits: Vec<f32> = (0..3000u32).map(|i| (i * 7919 % 3001) as f32 * 0.003).collect();
        let hows = [
            Sampling::default(),
            Sampling { temperature: 1.5, seed: 5, ..Sampling::default() },
            Sampling { temperature: 1.0, top_k: 2, top_p: 0.9, seed: 6 },
        ];
        let all: Vec<u32> = (0..3000).collect();
        for tokens in [&all[..], &all[17..40], &[0, 2999], &[5, 900, 901, 2000]] {
            let some: Vec<f32> = tokens.iter().map(|&t| logits[t as usize]).collect();
            for how in hows {
                let mut sampler = sampler(3000);
                sampler.seed(how.seed);
                let got = sampler.choose_among(&kernels(), &mut logits.clone(), tokens, &how);
                sampler.seed(how.seed);
                let want = sampler.choose(&kernels(), &some, &how);
                assert_eq!((got.token, got.probability), (want.token, want.probability));
            }
        }
        let alone = sampler(3).choose_among(&kernels(), &mut [f32::NAN; 3], &[1], &hows[1]);
        assert_eq!((alone.token, alone.probability), (0, 1.0));
    }

    /// The same by sorting everything.
    fn drawn_by_sorting(logits: &[f32], how: &Sampling) -> u32 {
        let (best, max) = likeliest(logits);
        let weight = |t: u32| whole(libm::expf((logits[t as usize] - max) / how.temperature));
        let mut ranked: Vec<u32> = (0..logits.len() as u32).collect();
        ranked.sort_by(|&a, &b| rank(logits, a, b));
        ranked.truncate(if how.top_k == 0 { usize::MAX } else { how.top_k });
        if how.top_p > 0.0 && how.top_p < 1.0 {
            let wanted = share(ranked.iter().map(|&t| weight(t)).sum(), how.top_p);
            let mut sum = 0;
            let reached = ranked.iter().position(|&t| {
                sum += weight(t);
                sum >= wanted
            });
            ranked.truncate(reached.unwrap() + 1);
        }
        ranked.sort();
        let mut sampler = sampler(0);
        sampler.seed(how.seed);
        let mut point = below(sampler.random_bits(), ranked.iter().map(|&t| weight(t)).sum());
        let drawn = ranked.iter().find(|&&t| {
            let here = point < weight(t);
            point = point.wrapping_sub(weight(t));
            here
        });
        drawn.copied().unwrap_or(best)
    }

    #[test]
    fn draws_are_those_of_a_full_sort() {
        let mut random = sampler(0);
        random.seed(1);
        let mut drawn = std::collections::BTreeSet::new();
        for round in 0..6000u64 {
            let mut below = |n: u64| random.random_bits() % n;
            let n = 1 + below(if round % 10 == 0 { 3000 } else { 40 }) as usize;
            // Few different logits, so that many are equal; both zeros; and at times what is no number.
            let steps = 1 + below(50);
            let logits: Vec<f32> = (0..n)
                .map(|_| match below(60) {
                    0 if round % 3 == 0 => f32::NAN,
                    1 if round % 3 == 0 => f32::NEG_INFINITY,
                    2 if round % 30 == 0 => f32::INFINITY,
                    3 => -0.0,
                    _ => below(steps) as f32 * 0.25 - 2.0,
                })
                .collect();
            let how = Sampling {
                temperature: [0.01, 0.5, 1.0, 3.0][below(4) as usize],
                top_k: [0, 1, 2, 5, n / 2, n, n + 1][below(7) as usize],
                top_p: [0.0, 1e-9, 0.3, 0.5, 0.9, 0.999_999, 1.0][below(7) as usize],
                seed: below(u64::MAX),
            };
            let mut sampler = sampler(n);
            sampler.seed(how.seed);
            let token = sampler.choose(&kernels(), &logits, &how).token;
            assert_eq!(token, drawn_by_sorting(&logits, &how), "{how:?} of {logits:?}");
            drawn.insert(token);
        }
        assert!(drawn.len() > 100, "the draws differ");
    }

    /// As many tokens as PaliGemma has, of which one has half of the probability and all others together the other
    /// half.
    #[test]
    fn many_small_probabilities_are_not_lost() {
        let n = 257_152;
        let mut logits = vec![-((n - 1) as f32).ln(); n];
        logits[77] = 0.0;
        let mut sampler = sampler(n);
        let how = Sampling { temperature: 1.0, ..Sampling::default() };
        let choice = sampler.choose(&kernels(), &logits, &Sampling::default());
        assert!((choice.probability - 0.5).abs() < 1e-6, "{}", choice.probability);
        let small = (0..200).filter(|_| sampler.choose(&kernels(), &logits, &how).token != 77).count();
        assert!((60..140).contains(&small), "{small} of 200");
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let count = |how: Sampling| {
            let mut sampler = sampler(4);
            sampler.seed(how.seed);
            let mut counts = [0; 4];
            (0..20000).for_each(|_| counts[sampler.choose(&kernels(), &logits, &how).token as usize] += 1);
            counts.map(|c| f64::from(c) / 20000.0)
        };
        let close = |got: [f64; 4], want: [f64; 4]| {
            got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() < 0.015, "{got:?} for {want:?}"));
        };
        let how = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        close(count(how), [0.5, 0.3, 0.15, 0.05]);
        close(count(Sampling { top_k: 2, ..how }), [0.625, 0.375, 0.0, 0.0]);
        close(count(Sampling { top_p: 0.6, ..how }), [0.625, 0.375, 0.0, 0.0]);
        close(count(Sampling { top_p: 0.4, ..how }), [1.0, 0.0, 0.0, 0.0]);
        let squares = 0.25 + 0.09 + 0.0225 + 0.0025;
        close(count(Sampling { temperature: 0.5, ..how }), [0.25, 0.09, 0.0225, 0.0025].map(|p| p / squares));
        assert_eq!(count(how), count(how));
    }
}
