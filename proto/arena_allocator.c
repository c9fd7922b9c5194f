/* SPDX-License-Identifier: Apache-2.0 */

/* A ProtobufCAllocator with a byte limit. protobuf-c turns two bytes of an empty repeated sub-message into
 * sixty of memory, so a cap on the message alone does not bound what unpacking takes; this one does, its own
 * bookkeeping included. Every allocation is a block of its own, so that sanitizers see its edges; free does
 * nothing, and release frees the list. */

#include "arena_allocator.h"

#include <stdlib.h>

/* The header keeps the strictest alignment for what follows it. */
typedef union block {
    union block *next;
    max_align_t align;
} block;

static void *arena_alloc(void *allocator_data, size_t n_bytes)
{
    linnet_arena_allocator *arena = allocator_data;
    if (arena->n_left < sizeof(block) || n_bytes > arena->n_left - sizeof(block))
        return NULL;
    block *b = malloc(sizeof(*b) + n_bytes);
    if (!b)
        return NULL;
    arena->n_left -= sizeof(*b) + n_bytes;
    b->next = arena->blocks;
    arena->blocks = b;
    return b + 1;
}

static void arena_free(void *allocator_data, void *pointer)
{
    (void)allocator_data; /* everything ends together, in release */
    (void)pointer;
}

void linnet_arena_allocator_init(linnet_arena_allocator *arena, size_t n_bytes_max)
{
    *arena = (linnet_arena_allocator){
        .allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = arena},
        .n_left = n_bytes_max,
    };
}

void linnet_arena_allocator_release(linnet_arena_allocator *arena)
{
    block *b = arena->blocks;
    while (b) {
        block *next = b->next;
        free(b);
        b = next;
    }
    arena->blocks = NULL;
}
