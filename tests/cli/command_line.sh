#!/usr/bin/env bash
# The command line, as a user types it. Usage: command_line.sh PATH-OF-SWEREX
. "$(dirname "$0")/helpers.bash"

s exec -- echo hi there
is "exec" "$out/$code" "hi there/0"
s exec --shell 'echo out; echo err >&2; exit 3'
is "exec streams and code" "$out/$err/$code" "out/err/3"
s exec -- sh -c 'kill -TERM $$'
is "exec of what a signal ends" "$code" "143"
s exec -- nosuchprogram
is "exec of nothing" "$err/$code" "swerex: [Errno 2] No such file or directory: 'nosuchprogram'/127"
s exec -- /etc/passwd
is "exec of a text" "$code" "126"
s exec --cwd /usr --env 'A=b c' --shell 'pwd; echo "$A"'
is "exec folder and variable" "$out" "/usr
b c"
s exec --timeout 0.2 --shell 'echo so far; sleep 20'
is "exec timeout" "$out/$err/$code" "so far/swerex: Timeout (0.2s) exceeded while running command/124"

s run 'cd /tmp; x=1' 'pwd; echo $x'
is "run shares a session" "$out/$code" "/tmp
1/0"
s run 'echo a; false' 'echo b'
is "run goes on" "$out/$code" "a
b/0"
s run --check 'echo a; (exit 4)' 'echo b'
is "run --check stops" "$out/$code" "a/4"
s run 'exit 7' 'echo never'
holds "run of exit" "$code" "7"
s run 'echo (a'
holds "run of bad syntax" "$err" "syntax error near unexpected token"
is "run of bad syntax, code" "$code" "2"
echo 'x=sourced' >rc
s run --source "$folder/rc" 'echo $x'
is "run --source" "$out" "sourced"
out=$(echo 'echo from stdin' | "$swerex" run -)
is "run -" "$out" "from stdin"
first=$("$swerex" run 'echo first; sleep 1; echo second; sleep 20' </dev/null | head -n 1)
is "output comes at once, and a closed pipe ends it" "$first" "first"

s --json exec --shell 'echo "a\"b"; exit 2'
is "--json exec" "$out/$code" '{"stdout":"a\"b\n","stderr":"","exit_code":2}/2'
s --json run 'echo x'
is "--json run" "$out" '{"output":"x\n","exit_code":0,"failure_reason":"","expect_string":"SHELLPS1PREFIX","session_type":"bash"}'
s --json run --timeout 0.2 'echo x; sleep 20'
holds "--json error" "$out" '"code":"COMMAND_TIMEOUT"'
holds "--json extra_info" "$out" '"extra_info":{"output":"x\n"}'
s --json read /nonexistent
holds "--json class path" "$out" '"class_path":"builtins.FileNotFoundError"'

printf 'a\r\nb' | "$swerex" write "$folder/new/deep/file"
s read "$folder/new/deep/file"
is "write and read" "$out" "a
b"
s write --content text "$folder/new/file"
is "write --content" "$(cat new/file)" "text"
chmod 750 new && ln -s file new/link
s upload "$folder/new" "$folder/copy"
is "upload" "$code/$(readlink copy/link)/$(stat -c %a copy)" "0/file/750"
printf '\351' >latin
s read --encoding latin-1 "$folder/latin"
is "read --encoding" "$out" "é"
s read "$folder/latin"
holds "read of bad bytes" "$err" "'utf-8' codec can't decode byte 0xe9"

s --config '{"type":"local","nope":1}' exec -- true
is "unknown field" "$err/$code" "swerex: nope: Extra inputs are not permitted/125"
s --config '{"type":"docker","imaeg":"x"}' exec -- true
is "a slip of the hand" "$err" "swerex: imaeg: Extra inputs are not permitted (is image meant?)"
s --config lokal exec -- true
holds "no type, JSON or file" "$err" "--config lokal: that is no type (local,"
s --config '{"type":"local"' exec -- true
holds "malformed JSON" "$err" "line 1 column"
echo '{"type":"dummy","outputs":["scripted"]}' >dummy.json
s --json --config dummy.json run anything
holds "--config FILE" "$out" '"output":"scripted"'
s --config missing.json run x
holds "--config of nothing" "$err" "No such file or directory: 'missing.json'"

