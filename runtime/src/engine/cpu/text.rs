//! The decoder, Gemma 1 or 2: rows of hidden values in, logits out.

use palmtop_kernels::layout::LANES;
use palmtop_kernels::{ATTENTION_ROWS_MAX, PANEL, Scores};

use crate::engine::control::Control;
use crate::engine::cpu::Engine;
use crate::engine::cpu::attention::Tile;
use crate::engine::cpu::buffers::{Buffers, attends_in_integers, blocks};
use crate::engine::cpu::compute::{Gate, Then, What};
use crate::engine::head::HeadPart;
use crate::engine::trace::Trace;
use crate::error::Result;
use crate::format::PalmFile;
use crate::model::config::TextConfig;
use crate::model::kv_format::KvElement;
use crate::model::weights::{Matrix, Plain, TextLayer};
use crate::system::pool::Disjoint;

/// Panels of the head that are multiplied at once at least: fewer are not worth the waking of threads.
const HEAD_PANELS_MIN: usize = 64;

/// Rows of one sequence that are computed together and see each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Which sequence's keys and values.
    pub sequence: usize,
    /// Position of the first row; later rows follow it.
    pub position: usize,
    /// Rows. All of them see every key up to the last row's own.
    pub rows: usize,
    /// A prefix sees all of itself, whatever the sliding window.
    pub prefix: bool,
}

/// Which of the buffers holds the input of a matrix.
#[derive(Clone, Copy)]
enum Input {
    Staged,
    Gated,
}

impl Engine {
    /// Writes a row of the residual stream: a token's embedding times √width.
    pub fn embed(&mut self, row: usize, token: u32) {
        let t = &self.model.config().text;
        let out = &mut self.buffers.hidden[row * t.hidden..(row + 1) * t.hidden];
        self.model.weights().embed.of(self.model.file()).dequantize_row(token as usize, out);
        let scale = (t.hidden as f64).sqrt() as f32;
        out.iter_mut().for_each(|x| *x *= scale);
    }

    /// Runs all layers over the rows of the spans, which all have the same number of rows, then the head over the
    /// last row of each span: logits of span `i` become row `i` of `buffers.logits`. Those that `head` does not select are
    /// left as they were.
    pub fn forward(
        &mut self,
        spans: &[Span],
        head: &HeadPart,
        control: Control<'_>,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        let model = self.model.clone();
        let (t, file, w) = (&model.config().text, model.file(), model.weights());
        let rows = spans.iter().map(|s| s.rows).sum::<usize>();
        trace.f32(format_args!("text.embed"), &[rows, t.hidden], &self.buffers.hidden[..rows * t.hidden]);
        for (i, layer) in w.text.iter().enumerate() {
            control.check()?;
            self.attention(file, t, i, layer, spans, rows, trace);
            for block in blocks(rows) {
                self.mlp(file, t, i, layer, block, trace);
            }
            trace.f32(
                format_args!("text.layer.{i}"),
                &[rows, t.hidden],
                &self.buffers.hidden[..rows * t.hidden],
            );
        }
        control.check()?;
        let (kernels, eps, norm) = (self.compute.kernels, t.norm_eps as f32, w.text_norm.of(file));
        let Buffers { hidden, staged, logits, qkv, .. } = &mut self.buffers;
        if trace.is_on() {
            for (x, out) in hidden[..rows * t.hidden].chunks(t.hidden).zip(qkv.chunks_mut(t.hidden)) {
                kernels.rms_norm(x, norm, eps, out);
            }
            trace.f32(format_args!("text.final_norm"), &[rows, t.hidden], &qkv[..rows * t.hidden]);
        }
        if head.runs().is_some_and(<[_]>::is_empty) {
            return Ok(());
        }
        let per_span = rows / spans.len();
        self.compute.stage(staged, &w.embed, spans.len(), |i, out| {
            let last = (i + 1) * per_span - 1;
            kernels.rms_norm(&hidden[last * t.hidden..(last + 1) * t.hidden], norm, eps, out);
        });
        trace.inputs(format_args!("text.embed"), &w.embed, staged);
        let logits = &mut logits[..spans.len() * t.vocab];
        // The head has the weights of several layers: a call that is to stop need not wait for all of it.
        let layer = t.hidden * (t.qkv() + t.heads * t.head_dim + 3 * t.intermediate);
        let part = (layer / (t.hidden * PANEL)).max(HEAD_PANELS_MIN);
        let panels = t.vocab.div_ceil(PANEL);
        for start in (0..head.runs().map_or(panels, <[_]>::len)).step_by(part) {
            control.check()?;
            let then = Then { out: &mut *logits, stride: t.vocab, what: What::Store };
            let w = &w.embed.of(file);
            match head.runs() {
                None => self.compute.matmul_part(w, staged, then, start..panels.min(start + part)),
                Some(runs) => {
                    let runs = &runs[start..runs.len().min(start + part)];
                    self.compute.matmul_stripes(w, staged, then, runs);
                }
            }
        }
        let Some(cap) = t.final_softcap.map(|cap| cap as f32) else { return Ok(()) };
        let n = logits.len();
        let pieces = Disjoint::new(logits);
        match head.runs() {
            None => {
                const PIECE: usize = 4096;
                self.compute.pool.run(&mut self.compute.scratch, n.div_ceil(PIECE), |i, _| {
                    // SAFETY: every task has its own piece.
                    kernels.softcap(unsafe { pieces.get(i * PIECE..n.min((i + 1) * PIECE)) }, cap);
                });
            }
            Some(runs) => self.compute.pool.run(&mut self.compute.scratch, runs.len(), |i, _| {
                let columns = runs[i].start as usize * LANES..t.vocab.min(runs[i].end as usize * LANES);
                for row in (0..n).step_by(t.vocab) {
                    // SAFETY: every task has its own columns of every row: `matmul_stripes` has checked the runs.
                    let piece = unsafe { pieces.get(row + columns.start..row + columns.end) };
                    kernels.softcap(piece, cap);
                }
            }),
        }
        Ok(())
    }

