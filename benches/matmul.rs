//! Matrix products at PaliGemma's real shapes, one thread: `cargo bench -p palmtop-benches`.
//!
//! Criterion's elements a second are multiply-adds; the limits of this machine are printed first.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use palmtop_benches::{int8_macs_per_s, read_bytes_per_s};
use palmtop_kernels::layout::{MatrixLayout, PackedMatrix, WeightFormat, chunk_of};
use palmtop_kernels::{Kernels, PANEL, PANEL_STRIPES, PanelScratch, QuantizedRows};

/// Outputs and inputs: encoder (qkv, fc1, fc2), decoder (qkv, gate and up, down).
const SHAPES: [(usize, usize); 6] =
    [(3456, 1152), (4304, 1152), (1152, 4304), (2560, 2048), (32768, 2048), (2048, 16384)];
const ROWS: [usize; 4] = [1, 4, 16, 264];

fn matmul(c: &mut Criterion) {
    let kernels = Kernels::select().expect("an instruction set of this CPU");
    println!("one thread, {}: reads {:.1} GB/s", kernels.isa(), read_bytes_per_s() / 1e9);
    if let Some(peak) = int8_macs_per_s() {
        println!("int8 multiply-adds at most {:.0} G/s", peak / 1e9);
    }
    for format in [WeightFormat::Int8, WeightFormat::Int4] {
        let mut group = c.benchmark_group(format.name());
        group.sample_size(10);
        for (n, k) in SHAPES {
            let layout = MatrixLayout::new(format, n, k).expect("a real shape");
            // Any bytes are weights, and these are not all the same; but scales are plain numbers, since subnormal
            // ones would slow the additions down.
            let scale = |i| i % layout.stripe_bytes() < layout.scale_bytes();
            let bytes: Vec<u8> =
                (0..layout.bytes()).map(|i| if scale(i) { 0x3C } else { (i * 37 % 251) as u8 }).collect();
            let w = PackedMatrix::new(layout, &bytes).expect("exactly its bytes");
            for rows in ROWS {
                let input = Input::new(&kernels, rows, k);
                let (mut scratch, mut out) = (PanelScratch::default(), vec![[0.0; PANEL]; rows]);
                group.throughput(Throughput::Elements((rows * n * k) as u64));
                group.bench_function(BenchmarkId::new(format!("{n}x{k}"), rows), |b| {
                    b.iter(|| {
                        for first in (0..layout.stripes()).step_by(PANEL_STRIPES) {
                            let part = first..layout.stripes().min(first + PANEL_STRIPES);
                            kernels.matmul_integer(&w, part, &input.view(), 0..rows, &mut scratch, &mut out);
                        }
                    });
                });
            }
        }
    }
}

/// Quantized rows.
struct Input {
    q: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    rows: usize,
    chunk: usize,
}

impl Input {
    fn new(kernels: &Kernels, rows: usize, k: usize) -> Self {
        let chunk = chunk_of(k);
        let chunks = k.div_ceil(chunk) * rows;
        let mut input = Self {
            q: vec![0; chunks * chunk],
            scales: vec![0.0; chunks],
            sums: vec![0; chunks],
            rows,
            chunk,
        };
        let values: Vec<f32> = (0..chunk).map(|i| (i * 29 % 97) as f32 - 48.0).collect();
        for i in 0..chunks {
            (input.scales[i], input.sums[i]) =
                kernels.quantize_chunk(&values, &mut input.q[i * chunk..][..chunk]);
        }
        input
    }

    fn view(&self) -> QuantizedRows<'_> {
        QuantizedRows::new(&self.q, &self.scales, &self.sums, self.rows, self.chunk)
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
