/* SPDX-License-Identifier: Apache-2.0 */

/* The round record of a device (SECURE-AGGREGATION 7): what a process that was killed needs to go on in the
 * same round with the same bytes. It holds round secrets, and is sealed by who stores it. Fields stand in the
 * order of the phases, little-endian, each list as long as the phase and the roster say; mask keys are
 * derived again. What is left out are the phases that have no secret to keep: before M3, aborted,
 * excluded. */

#include "secagg_device.h"

#include <stdlib.h>

#define RECORD_MAGIC UINT32_C(0x31534153) /* "SAS1" */
#define MEMBER_BYTES (LINNET_DEVICE_ID_BYTES + LINNET_PUBLIC_KEY_BYTES + 32 + 32)

static bool is_kept(linnet_secagg_phase phase)
{
    return phase >= LINNET_SECAGG_SHARED && phase <= LINNET_SECAGG_RELEASED;
}

/* ---- saving ---- */

static void save_roster(const linnet_secagg_device *d, linnet_buffer *b)
{
    linnet_buffer_append_le32(b, d->n);
    linnet_buffer_append_le32(b, d->index);
    linnet_buffer_append(b, d->t1.bytes, LINNET_HASH_BYTES);
    for (uint32_t i = 0; i < d->n; i++) {
        linnet_buffer_append(b, d->members[i].id.bytes, LINNET_DEVICE_ID_BYTES);
        linnet_buffer_append(b, d->members[i].key.bytes, LINNET_PUBLIC_KEY_BYTES);
        linnet_buffer_append(b, d->members[i].pk_x, 32);
        linnet_buffer_append(b, d->members[i].pk_e, 32);
    }
    linnet_buffer_append(b, d->shares.bytes, d->shares.n_bytes);
}

