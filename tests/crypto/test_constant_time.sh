#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sharing, masking and sealing take no branch and use no address that depends on a secret: valgrind's memcheck follows
# secrets that ct_secagg marks as undefined. A deliberate leak is reported, so the check can fail. Prints its results as
# cmocka does, to be counted with the others.
# usage: test_constant_time.sh [CT_SECAGG]     (nothing to run: skipped)
set -eu
claim=no_branch_and_no_address_depends_on_a_secret
control=a_branch_on_a_share_is_reported
program=${1:-}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if [ -z "$program" ] || ! command -v valgrind >/dev/null; then
    echo "needs valgrind and its headers (Debian: valgrind), and a build without sanitizers"
    printf '[  SKIPPED ] %s\n' $claim $control
    exit 77
fi

# memcheck's exit status: 99 for what it reports, else that of the program.
check() {
    result=0
    valgrind --quiet --error-exitcode=99 --suppressions="$(dirname "$0")/valgrind.supp" "$program" "$@" >"$log" 2>&1 ||
        result=$?
}

status=0
check
if [ $result -eq 0 ]; then
    echo "[       OK ] $claim"
else
    cat "$log"
    echo "[  FAILED  ] $claim"
    status=1
fi
check --leak
if [ $result -eq 99 ] && grep -q 'depends on uninitialised value' "$log"; then
    echo "[       OK ] $control"
else
    cat "$log"
    echo "[  FAILED  ] $control"
    status=1
fi
exit $status
