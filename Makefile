# lua-backprop. `make demo` and `make test` are all a newcomer needs: each installs what is missing, builds and runs.
#
#   make [all]         builds lua/backprop/core.so              make install   copies module, Lua files and header
#   make deps          installs the Debian packages below       make clean     removes everything that was built
#   make demo          trains the digit classifier              make lint      luacheck and clang-format, silent when clean
#   make test          runs the specs; MNIST=DIR, ARGS=...      make doc       the reference into build/doc
#   make bench         the benchmark table; ARGS=...            V=1            shows the commands
#
# What it keeps: every loop file is compiled once for each dtype and SIMD level, everything else once and for the
# oldest processor. No object and no link ever sees -ffast-math (design section 4). All objects go to build/, and are
# built again when the flags change. CFLAGS, LDFLAGS, LUA_INCDIR and OPENBLAS_DIR/_LIBDIR may be given.

# Looked for when it is needed, not when make starts: on a new machine `deps` installs it in between.
ifeq ($(LUA),)
LUA = $(shell command -v lua5.4 || command -v lua-5.4 || command -v lua54 || echo lua)
endif
BUSTED ?= busted
BUILD ?= build
PREFIX ?= /usr/local
INST_LIBDIR ?= $(PREFIX)/lib/lua/5.4
INST_LUADIR ?= $(PREFIX)/share/lua/5.4
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-6s %s\n' $(1) '$(2)')
AGAIN = --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: all deps demo test fuzz nets baseline bench lint doc install clean force
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all

# --- Flags -----------------------------------------------------------------------------------------------------------

# Read when make starts: the targets that may install headers first call make again after that (see AGAIN).
ifeq ($(LUA_INCDIR),)
LUA_INCDIR := $(patsubst -I%,%,$(firstword $(shell \
  for name in lua5.4 lua-5.4 lua54; do pkg-config --cflags-only-I $$name && break; done 2>/dev/null)))
LUA_INCDIR := $(or $(LUA_INCDIR),/usr/include/lua5.4)
endif

WARNINGS := -Wall -Wextra -pedantic -Wshadow -Wconversion -Wmissing-prototypes
ALL_CFLAGS := -std=c11 -O2 -fPIC -fvisibility=hidden $(WARNINGS)
LOOP_CFLAGS := -std=gnu11 -O3 -fopenmp-simd -fno-math-errno -fno-trapping-math -ffp-contract=fast -fPIC \
  -fvisibility=hidden $(WARNINGS)

# The caller's come last, but not those that LuaRocks always passes: its -O2 would take the -O3 of the loops away.
USER_CFLAGS := $(filter-out -O2 -fPIC,$(CFLAGS))

DEFINES :=
LEVELS := base
ifneq ($(filter x86_64 amd64,$(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))),)
LEVELS += avx2 avx512
DEFINES += -DBP_HAVE_X86_LEVELS
endif
FLAGS_base :=
FLAGS_avx2 := -mavx2 -mfma
FLAGS_avx512 := -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512

comma := ,
OPENBLAS_LIBDIR := $(or $(OPENBLAS_LIBDIR),$(if $(OPENBLAS_DIR),$(OPENBLAS_DIR)/lib))
LIBFLAG ?= -shared
OPENBLAS := $(if $(OPENBLAS_LIBDIR),-L$(OPENBLAS_LIBDIR) \
  $(patsubst %,-Wl$(comma)-rpath$(comma)%,$(filter-out /usr/lib%,$(OPENBLAS_LIBDIR)))) -lopenblas

# --- The module ------------------------------------------------------------------------------------------------------

