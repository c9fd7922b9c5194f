/* SPDX-License-Identifier: Apache-2.0 */
/* The enrolment authority's key and what it signs (SECURE-AGGREGATION 2.3). The key is one file, mode 0600,
 * in a directory of its own: meant for another person's machine, or inside the coordinator's state for a
 * trial. Seeds of both keys of the coordinator are files and not rows, so that copying the store for a report
 * copies no secret. */
#include "state.h"

#include "linnet/file.h"

#include <stdlib.h>

#define CERTIFICATE_SECONDS                                                                                  \
    ((uint64_t)10 * 365 * 24 * 3600) /* a device's working life; revocation ends it earlier */
#define CLOCK_SLACK_SECONDS 3600     /* devices' clocks may be behind */

linnet_status linnet_seed_write(const char *path, const linnet_identity *identity, linnet_error *err)
{
    uint8_t seed[LINNET_SEED_BYTES];
    linnet_identity_seed(identity, seed);
    linnet_status status = linnet_file_write(path, seed, sizeof(seed), 0600, err);
    linnet_wipe(seed, sizeof(seed));
    return status;
}

linnet_status linnet_seed_read(const char *path, linnet_identity **ret_identity, linnet_error *err)
{
    linnet_buffer seed = {0};
    linnet_status status = linnet_file_read(path, LINNET_SEED_BYTES, &seed, err);
    if (status == LINNET_OK && seed.n_bytes != LINNET_SEED_BYTES)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "'%s' is no key: %zu bytes", path, seed.n_bytes);
    if (status == LINNET_OK)
        status = linnet_identity_from_seed(seed.bytes, ret_identity, err);
    if (seed.bytes)
        linnet_wipe(seed.bytes, seed.capacity);
    linnet_buffer_release(&seed);
    return status;
}

linnet_status linnet_authority_create(const char *directory, linnet_identity **ret_authority,
                                      linnet_error *err)
{
    linnet_identity *authority = NULL;
    char *path = linnet_path_join(directory, "authority.key");
    linnet_status status =
        path ? linnet_directory_create(directory, err) : linnet_fail(err, LINNET_ERR_NOMEM, "authority");
    if (status == LINNET_OK)
        status = linnet_identity_create(&authority, err);
    if (status == LINNET_OK)
        status = linnet_seed_write(path, authority, err);
    if (status == LINNET_OK) {
        *ret_authority = authority;
        authority = NULL;
    }
    linnet_identity_destroy(authority);
    free(path);
    return status;
}

linnet_status linnet_authority_load(const char *directory, linnet_identity **ret_authority, linnet_error *err)
{
    char *path = linnet_path_join(directory, "authority.key");
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "authority");
    linnet_status status = linnet_seed_read(path, ret_authority, err);
    free(path);
    return status;
}

void linnet_authority_certify(const linnet_identity *authority, const linnet_csr *csr, uint64_t serial,
                              uint64_t now_s, uint8_t ret_bytes[LINNET_SIGNED_CERTIFICATE_BYTES])
{
    linnet_certificate certificate = {.device_id = linnet_device_id_of(&csr->public_key),
                                      .public_key = csr->public_key,
                                      .device_class = csr->device_class,
                                      .serial = serial,
                                      .not_before =
                                          now_s > CLOCK_SLACK_SECONDS ? now_s - CLOCK_SLACK_SECONDS : 0,
                                      .not_after = now_s + CERTIFICATE_SECONDS};
    linnet_certificate_sign(&certificate, authority, ret_bytes);
}
