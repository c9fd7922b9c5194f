#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install linnet from a build folder into a prefix of its own; then an outside program compiles, links and runs with
# find_package and with pkg-config. As a subproject linnet offers libraries only. Prints its results as cmocka does.
# usage: run.sh BUILD (environment: CC, CMAKE, SANITIZER, COVERAGE)
set -eu
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cmake=${CMAKE:-cmake}
CC=${CC:-cc}
CFLAGS=${SANITIZER:+-fsanitize=$SANITIZER}
[ "${COVERAGE:-OFF}" = OFF ] || CFLAGS=--coverage
export CC CFLAGS
work=$build/install-test
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work"

claim=
trap '[ -z "$claim" ] || { cat "$work/log"; echo "[  FAILED  ] $claim"; }' EXIT
begin() { claim=$1; : >"$work/log"; }
done_ok() { echo "[       OK ] $claim"; claim=; }

begin install_leaves_programs_headers_and_packages
"$cmake" --install "$build" --prefix "$prefix" >"$work/log" 2>&1
for program in linnet-client linnet-coordinator linnet-sim; do
    "$prefix/bin/$program" --version >>"$work/log"
done
[ -f "$prefix/include/linnet/device.h" ]
packages=$(dirname "$(find "$prefix" -name linnet.pc)")
done_ok

begin find_package_compiles_links_and_runs
"$cmake" -S "$here/find_package" -B "$work/find_package" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1
"$cmake" --build "$work/find_package" >>"$work/log" 2>&1
"$work/find_package/embed" >>"$work/log" 2>&1
done_ok

begin pkg_config_compiles_links_and_runs
# shellcheck disable=SC2046,SC2086  # lists of flags on purpose
PKG_CONFIG_PATH=$packages "$CC" $CFLAGS "$here/embed.c" -o "$work/embed" \
    $(PKG_CONFIG_PATH=$packages pkg-config --cflags --libs linnet) >"$work/log" 2>&1
"$work/embed" >>"$work/log" 2>&1
done_ok

begin a_subproject_builds_only_libraries
"$cmake" -S "$here/subproject" -B "$work/subproject" >"$work/log" 2>&1
"$cmake" --build "$work/subproject" --target help >>"$work/log" 2>&1
grep -q linnet_device "$work/log"
grep -qE 'linnet-client|linnet-coordinator|linnet-sim|test_|manual' "$work/log" && exit 1
"$cmake" --build "$work/subproject" --target linnet_base >>"$work/log" 2>&1
done_ok
