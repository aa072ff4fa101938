/* Live sessions: what a command may do to its shell, and what must still hold afterwards. */
#include "world.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

typedef struct row {
  const char *command;
  int code;
  const char *output;
} row;

/** Run rows in one fresh session. */
static void run_rows(const row *rows, size_t count) {
  world w = world_with_session();
  for (size_t i = 0; i < count; i++) CHECK(gives(&w, rows[i].command, rows[i].code, rows[i].output));
  world_close(&w);
}
#define ROWS(...)                                                                                  \
  do {                                                                                             \
    static const row rows[] = {__VA_ARGS__};                                                       \
    run_rows(rows, sizeof rows / sizeof *rows);                                                    \
  } while (0)

TEST(exit_codes) {
  world w = world_with_session();
  char command[64];
  for (int code = 0; code < 256; code++) {
    snprintf(command, sizeof command, "(exit %d)", code);
    CHECK(gives(&w, command, code, ""));
  }
  static const struct {
    const char *name;
    int code;
  } signals[] = {{"HUP", 129}, {"INT", 130}, {"QUIT", 131}, {"KILL", 137}, {"SEGV", 139},
                 {"PIPE", 141}, {"TERM", 143}};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
    snprintf(command, sizeof command, "sh -c 'kill -%s $$' 2>/dev/null", signals[i].name);
    CHECK(run(&w, command));
    CHECK_INT(w.seen.exit_code, signals[i].code);
  }
  CHECK(gives(&w, "nosuchcommand 2>/dev/null", 127, ""));
  world_close(&w);
}

TEST(state_stays) {
  ROWS({"cd /tmp", 0, ""}, {"pwd", 0, "/tmp\n"}, {"x=1; export Y=2", 0, ""},
       {"echo $x $(sh -c 'echo $Y')", 0, "1 2\n"}, {"f(){ echo f$1; }; f a", 0, "fa\n"},
       {"f b", 0, "fb\n"}, {"alias zz='echo ali'\nzz", 0, "ali\n"}, {"zz", 0, "ali\n"},
       {"umask 077; umask", 0, "0077\n"}, {"declare -A m; m[a]=1", 0, ""}, {"echo ${m[a]}", 0, "1\n"},
       {"hw=1; A=(); echo x", 0, "x\n"});
}

TEST(several_lines) {
  ROWS({"echo a\necho b", 0, "a\nb\n"}, {"cat <<E\nx\n$(echo y)\nE", 0, "x\ny\n"},
       {"cat <<A <<B\n1\nA\n2\nB", 0, "2\n"}, {"[[ $q == $q ]]", 0, ""},
       {"for i in 1 2; do\n  echo $i\ndone", 0, "1\n2\n"}, {"if true; then\necho t\nfi\n\n", 0, "t\n"},
       {"echo a \\\n b", 0, "a b\n"});
}

TEST(blank_and_comment) {
  ROWS({"", 0, ""}, {"  \n\t\n", 0, ""}, {"# c", 0, ""}, {"false", 1, ""}, {"# c\n  # d\n", 0, ""},
       {"echo a # c", 0, "a\n"}, {"# c\necho b", 0, "b\n"});
}

TEST(exit_code_of_the_last_command_is_kept) {
  ROWS({"false", 1, ""}, {"echo $?", 0, "1\n"}, {"(exit 37)", 37, ""}, {"echo $?; echo $?", 0, "37\n0\n"},
       {"true", 0, ""}, {"echo $?", 0, "0\n"});
}

TEST(control_flow_words) {
  ROWS({"break 2>/dev/null", 0, ""}, {"echo alive", 0, "alive\n"}, {"continue 2>/dev/null", 0, ""},
       {"echo alive", 0, "alive\n"});
  world w = world_with_session();
  CHECK(run(&w, "return 4"));
  CHECK(w.seen.exit_code != 0);
  CHECK(gives(&w, "echo alive", 0, "alive\n"));
  world_close(&w);
}

TEST(every_byte_arrives) {
  ROWS({"echo \"hi !x\" '!!'", 0, "hi !x !!\n"}, {"printf '%s\\n' \"$(printf 'tab\\there')\"", 0, "tab\there\n"},
       {"cat <<\"E\"\n\ttab\\ 'q' \"d\" $x `y`\nE", 0, "\ttab\\ 'q' \"d\" $x `y`\n"},
       {"echo \xC3\xBCn\xC3\xAF \xE2\x9C\x93", 0, "\xC3\xBCn\xC3\xAF \xE2\x9C\x93\n"},
       {"printf '\x01\x7f\x04\x03\x1a' | od -An -tx1", 0, " 01 7f 04 03 1a\n"},
       {"x=\"multi\nline\"; echo \"$x\"", 0, "multi\nline\n"});
}

TEST(long_commands) {
  static const size_t sizes[] = {3700, 3800, 3900, 4095, 4096, 6000, 200000, 1000000};
  world w = world_with_session();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    char *command = (char *)malloc(sizes[i] + 64), expected[32];
    memcpy(command, "echo ", 5);
    memset(command + 5, 'y', sizes[i]);
    strcpy(command + 5 + sizes[i], " | wc -c");
    snprintf(expected, sizeof expected, "%zu\n", sizes[i] + 1);
    CHECK(gives(&w, command, 0, expected));
    free(command);
  }
  CHECK(gives(&w, "echo \"[$_swx]\"", 0, "[]\n"));
  world_close(&w);
}

TEST(output_bytes) {
  world w = world_with_session();
  CHECK(run(&w, "printf 'a\\0b\\377\\033[1mZ\\033[0m\\r\\nend'"));
  CHECK_MEM(w.seen.output.data, w.seen.output.size, "a\0b\\xffZ\r\nend");
  CHECK(gives(&w, "printf '\\033]0;title\\007x'", 0, "x"));
  CHECK(gives(&w, "printf 'no final newline'", 0, "no final newline"));
  CHECK(gives(&w, "printf 'a\\rb\\n'", 0, "a\rb\n"));
  CHECK(gives(&w, "printf '\\xe2\\x9c'; sleep 0.05; printf '\\x93\\n'", 0, "\xE2\x9C\x93\n"));
  world_close(&w);
}

TEST(text_like_ours) {
  ROWS({"echo SHELLPS1PREFIX", 0, "SHELLPS1PREFIX\n"}, {"printf SHELLPS1PREFIX", 0, "SHELLPS1PREFIX"},
       {"printf SHELLPS1PREFIX; sleep 0.3; echo more", 0, "SHELLPS1PREFIXmore\n"},
       {"printf '\\033]7;%s' fake\\;", 0, "ake;"}, {"echo next", 0, "next\n"});
}

TEST(prompt_belongs_to_the_user) {
  ROWS({"PS1='foo> '", 0, ""}, {"echo next", 0, "next\n"}, {"unset PS1; PROMPT_COMMAND=", 0, ""},
       {"echo next", 0, "next\n"}, {"readonly PS1", 0, ""}, {"echo next", 0, "next\n"},
       {"PS2=x PS0=y", 0, ""}, {"echo next", 0, "next\n"});
  world w = world_with_session();
  CHECK(run(&w, "PROMPT_COMMAND='echo pc'"));
  CHECK(run(&w, "echo x"));
  CHECK(has(w.seen.output.data, "x\n"));
  CHECK(run(&w, "unset PROMPT_COMMAND"));
  CHECK(run(&w, "true"));
  CHECK(gives(&w, "echo clean", 0, "clean\n"));
  world_close(&w);
}

