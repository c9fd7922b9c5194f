/* SPDX-License-Identifier: Apache-2.0 */
/* A task's log from anybody: what parses is written to the same bytes, and any log at all can be verified,
 * alone and against itself; what is no evidence is not counted as it. */
#include "linnet/transcript.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    linnet_log log;
    linnet_log_report report = {.n_findings = 0};
    linnet_buffer written = {0};
    if (linnet_crypto_init(NULL) != LINNET_OK || linnet_log_parse(bytes, n_bytes, &log, NULL) != LINNET_OK)
        return 0;
    if (linnet_log_write(&log, &written, NULL) != LINNET_OK || written.n_bytes != n_bytes ||
        memcmp(written.bytes, bytes, n_bytes) != 0)
        abort();
    if (linnet_log_verify(&log, NULL, &log, &report, NULL) == LINNET_OK) {
        for (size_t i = 0; i < report.n_findings; i++)
            if (report.findings[i].index != SIZE_MAX && report.findings[i].index >= log.n_entries)
                abort();
        if ((report.n_equivocations > 0) != (report.evidence.n_bytes > 0))
            abort();
    }
    linnet_log_report_release(&report);
    linnet_log_release(&log);
    linnet_buffer_release(&written);
    return 0;
}
