/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The auditor's reading of a log (SECURE-AGGREGATION 7): every entry against the entries before it, the plan,
 * and the signatures; then a device's receipts against the log. Each entry gets one finding at most, the
 * first thing that is wrong. A round whose chain is broken stays broken: what follows of it is not judged by
 * it. Left out on purpose: clocks, because a log's times are its writer's, and the sums themselves.
 */
#include "linnet/secagg_audit.h"
#include "transcript_inner.h"

#include <math.h>
#include <stdlib.h>

typedef struct release_state {
    uint64_t version;
    linnet_hash v, adapter;
    bool is_final;
} release_state;

typedef struct round_state {
    uint64_t number, version;
    uint8_t phase;  /* linnet_log_type of its last good entry */
    bool is_broken; /* an entry of it is wrong: the later ones cannot be checked */
    bool is_secure, has_sharers, has_survivors;
    linnet_hash a;
    linnet_announcement announcement;
    linnet_secagg_audit audit;
} round_state;

typedef struct spending {
    linnet_rdp rdp;
    linnet_privacy privacy; /* of n_rounds that are not in rdp yet */
    uint64_t n_rounds, n_total;
} spending;

typedef struct verifier {
    const linnet_log *log;
    linnet_log_report *report;
    linnet_error *err;
    linnet_plan plan;
    linnet_layout layout; /* lengths only */
    linnet_hash plan_hash, layout_hash;
    bool has_plan, has_layout;
    linnet_hash head;
    release_state *releases; /* by version: owned */
    size_t n_releases, releases_capacity;
    round_state *rounds; /* by number: owned */
    size_t n_rounds, rounds_capacity;
    uint64_t revocation_number; /* of the last announcement */
    bool has_adapter;
    linnet_hash adapter; /* that a closed round led to, and no release has named yet */
    bool goes_back;      /* or that a rollback has named: it may follow the final release */
    spending spent;
} verifier;

linnet_status linnet_report_add(linnet_log_report *report, int where, size_t index, const char *flaw,
                                linnet_error *err)
{
    linnet_finding *findings = realloc(report->findings, (report->n_findings + 1) * sizeof(*findings));
    if (!findings)
        return linnet_fail(err, LINNET_ERR_NOMEM, "findings");
    report->findings = findings;
    findings[report->n_findings++] = (linnet_finding){.where = where, .index = index, .flaw = flaw};
    return LINNET_OK;
}

void linnet_log_report_release(linnet_log_report *report)
{
    free(report->findings);
    linnet_buffer_release(&report->evidence);
    *report = (linnet_log_report){0};
}

/* ---- looking up ---- */

