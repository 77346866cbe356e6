//! SentencePiece-type BPE over a flat table that is mapped and used in place.

/// Why a tokenizer table or a text is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {}
