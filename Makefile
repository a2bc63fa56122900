# lua-backprop. `make demo` and `make test` are all a newcomer needs: each installs what is missing, builds and runs.
#
#   make [all]         the module, and libbackprop for hosts    make install   copies them, the Lua files and the header
#   make module        builds lua/backprop/core.so only         make install-module   the same without libbackprop
#   make deps          installs the Debian packages below       make clean     removes everything that was built
#   make demo          trains the digit classifier              make lint      luacheck and clang-format, silent when clean
#   make test          runs the specs; MNIST=DIR, ARGS=...      make doc       the reference into build/doc
#   make bench         tables and chart into bench/results/;    V=1            shows the commands
#                      STEPS=N: shorter memory runs; ARGS=... for bench/mnist.lua
#   make memtest       every request for memory refused         make check     the specs under sanitizers
#   make valgrind      the specs under memcheck                 make tsan      examples/embed under ThreadSanitizer
#   make clang         the specs of what clang builds
#   make coverage      lines of src/ that the specs run         make annotations   the rows' part of lua/backprop/meta.lua
#   make bench-math    the element-wise functions beside libm, libmvec and SLEEF; ARGS="POINTS NAME..."; x86-64 only
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
OBJCOPY ?= objcopy
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
VERSION := $(patsubst rockspec/backprop-%.rockspec,%,$(firstword $(wildcard rockspec/*.rockspec)))
INST_LIBDIR ?= $(PREFIX)/lib/lua/5.4
INST_LUADIR ?= $(PREFIX)/share/lua/5.4
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-6s %s\n' $(1) '$(2)')
AGAIN = --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: all module deps demo test fuzz nets memtest memtest-host check check-runs clang clang-run valgrind valgrind-run
.PHONY: tsan coverage coverage-run baseline bench mathematics bench-math lint doc annotations install install-module clean force
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

ifeq ($(LUA_LIBS),)
LUA_LIBS := $(shell for name in lua5.4 lua-5.4 lua54; do pkg-config --libs $$name && break; done 2>/dev/null)
LUA_LIBS := $(or $(LUA_LIBS),-llua5.4)
endif

WARNINGS := -Wall -Wextra -pedantic -Wshadow -Wconversion -Wmissing-prototypes
# No contraction outside of the loops: the random generator gives the same numbers on every machine.
ALL_CFLAGS := -std=c11 -O3 -ffp-contract=off -fPIC -fno-plt -fvisibility=hidden $(WARNINGS)
# Clang warns of a loop that it leaves as it is: those that call libm.
LOOP_CFLAGS := -std=gnu11 -O3 -fopenmp-simd -fno-math-errno -fno-trapping-math -ffp-contract=fast -fPIC -fno-plt \
  -fvisibility=hidden $(WARNINGS) -Wno-pass-failed

# The caller's come last, but not those that LuaRocks always passes: its -O2 would take the -O3 away.
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

CORE ?= lua/backprop/core.so
SOURCES := $(sort $(filter-out src/kernels/loops/% src/binding/embed.c,$(wildcard src/*/*.c)))
LOOPS := $(sort $(wildcard src/kernels/loops/*.c))
OBJECTS := $(SOURCES:src/%.c=$(BUILD)/%.o) \
  $(foreach level,$(LEVELS),$(foreach dtype,f64 f32,$(LOOPS:src/%.c=$(BUILD)/%_$(dtype)_$(level).o)))

all: module $(BUILD)/libbackprop.a $(BUILD)/libbackprop.so

module: $(CORE)

$(CORE): $(OBJECTS)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
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

# --- The library for hosts -------------------------------------------------------------------------------------------

# Both forms are one object: all of the above with the Lua files inside, and no name for the linker but these. (Where
# the flags hide a name only from other shared objects, a static library would still clash with its host.)
PUBLIC := bp_preload luaopen_backprop
LUA_FILES := $(sort $(patsubst lua/%,%,$(filter-out lua/backprop/meta.lua,$(shell find lua/backprop -name '*.lua'))))
HOSTED := $(BUILD)/libbackprop.o

$(HOSTED): $(OBJECTS) $(BUILD)/binding/embed.o $(BUILD)/embedded.o
	$(call say,LINK,$@)
	$(Q)$(CC) -r -nostdlib -o $@ $^
	$(Q)$(OBJCOPY) $(PUBLIC:%=--keep-global-symbol=%) $@

$(BUILD)/libbackprop.a: $(HOSTED)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $<

$(BUILD)/libbackprop.so: $(HOSTED)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LIBFLAG) -Wl,-soname,$(@F) -o $@ $< $(USER_CFLAGS) $(LDFLAGS) $(OPENBLAS) -lm

# Each Lua file as an array of its bytes, then the table of them (src/binding/embed.h). backprop/data/init.lua is
# module backprop.data and chunk "=[backprop]/data/init.lua".
$(BUILD)/embedded.c: $(LUA_FILES:%=lua/%) Makefile
	$(call say,EMBED,$@)
	@mkdir -p $(@D)
	$(Q){ echo '#include "binding/embed.h"'; rows=; number=0; \
	for file in $(LUA_FILES); do \
	  number=$$((number + 1)); \
	  module=$$(echo "$${file%.lua}" | sed 's,/init$$,,; s,/,.,g'); \
	  rows="$$rows{\"$$module\", \"=[backprop]/$${file#backprop/}\", t$$number, sizeof t$$number},"; \
	  echo "static const unsigned char t$$number[] = {"; \
	  od -An -v -tu1 "lua/$$file" | sed 's/[0-9][0-9]*/&,/g'; \
	  echo '};'; \
	done; \
	echo "const bp_chunk bp_chunks[] = {$$rows{0, 0, 0, 0}};"; } >$@

$(BUILD)/embedded.o: $(BUILD)/embedded.c src/binding/embed.h $(BUILD)/flags
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(USER_CFLAGS) -Isrc -c -o $@ $<

-include $(OBJECTS:.o=.d) $(BUILD)/binding/embed.d

# --- Running ---------------------------------------------------------------------------------------------------------

# What scripts need to find the checkout's module; whatever the caller had stays behind it. Only the names with the
# version, which Lua 5.4 looks at first: the tools themselves may run on another Lua.
PLAIN := env -u LUA_PATH -u LUA_CPATH
ENV = $(PLAIN) LUA_PATH_5_4="./lua/?.lua;./lua/?/init.lua;$${LUA_PATH_5_4:-$${LUA_PATH:-;}}" \
  LUA_CPATH_5_4="./$(CORE:backprop/core.so=?.so);./$(BUILD)/bench/?.so;./$(BUILD)/memtest/?.so;$\
$${LUA_CPATH_5_4:-$${LUA_CPATH:-;}}"

demo: deps
	@$(MAKE) $(AGAIN) all
	@$(ENV) $(LUA) examples/digits.lua $(ARGS)

test: deps
	@$(MAKE) $(AGAIN) all memtest-host
	@$(ENV) BACKPROP_BUILD='$(BUILD)' $(if $(MNIST),BACKPROP_MNIST='$(MNIST)') BACKPROP_MEMTEST=$(MEMTEST) \
	  $(BUSTED) --lua=$(LUA) $(ARGS)

# A path of ours as it is called from a folder of examples/. Not abspath: what is above the checkout may have spaces.
from_example = $(if $(filter /%,$(1)),,../../)$(1)

# --- Memory that runs out --------------------------------------------------------------------------------------------

MEMTEST := $(BUILD)/memtest/host

$(MEMTEST): spec/memtest/host.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -fPIC,$(ALL_CFLAGS)) -I$(LUA_INCDIR) $(USER_CFLAGS) -o $@ $< $(LDFLAGS) $(LUA_LIBS)

