//! A Hugging Face checkpoint folder: one or several mapped safetensors files, under the names that people's tools give
//! their tensors.
//!
//! [`folder`] says which folder a name stands for, [`find`] which files in it are the weights, [`names`] what their
//! tensors are called, and [`shards`] reads the values, [`bitsandbytes`] those that it has quantized. [`foreign`] names
//! what is no such checkpoint.

mod bitsandbytes;
mod find;
mod folder;
mod foreign;
mod names;
pub(crate) mod retrieval;
pub(crate) mod shards;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use palmtop::model::tensors::{EMBEDDING, HEAD};
use rayon::prelude::*;

use crate::adapter;
use crate::error::{ConvertError, TensorProblems, listed};
use crate::source::WeightSource;

pub(crate) use find::file_names;
pub(crate) use folder::{origin, resolve};

/// True if all weight files of a folder are there.
pub(crate) fn has_all_weights(dir: &Path) -> bool {
    find::weight_files(dir).is_ok_and(|found| found.files.iter().all(|file| file.is_file()))
}

use bitsandbytes::Quantized;
use names::Naming;
use shards::{Shards, Tensor};

/// The mapped weights of a checkpoint, found by their classic names.
///
/// The files must not be changed while they are open: they are read through the operating system's mapping.
pub struct Checkpoint {
    shards: Shards,
    tensors: HashMap<String, Stored>,
    /// What bitsandbytes quantized, by classic names.
    quantized: HashMap<String, Quantized>,
    /// Tensors of an adapter that was saved with the model it wraps.
    adapter: Vec<Tensor>,
    notes: Vec<String>,
}

/// What is known of a weight file that is elsewhere.
pub(crate) struct Header {
    /// The JSON.
    pub json: Vec<u8>,
    /// The length of the whole file.
    pub bytes: u64,
}

/// A tensor, and how its values lie in the file.
struct Stored {
    tensor: Tensor,
    order: Order,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As PyTorch has them.
    RowMajor,
    /// A convolution kernel `[outputs, height, width, channels]`, as MLX and JAX have it.
    ChannelsLast,
}

/// What becomes of tensors that the architecture has no use for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// They are an error.
    #[default]
    Refuse,
    /// They are noted.
    Ignore,
}

impl Checkpoint {
    /// Maps the weight files of a folder, and reads their headers.
    pub fn open(dir: &Path) -> Result<Self, ConvertError> {
        let found = find::weight_files(dir)?;
        let mut shards = Shards::default();
        let mut all = Vec::new();
        for file in &found.files {
            all.extend(shards.add(file.clone())?);
        }
        let mut out = Self::of(dir, found, shards, all)?;
        out.quantized = bitsandbytes::find(&out.shards, &mut out.tensors)?;
        out.note_quantized();
        Ok(out)
    }