static round_state *round_find(const verifier *v, uint64_t number)
{
    size_t low = 0, high = v->n_rounds;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->rounds[middle].number == number)
            return &v->rounds[middle];
        if (v->rounds[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static const release_state *newest(const verifier *v)
{
    return v->n_releases > 0 ? &v->releases[v->n_releases - 1] : NULL;
}

static const char no_memory[] = "out of memory";

/* ---- signed bodies ---- */

static const char *signed_flaw(const verifier *v, const linnet_log_entry *entry, linnet_label label,
                               linnet_signed *ret_body)
{
    if (linnet_signed_open(entry->object.bytes, entry->object.n_bytes, ret_body, NULL) != LINNET_OK)
        return "its signed body is missing or malformed";
    linnet_hash hash = linnet_hash_of(label, ret_body->body, ret_body->n_body);
    if (!linnet_hash_equal(&hash, &entry->body))
        return "its body has another hash than the entry";
    return linnet_verify_hash(&v->log->coordinator, &hash, &ret_body->signature) == LINNET_OK
               ? NULL
               : "its signature is not the coordinator's";
}

/* ---- releases ---- */

static const char *release_origin_flaw(verifier *v, const linnet_release *r)
{
    static const linnet_hash none;
    const release_state *before = newest(v);
    if (before && r->version == before->version)
        return "a second release of one version";
    if (r->version != (before ? before->version + 1 : 0))
        return "its version does not follow the one before";
    if (!linnet_hash_equal(&r->previous, before ? &before->v : &none))
        return "it does not name the release before";
    if (before && before->is_final && !v->goes_back)
        return "a release after the final one";
    if (before && (!v->has_adapter || !linnet_hash_equal(&r->adapter, &v->adapter)))
        return "its adapter is not the one that a closed round led to";
    return NULL;
}

static const char *release_plan_flaw(const verifier *v, const linnet_release *r)
{
    if (!linnet_hash_equal(&r->plan, &v->plan_hash))
        return "it names another plan";
    if (v->has_layout && !linnet_hash_equal(&r->layout, &v->layout_hash))
        return "it names another layout";
    if (!v->has_plan)
        return NULL; /* said once, of the log */
    if (r->factors != (uint32_t)linnet_rule_factors((linnet_rule)v->plan.rule, r->version))
        return "it trains other factors than its plan says";
    if (r->dp_unit != (uint32_t)linnet_plan_dp_unit(&v->plan))
        return "its unit of privacy is not that of its plan";
    if (r->is_final != (v->plan.rounds != 0 && r->version >= v->plan.rounds))
        return "it ends the task at another version than its plan says";
    return NULL;
}

static const char *take_release(verifier *v, const linnet_log_entry *entry)
{
    linnet_signed body;
    linnet_release r;
    const char *flaw = signed_flaw(v, entry, LINNET_LABEL_MODEL, &body);
    if (flaw)
        return flaw;
    if (linnet_release_unpack(body.body, body.n_body, &r, NULL) != LINNET_OK)
        return "the release is malformed";
    if (memcmp(r.task, v->log->task, sizeof(r.task)) != 0)
        return "the release is of another task";
    if (r.version != entry->number)
        return "the release is of another version than the entry";
    flaw = release_origin_flaw(v, &r);
    if (!flaw)
        flaw = release_plan_flaw(v, &r);
    if (newest(v) && r.version <= newest(v)->version)
        return flaw; /* it is no news */
    release_state *releases =
        linnet_array_grow(v->releases, v->n_releases, &v->releases_capacity, sizeof(*v->releases));
    if (!releases)
        return no_memory;
    v->releases = releases;
    v->releases[v->n_releases++] =
        (release_state){.version = r.version, .v = entry->body, .adapter = r.adapter, .is_final = r.is_final};
    v->has_adapter = v->goes_back = false;
    return flaw;
}

/* ---- announcements ---- */

/* The list that an announcement names; false where the log does not have it. */
static bool list_find(const verifier *v, const linnet_announcement *a, linnet_revocation *ret_list)
{
    linnet_revocation list = {0};
    for (size_t i = 0; i < v->log->n_lists; i++) {
        const linnet_span *bytes = &v->log->lists[i];
        if (linnet_revocation_open(bytes->bytes, bytes->n_bytes, &v->log->authority, &list) != LINNET_OK ||
            list.number != a->revocation_number)
            continue;
        linnet_hash hash =
            linnet_hash_of(LINNET_LABEL_REVOCATION, bytes->bytes, bytes->n_bytes - LINNET_SIGNATURE_BYTES);
        *ret_list = list;
        return linnet_hash_equal(&hash, &a->revocation);
    }
    *ret_list = (linnet_revocation){0};
    return a->revocation_number == 0;
}

/* What an announcement says of the world around it. */
static const char *announcement_flaw(const verifier *v, const linnet_announcement *a)
{
    linnet_revocation list;
    linnet_announcement planned;
    const release_state *release = newest(v);
    if (memcmp(a->task, v->log->task, sizeof(a->task)) != 0)
        return "the announcement is of another task";
    if (memcmp(&a->coordinator, &v->log->coordinator, sizeof(a->coordinator)) != 0)
        return "the announcement names another coordinator";
    if (!linnet_hash_equal(&a->checkpoint, &v->head))
        return "its checkpoint is not the head before it";
    if (!release || !linnet_hash_equal(&a->release, &release->v) || release->is_final)
        return "it does not announce the newest release";
    if (a->revocation_number < v->revocation_number)
        return "its revocation list goes back";
    if (!list_find(v, a, &list))
        return "the revocation list that it names is not in the log";
    if (!v->has_plan || !v->has_layout)
        return NULL; /* said once, of the log */
    if (linnet_announcement_of_plan(&v->plan, &v->layout, release->version, &planned, NULL) != LINNET_OK)
        return "the plan allows no such round";
    return linnet_announcement_difference(a, &planned);
}

/* Where the announcement stands among the rounds: a new one, or one again because of a newer list. */
static const char *place_flaw(const verifier *v, const linnet_announcement *a, const round_state *there)
{
    if (!there)
        return v->n_rounds > 0 && a->round <= v->rounds[v->n_rounds - 1].number ? "its round number goes back"
                                                                                : NULL;
    if (there->is_secure || there->announcement.revocation_number >= a->revocation_number)
        return "a second announcement of one round";
    return there->phase == LINNET_LOG_ANNOUNCE ? NULL : "a round is announced again after it went on";
}

static const char *take_announcement(verifier *v, const linnet_log_entry *entry)
{
    linnet_signed body;
    linnet_announcement a;
    const char *flaw = signed_flaw(v, entry, LINNET_LABEL_ANNOUNCE, &body);
    if (flaw)
        return flaw;
    if (linnet_announcement_unpack(body.body, body.n_body, &a, NULL) != LINNET_OK)
        return "the announcement is malformed";
    if (a.round != entry->number)
        return "the announcement is of another round than the entry";
    round_state *round = round_find(v, a.round);
    flaw = place_flaw(v, &a, round);
    if (flaw)
        return flaw;
    flaw = announcement_flaw(v, &a);
    if (!round) {
        round_state *rounds =
            linnet_array_grow(v->rounds, v->n_rounds, &v->rounds_capacity, sizeof(*v->rounds));
        if (!rounds)
            return no_memory;
        v->rounds = rounds;
        round = &v->rounds[v->n_rounds++];
    }
    *round = (round_state){.number = a.round,
                           .version = newest(v) ? newest(v)->version : 0,
                           .phase = LINNET_LOG_ANNOUNCE,
                           .is_broken = flaw != NULL,
                           .is_secure = linnet_profile_is_secure((int)a.profile),
                           .a = entry->body,
                           .announcement = a};
    if (a.revocation_number > v->revocation_number)
        v->revocation_number = a.revocation_number;
    if (!flaw && round->is_secure &&
        linnet_secagg_params_of(&a, &entry->body, &round->audit.params, NULL) != LINNET_OK)
        flaw = "it allows no round with masks";
    round->is_broken = flaw != NULL;
    return flaw;
}

/* ---- the chain of a round ---- */

static const char *roster_flaw(const verifier *v, round_state *round, const linnet_log_entry *entry)
{
    linnet_revocation list;
    bool has_list = list_find(v, &round->announcement, &list) && list.n_ids > 0;
    const linnet_secagg_trust trust = {.authority = &v->log->authority,
                                       .revocation = has_list ? &list : NULL};
    const char *flaw =
        linnet_secagg_audit_roster(&round->audit, &trust, entry->object.bytes, entry->object.n_bytes);
    if (flaw)
        return flaw;
    return linnet_hash_equal(&round->audit.t1, &entry->body) ? NULL : "the roster has another hash T1";
}

static const char *sharers_flaw(round_state *round, const linnet_log_entry *entry)
{
    const char *flaw = linnet_secagg_audit_sharers(&round->audit, entry->object.bytes, entry->object.n_bytes);
    if (flaw)
        return flaw;
    return linnet_hash_equal(&round->audit.t2, &entry->body) ? NULL : "the sharers have another hash T2";
}

/* Is every contribution in R under its device's signature? The header is made again: all it says is known. */
static const char *contributions_flaw(const round_state *round)
{
    const linnet_announcement *a = &round->announcement;
    linnet_upload_header header = {.chain = round->audit.t2, .n_vectors = a->n_vectors};
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        header.lengths[i] = a->vectors[i].length;
        header.n_bytes += linnet_ring_bytes(&a->vectors[i]);
    }
    for (uint32_t i = 0; i < round->audit.n; i++) {
        const uint8_t *contribution = linnet_secagg_audit_contribution(&round->audit, i);
        linnet_buffer body = {0};
        linnet_signature signature;
        if (!contribution)
            continue;
        header.device_id = linnet_secagg_audit_device(&round->audit, i);
        linnet_public_key key = linnet_secagg_audit_key(&round->audit, i);
        memcpy(header.echo.bytes, contribution, LINNET_HASH_BYTES);
        memcpy(signature.bytes, contribution + LINNET_HASH_BYTES, sizeof(signature.bytes));
        linnet_status status = linnet_upload_header_pack(&header, &body, NULL);
        if (status == LINNET_OK)
            status = linnet_verify(&key, LINNET_LABEL_MASKED, body.bytes, body.n_bytes, &signature);
        linnet_buffer_release(&body);
        if (status != LINNET_OK)
            return status == LINNET_ERR_NOMEM ? no_memory : "a contribution in R is not signed by its device";
    }
    return NULL;
}

static const char *survivors_flaw(round_state *round, const linnet_log_entry *entry)
{
    const char *flaw =
        linnet_secagg_audit_survivors(&round->audit, entry->object.bytes, entry->object.n_bytes);
    if (flaw)
        return flaw;
    if (!linnet_hash_equal(&round->audit.t3, &entry->body))
        return "the survivors have another hash T3";
    round->has_survivors = true;
    return contributions_flaw(round);
}

static const char *take_link(verifier *v, const linnet_log_entry *entry)
{
    round_state *round = round_find(v, entry->number);
    uint8_t before = entry->type == LINNET_LOG_ROSTER ? LINNET_LOG_ANNOUNCE : (uint8_t)(entry->type - 1);
    if (!round)
        return "its round was never announced";
    if (entry->type == LINNET_LOG_SHARERS)
        round->has_sharers = true; /* masked vectors may have left from here on */
    if (round->is_broken)
        return "an entry before it is wrong: it cannot be checked";
    const char *flaw = NULL;
    if (!round->is_secure)
        flaw = "a round without masks has no such entry";
    else if (round->phase == entry->type)
        flaw = "a second such entry of one round";
    else if (round->phase != before)
        flaw = "it does not follow the entry before it: one is missing or out of order";
    else if (entry->type == LINNET_LOG_ROSTER)
        flaw = roster_flaw(v, round, entry);
    else if (entry->type == LINNET_LOG_SHARERS)
        flaw = sharers_flaw(round, entry);
    else
        flaw = survivors_flaw(round, entry);
    round->is_broken = flaw != NULL;
    if (!flaw)
        round->phase = entry->type;
    return flaw;
}

/* ---- the end of a round ---- */

static void spending_flush(spending *s)
{
    if (s->n_rounds > 0)
        linnet_privacy_spend(&s->privacy, (double)s->n_rounds, &s->rdp);
    s->n_rounds = 0;
}

static bool same_step(const linnet_privacy *a, const linnet_privacy *b)
{
    return a->mechanism == b->mechanism && a->noise_multiplier == b->noise_multiplier &&
           a->probability == b->probability && a->n_steps == b->n_steps;
}

/* What a round spent when it ended: with masks from the moment masked vectors may leave, whether it closed or
 * not; without them when its sum was published. */
static const char *spend(verifier *v, const round_state *round, bool is_closed)
{
    linnet_privacy privacy;
    if (!v->has_plan || !v->has_layout || v->plan.mechanism == LINNET_DP_NONE)
        return NULL;
    if (!is_closed && (!round->is_secure || !round->has_sharers))
        return NULL;
    if (linnet_plan_privacy(&v->plan, &v->layout, round->version, &privacy, NULL) != LINNET_OK)
        return "the plan gives this round no privacy that could be counted";
    if (!same_step(&privacy, &v->spent.privacy))
        spending_flush(&v->spent);
    v->spent.privacy = privacy;
    v->spent.n_rounds++;
    v->spent.n_total++;
    return NULL;
}

static const char *take_end(verifier *v, const linnet_log_entry *entry)
{
    bool is_closed = entry->type != LINNET_LOG_VOID;
    round_state *round = round_find(v, entry->number);
    const char *flaw = NULL;
    if (!round)
        return "its round was never announced";
    if (round->phase == LINNET_LOG_CLOSED || round->phase == LINNET_LOG_VOID)
        return "its round is over already";
    if (entry->type == LINNET_LOG_REJECTED &&
        (!newest(v) || !linnet_hash_equal(&entry->body, &newest(v)->adapter)))
        return "a rejected round keeps another adapter than the present one";
    if (is_closed) {
        v->adapter = entry->body;
        v->has_adapter = true;
    }
    v->report->n_closed += is_closed;
    v->report->n_void += !is_closed;
    flaw = spend(v, round, is_closed);
    if (round->is_broken)
        flaw = "an entry before it is wrong: it cannot be checked";
    else if (!is_closed && !linnet_hash_equal(&entry->body, &round->a))
        flaw = "it names another announcement";
    else if (is_closed && round->is_secure && round->phase != LINNET_LOG_SURVIVORS)
        flaw = "the round closed without a set of survivors";
    else if (is_closed && round->is_secure)
        flaw = linnet_secagg_audit_certificate(&round->audit, entry->object.bytes, entry->object.n_bytes);
    round->phase = is_closed ? LINNET_LOG_CLOSED : LINNET_LOG_VOID;
    return flaw;
}

static const char *take_rollback(verifier *v, const linnet_log_entry *entry)
{
    size_t i = v->n_releases;
    while (i > 0 && v->releases[i - 1].version > entry->number)
        i--;
    if (i == 0 || v->releases[i - 1].version != entry->number)
        return "it goes back to a version that never was";
    if (!linnet_hash_equal(&v->releases[i - 1].adapter, &entry->body))
        return "the older version has another adapter";
    v->adapter = entry->body;
    v->has_adapter = v->goes_back = true;
    return NULL;
}

static const char *take_entry(verifier *v, const linnet_log_entry *entry)
{
    switch (entry->type) {
    case LINNET_LOG_RELEASE:
        return take_release(v, entry);
    case LINNET_LOG_ANNOUNCE:
        return take_announcement(v, entry);
    case LINNET_LOG_ROSTER:
    case LINNET_LOG_SHARERS:
    case LINNET_LOG_SURVIVORS:
        return take_link(v, entry);
    case LINNET_LOG_CLOSED:
    case LINNET_LOG_REJECTED:
    case LINNET_LOG_VOID:
        return take_end(v, entry);
    case LINNET_LOG_ROLLBACK:
        return take_rollback(v, entry);
    default:
        return "an entry of no known type";
    }
}

static linnet_status take_entries(verifier *v)
{
    for (size_t i = 0; i < v->log->n_entries; i++) {
        const linnet_log_entry *entry = &v->log->entries[i];
        linnet_hash head = linnet_log_head(i > 0 ? &v->head : NULL, entry);
        const char *flaw = take_entry(v, entry);
        if (flaw == no_memory)
            return linnet_fail(v->err, LINNET_ERR_NOMEM, "log of %zu entries", v->log->n_entries);
        if (!linnet_hash_equal(&head, &entry->head))
            flaw = "the chain is broken here";
        v->head = entry->head;
        if (flaw && linnet_report_add(v->report, LINNET_FINDING_LOG, i, flaw, v->err) != LINNET_OK)
            return LINNET_ERR_NOMEM;
    }
    return LINNET_OK;
}

/* ---- the log as a whole ---- */

static const char *lists_flaw(const linnet_log *log)
{
    uint64_t before = 0;
    for (size_t i = 0; i < log->n_lists; i++) {
        linnet_revocation list;
        if (linnet_revocation_open(log->lists[i].bytes, log->lists[i].n_bytes, &log->authority, &list) !=
            LINNET_OK)
            return "a revocation list is not signed by the authority";
        if (list.number <= before)
            return "the revocation lists' numbers do not increase";
        before = list.number;
    }
    return NULL;
}

static linnet_status take_frame(verifier *v)
{
    const linnet_log *log = v->log;
    const char *flaws[3] = {lists_flaw(log), NULL, NULL};
    linnet_status status = LINNET_OK;
    v->plan_hash = linnet_plan_hash(log->plan.bytes, log->plan.n_bytes);
    v->layout_hash = linnet_hash_of(LINNET_LABEL_LAYOUT, log->layout.bytes, log->layout.n_bytes);
    v->has_plan = log->plan.n_bytes > 0 && log->plan.n_bytes <= LINNET_PLAN_BYTES_MAX &&
                  linnet_plan_parse("log", (const char *)log->plan.bytes, log->plan.n_bytes, &v->plan,
                                    NULL) == LINNET_OK;
    v->has_layout = linnet_layout_lengths(log->layout.bytes, log->layout.n_bytes, &v->layout) == LINNET_OK;
    if (!v->has_plan)
        flaws[1] = "the plan is malformed";
    if (!v->has_layout)
        flaws[2] = "the layout is malformed";
    for (size_t i = 0; i < ARRAY_LEN(flaws) && status == LINNET_OK; i++)
        if (flaws[i])
            status = linnet_report_add(v->report, LINNET_FINDING_LOG, SIZE_MAX, flaws[i], v->err);
    return status;
}

static linnet_status take_spending(verifier *v)
{
    linnet_log_report *report = v->report;
    const char *flaw = NULL;
    spending_flush(&v->spent);
    report->dp_rounds = v->spent.n_total;
    report->dp_epsilon = v->spent.n_total > 0 ? linnet_dp_epsilon(&v->spent.rdp, v->plan.dp_delta, NULL) : 0;
    if (v->log->dp_rounds != report->dp_rounds)
        flaw = "the coordinator counts other rounds in its ledger of privacy than the log has";
    else if (!(fabs(v->log->dp_epsilon - report->dp_epsilon) <= 1e-9 * report->dp_epsilon))
        flaw = "epsilon does not add up";
    return flaw ? linnet_report_add(report, LINNET_FINDING_LOG, SIZE_MAX, flaw, v->err) : LINNET_OK;
}

/* ---- receipts ---- */

/* Hash of a Signed body under the coordinator's signature; false where it is none. */
static bool body_hash(const verifier *v, linnet_label label, const linnet_span *span, linnet_hash *ret_hash)
{
    linnet_signed body;
    if (linnet_signed_open(span->bytes, span->n_bytes, &body, NULL) != LINNET_OK)
        return false;
    *ret_hash = linnet_hash_of(label, body.body, body.n_body);
    return linnet_verify_hash(&v->log->coordinator, ret_hash, &body.signature) == LINNET_OK;
}

static bool has_entry(const linnet_log *log, uint8_t type, uint64_t number, const linnet_hash *body,
                      size_t *ret_index)
{
    for (size_t i = 0; i < log->n_entries; i++)
        if (log->entries[i].type == type && log->entries[i].number == number &&
            linnet_hash_equal(&log->entries[i].body, body)) {
            *ret_index = i;
            return true;
        }
    return false;
}

/* What the device was shown of a round against what the log says was signed. */
static const char *seen_flaw(const verifier *v, const linnet_contribution_record *r)
{
    static const struct {
        linnet_label label;
        uint8_t type;
        const char *forged, *missing;
    } links[] = {
        {LINNET_LABEL_ANNOUNCE, LINNET_LOG_ANNOUNCE, "its announcement is not signed by the coordinator",
         "the announcement that the device saw is not in the log"},
        {LINNET_LABEL_ROSTER, LINNET_LOG_ROSTER, "its roster is not signed by the coordinator",
         "the roster that the device saw is not in the log"},
        {LINNET_LABEL_SHARERS, LINNET_LOG_SHARERS, "its sharers are not signed by the coordinator",
         "the set of sharers that the device saw is not in the log"},
        {LINNET_LABEL_SURVIVORS, LINNET_LOG_SURVIVORS, "its survivors are not signed by the coordinator",
         "the set of survivors that the device saw is not in the log"},
    };
    const linnet_span *const spans[] = {&r->announcement, &r->t1, &r->t2, &r->t3};
    linnet_hash hash;
    size_t at;
    if (r->release.n_bytes > 0 && !body_hash(v, LINNET_LABEL_MODEL, &r->release, &hash))
        return "its release is not signed by the coordinator";
    for (size_t i = 0; r->release.n_bytes > 0 && i <= v->n_releases; i++) {
        if (i == v->n_releases)
            return "the release that the device trained from is not in the log";
        if (linnet_hash_equal(&v->releases[i].v, &hash))
            break;
    }
    for (size_t i = 0; i < ARRAY_LEN(links); i++) {
        if (spans[i]->n_bytes == 0)
            continue;
        if (!body_hash(v, links[i].label, spans[i], &hash))
            return links[i].forged;
        if (!has_entry(v->log, links[i].type, r->round, &hash, &at))
            return links[i].missing;
    }
    return NULL;
}

static const char *inclusion_flaw(verifier *v, const linnet_receipt *receipt, const round_state *round)
{
    if (!round->is_secure) {
        v->report->n_unlisted++;
        return NULL; /* its chain is A, and A is in the log: seen_flaw */
    }
    if (!round->has_survivors)
        return round->phase == LINNET_LOG_CLOSED ? "the round closed without a set of survivors" : NULL;
    if (!linnet_hash_equal(&receipt->chain, &round->audit.t2))
        return "the receipt is for another set of sharers than the log's";
    int32_t index = linnet_secagg_audit_index(&round->audit, &receipt->device_id);
    const uint8_t *there =
        index < 0 ? NULL : linnet_secagg_audit_contribution(&round->audit, (uint32_t)index);
    if (!there)
        return "an accepted contribution is missing from R";
    if (memcmp(there, receipt->echo.bytes, LINNET_HASH_BYTES) != 0)
        return "R has other bytes under this device's name than it was given a receipt for";
    v->report->n_included++;
    return NULL;
}

static const char *record_flaw(verifier *v, const linnet_receipts *receipts,
                               const linnet_contribution_record *r)
{
    linnet_receipt receipt;
    const round_state *round = round_find(v, r->round);
    if (!round)
        return "the log has no such round";
    const char *flaw = seen_flaw(v, r);
    if (flaw || r->receipt.n_bytes == 0)
        return flaw;
    if (linnet_receipt_open(r->receipt.bytes, r->receipt.n_bytes, &v->log->coordinator, &receipt) !=
        LINNET_OK)
        return "its receipt is not signed by the coordinator";
    if (memcmp(&receipt.device_id, &receipts->device_id, sizeof(receipt.device_id)) != 0 ||
        !linnet_hash_equal(&receipt.echo, &r->echo))
        return "its receipt is for another contribution";
    return inclusion_flaw(v, &receipt, round);
}

/* The device's last announcement must stand in the log, behind the checkpoint that it carries. */
static const char *checkpoint_flaw(const verifier *v, const linnet_receipts *receipts)
{
    linnet_signed body;
    linnet_announcement a;
    linnet_hash hash;
    size_t at = 0;
    if (receipts->announcement.n_bytes == 0)
        return NULL;
    if (!body_hash(v, LINNET_LABEL_ANNOUNCE, &receipts->announcement, &hash) ||
        linnet_signed_open(receipts->announcement.bytes, receipts->announcement.n_bytes, &body, NULL) !=
            LINNET_OK ||
        linnet_announcement_unpack(body.body, body.n_body, &a, NULL) != LINNET_OK)
        return "the last announcement that the device saw is not signed by the coordinator";
    if (!has_entry(v->log, LINNET_LOG_ANNOUNCE, a.round, &hash, &at))
        return "the device's last checkpoint is not on this log's chain: the log is older than the device, "
               "went back, or is a fork";
    if (at == 0 || !linnet_hash_equal(&v->log->entries[at - 1].head, &a.checkpoint))
        return "the device's last checkpoint is not the head before its announcement";
    return NULL;
}

static linnet_status take_receipts(verifier *v, const linnet_receipts *receipts)
{
    const char *flaw = NULL;
    linnet_status status = LINNET_OK;
    if (memcmp(&receipts->coordinator, &v->log->coordinator, sizeof(receipts->coordinator)) != 0 ||
        memcmp(receipts->task, v->log->task, sizeof(receipts->task)) != 0)
        flaw = "the receipts are of another task or coordinator";
    else
        flaw = checkpoint_flaw(v, receipts);
    if (flaw)
        status = linnet_report_add(v->report, LINNET_FINDING_RECEIPTS, SIZE_MAX, flaw, v->err);
    for (size_t i = 0; i < receipts->n_records && status == LINNET_OK; i++) {
        flaw = record_flaw(v, receipts, &receipts->records[i]);
        if (flaw)
            status = linnet_report_add(v->report, LINNET_FINDING_RECEIPTS, i, flaw, v->err);
    }
    return status;
}

/* ---- another party's log ---- */

static linnet_status take_other(verifier *v, const linnet_log *other)
{
    size_t n = v->log->n_entries < other->n_entries ? v->log->n_entries : other->n_entries;
    if (memcmp(&other->coordinator, &v->log->coordinator, sizeof(other->coordinator)) != 0 ||
        memcmp(other->task, v->log->task, sizeof(other->task)) != 0)
        return linnet_report_add(v->report, LINNET_FINDING_OTHER, SIZE_MAX,
                                 "the other log is of another task or coordinator", v->err);
    for (size_t i = 0; i < n; i++)
        if (!linnet_hash_equal(&other->entries[i].head, &v->log->entries[i].head))
            return linnet_report_add(v->report, LINNET_FINDING_OTHER, i,
                                     "the two logs part here: one of them is a fork or made up", v->err);
    return LINNET_OK;
}

linnet_status linnet_log_verify(const linnet_log *log, const linnet_receipts *receipts,
                                const linnet_log *other, linnet_log_report *ret_report, linnet_error *err)
{
    linnet_log_report report = {0};
    verifier v = {.log = log, .report = &report, .err = err};
    linnet_status status = take_frame(&v);
    if (status == LINNET_OK)
        status = take_entries(&v);
    if (status == LINNET_OK)
        status = take_spending(&v);
    if (status == LINNET_OK && receipts)
        status = take_receipts(&v, receipts);
    if (status == LINNET_OK && other)
        status = take_other(&v, other);
    if (status == LINNET_OK)
        status = linnet_slots_compare(log, receipts, other, &report, err);
    report.n_releases = v.n_releases;
    report.n_rounds = v.n_rounds;
    free(v.releases);
    free(v.rounds);
    if (status != LINNET_OK)
        linnet_log_report_release(&report);
    else
        *ret_report = report; /* ownership moves to the caller */
    return status;
}
