# SPDX-License-Identifier: Apache-2.0
linnet_fuzzer(policy linnet_device)
