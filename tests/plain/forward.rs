//! PaliGemma 1 and 2 in plain f32: one number after the other, nothing kept, packed, shared or rounded. Read it to
//! learn the graph; `runtime/src/engine` computes the same, fast. Formulas are those of transformers'
//! `modeling_siglip.py`, `modeling_paligemma.py`, `modeling_gemma.py` and `modeling_gemma2.py`; papers are named where
//! they are used, by their numbers on arXiv.
//!
//! Weights are read from the checkpoint, by the names that the hub gives them, and not from a `.palm` file. There
//! queries, keys and values are one matrix, gate and up projection are interleaved, and norms have their 1 added:
//! reading the original shows the graph as it was published, and a comparison with palmtop then covers the converter
//! too. Values have the names of `docs/trace.md`.
//!
//! In the shapes, `F` is the number of pictures, `P` of patches of a picture, `S` of rows of the decoder (`F · P`
//! image rows, then the text), `V` of tokens; `Hv` and `D` are the widths of encoder and decoder.

use std::collections::{BTreeMap, HashMap};

use palmtop::model::config::{Config, Generation};
use palmtop_convert::{WeightSource, needed};

/// A matrix of activations, row by row.
pub type Rows = Vec<Vec<f32>>;

/// Values by their names in `docs/trace.md`. A vector is one row.
pub type Trace = BTreeMap<String, Rows>;

/// A model: its sizes and where its weights are.
pub struct Plain<'a> {
    config: &'a Config,
    weights: &'a dyn WeightSource,
    shapes: HashMap<String, Vec<usize>>,
}

impl<'a> Plain<'a> {
    /// A model of this architecture with the weights of a checkpoint.
    pub fn new(config: &'a Config, weights: &'a dyn WeightSource) -> Self {
        Self { config, weights, shapes: needed(config).into_iter().collect() }
    }

    /// Looks at pictures (`[3, side, side]` each, normalised) and goes on behind `prompt`, which begins with `F · P`
    /// image tokens, by the likeliest token `count` times. Gives the tokens, and all values on the way.
    pub fn answer(&self, pictures: &[Vec<f32>], prompt: &[usize], count: usize) -> (Vec<usize>, Trace) {
        let mut trace = Trace::new();
        let mut features = Rows::new();
        for picture in pictures {
            features.extend(self.encode(picture, &mut trace));
        }
        let mut ids = prompt.to_vec();
        for n in 0..count {
            // All rows are computed again for every token. palmtop keeps what later rows need of them, in the KV cache.
            let mut ignored = Trace::new();
            let logits =
                self.decode(&features, &ids, prompt.len(), if n == 0 { &mut trace } else { &mut ignored });
            // The first of equally likely ones, as torch.argmax takes.
            let likeliest = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            ids.push(likeliest.expect("a vocabulary is not empty"));
            show(&mut trace, "gen.logits", &[logits]);
        }
        (ids.split_off(prompt.len()), trace)
    }

    /// The image encoder SigLIP (arXiv 2303.15343), a ViT (2010.11929) without a class token, and the projector:
    /// a picture `[3, side, side]` to image features `[P, D]`.
    fn encode(&self, pixels: &[f32], trace: &mut Trace) -> Rows {
        let v = &self.config.vision;
        let base = "vision_tower.vision_model";
        // A convolution whose stride is its size: every patch, all of its reds, greens and blues, times a matrix.
        let patches = patches(pixels, v.image_size, v.patch_size); // [P, 3 · patch · patch]
        let mut x = self.linear(&patches, &format!("{base}.embeddings.patch_embedding")); // [P, Hv]
        add(&mut x, &self.matrix(&format!("{base}.embeddings.position_embedding.weight")));
        show(trace, "vision.embed", &x);
        for i in 0..v.layers {
            let at = |name: &str| format!("{base}.encoder.layers.{i}.{name}");
            let normed = self.layer_norm(&x, &at("layer_norm1"));
            let [q, k, value] =
                ["q", "k", "v"].map(|p| self.linear(&normed, &at(&format!("self_attn.{p}_proj"))));
            let head_dim = v.hidden / v.heads;
            let scale = 1.0 / (head_dim as f32).sqrt();
            let attended = attend(&q, &k, &value, head_dim, scale, None, |_, _| true); // every patch sees every patch
            add(&mut x, &self.linear(&attended, &at("self_attn.out_proj")));

            let mut wide = self.linear(&self.layer_norm(&x, &at("layer_norm2")), &at("mlp.fc1"));
            wide.iter_mut().flatten().for_each(|x| *x = gelu(*x));
            add(&mut x, &self.linear(&wide, &at("mlp.fc2")));
            show(trace, &format!("vision.layer.{i}"), &x);
        }
        let x = self.layer_norm(&x, &format!("{base}.post_layernorm"));
        show(trace, "vision.last_hidden_state", &x);
        let features = self.linear(&x, "multi_modal_projector.linear"); // [P, D]
        show(trace, "image_features", &features);
        features
    }

