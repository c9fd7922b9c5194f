# SPDX-License-Identifier: Apache-2.0
foreach(name gguf safetensors adapter_load adapter_unpack packed)
  linnet_fuzzer(${name} linnet_adapters)
endforeach()
