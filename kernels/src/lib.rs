//! Arithmetic of palmtop: quantized matrix products, norms, attention and
//! elementwise functions. Knows no files and no models.

pub mod layout;
