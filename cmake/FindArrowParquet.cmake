# Apache Arrow's C++ libraries with Parquet, 21 or later, as temper_deps::parquet. First a CMake package
# (Apache's own Debian repository, conda, vcpkg), then the copy inside the Python package pyarrow, whose
# folder TEMPER_PYARROW names; without it python3 is asked.
set(TEMPER_PYARROW "" CACHE PATH "Folder of the Python package pyarrow, for TEMPER_PARQUET")

function(temper_find_arrow_package)
  find_package(Arrow 21 CONFIG QUIET)
  find_package(Parquet CONFIG QUIET)
  if(TARGET Parquet::parquet_shared AND TARGET Arrow::arrow_shared)
    set_target_properties(Parquet::parquet_shared Arrow::arrow_shared PROPERTIES IMPORTED_GLOBAL ON)
    add_library(temper_deps::parquet INTERFACE IMPORTED GLOBAL)
    target_link_libraries(temper_deps::parquet INTERFACE Parquet::parquet_shared Arrow::arrow_shared)
  endif()
endfunction()

function(temper_find_pyarrow)
  set(folder "${TEMPER_PYARROW}")
  if(NOT folder)
    find_package(Python3 COMPONENTS Interpreter QUIET)
    execute_process(COMMAND "${Python3_EXECUTABLE}" -c
        "import os, pyarrow; print(os.path.dirname(pyarrow.__file__), end='')"
      OUTPUT_VARIABLE folder ERROR_QUIET)
  endif()
  file(GLOB parquet "${folder}/libparquet.so*")
  file(GLOB arrow "${folder}/libarrow.so*")
  if(NOT parquet OR NOT arrow OR NOT EXISTS "${folder}/include/parquet/arrow/reader.h")
    return()
  endif()
  list(GET parquet 0 parquet)
  list(GET arrow 0 arrow)
  add_library(temper_deps::parquet INTERFACE IMPORTED GLOBAL)
  target_include_directories(temper_deps::parquet SYSTEM INTERFACE "${folder}/include")
  target_link_libraries(temper_deps::parquet INTERFACE "${parquet}" "${arrow}")
  set(TEMPER_PYARROW "${folder}" CACHE PATH "Folder of the Python package pyarrow, for TEMPER_PARQUET" FORCE)
endfunction()

if(NOT TARGET temper_deps::parquet)
  if(NOT TEMPER_PYARROW)
    temper_find_arrow_package()
  endif()
  if(NOT TARGET temper_deps::parquet)
    temper_find_pyarrow()
  endif()
endif()
include(FindPackageHandleStandardArgs)
if(TARGET temper_deps::parquet)
  set(ArrowParquet_TARGET temper_deps::parquet)
endif()
find_package_handle_standard_args(ArrowParquet
  REQUIRED_VARS ArrowParquet_TARGET
  REASON_FAILURE_MESSAGE "TEMPER_PARQUET needs Apache Arrow's C++ libraries: install them, or the Python package pyarrow and set TEMPER_PYARROW to its folder")
