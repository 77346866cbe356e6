//! ggml's matrix products on the CPU: `ggml_mul_mat` of a quantized matrix with f32 rows.
//!
//! Memory, graph and threads are created once, so repeating a product allocates nothing.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::blocks::BlockFormat;
use crate::ffi;
use crate::reference::{init, type_of};

/// Why ggml does not multiply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's: such a matrix or such rows cannot be.
    #[error(
        "a matrix of {outputs} outputs and {inputs} inputs in {format} is not possible: inputs must be blocks of 32"
    )]
    Shape {
        /// Outputs.
        outputs: usize,
        /// Inputs.
        inputs: usize,
        /// The blocks.
        format: BlockFormat,
    },
    /// ggml was compiled without this packing, the CPU cannot run it, or it does not take this format or shape.
    #[error("ggml does not multiply {format} in packing '{packing}' with this shape on this CPU")]
    Unsupported {
        /// The blocks.
        format: BlockFormat,
        /// How they should have been packed.
        packing: Packing,
    },
    /// The machine's: no memory, or no threads.
    #[error("there is not enough memory for ggml's product")]
    OutOfMemory,
    /// ggml gave up.
    #[error("ggml could not compute, and gives the status {0}")]
    Failed(c_int),
}

/// How ggml holds the weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Blocks as in a file.
    Plain,
    /// Rows interleaved for vectors, a copy made at load: what llama.cpp does with Q4_0 where it can.
    Repacked,
    /// Packed for Intel's tile unit: what llama.cpp does where ggml is compiled for it. Refused if GCC before 14 has
    /// compiled it, which makes a program of it that dies of a fault.
    Amx,
}

impl Packing {
    /// All.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Repacked, Self::Amx];

    /// A name for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Repacked => "repacked",
            Self::Amx => "amx",
        }
    }

    /// ggml's type of buffer, if it was compiled with it and the CPU has what it takes.
    fn buffer_type(self) -> Option<ffi::ggml_backend_buffer_type_t> {
        let name = match self {
            // SAFETY: gives a constant.
            Self::Plain => return Some(unsafe { ffi::ggml_backend_cpu_buffer_type() }),
            Self::Repacked => c"CPU_REPACK",
            Self::Amx if !cfg!(ggml_tiles) => return None,
            Self::Amx => c"AMX",
        };
        // SAFETY: the registry of the CPU is a constant, and this is the type that ggml gives to what has this name.
        // The function gives an array that lives as long as the program and ends with null.
        unsafe {
            let get = ffi::ggml_backend_reg_get_proc_address(
                ffi::ggml_backend_cpu_reg(),
                c"ggml_backend_dev_get_extra_bufts".as_ptr(),
            );
            let get: ffi::ggml_backend_dev_get_extra_bufts_t = std::mem::transmute(get);
            let mut next = get?(cpu());
            while !(*next).is_null() {
                if CStr::from_ptr(ffi::ggml_backend_buft_name(*next)) == name {
                    return Some(*next);
                }
                next = next.add(1);
            }
        }
        None
    }
}

impl std::fmt::Display for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

fn cpu() -> ffi::ggml_backend_dev_t {
    // SAFETY: the registry of the CPU is a constant with one device.
    unsafe { ffi::ggml_backend_reg_dev_get(ffi::ggml_backend_cpu_reg(), 0) }
}

/// A quantized matrix in ggml's memory; `y[n] = Σ_k w[n][k]·x[k]`.
pub struct Weights {
    // The buffer holds the tensor's data, the context the tensor.
    buffer: Buffer,
    _context: Context,
    tensor: NonNull<ffi::ggml_tensor>,
    outputs: usize,
    inputs: usize,
}

