//! The decoder, Gemma 1 or 2: rows of embeddings and image features in; logits, rows or vectors out.

use std::ops::Range;

use palmtop_kernels::layout::LANES;
use palmtop_kernels::{PANEL, Scores};

use super::ahead::Place;
use super::attention::Tile;
use super::buffers::{Buffers, attends_in_integers, blocks, vector_blocks};
use super::compute::{Activation, Epilogue, Output};
use super::engine::CpuEngine;
use crate::engine::control::Watch;
use crate::engine::head::HeadPart;
use crate::engine::span::{Batch, Sees, Span};
use crate::engine::trace::Trace;
use crate::engine::wanted::{RowsOut, Wanted};
use crate::error::Result;
use crate::format::PalmFile;
use crate::model::config::TextConfig;
use crate::model::kv_format::KvElement;
use crate::model::weights::{Matrix, Plain, RetrievalHead, TextLayer};
use crate::system::pool::Disjoint;

/// Panels of the LM head that are multiplied at once at least: fewer are not worth the waking of threads.
const HEAD_PANELS_MIN: usize = 64;

/// Which of the buffers holds the input of a matrix.
#[derive(Clone, Copy)]
enum Input {
    Staged,
    Activated,
}

/// A layer, and all that it needs to know of the model.
#[derive(Clone, Copy)]
struct Layer<'a> {
    index: usize,
    weights: &'a TextLayer,
    file: &'a PalmFile,
    config: &'a TextConfig,
}

/// See [`Engine::forward`](crate::engine::Engine::forward).
pub(super) fn forward(
    engine: &mut CpuEngine,
    batch: Batch<'_>,
    mut wanted: Wanted<'_>,
    watch: &dyn Watch,
    trace: &mut Trace<'_>,
) -> Result<()> {
    let model = engine.model.clone();
    let (config, file, weights) = (&model.config().text, model.file(), model.weights());
    let windowed = (0..config.layers).any(|i| config.layer(i).window.is_some());
    let (image_rows, group) = (model.config().image_rows(), config.attention_heads().group());
    engine.buffers.rows.arrange(batch.spans, image_rows, group, windowed);
    engine.embed(batch);
    let (rows, width) = (engine.buffers.rows.places().len(), config.hidden);
    trace.f32(format_args!("text.embed"), &[rows, width], &engine.buffers.hidden[..rows * width]);
    let whole_head = matches!(&wanted, Wanted::Logits(head) if head.runs().is_none());
    for (index, weights) in weights.text.iter().enumerate() {
        watch.check()?;
        engine.ahead.reach(&mut engine.compute, file, weights.place(), whole_head);
        let layer = Layer { index, weights, file, config };
        engine.project(layer, batch.first_angle, trace);
        if let Wanted::Rows(out) = &mut wanted {
            let qkv = &engine.buffers.qkv[..rows * config.qkv()];
            out.give_keys_values(index, qkv, config.qkv(), config.kv_heads * config.head_dim);
        }
        let is_last = index + 1 == config.layers;
        if is_last && wanted.ends_with_keys() {
            return Ok(());
        }
        engine.attend(layer, batch.spans);
        // Of the last layer, others need only the keys and values of rows without logits, and these are kept now.
        let gives_logits = matches!(wanted, Wanted::Logits(_));
        let rows = match is_last && gives_logits && !trace.is_on() {
            true => engine.keep_rows_with_logits(),
            false => rows,
        };
        engine.add_attended(layer, rows, trace);
        for block in blocks(rows) {
            engine.mlp(layer, block, trace);
        }
        trace.f32(format_args!("text.layer.{index}"), &[rows, width], &engine.buffers.hidden[..rows * width]);
    }
    watch.check()?;
    match wanted {
        Wanted::Logits(head) => engine.lm_head(head, watch, trace)?,
        Wanted::Rows(out) => engine.give_hidden(out),
        Wanted::Vectors(out) => engine.give_vectors(out),
    }
    Ok(())
}