$(BUILD)/memtest/robust.so: examples/c_op/robust.c src/backprop.h
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(MAKE) -s -C examples/c_op OUT=$(call from_example,$(@D)) CC=$(CC) LUA_INCDIR=$(LUA_INCDIR)

$(BUILD)/memtest/c_rows.so: spec/support/c_rows.c src/backprop.h $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -fvisibility=hidden,$(ALL_CFLAGS)) -Isrc -I$(LUA_INCDIR) $(USER_CFLAGS) $(LIBFLAG) -o $@ $< \
	  $(LDFLAGS)

# What the specs need beside the module.
memtest-host: $(MEMTEST) $(BUILD)/memtest/robust.so $(BUILD)/memtest/c_rows.so
	@:

# All requests, and long runs in bounded memory: about six minutes. EVERY=n refuses only every n-th; ARGS="--only TEXT"
# runs a part.
EVERY ?= 1
P18_STEPS ?= 100000
memtest: deps
	@$(MAKE) $(AGAIN) all memtest-host
	@$(ENV) $(MEMTEST) --every $(EVERY) $(ARGS)
	@$(ENV) BACKPROP_STEPS=$(P18_STEPS) $(BUSTED) --lua=$(LUA) --filter=P18 spec/memory_spec.lua

# --- Instruments -----------------------------------------------------------------------------------------------------

