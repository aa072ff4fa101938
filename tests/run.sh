#!/usr/bin/env bash
# Builds and runs the tests, and adds up what they say. Called by the Makefile with the name of one
# of the suites at the end of this file.
set -u
cd "$(dirname "$0")" || exit 1
mkdir -p build

CC=${CC:-cc}
WARN="-Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wundef -Wcast-qual -Wwrite-strings"
WARN_C="$WARN -Wstrict-prototypes -Wmissing-prototypes -Wvla"
SANITIZE="-fsanitize=address,undefined" # with messages, or, in half of gcc's time, with a trap
MESSAGES="$SANITIZE -fno-sanitize-recover=undefined"
TRAP="$SANITIZE -fsanitize-undefined-trap-on-error"
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}handle_sigill=1" # which says the line of a trap
passed=0 failed=0 skipped=0

say() { printf '%s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# Count one check that has passed or failed; show what it printed when it failed.
count() { # NAME STATUS LOG
  if [ "$2" -eq 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    say "FAILED: $1"
    [ -n "${3:-}" ] && tail -n 40 "$3"
  fi
}

skip() { # NAME REASON
  if [ -n "${SWEREX_STRICT:-}" ]; then
    say "FAILED: $1: $2, and SWEREX_STRICT is set"
    failed=$((failed + 1))
  else
    say "skipped: $1: $2"
    skipped=$((skipped + 1))
  fi
}

# Run a command that counts as one check.
check() { # NAME COMMAND...
  local name=$1 log
  shift
  log=build/check.$BASHPID.log
  "$@" >"$log" 2>&1
  count "$name" $? "$log"
}

# Add the numbers of a program that ends in `N passed, N failed[, N skipped]`.
add() { # NAME STATUS LOG
  local line
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$3" | tail -n 1)
  grep -E '# SKIP' "$3"
  if [ -z "$line" ]; then
    count "$1: ended early (status $2)" 1 "$3"
    return
  fi
  set -- "$1" "$2" "$3" $(printf '%s\n' "$line" | tr -cd '0-9 ')
  passed=$((passed + $4))
  failed=$((failed + $5))
  [ -n "${SWEREX_STRICT:-}" ] && failed=$((failed + ${6:-0})) || skipped=$((skipped + ${6:-0}))
  if [ "$5" -gt 0 ] || [ "$2" -ne 0 ]; then
    say "FAILED: $1: $line (status $2)"
    [ "$5" -gt 0 ] || failed=$((failed + 1))
    grep -avE '^(ok|#   is|#   not) ' "$3" | tail -n 40
  fi
}

# Call a function with each of some words, some at a time, the first ones first. (Ctrl-C shall reach
# what they start: the shell would have it ignored.)
each() { # WORKERS FUNCTION WORD...
  local workers=$1 call=$2 word claims
  shift 2
  claims=$(mktemp -d build/each.XXXXXX)
  while [ "$workers" -gt 0 ]; do
    workers=$((workers - 1))
    (
      trap - INT QUIT
      for word; do
        mkdir "$claims/${word//\//-}" 2>/dev/null || continue # another one has it
        $call "$word"
      done
    ) &
  done
  wait
  rm -rf "$claims"
}

# Run a part of a suite, a function with a word if it wants one, and note what it says and counts.
part() { # FUNCTION[:WORD]
  local name=build/part-${1//\//-}
  passed=0 failed=0 skipped=0
  rm -f "$name.sum"
  "${1%%:*}" "${1#*:}" >"$name.log" 2>&1 </dev/null
  echo "$passed $failed $skipped" >"$name.sum"
}

# Run the parts of a suite beside each other, two more than there are processors, as half of them
# mostly wait; then say what they said, and add up.
parts() { # FUNCTION[:WORD]...
  local name sum
  each $(($(getconf _NPROCESSORS_ONLN) + 2)) part "$@"
  for name; do
    cat "build/part-${name//\//-}.log"
    sum=($(cat "build/part-${name//\//-}.sum")) || sum=(0 1 0)
    passed=$((passed + sum[0])) failed=$((failed + sum[1])) skipped=$((skipped + sum[2]))
  done
}

# Wait for what another part makes, which stands before this one.
await() { # NAME
  until [ -f "build/$1.done" ]; do sleep 0.1; done
}

# Build and run one test program, with the words of $compiler and $flags.
program() { # NAME FILE WORDS...
  local test=$1 name=build/$label-$1 file=$2
  shift 2
  if ! $compiler -std=c99 -g1 "$@" -I.. -I. -Iapi -o "$name" "$file" $object -lpthread >"$name.log" 2>&1; then
    count "$label: $file does not compile" 1 "$name.log"
    return
  fi
  "$name" >"$name.log" 2>&1
  add "$label: $test" $? "$name.log"
}

# The tests of a section, with the implementation in them. As the public functions are static, a
# compiler leaves out all that a test does not reach; gcc only where it optimizes.
unit() { # NAME
  local object=
  program "$1" "unit/$1.c" -DSWEREX_STATIC -Wno-unused-function $flags
}

# The tests that reach all of the implementation, in one program: each would compile it again.
whole() {
  local object= name
  {
    printf '#define TEST_MAIN()\n'
    for name in $WHOLE; do printf '#include "unit/%s.c"\n' "$name"; done
    printf 'int main(int argc, char **argv) { return test_main(argc, argv); }\n'
  } >"build/$label-whole.c"
  program whole "build/$label-whole.c" -DSWEREX_STATIC -Wno-unused-function $flags -O0
}
WHOLE="test_aws test_dep test_engine test_errors"

# The implementation alone, which the tests of the public functions share.
object() {
  check "$label: the implementation compiles" $compiler -std=c99 -g1 $WARN_C $flags -O0 -I.. -c -o "build/$label.o" \
    compile/implementation.c
  touch "build/$label.done"
}

# The tests of some public functions.
api() { # NAME
  local object=build/$label.o
  await "$label"
  program "$1" "api/$1.c" $WARN_C $flags -O0
}

# The words for parts of some test files.
parts_of() { # FILE...
  printf '%s\n' "$@" | sed 's|/|:|; s|\.c$||'
}

# All tests of sections. (That of faults, which forks some thousand times, is one of `others`.)
unit_parts() {
  echo whole unit:test_zip
  parts_of unit/test_*.c | grep -vwE "test_zip|test_faults|${WHOLE// /|}"
}

units() { # LABEL COMPILER FLAGS [PART...]
  local label=$1 compiler=$2 flags=$3
  shift 3
  say "- unit tests, $label"
  parts ${@:-$(unit_parts)}
}

# All tests of public functions.
api_parts() {
  echo api:test_session
  parts_of api/test_*.c | grep -vw test_session
}

apis() { # LABEL COMPILER FLAGS [PART...]
  local label=$1 compiler=$2 flags=$3
  shift 3
  say "- tests of the public functions, $label"
  rm -f "build/$label.done"
  parts object ${@:-$(api_parts)}
}

sanitizers() { # COMPILER
  printf 'int main(void) { return 0; }\n' >build/probe.c
  if $1 $TRAP -o build/probe build/probe.c >/dev/null 2>&1 && build/probe; then
    say "$TRAP"
  fi
}

# Build with a Makefile, which must not make the compiler say a word.
silently() { # MAKE'S ARGUMENTS...
  make -s --no-print-directory "$@" 2>&1 | tee build/make.log
  [ "${PIPESTATUS[0]}" -eq 0 ] && ! [ -s build/make.log ]
}

# The programs of ../tools.
tools() {
  mkdir -p build/tools
  check "../tools/swerex.c compiles" $CC -std=c99 $WARN_C -O0 -DSWEREX_USE_CURL=2 -I.. -o build/tools/swerex \
    ../tools/swerex.c -lpthread -ldl
  check "../tools/swerex-remote.c compiles" $CC -std=c99 $WARN_C -I.. -fsyntax-only ../tools/swerex-remote.c
  touch build/tools.done
}

# A test of the command line.
cli() { # FILE
  await tools
  bash "cli/$1" build/tools/swerex >"build/$1.log" 2>&1
  add "cli/$1" $? "build/$1.log"
}

# What the README and the examples promise.
examples() {
  await "$label"
  bash compile/examples.sh "build/$label.o" "$compiler $WARN_C $flags" >build/examples.log 2>&1
  add "compile/examples.sh" $? build/examples.log
}

readme() {
  bash compile/readme.sh "$CC" >build/readme.log 2>&1
  add "compile/readme.sh" $? build/readme.log
}

# What make builds for a user.
users() {
  say "- examples and tools by make"
  check "make -C ../examples" silently -B -C ../examples
  check "make -C ../tools" silently -B -C ../tools
  rm -rf build/usr
  check "make -C ../tools install" silently -C ../tools install PREFIX="$PWD/build/usr"
  check "the installed programs" build/usr/bin/swerex run 'true'
  check "the installed completion" grep -q '^complete .* swerex$' build/usr/share/bash-completion/completions/swerex
}

rules() {
  sh ../tools/check.sh >build/rules.log 2>&1
  add "tools/check.sh" $? build/rules.log
}

compile() {
  say "- the matrix"
  bash compile/matrix.sh >build/matrix.log 2>&1
  add "compile/matrix.sh" $? build/matrix.log
  check "tools/sizes.sh" sh ../tools/sizes.sh --check
  say "- a copy with something added"
  bash compile/extend.sh >build/extend.log 2>&1
  add "compile/extend.sh" $? build/extend.log
}

# Build one fuzzer, without what it does not reach, and run it over its corpus.
fuzzer() { # FILE
  local name
  name=$(basename "$1" .c)
  rm -f "build/$name.status"
  mkdir -p "build/corpus-$name"
  clang -std=c99 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -w \
    -DSWEREX_STATIC -I.. -o "build/$name" "$1" >"build/$name.log" 2>&1 &&
    "build/$name" -max_total_time="$each_seconds" -max_len=4096 -timeout=20 -artifact_prefix=build/ \
      "build/corpus-$name" "fuzz/corpus/${name#fuzz_}" >"build/$name.log" 2>&1
  echo $? >"build/$name.status"
}

# Run each 2 fuzzer for a time.
fuzz() { # SECONDS
  local file name each_seconds=$1
  if ! have clang || ! sanitize_fuzzer; then
    skip "fuzzers" "clang with libFuzzer is not here"
    return
  fi
  say "- fuzzers, $1 s each"
  each 2 fuzzer fuzz/fuzz_*.c
  for file in fuzz/fuzz_*.c; do
    name=$(basename "$file" .c)
    count "$name" "$(cat "build/$name.status" || echo 1)" "build/$name.log"
  done
}

sanitize_fuzzer() {
  printf '#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *d, size_t n);\nint LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) { return d == NULL && n; }\n' >build/probe.c
  clang -fsanitize=fuzzer,address -o build/probe build/probe.c >/dev/null 2>&1
}

# cppcheck, which has nothing to be told.
analyze_cppcheck() {
  have cppcheck || { skip "cppcheck" "not here"; return; }
  check "cppcheck" cppcheck --enable=warning,portability --std=c99 --quiet --error-exitcode=1 \
    -DSWEREX_USE_CURL=2 -I.. compile/implementation.c
}

analyze_tidy() { # FILE
  have clang-tidy || { skip "clang-tidy" "not here"; return; }
  check "clang-tidy $1" clang-tidy --quiet --config-file=../tools/clang-tidy "$1" -- -std=c99 -I.. -DSWEREX_USE_CURL=2
}

# gcc's own analyzer, with half of the states for a point that it would keep: else it takes over
# 3 GB. Without leaks and what is not set: it loses sight of memory that a struct has, and valgrind,
# LSan and MSan look for these.
analyze_gcc() {
  have gcc || { skip "gcc -fanalyzer" "gcc is not here"; return; }
  check "gcc -fanalyzer" gcc -std=c99 -fanalyzer -Werror --param analyzer-bb-explosion-factor=2 \
    --param analyzer-max-enodes-per-program-point=4 -Wno-analyzer-malloc-leak \
    -Wno-analyzer-use-of-uninitialized-value -DSWEREX_USE_CURL=2 -I.. -c -o build/analyzed.o \
    compile/implementation.c
}

# clang's own, which goes into small functions only: all would take eight minutes, in which it
# takes lists that were emptied for full ones. Without what it says of vfork: between that and exec
# the keeper calls what only sets something in the child.
analyze_clang() {
  have clang || { skip "clang --analyze" "clang is not here"; return; }
  check "clang --analyze" clang --analyze --analyzer-output text -Xclang -analyzer-werror -Xclang -analyzer-opt-analyze-headers \
    -Xclang -analyzer-config -Xclang mode=shallow -Xclang -analyzer-disable-checker \
    -Xclang unix.Vfork,security.insecureAPI.vfork -std=c99 -DSWEREX_USE_CURL=2 -I.. compile/implementation.c
}

# What programs find that read the code, and sanitizers that the other suites do not use.
analyze() {
  say "- analyzers"
  parts analyze_{gcc,clang,cppcheck} \
    analyze_tidy:{compile/implementation.c,../tools/swerex.c,../tools/swerex-remote.c}
  if ! have clang; then
    skip "clang's sanitizers" "clang is not here"
    return
  fi
  # Threads: the wake of a loop, and the thread that looks names up.
  apis tsan clang "-w -fsanitize=thread" api:test_{loop,remote}
  # Memory that nobody has set: what reads texts of others. (Not zip: clang 14 does not know that
  # fstat sets something.)
  units msan clang "-O1 -w -fsanitize=memory" unit:test_{util,json,text,http,model,re,bash,fs}
}

# The recogniser of complete commands against the judgement of bash.
differ() {
  say "- the recogniser against bash"
  check "diff_bash builds" $CC -std=c99 -O1 -w -I.. -o build/diff_bash fuzz/diff_bash.c
  check "diff_bash" build/diff_bash 1 4000
}

# --- peers: the Python package on the other side ---

# Install the package, its client's needs, and nothing into the system.
peers_install() {
  [ -x build/peers/bin/swerex-remote ] && build/peers/bin/python -c 'import swerex, aiohttp, h2' && return
  python3 -m venv build/peers && build/peers/bin/pip install -q swe-rex aiohttp requests h2
}

# Wait until a server has written its port, alone or behind a last colon, and print it.
port_of() { # FILE
  local tries=0
  until [ -s "$1" ]; do
    tries=$((tries + 1))
    [ $tries -gt 400 ] && return 1
    sleep 0.1
  done
  sed -n '1s/.*[^0-9]\([0-9][0-9]*\)$/\1/;1p' "$1"
}

# Run both clients against one server, which writes its port to build/port and is job $1.
clients() { # PID LABEL FLAG
  local port python=build/peers/bin/python
  if ! port=$(port_of build/port); then
    count "the $2 server starts" 1 build/server.log
    return
  fi
  $python peers/python_client.py --host http://127.0.0.1 --port "$port" --token token $3 >build/client.log 2>&1
  add "Python client, $2 server" $? build/client.log
  if [ -x build/client ]; then
    build/client http://127.0.0.1 "$port" token $3 >build/client.log 2>&1
    add "our client, $2 server" $? build/client.log
  fi
  kill "$1"
  wait "$1" 2>/dev/null
}

peers() {
  local flags server PATH=$PWD/build/peers/bin:$PATH
  say "- the Python package, both ways"
  if ! peers_install >build/peers.log 2>&1; then
    skip "peers" "swe-rex and aiohttp cannot be installed (tests/build/peers.log says why)"
    return
  fi
  flags=$(sanitizers "$CC")
  check "our client builds" $CC -std=c99 -g $flags -Wall -Wextra -I.. -I. -o build/client peers/client.c -lpthread
  check "our server builds" $CC -std=c99 -g $flags $WARN_C -I.. -o build/remote ../tools/swerex-remote.c -lpthread
  rm -f build/port
  HOME=/nonexistent SWEREX_AUTH_TOKEN=token build/remote --host 127.0.0.1 --port 0 >build/port 2>build/server.log </dev/null &
  server=$!
  clients $server "our" ""
  [ -s build/server.log ] && count "our server is silent" 1 build/server.log
  check "the test of broken servers builds" $CC -std=c99 -g $flags -Wall -Wextra -I.. -I. -o build/client_faults \
    peers/client_faults.c -lpthread
  rm -f build/port
  python3 peers/fake_servers.py 0 >build/port 2>/dev/null </dev/null &
  server=$!
  build/client_faults "$(port_of build/port)" >build/client.log 2>&1
  add "broken servers" $? build/client.log
  kill $server
  rm -f build/port
  bash peers/python_server.sh token build/server.log >build/port 2>/dev/null </dev/null &
  clients $! "Python" --python-server
}

# https, with libcurl linked and loaded, against servers with certificates of their own making.
https() {
  say "- https by libcurl"
  if ! have openssl || ! printf '#include <curl/curl.h>\n' | $CC -E - >/dev/null 2>&1; then
    skip "https" "openssl or libcurl's headers are not here (apt-get install openssl libcurl4-openssl-dev)"
    return
  fi
  peers_install >build/peers.log 2>&1 || { skip "https" "the module h2 cannot be installed"; return; }
  mkdir -p build/https
  ln -sfn ../../.. build/https/inc
  check "a server to stand behind" $CC -std=c99 -g -w -I.. -o build/https/remote ../tools/swerex-remote.c -lpthread
  build/peers/bin/python peers/https.py "$PWD/build/https" >build/https.log 2>&1 </dev/null
  add "peers/https.py" $? build/https.log
}

# --- containers ---

# The fargate deployment, by the command line, against an AWS of moto's.
fargate() {
  local flags
  say "- AWS Fargate"
  flags=$(sanitizers "$CC")
  if ! { [ -x build/aws/bin/moto_server ] || { python3 -m venv build/aws &&
    build/aws/bin/pip install -q 'moto[server]' boto3; }; } >build/aws.log 2>&1; then
    skip "fargate" "moto and boto3 cannot be installed (tests/build/aws.log says why)"
    return
  fi
  mkdir -p build/aws/task
  check "a server for the tasks" $CC -std=c99 -O1 -w -I.. -o build/aws/task/swerex-remote \
    ../tools/swerex-remote.c -lpthread
  check "a command line" $CC -std=c99 -g -O1 $flags -w -DSWEREX_USE_CURL=2 -I.. -o build/aws/swerex \
    ../tools/swerex.c -lpthread -ldl
  build/aws/bin/python peers/fargate.py build/aws/swerex build/aws/task >build/fargate.log 2>&1 </dev/null
  add "peers/fargate.py" $? build/fargate.log
}

# --- Modal ---

# Modal's own clients: JavaScript's, whose definitions the small Modal serves, and Python's.
modal_install() {
  [ -f build/modal/node_modules/modal/dist/index.js ] ||
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/modal modal@0.11.1 || return
  [ -x build/modal/python/bin/modal ] || { python3 -m venv build/modal/python &&
    build/modal/python/bin/pip install -q modal==1.6.4; }
}

# Run a command against a small Modal of its own, whose port is $PORT in it and whose log is LOG.
with_modal() { # NAME LOG COMMAND...
  local name=$1 record=$2 fake PORT
  shift 2
  rm -f build/port
  FAKE_PATH=$PWD/build/modal/bin node peers/fake_modal.mjs build/modal "$record" \
    >build/port 2>build/server.log </dev/null &
  fake=$!
  if PORT=$(port_of build/port); then
    export PORT
    "$@" >build/modal.log 2>&1 </dev/null
    add "$name" $? build/modal.log
  else
    count "$name: the small Modal starts" 1 build/server.log
  fi
  kill $fake
  wait $fake
  count "$name: the small Modal ends well" $? build/server.log
}

# A libcurl that is not there, and one without HTTP/2: a sentence each.
modal_libraries() {
  local folder=build/modal/no-libcurl name
  mkdir -p $folder build/modal/old-libcurl
  for name in libcurl.so.4 libcurl-gnutls.so.4; do echo "no library" >$folder/$name; done
  check "the old libcurl builds" $CC -shared -fPIC -w -o build/modal/old-libcurl/libcurl.so.4 peers/old_libcurl.c -ldl
  check "libcurl is absent" modal_refuses $folder "libcurl.so.4 is not installed: apt-get install libcurl4"
  check "libcurl has no HTTP/2" modal_refuses build/modal/old-libcurl \
    "this libcurl was built without HTTP/2: install one with nghttp2"
}

# As the real one is: by https, where one connection has all calls.
modal_tls() {
  local log=build/modal
  if ! have openssl; then
    skip "Modal by https" "openssl is not here (apt-get install openssl)"
    return
  fi
  check "a certificate" openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout $log/key.pem -out $log/cert.pem
  export FAKE_TLS=$log/cert.pem:$log/key.pem
  with_modal "our deployment, by https" $log/deployment.jsonl \
    env CURL_CA_BUNDLE=$PWD/$log/cert.pem LOG=$log/deployment.jsonl \
    SWEREX_REMOTE_BINARY=$PWD/$log/bin/swerex-remote build/modal2 --filter start
  unset FAKE_TLS
}

modal_refuses() { # FOLDER SENTENCE
  local real
  real=$(ldd build/modal1 | awk '/libcurl/ { print $3 }')
  OLD_LIBCURL=$real LD_LIBRARY_PATH=$1 MODAL_TOKEN_ID=ak MODAL_TOKEN_SECRET=as MODAL_SERVER_URL=http://127.0.0.1:9 \
    build/modal/swerex --config '{"type":"modal"}' exec true >build/refused.log 2>&1
  cat build/refused.log
  grep -qF "$2" build/refused.log
}

modal() {
  local curl flags other v2 log=build/modal bin=build/modal/bin
  say "- Modal"
  if ! have node || ! have npm; then
    skip "modal" "node and npm are not here (apt-get install nodejs npm)"
    return
  fi
  if ! modal_install >build/modal-install.log 2>&1; then
    skip "modal" "Modal's clients cannot be installed (tests/build/modal-install.log says why)"
    return
  fi
  flags=$(sanitizers "$CC")
  check "our codec builds" $CC -std=c99 -g -O1 $flags -Wall -Wextra -Wno-unused-function \
    -Wno-unused-const-variable -I.. -o build/modal_codec peers/modal_codec.c -lpthread -ldl
  node peers/modal_codec.mjs build/modal build/modal_codec >build/modal.log 2>&1 </dev/null
  add "peers/modal_codec.mjs" $? build/modal.log
  mkdir -p $bin
  check "a server for the sandboxes" $CC -static -std=c99 -O1 -w -I.. -o $bin/swerex-remote \
    ../tools/swerex-remote.c -lpthread
  check "a command line" $CC -std=c99 -g -O1 $flags -w -DSWEREX_USE_CURL=2 -I.. -o build/modal/swerex \
    ../tools/swerex.c -lpthread -ldl
  for curl in 1 2; do
    check "our test of Modal builds, SWEREX_USE_CURL=$curl" $CC -std=c99 -g $flags -Wall -Wextra \
      -Wno-unused-function -DSWEREX_USE_CURL=$curl -I.. -I. -o build/modal$curl peers/modal.c -lpthread -ldl \
      $([ $curl = 1 ] && printf %s -lcurl)
    rm -f $log/deployment.jsonl
    with_modal "our deployment, SWEREX_USE_CURL=$curl" $log/deployment.jsonl \
      env LOG=$log/deployment.jsonl SWEREX_REMOTE_BINARY=$PWD/$bin/swerex-remote build/modal$curl
  done
  with_modal "our deployment, newer sandboxes" $log/deployment.jsonl \
    env MODAL_SANDBOX_V2=1 LOG=$log/deployment.jsonl SWEREX_REMOTE_BINARY=$PWD/$bin/swerex-remote \
    build/modal2 --filter start
  modal_tls
  modal_libraries
  for v2 in 0 1; do
    export MODAL_SANDBOX_V2=$v2
    with_modal "JavaScript's client, sandboxes V2=$v2" $log/all.jsonl \
      sh -c "node peers/modal_official.mjs build/modal \$PORT"
    with_modal "Python's client, sandboxes V2=$v2" $log/all.jsonl \
      sh -c "build/modal/python/bin/python peers/modal_python.py \$PORT $bin/swerex-remote"
    with_modal "the steps by JavaScript, V2=$v2" $log/javascript$v2.jsonl \
      sh -c "node peers/modal_official.mjs build/modal \$PORT peers/modal_steps.json"
    with_modal "the steps by Python, V2=$v2" $log/python$v2.jsonl \
      sh -c "build/modal/python/bin/python peers/modal_python.py \$PORT $bin/swerex-remote peers/modal_steps.json"
    with_modal "the steps by ours, V2=$v2" $log/ours$v2.jsonl \
      sh -c "python3 peers/modal_ours.py \$PORT build/modal/swerex $bin/swerex-remote $log/ours$v2.jsonl \
        peers/modal_steps.json"
    for other in javascript python; do
      node peers/modal_compare.mjs $log/$other$v2.jsonl $log/ours$v2.jsonl \
        '^/opt/swerex/swerex-remote --host 0.0.0.0 --port 8880$' >build/modal.log 2>&1 </dev/null
      add "what ours sent, and $other, V2=$v2" $? build/modal.log
    done
    check "a recording equals itself, V2=$v2" \
      node peers/modal_compare.mjs $log/javascript$v2.jsonl $log/javascript$v2.jsonl
    sed 's/"milliCpu":2000/"milliCpu":2001/' $log/javascript$v2.jsonl >$log/other.jsonl
    check "another value is seen, V2=$v2" \
      sh -c "! node peers/modal_compare.mjs $log/javascript$v2.jsonl $log/other.jsonl"
  done
  unset MODAL_SANDBOX_V2
}

# Run the clients of the peers against the server in a container; their logs are build/suite-*.
client_suite() { # ENGINE IMAGE TRANSPORT WITHOUT
  local name=build/suite-$1-$2-$3 image=swerex-test/$2 label=$2-$3-$$ args port token try lacks=$4 slow=
  [ "$3" = stdio ] && lacks="$4 speed" slow="--timeout 2 --pace 4" # each of its connections is an exec
  [ "$1" = podman ] && image=localhost/$image
  args='"-v","/tmp:/tmp","--pid=host"' # the tests look at files and processes of the server
  rm -f "$name".*
  exec 9> >(exec build/hold "{\"type\":\"docker\",\"container_runtime\":\"$1\",\"pull\":\"never\",
    \"image\":\"$image\",\"transport\":\"$3\",\"labels\":{\"swerex.suite\":\"$label\"},
    \"docker_args\":[$args]}" >"$name.port" 2>"$name.err")
  if port_of "$name.port" >/dev/null; then
    read -r port token <"$name.port"
    HOME=/nonexistent build/client http://127.0.0.1 "$port" "$token" --without "$lacks" >"$name.ours" 2>&1
    echo $? >"$name.status"
    [ "$2" = debian ] && SERVER_PYTHON=python3 HOME=/nonexistent build/peers/bin/python peers/python_client.py \
      --host http://127.0.0.1 --port "$port" --token "$token" $slow >"$name.python" 2>&1
  fi
  exec 9>&-
  for try in $(seq 300); do
    [ -z "$("$1" ps -q --filter "label=swerex.suite=$label")" ] && touch "$name.gone" && return
    sleep 0.1
  done
}

# The clients by both transports at once, as they mostly wait.
client_suites() { # ENGINE-IMAGE
  local transport without=gdb
  case $1 in
  docker-musl) without="gdb python3" ;;
  docker-busybox) without="gdb python3 bash" ;;
  docker-empty) without="gdb python3 bash coreutils" ;;
  podman-musl) without="gdb python3 speed" ;; # all takes its time there
  esac
  for transport in tcp stdio; do client_suite "${1%-*}" "${1#*-}" $transport "$without" & done
  wait
}

