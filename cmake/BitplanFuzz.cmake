# BITPLAN_FUZZ: everything is compiled for libFuzzer, with the address and undefined-behaviour sanitizers. Clang only.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "BITPLAN_FUZZ needs Clang: cmake --preset fuzz")
endif()

# In C++20, vector of libstdc++ is constexpr, and Clang before 16 then wants the type of its elements at once; headers of
# LibTorch have vectors of a type that is declared further below. Copies of three headers without the word come first.
if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 16)
  file(WRITE ${CMAKE_BINARY_DIR}/vector.cpp "#include <vector>\n")
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -M ${CMAKE_BINARY_DIR}/vector.cpp OUTPUT_VARIABLE headers)
  string(REGEX MATCH "[^ \n]+/bits/stl_vector\\.h" header "${headers}")
  get_filename_component(folder "${header}" DIRECTORY)
  foreach(name stl_vector.h vector.tcc stl_bvector.h)
    file(READ ${folder}/${name} text)
    set(before "")
    set(after "")
    if(name STREQUAL stl_bvector.h)  # only the class itself: its iterators are declared constexpr elsewhere too
      string(FIND "${text}" "class vector<bool, _Alloc>" begin)
      string(SUBSTRING "${text}" 0 ${begin} before)
      string(SUBSTRING "${text}" ${begin} -1 text)
      string(FIND "${text}" "\n    };" end)
      string(SUBSTRING "${text}" ${end} -1 after)
      string(SUBSTRING "${text}" 0 ${end} text)
    endif()
    string(REPLACE "_GLIBCXX20_CONSTEXPR" "" text "${text}")
    file(WRITE ${CMAKE_BINARY_DIR}/libstdcxx/bits/${name} "${before}${text}${after}")
  endforeach()
  include_directories(BEFORE SYSTEM ${CMAKE_BINARY_DIR}/libstdcxx)
endif()

# Without vptr: it wants type information of classes that LibTorch keeps to itself.
set(BITPLAN_FUZZ_CHECKS -fsanitize=address,undefined -fno-sanitize=vptr)
add_compile_options(-fsanitize=fuzzer-no-link ${BITPLAN_FUZZ_CHECKS} -fno-sanitize-recover=undefined
                    -fno-omit-frame-pointer -gline-tables-only -Wno-pass-failed)
add_link_options(${BITPLAN_FUZZ_CHECKS})
