#!/usr/bin/env bash
# Compiles the header with every compiler that is here, in every standard, with every option: the
# implementation as C, the public half also as C++. Ends in `N passed, N failed[, N skipped]`.
set -u
cd "$(dirname "$0")" || exit 1
out=../build/compile
mkdir -p $out
passed=0 failed=0 skipped=0
WARN="-Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wundef -Wcast-qual -Wwrite-strings"
WARN_C="$WARN -Wstrict-prototypes -Wmissing-prototypes -Wvla"
# What clang's -Weverything has against C itself, or against what is meant:
QUIET="-Wno-padded -Wno-declaration-after-statement -Wno-switch-enum -Wno-switch-default
  -Wno-covered-switch-default -Wno-disabled-macro-expansion -Wno-unsafe-buffer-usage
  -Wno-reserved-macro-identifier -Wno-documentation -Wno-documentation-unknown-command
  -Wno-cast-align -Wno-float-equal -Wno-format-nonliteral -Wno-unreachable-code-break
  -Wno-c++98-compat -Wno-c++98-compat-pedantic -Wno-old-style-cast -Wno-zero-as-null-pointer-constant
  -Wno-c11-extensions -Wno-pre-c2x-compat -Wno-pre-c11-compat -Wno-unused-macros
  -Wno-reserved-identifier -Wno-tautological-unsigned-zero-compare -Wno-implicit-fallthrough
  -Wno-bad-function-cast -Wno-missing-noreturn -Wno-used-but-marked-unused
  -Wno-unknown-warning-option"

ok() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >$out/log 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $name"
    head -n 12 $out/log
  fi
}

refused() { # NAME SENTENCE COMMAND...
  local name=$1 sentence=$2
  shift 2
  if ! "$@" >$out/log 2>&1 && grep -q "$sentence" $out/log; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $name: not refused with: $sentence"
  fi
}

have() { command -v "$1" >/dev/null 2>&1; }

skip() {
  skipped=$((skipped + 1))
  echo "skipped: $1 # SKIP"
}

# What can be left out of the header, and who speaks https.
SWITCHES="NO_LOCAL NO_SERVER NO_REMOTE NO_DOCKER NO_FARGATE NO_MODAL"
CURL="0 1 2"

# Look through a file, unless this compiler has seen the same text with the same options: which
# macros made it does not matter then. (The preprocessor's own warnings count each time.)
: >$out/seen
look() { # COMPILER OPTION...
  local word seen=""
  for word; do
    case $word in -D*) ;; *) seen="$seen $word" ;; esac
  done
  "$@" -E >$out/text || return
  seen="$seen $(cksum <$out/text)"
  grep -qxF -e "$seen" $out/seen && return
  "$@" -fsyntax-only && printf '%s\n' "$seen" >>$out/seen
}

# Compile the implementation once per poller. (POLLERS: which ones.)
POLLERS="EPOLL POLL"
implementation() { # COMPILER FLAGS...
  local compiler=$1 poller
  shift
  for poller in $POLLERS; do
    ok "$compiler $* $poller" look "$compiler" $WARN_C -I../.. "$@" \
      -DSWEREX_POLLER=SWEREX_POLLER_$poller implementation.c
  done
}

# Every switch by itself, with each of those who speak https.
switches() { # COMPILER FLAGS...
  local curl switch POLLERS=EPOLL
  for curl in $CURL; do
    implementation "$@" -DSWEREX_USE_CURL=$curl
    for switch in $SWITCHES; do implementation "$@" -DSWEREX_USE_CURL=$curl -DSWEREX_$switch; done
  done
}

