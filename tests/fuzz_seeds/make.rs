//! Makes small seeds: whole files of every format, of the smallest models that there can be.

use std::collections::BTreeMap;
use std::path::Path;

use palmtop::image::Filter;
use palmtop::model::config::{Config, Generation, ImageConfig, TextConfig, TokenIds, VisionConfig};
use palmtop_convert::synthetic::Synthetic;
use palmtop_convert::tokenizer::{AddedToken, Vocabulary};
use palmtop_convert::{Options, WeightSource, convert_source, needed};
use palmtop_kernels::layout::WeightFormat;
use palmtop_retrieval::{Kind, ModelId, NewPage, VectorFormat, Writer};
use palmtop_tests::npz::{archive, jax};
use palmtop_tests::{data, uniform};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Answers of servers, each with its length before it, and of a driver.
fn cameras(write: &dyn Fn(&str, &str, &[u8]), jpeg: &[u8], part: &[u8]) {
    let answers = |answers: &[&[u8]]| -> Vec<u8> {
        answers.iter().flat_map(|a| [&(a.len() as u16).to_le_bytes()[..], a].concat()).collect()
    };
    let with = |head: &str, body: &[u8]| [head.replace('\n', "\r\n").as_bytes(), b"\r\n", body].concat();
    let parts =
        "HTTP/1.1 200 OK\nContent-Type: multipart/x-mixed-replace; boundary=part\nConnection: close\n";
    let stream = with(parts, &[part, part].concat());
    write("http", "stream", &answers(&[&stream]));
    let digest = "HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Digest realm=\"cam\", nonce=\"5f\", qop=\"auth\", \
        algorithm=MD5\nContent-Length: 0\nConnection: close\n";
    write("http", "digest", &answers(&[&with(digest, b""), &stream]));
    let still =
        format!("HTTP/1.1 200 OK\nContent-Type: image/jpeg\nContent-Length: {}\nETag: \"1\"\n", jpeg.len());
    let same = with("HTTP/1.1 304 Not Modified\nETag: \"1\"\n", b"");
    let basic = "HTTP/1.1 401 No\nWWW-Authenticate: Basic realm=\"cam\"\nContent-Length: 0\n";
    write("http", "stills", &answers(&[&with(basic, b""), &[with(&still, jpeg), same].concat()]));
    let moved = with("HTTP/1.1 302 Found\nLocation: /other?x=1\nContent-Length: 0\nConnection: close\n", b"");
    let chunk = [format!("{:x}\r\n", jpeg.len()).as_bytes(), jpeg, b"\r\n0\r\n\r\n"].concat();
    let chunks = with("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", &chunk);
    write("http", "moved", &answers(&[&moved, &chunks]));

    // Each call begins with a byte: 250 and above fail. Whatever else is zero makes sense.
    let capability = [0; 1 + 32 + 2];
    let buffers = [0; 2 + 4 * 3 + 4 + 1];
    // A format, a size, an interval, and no more of each; then what is set of them.
    let yuyv = [&[0, 3][..], &[0; 8], &[250], &[0; 8], &[250, 250], &[0; 10], &[0; 4]].concat();
    let film: Vec<u8> = (0..6).flat_map(|n| [0, 0, 128, 0, 0, 0, 0, n, 253, 0]).collect();
    write("v4l2", "yuyv", &[&capability[..], &yuyv, &buffers, &film].concat());
    // A format that says neither sizes nor intervals; frames of 512 bytes.
    let mjpg = [&[0, 6][..], &[250, 250, 250], &[0; 10]].concat();
    let film: Vec<u8> = (0..6).flat_map(|n| [0, 0, 128, 254, 0, 2, 0, 0, 0, n, 253, 0]).collect();
    write("v4l2", "mjpg", &[&capability[..], &mjpg, &buffers, &film].concat());
}