TEST(descriptors) {
  ROWS({"exec 2>/dev/null", 0, ""}, {"echo no2", 0, "no2\n"}, {"exec 2>&1", 0, ""},
       {"exec >/dev/null", 0, ""}, {"echo lost", 0, ""}, {"exec >/dev/tty 2>&1", 0, ""},
       {"echo back", 0, "back\n"}, {"for i in {3..254}; do eval \"exec $i>&-\"; done", 0, ""},
       {"echo open", 0, "open\n"}, {"exec 255>&-", 0, ""}, {"echo without 255", 0, "without 255\n"}, {"set -C; echo nc >/dev/null; set +C", 0, ""});
}

TEST(shell_options) {
  ROWS({"set -o pipefail; false | true", 1, ""}, {"set +o pipefail; set -o posix; echo p", 0, "p\n"},
       {"set +o posix; set -f; echo *", 0, "*\n"}, {"set +f; IFS=x; echo ok", 0, "ok\n"},
       {"IFS=1234567890himBH; echo ok; (exit 42)", 42, "ok\n"}, {"unset IFS; echo ok", 0, "ok\n"},
       {"set -e; ! true", 1, ""}, {"[ -d /nonexistent ] && echo y", 1, ""}, {"echo alive", 0, "alive\n"},
       {"set +e; false; echo alive", 0, "alive\n"}, {"set +u; echo ok", 0, "ok\n"},
       {"shopt -s extglob nullglob; echo ok", 0, "ok\n"});
  world w = world_with_session();
  CHECK(run(&w, "set -u; echo $novar; echo not reached"));
  CHECK(w.seen.exit_code != 0);
  CHECK(has(w.seen.output.data, "unbound"));
  CHECK(gives(&w, "echo next", 0, "next\n"));
  world_close(&w);
}

TEST(tracing) {
  ROWS({"set -x; echo hi", 0, "++ echo hi\nhi\n"}, {"echo x", 0, "++ echo x\nx\n"}, {"set +x", 0, "++ set +x\n"},
       {"echo clean", 0, "clean\n"});
  world w = world_with_session();
  CHECK(run(&w, "set -v; echo v"));
  CHECK(run(&w, "echo w"));
  CHECK(has(w.seen.output.data, "w\n"));
  CHECK(run(&w, "set +v"));
  CHECK(gives(&w, "echo clean", 0, "clean\n"));
  world_close(&w);
}

TEST(traps) {
  world w = world_with_session();
  CHECK(run(&w, "trap 'echo dbg' DEBUG"));
  CHECK(gives(&w, "echo d", 0, "dbg\nd\n"));
  CHECK(run(&w, "trap - DEBUG"));
  CHECK(gives(&w, "echo d", 0, "d\n"));
  CHECK(gives(&w, "trap 'echo err' ERR; false", 1, "err\n"));
  CHECK(run(&w, "trap - ERR"));
  CHECK(gives(&w, "trap 'echo ret' RETURN; g() { :; }; g; trap - RETURN", 0, ""));
  CHECK(gives(&w, "echo clean", 0, "clean\n"));
  world_close(&w);
}

TEST(line_editing) {
  ROWS({"set -o vi", 0, ""}, {"echo a", 0, "a\n"}, {"cat <<E\n\ttab\nE", 0, "\ttab\n"},
       {"set -o vi\necho again", 0, "again\n"}, {"set +o vi; (exit 4)", 4, ""}, {"echo b $?", 0, "b 4\n"},
       {"for i in 1 2; do\n  set -o emacs # c\ndone\ncat <<X\nhd\nX\n# end", 0, "hd\n"},
       {"shopt -qo emacs && echo on", 0, "on\n"}, {"set +o emacs; echo off", 0, "off\n"},
       {"echo vi; echo -n no vi", 0, "vi\nno vi"}, {"set -eo vi; ! true; echo c", 0, "c\n"},
       {"echo d; false | true; set +e", 0, "d\n"}, {"echo e", 0, "e\n"});
  world w = world_with_session();
  CHECK(!run_for(&w, "set -o vi; sleep 20\necho AFTER", 0.2));
  CHECK(interrupt(&w));
  CHECK(strstr(w.seen.output.data, "AFTER") == NULL);
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(shadowed_builtins) {
  ROWS({"alias .='echo dot' eval='echo ev' printf='echo pf'", 0, ""}, {"echo x", 0, "x\n"},
       {"unalias -a", 0, ""}, {"printf() { echo faked; }; eval() { echo faked; }", 0, ""}, {"echo y", 0, "y\n"},
       {"unset -f printf eval; builtin printf z", 0, "z"});
}

TEST(terminal_modes) {
  ROWS({"stty echo; echo a", 0, "a\n"}, {"echo b", 0, "b\n"}, {"stty raw echo", 0, ""},
       {"echo c", 0, "c\n"}, {"stty -icanon -isig -icrnl", 0, ""}, {"echo d", 0, "d\n"});
}

TEST(background_jobs) {
  world w = world_with_session();
  CHECK(run(&w, "sleep 0.05 &"));
  CHECK(has(w.seen.output.data, "[1] "));
  usleep(200000);
  CHECK(run(&w, "true"));
  CHECK(gives(&w, "echo n", 0, "n\n"));
  CHECK(run(&w, "(sleep 0.1; echo late) &"));
  usleep(250000);
  CHECK(run(&w, "echo n"));
  CHECK(has(w.seen.output.data, "late\n"));
  CHECK(has(w.seen.output.data, "n\n"));
  CHECK(run(&w, "sleep 0.05 & wait; echo done"));
  CHECK(has(w.seen.output.data, "done\n"));
  world_close(&w);
}

TEST(syntax_errors_run_nothing) {
  static const char *const bad[] = {"echo pre\necho post; )", "echo (a", "a='", "for", "if true", "echo x; )",
                                    "case x in", "f() {", "echo \"unterminated", "((1+", "fi", "echo a &&"};
  world w = world_with_session();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(!run(&w, bad[i]));
    CHECK_INT(w.err.code, SWEREX_E_BASH_INCORRECT_SYNTAX);
    CHECK(has(w.err.message, "while checking bash command"));
    CHECK(has(w.err.extra_info, "bash_stderr"));
    CHECK(gives(&w, "echo ok", 0, "ok\n"));
  }
  CHECK(!run(&w, "x=ran; echo pre\n)"));
  CHECK(gives(&w, "echo \"[$x]\"", 0, "[]\n"));
  CHECK(run(&w, "shopt -s extglob"));
  CHECK(!run(&w, "ls -d !(x)")); /* as in the original: what parses it knows no options */
  CHECK_INT(w.err.code, SWEREX_E_BASH_INCORRECT_SYNTAX);
  CHECK(!run(&w, "echo (a"));
  CHECK_STR(w.err.message,
            "Error (exit code 2) while checking bash command \n'echo (a'\n---- Stderr ----\n"
            "bash: line 1: syntax error near unexpected token `a'\nbash: line 1: `echo (a'\n\n"
            "---- Stdout ----\n");
  CHECK_STR(w.err.extra_info,
            "{\"bash_stdout\":\"\",\"bash_stderr\":\"bash: line 1: syntax error near unexpected token "
            "`a'\\nbash: line 1: `echo (a'\\n\"}");
  world_close(&w);
}

