//! Builds the tokenizer table of a `.palm` file from `tokenizer.json` or `tokenizer.model`.
