/* SPDX-License-Identifier: Apache-2.0 */

/* What an announcement must say because the plan says so. The coordinator fills it in from here, and a device
 * compares what it was told with the same. The other way, what a round spends follows from its announcement
 * alone, for rounds whose plan is not at hand any more. */

#include "linnet/messages.h"

#include <math.h>

#include "linnet/dp_encode.h"

linnet_status linnet_announcement_of_plan(const linnet_plan *plan, const linnet_layout *layout,
                                          uint64_t version, linnet_announcement *ret_announcement,
                                          linnet_error *err)
{
    size_t n_vectors = 0;
    linnet_privacy p;
    linnet_announcement a = {.protocol_version = LINNET_PROTOCOL_VERSION,
                             .profile = (uint32_t)plan->profile,
                             .chunk = LINNET_RING_CHUNK,
                             .n_min = plan->minimum,
                             .n_max = linnet_plan_join_max(plan),
                             .m_min = linnet_plan_survivors_min(plan),
                             .corrupt_permille = linnet_plan_corrupt_permille(plan)};
    linnet_status status = linnet_plan_vectors(plan, layout, version, a.vectors, &n_vectors, err);
    if (status == LINNET_OK)
        status = linnet_plan_privacy(plan, layout, version, &p, err);
    if (status != LINNET_OK)
        return status;
    a.n_vectors = (uint32_t)n_vectors;
    a.phase_s = linnet_profile_is_secure(plan->profile) ? plan->phase_deadline_s : 0;
    a.dp_mechanism = p.mechanism;
    a.dp_unit = p.unit;
    a.dp_clip = p.clip;
    a.dp_sigma2 = p.sigma2;
    a.dp_rotates = p.rotates;
    if (p.mechanism == LINNET_DP_RECORD_LOCAL) {
        a.dp_exponent = p.exponent;
        a.dp_probability = p.probability;
        a.dp_steps = p.n_steps;
    }
    *ret_announcement = a;
    return LINNET_OK;
}

static bool same_vectors(const linnet_announcement *a, const linnet_announcement *b)
{
    if (a->n_vectors != b->n_vectors || a->chunk != b->chunk)
        return false;
    for (size_t i = 0; i < a->n_vectors; i++) {
        const linnet_ring_spec *s = &a->vectors[i], *t = &b->vectors[i];
        if (s->vector_id != t->vector_id || s->length != t->length || s->bits != t->bits ||
            s->clamp != t->clamp || s->exponent != t->exponent || s->weight_max != t->weight_max)
            return false;
    }
    return true;
}

/* Doubles travel as they are, so equal plans give equal ones. */
static bool same_privacy(const linnet_announcement *a, const linnet_announcement *b)
{
    return a->dp_mechanism == b->dp_mechanism && a->dp_unit == b->dp_unit && a->dp_sigma2 == b->dp_sigma2 &&
           a->dp_rotates == b->dp_rotates && a->dp_exponent == b->dp_exponent && a->dp_steps == b->dp_steps &&
           a->dp_clip == b->dp_clip && a->dp_probability == b->dp_probability;
}

const char *linnet_announcement_difference(const linnet_announcement *a, const linnet_announcement *planned)
{
    if (a->profile != planned->profile)
        return "the announced profile is not that of the plan";
    if (a->n_min != planned->n_min || a->n_max != planned->n_max || a->m_min != planned->m_min ||
        a->corrupt_permille != planned->corrupt_permille)
        return "the announced cohort is not that of the plan";
    if (a->phase_s != planned->phase_s)
        return "the announced phases are not those of the plan";
    if (!same_vectors(a, planned))
        return "the announced vectors are not those of the plan and the model";
    if (!same_privacy(a, planned))
        return "the announced noise is not that of the plan";
    return NULL;
}

/* ---- what a round spends ---- */

/* d and f of what is clipped as one: the noised vector, or the gradient over all factors. */
static void lattice_of(const linnet_announcement *a, linnet_privacy *p)
{
    p->exponent = a->dp_exponent;
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        if (a->vectors[i].vector_id == 1)
            continue;
        p->dimension += a->vectors[i].length;
        if (p->mechanism != LINNET_DP_RECORD_LOCAL)
            p->exponent = a->vectors[i].exponent;
    }
}

linnet_status linnet_announcement_privacy(const linnet_announcement *announcement,
                                          linnet_privacy *ret_privacy, linnet_error *err)
{
    const linnet_announcement *a = announcement;
    const linnet_secagg_params params = {
        .n_min = a->n_min, .n_max = a->n_max, .m_min = a->m_min, .corrupt_permille = a->corrupt_permille};
    linnet_privacy p = {.mechanism = (linnet_dp_mechanism)a->dp_mechanism,
                        .unit = (linnet_dp_unit)a->dp_unit};
    if (p.mechanism == LINNET_DP_NONE) {
        *ret_privacy = p;
        return LINNET_OK;
    }
    p.rotates = a->dp_rotates;
    p.clip = a->dp_clip;
    p.sigma2 = a->dp_sigma2;
    p.probability = a->dp_probability;
    p.n_steps = a->dp_steps;
    p.survivors_min = a->m_min;
    if (linnet_profile_is_secure((int)a->profile))
        p.corrupt = linnet_secagg_thresholds_of(&params, a->n_max).corrupt;
    lattice_of(a, &p);
    uint32_t n_noisy = 1;
    if (p.mechanism == LINNET_DP_DISTRIBUTED)
        n_noisy = p.survivors_min > p.corrupt ? p.survivors_min - p.corrupt : 0;
    p.bound2 = linnet_dp_bound2(p.clip, p.exponent, p.dimension);
    p.noise_multiplier = linnet_dp_noise_multiplier(p.sigma2, n_noisy, p.bound2);
    if (!(p.noise_multiplier > 0) || !isfinite(p.noise_multiplier))
        return linnet_fail(err, LINNET_ERR_RANGE, "announcement: its noise protects nothing");
    *ret_privacy = p;
    return LINNET_OK;
}
