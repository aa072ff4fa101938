#!/bin/sh
# What the options of swerex.h cost: bytes of machine code and data (-Os), and lines of code, as
# rows for the table in its preface. With --check it compares them with the rows that stand there;
# what differs by more than a step of 10 KB or 500 lines is told, and fails.
cd "$(dirname "$0")/.." || exit 1
cc=${CC:-cc}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
printf '#define SWEREX_IMPLEMENTATION\n#include "swerex.h"\n' >"$tmp/impl.c"

# Bytes and lines that the implementation has with some flags.
measure() { # FLAG...
  "$cc" -std=c99 -Os -w -DNDEBUG -I. "$@" -c -o "$tmp/impl.o" "$tmp/impl.c" || exit 1
  size "$tmp/impl.o" | awk 'NR == 2 { print $1 + $2 }'
  "$cc" -std=c99 -E -w -DNDEBUG -I. "$@" "$tmp/impl.c" |
    awk '/^# [0-9]+ "/ { ours = index($3, "swerex.h") > 0; at = $2; next }
      ours && NF && !(at in seen) { seen[at] = 1; n++ } { at++ } END { print n }'
}

# A row: the difference to the whole, rounded.
row() { # NAME BYTES LINES SIGN
  awk -v name="$1" -v bytes="$2" -v lines="$3" -v sign="$4" 'BEGIN {
    printf " *     %-20s %6s KB %7s lines\n", name, sign int(bytes / 10240 + 0.5) * 10, sign int(lines / 500 + 0.5) * 500 }'
}

set -- "$@" ""
check=$1
whole=$(measure)
bytes=$(echo "$whole" | sed -n 1p) lines=$(echo "$whole" | sed -n 2p)
{
  row "the whole" "$bytes" "$lines" ""
  for option in $(sed -n 's/^ \*   \(SWEREX_NO_[A-Z]*\) .*/\1/p' swerex.h | grep -v MODAL); do
    with=$(measure "-D$option")
    row "$option" $((bytes - $(echo "$with" | sed -n 1p))) $((lines - $(echo "$with" | sed -n 2p))) -
  done
  with=$(measure -DSWEREX_USE_CURL=2)
  row "SWEREX_USE_CURL=2" $(($(echo "$with" | sed -n 1p) - bytes)) $(($(echo "$with" | sed -n 2p) - lines)) +
  bytes=$(echo "$with" | sed -n 1p) lines=$(echo "$with" | sed -n 2p)
  with=$(measure -DSWEREX_USE_CURL=2 -DSWEREX_NO_MODAL) # without libcurl, Modal is not there at all
  row "then SWEREX_NO_MODAL" $((bytes - $(echo "$with" | sed -n 1p))) $((lines - $(echo "$with" | sed -n 2p))) -
} >"$tmp/rows"
if [ "$check" != --check ]; then
  cat "$tmp/rows"
  exit
fi
grep -E '^ \*     .* KB .* lines$' swerex.h >"$tmp/told"
awk 'function number(text) { gsub(/[^0-9]/, "", text); return text + 0 }
  { name = substr($0, 8, 20); kb = number(substr($0, 29, 6)); n = number(substr($0, 39, 7)) }
  NR == FNR { measured[name] = $0; size[name] = kb; code[name] = n; next }
  { said[name] = 1; a = kb - size[name]; b = n - code[name] }
  !(name in measured) || a > 10 || a < -10 || b > 500 || b < -500 { print "swerex.h says " $0 "; it is " measured[name]; bad = 1 }
  END { for (name in measured) if (!(name in said)) { print "swerex.h does not say: " measured[name]; bad = 1 } exit bad }' \
  "$tmp/rows" "$tmp/told"
