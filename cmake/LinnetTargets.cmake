# SPDX-License-Identifier: Apache-2.0
# Flags and helpers shared by every target; flags belong to targets, so they hang on one interface library.

add_library(linnet_flags INTERFACE)
target_compile_features(linnet_flags INTERFACE c_std_11)
target_compile_definitions(linnet_flags INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE _FILE_OFFSET_BITS=64
                           LINNET_VERSION="${PROJECT_VERSION}")
# Results must repeat: no fused multiply-add unless a kernel asks for it by name, never fast-math.
target_compile_options(linnet_flags INTERFACE -ffp-contract=off -fvisibility=hidden -fno-math-errno
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual
  -Wwrite-strings -Wformat=2 -Wundef -Wvla)
target_compile_options(linnet_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:-O2>)
set_property(GLOBAL PROPERTY LINNET_LIBRARIES "")

function(linnet_late_flags)
  if(LINNET_WERROR)
    target_compile_options(linnet_flags INTERFACE -Werror)
  endif()
  if(LINNET_SANITIZER)
    target_compile_options(linnet_flags INTERFACE -fsanitize=${LINNET_SANITIZER} -fno-sanitize-recover=all
                           -fno-omit-frame-pointer -g)
    target_link_options(linnet_flags INTERFACE -fsanitize=${LINNET_SANITIZER})
  endif()
  if(LINNET_COVERAGE)
    target_compile_options(linnet_flags INTERFACE --coverage -O0 -g)
    target_link_options(linnet_flags INTERFACE --coverage)
  endif()
endfunction()
cmake_language(DEFER CALL linnet_late_flags)

# linnet_library(NAME SOURCES... ): static, position independent, alias linnet::<name without prefix>,
# public headers in <folder>/include.
function(linnet_library name)
  add_library(${name} STATIC ${ARGN})
  string(REPLACE "linnet_" "" short ${name})
  add_library(linnet::${short} ALIAS ${name})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON EXPORT_NAME ${short})
  target_include_directories(${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${name} PRIVATE $<BUILD_INTERFACE:linnet_flags>)
  set_property(GLOBAL APPEND PROPERTY LINNET_LIBRARIES ${name})
endfunction()

# linnet_program(NAME MAIN.C LIBRARIES...)
function(linnet_program name main)
  add_executable(${name} ${main})
  target_link_libraries(${name} PRIVATE linnet_flags ${ARGN})
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# linnet_test(NAME LIBRARIES...): tests/<folder>/<name>.c, one cmocka program. LINNET_SHARED names the folder of
# shared test data at run time; tests that need it skip, and say so, where it is absent.
function(linnet_test name)
  add_executable(${name} ${name}.c)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE linnet_flags ${ARGN} PkgConfig::CMOCKA m)
  target_compile_definitions(${name} PRIVATE LINNET_VECTORS="${CMAKE_SOURCE_DIR}/tests/vectors"
    LINNET_SOURCE="${CMAKE_SOURCE_DIR}" LINNET_BIN="${CMAKE_BINARY_DIR}/bin")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set(timeout 600)
  if(LINNET_SANITIZER)
    set(timeout 1800)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout}
    ENVIRONMENT "LINNET_SHARED=${CMAKE_SOURCE_DIR}/../shared")
endfunction()
