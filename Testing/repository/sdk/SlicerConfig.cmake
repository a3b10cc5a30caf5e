# A stand-in for Slicer's developer kit, which no package index has: it installs what the real macros install, by the same
# rules (CTK/CMake/ctkMacroCompilePythonScript.cmake, Slicer/CMake/SlicerMacroBuildScriptedModule.cmake), and checks
# the arguments as they do. It neither byte-compiles nor packs.
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${Slicer_USE_FILE})
set(Slicer_EXTENSION_CPACK ${Slicer_USE_FILE})

macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR;GLOBAL_TARGET" "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_SCRIPTS OR NOT MY_NO_INSTALL_SUBDIR)
    message(FATAL_ERROR "${MY_TARGET_NAME}: unexpected arguments '${MY_UNPARSED_ARGUMENTS}'")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder ${file} DIRECTORY)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "${MY_TARGET_NAME}: there is no file ${file}")
    endif()
    file(COPY ${CMAKE_CURRENT_SOURCE_DIR}/${file} DESTINATION ${MY_DESTINATION_DIR}/${folder})
  endforeach()
  install(DIRECTORY ${MY_DESTINATION_DIR}/ DESTINATION ${MY_INSTALL_DIR})
endmacro()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY_SLICER "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_SLICER_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords: ${MY_SLICER_UNPARSED_ARGUMENTS}")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_SLICER_NAME}
    SCRIPTS "${MY_SLICER_SCRIPTS}"
    RESOURCES "${MY_SLICER_RESOURCES}"
    DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    NO_INSTALL_SUBDIR
    )
endmacro()
