//! Architectures and limits at random: planned or refused, never a panic.

use std::os::unix::fs::FileExt;

use palmtop::format::{FormatError, Head, Metadata, Storage, TensorInfo, Value};
use palmtop::model::config::{Config, Generation};
use palmtop::{Error, KvFormat, Limits, Model, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::skip::skipped;
use proptest::prelude::*;

use crate::contents::needed_metadata;
use crate::damaged::answer;
use crate::parts::*;

// Architectures at random

/// Values at which arithmetic breaks, among others.
fn wild_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            3,
            7,
            16,
            255,
            1024,
            1025,
            4096,
            1 << 18,
            1 << 22,
            1 << 32,
            1 << 63
        ]),
        Just(u64::MAX),
        0..100u64,
        any::<u64>(),
    ];
    let float = prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 1e-320, 1e-40, 1e40, 1e300, f64::NAN, f64::INFINITY, -1.0]),
        any::<f64>(),
    ];
    prop_oneof![
        4 => number.clone().prop_map(Value::U64),
        4 => float.clone().prop_map(Value::F64),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "[a-z]{0,9}".prop_map(Value::Text),
        2 => prop::collection::vec(number, 0..6).prop_map(Value::U64s),
        2 => prop::collection::vec(float, 3).prop_map(Value::F64s),
    ]
}

/// An architecture with sizes anywhere in what a file may state, mostly such as fit each other.
fn wild_config() -> impl Strategy<Value = Config> {
    let size = |max: usize| prop_oneof![8 => 1..=max.min(12), 2 => 1..=max, 1 => Just(max)];
    let float = || prop::sample::select(vec![1e-320, 1e-40, 1e-6, 1.0, 1e4, 1e40, 1e300]);
    let vision = (size(256), size(1024), size(1 << 18), size(1024), size(1024), size(64), float());
    let text = (size(1 << 18), size(1 << 18), size(1024), size(8), size(1024), size(512), size(1 << 22));
    let floats = (float(), float(), float(), prop::option::of(float()), prop::option::of(float()));
    let others = (any::<bool>(), prop::option::of(size(1 << 30)));
    (vision, text, floats, others).prop_map(|(vision, text, floats, (gemma2, window))| {
        let mut config = Config::from_metadata(&Parts::tiny().metadata).unwrap();
        let (v, t) = (&mut config.vision, &mut config.text);
        let (per_head, heads, intermediate, layers, per_side, patch_size, eps) = vision;
        (v.hidden, v.heads, v.intermediate, v.layers) = (per_head * heads, heads, intermediate, layers);
        (v.image_size, v.patch_size, v.norm_eps) = (per_side * patch_size, patch_size, eps);
        let (hidden, intermediate, layers, group, kv_heads, half_head, vocab) = text;
        (t.hidden, t.intermediate, t.layers) = (hidden, intermediate, layers);
        (t.heads, t.kv_heads, t.head_dim) = (group * kv_heads, kv_heads, 2 * half_head);
        t.vocab = vocab.max(2176);
        (t.norm_eps, t.rope_theta, t.query_scalar, t.attention_softcap, t.final_softcap) = floats;
        t.generation = if gemma2 { Generation::Gemma2 } else { Generation::Gemma1 };
        t.windows = vec![window; layers];
        config
    })
}

/// A file of this architecture whose weights are zeros, which take no room on the disk; `None` if it cannot be.
fn hollow(config: &Config, format: WeightFormat) -> Option<Written> {
    let mut metadata = Metadata::default();
    config.to_metadata(&mut metadata);
    let (info, table) = Parts::tiny().tensor("tokenizer").clone();
    let mut tensors = vec![info];
    for spec in config.tensors() {
        let storage = spec.matrix().map_or(Storage::F32, |_| Storage::Packed(format));
        tensors.push(TensorInfo::new(spec.name, storage, &spec.shape)?);
    }
    let mut head = Head { metadata, tensors };
    let length = head.place();
    let written = write(&head.encode());
    let file = std::fs::OpenOptions::new().write(true).open(&written.path).unwrap();
    file.write_all_at(&table, head.tensors[0].offset).unwrap();
    (length < 1 << 42).then_some(())?;
    file.set_len(length).ok()?;
    Some(written)
}