pub fn all(seeds: &Path) {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(seeds.join(target)).unwrap();
        std::fs::write(seeds.join(target).join(name), bytes).unwrap();
    };
    // The first byte is the length of pieces.
    let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xda\0\x04cd123\xff\0\xff\xd04\xff\xd9";
    let part = [b"--part\r\nContent-Type: image/jpeg\r\n\r\n", &jpeg[..], b"\r\n"].concat();
    write("streams", "mjpeg", &[b"\x07", &part[..], &part[..50], &part, jpeg].concat());
    let y4m = b"\x0bYUV4MPEG2 W3 H2 F25:2 Ip C420jpeg XCOLORRANGE=FULL\nFRAME\n0123456789FRAME Ip\nabcdefghijFRAME\nxy";
    write("streams", "y4m", y4m);
    cameras(&write, jpeg, &part);
    let table = vocabulary().to_table().unwrap();
    write("tokenizer_table", "small.bin", &table);
    let folder = tempfile::tempdir().unwrap();
    let (path, weights) = (folder.path().join("seed.palm"), folder.path().join("weights.safetensors"));
    for (name, generation, format) in [
        ("gemma1.palm", Generation::Gemma1, WeightFormat::Int8),
        ("gemma2.palm", Generation::Gemma2, WeightFormat::Int4),
    ] {
        let config = smallest(generation);
        let options = Options { recipe: uniform(format), threads: Some(1), ..Options::default() };
        let source = Synthetic::new(config.clone(), 1);
        convert_source(&source, &config, table.clone(), &path, &options, &()).unwrap();
        write("head", name, &std::fs::read(&path).unwrap());

        checkpoint(&config, &weights);
        let shard = std::fs::read(&weights).unwrap();
        let stem = name.trim_end_matches(".palm");
        write("safetensors", &format!("{stem}.bin"), &[&[0, 0][..], &shard].concat());
        let arrays = jax(&weights, &config, generation == Generation::Gemma1);
        let prefixed = arrays.into_iter().map(|(key, array)| (format!("params/{key}"), array)).collect();
        write("jax", &format!("{stem}.npz"), &archive(&prefixed, generation == Generation::Gemma2));
        let few: BTreeMap<_, _> = prefixed.into_iter().filter(|(key, _)| key.contains("head")).collect();
        write("npz", &format!("{stem}.npz"), &archive(&few, generation == Generation::Gemma2));
    }
    for vectors in VectorFormat::ALL {
        let path = folder.path().join("pages.index");
        let _ = std::fs::remove_file(&path);
        let kind = Kind { dims: 8, vectors, model: ModelId { fingerprint: 7, name: "smallest".into() } };
        let mut writer = Writer::create(&path, &kind).unwrap();
        for (name, rows) in [("a.png", 1), ("b.png", 17), ("c.png", 2), ("a.png", 3)] {
            let rows: Vec<f32> = (0..rows * 8).map(|i| (i * 7 % 11) as f32 / 11.0).collect();
            writer.put(&NewPage { name, size: (7, 9), content: [1; 16], rows: &rows }).unwrap();
            writer.commit().unwrap();
        }
        writer.remove("c.png").unwrap();
        writer.commit().unwrap();
        write("index", vectors.name(), &std::fs::read(&path).unwrap());
    }
    let index = br#"{"weight_map": {"a": "a.safetensors", "lm_head.weight": "a.safetensors"}}"#;
    let head = br#"{"a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"b.SCB":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}"#;
    let shard = [&(head.len() as u64).to_le_bytes()[..], head, &[0; 8]].concat();
    write("safetensors", "index.bin", &[&(index.len() as u16).to_le_bytes()[..], index, &shard].concat());
    write("safetensors", "one.bin", &[&[0, 0][..], &shard].concat());

    for name in ["tiny1", "tiny2"] {
        let read = |file: &str| std::fs::read(data().join("checkpoints").join(name).join(file)).unwrap();
        let files = ["config.json", "generation_config.json", "preprocessor_config.json"].map(read);
        write("config", name, &files.join(&0));
    }
    for name in ["bias_lora_only", "dora"] {
        let read = |file: &str| std::fs::read(data().join("adapters").join(name).join(file)).unwrap();
        let files = [read("adapter_config.json"), read("adapter_model.safetensors")];
        write("adapter", name, &files.join(&0));
    }
    write("tokenizer_json", "small.json", tokenizer_json().as_bytes());
    write("tokenizer_model", "small.model", &tokenizer_model());
    write(
        "added_tokens",
        "both",
        b"{\"added_tokens_decoder\":{\"6\":{\"content\":\"<image>\",\"special\":true},\"0\":{\"content\":\"<unk>\",\
          \"normalized\":false,\"lstrip\":false}}}\0{\"<image>\":6,\"x\":7}",
    );
    write(
        "example_lines",
        "lines.jsonl",
        b"{\"image\":\"a.png\",\"prompt\":\"detect cat\",\"expected\":\"<loc0100> cat\",\
        \"task\":\"detect\",\"mask\":\"m.png\"}\n\n{\"image\":\"b\",\"prompt\":\"ocr\"}\n",
    );
    write("prompts", "detect", b"a cat\ntraffic light ; dog\n<loc0001>\0\x02\x05\x06\x01\x07");
    write("prompts", "answer", "en\nwas ist \u{fc}ber \u{1f3d4}?".as_bytes());
    let object = "<loc0100><loc0200><loc0600><loc0700><seg000><seg001><seg002><seg003><seg004><seg005><seg006><seg007>\
        <seg008><seg009><seg010><seg011><seg012><seg013><seg014><seg127> cat";
    let ends = [7 * 4, 8 * 16 + 28, 160];
    let before = [&[64, 48, 3][..], &ends.map(|end| end as u8)].concat();
    write("results", "segment", &[&before[..], object.as_bytes(), b" ; <loc0001><loc0002>"].concat());
    write("results", "words", b"\x10\x10\x00two cats \xc3\xa9 \x1b[31m; <loc1024>");
    // Layout, width, height, turn, matrix; for each plane stride, step and bytes.
    for (name, layout) in [("rgb", 0), ("nv12", 5), ("yuv420", 7)] {
        let mut frame = vec![layout, 5, 4, 1, 2];
        for (stride, step, bytes) in [(15, 1, 60), (6, 2, 18), (3, 1, 9)] {
            frame.extend([stride, step, bytes]);
            frame.extend((0..bytes).map(|i: u8| i.wrapping_mul(37)));
        }
        write("frames", name, &frame);
    }
}

