/* SPDX-License-Identifier: Apache-2.0 */

/* The protobuf messages as checked structs. Unpacking copies into plain structs, so that nothing of
 * protobuf-c lives on; each function walks its whole message before it sets the result. Packing applies the
 * same checks where a wrong struct could be signed: what this side signs, the other side must be able to
 * read. */

#include "linnet/messages.h"

#include <math.h>

#include "linnet.pb-c.h"
#include "linnet/channel.h"
#include "linnet/discrete_gaussian.h"
#include "linnet/dp_encode.h"
#include "linnet/plan.h"
#include "wire.h"

#define TASK_BYTES 16
#define RATE_MAX 10.0         /* a learning rate above this is no learning rate */
#define SIGNED_BYTES_MAX 8192 /* a signed release, announcement or upload header is far below */
#define CHANNEL_KEY_BYTES LINNET_SIGNED_CHANNEL_KEY_BYTES
#define CORRUPT_PERMILLE_MAX 300 /* more than that, and no threshold can be met */
#define PHASE_SECONDS_MAX 86400
#define DP_CLIP_MAX 1e6
#define DP_EXPONENT_MAX 64
#define DP_STEPS_MAX 10000

static linnet_status copy_hash(const char *field, const ProtobufCBinaryData *data, linnet_hash *ret_hash,
                               linnet_error *err)
{
    return linnet_wire_exact(field, data, ret_hash->bytes, sizeof(ret_hash->bytes), err);
}

static ProtobufCBinaryData hash_bytes(const linnet_hash *hash)
{
    return linnet_wire_bytes(hash->bytes, sizeof(hash->bytes));
}

/* Fields that travel by exact length, copied in one go: the first failure ends the list. */
typedef struct exact_field {
    const char *name;
    const ProtobufCBinaryData *data;
    void *into;
    size_t n_bytes;
} exact_field;

static linnet_status copy_exact(const exact_field *fields, size_t n, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = linnet_wire_exact(fields[i].name, fields[i].data, fields[i].into, fields[i].n_bytes, err);
    return status;
}

/* ---- release ---- */

static linnet_status release_check(const linnet_release *r, linnet_error *err)
{
    if (r->factors < 1 || r->factors > 3)
        return linnet_fail(err, LINNET_ERR_RANGE, "release: factors %u, must be 1, 2 or 3",
                           (unsigned)r->factors);
    if (!(r->learning_rate_b >= 0 && r->learning_rate_b <= RATE_MAX && r->learning_rate_a >= 0 &&
          r->learning_rate_a <= RATE_MAX))
        return linnet_fail(err, LINNET_ERR_RANGE, "release: learning rates %g and %g, must be 0 to %g",
                           r->learning_rate_b, r->learning_rate_a, RATE_MAX);
    if (r->dp_unit > LINNET_DP_UNIT_RECORD)
        return linnet_fail(err, LINNET_ERR_RANGE, "release: unit of privacy %u, must be 0 to 2",
                           (unsigned)r->dp_unit);
    return LINNET_OK;
}

linnet_status linnet_release_pack(const linnet_release *release, linnet_buffer *ret_body, linnet_error *err)
{
    linnet_status status = release_check(release, err);
    if (status != LINNET_OK)
        return status;
    Linnet__V1__Release m = LINNET__V1__RELEASE__INIT;
    m.task = linnet_wire_bytes(release->task, TASK_BYTES);
    m.version = release->version;
    m.previous = hash_bytes(&release->previous);
    m.base_model = hash_bytes(&release->base_model);
    m.adapter = hash_bytes(&release->adapter);
    m.layout = hash_bytes(&release->layout);
    m.plan = hash_bytes(&release->plan);
    m.factors = release->factors;
    m.learning_rate_b = release->learning_rate_b;
    m.learning_rate_a = release->learning_rate_a;
    m.is_final = release->is_final;
    m.dp_unit = release->dp_unit;
    return linnet_wire_pack(&m.base, SIGNED_BYTES_MAX, ret_body, err);
}

linnet_status linnet_release_unpack(const void *body, size_t n_body, linnet_release *ret_release,
                                    linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_release r = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__release__descriptor, body, n_body,
                                              SIGNED_BYTES_MAX, &arena, &message, err);
    if (status != LINNET_OK)
        goto done;
    const Linnet__V1__Release *m = (const Linnet__V1__Release *)message;
    const exact_field fields[] = {
        {"release.task", &m->task, r.task, TASK_BYTES},
        {"release.previous", &m->previous, r.previous.bytes, LINNET_HASH_BYTES},
        {"release.base_model", &m->base_model, r.base_model.bytes, LINNET_HASH_BYTES},
        {"release.adapter", &m->adapter, r.adapter.bytes, LINNET_HASH_BYTES},
        {"release.layout", &m->layout, r.layout.bytes, LINNET_HASH_BYTES},
        {"release.plan", &m->plan, r.plan.bytes, LINNET_HASH_BYTES},
    };
    status = copy_exact(fields, ARRAY_LEN(fields), err);
    if (status != LINNET_OK)
        goto done;
    r.version = m->version;
    r.factors = m->factors;
    r.learning_rate_b = m->learning_rate_b;
    r.learning_rate_a = m->learning_rate_a;
    r.is_final = m->is_final;
    r.dp_unit = m->dp_unit;
    status = release_check(&r, err);
    if (status == LINNET_OK)
        *ret_release = r;
