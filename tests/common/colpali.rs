//! Checkpoints of a model for retrieval: a reference checkpoint with the head of `data/retrieval`, in each layout in
//! which ColPali's come.

use std::collections::BTreeMap;
use std::path::Path;

use palmtop::model::tensors::classic;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{checkpoint, data};

/// Who wrote a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// colpali-engine.
    Engine,
    /// transformers 4.48 to 4.51.
    OldTransformers,
    /// transformers 4.52 and later, 4.x.
    Transformers,
    /// transformers 5.24.
    NewTransformers,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Engine, Self::OldTransformers, Self::Transformers, Self::NewTransformers];

    /// The name of a tensor of the PaliGemma, of the hub's own name for it.
    fn name(self, classic: &str) -> String {
        match self {
            Self::Engine => format!("model.{classic}"),
            Self::OldTransformers => format!("vlm.{classic}"),
            Self::Transformers => match classic.strip_prefix("language_model.model.") {
                Some(rest) => format!("vlm.model.language_model.{rest}"),
                None => format!("vlm.model.{classic}"),
            },
            Self::NewTransformers => format!("vlm.{}", classic.replacen("vision_model.", "", 1)),
        }
    }

    /// What the head is called.
    fn head(self) -> &'static str {
        if self == Self::Engine { "custom_text_proj." } else { "embedding_proj_layer." }
    }
}

/// A folder with `tiny1-f32` and a retrieval head.
pub fn colpali(layout: Layout) -> TempDir {
    let folder = checkpoint("tiny1-f32");
    let path = folder.path().join("model.safetensors");
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    read(&path, &mut |name, tensor| {
        assert_eq!(classic(&name), name, "the hub's names");
        tensors.insert(layout.name(&name), tensor);
    });
    read(&data().join("retrieval/head.safetensors"), &mut |name, tensor| {
        tensors.insert(name.replace("custom_text_proj.", layout.head()), tensor);
    });
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes of its shape"))
    });
    safetensors::serialize_to_file(views, None, &path).expect("a place to write");
    if layout != Layout::Engine {
        let path = folder.path().join("config.json");
        let vlm: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a configuration")).expect("JSON");
        let config = json!({
            "architectures": ["ColPaliForRetrieval"],
            "embedding_dim": 40,
            "model_type": "colpali",
            "vlm_config": vlm,
        });
        std::fs::write(&path, config.to_string()).expect("a place to write");
    }
    folder
}

type Tensor = (Dtype, Vec<usize>, Vec<u8>);

fn read(path: &Path, each: &mut dyn FnMut(String, Tensor)) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (name, view) in SafeTensors::deserialize(&bytes).expect("a safetensors file").tensors() {
        each(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    }
}
