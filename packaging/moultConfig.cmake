# find_package(moult) gives the interface target moult::moult, which adds the
# directory of moult.h to the include path. Installed as
# PREFIX/lib/cmake/moult/moultConfig.cmake, wherever PREFIX is moved to.
get_filename_component(_moult_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT EXISTS "${_moult_prefix}/include/moult.h")
  set(moult_FOUND FALSE)
  set(moult_NOT_FOUND_MESSAGE "${_moult_prefix}/include/moult.h is not there")
  return()
endif()
if(NOT TARGET moult::moult)
  add_library(moult::moult INTERFACE IMPORTED)
  set_target_properties(moult::moult PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_moult_prefix}/include")
endif()
unset(_moult_prefix)