impl Weights {
    /// Takes `outputs` rows of `inputs` weights as blocks of `format`, and packs them.
    ///
    /// # Panics
    /// If `blocks` is not as long as these rows: the caller's mistake.
    pub fn new(
        format: BlockFormat,
        outputs: usize,
        inputs: usize,
        blocks: &[u8],
        packing: Packing,
    ) -> Result<Self, Error> {
        init();
        let shape = Error::Shape { outputs, inputs, format };
        let unsupported = || Error::Unsupported { format, packing };
        let bytes = format.bytes(inputs).and_then(|row| row.checked_mul(outputs));
        // ggml counts columns and rows with 32 bits in many places.
        let (Some(bytes), Ok(n), Ok(k)) = (bytes, i32::try_from(outputs), i32::try_from(inputs)) else {
            return Err(shape);
        };
        if n == 0 || k == 0 {
            return Err(shape);
        }
        assert_eq!(blocks.len(), bytes, "blocks of the whole matrix");
        let buffer_type = packing.buffer_type().ok_or_else(unsupported)?;
        let context = Context::new()?;
        // SAFETY: the context has room for some tensors, and this is the first; whole blocks in positive numbers are a
        // shape.
        let tensor =
            unsafe { ffi::ggml_new_tensor_2d(context.0.as_ptr(), type_of(format), k.into(), n.into()) };
        let tensor = NonNull::new(tensor).ok_or(Error::OutOfMemory)?;
        let buffer = Buffer::new(&context, buffer_type)?;
        // SAFETY: the two tensors are never computed, only shown: the product's first factor lies in its buffer, as
        // ggml wants it for the question whether it can multiply.
        let supported = unsafe {
            let row = ffi::ggml_new_tensor_2d(context.0.as_ptr(), ffi::GGML_TYPE_F32, k.into(), 1);
            let product = ffi::ggml_mul_mat(context.0.as_ptr(), tensor.as_ptr(), row);
            ffi::ggml_backend_dev_supports_op(cpu(), product)
        };
        if !supported {
            return Err(unsupported());
        }
        // SAFETY: the tensor has its memory, has `bytes` bytes, and its packing takes it: some packings would abort
        // otherwise.
        unsafe { ffi::ggml_backend_tensor_set(tensor.as_ptr(), blocks.as_ptr().cast(), 0, bytes) };
        Ok(Self { buffer, _context: context, tensor, outputs, inputs })
    }

    /// Bytes in memory, packed.
    pub fn bytes(&self) -> usize {
        // SAFETY: the buffer lives.
        unsafe { ffi::ggml_backend_buffer_get_size(self.buffer.0.as_ptr()) }
    }
}

/// A product of some rows with a matrix, ready to be computed any number of times.
pub struct Product<'w> {
    plan: ffi::ggml_cplan,
    graph: NonNull<ffi::ggml_cgraph>,
    input: NonNull<f32>,
    output: NonNull<f32>,
    input_len: usize,
    output_len: usize,
    _work: Vec<WorkLine>,
    _threads: Threads,
    _buffer: Buffer,
    _context: Context,
    weights: PhantomData<&'w Weights>,
}

impl<'w> Product<'w> {
    /// Of `rows` rows of input (zeros until they are set), on `threads` threads.
    ///
    /// # Panics
    /// If `rows` is 0, or `threads` is 0 or more than ggml's 512: the caller's mistake.
    pub fn new(weights: &'w Weights, rows: usize, threads: usize) -> Result<Self, Error> {
        assert!(rows > 0 && (1..=THREADS_MAX).contains(&threads));
        let (Ok(m), Ok(threads)) = (i32::try_from(rows), i32::try_from(threads)) else {
            return Err(Error::OutOfMemory);
        };
        let (input_len, output_len) = (rows.checked_mul(weights.inputs), rows.checked_mul(weights.outputs));
        let (Some(input_len), Some(output_len)) = (input_len, output_len) else {
            return Err(Error::OutOfMemory);
        };
        let context = Context::new()?;
        let c = context.0.as_ptr();
        // SAFETY: the context has room for some tensors and a graph. The matrix lives as long as the product, by its
        // lifetime.
        let (input, output, graph) = unsafe {
            let input = ffi::ggml_new_tensor_2d(c, ffi::GGML_TYPE_F32, weights.inputs as i64, m.into());
            let output = ffi::ggml_mul_mat(c, weights.tensor.as_ptr(), input);
            let graph = ffi::ggml_new_graph(c);
            ffi::ggml_build_forward_expand(graph, output);
            (input, output, graph)
        };
        let graph = NonNull::new(graph).ok_or(Error::OutOfMemory)?;
        let buffer =
            Buffer::new(&context, Packing::Plain.buffer_type().expect("plain memory is always there"))?;
        // SAFETY: both tensors have just got memory: contiguous f32.
        let (input, output) = unsafe { ((*input).data.cast::<f32>(), (*output).data.cast::<f32>()) };
        let (input, output) =
            (NonNull::new(input).ok_or(Error::OutOfMemory)?, NonNull::new(output).ok_or(Error::OutOfMemory)?);
        // SAFETY: the tensors hold so many values.
        unsafe {
            input.write_bytes(0, input_len);
            output.write_bytes(0, output_len);
        }
        let threads_of = Threads::new(threads)?;
        // SAFETY: graph and threads live.
        let mut plan = unsafe { ffi::ggml_graph_plan(graph.as_ptr(), threads, threads_of.0.as_ptr()) };
        let mut work = vec![WorkLine([0; 64]); plan.work_size.div_ceil(size_of::<WorkLine>())];
        plan.work_data = work.as_mut_ptr().cast();
        Ok(Self {
            plan,
            graph,
            input,
            output,
            input_len,
            output_len,
            _work: work,
            _threads: threads_of,
            _buffer: buffer,
            _context: context,
            weights: PhantomData,
        })
    }