# Count what they said.
count_suites() { # ENGINE-IMAGE
  local transport name
  for transport in tcp stdio; do
    name=build/suite-$1-$transport
    if [ ! -f "$name.status" ]; then
      count "a container by $transport starts, $1" 1 "$name.err"
      continue
    fi
    add "our client, server by $transport, $1" "$(cat "$name.status")" "$name.ours"
    [ "$1" = docker-debian ] && add "Python client, server by $transport, $1" 0 "$name.python"
    check "the container by $transport is gone, $1" test -f "$name.gone"
  done
}

# The programs of ../tools, and the static server among them, which goes into containers.
container_tools() {
  make -C ../tools all build/swerex-remote-x86_64 >build/tools.log 2>&1 || return
  export SWEREX_REMOTE_BINARY=$PWD/../tools/build/swerex-remote
}

# Make sure that an engine answers, and has the images.
container_engine() { # docker|podman
  if ! bash containers/engine.sh "$1" >"build/$1.env"; then
    skip "$1" "it is not here, or cannot be started"
    return 1
  fi
  [ -s "build/$1.env" ] && export "$(cat "build/$1.env")"
  bash containers/images.sh "$1" >build/images.log 2>&1
  count "images for $1" $? build/images.log
}

# The deployment in containers.
engine() { # docker|podman
  local flags tool=$PWD/../tools/build/swerex
  say "- containers of $1"
  flags=$(sanitizers "$CC")
  container_tools || { skip "$1" "no static server"; return; }
  check "the test of containers builds" $CC -std=c99 -g $flags -Wall -Wextra -Wno-unused-function -I.. -I. \
    -o build/test_docker containers/test_docker.c -lpthread
  peers_install >build/peers.log 2>&1 # one test wants the Python server, and says so
  container_engine "$1" || return
  build/test_docker "$1" "$tool" >build/containers.log 2>&1 </dev/null
  add "test_docker $1" $? build/containers.log
  bash containers/batch.sh "$tool" "$1" swerex-test/busybox >build/containers.log 2>&1 </dev/null
  add "containers/batch.sh $1" $? build/containers.log
}

