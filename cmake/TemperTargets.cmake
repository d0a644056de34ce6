# temper_layer(NAME SOURCES ... [DEPS ...] [PRIVATE_DEPS ...] [TORCH]): one static library a layer.
# temper_test(NAME SOURCES ... [LIBS ...] [LABELS ...]): one GoogleTest binary a layer.

set_property(GLOBAL PROPERTY TEMPER_LAYERS "")

function(temper_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # g++ 12 sees overlaps in std::string that are not there (PR105329)
    -Wno-missing-field-initializers)  # designated initialisers leave fields at their defaults on purpose
  if(TEMPER_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  # A product and a sum are fused only where the source says fma: bits do not depend on the optimiser.
  target_compile_options(${target} PRIVATE -ffp-contract=off)
  if(TEMPER_SANITIZE)
    # no-recover: undefined behaviour ends the program, or a test that met it would pass.
    target_compile_options(${target} PRIVATE
      -fsanitize=${TEMPER_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${TEMPER_SANITIZE})
  endif()
  if(TEMPER_FUZZERS)  # the libraries report their coverage too
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# The Torch gate is compiled once for all targets that see Torch.
function(temper_torch_pch target)
  if(NOT TEMPER_PCH)
    return()
  endif()
  if(NOT TARGET temper_pch)
    file(WRITE "${PROJECT_BINARY_DIR}/pch.cpp.in" "// Carries the precompiled header.\n")
    configure_file("${PROJECT_BINARY_DIR}/pch.cpp.in" "${PROJECT_BINARY_DIR}/pch.cpp" COPYONLY)
    add_library(temper_pch STATIC "${PROJECT_BINARY_DIR}/pch.cpp")
    temper_flags(temper_pch)
    target_include_directories(temper_pch PRIVATE "${PROJECT_SOURCE_DIR}/include")
    target_link_libraries(temper_pch PRIVATE libtorch::libtorch)
    target_precompile_headers(temper_pch PRIVATE
      "${PROJECT_SOURCE_DIR}/include/temper/core/torch.h" <algorithm> <functional> <map> <memory> <string> <vector>)
    set_target_properties(temper_pch PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(temper_pch PRIVATE -fpch-preprocess -fPIC)
  endif()
  # Executables would be compiled with -fPIE, which does not fit a header precompiled with -fPIC.
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fpch-preprocess -fPIC)
  target_precompile_headers(${target} REUSE_FROM temper_pch)
endfunction()

function(temper_layer name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(temper_${name} STATIC ${ARG_SOURCES})
  temper_flags(temper_${name})
  target_include_directories(temper_${name} PUBLIC
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  target_compile_features(temper_${name} PUBLIC cxx_std_20)
  target_link_libraries(temper_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  if(ARG_TORCH)
    target_link_libraries(temper_${name} PUBLIC libtorch::libtorch)
    temper_torch_pch(temper_${name})
  endif()
  get_property(_layers GLOBAL PROPERTY TEMPER_LAYERS)
  set_property(GLOBAL PROPERTY TEMPER_LAYERS ${_layers} temper_${name})
  set(TEMPER_LAYERS ${_layers} temper_${name} PARENT_SCOPE)
endfunction()

function(temper_test name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  temper_flags(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_definitions(${name} PRIVATE
    TEMPER_SOURCE_DIR="${PROJECT_SOURCE_DIR}" TEMPER_DEPS_DIR="${TEMPER_DEPS_DIR}" TEMPER_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  if(ARG_TORCH)
    temper_torch_pch(${name})
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS cpu)
  endif()
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600)
endfunction()