/// A letter to each size, and no two sizes alike where that can be.
fn smallest(generation: Generation) -> Config {
    let gemma2 = generation == Generation::Gemma2;
    Config {
        vision: VisionConfig {
            hidden: 4,
            intermediate: 5,
            layers: 1,
            heads: 2,
            image_size: 4,
            patch_size: 2,
            norm_eps: 1e-6,
        },
        text: TextConfig {
            generation,
            hidden: 6,
            intermediate: 7,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            vocab: vocabulary().pieces.len() - 1,
            own_head: false,
            norm_eps: 1e-6,
            rope_theta: 1e4,
            query_scalar: 4.0,
            attention_softcap: gemma2.then_some(50.0),
            final_softcap: gemma2.then_some(30.0),
            windows: vec![gemma2.then_some(4), None],
        },
        image: ImageConfig { mean: [0.5; 3], std: [0.5; 3], rescale: 1.0 / 255.0, filter: Filter::Bicubic },
        tokens: TokenIds { bos: 2, eos: vec![1], pad: 0, image: vocabulary().pieces.len() as u32 - 1 },
        retrieval: None,
    }
}

/// Those of the target `jax`, with `<image>` last.
fn vocabulary() -> Vocabulary {
    let special = AddedToken { special: true, normalized: false, strips_left: false, strips_right: false };
    Vocabulary {
        pieces: ["<pad>", "<eos>", "<bos>", "<unk>", "\u{2581}", "\n", "a", "ab", "<image>"]
            .map(String::from)
            .into(),

        added: [(0, special), (8, special)].into(),
        unk_id: 3,
        fuse_unk: true,
        ..Vocabulary::default()
    }
}

fn checkpoint(config: &Config, path: &Path) {
    let source = Synthetic::new(config.clone(), 1);
    let tensors = needed(config).into_iter().map(|(name, shape)| {
        let mut values = vec![0.0; shape.iter().product()];
        source.read(&name, 0, &mut values).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| half_of(*v).to_le_bytes()).collect();
        (name, shape, bytes)
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// The upper half of a number, which is a bf16.
fn half_of(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

fn tokenizer_json() -> String {
    let pieces =
        ["<pad>", "<eos>", "<bos>", "<unk>", "\u{2581}", "\n", "<0x41>", "a", "b", "ab", "<loc0000>"];
    let vocab: serde_json::Map<_, _> =
        pieces.iter().zip(0..).map(|(p, id)| (p.to_string(), id.into())).collect();
    serde_json::json!({
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": true, "normalized": false},
            {"id": 11, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false, "special": true},
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": ["a b", ["a", "b"]],
        },
    })
    .to_string()
}

/// A few pieces of the small tokenizer, and what it says of its training and its normalizer.
fn tokenizer_model() -> Vec<u8> {
    let model = std::fs::read(data().join("tokenizer/tokenizer.model")).unwrap();
    let (mut out, mut rest, mut pieces) = (Vec::new(), &model[..], 0);
    while let Some(&tag) = rest.first() {
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = usize::from(rest[at]);
            length |= (byte & 127) << (7 * (at - 1));
            at += 1;
            if byte < 128 {
                break;
            }
        }
        let (field, behind) = rest.split_at(at + length);
        let is_piece = tag == 1 << 3 | 2;
        pieces += usize::from(is_piece);
        let text = String::from_utf8_lossy(field);
        let kept = pieces < 8 || text.contains("<0x4") || text.contains("<loc000") || pieces % 128 == 0;
        if !is_piece || kept {
            out.extend(field);
        }
        rest = behind;
    }
    out
}
