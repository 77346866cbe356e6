//! Intermediate values for those who must compare with the reference.

use std::fmt::Arguments;

/// A value seen by [`Session::trace`](crate::session::Session::trace).
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// Name as in `docs/trace.md`, such as `vision.layer.3`.
    pub name: &'a str,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// The values, row-major.
    pub values: TracedValues<'a>,
}

/// Values of a [`Traced`].
#[derive(Clone, Copy, Debug)]
pub enum TracedValues<'a> {
    /// Activations and logits.
    F32(&'a [f32]),
    /// Token ids.
    I64(&'a [i64]),
}

/// Where the graph shows its values, if anyone looks.
pub(crate) struct Trace<'a>(pub Option<&'a mut dyn FnMut(Traced<'_>)>);

impl Trace<'_> {
    /// True if values are looked at.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Shows activations.
    pub fn f32(&mut self, name: Arguments<'_>, shape: &[usize], values: &[f32]) {
        if let Some(sink) = &mut self.0 {
            debug_assert_eq!(shape.iter().product::<usize>(), values.len());
            sink(Traced { name: &name.to_string(), shape, values: TracedValues::F32(values) });
        }
    }

    /// Shows token ids.
    pub fn i64(&mut self, name: &str, values: &[i64]) {
        if let Some(sink) = &mut self.0 {
            sink(Traced { name, shape: &[values.len()], values: TracedValues::I64(values) });
        }
    }
}