impl CpuEngine {
    /// Writes the rows of the residual stream: image features as they are, a token's embedding times √width.
    fn embed(&mut self, batch: Batch<'_>) {
        let width = self.model.config().text.hidden;
        let embedding = self.model.weights().embed.of(self.model.file());
        let scale = (width as f64).sqrt() as f32;
        let mut hidden = &mut self.buffers.hidden[..];
        let (mut pictures, mut tokens) = (batch.pictures.iter(), batch.tokens.iter());
        for span in batch.spans {
            for features in pictures.by_ref().take(span.pictures) {
                let (out, rest) = hidden.split_at_mut(features.values.len());
                out.copy_from_slice(&features.values);
                hidden = rest;
            }
            for &token in tokens.by_ref().take(span.tokens) {
                let (out, rest) = hidden.split_at_mut(width);
                embedding.dequantize_row(token as usize, out);
                out.iter_mut().for_each(|x| *x *= scale);
                hidden = rest;
            }
        }
    }

    /// Gives the last norm of every row.
    fn give_hidden(&mut self, out: RowsOut<'_>) {
        let model = self.model.clone();
        let (t, norm) = (&model.config().text, model.weights().text_norm.of(model.file()));
        for (row, &place) in self.buffers.hidden.chunks_exact(t.hidden).zip(out.places) {
            let at = place as usize * t.hidden;
            let out = &mut out.hidden[at..at + t.hidden];
            self.compute.kernels.rms_norm(row, norm, t.norm_eps as f32, out);
        }
    }

    /// Gives the vector of every row.
    fn give_vectors(&mut self, out: &mut [f32]) {
        let model = self.model.clone();
        let (t, file, w) = (&model.config().text, model.file(), model.weights());
        let RetrievalHead { matrix, bias } =
            w.retrieval.as_ref().expect("a session asks only where there is one");
        let (kernels, eps, norm) = (self.compute.kernels, t.norm_eps as f32, w.text_norm.of(file));
        let (dim, rows) = (matrix.rows(), self.buffers.rows.places().len());
        let Buffers { hidden, staged, .. } = &mut self.buffers;
        for block in vector_blocks(rows) {
            self.compute.stage(staged, matrix, block.len(), |m, out| {
                let at = (block.start + m) * t.hidden;
                kernels.rms_norm(&hidden[at..at + t.hidden], norm, eps, out);
            });
            let out = &mut out[block.start * dim..block.end * dim];
            let epilogue = Epilogue::Bias(bias.of(file));
            self.compute.matmul(&matrix.of(file), staged, Output { out: &mut *out, stride: dim, epilogue });
            out.chunks_exact_mut(dim).for_each(to_unit_length);
        }
    }

    /// Logits of the rows that are to have them.
    fn lm_head(&mut self, head: &HeadPart, watch: &dyn Watch, trace: &mut Trace<'_>) -> Result<()> {
        let model = self.model.clone();
        let (t, file, w) = (&model.config().text, model.file(), model.weights());
        let (kernels, eps, norm) = (self.compute.kernels, t.norm_eps as f32, w.text_norm.of(file));
        let Buffers { hidden, staged, logits, rows, .. } = &mut self.buffers;
        let row = |m: usize| &hidden[m * t.hidden..(m + 1) * t.hidden];
        if trace.is_on() {
            let all = rows.places().len();
            let mut normed = vec![0.0; all * t.hidden];
            let outputs = normed.chunks_mut(t.hidden).enumerate();
            outputs.for_each(|(m, out)| kernels.rms_norm(row(m), norm, eps, out));
            trace.f32(format_args!("text.final_norm"), &[all, t.hidden], &normed);
        }
        if rows.heads().is_empty() || head.runs().is_some_and(<[_]>::is_empty) {
            return Ok(());
        }
        let heads = rows.heads();
        self.compute.stage(staged, w.head(), heads.len(), |i, out| {
            kernels.rms_norm(row(heads[i]), norm, eps, out);
        });
        let name = if t.own_head { "text.head" } else { "text.embed" };
        trace.inputs(format_args!("{name}"), t.hidden, || staged.to_f32());
        let logits = &mut logits[..heads.len() * t.vocab];
        // The head has the weights of several layers: a call that is to stop need not wait for all of it.
        let layer: usize =
            w.text.first().map_or(0, |l| l.matrices().map(|m| m.rows() * m.cols()).iter().sum());
        let part = (layer / (t.hidden * PANEL)).max(HEAD_PANELS_MIN);
        let panels = t.vocab.div_ceil(PANEL);
        for start in (0..head.runs().map_or(panels, <[_]>::len)).step_by(part) {
            watch.check()?;
            let output = Output { out: &mut *logits, stride: t.vocab, epilogue: Epilogue::Store };
            let w = &w.head().of(file);
            match head.runs() {
                None => self.compute.matmul_part(w, staged, output, start..panels.min(start + part)),
                Some(runs) => {
                    let runs = &runs[start..runs.len().min(start + part)];
                    self.compute.matmul_stripes(w, staged, output, runs);
                }
            }
        }
        if let Some(cap) = t.final_softcap {
            self.softcap_logits(head, cap as f32, t.vocab);
        }
        Ok(())
    }

