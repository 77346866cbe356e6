//! Every operation of the virtual vector on every instruction set of this CPU, against plain Rust: equal bits, on
//! random values and on those where instructions are known to differ (zeros of both signs, ties, subnormals,
//! infinities, NaN, tails).
//!
//! The bits of a NaN are nobody's promise; that there is one, is.

#[path = "../../tests/common/skip.rs"]
mod skip;

use std::panic::{AssertUnwindSafe, catch_unwind};

use palmtop_kernels::layout::{LANES, TILE_BYTES};
#[cfg(target_arch = "x86_64")]
use palmtop_kernels::simd::{Avx2, Avx512, AvxVnni, AvxVnniEvex};
#[cfg(target_arch = "aarch64")]
use palmtop_kernels::simd::{Neon, NeonDotprod, NeonI8mm};
use palmtop_kernels::simd::{Portable, Simd};

/// Runs a generic check on one set, compiled with its features, as kernels are.
macro_rules! on_set {
    ($check:ident, $set:ident, $features:literal) => {{
        #[target_feature(enable = $features)]
        fn with_features(set: $set) {
            $check(stringify!($set), set);
        }
        match $set::try_new() {
            // SAFETY: the value exists only where the CPU has the features.
            Some(set) => unsafe { with_features(set) },
            None => skip::no_instruction_set(stringify!($set)),
        }
    }};
}

/// Runs a generic check on every set of this CPU.
macro_rules! on_every_set {
    ($check:ident) => {
        #[cfg(target_arch = "x86_64")]
        {
            on_set!($check, Avx2, "avx2,fma,f16c");
            on_set!($check, AvxVnni, "avx2,fma,f16c,avxvnni");
            on_set!($check, AvxVnniEvex, "avx2,fma,f16c,avx512f,avx512vl,avx512vnni");
            on_set!($check, Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c");
        }
        #[cfg(target_arch = "aarch64")]
        {
            on_set!($check, Neon, "neon");
            on_set!($check, NeonDotprod, "neon,dotprod");
            on_set!($check, NeonI8mm, "neon,dotprod,i8mm");
        }
    };
}

type Lanes = [f32; LANES];

/// A small generator of bits.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 ^ (self.0 >> 33);
        (x.wrapping_mul(0xff51afd7ed558ccd) >> 32) as u32
    }
    fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }
    /// Any f32: half of them of everyday size, the others any bits.
    fn f32(&mut self) -> f32 {
        let everyday = self.bits() as f32 / (1u64 << 31) as f32 - 1.0;
        if self.below(2) == 0 { everyday * 8.0 } else { f32::from_bits(self.bits()) }
    }
    fn in_range(&mut self, from: f32, to: f32) -> f32 {
        from + (to - from) * (self.bits() >> 8) as f32 / (1 << 24) as f32
    }
}

/// Where operations differ if they do.
const EDGES: [f32; 25] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    -2.5,
    0.333_333_34,
    3.0e-10,
    -126.0,
    8_388_607.5,
    16_777_217.0,
    65_519.996,
    65_520.0,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    1.1e-38,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// Vectors of all `N`-tuples of edges, then of random ones.
fn tuples<const N: usize>() -> Vec<[Lanes; N]> {
    let mut r = Random(N as u64);
    let edges = EDGES.len().pow(N as u32);
    let tuple = |i: usize| -> [f32; N] { std::array::from_fn(|j| EDGES[i / EDGES.len().pow(j as u32) % 25]) };
    let mut tuples: Vec<[f32; N]> = (0..edges).map(tuple).collect();
    let full = (edges + 4096).next_multiple_of(LANES);
    tuples.resize_with(full, || std::array::from_fn(|_| r.f32()));
    tuples.chunks(LANES).map(|t| std::array::from_fn(|j| std::array::from_fn(|i| t[i][j]))).collect()
}

/// Numbers as vectors, the last one filled up with its first number.
fn vectors(x: &[f32]) -> Vec<Lanes> {
    x.chunks(LANES).map(|x| std::array::from_fn(|i| *x.get(i).unwrap_or(&x[0]))).collect()
}

#[inline(always)]
fn stored<S: Simd>(s: S, v: S::F) -> Lanes {
    let mut out = [f32::NAN; LANES];
    s.store(v, &mut out);
    out
}

/// The bits, with one NaN for all.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

