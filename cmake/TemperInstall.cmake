# cmake --install: headers, one static library a layer, and a package for find_package(Temper), whose
# target temper::temper brings everything. LibTorch itself stays where it is.
include(CMakePackageConfigHelpers)

get_property(_layers GLOBAL PROPERTY TEMPER_LAYERS)
set(_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Temper")

install(TARGETS temper ${_layers} EXPORT TemperExports ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT TemperExports NAMESPACE temper:: DESTINATION "${_package_dir}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/temper" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h")

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/TemperConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/TemperConfig.cmake" INSTALL_DESTINATION "${_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/TemperConfigVersion.cmake"
  VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMajorVersion)
install(FILES
    "${PROJECT_BINARY_DIR}/TemperConfig.cmake" "${PROJECT_BINARY_DIR}/TemperConfigVersion.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/FindLibTorch.cmake" "${PROJECT_SOURCE_DIR}/cmake/FindArrowParquet.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/TemperSystemLibraries.cmake"
  DESTINATION "${_package_dir}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