done:
    linnet_arena_allocator_release(&arena);
    return status;
}

/* ---- announcement ---- */

/* A spec must stand on its own for one contribution; whether the cohort fits is the plan's and the device's
 * check. */
static linnet_status specs_check(const linnet_ring_spec *specs, size_t n, linnet_error *err)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        const linnet_ring_spec *s = &specs[i];
        if (s->vector_id > 2 || (seen & 1u << s->vector_id))
            return linnet_fail(err, LINNET_ERR_RANGE,
                               "announcement: vector id %u, must be 0, 1 or 2, each once",
                               (unsigned)s->vector_id);
        seen |= 1u << s->vector_id;
        if (s->length == 0 || s->length > LINNET_OBJECT_BYTES_MAX / 4)
            return linnet_fail(err, LINNET_ERR_RANGE, "announcement: vector %u of %llu coordinates",
                               (unsigned)s->vector_id, (unsigned long long)s->length);
        linnet_status status = linnet_ring_check(s, 1, err);
        if (status != LINNET_OK)
            return linnet_error_prefix(err, LINNET_ERR_RANGE, "announcement");
    }
    return LINNET_OK;
}

static linnet_status dp_absent_check(const linnet_announcement *a, linnet_error *err)
{
    if (a->dp_unit != 0 || a->dp_clip != 0 || a->dp_sigma2 != 0 || a->dp_rotates || a->dp_exponent != 0 ||
        a->dp_probability != 0 || a->dp_steps != 0)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "announcement: figures of differential privacy without a mechanism");
    return LINNET_OK;
}

/* What only record-local has: the other mechanisms leave it zero. */
static linnet_status dp_record_check(const linnet_announcement *a, linnet_error *err)
{
    if (a->dp_mechanism != LINNET_DP_RECORD_LOCAL) {
        if (a->dp_exponent != 0 || a->dp_probability != 0 || a->dp_steps != 0)
            return linnet_fail(err, LINNET_ERR_RANGE, "announcement: figures of record-local in %s",
                               linnet_dp_mechanism_name((int)a->dp_mechanism));
        return LINNET_OK;
    }
    if (a->dp_exponent < -DP_EXPONENT_MAX || a->dp_exponent > DP_EXPONENT_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: gradient exponent %d, must be %d to %d",
                           (int)a->dp_exponent, -DP_EXPONENT_MAX, DP_EXPONENT_MAX);
    if (!(a->dp_probability > 0 && a->dp_probability <= 1))
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "announcement: record probability %g, must be above 0 and "
                           "at most 1",
                           a->dp_probability);
    if (a->dp_steps < 1 || a->dp_steps > DP_STEPS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: %u noised steps, must be 1 to %d",
                           (unsigned)a->dp_steps, DP_STEPS_MAX);
    return LINNET_OK;
}

/* With differential privacy nothing but one clipped and noised vector and the count of participants leaves a
 * device (SECURE-AGGREGATION 2.7): no weights, no other lane, and no second noised vector beside the
 * first. */
static linnet_status dp_vectors_check(const linnet_announcement *a, linnet_error *err)
{
    bool has_lanes = false;
    for (size_t i = 0; i < a->n_vectors; i++) {
        const linnet_ring_spec *s = &a->vectors[i];
        if (s->weight_max != 1)
            return linnet_fail(err, LINNET_ERR_RANGE,
                               "announcement: weights up to %u, with differential privacy all weigh 1",
                               (unsigned)s->weight_max);
        if (s->vector_id != 1) {
            if (a->dp_rotates && s->length % LINNET_RING_CHUNK != 0)
                return linnet_fail(err, LINNET_ERR_RANGE,
                                   "announcement: rotated vector of %llu coordinates, must be whole blocks",
                                   (unsigned long long)s->length);
            continue;
        }
        has_lanes = true;
        if (s->length != LINNET_DP_LANES)
            return linnet_fail(err, LINNET_ERR_RANGE,
                               "announcement: %llu lanes, with differential privacy the participants only",
                               (unsigned long long)s->length);
    }
    if (!has_lanes)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: no lane counts the participants");
    if (a->dp_mechanism != LINNET_DP_RECORD_LOCAL && a->n_vectors != 2)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "announcement: %u vectors, must be one noised factor and the participants",
                           (unsigned)a->n_vectors);
    return LINNET_OK;
}

