# SPDX-License-Identifier: Apache-2.0
# Cross build for armv7: as aarch64, for the oldest floating-point unit that Debian's armhf knows.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-linux-gnueabihf-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE arm-linux-gnueabihf)
set(LINNET_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build/sysroot-armhf)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-arm-static;-L;${LINNET_SYSROOT})
set(CMAKE_C_FLAGS_INIT "-march=armv7-a -mfpu=vfpv3-d16")