    /// The decoder Gemma (2403.08295) or Gemma 2 (2408.00118) over all rows: logits `[V]` of the last one. The first
    /// `prefix` rows are pictures and prompt, the rest the answer so far.
    fn decode(&self, features: &Rows, ids: &[usize], prefix: usize, trace: &mut Trace) -> Vec<f32> {
        let t = &self.config.text;
        let gemma2 = t.generation == Generation::Gemma2;
        let base = "language_model.model";
        let embedding = self.matrix(&format!("{base}.embed_tokens.weight")); // [V, D]
        // Rows of the text are embedded and scaled by √D. Image rows are features as they are, picture after picture.
        let scale = (t.hidden as f32).sqrt();
        let mut features = features.iter();
        let mut x = Rows::new(); // [S, D]: the residual stream
        for &id in ids {
            x.push(match id == self.config.tokens.image as usize {
                true => features.next().expect("a feature for every image token").clone(),
                false => embedding[id].iter().map(|e| e * scale).collect(),
            });
        }
        show(trace, "text.embed", &x);
        for i in 0..t.layers {
            let at = |name: &str| format!("{base}.layers.{i}.{name}");
            // Pictures and prompt see each other both ways (PaliGemma, 2407.07726, figure 2); a row of the answer sees
            // what is before it and itself, in some layers of Gemma 2 only the last rows of that.
            let sees = |row: usize, key: usize| {
                let near = t.windows[i].is_none_or(|window| key + window > row);
                (row < prefix && key < prefix) || (key <= row && near)
            };
            let normed = self.rms_norm(&x, &at("input_layernorm"));
            let [mut q, mut k, v] =
                ["q", "k", "v"].map(|p| self.linear(&normed, &at(&format!("self_attn.{p}_proj"))));
            rotate(&mut q, t.head_dim, t.rope_theta); // [S, heads · head_dim]
            rotate(&mut k, t.head_dim, t.rope_theta); // [S, kv_heads · head_dim], as are values
            let scale = 1.0 / (t.query_scalar as f32).sqrt();
            let attended = attend(&q, &k, &v, t.head_dim, scale, t.attention_softcap, sees);
            let mut branch = self.linear(&attended, &at("self_attn.o_proj"));
            if gemma2 {
                branch = self.rms_norm(&branch, &at("post_attention_layernorm"));
            }
            add(&mut x, &branch);

            // The same name is that of the norm behind attention in Gemma 2, and before the MLP in Gemma 1.
            let before = if gemma2 { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
            let normed = self.rms_norm(&x, &at(before));
            let mut gate = self.linear(&normed, &at("mlp.gate_proj"));
            let up = self.linear(&normed, &at("mlp.up_proj"));
            for (gate, up) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
                *gate = gelu(*gate) * up; // GeGLU (2002.05202)
            }
            let mut branch = self.linear(&gate, &at("mlp.down_proj"));
            if gemma2 {
                branch = self.rms_norm(&branch, &at("post_feedforward_layernorm"));
            }
            add(&mut x, &branch);
            show(trace, &format!("text.layer.{i}"), &x);
        }
        let x = self.rms_norm(&x, &format!("{base}.norm"));
        show(trace, "text.final_norm", &x);
        // The embedding is the LM head too, unless the checkpoint has another.
        let head = self.find("lm_head.weight").unwrap_or(embedding);
        let last = x.last().expect("a prompt is not empty");
        let logits: Vec<f32> =
            head.iter().map(|token| dot(token, last)).map(|y| cap(y, t.final_softcap)).collect();
        show(trace, "logits.prefill", std::slice::from_ref(&logits));
        logits
    }

    /// A tensor of the checkpoint, if the architecture has it: row by row, all but its first dimension folded into one.
    fn find(&self, name: &str) -> Option<Rows> {
        let shape = self.shapes.get(name)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.weights.read(name, 0, &mut values).unwrap_or_else(|e| panic!("{name}: {e}"));
        Some(values.chunks(values.len() / shape[0]).map(<[f32]>::to_vec).collect())
    }

    fn matrix(&self, name: &str) -> Rows {
        self.find(name).unwrap_or_else(|| panic!("the architecture has no {name}"))
    }

    fn vector(&self, name: &str) -> Vec<f32> {
        self.matrix(name).concat()
    }

    /// `y = W x`, plus the bias if there is one: `[rows, inputs]` to `[rows, outputs]`; `W` is `[outputs, inputs]`.
    fn linear(&self, x: &Rows, name: &str) -> Rows {
        let weight = self.matrix(&format!("{name}.weight"));
        let bias = match self.find(&format!("{name}.bias")) {
            Some(bias) => bias.concat(),
            None => vec![0.0; weight.len()],
        };
        x.iter().map(|x| weight.iter().zip(&bias).map(|(w, b)| dot(w, x) + b).collect()).collect()
    }

