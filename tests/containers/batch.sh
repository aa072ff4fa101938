#!/usr/bin/env bash
# swerex batch in containers. Usage: batch.sh PATH-OF-SWEREX ENGINE IMAGE
. "$(dirname "$0")/../cli/helpers.bash"
engine=$2 mark=batch-$$
config='{"type":"docker","container_runtime":"'$engine'","image":"'$3'","pull":"never","labels":{"swerex.test":"'$mark'"}}'
left() { "$engine" ps -aq --filter "label=swerex.test=$mark" | wc -l; }

s batch --config "$config" --count 5 --shell 'echo "in $(hostname)"'
is "five containers: code" "$code" 0
is "five containers: five names" "$(grep -o '"stdout":"in [^"]*' <<<"$out" | sort -u | wc -l)" 5
is "five containers: none is left" "$(left)" 0
s batch --config "$config" --config "${config/$3/$3-nope}" -- true
is "an image that is not here: code" "$code" 1
holds "an image that is not here: words" "$out" "$3-nope is not here"
"$swerex" batch --config "$config" --count 6 --jobs 3 --shell 'echo up; sleep 600' >lines 2>err </dev/null &
pid=$!
for try in $(seq 300); do [ "$(left)" -ge 3 ] && break || sleep 0.1; done
sleep 1
kill -INT $pid
wait $pid
is "Ctrl-C: code" "$?" 130
is "Ctrl-C: a line for each that had begun" "$(grep -c '"error":{"code":"CANCELLED"' lines)" 3
is "Ctrl-C: no container is left" "$(left)" 0
finish
