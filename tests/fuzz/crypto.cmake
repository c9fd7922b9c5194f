# SPDX-License-Identifier: Apache-2.0
foreach(name csr certificate revocation channel_key request response invite shamir_decode)
  linnet_fuzzer(${name} linnet_crypto)
endforeach()
foreach(name roster sharers survivors certificate advert shares attestation unmasking complaint abort record box stateful)
  linnet_fuzzer(secagg_${name} linnet_crypto)
  target_include_directories(fuzz_secagg_${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/tests)
endforeach()
