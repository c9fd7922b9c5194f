/* SPDX-License-Identifier: Apache-2.0 */
/* A device's receipts from anybody, against a log that names their coordinator; and one record alone. */
#include "linnet/transcript.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void try_record(const uint8_t *bytes, size_t n_bytes)
{
    linnet_contribution_record record;
    linnet_buffer written = {0};
    if (linnet_contribution_record_parse(bytes, n_bytes, &record, NULL) != LINNET_OK)
        return;
    if (linnet_contribution_record_write(&record, &written, NULL) != LINNET_OK ||
        written.n_bytes != n_bytes || memcmp(written.bytes, bytes, n_bytes) != 0)
        abort();
    linnet_buffer_release(&written);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    linnet_receipts receipts;
    linnet_log_report report = {.n_findings = 0};
    linnet_buffer written = {0};
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 0;
    try_record(bytes, n_bytes);
    if (linnet_receipts_parse(bytes, n_bytes, &receipts, NULL) != LINNET_OK)
        return 0;
    if (linnet_receipts_write(&receipts, &written, NULL) != LINNET_OK || written.n_bytes != n_bytes ||
        memcmp(written.bytes, bytes, n_bytes) != 0)
        abort();
    linnet_log log = {.coordinator = receipts.coordinator};
    memcpy(log.task, receipts.task, sizeof(log.task));
    if (linnet_log_verify(&log, &receipts, NULL, &report, NULL) == LINNET_OK && report.n_included > 0)
        abort(); /* an empty log includes nothing */
    linnet_log_report_release(&report);
    linnet_receipts_release(&receipts);
    linnet_buffer_release(&written);
    return 0;
}