static linnet_status dp_check(const linnet_announcement *a, linnet_error *err)
{
    static const struct {
        uint32_t profile, unit;
    } of_mechanism[] = {{0, LINNET_DP_UNIT_NONE},
                        {LINNET_PROFILE_SECURE_DP, LINNET_DP_UNIT_DEVICE},
                        {LINNET_PROFILE_SECURE_DP, LINNET_DP_UNIT_RECORD},
                        {LINNET_PROFILE_CENTRAL_DP, LINNET_DP_UNIT_DEVICE}};
    bool has_dp = a->profile == LINNET_PROFILE_SECURE_DP || a->profile == LINNET_PROFILE_CENTRAL_DP;
    if (a->dp_mechanism >= ARRAY_LEN(of_mechanism) || has_dp != (a->dp_mechanism != LINNET_DP_NONE) ||
        (has_dp && of_mechanism[a->dp_mechanism].profile != a->profile))
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: mechanism %u does not go with profile %s",
                           (unsigned)a->dp_mechanism, linnet_profile_name((int)a->profile));
    if (!has_dp)
        return dp_absent_check(a, err);
    if (a->dp_unit != of_mechanism[a->dp_mechanism].unit)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: unit of privacy %u does not go with %s",
                           (unsigned)a->dp_unit, linnet_dp_mechanism_name((int)a->dp_mechanism));
    if (!(a->dp_clip > 0 && a->dp_clip <= DP_CLIP_MAX))
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "announcement: clip norm %g, must be above 0 and at most %g", a->dp_clip,
                           DP_CLIP_MAX);
    if (a->dp_sigma2 < LINNET_DP_VARIANCE_MIN || a->dp_sigma2 > LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: noise of variance %llu, must be %d to %llu",
                           (unsigned long long)a->dp_sigma2, LINNET_DP_VARIANCE_MIN,
                           (unsigned long long)LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX);
    if (a->dp_rotates != (a->dp_mechanism == LINNET_DP_DISTRIBUTED))
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: distributed noise rotates, others do not");
    linnet_status status = dp_record_check(a, err);
    return status == LINNET_OK ? dp_vectors_check(a, err) : status;
}

/* Phases are of masked rounds; a roster that could not meet its own thresholds is no cohort. */
static linnet_status phases_check(const linnet_announcement *a, linnet_error *err)
{
    if (!linnet_profile_is_secure((int)a->profile)) {
        if (a->phase_s != 0)
            return linnet_fail(err, LINNET_ERR_RANGE, "announcement: phases in profile %s",
                               linnet_profile_name((int)a->profile));
        return LINNET_OK;
    }
    if (a->phase_s < 1 || a->phase_s > PHASE_SECONDS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: phases of %u s, must be 1 to %d",
                           (unsigned)a->phase_s, PHASE_SECONDS_MAX);
    if (a->n_min < LINNET_SECURE_COHORT_MIN || a->m_min < LINNET_SECURE_COHORT_MIN || a->m_min > a->n_min)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "announcement: masked cohort of at least %u, opened with at least %u: must be at "
                           "least %d and not grow",
                           (unsigned)a->n_min, (unsigned)a->m_min, LINNET_SECURE_COHORT_MIN);
    return LINNET_OK;
}

static linnet_status announcement_check(const linnet_announcement *a, linnet_error *err)
{
    if (a->protocol_version != LINNET_PROTOCOL_VERSION)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "announcement: protocol version %u, this program speaks %d",
                           (unsigned)a->protocol_version, LINNET_PROTOCOL_VERSION);
    if (a->profile < LINNET_PROFILE_PLAIN || a->profile > LINNET_PROFILE_CENTRAL_DP)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: profile %u, must be 1 to 4",
                           (unsigned)a->profile);
    if (a->round == 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: round 0, rounds start at 1");
    if (a->n_vectors < 1 || a->n_vectors > LINNET_VECTORS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: %u vectors, must be 1 to %d",
                           (unsigned)a->n_vectors, LINNET_VECTORS_MAX);
    if (a->chunk != LINNET_RING_CHUNK)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: chunk of %u coordinates, must be %d",
                           (unsigned)a->chunk, LINNET_RING_CHUNK);
    if (a->n_min < 1 || a->n_min > a->n_max || a->n_max > LINNET_COHORT_MAX || a->m_min > a->n_max)
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "announcement: cohort of %u to %u, at least %u accepted: must grow and be at most %d",
            (unsigned)a->n_min, (unsigned)a->n_max, (unsigned)a->m_min, LINNET_COHORT_MAX);
    if (a->corrupt_permille > CORRUPT_PERMILLE_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: corrupt_permille %u, must be 0 to %d",
                           (unsigned)a->corrupt_permille, CORRUPT_PERMILLE_MAX);
    linnet_status status = phases_check(a, err);
    if (status == LINNET_OK)
        status = specs_check(a->vectors, a->n_vectors, err);
    return status == LINNET_OK ? dp_check(a, err) : status;
}

