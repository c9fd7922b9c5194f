# SPDX-License-Identifier: Apache-2.0
linnet_fuzzer(message linnet_proto)
linnet_fuzzer(signed linnet_proto)
linnet_fuzzer(frame linnet_proto)
linnet_fuzzer(plan linnet_proto)
linnet_fuzzer(lmdb_check linnet_base)
foreach(name log receipts receipt_list evidence)
  linnet_fuzzer(${name} linnet_proto)
endforeach()
