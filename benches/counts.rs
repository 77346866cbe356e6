//! What is counted instruction by instruction, so that no change makes it slower unseen: `tests/counts.rs` runs this
//! program under valgrind, which counts what [`counted`] does up to each [`written`], and compares with `counts.txt`.
//!
//! `counts ISA` does everything twice, the second time to be counted, and prints the names of what was counted, in that
//! order. Shapes are small, since valgrind is some fifty times slower than the CPU, and have no remainders.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;

use palmtop::image::{Filter, ImageLimits, Resizer, RgbImage, decode_file};
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_benches::formats;
use palmtop_kernels::{ChunkShape, Int8KeysValues, Int8Scratch, Isa, Kernels, KeysValues, Scores};

/// Outputs and inputs of the products.
const MATRIX: (usize, usize) = (128, 1024);
/// Rows of the products: a token, a small batch or a draft, a large one, and a prefix.
const ROWS: [usize; 4] = [1, 4, 16, 264];

/// Where the demo's model and picture are.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo");

fn main() {
    let name = std::env::args().nth(1).expect("the name of an instruction set");
    let isa: Isa = name.parse().expect("an instruction set");
    let kernels = Kernels::try_new(isa).expect("one that this CPU has");
    products(kernels);
    attention(kernels);
    elementwise(kernels);
    if isa == Isa::Scalar {
        // Nobody waits for a whole answer of plain Rust, least of all under valgrind.
        return;
    }
    resize();
    answer(isa);
}

/// Runs `work` so that what it needs once is there, and then to be counted.
fn count(name: &str, mut work: impl FnMut()) {
    work();
    counted(&mut work);
    written(name);
}

/// What is counted. A function that exists as such, whatever the optimiser thinks: valgrind knows it by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Behind the call, so that it is no jump.
    black_box(work);
}

/// Before this, valgrind writes down what it has counted.
#[inline(never)]
fn written(name: &str) {
    println!("{}", black_box(name));
}

/// Numbers from -1 to 1 that are not all alike.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 29 % 97) as f32 / 48.0 - 1.0).collect()
}

fn products(kernels: Kernels) {
    let (outputs, inputs) = MATRIX;
    for format in formats(kernels) {
        let matrix = format.matrix(outputs, inputs);
        for rows in ROWS {
            let mut product = matrix.product(rows);
            count(&format!("product {} {rows}", format.name()), || {
                product.run(1);
            });
        }
    }
}

fn attention(kernels: Kernels) {
    let how = Scores { scale: 0.125, softcap: None };
    let keys = 256;
    // A token of Gemma: one row of queries, keys and values of a head in f16.
    let head_dim = 256;
    let f16 = vec![0x3400_u16; keys * head_dim];
    let kv = KeysValues { keys: &f16, values: &f16, capacity: keys, scales: None };
    let (q, mut scores, mut out) = (numbers(head_dim), vec![0.0; keys], vec![0.0; head_dim]);
    count("attention f16 1", || {
        kernels.attention_f16(&q, 1, head_dim, kv, 0..keys, how, &mut scores, &mut out);
    });
    // A tile of SigLIP's rows.
    let shape = ChunkShape { head_dim: 72 };
    let rows = 24;
    let (keys_f32, mut mean) = (numbers(keys * shape.head_dim), vec![0.0; shape.head_dim]);
    let (mut bytes, mut scales) = (vec![0; shape.bytes()], vec![0.0; shape.scales()]);
    let mut sums = vec![0; shape.scales()];
    let stride = shape.head_dim;
    count("quantize keys and values 256", || {
        kernels.mean_of_keys(&keys_f32, stride, keys, &mut mean);
        kernels.quantize_keys_values(
            &keys_f32,
            &keys_f32,
            stride,
            keys,
            &mean,
            &mut bytes,
            &mut scales,
            &mut sums,
        );
    });
    let kv = Int8KeysValues { bytes: &bytes, scales: &scales, sums: &sums, mean: &mean, keys };
    let q = numbers(rows * shape.head_dim);
    let mut out = vec![0.0; rows * shape.head_dim.next_multiple_of(16)];
    let mut scratch = Box::<Int8Scratch>::default();
    count("attention int8 24", || kernels.attention_int8(&q, rows, kv, how, &mut scratch, &mut out));
}

fn elementwise(kernels: Kernels) {
    const LEN: usize = 2048;
    let (x, weight, bias) = (numbers(LEN), numbers(LEN), numbers(LEN));
    let (mut out, mut q) = (vec![0.0; LEN], [0; 256]);
    count("rms norm", || kernels.rms_norm(&x, &weight, 1e-6, &mut out));
    count("layer norm", || kernels.layer_norm(&x, &weight, &bias, 1e-6, &mut out));
    count("gelu", || kernels.bias_gelu(&x, &bias, &mut out));
    count("gelu times up", || kernels.gelu_mul(&x, &mut out[..LEN / 2]));
    count("quantize", || {
        for chunk in x.chunks(q.len()) {
            black_box(kernels.quantize_chunk(chunk, &mut q));
        }
    });
}

fn resize() {
    let (side_in, side_out) = (448, 224);
    let pixels = (0..3 * side_in * side_in).map(|i| (i * 7 % 251) as u8).collect();
    let picture = RgbImage::new(side_in, side_in, pixels).expect("a picture");
    let mut out = vec![0; 3 * (side_out * side_out) as usize];
    let mut resizer = Resizer::new(Filter::Bicubic, side_out, side_out, side_in).expect("memory");
    count("resize 448 to 224", || resizer.resize(picture.view(), &mut out).expect("it fits"));
}

/// A whole answer of the demo model on one thread, from bytes to words.
fn answer(isa: Isa) {
    let demo = Path::new(DEMO);
    let mut limits = Limits::default();
    (limits.threads, limits.isa, limits.image_side) = (Some(1), Some(isa), 1024);
    (limits.prompt_tokens, limits.new_tokens) = (64, 64);
    // It would ask the system how much memory there is.
    limits.touch_memory = false;
    let mut session = None;
    count("open and start", || {
        let model = Model::open(&demo.join("demo.palm")).expect("the demo's model");
        session = Some(Session::new(&model, &limits).expect("memory"));
    });
    let mut session = session.expect("it was just made");
    let picture = decode_file(demo.join("scene.png"), &ImageLimits::default()).expect("the demo's picture");
    let (mut features, options) = (session.new_features().expect("memory"), GenerateOptions::default());
    count("encode", || session.encode(picture.view(), &mut features, &options).expect("a picture"));
    count("answer", || {
        let heard = &mut |_: palmtop::Piece<'_>| ControlFlow::Continue(());
        let answers = session.answer(&features, &["caption en"], &options, heard).expect("an answer");
        assert_eq!(answers[0].text, "a strawberry, a burger, a banana and a tree");
    });
}
