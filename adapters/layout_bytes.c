/* SPDX-License-Identifier: Apache-2.0 */
/* A layout as the bytes that its hash is over: what a transcript carries so that an auditor without the model
 * knows how long the vectors of a task must be. */
#include "linnet/adapter.h"

#define PARAMETERS_MAX ((uint64_t)1 << 32)

linnet_status linnet_layout_write(const linnet_layout *layout, linnet_buffer *ret_bytes, linnet_error *err)
{
    uint8_t alpha[4];
    linnet_store_f32(alpha, layout->alpha);
    linnet_buffer_append(ret_bytes, alpha, sizeof(alpha));
    linnet_buffer_append_le32(ret_bytes, (uint32_t)layout->n_entries);
    for (size_t i = 0; i < layout->n_entries; i++) {
        const linnet_layout_entry *entry = &layout->entries[i];
        size_t n_name = strlen(entry->name);
        linnet_buffer_append_le16(ret_bytes, (uint16_t)n_name);
        linnet_buffer_append(ret_bytes, entry->name, n_name);
        linnet_buffer_append_le32(ret_bytes, entry->rank);
        linnet_buffer_append_le32(ret_bytes, entry->rows);
        linnet_buffer_append_le32(ret_bytes, entry->columns);
        linnet_buffer_append_u8(ret_bytes, 0); /* dtype F32 */
        linnet_buffer_append_le64(ret_bytes, entry->a_offset);
        linnet_buffer_append_le64(ret_bytes, entry->b_offset);
    }
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "layout") : LINNET_OK;
}

linnet_status linnet_layout_lengths(const void *bytes, size_t n_bytes, linnet_layout *ret_layout)
{
    uint64_t n_a = 0, n_b = 0;
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    const uint8_t *alpha = linnet_reader_take(&reader, 4);
    uint32_t n = linnet_reader_le32(&reader);
    for (uint32_t i = 0; i < n && !reader.failed; i++) {
        (void)linnet_reader_take(&reader, linnet_reader_le16(&reader));
        uint64_t rank = linnet_reader_le32(&reader), rows = linnet_reader_le32(&reader),
                 columns = linnet_reader_le32(&reader);
        (void)linnet_reader_take(&reader, 1 + 2 * 8);
        if (rank == 0 || rank > PARAMETERS_MAX >> 16 || rows > PARAMETERS_MAX || columns > PARAMETERS_MAX)
            return LINNET_ERR_FORMAT;
        n_a += rank * columns;
        n_b += rank * rows;
        if (n_a > PARAMETERS_MAX || n_b > PARAMETERS_MAX)
            return LINNET_ERR_FORMAT;
    }
    if (!linnet_reader_is_done(&reader) || n_a == 0 || n_b == 0 || n_a + n_b > SIZE_MAX / 4)
        return LINNET_ERR_FORMAT;
    *ret_layout = (linnet_layout){.alpha = linnet_load_f32(alpha),
                                  .n_parameters = (size_t)(n_a + n_b),
                                  .n_a = (size_t)n_a,
                                  .n_b = (size_t)n_b};
    return LINNET_OK;
}
