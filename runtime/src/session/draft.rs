//! Which tokens of a draft may come next.
//!
//! A draft is what an answer may turn out to be, such as the last one about the same scene, and an answer often differs
//! from it in a token here and there: a box has moved by a step, a colour has changed, an object has come. So a wrong
//! token does not end the draft. The answer's last two tokens are looked for in it, and it goes on behind them; where
//! they are not, it goes on as if the wrong token stood for one of its own.

use crate::error::Result;
use crate::system::memory::Reserve;

/// Tokens that are proposed until so many were right in succession behind a wrong one: with the one that is certain
/// they make four rows, which a product takes in little more than the time of one.
const PROPOSED_AFTER_ERROR: usize = 3;
/// After so many wrong ones in succession nothing is proposed before two tokens of the answer are found in the draft.
const ERRORS_MAX: usize = 2;

/// A draft, and how far an answer has come in it.
pub(super) struct Draft {
    tokens: Vec<u32>,
    /// The place of the token that is expected next, if one is.
    next: Option<usize>,
    /// Expected tokens that came, since the last one that did not.
    right: usize,
    /// Tokens in succession that were not expected.
    wrong: usize,
}

impl Draft {
    /// Room for drafts of up to so many tokens.
    pub fn new(reserve: &mut Reserve, tokens: usize) -> Result<Self> {
        Ok(Self { tokens: reserve.list(tokens)?, next: None, right: 0, wrong: 0 })
    }

    /// Takes another draft, for an answer that begins.
    pub fn start(&mut self, tokens: impl Iterator<Item = u32>) {
        self.tokens.clear();
        self.tokens.extend(tokens);
        (self.next, self.right, self.wrong) = (Some(0), PROPOSED_AFTER_ERROR, 0);
    }

    /// What may come next, up to `most` tokens.
    pub fn proposed(&self, most: usize) -> &[u32] {
        let Some(rest) = self.next.and_then(|next| self.tokens.get(next..)) else { return &[] };
        let trusted = if self.right < PROPOSED_AFTER_ERROR { PROPOSED_AFTER_ERROR } else { rest.len() };
        &rest[..rest.len().min(trusted).min(most)]
    }

    /// Follows the answer's next token, which comes behind `answer`.
    pub fn follow(&mut self, answer: &[u32], token: u32) {
        if let Some(next) = &mut self.next
            && self.tokens.get(*next) == Some(&token)
        {
            *next += 1;
            self.right += 1;
            self.wrong = 0;
            return;
        }
        self.right = 0;
        self.wrong += 1;
        // The token stands for one of the draft's, or, where nothing is known, for the one of its own place.
        let instead = self.next.map_or(answer.len(), |next| next + 1);
        let found = answer.last().and_then(|&before| self.behind([before, token], instead));
        self.next = found.or((self.wrong <= ERRORS_MAX).then_some(instead));
    }

    /// Whether the last token that was followed was the first of those [`proposed`](Self::proposed) before it.
    pub fn was_right(&self) -> bool {
        self.right > 0
    }

    /// The place behind `pair` that is closest to `near`.
    fn behind(&self, pair: [u32; 2], near: usize) -> Option<usize> {
        let places = self.tokens.windows(2).enumerate().filter(|(_, tokens)| *tokens == pair);
        places.map(|(at, _)| at + 2).min_by_key(|place| place.abs_diff(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is proposed behind each token of the answer, at most four tokens.
    fn proposals(draft: &mut Draft, answer: &[u32]) -> Vec<Vec<u32>> {
        let follow = |i: usize| {
            draft.follow(&answer[..i], answer[i]);
            draft.proposed(4).to_vec()
        };
        (0..answer.len()).map(follow).collect()
    }

    fn of(tokens: &[u32]) -> Draft {
        let mut draft = Draft { tokens: Vec::new(), next: None, right: 0, wrong: 0 };
        draft.start(tokens.iter().copied());
        draft
    }

    #[test]
    fn a_right_draft_is_proposed_to_its_end() {
        let mut draft = of(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(draft.proposed(9), [1, 2, 3, 4, 5, 6]);
        let got = proposals(&mut draft, &[1, 2, 3, 4, 5, 6, 7]);
        let want: [&[u32]; 7] = [&[2, 3, 4, 5], &[3, 4, 5, 6], &[4, 5, 6], &[5, 6], &[6], &[], &[]];
        assert_eq!(got, want);
    }

    #[test]
    fn a_wrong_token_stands_for_one_of_the_draft() {
        let mut draft = of(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let got = proposals(&mut draft, &[1, 20, 3, 4, 5]);
        // Three rows at most, until three were right.
        let want: [&[u32]; 5] = [&[2, 3, 4, 5], &[3, 4, 5], &[4, 5, 6], &[5, 6, 7], &[6, 7, 8, 9]];
        assert_eq!(got, want);
    }

    #[test]
    fn two_tokens_of_the_draft_say_where_it_goes_on() {
        // What the answer has more: three wrong ones in succession, then a pair that is found.
        let mut more = of(&[1, 2, 3, 4, 5, 6]);
        let want: [&[u32]; 5] = [&[2, 3, 4, 5], &[3, 4, 5], &[4, 5, 6], &[], &[4, 5, 6]];
        assert_eq!(proposals(&mut more, &[1, 20, 21, 2, 3]), want);
        // What it has less; the first of two such places is nearer.
        let mut less = of(&[1, 2, 3, 4, 5, 6, 4, 5, 7]);
        let want: [&[u32]; 3] = [&[2, 3, 4, 5], &[3, 4, 5], &[6, 4, 5]];
        assert_eq!(proposals(&mut less, &[1, 4, 5]), want);
    }

    #[test]
    fn a_draft_of_something_else_is_left_until_it_is_found_again() {
        let mut draft = of(&[1, 2, 3, 4, 5, 6]);
        let got = proposals(&mut draft, &[20, 21, 22, 23, 3, 4]);
        let want: [&[u32]; 6] = [&[2, 3, 4], &[3, 4, 5], &[], &[], &[], &[5, 6]];
        assert_eq!(got, want);
    }

    #[test]
    fn an_empty_draft_proposes_nothing() {
        assert_eq!(proposals(&mut of(&[]), &[1, 2]), [[0u32; 0]; 2]);
    }
}
