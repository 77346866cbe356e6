//! The image encoder, SigLIP So400m/14, and the projector: patches in, image features out.

use palmtop_kernels::{ATTENTION_ROWS_MAX, Scores};

use crate::engine::control::Control;
use crate::engine::cpu::Engine;
use crate::engine::cpu::attention::Tile;
use crate::engine::cpu::buffers::{Buffers, attends_in_integers, blocks};
use crate::engine::cpu::compute::{Compute, Gate, Staged, Then, What};
use crate::engine::cpu::kv::KvArena;
use crate::engine::trace::Trace;
use crate::error::Result;
use crate::format::PalmFile;
use crate::model::Model;
use crate::model::config::Heads;
use crate::model::weights::{LayerNorm, Matrix, VisionLayer};
use crate::system::pool::Disjoint;

/// Encodes the patches that stand in `buffers.patches`, `[patches, 3·p·p]`; writes `[patches, decoder width]`.
pub(crate) fn encode(
    engine: &mut Engine,
    features: &mut [f32],
    control: Control<'_>,
    trace: &mut Trace<'_>,
) -> Result<()> {
    let Engine { model, compute, buffers, .. } = engine;
    let (file, w, v) = (model.file(), model.weights(), &model.config().vision);
    let (patches, hidden, eps) = (v.patches(), v.hidden, v.norm_eps as f32);
    for rows in blocks(patches) {
        let input = &buffers.patches[rows.start * v.patch_values()..];
        compute.stage_rows(&mut buffers.staged, &w.patch_embed, rows.len(), input);
        trace.inputs(format_args!("vision.patch_embed.weight"), &w.patch_embed, &buffers.staged);
        let out = &mut buffers.hidden[rows.start * hidden..rows.end * hidden];
        compute.matmul(
            &w.patch_embed.of(file),
            &buffers.staged,
            Then { out, stride: hidden, what: What::Bias(w.patch_bias.of(file)) },
        );
    }
    let position = w.position.of(file);
    buffers.hidden.iter_mut().zip(position).for_each(|(h, p)| *h += p);
    trace.f32(format_args!("vision.embed"), &[patches, hidden], &buffers.hidden[..patches * hidden]);
    for (i, layer) in w.vision.iter().enumerate() {
        control.check()?;
        attention(model, compute, buffers, i, layer, trace);
        for rows in blocks(patches) {
            mlp(file, compute, buffers, i, layer, rows, hidden, eps, trace);
        }
        trace.f32(format_args!("vision.layer.{i}"), &[patches, hidden], &buffers.hidden[..patches * hidden]);
    }
    control.check()?;
    let width = model.config().text.hidden;
    for rows in blocks(patches) {
        let input = &buffers.hidden[rows.start * hidden..];
        stage_norm(file, compute, &mut buffers.staged, &w.projector, &w.vision_norm, eps, rows.len(), input);
        trace.inputs(format_args!("projector.weight"), &w.projector, &buffers.staged);
        let out = &mut features[rows.start * width..rows.end * width];
        compute.matmul(
            &w.projector.of(file),
            &buffers.staged,
            Then { out, stride: width, what: What::Bias(w.projector_bias.of(file)) },
        );
    }
    if trace.is_on() {
        let (weight, bias) = (w.vision_norm.weight.of(file), w.vision_norm.bias.of(file));
        let rows = buffers.hidden[..patches * hidden].chunks(hidden).zip(buffers.qkv.chunks_mut(hidden));
        rows.for_each(|(x, out)| compute.kernels.layer_norm(x, weight, bias, eps, out));
        trace.f32(
            format_args!("vision.last_hidden_state"),
            &[patches, hidden],
            &buffers.qkv[..patches * hidden],
        );
        trace.f32(format_args!("image_features"), &[patches, width], features);
    }
    Ok(())
}

