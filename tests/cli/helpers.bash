# What the tests of the command line share. Sourced with the path of swerex as $1; the test then
# runs in an empty folder of its own.
set -u
here=$(cd "$(dirname "$0")" && pwd)
swerex=$(realpath "${1:-$here/../../tools/build/swerex}")
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export HOME=/nonexistent
unset PROMPT_COMMAND SWE_REX_LOG_STREAM_LEVEL
passed=0 failed=0 skipped=0 screens=0

# Run swerex; its output, error output and exit code are in $out, $err and $code.
s() {
  out=$("$swerex" "$@" 2>err </dev/null)
  code=$?
  err=$(cat err)
}

# Count the processes with this command line that this test has started.
export SWEREX_TEST_MARK=$$
processes() {
  local file line count=0
  for file in /proc/[0-9]*/cmdline; do
    line=$(tr '\0' ' ' 2>/dev/null <"$file")
    [ "$line" = "$1 " ] && grep -qsz "^SWEREX_TEST_MARK=$$\$" "${file%cmdline}environ" && count=$((count + 1))
  done 2>/dev/null
  echo $count
}

# Check that two texts are the same.
is() { # WHAT ACTUAL EXPECTED
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'not ok: %s: [%s], not [%s]\n' "$1" "$2" "$3"
  fi
}

# Check that a text holds another.
holds() { # WHAT TEXT PART
  case $2 in
  *"$3"*) passed=$((passed + 1)) ;;
  *)
    failed=$((failed + 1))
    printf 'not ok: %s: [%s] does not hold [%s]\n' "$1" "$2" "$3"
    ;;
  esac
}

lacks() { # WHAT TEXT PART
  case $2 in
  *"$3"*)
    failed=$((failed + 1))
    printf 'not ok: %s: [%s] holds [%s]\n' "$1" "$2" "$3"
    ;;
  *) passed=$((passed + 1)) ;;
  esac
}

skip() { # WHAT WHY
  skipped=$((skipped + 1))
  echo "ok # SKIP $1: $2"
}

# Run a command line in a terminal, press keys in the middle, which is when it shows a text or after
# some seconds, and leave in $screen what it shows: a screen line that did not fit comes as one long
# line. With -e, colours show as escapes. Returns when the program has ended, whose exit code is in
# $code.
screen() { # [-e] COLUMNS TEXT|SECONDS KEYS COMMAND
  local escapes="" tries=0 t
  screens=$((screens + 1)) # a server each: one that ends takes a moment
  t="tmux -L swx$$-$screens -f /dev/null"
  [ "$1" = -e ] && escapes=-e && shift
  rm -f screen.code
  $t new-session -d -x "$1" -y 200 "$4; echo \$? >screen.code; sleep 30"
  case $2 in
  [0-9] | [0-9].[0-9])
    sleep "$2"
    middle=$($t capture-pane -p -J)
    ;;
  *)
    until middle=$($t capture-pane -p -J) && [[ $middle == *"$2"* ]] || [ $tries -gt 150 ]; do
      tries=$((tries + 1))
      sleep 0.05
    done
    ;;
  esac
  tries=0
  [ -n "$3" ] && $t send-keys $3
  until [ -s screen.code ] || [ $tries -gt 150 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  screen=$($t capture-pane -p -J $escapes)
  code=$(cat screen.code 2>/dev/null || echo none)
  $t kill-server
}

# Say the numbers, and end.
finish() {
  printf '%d passed, %d failed' "$passed" "$failed"
  [ "$skipped" -gt 0 ] && printf ', %d skipped' "$skipped"
  printf '\n'
  [ "$failed" -eq 0 ]
  exit
}
