//! What the whole-system tests share: where the reference data lies, and how values are compared.

pub mod colpali;
pub mod drafts;
pub mod hub;
pub mod npz;
pub mod odd;
pub mod skip;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palmtop::format::PalmFile;
use palmtop::image::{ImageLimits, decode_file};
use palmtop::model::config::Config;
use palmtop::model::tensors::Making;
use palmtop::session::{Traced, TracedValues};
use palmtop::{Answer, GenerateOptions, Limits, Model, Retrieval, Session};
use palmtop_convert::synthetic::{Synthetic, preset};
use palmtop_convert::{Options, Recipe, convert, convert_source, tokenizer};
use palmtop_kernels::layout::WeightFormat;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

/// The folder of the reference data.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The reference checkpoints.
pub const CHECKPOINTS: [&str; 7] =
    ["tiny1", "tiny1-f16", "tiny1-f32", "tiny1-sharded", "tiny2", "tiny2-f32", "tiny2-wide"];

/// Those with reference vectors of [`several`] pictures in one prompt.
pub const CHECKPOINTS_SEVERAL: [&str; 3] = ["tiny1", "tiny2", "tiny2-wide"];

/// A checkpoint folder as the hub would have it: weights and configuration, with the tokenizer beside them.
pub fn checkpoint(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    copy_into(&data().join("checkpoints").join(name), dir.path());
    copy_into(&data().join("tokenizer"), dir.path());
    dir
}

/// Copies the files of a folder into another.
fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("a folder's entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copying reference data");
    }
}

/// Models of random weights that are larger than the reference checkpoints, one of each generation: 23 · 23 patches, so
/// that attention runs in integers, over three chunks of keys, and rows go through the matrices in two blocks. They
/// have retrieval heads too.
pub const RANDOM: [&str; 2] = ["random1", "random2"];

/// The architecture of one of [`RANDOM`].
fn random(name: &str) -> Option<Config> {
    let mut config = match name {
        "random1" => preset("tiny")?,
        "random2" => preset("tiny2")?,
        _ => return None,
    };
    config.vision.image_size = 23 * config.vision.patch_size;
    // Vectors of the usual size.
    config.retrieval = Some(Retrieval::new(128));
    // Shorter than a prefix, which sees all of itself nevertheless.
    config.text.windows.iter_mut().flatten().for_each(|window| *window = 100);
    Some(config)
}

/// A model made from a reference checkpoint or of random weights, in a folder that lives as long as it.
pub struct Converted {
    /// The file.
    pub path: PathBuf,
    _dir: TempDir,
}

impl Converted {
    /// Opens it.
    pub fn open(&self) -> Arc<Model> {
        Model::open(&self.path).expect("a model that was just converted")
    }
}

/// Converts a reference checkpoint, or makes one of [`RANDOM`].
pub fn converted(name: &str, recipe: Recipe) -> Converted {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("model.palm");
    convert_to(name, recipe, &path);
    Converted { path, _dir: dir }
}

/// Like [`converted`], to a file.
pub fn convert_to(name: &str, recipe: Recipe, target: &Path) {
    let options = Options { recipe, ..Options::default() };
    let made = match random(name) {
        Some(config) => {
            let table = tokenizer::build_table(&data().join("tokenizer")).expect("a readable tokenizer");
            convert_source(&Synthetic::new(config.clone(), 1), &config, table, target, &options, &())
        }
        None => convert(checkpoint(name).path(), target, &options, &()),
    };
    made.unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// The weights of a model in f32, by the classic names of the checkpoint's tensors: rows of each.
pub fn checkpoint_tensors(model: &Path) -> BTreeMap<String, Vec<Vec<f32>>> {
    let palm = PalmFile::open(model).expect("a model that was just converted");
    let config = Config::from_metadata(palm.metadata()).expect("a model that was just converted");
    let mut out: BTreeMap<String, Vec<Vec<f32>>> = BTreeMap::new();
    for spec in config.tensors() {
        let rows: Vec<Vec<f32>> = match spec.matrix() {
            None => {
                let all = palm.f32s(&spec.name, &spec.shape).expect("a model that was just converted");
                all.chunks(*spec.shape.last().expect("a model that was just converted"))
                    .map(<[f32]>::to_vec)
                    .collect()
            }
            Some(_) => {
                let matrix = palm
                    .matrix(&spec.name, spec.shape[0], spec.shape[1])
                    .expect("a model that was just converted");
                let row = |n| {
                    let mut row = vec![0.0; spec.shape[1]];
                    matrix.dequantize_row(n, &mut row);
                    row
                };
                (0..spec.shape[0]).map(row).collect()
            }
        };
        let parts = &spec.source.parts;
        let mut before = 0;
        for (index, part) in parts.iter().enumerate() {
            let taken: Vec<Vec<f32>> = match spec.source.making {
                Making::Stripes => {
                    (0..part.shape[0]).map(|r| rows[r / 16 * 32 + index * 16 + r % 16].clone()).collect()
                }
                // Vectors of several parts lie in one row.
                _ if part.shape.len() == 1 => vec![rows[0][before..before + part.shape[0]].to_vec()],
                _ => rows[before..before + part.shape[0]].to_vec(),
            };
            before += part.shape[0];
            out.insert(part.name.clone(), taken);
        }
    }
    out
}

/// All parts in one format.
pub fn uniform(format: WeightFormat) -> Recipe {
    Recipe { patch_embedding: format, vision: format, projector: format, text: format, embedding: format }
}

/// A tensor of a reference vector.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Values; integers too, which f64 holds exactly.
    pub values: Vec<f64>,
}

