# SPDX-License-Identifier: Apache-2.0
foreach(name gguf safetensors adapter_load adapter_unpack)
  linnet_fuzzer(${name} linnet_adapters)
endforeach()
