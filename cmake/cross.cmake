# SPDX-License-Identifier: Apache-2.0
# What both cross builds say about the libraries in LINNET_SYSROOT, which holds no C library for the linker.
get_filename_component(LINNET_SYSROOT ${LINNET_SYSROOT} ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH ${LINNET_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(ENV{PKG_CONFIG_LIBDIR}
    ${LINNET_SYSROOT}/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/pkgconfig:${LINNET_SYSROOT}/usr/share/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${LINNET_SYSROOT})
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "-Wl,-rpath-link,${LINNET_SYSROOT}/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}:${LINNET_SYSROOT}/lib/${CMAKE_LIBRARY_ARCHITECTURE}")
