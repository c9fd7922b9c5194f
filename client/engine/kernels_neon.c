/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels on NEON: four lanes, on aarch64 and on ARMv7 with VFPv4 (Cortex-A7 and later), which brings the
 * fused multiply-add. Six rows of C by three vectors take 18 of aarch64's 32 registers, by two 12 of ARMv7's
 * 16; seven and more rows make compilers spill the values of A. ARMv7's NEON knows neither subnormal numbers
 * nor NaN payloads: halves are converted with integers there, and a result of exp below 2^-126 is 0. */
#include "kernels.h"

#if defined(LINNET_SIMD) && defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#include <arm_neon.h>

#define NAME "neon"
#define LANES 4
#define TILE_ROWS 6
#if defined(__aarch64__)
#define TILE_VECS 3
#else
#define TILE_VECS 2
#endif

typedef float32x4_t vec;

static inline vec vec_zero(void)
{
    return vdupq_n_f32(0);
}

static inline vec vec_set1(float a)
{
    return vdupq_n_f32(a);
}

static inline vec vec_load(const float *p)
{
    return vld1q_f32(p);
}

static inline void vec_store(float *p, vec a)
{
    vst1q_f32(p, a);
}

static inline vec vec_load_part(const float *p, size_t n)
{
    float padded[LANES] = {0};
    memcpy(padded, p, n * sizeof(float));
    return vld1q_f32(padded);
}

static inline void vec_store_part(float *p, vec a, size_t n)
{
    float whole[LANES];
    vst1q_f32(whole, a);
    memcpy(p, whole, n * sizeof(float));
}

static inline vec vec_add(vec a, vec b)
{
    return vaddq_f32(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return vsubq_f32(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return vmulq_f32(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}

static inline float vec_sum(vec a)
{
    float32x2_t two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(vpadd_f32(two, two), 0);
}

#if defined(__aarch64__)
static inline vec widen_halves(uint16x4_t halves)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}
#else
/* The scalar file's conversion, on four at a time. */
static inline vec widen_halves(uint16x4_t halves)
{
    uint32x4_t bits = vmovl_u16(halves), zero = vdupq_n_u32(0), rebias = vdupq_n_u32(112u << 23);
    uint32x4_t exponent = vandq_u32(bits, vdupq_n_u32(0x7c00)),
               mantissa = vandq_u32(bits, vdupq_n_u32(0x3ff));
    uint32x4_t sign = vshlq_n_u32(vandq_u32(bits, vdupq_n_u32(0x8000)), 16);
    uint32x4_t normal = vaddq_u32(vshlq_n_u32(vandq_u32(bits, vdupq_n_u32(0x7fff)), 13), rebias);
    uint32x4_t quiet = vbicq_u32(vdupq_n_u32(0x400000), vceqq_u32(mantissa, zero));
    uint32x4_t special = vorrq_u32(vaddq_u32(normal, rebias), quiet);
    uint32x4_t small = vreinterpretq_u32_f32(vmulq_f32(vcvtq_f32_u32(mantissa), vdupq_n_f32(0x1p-24f)));
    uint32x4_t magnitude = vbslq_u32(vceqq_u32(exponent, zero), small, normal);
    magnitude = vbslq_u32(vceqq_u32(exponent, vdupq_n_u32(0x7c00)), special, magnitude);
    return vreinterpretq_f32_u32(vorrq_u32(magnitude, sign));
}
#endif

static inline vec vec_load_f16(const uint8_t *src)
{
    return widen_halves(vreinterpret_u16_u8(vld1_u8(src)));
}

static inline vec vec_set1_f16(const uint8_t *src)
{
    return widen_halves(vdup_n_u16(linnet_load_le16(src)));
}

static inline void widen_bytes(int8x16_t bytes, vec out[4])
{
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    out[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
    out[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    out[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
}

static inline void vec_unpack_q8_0(const uint8_t *quants, vec *out)
{
    widen_bytes(vreinterpretq_s8_u8(vld1q_u8(quants)), out);
    widen_bytes(vreinterpretq_s8_u8(vld1q_u8(quants + 16)), out + 4);
}

static inline void vec_unpack_q4_0(const uint8_t *quants, vec *out)
{
    uint8x16_t bytes = vld1q_u8(quants);
    int8x16_t eight = vdupq_n_s8(8);
    widen_bytes(vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), eight), out);
    widen_bytes(vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4)), eight), out + 4);
}

static inline vec vec_max(vec a, vec b)
{
    return vmaxq_f32(a, b);
}

static inline vec vec_clamp(vec a, float low, float high)
{
    return vminq_f32(vmaxq_f32(a, vdupq_n_f32(low)), vdupq_n_f32(high)); /* both pass NaN on */
}

/* For |a| below 2^22, and ours is below 2^8: added to 1.5 x 2^23 a number has no bits left for a fraction. */
static inline vec vec_round(vec a)
{
    vec shift = vdupq_n_f32(0x1.8p23f);
    return vsubq_f32(vaddq_f32(a, shift), shift);
}

static inline vec vec_pow2(vec a)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(a), vdupq_n_s32(127)), 23));
}

static inline void vec_transpose(vec *rows)
{
    float32x4x2_t top = vtrnq_f32(rows[0], rows[1]), bottom = vtrnq_f32(rows[2], rows[3]);
    rows[0] = vcombine_f32(vget_low_f32(top.val[0]), vget_low_f32(bottom.val[0]));
    rows[1] = vcombine_f32(vget_low_f32(top.val[1]), vget_low_f32(bottom.val[1]));
    rows[2] = vcombine_f32(vget_high_f32(top.val[0]), vget_high_f32(bottom.val[0]));
    rows[3] = vcombine_f32(vget_high_f32(top.val[1]), vget_high_f32(bottom.val[1]));
}

#include "kernels_vector.inc"

const linnet_kernels *linnet_kernels_neon(void)
{
    return &variant;
}
#else
const linnet_kernels *linnet_kernels_neon(void)
{
    return NULL;
}
#endif