/// `hidden += out(attention(norm1(hidden)))`
fn attention(
    model: &Model,
    compute: &mut Compute,
    buffers: &mut Buffers,
    layer_index: usize,
    layer: &VisionLayer,
    trace: &mut Trace<'_>,
) {
    let (file, v) = (model.file(), &model.config().vision);
    let (patches, hidden, head_dim, eps) = (v.patches(), v.hidden, v.head_dim(), v.norm_eps as f32);
    let stride = 3 * hidden;
    for rows in blocks(patches) {
        let input = &buffers.hidden[rows.start * hidden..];
        stage_norm(file, compute, &mut buffers.staged, &layer.qkv, &layer.norm1, eps, rows.len(), input);
        let name = format_args!("vision.layer.{layer_index}.attn.qkv.weight");
        trace.inputs(name, &layer.qkv, &buffers.staged);
        let out = &mut buffers.qkv[rows.start * stride..rows.end * stride];
        compute.matmul(
            &layer.qkv.of(file),
            &buffers.staged,
            Then { out, stride, what: What::Bias(layer.qkv_bias.of(file)) },
        );
    }
    let heads = v.attention_heads();
    let how = Scores { scale: (1.0 / (head_dim as f64).sqrt()) as f32, softcap: None };
    let Buffers { qkv, attended, vision_kv, int8_kv, .. } = buffers;
    if attends_in_integers(&layer.qkv, &heads, patches) {
        int8_kv.attend(compute, heads, how, qkv, patches, attended);
    } else {
        attend_in_floats(compute, heads, how, qkv, patches, vision_kv, attended);
    }
    for rows in blocks(patches) {
        let input = &buffers.attended[rows.start * hidden..];
        compute.stage_rows(&mut buffers.staged, &layer.out, rows.len(), input);
        let name = format_args!("vision.layer.{layer_index}.attn.out.weight");
        trace.inputs(name, &layer.out, &buffers.staged);
        let out = &mut buffers.hidden[rows.start * hidden..rows.end * hidden];
        compute.matmul(
            &layer.out.of(file),
            &buffers.staged,
            Then { out, stride: hidden, what: What::AddBias(layer.out_bias.of(file)) },
        );
    }
}

/// All rows of `qkv` attend to each other.
fn attend_in_floats(
    compute: &mut Compute,
    heads: Heads,
    how: Scores,
    qkv: &[f32],
    patches: usize,
    kv: &mut KvArena,
    attended: &mut [f32],
) {
    let (stride, head_dim, width) = (heads.stride(), heads.head_dim, heads.width());
    let (kernels, writer) = (compute.kernels, kv.writer());
    compute.pool.run(&mut compute.scratch, patches, |position, _| {
        let row = &qkv[position * stride..(position + 1) * stride];
        let (keys, values) = row[width..].split_at(width);
        for (head, (key, value)) in keys.chunks(head_dim).zip(values.chunks(head_dim)).enumerate() {
            // SAFETY: every task has its own position.
            unsafe { writer.put(&kernels, head, position, key, value) };
        }
    });
    let tiles = patches.div_ceil(ATTENTION_ROWS_MAX);
    let (kv, attended) = (&*kv, Disjoint::new(attended));
    compute.pool.run(&mut compute.scratch, heads.heads * tiles, |task, scratch| {
        let (kv_head, tile) = (task / tiles, task % tiles);
        let rows = tile * ATTENTION_ROWS_MAX..patches.min((tile + 1) * ATTENTION_ROWS_MAX);
        let tile = Tile { heads, kv_head, rows, qkv, attended: &attended, first: 0 };
        // SAFETY: every task has its own rows of its own head.
        unsafe { tile.float(&kernels, kv, kv_head, 0..patches, how, &mut scratch.attention) };
    });
}

/// `hidden += fc2(gelu(fc1(norm2(hidden))))` for a block of rows.
fn mlp(
    file: &PalmFile,
    compute: &mut Compute,
    buffers: &mut Buffers,
    layer_index: usize,
    layer: &VisionLayer,
    rows: std::ops::Range<usize>,
    hidden: usize,
    eps: f32,
    trace: &mut Trace<'_>,
) {
    let input = &buffers.hidden[rows.start * hidden..];
    stage_norm(file, compute, &mut buffers.staged, &layer.fc1, &layer.norm2, eps, rows.len(), input);
    let Buffers { hidden: stream, staged, gated, .. } = buffers;
    let gate = Gate::BiasGelu(layer.fc1_bias.of(file));
    trace.inputs(format_args!("vision.layer.{layer_index}.mlp.fc1.weight"), &layer.fc1, staged);
    compute.matmul_gated(&layer.fc1.of(file), staged, gate, &layer.fc2, gated);
    trace.inputs(format_args!("vision.layer.{layer_index}.mlp.fc2.weight"), &layer.fc2, gated);
    let out = &mut stream[rows.start * hidden..rows.end * hidden];
    compute.matmul(
        &layer.fc2.of(file),
        gated,
        Then { out, stride: hidden, what: What::AddBias(layer.fc2_bias.of(file)) },
    );
}

/// Makes the layer norm of rows the input of a matrix.
fn stage_norm(
    file: &PalmFile,
    compute: &mut Compute,
    staged: &mut Staged,
    matrix: &Matrix,
    norm: &LayerNorm,
    eps: f32,
    rows: usize,
    input: &[f32],
) {
    let (kernels, width) = (compute.kernels, matrix.cols());
    let (weight, bias) = (norm.weight.of(file), norm.bias.of(file));
    compute.stage(staged, matrix, rows, |m, out| {
        kernels.layer_norm(&input[m * width..(m + 1) * width], weight, bias, eps, out);
    });
}
