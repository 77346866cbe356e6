//! The kernels of one instruction set, chosen once.

use std::ops::Range;

use crate::activations::QuantizedRows;
use crate::isa::{Isa, IsaError};
use crate::layout::{LANES, PackedMatrix, WeightFormat};
use crate::matmul_int::{self, MatmulInteger, PANEL, PANEL_STRIPES, PanelScratch};
use crate::ops::attention::{KeysValues, ROWS_MAX, Scores};
use crate::ops::attention_int8::{Int8KeysValues, Int8Scratch};
use crate::ops::{attention, attention_int8, elementwise, matmul_float, norm, peak, quantize};

/// Calls `$then! { $args, the kernels }`: the list of all generic kernels, for what is made once per instruction set.
macro_rules! with_kernels {
    ($then:ident $args:tt) => {
        $then! { $args
            matmul_f32 = matmul_float::matmul::<_, f32>: fn(x: &[f32], x_stride: usize, rows: usize, w: &[f32], w_stride: usize, stripes: usize, k: usize, out: &mut [f32], out_stride: usize);
            matmul_f16 = matmul_float::matmul::<_, u16>: fn(x: &[f32], x_stride: usize, rows: usize, w: &[u16], w_stride: usize, stripes: usize, k: usize, out: &mut [f32], out_stride: usize);
            attention_f32 = attention::attention::<_, f32>: fn(q: &[f32], rows: usize, head_dim: usize, kv: KeysValues<'_, f32>, range: Range<usize>, how: Scores, scores: &mut [f32], out: &mut [f32]);
            attention_f16 = attention::attention::<_, u16>: fn(q: &[f32], rows: usize, head_dim: usize, kv: KeysValues<'_, u16>, range: Range<usize>, how: Scores, scores: &mut [f32], out: &mut [f32]);
            attention_scaled_i8 = attention::attention::<_, i8>: fn(q: &[f32], rows: usize, head_dim: usize, kv: KeysValues<'_, i8>, range: Range<usize>, how: Scores, scores: &mut [f32], out: &mut [f32]);
            attention_int8 = attention_int8::attention_int8: fn(q: &[f32], rows: usize, kv: Int8KeysValues<'_>, how: Scores, scratch: &mut Int8Scratch, out: &mut [f32]);
            mean_of_keys = attention_int8::mean_of_keys: fn(keys: &[f32], stride: usize, n: usize, mean: &mut [f32]);
            quantize_keys_values = attention_int8::quantize_keys_values: fn(keys: &[f32], values: &[f32], stride: usize, n: usize, mean: &[f32], bytes: &mut [i8], scales: &mut [f32], sums: &mut [i32]);
            peak_multiply = peak::multiply: fn(rounds: usize) -> (usize, f32);
            peak_read = peak::read: fn(memory: &[f32]) -> f32;
            quantize_chunk = quantize::quantize_chunk: fn(x: &[f32], q: &mut [i8]) -> (f32, i32);
            rms_norm = norm::rms_norm: fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            layer_norm = norm::layer_norm: fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
            add_product = elementwise::add_product: fn(c: &[f32], bias: Option<&[f32]>, added: bool, out: &mut [f32]);
            bias_gelu = elementwise::bias_gelu: fn(x: &[f32], bias: &[f32], out: &mut [f32]);
            gelu_mul = elementwise::gelu_mul: fn(c: &[f32], out: &mut [f32]);
            softcap = elementwise::softcap: fn(x: &mut [f32], cap: f32);
            sum_exp = elementwise::sum_exp: fn(x: &[f32], max: f32) -> f64;
        }
    };
}

/// Declares the table of functions.
macro_rules! table {
    (() $( $(#[$doc:meta])* $name:ident = $generic:path : fn($($arg:ident: $type:ty),*) $(-> $ret:ty)?; )*) => {
        /// One function per kernel.
        #[derive(Clone, Copy)]
        struct Table {
            matmul_integer: MatmulInteger,
            $( $name: unsafe fn($($type),*) $(-> $ret)?, )*
        }
    };
}
with_kernels!(table());

/// A module with the table of one instruction set: the generic kernels over its [`Simd`](crate::simd::Simd), compiled with its
/// features, and its integer product. `try_table` gives it where the CPU has them.
macro_rules! instruction_set {
    (
        ($isa:ident, $simd:ident, $features:literal, $matmul_integer:path)
        $( $(#[$doc:meta])* $name:ident = $generic:path : fn($($arg:ident: $type:ty),*) $(-> $ret:ty)?; )*
    ) => {
        mod $isa {
            use super::*;
            use crate::simd::$simd;
            $(
                #[target_feature(enable = $features)]
                unsafe fn $name($($arg: $type),*) $(-> $ret)? {
                    // SAFETY: the caller vouches for the CPU, as `Table` demands.
                    $generic(unsafe { $simd::new_unchecked() }, $($arg),*)
                }
            )*
            pub fn try_table() -> Option<Table> {
                $simd::try_new().map(|_| Table { matmul_integer: $matmul_integer, $( $name, )* })
            }
        }
    };
}

/// The table of plain Rust.
macro_rules! plain {
    (() $( $(#[$doc:meta])* $name:ident = $generic:path : fn($($arg:ident: $type:ty),*) $(-> $ret:ty)?; )*) => {
        mod scalar {
            use super::*;
            use crate::simd::Portable;
            $( fn $name($($arg: $type),*) $(-> $ret)? { $generic(Portable, $($arg),*) } )*
            pub const TABLE: Table = Table { matmul_integer: matmul_int::scalar::matmul_integer, $( $name, )* };
        }
    };
}
with_kernels!(plain());

#[cfg(target_arch = "x86_64")]
with_kernels!(instruction_set(avx2, Avx2, "avx2,fma,f16c", matmul_int::avx2::matmul_integer));

#[cfg(target_arch = "x86_64")]
with_kernels!(instruction_set(
    avxvnni,
    AvxVnni,
    "avx2,fma,f16c,avxvnni",
    matmul_int::avx2::matmul_integer_vnni
));

#[cfg(target_arch = "x86_64")]
with_kernels!(instruction_set(
    avxvnni_evex,
    AvxVnniEvex,
    "avx2,fma,f16c,avx512f,avx512vl,avx512vnni",
    matmul_int::avx2::matmul_integer_vnni_evex
));

#[cfg(target_arch = "x86_64")]
with_kernels!(instruction_set(
    avx512,
    Avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c",
    matmul_int::avx512::matmul_integer
));

#[cfg(target_arch = "x86_64")]
with_kernels!(instruction_set(
    amx,
    Avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c",
    matmul_int::amx::matmul_integer
));

#[cfg(target_arch = "aarch64")]
with_kernels!(instruction_set(neon, Neon, "neon", matmul_int::neon::matmul_integer));

#[cfg(target_arch = "aarch64")]
with_kernels!(instruction_set(
    neon_dotprod,
    NeonDotprod,
    "neon,dotprod",
    matmul_int::neon::matmul_integer_dotprod
));

#[cfg(target_arch = "aarch64")]
with_kernels!(instruction_set(
    neon_i8mm,
    NeonI8mm,
    "neon,dotprod,i8mm",
    matmul_int::neon::matmul_integer_i8mm
));

/// The table of `isa`, if this CPU can run it. Where its products use instructions that [`Simd`](crate::simd::Simd) has not, so
/// does the measure of what it can do at most.
fn try_table(isa: Isa) -> Option<Table> {
    match isa {
        Isa::Scalar => Some(scalar::TABLE),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::try_table(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => neon_dotprod::try_table(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => {
            let table = neon_i8mm::try_table()?;
            Some(Table { peak_multiply: matmul_int::neon::peak_multiply_i8mm, ..table })
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            let table = avx2::try_table()?;
            Some(Table { peak_multiply: matmul_int::avx2::peak_multiply_avx2, ..table })
        }
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => match avxvnni::try_table() {
            Some(table) => Some(Table { peak_multiply: matmul_int::avx2::peak_multiply_vnni, ..table }),
            None => {
                let table = avxvnni_evex::try_table()?;
                Some(Table { peak_multiply: matmul_int::avx2::peak_multiply_vnni_evex, ..table })
            }
        },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::try_table(),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => matmul_int::amx::is_available().then(amx::try_table)?,
        // Sets of other architectures.
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

impl Isa {
    /// True if this CPU can run it.
    pub fn is_available(self) -> bool {
        try_table(self).is_some()
    }
}

/// The kernels of an instruction set that this CPU has; all sets give the same bits.
#[derive(Clone, Copy)]
pub struct Kernels {
    isa: Isa,
    table: Table,
}

impl Kernels {
    /// The kernels of `isa`, if this CPU can run them.
    pub fn try_new(isa: Isa) -> Option<Self> {
        try_table(isa).map(|table| Self { isa, table })
    }

    /// The kernels of `isa`, or of the process's default ([`Isa::select`]) if none is given.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`] if this CPU cannot run `isa`; for the default as [`Isa::select`].
    pub fn new(isa: Option<Isa>) -> Result<Self, IsaError> {
        let isa = isa.map_or_else(Isa::select, Ok)?;
        log::debug!("kernels: {isa}");
        Self::try_new(isa).ok_or(IsaError::Unavailable { isa })
    }

    /// The kernels of the process's default.
    ///
    /// # Errors
    /// As [`Isa::select`].
    pub fn select() -> Result<Self, IsaError> {
        Self::new(None)
    }

    /// Whose kernels these are.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// A panel of a matrix product with quantized activations; see [`MatmulInteger`].
    pub fn matmul_integer(
        &self,
        w: &PackedMatrix<'_>,
        stripes: Range<usize>,
        x: &QuantizedRows<'_>,
        rows: Range<usize>,
        scratch: &mut PanelScratch,
        out: &mut [[f32; PANEL]],
    ) {
        assert!(w.layout().format.is_integer(), "floats have their own product");
        assert!(stripes.len() <= PANEL_STRIPES && stripes.end <= w.layout().stripes());
        assert!(rows.end <= x.rows() && rows.len() <= out.len() && x.chunks() == w.layout().chunks());
        assert_eq!(x.chunk(), w.layout().chunk(), "rows were quantized for a matrix of this width");
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.matmul_integer)(w, stripes, x, rows, scratch, out) }
    }

    /// A panel of a matrix product with f32 or f16 weights: `out[m][j]` becomes row `m` of `x` (rows of `cols`
    /// values) times output `16·stripes.start + j`, summed as `ops::matmul_float` says.
    pub fn matmul_float(
        &self,
        w: &PackedMatrix<'_>,
        stripes: Range<usize>,
        x: &[f32],
        out: &mut [[f32; PANEL]],
    ) {
        let layout = w.layout();
        assert!(stripes.len() <= PANEL_STRIPES && stripes.end <= layout.stripes());
        let (k, rows) = (layout.cols, out.len());
        assert_eq!(x.len(), rows * k);
        let out = out.as_flattened_mut();
        let bytes = w.stripes(stripes.clone());
        match layout.format {
            WeightFormat::F32 => {
                let w: &[f32] = bytemuck::cast_slice(bytes);
                // SAFETY: a `Kernels` of this set exists only where the CPU has it.
                unsafe { (self.table.matmul_f32)(x, k, rows, w, k * LANES, stripes.len(), k, out, PANEL) }
            }
            WeightFormat::F16 => {
                let w: &[u16] = bytemuck::cast_slice(bytes);
                // SAFETY: a `Kernels` of this set exists only where the CPU has it.
                unsafe { (self.table.matmul_f16)(x, k, rows, w, k * LANES, stripes.len(), k, out, PANEL) }
            }
            WeightFormat::Int8 | WeightFormat::Int4 => panic!("integers have their own product"),
        }
    }

    /// See [`attention::attention`]; keys and values in f32.
    pub fn attention_f32(
        &self,
        q: &[f32],
        rows: usize,
        head_dim: usize,
        kv: KeysValues<'_, f32>,
        range: Range<usize>,
        how: Scores,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        assert!(rows <= ROWS_MAX);
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.attention_f32)(q, rows, head_dim, kv, range, how, scores, out) }
    }

    /// See [`attention::attention`]; keys and values as bits of f16.
    pub fn attention_f16(
        &self,
        q: &[f32],
        rows: usize,
        head_dim: usize,
        kv: KeysValues<'_, u16>,
        range: Range<usize>,
        how: Scores,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        assert!(rows <= ROWS_MAX);
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.attention_f16)(q, rows, head_dim, kv, range, how, scores, out) }
    }

    /// See [`attention::attention`]; keys and values as integers with scales, multiplied as floats.
    pub fn attention_scaled_i8(
        &self,
        q: &[f32],
        rows: usize,
        head_dim: usize,
        kv: KeysValues<'_, i8>,
        range: Range<usize>,
        how: Scores,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        assert!(rows <= ROWS_MAX && kv.scales.is_some(), "integers have scales");
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.attention_scaled_i8)(q, rows, head_dim, kv, range, how, scores, out) }
    }

    /// See [`attention_int8::attention_int8`].
    pub fn attention_int8(
        &self,
        q: &[f32],
        rows: usize,
        kv: Int8KeysValues<'_>,
        how: Scores,
        scratch: &mut Int8Scratch,
        out: &mut [f32],
    ) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.attention_int8)(q, rows, kv, how, scratch, out) }
    }

    /// See [`attention_int8::mean_of_keys`].
    pub fn mean_of_keys(&self, keys: &[f32], stride: usize, n: usize, mean: &mut [f32]) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.mean_of_keys)(keys, stride, n, mean) }
    }

    /// See [`attention_int8::quantize_keys_values`].
    pub fn quantize_keys_values(
        &self,
        keys: &[f32],
        values: &[f32],
        stride: usize,
        n: usize,
        mean: &[f32],
        bytes: &mut [i8],
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.quantize_keys_values)(keys, values, stride, n, mean, bytes, scales, sums) }
    }

    /// See [`peak::multiply`].
    pub fn peak_multiply(&self, rounds: usize) -> (usize, f32) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.peak_multiply)(rounds) }
    }

    /// See [`peak::read`].
    pub fn peak_read(&self, memory: &[f32]) -> f32 {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.peak_read)(memory) }
    }

    /// See [`quantize::quantize_chunk`].
    pub fn quantize_chunk(&self, x: &[f32], q: &mut [i8]) -> (f32, i32) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.quantize_chunk)(x, q) }
    }

    /// See [`norm::rms_norm`].
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.rms_norm)(x, weight, eps, out) }
    }

    /// See [`norm::layer_norm`].
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.layer_norm)(x, weight, bias, eps, out) }
    }

    /// See [`elementwise::add_product`].
    pub fn add_product(&self, c: &[f32], bias: Option<&[f32]>, added: bool, out: &mut [f32]) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.add_product)(c, bias, added, out) }
    }

    /// See [`elementwise::bias_gelu`].
    pub fn bias_gelu(&self, x: &[f32], bias: &[f32], out: &mut [f32]) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.bias_gelu)(x, bias, out) }
    }

    /// See [`elementwise::gelu_mul`].
    pub fn gelu_mul(&self, c: &[f32], out: &mut [f32]) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.gelu_mul)(c, out) }
    }

    /// See [`elementwise::softcap`].
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.softcap)(x, cap) }
    }

    /// See [`elementwise::sum_exp`].
    pub fn sum_exp(&self, x: &[f32], max: f32) -> f64 {
        // SAFETY: a `Kernels` of this set exists only where the CPU has it.
        unsafe { (self.table.sum_exp)(x, max) }
    }
}