    /// Applies the soft-cap to the selected logits.
    fn softcap_logits(&mut self, head: &HeadPart, cap: f32, vocab: usize) {
        let (kernels, n) = (self.compute.kernels, self.buffers.rows.heads().len() * vocab);
        let pieces = Disjoint::new(&mut self.buffers.logits[..n]);
        match head.runs() {
            None => {
                const PIECE: usize = 4096;
                self.compute.pool.run(&mut self.compute.scratch, n.div_ceil(PIECE), |i, _| {
                    // SAFETY: every task has its own piece.
                    kernels.softcap(unsafe { pieces.get(i * PIECE..n.min((i + 1) * PIECE)) }, cap);
                });
            }
            Some(runs) => self.compute.pool.run(&mut self.compute.scratch, runs.len(), |i, _| {
                let columns = runs[i].start as usize * LANES..vocab.min(runs[i].end as usize * LANES);
                for row in (0..n).step_by(vocab) {
                    // SAFETY: every task has its own columns of every row: `matmul_stripes` has checked the runs.
                    let piece = unsafe { pieces.get(row + columns.start..row + columns.end) };
                    kernels.softcap(piece, cap);
                }
            }),
        }
    }

    /// Queries, keys and values of `norm(hidden)`; keys and values go to the cache too.
    fn project(&mut self, layer: Layer<'_>, first_angle: usize, trace: &mut Trace<'_>) {
        let Layer { index, weights: w, file, config: t } = layer;
        let stride = t.qkv();
        let rows = self.buffers.rows.places().len();
        for block in blocks(rows) {
            self.stage_norm(layer, &w.qkv, &w.attention_pre_norm, &block);
            let staged = &self.buffers.staged;
            let name = format_args!("text.layer.{index}.attn.qkv.weight");
            trace.inputs(name, t.hidden, || staged.to_f32());
            let out = &mut self.buffers.qkv[block.start * stride..block.end * stride];
            let output = Output { out, stride, epilogue: Epilogue::Store };
            self.compute.matmul(&w.qkv.of(file), &self.buffers.staged, output);
        }
        self.rotate_and_keep(layer, first_angle);
    }