s
is "no command" "$code" "2"
s nonsense
holds "wrong command" "$err" "there is no command 'nonsense'"
s exec --nonsense -- ls
holds "wrong option" "$err" "there is no option '--nonsense'"
s exec --timeout soon -- ls
is "wrong value" "$err" "swerex: 'soon' is not a value for --timeout, which takes SECONDS; see swerex exec --help"
s exec --env NAME -- ls
holds "variable without a value" "$err" "'NAME' is not a value for --env, which takes NAME=VALUE"
s run --cwd
is "missing value" "$err" "swerex: option --cwd needs a value: FOLDER; see swerex run --help"
s shell extra
is "operand too many" "$err" "swerex: usage: swerex shell [OPTIONS]; see swerex shell --help"
s --quiet serve
is "options before serve" "$err/$code" "swerex: serve comes first, and its options behind it; see swerex serve --help/2"
s help serve
holds "help of serve" "$out" "--max-lifetime SECONDS"
s read
holds "missing operand" "$err" "usage: swerex read"
s read --source x y
holds "option of another command" "$err" "--source does not go with this command"
s --help
holds "help" "$out" "Examples:"
s run --help
holds "help of a command" "$out" "--source"
s --version
holds "version" "$out" "swerex 0."

s serve --port 0
is "serve with an open door" "$err/$code" "swerex serve: others could reach 0.0.0.0 and run anything here: set SWEREX_AUTH_TOKEN or give --auth-token-file, listen on --host 127.0.0.1, or say --no-auth/1"
s serve --stdio
holds "serve --stdio without a client" "$err" "needs pipes, sockets or a terminal"
s serve --stdio --port 1
is "serve --stdio with a port" "$err/$code" "swerex serve: --stdio takes no --host and no --port; see swerex serve --help/2"
s serve --unix a --host b
is "serve --unix with a host" "$err/$code" "swerex serve: --unix takes no --host and no --port; see swerex serve --help/2"
s serve --port 70000
is "serve on no port" "$err" "swerex serve: --port: '70000' is not a port; see swerex serve --help"
s serve --idle-timeout 0
is "serve for no time" "$err" "swerex serve: --idle-timeout: '0' is not a number of seconds above 0; see swerex serve --help"
s serve --host 127.0.0.1 --port 0 --idle-timeout 0.1
holds "serve says where, and ends when idle" "$out/$code" "listening on http://127.0.0.1:"
is "serve, code" "$code" "0"

"$swerex" serve --host 127.0.0.1 --port 0 >/dev/full 2>err
is "serve that cannot say where: code" $? 1
is "serve that cannot say where" "$(cat err)" "swerex serve: [Errno 28] No space left on device: 'stdout'"
s serve --auth-token-file nope
is "a token's file that is not there" "$err/$code" "swerex serve: --auth-token-file: [Errno 2] No such file or directory: 'nope'/2"
echo >empty
s --host http://127.0.0.1:1 --auth-token-file empty exec true
is "a token's file without one" "$err/$code" "swerex: --auth-token-file: the first line of empty is empty/125"
s serve --connect nope
is "a server that is not there" "$err/$code" "swerex serve: --connect: [Errno 2] No such file or directory: 'nope'/1"
s serve --connect "$(printf '%200s')"
holds "a path that is no socket's" "$err" "File name too long"
s --host unix:nope exec true
is "a server that is not there is no program that is not" "$code" 125
s docker-reap --container-runtime nope
is "an engine that is not there" "$err/$code" "swerex: there is no \`nope\` on PATH: install it, or name another by --container-runtime/125"
"$swerex" serve --unix door --idle-timeout 20 --no-auth >says 2>&1 &
until [ -s says ]; do sleep 0.01; done # the file of the socket is there before it listens
out=$(printf 'GET /is_alive HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n' | "$swerex" serve --connect door)
holds "serve --connect" "$out" '"is_alive":true'
{
  printf 'POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n'
  for try in $(seq 1000); do grep -q "Not Found" answer 2>/dev/null && break || sleep 0.01; done
  head -c 300000 /dev/zero
  echo $? >fed
} | timeout 20 "$swerex" serve --connect door >answer
is "serve --connect takes the rest of what is refused" "$(cat fed)" 0
server=$!
exec 9> >(timeout 20 "$swerex" serve --connect door >/dev/full 2>says; echo $? >ended)
printf 'GET /is_alive HTTP/1.1\r\nhost: x\r\n\r\n' >&9
until [ -s ended ]; do sleep 0.01; done # its stdin is still open
exec 9>&-
is "serve --connect ends when nobody takes the answer" "$(cat says ended)" \
  "swerex serve: --connect: [Errno 28] No space left on device: 'stdout'
