/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_KERNELS_BLOCKS_H
#define LINNET_ENGINE_KERNELS_BLOCKS_H

/* Inner header of the kernels: blocks of GGUF's quantised types taken apart into small integers, and a scale
 * and an offset for each 16 of them:
 *
 *   value = scale * quant - offset, in float32, each operation rounded
 *
 * which is, to the bit, what the formats are defined to stand for. Plain byte loops of fixed length, which a
 * compiler turns into vectors for the instruction set of the file that includes this. That file defines
 * half_at(src), the float32 value of the half at src. Source: the layouts of ggml (ggml-common.h). */

#include "linnet/bytes.h"

enum {
    BLOCK_GROUP = 16, /* quants that share a scale and an offset */
    BLOCK_MAX = 256,  /* quants of the largest block */
    BLOCK_SCALES = 12 /* bytes of the packed scales of Q4_K, Q5_K, Q3_K */
};

/** The types that are taken apart here: name, elements and bytes of a block. */
/* clang-format off */
#define LINNET_BLOCK_FORMATS(X) \
    X(q4_1, 32, 20) X(q5_0, 32, 22) X(q5_1, 32, 24) X(iq4_nl, 32, 18) \
    X(q2_k, 256, 84) X(q3_k, 256, 110) X(q4_k, 256, 144) X(q5_k, 256, 176) X(q6_k, 256, 210)
/* clang-format on */

typedef struct quant_block {
    int8_t quants[BLOCK_MAX];
    float scales[BLOCK_MAX / BLOCK_GROUP], offsets[BLOCK_MAX / BLOCK_GROUP];
} quant_block;

/* The same scale and offset for the first n quants. */
static inline void scale_all(quant_block *b, size_t n, float scale, float offset)
{
    for (size_t g = 0; g < n / BLOCK_GROUP; g++) {
        b->scales[g] = scale;
        b->offsets[g] = offset;
    }
}

/* ---- blocks of 32: low halves of 16 bytes, then high halves ---- */

static inline void take_nibbles(const uint8_t *bytes, int8_t *quants)
{
    for (size_t i = 0; i < 16; i++) {
        quants[i] = (int8_t)(bytes[i] & 15);
        quants[16 + i] = (int8_t)(bytes[i] >> 4);
    }
}

/* Bit i of four bytes is worth 16 in quant i. */
static inline void add_fifth_bits(const uint8_t *bytes, int8_t *quants)
{
    uint32_t bits = linnet_load_le32(bytes);
    for (size_t i = 0; i < 32; i++)
        quants[i] = (int8_t)(quants[i] | (bits >> i & 1) << 4);
}

static inline void unpack_q4_1(const uint8_t *src, quant_block *b)
{
    take_nibbles(src + 4, b->quants);
    scale_all(b, 32, half_at(src), -half_at(src + 2));
}

static inline void unpack_q5_0(const uint8_t *src, quant_block *b)
{
    take_nibbles(src + 6, b->quants);
    add_fifth_bits(src + 2, b->quants);
    for (size_t i = 0; i < 32; i++)
        b->quants[i] = (int8_t)(b->quants[i] - 16);
    scale_all(b, 32, half_at(src), 0);
}

static inline void unpack_q5_1(const uint8_t *src, quant_block *b)
{
    take_nibbles(src + 8, b->quants);
    add_fifth_bits(src + 4, b->quants);
    scale_all(b, 32, half_at(src), -half_at(src + 2));
}

static inline void unpack_iq4_nl(const uint8_t *src, quant_block *b)
{
    static const int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    for (size_t i = 0; i < 16; i++) {
        b->quants[i] = levels[src[2 + i] & 15];
        b->quants[16 + i] = levels[src[2 + i] >> 4];
    }
    scale_all(b, 32, half_at(src), 0);
}

/* ---- blocks of 256: a scale for the scales ---- */

/* 16 groups of 16; scales and offsets are nibbles, quants are pairs of bits, a plane of 32 at a time. */
static inline void unpack_q2_k(const uint8_t *src, quant_block *b)
{
    const uint8_t *bytes = src + 16;
    float d = half_at(src + 80), d_offset = half_at(src + 82);
    for (size_t g = 0; g < 16; g++) {
        b->scales[g] = d * (float)(src[g] & 15);
        b->offsets[g] = d_offset * (float)(src[g] >> 4);
    }
    for (size_t half = 0; half < 2; half++)
        for (size_t plane = 0; plane < 4; plane++)
            for (size_t i = 0; i < 32; i++)
                b->quants[128 * half + 32 * plane + i] = (int8_t)(bytes[32 * half + i] >> 2 * plane & 3);
}

