#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every command and every option that a program's --help knows stands in its manual page, and every option in a page is
# one that the program knows. The page of the library names every function. Prints its result as cmocka does, to be counted with the others.
# usage: test_manual.sh FOLDER_OF_PROGRAMS
set -eu
bin=$1
manual=$(dirname "$0")/../../docs/man
status=0

for program in linnet-client linnet-coordinator linnet-sim; do
    page=$manual/$program.1.scd
    known=
    for command in $("$bin/$program" --help | awk '/^commands:/{on = 1; next} /^$/{on = 0} on{print $1}'); do
        grep -q "^## $command\\b" "$page" || { echo "$page: no command $command"; status=1; }
        options=$("$bin/$program" "$command" --help | awk '/^  --/{print $1}')
        known="$known $options"
        part=$(awk -v want="$command" '/^#/{on = ($1 == "##" && $2 == want) || /^# COMMON/} on' "$page")
        for option in $options; do
            echo "$part" | grep -q "^\\*$option\\*" || { echo "$page: $command has no $option"; status=1; }
        done
    done
    for option in $(grep -oE '^\*--[a-z0-9-]+\*' "$page" | tr -d '*'); do
        echo "$known" | tr ' ' '\n' | grep -qx -e "$option" || { echo "$page: $option is unknown to $program"; status=1; }
    done
done
[ $status -eq 0 ] && echo "[       OK ] the_manual_pages_name_every_option" || echo "[  FAILED  ] the_manual_pages_name_every_option"

went=0
functions=$(awk '$1 == "symbol" {print $2}' "$manual/../../tests/library/abi.txt")
for name in $functions; do
    grep -qE "\\b$name\\(" "$manual/linnet-device.3.scd" || { echo "linnet-device(3): no $name"; went=1; status=1; }
done
[ $went -eq 0 ] && echo "[       OK ] linnet_device_3_names_every_function" || echo "[  FAILED  ] linnet_device_3_names_every_function"
exit $status