1"
"$swerex" serve --connect door <answer >&- 2>says # a request is no answer, and none came
is "serve --connect without a stdout" "$?/$(cat says)" "1/swerex serve: --connect: [Errno 9] Bad file descriptor: 'stdout'"
"$swerex" exec echo hi 2>says >&-
is "exec without a stdout" "$?/$(cat says)" "125/swerex: writing to stdout: Bad file descriptor"
kill -STOP $server # it takes connections, and says nothing more
"$swerex" --host unix:door read /etc/passwd >/dev/null 2>&1 &
pid=$!
until cmp -s "/proc/$pid/exe" "$swerex"; do sleep 0.01; done
while kill -INT $pid 2>/dev/null; do sleep 0.02; done
wait $pid
is "Ctrl-C while a server says nothing" $? 130
kill $server
kill -CONT $server
wait

# Ctrl-C leaves nothing behind.
setsid "$swerex" run 'sleep 8881 & setsid sleep 8881 & sleep 8881' >/dev/null 2>&1 </dev/null &
pid=$!
for try in $(seq 100); do [ "$(processes 'sleep 8881')" -ge 3 ] && break || sleep 0.1; done
kill -INT "$pid"
wait "$pid"
is "Ctrl-C, code" "$?" "130"
is "Ctrl-C, processes" "$(processes 'sleep 8881')" "0"

mkdir engines
printf '#!/bin/sh\nexec sleep 8882\n' >engines/docker
chmod +x engines/docker
for command in doctor docker-reap; do
  PATH=$folder/engines:$PATH setsid "$swerex" $command >says 2>&1 </dev/null &
  pid=$!
  for try in $(seq 500); do [ "$(processes 'sleep 8882')" -ge 1 ] && break || sleep 0.02; done
  kill -INT $pid
  wait $pid
  is "Ctrl-C while an engine is silent: $command" $? 130
  lacks "$command says nothing of what it has not seen" "$(cat says)" " docker  "
  is "$command leaves nothing" "$(processes 'sleep 8882')" 0
done

out=$(printf 'echo $((40+2))\nexit 5\n' | timeout 20 "$swerex" shell 2>&1)
code=$?
holds "shell as a filter" "$out" "42"
is "shell, code" "$code" "5"
s --config dummy shell
is "shell without a terminal there" "$err/$code" "swerex: shell: only this machine and containers have a terminal to type at; \`swerex run\` goes everywhere/125"
s --host http://127.0.0.1:1 shell
is "shell at a server" "$code" 2
cat >podman <<EOF # an engine whose container is a server of this machine
#!/bin/bash
cd "$folder"
case \$1 in
image) echo amd64 ;;
create) rm -f listening && echo "\$SWEREX_AUTH_TOKEN" >token && printf '%064d\n' 1 ;;
start)
  echo \$\$ >pid
  exec "$swerex" serve --host 127.0.0.1 --port 0 --auth-token-file token > >(tee listening)
  ;;