# Every set of switches.
combinations() { # COMPILER FLAGS...
  local sets=("") switch i n POLLERS=EPOLL
  for switch in $SWITCHES; do
    n=${#sets[@]}
    for ((i = 0; i < n; i++)); do sets+=("${sets[i]} -DSWEREX_$switch"); done
  done
  for ((i = 0; i < ${#sets[@]}; i++)); do implementation "$@" ${sets[i]}; done
}

# What SWEREX_NO_FARGATE leaves out is gone: no name of its sections, no word of theirs, and no byte
# more than with the sections cut out of the file.
no_fargate() { # COMPILER
  local names='swerex__(hash|xml|sign|profile|login|aws|fargate|task|teardown)_|swerex_fargate_'
  local words='amazonaws|AWS_|aws4_request' off=-DSWEREX_NO_FARGATE
  mkdir -p $out/cut
  awk '/^#ifndef SWEREX_NO_FARGATE .*up to/ { cut = 1 } !cut { print }
    cut && /^#endif .*SWEREX_NO_FARGATE/ { cut = 0 }' ../../swerex.h >$out/cut/swerex.h
  "$1" -std=c99 -O0 -DNDEBUG -I../.. -c -o $out/with.o implementation.c &&
    "$1" -std=c99 -O0 -DNDEBUG $off -I../.. -c -o $out/without.o implementation.c &&
    "$1" -std=c99 -O0 -DNDEBUG $off -I$out/cut -c -o $out/cut.o implementation.c || return 1
  nm $out/with.o | grep -qE "$names" && grep -qaE "$words" $out/with.o || return 1
  ! nm $out/without.o | grep -E "$names" && ! grep -aoE "$words" $out/without.o || return 1
  ! grep -q 'swerex__aws_' $out/cut/swerex.h && cmp $out/without.o $out/cut.o
}

for cc in gcc clang; do
  if ! have $cc; then
    skip "$cc"
    continue
  fi
  if ! printf '#include <curl/curl.h>\n' | $cc -E - >/dev/null 2>&1; then
    skip "$cc with libcurl: its headers are not here"
    CURL="0 2"
  fi
  switches $cc -std=c99
  [ $cc = clang ] && combinations clang -std=c99 # it is the faster one
  for std in c99 c11 c17 c2x gnu99 gnu17; do
    implementation $cc -std=$std
    implementation $cc -std=$std -DSWEREX_STATIC
    implementation $cc -std=$std -DSWEREX_NO_LOCAL -DSWEREX_NO_REMOTE
    ok "$cc -std=$std public half" $cc -std=$std $WARN_C -I../.. -c -o $out/y.o twice.c
  done
  for opt in -O2 -O3 -DNDEBUG; do
    ok "$cc $opt" $cc -std=c99 $opt $WARN_C -I../.. -c -o $out/x.o implementation.c
  done
  ok "$cc two translation units" $cc -std=c99 $WARN_C -I../.. -o $out/two implementation.c twice.c main.c
  ok "$cc two translation units run" $out/two
  ok "$cc other limits" $cc -std=c99 $WARN_C -DSWEREX_LOG_LEVEL=SWEREX_LOG_OFF -DSWEREX_MAX_OUTPUT=4096 \
    -DSWEREX_MAX_FILE=4096 -DSWEREX_MAX_JSON_DEPTH=8 '-DSWEREX_ASSERT(x)=((void)(x))' -I../.. -c -o $out/x.o implementation.c
  ok "$cc SWEREX_NO_FARGATE adds no byte" no_fargate $cc
  ok "$cc own memory" $cc -std=c99 $WARN_C -I../.. -c -o $out/x.o own_memory.c
  ok "$cc after other headers with _GNU_SOURCE" $cc -std=c99 -D_GNU_SOURCE $WARN_C -I../.. -c -o $out/x.o after_headers.c
  refused "$cc after other headers" "put SWEREX_IMPLEMENTATION and swerex.h first" $cc -std=c99 -I../.. -c -o $out/x.o after_headers.c
  refused "$cc after itself" "put SWEREX_IMPLEMENTATION and swerex.h first" $cc -std=c99 -I../.. -include ../../swerex.h \
    -c -o $out/x.o implementation.c
  refused "$cc a way to libcurl that is none" "SWEREX_USE_CURL is 0" $cc -std=c99 -DSWEREX_USE_CURL=3 -I../.. -c -o $out/x.o implementation.c
  refused "$cc two of three memory macros" "Define all of" $cc -std=c99 -DSWEREX_MALLOC=malloc -I../.. -c -o $out/x.o implementation.c
  ok "$cc kqueue sibling" $cc -std=c99 $WARN_C -DSWEREX_POLLER=SWEREX_POLLER_KQUEUE -Ikqueue -I../.. -fsyntax-only implementation.c
done
# Modal's sections leave nothing behind where they are left out.
for options in "-DSWEREX_USE_CURL=2 -DSWEREX_NO_MODAL" "-DSWEREX_USE_CURL=2 -DSWEREX_NO_REMOTE" ""; do
  ok "nothing of Modal with $options" sh -c "${CC:-cc} -std=c99 $options -w -I../.. -c -o $out/x.o implementation.c &&
    ! nm $out/x.o | grep -E 'swerex__(pb|grpc|modalpb|modalrc|context|modal|image|sandbox)_'"
done
for cxx in g++ clang++; do
  if ! have $cxx; then
    skip "$cxx"
    continue
  fi
  for std in c++11 c++17 c++20; do
    ok "$cxx -std=$std" $cxx -std=$std $WARN -I../.. -x c++ -c -o $out/x.o twice.c
  done
  refused "$cxx implementation" "SWEREX_IMPLEMENTATION is C" $cxx -std=c++17 -x c++ -I../.. -c -o $out/x.o implementation.c
done
if have clang; then
  ok "clang -Weverything" clang -std=c99 -Weverything -Werror $QUIET -I../.. -c -o $out/x.o implementation.c
fi
if have musl-gcc; then
  CURL="0 2" # the headers of libcurl here are for another C library
  switches musl-gcc -std=c99
else
  skip "musl-gcc"
fi
printf 'int main(void) { return 0; }\n' >$out/probe.c
for cc in gcc clang; do
  have $cc || continue
  if $cc -m32 -o $out/probe $out/probe.c >/dev/null 2>&1; then
    CURL="0 2"
    switches $cc -m32 -std=c99
    ok "$cc 32 bits" $cc -m32 -O2 -std=c99 $WARN_C -I../.. -c -o $out/x.o implementation.c
  else
    skip "$cc, 32 bits"
  fi
done
# macOS, by a compiler that brings its headers: kqueue, and all that [sys] knows of that system. The
# linker has no iconv of Apple's to link with.
if python3 -m ziglang version >/dev/null 2>&1; then
  printf '#include <iconv.h>\niconv_t iconv_open(const char *to, const char *from) { return to == from ? 0 : (iconv_t)-1; }
size_t iconv(iconv_t c, char **i, size_t *n, char **o, size_t *r) { return c && i && n && o && r ? 0 : 1; }
int iconv_close(iconv_t c) { return c == 0; }\n' >$out/iconv.c
  for target in aarch64-macos x86_64-macos; do
    zig="python3 -m ziglang cc -target $target -std=c99"
    ok "$target" $zig $WARN_C -I../.. -c -o $out/x.o implementation.c
    ok "$target without the server" $zig $WARN_C -DSWEREX_NO_SERVER -DSWEREX_NO_DOCKER -I../.. -c -o $out/x.o implementation.c
    ok "$target by poll" $zig $WARN_C -DSWEREX_POLLER=SWEREX_POLLER_POLL -I../.. -c -o $out/x.o implementation.c
    for tool in swerex-remote swerex; do
      ok "$target $tool" $zig $WARN_C -DSWEREX_USE_CURL=2 -I../.. -c -o $out/x.o ../../tools/$tool.c
    done
    ok "$target links" $zig -w -o $out/macos $out/x.o $out/iconv.c
    ok "$target: kqueue is used" grep -aq '_kevent' $out/macos
  done
else
  skip "macOS: ziglang is not here (pip install ziglang)"
fi
printf '%d passed, %d failed' $passed $failed
[ $skipped -gt 0 ] && printf ', %d skipped' $skipped
printf '\n'
[ $failed -eq 0 ]