#[track_caller]
fn assert_same(what: &str, got: Lanes, want: Lanes, inputs: &[Lanes]) {
    for i in 0..LANES {
        let of: Vec<f32> = inputs.iter().map(|x| x[i]).collect();
        assert_eq!(bits(got[i]), bits(want[i]), "{what}: {} for {} of {of:?}, lane {i}", got[i], want[i]);
    }
}

/// Holds an operation on vectors against plain Rust.
macro_rules! same {
    ($name:ident, $s:ident, $op:ident($($arg:ident),+)) => {
        let got = stored($s, $s.$op($($s.load(&$arg)),+));
        let want = Portable.$op($(Portable.load(&$arg)),+);
        assert_same(&format!("{} {}", $name, stringify!($op)), got, want, &[$($arg),+]);
    };
}

#[inline(always)]
fn arithmetic<S: Simd>(name: &str, s: S) {
    for [a, b] in tuples() {
        same!(name, s, add(a, b));
        same!(name, s, sub(a, b));
        same!(name, s, mul(a, b));
        same!(name, s, div(a, b));
        same!(name, s, max(a, b));
        same!(name, s, min(a, b));
        let (yes, no) = (std::array::from_fn(|i| 1.0 + i as f32), [-0.0; LANES]);
        same!(name, s, select_lt(a, b, yes, no));
    }
    for [a, b, c] in tuples() {
        same!(name, s, fma(a, b, c));
    }
}

#[test]
fn arithmetic_has_equal_bits() {
    on_every_set!(arithmetic);
}

/// Halves and wholes, also of the sizes from which on f32 has no halves, and no odd numbers.
fn wholes_and_halves() -> Vec<f32> {
    let mut x: Vec<f32> = (-600..=600).map(|n| n as f32 / 2.0).collect();
    for exponent in 21..26 {
        let power = (1u32 << exponent) as f32;
        x.extend((-8..8).flat_map(|n| [power + n as f32 / 4.0, -power - n as f32 / 4.0]));
    }
    x
}

#[inline(always)]
fn rounding<S: Simd>(name: &str, s: S) {
    let mut r = Random(5);
    let small: Vec<f32> = (0..2000).map(|_| r.in_range(-2.0, 0.1)).collect();
    let inputs =
        tuples().into_iter().map(|[x]| x).chain(vectors(&wholes_and_halves())).chain(vectors(&small));
    for x in inputs {
        same!(name, s, abs(x));
        same!(name, s, round_even(x));
        let x = x.map(|x| if x.is_finite() { x } else { 0.0 });
        same!(name, s, fraction(x));
    }
}

#[test]
fn rounding_has_equal_bits() {
    on_every_set!(rounding);
}

#[inline(always)]
fn powers_of_two<S: Simd>(name: &str, s: S) {
    let exponents: Vec<f32> = (-126..=127).map(|n| n as f32).collect();
    for n in vectors(&exponents) {
        same!(name, s, exp2_int(n));
    }
    let mut r = Random(1);
    let factors =
        [0.0, 1e-45, 1e-39, f32::MIN_POSITIVE, 1e-6, 0.999_999_94, 1.0, 3.7, 254.0, 507.9, 1_023.999_9];
    let mut exponents: Vec<f32> = (0..=252).map(|n| n as f32 / -2.0).collect();
    exponents.extend([-0.0, -1e-45, -1e-30, -0.999_999_94, -1.000_000_1, -125.999_99]);
    exponents.extend((0..200).map(|_| r.in_range(-126.0, 0.0)));
    for factor in factors {
        let a = [factor; LANES];
        for y in vectors(&exponents) {
            same!(name, s, mul_exp2_floor(a, y));
        }
    }
    for y in vectors(&exponents) {
        let a = std::array::from_fn(|_| r.in_range(0.0, 1024.0));
        same!(name, s, mul_exp2_floor(a, y));
    }
    // Below, what is left is free.
    for y in [-126.000_01, -126.5, -127.0, -149.0, -150.0, -275.3, -1e4, -3e9, -1e30, f32::MIN] {
        for a in factors {
            let most = a * f32::MIN_POSITIVE;
            for got in stored(s, s.mul_exp2_floor(s.splat(a), s.splat(y))) {
                assert!((0.0..=most).contains(&got), "{name} mul_exp2_floor: {got} for {a} and {y}");
            }
        }
    }
}