linnet_status linnet_announcement_pack(const linnet_announcement *announcement, linnet_buffer *ret_body,
                                       linnet_error *err)
{
    linnet_status status = announcement_check(announcement, err);
    if (status != LINNET_OK)
        return status;
    const linnet_announcement *a = announcement;
    Linnet__V1__Announcement m = LINNET__V1__ANNOUNCEMENT__INIT;
    Linnet__V1__VectorSpec specs[LINNET_VECTORS_MAX], *pointers[LINNET_VECTORS_MAX];
    for (size_t i = 0; i < a->n_vectors; i++) {
        linnet__v1__vector_spec__init(&specs[i]);
        specs[i].id = a->vectors[i].vector_id;
        specs[i].length = a->vectors[i].length;
        specs[i].bits = a->vectors[i].bits;
        specs[i].clamp = a->vectors[i].clamp;
        specs[i].exponent = a->vectors[i].exponent;
        specs[i].weight_max = a->vectors[i].weight_max;
        pointers[i] = &specs[i];
    }
    m.protocol_version = a->protocol_version;
    m.profile = a->profile;
    m.coordinator = linnet_wire_bytes(a->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    m.task = linnet_wire_bytes(a->task, TASK_BYTES);
    m.round = a->round;
    m.release = hash_bytes(&a->release);
    m.deadline_s = a->deadline_s;
    m.n_vectors = a->n_vectors;
    m.vectors = pointers;
    m.chunk = a->chunk;
    m.n_min = a->n_min;
    m.n_max = a->n_max;
    m.m_min = a->m_min;
    m.corrupt_permille = a->corrupt_permille;
    m.revocation_number = a->revocation_number;
    m.revocation = hash_bytes(&a->revocation);
    m.checkpoint = hash_bytes(&a->checkpoint);
    m.phase_s = a->phase_s;
    m.dp_mechanism = a->dp_mechanism;
    m.dp_unit = a->dp_unit;
    m.dp_clip = a->dp_clip;
    m.dp_sigma2 = a->dp_sigma2;
    m.dp_rotates = a->dp_rotates;
    m.dp_exponent = a->dp_exponent;
    m.dp_probability = a->dp_probability;
    m.dp_steps = a->dp_steps;
    return linnet_wire_pack(&m.base, SIGNED_BYTES_MAX, ret_body, err);
}

static linnet_status announcement_copy(const Linnet__V1__Announcement *m, linnet_announcement *a,
                                       linnet_error *err)
{
    const exact_field fields[] = {
        {"announcement.coordinator", &m->coordinator, a->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES},
        {"announcement.task", &m->task, a->task, TASK_BYTES},
        {"announcement.release", &m->release, a->release.bytes, LINNET_HASH_BYTES},
        {"announcement.revocation", &m->revocation, a->revocation.bytes, LINNET_HASH_BYTES},
        {"announcement.checkpoint", &m->checkpoint, a->checkpoint.bytes, LINNET_HASH_BYTES},
    };
    linnet_status status = copy_exact(fields, ARRAY_LEN(fields), err);
    if (status != LINNET_OK)
        return status;
    if (m->n_vectors > LINNET_VECTORS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: %zu vectors, at most %d", m->n_vectors,
                           LINNET_VECTORS_MAX);
    for (size_t i = 0; i < m->n_vectors; i++)
        a->vectors[i] = (linnet_ring_spec){
            .vector_id = m->vectors[i]->id,
            .length = m->vectors[i]->length,
            .bits = m->vectors[i]->bits,
            .clamp = m->vectors[i]->clamp,
            .exponent = m->vectors[i]->exponent,
            .weight_max = m->vectors[i]->weight_max,
        };
    a->n_vectors = (uint32_t)m->n_vectors;
    a->protocol_version = m->protocol_version;
    a->profile = m->profile;
    a->round = m->round;
    a->deadline_s = m->deadline_s;
    a->chunk = m->chunk;
    a->n_min = m->n_min;
    a->n_max = m->n_max;
    a->m_min = m->m_min;
    a->corrupt_permille = m->corrupt_permille;
    a->revocation_number = m->revocation_number;
    a->phase_s = m->phase_s;
    a->dp_mechanism = m->dp_mechanism;
    a->dp_unit = m->dp_unit;
    a->dp_clip = m->dp_clip;
    a->dp_sigma2 = m->dp_sigma2;
    a->dp_rotates = m->dp_rotates;
    a->dp_exponent = m->dp_exponent;
    a->dp_probability = m->dp_probability;
    a->dp_steps = m->dp_steps;
    return announcement_check(a, err);
}

linnet_status linnet_announcement_unpack(const void *body, size_t n_body,
                                         linnet_announcement *ret_announcement, linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_announcement a = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__announcement__descriptor, body, n_body,
                                              SIGNED_BYTES_MAX, &arena, &message, err);
    if (status == LINNET_OK)
        status = announcement_copy((const Linnet__V1__Announcement *)message, &a, err);
    if (status == LINNET_OK)
        *ret_announcement = a;
    linnet_arena_allocator_release(&arena);
    return status;
}

