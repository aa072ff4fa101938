#!/bin/sh
# The rules of swerex.h that a machine can hold it to. Prints a line per finding, then
# `N passed, N failed` over the rules.
cd "$(dirname "$0")/.." || exit 1
header=${1:-swerex.h}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# Take a rule's findings from standard input: none is a pass. (It runs in a pipeline's subshell.)
rule() {
  cat >"$tmp/found"
  if [ -s "$tmp/found" ]; then
    echo >>"$tmp/failed"
    head -n 20 "$tmp/found" | sed "s|^|$1: |"
  else
    echo >>"$tmp/passed"
  fi
}

# Banners as "key title", contents as "key|title|uses".
awk '/^\/\* =+$/ { getline; if (match($0, /^ \* \[[a-z]+\] /)) {
  key = $2; gsub(/[][]/, "", key); sub(/^ \* \[[a-z]+\] /, ""); print key "|" $0 } }' "$header" >"$tmp/banners"
awk '/^ \* CONTENTS/ { on = 1; next } /^ \*\// { on = 0 } !on { next }
  match($0, /^ \*   [a-z]+ +.* uses: /) { key = $2; line = $0; sub(/^ \*   [a-z]+ +/, "", line)
    uses = line; sub(/.* uses: /, "", uses); sub(/ +uses: .*/, "", line)
    if (n) print row; row = key "|" line "|" uses; n = 1; next }
  n && /^ \*                     +/ { more = $0; sub(/^ \* +/, " ", more); row = row more }
  END { if (n) print row }' "$header" >"$tmp/contents"

cut -d'|' -f1,2 "$tmp/contents" | diff - "$tmp/banners" | rule "contents and banners differ"

awk -F'|' '{ n = split($3, uses, " "); for (i = 1; i <= n; i++)
  if (uses[i] != "-" && !(uses[i] in above)) print $1 " uses " uses[i] ", which does not stand above"
  above[$1] = 1 }' "$tmp/contents" | rule "order"

# What each section calls, by the prefixes of the names in it.
awk -F'|' 'NR == FNR { uses[$1] = " " $3 " "; next }
  /^\/\* =+$/ { getline; if (match($0, /\[[a-z]+\]/)) section = substr($0, RSTART + 1, RLENGTH - 2) }
  section == "" { next }
  { text = $0; while (match(text, /swerex__[a-z]+|SWEREX__[A-Z]+/)) {
      key = tolower(substr(text, RSTART + 8, RLENGTH - 8)); text = substr(text, RSTART + RLENGTH)
      if (key == section || seen[section, key]++) continue
      if (!(key in uses)) print FNR ": [" section "] names a section that does not exist: " key
      else if (index(uses[section], " " key " ") == 0) print FNR ": [" section "] uses " key " without saying so" } }
  END { for (key in uses) { n = split(uses[key], list, " "); for (i = 1; i <= n; i++)
    if (list[i] != "-" && !seen[key, list[i]]) print "[" key "] does not use " list[i] } }' "$tmp/contents" "$header" |
  rule "layers"

awk 'length($0) > 100 { print FNR ": " length($0) " columns" }
  /\t/ { print FNR ": tab" } /[ ]$/ { print FNR ": blank at the end" }' "$header" | rule "lines"

# Function length: from a line that opens a body at column 1 to the closing brace at column 1.
awk -v limit=100 '/^[a-z].*[^;,]$/ || /^[a-z].*\($/ { if (!body) { start = FNR; name = $0 } }
  /\{$/ && !body && start { body = FNR }
  /^\}/ { if (body && FNR - start + 1 > limit && name !~ /^(typedef|enum|struct|static const)/)
    print start ": " FNR - start + 1 " lines: " name; body = 0; start = 0 }' "$header" | rule "function length"

awk '/^(static|SWEREX_API|SWEREX__SYS_UNUSED) .*\) \{.*\}$/ { print 1 }
  /^[a-z].*[^;,]$/ || /^[a-z].*\($/ { if (!body) { start = FNR; name = $0 } }
  /\{$/ && !body && start { body = FNR }
  /^\}/ { if (body && name !~ /^(typedef|enum|struct|static const)/) print FNR - start + 1; body = 0; start = 0 }' "$header" |
  sort -n | awk -v limit=15 '{ size[NR] = $1 } END { median = size[int((NR + 1) / 2)]
    if (median >= limit) print "half of the functions have " median " lines or more" }' | rule "median function length"

awk '/^\/\* =+$/ { at = FNR; getline; if (match($0, /\[[a-z]+\]/)) { if (section != "" && at - first > limit)
    print section ": " at - first " lines"; section = substr($0, RSTART, RLENGTH); first = at } }' limit=600 "$header" |
  rule "section length"

