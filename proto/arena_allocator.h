/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ARENA_ALLOCATOR_H
#define LINNET_ARENA_ALLOCATOR_H

/* Memory for unpacking one message: a limit on its bytes, and one release for everything. */

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

typedef struct linnet_arena_allocator {
    ProtobufCAllocator allocator; /* hand &allocator to protobuf-c */
    void *blocks;                 /* owned list of what was allocated */
    size_t n_left;                /* bytes that may still be allocated */
} linnet_arena_allocator;

void linnet_arena_allocator_init(linnet_arena_allocator *arena, size_t n_bytes_max);
/** Frees everything allocated from it; unpacked messages end with it. */
void linnet_arena_allocator_release(linnet_arena_allocator *arena);

#endif