    /// `(x - mean) / √(variance + ε) · weight + bias` (1607.06450).
    fn layer_norm(&self, x: &Rows, name: &str) -> Rows {
        let [weight, bias] = ["weight", "bias"].map(|kind| self.vector(&format!("{name}.{kind}")));
        let norm = |x: &Vec<f32>| {
            let n = x.len() as f32;
            let mean = x.iter().sum::<f32>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
            let root = (variance + self.config.vision.norm_eps as f32).sqrt();
            x.iter().zip(&weight).zip(&bias).map(|((x, w), b)| (x - mean) / root * w + b).collect()
        };
        x.iter().map(norm).collect()
    }

    /// `x / √(mean of x² + ε) · (1 + weight)` (1910.07467; the 1 is Gemma's).
    fn rms_norm(&self, x: &Rows, name: &str) -> Rows {
        let weight = self.vector(&format!("{name}.weight"));
        let norm = |x: &Vec<f32>| {
            let root = (dot(x, x) / x.len() as f32 + self.config.text.norm_eps as f32).sqrt();
            x.iter().zip(&weight).map(|(x, w)| x / root * (1.0 + w)).collect()
        };
        x.iter().map(norm).collect()
    }
}

/// `softmax(q · k · scale) v` for every head (1706.03762), over the keys that a row sees. Query heads in succession
/// share a key-value head (2305.13245). `[rows, heads · head_dim]` from queries as wide, keys and values
/// `[rows, kv_heads · head_dim]`.
fn attend(
    q: &Rows,
    k: &Rows,
    v: &Rows,
    head_dim: usize,
    scale: f32,
    softcap: Option<f64>,
    sees: impl Fn(usize, usize) -> bool,
) -> Rows {
    let group = q[0].len() / k[0].len();
    let attend_row = |(row, q): (usize, &Vec<f32>)| {
        let mut out = vec![0.0; q.len()];
        let keys: Vec<usize> = (0..k.len()).filter(|&key| sees(row, key)).collect();
        for (head, (q, out)) in q.chunks(head_dim).zip(out.chunks_mut(head_dim)).enumerate() {
            let of_head = head / group * head_dim..(head / group + 1) * head_dim;
            let score = |&key: &usize| cap(dot(q, &k[key][of_head.clone()]) * scale, softcap);
            let scores: Vec<f32> = keys.iter().map(score).collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f32 = weights.iter().sum();
            for (&key, weight) in keys.iter().zip(&weights) {
                for (out, v) in out.iter_mut().zip(&v[key][of_head.clone()]) {
                    *out += weight / sum * v;
                }
            }
        }
        out
    };
    q.iter().enumerate().map(attend_row).collect()
}

/// The rotary position embedding (2104.09864), in the halves of GPT-NeoX: number `i` of a head and number
/// `i + head_dim / 2` turn as a pair by `position · θ^(-2i / head_dim)`. Row `n` is at position `n`; only differences
/// matter.
fn rotate(rows: &mut Rows, head_dim: usize, theta: f64) {
    for (position, row) in rows.iter_mut().enumerate() {
        for head in row.chunks_mut(head_dim) {
            let (left, right) = head.split_at_mut(head_dim / 2);
            for (i, (a, b)) in left.iter_mut().zip(right).enumerate() {
                let angle = position as f64 * theta.powf(-2.0 * i as f64 / head_dim as f64);
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// A picture `[3, side, side]` as patches `[P, 3 · patch · patch]`, both row-major.
fn patches(pixels: &[f32], side: usize, patch: usize) -> Rows {
    let mut out = Rows::new();
    for top in (0..side).step_by(patch) {
        for left in (0..side).step_by(patch) {
            let rows =
                (0..3).flat_map(|colour| (top..top + patch).map(move |y| (colour * side + y) * side + left));
            out.push(rows.flat_map(|start| pixels[start..start + patch].to_vec()).collect());
        }
    }
    out
}

/// GELU in its approximation by tanh (1606.08415).
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + ((2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// A soft-cap keeps numbers between `-cap` and `cap` (Gemma 2, 2408.00118, section 2).
fn cap(x: f32, cap: Option<f64>) -> f32 {
    cap.map_or(x, |cap| cap as f32 * (x / cap as f32).tanh())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut Rows, more: &Rows) {
    x.iter_mut().flatten().zip(more.iter().flatten()).for_each(|(x, more)| *x += more);
}

/// Adds rows to a value: those of several pictures, or of several tokens, follow each other.
fn show(trace: &mut Trace, name: &str, rows: &[Vec<f32>]) {
    trace.entry(name.to_owned()).or_default().extend_from_slice(rows);
}
