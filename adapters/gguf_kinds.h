/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_GGUF_KINDS_H
#define LINNET_ADAPTERS_GGUF_KINDS_H

/* Inside of adapters: sizes of GGUF's value kinds. */

#include <stddef.h>
#include <stdint.h>

/** Bytes of a value of fixed size; 0 for strings, arrays and unknown kinds. */
size_t linnet_gguf_kind_bytes(uint32_t kind);

#endif