    /// Reads the headers of weight files that are elsewhere, of a checkpoint that has files of these names; the small
    /// ones are in `dir`. `origin` is what the checkpoint is called in errors.
    pub(crate) fn elsewhere(
        dir: &Path,
        names: &[String],
        origin: &str,
        header: &mut dyn FnMut(&str) -> Result<Header, ConvertError>,
    ) -> Result<Self, ConvertError> {
        let found = find::weight_files_among(dir, names)?;
        let mut shards = Shards::default();
        let mut all = Vec::new();
        for file in &found.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let Header { json, bytes } = header(&name)?;
            all.extend(shards.add_elsewhere(Path::new(origin).join(&*name), &json, bytes)?);
        }
        let out = Self::of(dir, found, shards, all)?;
        let needs_whole = |what: &str| ConvertError::NeedsWhole { what: what.to_owned() };
        if bitsandbytes::is_there(out.tensors.keys()) {
            return Err(needs_whole("reading what bitsandbytes quantized"));
        }
        if !out.adapter.is_empty() {
            return Err(needs_whole("merging an adapter that stands in the model's own files"));
        }
        Ok(out)
    }

    fn of(
        dir: &Path,
        found: find::WeightFiles,
        shards: Shards,
        all: Vec<Tensor>,
    ) -> Result<Self, ConvertError> {
        let find::WeightFiles { index, mut notes, .. } = found;
        if let Some(index) = index {
            let places: HashMap<&str, &Tensor> = all.iter().map(|t| (&*t.name, t)).collect();
            index.check(|tensor| places.get(tensor).map(|t| shards.path_of(t)), &mut notes)?;
        }
        if let Some(what) = foreign::tensors(all.iter()) {
            return Err(ConvertError::Foreign { path: dir.to_owned(), what });
        }
        let mut of_adapter = Vec::new();
        let mut of_model = Vec::with_capacity(all.len());
        for tensor in all {
            match adapter::base_name(&tensor.name) {
                Some(name) => of_model.push((name, tensor)),
                None => of_adapter.push(tensor),
            }
        }
        let naming = Naming::of(of_model.iter().map(|(name, _)| &**name));
        if let Some(prefix) = naming.prefix() {
            notes.push(format!("the tensors' names begin with '{prefix}', which was taken off"));
        }
        let tensors = HashMap::with_capacity(of_model.len());
        let mut out = Self { shards, tensors, quantized: HashMap::new(), adapter: of_adapter, notes };
        for (name, tensor) in of_model {
            out.insert(naming.classic(&name), tensor)?;
        }
        Ok(out)
    }

    /// The tensor with this classic name, as it lies in its file.
    pub(crate) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|stored| &stored.tensor)
    }

    /// The shape of a tensor, as it was before bitsandbytes quantized it.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        let quantized = self.quantized.get(name).map(|quantized| &quantized.shape[..]);
        quantized.or_else(|| self.tensor(name).map(|tensor| &tensor.shape[..]))
    }

    /// The names of its files in errors, in their order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.paths()
    }

    /// Reads as [`WeightSource::read`] does, from bytes that have come: they begin with value `first` of the tensor,
    /// which for a convolution's kernel is the first one of an output.
    pub(crate) fn read_arrived(
        &self,
        name: &str,
        (bytes, first): (&[u8], usize),
        start: usize,
        out: &mut [f32],
    ) -> Result<(), ConvertError> {
        let Stored { tensor, order } = &self.tensors[name];
        let read =
            |start: usize, out: &mut [f32]| self.shards.read_from(tensor, bytes, start - first, start, out);
        match order {
            Order::RowMajor => read(start, out),
            Order::ChannelsLast => channels_first(&tensor.shape, read, start, out),
        }
    }

    fn note_quantized(&mut self) {
        for bits in [4, 8] {
            let count = self.quantized.values().filter(|q| q.bits() == bits).count();
            if count > 0 {
                self.notes.push(format!(
                    "{count} matrices were read from {bits} bits of bitsandbytes; the checkpoint that it was made from \
                     gives a better model"
                ));
            }
        }
    }

    /// True if bitsandbytes has quantized some of the weights.
    pub(crate) fn is_quantized(&self) -> bool {
        !self.quantized.is_empty()
    }

    fn insert(&mut self, name: String, tensor: Tensor) -> Result<(), ConvertError> {
        if let Some(other) = self.tensors.get(&name) {
            let place = |tensor: &Tensor| {
                let file = self.shards.path_of(tensor).file_name().unwrap_or_default();
                format!("{}' in '{}", tensor.name, file.display())
            };
            let mut places = [place(&other.tensor), place(&tensor)];
            places.sort();
            let [first, second] = places;
            return Err(ConvertError::Duplicate { name, first, second });
        }
        self.tensors.insert(name, Stored { tensor, order: Order::RowMajor });
        Ok(())
    }

    /// What is worth knowing of how the folder was read, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The tensors of an adapter that was saved with the model it wraps, and the files that they are in.
    pub(crate) fn adapter(&self) -> (&Shards, &[Tensor]) {
        (&self.shards, &self.adapter)
    }

    /// True if `path` is one of the files that are read.
    pub fn reads(&self, path: &Path) -> bool {
        let canonical = |p: &Path| p.canonicalize().ok();
        canonical(path).is_some_and(|p| self.shards.paths().any(|s| canonical(s) == Some(p.clone())))
    }

    /// Checks that the checkpoint has the tensors `needed` (classic names with shapes), and that nothing else is in
    /// it, but for what no PaliGemma reads.
    pub fn check(&mut self, needed: &[(String, Vec<usize>)], extra: Extra) -> Result<(), ConvertError> {
        let mut problems = TensorProblems::default();
        let needed: BTreeMap<&str, &[usize]> = needed.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
        for (name, &shape) in &needed {
            let Some(stored) = self.tensors.get_mut(*name) else {
                problems.missing.push((*name).to_owned());
                continue;
            };
            let (tensor, quantized) = (&stored.tensor, self.quantized.get(*name));
            let found = quantized.map_or(&tensor.shape, |q| &q.shape);
            if quantized.is_none() && !tensor.is_float() {
                problems.unsupported.push((tensor.name.clone(), format!("{:?}", tensor.dtype)));
            } else if found == shape {
                stored.order = Order::RowMajor;
            } else if quantized.is_none() && is_channels_last(found, shape) {
                stored.order = Order::ChannelsLast;
            } else {
                problems.misshapen.push((tensor.name.clone(), found.clone(), shape.to_vec()));
            }
        }
        let (mut pooling, mut unknown) = (false, Vec::new());
        for (name, stored) in &self.tensors {
            if needed.contains_key(name.as_str()) || name == HEAD || is_derived(name) {
                continue;
            }
            match name.starts_with("vision_tower.vision_model.head.") {
                true => pooling = true,
                false => unknown.push(stored.tensor.name.clone()),
            }
        }
        unknown.sort();
        if pooling {
            self.notes
                .push("the image encoder's pooling head, which PaliGemma never reads, was left out".into());
        }
        match extra {
            Extra::Refuse => problems.unknown = unknown,
            Extra::Ignore if unknown.is_empty() => {}
            Extra::Ignore => {
                let quoted: Vec<String> = unknown.iter().map(|n| format!("'{n}'")).collect();
                self.notes.push(format!("{} tensors were ignored: {}", unknown.len(), listed(&quoted)));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConvertError::Tensors(Box::new(problems))) }
    }

    /// Takes the head for the embedding where only the head was saved of the two, which are one matrix.
    pub fn take_head_for_embedding(&mut self) {
        if !self.tensors.contains_key(EMBEDDING)
            && let Some(head) = self.tensors.remove(HEAD)
        {
            let name = &head.tensor.name;
            self.notes
                .push(format!("there is no token embedding; '{name}', which is the same matrix, was read"));
            self.tensors.insert(EMBEDDING.to_owned(), head);
        }
    }

    /// True if the checkpoint has a head, whatever its values.
    pub fn has_head(&self) -> bool {
        self.tensors.contains_key(HEAD)
    }

    /// True if the checkpoint has a head whose values are not those of the embedding.
    ///
    /// # Errors
    /// If a value of either is NaN or infinite, or if both have different shapes.
    pub fn has_own_head(&self) -> Result<bool, ConvertError> {
        if !self.has_two_heads()? {
            return Ok(false);
        }
        let (head, embed) = (&self.tensors[HEAD].tensor, &self.tensors[EMBEDDING].tensor);
        let values = self.quantized.get(HEAD).map_or(&head.shape, |q| &q.shape).iter().product::<usize>();
        let plain = [HEAD, EMBEDDING].iter().all(|name| !self.quantized.contains_key(*name));
        if plain && head.dtype == embed.dtype && self.shards.bytes(head) == self.shards.bytes(embed) {
            return Ok(false);
        }
        const BLOCK: usize = 1 << 16;
        let differs = (0..values.div_ceil(BLOCK)).into_par_iter().map(|block| {
            let (start, n) = (block * BLOCK, BLOCK.min(values - block * BLOCK));
            let (mut a, mut b) = (vec![0.0; n], vec![0.0; n]);
            self.read(HEAD, start, &mut a)?;
            self.read(EMBEDDING, start, &mut b)?;
            Ok(a != b)
        });
        differs.find_first(|found| !matches!(found, Ok(false))).unwrap_or(Ok(false))
    }

    /// True if the checkpoint has both a head and an embedding, be they equal or not.
    ///
    /// # Errors
    /// If both have different shapes, or the head a type that is not read.
    pub(crate) fn has_two_heads(&self) -> Result<bool, ConvertError> {
        let (Some(head), Some(embed)) = (self.tensors.get(HEAD), self.tensors.get(EMBEDDING)) else {
            return Ok(false);
        };
        let (head, embed) = (&head.tensor, &embed.tensor);
        let shape =
            |name, tensor: &Tensor| self.quantized.get(name).map_or(&tensor.shape, |q| &q.shape).clone();
        let (of_head, of_embedding) = (shape(HEAD, head), shape(EMBEDDING, embed));
        let mut problems = TensorProblems::default();
        if of_head != of_embedding {
            problems.misshapen.push((head.name.clone(), of_head, of_embedding));
        }
        if !head.is_float() && !self.quantized.contains_key(HEAD) {
            problems.unsupported.push((head.name.clone(), format!("{:?}", head.dtype)));
        }
        match problems.is_empty() {
            true => Ok(true),
            false => Err(ConvertError::Tensors(Box::new(problems))),
        }
    }
}

