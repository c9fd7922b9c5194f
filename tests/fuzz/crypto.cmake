# SPDX-License-Identifier: Apache-2.0
foreach(name csr certificate revocation channel_key request response invite)
  linnet_fuzzer(${name} linnet_crypto)
endforeach()
