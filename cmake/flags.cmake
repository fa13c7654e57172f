# Compiler flags: strict warnings everywhere, the OpenSSF hardening set in release builds, and flags
# that this compiler lacks left out (gcc 12 has no -fstrict-flex-arrays).
include(CheckCCompilerFlag)
add_library(sluice_flags INTERFACE)
target_compile_definitions(sluice_flags INTERFACE _GNU_SOURCE SLUICE_VERSION="${PROJECT_VERSION}")
target_compile_options(sluice_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fno-omit-frame-pointer)

if(SLUICE_ASAN)
  target_compile_options(sluice_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all -O1 -g)
  target_link_options(sluice_flags INTERFACE -fsanitize=address,undefined)
elseif(SLUICE_TSAN)
  target_compile_options(sluice_flags INTERFACE -fsanitize=thread -O1 -g)
  target_link_options(sluice_flags INTERFACE -fsanitize=thread)
elseif(SLUICE_FUZZ)
  target_compile_options(sluice_flags INTERFACE
    -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -O1 -g)
  target_link_options(sluice_flags INTERFACE -fsanitize=address,undefined)
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  set(hardening -fstack-protector-strong -fstack-clash-protection -fcf-protection=full
    -fstrict-flex-arrays=3 -ftrivial-auto-var-init=zero -fno-delete-null-pointer-checks
    -fno-strict-overflow -fno-strict-aliasing -fPIE)
  foreach(flag IN LISTS hardening)
    string(MAKE_C_IDENTIFIER "HAVE${flag}" have)
    check_c_compiler_flag(${flag} ${have})
    if(${have})
      target_compile_options(sluice_flags INTERFACE ${flag})
    endif()
  endforeach()
  target_compile_definitions(sluice_flags INTERFACE _FORTIFY_SOURCE=3)
  target_link_options(sluice_flags INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed)
endif()
# Asserts stay on in release builds: a broken invariant must end the process, not corrupt a query.
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
