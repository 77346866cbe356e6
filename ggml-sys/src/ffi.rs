//! The part of ggml's C API that we use: bindgen's output for its headers, and a few functions that no header declares.

use std::ffi::{c_int, c_void};

pub use llama_cpp_sys_2::{
    GGML_STATUS_SUCCESS, GGML_TYPE_F32, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0,
    ggml_backend_alloc_ctx_tensors_from_buft, ggml_backend_buffer, ggml_backend_buffer_free,
    ggml_backend_buffer_get_size, ggml_backend_buffer_type_t, ggml_backend_buft_name,
    ggml_backend_cpu_buffer_type, ggml_backend_cpu_reg, ggml_backend_dev_get_extra_bufts_t,
    ggml_backend_dev_supports_op, ggml_backend_dev_t, ggml_backend_reg_dev_get,
    ggml_backend_reg_get_proc_address, ggml_backend_tensor_set, ggml_build_forward_expand, ggml_cgraph,
    ggml_context, ggml_cplan, ggml_cpu_has_amx_int8, ggml_cpu_has_avx_vnni, ggml_cpu_has_avx2,
    ggml_cpu_has_avx512, ggml_cpu_has_avx512_vnni, ggml_cpu_has_dotprod, ggml_cpu_has_fma,
    ggml_cpu_has_matmul_int8, ggml_cpu_has_neon, ggml_cpu_has_sve, ggml_cpu_init, ggml_free,
    ggml_get_type_traits, ggml_get_type_traits_cpu, ggml_graph_compute, ggml_graph_overhead, ggml_graph_plan,
    ggml_init, ggml_init_params, ggml_log_level, ggml_log_set, ggml_mul_mat, ggml_new_graph,
    ggml_new_tensor_2d, ggml_tensor, ggml_tensor_overhead, ggml_threadpool, ggml_threadpool_free,
    ggml_threadpool_new, ggml_threadpool_params_default, ggml_type, ggml_version,
};

// From ggml's sources (ggml-cpu/quants.h), for x86-64 and Arm: where ggml has kernels of its own, these are the plain
// ones.
unsafe extern "C" {
    /// Plain C dot product of `n` values, Q4_0 times Q8_0, to `*s`; `nrc` is 1, and strides do not matter.
    pub fn ggml_vec_dot_q4_0_q8_0_generic(
        n: c_int,
        s: *mut f32,
        s_stride: usize,
        x: *const c_void,
        x_stride: usize,
        y: *const c_void,
        y_stride: usize,
        nrc: c_int,
    );

    /// As [`ggml_vec_dot_q4_0_q8_0_generic`], Q8_0 times Q8_0.
    pub fn ggml_vec_dot_q8_0_q8_0_generic(
        n: c_int,
        s: *mut f32,
        s_stride: usize,
        x: *const c_void,
        x_stride: usize,
        y: *const c_void,
        y_stride: usize,
        nrc: c_int,
    );
}
