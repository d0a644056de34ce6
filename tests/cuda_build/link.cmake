# Links OBJECTS, with ARCHIVES behind them and CUDA_LIBRARIES, into a shared library that may leave
# nothing unresolved; with TORCH_LIB also against the CUDA half of LibTorch.
cmake_minimum_required(VERSION 3.25)
set(_torch "")
if(TORCH_LIB)
  set(_torch "-L${TORCH_LIB}" -Wl,--no-as-needed -ltorch_cuda -lc10_cuda -ltorch_cpu -lc10)
endif()
execute_process(
  COMMAND "${CXX}" -shared -Wl,-z,defs -Wl,--allow-shlib-undefined -o "${OUTPUT}" ${OBJECTS} ${ARCHIVES} ${_torch}
    ${CUDA_LIBRARIES} -pthread -ldl
  RESULT_VARIABLE _code ERROR_VARIABLE _text)
if(NOT _code EQUAL 0)
  message(FATAL_ERROR "${_text}")
endif()
