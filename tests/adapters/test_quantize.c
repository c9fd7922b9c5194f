/* SPDX-License-Identifier: Apache-2.0 */
/* Quantising: known blocks, the files that llama-quantize --pure writes, and how well Q4_K fits. */
#include "linnet/quantize.h"

#include <math.h>
#include <unistd.h>

#include "linnet/rng.h"

#include "testing.h"

enum { BLOCKS = 64, N = 256 * BLOCKS };

static linnet_error err;

static void known_blocks_are_rounded_as_the_formats_say(void **state)
{
    (void)state;
    float x[32] = {127, -63.5f, 0.5f, -0.5f, 1.49f};
    uint8_t q8[34], q4[18];
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q8_0, x, 32, q8), LINNET_OK);
    assert_int_equal(linnet_load_le16(q8), 0x3c00); /* 127 / 127 */
    static const int8_t want[] = {127, -64, 1, -1, 1, 0};
    assert_memory_equal(q8 + 2, want, sizeof(want));
    float y[32] = {-8, 7, 3.4f, 3.6f};
    y[16] = 9; /* beyond -8: it sets the scale, and -8 is clipped at the other end */
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q4_0, y, 32, q4), LINNET_OK);
    assert_int_equal(linnet_load_le16(q4), 0xbc80); /* -9 / 8 */
    assert_int_equal(q4[2] >> 4, 0);
    assert_int_equal(q4[2] & 15, 15);
    assert_int_equal(q4[3] & 15, 2);
    float zeros[32] = {0};
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q4_0, zeros, 32, q4), LINNET_OK);
    assert_int_equal(q4[2], 0x88);
}

static void values_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const uint32_t types[] = {LINNET_TENSOR_Q8_0, LINNET_TENSOR_Q4_0, LINNET_TENSOR_Q4_K,
                                     LINNET_TENSOR_F16};
    float x[256] = {0};
    uint8_t bytes[512];
    for (size_t t = 0; t < 4; t++) {
        x[3] = NAN;
        assert_int_equal(linnet_quantize_row(types[t], x, 256, bytes), LINNET_ERR_RANGE);
        x[3] = -INFINITY;
        assert_int_equal(linnet_quantize_row(types[t], x, 256, bytes), LINNET_ERR_RANGE);
        x[3] = 1e9f;
        assert_int_equal(linnet_quantize_row(types[t], x, 256, bytes), LINNET_ERR_RANGE);
        x[3] = 1;
        assert_int_equal(linnet_quantize_row(types[t], x, 256, bytes), LINNET_OK);
    }
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q6_K, x, 256, bytes), LINNET_ERR_ARG);
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q4_K, x, 128, bytes), LINNET_ERR_ARG);
}

/* Subnormal values have no finite inverse. */
static void next_to_nothing_becomes_zero(void **state)
{
    (void)state;
    float x[256];
    uint8_t q8[8 * 34], q4[8 * 18], q4_k[144];
    for (size_t i = 0; i < 256; i++)
        x[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? 1e-40f : -1e-40f;
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q8_0, x, 256, q8), LINNET_OK);
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q4_0, x, 256, q4), LINNET_OK);
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q4_K, x, 256, q4_k), LINNET_OK);
    for (size_t block = 0; block < 8; block++) {
        assert_int_equal(linnet_load_le16(q8 + 34 * block), 0);
        assert_int_equal(linnet_load_le16(q4 + 18 * block) & 0x7fff, 0);
        for (size_t i = 0; i < 32; i++)
            assert_int_equal(q8[34 * block + 2 + i], 0);
        for (size_t i = 0; i < 16; i++)
            assert_int_equal(q4[18 * block + 2 + i], 0x88);
    }
    for (size_t i = 0; i < 144; i++)
        assert_int_equal(q4_k[i], 0);
}

/* What a block of Q4_K stands for (the layout of ggml), to measure how well it fits. */
static void decode_q4_k(const uint8_t *src, float *dst)
{
    for (size_t i = 0; i < 256; i++) {
        size_t g = i / 32, byte = 16 + 32 * (g / 2) + i % 32;
        const uint8_t *packed = src + 4;
        unsigned scale = g < 4 ? packed[g] & 63u : (packed[g + 4] & 15u) | (packed[g - 4] >> 6 << 4);
        unsigned offset = g < 4 ? packed[g + 4] & 63u : (unsigned)(packed[g + 4] >> 4 | packed[g] >> 6 << 4);
        unsigned q = g % 2 == 0 ? src[byte] & 15u : src[byte] >> 4;
        uint16_t half[2] = {linnet_load_le16(src), linnet_load_le16(src + 2)};
        double unit[2];
        for (int k = 0; k < 2; k++)
            unit[k] = ldexp((half[k] >> 10 & 31) ? 1024 + (half[k] & 1023) : 2 * (half[k] & 1023),
                            (half[k] >> 10 & 31) ? (half[k] >> 10 & 31) - 25 : -25);
        dst[i] = (float)(unit[0] * scale * q - unit[1] * offset);
    }
}