TEST(a_check_that_is_killed_is_no_syntax_error) {
  static const char script[] = "#!/bin/sh\n[ \"$1\" = -n ] && kill -9 $$\n"
                               "PATH=${PATH#*:} exec bash \"$@\"\n";
  char folder[] = "/tmp/swerex-session-XXXXXX", program[64], path[4096];
  const char *const env[] = {path, NULL};
  swerex_create_bash_session_request request = {.env = env};
  world w = world_open();
  CHECK(mkdtemp(folder) != NULL);
  snprintf(program, sizeof program, "%s/bash", folder);
  snprintf(path, sizeof path, "PATH=%s:%s", folder, getenv("PATH"));
  int fd = open(program, O_WRONLY | O_CREAT, 0755);
  CHECK(write(fd, script, sizeof script - 1) == sizeof script - 1 && close(fd) == 0);
  CHECK(swerex_create_session(w.runtime, &request, NULL, &w.err));
  CHECK(!run(&w, "echo (a"));
  CHECK_INT(w.err.code, SWEREX_E_RUNTIME);
  CHECK(has(w.err.message, "session 'default': cannot check the command, and has not run it: `/tmp/"));
  CHECK(has(w.err.message, "/bash -n` was ended by signal 9"));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
  unlink(program);
  rmdir(folder);
}

TEST(open_heredoc_and_trailing_backslash) {
  world w = world_with_session();
  CHECK(run(&w, "cat <<X\nabc"));
  CHECK(has(w.seen.output.data, "abc"));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  CHECK(run(&w, "echo t\\"));
  CHECK(has(w.seen.output.data, "t"));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(shell_ends) {
  static const row ends[] = {{"exit 3", 3, NULL}, {"exec ls /nonexistent 2>/dev/null", 2, NULL},
                             {"kill -9 $$", -9, NULL}, {"set -e; false", 1, NULL},
                             {"trap 'echo bye' EXIT; exit 4", 4, "bye"}, {"exit 0", 0, NULL}};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    world w = world_with_session();
    CHECK(run(&w, ends[i].command));
    CHECK_INT(w.seen.exit_code, ends[i].code);
    CHECK(has(w.seen.failure_reason.data, "has exited"));
    if (ends[i].output != NULL) CHECK(has(w.seen.output.data, ends[i].output));
    CHECK(!run(&w, "echo x"));
    CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
    CHECK(has(w.err.message, "terminated (exit code"));
    CHECK(swerex_close_session(w.runtime, NULL, NULL, &w.err));
    CHECK(create(&w, NULL));
    CHECK(gives(&w, "echo new", 0, "new\n"));
    world_close(&w);
  }
}

TEST(shell_replaced) {
  if (!installed("dash")) SKIP("no dash");
  world w = world_with_session();
  CHECK(run_for(&w, "exec dash", 5));
  CHECK_INT(w.seen.exit_code, -9);
  CHECK_STR(w.seen.failure_reason.data, "the session's shell was replaced by another program, which was "
                                        "ended (exit code -9)");
  CHECK(!run(&w, "echo x"));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
  world_close(&w);
}

TEST(shell_killed_from_outside) {
  world w = world_with_session();
  CHECK(run(&w, "echo $$"));
  pid_t pid = (pid_t)atoi(w.seen.output.data);
  CHECK(pid > 1);
  kill(pid, SIGKILL);
  usleep(50000);
  CHECK(!run(&w, "echo x"));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
  world_close(&w);
}

TEST(no_prompt_shows_while_stderr_comes_and_goes) {
  static const char *const commands[] = {"exec 2>/dev/null", "exec 2>/dev/tty", "echo a"};
  world w = world_with_session();
  for (int i = 0; i < 300; i++)
    CHECK(gives(&w, commands[i % 3], 0, i % 3 == 2 ? "a\n" : ""));
  world_close(&w);
}

TEST(a_command_that_never_ran_is_no_success) {
  for (int i = 0; i < 5; i++) {
    world w = world_with_session();
    CHECK(gives(&w, "exec </dev/null", 0, ""));
    CHECK(!run(&w, "echo ran"));
    CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
    CHECK(has(w.err.message, "close it and create a new one"));
    world_close(&w);
  }
}