/* As Q2_K without offsets; a mask holds third bits, one bit a plane of 32; scales have six bits, less 32. */
static inline void unpack_q3_k(const uint8_t *src, quant_block *b)
{
    const uint8_t *mask = src, *bytes = src + 32, *scales = src + 96;
    float d = half_at(src + 108);
    for (size_t g = 0; g < 16; g++) {
        unsigned low = g < 8 ? scales[g] & 15u : scales[g - 8] >> 4;
        unsigned high = scales[8 + g % 4] >> 2 * (g / 4) & 3u;
        b->scales[g] = d * (float)((int)(low | high << 4) - 32);
        b->offsets[g] = 0;
    }
    for (size_t plane = 0; plane < 8; plane++)
        for (size_t i = 0; i < 32; i++) {
            int low = bytes[32 * (plane / 4) + i] >> 2 * (plane % 4) & 3, high = mask[i] >> plane & 1;
            b->quants[32 * plane + i] = (int8_t)(low + 4 * high - 4);
        }
}

/* Eight six-bit scales, then eight six-bit offsets, in 12 bytes: one for each 32 quants. */
static inline void unpack_scales(const uint8_t *src, const uint8_t *packed, quant_block *b)
{
    float d = half_at(src), d_offset = half_at(src + 2);
    for (size_t j = 0; j < 8; j++) {
        unsigned scale =
            j < 4 ? packed[j] & 63u : (packed[j + 4] & 15u) | (unsigned)(packed[j - 4] >> 6) << 4;
        unsigned offset = j < 4 ? packed[j + 4] & 63u : packed[j + 4] >> 4 | (unsigned)(packed[j] >> 6) << 4;
        b->scales[2 * j] = b->scales[2 * j + 1] = d * (float)scale;
        b->offsets[2 * j] = b->offsets[2 * j + 1] = d_offset * (float)offset;
    }
}

/* Low halves of 32 bytes, then their high halves, four times. */
static inline void take_nibble_planes(const uint8_t *bytes, int8_t *quants)
{
    for (size_t pair = 0; pair < 4; pair++)
        for (size_t i = 0; i < 32; i++) {
            quants[64 * pair + i] = (int8_t)(bytes[32 * pair + i] & 15);
            quants[64 * pair + 32 + i] = (int8_t)(bytes[32 * pair + i] >> 4);
        }
}

static inline void unpack_q4_k(const uint8_t *src, quant_block *b)
{
    unpack_scales(src, src + 4, b);
    take_nibble_planes(src + 16, b->quants);
}

/* Bit p of byte i is worth 16 in quant i of plane p. */
static inline void unpack_q5_k(const uint8_t *src, quant_block *b)
{
    const uint8_t *fifth = src + 16;
    unpack_scales(src, src + 4, b);
    take_nibble_planes(src + 48, b->quants);
    for (size_t plane = 0; plane < 8; plane++)
        for (size_t i = 0; i < 32; i++)
            b->quants[32 * plane + i] = (int8_t)(b->quants[32 * plane + i] | (fifth[i] >> plane & 1) << 4);
}

/* Four low bits and two high ones, less 32; a signed byte scales each 16. */
static inline void unpack_q6_k(const uint8_t *src, quant_block *b)
{
    float d = half_at(src + 208);
    for (size_t g = 0; g < 16; g++) {
        b->scales[g] = d * (float)(int8_t)src[192 + g];
        b->offsets[g] = 0;
    }
    for (size_t half = 0; half < 2; half++) {
        const uint8_t *low = src + 64 * half, *high = src + 128 + 32 * half;
        int8_t *quants = b->quants + 128 * half;
        for (size_t i = 0; i < 32; i++) {
            quants[i] = (int8_t)(((low[i] & 15) | (high[i] & 3) << 4) - 32);
            quants[32 + i] = (int8_t)(((low[32 + i] & 15) | (high[i] >> 2 & 3) << 4) - 32);
            quants[64 + i] = (int8_t)((low[i] >> 4 | (high[i] >> 4 & 3) << 4) - 32);
            quants[96 + i] = (int8_t)((low[32 + i] >> 4 | high[i] >> 6 << 4) - 32);
        }
    }
}

#endif
