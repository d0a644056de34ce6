# Compiles SOURCE with NVCC and FLAGS into OBJECT; keeps the lines of ptxas in OBJECT.ptxas and shows
# the others.
cmake_minimum_required(VERSION 3.25)
execute_process(
  COMMAND ${LAUNCHER} "${NVCC}" ${FLAGS} -MD -MF "${OBJECT}.d" -c "${SOURCE}" -o "${OBJECT}"
  RESULT_VARIABLE _code OUTPUT_VARIABLE _text ERROR_VARIABLE _text)
string(REGEX REPLACE "[^\n]*(ptxas info|bytes stack frame)[^\n]*\n" "" _rest "${_text}")
if(NOT _code EQUAL 0)
  message(FATAL_ERROR "${_rest}")
endif()
if(_rest MATCHES "[^ \n]")
  message("${_rest}")
endif()
file(WRITE "${OBJECT}.ptxas" "${_text}")
