# System libraries without CMake files of their own, as targets temper_deps::<name>. The installed
# package includes this file too: a static library's private needs are its consumer's to link.
function(temper_imported_library target header library)
  find_path(${target}_INCLUDE ${header} REQUIRED)
  find_library(${target}_LIBRARY ${library} REQUIRED)
  mark_as_advanced(${target}_INCLUDE ${target}_LIBRARY)
  if(NOT TARGET temper_deps::${target})
    add_library(temper_deps::${target} UNKNOWN IMPORTED)
    set_target_properties(temper_deps::${target} PROPERTIES
      IMPORTED_LOCATION "${${target}_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${${target}_INCLUDE}")
  endif()
endfunction()

temper_imported_library(pcre2 pcre2.h pcre2-8)
temper_imported_library(utf8proc utf8proc.h utf8proc)
temper_imported_library(sentencepiece sentencepiece_processor.h sentencepiece)
