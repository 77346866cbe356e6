//! Matches an adapter's tensors with those of a model, and checks that they fit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use palmtop::model::tensors::{EMBEDDING, HEAD, classic};

use super::Opened;
use super::merge::{Change, Magnitude, Op, Product};
use super::names::{self, Kind, Name};
use super::report::Tally;
use crate::ConvertError;
use crate::checkpoint::shards::{Shards, Tensor};
use crate::error::listed;

/// No module of a PaliGemma has a longer name, whatever it is wrapped in.
const NAME_BYTES_MAX: usize = 512;
/// Trained ones are below a hundred; far beyond, a model's activations overflow.
const FACTOR_MAX: f64 = 1e6;

/// What an adapter has for one tensor of the model.
#[derive(Default)]
pub(super) struct Found {
    /// The module in the adapter's dialect.
    module: String,
    parts: BTreeMap<Kind, Tensor>,
}

/// What is done to one tensor, in this order.
#[derive(Default)]
pub(super) struct Ops {
    /// Loaded in the place of the base's own weight.
    pub base: Option<Arc<Op>>,
    /// Trained as a whole, beside the base's.
    pub saved: Option<Arc<Op>>,
    pub product: Option<Arc<Op>>,
    pub tokens: Option<Arc<Op>>,
    /// Added to a bias.
    bias: Option<Arc<Op>>,
}

impl Ops {
    pub fn all(self) -> impl Iterator<Item = Arc<Op>> {
        [self.base, self.saved, self.product, self.tokens, self.bias].into_iter().flatten()
    }
}

/// Fits one adapter's tensors to the model's.
pub(super) struct Matcher<'a> {
    pub adapter: &'a Opened,
    /// Of the model's tensors, by classic names.
    pub shapes: &'a HashMap<String, Vec<usize>>,
}