impl WeightSource for Checkpoint {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        if let Some(quantized) = self.quantized.get(name) {
            return quantized.read(&self.shards, start, out);
        }
        let Stored { tensor, order } =
            self.tensors.get(name).expect("the checkpoint's table has been checked");
        match order {
            Order::RowMajor => self.shards.read(tensor, start, out),
            Order::ChannelsLast => channels_first(
                &tensor.shape,
                |start, out: &mut [f32]| self.shards.read(tensor, start, out),
                start,
                out,
            ),
        }
    }
}

/// Reads values of a kernel with channels last in the order of one with channels first.
fn channels_first(
    shape: &[usize],
    read: impl Fn(usize, &mut [f32]) -> Result<(), ConvertError>,
    start: usize,
    out: &mut [f32],
) -> Result<(), ConvertError> {
    let &[_, height, width, channels] = shape else {
        unreachable!("only kernels have been found to have channels last");
    };
    let (area, values) = (height * width, height * width * channels);
    let mut kernel = vec![0.0; values];
    let (mut at, end) = (start, start + out.len());
    while at < end {
        let (output, first) = (at / values, at % values);
        read(output * values, &mut kernel)?;
        let n = (values - first).min(end - at);
        for (o, i) in out[at - start..][..n].iter_mut().zip(first..) {
            *o = kernel[i % area * channels + i / area];
        }
        at += n;
    }
    Ok(())
}

/// True if a kernel `[outputs, channels, height, width]` was saved with channels last.
fn is_channels_last(found: &[usize], needed: &[usize]) -> bool {
    matches!((found, needed), (&[o, h, w, c], &[o2, c2, h2, w2]) if (o, c, h, w) == (o2, c2, h2, w2))
}

/// Buffers that older versions of transformers saved though they follow from the sizes.
pub(crate) fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".embeddings.position_ids")
}
