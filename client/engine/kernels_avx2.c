/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels on AVX2 with FMA and F16C: eight lanes. Six rows by two vectors of C take 12 of the 16
 * registers; the two columns of B and one value of A fit beside them. */
#include "kernels.h"

#if defined(LINNET_SIMD) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

#define NAME "avx2"
#define LANES 8
#define TILE_ROWS 6
#define TILE_VECS 2

typedef __m256 vec;

static inline vec vec_zero(void)
{
    return _mm256_setzero_ps();
}

static inline vec vec_set1(float a)
{
    return _mm256_set1_ps(a);
}

static inline vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void vec_store(float *p, vec a)
{
    _mm256_storeu_ps(p, a);
}

static inline __m256i first_lanes(size_t n)
{
    static const int32_t lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(const void *)(lanes + 8 - n));
}

static inline vec vec_load_part(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, first_lanes(n));
}

static inline void vec_store_part(float *p, vec a, size_t n)
{
    _mm256_maskstore_ps(p, first_lanes(n), a);
}

static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* Halves are added until one lane is left. */
static inline float vec_sum(vec a)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline vec vec_load_f16(const uint8_t *src)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)src));
}

static inline vec vec_set1_f16(const uint8_t *src)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)linnet_load_le16(src)));
}

static inline vec widen(__m128i low_eight_bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low_eight_bytes));
}

static inline void vec_unpack_q8_0(const uint8_t *quants, vec *out)
{
    for (int v = 0; v < 4; v++)
        out[v] = widen(_mm_loadl_epi64((const __m128i *)(const void *)(quants + 8 * v)));
}

static inline void vec_unpack_q4_0(const uint8_t *quants, vec *out)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)quants);
    __m128i nibble = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
    __m128i low = _mm_sub_epi8(_mm_and_si128(bytes, nibble), eight);
    __m128i high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), nibble), eight);
    out[0] = widen(low);
    out[1] = widen(_mm_unpackhi_epi64(low, low));
    out[2] = widen(high);
    out[3] = widen(_mm_unpackhi_epi64(high, high));
}

static inline vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec vec_clamp(vec a, float low, float high)
{
    /* Of two operands min and max give the second where one is NaN. */
    return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), a));
}

static inline vec vec_round(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vec vec_pow2(vec a)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

/* First within the halves of 128 bits (4 x 4), then the halves themselves. */
static inline void vec_transpose(vec *rows)
{
    vec turned[8];
    for (int g = 0; g < 8; g += 4) {
        __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[g], rows[g + 1]));
        __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[g], rows[g + 1]));
        __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[g + 2], rows[g + 3]));
        __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[g + 2], rows[g + 3]));
        turned[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23));
        turned[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23));
        turned[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23));
        turned[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23));
    }
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm256_permute2f128_ps(turned[i], turned[4 + i], 0x20);
        rows[4 + i] = _mm256_permute2f128_ps(turned[i], turned[4 + i], 0x31);
    }
}

#include "kernels_vector.inc"

const linnet_kernels *linnet_kernels_avx2(void)
{
    return &variant;
}
#else
const linnet_kernels *linnet_kernels_avx2(void)
{
    return NULL;
}
#endif
