# SPDX-License-Identifier: Apache-2.0
# Install rules: libraries with an export set, headers, a versioned CMake package and pkg-config files.
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY LINNET_LIBRARIES)
install(TARGETS ${libraries} EXPORT linnetTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# The shared library is a package of its own, which needs none of the others' dependencies.
install(TARGETS linnet-device EXPORT linnetDeviceTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(EXPORT linnetDeviceTargets NAMESPACE linnet:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/linnet)
install(EXPORT linnetTargets NAMESPACE linnet:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/linnet)
foreach(folder proto/base crypto proto adapters client client/library coordinator sims)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${folder}/include)
    install(DIRECTORY ${CMAKE_SOURCE_DIR}/${folder}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  endif()
endforeach()
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/linnetConfig.cmake.in ${CMAKE_BINARY_DIR}/linnetConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/linnet)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/linnetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/linnetConfig.cmake ${CMAKE_BINARY_DIR}/linnetConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/linnet)
# The prefix is where the file lies, so that `cmake --install --prefix` may choose another one later.
file(RELATIVE_PATH LINNET_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(package linnet linnet-device)
  configure_file(${CMAKE_SOURCE_DIR}/cmake/${package}.pc.in ${CMAKE_BINARY_DIR}/${package}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${package}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
