//! What the gates of the loop cost: `cargo bench --bench gates`. A camera of 30 pictures a second leaves 33 ms for
//! each.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use palmtop::image::{Frame, PixelFormat, Plane};
use palmtop_watch::gate::{FeatureGate, FeatureOptions, PixelGate, PixelOptions};

/// A picture's bytes that are no two times alike.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = seed | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        96 + (random >> 40) as u8 % 8
    };
    (0..bytes).map(|_| next()).collect()
}

/// The pixel gate on pictures as cameras deliver them.
fn pixels(c: &mut Criterion) {
    let mut group = c.benchmark_group("pixel gate");
    for (width, height) in [(640u32, 480u32), (1280, 720), (1920, 1080)] {
        let pixels = width as usize * height as usize;
        let pictures: Vec<Vec<u8>> = (1..5).map(|seed| noise(3 * pixels, seed)).collect();
        let row = width as usize;
        let packed = |bytes| Frame::packed(PixelFormat::Rgb, width, height, 3 * row, bytes).unwrap();
        let nv12 = |bytes: &'static [u8]| {
            let (luma, chroma) = bytes[..pixels * 3 / 2].split_at(pixels);
            Frame::nv12(width, height, Plane::new(luma, row), Plane::new(chroma, row)).unwrap()
        };
        let pictures: Vec<&'static [u8]> = pictures.into_iter().map(|p| &*Vec::leak(p)).collect();
        type Kind<'a> = (&'static str, &'a dyn Fn(&'static [u8]) -> Frame<'static>);
        let kinds: [Kind<'_>; 2] = [("RGB", &packed), ("NV12", &nv12)];
        for (name, frame) in kinds {
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(name, format!("{width}x{height}")), |b| {
                let mut gate = PixelGate::new(PixelOptions::default());
                let mut number = 0;
                b.iter(|| {
                    number = (number + 1) % pictures.len();
                    gate.look(&frame(pictures[number]), Duration::from_millis(33))
                });
            });
        }
    }
}

/// The feature gate on features of PaliGemma 2 3B at 224 and 448 px.
fn features(c: &mut Criterion) {
    let mut group = c.benchmark_group("feature gate");
    for (patches, width) in [(256, 2304), (1024, 2304)] {
        let features =
            |seed| noise(patches * width, seed).into_iter().map(|b| f32::from(b) - 99.5).collect::<Vec<_>>();
        let pictures = [features(1), features(2)];
        group.throughput(Throughput::Bytes((2 * 4 * patches * width) as u64));
        group.bench_function(format!("{patches} patches of {width}"), |b| {
            let mut gate = FeatureGate::new(patches, width, FeatureOptions::default());
            let mut number = 0;
            b.iter(|| {
                number = 1 - number;
                gate.look(&pictures[number])
            });
        });
    }
}

criterion_group!(benches, pixels, features);
criterion_main!(benches);
