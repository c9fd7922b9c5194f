/* SPDX-License-Identifier: Apache-2.0 */
/* For the analyser alone, which sees one source file at a time: a failure returns what it was given, never
 * OK. Without this it follows every error into the code after it. Included before each file by script/lint.
 */
#ifndef LINNET_SCRIPT_TIDY_H
#define LINNET_SCRIPT_TIDY_H

#include "linnet/status.h"

#define linnet_fail(err, status, ...) ((void)(linnet_fail)(err, status, __VA_ARGS__), (status))
#define linnet_fail_errno(err, number, ...)                                                                  \
    ((void)(linnet_fail_errno)(err, number, __VA_ARGS__), LINNET_ERR_IO)
#define linnet_error_prefix(err, status, ...)                                                                \
    ((void)(linnet_error_prefix)(err, status, __VA_ARGS__), (status))

#endif
