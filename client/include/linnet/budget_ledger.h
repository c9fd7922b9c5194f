/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_BUDGET_LEDGER_H
#define LINNET_BUDGET_LEDGER_H

/* What an owner's data has spent of privacy: one entry for each noised contribution that may have left,
 * whatever became of its round (SECURE-AGGREGATION 3.4). One ledger serves all tasks and coordinators that
 * draw on the same data, so several state directories of one owner may share it. */

#include "linnet/accountant.h"
#include "linnet/identity.h"
#include "linnet/plan.h"

typedef struct linnet_budget_ledger linnet_budget_ledger;

typedef struct linnet_privacy_entry {
    uint8_t task[16];
    linnet_device_id device;
    uint64_t round;
    linnet_hash announcement; /* A */
    linnet_dp_mechanism mechanism;
    linnet_dp_unit unit;
    double noise_multiplier; /* z */
    double probability;      /* record-local: p and the noised steps */
    uint32_t n_steps;
} linnet_privacy_entry;

/** What must not be passed; dp_epsilon_max 0: nothing. */
typedef struct linnet_privacy_limit {
    double dp_epsilon_max, dp_delta;
} linnet_privacy_limit;

typedef struct linnet_privacy_total {
    uint64_t n_entries, n_damaged; /* counted; of them damaged, each as the costliest that is known */
    bool has_device_unit, has_record_unit;
    linnet_rdp rdp;
} linnet_privacy_total;

/** directory/privacy.ledger; the directory is made where it is absent. */
linnet_status linnet_budget_ledger_open(const char *directory, linnet_budget_ledger **ret_ledger,
                                        linnet_error *err) LINNET_NODISCARD;
void linnet_budget_ledger_close(linnet_budget_ledger *ledger);
/** Sum of all entries. next (may be NULL) is one that is about to be added: a damaged entry may have been as
 * costly; it is not counted itself. */
linnet_status linnet_budget_ledger_total(linnet_budget_ledger *ledger, const linnet_privacy_entry *next,
                                         linnet_privacy_total *ret_total, linnet_error *err) LINNET_NODISCARD;
/** Durable before it returns. The same device and announcement again changes nothing. DENIED where the sum
 * would pass the limit. */
linnet_status linnet_budget_ledger_add(linnet_budget_ledger *ledger, const linnet_privacy_entry *entry,
                                       const linnet_privacy_limit *limit, linnet_error *err) LINNET_NODISCARD;
/** An entry that a certificate proves unspent; one that is not there is fine. */
linnet_status linnet_budget_ledger_take_back(linnet_budget_ledger *ledger, const linnet_privacy_entry *entry,
                                             linnet_error *err) LINNET_NODISCARD;

#endif
