//! What adapters do to the tensors of a model, in which order, and whether embedding and head stay one.

use std::collections::{BTreeMap, HashMap};

use palmtop::model::tensors::{EMBEDDING, HEAD};

use super::Opened;
use super::matching::{Matcher, Ops};
use super::merge::Edits;
use super::report::{AdapterReport, Tally};
use crate::ConvertError;

/// What adapters do to the tensors of a checkpoint.
pub(crate) struct Plan {
    /// By classic names.
    shapes: HashMap<String, Vec<usize>>,
    pub(super) edits: HashMap<String, Edits>,
    /// The head is the embedding, with all that was merged so far.
    tied: bool,
    tied_before: bool,
    /// One for each adapter.
    pub reports: Vec<AdapterReport>,
    /// What is worth knowing, a sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// A plan that changes nothing, for tensors with their shapes.
    pub fn new(needed: &[(String, Vec<usize>)]) -> Self {
        let mut shapes: HashMap<_, _> = needed.iter().cloned().collect();
        let tied = !shapes.contains_key(HEAD);
        if let (true, Some(embedding)) = (tied, shapes.get(EMBEDDING).cloned()) {
            shapes.insert(HEAD.to_owned(), embedding);
        }
        Self {
            shapes,
            edits: HashMap::new(),
            tied,
            tied_before: tied,
            reports: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// True if the head was the embedding and has become a matrix of its own.
    pub fn unties(&self) -> bool {
        self.tied_before && !self.tied
    }

    /// Adds what an adapter does; an error if it has a tensor that fits nothing, or none that fits.
    pub fn add(&mut self, adapter: Opened) -> Result<(), ConvertError> {
        let matcher = Matcher { adapter: &adapter, shapes: &self.shapes };
        let (found, ignored) = matcher.find()?;
        let mut tally = Tally::default();
        let mut ops = BTreeMap::new();
        for (name, found) in &found {
            ops.insert(name.clone(), matcher.ops(name, found, &mut tally)?);
        }
        if found.values().all(|found| matcher.adds_nothing(found)) {
            self.notes.push(format!("the adapter {} adds nothing: it is all zeros", adapter.path.display()));
        }
        self.notes.extend(adapter.config.notes.iter().cloned());
        self.notes.extend(matcher.absent(&found));
        let (embedding, head) = (ops.remove(EMBEDDING), ops.remove(HEAD));
        for (name, ops) in ops {
            self.edits_of(&name).ops.extend(ops.all());
        }
        let (embedding, head) = (embedding.unwrap_or_default(), head.unwrap_or_default());
        match self.tied {
            true => self.add_tied(&adapter, embedding, head)?,
            false => {
                self.edits_of(EMBEDDING).ops.extend(embedding.all());
                self.edits_of(HEAD).ops.extend(head.all());
            }
        }
        self.reports.push(AdapterReport {
            path: adapter.path,
            base_model: adapter.config.base,
            scale: adapter.scale,
            matched: tally.finish(),
            ignored,
        });
        Ok(())
    }

    fn edits_of(&mut self, name: &str) -> &mut Edits {
        let shape = &self.shapes[name];
        self.edits.entry(name.to_owned()).or_insert_with(|| Edits::new(name, shape))
    }

    /// Changes an embedding that is the head too. What PEFT loads into the one matrix stays common; what it wraps
    /// around one of the two modules changes only that one, which then is a matrix of its own.
    fn add_tied(&mut self, adapter: &Opened, embedding: Ops, head: Ops) -> Result<(), ConvertError> {
        let (mut common, mut of_embedding, mut of_head) = (Vec::new(), Vec::new(), Vec::new());
        match (embedding.base, head.base) {
            (Some(one), Some(other)) if !one.is_same(&other) => {
                return Err(ConvertError::Adapter {
                    path: adapter.path.clone(),
                    what: "has a base layer for the embedding and another for the LM head, though they are one matrix \
                           of this checkpoint"
                        .into(),
                });
            }
            (one, other) => common.extend(one.or(other)),
        }
        match (embedding.saved, head.saved) {
            (Some(one), Some(other)) if one.is_same(&other) => common.push(one),
            (one, other) => {
                of_embedding.extend(one);
                of_head.extend(other);
            }
        }
        match (embedding.product, head.product) {
            (Some(one), Some(other)) if one.is_transposed(&other)? => common.push(one),
            (one, other) => {
                of_embedding.extend(one);
                of_head.extend(other);
            }
        }
        match (embedding.tokens, head.tokens) {
            (Some(rows), Some(others)) if rows.is_same(&others) => common.push(rows),
            (Some(rows), None) if of_embedding.is_empty() && of_head.is_empty() => common.push(rows),
            (Some(rows), None) => {
                of_embedding.push(rows.clone());
                of_head.push(rows);
            }
            (one, other) => {
                of_embedding.extend(one);
                of_head.extend(other);
            }
        }
        let edits = self.edits_of(EMBEDDING);
        edits.ops.extend(common);
        if of_embedding.is_empty() && of_head.is_empty() {
            return Ok(());
        }
        let mut untied = edits.clone();
        edits.ops.extend(of_embedding);
        untied.ops.extend(of_head);
        self.edits.insert(HEAD.to_owned(), untied);
        self.tied = false;
        self.notes.push(format!(
            "the adapter {} changes the embedding and the LM head differently, so the head is a matrix of its own",
            adapter.path.display()
        ));
        Ok(())
    }
}