/// Limits as a caller may state them.
fn wild_limits() -> impl Strategy<Value = Limits> {
    let odd = |max: usize| prop::sample::select(vec![0, max + 1, usize::MAX]);
    let size = |max: usize| prop_oneof![20 => 1..=max.min(64), 20 => 1..=max, 20 => Just(max), 1 => odd(max)];
    let kv = prop::sample::select(vec![KvFormat::Auto, KvFormat::F32, KvFormat::F16, KvFormat::Int8]);
    (size(1 << 10), size(1 << 20), size(1 << 20), size(65535), size(1 << 10), kv).prop_map(
        |(batch, prompt_tokens, new_tokens, image_side, threads, kv)| {
            let mut limits = Limits::default();
            (limits.batch, limits.prompt_tokens, limits.new_tokens) = (batch, prompt_tokens, new_tokens);
            (limits.image_side, limits.threads, limits.kv) = (image_side, Some(threads), kv);
            limits
        },
    )
}

fn small_limits() -> Limits {
    let mut limits = Limits::default();
    (limits.prompt_tokens, limits.new_tokens, limits.image_side, limits.threads) = (64, 4, 64, Some(2));
    limits
}

/// A session of up to this many bytes is made and used.
const SESSION_BYTES: usize = 64 << 20;
/// Weights of up to this many bytes are multiplied with.
const WEIGHTS_BYTES: usize = 8 << 20;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn wild_metadata_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), wild_value()), 1..4),
    ) {
        let mut parts = Parts::tiny();
        let keys: Vec<String> = needed_metadata().iter().map(|(key, _)| key.to_owned()).collect();
        for (index, value) in changes {
            parts.metadata.set(index.get(&keys).as_str(), value);
        }
        if let Ok(model) = open(&parts.file()) {
            match answer(&model) {
                Ok(()) | Err(Error::Image(_) | Error::Usage(_) | Error::OutOfMemory { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn any_architecture_is_planned_or_refused(
        config in wild_config(),
        limits in wild_limits(),
        format in prop::sample::select(vec![WeightFormat::F32, WeightFormat::Int8, WeightFormat::Int4]),
    ) {
        let Some(file) = hollow(&config, format) else { return Ok(()) };
        let model = match (Model::open(&file.path), config.check()) {
            (Ok(model), Ok(())) => model,
            (Err(Error::File { source: FormatError::Metadata { .. }, .. }), Err(_)) => return Ok(()),
            (opened, checked) => panic!("{:?} where checking says {checked:?}", opened.err()),
        };
        for limits in [limits, small_limits()] {
            match model.plan(&limits) {
                Ok(plan) if plan.session_bytes() <= SESSION_BYTES && plan.threads <= 4 => {
                    let session = Session::new(&model, &limits).unwrap();
                    prop_assert_eq!(session.plan(), &plan);
                    if plan.weights_bytes <= WEIGHTS_BYTES && config.vision.patches() <= 64 {
                        answer(&model).unwrap();
                    }
                }
                Ok(_) | Err(Error::OutOfMemory { .. } | Error::Usage(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn sessions_beyond_all_memory_are_refused() {
    let mut limits = Limits::default();
    (limits.batch, limits.new_tokens, limits.prompt_tokens) = (1 << 10, 1 << 20, 1 << 20);
    limits.threads = Some(1);
    // More than an address space: refused before anything is asked for.
    let mut config = Config::from_metadata(&Parts::tiny().metadata).unwrap();
    let t = &mut config.text;
    (t.hidden, t.intermediate, t.layers, t.windows) = (1, 1, 1024, vec![None; 1024]);
    (t.heads, t.kv_heads, t.head_dim) = (1024, 1024, 1024);
    let Some(file) = hollow(&config, WeightFormat::Int8) else {
        skipped("sessions beyond all memory", "a file of this size cannot be made here");
        return;
    };
    let model = Model::open(&file.path).unwrap();
    assert!(matches!(model.plan(&limits), Err(Error::OutOfMemory { .. })));
    assert!(matches!(Session::new(&model, &limits), Err(Error::OutOfMemory { .. })));
    // More than 128 TiB, the address space of a process: refused by the system.
    (limits.batch, limits.new_tokens) = (1 << 8, 1 << 20);
    let plan = model.plan(&limits).expect("a plan costs nothing");
    assert!(plan.session_bytes() > 1 << 47);
    let error = Session::new(&model, &limits).err().expect("no machine has that");
    assert!(matches!(error, Error::OutOfMemory { bytes } if bytes == plan.session_bytes()), "{error}");
}
