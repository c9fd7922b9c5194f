#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What other programs are built on: the exported symbols, and sizes, offsets and numbers of the public header, against
# abi.txt beside this file (of 64-bit machines; elsewhere the symbols alone). LINNET_UPDATE_ABI=1 writes it: a line that
# is changed or gone breaks programs, and needs another LIN_ABI and soname; new lines do not. And the header compiles
# alone in every language it is for. usage: test_abi.sh PRINT_ABI LIBRARY INCLUDE (environment: CC, NM, SANITIZER, COVERAGE)
set -eu
print_abi=$1 library=$2 include=$3
list=$(dirname "$0")/abi.txt
status=0
verdict() { # claim, how it went
    if [ "$2" -eq 0 ]; then
        echo "[       OK ] $1"
    else
        echo "[  FAILED  ] $1"
        status=1
    fi
}

symbols() { ${NM:-nm} -D --defined-only "$library" | awk '{print "symbol", $NF}' | sort; }
if [ "${COVERAGE:-OFF}" = OFF ] && [ -z "${SANITIZER:-}" ]; then # which add symbols of their own
    went=0
    if symbols | grep -v '^symbol lin_'; then
        went=1
    fi
    verdict the_library_exports_its_own_names_alone "$went"
fi

now=$(mktemp)
trap 'rm -f "$now"' EXIT
symbols | grep '^symbol lin_' >"$now"
wanted='^'
if [ "$(getconf LONG_BIT)" = 64 ]; then
    "$print_abi" >>"$now"
else
    wanted='^symbol'
fi
[ -z "${LINNET_UPDATE_ABI:-}" ] || cp "$now" "$list"
went=0
grep "$wanted" "$list" | diff - "$now" || went=1
verdict the_interface_is_the_one_that_is_written_down "$went"

went=0
for standard in c99 c11; do
    ${CC:-cc} -std=$standard -Wall -Wextra -pedantic -Werror -fsyntax-only -x c "$include/linnet-device.h" || went=1
done
if command -v c++ >/dev/null; then
    c++ -std=c++17 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c++ "$include/linnet-device.h" || went=1
fi
verdict the_header_compiles_alone_as_c99_c11_and_cpp17 "$went"
exit "$status"
