//! The image encoder, SigLIP So400m/14, and the projector: patches in, image features out.

use std::ops::Range;

use palmtop_kernels::{ATTENTION_ROWS_MAX, Scores};

use super::ahead::Place;
use super::attention::Tile;
use super::buffers::{Buffers, attends_in_integers, blocks};
use super::compute::{Activation, Compute, Epilogue, Output};
use super::engine::CpuEngine;
use super::kv_cache::KvCache;
use super::staged::Staged;
use crate::engine::control::Watch;
use crate::engine::trace::Trace;
use crate::error::Result;
use crate::format::PalmFile;
use crate::model::Model;
use crate::model::config::Heads;
use crate::model::weights::{LayerNorm, Matrix, VisionLayer};
use crate::system::pool::Disjoint;

/// See [`Engine::encode`](crate::engine::Engine::encode).
pub(super) fn encode(
    engine: &mut CpuEngine,
    features: &mut [f32],
    watch: &dyn Watch,
    trace: &mut Trace<'_>,
) -> Result<()> {
    let CpuEngine { model, compute, buffers, ahead, .. } = engine;
    let (file, w, v) = (model.file(), model.weights(), &model.config().vision);
    let (patches, hidden, eps) = (v.patches(), v.hidden, v.norm_eps as f32);
    ahead.begin();
    ahead.reach(compute, file, w.patch_embed.place(), false);
    for rows in blocks(patches) {
        let input = &buffers.patches[rows.start * v.patch_values()..];
        compute.stage_rows(&mut buffers.staged, &w.patch_embed, rows.len(), input);
        trace.inputs(format_args!("vision.patch_embed.weight"), w.patch_embed.cols(), || {
            buffers.staged.to_f32()
        });
        let out = &mut buffers.hidden[rows.start * hidden..rows.end * hidden];
        compute.matmul(
            &w.patch_embed.of(file),
            &buffers.staged,
            Output { out, stride: hidden, epilogue: Epilogue::Bias(w.patch_bias.of(file)) },
        );
    }
    let position = w.position.of(file);
    buffers.hidden.iter_mut().zip(position).for_each(|(h, p)| *h += p);
    trace.f32(format_args!("vision.embed"), &[patches, hidden], &buffers.hidden[..patches * hidden]);
    for (i, layer) in w.vision.iter().enumerate() {
        watch.check()?;
        ahead.reach(compute, file, layer.place(), false);
        attention(model, compute, buffers, i, layer, trace);
        for rows in blocks(patches) {
            mlp(file, compute, buffers, i, layer, rows, hidden, eps, trace);
        }
        trace.f32(format_args!("vision.layer.{i}"), &[patches, hidden], &buffers.hidden[..patches * hidden]);
    }
    watch.check()?;
    let width = model.config().text.hidden;
    for rows in blocks(patches) {
        let input = &buffers.hidden[rows.start * hidden..];
        stage_norm(file, compute, &mut buffers.staged, &w.projector, &w.vision_norm, eps, rows.len(), input);
        trace.inputs(format_args!("projector.weight"), w.projector.cols(), || buffers.staged.to_f32());
        let out = &mut features[rows.start * width..rows.end * width];
        compute.matmul(
            &w.projector.of(file),
            &buffers.staged,
            Output { out, stride: width, epilogue: Epilogue::Bias(w.projector_bias.of(file)) },
        );
    }
    if trace.is_on() {
        let (weight, bias) = (w.vision_norm.weight.of(file), w.vision_norm.bias.of(file));
        let mut normed = vec![0.0; patches * hidden];
        let rows = buffers.hidden[..patches * hidden].chunks(hidden).zip(normed.chunks_mut(hidden));
        rows.for_each(|(x, out)| compute.kernels.layer_norm(x, weight, bias, eps, out));
        trace.f32(format_args!("vision.last_hidden_state"), &[patches, hidden], &normed);
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
        trace.inputs(name, layer.qkv.cols(), || buffers.staged.to_f32());
        let out = &mut buffers.qkv[rows.start * stride..rows.end * stride];
        compute.matmul(
            &layer.qkv.of(file),
            &buffers.staged,
            Output { out, stride, epilogue: Epilogue::Bias(layer.qkv_bias.of(file)) },
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
        trace.inputs(name, layer.out.cols(), || buffers.staged.to_f32());
        let out = &mut buffers.hidden[rows.start * hidden..rows.end * hidden];
        compute.matmul(
            &layer.out.of(file),
            &buffers.staged,
            Output { out, stride: hidden, epilogue: Epilogue::AddBias(layer.out_bias.of(file)) },
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
    kv: &mut KvCache,
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
        let queries = tile * ATTENTION_ROWS_MAX..patches.min((tile + 1) * ATTENTION_ROWS_MAX);
        let tile = Tile { heads, kv_head, queries, qkv, attended: &attended };
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
    rows: Range<usize>,
    hidden: usize,
    eps: f32,
    trace: &mut Trace<'_>,
) {
    let input = &buffers.hidden[rows.start * hidden..];
    stage_norm(file, compute, &mut buffers.staged, &layer.fc1, &layer.norm2, eps, rows.len(), input);
    let Buffers { hidden: stream, staged, activated, .. } = buffers;
    let activation = Activation::BiasGelu(layer.fc1_bias.of(file));
    trace.inputs(format_args!("vision.layer.{layer_index}.mlp.fc1.weight"), layer.fc1.cols(), || {
        staged.to_f32()
    });
    compute.matmul_activated(&layer.fc1.of(file), staged, activation, &layer.fc2, activated);
    trace.inputs(format_args!("vision.layer.{layer_index}.mlp.fc2.weight"), layer.fc2.cols(), || {
        activated.to_f32()
    });
    let out = &mut stream[rows.start * hidden..rows.end * hidden];
    compute.matmul(
        &layer.fc2.of(file),
        activated,
        Output { out, stride: hidden, epilogue: Epilogue::AddBias(layer.fc2_bias.of(file)) },
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
