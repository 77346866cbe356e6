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
    order: Vec<u32>,
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
        let token = if how.temperature > 0.0 { self.draw(logits, max, how) } else { best };
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

    fn draw(&mut self, logits: &[f32], max: f32, how: &Sampling) -> u32 {
        let likelier = |a: &u32, b: &u32| {
            let order = logits[*b as usize].partial_cmp(&logits[*a as usize]).unwrap_or(Ordering::Equal);
            order.then(a.cmp(b))
        };
        let all = logits.len();
        let order = &mut self.order[..all];
        order.iter_mut().enumerate().for_each(|(i, o)| *o = i as u32);
        let k = if how.top_k == 0 { all } else { how.top_k.min(all) };
        if k < all {
            order.select_nth_unstable_by(k - 1, likelier);
        }
        let candidates = &mut order[..k];
        let cut_by_p = how.top_p > 0.0 && how.top_p < 1.0;
        if cut_by_p {
            candidates.sort_unstable_by(likelier);
        }
        let mut total = 0.0;
        for (w, &token) in self.weights.iter_mut().zip(&*candidates) {
            *w = libm::expf((logits[token as usize] - max) / how.temperature);
            total += *w;
        }
        let mut n = k;
        if cut_by_p {
            let (mut sum, wanted) = (0.0, how.top_p * total);
            n = self.weights[..k]
                .iter()
                .position(|w| {
                    sum += w;
                    sum >= wanted
                })
                .map_or(k, |i| i + 1);
            total = self.weights[..n].iter().sum();
        }
        let mut point = self.uniform() * total;
        for (w, &token) in self.weights[..n].iter().zip(&self.order[..n]) {
            point -= w;
            if point < 0.0 {
                return token;
            }
        }
        self.order[n - 1]
    }

    /// A number in 0..1 by SplitMix64 (Steele, Lea, Flood 2014).
    fn uniform(&mut self) -> f32 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
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

fn probability(kernels: &Kernels, logit: f32, max: f32, total: f32) -> f32 {
    kernels.sum_exp(&[logit], max) / total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Kernels {
        Kernels::select().unwrap()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut logits = vec![0.0; 5000];
        logits[3000] = 2.0;
        logits[4000] = 2.0;
        let choice = Sampler::new(&mut Reserve::taking(false), 5000).unwrap().choose(
            &kernels(),
            &logits,
            &Sampling::default(),
        );
        assert_eq!(choice.token, 3000);
        let e = 2f64.exp();
        assert!((f64::from(choice.probability) - e / (2.0 * e + 4998.0)).abs() < 1e-7);
    }

    #[test]
    fn logits_of_nothing_but_nan_still_give_a_token() {
        let choice = Sampler::new(&mut Reserve::taking(false), 10).unwrap().choose(
            &kernels(),
            &[f32::NAN; 10],
            &Sampling::default(),
        );
        assert!(choice.token < 10);
        let how = Sampling { temperature: 1.0, top_k: 3, top_p: 0.5, seed: 1 };
        assert!(
            Sampler::new(&mut Reserve::taking(false), 10)
                .unwrap()
                .choose(&kernels(), &[f32::NAN; 10], &how)
                .token
                < 10
        );
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
                let mut sampler = Sampler::new(&mut Reserve::taking(false), 3000).unwrap();
                sampler.seed(how.seed);
                let got = sampler.choose_among(&kernels(), &mut logits.clone(), tokens, &how);
                sampler.seed(how.seed);
                let want = sampler.choose(&kernels(), &some, &how);
                assert_eq!((got.token, got.probability), (want.token, want.probability));
            }
        }
        let alone = Sampler::new(&mut Reserve::taking(false), 3).unwrap().choose_among(
            &kernels(),
            &mut [f32::NAN; 3],
            &[1],
            &hows[1],
        );
        assert_eq!((alone.token, alone.probability), (0, 1.0));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let count = |how: Sampling| {
            let mut sampler = Sampler::new(&mut Reserve::taking(false), 4).unwrap();
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