CORE := lua/backprop/core.so
SOURCES := $(sort $(filter-out src/kernels/loops/%,$(wildcard src/*/*.c)))
LOOPS := $(sort $(wildcard src/kernels/loops/*.c))
OBJECTS := $(SOURCES:src/%.c=$(BUILD)/%.o) \
  $(foreach level,$(LEVELS),$(foreach dtype,f64 f32,$(LOOPS:src/%.c=$(BUILD)/%_$(dtype)_$(level).o)))

all: $(CORE)

$(CORE): $(OBJECTS)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LIBFLAG) -o $@ $(OBJECTS) $(USER_CFLAGS) $(LDFLAGS) $(OPENBLAS) -lm

$(BUILD)/%.o: src/%.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(DEFINES) -I$(LUA_INCDIR) $(USER_CFLAGS) -MMD -MP -c -o $@ $<

# $(1) dtype, $(2) 1 for f32, $(3) level
define loop_rule
$(BUILD)/kernels/loops/%_$(1)_$(3).o: src/kernels/loops/%.c $(BUILD)/flags
	$$(call say,CC,$$< $(1) $(3))
	@mkdir -p $$(@D)
	$(Q)$$(CC) $$(LOOP_CFLAGS) $$(DEFINES) $$(USER_CFLAGS) -DBP_DTYPE_F32=$(2) -DBP_LEVEL=$(3) $$(FLAGS_$(3)) \
	  -MMD -MP -c -o $$@ $$<
endef
$(foreach level,$(LEVELS),$(eval $(call loop_rule,f64,0,$(level)))$(eval $(call loop_rule,f32,1,$(level))))

# Changes when the flags do, and everything with it.
FLAGS := $(ALL_CFLAGS) $(LOOP_CFLAGS) $(FLAGS_avx2) $(FLAGS_avx512) $(DEFINES) -I$(LUA_INCDIR) $(USER_CFLAGS)
$(BUILD)/flags: force
	@mkdir -p $(@D)
	@flags='$(FLAGS)'; [ "$$(cat $@ 2>/dev/null)" = "$$flags" ] || printf '%s\n' "$$flags" >$@

-include $(OBJECTS:.o=.d)

# --- Running ---------------------------------------------------------------------------------------------------------

# What scripts need to find the checkout's module; whatever the caller had stays behind it. Only the names with the
# version, which Lua 5.4 looks at first: the tools themselves may run on another Lua.
PLAIN := env -u LUA_PATH -u LUA_CPATH
ENV = $(PLAIN) LUA_PATH_5_4="./lua/?.lua;./lua/?/init.lua;$${LUA_PATH_5_4:-$${LUA_PATH:-;}}" \
  LUA_CPATH_5_4="./lua/?.so;./$(BUILD)/bench/?.so;$${LUA_CPATH_5_4:-$${LUA_CPATH:-;}}"

demo: deps
	@$(MAKE) $(AGAIN) all
	@$(ENV) $(LUA) examples/digits.lua $(ARGS)

test: deps
	@$(MAKE) $(AGAIN) all
	@$(ENV) $(if $(MNIST),BACKPROP_MNIST='$(MNIST)') $(BUSTED) --lua=$(LUA) $(ARGS)

# Random programs for SECONDS; where one fails, a reduced script in build/fuzz. A SEED gives the same programs again.
SECONDS ?= 60
SEED ?= $(shell date +%s)

fuzz: deps
	@$(MAKE) $(AGAIN) all
	@$(ENV) $(LUA) spec/fuzz/run.lua $(SECONDS) $(SEED) $(BUILD)/fuzz

# Plants ten defects one at a time in a copy and shows which of spec, check and fuzz catches each.
nets: deps
	@$(MAKE) $(AGAIN) all
	@$(ENV) MAKE='$(MAKE)' BUSTED='$(BUSTED)' LUA='$(LUA)' $(LUA) spec/nets/run.lua $(BUILD)/nets $(ARGS)

# --- The benchmark ---------------------------------------------------------------------------------------------------

# All of bench/*.c is one module, `baseline`: what a careful C programmer writes for this machine only.
BASELINE := $(BUILD)/bench/baseline.so
BENCH_CFLAGS := -std=gnu11 -O3 -march=native -fopenmp-simd -fPIC $(WARNINGS)

$(BASELINE): $(sort $(wildcard bench/*.c)) $(wildcard bench/*.h) $(BUILD)/flags
	$(call say,CC,$(filter %.c,$^))
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_CFLAGS) -I$(LUA_INCDIR) $(USER_CFLAGS) $(LIBFLAG) -o $@ $(filter %.c,$^) $(LDFLAGS) $(OPENBLAS) -lm

baseline: all $(BASELINE)
	@:

bench: deps
	@$(MAKE) $(AGAIN) baseline
	@$(ENV) $(LUA) bench/mnist.lua $(ARGS)

# --- Installing ------------------------------------------------------------------------------------------------------

PACKAGES := lua5.4 liblua5.4-dev libopenblas-dev lua-busted lua-zlib luarocks lua-check lua-ldoc clang-format pkg-config

# Quick and without the network where all is there.
deps:
	@if ! command -v apt-get >/dev/null; then \
	  echo 'deps: no apt-get here; please see that these are installed (by the names they have in Debian):' >&2; \
	  echo '  $(PACKAGES)' >&2; \
	  exit 0; \
	fi; \
	there=" $$(dpkg-query -W -f='$${Package}:$${db:Status-Status} ' $(PACKAGES) 2>/dev/null) "; \
	missing=; \
	for name in $(PACKAGES); do case "$$there" in *" $$name:installed "*) ;; *) missing="$$missing $$name" ;; esac; done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif command -v sudo >/dev/null; then sudo=sudo; \
	else echo "deps: neither root nor sudo; as root, run: apt-get install$$missing" >&2; exit 1; \
	fi; \
	echo "Installing$$missing"; \
	$$sudo apt-get update -q && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

install: all
	@mkdir -p $(DESTDIR)$(INST_LIBDIR)/backprop $(DESTDIR)$(INST_LUADIR)/backprop/include
	$(Q)cp $(CORE) $(DESTDIR)$(INST_LIBDIR)/backprop/core.so
	$(Q)cp src/backprop.h $(DESTDIR)$(INST_LUADIR)/backprop/include/backprop.h
	$(Q)cd lua/backprop && find . -name '*.lua' | while read -r file; do \
	  mkdir -p "$(abspath $(DESTDIR)$(INST_LUADIR))/backprop/$${file%/*}" && \
	  cp "$$file" "$(abspath $(DESTDIR)$(INST_LUADIR))/backprop/$$file" || exit 1; done

# --- Keeping order ---------------------------------------------------------------------------------------------------

# luacheck says "OK" for every file: heard only when something is wrong.
lint:
	@out=$$($(PLAIN) luacheck -q --no-color lua spec bench examples 2>&1) || { printf '%s\n' "$$out"; exit 1; }
	@find src bench examples -name '*.[ch]' -exec clang-format --dry-run --Werror {} +

doc:
	@mkdir -p $(BUILD)/doc
	$(Q)$(PLAIN) ldoc -q .

clean:
	rm -rf $(BUILD) $(CORE)