linnet_status linnet_secagg_params_of(const linnet_announcement *announcement, const linnet_hash *a,
                                      linnet_secagg_params *ret_params, linnet_error *err)
{
    if (!linnet_profile_is_secure((int)announcement->profile))
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: profile %s has no masks",
                           linnet_profile_name((int)announcement->profile));
    linnet_secagg_params params = {
        .announcement = *a,
        .coordinator = announcement->coordinator,
        .n_min = announcement->n_min,
        .n_max = announcement->n_max,
        .m_min = announcement->m_min,
        .corrupt_permille = announcement->corrupt_permille,
        .n_vectors = announcement->n_vectors,
    };
    for (size_t i = 0; i < announcement->n_vectors; i++)
        params.vectors[i] = (linnet_secagg_vector){.id = announcement->vectors[i].vector_id,
                                                   .bits = announcement->vectors[i].bits,
                                                   .length = announcement->vectors[i].length};
    *ret_params = params;
    return LINNET_OK;
}

/* ---- upload header ---- */

static linnet_status upload_header_check(const linnet_upload_header *h, linnet_error *err)
{
    if (h->n_vectors < 1 || h->n_vectors > LINNET_VECTORS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "upload header: %u vectors, must be 1 to %d",
                           (unsigned)h->n_vectors, LINNET_VECTORS_MAX);
    for (size_t i = 0; i < h->n_vectors; i++)
        if (h->lengths[i] == 0 || h->lengths[i] > LINNET_OBJECT_BYTES_MAX / 4)
            return linnet_fail(err, LINNET_ERR_RANGE, "upload header: vector of %llu coordinates",
                               (unsigned long long)h->lengths[i]);
    if (h->n_bytes == 0 || h->n_bytes > LINNET_OBJECT_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "upload header: %llu bytes, must be 1 to %zu",
                           (unsigned long long)h->n_bytes, LINNET_OBJECT_BYTES_MAX);
    return LINNET_OK;
}

linnet_status linnet_upload_header_pack(const linnet_upload_header *header, linnet_buffer *ret_body,
                                        linnet_error *err)
{
    linnet_status status = upload_header_check(header, err);
    if (status != LINNET_OK)
        return status;
    Linnet__V1__UploadHeader m = LINNET__V1__UPLOAD_HEADER__INIT;
    uint64_t lengths[LINNET_VECTORS_MAX];
    memcpy(lengths, header->lengths, sizeof(lengths));
    m.chain = hash_bytes(&header->chain);
    m.device_id = linnet_wire_bytes(header->device_id.bytes, LINNET_DEVICE_ID_BYTES);
    m.n_lengths = header->n_vectors;
    m.lengths = lengths;
    m.n_bytes = header->n_bytes;
    m.echo = hash_bytes(&header->echo);
    return linnet_wire_pack(&m.base, SIGNED_BYTES_MAX, ret_body, err);
}

static linnet_status upload_header_copy(const Linnet__V1__UploadHeader *m, linnet_upload_header *h,
                                        linnet_error *err)
{
    const exact_field fields[] = {
        {"upload_header.chain", &m->chain, h->chain.bytes, LINNET_HASH_BYTES},
        {"upload_header.device_id", &m->device_id, h->device_id.bytes, LINNET_DEVICE_ID_BYTES},
        {"upload_header.echo", &m->echo, h->echo.bytes, LINNET_HASH_BYTES},
    };
    linnet_status status = copy_exact(fields, ARRAY_LEN(fields), err);
    if (status != LINNET_OK)
        return status;
    if (m->n_lengths > LINNET_VECTORS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "upload header: %zu vectors, at most %d", m->n_lengths,
                           LINNET_VECTORS_MAX);
    h->n_vectors = (uint32_t)m->n_lengths;
    for (size_t i = 0; i < m->n_lengths; i++)
        h->lengths[i] = m->lengths[i];
    h->n_bytes = m->n_bytes;
    return upload_header_check(h, err);
}

linnet_status linnet_upload_header_unpack(const void *body, size_t n_body, linnet_upload_header *ret_header,
                                          linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_upload_header h = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__upload_header__descriptor, body, n_body,
                                              SIGNED_BYTES_MAX, &arena, &message, err);
    if (status == LINNET_OK)
        status = upload_header_copy((const Linnet__V1__UploadHeader *)message, &h, err);
    if (status == LINNET_OK)
        *ret_header = h;
    linnet_arena_allocator_release(&arena);
    return status;
}

/* ---- variable-length fields: copied behind each other into the caller's storage ---- */

