//! Pictures by address, if that is allowed.

/// Fetches pictures.
#[derive(Clone, Debug)]
pub struct Fetch;
