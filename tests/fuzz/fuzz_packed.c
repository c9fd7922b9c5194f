/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a packed vector: the first byte chooses the width, the second how many coordinates fewer than
 * would fit. One meaning, one form: folded and packed again they are the same bytes, unless bits behind the
 * last coordinate are set, and then the check of the tail says so. Adding and subtracting undo each other. */
#include "linnet/ring.h"

#include "linnet/packing.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define COORDINATES_MAX (2 * LINNET_RING_CHUNK)

static void require(bool is_so)
{
    if (!is_so)
        abort();
}

static void fold(const linnet_ring_spec *spec, const uint8_t *packed, uint32_t *sum)
{
    size_t at = 0;
    for (uint64_t first = 0; first < spec->length; first += LINNET_RING_CHUNK) {
        uint64_t left = spec->length - first;
        size_t n = left < LINNET_RING_CHUNK ? (size_t)left : LINNET_RING_CHUNK;
        linnet_ring_fold(spec, first, n, packed + at, sum);
        at += linnet_pack_bytes(spec->bits, n);
    }
    require(at == linnet_ring_bytes(spec));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const uint32_t widths[] = {16, 20, 24, 32};
    static uint32_t sum[COORDINATES_MAX];
    static uint8_t packed[4 * COORDINATES_MAX], again[4 * COORDINATES_MAX];
    if (n_bytes < 3 || n_bytes - 2 > sizeof(packed))
        return 0;
    linnet_ring_spec spec = {.bits = widths[data[0] % 4], .clamp = 1, .weight_max = 1};
    spec.length = (n_bytes - 2) * 8 / spec.bits;
    spec.length -= data[1] < spec.length ? data[1] : 0;
    if (spec.length == 0 || spec.length > COORDINATES_MAX)
        return 0;
    size_t n = linnet_ring_bytes(&spec);
    require(n <= n_bytes - 2);
    memcpy(packed, data + 2, n);
    memset(sum, 0, sizeof(sum));
    fold(&spec, packed, sum);
    linnet_pack(spec.bits, sum, (size_t)spec.length, again);
    bool is_clean = linnet_ring_check_tail(&spec, packed) == LINNET_OK;
    require((memcmp(packed, again, n) == 0) == is_clean);
    for (size_t i = 0; i < spec.length; i++) {
        int64_t lifted = linnet_ring_lift(spec.bits, sum[i]), half = (int64_t)1 << (spec.bits - 1);
        require(lifted >= -half && lifted < half && (uint32_t)(lifted - sum[i]) << (32 - spec.bits) == 0);
    }
    linnet_pack_subtract(spec.bits, again, (size_t)spec.length, sum);
    for (size_t i = 0; i < spec.length; i++)
        require(sum[i] == 0);
    return 0;
}
