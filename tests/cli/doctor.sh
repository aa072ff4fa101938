#!/usr/bin/env bash
# swerex doctor. Usage: doctor.sh PATH-OF-SWEREX
. "$(dirname "$0")/helpers.bash"
command -v python3 >/dev/null 2>&1 || { skip "doctor.sh" "no python3 to read its JSON with"; finish; }
mkdir home bin
python=$(python3 -c 'import sys; print(sys.executable)')
export HOME=$folder/home
unset SWEREX_REMOTE_BINARY AWS_PROFILE AWS_DEFAULT_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_ACCESS_KEY_ID \
  AWS_SECRET_ACCESS_KEY AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI \
  AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE \
  MODAL_TOKEN_ID MODAL_TOKEN_SECRET MODAL_CONFIG_PATH MODAL_PROFILE DOCKER_HOST

# Ask the doctor for one thing: "state: text -> remedy" is in $found.
look() { # NAME
  s --json doctor
  found=$(printf '%s' "$out" | "$python" -c 'import json, sys
for check in json.load(sys.stdin)["checks"]:
    if check["name"] == sys.argv[1]: print("%(state)s: %(text)s -> %(remedy)s" % check)' "$1" 2>&1)
}

s doctor
is "a machine that works" "$code/$err" "0/"
holds "version" "$out" "$("$swerex" --version)"
holds "the end" "$out" "The local runtime works."
s --json doctor
is "JSON" "$(printf '%s' "$out" | "$python" -c 'import json, sys
said = json.load(sys.stdin)
print(said["local_runtime"], " ".join(check["name"] for check in said["checks"]))')" \
  "True poller keeper bash session server https docker podman aws modal"
holds "a session" "$out" '"name":"session","state":"works","text":"opens in'
holds "the keeper" "$out" '"name":"keeper","state":"works","text":"starts and ends programs'
holds "bash" "$out" "\"name\":\"bash\",\"state\":\"works\",\"text\":\"${BASH_VERSION%%(*}"
holds "libcurl" "$out" '"text":"libcurl, with HTTP/2"'

echo 'exit 5' >home/.bashrc
s doctor
is "a session that does not open: code" "$code" 1
holds "a session that does not open" "$out" "look at ~/.bashrc"
holds "a session that does not open: the end" "$out" "The local runtime does not work."
rm home/.bashrc

# Programs beside it and on PATH: what it says of them, and what it asks them.
cp "$swerex" bin/swerex
swerex=$folder/bin/swerex
path=$PATH
for program in sh bash cat sed rm ls grep mkdir touch; do ln -s "$(command -v $program)" bin/; done
PATH=$folder/bin
look server
holds "no static server" "$found" "absent: no static swerex-remote[-"
holds "where it was looked for" "$found" "SWEREX_REMOTE_BINARY is not set, and none stands beside this program or on PATH"
holds "how to have one" "$found" "make -C tools static"
export SWEREX_REMOTE_BINARY=/etc/passwd
look server
holds "a static server that is none" "$found" "broken: SWEREX_REMOTE_BINARY /etc/passwd cannot serve in an image"
unset SWEREX_REMOTE_BINARY
printf 'int main(void) { return 0; }\n' >static.c
if PATH=$path ${CC:-cc} -static -o bin/swerex-remote static.c 2>/dev/null; then
  look server
  is "a static server" "$found" "works: $folder/bin/swerex-remote -> "
else
  skip "a static server" "nothing static can be built here"
fi
look docker
is "no docker" "$found" "absent: there is no command docker -> install it, if you want containers of it"
is "docker is not needed" "$code" 0
printf '#!/bin/sh\n[ "$1" = version ] && echo 99.1\n' >bin/docker
printf '#!/bin/sh\necho "cannot connect to the socket" >&2; exit 1\n' >bin/podman
PATH=$path chmod +x bin/docker bin/podman
look docker
is "docker" "$found" "works: 99.1 -> "
look podman
holds "an engine that does not answer" "$found" "broken: cannot connect to the socket -> "

look aws
holds "no keys" "$found" "absent: no credentials in the environment or in the profile default -> set AWS_ACCESS_KEY_ID"
export AWS_ACCESS_KEY_ID=AKIATHIS AWS_SECRET_ACCESS_KEY=hidden1
look aws
holds "no region" "$found" "broken: You must specify a region"
export AWS_REGION=eu-central-1
look aws
is "keys and region" "$found" "works: keys in the environment, in eu-central-1 -> "
lacks "no secret is shown" "$out" hidden1
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION
mkdir home/.aws
printf '[profile work]\nregion = us-east-2\ncredential_process = touch %s/asked\n' "$folder" >home/.aws/config
AWS_PROFILE=work look aws
is "a program for keys" "$found" "works: a program of the profile, in us-east-2 -> "
is "it is not run" "$(ls asked 2>&1 | grep -c 'No such file')" 1
AWS_PROFILE=other look aws
holds "a profile that is not there" "$found" "broken: The config profile (other) could not be found"

look modal
holds "no token" "$found" "absent: no token in the environment or for the profile default in $HOME/.modal.toml"
printf '[old]\ntoken_id = "ak-1"\n[work]\ntoken_id = "ak-2"\ntoken_secret = "hidden2"\nactive = true\n' >home/.modal.toml
look modal
is "a token in the file" "$found" "works: a token in $HOME/.modal.toml -> "
lacks "no secret of Modal's is shown" "$out" hidden2
MODAL_PROFILE=old look modal
holds "a profile without a secret" "$found" "absent: "
MODAL_TOKEN_ID=ak-3 MODAL_TOKEN_SECRET=hidden3 look modal
is "a token in the environment" "$found" "works: a token in the environment -> "

PATH=$path
if command -v tmux >/dev/null 2>&1; then
  screen -e 80 0.1 "" "'$swerex' doctor"
  holds "colours" "$screen" $'\033[32mworks'
  screen -e 80 0.1 "" "NO_COLOR=1 '$swerex' doctor"
  lacks "NO_COLOR" "$screen" $'\033[32m'
  for command in doctor --help "exec --help" "batch --help" "serve --help"; do
    screen 40 0.1 "" "'$swerex' $command"
    is "$command in 40 columns" "$(grep -v '^  swerex ' <<<"$screen" | awk 'length > 40')" "" # but for examples
    is "$command in 40 columns: code" "$code" 0
  done
  screen 80 0.1 "" "'$swerex' --help | head -n 3"
  holds "help through a pipe" "$screen" "Examples:"
else
  skip "the doctor on a terminal" "no tmux"
fi
finish
