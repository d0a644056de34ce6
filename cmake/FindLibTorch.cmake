# Finds LibTorch as plain files and makes imported targets; find_package(Torch) is not used because a
# CUDA build of it probes for nvcc and edits global flags even for CPU programs.
#
# Input:   LIBTORCH_ROOT (cache or environment): a LibTorch zip, a conda prefix, or a site-packages/torch
#          folder. Default: .deps/torch_cpu/torch of the source tree, where scripts/setup puts the wheel.
# Output:  libtorch::libtorch, LIBTORCH_VERSION, LIBTORCH_LIB_DIR, LIBTORCH_HAS_CUDA.

set(LIBTORCH_ROOT "$ENV{LIBTORCH_ROOT}" CACHE PATH "LibTorch folder (holds include/ and lib/)")
set(_candidates "${LIBTORCH_ROOT}" "${LIBTORCH_ROOT}/torch" "${TEMPER_DEPS_DIR}/torch_cpu/torch")
set(_root "")
foreach(_dir IN LISTS _candidates)
  if(NOT _root AND _dir AND EXISTS "${_dir}/include/ATen/core/Tensor.h")
    set(_root "${_dir}")
  endif()
endforeach()
if(NOT _root)
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup, or set LIBTORCH_ROOT to a folder with "
                      "include/ATen and lib/libtorch_cpu.so (looked in: ${_candidates}).")
endif()

set(_version_file "${_root}/include/torch/headeronly/version.h")
if(NOT EXISTS "${_version_file}")
  set(_version_file "${_root}/include/torch/version.h")
endif()
file(STRINGS "${_version_file}" _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" LIBTORCH_VERSION "${_lines}")
if(NOT LIBTORCH_VERSION MATCHES "^2\\.11\\.")
  message(FATAL_ERROR "Temper is built against LibTorch 2.11; ${_root} holds ${LIBTORCH_VERSION}.")
endif()

set(LIBTORCH_LIB_DIR "${_root}/lib")
set(LIBTORCH_HAS_CUDA FALSE)
if(EXISTS "${LIBTORCH_LIB_DIR}/libtorch_cuda.so")
  set(LIBTORCH_HAS_CUDA TRUE)
endif()

if(NOT TARGET libtorch::libtorch)
  foreach(_lib c10 torch_cpu)
    add_library(libtorch::${_lib} SHARED IMPORTED)
    set_target_properties(libtorch::${_lib} PROPERTIES IMPORTED_LOCATION "${LIBTORCH_LIB_DIR}/lib${_lib}.so")
  endforeach()
  add_library(libtorch::libtorch INTERFACE IMPORTED)
  # -idirafter: torch/include carries its own fmt and protobuf, which must lose against the system's.
  set_target_properties(libtorch::libtorch PROPERTIES
    INTERFACE_COMPILE_OPTIONS
      "SHELL:-idirafter \"${_root}/include\";SHELL:-idirafter \"${_root}/include/torch/csrc/api/include\""
    INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1;USE_DISTRIBUTED")
  # --disable-new-dtags: a DT_RPATH also serves the libraries' own needs (cudart and cupti beside torch).
  set(_rpath "${LIBTORCH_LIB_DIR}")
  foreach(_dir "${_root}/../nvidia/cu13/lib" "/usr/local/cuda/lib64")
    if(EXISTS "${_dir}")
      get_filename_component(_dir "${_dir}" REALPATH)
      list(APPEND _rpath "${_dir}")
    endif()
  endforeach()
  list(JOIN _rpath ":" _rpath_text)
  set_property(TARGET libtorch::libtorch PROPERTY INTERFACE_LINK_OPTIONS
    "-Wl,--disable-new-dtags" "-Wl,-rpath,${_rpath_text}" "-Wl,-rpath-link,${_rpath_text}")
  set_property(TARGET libtorch::libtorch PROPERTY INTERFACE_LINK_LIBRARIES "libtorch::torch_cpu;libtorch::c10")
endif()

set(LibTorch_FOUND TRUE)