TEST(startup_files_that_are_cut_off_run_their_traps) {
  world w = world_open();
  char folder[] = "/tmp/swerex-test-XXXXXX", file[64], lock[64], script[300];
  CHECK(mkdtemp(folder) != NULL);
  snprintf(file, sizeof file, "%s/startup", folder);
  snprintf(lock, sizeof lock, "%s/lock", folder);
  snprintf(script, sizeof script,
           "bash -c 'trap \"rm -f %s\" EXIT; trap \"exit 1\" HUP; : >%s; sleep 20; true'\n", lock, lock);
  int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK(write(fd, script, strlen(script)) == (ssize_t)strlen(script));
  close(fd);
  swerex_create_bash_session_request request;
  const char *sources[] = {file, NULL};
  memset(&request, 0, sizeof request);
  request.startup_source = sources;
  request.startup_timeout = 1;
  CHECK(!swerex_create_session(w.runtime, &request, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
  for (int i = 0; i < 200 && access(lock, F_OK) == 0; i++)
    CHECK(swerex_loop_run(w.loop, 0.01, &w.err));
  CHECK(access(lock, F_OK) != 0);
  unlink(file);
  CHECK(rmdir(folder) == 0);
  world_close(&w);
}

TEST(timeout_then_interrupt) {
  world w = world_with_session();
  double start = seconds();
  CHECK(!run_for(&w, "echo part; sleep 10; echo AFTER\necho NEXT", 0.2));
  CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
  CHECK(swerex_code_is(w.err.code, SWEREX_E_TIMEOUT));
  CHECK_STR(w.err.message, "timeout after 0.2 seconds while running command 'echo part; sleep 10; echo "
                           "AFTER\\necho NEXT'");
  CHECK_STR(w.err.extra_info, "{\"output\":\"part\\n\"}");
  CHECK(interrupt(&w));
  CHECK(strstr(w.seen.output.data, "NEXT") == NULL);
  CHECK_INT(w.seen.exit_code, 0);
  CHECK_STR(w.seen.expect_string.data, "SHELLPS1PREFIX");
  CHECK(gives(&w, "echo asdf", 0, "asdf\n"));
  CHECK(seconds() - start < 2);
  CHECK(!run_for(&w, "while true; do echo t; echo t; sleep 0.02; done\necho L2", 0.2));
  CHECK(has(w.err.extra_info, "t\\nt\\n"));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo asdf", 0, "asdf\n"));
  CHECK(!run_for(&w, "sleep 5\necho SHOULDNOT\nsleep 5", 0.1));
  CHECK(interrupt(&w));
  CHECK(strstr(w.seen.output.data, "SHOULDNOT") == NULL);
  CHECK(gives(&w, "echo asdf", 0, "asdf\n"));
  world_close(&w);
}

TEST(timeout_then_the_next_command_waits) {
  world w = world_with_session();
  CHECK(!run_for(&w, "sleep 0.4; echo LATE", 0.1));
  CHECK(gives(&w, "echo clean", 0, "clean\n"));
  CHECK(!run_for(&w, "sleep 1; echo LATE", 0.1));
  CHECK(!run_for(&w, "echo never", 0.1));
  CHECK(has(w.err.message, "has not started"));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo clean", 0, "clean\n"));
  world_close(&w);
}

TEST(timeout_of_zero_and_idle) {
  world w = world_with_session();
  CHECK(!run_for(&w, "sleep 1", SWEREX_NOW));
  CHECK(has(w.err.message, "timeout after 0.0 seconds"));
  CHECK(interrupt(&w));
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "for i in 1 2 3 4; do echo $i; sleep 0.1; done; sleep 5";
  action.idle_timeout = 0.3;
  CHECK(!act(&w, &action));
  CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
  CHECK(has(w.err.message, "no output for 0.3 seconds"));
  CHECK_STR(w.err.extra_info, "{\"output\":\"1\\n2\\n3\\n4\\n\"}");
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(interrupt_right_at_the_start) {
  static const char *const go[] = {"go", NULL};
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "echo go; sleep 30";
  action.expect = go;
  action.check = SWEREX_CHECK_IGNORE;
  for (int i = 0; i < 50; i++) {
    CHECK(act(&w, &action));
    CHECK(interrupt(&w));
    CHECK(gives(&w, "echo ok", 0, "ok\n"));
  }
  world_close(&w);
}

/** A Ctrl-C that reaches the shell at its prompt makes it say a line feed, which is no output. */
TEST(interrupt_that_comes_late) {
  world w = world_with_session();
  swerex_bash_observation seen = {0};
  swerex_bash_action action = {.command = "echo $$"};
  CHECK(swerex_run_in_session(w.runtime, &action, &seen, &w.err));
  pid_t shell = (pid_t)atol(seen.output.data);
  swerex_bash_observation_clear(&seen);
  for (int i = 0; i < 20; i++) {
    CHECK(!run_for(&w, "sleep 100", 0.05));
    CHECK(interrupt(&w));
    CHECK(kill(shell, SIGINT) == 0);
    if (i % 2 == 0) usleep(20000); /* the shell has said it, or is about to */
    CHECK(gives(&w, "echo ok", 0, "ok\n"));
    CHECK(gives(&w, "echo ok; false", 1, "ok\n"));
  }
  world_close(&w);
}

/** Interrupt the session "default", and keep the loop until its command has ended by itself. */
static void interrupt_and_hold(void *user_data, swerex_stream stream, const char *text, size_t size) {
  world *w = (world *)user_data;
  (void)stream, (void)text, (void)size;
  CHECK(swerex_interrupt_session_async(w->runtime, NULL, &w->err) != NULL);
  usleep(600000);
}

static void note_start(void *user_data, swerex_stream stream, const char *text, size_t size) {
  (void)stream, (void)text, (void)size;
  *(bool *)user_data = true;
}

TEST(interrupt_of_a_command_whose_end_is_unread) {
  world w = world_with_session();
  swerex_bash_action action = {.command = "echo go; read -t 0.2 x", .check = SWEREX_CHECK_SILENT, .timeout = 20};
  swerex_bash_action other = {.command = "echo x", .session = "other"};
  bool started = false;
  action.watch.on_output = note_start;
  action.watch.user_data = &started;
  other.watch.on_output = interrupt_and_hold;
  other.watch.user_data = &w;
  CHECK(create(&w, "other") && run(&w, "trap 'caught=yes' INT"));
  swerex_future *future = swerex_run_in_session_async(w.runtime, &action, &w.err);
  while (!started) CHECK(swerex_loop_run(w.loop, 0.01, &w.err));
  CHECK(act(&w, &other));
  swerex_bash_observation_clear(&w.seen);
  CHECK(swerex_future_take(future, &w.seen, &w.err));
  CHECK_INT(w.seen.exit_code, 142); /* its own time was over */
  CHECK(gives(&w, "echo \"[$caught]\"", 0, "[]\n"));
  world_close(&w);
}

/** A Ctrl-C at the prompt, of a shell that hears of it late, is no output of the next command. */
TEST(a_key_that_is_heard_late) {
  world w = world_with_session();
  swerex_bash_action action = {.command = "echo ok", .check = SWEREX_CHECK_SILENT, .timeout = 20};
  CHECK(run(&w, "echo $$"));
  pid_t shell = (pid_t)atol(w.seen.output.data);
  usleep(100000); /* it is at its prompt */
  CHECK(kill(shell, SIGSTOP) == 0);
  CHECK(swerex_session_write(w.runtime, "default", "\003", 1, &w.err));
  swerex_future *future = swerex_run_in_session_async(w.runtime, &action, &w.err);
  for (double end = seconds() + 0.1; seconds() < end;) CHECK(swerex_loop_run(w.loop, 0.01, &w.err));
  CHECK(kill(shell, SIGCONT) == 0);
  swerex_bash_observation_clear(&w.seen);
  CHECK(swerex_future_take(future, &w.seen, &w.err));
  CHECK_STR(w.seen.output.data, "ok\n");
  world_close(&w);
}

/** Have a command end without a mark, and stop its shell when the question for the code is typed. */
static pid_t stop_before_the_answer(world *w) {
  CHECK(run(w, "echo $$"));
  pid_t shell = (pid_t)atol(w->seen.output.data);
  CHECK(!run_for(w, "sleep 97", 0.1));
  for (double end = seconds() + 20; signal_processes("sleep 97", SIGINT) == 0 && seconds() < end;) usleep(5000);
  usleep(200000); /* the shell is at its prompt */
  CHECK(kill(shell, SIGSTOP) == 0);
  for (double end = seconds() + 0.1; seconds() < end;) CHECK(swerex_loop_run(w->loop, 0.01, &w->err));
  return shell;
}

/** A Ctrl-C throws away what was typed and not read: here the question for the exit code. */
TEST(a_question_that_is_thrown_away_is_asked_again) {
  world w = world_with_session();
  pid_t shell = stop_before_the_answer(&w);
  CHECK(swerex_session_write(w.runtime, "default", "\003", 1, &w.err));
  CHECK(kill(shell, SIGCONT) == 0);
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

#ifdef __linux__
/** Here no prompt comes either. */
TEST(a_question_that_is_lost_is_asked_again) {
  world w = world_with_session();
  char input[40];
  pid_t shell = stop_before_the_answer(&w);
  snprintf(input, sizeof input, "/proc/%ld/fd/0", (long)shell);
  int terminal = open(input, O_RDWR | O_NOCTTY), unread = 0;
  CHECK(ioctl(terminal, FIONREAD, &unread) == 0 && unread > 0);
  CHECK(tcflush(terminal, TCIFLUSH) == 0);
  CHECK(kill(shell, SIGCONT) == 0);
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  close(terminal);
  world_close(&w);
}
#endif

TEST(interrupt_of_the_stubborn) {
  world w = world_with_session();
  CHECK(!run_for(&w, "sh -c 'trap \"\" INT; sleep 30'", 0.1));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo a", 0, "a\n"));
  CHECK(!run_for(&w, "sh -c 'trap \"\" INT TSTP; sleep 30'", 0.1));
  CHECK(interrupt(&w));
  CHECK(has(w.seen.output.data, "Killed"));
  CHECK(gives(&w, "echo b", 0, "b\n"));
  CHECK(!run_for(&w, "stty raw -echo; sleep 30", 0.2));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo c", 0, "c\n"));
  CHECK(!run_for(&w, "while :; do :; done", 0.1));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo d", 0, "d\n"));
  CHECK(!run_for(&w, "PS1=; sleep 30", 0.1));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo e", 0, "e\n"));
  CHECK(!run_for(&w, "trap '' INT; while :; do :; done", 0.1));
  CHECK(!interrupt(&w));
  CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
  CHECK(has(w.err.message, "close the session"));
  CHECK(swerex_close_session(w.runtime, NULL, NULL, &w.err));
  world_close(&w);
}

TEST(interrupt_without_its_key) {
  world w = world_with_session();
  CHECK(gives(&w, "stty intr undef", 0, ""));
  CHECK(!run_for(&w, "while :; do :; done", 0.1));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "stty intr ^C; echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(what_is_held_for_an_interrupt_stays_its_own) {
  static const char *const never[] = {"ab.*never", NULL};
  static const char command[] = "bash -c 'f() { printf ab; x=$(head -n 1); printf \"<$x>\"; exit; }; trap f INT; "
                                "echo go; while :; do sleep 0.05; done'";
  world w = world_with_session();
  swerex_bash_observation seen = {0};
  swerex_bash_interrupt_action stop = {.timeout = 20, .expect = never};
  CHECK(talk(&w, command, "go", 20));
  swerex_future *future = swerex_interrupt_session_async(w.runtime, &stop, &w.err);
  for (double end = seconds() + 20; processes("head -n 1") == 0 && seconds() < end;) swerex_loop_run(w.loop, 0.01, &w.err);
  for (int i = 0; i < 2; i++) swerex_loop_run(w.loop, 0, &w.err); /* "ab" has been read now */
  CHECK(talk(&w, "x", ">", 20));
  CHECK_STR(w.seen.output.data, "<x");
  CHECK(swerex_future_take(future, &seen, &w.err));
  CHECK(has(seen.output.data, "ab"));
  swerex_bash_observation_clear(&seen);
  world_close(&w);
}

TEST(interrupt_tells_what_came_before_a_command_that_had_to_wait) {
  world w = world_with_session();
  CHECK(!run_for(&w, "echo part; sleep 10", 0.1));
  CHECK(!run_for(&w, "echo never", 0.1));
  CHECK(interrupt(&w));
  CHECK_STR(w.seen.output.data, "part");
  world_close(&w);
}

TEST(line_feeds_behind_an_interrupt_take_linear_time) {
  world w = world_with_session();
  char gone[64], command[200];
  snprintf(gone, sizeof gone, "/tmp/swerex-feeds-%ld", (long)getpid());
  snprintf(command, sizeof command, "(sleep 0.15; head -c 500000 /dev/zero | tr '\\0' '\\n'; : >%s) &", gone);
  CHECK(run(&w, command));
  CHECK(!run_for(&w, "sleep 20", 0.05));
  CHECK(interrupt(&w));
  for (double end = seconds() + 20; access(gone, F_OK) != 0 && seconds() < end;)
    CHECK(swerex_loop_run(w.loop, 0.05, &w.err));
  for (int i = 0; i < 20; i++) CHECK(swerex_loop_run(w.loop, 0.01, &w.err)); /* the last of them */
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  unlink(gone);
  world_close(&w);
}

TEST(interrupt_of_a_shell_that_has_stopped) {
  static const char *const commands[] = {"kill -STOP $$; echo AFTER", "suspend -f"};
  world w = world_with_session();
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    CHECK(!run_for(&w, commands[i], 0.2));
    CHECK(interrupt(&w));
    CHECK(strstr(w.seen.output.data, "AFTER") == NULL);
    CHECK(gives(&w, "echo ok", 0, "ok\n"));
  }
  CHECK(!run_for(&w, "kill -STOP $$", 0.2));
  double start = seconds();
  CHECK(swerex_close_session(w.runtime, NULL, NULL, &w.err));
  CHECK(seconds() - start < 2);
  world_close(&w);
}

TEST(a_key_that_stops_the_program_in_front) {
  world w = world_with_session();
  CHECK(!run_for(&w, "sleep 20", 0.2));
  CHECK(talk(&w, "\032", NULL, 5));
  CHECK(has(w.seen.output.data, "Stopped"));
  usleep(50000);
  CHECK(run(&w, "jobs"));
  CHECK(has(w.seen.output.data, "Stopped"));
  CHECK(strstr(w.seen.output.data, "SHELLPS1PREFIX") == NULL);
  CHECK(run(&w, "kill -9 %1; sleep 0.2"));
  CHECK(run(&w, "true"));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(interrupt_of_a_pager) {
  world w = world_with_session();
  if (!installed("less")) {
    world_close(&w);
    SKIP("no less");
  }
  CHECK(!run_for(&w, "echo blargh | less -+F", 0.3));
  CHECK(interrupt(&w));
  CHECK(gives(&w, "echo asdf", 0, "asdf\n"));
  world_close(&w);
}

TEST(interrupt_when_idle) {
  world w = world_with_session();
  CHECK(interrupt(&w));
  CHECK_STR(w.seen.output.data, "");
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(interrupt_of_the_action_under_way) {
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "echo start; sleep 30";
  action.check = SWEREX_CHECK_SILENT;
  swerex_future *future = swerex_run_in_session_async(w.runtime, &action, &w.err);
  for (int i = 0; i < 20; i++) swerex_loop_run(w.loop, 0.01, &w.err);
  CHECK(interrupt(&w));
  swerex_bash_observation_clear(&w.seen);
  CHECK(swerex_future_take(future, &w.seen, &w.err));
  CHECK_INT(w.seen.exit_code, 130);
  CHECK(has(w.seen.output.data, "start\n"));
  world_close(&w);
}

TEST(interrupt_of_an_action_that_is_about_to_begin) {
  static const char *const commands[] = {"x=$[1]; sleep 30", "sleep 30"}; /* bash checks the first */
  world w = world_with_session();
  swerex_bash_action action = {.check = SWEREX_CHECK_SILENT, .timeout = 10};
  for (int i = 0; i < 6; i++) {
    action.command = commands[i % 2];
    swerex_future *future = swerex_run_in_session_async(w.runtime, &action, &w.err);
    CHECK(interrupt(&w));
    swerex_bash_observation_clear(&w.seen);
    CHECK(swerex_future_take(future, &w.seen, &w.err));
    CHECK_INT(w.seen.exit_code, 130);
    CHECK(gives(&w, "echo ok", 0, "ok\n"));
  }
  world_close(&w);
}

TEST(answers_to_a_program_that_reads) {
  world w = world_with_session();
  CHECK(!run_for(&w, "read x; echo got $x", 0.1));
  CHECK(talk(&w, "hello", NULL, 5));
  CHECK_STR(w.seen.output.data, "got hello");
  CHECK(gives(&w, "echo $x", 0, "hello\n"));
  CHECK(!run_for(&w, "cat", 0.1));
  CHECK(swerex_session_write(w.runtime, "default", "\004", 1, &w.err));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(what_a_terminal_refuses) {
  world w = world_with_session();
  size_t size = (1 << 24) + 1;
  char *text = (char *)calloc(size, 1);
  CHECK(!swerex_session_write(w.runtime, NULL, text, size, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_OS);
  CHECK_STR(w.err.message, "session 'default': the program in front does not read its input: 0 bytes "
                           "wait, and 16777217 more are too many");
  free(text);
  CHECK(!swerex_session_resize(w.runtime, NULL, 0, 80, &w.err));
  CHECK_STR(w.err.message, "a terminal cannot have 0 rows and 80 columns");
  CHECK(!swerex_session_resize(w.runtime, NULL, 24, 65536, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_VALUE);
  CHECK(gives(&w, "stty size", 0, "24 80\n"));
  CHECK(run(&w, "exit"));
  CHECK(!swerex_session_resize(w.runtime, NULL, 24, 80, &w.err));
  CHECK_STR(w.err.message, "session 'default' has ended");
  world_close(&w);
}

TEST(python_repl) {
  world w = world_with_session();
  if (!installed("python3")) {
    world_close(&w);
    SKIP("no python3");
  }
  CHECK(talk(&w, "python3 -q", ">>> ", 20));
  CHECK_STR(w.seen.expect_string.data, ">>> ");
  CHECK(talk(&w, "print('hello world')", ">>> ", 10));
  CHECK_STR(w.seen.output.data, "hello world");
  CHECK_INT(w.seen.exit_code, 0);
  CHECK(quit(&w, "quit()"));
  CHECK(gives(&w, "echo hw", 0, "hw\n"));
  world_close(&w);
}

TEST(gdb) {
  world w = world_with_session();
  if (!installed("gdb")) {
    world_close(&w);
    SKIP("no gdb");
  }
  CHECK(talk(&w, "gdb -q -nx", "(gdb) ", 20));
  CHECK(talk(&w, "p 1+1", "(gdb) ", 10));
  CHECK(has(w.seen.output.data, "$1 = 2"));
  CHECK(quit(&w, "quit"));
  CHECK(gives(&w, "echo hw", 0, "hw\n"));
  world_close(&w);
}

TEST(vim) {
  world w = world_with_session();
  const char *vim = installed("vim") ? "vim" : installed("vim.tiny") ? "vim.tiny" : NULL;
  if (vim == NULL) {
    world_close(&w);
    SKIP("no vim");
  }
  char command[64];
  snprintf(command, sizeof command, "%s -u NONE /tmp/swerex-no-file", vim);
  CHECK(!run_for(&w, command, 0.8));
  CHECK(quit(&w, "\033:q!"));
  CHECK(gives(&w, "echo hw", 0, "hw\n"));
  world_close(&w);
}

TEST(nested_shells) {
  world w = world_with_session();
  CHECK(run_for(&w, "bash --norc --noediting", 5));
  CHECK(run_for(&w, "echo in $SHLVL", 5));
  CHECK(has(w.seen.output.data, "in "));
  CHECK(run_for(&w, "exit 5", 5));
  CHECK_INT(w.seen.exit_code, 5);
  CHECK(gives(&w, "echo hw", 0, "hw\n"));
  world_close(&w);
}

TEST(a_nested_shell_with_a_prompt_of_its_own) {
  world w = world_with_session();
  CHECK(talk(&w, "env -u PS1 bash --norc --noediting", "[$#] $", 10));
  CHECK(talk(&w, "cd /tmp; pwd", "[$#] $", 10));
  CHECK(has(w.seen.output.data, "/tmp\n"));
  CHECK(quit(&w, "exit 6"));
  CHECK(gives(&w, "echo $?", 0, "6\n"));
  world_close(&w);
}

/** A terminal hands out 4095 bytes at once: the prompt behind these comes in two pieces. */
TEST(a_prompt_that_comes_in_two_pieces) {
  static const char *const commands[] = {"printf %4082s x", "printf %4088s x", "printf %4094s x"};
  world w = world_with_session();
  swerex_bash_action action = {.check = SWEREX_CHECK_SILENT, .timeout = 5};
  CHECK(run_for(&w, "bash --norc --noediting", 5));
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    action.command = commands[i];
    swerex_future *future = swerex_run_in_session_async(w.runtime, &action, &w.err);
    usleep(50000); /* all of it is there */
    swerex_bash_observation_clear(&w.seen);
    CHECK(swerex_future_take(future, &w.seen, &w.err));
    CHECK_INT((int)w.seen.output.size, atoi(commands[i] + 8));
  }
  CHECK(run_for(&w, "exit 5", 5));
  CHECK_INT(w.seen.exit_code, 5);
  world_close(&w);
}

TEST(text_that_begins_like_the_prompt) {
  static const char *const never[] = {"x.*never", NULL};
  world w = world_with_session();
  CHECK(gives(&w, "printf S; sleep 0.05; printf HELLPS1PREFI", 0, "SHELLPS1PREFI"));
  CHECK(talk(&w, "sh -c 'printf YES; read x'", "YES", 5)); /* nothing follows it */
  CHECK(interrupt(&w));
  swerex_bash_action action = {.command = "printf xSHELL; sleep 0.05; printf PS1PREFIX; sleep 0.05",
                               .expect = never}; /* which has seen the first half */
  CHECK(act(&w, &action));
  CHECK_STR(w.seen.output.data, "xSHELLPS1PREFIX");
  world_close(&w);
}

TEST(a_shell_that_comes_after_the_time_limit) {
  world w = world_with_session();
  CHECK(!run_for(&w, "sleep 0.2; echo what nobody waits for; bash --norc --noediting", 0.1));
  double start = seconds();
  while (seconds() - start < 0.5) CHECK(swerex_loop_run(w.loop, 0.05, &w.err));
  CHECK(gives(&w, "echo in", 0, "in\n"));
  CHECK(run_for(&w, "exit 5", 5));
  CHECK_INT(w.seen.exit_code, 5);
  world_close(&w);
}

TEST(a_shell_that_prints_the_prompt_is_taken_for_one_at_it) {
  world w = world_with_session();
  double start = seconds();
  CHECK(gives(&w, "sh -c 'printf SHELLPS1PREFIX; sleep 1; echo late'", 0, ""));
  CHECK(seconds() - start < 0.9);
  usleep(1300000);
  CHECK(swerex_loop_run(w.loop, 0, &w.err));
  CHECK(gives(&w, "echo ok", 0, "ok\n")); /* what it printed then belongs to nobody */
  world_close(&w);
}

TEST(a_mark_of_another_command_ends_none) {
  world w = world_with_session();
  CHECK(run(&w, "trap 'case $BASH_COMMAND in *printf*7\\;*) mark=$BASH_COMMAND;; esac' DEBUG"));
  CHECK(run(&w, "trap - DEBUG")); /* mark holds what reported the end of the command before */
  CHECK(run(&w, "n=${mark#*7;}; n=${n%%;*}; echo ${#n}"));
  CHECK_STR(w.seen.output.data, "32\n");
  CHECK(gives(&w, "printf '\\033]7;%s;1;0;h;' $n; sleep 0.1; echo after; (exit 3)", 3, "after\n"));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(what_does_not_cross_commands) {
  ROWS({"PS1=mine", 0, ""}, {"echo $PS1", 0, "SHELLPS1PREFIX\n"}, {"true | false", 1, ""},
       {"echo ${#PIPESTATUS[@]}", 0, "1\n"}, {"history", 0, ""}, {"trap 'echo err' ERR", 0, ""},
       {"false", 1, "err\n"}, {"echo $?", 0, "err\n1\n"}, {"trap - ERR; echo x", 0, "x\n"});
}

TEST(expect_in_a_plain_command) {
  static const char *const a[] = {"a", NULL};
  static const char *const number[] = {"nothing", "n=(\\d+)", NULL};
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "echo a; sleep 0.3";
  action.expect = a;
  CHECK(act(&w, &action));
  CHECK_STR(w.seen.output.data, "\n");
  CHECK_INT(w.seen.exit_code, 0);
  CHECK_STR(w.seen.expect_string.data, "a");
  action.command = "echo n=42; sleep 30";
  action.expect = number;
  action.check = SWEREX_CHECK_IGNORE;
  CHECK(act(&w, &action));
  CHECK_INT(w.seen.exit_code, SWEREX_NO_EXIT_CODE);
  CHECK_STR(w.seen.expect_string.data, "n=(\\d+)");
  CHECK(interrupt(&w));
  action.check = SWEREX_CHECK_SILENT;
  CHECK(act(&w, &action));
  CHECK_INT(w.seen.exit_code, SWEREX_NO_EXIT_CODE);
  CHECK(interrupt(&w));
  action.check = SWEREX_CHECK_RAISE;
  CHECK(!act(&w, &action));
  CHECK_INT(w.err.code, SWEREX_E_NO_EXIT_CODE);
  CHECK(interrupt(&w));
  static const char *const refused[] = {"(?=x)", NULL};
  action.expect = refused;
  CHECK(!act(&w, &action));
  CHECK_INT(w.err.code, SWEREX_E_PATTERN);
  CHECK(has(w.err.message, "look"));
  CHECK(gives(&w, "echo ok", 0, "ok\n"));
  world_close(&w);
}

TEST(checks) {
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "echo 'it is'; false";
  CHECK(!act(&w, &action));
  CHECK_INT(w.err.code, SWEREX_E_NON_ZERO_EXIT_CODE);
  CHECK_STR(w.err.message, "Command \"echo 'it is'; false\" failed with exit code 1. Here is the "
                           "output:\n'it is\\n'");
  action.error_msg = "context";
  CHECK(!act(&w, &action));
  CHECK(strncmp(w.err.message, "context: Command ", 17) == 0);
  action.check = SWEREX_CHECK_SILENT;
  CHECK(act(&w, &action));
  CHECK_INT(w.seen.exit_code, 1);
  action.check = SWEREX_CHECK_IGNORE;
  CHECK(act(&w, &action));
  CHECK_INT(w.seen.exit_code, SWEREX_NO_EXIT_CODE);
  swerex_bash_action last = {.command = "exit 3"};
  CHECK(!act(&w, &last));
  CHECK_STR(w.err.message, "Command 'exit 3' failed with exit code 3: the session's shell has exited "
                           "(exit code 3). Here is the output:\n'exit\\n'");
  world_close(&w);
}

TEST(session_names) {
  world w = world_open();
  CHECK(!run(&w, "echo x"));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_DOES_NOT_EXIST);
  CHECK_STR(w.err.message, "session 'default' does not exist");
  CHECK(create(&w, "p1"));
  CHECK(!create(&w, "p1"));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_EXISTS);
  CHECK_STR(w.err.message, "session p1 already exists");
  CHECK(create(&w, "p2"));
  swerex_close_bash_session_request close = {"p1"};
  CHECK(swerex_close_session(w.runtime, &close, NULL, &w.err));
  CHECK(!swerex_close_session(w.runtime, &close, NULL, &w.err));
  CHECK_STR(w.err.message, "session 'p1' does not exist");
  CHECK(create(&w, "p1"));
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  CHECK(!act(&w, &action));
  CHECK_INT(w.err.code, SWEREX_E_VALIDATION);
  CHECK(has(w.err.message, "command: Field required"));
  action.command = "x";
  action.is_interactive_command = action.is_interactive_quit = true;
  CHECK(!act(&w, &action));
  CHECK_INT(w.err.code, SWEREX_E_VALUE);
  world_close(&w);
}

/** Open session "s" with one startup file of this content. */
static bool start_with(world *w, const char *content, swerex_bytes *output, double limit) {
  char path[] = "/tmp/swerex-rc-XXXXXX";
  int fd = mkstemp(path);
  const char *const sources[] = {path, NULL};
  swerex_create_bash_session_request request;
  swerex_create_bash_session_response response;
  memset(&request, 0, sizeof request);
  memset(&response, 0, sizeof response);
  CHECK(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
  close(fd);
  request.session = "default";
  request.startup_source = sources;
  request.startup_timeout = limit;
  bool ok = swerex_create_session(w->runtime, &request, &response, &w->err);
  *output = response.output;
  unlink(path);
  return ok;
}

TEST(a_runtime_that_is_being_closed_starts_nothing) {
  world w = world_with_session();
  swerex_command command = {.command = "true"};
  swerex_upload_request upload = {.source_path = "/dev/null", .target_path = "/tmp"};
  swerex_future *closing = swerex_close_async(w.runtime, NULL, &w.err);
  for (int i = 0; i < 2; i++) {
    swerex_future *calls[] = {swerex_create_session_async(w.runtime, NULL, &w.err),
                              swerex_execute_async(w.runtime, &command, &w.err),
                              swerex_upload_async(w.runtime, &upload, &w.err)};
    for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
      CHECK(!swerex_future_take(calls[k], NULL, &w.err));
      CHECK_STR(w.err.message, "the runtime is being closed already");
    }
    if (i == 0) CHECK(swerex_loop_run(w.loop, 0, &w.err)); /* it has begun, and is not over */
  }
  CHECK(swerex_future_take(closing, NULL, &w.err));
  CHECK(create(&w, NULL));
  CHECK(gives(&w, "echo again", 0, "again\n"));
  world_close(&w);
}

TEST(startup_files) {
  static const char *const files[] = {
    "echo hello", "PS1='weird> '; PROMPT_COMMAND='echo -n'; export PS1", "exec 2>/dev/null", "set -o vi; set +m",
    "return 3", "set -e", "set -x", "exec 3>&1 4>&2", "trap 'true' DEBUG", "alias eval=false printf=false"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    world w = world_open();
    swerex_bytes output;
    CHECK(start_with(&w, files[i], &output, 10));
    if (i == 0) CHECK_STR(output.data, "hello\n");
    swerex_bytes_clear(&output);
    CHECK(run(&w, "set +x; set +e; trap - DEBUG"));
    CHECK(run(&w, "true"));
    CHECK(gives(&w, "echo ok; (exit 3)", 3, "ok\n"));
    world_close(&w);
  }
}

TEST(slow_prompts) {
  world w = world_open();
  swerex_bytes output;
  CHECK(start_with(&w, "PROMPT_COMMAND='sleep 0.15'", &output, 10));
  swerex_bytes_clear(&output);
  for (int i = 0; i < 3; i++) {
    CHECK(gives(&w, "for i in 1 2 3; do sleep 0.1; echo $i; done | cat", 0, "1\n2\n3\n"));
    CHECK(gives(&w, "cat <<'X'\nab\nX", 0, "ab\n"));
    CHECK(gives(&w, "echo SHELLPS1PREFIX; (exit 4)", 4, "SHELLPS1PREFIX\n"));
  }
  CHECK(!run_for(&w, "sleep 1; echo OLD", 0.4));
  CHECK(gives(&w, "echo new", 0, "new\n"));
  world_close(&w);
}

TEST(calls_that_cross_a_failure) {
  static const char *const slow[] = {"/dev/stdin", NULL};
  world w = world_open();
  swerex_create_bash_session_request request;
  swerex_bash_action action;
  memset(&request, 0, sizeof request);
  memset(&action, 0, sizeof action);
  request.startup_source = slow; /* waits for the terminal */
  request.startup_timeout = 0.2;
  action.command = "echo hi";
  action.timeout = 5;
  swerex_future *opening = swerex_create_session_async(w.runtime, &request, &w.err);
  swerex_future *running = swerex_run_in_session_async(w.runtime, &action, &w.err);
  CHECK(!swerex_future_take(opening, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
  CHECK(!swerex_future_take(running, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
  CHECK_STR(w.err.message, "session 'default' did not start");
  CHECK(create(&w, NULL));
  action.command = "exit 3";
  running = swerex_run_in_session_async(w.runtime, &action, &w.err);
  usleep(200000);
  swerex_future *closing = swerex_close_session_async(w.runtime, NULL, &w.err);
  CHECK(swerex_await(closing, 10, &w.err));
  CHECK(swerex_future_take(closing, NULL, &w.err));
  CHECK(!swerex_future_take(running, NULL, &w.err));
  world_close(&w);
}

TEST(a_start_that_is_given_up_frees_the_name) {
  static const char *const slow[] = {"/dev/stdin", NULL}; /* it waits for the terminal */
  world w = world_open();
  swerex_create_bash_session_request request = {.startup_source = slow};
  for (int i = 0; i < 4; i++) {
    swerex_future *opening = swerex_create_session_async(w.runtime, &request, &w.err);
    if (i > 1) CHECK(swerex_loop_run(w.loop, 0.001, &w.err));
    if (i % 2 == 0) {
      swerex_future_free(opening);
    } else {
      swerex_future_cancel(opening);
      CHECK(!swerex_future_take(opening, NULL, &w.err));
      CHECK_INT(w.err.code, SWEREX_E_CANCELLED);
    }
  }
  CHECK(create(&w, NULL));
  CHECK(gives(&w, "echo here", 0, "here\n"));
  world_close(&w);
}

TEST(startup_failures) {
  world w = world_open();
  swerex_bytes output;
  CHECK(!start_with(&w, "echo last words; exit 7", &output, 10));
  CHECK_INT(w.err.code, SWEREX_E_SESSION_TERMINATED);
  CHECK(has(w.err.message, "exit code 7"));
  CHECK(has(w.err.extra_info, "last words"));
  CHECK(!start_with(&w, "echo so far; sleep 30", &output, 0.3));
  CHECK_INT(w.err.code, SWEREX_E_COMMAND_TIMEOUT);
  CHECK(has(w.err.message, "startup_timeout"));
  CHECK(has(w.err.extra_info, "so far"));
  CHECK(start_with(&w, "echo fine", &output, 10));
  CHECK_STR(output.data, "fine\n");
  swerex_bytes_clear(&output);
  static const char *const missing[] = {"/nonexist", NULL};
  swerex_create_bash_session_request request;
  swerex_create_bash_session_response response;
  memset(&request, 0, sizeof request);
  memset(&response, 0, sizeof response);
  request.session = "p2";
  request.startup_source = missing;
  CHECK(swerex_create_session(w.runtime, &request, &response, &w.err));
  CHECK(has(response.output.data, "/nonexist: No such file or directory"));
  swerex_create_bash_session_response_clear(&response);
  world_close(&w);
}

TEST(folder_and_environment) {
  static const char *const env[] = {"SWEREX_TEST_A=b c", "PATH=/usr/bin:/bin:/opt/x", NULL};
  world w = world_open();
  swerex_create_bash_session_request request;
  memset(&request, 0, sizeof request);
  request.cwd = "/usr";
  request.env = env;
  CHECK(swerex_create_session(w.runtime, &request, NULL, &w.err));
  CHECK(gives(&w, "pwd; echo \"$SWEREX_TEST_A|$PATH\"", 0, "/usr\nb c|/usr/bin:/bin:/opt/x\n"));
  request.session = "other";
  request.cwd = "/nonexist";
  CHECK(!swerex_create_session(w.runtime, &request, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_FILE_NOT_FOUND);
  CHECK_STR(w.err.message, "[Errno 2] No such file or directory: '/nonexist'");
  world_close(&w);
}

/** Make a folder that holds links to programs, as a PATH without bash. */
static void make_path(char *folder, const char *const *programs, const char *const *names) {
  char path[256];
  CHECK(mkdtemp(folder) != NULL);
  for (; *programs != NULL; programs++, names++) {
    snprintf(path, sizeof path, "%s/%s", folder, *names);
    CHECK(symlink(*programs, path) == 0);
  }
}

TEST(other_shells) {
  static const struct {
    const char *package, *program;
  } shells[] = {{"dash", "/bin/dash"}, {"busybox", "/bin/busybox"}};
  int tried = 0;
  for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
    char folder[] = "/tmp/swerex-path-XXXXXX", variable[64], clean[96];
    const char *const programs[] = {shells[i].program, "/bin/sleep", "/bin/cat", NULL};
    static const char *const names[] = {"sh", "sleep", "cat"};
    const char *const env[] = {variable, NULL};
    if (access(shells[i].program, X_OK) != 0) continue;
    tried++;
    make_path(folder, programs, names);
    snprintf(variable, sizeof variable, "PATH=%s", folder);
    world w = world_open();
    swerex_create_bash_session_request request;
    memset(&request, 0, sizeof request);
    request.env = env;
    CHECK(swerex_create_session(w.runtime, &request, NULL, &w.err));
    CHECK(gives(&w, "echo ok; false", 1, "ok\n"));
    CHECK(gives(&w, "echo $?", 0, "1\n"));
    CHECK(gives(&w, "x=1\nfor i in 1 2; do echo $i; done", 0, "1\n2\n"));
    CHECK(gives(&w, "echo $x", 0, "1\n"));
    CHECK(!run(&w, "echo (a"));
    CHECK_INT(w.err.code, SWEREX_E_BASH_INCORRECT_SYNTAX);
    CHECK(!run_for(&w, "sleep 30", 0.1));
    CHECK(interrupt(&w));
    CHECK(gives(&w, "echo after", 0, "after\n"));
    CHECK(run(&w, "exit 3"));
    CHECK_INT(w.seen.exit_code, 3);
    world_close(&w);
    snprintf(clean, sizeof clean, "rm -r %s", folder);
    CHECK(system(clean) == 0);
  }
  if (tried == 0) SKIP("neither dash nor busybox");
}

TEST(many_actions_queue_in_order) {
  enum { COUNT = 50 };
  world w = world_with_session();
  swerex_future *futures[COUNT];
  char command[64], expected[64];
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = command;
  for (int i = 0; i < COUNT; i++) {
    snprintf(command, sizeof command, "echo %d; n=$((n+1)); echo $n", i);
    futures[i] = swerex_run_in_session_async(w.runtime, &action, &w.err);
  }
  for (int i = 0; i < COUNT; i++) {
    snprintf(expected, sizeof expected, "%d\n%d\n", i, i + 1);
    CHECK(swerex_future_take(futures[i], &w.seen, &w.err));
    CHECK_STR(w.seen.output.data, expected);
    swerex_bash_observation_clear(&w.seen);
  }
  world_close(&w);
}

TEST(cancelled_actions) {
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "sleep 0.3; echo old";
  swerex_future *first = swerex_run_in_session_async(w.runtime, &action, &w.err);
  action.command = "echo second";
  swerex_future *second = swerex_run_in_session_async(w.runtime, &action, &w.err);
  swerex_loop_run(w.loop, 0.05, &w.err);
  swerex_future_cancel(first);
  swerex_future_free(second);
  CHECK(!swerex_future_take(first, NULL, &w.err));
  CHECK_INT(w.err.code, SWEREX_E_CANCELLED);
  CHECK(gives(&w, "echo clean", 0, "clean\n"));
  world_close(&w);
}

typedef struct watched {
  char text[256];
  size_t size;
  int calls;
  double first;
} watched;

static void watch_output(void *user_data, swerex_stream stream, const char *text, size_t size) {
  watched *seen = (watched *)user_data;
  if (stream != SWEREX_STDOUT || seen->size + size >= sizeof seen->text) return;
  if (seen->calls++ == 0) seen->first = seconds();
  memcpy(seen->text + seen->size, text, size);
  seen->size += size;
  seen->text[seen->size] = '\0';
}

TEST(output_is_watched_as_it_comes) {
  world w = world_with_session();
  watched seen;
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  memset(&seen, 0, sizeof seen);
  action.command = "echo one; sleep 0.3; echo two";
  action.watch.on_output = watch_output;
  action.watch.user_data = &seen;
  CHECK(act(&w, &action));
  CHECK(seconds() - seen.first > 0.2);
  CHECK_STR(seen.text, "one\ntwo\n");
  memset(&seen, 0, sizeof seen);
  action.command = "printf '\\033[1mb\\033[0m\\n'";
  action.watch.raw = true;
  CHECK(act(&w, &action));
  CHECK_STR(seen.text, "\033[1mb\033[0m\r\n");
  CHECK_STR(w.seen.output.data, "b\n");
  world_close(&w);
}

TEST(output_beyond_the_cap) {
  world w = world_with_session();
  swerex_bash_action action;
  memset(&action, 0, sizeof action);
  action.command = "seq 1 100000";
  action.max_output = 1000;
  CHECK(act(&w, &action));
  CHECK(strncmp(w.seen.output.data, "1\n2\n3\n", 6) == 0);
  CHECK(has(w.seen.output.data, "bytes left out"));
  CHECK(has(w.seen.output.data, "\n99999\n100000\n"));
  CHECK(w.seen.output.size < 1100);
  world_close(&w);
}

TEST(large_output) {
  world w = world_with_session();
  CHECK(run(&w, "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo end"));
  CHECK_INT((int)w.seen.output.size, 20000005);
  CHECK(has(w.seen.output.data + 19999990, "xxx\nend\n"));
  world_close(&w);
}

TEST_MAIN()
