// Everything for one architecture, in one module.
#if !defined(GPOW_SIMT_SHIM)
#define GPOW_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) u8 name[]
#endif

#include "fill.cu"
#include "probe.cu"
#include "blake3.cu"
#include "gemm_dp4a.cu"
#include "selftest.cu"
#if defined(GPOW_SIMT_SHIM) || GPOW_MATRIX >= 1
#include "gemm_mma.cu"
#endif
#if defined(GPOW_SIMT_SHIM) || GPOW_MATRIX >= 2
#include "gemm_wgmma.cu"
#endif
