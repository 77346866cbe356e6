//! Matrix products at PaliGemma's shapes on one thread, beside the limits of the machine:
//! `cargo bench -p palmtop-benches`; with `--features ggml` ggml's too.
//!
//! Names are `OUTPUTSxINPUTS/FORMAT/ROWS`; an argument behind `--` chooses among them by a regular expression, such as
//! `'2048x16384/.*/264'`. Criterion's elements a second are multiply-adds. The line below each result says the same,
//! and how many bytes of weights are read, as shares of the machine's limits, by the median of the samples.
//!
//! All formats of a shape and number of rows follow each other, so that what else the machine does hits them alike. A
//! matrix that the last-level cache holds is read from there from the second time on, and may pass the limit, which is
//! that of memory; in a whole model the next token finds none of it. The head is the matrix to look at. The limit of
//! multiply-adds is that of the kernels' vectors, which AMX and a peer with other instructions may pass.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use palmtop::system::machine::MachineLimits;
use palmtop_benches::{formats, peer};
use palmtop_kernels::Kernels;

/// Outputs and inputs of a part's matrices.
const SHAPES: [(&str, &[(usize, usize)]); 3] = [
    // qkv apart or the output; qkv in one; the two of the MLP.
    ("SigLIP", &[(1152, 1152), (3456, 1152), (4304, 1152), (1152, 4304)]),
    // Output; qkv; gate and up; down.
    ("Gemma 2B", &[(2048, 2048), (2560, 2048), (32768, 2048), (2048, 16384)]),
    ("Gemma 2 2B", &[(2304, 2048), (4096, 2304), (18432, 2304), (2304, 9216)]),
];
/// Decoding one and four answers, tiles, an image, an image and a prompt, an image at 448 pixels.
const ROWS: [usize; 6] = [1, 4, 16, 256, 264, 1024];

/// The head of PaliGemma 1, which only sees rows that a token is wanted for.
const HEAD: (usize, usize) = (257_216, 2048);
const HEAD_ROWS: [usize; 3] = [1, 4, 16];

/// Samples of a result: criterion's fewest.
const SAMPLES: usize = 10;
/// A product that takes longer than this even at the machine's limit is left out, so that slow machines come to an end.
const SECONDS_MAX: f64 = 1.0;

fn matmul(c: &mut Criterion) {
    let kernels = Kernels::select().expect("an instruction set of this CPU");
    let limits = MachineLimits::measure(&kernels, 1).expect("memory to measure");
    println!(
        "one thread, {}: at most {:.1} GB/s and {:.0} G int8 multiply-adds/s",
        kernels.isa(),
        1e-9 * limits.read_bytes_per_s,
        1e-9 * limits.int8_macs_per_s
    );
    if let Some(peer) = peer() {
        println!("{peer}");
    }
    for (part, shapes) in SHAPES {
        println!("{part}");
        for &shape in shapes {
            time(c, kernels, &limits, shape, &ROWS);
        }
    }
    println!("head");
    time(c, kernels, &limits, HEAD, &HEAD_ROWS);
}

/// Times all formats of a shape.
fn time(
    c: &mut Criterion,
    kernels: Kernels,
    limits: &MachineLimits,
    (outputs, inputs): (usize, usize),
    rows: &[usize],
) {
    // Weights are made when they are first needed, which is never for what the filter leaves out.
    let mut matrices = Vec::new();
    for format in formats(kernels) {
        if format.holds(outputs, inputs) {
            matrices.push((format, OnceCell::new()));
        } else {
            println!("{outputs}x{inputs}: {} cannot hold it", format.name());
        }
    }
    let mut group = c.benchmark_group(format!("{outputs}x{inputs}"));
    for &rows in rows {
        let macs = (rows * outputs * inputs) as f64;
        if macs > SECONDS_MAX * limits.int8_macs_per_s {
            println!("{outputs}x{inputs}, {rows} rows: left out, since it would take too long here");
            continue;
        }
        group.throughput(Throughput::Elements(macs as u64));
        for (format, matrix) in &matrices {
            let matrix = || matrix.get_or_init(|| format.matrix(outputs, inputs));
            let samples = RefCell::new(Vec::new());
            let mut product = None;
            group.bench_function(BenchmarkId::new(format.name(), rows), |b| {
                let product = product.get_or_insert_with(|| matrix().product(rows));
                b.iter_custom(|times| {
                    let time = product.run(times);
                    samples.borrow_mut().push(time.as_secs_f64() / times as f64);
                    time
                });
            });
            if let Some(seconds) = median(&samples.borrow()) {
                print_shares(limits, macs / seconds, matrix().bytes() as f64 / seconds);
            }
        }
    }
}

fn print_shares(limits: &MachineLimits, macs_per_s: f64, bytes_per_s: f64) {
    println!(
        "{:24}{:.1} GMAC/s, {:.0} % of the limit; {:.2} GB/s, {:.0} %",
        "",
        1e-9 * macs_per_s,
        100.0 * macs_per_s / limits.int8_macs_per_s,
        1e-9 * bytes_per_s,
        100.0 * bytes_per_s / limits.read_bytes_per_s
    );
}

/// Of the last samples: those before warmed up. `None` if nothing was sampled.
fn median(samples: &[f64]) -> Option<f64> {
    let mut samples = samples.get(samples.len().checked_sub(SAMPLES)?..)?.to_vec();
    samples.sort_by(f64::total_cmp);
    Some((samples[(SAMPLES - 1) / 2] + samples[SAMPLES / 2]) / 2.0)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(250))
        .nresamples(2000);
    targets = matmul
}
criterion_main!(benches);
