/* SPDX-License-Identifier: Apache-2.0 */
/* What secure aggregation costs on this machine, on one thread: masks in ns a coordinate (keystream included)
 * for every width, with packing and folding alone beside them; Shamir's sharing and rebuilding; the keys of a
 * pair. Each figure is the best of several runs of at least TIME_MIN seconds together: the machine may be
 * shared. */
#include "linnet/secagg_mask.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TIME_MIN 0.2
#define N_POINTS_MAX 1024
#define N_KEYS 128

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct bench {
    uint32_t bits, threshold;
    size_t n;
    linnet_hash key;
    uint32_t sum[LINNET_PACK_CHUNK];
    uint8_t packed[4 * LINNET_PACK_CHUNK];
    linnet_scalar secret, coefficients[N_POINTS_MAX], shares[N_POINTS_MAX];
    uint32_t points[N_POINTS_MAX];
    uint8_t secret_key[32], public_key[32];
    linnet_status status; /* of the last call that can fail */
} bench;

typedef void bench_fn(bench *b);

/* The shortest of the runs that fit in TIME_MIN, at least five. */
static double best_seconds(bench_fn *run, bench *b)
{
    double best = 1e9, start = seconds();
    for (int i = 0; i < 5 || seconds() - start < TIME_MIN; i++) {
        double before = seconds();
        run(b);
        double took = seconds() - before;
        best = took < best ? took : best;
        if (b->status != LINNET_OK) {
            (void)fprintf(stderr, "bench_secagg: %s\n", linnet_status_text(b->status));
            exit(1);
        }
    }
    return best;
}

static void run_pack(bench *b)
{
    linnet_pack(b->bits, b->sum, LINNET_PACK_CHUNK, b->packed);
}

static void run_fold(bench *b)
{
    linnet_pack_add(b->bits, b->packed, LINNET_PACK_CHUNK, b->sum);
}

static void run_mask_add(bench *b)
{
    linnet_mask_add(&b->key, 0, b->bits, LINNET_PACK_CHUNK, LINNET_PACK_CHUNK, b->sum);
}

static void run_mask_subtract(bench *b)
{
    linnet_mask_subtract(&b->key, 0, b->bits, LINNET_PACK_CHUNK, LINNET_PACK_CHUNK, b->sum);
}

static void bench_masks(bench *b)
{
    static const uint32_t widths[] = {16, 20, 24, 32};
    (void)printf("masks, ns/coordinate   pack    fold     add  subtract\n");
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        b->bits = widths[w];
        (void)printf("%7u bits       ", (unsigned)b->bits);
        static bench_fn *const runs[] = {run_pack, run_fold, run_mask_add, run_mask_subtract};
        for (size_t r = 0; r < ARRAY_LEN(runs); r++)
            (void)printf("  %6.2f", 1e9 / LINNET_PACK_CHUNK * best_seconds(runs[r], b));
        (void)printf("\n");
    }
}

static void run_share(bench *b)
{
    b->status =
        linnet_shamir_share(&b->secret, b->threshold, b->points, b->n, linnet_system_random, NULL, b->shares);
}

static void run_coefficients(bench *b)
{
    b->status = linnet_shamir_coefficients(b->points, b->threshold, b->coefficients);
}

static void run_combine(bench *b)
{
    linnet_scalar secret;
    b->status = linnet_shamir_combine(b->coefficients, b->shares, b->threshold, &secret);
}

static void bench_shamir(bench *b)
{
    static const uint32_t sizes[][2] = {{48, 80}, {68, 127}, {525, 999}, {551, 999}};
    (void)printf("Shamir, us     share  coefficients  combine\n");
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        b->threshold = sizes[s][0];
        b->n = sizes[s][1];
        (void)printf("%4u of %4zu", (unsigned)b->threshold, b->n);
        (void)printf(" %9.1f", 1e6 * best_seconds(run_share, b));
        (void)printf("     %9.1f", 1e6 * best_seconds(run_coefficients, b));
        (void)printf(" %8.1f\n", 1e6 * best_seconds(run_combine, b));
    }
}

static void run_pair_key(bench *b)
{
    for (int i = 0; i < N_KEYS && b->status == LINNET_OK; i++)
        b->status = linnet_secagg_pair_key(b->secret_key, b->public_key, b->public_key, &b->key, &b->key);
}

static void run_box(bench *b)
{
    uint8_t box[LINNET_SHARE_BOX_BYTES];
    linnet_share_box_key key;
    for (uint32_t i = 0; i < N_KEYS && b->status == LINNET_OK; i++) {
        b->status = linnet_share_box_key_derive(b->secret_key, b->public_key, &b->key, 0, i, &key);
        linnet_share_box_seal(&key, b->packed, &b->shares[0], &b->shares[1], box);
    }
}

int main(void)
{
    static bench b;
    linnet_error err;
    if (linnet_crypto_init(&err) != LINNET_OK) {
        (void)fprintf(stderr, "bench_secagg: %s\n", err.message);
        return 1;
    }
    linnet_random_bytes(&b.key, sizeof(b.key));
    linnet_scalar_draw(linnet_system_random, NULL, &b.secret);
    linnet_x25519_draw(b.secret_key, b.public_key);
    for (uint32_t i = 0; i < N_POINTS_MAX; i++)
        b.points[i] = i + 1;
    bench_masks(&b);
    bench_shamir(&b);
    (void)printf("pair key        %6.1f us\n", 1e6 / N_KEYS * best_seconds(run_pair_key, &b));
    (void)printf("share box       %6.1f us (key and seal)\n", 1e6 / N_KEYS * best_seconds(run_box, &b));
    return 0;
}