port) until [ -s listening ]; do sleep 0.01; done; sed 's|.*//||' listening ;;
rm) kill "\$(cat pid)" ;;
exec) echo "\$*" && exit 7 ;;
esac
EOF
chmod +x podman
box='{"type": "docker", "image": "box", "container_runtime": "podman"}'
PATH=$folder:$PATH s --quiet --config "$box" --cwd /usr --env 'A=b c' shell
is "shell in a container: code" "$err/$code" "/7"
holds "shell in a container: where, with what" "$out" "exec -i -w /usr -e A=b c box-"
PATH=$folder:$PATH s --quiet --config "$box" --source x shell
is "shell in a container, --source" "$err/$code" "swerex: shell: --source does not go with a container; \`swerex run\` takes it/125"
if command -v tmux >/dev/null 2>&1; then
  tmux -L "swx$$" -f /dev/null new-session -d -x 91 -y 30 "$swerex shell; sleep 1"
  sleep 1
  tmux -L "swx$$" send-keys 'echo colums: $COLUMNS; sleep 50' Left Left Left Left Left Left Left Left Left Left Left Enter
  sleep 1
  tmux -L "swx$$" send-keys C-c
  sleep 0.5
  tmux -L "swx$$" send-keys 'echo af''ter' Enter
  sleep 1
  screen=$(tmux -L "swx$$" capture-pane -p)
  tmux -L "swx$$" kill-server
  holds "shell follows the window" "$screen" "colums: 91"
  holds "shell goes on after Ctrl-C" "$screen" "
after"
else
  skip "shell in a terminal" "no tmux"
fi

echo keep >kept
"$swerex" write kept </tmp 2>err
is "stdin that cannot be read: code" $? 125
is "stdin that cannot be read: the file stays" "$(cat kept)" keep
holds "stdin that cannot be read: words" "$(cat err)" "Is a directory: 'stdin'"
printf 'echo a\0b' | "$swerex" run - >out 2>err
is "a NUL in a script: code" $? 125
holds "a NUL in a script: words" "$(cat err)" "NUL byte at offset 6"
"$swerex" exec echo hi >/dev/full 2>err
is "stdout that is full: code" $? 125
holds "stdout that is full: words" "$(cat err)" "writing to stdout: No space left on device"
"$swerex" --json exec echo hi >/dev/full 2>err
is "stdout that is full, JSON: code" $? 125
s run 'echo hi' 'exit 3' 'echo no'
is "scripts after the shell's end: code" "$code" 3
holds "scripts after the shell's end: why" "$err" "has exited (exit code 3)"
holds "scripts after the shell's end: how many" "$err" "1 of the 3 scripts did not run"
s exec --cwd /nope true
is "--cwd that is not there" "$code" 125
s --json exec "$(printf 'no\377"p')"
is "an error in JSON is JSON" "$out" '{"error":{"code":"FILE_NOT_FOUND","message":"[Errno 2] No such file or directory: '"'no\\udcff\\\"p'"'","class_path":"builtins.FileNotFoundError","extra_info":{}}}'
s --json=false exec true
is "a flag with a value" "$code" 2
s --host a --config b exec true
is "--host and --config" "$code" 2
s --image a --image b exec true
holds "two images" "$err" "give one of them, or use batch"
s --timeout 5 exec echo hi
is "an option of the command in front of it" "$out/$code" "hi/0"
s doctor --image a
holds "an option that goes elsewhere" "$err" "option --image does not go with this command"
s --config docker --platform linux/arm64 exec true
holds "an option of --image without it" "$err/$code" "--transport go with --image (--config has fields for them); see swerex exec --help"
s --auth-token T exec true
holds "a token without --host" "$err" "go with --host (--config has a field for it)"
echo '{"type": "local",' >broken
s --config broken exec true
is "a file of --config" "$err" "swerex: --config broken: Expecting property name enclosed in double quotes: line 2 column 1 (char 18)"
s --config dummy --json run anything
holds "--config TYPE" "$out" '"output":""'
s -h
holds "-h" "$out" "Commands:"
s exec --env =x true
is "--env without a name" "$code" 2
echo 'echo started' >startup
s run --source startup 'echo x'
is "what startup files print" "$out" "started
x"
timeout 20 "$swerex" shell </dev/null >/dev/null 2>&1
is "a shell without input ends" $? 0

finish