    /// Rows of input, one behind the other.
    pub fn input(&mut self) -> &mut [f32] {
        // SAFETY: the tensor's memory, initialized in `new`, which nothing else refers to between runs.
        unsafe { std::slice::from_raw_parts_mut(self.input.as_ptr(), self.input_len) }
    }

    /// Rows of output, one behind the other, of the last run; zeros before.
    pub fn output(&self) -> &[f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.output.as_ptr(), self.output_len) }
    }

    /// Computes `times` times, and tells how long that took.
    ///
    /// On a thread of its own, which is started before the clock is: ggml sets up the tile unit of a thread once and
    /// for ever, and would multiply with other tiles, or be killed, where palmtop's kernels have used it since.
    pub fn run(&mut self, times: u64) -> Result<Duration, Error> {
        /// Pointers into what `self` owns.
        struct Work(NonNull<ffi::ggml_cgraph>, *mut ffi::ggml_cplan);
        // SAFETY: graph and plan are used by one thread at a time: `run` has `self` for itself and waits for the
        // thread.
        unsafe impl Send for Work {}
        impl Work {
            fn run(self, times: u64) -> Result<Duration, Error> {
                let start = Instant::now();
                for _ in 0..times {
                    // SAFETY: graph, plan, its threads and its work memory live in the product, which waits for this.
                    let status = unsafe { ffi::ggml_graph_compute(self.0.as_ptr(), self.1) };
                    if status != ffi::GGML_STATUS_SUCCESS {
                        return Err(Error::Failed(status));
                    }
                }
                Ok(start.elapsed())
            }
        }
        let work = Work(self.graph, &mut self.plan);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || work.run(times));
            thread.map_err(|_| Error::OutOfMemory)?.join().expect("ggml does not unwind")
        })
    }
}

/// ggml's `GGML_MAX_N_THREADS`: it aborts when asked for more.
const THREADS_MAX: usize = 512;

/// Work memory begins at a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct WorkLine(#[expect(dead_code, reason = "ggml's")] [u8; 64]);

/// Where tensors and graphs are described; their data lies in buffers.
struct Context(NonNull<ffi::ggml_context>);

impl Context {
    fn new() -> Result<Self, Error> {
        /// More than any context here has.
        const TENSORS: usize = 8;
        // SAFETY: ggml allocates the memory itself.
        let context = unsafe {
            ffi::ggml_init(ffi::ggml_init_params {
                mem_size: TENSORS * ffi::ggml_tensor_overhead() + ffi::ggml_graph_overhead(),
                mem_buffer: std::ptr::null_mut::<c_void>(),
                no_alloc: true,
            })
        };
        NonNull::new(context).map(Self).ok_or(Error::OutOfMemory)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { ffi::ggml_free(self.0.as_ptr()) }
    }
}

/// Memory of tensors' data.
struct Buffer(NonNull<ffi::ggml_backend_buffer>);

impl Buffer {
    /// For all tensors of a context.
    fn new(context: &Context, kind: ffi::ggml_backend_buffer_type_t) -> Result<Self, Error> {
        // SAFETY: both live; the context's tensors have no data yet.
        let buffer = unsafe { ffi::ggml_backend_alloc_ctx_tensors_from_buft(context.0.as_ptr(), kind) };
        NonNull::new(buffer).map(Self).ok_or(Error::OutOfMemory)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { ffi::ggml_backend_buffer_free(self.0.as_ptr()) }
    }
}

/// ggml's threads; the one that asks for a product is one of them.
struct Threads(NonNull<ffi::ggml_threadpool>);

impl Threads {
    fn new(threads: c_int) -> Result<Self, Error> {
        // SAFETY: the parameters are ggml's own for a positive number of threads.
        let pool = unsafe {
            let mut params = ffi::ggml_threadpool_params_default(threads);
            ffi::ggml_threadpool_new(&mut params)
        };
        NonNull::new(pool).map(Self).ok_or(Error::OutOfMemory)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once, and idle: a product has waited for its last run.
        unsafe { ffi::ggml_threadpool_free(self.0.as_ptr()) }
    }
}