static void save_sharers(const linnet_secagg_device *d, linnet_buffer *b)
{
    linnet_buffer_append(b, d->t2.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(b, d->u2, linnet_bitmap_bytes(d->n));
    linnet_buffer_append(b, d->missing, linnet_bitmap_bytes(d->n));
    linnet_buffer_append(b, d->complaints.bytes, d->complaints.n_bytes);
    linnet_buffer_append_u8(b, d->has_echo);
    linnet_buffer_append(b, d->echo.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(b, d->header_signature.bytes, LINNET_SIGNATURE_BYTES);
}

/* At least as many bytes as the record of any phase has. */
static size_t record_bytes_max(const linnet_secagg_device *d)
{
    size_t fixed = 4 + 1 + LINNET_HASH_BYTES + sizeof(d->advert) + 4 + 4 + 4 * LINNET_HASH_BYTES +
                   sizeof(*d->secrets) + 3 * sizeof(d->u2) + 1 + LINNET_SIGNATURE_BYTES +
                   sizeof(d->attestation);
    return fixed + d->n * (MEMBER_BYTES + sizeof(*d->received)) + d->shares.n_bytes + d->complaints.n_bytes +
           d->unmask.n_bytes;
}

linnet_status linnet_secagg_device_save(const linnet_secagg_device *d, linnet_buffer *ret_bytes,
                                        linnet_error *err)
{
    if (!is_kept(d->phase))
        return linnet_fail(err, LINNET_ERR_ARG, "this phase of a round is not saved");
    /* At once: a buffer that grows leaves copies of secrets behind. */
    if (ret_bytes->failed || !linnet_buffer_reserve(ret_bytes, record_bytes_max(d)))
        return linnet_fail(err, LINNET_ERR_NOMEM, "round record");
    linnet_buffer_append_le32(ret_bytes, RECORD_MAGIC);
    linnet_buffer_append_u8(ret_bytes, (uint8_t)d->phase);
    linnet_buffer_append(ret_bytes, d->params.announcement.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(ret_bytes, d->advert, sizeof(d->advert));
    save_roster(d, ret_bytes);
    if (d->phase < LINNET_SECAGG_RELEASED)
        linnet_buffer_append(ret_bytes, d->secrets, sizeof(*d->secrets));
    if (d->phase >= LINNET_SECAGG_MASKING)
        save_sharers(d, ret_bytes);
    if (d->phase == LINNET_SECAGG_MASKING || d->phase == LINNET_SECAGG_ATTESTED)
        linnet_buffer_append(ret_bytes, d->received, d->n * sizeof(*d->received));
    if (d->phase >= LINNET_SECAGG_ATTESTED) {
        linnet_buffer_append(ret_bytes, d->t3.bytes, LINNET_HASH_BYTES);
        linnet_buffer_append(ret_bytes, d->u3, linnet_bitmap_bytes(d->n));
        linnet_buffer_append(ret_bytes, d->attestation, sizeof(d->attestation));
    }
    if (d->phase == LINNET_SECAGG_RELEASED)
        linnet_buffer_append(ret_bytes, d->unmask.bytes, d->unmask.n_bytes);
    return LINNET_OK;
}

/* ---- loading ---- */

static void take(linnet_reader *reader, void *into, size_t n_bytes)
{
    const uint8_t *p = linnet_reader_take(reader, n_bytes);
    if (p)
        memcpy(into, p, n_bytes);
}

static void take_bitmap(linnet_reader *reader, uint8_t *bitmap, uint32_t n)
{
    take(reader, bitmap, linnet_bitmap_bytes(n));
    if (linnet_bitmap_check(bitmap, n) != LINNET_OK)
        reader->failed = true;
}

static void take_buffer(linnet_reader *reader, linnet_buffer *into, size_t n_bytes)
{
    const uint8_t *p = linnet_reader_take(reader, n_bytes);
    if (p)
        linnet_buffer_append(into, p, n_bytes);
}

static linnet_status load_roster(linnet_secagg_device *d, linnet_reader *reader, linnet_error *err)
{
    d->n = linnet_reader_le32(reader);
    d->index = linnet_reader_le32(reader);
    if (reader->failed || d->n < d->params.n_min || d->n > d->params.n_max || d->index >= d->n)
        return linnet_fail(err, LINNET_ERR_FORMAT, "round record: damaged");
    take(reader, d->t1.bytes, LINNET_HASH_BYTES);
    d->members = calloc(d->n, sizeof(*d->members));
    if (!d->members)
        return linnet_fail(err, LINNET_ERR_NOMEM, "round record");
    for (uint32_t i = 0; i < d->n; i++) {
        take(reader, d->members[i].id.bytes, LINNET_DEVICE_ID_BYTES);
        take(reader, d->members[i].key.bytes, LINNET_PUBLIC_KEY_BYTES);
        take(reader, d->members[i].pk_x, 32);
        take(reader, d->members[i].pk_e, 32);
    }
    d->thresholds = linnet_secagg_thresholds_of(&d->params, d->n);
    take_buffer(reader, &d->shares, linnet_secagg_shares_bytes(d->n));
    if (memcmp(d->members[d->index].id.bytes, d->id.bytes, LINNET_DEVICE_ID_BYTES) != 0)
        reader->failed = true;
    return LINNET_OK;
}

static bool is_within(const uint8_t *bitmap, const uint8_t *all, uint32_t n)
{
    bool is = true;
    for (size_t i = 0; i < linnet_bitmap_bytes(n); i++)
        is = is && (bitmap[i] & ~all[i]) == 0;
    return is;
}

static void load_sharers(linnet_secagg_device *d, linnet_reader *reader)
{
    take(reader, d->t2.bytes, LINNET_HASH_BYTES);
    take_bitmap(reader, d->u2, d->n);
    take_bitmap(reader, d->missing, d->n);
    take_buffer(reader, &d->complaints,
                (size_t)linnet_bitmap_count(d->missing, d->n) * LINNET_COMPLAINT_BYTES);
    uint8_t has_echo = linnet_reader_u8(reader);
    d->has_echo = has_echo == 1;
    take(reader, d->echo.bytes, LINNET_HASH_BYTES);
    take(reader, d->header_signature.bytes, LINNET_SIGNATURE_BYTES);
    linnet_hash t2 = linnet_secagg_t2(&d->t1, d->u2, d->n);
    if (has_echo > 1 || !linnet_hash_equal(&t2, &d->t2) || !linnet_bitmap_has(d->u2, d->index) ||
        !is_within(d->missing, d->u2, d->n))
        reader->failed = true;
}

static linnet_status load_received(linnet_secagg_device *d, linnet_reader *reader, linnet_error *err)
{
    d->received = linnet_secret_alloc(d->n, sizeof(*d->received));
    if (!d->received)
        return linnet_fail(err, LINNET_ERR_NOMEM, "round record");
    take(reader, d->received, d->n * sizeof(*d->received));
    linnet_status status = reader->failed ? LINNET_OK : linnet_secagg_device_derive_masks(d, err);
    if (status == LINNET_ERR_CRYPTO) /* a key that no roster had */
        return linnet_fail(err, LINNET_ERR_FORMAT, "round record: damaged");
    return status;
}

static void load_unmask(linnet_secagg_device *d, linnet_reader *reader)
{
    uint32_t n_sharers = linnet_bitmap_count(d->u2, d->n);
    size_t n_entries = n_sharers > 0 ? n_sharers - 1 : 0;
    take_buffer(reader, &d->unmask,
                MESSAGE_HEAD_BYTES + n_entries * UNMASK_ENTRY_BYTES + LINNET_SIGNATURE_BYTES);
}

static linnet_status load_phases(linnet_secagg_device *d, linnet_reader *reader, linnet_error *err)
{
    linnet_status status = load_roster(d, reader, err);
    if (status == LINNET_OK && d->phase < LINNET_SECAGG_RELEASED)
        take(reader, d->secrets, sizeof(*d->secrets));
    if (status == LINNET_OK && d->phase >= LINNET_SECAGG_MASKING)
        load_sharers(d, reader);
    if (status == LINNET_OK && (d->phase == LINNET_SECAGG_MASKING || d->phase == LINNET_SECAGG_ATTESTED))
        status = load_received(d, reader, err);
    if (status != LINNET_OK)
        return status;
    if (d->phase >= LINNET_SECAGG_ATTESTED) {
        take(reader, d->t3.bytes, LINNET_HASH_BYTES);
        take_bitmap(reader, d->u3, d->n);
        take(reader, d->attestation, sizeof(d->attestation));
        if (!d->has_echo || !is_within(d->u3, d->u2, d->n) || !linnet_bitmap_has(d->u3, d->index) ||
            memcmp(d->attestation, d->t3.bytes, LINNET_HASH_BYTES) != 0)
            reader->failed = true;
    }
    if (d->phase == LINNET_SECAGG_RELEASED) {
        load_unmask(d, reader);
        linnet_secagg_device_forget(d);
    }
    if (!linnet_reader_is_done(reader))
        return linnet_fail(err, LINNET_ERR_FORMAT, "round record: damaged");
    if (d->shares.failed || d->complaints.failed || d->unmask.failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "round record");
    return LINNET_OK;
}

linnet_status linnet_secagg_device_load(const linnet_secagg_params *params, const linnet_identity *identity,
                                        const void *bytes, size_t n_bytes, linnet_secagg_device **ret_device,
                                        linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_secagg_device *device = NULL;
    linnet_status status = linnet_secagg_device_alloc(params, identity, &device, err);
    if (status != LINNET_OK)
        return status;
    bool is_record = linnet_reader_le32(&reader) == RECORD_MAGIC;
    device->phase = (linnet_secagg_phase)linnet_reader_u8(&reader);
    const uint8_t *announcement = linnet_reader_take(&reader, LINNET_HASH_BYTES);
    take(&reader, device->advert, sizeof(device->advert));
    if (reader.failed || !is_record || !is_kept(device->phase))
        status = linnet_fail(err, LINNET_ERR_FORMAT, "round record: damaged");
    else if (memcmp(announcement, params->announcement.bytes, LINNET_HASH_BYTES) != 0 ||
             memcmp(device->advert + ADVERT_ID, device->id.bytes, LINNET_DEVICE_ID_BYTES) != 0)
        status = linnet_fail(err, LINNET_ERR_MISMATCH, "round record: of another round or device");
    else
        status = load_phases(device, &reader, err);
    linnet_stack_wipe();
    if (status != LINNET_OK) {
        linnet_secagg_device_destroy(device);
        return status;
    }
    *ret_device = device;
    return LINNET_OK;
}