typedef struct borrowed_field {
    const char *name;
    const ProtobufCBinaryData *data;
    const uint8_t **into;
    size_t *n_into;
    size_t n_min, n_max; /* where not empty */
    bool required;
} borrowed_field;

static linnet_status copy_borrowed(const borrowed_field *fields, size_t n, linnet_buffer *storage,
                                   linnet_error *err)
{
    size_t n_total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = fields[i].data->len;
        if (len == 0 ? fields[i].required : len < fields[i].n_min || len > fields[i].n_max)
            return linnet_fail(err, LINNET_ERR_FORMAT, "field %s: %zu bytes, must be %zu to %zu",
                               fields[i].name, len, fields[i].n_min, fields[i].n_max);
        n_total += len;
    }
    linnet_buffer_clear(storage);
    if (!linnet_buffer_reserve(storage, n_total + 1)) /* + 1: never a NULL pointer */
        return linnet_fail(err, LINNET_ERR_NOMEM, "message of %zu bytes", n_total);
    for (size_t i = 0; i < n; i++) {
        *fields[i].into = storage->bytes + storage->n_bytes;
        *fields[i].n_into = fields[i].data->len;
        linnet_buffer_append(storage, fields[i].data->data, fields[i].data->len);
    }
    return LINNET_OK;
}

/* ---- hello ---- */

linnet_status linnet_hello_pack(const linnet_hello *hello, linnet_buffer *ret_bytes, linnet_error *err)
{
    Linnet__V1__Hello m = LINNET__V1__HELLO__INIT;
    m.protocol_version = hello->protocol_version;
    m.coordinator = linnet_wire_bytes(hello->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    m.authority = linnet_wire_bytes(hello->authority.bytes, LINNET_PUBLIC_KEY_BYTES);
    m.task = linnet_wire_bytes(hello->task, TASK_BYTES);
    m.channel_key = linnet_wire_bytes(hello->channel_key, CHANNEL_KEY_BYTES);
    m.revocation = linnet_wire_bytes(hello->revocation, hello->n_revocation);
    m.operator_is_authority = hello->operator_is_authority;
    return linnet_wire_pack(&m.base, LINNET_HELLO_BYTES_MAX, ret_bytes, err);
}

static linnet_status hello_copy(const Linnet__V1__Hello *m, linnet_buffer *storage, linnet_hello *h,
                                linnet_error *err)
{
    if (m->protocol_version != LINNET_PROTOCOL_VERSION)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "hello: protocol version %u, this program speaks %d",
                           (unsigned)m->protocol_version, LINNET_PROTOCOL_VERSION);
    const exact_field exact[] = {
        {"hello.coordinator", &m->coordinator, h->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES},
        {"hello.authority", &m->authority, h->authority.bytes, LINNET_PUBLIC_KEY_BYTES},
        {"hello.task", &m->task, h->task, TASK_BYTES},
    };
    linnet_status status = copy_exact(exact, ARRAY_LEN(exact), err);
    if (status != LINNET_OK)
        return status;
    h->protocol_version = m->protocol_version;
    h->operator_is_authority = m->operator_is_authority;
    size_t n_channel_key = 0;
    const borrowed_field borrowed[] = {
        {"hello.channel_key", &m->channel_key, &h->channel_key, &n_channel_key, CHANNEL_KEY_BYTES,
         CHANNEL_KEY_BYTES, true},
        {"hello.revocation", &m->revocation, &h->revocation, &h->n_revocation, 1, LINNET_HELLO_BYTES_MAX,
         false},
    };
    return copy_borrowed(borrowed, ARRAY_LEN(borrowed), storage, err);
}

linnet_status linnet_hello_unpack(const void *bytes, size_t n_bytes, linnet_buffer *storage,
                                  linnet_hello *ret_hello, linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_hello h = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__hello__descriptor, bytes, n_bytes,
                                              LINNET_HELLO_BYTES_MAX, &arena, &message, err);
    if (status == LINNET_OK)
        status = hello_copy((const Linnet__V1__Hello *)message, storage, &h, err);
    if (status == LINNET_OK)
        *ret_hello = h;
    linnet_arena_allocator_release(&arena);
    return status;
}

/* ---- check-in ---- */

linnet_status linnet_checkin_pack(const linnet_checkin *checkin, linnet_buffer *ret_bytes, linnet_error *err)
{
    Linnet__V1__Checkin m = LINNET__V1__CHECKIN__INIT;
    m.has_version = checkin->has_version;
    m.version = checkin->has_version ? checkin->version : 0;
    if (checkin->has_ready)
        m.ready = hash_bytes(&checkin->ready);
    m.revocation_number = checkin->revocation_number;
    return linnet_wire_pack(&m.base, LINNET_MESSAGE_BYTES_MAX, ret_bytes, err);
}

