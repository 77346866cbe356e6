//! Model files and the memory of sessions.

use std::collections::BTreeMap;

use palmtop::format::{PalmFile, TensorInfo, VERSION, Value};
use serde::{Serialize, Serializer};

/// The bytes of a session, before any are taken.
#[derive(Debug, Serialize)]
pub struct Plan {
    weights_bytes: usize,
    kv_bytes: usize,
    activation_bytes: usize,
    thread_bytes: usize,
    image_bytes: usize,
    text_bytes: usize,
    features_bytes: usize,
    session_bytes: usize,
    threads: usize,
}

impl From<&palmtop::Plan> for Plan {
    fn from(plan: &palmtop::Plan) -> Self {
        Self {
            weights_bytes: plan.weights_bytes,
            kv_bytes: plan.kv_bytes,
            activation_bytes: plan.activation_bytes,
            thread_bytes: plan.thread_bytes,
            image_bytes: plan.image_bytes,
            text_bytes: plan.text_bytes,
            features_bytes: plan.features_bytes,
            session_bytes: plan.session_bytes(),
            threads: plan.threads,
        }
    }
}

/// Head and tensor table of a model file.
#[derive(Debug, Serialize)]
pub struct ModelFile<'a> {
    file: &'a str,
    bytes: u64,
    version: u32,
    metadata: BTreeMap<&'a str, Metadata<'a>>,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Debug, Serialize)]
struct Tensor<'a> {
    name: &'a str,
    storage: &'static str,
    shape: &'a [usize],
    offset: u64,
    bytes: u64,
    checksum: String,
}

/// A value of the metadata as JSON has it: numbers, lists of numbers, texts.
#[derive(Debug)]
struct Metadata<'a>(&'a Value);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::U64(v) => v.serialize(serializer),
            Value::F64(v) => v.serialize(serializer),
            Value::Bool(v) => v.serialize(serializer),
            Value::Text(v) => v.serialize(serializer),
            Value::U64s(v) => v.serialize(serializer),
            Value::F64s(v) => v.serialize(serializer),
        }
    }
}

impl<'a> ModelFile<'a> {
    /// Of a file that is named `path`.
    pub fn new(path: &'a str, file: &'a PalmFile) -> Self {
        let tensor = |t: &'a TensorInfo| Tensor {
            name: &t.name,
            storage: t.storage.name(),
            shape: &t.shape,
            offset: t.offset,
            bytes: t.length,
            checksum: format!("{:016x}", t.checksum),
        };
        Self {
            file: path,
            bytes: file.bytes(),
            version: VERSION,
            metadata: file.metadata().iter().map(|(key, value)| (key, Metadata(value))).collect(),
            tensors: file.tensors().iter().map(tensor).collect(),
        }
    }
}