#[test]
fn powers_of_two_have_equal_bits() {
    on_every_set!(powers_of_two);
}

#[inline(always)]
fn half_precision<S: Simd>(name: &str, s: S) {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for x in all.as_chunks::<LANES>().0 {
        let (got, want) = (stored(s, s.load_f16(x)), Portable.load_f16(x));
        assert_same(&format!("{name} load_f16"), got, want, &[]);
    }
}

#[test]
fn half_precision_has_equal_bits() {
    on_every_set!(half_precision);
}

#[inline(always)]
fn moves<S: Simd>(name: &str, s: S) {
    for x in EDGES {
        assert_same(&format!("{name} splat"), stored(s, s.splat(x)), [x; LANES], &[]);
    }
    for [x] in tuples() {
        assert_same(&format!("{name} load and store"), stored(s, s.load(&x)), x, &[]);
    }
    // NaN in lanes that are not kept must not show.
    for x in [std::array::from_fn(|i| i as f32 - 7.5), [f32::NAN; LANES], [-0.0; LANES]] {
        for from in 0..=LANES + 2 {
            for to in (0..=LANES + 2).chain([259, usize::MAX - 3, usize::MAX]) {
                let what = format!("{name} keep {from}..{to}");
                assert_same(&what, stored(s, s.keep(s.load(&x), from, to)), Portable.keep(x, from, to), &[x]);
            }
        }
    }
    let x: Lanes = std::array::from_fn(|i| 0.1 + i as f32);
    for n in 0..=LANES {
        // A slice of its own, so that what lies behind it is not ours.
        let exact = x[..n].to_vec();
        let want = std::array::from_fn(|i| if i < n { x[i] } else { 0.0 });
        assert_same(&format!("{name} load_tail {n}"), stored(s, s.load_tail(&exact)), want, &[x]);
        let mut out = [-1.0; LANES + 8];
        s.store_tail(s.load(&x), &mut out[..n]);
        assert!(out[..n] == x[..n] && out[n..].iter().all(|&x| x == -1.0), "{name} store_tail {n}: {out:?}");
    }
    let mut long = [0.0; LANES + 1];
    assert!(catch_unwind(AssertUnwindSafe(|| stored(s, s.load_tail(&long)))).is_err(), "{name} load_tail");
    let stores = catch_unwind(AssertUnwindSafe(|| s.store_tail(s.splat(1.0), &mut long)));
    assert!(stores.is_err(), "{name} store_tail");
    for address in [std::ptr::null(), std::ptr::dangling(), usize::MAX as *const u8, x.as_ptr().cast()] {
        s.prefetch(address);
    }
}

#[test]
fn moves_and_tails_have_equal_bits() {
    on_every_set!(moves);
}

