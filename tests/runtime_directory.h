/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TESTS_RUNTIME_DIRECTORY_H
#define LINNET_TESTS_RUNTIME_DIRECTORY_H

/* A runtime directory of a test's own, on a volatile file system, for the round keys of the devices that it
 * starts as processes: the environment's until it is removed. For one source file of a program. */

#include "testing.h"

#include <dirent.h>

static char runtime_directory[] = "/dev/shm/linnet-runtime-XXXXXX";

static inline int runtime_directory_make(void)
{
    if (!mkdtemp(runtime_directory)) /* no such file system: keys are where they would be, or in memory */
        runtime_directory[0] = '\0';
    return runtime_directory[0] == '\0' ? 0 : setenv("XDG_RUNTIME_DIR", runtime_directory, 1);
}

/** How many round keys lie there; -1: there is no such directory. */
static inline int runtime_directory_count(void)
{
    int n = 0;
    DIR *dir = runtime_directory[0] ? opendir(runtime_directory) : NULL;
    if (!dir)
        return -1;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        n += strncmp(entry->d_name, "linnet-", 7) == 0;
    (void)closedir(dir);
    return n;
}

static inline int runtime_directory_remove(void)
{
    char command[96];
    (void)snprintf(command, sizeof(command), "rm -r '%s'", runtime_directory); /* made by mkdtemp above */
    return runtime_directory[0] ? system(command) : 0;
}

#endif
