//! Writes `.npz` files as `numpy.savez` does, and a checkpoint's weights in the layout of big_vision.

use std::collections::BTreeMap;
use std::path::Path;

use palmtop::model::config::{Config, Generation};
use palmtop::model::tensors::classic;
use safetensors::{Dtype, SafeTensors};

/// An array: its type as NumPy writes it, its shape, and its bytes in C order.
pub struct Array {
    /// `<f4`, `<f2` or `|V2`.
    pub descr: &'static str,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Little-endian values.
    pub bytes: Vec<u8>,
}

/// A stored archive; with 64-bit sizes wherever they can be, if `zip64`.
pub fn archive(arrays: &BTreeMap<String, Array>, zip64: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let entry = npy(array);
        let name = format!("{name}.npy");
        let (crc, length, at) = (crc32fast::hash(&entry), entry.len() as u64, file.len() as u64);
        let mut local = b"PK\x03\x04\x2d\0\0\0\0\0\0\0\x21\0".to_vec();
        local.extend(crc.to_le_bytes());
        // NumPy always writes 64-bit sizes here.
        local.extend([0xff; 8]);
        local.extend((name.len() as u16).to_le_bytes());
        local.extend(20u16.to_le_bytes());
        local.extend(name.as_bytes());
        local.extend([1, 0, 16, 0]);
        local.extend([length.to_le_bytes(), length.to_le_bytes()].concat());
        file.extend(local);
        file.extend(&entry);

        let extra: Vec<u8> = match zip64 {
            // Another field stands before the one of sizes.
            true => [
                &[9, 9, 3, 0, 1, 2, 3, 1, 0, 24, 0][..],
                &[length, length, at].map(u64::to_le_bytes).concat(),
            ]
            .concat(),
            false => Vec::new(),
        };
        let number = |n: u64| if zip64 { u32::MAX } else { n as u32 }.to_le_bytes();
        directory.extend(b"PK\x01\x02\x2d\x03\x2d\0\0\0\0\0\0\0\x21\0");
        directory.extend(crc.to_le_bytes());
        directory.extend([number(length), number(length)].concat());
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(number(at));
        directory.extend(name.as_bytes());
        directory.extend(extra);
    }
    let (at, size, count) = (file.len() as u64, directory.len() as u64, arrays.len() as u64);
    file.extend(directory);
    if zip64 {
        let record = file.len() as u64;
        file.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0");
        file.extend([count, count, size, at].map(u64::to_le_bytes).concat());
        file.extend(b"PK\x06\x07\0\0\0\0");
        file.extend(record.to_le_bytes());
        file.extend([1, 0, 0, 0]);
    }
    file.extend(b"PK\x05\x06\0\0\0\0");
    let (count, size, at) = match zip64 {
        true => (u16::MAX, u32::MAX, u32::MAX),
        false => (count as u16, size as u32, at as u32),
    };
    file.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    file.extend([size.to_le_bytes(), at.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

fn npy(array: &Array) -> Vec<u8> {
    let sizes: String = array.shape.iter().map(|size| format!("{size}, ")).collect();
    let shape = match array.shape.len() {
        1 => sizes.trim_end().to_owned(),
        _ => sizes.trim_end_matches(", ").to_owned(),
    };
    let mut head = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}), }}", array.descr);
    while (10 + head.len() + 1) % 64 != 0 {
        head.push(' ');
    }
    head.push('\n');
    let mut out = b"\x93NUMPY\x01\0".to_vec();
    out.extend((head.len() as u16).to_le_bytes());
    out.extend(head.as_bytes());
    out.extend(&array.bytes);
    out
}

/// For the indices of a value in an array: the tensor of the hub's that has it, and its indices there.
type Origin<'a> = dyn Fn(&[usize]) -> (String, Vec<usize>) + 'a;