impl Matcher<'_> {
    fn wrong(&self, what: String) -> ConvertError {
        ConvertError::Adapter { path: self.adapter.path.clone(), what }
    }

    /// The adapter's tensors by the model's that they change, and the names of those that PaliGemma never reads.
    pub fn find(&self) -> Result<(BTreeMap<String, Found>, Vec<String>), ConvertError> {
        let names: Vec<Name> = self.adapter.tensors.iter().map(|t| names::parse(&t.name)).collect();
        let adapters: BTreeSet<&str> = names.iter().filter_map(|n| n.adapter.as_deref()).collect();
        if adapters.len() > 1 {
            let all: Vec<String> = adapters.iter().map(|a| format!("'{a}'")).collect();
            return Err(self.wrong(format!("holds several adapters, {}: save one of them", listed(&all))));
        }
        let outer = self.outer(&names);
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let (mut ignored, mut unmatched, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for (tensor, name) in self.adapter.tensors.iter().zip(names) {
            let target = name.target();
            let target = classic(target.strip_prefix(outer.as_str()).unwrap_or(&target));
            if name.kind == Kind::Unused || is_never_read(&target) {
                ignored.push(tensor.name.clone());
                continue;
            }
            if matches!(name.kind, Kind::Unknown | Kind::Original) || !self.shapes.contains_key(&target) {
                unmatched.push(format!("'{}'", tensor.name));
                continue;
            }
            if !tensor.is_float() {
                unread.push(format!("'{}' is {:?}", tensor.name, tensor.dtype));
                continue;
            }
            let entry = found.entry(target.clone()).or_default();
            entry.module = name.module;
            let whole = [Kind::Whole, Kind::BaseLayer, Kind::Saved];
            let other = match whole.contains(&name.kind) {
                true => whole.iter().find_map(|kind| entry.parts.get(kind)),
                false => entry.parts.get(&name.kind),
            };
            if let Some(other) = other {
                let mut both = [other.name.clone(), tensor.name.clone()];
                both.sort();
                let [first, second] = both;
                return Err(self.wrong(format!("has the same twice: as '{first}' and as '{second}'")));
            }
            entry.parts.insert(name.kind, tensor.clone());
        }
        [&mut ignored, &mut unmatched, &mut unread].into_iter().for_each(|list| list.sort());
        let all = self.adapter.tensors.len();
        if !unmatched.is_empty() {
            let how_many = match unmatched.len() {
                n if n == all => format!("none of its {all} tensors fits this model"),
                1 => format!("one of its {all} tensors fits nothing in this model"),
                n => format!("{n} of its {all} tensors fit nothing in this model"),
            };
            let colpali = unmatched.iter().any(|n| n.contains("custom_text_proj"));
            let hint = match &self.adapter.config.base {
                base if colpali => format!(
                    "; it is one of ColPali's, and this checkpoint has no retrieval head: convert the base that it was \
                     trained on{}",
                    base.as_ref().map_or(String::new(), |base| format!(", '{base}'"))
                ),
                Some(base) => format!("; it was trained on '{base}'"),
                None => String::new(),
            };
            return Err(self.wrong(format!("{how_many}: {}{hint}", listed(&unmatched))));
        }
        if !unread.is_empty() {
            return Err(
                self.wrong(format!("has tensors that are neither f32, f16 nor bf16: {}", listed(&unread)))
            );
        }
        if found.is_empty() {
            return Err(self.wrong("has no tensors that change this model".into()));
        }
        Ok((found, ignored))
    }

    /// What stands before all names because the model was part of another, such as `vlm.`: the least that makes some
    /// name fit.
    fn outer(&self, names: &[Name]) -> String {
        let short = |n: &&Name| n.kind != Kind::Unknown && n.module.len() < NAME_BYTES_MAX;
        for target in names.iter().filter(short).map(Name::target) {
            if self.shapes.contains_key(&classic(&target)) {
                return String::new();
            }
            let inner = target.match_indices('.').map(|(at, _)| at + 1);
            if let Some(at) = inner.clone().find(|&at| self.shapes.contains_key(&classic(&target[at..]))) {
                return target[..at].to_owned();
            }
        }
        String::new()
    }

    /// What is done to a tensor of the model.
    pub fn ops(&self, name: &str, found: &Found, tally: &mut Tally) -> Result<Ops, ConvertError> {
        let shape = &self.shapes[name];
        let (mut ops, part) = (Ops::default(), |kind: Kind| found.parts.get(&kind));
        let op = |change| {
            Arc::new(Op { shards: self.adapter.shards.clone(), path: self.adapter.path.clone(), change })
        };
        let fits = |tensor: &Tensor, want: &[usize]| match tensor.shape == want {
            true => Ok(()),
            false => Err(self.misfit(tensor, want, name)),
        };
        for kind in [Kind::Whole, Kind::BaseLayer, Kind::Saved] {
            let Some(tensor) = part(kind) else { continue };
            fits(tensor, shape)?;
            let is_saved = kind == Kind::Saved || (kind == Kind::Whole && self.is_saved(&found.module));
            *(if is_saved { &mut ops.saved } else { &mut ops.base }) =
                Some(op(Change::Whole(tensor.clone())));
            tally.add(name, if name.ends_with("bias") { "bias" } else { "weight" }, None, None);
        }
        if let Some(bias) = part(Kind::BBias) {
            fits(bias, shape)?;
            let module = found.module.as_str();
            let weight = self
                .sibling_rank(name)
                .ok_or_else(|| self.wrong(format!("'{}' has no lora_B.weight beside it", bias.name)))?;
            let factor = self.factor(module, weight)?;
            ops.bias = Some(op(Change::Add { tensor: bias.clone(), scale: factor as f32 }));
            tally.add(name, "bias added", None, Some(factor));
        }
        if let Some((product, factor)) = self.product(name, shape, found)? {
            let rank = product.rank;
            tally.add(
                name,
                if product.magnitude.is_some() { "dora" } else { "lora" },
                Some(rank),
                Some(factor),
            );
            ops.product = Some(op(Change::Product(product)));
        }
        if let Some(rows) = part(Kind::Tokens) {
            ops.tokens = Some(op(self.tokens(rows, shape, &found.module, name)?));
            tally.add(name, "tokens", None, None);
        }
        Ok(ops)
    }

    /// The product that LoRA adds, and its factor.
    fn product(
        &self,
        name: &str,
        shape: &[usize],
        found: &Found,
    ) -> Result<Option<(Product, f64)>, ConvertError> {
        let part = |kind: Kind| found.parts.get(&kind);
        let is_table = name == EMBEDDING || name.ends_with(".position_embedding.weight");
        let (a_kind, b_kind) = match is_table {
            true => (Kind::EmbeddingA, Kind::EmbeddingB),
            false => (Kind::A, Kind::B),
        };
        let factors = [Kind::A, Kind::B, Kind::EmbeddingA, Kind::EmbeddingB, Kind::Magnitude];
        let mut all = factors.iter().filter_map(|kind| part(*kind));
        let Some(first) = all.next() else { return Ok(None) };
        let (Some(a), Some(b)) = (part(a_kind), part(b_kind)) else {
            let want = if is_table { "lora_embedding_A and lora_embedding_B" } else { "lora_A and lora_B" };
            return Err(self.wrong(format!("'{}' is not one of a pair: '{name}' takes {want}", first.name)));
        };
        if let Some(stray) =
            factors.iter().find_map(|k| part(*k).filter(|_| ![a_kind, b_kind, Kind::Magnitude].contains(k)))
        {
            return Err(self.wrong(format!("'{}' fits no matrix of this kind", stray.name)));
        }
        if shape.len() < 2 {
            return Err(self.wrong(format!("'{}' adapts '{name}', which is no matrix", a.name)));
        }
        let rank = a.shape.first().copied().unwrap_or(0);
        if rank == 0 {
            return Err(self.wrong(format!(
                "'{}' is {:?}: its rank is 0, as if it had not been gathered (ZeRO-3)",
                a.name, a.shape
            )));
        }
        let (rows, inputs) = (shape[0], &shape[1..]);
        let [want_a, want_b] = match is_table {
            true => [vec![rank, rows], vec![inputs[0], rank]],
            false => {
                let ones = std::iter::repeat_n(1, inputs.len() - 1);
                [[&[rank], inputs].concat(), [rows, rank].into_iter().chain(ones).collect()]
            }
        };
        for (tensor, want) in [(a, &want_a), (b, &want_b)] {
            if tensor.shape != *want {
                return Err(self.misfit(tensor, want, name));
            }
            self.adapter.shards.check_all_finite(tensor)?;
        }
        let stated = self.adapter.config.rank(&found.module);
        if stated != rank {
            return Err(
                self.wrong(format!("'{}' has rank {rank}, and adapter_config.json says {stated}", a.name))
            );
        }
        let cols = inputs.iter().product();
        let magnitude = match (part(Kind::Magnitude), self.adapter.config.dora) {
            (None, false) => None,
            (None, true) => {
                return Err(self
                    .wrong(format!("use_dora is set, and '{}' has no lora_magnitude_vector", found.module)));
            }
            (Some(m), false) => {
                return Err(
                    self.wrong(format!("has '{}', and adapter_config.json does not set use_dora", m.name))
                );
            }
            (Some(m), true) => {
                let values = if is_table { cols } else { rows };
                if m.len() != values || m.shape.iter().filter(|&&n| n != 1).count() > 1 {
                    return Err(self.misfit(m, &[values], name));
                }
                let mut all = vec![0.0; values];
                self.adapter.shards.read(m, 0, &mut all)?;
                Some(if is_table { Magnitude::columns(all) } else { Magnitude::Rows(all) })
            }
        };
        let factor = self.factor(&found.module, rank)?;
        let scale = factor as f32;
        let [left, right] = if is_table { [a, b] } else { [b, a] }.map(Tensor::clone);
        Ok(Some((Product { left, right, is_table, rank, cols, scale, magnitude }, factor)))
    }

    /// Rows that replace those of some tokens.
    fn tokens(
        &self,
        tensor: &Tensor,
        shape: &[usize],
        module: &str,
        name: &str,
    ) -> Result<Change, ConvertError> {
        let named = self.adapter.config.tokens.iter().find(|rows| match &rows.module {
            Some(end) => module.ends_with(end.as_str()),
            // A tied head follows, and stands in state dicts of wrapped models.
            None => name == EMBEDDING || name == HEAD,
        });
        let Some(ids) = named.map(|rows| &rows.ids) else {
            let what = "adapter_config.json has no trainable_token_indices for it";
            return Err(self.wrong(format!("'{}': {what}", tensor.name)));
        };
        if tensor.shape != [ids.len(), shape[1]] {
            return Err(self.misfit(tensor, &[ids.len(), shape[1]], name));
        }
        let rows: HashMap<usize, usize> = ids.iter().enumerate().map(|(at, &id)| (id, at)).collect();
        match ids.iter().find(|&&id| id >= shape[0]) {
            Some(id) => {
                Err(self
                    .wrong(format!("trainable_token_indices has {id}, and there are {} tokens", shape[0])))
            }
            None if rows.len() < ids.len() => {
                Err(self.wrong("trainable_token_indices names a token twice".into()))
            }
            None => Ok(Change::Rows { tensor: tensor.clone(), rows }),
        }
    }

    /// What a module's product is multiplied by.
    fn factor(&self, module: &str, rank: usize) -> Result<f64, ConvertError> {
        let factor = self.adapter.config.scale(module, rank) * self.adapter.scale;
        match factor.abs() <= FACTOR_MAX {
            true => Ok(factor),
            false => Err(self.wrong(format!(
                "the factor of '{module}' is {factor:e}, and nothing is trained with one beyond {FACTOR_MAX:e}"
            ))),
        }
    }

    /// The rank of the product that belongs to the weight beside a bias.
    fn sibling_rank(&self, bias: &str) -> Option<usize> {
        let weight = format!("{}weight", bias.strip_suffix("bias")?);
        let of_weight = |t: &&Tensor| {
            let name = names::parse(&t.name);
            name.kind == Kind::B && classic(&name.target()).ends_with(weight.as_str())
        };
        self.adapter.tensors.iter().find(of_weight)?.shape.get(1).copied()
    }

    /// True for a module that is listed to be saved as a whole, as PEFT finds it.
    fn is_saved(&self, module: &str) -> bool {
        let saved = &self.adapter.config.saved;
        saved.iter().any(|end| {
            module
                .split('.')
                .scan(0, |at, part| {
                    *at += part.len() + 1;
                    Some(&module[..*at - 1])
                })
                .any(|outer| outer.ends_with(end.as_str()))
        })
    }

    fn misfit(&self, tensor: &Tensor, want: &[usize], name: &str) -> ConvertError {
        self.wrong(format!("'{}' is {:?} and should be {want:?}, to fit '{name}'", tensor.name, tensor.shape))
    }

    /// True if one of the factors is all zeros, as before training.
    pub fn adds_nothing(&self, found: &Found) -> bool {
        let zeros = |kind: &Kind| found.parts.get(kind).is_some_and(|t| self.adapter.shards.is_zero(t));
        let products = [Kind::A, Kind::B, Kind::EmbeddingA, Kind::EmbeddingB];
        found.parts.keys().all(|kind| products.contains(kind)) && products.iter().any(zeros)
    }

    /// A note for modules that are listed as adapted and have no tensors.
    pub fn absent(&self, found: &BTreeMap<String, Found>) -> Option<String> {
        let has = |target: &&String| {
            let end = format!(".{target}");
            found.values().any(|f| f.module == **target || f.module.ends_with(&end))
        };
        let absent: Vec<String> =
            self.adapter.config.targets.iter().filter(|t| !has(t)).map(|t| format!("'{t}'")).collect();
        let path = self.adapter.path.display();
        (!absent.is_empty()).then(|| {
            format!("the adapter {path} lists modules for which it has no tensors: {}", listed(&absent))
        })
    }
}

/// Tensors that checkpoints may have and PaliGemma never reads: buffers that follow from sizes, SigLIP's pooling head.
fn is_never_read(name: &str) -> bool {
    crate::checkpoint::is_derived(name) || name.starts_with("vision_tower.vision_model.head.")
}

impl Shards {
    /// An error if a tensor of floats has a value that is NaN or infinite.
    fn check_all_finite(&self, tensor: &Tensor) -> Result<(), ConvertError> {
        let mut block = [0.0; 4096];
        for start in (0..tensor.len()).step_by(block.len()) {
            let n = block.len().min(tensor.len() - start);
            self.read(tensor, start, &mut block[..n])?;
        }
        Ok(())
    }

    /// True if all values of a tensor are zero, of either sign.
    fn is_zero(&self, tensor: &Tensor) -> bool {
        let mut block = [0.0; 4096];
        (0..tensor.len()).step_by(block.len()).all(|start| {
            let n = block.len().min(tensor.len() - start);
            self.read(tensor, start, &mut block[..n]).is_ok() && block[..n].iter().all(|&v| v == 0.0)
        })
    }
}
