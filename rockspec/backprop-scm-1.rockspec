rockspec_format = "3.0"
package = "backprop"
version = "scm-1"
source = {
  url = ".", -- made from a checkout; becomes the repository's address when there is a public one
}
description = {
  summary = "Heterogeneous reverse-mode automatic differentiation",
  detailed = [[
    Differentiates ordinary Lua functions of numbers, vectors, matrices and records of them, nested as deep as you
    like. A C core holds the tape, the arrays and the fused operations; record types, lenses, operations with
    hand-written gradients (in Lua or C) and optimisers are Lua.]],
  license = "MIT",
  labels = { "machine-learning", "math", "autodiff" },
}
supported_platforms = { "unix" }
dependencies = { "lua >= 5.4, < 5.5" }
-- The library only: Debian's headers are in no place that LuaRocks knows, and none is included.
external_dependencies = {
  OPENBLAS = { library = "openblas" },
}
build = {
  type = "make",
  build_target = "module", -- without libbackprop, which is for hosts in C: `make install`
  install_target = "install-module",
  build_variables = {
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LIBFLAG = "$(LIBFLAG)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    OPENBLAS_DIR = "$(OPENBLAS_DIR)",
    OPENBLAS_LIBDIR = "$(OPENBLAS_LIBDIR)",
  },
  install_variables = {
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LIBFLAG = "$(LIBFLAG)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    OPENBLAS_DIR = "$(OPENBLAS_DIR)",
    OPENBLAS_LIBDIR = "$(OPENBLAS_LIBDIR)",
    INST_PREFIX = "$(PREFIX)",
    INST_BINDIR = "$(BINDIR)",
    INST_LIBDIR = "$(LIBDIR)",
    INST_LUADIR = "$(LUADIR)",
    INST_CONFDIR = "$(CONFDIR)",
  },
}
