# SPDX-License-Identifier: Apache-2.0
linnet_fuzzer(coordinator linnet_coordinator)
linnet_fuzzer(coordinator_rows linnet_coordinator)
target_include_directories(fuzz_coordinator_rows PRIVATE ${CMAKE_SOURCE_DIR})
linnet_fuzzer(coordinator_round linnet_coordinator)
