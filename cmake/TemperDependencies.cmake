# What scripts/setup installs. Keep the public half in step with TemperConfig.cmake.in.
set(TEMPER_CUDA AUTO CACHE STRING "CUDA kernels and, with ON, the CUDA flavour of LibTorch: AUTO, ON or OFF")
set_property(CACHE TEMPER_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT TEMPER_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TEMPER_CUDA must be AUTO, ON or OFF, got '${TEMPER_CUDA}'.")
endif()
include(TemperCuda)

find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(hwy CONFIG REQUIRED)
find_package(LibTorch MODULE REQUIRED)
include(TemperSystemLibraries)

# Needed here only, not by programs that use an installed Temper.
find_package(CLI11 REQUIRED)
if(TEMPER_TESTS)
  find_package(GTest REQUIRED)
endif()
if(TEMPER_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