# Clients of all kinds, and the server in a container.
boxes() {
  local flags pair pairs
  say "- clients, and the server in a container"
  flags=$(sanitizers "$CC")
  container_tools || { skip "the clients against containers" "no static server"; return; }
  container_engine docker || return
  if ! peers_install >build/peers.log 2>&1; then
    skip "the clients against containers" "swe-rex cannot be installed"
    return
  fi
  check "our client builds" $CC -std=c99 -g $flags -Wall -Wextra -I.. -I. -o build/client peers/client.c -lpthread
  check "hold builds" $CC -std=c99 -O1 -w -I.. -o build/hold containers/hold.c
  pairs="docker-debian docker-musl docker-busybox docker-empty"
  container_engine podman && pairs="$pairs podman-musl"
  each 2 client_suites $pairs
  for pair in $pairs; do count_suites "$pair"; done
  build/peers/bin/python containers/python_docker.py "$SWEREX_REMOTE_BINARY-x86_64" swerex-test/musl \
    >build/containers.log 2>&1
  add "Python's DockerDeployment with our server" $? build/containers.log
  check "make -C ../examples" make -C ../examples
  check "examples/containers" ../examples/build/containers swerex-test/busybox 20
}

# What containers take, beside the bare engine.
bench_containers() {
  say "- benchmark of containers"
  container_tools || { skip "benchmark of containers" "no static server"; return; }
  container_engine docker || return
  check "the benchmark of containers builds" $CC -std=c99 -O2 -w -I.. -o build/bench_containers bench/containers.c
  python3 bench/containers.py build/bench_containers docker swerex-test/busybox
  count "benchmark of containers" $?
}

