# SPDX-License-Identifier: Apache-2.0
foreach(name gguf gguf_parts checkpoint safetensors adapter_load adapter_unpack packed)
  linnet_fuzzer(${name} linnet_adapters)
endforeach()
