#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install linnet from a build folder into a prefix of its own; then an outside program compiles, links and runs with
# find_package and with pkg-config, against the libraries and against the one for apps. As a subproject linnet offers libraries only. Prints its results as cmocka does.
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
model=$(cd "$here/../.." && pwd)/sims/bundled/linnet-notes-Q8_0.gguf
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

begin the_library_for_apps_needs_its_header_and_nothing_of_linnets
# Whoever has the shared library alone has none of the development packages that linnet is built from.
# shellcheck disable=SC2046,SC2086  # lists of flags on purpose
{
    "$cmake" -S "$here/app" -B "$work/app" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON
    "$cmake" --build "$work/app"
    "$work/app/app" "$model"
    "$CC" $CFLAGS "$here/app/app.c" -o "$work/app-pc" \
        $(PKG_CONFIG_LIBDIR=$packages pkg-config --cflags --libs linnet-device)
    LD_LIBRARY_PATH=$(dirname "$packages") "$work/app-pc" "$model"
} >"$work/log" 2>&1
[ "$(find "$prefix" -name 'liblinnet-device.so.0' | wc -l)" = 1 ]
done_ok

begin the_readmes_program_compiles_as_pasted
# shellcheck disable=SC2016  # the backquotes are the README's
awk '/^```c$/{on = 1; next} /^```$/{on = 0} on' "$here/../../README.md" >"$work/readme.c"
grep -q 'int main' "$work/readme.c"
# shellcheck disable=SC2046,SC2086  # lists of flags on purpose
"$CC" $CFLAGS -Wall -Wextra -Werror "$work/readme.c" -o "$work/readme" \
    $(PKG_CONFIG_LIBDIR=$packages pkg-config --cflags --libs linnet-device) >"$work/log" 2>&1
LD_LIBRARY_PATH=$(dirname "$packages") "$work/readme" "$model" >>"$work/log" 2>&1
done_ok

begin a_subproject_builds_only_libraries
"$cmake" -S "$here/subproject" -B "$work/subproject" >"$work/log" 2>&1
"$cmake" --build "$work/subproject" --target help >>"$work/log" 2>&1
grep -q linnet_device "$work/log"
grep -qE 'linnet-client|linnet-coordinator|linnet-sim|test_|manual' "$work/log" && exit 1
"$cmake" --build "$work/subproject" --target linnet_base >>"$work/log" 2>&1
done_ok