    /// `attended = attention(queries, keys, values)`.
    fn attend(&mut self, layer: Layer<'_>, spans: &[Span]) {
        let Layer { index, weights: w, config: t, .. } = layer;
        let (facts, heads) = (t.layer(index), t.attention_heads());
        let layers_kept = self.layers_kept;
        let how =
            Scores { scale: facts.query_scale as f32, softcap: facts.attention_softcap.map(|c| c as f32) };
        // With f32 keys and values, nothing is to be rounded.
        let rounds = self.kv.shape.element != KvElement::F32;
        let Buffers { qkv, attended, int8_kv, rows: layout, .. } = &mut self.buffers;
        let mut tiles = layout.tiles();
        // A prefix, whose rows all see each other; a draft may come behind it.
        if let [Span { position: 0, sees: Sees::Whole, .. }, draft @ ..] = spans
            && draft.iter().all(|span| span.sees == Sees::Causal)
            && let rows = tiles.first().map_or(0, |tile| tile.span_rows)
            && rounds
            && attends_in_integers(&w.qkv, &heads, rows)
        {
            int8_kv.attend(&mut self.compute, heads, how, qkv, rows, attended);
            tiles = &tiles[tiles.partition_point(|tile| tile.span == 0)..];
        }
        if !tiles.is_empty() {
            let (kernels, kv, attended) = (self.compute.kernels, &self.kv, Disjoint::new(attended));
            self.compute.pool.run(&mut self.compute.scratch, tiles.len() * t.kv_heads, |task, scratch| {
                let (kv_head, place) = (task / tiles.len(), &tiles[task % tiles.len()]);
                let span = &spans[place.span];
                let row = place.queries.start / heads.group() - place.first;
                let keys = span.keys(row, place.span_rows, facts.window);
                let tile = Tile { heads, kv_head, queries: place.queries.clone(), qkv, attended: &attended };
                let slot = slot(t, layers_kept, span.sequence, index, kv_head);
                // SAFETY: every task has its own heads of its own rows.
                unsafe { tile.float(&kernels, kv, slot, keys, how, &mut scratch.attention) };
            });
        }
    }

    /// Moves the rows that get logits to the front of `hidden` and `attended`; gives their number.
    fn keep_rows_with_logits(&mut self) -> usize {
        let t = &self.model.config().text;
        let (hidden_width, attended_width) = (t.hidden, t.attention_heads().width());
        let Buffers { hidden, attended, rows, .. } = &mut self.buffers;
        // They are in order, so none is written over before it is moved.
        for (to, &from) in rows.heads().iter().enumerate() {
            hidden.copy_within(from * hidden_width..(from + 1) * hidden_width, to * hidden_width);
            attended.copy_within(from * attended_width..(from + 1) * attended_width, to * attended_width);
        }
        rows.only_heads_are_left()
    }

    /// `hidden += out(attended)`, through a second norm where the layer has one.
    fn add_attended(&mut self, layer: Layer<'_>, rows: usize, trace: &mut Trace<'_>) {
        let Layer { index, weights: w, config: t, .. } = layer;
        let width = t.attention_heads().width();
        for block in blocks(rows) {
            let Buffers { attended, staged, .. } = &mut self.buffers;
            let input = &attended[block.start * width..];
            self.compute.stage_rows(staged, &w.out, block.len(), input);
            trace.inputs(format_args!("text.layer.{index}.attn.out.weight"), width, || staged.to_f32());
            self.add_branch(layer, &w.out, Input::Staged, w.attention_post_norm.as_ref(), block);
        }
    }

    /// Rotates queries and keys by their positions, and writes keys and values into the cache.
    fn rotate_and_keep(&mut self, layer: Layer<'_>, first_angle: usize) {
        let (Layer { index, config: t, .. }, layers_kept) = (layer, self.layers_kept);
        let (heads, stride, head_dim) = (t.attention_heads(), t.qkv(), t.head_dim);
        let query_width = heads.width();
        let theta = t.layer(index).rope_theta;
        let rope = self.ropes.iter().find(|rope| rope.theta() == theta).expect("every layer has a table");
        let (kernels, writer) = (self.compute.kernels, self.kv.writer());
        let places = self.buffers.rows.places();
        let qkv = Disjoint::new(&mut self.buffers.qkv);
        self.compute.pool.run(&mut self.compute.scratch, places.len(), |row, _| {
            let place = places[row];
            // SAFETY: every task has its own row.
            let row = unsafe { qkv.get(row * stride..(row + 1) * stride) };
            let (rotated, values) = row.split_at_mut(query_width + t.kv_heads * head_dim);
            let steps = place.position + first_angle;
            rotated.chunks_mut(head_dim).for_each(|head| rope.rotate(steps, head));
            let keys = rotated[query_width..].chunks(head_dim);
            for (head, (key, value)) in keys.zip(values.chunks(head_dim)).enumerate() {
                let slot = slot(t, layers_kept, place.sequence, index, head);
                // SAFETY: every task has its own position of its own sequence.
                unsafe { writer.put(&kernels, slot, place.position, key, value) };
            }
        });
    }