/// The weights of a checkpoint in the hub's form, in big_vision's: every value stands where the formulas of its einsums
/// want it, and the embedding ends where the picture's token would have its row.
///
/// The image encoder's layers are stacked, or each has arrays of its own.
pub fn jax(checkpoint: &Path, config: &Config, stacked: bool) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(checkpoint).expect("a checkpoint");
    let file = SafeTensors::deserialize(&bytes).expect("a readable checkpoint");
    let tensors: BTreeMap<String, _> =
        file.tensors().into_iter().map(|(name, view)| (classic(&name), view)).collect();
    let mut arrays = BTreeMap::new();
    let mut put = |key: &str, shape: &[usize], from: &Origin<'_>| {
        let (mut bytes, mut descr) = (Vec::new(), "");
        for flat in 0..shape.iter().product() {
            let (mut index, mut rest) = (vec![0; shape.len()], flat);
            for axis in (0..shape.len()).rev() {
                (index[axis], rest) = (rest % shape[axis], rest / shape[axis]);
            }
            let (name, place) = from(&index);
            let view = tensors.get(&name).unwrap_or_else(|| panic!("no tensor {name}"));
            assert_eq!(view.shape().len(), place.len(), "{name}");
            let at = place.iter().zip(view.shape()).fold(0, |at, (i, size)| {
                assert!(i < size, "{name} {place:?}");
                at * size + i
            });
            let size = if view.dtype() == Dtype::F32 { 4 } else { 2 };
            bytes.extend(&view.data()[at * size..][..size]);
            descr = match view.dtype() {
                Dtype::F32 => "<f4",
                Dtype::F16 => "<f2",
                _ => "|V2",
            };
        }
        arrays.insert(key.to_owned(), Array { descr, shape: shape.to_vec(), bytes });
    };
    let (v, t) = (&config.vision, &config.text);
    let (w, p, size) = (v.hidden, v.patch_size, v.head_dim());
    let vision = |name: &str| format!("vision_tower.vision_model.{name}");
    put("img/embedding/kernel", &[p, p, 3, w], &|i| {
        (vision("embeddings.patch_embedding.weight"), vec![i[3], i[2], i[0], i[1]])
    });
    put("img/embedding/bias", &[w], &|i| (vision("embeddings.patch_embedding.bias"), i.to_vec()));
    let position = if stacked { "img/pos_embedding" } else { "img/Transformer/posembed_input/pos_embedding" };
    put(position, &[1, v.patches(), w], &|i| {
        (vision("embeddings.position_embedding.weight"), i[1..].to_vec())
    });
    let mut put_layers = |name: &str, shape: &[usize], from: &Origin<'_>| {
        let of_layer = |layer: usize, index: &[usize]| {
            let (tensor, place) = from(index);
            (vision(&format!("encoder.layers.{layer}.{tensor}")), place)
        };
        if stacked {
            let all = [&[v.layers], shape].concat();
            let key = format!("img/Transformer/encoderblock/{name}");
            put(&key, &all, &|i| of_layer(i[0], &i[1..]));
        } else {
            for layer in 0..v.layers {
                let key = format!("img/Transformer/encoderblock_{layer}/{name}");
                put(&key, shape, &|i| of_layer(layer, i));
            }
        }
    };
    let x = v.intermediate;
    for (jax, torch) in [("LayerNorm_0", "layer_norm1"), ("LayerNorm_1", "layer_norm2")] {
        put_layers(&format!("{jax}/scale"), &[w], &|i| (format!("{torch}.weight"), i.to_vec()));
        put_layers(&format!("{jax}/bias"), &[w], &|i| (format!("{torch}.bias"), i.to_vec()));
    }
    for (jax, torch, from, to) in [("Dense_0", "mlp.fc1", w, x), ("Dense_1", "mlp.fc2", x, w)] {
        let jax = format!("MlpBlock_0/{jax}");
        put_layers(&format!("{jax}/kernel"), &[from, to], &|i| (format!("{torch}.weight"), vec![i[1], i[0]]));
        put_layers(&format!("{jax}/bias"), &[to], &|i| (format!("{torch}.bias"), i.to_vec()));
    }
    for (jax, torch) in [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")] {
        let jax = format!("MultiHeadDotProductAttention_0/{jax}");
        put_layers(&format!("{jax}/kernel"), &[w, v.heads, size], &|i| {
            (format!("self_attn.{torch}.weight"), vec![i[1] * size + i[2], i[0]])
        });
        put_layers(&format!("{jax}/bias"), &[v.heads, size], &|i| {
            (format!("self_attn.{torch}.bias"), vec![i[0] * size + i[1]])
        });
    }
    put_layers("MultiHeadDotProductAttention_0/out/kernel", &[v.heads, size, w], &|i| {
        ("self_attn.out_proj.weight".into(), vec![i[2], i[0] * size + i[1]])
    });
    put_layers("MultiHeadDotProductAttention_0/out/bias", &[w], &|i| {
        ("self_attn.out_proj.bias".into(), i.to_vec())
    });
    put("img/Transformer/encoder_norm/scale", &[w], &|i| (vision("post_layernorm.weight"), i.to_vec()));
    put("img/Transformer/encoder_norm/bias", &[w], &|i| (vision("post_layernorm.bias"), i.to_vec()));
    let d = t.hidden;
    put("img/head/kernel", &[w, d], &|i| ("multi_modal_projector.linear.weight".into(), vec![i[1], i[0]]));
    put("img/head/bias", &[d], &|i| ("multi_modal_projector.linear.bias".into(), i.to_vec()));

    let text = |name: &str| format!("language_model.model.{name}");
    let layer = |i: &[usize], name: &str| text(&format!("layers.{}.{name}", i[0]));
    let (l, n, k, h, f) = (t.layers, t.heads, t.kv_heads, t.head_dim, t.intermediate);
    put("llm/embedder/input_embedding", &[config.tokens.image as usize, d], &|i| {
        (text("embed_tokens.weight"), i.to_vec())
    });
    put("llm/layers/attn/q_einsum/w", &[l, n, d, h], &|i| {
        (layer(i, "self_attn.q_proj.weight"), vec![i[1] * h + i[3], i[2]])
    });
    put("llm/layers/attn/kv_einsum/w", &[l, 2, k, d, h], &|i| {
        (layer(i, ["self_attn.k_proj.weight", "self_attn.v_proj.weight"][i[1]]), vec![i[2] * h + i[4], i[3]])
    });
    put("llm/layers/attn/attn_vec_einsum/w", &[l, n, h, d], &|i| {
        (layer(i, "self_attn.o_proj.weight"), vec![i[3], i[1] * h + i[2]])
    });
    put("llm/layers/mlp/gating_einsum", &[l, 2, d, f], &|i| {
        (layer(i, ["mlp.gate_proj.weight", "mlp.up_proj.weight"][i[1]]), vec![i[3], i[2]])
    });
    put("llm/layers/mlp/linear", &[l, f, d], &|i| (layer(i, "mlp.down_proj.weight"), vec![i[2], i[1]]));
    let norms: &[(&str, &str)] = match t.generation {
        Generation::Gemma1 => {
            &[("pre_attention_norm", "input_layernorm"), ("pre_ffw_norm", "post_attention_layernorm")]
        }
        Generation::Gemma2 => &[
            ("pre_attention_norm", "input_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("pre_ffw_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
    };
    for (jax, torch) in norms {
        put(&format!("llm/layers/{jax}/scale"), &[l, d], &|i| {
            (layer(i, &format!("{torch}.weight")), i[1..].to_vec())
        });
    }
    put("llm/final_norm/scale", &[d], &|i| (text("norm.weight"), i.to_vec()));
    arrays
}
