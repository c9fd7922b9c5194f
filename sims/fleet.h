/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SIMS_FLEET_H
#define LINNET_SIMS_FLEET_H

/* Inner header of the simulator: virtual devices, the network between them and the coordinator, and the
 * clock. */

#include "attacks.h"
#include "linnet/coordinator.h"
#include "linnet/device.h"
#include "linnet/simulation.h"

/* The stream of the simulation's seed from which devices get theirs: seed, then speed, device by device. */
#define FLEET_STREAM_DEVICE UINT64_C(0x646576696365)

/* A device asleep is its store and its share; awake it is a linnet_device too. */
typedef struct virtual_device {
    struct fleet *fleet;
    const linnet_share *share;
    linnet_kv kv;
    linnet_round_vault
        *vault; /* outlives the sleep in a masked round, as the volatile file of a device would */
    linnet_device_id id;
    uint64_t seed;
    double speed;          /* optimiser steps a virtual second */
    linnet_device *device; /* NULL while asleep */
    int64_t busy_until_ms; /* virtual time at which its training ends */
    bool has_trained;      /* in the present round */
    bool is_attacker;
    uint64_t n_attacks; /* deltas changed, messages forged: each has its own randomness */
    linnet_mischief mischief;
    linnet_status status; /* of the last parallel work, with its error */
    linnet_error error;
} virtual_device;

typedef struct fleet {
    const linnet_simulation_config *config;
    linnet_model *model;
    linnet_tokenizer *tokenizer;
    linnet_dataset *data, *eval; /* eval may be the same set as data */
    linnet_dataset *flipped;     /* what attackers of a label flip train on; NULL without */
    linnet_shares *shares;
    linnet_hash model_hash;
    linnet_coordinator *coordinator;
    char *coordinator_directory;
    linnet_coordinator_gate_fn *gate; /* set again with every start of the coordinator; NULL: none */
    void *gate_context;
    linnet_object_cache objects; /* shared: a sleeping device holds no adapter */
    virtual_device *devices;
    size_t n_devices;
    linnet_secagg_cache *cache; /* of checked rosters */
    linnet_rng faults;
    int64_t now_ms;
    /* workers: one arena each */
    linnet_thread_pool *pool;
    linnet_arena **arenas;
    unsigned n_workers;
} fleet;

/** Open model and data, deal the shares, set up the coordinator, enrol everybody. */
linnet_status fleet_create(const linnet_simulation_config *config, fleet *ret_fleet, linnet_error *err);
void fleet_release(fleet *f);

/** Load model, tokenizer, data and shares only: what the baselines and the process runs need. */
linnet_status fleet_load(const linnet_simulation_config *config, fleet *ret_fleet, linnet_error *err);
/** One training arena a worker; after the plan's context is known. */
linnet_status fleet_create_arenas(fleet *f, linnet_error *err);

/** The researcher owns both sides: the policy of the simulated devices allows the profile of the plan. */
linnet_policy fleet_policy(const linnet_plan *plan);

linnet_status fleet_wake(fleet *f, virtual_device *device, linnet_error *err);
void fleet_sleep(virtual_device *device);

/** Run work(context, item, arena) for n items on all workers, each with its own arena; items are taken in
 * turn. */
typedef void fleet_work_fn(void *context, size_t item, linnet_arena *arena);
void fleet_run(fleet *f, size_t n_items, fleet_work_fn *work, void *context);

/** The encoding of records under the plan. */
linnet_encoding fleet_encoding(const fleet *f);

#endif
