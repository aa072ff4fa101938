#!/usr/bin/env bash
# What README.md says to type, in an empty folder with a copy of the one file.
# Usage: readme.sh COMPILER. Ends in `N passed, N failed`.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
passed=0 failed=0

is() { # WHAT ACTUAL EXPECTED
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not ok: %s: [%s], not [%s]\n' "$1" "$2" "$3"
  fi
}

# The n-th block of C in the README.
block() { # N
  awk -v n="$1" '/^```c$/ { if (++k == n) on = 1; next } /^```$/ { on = 0 } on' "$root/README.md"
}

cp "$root/swerex.h" .
block 1 >program.c
block 2 >swerex.c
build=$(grep -oE '`cc [a-z. ]+`' "$root/README.md" | head -n 1 | tr -d '`')
is "the command that builds" "$build" "cc program.c swerex.c"
is "it builds without a word" "$(${1:-cc} ${build#cc } -lpthread 2>&1)" ""
is "it runs" "$(./a.out)" "/tmp
(exit code 0)"
is "lines of the program" "$(test "$(block 1 | sed -n '/^int main/,/^}/p' | wc -l)" -le 12 && echo few)" few
is "the command that tests" "$(grep -cE '^    make -C tests$' "$root/README.md")" 1
for target in $(grep -oE 'make -C (tests|tools|examples) [a-z]+' "$root/README.md" | awk '{ print $3 ":" $4 }'); do
  is "make -C ${target%:*} ${target#*:}" "$(make -n -C "$root/${target%:*}" "${target#*:}" >/dev/null 2>&1 && echo is there)" "is there"
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
