# Finds LibTorch as plain files and makes imported targets; find_package(Torch) is not used because a
# CUDA build of it probes for nvcc and edits global flags even for CPU programs.
#
# Input:   LIBTORCH_ROOT (cache or environment): a LibTorch zip, a conda prefix, or a site-packages/torch
#          folder. Then LIBTORCH_HINTS, then where scripts/setup puts the wheels.
#          TEMPER_CUDA=ON: a copy with libtorch_cuda.so is required.
# Output:  libtorch::libtorch (torch_cpu and c10), with TEMPER_CUDA=ON also libtorch::torch_cuda and
#          libtorch::c10_cuda; LIBTORCH_VERSION, LIBTORCH_FOUND_ROOT, LIBTORCH_LIB_DIR, LIBTORCH_HAS_CUDA.

set(LIBTORCH_ROOT "$ENV{LIBTORCH_ROOT}" CACHE PATH "LibTorch folder (holds include/ and lib/)")
set(_flavour cpu)
if(TEMPER_CUDA STREQUAL "ON")
  set(_flavour cuda)
endif()
set(_candidates ${LIBTORCH_HINTS})
if(LIBTORCH_ROOT)
  list(PREPEND _candidates "${LIBTORCH_ROOT}" "${LIBTORCH_ROOT}/torch")
endif()
if(TEMPER_DEPS_DIR)
  list(APPEND _candidates "${TEMPER_DEPS_DIR}/torch_${_flavour}/torch")
endif()
set(LIBTORCH_FOUND_ROOT "")
foreach(_dir IN LISTS _candidates)
  if(NOT LIBTORCH_FOUND_ROOT AND EXISTS "${_dir}/include/ATen/core/Tensor.h")
    get_filename_component(LIBTORCH_FOUND_ROOT "${_dir}" REALPATH)
  endif()
endforeach()
if(NOT LIBTORCH_FOUND_ROOT)
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup, or set LIBTORCH_ROOT to a folder with "
                      "include/ATen and lib/libtorch_cpu.so (looked in: ${_candidates}).")
endif()
set(_root "${LIBTORCH_FOUND_ROOT}")

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
set(_libraries c10 torch_cpu)
if(TEMPER_CUDA STREQUAL "ON")
  if(NOT LIBTORCH_HAS_CUDA)
    message(FATAL_ERROR "TEMPER_CUDA=ON, but ${LIBTORCH_LIB_DIR} has no libtorch_cuda.so: run scripts/setup --cuda, "
                        "or set LIBTORCH_ROOT to a CUDA build of LibTorch 2.11.")
  endif()
  list(APPEND _libraries c10_cuda torch_cuda)
endif()

foreach(_lib IN LISTS _libraries)
  if(NOT TARGET libtorch::${_lib})
    add_library(libtorch::${_lib} SHARED IMPORTED)
    set_target_properties(libtorch::${_lib} PROPERTIES IMPORTED_LOCATION "${LIBTORCH_LIB_DIR}/lib${_lib}.so")
  endif()
endforeach()
if(NOT TARGET libtorch::libtorch)
  add_library(libtorch::libtorch INTERFACE IMPORTED)
  # -idirafter: torch/include carries its own fmt and protobuf, which must lose against the system's.
  set_target_properties(libtorch::libtorch PROPERTIES
    INTERFACE_COMPILE_OPTIONS
      "SHELL:-idirafter \"${_root}/include\";SHELL:-idirafter \"${_root}/include/torch/csrc/api/include\""
    INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1;USE_DISTRIBUTED")
  # --disable-new-dtags: a DT_RPATH also serves the libraries' own needs (cudart and cupti beside torch).
  set(_rpath "${LIBTORCH_LIB_DIR}")
  foreach(_dir "${_root}/../nvidia/cu13/lib" "/usr/local/cuda/lib64"
               "${_root}/../nvidia/cusparselt/lib" "${_root}/../nvidia/nvshmem/lib")
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
