# Run by ctest; see CMakeLists.txt for the variables.

function(run)
  cmake_parse_arguments(ARG "" "EXPECT" "COMMAND" ${ARGN})
  execute_process(COMMAND ${ARG_COMMAND} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT code EQUAL 0)
    list(JOIN ARG_COMMAND " " text)
    message(FATAL_ERROR "'${text}' ended with ${code}:\n${out}")
  endif()
  if(ARG_EXPECT AND NOT out MATCHES "${ARG_EXPECT}")
    message(FATAL_ERROR "expected output like '${ARG_EXPECT}', got:\n${out}")
  endif()
endfunction()

file(REMOVE_RECURSE "${SCRATCH_DIR}")
set(prefix "${SCRATCH_DIR}/prefix")
run(COMMAND "${CMAKE_COMMAND}" --install "${BUILD_DIR}" --prefix "${prefix}")

# Nothing of the package may name the source or build tree: it has to work when they are gone.
file(GLOB_RECURSE package_files "${prefix}/*.cmake")
if(NOT package_files)
  message(FATAL_ERROR "no package files under ${prefix}")
endif()
foreach(file IN LISTS package_files)
  file(READ "${file}" text)
  string(FIND "${text}" "${BUILD_DIR}/" found)
  if(NOT found EQUAL -1)
    message(FATAL_ERROR "${file} names the build folder ${BUILD_DIR}")
  endif()
endforeach()

run(COMMAND "${CMAKE_COMMAND}" -G Ninja -S "${CONSUMER_DIR}" -B "${SCRATCH_DIR}/build"
  "-DCMAKE_PREFIX_PATH=${prefix}" "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_BUILD_TYPE=${BUILD_TYPE}")
run(COMMAND "${CMAKE_COMMAND}" --build "${SCRATCH_DIR}/build")
# By hand: A = +-0.5 / (sqrt(0.5) + 1e-4); at ratio 1 the loss is -sum(A_i length_i) / 5 = -A / 5.
run(COMMAND "${SCRATCH_DIR}/build/consumer" rewards=1,0 lengths=3,2
  EXPECT "^temper ${VERSION}\nadvantages 0.707007 -0.707007\nloss -0.141401\n$")

# A package of another major version is refused.
file(WRITE "${SCRATCH_DIR}/other/CMakeLists.txt"
  "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES CXX)\nfind_package(Temper 99.0 REQUIRED)\n")
execute_process(COMMAND "${CMAKE_COMMAND}" -G Ninja -S "${SCRATCH_DIR}/other" -B "${SCRATCH_DIR}/other/build"
  "-DCMAKE_PREFIX_PATH=${prefix}" RESULT_VARIABLE code OUTPUT_QUIET ERROR_QUIET)
if(code EQUAL 0)
  message(FATAL_ERROR "find_package(Temper 99.0) was satisfied by ${VERSION}")
endif()
