//! What comes out of the decoder beside words: prefixes for other models and vectors for retrieval, as arrays that
//! numpy views where they lie.

use std::any::Any;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Numbers of an object that nobody writes any more, and that lives as long as this.
#[pyclass(frozen)]
pub struct Array {
    _owner: Arc<dyn Any + Send + Sync>,
    address: usize,
    shape: Vec<usize>,
    /// A kind and its bytes, as numpy names them.
    kind: &'static str,
}

impl Array {
    /// `values` are a part of `owner`.
    fn new<T>(
        owner: Arc<dyn Any + Send + Sync>,
        values: &[T],
        shape: impl Into<Vec<usize>>,
        kind: &'static str,
    ) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { _owner: owner, address: values.as_ptr() as usize, shape, kind }
    }

    /// Vectors, one for each row.
    pub fn of_vectors(vectors: palmtop::Embedding) -> Self {
        let vectors = Arc::new(vectors);
        Self::new(vectors.clone(), vectors.values(), [vectors.rows(), vectors.dim()], "f4")
    }
}

#[pymethods]
impl Array {
    /// What numpy asks for. The array is read-only, and keeps this object.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let order = if cfg!(target_endian = "little") { '<' } else { '>' };
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        interface.set_item("typestr", format!("{order}{}", self.kind))?;
        interface.set_item("data", (self.address, true))?;
        Ok(interface)
    }
}

/// A prefix that has been computed.
#[pyclass(frozen)]
pub struct Prefix(Arc<palmtop::Prefix>);

impl Prefix {
    pub fn new(prefix: palmtop::Prefix) -> Self {
        Self(Arc::new(prefix))
    }
}

#[pymethods]
impl Prefix {
    /// `[layers, rows, kv_heads, head_dim]`, if they were kept.
    fn keys(&self) -> Option<Array> {
        let keys = self.0.keys();
        (!keys.is_empty()).then(|| Array::new(self.0.clone(), keys, self.0.shape(), "f4"))
    }

    /// Likewise.
    fn values(&self) -> Option<Array> {
        let values = self.0.values();
        (!values.is_empty()).then(|| Array::new(self.0.clone(), values, self.0.shape(), "f4"))
    }

    /// `[rows, width]`, if they were kept.
    fn hidden(&self) -> Option<Array> {
        let hidden = self.0.hidden();
        (!hidden.is_empty()).then(|| Array::new(self.0.clone(), hidden, self.0.hidden_shape(), "f4"))
    }

    /// `[rows]`
    fn mask(&self) -> Array {
        Array::new(self.0.clone(), self.0.mask(), [self.0.rows()], "b1")
    }

    /// `[rows]`
    fn positions(&self) -> Array {
        Array::new(self.0.clone(), self.0.positions(), [self.0.rows()], "i4")
    }

    fn next_position(&self) -> usize {
        self.0.next_position()
    }
}
