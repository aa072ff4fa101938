#!/usr/bin/env bash
# swerex batch. Usage: batch.sh PATH-OF-SWEREX
. "$(dirname "$0")/helpers.bash"
command -v python3 >/dev/null 2>&1 || { skip "batch.sh" "no python3 to read its JSON with"; finish; }

# Look something up in the JSON lines of $out; a Python expression over `runs`.
ask() { # EXPRESSION
  printf '%s\n' "$out" | python3 -c 'import json, sys
runs = sorted((json.loads(line) for line in sys.stdin if line.strip()), key=lambda run: run["number"])
print('"$1"')' 2>&1
}

s batch --count 3 -- sh -c 'echo "out $$"; echo err >&2'
is "all go well: code" "$code/$err" "0/"
is "a line each" "$(ask 'len(runs), [run["number"] for run in runs], {run["deployment"] for run in runs}')" "3 [1, 2, 3] {'local'}"
is "streams and codes" "$(ask '{(run["stderr"], run["exit_code"]) for run in runs}')" "{('err\\n', 0)}"
is "each in a process of its own" "$(ask 'len({run["stdout"] for run in runs})')" 3
is "times" "$(ask 'all(0 <= run["seconds"] < 20 for run in runs)')" True

echo '{"type":"dummy"}' >dummy.json
s batch --config local --config '{"type":"local","nope":1}' --config dummy.json -- sh -c 'exit 3'
is "one fails: code" "$code" 1
is "an exit code that is not 0" "$(ask 'runs[0]["exit_code"]')" 3
is "a deployment that cannot be" "$(ask 'runs[1]["error"]["code"], runs[1]["error"]["message"], runs[1]["deployment"]')" \
  "VALIDATION nope: Extra inputs are not permitted local"
is "a file" "$(ask 'runs[2]["deployment"]')" dummy.json
s batch --config missing.json -- true
is "a file that is not there" "$code/$out" "125/"
holds "a file that is not there: words" "$err" "No such file or directory: 'missing.json'"
s batch --count 2 -- nosuchprogram
is "a program that is not there" "$code/$(ask '{run["error"]["code"] for run in runs}')" "1/{'FILE_NOT_FOUND'}"
s batch --count 2 --timeout 0.3 --shell 'echo so far; sleep 8884'
is "a time limit" "$code/$(ask '{(run["error"]["code"], run["error"]["extra_info"]["stdout"]) for run in runs}')" \
  "1/{('COMMAND_TIMEOUT', 'so far\\n')}"
s batch --count 2 --cwd /usr --env 'A=b c' --shell 'pwd; echo "$A"'
is "folder and variable" "$(ask '{run["stdout"] for run in runs}')" "{'/usr\\nb c\\n'}"
out=$(printf 'x=1\necho "$((x + 1))"' | "$swerex" batch --shell --count 2 -)
is "a script from stdin" "$(ask '{run["stdout"] for run in runs}')" "{'2\\n'}"
s batch --count 99999 -- true
holds "too many" "$err" "--count: more than 10000 runs"
s batch --jobs 0 -- true
is "no jobs" "$code" 2
s batch
holds "no program" "$err" "usage: swerex batch"

mkdir now
s batch --count 8 --jobs 3 --shell 'mkdir now/$$; ls now | wc -l; sleep 0.2; rmdir now/$$'
is "no more than --jobs at once" "$(ask 'max(int(run["stdout"]) for run in runs)')" 3
is "results come as they come" "$("$swerex" batch --count 2 --jobs 1 --shell 'sleep 0.$(ls now | wc -l); mkdir now/$$' |
  head -n 1 | cut -c 1-11)" '{"number":1'

# Servers, each with its own folder.
for name in one two; do
  (mkdir $name && cd $name && exec "$swerex" serve --host 127.0.0.1 --port 0 >address 2>/dev/null </dev/null) &
done
for try in $(seq 100); do [ -s one/address ] && [ -s two/address ] && break || sleep 0.1; done
one=$(sed -n 's/.*listening on //p' one/address) two=$(sed -n 's/.*listening on //p' two/address)
s batch --host "$one" --host "$two" --env A=b --shell 'basename "$PWD"; echo $A'
is "servers" "$(ask '[(run["deployment"], run["stdout"]) for run in runs]')" "[('$one', 'one\\nb\\n'), ('$two', 'two\\nb\\n')]"
kill %1 %2
wait
s batch --host "$one" --count 2 -- true
is "a server that is gone" "$code" 1

# Ctrl-C in the middle.
"$swerex" batch --count 20 --jobs 4 --shell 'setsid sleep 8885 & sleep 8885' >lines 2>err </dev/null &
pid=$!
for try in $(seq 100); do [ "$(processes 'sleep 8885')" -ge 8 ] && break || sleep 0.1; done
kill -INT $pid
wait $pid
is "Ctrl-C: code" "$?" 130
is "Ctrl-C: processes" "$(processes 'sleep 8885')" 0
out=$(cat lines)
is "Ctrl-C: lines" "$(ask 'len(runs), {run["error"]["code"] for run in runs}')" "4 {'CANCELLED'}"
is "a reader that goes" "$("$swerex" batch --count 50 -- echo hi | head -n 1 | wc -l)" 1

if command -v tmux >/dev/null 2>&1; then
  screen 40 "2 running" "" "'$swerex' batch --count 3 --jobs 2 --shell 'echo a rather long line of words; sleep 1'"
  holds "a terminal: in the middle" "$middle" "running"
  holds "a terminal: how far" "$middle" "0 of 3 done, 0 failed, 2 running"
  holds "a terminal: at the end" "$screen" "3 of 3 done, 0 failed"
  lacks "a terminal: lines are redrawn" "$screen" "running"
  is "a terminal: lines" "$(grep -c ' ok ' <<<"$screen")" 3
  is "a terminal: 40 columns" "$(printf '%s\n' "$screen" "$middle" | awk 'length > 40')" ""
  is "a terminal: code" "$code" 0
  screen -e 80 0.2 "" "'$swerex' batch --config local --config '{\"type\":\"local\",\"no\":1}' --shell 'echo last words; exit 3'"
  holds "colours" "$screen" $'\033[31mexit code 3'
  holds "what a program said last" "$screen" "last words"
  holds "why a run failed" "$screen" "no: Extra inputs are not permitted"
  is "failures on a terminal" "$code" 1
  screen -e 80 0.2 "" "NO_COLOR=1 '$swerex' batch --shell 'exit 3'"
  lacks "NO_COLOR" "$screen" $'\033[31m'
  screen 40 0.2 "" "'$swerex' batch --json -- echo hi"
  holds "--json on a terminal" "$screen" '"stdout":"hi\n"'
  screen 40 "3 running" C-c "'$swerex' batch --count 9 --jobs 3 --shell 'setsid sleep 8886 & sleep 8886'"
  holds "Ctrl-C on a terminal" "$screen" "3 of 9 done, 3 failed, interrupted"
  is "Ctrl-C on a terminal: code" "$code" 130
  is "Ctrl-C on a terminal: processes" "$(processes 'sleep 8886')" 0
else
  skip "batch on a terminal" "no tmux"
fi
finish
