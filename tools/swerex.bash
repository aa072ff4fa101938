# Completion of the command line for bash. `make -C tools install` puts it where bash-completion
# finds it; else: source tools/swerex.bash. What there is to complete, swerex itself says.

# The words of swerex's help: commands, options or deployment types.
_swerex_words() { # commands|options|types PROGRAM [COMMAND]
  local what=$1 help
  shift
  help=$(NO_COLOR=1 "$@" --help 2>/dev/null </dev/null | cat) || return
  case $what in
  commands) sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\).*/\1/p' <<<"$help" ;;
  options) sed -n '/^Options:/,/^$/s/^  \(--[a-z-]*\).*/\1/p' <<<"$help" ;;
  types) sed -n '/^Deployment types:/,/^$/p' <<<"$help" | sed 's/.*://' ;;
  esac
}

# Tell whether an option takes a value, by the help's `--name VALUE`.
_swerex_takes_value() { # OPTION PROGRAM [COMMAND]
  local option=$1
  shift
  "$@" --help 2>/dev/null </dev/null | grep -qE "^  $option [A-Z]"
}

_swerex() {
  local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} previous="" command="" word i
  local ask
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    ask=("$program" $command)
    if [[ $word == -- ]] || [[ $word != -* && -n $command ]]; then
      case $command in exec | batch) _swerex_program "$i" ;; *) _swerex_files -f ;; esac
      return
    elif [[ $word == -* ]]; then
      [[ -n $command ]] || ask=("$program" batch)
      if _swerex_takes_value "$word" "${ask[@]}"; then
        previous=$word
        i=$((i + 1))
        [[ ${COMP_WORDS[i]} == "=" && $i -lt $COMP_CWORD ]] && i=$((i + 1))
        [[ $i -lt $COMP_CWORD ]] && previous=""
      fi
    else
      command=$word
    fi
  done
  ask=("$program" $command)
  case $previous in
  --config)
    mapfile -t COMPREPLY < <(compgen -W "$(_swerex_words types "$program")" -- "$current")
    _swerex_files -f
    ;;
  --auth-token-file | --source) _swerex_files -f ;;
  --cwd) _swerex_files -d ;;
  --container-runtime) mapfile -t COMPREPLY < <(compgen -W "docker podman" -- "$current") ;;
  --pull) mapfile -t COMPREPLY < <(compgen -W "missing never always" -- "$current") ;;
  --transport) mapfile -t COMPREPLY < <(compgen -W "tcp stdio" -- "$current") ;;
  --errors)
    mapfile -t COMPREPLY < <(compgen -W "strict ignore replace backslashreplace surrogateescape" -- "$current")
    ;;
  ?*) ;;
  *)
    if [[ $current == -* ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$(_swerex_words options "${ask[@]}")" -- "$current")
    elif [[ -z $command ]]; then
      mapfile -t COMPREPLY < <(compgen -W "$(_swerex_words commands "$program")" -- "$current")
    elif [[ $command == exec || $command == batch ]]; then
      mapfile -t COMPREPLY < <(compgen -c -- "$current" | sort -u)
    else
      _swerex_files -f
    fi
    ;;
  esac
}

# Add the files or folders that begin with the current word; blanks in them are quoted.
_swerex_files() { # -f|-d
  local found
  compopt -o filenames 2>/dev/null
  mapfile -t found < <(compgen "$1" -- "$current")
  COMPREPLY+=("${found[@]}")
}

# Complete a program and its arguments as if they stood alone.
_swerex_program() { # WHERE-IT-BEGINS
  local begin=$1
  [[ ${COMP_WORDS[begin]} == -- ]] && begin=$((begin + 1))
  if [[ $begin -eq $COMP_CWORD ]]; then
    mapfile -t COMPREPLY < <(compgen -c -- "$current" | sort -u)
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$begin"
  else
    _swerex_files -f
  fi
}

complete -F _swerex swerex