containers() {
  engine docker
  engine podman
  boxes
  bench_containers
}

# The server as it goes into images: small, static, and at work, on the other processor too.
statics() {
  local machine emulator file server port
  say "- static servers"
  for machine in x86_64 aarch64; do
    emulator="" file=../tools/build/swerex-remote-$machine
    if [ $machine = x86_64 ] && ! have musl-gcc; then
      skip "static x86_64" "musl-gcc is not here" && continue
    elif [ $machine = aarch64 ] && ! python3 -m ziglang version >/dev/null 2>&1; then
      skip "static aarch64" "ziglang is not here (pip install ziglang)" && continue
    fi
    check "make $file" make -C ../tools build/swerex "build/swerex-remote-$machine"
    [ -x "$file" ] || continue
    check "$machine: under 500 KB" test "$(wc -c <"$file")" -lt 500000
    check "$machine: no interpreter, no symbols" sh -c "! grep -aq 'ld-linux\|ld-musl\|swerex__' $file"
    if [ "$(uname -m)" != $machine ]; then
      emulator=qemu-$machine-static
      have $emulator || { skip "$machine" "$emulator is not here"; continue; }
    fi
    rm -f build/port
    HOME=/nonexistent $emulator $file --host 127.0.0.1 --port 0 >build/port 2>build/server.log </dev/null &
    server=$!
    port=$(port_of build/port)
    check "$machine: runs commands, files and sessions" ../tools/build/swerex run \
      --host "127.0.0.1:$port" --check 'test "$(echo $((6 * 7)))" = 42' 'cd /tmp' 'test $PWD = /tmp'
    check "$machine: says its version" sh -c "$emulator $file --version | grep -q '^[0-9.]*$'"
    kill $server
    wait $server
    check "$machine: ends well" test $? -eq 0
  done
}

