# The CUDA side of the kernels: where the toolkit is, whether temper_kernels gets it, and how a .cu
# becomes an object. nvcc is called by a command of our own instead of CMake's CUDA language: its
# register and spill figures are kept beside each object, and a machine with half a toolkit still
# configures.
#
# Input:   TEMPER_CUDA (ON: kernels for CUDA; OFF: none; AUTO: if there are nvcc and a device).
# Output:  TEMPER_NVCC, TEMPER_CUDART, TEMPER_CUBLASLT (each empty where absent),
#          TEMPER_CUDA_KERNELS (TRUE: in temper_kernels), temper_cuda_objects().

set(TEMPER_CUDA_ARCHITECTURES 80 90 100 CACHE STRING "Device architectures of the kernels, such as 80;90;100")
find_program(TEMPER_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
set(TEMPER_CUDART "")
set(TEMPER_CUBLASLT "")
if(TEMPER_NVCC AND NOT TEMPER_CUDA STREQUAL "OFF")
  get_filename_component(_bin "${TEMPER_NVCC}" REALPATH)
  get_filename_component(_bin "${_bin}" DIRECTORY)
  get_filename_component(_root "${_bin}" DIRECTORY)
  set(TEMPER_CUDA_INCLUDE "${_root}/include")
  foreach(_lib cudart cublasLt)
    string(TOUPPER "TEMPER_${_lib}" _var)
    find_library(${_var}_LIBRARY ${_lib} HINTS "${_root}" PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib
      NO_DEFAULT_PATH)
    if(${_var}_LIBRARY)
      set(${_var} "${${_var}_LIBRARY}")
    endif()
  endforeach()
endif()

set(TEMPER_CUDA_KERNELS FALSE)
if(TEMPER_CUDA STREQUAL "ON")
  if(NOT TEMPER_CUDART)
    message(FATAL_ERROR "TEMPER_CUDA=ON needs a CUDA toolkit (nvcc and libcudart); put nvcc on the PATH or set CUDA_HOME.")
  endif()
  set(TEMPER_CUDA_KERNELS TRUE)
elseif(TEMPER_CUDA STREQUAL "AUTO" AND TEMPER_CUDART)
  if(EXISTS /dev/nvidiactl OR EXISTS /dev/dxg)
    set(TEMPER_CUDA_KERNELS TRUE)
  endif()
endif()
if(TEMPER_CUDA_KERNELS)
  message(STATUS "Kernels: CPU and CUDA (${TEMPER_NVCC}, sm ${TEMPER_CUDA_ARCHITECTURES})")
elseif(TEMPER_CUDART)
  message(STATUS "Kernels: CPU; CUDA is compiled by tests only, as there is no device")
else()
  message(STATUS "Kernels: CPU")
endif()

# temper_cuda_objects(TARGET SOURCES ...): a target that compiles .cu files of the calling folder into
# objects for all architectures. TARGET's property TEMPER_OBJECTS lists them; beside each OBJECT.o lies
# OBJECT.ptxas, what ptxas said about each kernel.
function(temper_cuda_objects target)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  set(_flags -std=c++20 -O3 -fmad=false -lineinfo -Xptxas=-v -ccbin "${CMAKE_CXX_COMPILER}"
    "-Xcompiler=-Wall,-Wextra,-fPIC,-fvisibility=hidden,-ffp-contract=off"
    "-I${PROJECT_SOURCE_DIR}/src/kernels" "-I${PROJECT_SOURCE_DIR}/include" "-I${PROJECT_SOURCE_DIR}/tests")
  foreach(_arch IN LISTS TEMPER_CUDA_ARCHITECTURES)
    list(APPEND _flags "-gencode=arch=compute_${_arch},code=sm_${_arch}")
    set(_newest ${_arch})
  endforeach()
  list(APPEND _flags "-gencode=arch=compute_${_newest},code=compute_${_newest}")  # For later devices.
  set(_objects "")
  foreach(_source IN LISTS ARG_SOURCES)
    get_filename_component(_name "${_source}" NAME_WE)
    set(_object "${CMAKE_CURRENT_BINARY_DIR}/${_name}.cu.o")
    add_custom_command(OUTPUT "${_object}" BYPRODUCTS "${_object}.ptxas"
      COMMAND "${CMAKE_COMMAND}" "-DLAUNCHER=${CCACHE}" "-DNVCC=${TEMPER_NVCC}" "-DFLAGS=${_flags}"
        "-DSOURCE=${CMAKE_CURRENT_SOURCE_DIR}/${_source}" "-DOBJECT=${_object}"
        -P "${PROJECT_SOURCE_DIR}/cmake/compile_cuda.cmake"
      DEPENDS "${_source}" "${PROJECT_SOURCE_DIR}/cmake/compile_cuda.cmake"
      DEPFILE "${_object}.d" COMMENT "Building CUDA object ${_name}.cu.o" VERBATIM)
    list(APPEND _objects "${_object}")
  endforeach()
  add_custom_target(${target} DEPENDS ${_objects})
  set_target_properties(${target} PROPERTIES TEMPER_OBJECTS "${_objects}")
endfunction()
