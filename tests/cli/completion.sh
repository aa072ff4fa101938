#!/usr/bin/env bash
# The completion for bash, asked as bash would ask it. Usage: completion.sh PATH-OF-SWEREX
. "$(dirname "$0")/helpers.bash"
mkdir bin 'a folder'
echo '{}' >'a config.json'
ln -s "$swerex" bin/swerex
PATH=$folder/bin:$PATH
. "$here/../../tools/swerex.bash"

# Complete a command line whose last word is under the cursor; the answers are in $got.
tab() { # WORD...
  COMP_WORDS=(swerex "$@")
  COMP_CWORD=$#
  COMPREPLY=()
  _swerex 2>err
  got=" ${COMPREPLY[*]-} "
  [ -s err ] && fails "swerex $*: $(cat err)"
}

fails() { # WHAT
  failed=$((failed + 1))
  echo "not ok: $1"
}

offers() { # WHAT WORD...
  local what=$1 word
  shift
  for word; do
    case $got in *" $word "*) passed=$((passed + 1)) ;; *) fails "$what: [$got] does not hold [$word]" ;; esac
  done
}

lacks() { # WHAT WORD...
  local what=$1 word
  shift
  for word; do
    case $got in *" $word "*) fails "$what: [$got] holds [$word]" ;; *) passed=$((passed + 1)) ;; esac
  done
}

tab ""
offers "commands" exec run shell batch read write upload doctor serve docker-reap
lacks "commands" --json
tab ru
offers "a part of a command" run
lacks "a part of a command" exec
tab --im
offers "an option in front" --image
tab --image debian ""
offers "a command behind an option" exec
tab --json ""
offers "a command behind a flag" exec
tab exec --
offers "options of exec" --timeout --cwd --shell --image
lacks "options of exec" --source --content --region
tab read --en
offers "options of read" --encoding
tab serve --
offers "options of serve" --port --no-auth
tab fargate-teardown --
offers "options of fargate-teardown" --region --dry-run
lacks "options of fargate-teardown" --image
tab --config ""
offers "deployment types" local dummy remote docker fargate "a config.json"
tab run --config do
offers "a part of a type" docker
lacks "a part of a type" local
tab run --config = do
offers "a value behind an equals sign" docker
tab --container-runtime ""
offers "engines" docker podman
tab --pull n
offers "pull" never
lacks "pull" missing
tab --transport s
offers "transports" stdio
tab run --cwd ""
offers "folders" "a folder"
lacks "folders" "a config.json"
tab read ""
offers "files" "a folder" "a config.json"
tab exec -- ""
offers "programs" ls cat
tab exec bas
offers "programs without --" bash
tab exec -- cat a
offers "a program's arguments" "a folder" "a config.json"
tab run 'cd /tmp' a
offers "scripts are files too" "a folder"
tab exec --timeout ""
[ "$got" = "  " ] && passed=$((passed + 1)) || fails "a number has no completion: [$got]"

# Every option that a command has is offered for it.
for command in exec run shell batch read write upload doctor docker-reap fargate-teardown serve; do
  tab $command --
  offers "all of $command" $("$swerex" $command --help | grep -oE '^  --[a-z-]+')
done
[ "$(complete -p swerex)" = "complete -F _swerex swerex" ] && passed=$((passed + 1)) || fails "registered"

finish
