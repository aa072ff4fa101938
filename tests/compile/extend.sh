#!/usr/bin/env bash
# What README.md says of changing the header, done to a copy of it: a field on the wire, a verb, a
# deployment and an error are added, one by one and then all together, and used from end to end.
# Ends in `N passed, N failed`.
set -u
cd "$(dirname "$0")" || exit 1
out=../build/extend
mkdir -p $out
passed=0 failed=0
CC=${CC:-cc}
WARN="-Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wundef -Wcast-qual -Wwrite-strings
  -Wstrict-prototypes -Wmissing-prototypes -Wvla"

count() { # WHAT STATUS
  if [ "$2" -eq 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1"
    head -n 12 $out/log
  fi
}

# Put lines behind, or in front of, the first line that holds a text; without such a line, fail.
put() { # behind|before TEXT LINES
  awk -v where="$1" -v text="$2" -v lines="$3" '
    index($0, text) && !done { done = 1; print where == "before" ? lines "\n" $0 : $0 "\n" lines; next }
    { print }
    END { exit !done }' $out/swerex.h >$out/new.h && mv $out/new.h $out/swerex.h ||
    { echo "no line holds: $2" >>$out/log; broken=1; }
}

field() {
  put behind 'typedef struct swerex_command {' '  const char *tag; /**< What the caller calls it. */'
  put before 'SWEREX__MODEL_ROW(command, timeout,' \
    '  SWEREX__MODEL_ROW(command, tag, STRING, SWEREX__MODEL_NULL_OURS, 0, NULL)'
}

verb() {
  put before '  SWEREX__RT_COUNT' '  SWEREX__RT_COUNT_LINES,'
  put behind '{"close", (swerex_model)0, SWEREX_MODEL_CLOSE_RESPONSE}' \
    '  {"count_lines", SWEREX_MODEL_READ_FILE_REQUEST, SWEREX_MODEL_COMMAND_RESPONSE},'
  put behind '{"POST", "/close", SWEREX__ROUTE_NONE' \
    '  {"POST", "/count_lines", SWEREX__ROUTE_JSON, SWEREX__RT_COUNT_LINES},'
  put before 'static const swerex__rt_kind swerex__local_kind' \
    'static bool swerex__local_count_lines(swerex_runtime *runtime, const void *request,
                                      swerex_future *future, swerex_error *err) {
  swerex_command_response *response = (swerex_command_response *)future->response;
  swerex_bytes text = {NULL, 0};
  if (!swerex__fs_read_text(&runtime->loop->allocator, (const swerex_read_file_request *)request,
                            SWEREX_MAX_FILE, &text, err))
    return false;
  for (size_t i = 0; i < text.size; i++) response->exit_code += text.data[i] == 10;
  swerex__mem_free(text.data);
  swerex__loop_finish(future);
  return true;
}
'
  sed 's/swerex__local_close}/swerex__local_close,\n   swerex__local_count_lines}/' $out/swerex.h >$out/new.h &&
    mv $out/new.h $out/swerex.h
  put before '/** Close the runtime: its sessions' \
    '/** Count the lines of a text file, as exit_code. */
SWEREX_API bool swerex_count_lines(swerex_runtime *runtime,
                                   const swerex_read_file_request *request,
                                   swerex_command_response *response, swerex_error *err);
'
  cat >>$out/public.c <<'END'
SWEREX_API bool swerex_count_lines(swerex_runtime *runtime,
                                   const swerex_read_file_request *request,
                                   swerex_command_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_COUNT_LINES, request, response, err);
}

END
}

deployment() {
  local steps # those of the dummy deployment, by another name
  steps=$(awk '/ swerex__kinds_dummy_steps\[\] = / { on = 1 } on { print } on && /};$/ && ++ends == 2 { exit }' $out/swerex.h |
    sed 's/dummy/twin/g; s/Starting runtime/Bearing twins/')
  put before 'typedef struct swerex_dummy_config {' \
    'typedef struct swerex_twin_config {
  const char *answer; /**< Of every command. */
} swerex_twin_config;

/** DummyDeploymentConfig and DummyRuntimeConfig. JSON "type": "dummy". */'
  put behind '  SWEREX_DEPLOYMENT_DUMMY,' '  SWEREX_DEPLOYMENT_TWIN,'
  put behind '    swerex_dummy_config dummy;' '    swerex_twin_config twin;'
  put behind '  SWEREX_MODEL_DUMMY_CONFIG,' '  SWEREX_MODEL_TWIN_CONFIG,'
  put before 'static const swerex__model_row swerex__model_dummy_config_rows[]' \
    'static const swerex__model_row swerex__model_twin_config_rows[] = {
  SWEREX__MODEL_LITERAL_ROW("type", "twin")
  SWEREX__MODEL_ROW(twin_config, answer, STRING, SWEREX__MODEL_NEED, 0, NULL)
};'
  put behind '  SWEREX__MODEL_OF("DummyDeploymentConfig"' \
    '  SWEREX__MODEL_OF("TwinDeploymentConfig", twin_config, twin_config, SWEREX__MODEL_FORBID, NULL)'
  put before '  {"dummy", &swerex__model_table[' \
    '  {"twin", &swerex__model_table[SWEREX_MODEL_TWIN_CONFIG - 1], SWEREX_DEPLOYMENT_TWIN,
   offsetof(swerex_deployment_config, u.twin)},'
  put before 'typedef struct swerex__kinds_row {' \
    'static swerex_future *swerex__kinds_run_twin(swerex_deployment *deployment, swerex_error *err) {
  const char *outputs[] = {deployment->config.u.twin.answer, NULL};
  swerex_dummy_config config = {outputs};
  swerex__dep_own(deployment, swerex__dummy_new(deployment->loop, &config, err));
  return NULL;
}
'"$steps"'
'
  put behind '  {"dummy", &swerex__kinds_dummy, NULL},' '  {"twin", &swerex__kinds_twin, NULL},'
}

error() {
  put before '  X(SESSION_EXISTS, SWEREX, VALUE' \
    '  X(QUOTA, SWEREX, RUNTIME, "my.package.QuotaError", "no more is left")                           \'
}

# Apply changes to a fresh copy, build it with the project's warnings, and run what uses them.
try() { # CHANGE...
  local change defines="" broken=0
  sed -n p ../../swerex.h >$out/swerex.h
  : >$out/log
  : >$out/public.c
  for change; do
    $change
    defines="$defines -DWITH_$change"
  done
  if [ -s $out/public.c ]; then # the public functions, before the end of [api]
    awk -v file=$out/public.c '/^SWEREX_API bool swerex_close\(swerex_runtime/ && impl && !done {
      while ((getline line <file) > 0) print line; done = 1 }
      /^#ifdef SWEREX_IMPLEMENTATION/ { impl = 1 } { print }' $out/swerex.h >$out/new.h
    mv $out/new.h $out/swerex.h
  fi
  [ $broken -eq 0 ] && "$CC" -std=c99 -g -O0 $WARN $defines -I$out -o $out/use extend.c -lpthread >$out/log 2>&1
  count "with $*: compiles" $?
  $out/use >$out/log 2>&1
  count "with $*: works" $?
  rm -f $out/use
}

for change in field verb deployment error; do
  try $change
  ! { "$CC" -std=c99 -w -DWITH_$change -I../.. -o $out/use extend.c -lpthread && $out/use; } >/dev/null 2>&1
  count "without $change its use fails" $?
done
try field verb deployment error
sh ../../tools/check.sh "$(cd $out && pwd)/swerex.h" >$out/log 2>&1
count "the rules hold for the changed header" $?

printf '%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ]