    /// `hidden += attention(norm(hidden))`, through a second norm in Gemma 2.
    fn attention(
        &mut self,
        file: &PalmFile,
        t: &TextConfig,
        layer_index: usize,
        layer: &TextLayer,
        spans: &[Span],
        rows: usize,
        trace: &mut Trace<'_>,
    ) {
        let (head_dim, stride) = (t.head_dim, t.qkv());
        for block in blocks(rows) {
            self.stage_norm(file, t, &layer.qkv, &layer.attention_pre_norm, &block);
            let name = format_args!("text.layer.{layer_index}.attn.qkv.weight");
            trace.inputs(name, &layer.qkv, &self.buffers.staged);
            let out = &mut self.buffers.qkv[block.start * stride..block.end * stride];
            self.compute.matmul(
                &layer.qkv.of(file),
                &self.buffers.staged,
                Then { out, stride, what: What::Store },
            );
        }
        let per_span = rows / spans.len();
        let query_width = t.heads * head_dim;
        let slot = |span: &Span, head: usize| (span.sequence * t.layers + layer_index) * t.kv_heads + head;
        let (kernels, rope, writer) = (self.compute.kernels, &self.rope, self.kv.writer());
        let qkv = Disjoint::new(&mut self.buffers.qkv);
        self.compute.pool.run(&mut self.compute.scratch, rows, |row, _| {
            let span = &spans[row / per_span];
            let position = span.position + row % per_span;
            // SAFETY: every task has its own row.
            let row = unsafe { qkv.get(row * stride..(row + 1) * stride) };
            let (rotated, values) = row.split_at_mut(query_width + t.kv_heads * head_dim);
            rotated.chunks_mut(head_dim).for_each(|head| rope.rotate(position, head));
            let keys = rotated[query_width..].chunks(head_dim);
            for (head, (key, value)) in keys.zip(values.chunks(head_dim)).enumerate() {
                // SAFETY: every task has its own position of its own sequence.
                unsafe { writer.put(&kernels, slot(span, head), position, key, value) };
            }
        });
        let how = Scores {
            scale: (1.0 / t.query_scalar.sqrt()) as f32,
            softcap: t.attention_softcap.map(|c| c as f32),
        };
        let heads = t.attention_heads();
        // A prefix alone, whose rows all see each other; with f32 keys and values, nothing is to be rounded.
        let whole_prefix = matches!(spans, [Span { position: 0, prefix: true, .. }]);
        let rounds = self.kv.shape.element != KvElement::F32;
        let in_integers = whole_prefix && rounds && attends_in_integers(&layer.qkv, &heads, rows);
        let Buffers { qkv, attended, int8_kv, .. } = &mut self.buffers;
        if in_integers {
            int8_kv.attend(&mut self.compute, heads, how, qkv, rows, attended);
        } else {
            // Query heads that share keys, of all rows of a span, are the rows of a tile.
            let span_rows = per_span * heads.group();
            let tiles = span_rows.div_ceil(ATTENTION_ROWS_MAX);
            let (kv, attended) = (&self.kv, Disjoint::new(attended));
            let tasks = spans.len() * t.kv_heads * tiles;
            self.compute.pool.run(&mut self.compute.scratch, tasks, |task, scratch| {
                let (index, kv_head, tile) =
                    (task / tiles / t.kv_heads, task / tiles % t.kv_heads, task % tiles);
                let span = &spans[index];
                let end = span.position + span.rows;
                let start = match t.windows[layer_index] {
                    Some(window) if !span.prefix => end.saturating_sub(window),
                    _ => 0,
                };
                let first = index * per_span;
                let tile = Tile {
                    heads,
                    kv_head,
                    rows: tile * ATTENTION_ROWS_MAX..span_rows.min((tile + 1) * ATTENTION_ROWS_MAX),
                    qkv: &qkv[first * stride..],
                    attended: &attended,
                    first,
                };
                // SAFETY: every task has its own heads of its own rows.
                unsafe {
                    tile.float(&kernels, kv, slot(span, kv_head), start..end, how, &mut scratch.attention);
                }
            });
        }
        for block in blocks(rows) {
            let Buffers { attended, staged, .. } = &mut self.buffers;
            let input = &attended[block.start * query_width..];
            self.compute.stage_rows(staged, &layer.out, block.len(), input);
            trace.inputs(format_args!("text.layer.{layer_index}.attn.out.weight"), &layer.out, staged);
            self.add_branch(file, t, &layer.out, Input::Staged, layer.attention_post_norm.as_ref(), block);
        }
    }

