#!/usr/bin/env bash
# The examples, each compiled with all warnings, and run (but for containers, which the suite of
# containers runs). Usage: examples.sh OBJECT COMPILER, with the compiler's words, and the object of
# an implementation. Ends in `N passed, N failed`.
examples=$(cd "$(dirname "$0")/../../examples" && pwd)
object=$(realpath "$1") compiler=$2
. "$(dirname "$0")/../cli/helpers.bash" none

# Build an example and run it; what it says is in $out.
run() { # NAME
  is "$1 builds" "$($compiler -std=c99 -g -I"$examples/.." -o "$1" "$examples/$1.c" "$object" -lpthread 2>&1)" ""
  out=$(timeout 60 "./$1" 2>&1 </dev/null)
  is "$1 ends well" $? 0
}

run quickstart
holds quickstart "$out" 'session 3
[exit code 0]'
run parallel_sessions
is "parallel_sessions" "$(grep -c ': done in ' <<<"$out")" 8
run embed_in_poll_loop
holds embed_in_poll_loop "$out" "the host has read its own pipe"
holds embed_in_poll_loop "$out" "command: "
run python_repl
holds python_repl "$out" "$(command -v python3 >/dev/null && echo 'the answer is 42' || echo 'not installed')"
run gdb
holds gdb "$out" "$(command -v gdb >/dev/null && echo '$1 = 42' || echo 'not installed')"
is "containers builds" "$($compiler -std=c99 -g -I"$examples/.." -o containers "$examples/containers.c" "$object" -lpthread 2>&1)" ""
for file in "$examples"/*.c; do
  is "$(basename "$file") is short" "$(test "$(wc -l <"$file")" -lt 80 && echo short)" short
done
finish
