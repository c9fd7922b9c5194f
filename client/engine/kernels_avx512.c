/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels on AVX-512 (F, BW, VL, DQ): sixteen lanes, and masks for what is left over. Twelve rows by two
 * vectors of C take 24 of the 32 registers; the two columns of B and one value of A fit beside them.
 * Activations stay float32, so the integer dot products of VNNI have no place here. */
#include "kernels.h"

#if defined(LINNET_SIMD) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) &&        \
    defined(__AVX512DQ__)
#include <immintrin.h>

#define NAME "avx512"
#define LANES 16
#define TILE_ROWS 12
#define TILE_VECS 2

typedef __m512 vec;

static inline vec vec_zero(void)
{
    return _mm512_setzero_ps();
}

static inline vec vec_set1(float a)
{
    return _mm512_set1_ps(a);
}

static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void vec_store(float *p, vec a)
{
    _mm512_storeu_ps(p, a);
}

static inline __mmask16 first_lanes(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline vec vec_load_part(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void vec_store_part(float *p, vec a, size_t n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), a);
}

static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* Halves are added until one lane is left. */
static inline float vec_sum(vec a)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline vec vec_load_f16(const uint8_t *src)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)src));
}

static inline vec vec_set1_f16(const uint8_t *src)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)linnet_load_le16(src)));
}

static inline void vec_unpack_q8_0(const uint8_t *quants, vec *out)
{
    for (int v = 0; v < 2; v++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(quants + 16 * v));
        out[v] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    }
}

static inline void vec_unpack_q4_0(const uint8_t *quants, vec *out)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)quants);
    __m128i nibble = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
    __m128i low = _mm_and_si128(bytes, nibble), high = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
    out[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_sub_epi8(low, eight)));
    out[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_sub_epi8(high, eight)));
}

static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec vec_clamp(vec a, float low, float high)
{
    /* Of two operands min and max give the second where one is NaN. */
    return _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), a));
}

static inline vec vec_round(vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vec vec_pow2(vec a)
{
    __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}

/* First within the quarters of 128 bits (4 x 4), then the quarters themselves (4 x 4 again). */
static inline void vec_transpose(vec *rows)
{
    vec turned[16];
    for (int g = 0; g < 16; g += 4) {
        __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[g], rows[g + 1]));
        __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[g], rows[g + 1]));
        __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[g + 2], rows[g + 3]));
        __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[g + 2], rows[g + 3]));
        turned[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
        turned[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
        turned[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
        turned[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
    }
    for (int i = 0; i < 4; i++) { /* 0x88 takes quarters 0 and 2 of both operands, 0xdd quarters 1 and 3 */
        vec even01 = _mm512_shuffle_f32x4(turned[i], turned[4 + i], 0x88);
        vec odd01 = _mm512_shuffle_f32x4(turned[i], turned[4 + i], 0xdd);
        vec even23 = _mm512_shuffle_f32x4(turned[8 + i], turned[12 + i], 0x88);
        vec odd23 = _mm512_shuffle_f32x4(turned[8 + i], turned[12 + i], 0xdd);
        rows[i] = _mm512_shuffle_f32x4(even01, even23, 0x88);
        rows[4 + i] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
        rows[8 + i] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
        rows[12 + i] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
}

#include "kernels_vector.inc"

const linnet_kernels *linnet_kernels_avx512(void)
{
    return &variant;
}
#else
const linnet_kernels *linnet_kernels_avx512(void)
{
    return NULL;
}
#endif
