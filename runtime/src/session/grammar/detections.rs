//! The grammar of answers to `detect` and `segment`: boxes, perhaps masks, and a label of the prompt behind each.
//!
//! ```text
//!  start ─ <loc> ×4 ─ <seg> ×16, with masks ─ label ─┬─ end-of-sequence ─▶ end
//!    └─ end-of-sequence ─▶ end                       └─ ";" ─ <loc> ×4 …
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Automaton, CHOICE_BYTES_MAX, END, Grammar, GrammarError, State, TOKENS_MAX};
use crate::model::Model;
use crate::tokenizer::EncodeScratch;

/// Tokens of a box, and of a mask.
const LOCATIONS: usize = 4;
const MASK_CODES: usize = 16;

impl Grammar {
    /// Answers to `detect` (or, with `masks`, to `segment`) with these labels: any number of objects, none included,
    /// each of four `<loc>` tokens, with `masks` sixteen `<seg>` tokens, and one of the labels. Whatever the model
    /// itself would answer, if that is of this form, is answered with the same tokens.
    ///
    /// Locations, mask codes and what separates objects are chosen from a small part of the head. The tokens of labels
    /// have the probabilities that the model gave them among all tokens, even where only one label is left, so that the
    /// scores of objects are those of an answer without a grammar, to the bit.
    ///
    /// # Errors
    /// As [`Grammar::choices`] for the labels; [`GrammarError::NoLocations`] for a model that has no such tokens.
    pub fn detections<S: AsRef<str>>(
        model: &Model,
        labels: impl IntoIterator<Item = S>,
        masks: bool,
    ) -> Result<Self, GrammarError> {
        let tokenizer = model.tokenizer();
        let locations = tokenizer.loc_ids().ok_or(GrammarError::NoLocations)?;
        let codes = tokenizer.seg_ids().filter(|_| masks);
        if masks && codes.is_none() {
            return Err(GrammarError::NoLocations);
        }
        let mut scratch = EncodeScratch::with_capacity(2 * CHOICE_BYTES_MAX);
        let mut encode = |text: &str| -> Result<Vec<u32>, GrammarError> {
            let mut tokens = Vec::new();
            tokenizer.encode(text, &mut scratch, &mut tokens)?;
            Ok(tokens)
        };
        let vocab = model.config().text.vocab as u32;
        let mut tree = Tree::default();
        // A second object is never the first: its locations come without the choice to end.
        let again = (LOCATIONS + codes.as_ref().map_or(0, |_| MASK_CODES)) as u32;
        for (choice, label) in (1..).zip(labels) {
            let label = label.as_ref().trim();
            let (bytes, bytes_max) = (label.len(), CHOICE_BYTES_MAX);
            if label.is_empty() {
                return Err(GrammarError::EmptyChoice { choice });
            }
            if bytes > bytes_max {
                return Err(GrammarError::ChoiceTooLong { choice, bytes, bytes_max });
            }
            // As it stands between two boxes, and before the end: what is behind a special token is spelled by itself.
            let (last, between) = (encode(&format!(" {label}"))?, encode(&format!(" {label} ; "))?);
            let specials =
                |&token: &u32| token >= vocab || tokenizer.is_special(token) || locations.contains(&token);
            if let Some(&token) = between.iter().chain(&last).find(|token| specials(token)) {
                return Err(GrammarError::ControlToken { choice, token });
            }
            tree.add(&last, None, last.len());
            tree.add(&between, Some(again), last.len());
            if tree.nodes.len() > TOKENS_MAX {
                return Err(GrammarError::TooManyTokens { tokens_max: TOKENS_MAX });
            }
        }
        if tree.nodes.is_empty() {
            return Err(GrammarError::NoChoices);
        }
        let mut eos = model.config().tokens.eos.clone();
        eos.sort_unstable();
        eos.dedup();
        let mut all = Builder::default();
        let chain = |codes: Option<std::ops::Range<u32>>| {
            let locations = std::iter::repeat_n(locations.clone(), LOCATIONS);
            locations.chain(codes.into_iter().flat_map(|codes| std::iter::repeat_n(codes, MASK_CODES)))
        };
        let root = again + 1;
        for (state, tokens) in (0..).zip(chain(codes.clone())) {
            let next = if state + 1 == again { root } else { state + 1 };
            let mut edges: Vec<(u32, u32)> = tokens.map(|token| (token, next)).collect();
            if state == 0 {
                edges.extend(eos.iter().map(|&token| (token, END)));
            }
            all.push(edges, false);
        }
        all.push(locations.map(|token| (token, 1)).collect(), false);
        for node in &tree.nodes {
            let inner = node.edges.iter().map(|(&token, &next)| match next {
                Next::Node(node) => (token, root + node),
                Next::Again(state) => (token, state),
            });
            let ends = eos.iter().filter(|_| node.can_end).map(|&token| (token, END));
            all.push(inner.chain(ends).collect(), node.is_label);
        }
        let Builder { states, tokens, next } = all;
        let model = model.fingerprint();
        Ok(Self(Arc::new(Automaton { model, states, tokens, next, tokens_max: None })))
    }
}

/// What labels can be written as, token by token.
#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    edges: BTreeMap<u32, Next>,
    can_end: bool,
    /// A token of a label is chosen here.
    is_label: bool,
}

#[derive(Clone, Copy)]
enum Next {
    /// A node of the tree.
    Node(u32),
    /// A state outside of it.
    Again(u32),
}

impl Tree {
    /// Adds a way to write a label, of which the first `label` tokens are the label itself. It leads to a state, or to
    /// the end.
    fn add(&mut self, tokens: &[u32], to: Option<u32>, label: usize) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for (i, &token) in tokens.iter().enumerate() {
            self.nodes[at].is_label |= i < label;
            if let (true, Some(state)) = (i + 1 == tokens.len(), to) {
                self.nodes[at].edges.insert(token, Next::Again(state));
                return;
            }
            at = match self.nodes[at].edges.get(&token) {
                Some(Next::Node(node)) => *node as usize,
                // Labels have no separator in them, so nothing goes on behind one.
                Some(Next::Again(_)) => return,
                None => {
                    let node = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[at].edges.insert(token, Next::Node(node as u32));
                    node
                }
            };
        }
        self.nodes[at].can_end = true;
    }
}

/// States, one after the other.
#[derive(Default)]
struct Builder {
    states: Vec<State>,
    tokens: Vec<u32>,
    next: Vec<u32>,
}

impl Builder {
    fn push(&mut self, mut edges: Vec<(u32, u32)>, among_all: bool) {
        edges.sort_unstable();
        let first = self.tokens.len() as u32;
        self.tokens.extend(edges.iter().map(|edge| edge.0));
        self.next.extend(edges.iter().map(|edge| edge.1));
        self.states.push(State { edges: first..self.tokens.len() as u32, determined: false, among_all });
    }
}
