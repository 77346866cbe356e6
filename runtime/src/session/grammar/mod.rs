//! Which tokens an answer may be made of.
//!
//! A grammar is a finite automaton over tokens. A state has the tokens that may come next, each with the state behind
//! it, or the end of the answer. A set of tokens is one state that leads back to itself. Choices are a tree, here of
//! "no", "no idea" and "yes":
//!
//! ```text
//!  start ─── no ──▶ state 1 ─── end-of-sequence ──▶ end
//!    │                └──────── idea ──▶ end
//!    └────── yes ─▶ end
//! ```

mod detections;
mod error;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::model::Model;
use crate::model::config::TokenIds;
use crate::tokenizer::EncodeScratch;
pub use error::GrammarError;

/// What an answer may be: any tokens of a set, one of some choices, or objects with some labels.
///
/// At every step the model's head is multiplied only in the stripes of 16 rows that have an allowed token, and not at
/// all where a single token is allowed. A logit that is computed has the bits that it has without a grammar; all others
/// count as -∞. So the likeliest token, the draw by chance, `top_k`, `top_p` and the probabilities are those of the
/// softmax over the allowed tokens.
///
/// Made once, outside of any session and its plan; clones share it. Answering with it allocates nothing.
///
/// ```no_run
/// use palmtop::{GenerateOptions, Grammar, Model};
///
/// # fn main() -> palmtop::Result<()> {
/// let model = Model::open("paligemma.palm".as_ref())?;
/// let mut options = GenerateOptions::default();
/// options.grammar = Some(Grammar::choices(&model, ["yes", "no", "unknown"])?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Grammar(Arc<Automaton>);

struct Automaton {
    /// The model that it was made for: [`Model::fingerprint`].
    model: u64,
    states: Vec<State>,
    /// Tokens of all states' edges, ascending in each state.
    tokens: Vec<u32>,
    /// The state that each of them leads to, or [`END`].
    next: Vec<u32>,
    tokens_max: Option<usize>,
}

struct State {
    /// Its part of `tokens` and `next`.
    edges: Range<u32>,
    /// From here one way leads to the end, and no other anywhere.
    determined: bool,
    /// Probabilities here are those among all tokens, not only among the allowed ones.
    among_all: bool,
}

/// The state before the first token.
pub(crate) const START: u32 = 0;
/// Behind the last token.
pub(crate) const END: u32 = u32::MAX;

/// Tokens of all choices together, and tokens that all states allow together.
const TOKENS_MAX: usize = 1 << 20;
/// Bytes of a choice's text.
const CHOICE_BYTES_MAX: usize = 4096;

impl Grammar {
    /// Answers of any of these tokens, in any order. End-of-sequence is allowed too, so that the model can end the
    /// answer; see [`Grammar::exactly`] for answers that it cannot end. A token named twice counts once.
    ///
    /// # Errors
    /// [`GrammarError::NoTokens`] for an empty list, [`GrammarError::NoSuchToken`] for an id beyond the vocabulary.
    pub fn tokens(model: &Model, tokens: impl IntoIterator<Item = u32>) -> Result<Self, GrammarError> {
        Self::set(model, tokens, &model.config().tokens.eos)
    }

    /// Answers of these tokens and no others: without end-of-sequence among them, an answer has as many tokens as it
    /// may have. A token named twice counts once.
    ///
    /// # Errors
    /// As [`Grammar::tokens`].
    pub fn exactly(model: &Model, tokens: impl IntoIterator<Item = u32>) -> Result<Self, GrammarError> {
        Self::set(model, tokens, &[])
    }

    fn set(model: &Model, tokens: impl IntoIterator<Item = u32>, more: &[u32]) -> Result<Self, GrammarError> {
        let vocab = model.config().text.vocab;
        let mut allowed = vec![false; vocab];
        let mut any = false;
        for token in tokens {
            *allowed.get_mut(token as usize).ok_or(GrammarError::NoSuchToken { token, vocab })? = true;
            any = true;
        }
        if !any {
            return Err(GrammarError::NoTokens);
        }
        more.iter().for_each(|&token| allowed[token as usize] = true);
        let tokens: Vec<u32> = (0..).zip(allowed).filter_map(|(token, is)| is.then_some(token)).collect();
        let states = vec![State { edges: 0..tokens.len() as u32, determined: false, among_all: false }];
        let next = vec![START; tokens.len()];
        Ok(Self(Arc::new(Automaton { model: model.fingerprint(), states, tokens, next, tokens_max: None })))
    }