fast() {
  local label=cc compiler=$CC flags
  flags=$(sanitizers "$CC")
  [ -n "$flags" ] || skip "sanitizers" "$CC has none; the tests run without"
  flags="-Og $flags"
  rm -f build/$label.done build/tools.done
  parts object tools $(api_parts) cli:{batch,command_line,doctor,completion}.sh $(unit_parts) examples readme rules
}

# The tests of fast with another compiler, another C library, and by valgrind.
others() {
  if have clang; then
    units clang clang "-O0 $MESSAGES" unit:test_faults $(unit_parts)
    apis clang clang "$MESSAGES"
  else
    skip "clang" "not here"
  fi
  if have musl-gcc; then
    apis musl musl-gcc -static
  else
    skip "musl" "musl-gcc is not here"
  fi
  apis poll "$CC" "$(sanitizers "$CC") -DSWEREX_POLLER=SWEREX_POLLER_POLL"
  users
  if have valgrind; then
    say "- valgrind"
    check "valgrind: the test builds" $CC -std=c99 -g -O1 -w -I.. -I. -Iapi -o build/valgrind-test_loop \
      api/test_loop.c compile/implementation.c -lpthread
    check "valgrind" valgrind -q --error-exitcode=9 --leak-check=full --track-fds=no \
      --child-silent-after-fork=yes build/valgrind-test_loop
  else
    skip "valgrind" "not here"
  fi
}

# What `all` has beyond `fast`, but for a benchmark: roughly those that take longest first.
SUITES="boxes modal compile docker fargate peers https podman others fuzz statics analyze differ"

suite() { # NAME
  case $1 in
  docker | podman) engine "$1" ;;
  fuzz) fuzz "${SECONDS_EACH:-20}" ;;
  *) "$1" ;;
  esac
}

more() {
  local name
  for name in $SUITES; do suite "$name"; done
  bench_containers
}

case ${1:-fast} in
suites) echo "$SUITES" && exit ;;
fast | more | containers) "$1" ;;
all)
  fast
  more
  ;;
check) rules ;;
bench-containers) bench_containers ;;
fuzz) fuzz "${SECONDS_EACH:-60}" ;;
others | compile | analyze | differ | peers | https | fargate | modal | statics | docker | podman | boxes)
  suite "$1"
  ;;
*) say "run.sh: no suite named $1" && exit 2 ;;
esac
printf '%d passed, %d failed' "$passed" "$failed"
[ "$skipped" -gt 0 ] && printf ', %d skipped' "$skipped"
printf '\n'
[ "$failed" -eq 0 ]