    /// `hidden += down(gelu(gate(norm(hidden))) · up(norm(hidden)))` for a block of rows, through a second norm in
    /// Gemma 2.
    fn mlp(
        &mut self,
        file: &PalmFile,
        t: &TextConfig,
        layer_index: usize,
        layer: &TextLayer,
        block: std::ops::Range<usize>,
        trace: &mut Trace<'_>,
    ) {
        self.stage_norm(file, t, &layer.gate_up, &layer.mlp_pre_norm, &block);
        let Buffers { staged, gated, .. } = &mut self.buffers;
        trace.inputs(format_args!("text.layer.{layer_index}.mlp.gate_up.weight"), &layer.gate_up, staged);
        self.compute.matmul_gated(&layer.gate_up.of(file), staged, Gate::GeluMul, &layer.down, gated);
        trace.inputs(format_args!("text.layer.{layer_index}.mlp.down.weight"), &layer.down, gated);
        self.add_branch(file, t, &layer.down, Input::Gated, layer.mlp_post_norm.as_ref(), block);
    }

    /// Makes the norm of a block of rows the input of a matrix.
    fn stage_norm(
        &mut self,
        file: &PalmFile,
        t: &TextConfig,
        matrix: &Matrix,
        norm: &Plain,
        block: &std::ops::Range<usize>,
    ) {
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
        file: &PalmFile,
        t: &TextConfig,
        matrix: &Matrix,
        input: Input,
        norm: Option<&Plain>,
        block: std::ops::Range<usize>,
    ) {
        let Buffers { hidden, branch, staged, gated, .. } = &mut self.buffers;
        let staged = match input {
            Input::Staged => &*staged,
            Input::Gated => &*gated,
        };
        let out = &mut hidden[block.start * t.hidden..block.end * t.hidden];
        let stride = t.hidden;
        let Some(norm) = norm else {
            self.compute.matmul(&matrix.of(file), staged, Then { out, stride, what: What::Add });
            return;
        };
        let branch = &mut branch[..block.len() * t.hidden];
        self.compute.matmul(&matrix.of(file), staged, Then { out: branch, stride, what: What::Store });
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
