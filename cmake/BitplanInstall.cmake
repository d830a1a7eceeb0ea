# Installation and the package that find_package(bitplan) finds: bitplan::core, and bitplan::bitplan when it was built
# with LibTorch.
include(CMakePackageConfigHelpers)

set(BITPLAN_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/bitplan)
set(BITPLAN_INSTALLED_LIBRARIES bitplan_core)
if(BITPLAN_WITH_TORCH)
  list(APPEND BITPLAN_INSTALLED_LIBRARIES bitplan)
  install(TARGETS bitplan_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  if(NOT CMAKE_CROSSCOMPILING)
    install(FILES ${PROJECT_BINARY_DIR}/completions/bitplan
            DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    install(FILES ${PROJECT_BINARY_DIR}/completions/_bitplan DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  endif()
endif()
install(TARGETS ${BITPLAN_INSTALLED_LIBRARIES} EXPORT bitplanTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT bitplanTargets NAMESPACE bitplan:: DESTINATION ${BITPLAN_PACKAGE_DIR})
install(DIRECTORY include/bitplan DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_package_config_file(cmake/bitplanConfig.cmake.in ${PROJECT_BINARY_DIR}/bitplanConfig.cmake
                              INSTALL_DESTINATION ${BITPLAN_PACKAGE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/bitplanConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/bitplanConfig.cmake ${PROJECT_BINARY_DIR}/bitplanConfigVersion.cmake
        DESTINATION ${BITPLAN_PACKAGE_DIR})

# An outside project finds the package, links what there is and runs.
if(BITPLAN_BUILD_TESTS)
  add_test(NAME "package: an outside project finds and links what was installed"
           COMMAND ${CMAKE_COMMAND} -DBUILD_DIR=${PROJECT_BINARY_DIR} -DWORK_DIR=${PROJECT_BINARY_DIR}/package-test
                   -DCONSUMER_DIR=${PROJECT_SOURCE_DIR}/tests/package -DGENERATOR=${CMAKE_GENERATOR}
                   -P ${PROJECT_SOURCE_DIR}/tests/package/run.cmake)
  set_tests_properties("package: an outside project finds and links what was installed"
                       PROPERTIES LABELS package TIMEOUT 600)
endif()