linnet_status linnet_checkin_unpack(const void *bytes, size_t n_bytes, linnet_checkin *ret_checkin,
                                    linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_checkin c = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__checkin__descriptor, bytes, n_bytes,
                                              LINNET_MESSAGE_BYTES_MAX, &arena, &message, err);
    if (status != LINNET_OK)
        goto done;
    const Linnet__V1__Checkin *m = (const Linnet__V1__Checkin *)message;
    c.has_version = m->has_version;
    c.version = m->version;
    c.has_ready = m->ready.len != 0;
    c.revocation_number = m->revocation_number;
    if (c.has_ready)
        status = copy_hash("checkin.ready", &m->ready, &c.ready, err);
    if (status == LINNET_OK)
        *ret_checkin = c;
done:
    linnet_arena_allocator_release(&arena);
    return status;
}

/* ---- upload ---- */

linnet_status linnet_upload_pack(const linnet_upload *upload, linnet_buffer *ret_bytes, linnet_error *err)
{
    Linnet__V1__Upload m = LINNET__V1__UPLOAD__INIT;
    m.header = linnet_wire_bytes(upload->header, upload->n_header);
    m.offset = upload->offset;
    return linnet_wire_pack(&m.base, LINNET_MESSAGE_BYTES_MAX, ret_bytes, err);
}

linnet_status linnet_upload_unpack(const void *bytes, size_t n_bytes, linnet_buffer *storage,
                                   linnet_upload *ret_upload, linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_upload u = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__upload__descriptor, bytes, n_bytes,
                                              LINNET_MESSAGE_BYTES_MAX, &arena, &message, err);
    if (status != LINNET_OK)
        goto done;
    const Linnet__V1__Upload *m = (const Linnet__V1__Upload *)message;
    const borrowed_field header = {"upload.header",  &m->header, &u.header, &u.n_header, 1,
                                   SIGNED_BYTES_MAX, true};
    u.offset = m->offset;
    if (u.offset > LINNET_OBJECT_BYTES_MAX)
        status = linnet_fail(err, LINNET_ERR_RANGE, "upload: offset %llu, at most %zu",
                             (unsigned long long)u.offset, LINNET_OBJECT_BYTES_MAX);
    else
        status = copy_borrowed(&header, 1, storage, err);
    if (status == LINNET_OK)
        *ret_upload = u;
done:
    linnet_arena_allocator_release(&arena);
    return status;
}

/* ---- round message ---- */

static linnet_status round_kind_check(uint32_t kind, linnet_error *err)
{
    switch (kind) {
    case LINNET_ROUND_POLL:
    case LINNET_ROUND_ADVERT:
    case LINNET_ROUND_SHARES:
    case LINNET_ROUND_ATTEST:
    case LINNET_ROUND_UNMASK:
    case LINNET_ROUND_COMPLAINT:
    case LINNET_ROUND_ABORT:
    case LINNET_ROUND_RECEIPTS:
        return LINNET_OK;
    default:
        return linnet_fail(err, LINNET_ERR_RANGE, "round message: kind %u is unknown", (unsigned)kind);
    }
}

linnet_status linnet_round_message_pack(const linnet_round_message *message, linnet_buffer *ret_bytes,
                                        linnet_error *err)
{
    linnet_status status = round_kind_check(message->kind, err);
    if (status != LINNET_OK)
        return status;
    Linnet__V1__RoundMessage m = LINNET__V1__ROUND_MESSAGE__INIT;
    m.announcement = hash_bytes(&message->announcement);
    m.kind = message->kind;
    return linnet_wire_pack(&m.base, LINNET_MESSAGE_BYTES_MAX, ret_bytes, err);
}

linnet_status linnet_round_message_unpack(const void *bytes, size_t n_bytes,
                                          linnet_round_message *ret_message, linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_round_message r = {.kind = 0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__round_message__descriptor, bytes, n_bytes,
                                              LINNET_MESSAGE_BYTES_MAX, &arena, &message, err);
    if (status != LINNET_OK)
        goto done;
    const Linnet__V1__RoundMessage *m = (const Linnet__V1__RoundMessage *)message;
    r.kind = m->kind;
    status = round_kind_check(r.kind, err);
    if (status == LINNET_OK)
        status = copy_hash("round_message.announcement", &m->announcement, &r.announcement, err);
    if (status == LINNET_OK)
        *ret_message = r;
done:
    linnet_arena_allocator_release(&arena);
    return status;
}

/* ---- answer ---- */

static linnet_status phase_check(uint32_t phase, linnet_error *err)
{
    switch (phase) {
    case LINNET_PHASE_NONE:
    case LINNET_PHASE_ROSTER:
    case LINNET_PHASE_SHARERS:
    case LINNET_PHASE_SURVIVORS:
    case LINNET_PHASE_CERTIFICATE:
    case LINNET_PHASE_CLOSED:
    case LINNET_PHASE_VOID:
        return LINNET_OK;
    default:
        return linnet_fail(err, LINNET_ERR_RANGE, "answer: phase %u is unknown", (unsigned)phase);
    }
}