/* Root mean square error of normal values, relative to their own size. */
static void q4_k_fits_normal_values(void **state)
{
    (void)state;
    static float x[N], back[N];
    static uint8_t bytes[144 * BLOCKS];
    linnet_rng rng;
    double error = 0, size = 0;
    linnet_rng_init(&rng, 7, 0);
    for (size_t i = 0; i < N; i++)
        x[i] = (float)(0.02 * linnet_rng_normal(&rng));
    assert_int_equal(linnet_quantize_row(LINNET_TENSOR_Q4_K, x, N, bytes), LINNET_OK);
    for (size_t b = 0; b < BLOCKS; b++)
        decode_q4_k(bytes + 144 * b, back + 256 * b);
    for (size_t i = 0; i < N; i++) {
        error += (back[i] - x[i]) * (double)(back[i] - x[i]);
        size += (double)x[i] * x[i];
    }
    print_message("relative error of Q4_K: %.4f\n", sqrt(error / size));
    assert_true(sqrt(error / size) < 0.075);
}

static void check_same(const linnet_gguf *got, const linnet_gguf *want)
{
    assert_int_equal(linnet_gguf_n_tensors(got), linnet_gguf_n_tensors(want));
    for (size_t i = 0; i < linnet_gguf_n_tensors(want); i++) {
        const linnet_gguf_tensor *w = linnet_gguf_tensor_at(want, i);
        char name[80];
        (void)snprintf(name, sizeof(name), "%.*s", (int)w->name.n_bytes, w->name.bytes);
        const linnet_gguf_tensor *g = linnet_gguf_find_tensor(got, name);
        assert_non_null(g);
        if (g->type != w->type || g->n_bytes != w->n_bytes || memcmp(g->bytes, w->bytes, w->n_bytes) != 0)
            fail_msg("'%s' differs: %s, %zu bytes", name, linnet_tensor_type_name(g->type), g->n_bytes);
    }
}

static void files_are_those_of_llama_quantize(void **state)
{
    (void)state;
    static const struct {
        const char *want;
        uint32_t type;
        const char *name;
    } files[] = {
        {"models/stories3M-Q8_0.gguf", LINNET_TENSOR_Q8_0, "Q8_0"},
        {"models/stories3M-Q4_0.gguf", LINNET_TENSOR_Q4_0, "Q4_0"},
    };
    const char *shared = testing_shared("models/stories3M-F32.gguf");
    if (!shared)
        skip();
    linnet_gguf *model = NULL;
    assert_ok(linnet_gguf_open(shared, &model, &err), &err);
    for (size_t f = 0; f < 2; f++) {
        char path[64];
        linnet_quantize_summary summary = {0};
        linnet_gguf *got = NULL, *want = NULL;
        (void)snprintf(path, sizeof(path), "/tmp/linnet-quantize-%ld-XXXXXX", (long)getpid());
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        (void)close(fd);
        assert_ok(linnet_quantize_file(model, files[f].type, path, &summary, &err), &err);
        assert_int_equal(summary.n_quantized, 6 * 7 + 1);
        assert_int_equal(summary.n_kept, 6 * 2 + 1);
        assert_int_equal(summary.n_fallback, 0);
        assert_ok(linnet_gguf_open(path, &got, &err), &err);
        assert_ok(linnet_gguf_open(testing_shared(files[f].want), &want, &err), &err);
        check_same(got, want);
        /* what is quantised is not quantised again */
        assert_int_equal(linnet_quantize_file(got, LINNET_TENSOR_Q4_K, path, &summary, &err),
                         LINNET_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, files[f].name));
        linnet_gguf_close(got);
        linnet_gguf_close(want);
        (void)unlink(path);
    }
    linnet_gguf_close(model);
}

/* Rows of 192 and 512: the first are no whole blocks of 256. */
static void rows_that_are_no_whole_blocks_fall_back(void **state)
{
    (void)state;
    const char *shared = testing_shared("models/stories3M-F32.gguf");
    if (!shared)
        skip();
    char path[64] = "/tmp/linnet-quantize-XXXXXX";
    linnet_gguf *model = NULL, *got = NULL;
    linnet_quantize_summary summary = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_ok(linnet_gguf_open(shared, &model, &err), &err);
    assert_ok(linnet_quantize_file(model, LINNET_TENSOR_Q4_K, path, &summary, &err), &err);
    assert_int_equal(summary.n_quantized, 6); /* ffn_down */
    assert_int_equal(summary.n_fallback, 6 * 6 + 1);
    assert_ok(linnet_gguf_open(path, &got, &err), &err);
    assert_int_equal(linnet_gguf_find_tensor(got, "blk.0.ffn_down.weight")->type, LINNET_TENSOR_Q4_K);
    assert_int_equal(linnet_gguf_find_tensor(got, "blk.0.ffn_up.weight")->type, LINNET_TENSOR_Q8_0);
    assert_int_equal(linnet_gguf_find_tensor(got, "blk.0.attn_norm.weight")->type, LINNET_TENSOR_F32);
    linnet_gguf_close(got);
    linnet_gguf_close(model);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_blocks_are_rounded_as_the_formats_say),
        cmocka_unit_test(values_that_do_not_fit_are_refused),
        cmocka_unit_test(next_to_nothing_becomes_zero),
        cmocka_unit_test(q4_k_fits_normal_values),
        cmocka_unit_test(files_are_those_of_llama_quantize),
        cmocka_unit_test(rows_that_are_no_whole_blocks_fall_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