/// Zeros of either sign as one.
fn unsigned_zero(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn reductions<S: Simd>(name: &str, s: S) {
    let mut r = Random(2);
    for round in 0..4000 {
        let x: Lanes = match round % 4 {
            // Of one size, so that every other order of adding gives other bits.
            0 => std::array::from_fn(|_| r.in_range(-1.0, 1.0)),
            1 => std::array::from_fn(|_| r.f32()),
            2 => std::array::from_fn(|_| EDGES[r.below(EDGES.len())]),
            // Zeros of both signs, and here and there something below.
            _ => std::array::from_fn(|_| if r.below(8) > 0 { EDGES[r.below(2)] } else { -1.0 }),
        };
        assert_eq!(bits(s.sum(s.load(&x))), bits(Portable.sum(x)), "{name} sum of {x:?}");
        // The sign of a zero is left open.
        let x = x.map(|x| if x.is_nan() { f32::NEG_INFINITY } else { x });
        let (got, want) = (s.max_lane(s.load(&x)), Portable.max_lane(x));
        assert_eq!(unsigned_zero(got).to_bits(), unsigned_zero(want).to_bits(), "{name} max_lane of {x:?}");
    }
}

#[test]
fn reductions_have_equal_bits() {
    on_every_set!(reductions);
}

/// Any integers as a vector.
#[inline(always)]
fn integers<S: Simd>(s: S, x: &[i32; LANES]) -> S::I {
    let high = s.load(&x.map(|x| (x >> 16) as f32 * 65536.0));
    let low = s.load(&x.map(|x| (x & 0xFFFF) as f32));
    s.add_i32(s.to_i32(high), s.to_i32(low))
}

/// Asserts what is in a vector of integers, by what can be had of it: rounded, no bit below the eighth is lost, and
/// there are the low eight.
#[inline(always)]
fn assert_integers<S: Simd>(what: &str, s: S, v: S::I, want: &[i32; LANES]) {
    assert_same(what, stored(s, s.to_f32(v)), want.map(|x| x as f32), &[]);
    let mut low = [0x55; LANES];
    s.store_u8(v, &mut low);
    assert_eq!(low, want.map(|x| x as u8), "{what}");
}

#[inline(always)]
fn whole_numbers<S: Simd>(name: &str, s: S) {
    let mut r = Random(3);
    // Around 2²⁴, from where on f32 rounds, and the ends.
    let mut numbers: Vec<i32> =
        vec![i32::MIN, i32::MIN + 1, i32::MAX, i32::MAX - 64, i32::MAX - 63, 255, 256, -1];
    numbers.extend((24..31).flat_map(|e| (-9..9).flat_map(move |n| [(1 << e) + n, -(1 << e) - n])));
    numbers.resize_with(4096, || r.bits() as i32 >> (r.bits() % 32));
    let numbers = numbers.as_chunks::<LANES>().0;
    for (x, y) in numbers.iter().zip(numbers.iter().rev()) {
        assert_integers(&format!("{name} integers"), s, integers(s, x), x);
        let sum = std::array::from_fn(|i| x[i].wrapping_add(y[i]));
        assert_integers(&format!("{name} add_i32"), s, s.add_i32(integers(s, x), integers(s, y)), &sum);
        let total = x.iter().fold(0i32, |a, &b| a.wrapping_add(b));
        assert_eq!(s.sum_i32(integers(s, x)), total, "{name} sum_i32 of {x:?}");
    }
    let fits = |x: &f32| (-2_147_483_648.0..2_147_483_648.0).contains(x);
    let mut floats = wholes_and_halves();
    floats.extend(tuples().into_iter().flat_map(|[x]| x));
    floats.extend([-2_147_483_648.0, 2_147_483_520.0, 0.499_999_97, -0.499_999_97, 0.500_000_06]);
    floats.retain(fits);
    for x in vectors(&floats) {
        let want = x.map(|x| x.round_ties_even() as i32);
        assert_integers(&format!("{name} to_i32 of {x:?}"), s, s.to_i32(s.load(&x)), &want);
    }
    let all: Vec<i8> = (i8::MIN..=i8::MAX).collect();
    for x in all.as_chunks().0 {
        assert_same(&format!("{name} load_i8"), stored(s, s.load_i8(x)), x.map(f32::from), &[]);
    }
    let bytes: Vec<f32> = (-127..=127).map(|x| x as f32).chain([-0.0]).collect();
    for (x, wild) in vectors(&bytes).into_iter().zip(vectors(&EDGES).into_iter().cycle()) {
        // A lane that holds something else has no say in its neighbours.
        let x: Lanes = std::array::from_fn(|i| if i % 5 == 4 { wild[i] } else { x[i] });
        let mut out = [77; LANES];
        s.store_i8(s.load(&x), &mut out);
        for i in (0..LANES).filter(|i| i % 5 != 4) {
            assert_eq!(f32::from(out[i]), x[i], "{name} store_i8 of {x:?}");
        }
        let x = x.map(|x| if x.abs() <= 127.0 { x } else { 0.0 }).map(f32::trunc);
        s.store_i8(s.load(&x), &mut out);
        assert_eq!(out, x.map(|x| x as i8), "{name} store_i8 of {x:?}");
    }
    for x in vectors(&bytes).chunks(4).filter(|x| x.len() == 4) {
        let mut tile = [77; 4 * LANES];
        s.store_tile(std::array::from_fn(|j| s.load(&x[j])), &mut tile);
        for (i, byte) in tile.into_iter().enumerate() {
            assert_eq!(f32::from(byte), x[i % 4][i / 4], "{name} store_tile of {x:?}, byte {i}");
        }
    }
}

#[test]
fn whole_numbers_have_equal_bits() {
    on_every_set!(whole_numbers);
}

/// `Σ tile · (x - zero)`, as a kernel sums it up.
#[inline(always)]
fn product<S: Simd>(s: S, tiles: &[[i8; TILE_BYTES]], x: &[u8], zero: i32) -> S::I {
    let mut x = x.to_vec();
    s.prepare(&mut x);
    let mut sums = [0; LANES];
    for tile in tiles {
        for (sum, part) in sums.iter_mut().zip(tile.as_chunks::<4>().0) {
            *sum += part.iter().map(|&t| i32::from(t)).sum::<i32>();
        }
    }
    let mut acc = s.dot_start(&sums, zero);
    for (tile, x) in tiles.iter().zip(x.as_chunks::<4>().0) {
        acc = s.dot(acc, s.load_tile(tile), x);
    }
    acc
}

#[inline(always)]
fn products<S: Simd>(name: &str, s: S) {
    let mut r = Random(4);
    let tile = |kind: usize, r: &mut Random| -> [i8; TILE_BYTES] {
        std::array::from_fn(|i| match kind {
            0 => 127,
            1 => -127,
            2 => [127, -127][i % 2],
            3 => 0,
            _ => (r.below(255) as i32 - 127) as i8,
        })
    };
    let bytes = |kind: usize, r: &mut Random, i: usize| match kind {
        0 => 255,
        1 => 0,
        2 => 128,
        3 => 127,
        4 => [255, 0][i % 2],
        _ => r.bits() as u8,
    };
    // A kernel sums up 64 tiles at most.
    for count in [0, 1, 2, 63, 64] {
        for (tile_kind, byte_kind) in (0..8).flat_map(|t| (0..8).map(move |b| (t, b))) {
            let tiles: Vec<_> = (0..count).map(|_| tile(tile_kind, &mut r)).collect();
            let x: Vec<u8> = (0..4 * count).map(|i| bytes(byte_kind, &mut r, i)).collect();
            for zero in [0, 128] {
                let want: [i32; LANES] = std::array::from_fn(|lane| {
                    let part = |(t, x): (&[i8; TILE_BYTES], &[u8; 4])| -> i32 {
                        (0..4).map(|j| i32::from(t[4 * lane + j]) * (i32::from(x[j]) - zero)).sum()
                    };
                    tiles.iter().zip(x.as_chunks::<4>().0).map(part).sum()
                });
                let what = format!(
                    "{name} dot: {count} tiles of kind {tile_kind}, bytes of kind {byte_kind}, zero {zero}"
                );
                assert_integers(&what, s, product(s, &tiles, &x, zero), &want);
            }
        }
    }
}

#[test]
fn products_of_bytes_are_exact() {
    products("Portable", Portable);
    on_every_set!(products);
}

/// Plain Rust against what [`Simd`] says of each operation, in f64 or by other means.
#[test]
fn the_definition_does_what_the_trait_says() {
    whole_numbers("Portable", Portable);
    moves("Portable", Portable);
    for x in tuples().into_iter().map(|[x]| x).chain(vectors(&wholes_and_halves())) {
        for (x, got) in x.into_iter().zip(Portable.round_even(x)).filter(|(x, _)| x.is_finite()) {
            let (got, x) = (f64::from(got), f64::from(x));
            let is_near = (got - x).abs() <= 0.5 && got.trunc() == got;
            let is_even = (got - x).abs() < 0.5 || got % 2.0 == 0.0;
            assert!(is_near && is_even && got.is_sign_negative() == x.is_sign_negative(), "{got} for {x}");
        }
    }
    for n in -126..=127 {
        let y = Portable.exp2_int([n as f32; LANES])[0];
        assert_eq!(f64::from(y), 2f64.powi(n));
        if n < 0 {
            // 37.5 times a power of two is exact, down to a subnormal.
            let got = Portable.mul_exp2_floor([37.5; LANES], [n as f32 + 0.25; LANES])[0];
            assert_eq!(f64::from(got), 37.5 * 2f64.powi(n));
        }
    }
    for (x, want) in [(0.0, 0.0), (-0.25, 0.75), (2.75, 0.75), (-3.0, 0.0), (-126.5, 0.5), (1e30, 0.0)] {
        assert_eq!(Portable.fraction([x; LANES])[0], want, "{x}");
    }
    // An f16 has ten bits behind the point, and steps of 2⁻²⁴ below 2⁻¹⁴.
    for bits in (0..0x7C00u16).chain(0x8000..0xFC00) {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            e => (1024.0 + fraction) * 2f64.powi(e - 25),
        };
        let x = Portable.load_f16(&[bits; LANES])[0];
        assert_eq!((f64::from(x.abs()), x.is_sign_negative()), (magnitude, bits >= 0x8000), "{bits:#x}");
    }
    // 1 is lost beside 2²⁵, unless it meets its like first.
    let big = 33_554_432.0;
    for (x, want) in [
        ([big, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -big, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([big, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, -big, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0),
        ([big, 0.0, 0.0, 0.0, -big, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([big, 0.0, -big, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0),
    ] {
        assert_eq!(Portable.sum(x), want, "{x:?}");
    }
}

/// Numbers as they are, and NaN as one that does not signal.
fn quiet(x: Lanes) -> Lanes {
    x.map(|x| if x.is_nan() { f32::NAN } else { x })
}

#[inline(always)]
fn bounds<S: Simd>(name: &str, s: S) {
    for [x, most] in tuples() {
        let x = quiet(x);
        for (low, high) in [(-127.0, 127.0), (-87.0, 88.0), (f32::MIN, f32::MIN_POSITIVE)] {
            let (got, want) = (stored(s, s.clamp(s.load(&x), low, high)), Portable.clamp(x, low, high));
            assert_same(&format!("{name} clamp to {low}..={high}"), got, want, &[x]);
        }
        let most = quiet(most).map(|x| if x.is_nan() { 0.0 } else { x.abs() });
        same!(name, s, max_abs(x, most));
    }
}

#[test]
fn bounds_have_equal_bits() {
    on_every_set!(bounds);
}

#[inline(always)]
fn rounded<S: Simd>(name: &str, s: S) {
    let mut r = Random(7);
    let near = |x: &f32| [*x, x.next_down(), x.next_up()];
    let mut exponents: Vec<f32> = wholes_and_halves().iter().flat_map(near).collect();
    exponents.extend((0..2000).map(|_| r.in_range(-126.0, 127.0)));
    exponents.retain(|x| (-126.0..=127.0).contains(x));
    for x in vectors(&exponents) {
        let ((n, power), (n_want, power_want)) = (s.round_exp2(s.load(&x)), Portable.round_exp2(x));
        // The sign of a zero is left open.
        let what = format!("{name} round_exp2");
        assert_same(&what, stored(s, n).map(unsigned_zero), n_want.map(unsigned_zero), &[x]);
        assert_same(&what, stored(s, power), power_want, &[x]);
    }
    let mut numbers: Vec<f32> = wholes_and_halves().iter().flat_map(near).collect();
    numbers.extend((0..2000).map(|_| r.in_range(-127.5, 255.5)));
    let (signed, unsigned): (Vec<f32>, Vec<f32>) = numbers.iter().partition(|x| **x < 0.0);
    let signed: Vec<f32> =
        signed.into_iter().chain(unsigned.iter().copied()).filter(|x| x.abs() <= 127.0).collect();
    let mut sums = (integers(s, &[3; LANES]), [3; LANES]);
    for x in vectors(&signed) {
        let (mut got, mut want) = ([0; LANES], [0; LANES]);
        sums.0 = s.store_rounded_i8(s.load(&x), &mut got, sums.0);
        sums.1 = Portable.store_rounded_i8(x, &mut want, sums.1);
        assert_eq!(got, want, "{name} store_rounded_i8 of {x:?}");
        assert_eq!(want.map(f32::from), x.map(|x| x.round_ties_even() + 0.0), "of {x:?}");
    }
    assert_eq!(s.sum_i32(sums.0), Portable.sum_i32(sums.1), "{name} store_rounded_i8");
    let unsigned: Vec<f32> = unsigned.into_iter().filter(|x| *x <= 255.0).collect();
    for x in vectors(&unsigned) {
        let (mut got, mut want) = ([0; LANES], [0; LANES]);
        sums.0 = s.store_rounded_u8(s.load(&x), &mut got, sums.0);
        sums.1 = Portable.store_rounded_u8(x, &mut want, sums.1);
        assert_eq!(got, want, "{name} store_rounded_u8 of {x:?}");
        assert_eq!(want.map(f32::from), x.map(f32::round_ties_even), "of {x:?}");
    }
    assert_eq!(s.sum_i32(sums.0), Portable.sum_i32(sums.1), "{name} store_rounded_u8");
}

#[test]
fn rounded_numbers_and_their_powers_have_equal_bits() {
    on_every_set!(rounded);
}
