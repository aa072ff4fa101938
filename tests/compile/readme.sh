#!/usr/bin/env bash
# What README.md says to type, in an empty folder with a copy of the one file.
# Usage: readme.sh COMPILER. Ends in `N passed, N failed`.
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/../cli/helpers.bash" none

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
finish
