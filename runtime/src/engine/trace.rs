//! Intermediate values for those who must compare with the reference.

use std::fmt::Arguments;

/// A value seen by [`Session::trace`](crate::session::Session::trace) or
/// [`Session::observe`](crate::session::Session::observe).
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// Name as in `docs/trace.md`, such as `vision.layer.3`; of the inputs of a matrix, its name in the file and
    /// `.input`.
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
pub(crate) struct Trace<'a> {
    sink: Option<&'a mut dyn FnMut(Traced<'_>)>,
    /// Whether the inputs of matrices are shown too.
    inputs: bool,
}

impl<'a> Trace<'a> {
    /// Nobody looks.
    pub fn off() -> Self {
        Self { sink: None, inputs: false }
    }

    /// Shows what `docs/trace.md` lists.
    pub fn values(sink: &'a mut dyn FnMut(Traced<'_>)) -> Self {
        Self { sink: Some(sink), inputs: false }
    }

    /// Shows the inputs of every matrix besides.
    pub fn with_inputs(sink: &'a mut dyn FnMut(Traced<'_>)) -> Self {
        Self { sink: Some(sink), inputs: true }
    }

    /// True if values are looked at.
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Shows activations.
    pub fn f32(&mut self, name: Arguments<'_>, shape: &[usize], values: &[f32]) {
        if let Some(sink) = &mut self.sink {
            debug_assert_eq!(shape.iter().product::<usize>(), values.len());
            sink(Traced { name: &name.to_string(), shape, values: TracedValues::F32(values) });
        }
    }

    /// Shows token ids.
    pub fn i64(&mut self, name: &str, values: &[i64]) {
        if let Some(sink) = &mut self.sink {
            sink(Traced { name, shape: &[values.len()], values: TracedValues::I64(values) });
        }
    }

    /// Shows rows that a matrix of this name and so many inputs is about to be multiplied with, rounded as it sees
    /// them.
    pub fn inputs(&mut self, name: Arguments<'_>, cols: usize, values: impl FnOnce() -> Vec<f32>) {
        if let Some(sink) = self.sink.as_mut().filter(|_| self.inputs) {
            let values = values();
            sink(Traced {
                name: &format!("{name}.input"),
                shape: &[values.len() / cols, cols],
                values: TracedValues::F32(&values),
            });
        }
    }
}
