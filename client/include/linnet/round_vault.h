/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ROUND_VAULT_H
#define LINNET_ROUND_VAULT_H

/* The round key of a device (SECURE-AGGREGATION 7): what seals the record of a round in flight, its encoded
 * vector and an unsent delta. It lies on a volatile file system, so that it survives a kill and dies with the
 * power; with it lies the highest generation number of the store, so that an older copy of the store is
 * recognised as one. */

#include "linnet/identity.h"

typedef struct linnet_round_vault linnet_round_vault;

typedef enum linnet_vault_place {
    LINNET_VAULT_MEMORY,   /* in this process only: its end loses the round */
    LINNET_VAULT_VOLATILE, /* a file that dies with the power */
    LINNET_VAULT_DISK,     /* the owner's choice: a file in the state directory, which a thief gets too */
} linnet_vault_place;

/** Where the vault looks; NULL members: the system's. */
typedef struct linnet_vault_sources {
    const char *const *directories; /* candidates for the volatile file, in order, NULL behind the last */
    bool (*is_volatile)(const char *directory);
    const char *boot_id_path, *machine_id_path;
} linnet_vault_sources;

/**
 * The vault of one state directory and device. The file is made when something is sealed for the first time;
 * without a volatile file system the key stays in memory.
 *
 * on_disk  keep the key in the state directory, across reboots
 * sources  NULL: the system's (runtime directory, /run, /dev/shm)
 */
linnet_status linnet_round_vault_open(const char *state_directory, const linnet_device_id *device,
                                      bool on_disk, const linnet_vault_sources *sources,
                                      linnet_round_vault **ret_vault, linnet_error *err) LINNET_NODISCARD;
/** For simulations: outlives its device as the file would. */
linnet_status linnet_round_vault_open_memory(linnet_round_vault **ret_vault,
                                             linnet_error *err) LINNET_NODISCARD;
/** Wipes the key in memory; the file stays. Takes NULL. */
void linnet_round_vault_close(linnet_round_vault *vault);

/** Close, and remove the file: everything that was sealed is lost. Takes NULL. */
void linnet_round_vault_forget(linnet_round_vault *vault);

linnet_vault_place linnet_round_vault_place(const linnet_round_vault *vault);
/** H of the machine's id; zero where it has none. */
const linnet_hash *linnet_round_vault_machine(const linnet_round_vault *vault);
/** Was the key drawn by this open? Then nothing that was sealed before opens. */
bool linnet_round_vault_is_new(const linnet_round_vault *vault);
/** Highest generation of the store that was committed on this boot. */
uint64_t linnet_round_vault_generation(const linnet_round_vault *vault);
/** Call after each commit of the store. CONFLICT where another process has written the file meanwhile. A file
 * that cannot be written is given up for memory. */
linnet_status linnet_round_vault_advance(linnet_round_vault *vault, uint64_t generation,
                                         linnet_error *err) LINNET_NODISCARD;
/** Another key in place of this one: all that is sealed is gone for good. */
void linnet_round_vault_renew(linnet_round_vault *vault);

/** Seal a named value of a generation; both are authenticated, the generation is stored in front. */
linnet_status linnet_round_vault_seal(const linnet_round_vault *vault, const char *name, uint64_t generation,
                                      const void *plain, size_t n_plain, linnet_buffer *ret_sealed,
                                      linnet_error *err) LINNET_NODISCARD;
/** CRYPTO where it is not a value of this name and key. The caller wipes ret_plain. */
linnet_status linnet_round_vault_unseal(const linnet_round_vault *vault, const char *name, const void *sealed,
                                        size_t n_sealed, linnet_buffer *ret_plain,
                                        linnet_error *err) LINNET_NODISCARD;

#endif