    /// Answers that are one of these texts and nothing else.
    ///
    /// The model chooses token by token, each time among the choices that go on from what it has written: the
    /// probabilities of all choices add up to 1 (see [`Answer::likelihood`](crate::Answer::likelihood)). Where one
    /// choice begins another, it chooses whether to end. What is left when only one choice remains is given without
    /// computing, and the end of a choice ends the answer, whatever
    /// [`stop_at_eos`](crate::GenerateOptions::stop_at_eos) says. A text given twice counts once.
    ///
    /// # Errors
    /// For no text at all, an empty one, one that is longer than 4096 bytes, contains control tokens, or is not spelled
    /// back by its own tokens, and for more than 2²⁰ tokens in all. An answer with less room than the longest choice
    /// needs is refused when it is asked for.
    pub fn choices<S: AsRef<str>>(
        model: &Model,
        texts: impl IntoIterator<Item = S>,
    ) -> Result<Self, GrammarError> {
        let tokenizer = model.tokenizer();
        let mut scratch = EncodeScratch::with_capacity(CHOICE_BYTES_MAX);
        let (mut sequences, mut tokens, mut spelled) = (Sequences::of(model), Vec::new(), String::new());
        for (choice, text) in (1..).zip(texts) {
            let text = text.as_ref();
            let (bytes, bytes_max) = (text.len(), CHOICE_BYTES_MAX);
            if bytes > bytes_max {
                return Err(GrammarError::ChoiceTooLong { choice, bytes, bytes_max });
            }
            tokens.clear();
            tokenizer.encode(text, &mut scratch, &mut tokens)?;
            spelled.clear();
            tokenizer.decode(&tokens, false, &mut spelled)?;
            if spelled != text {
                return Err(GrammarError::Unspellable { choice, text: text.to_owned(), spelled });
            }
            sequences.push(&tokens)?;
        }
        sequences.into_grammar()
    }

    /// Like [`Grammar::choices`], of tokens as they are.
    ///
    /// # Errors
    /// As [`Grammar::choices`], and [`GrammarError::NoSuchToken`] for an id beyond the vocabulary.
    pub fn sequences<S: AsRef<[u32]>>(
        model: &Model,
        sequences: impl IntoIterator<Item = S>,
    ) -> Result<Self, GrammarError> {
        let mut all = Sequences::of(model);
        sequences.into_iter().try_for_each(|tokens| all.push(tokens.as_ref()))?;
        all.into_grammar()
    }

    /// Tokens of the longest answer; `None` if the grammar sets no end.
    pub fn tokens_max(&self) -> Option<usize> {
        self.0.tokens_max
    }

    /// An error unless answers of up to `tokens_max` tokens of this model can follow it.
    pub(crate) fn check(&self, model: &Model, tokens_max: usize) -> Result<(), GrammarError> {
        if self.0.model != model.fingerprint() {
            return Err(GrammarError::OtherModel);
        }
        match self.0.tokens_max {
            Some(tokens) if tokens > tokens_max => {
                Err(GrammarError::LongerThanAnswers { tokens, tokens_max })
            }
            _ => Ok(()),
        }
    }

    /// The tokens whose logits are needed in `state`; `None` for all.
    pub(crate) fn needed(&self, state: u32) -> Option<&[u32]> {
        (!self.is_among_all(state)).then(|| self.allowed(state))
    }

    /// True if probabilities in `state` are those among all tokens.
    pub(crate) fn is_among_all(&self, state: u32) -> bool {
        self.0.states[state as usize].among_all
    }

    /// The tokens that `state` allows, ascending; at least one. All are below the vocabulary's size.
    pub(crate) fn allowed(&self, state: u32) -> &[u32] {
        &self.0.tokens[self.edges(state)]
    }

    /// The state behind the `index`-th allowed token, or [`END`].
    pub(crate) fn next(&self, state: u32, index: usize) -> u32 {
        self.0.next[self.edges(state)][index]
    }

