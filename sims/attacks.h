/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SIMS_ATTACKS_H
#define LINNET_SIMS_ATTACKS_H

/* Inner header: who attacks, and what an attack makes of a delta before it is encoded. */

#include "linnet/dataset.h"
#include "linnet/identity.h"
#include "linnet/rng.h"
#include "linnet/simulation.h"

/** Marks round(attackers n_devices) of the devices, drawn by the seed alone, halves going up; none where the
 * scenario has no attack. Returns how many. */
size_t attackers_choose(const linnet_scenario *scenario, uint64_t seed, size_t n_devices,
                        bool *ret_is_attacker);

/** The stream of an attacker's own randomness in a round. */
linnet_rng attack_stream(uint64_t seed, uint64_t round, uint32_t device);

/** Whether the attack changes the delta, as attack_delta does; the others act elsewhere. */
bool attack_is_on_delta(linnet_attack attack);

/** What the attacker sends instead of its delta, which is every factor of one upload together, so that its
 * norm is. Left alone where the attack is not on the delta. scale is for LINNET_ATTACK_SCALE. */
void attack_delta(linnet_attack attack, double scale, linnet_rng *rng, float *const *parts,
                  const size_t *lengths, size_t n_parts);

/** Label flip: every completion (an assistant's content, a text's order of words; for a model that classifies
 * the label) becomes another one's. */
void attack_labels(linnet_dataset *dataset, bool classifies);

/** Wrong shares: every share in this M9 becomes a random one of the same kind, signed anew. */
void attack_shares(linnet_rng *rng, const linnet_identity *identity, uint8_t *m9, size_t n_bytes);

#endif
