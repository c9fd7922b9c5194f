# SPDX-License-Identifier: Apache-2.0
# Cross build for aarch64: Debian's compiler and C library, and the libraries that script/cross unpacks beside the
# build; tests run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(LINNET_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build/sysroot-arm64)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static;-L;${LINNET_SYSROOT})
