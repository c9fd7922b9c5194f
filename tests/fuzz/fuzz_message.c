/* SPDX-License-Identifier: Apache-2.0 */
/* Every protobuf message: the first byte says which one the rest is. What unpacks must pack again, and that
 * must unpack to the same bytes: both sides agree on one meaning. */
#include <stdlib.h>

#include "linnet/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static linnet_status repack(unsigned which, const uint8_t *bytes, size_t n, linnet_buffer *storage,
                            linnet_buffer *out)
{
    linnet_release release;
    linnet_announcement announcement;
    linnet_upload_header header;
    linnet_hello hello;
    linnet_checkin checkin;
    linnet_upload upload;
    linnet_answer answer;
    linnet_round_message round_message;
    linnet_error err = {0};
    linnet_status status;
    switch (which % 8) {
    case 0:
        status = linnet_release_unpack(bytes, n, &release, &err);
        return status == LINNET_OK ? linnet_release_pack(&release, out, &err) : status;
    case 1:
        status = linnet_announcement_unpack(bytes, n, &announcement, &err);
        return status == LINNET_OK ? linnet_announcement_pack(&announcement, out, &err) : status;
    case 2:
        status = linnet_upload_header_unpack(bytes, n, &header, &err);
        return status == LINNET_OK ? linnet_upload_header_pack(&header, out, &err) : status;
    case 3:
        status = linnet_hello_unpack(bytes, n, storage, &hello, &err);
        return status == LINNET_OK ? linnet_hello_pack(&hello, out, &err) : status;
    case 4:
        status = linnet_checkin_unpack(bytes, n, &checkin, &err);
        return status == LINNET_OK ? linnet_checkin_pack(&checkin, out, &err) : status;
    case 5:
        status = linnet_upload_unpack(bytes, n, storage, &upload, &err);
        return status == LINNET_OK ? linnet_upload_pack(&upload, out, &err) : status;
    case 6:
        status = linnet_answer_unpack(bytes, n, storage, &answer, &err);
        return status == LINNET_OK ? linnet_answer_pack(&answer, out, &err) : status;
    default:
        status = linnet_round_message_unpack(bytes, n, &round_message, &err);
        return status == LINNET_OK ? linnet_round_message_pack(&round_message, out, &err) : status;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    linnet_buffer storage = {0}, once = {0}, twice = {0};
    if (size > 0 && repack(data[0], data + 1, size - 1, &storage, &once) == LINNET_OK) {
        if (repack(data[0], once.bytes, once.n_bytes, &storage, &twice) != LINNET_OK ||
            once.n_bytes != twice.n_bytes ||
            (once.n_bytes > 0 && memcmp(once.bytes, twice.bytes, once.n_bytes) != 0))
            abort();
    }
    linnet_buffer_release(&storage);
    linnet_buffer_release(&once);
    linnet_buffer_release(&twice);
    return 0;
}
