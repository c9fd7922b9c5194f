/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_HALF_H
#define LINNET_ADAPTERS_HALF_H

/* The two 16-bit floats of files. Widening is exact; narrowing rounds to nearest, ties to even (IEEE
 * 754, 4.3.1). */

#include <stdint.h>
#include <string.h>

static inline float linnet_f32_of_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

static inline float linnet_bf16_widen(uint16_t half)
{
    return linnet_f32_of_bits((uint32_t)half << 16);
}

static inline float linnet_f16_widen(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    if (exponent == 31) /* infinity and NaN */
        return linnet_f32_of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) { /* zero and subnormal: mantissa * 2^-24 is exact */
        float v = (float)mantissa * 0x1.0p-24f;
        return sign ? -v : v;
    }
    return linnet_f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/** Values past the largest half become infinite, as IEEE says; the caller checks where that matters. */
static inline uint16_t linnet_f16_narrow(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) /* NaN: quiet */
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* 65520 and above */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x33000001) /* 2^-25 and below */
        return (uint16_t)sign;
    uint32_t exponent = magnitude >> 23, mantissa = (magnitude & 0x7fffff) | 0x800000;
    uint32_t shift = exponent < 113 ? 126 - exponent : 13; /* subnormal results keep fewer bits */
    uint32_t kept = mantissa >> shift, rest = mantissa & ((UINT32_C(1) << shift) - 1),
             half = UINT32_C(1) << (shift - 1);
    kept += rest > half || (rest == half && (kept & 1));
    if (exponent >= 113)
        kept += (exponent - 113) << 10; /* the implicit bit of `kept` counts as one exponent */
    return (uint16_t)(sign | kept);
}

#endif
