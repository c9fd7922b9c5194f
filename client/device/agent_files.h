/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_DEVICE_AGENT_FILES_H
#define LINNET_DEVICE_AGENT_FILES_H

/* Inner header: adapters that were installed, as files in the state directory. */

#include "linnet/adapter.h"

typedef struct agent_adapter {
    const linnet_adapter *adapter;
    linnet_hash hash; /* of its object */
    const char *architecture, *model_path;
} agent_adapter; /* borrowed during the call */

/** adapter/current is always whole: the new one is written beside it and renamed; the one before stays as
 * adapter/previous. One that is there already is left alone. */
linnet_status agent_files_write(const char *state_directory, const agent_adapter *from,
                                linnet_error *err) LINNET_NODISCARD;

#endif
