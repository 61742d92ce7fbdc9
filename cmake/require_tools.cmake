# What a build needs of the system, or a sentence that names the packages to install.

set(packages "Debian, Ubuntu: apt install g++ python3-dev; Fedora: dnf install gcc-c++ \
python3-devel; macOS: xcode-select --install")

# To be called before C++ is enabled: CMake's own error names no package.
function(require_compiler)
  include(CheckLanguage)
  check_language(CXX)
  if(NOT CMAKE_CXX_COMPILER)
    message(FATAL_ERROR
      "bandweave is compiled here, and there is no C++ compiler. Install one. ${packages}")
  endif()
endfunction()

function(require_python)
  if(NOT Python_Interpreter_FOUND)
    message(FATAL_ERROR "bandweave needs Python 3.11 or newer to be built. ${packages}")
  endif()
  if(NOT Python_Development.Module_FOUND)
    message(FATAL_ERROR "bandweave is compiled here, and the headers of Python ${Python_VERSION} \
are missing. Install them. ${packages}")
  endif()
endfunction()
