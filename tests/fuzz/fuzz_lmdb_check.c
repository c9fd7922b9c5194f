/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memfd_create */
/* The look at an LMDB file before LMDB maps it. */
#include "linnet/lmdb_check.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    char path[32];
    linnet_error err = {0};
    int fd = memfd_create("lmdb", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, n_bytes) != (ssize_t)n_bytes)
        abort();
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (linnet_lmdb_check(path, (uint64_t)64 << 20, "go on", &err) != LINNET_OK && err.message[0] == '\0')
        abort();
    (void)close(fd);
    return 0;
}