/* A message is shown to people, so it must be one line that a terminal can take: UTF-8 without control
 * characters. */
static bool is_printable_line(const void *text, size_t n_bytes)
{
    const uint8_t *p = text;
    for (size_t i = 0; i < n_bytes; i++)
        if (p[i] < 0x20 || p[i] == 0x7f || (p[i] == 0xc2 && i + 1 < n_bytes && p[i + 1] < 0xa0))
            return false;
    return linnet_utf8_is_valid(text, n_bytes);
}

linnet_status linnet_answer_pack(const linnet_answer *answer, linnet_buffer *ret_bytes, linnet_error *err)
{
    size_t n_message = strnlen(answer->message, sizeof(answer->message));
    if (n_message == sizeof(answer->message) || !is_printable_line(answer->message, n_message))
        return linnet_fail(err, LINNET_ERR_ARG, "answer: the message is not one line of printable UTF-8");
    linnet_status status = phase_check(answer->phase, err);
    if (status != LINNET_OK)
        return status;
    Linnet__V1__Answer m = LINNET__V1__ANSWER__INIT;
    m.code = answer->code;
    m.message = linnet_wire_bytes(answer->message, n_message);
    m.retry_after_ms = answer->retry_after_ms;
    m.release = linnet_wire_bytes(answer->release, answer->n_release);
    m.announcement = linnet_wire_bytes(answer->announcement, answer->n_announcement);
    m.certificate = linnet_wire_bytes(answer->certificate, answer->n_certificate);
    m.receipt = linnet_wire_bytes(answer->receipt, answer->n_receipt);
    m.revocation = linnet_wire_bytes(answer->revocation, answer->n_revocation);
    m.channel_key = linnet_wire_bytes(answer->channel_key, answer->n_channel_key);
    m.next_offset = answer->next_offset;
    m.phase = answer->phase;
    return linnet_wire_pack(&m.base, LINNET_RESPONSE_BYTES_MAX, ret_bytes, err);
}

static linnet_status answer_copy(const Linnet__V1__Answer *m, linnet_buffer *storage, linnet_answer *a,
                                 linnet_error *err)
{
    if (m->code > LINNET_ANSWER_NO_SPACE)
        return linnet_fail(err, LINNET_ERR_RANGE, "answer: code %u is unknown", (unsigned)m->code);
    linnet_status status = phase_check(m->phase, err);
    if (status != LINNET_OK)
        return status;
    if (m->message.len >= sizeof(a->message) || !is_printable_line(m->message.data, m->message.len))
        return linnet_fail(err, LINNET_ERR_FORMAT, "answer: the message is not one line of at most %zu bytes",
                           sizeof(a->message) - 1);
    if (m->message.len > 0)
        memcpy(a->message, m->message.data, m->message.len);
    a->code = m->code;
    a->retry_after_ms = m->retry_after_ms;
    a->next_offset = m->next_offset;
    a->phase = m->phase;
    const borrowed_field fields[] = {
        {"answer.release", &m->release, &a->release, &a->n_release, 1, SIGNED_BYTES_MAX, false},
        {"answer.announcement", &m->announcement, &a->announcement, &a->n_announcement, 1, SIGNED_BYTES_MAX,
         false},
        {"answer.certificate", &m->certificate, &a->certificate, &a->n_certificate,
         LINNET_SIGNED_CERTIFICATE_BYTES, LINNET_SIGNED_CERTIFICATE_BYTES, false},
        {"answer.receipt", &m->receipt, &a->receipt, &a->n_receipt, LINNET_SIGNED_RECEIPT_BYTES,
         LINNET_SIGNED_RECEIPT_BYTES, false},
        {"answer.revocation", &m->revocation, &a->revocation, &a->n_revocation, 1, LINNET_HELLO_BYTES_MAX,
         false},
        {"answer.channel_key", &m->channel_key, &a->channel_key, &a->n_channel_key, CHANNEL_KEY_BYTES,
         CHANNEL_KEY_BYTES, false},
    };
    return copy_borrowed(fields, ARRAY_LEN(fields), storage, err);
}

linnet_status linnet_answer_unpack(const void *bytes, size_t n_bytes, linnet_buffer *storage,
                                   linnet_answer *ret_answer, linnet_error *err)
{
    linnet_arena_allocator arena;
    ProtobufCMessage *message = NULL;
    linnet_answer a = {0};
    linnet_status status = linnet_wire_unpack(&linnet__v1__answer__descriptor, bytes, n_bytes,
                                              LINNET_RESPONSE_BYTES_MAX, &arena, &message, err);
    if (status == LINNET_OK)
        status = answer_copy((const Linnet__V1__Answer *)message, storage, &a, err);
    if (status == LINNET_OK)
        *ret_answer = a;
    linnet_arena_allocator_release(&arena);
    return status;
}
