/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SIMULATION_H
#define LINNET_SIMULATION_H

/* Federated rounds on one machine: virtual devices are the real device state machine over the real sealed
 * messages, the coordinator is the real one over a real store; only the network is a function call and the
 * clock is virtual. Same seed, same transcript hash, for any number of threads. */

#include "linnet/cli.h"
#include "linnet/dataset.h"
#include "linnet/plan.h"

/* ---- who holds which records ---- */
typedef enum linnet_split {
    LINNET_SPLIT_CLIENT,    /* the records' own "client" */
    LINNET_SPLIT_IID,       /* dealt at random, sizes equal */
    LINNET_SPLIT_DIRICHLET, /* every label ("client") spread over the devices by Dirichlet(alpha) */
} linnet_split;

typedef struct linnet_share {
    char *name;      /* owned */
    size_t *records; /* owned: indices into the training set, in file order */
    size_t n_records;
    size_t *eval_records; /* owned: indices into the evaluation set */
    size_t n_eval_records;
} linnet_share;

typedef struct linnet_shares {
    linnet_share *items; /* owned */
    size_t n_items;
} linnet_shares;

/**
 * Deal the records to n_devices (0: as many as there are clients; only for LINNET_SPLIT_CLIENT).
 * By client: the n clients with most records, those with evaluation records first, ties by name.
 * eval may be NULL. eval_records_max: per device every ceil(n / max)-th of its evaluation records (0: all).
 * IID and Dirichlet deal the evaluation records in the same way, from the same proportions.
 */
linnet_status linnet_shares_create(const linnet_dataset *data, const linnet_dataset *eval, linnet_split split,
                                   double alpha, size_t n_devices, size_t eval_records_max, uint64_t seed,
                                   linnet_shares **ret_shares, linnet_error *err) LINNET_NODISCARD;
void linnet_shares_destroy(linnet_shares *shares);

/* ---- what a bad device does ---- */
typedef enum linnet_attack {
    LINNET_ATTACK_NONE,
    LINNET_ATTACK_SIGN_FLIP,    /* sends minus its delta */
    LINNET_ATTACK_SCALE,        /* sends attack_scale times its delta */
    LINNET_ATTACK_RANDOM,       /* sends Gaussian noise of the norm of its delta */
    LINNET_ATTACK_LABEL_FLIP,   /* trains on wrong labels */
    LINNET_ATTACK_OMIT_NOISE,   /* leaves out its part of the privacy noise */
    LINNET_ATTACK_WRONG_SHARES, /* deals shares that are none, or reveals wrong ones */
    LINNET_ATTACK_ABORT,        /* goes silent in the middle of the protocol */
    LINNET_ATTACKS
} linnet_attack;
/** "none", "sign_flip", "scale", "random", "label_flip", "omit_noise", "wrong_shares", "abort". */
const char *linnet_attack_name(linnet_attack attack);

/* ---- what happens on the way: every probability is per message or per device and round ---- */
typedef struct linnet_scenario {
    double participation; /* fraction of the devices awake in a round, at least one */
    double drop_out;      /* an awake device goes away after training, before its upload is complete */
    double lose, duplicate, corrupt; /* a message is lost, delivered twice, or altered by one bit */
    double restart;                  /* the coordinator is closed and opened again before a message */
    double kills; /* with processes: how many times a random one gets SIGKILL and is started again */
    linnet_attack attack;
    double attackers;    /* fraction of the devices that attack, in all rounds; the seed says which */
    double attack_scale; /* LINNET_ATTACK_SCALE's factor; 10 where nothing is said */
} linnet_scenario;
void linnet_scenario_default(linnet_scenario *scenario);
/** INI, section [scenario]; an unknown key or attack, or a value out of its range, is an error that names
 * it. */
linnet_status linnet_scenario_load(const char *path, linnet_scenario *ret_scenario,
                                   linnet_error *err) LINNET_NODISCARD;

/* ---- a run ---- */
typedef struct linnet_simulation_config {
    const char *model_path, *data_path, *eval_path, *general_path; /* the last two may be NULL */
    const char *out_directory;
    linnet_plan plan;
    linnet_scenario scenario;
    linnet_split split;
    double dirichlet_alpha;
    uint64_t n_devices, n_rounds, seed, eval_records_max;
    unsigned n_threads;
    bool baselines, processes;
    double central_rate;       /* learning rate of the baselines' factor B; 0: half the plan's */
    const char *bin_directory; /* of the programs, with processes */
} linnet_simulation_config;

typedef struct linnet_simulation_round {
    uint64_t round;
    uint32_t accepted, dropped;
    double loss; /* pooled evaluation records, after the round; NaN where not evaluated */
    uint64_t bytes_up, bytes_down;
} linnet_simulation_round;

typedef struct linnet_simulation_result {
    size_t n_devices, n_rounds;
    linnet_simulation_round *rounds; /* owned */
    double *device_base, *device_federated,
        *device_local; /* owned: mean loss on the device's own evaluation records; NaN: none */
    double loss_base, loss_federated, loss_local, loss_central; /* pooled; NaN where not run */
    double general_base, general_federated, general_central;    /* loss of the general text */
    size_t clients_better_than_base, n_evaluated;
    double worst_tenth; /* mean federated loss of the worst tenth of the devices */
    uint64_t bytes_up, bytes_down, peak_rss_bytes;
    uint64_t kills;        /* processes that were killed and started again, as the scenario asked */
    double device_seconds; /* processor time of all training */
    linnet_hash transcript, adapter;
} linnet_simulation_result;

/** Run it; progress and JSON events go to cli. Files in out_directory: run.jsonl, adapter/ (PEFT),
 * adapter.gguf, plan.ini, report.html. Takes a directory that does not exist or is empty. */
linnet_status linnet_simulation_run(const linnet_simulation_config *config, const linnet_cli *cli,
                                    linnet_simulation_result *ret_result, linnet_error *err) LINNET_NODISCARD;
void linnet_simulation_result_release(linnet_simulation_result *result);

/** Curve, table of losses, bytes and seconds, for people. */
void linnet_simulation_print(const linnet_cli *cli, const linnet_simulation_result *result);

/** A self-contained HTML page from out_directory/run.jsonl. */
linnet_status linnet_report_write(const char *out_directory, linnet_error *err) LINNET_NODISCARD;
/** The result event of a finished run. Owned; NOT_FOUND where the run has not finished. */
linnet_status linnet_report_result(const char *out_directory, json_t **ret_result,
                                   linnet_error *err) LINNET_NODISCARD;

#endif