    /// The one token that can follow, and the state behind it, if all up to the end is certain.
    pub(crate) fn certain(&self, state: u32) -> Option<(u32, u32)> {
        (state != END && self.0.states[state as usize].determined)
            .then(|| (self.allowed(state)[0], self.next(state, 0)))
    }

    /// The one token that can follow, and the state behind it.
    pub(crate) fn only(&self, state: u32) -> Option<(u32, u32)> {
        match *self.allowed(state) {
            // Its probability is wanted, so it is computed.
            _ if self.is_among_all(state) => None,
            [token] => Some((token, self.next(state, 0))),
            _ => None,
        }
    }

    /// The state behind a token, if it can follow.
    pub(crate) fn follow(&self, state: u32, token: u32) -> Option<u32> {
        // Nothing follows the end, though the model's own end-of-sequence token may lead there.
        let allowed = if state == END { &[] } else { self.allowed(state) };
        allowed.binary_search(&token).ok().map(|index| self.next(state, index)).filter(|&next| next != END)
    }

    fn edges(&self, state: u32) -> Range<usize> {
        let Range { start, end } = self.0.states[state as usize].edges;
        start as usize..end as usize
    }
}

impl fmt::Debug for Grammar {
    /// Sizes only: sets and choices can be long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Automaton { states, tokens, tokens_max, .. } = &*self.0;
        let (states, edges) = (states.len(), tokens.len());
        let mut out = f.debug_struct("Grammar");
        out.field("states", &states).field("edges", &edges);
        out.field("tokens_max", tokens_max).finish()
    }
}

/// Choices as sequences of tokens that an answer can have.
struct Sequences<'a> {
    model: &'a Model,
    tokens: Vec<u32>,
    /// Where each sequence ends in `tokens`.
    ends: Vec<usize>,
}

impl<'a> Sequences<'a> {
    fn of(model: &'a Model) -> Self {
        Self { model, tokens: Vec::new(), ends: Vec::new() }
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), GrammarError> {
        let choice = self.ends.len() + 1;
        if tokens.is_empty() {
            return Err(GrammarError::EmptyChoice { choice });
        }
        if tokens.len() > TOKENS_MAX - self.tokens.len() {
            return Err(GrammarError::TooManyTokens { tokens_max: TOKENS_MAX });
        }
        let vocab = self.model.config().text.vocab;
        let TokenIds { bos, eos, pad, image } = &self.model.config().tokens;
        let tokenizer = self.model.tokenizer();
        for &token in tokens {
            if [*bos, *pad, *image].contains(&token) || eos.contains(&token) || tokenizer.is_special(token) {
                return Err(GrammarError::ControlToken { choice, token });
            }
            if token as usize >= vocab {
                return Err(GrammarError::NoSuchToken { token, vocab });
            }
        }
        self.tokens.extend_from_slice(tokens);
        self.ends.push(self.tokens.len());
        Ok(())
    }

    /// The grammar of all sequences.
    fn into_grammar(self) -> Result<Grammar, GrammarError> {
        let config = self.model.config();
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let sequences = starts.zip(&self.ends).map(|(start, &end)| &self.tokens[start..end]).collect();
        Ok(Grammar(Arc::new(tree(self.model.fingerprint(), config.tokens.eos.clone(), sequences)?)))
    }
}