# Each instrument has a build of its own, and runs through $(MAKE) with BUILD, CORE and the flags set; the plain build
# is there too, for the examples that the specs run as processes of their own. Less: `make check RUNS=eager:`, `make
# valgrind SPECS=spec/op_spec.lua`.
own_build = BUILD=build/$(1) CORE=build/$(1)/lua/backprop/core.so
BUSTED_HERE = $(BUSTED) --lua=$(LUA) --cpath=./$(CORE:backprop/core.so=?.so)

# AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer over all specs, the pool off so that it hides nothing.
# A run is a collector and, after the colon, a SIMD level (none: the best). About five minutes of one core.
RUNS ?= generational: eager: incremental: incremental:base incremental:avx2
SANITIZERS := -fsanitize=address,undefined
SANITIZED = $(call own_build,check) LDFLAGS='$(SANITIZERS)' \
  CFLAGS='-g -fno-omit-frame-pointer $(SANITIZERS) -fno-sanitize-recover=undefined -DBP_POOL_OFF'

check: deps
	@$(MAKE) $(AGAIN) all
	@$(MAKE) $(AGAIN) $(SANITIZED) all memtest-host
	@$(MAKE) --no-print-directory $(SANITIZED) RUNS='$(RUNS)' check-runs

# A child such as mktemp or ld may leak; what counts is what Lua or the library has lost: a frame of theirs is named.
check-runs:
	@rm -f $(BUILD)/report.*; \
	for run in $(RUNS); do \
	  level=$${run#*:}; \
	  if [ -n "$$level" ] && ! grep -q "$${level#base}" /proc/cpuinfo; then echo "no $$level here"; continue; fi; \
	  echo "collector $${run%:*}, SIMD $${level:-best}"; \
	  $(ENV) $${level:+BACKPROP_SIMD=$$level} BACKPROP_POOL=off BACKPROP_COLLECTOR=$${run%:*} BACKPROP_EVERY=401 \
	    BACKPROP_MEMTEST=$(MEMTEST) LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) \
	    ASAN_OPTIONS=log_path=$(abspath $(BUILD))/report LSAN_OPTIONS=exitcode=0 \
	    $(BUSTED_HERE) --helper=spec/support/collector.lua --filter-out=P18 $(ARGS) || failed=1; \
	done; \
	for report in $$(grep -ls 'lua\|runtime error' $(BUILD)/report.*); do \
	  cat $$report; failed=1; \
	done; \
	[ -z "$$failed" ]