    /// `hidden += down(gelu(gate(norm(hidden))) · up(norm(hidden)))` for a block of rows, through a second
    /// norm where the layer has one.
    fn mlp(&mut self, layer: Layer<'_>, block: Range<usize>, trace: &mut Trace<'_>) {
        let Layer { index, weights: w, file, config: t } = layer;
        self.stage_norm(layer, &w.gate_up, &w.mlp_pre_norm, &block);
        let Buffers { staged, activated, .. } = &mut self.buffers;
        trace.inputs(format_args!("text.layer.{index}.mlp.gate_up.weight"), t.hidden, || staged.to_f32());
        self.compute.matmul_activated(&w.gate_up.of(file), staged, Activation::GatedGelu, &w.down, activated);
        trace.inputs(format_args!("text.layer.{index}.mlp.down.weight"), t.intermediate, || {
            activated.to_f32()
        });
        self.add_branch(layer, &w.down, Input::Activated, w.mlp_post_norm.as_ref(), block);
    }

    /// Makes the norm of a block of rows the input of a matrix.
    fn stage_norm(&mut self, layer: Layer<'_>, matrix: &Matrix, norm: &Plain, block: &Range<usize>) {
        let Layer { file, config: t, .. } = layer;
        let (kernels, weight, eps) = (self.compute.kernels, norm.of(file), t.norm_eps as f32);
        let Buffers { hidden, staged, .. } = &mut self.buffers;
        let input = &hidden[block.start * t.hidden..block.end * t.hidden];
        self.compute.stage(staged, matrix, block.len(), |m, out| {
            kernels.rms_norm(&input[m * t.hidden..(m + 1) * t.hidden], weight, eps, out);
        });
    }

    /// Multiplies the input's rows and adds the result to the residual stream, through `norm` if there is one.
    fn add_branch(
        &mut self,
        layer: Layer<'_>,
        matrix: &Matrix,
        input: Input,
        norm: Option<&Plain>,
        block: Range<usize>,
    ) {
        let Layer { file, config: t, .. } = layer;
        let Buffers { hidden, branch, staged, activated, .. } = &mut self.buffers;
        let staged = match input {
            Input::Staged => &*staged,
            Input::Activated => &*activated,
        };
        let out = &mut hidden[block.start * t.hidden..block.end * t.hidden];
        let stride = t.hidden;
        let Some(norm) = norm else {
            self.compute.matmul(&matrix.of(file), staged, Output { out, stride, epilogue: Epilogue::Add });
            return;
        };
        let branch = &mut branch[..block.len() * t.hidden];
        self.compute.matmul(
            &matrix.of(file),
            staged,
            Output { out: branch, stride, epilogue: Epilogue::Store },
        );
        let (kernels, weight, eps) = (self.compute.kernels, norm.of(file), t.norm_eps as f32);
        let (out, branch) = (Disjoint::new(out), &*branch);
        self.compute.pool.run(&mut self.compute.scratch, block.len(), |m, scratch| {
            let normed = &mut scratch.row[..t.hidden];
            kernels.rms_norm(&branch[m * t.hidden..(m + 1) * t.hidden], weight, eps, normed);
            // SAFETY: every task has its own row.
            let out = unsafe { out.get(m * t.hidden..(m + 1) * t.hidden) };
            out.iter_mut().zip(normed).for_each(|(o, x)| *o += *x);
        });
    }
}

/// The cache's slot of a sequence, a layer and a key-value head.
fn slot(t: &TextConfig, layers_kept: usize, sequence: usize, layer: usize, kv_head: usize) -> usize {
    (sequence * layers_kept + layer % layers_kept) * t.kv_heads + kv_head
}

/// Divides a vector by its length, which is summed in f64, one number after the other.
fn to_unit_length(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