/// The tree of some sequences, none of them empty, and `eos` behind those that begin others.
fn tree(model: u64, mut eos: Vec<u32>, mut sequences: Vec<&[u32]>) -> Result<Automaton, GrammarError> {
    let longest = sequences.iter().map(|sequence| sequence.len()).max();
    let tokens_max = Some(longest.ok_or(GrammarError::NoChoices)?);
    sequences.sort_unstable();
    sequences.dedup();
    eos.sort_unstable();
    eos.dedup();
    let (mut states, mut tokens, mut next) = (Vec::new(), Vec::new(), Vec::new());
    let mut edges: Vec<(u32, u32)> = Vec::new();
    // A state is the sequences that begin alike, and how many tokens they have in common. States are numbered in the
    // order in which they come here, so that what follows a state has a higher number.
    let mut waiting = VecDeque::from([(0..sequences.len(), 0)]);
    let mut known = 1;
    while let Some((Range { mut start, end }, depth)) = waiting.pop_front() {
        edges.clear();
        // Sorted and distinct: only the first can end here.
        if sequences[start].len() == depth {
            edges.extend(eos.iter().map(|&token| (token, END)));
            start += 1;
        }
        while start < end {
            let token = sequences[start][depth];
            let alike = sequences[start..end].partition_point(|sequence| sequence[depth] == token);
            if alike == 1 && sequences[start].len() == depth + 1 {
                edges.push((token, END));
            } else {
                edges.push((token, known));
                known += 1;
                waiting.push_back((start..start + alike, depth + 1));
            }
            start += alike;
        }
        // A model file may name any number of tokens that end an answer.
        if tokens.len() + edges.len() > 2 * TOKENS_MAX {
            return Err(GrammarError::TooManyTokens { tokens_max: TOKENS_MAX });
        }
        edges.sort_unstable();
        let first = tokens.len() as u32;
        tokens.extend(edges.iter().map(|edge| edge.0));
        next.extend(edges.iter().map(|edge| edge.1));
        states.push(State { edges: first..tokens.len() as u32, determined: false, among_all: false });
    }
    for i in (0..states.len()).rev() {
        let Range { start, end } = states[i].edges;
        let follows = next[start as usize];
        states[i].determined = end - start == 1 && (follows == END || states[follows as usize].determined);
    }
    Ok(Automaton { model, states, tokens, next, tokens_max })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EOS: [u32; 2] = [5, 1];

    fn of(sequences: &[Vec<u32>]) -> Grammar {
        let sequences = sequences.iter().map(Vec::as_slice).collect();
        Grammar(Arc::new(tree(10, EOS.to_vec(), sequences).unwrap()))
    }

    /// All answers from a state on, each with what is before it; checks what is promised of each state.
    fn answers(grammar: &Grammar, state: u32, before: &[u32], all: &mut Vec<Vec<u32>>) {
        let (allowed, count) = (grammar.allowed(state), all.len());
        assert!(allowed.is_sorted_by(|a, b| a < b) && !allowed.is_empty());
        for (index, &token) in allowed.iter().enumerate() {
            let path = [before, &[token]].concat();
            match grammar.next(state, index) {
                END => all.push(path),
                next => answers(grammar, next, &path, all),
            }
        }
        let only = &all[count..];
        assert_eq!(
            grammar.certain(state).map(|(token, _)| token),
            (only.len() == 1).then(|| only[0][before.len()])
        );
    }

    #[test]
    fn a_tree_has_its_sequences_and_no_others() {
        // All kinds of lists of up to six sequences of the tokens 2, 3 and 4, up to five long.
        let mut random = 1u32;
        let mut below = |n: u32| {
            random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (random >> 16) % n
        };
        for _ in 0..2000 {
            let sequences: Vec<Vec<u32>> =
                (0..=below(6)).map(|_| (0..=below(5)).map(|_| 2 + below(3)).collect()).collect();
            let mut got = Vec::new();
            answers(&of(&sequences), START, &[], &mut got);
            let begins_another = |s: &[u32]| sequences.iter().any(|o| o.len() > s.len() && o.starts_with(s));
            let mut want = BTreeSet::new();
            for sequence in &sequences {
                if begins_another(sequence) {
                    want.extend(EOS.map(|eos| [&sequence[..], &[eos]].concat()));
                } else {
                    want.insert(sequence.clone());
                }
            }
            assert_eq!(got.len(), want.len(), "{sequences:?} has {got:?}");
            assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), want);
        }
    }

    #[test]
    fn behind_the_end_nothing_is_certain() {
        assert_eq!(of(&[vec![2, 3]]).certain(END), None);
    }

    #[test]
    fn any_number_of_tokens_may_end_an_answer() {
        let eos: Vec<u32> = (0..1 << 20).collect();
        let long = [7; 4];
        let all = |n: usize| (1..=n).map(|len| &long[..len]).collect();
        assert!(tree(1 << 21, eos.clone(), all(2)).is_ok());
        assert!(matches!(tree(1 << 21, eos, all(4)), Err(GrammarError::TooManyTokens { .. })));
    }
}