cat >"$tmp/impl.c" <<EOF
#define SWEREX_IMPLEMENTATION
#include "swerex.h"
EOF
cc=${CC:-cc}
$cc -std=c99 -Wunused-function -I"$(dirname "$header")" -c -o "$tmp/impl.o" "$tmp/impl.c" >"$tmp/said" 2>&1
grep -v 'unused-function' "$tmp/said" | grep -E 'error|warning' | rule "compiles"
grep 'unused-function' "$tmp/said" | rule "unused"
nm -g --defined-only "$tmp/impl.o" 2>/dev/null | awk '{ print $3 }' | sort >"$tmp/exported"
awk '/^SWEREX_API/ { line = $0; while (line !~ /\(/) { getline more; line = line " " more }
  sub(/\(.*/, "", line); n = split(line, w, /[ *]+/); print w[n] }' "$header" | sort -u >"$tmp/declared"
diff "$tmp/exported" "$tmp/declared" | grep '^[<>]' | rule "exported and declared differ"

awk '/^\/\* =+$/ { getline; if (match($0, /\[[a-z]+\]/)) section = substr($0, RSTART + 1, RLENGTH - 2) }
  section != "" && section != "sys" && section != "mem" &&
  /(^|[^a-z_A-Z>.])(malloc|calloc|realloc|free|strdup|asprintf|getline) ?\(/ { print FNR ": " $0 }
  /(^|[^a-z_])(strcpy|strcat|sprintf|gets|strtok) ?\(/ { print FNR ": " $0 }' "$header" | grep -v '^[0-9]*:  *\*' |
  rule "calls that are not allowed"

echo '#include "swerex.h"' >"$tmp/public.c"
$cc -std=c99 -Wall -Wextra -Wpedantic -Werror -I"$(dirname "$header")" -fsyntax-only "$tmp/public.c" 2>&1 |
  rule "self-contained"

awk '/^ \* OPTIONS/ { on = 1 } /^ \* CONTENTS/ { exit } on && /^ \*   SWEREX_[A-Z_]+/ {
  line = $0; while (match(line, /SWEREX_[A-Z_]+/)) { print substr(line, RSTART, RLENGTH); line = substr(line, RSTART + RLENGTH)
    if (line !~ /^\([a-z, ]*\), SWEREX/) break } }' "$header" | sort -u >"$tmp/options"
while read -r option; do
  grep -qE "^#(ifndef|ifdef|if|elif).*$option" "$header" || echo "$option stands in the table, and nothing asks for it"
  grep -q "$option" README.md || echo "$option is not in the README"
done <"$tmp/options" | rule "options"

grep -rnE 'TODO|FIXME|XXX[^X]' swerex.h tools examples tests --include='*.[ch]' --include='*.sh' \
  --exclude-dir=build 2>/dev/null |
  grep -v 'tools/check.sh\|XXXXXX\|uXXXX\|test_bash.c' | rule "left open"

awk '/^SWEREX_API/ && !impl { if (previous !~ /\*\/$/ && previous !~ /^SWEREX_API/) print FNR ": no comment above: " $0 }
  /^#ifdef SWEREX_IMPLEMENTATION/ { impl++ } { previous = $0 }
  END { if (impl != 1) print "the implementation begins " impl + 0 " times" }' "$header" | rule "documentation"

awk '/^\/\* =+$/ { getline; if (match($0, /\[[a-z]+\]/)) section = substr($0, RSTART + 1, RLENGTH - 2) }
  /^#.*(__linux__|__APPLE__|__FreeBSD__|__OpenBSD__|__NetBSD__)/ && section !~ /^(sys|poll|keeper|)$/ {
  print FNR ": [" section "] " $0 }' "$header" | rule "system names"

awk 'END { if (NR >= 200) print NR " lines" }' README.md | rule "length of README.md"

git ls-files 2>/dev/null | sed 's|/.*||' | sort -u |
  grep -vxE 'swerex\.h|tests|examples|tools|LICENSE|README\.md|\..*' | rule "the root"

version=$(awk '/define SWEREX_VERSION_(MAJOR|MINOR|PATCH)/ { v = v (v == "" ? "" : ".") $3 } END { print v }' "$header")
grep -q "define SWEREX_VERSION \"$version\"" "$header" && sed -n 3p "$header" | grep -q "Version $version" &&
  grep -q "^ \*   $version  " "$header" || echo "$version is not said alike everywhere" >"$tmp/version"
cat "$tmp/version" 2>/dev/null | rule "version"

touch "$tmp/passed" "$tmp/failed"
printf '%d passed, %d failed\n' "$(wc -l <"$tmp/passed")" "$(wc -l <"$tmp/failed")"
[ ! -s "$tmp/failed" ]
