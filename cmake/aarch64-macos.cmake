# Toolchain: macOS on Apple silicon, from any system, with zig's clang and libraries (the Python
# package ziglang, which brings the headers of macOS and no framework). ZIG_PYTHON is a Python that
# has it. What comes out is not signed, and has to be tried on a Mac.
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR arm64)
set(CMAKE_OSX_SYSROOT "" CACHE STRING "None: zig finds its own headers" FORCE)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG_PYTHON)

set(ZIG_PYTHON "python3" CACHE STRING "A Python with the package ziglang")
set(macos_version 14.0)  # the oldest that wheels are made for
set(CMAKE_CXX_COMPILER
  ${ZIG_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/zig_cxx.py -target aarch64-macos.${macos_version})

# CMake wants programs where zig has commands of one.
set(CMAKE_CXX_ARCHIVE_CREATE "${ZIG_PYTHON} -m ziglang ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_APPEND "${ZIG_PYTHON} -m ziglang ar q <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${ZIG_PYTHON} -m ziglang ranlib <TARGET>")
set(CMAKE_INSTALL_NAME_TOOL ${ZIG_PYTHON} CACHE FILEPATH "Nothing is installed")
