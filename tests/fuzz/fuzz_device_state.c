/* SPDX-License-Identifier: Apache-2.0 */
/* The records in the store of a device, as a damaged disk or another program might leave them: the identity,
 * then the main record, the release and a ledger entry, each a length of two bytes and so many bytes. They
 * are read or refused, and read twice they say the same. */
#include "linnet/device.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define VALUES 4

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (linnet_crypto_init(NULL) != LINNET_OK)
        abort();
    return 0;
}

typedef struct value {
    const uint8_t *bytes;
    size_t n_bytes;
} value;

static linnet_status get(void *context, const char *name, linnet_buffer *ret_bytes, linnet_error *err)
{
    static const char *const names[VALUES] = {"identity", "record", "release", "ledger.00000000"};
    const value *values = context;
    for (size_t i = 0; i < VALUES; i++)
        if (strcmp(name, names[i]) == 0 && values[i].bytes) {
            linnet_buffer_append(ret_bytes, values[i].bytes, values[i].n_bytes);
            return LINNET_OK;
        }
    return linnet_fail(err, LINNET_ERR_NOT_FOUND, "no value '%s'", name);
}

static void split(const uint8_t *data, size_t n_bytes, value values[VALUES])
{
    size_t at = 0;
    for (size_t i = 0; i < VALUES && n_bytes - at >= 2; i++) {
        size_t n = data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        if (n > n_bytes - at)
            n = n_bytes - at;
        values[i] = (value){.bytes = data + at, .n_bytes = n};
        at += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    value values[VALUES] = {{NULL, 0}};
    split(data, n_bytes, values);
    linnet_kv kv = {.context = values, .get = get};
    linnet_error err = {0};
    linnet_device_report report, again;
    linnet_ledger_entry entry;
    linnet_status status = linnet_device_status_of(&kv, &report, &err);
    if (status == LINNET_OK &&
        (linnet_device_status_of(&kv, &again, &err) != LINNET_OK ||
         memcmp(&report.device_id, &again.device_id, sizeof(again.device_id)) != 0 ||
         strcmp(report.phase, again.phase) != 0 || strcmp(report.note, again.note) != 0))
        abort();
    if (linnet_device_ledger(&kv, 0, &entry, &err) == LINNET_OK && values[3].n_bytes < sizeof(entry.receipt))
        abort();
    return 0;
}