# Valgrind knows no AVX-512. OpenBLAS asks the processor, as valgrind describes it. About seven minutes; left out are
# specs that run other processes, and the one of all SIMD levels.
SPECS ?= $(sort $(filter-out spec/memory_spec.lua spec/embed_spec.lua spec/examples_spec.lua spec/readme_spec.lua \
  spec/simd_spec.lua spec/tools_spec.lua,$(wildcard spec/*_spec.lua)))
MEMCHECK := valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --num-callers=20

valgrind: PACKAGES += valgrind
valgrind: deps
	@$(MAKE) $(AGAIN) $(call own_build,valgrind) CFLAGS='-g -DBP_POOL_OFF' all memtest-host
	@$(MAKE) --no-print-directory $(call own_build,valgrind) valgrind-run

# Busted takes one word for the interpreter.
valgrind-run:
	@printf '#!/bin/sh\nexec $(MEMCHECK) $(LUA) "$$@"\n' >$(BUILD)/lua.sh && chmod +x $(BUILD)/lua.sh
	@$(ENV) BACKPROP_VALGRIND=1 BACKPROP_SIMD=avx2 BACKPROP_POOL=off $(BUSTED) --lua=$(BUILD)/lua.sh \
	  --cpath=./$(CORE:backprop/core.so=?.so) $(SPECS)

# The host of examples/embed (four states on four threads) and the library in it, under ThreadSanitizer.
TSAN := -g -O1 -fsanitize=thread
tsan: deps
	@$(MAKE) $(AGAIN) $(call own_build,tsan) CFLAGS='$(TSAN)' LDFLAGS='$(TSAN)' all
	@$(MAKE) --no-print-directory -B -C examples/embed OUT=$(call from_example,build/tsan) CFLAGS='-std=c11 $(TSAN)' \
	  LUA_INCDIR='$(LUA_INCDIR)' LUA_LIBS='$(LUA_LIBS)' \
	  BACKPROP_LIBS='$(call from_example,build/tsan/libbackprop.a) $(OPENBLAS)'
	@cd examples/embed && TSAN_OPTIONS=halt_on_error=1 ../../build/tsan/host train.lua ../data/digits.csv

# The other compiler that people have: what it makes of the loops is not what GCC does. Any warning is an error.
clang: PACKAGES += clang
clang: deps
	@$(MAKE) $(AGAIN) all
	@$(MAKE) $(AGAIN) $(call own_build,clang) CC=clang CFLAGS=-Werror all memtest-host
	@$(MAKE) --no-print-directory $(call own_build,clang) CC=clang clang-run

clang-run:
	@$(ENV) BACKPROP_MEMTEST=$(MEMTEST) $(BUSTED_HERE) $(ARGS)

# Lines of src/ that the specs and a bounded memtest run, into build/coverage; see spec/coverage.lua.
coverage: deps
	@$(MAKE) $(AGAIN) all
	@$(MAKE) $(AGAIN) $(call own_build,coverage) CFLAGS='-O0 --coverage' LDFLAGS=--coverage all memtest-host
	@find build/coverage -name '*.gcda' -delete
	@$(MAKE) --no-print-directory $(call own_build,coverage) coverage-run

coverage-run:
	@$(ENV) BACKPROP_MEMTEST=$(MEMTEST) $(BUSTED_HERE) $(ARGS)
	@for level in $(LEVELS); do $(ENV) BACKPROP_SIMD=$$level $(LUA) -e 'require "backprop"'; done
	@$(ENV) $(LUA) spec/coverage.lua $(BUILD)

# Random programs for SECONDS; where one fails, a reduced script in build/fuzz. A SEED gives the same programs again.
SECONDS ?= 60
SEED ?= $(shell date +%s)

fuzz: deps
	@$(MAKE) $(AGAIN) all
	@$(ENV) $(LUA) spec/fuzz/run.lua $(SECONDS) $(SEED) $(BUILD)/fuzz

# Plants defects one at a time in a copy and shows which of spec, check and fuzz catches each.
nets: deps
	@$(MAKE) $(AGAIN) all memtest-host
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

# How many steps the memory runs do at batch 1.
STEPS ?= 100000
RESULTS := bench/results

bench: deps
	@$(MAKE) $(AGAIN) baseline
	@mkdir -p $(RESULTS)
	@echo "$$(lscpu | sed -n 's/^Model name: *//p'), $$(nproc --all) CPUs, OpenBLAS for $$($(ENV) $(LUA) -e \
	  'print((require "backprop.core".blas()))'), one thread, $$(date +%F)" >$(RESULTS)/machine.txt
	@$(ENV) $(LUA) bench/mnist.lua --dtype f64,f32 --batch 1,64,256 --csv $(RESULTS)/mnist.csv $(ARGS)
	@$(ENV) $(LUA) bench/mnist.lua --dtype f64,f32 --batch 1,256 --threads 1,2 --modes limit,lens,fields,hybrid,fused \
	  --csv $(RESULTS)/threads.csv
	@$(ENV) $(LUA) bench/overhead.lua --csv $(RESULTS)/overhead.csv
	@$(ENV) $(LUA) bench/memory.lua --steps $(STEPS) --csv $(RESULTS)/memory.csv
	@$(ENV) $(LUA) bench/chart.lua --results $(RESULTS)
	@$(ENV) $(LUA) bench/bars.lua --results $(RESULTS)

# The element-wise mathematics of each provider, once for each dtype and level, beside the loops of the module.
MATHEMATICS := $(BUILD)/bench/mathematics/mathematics
CANDIDATES :=

# $(1) provider, $(2) dtype, $(3) 1 for f32, $(4) level
define candidate_rule
CANDIDATES += $(BUILD)/bench/mathematics/$(1)_$(2)_$(4).o
$(BUILD)/bench/mathematics/$(1)_$(2)_$(4).o: $(addprefix bench/mathematics/,candidates.c candidates.h) $(BUILD)/flags
	@mkdir -p $$(@D)
	$(Q)$$(CC) $$(LOOP_CFLAGS) $$(USER_CFLAGS) -DPROVIDER=$(1) -DPROVIDER_$(1) -DBP_DTYPE_F32=$(3) -DBP_LEVEL=$(4) \
	  $$(FLAGS_$(4)) -c -o $$@ $$<
endef
$(foreach provider,libm libmvec sleef,$(foreach level,avx2 avx512,\
  $(eval $(call candidate_rule,$(provider),f64,0,$(level)))$(eval $(call candidate_rule,$(provider),f32,1,$(level)))))

$(MATHEMATICS): bench/mathematics/mathematics.c $(CANDIDATES) $(filter $(BUILD)/kernels/loops/%,$(OBJECTS))
	$(call say,LINK,$@)
	$(Q)$(CC) -std=gnu11 -O2 $(WARNINGS) $(USER_CFLAGS) -o $@ $^ $(LDFLAGS) -lsleef -lm

mathematics: $(MATHEMATICS)
	@:

bench-math: deps
	@$(MAKE) $(AGAIN) mathematics
	@$(MATHEMATICS) $(ARGS)

# --- Installing ------------------------------------------------------------------------------------------------------

# What building and running needs, and what working on it does.
NEEDED := lua5.4 liblua5.4-dev libopenblas-dev pkg-config
PACKAGES := $(NEEDED) lua-busted lua-zlib luarocks lua-check lua-ldoc clang-format
demo: PACKAGES := $(NEEDED)
bench-math: PACKAGES += libsleef-dev

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

# What a rock is made of.
install-module: module
	@mkdir -p "$(DESTDIR)$(INST_LIBDIR)/backprop" "$(DESTDIR)$(INST_LUADIR)/backprop/include"
	$(Q)cp $(CORE) "$(DESTDIR)$(INST_LIBDIR)/backprop/core.so"
	$(Q)cp src/backprop.h "$(DESTDIR)$(INST_LUADIR)/backprop/include/backprop.h"
	$(Q)to=$$(cd "$(DESTDIR)$(INST_LUADIR)/backprop" && pwd) && cd lua/backprop && \
	  find . -name '*.lua' | while read -r file; do \
	  mkdir -p "$$to/$${file%/*}" && cp "$$file" "$$to/$$file" || exit 1; done

# Other programs are told where the library is: by a path that holds everywhere.
install: all
	@case '$(LIBDIR)$(INCLUDEDIR)' in /*) ;; *) echo 'install: PREFIX must be an absolute path' >&2; exit 1 ;; esac
	@$(MAKE) --no-print-directory install-module
	@mkdir -p "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(INCLUDEDIR)"
	$(Q)cp $(BUILD)/libbackprop.a $(BUILD)/libbackprop.so "$(DESTDIR)$(LIBDIR)"
	$(Q)cp src/backprop.h "$(DESTDIR)$(INCLUDEDIR)"
	$(Q)sed 's,@LIBDIR@,$(LIBDIR),; s,@INCLUDEDIR@,$(INCLUDEDIR),; s,@VERSION@,$(VERSION),' src/backprop.pc.in \
	  >"$(DESTDIR)$(LIBDIR)/pkgconfig/backprop.pc"

# --- Keeping order ---------------------------------------------------------------------------------------------------

# luacheck says "OK" for every file: heard only when something is wrong.
lint:
	@out=$$($(PLAIN) luacheck -q --no-color lua spec bench examples 2>&1) || { printf '%s\n' "$$out"; exit 1; }
	@find src bench examples spec -name '*.[ch]' -exec clang-format --dry-run --Werror {} +

# A warning of LDoc's ends it.
doc: all
	@mkdir -p $(BUILD)/reference $(BUILD)/doc
	@$(ENV) $(LUA) spec/support/manual.lua $(BUILD)/reference
	@out=$$($(PLAIN) ldoc -q --fatalwarnings . 2>&1) || { printf '%s\n' "$$out"; exit 1; }

annotations: all
	@$(ENV) $(LUA) spec/support/manual.lua --annotations

clean:
	rm -rf $(BUILD) $(CORE)
