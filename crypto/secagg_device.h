/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_DEVICE_INNER_H
#define LINNET_SECAGG_DEVICE_INNER_H

/* The device's machine from inside: secagg_device.c moves it, secagg_device_record.c saves and loads it. */

#include "secagg_inner.h"

/* Two shares that a peer handed over. */
typedef struct share_pair {
    linnet_scalar s, b;
} share_pair;

/* What never leaves this machine in the clear; guarded memory. */
typedef struct device_secrets {
    linnet_scalar r_s, r_b;
    uint8_t sk_x[32], sk_e[32];
} device_secrets;

struct linnet_secagg_device {
    linnet_secagg_params params;
    const linnet_identity *identity; /* borrowed */
    linnet_secagg_cache *cache;      /* borrowed, NULL but in simulations */
    linnet_device_id id;
    linnet_secagg_phase phase;
    linnet_abort_reason reason;
    uint8_t advert[LINNET_ADVERT_BYTES];
    device_secrets *secrets; /* guarded; NULL once they are of no more use */

    /* from SHARED on */
    uint32_t n, index;
    linnet_secagg_thresholds thresholds;
    linnet_secagg_member *members; /* owned, n */
    linnet_hash t1;
    linnet_buffer shares; /* M3 */

    /* from MASKING on */
    linnet_hash t2;
    uint8_t u2[LINNET_SECAGG_BITMAP_MAX], missing[LINNET_SECAGG_BITMAP_MAX];
    share_pair *received;   /* guarded, n; zero where missing */
    linnet_hash *mask_keys; /* guarded, n: of the pairs, and at `index` the self mask's */
    linnet_buffer complaints;
    bool has_echo;
    linnet_hash echo;
    linnet_signature header_signature;

    /* from ATTESTED on */
    linnet_hash t3;
    uint8_t u3[LINNET_SECAGG_BITMAP_MAX];
    uint8_t attestation[LINNET_ATTESTATION_BYTES];
    linnet_buffer unmask; /* M9 */
};

linnet_status linnet_secagg_device_alloc(const linnet_secagg_params *params, const linnet_identity *identity,
                                         linnet_secagg_device **ret_device,
                                         linnet_error *err) LINNET_NODISCARD;
/** Guarded memory of n items; NULL on lack of memory. */
void *linnet_secret_alloc(size_t n, size_t item_bytes);
void linnet_secret_free(void *secret);
/** mask_keys from secrets, members, u2 and t2. */
linnet_status linnet_secagg_device_derive_masks(linnet_secagg_device *device,
                                                linnet_error *err) LINNET_NODISCARD;
/** Everything secret but M9's bytes. */
void linnet_secagg_device_forget(linnet_secagg_device *device);

#endif
