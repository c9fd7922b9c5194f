# SPDX-License-Identifier: Apache-2.0
# protobuf-c's generator, hidden in one function: from protobuf-c 1.5.1 on the program changes its name.

find_program(LINNET_PROTOC_C protoc-c REQUIRED)

# linnet_protobuf(TARGET FILE.proto): adds the generated C to a target, which alone sees the generated header.
function(linnet_protobuf target file)
  get_filename_component(stem ${file} NAME_WE)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  add_custom_command(
    OUTPUT ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h
    COMMAND ${LINNET_PROTOC_C} --c_out=${out} --proto_path=${CMAKE_CURRENT_SOURCE_DIR}
            ${CMAKE_CURRENT_SOURCE_DIR}/${file}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file}
    COMMENT "protobuf-c ${file}")
  target_sources(${target} PRIVATE ${out}/${stem}.pb-c.c)
  set_source_files_properties(${out}/${stem}.pb-c.c PROPERTIES COMPILE_OPTIONS "-w")
  target_include_directories(${target} PRIVATE ${out})
endfunction()
