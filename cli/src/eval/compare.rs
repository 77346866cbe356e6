//! Compares two models: their answers, and their next-token distributions.

use palmtop::ImageFeatures;
use palmtop::session::{Answer, CancelToken, GenerateOptions, Session};

use super::tally::Mean;

/// Sums over the items that both models answered.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    /// Whether the answers are the same text.
    pub same: Mean,
    /// Kullback-Leibler divergence in nats of the second model's next-token distribution from the first one's, over all
    /// tokens of the first one's answers and what ends them.
    pub divergence: Mean,
    /// Whether the second model, given the first one's answer so far, finds the same token likeliest.
    pub same_token: Mean,
}

impl Agreement {
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.same, &other.same),
            (&mut self.divergence, &other.divergence),
            (&mut self.same_token, &other.same_token),
        ] {
            mine.add_all(theirs);
        }
    }
}

/// Teacher forcing: runs two models along the same answers, whatever they would have chosen. Holds the logits of one
/// answer: tokens · vocabulary · 4 bytes.
#[derive(Default)]
pub struct TeacherForcing {
    logits: Vec<f32>,
}

impl TeacherForcing {
    /// Runs both along the first model's answer, and adds what they find likely to `agreement`.
    pub fn run(
        &mut self,
        sessions: [(&mut Session, &[ImageFeatures]); 2],
        prompt: &str,
        answer: &Answer,
        cancel: &CancelToken,
        agreement: &mut Agreement,
    ) -> palmtop::Result<()> {
        let mut options = GenerateOptions::default();
        options.cancel = cancel.clone();
        let [(first, of_first), (second, of_second)] =
            sessions.map(|(session, features)| (session, features.iter().collect::<Vec<_>>()));
        self.logits.clear();
        let keep = |_, row: &[f32]| self.logits.extend_from_slice(row);
        first.force(&of_first, prompt, &answer.tokens, &options, &mut { keep })?;
        let mut of_answer = Agreement::default();
        second.force(&of_second, prompt, &answer.tokens, &options, &mut |i, row| {
            let first = &self.logits[i * row.len()..(i + 1) * row.len()];
            of_answer.divergence.add(divergence(first, row));
            of_answer.same_token.add(f64::from(u8::from(likeliest(first) == likeliest(row))));
        })?;
        agreement.add(&of_answer);
        Ok(())
    }
}

/// Σ p·ln(p/q) of the distributions p and q that two rows of logits mean; never negative.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_total, q_total) = (log_sum_exp(p), log_sum_exp(q));
    let term = |(&p, &q): (&f32, &f32)| {
        let (ln_p, ln_q) = (f64::from(p) - p_total, f64::from(q) - q_total);
        ln_p.exp() * (ln_p - ln_q)
    };
    // Rounding may lead below zero where the two are the same.
    p.iter().zip(q).map(term).sum::<f64>().max(0.0)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x)));
    most + logits.iter().map(|&x| (f64::from(x) - most).exp()).sum::<f64>().ln()
}

/// The first of the largest, as greedy decoding takes it.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(probabilities: &[f64], shift: f64) -> Vec<f32> {
        probabilities.iter().map(|p| (p.ln() + shift) as f32).collect()
    }

    #[test]
    fn divergence_by_hand() {
        let (p, q) = ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]);
        // 0.5·ln 2 - 0.25·ln 2, whatever is added to all logits.
        let want = 0.25 * 2f64.ln();
        for (a, b) in [(0.0, 0.0), (30.0, -80.0)] {
            assert!((divergence(&logits(&p, a), &logits(&q, b)) - want).abs() < 1e-5);
        }
        assert!(divergence(&logits(&p, 0.0), &logits(&p, 3.0)) < 1e-9);
        let sure = [80.0, -80.0];
        assert!((divergence(&sure, &[-80.0, 80.0]) - 160.0).abs() < 1e-9);
        assert!(divergence(&[1e30, 0.0], &[0.0, 0.0]).is_finite());
    }

    #[test]
    fn the_first_of_the_largest_is_likeliest() {
        assert_eq!(likeliest(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(likeliest(&[f32::NAN, 1.0]), 0);
    }
}
