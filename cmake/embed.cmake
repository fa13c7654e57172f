# Turns a text file into a C string, `const char <symbol>[]`; out_var is the C file.
function(sluice_embed_file out_var file symbol)
  set(out ${CMAKE_BINARY_DIR}/gen/${symbol}.c)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  cmake_path(RELATIVE_PATH file BASE_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE name)
  file(GENERATE OUTPUT ${out} CONTENT
    "/* Generated from ${name}. */\nextern const char ${symbol}[];\nconst char ${symbol}[] = {${bytes}0};\n")
  set(${out_var} ${out} PARENT_SCOPE)
endfunction()
