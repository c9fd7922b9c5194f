# SPDX-License-Identifier: Apache-2.0
linnet_fuzzer(policy linnet_device)
linnet_fuzzer(consortium linnet_device)
linnet_fuzzer(announcement linnet_device)
linnet_fuzzer(device_state linnet_device)
linnet_fuzzer(record linnet_train)
linnet_fuzzer(tokenizer linnet_engine)
linnet_fuzzer(vocabulary linnet_train)
linnet_fuzzer(model linnet_engine)