/// All that a session shows of itself on the way from a picture to so many tokens.
pub fn trace(session: &mut Session, image: &Path, prompt: &str, tokens: usize) -> BTreeMap<String, Tensor> {
    let picture = decode_file(image, &ImageLimits::default()).expect("a readable picture");
    let mut out = BTreeMap::new();
    session
        .trace(&[picture.view()], prompt, tokens, &mut |t: Traced<'_>| {
            let values = match t.values {
                TracedValues::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
                TracedValues::I64(v) => v.iter().map(|&x| x as f64).collect(),
            };
            out.insert(t.name.to_owned(), Tensor { shape: t.shape.to_vec(), values });
        })
        .unwrap_or_else(|e| panic!("{prompt}: {e}"));
    out
}

/// All tensors of a safetensors file.
pub fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a readable reference vector");
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => {
                    data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
                }
                Dtype::F64 => data.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::I64 => {
                    data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
                }
                Dtype::I32 => {
                    data.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect()
                }
                Dtype::U8 | Dtype::BOOL => data.iter().map(|&b| b.into()).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name, Tensor { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// ‖a − b‖ / ‖b‖.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// The cosine of the angle between a and b.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A reference vector: what transformers computed for a checkpoint, pictures and a prompt.
pub struct Vector {
    /// Folder and name.
    pub name: String,
    /// The pictures, in the order in which they stand in the prompt.
    pub images: Vec<PathBuf>,
    /// The prompt.
    pub prompt: String,
    /// The answer, special tokens left out.
    pub text: String,
    /// The values.
    pub tensors: BTreeMap<String, Tensor>,
}

/// All reference vectors of a checkpoint about one picture.
pub fn vectors(checkpoint: &str) -> Vec<Vector> {
    read_vectors(checkpoint)
}

/// All reference vectors of a checkpoint with several pictures in one prompt; they have only some of the traced values.
pub fn several(checkpoint: &str) -> Vec<Vector> {
    read_vectors(&format!("several/{checkpoint}"))
}

fn read_vectors(folder: &str) -> Vec<Vector> {
    let dir = data().join("vectors").join(folder);
    let mut out: Vec<Vector> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| {
            let json = std::fs::read(path.with_extension("json")).expect("a description beside each vector");
            let json: serde_json::Value = serde_json::from_slice(&json).expect("readable JSON");
            let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
            let images = match json["images"].as_array() {
                Some(several) => several.iter().map(text).collect(),
                None => vec![text(&json["image"])],
            };
            Vector {
                name: format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy()),
                images: images.into_iter().map(|image| data().join("images").join(image)).collect(),
                prompt: text(&json["prompt"]),
                text: text(&json["decoded_skip_special"]),
                tensors: tensors(&path),
            }
        })
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!out.is_empty(), "{} has no vectors", dir.display());
    out
}

/// What the library answers to "caption en" about a picture.
pub fn caption(model: &Path, picture: &Path, new_tokens: usize) -> Answer {
    let mut limits = Limits::default();
    limits.new_tokens = new_tokens;
    let mut session = Session::new(&Model::open(model).expect("a model"), &limits).expect("a session");
    let (mut features, options) = (session.new_features().expect("memory"), GenerateOptions::default());
    let picture = decode_file(picture, &ImageLimits::default()).expect("a picture");
    session.encode(picture.view(), &mut features, &options).expect("features");
    let answers = session.answer(&features, &["caption en"], &options, &mut |_| ControlFlow::Continue(()));
    answers.expect("an answer")[0].clone()
}

/// An answer as programs in other languages print it, to compare it with: each token with the bits of its probability,
/// and the text.
pub fn bits(answer: &Answer) -> String {
    listing(answer.tokens.iter().copied().zip(answer.probabilities.iter().copied()), &answer.text)
}

/// The same of tokens and probabilities that came another way.
pub fn listing(tokens: impl Iterator<Item = (u32, f32)>, text: &str) -> String {
    let tokens: String = tokens.map(|(token, p)| format!("{token}:{:08x} ", p.to_bits())).collect();
    format!("{tokens}{text}\n")
}
