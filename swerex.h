/*
 * swerex.h - run any command in any environment: live bash sessions, one-off commands and files
 *            through one runtime interface. Version 0.1.0, MIT licence (text at the end).
 *
 * Do this in exactly ONE C file, before any other #include:
 *
 *     #define SWEREX_IMPLEMENTATION
 *     #include "swerex.h"
 *
 * and plain #include "swerex.h" everywhere else (C99 or C++11). Build: cc program.c swerex.c
 *
 * A BLOCKING PROGRAM
 *
 *     swerex_error err = SWEREX_ERROR_INIT;
 *     swerex_loop *loop = swerex_loop_new(NULL, &err);
 *     swerex_deployment *box = swerex_get_deployment_json(loop, "{\"type\":\"local\"}", 0, &err);
 *     swerex_deployment_start(box, &err);
 *     swerex_runtime *runtime = swerex_deployment_runtime(box, &err);
 *
 *     swerex_create_bash_session_request session = {0};
 *     swerex_bash_action action = {.command = "cd /tmp && ls"};
 *     swerex_bash_observation seen = {0};
 *     if (swerex_create_session(runtime, &session, NULL, &err) &&
 *         swerex_run_in_session(runtime, &action, &seen, &err))
 *       printf("%s(exit code %d)\n", seen.output.data, seen.exit_code);
 *     else
 *       fprintf(stderr, "%s\n", err.message);
 *     swerex_bash_observation_clear(&seen);
 *     swerex_loop_free(loop);              (stops the deployment, frees all that the loop made)
 *
 * AN ASYNCHRONOUS ONE
 *
 *     for (int i = 0; i < 8; i++)
 *       swerex_run_in_session_async(runtime, &actions[i], &err);
 *     for (swerex_future *done; (done = swerex_loop_wait(loop, SWEREX_FOREVER, &err)) != NULL;) {
 *       if (swerex_future_take(done, &seen, &err)) ...
 *     }                                    (NULL with no error: nothing is pending any more)
 *
 * CONVENTIONS
 *   Names      Functions are swerex_noun_verb; the runtime's own verbs drop the noun. Fields and
 *              JSON keys are those of the Python package swe-rex. Names with two underscores
 *              (swerex__x) are private and may change in any release.
 *   Zero       A zero field of a request or configuration means its default, so a designated
 *              initialiser names only what matters. A boolean that is true by default in Python is
 *              inverted here, and keeps its Python name in JSON.
 *   Time       Seconds, as double. In a struct 0 means the documented default, SWEREX_FOREVER no
 *              limit, SWEREX_NOW an immediate deadline. As a function argument 0 means at once.
 *   Ownership  Inputs are borrowed for the call (also by _async calls, which copy them). Outputs
 *              are owned by the caller: swerex_<type>_clear, swerex_free for single strings.
 *              Objects have _new and _free. Freeing a loop frees all that was made from it.
 *   Text       Output has a length and may hold NUL; a NUL is added behind it all the same.
 *   Errors     Fallible calls return false or NULL and fill their last argument, which may be NULL.
 *              A swerex_error starts as SWEREX_ERROR_INIT, may be used again and again, and is
 *              released with swerex_error_clear.
 *   Threads    A loop and everything made from it belong to one thread at a time; use one loop per
 *              thread for more. Only swerex_loop_wake may be called from any thread.
 *   Signals    No handler is installed and no process-wide state is changed. Children are started
 *              and reaped by a small helper process (the keeper), so the host's own SIGCHLD and
 *              wait calls never meet ours; when the host dies, the keeper ends its children.
 *
 * OPTIONS (define before the include, the same in every file that includes it)
 *   SWEREX_IMPLEMENTATION    compile the implementation here; C only
 *   SWEREX_STATIC            make every function static to this file
 *   SWEREX_API               linkage of public functions             (default extern)
 *   SWEREX_MALLOC(n), SWEREX_REALLOC(p, n), SWEREX_FREE(p)           (default libc; all or none)
 *   SWEREX_ASSERT(x)         internal invariants                     (default assert)
 *   SWEREX_NO_LOCAL          leave out the local runtime and deployment, and the server with them
 *   SWEREX_NO_REMOTE         leave out the remote runtime and deployment, and all that need it
 *   SWEREX_NO_DOCKER         leave out the deployment in containers of Docker or Podman
 *   SWEREX_NO_SERVER         leave out the server
 *   SWEREX_USE_CURL          who speaks https for the remote runtime: 0, nobody (default); 1,
 *                            libcurl, linked with -lcurl; 2, libcurl.so.4, loaded when it is
 *                            needed, without its headers (-ldl before glibc 2.34)
 *   SWEREX_POLLER            SWEREX_POLLER_EPOLL, _KQUEUE or _POLL   (default: the system's best)
 *   SWEREX_LOG_LEVEL         lowest level compiled in                (default SWEREX_LOG_DEBUG)
 *   SWEREX_MAX_JSON_DEPTH    nesting accepted in JSON                (default 128)
 *   SWEREX_MAX_OUTPUT        bytes of output kept per command        (default 1 GiB)
 *   SWEREX_MAX_FILE          bytes of a file that read_file accepts, of a request that the server
 *                            does, and of an answer that the remote runtime does  (default 1 GiB)
 *
 * CONTENTS
 *   Public half: options, version, basics, errors, logging, loop and futures, models, runtime,
 *   deployments, utilities. Implementation half, each section calling only those above it:
 *   sys     The system: headers, and what differs             uses: -
 *   mem     Memory blocks that know their allocator           uses: sys
 *   log     Messages                                          uses: sys
 *   err     Errors                                            uses: sys mem
 *   str     Growing strings                                   uses: mem err
 *   util    Clock, random bytes, numbers, Python notation     uses: sys str
 *   json    JSON reader and writer                            uses: sys mem err str util
 *   valid   Values from JSON, and what is wrong with them     uses: sys err str util json
 *   model   Structs as JSON                                   uses: sys mem err str json valid
 *   poll    Readiness of descriptors: epoll, kqueue, poll     uses: sys mem
 *   loop    Timers, futures, the completion queue             uses: sys mem log err util model poll
 *   rt      Runtimes: one table of verbs                      uses: sys mem err util model loop
 *   text    Encodings and terminal text                       uses: sys mem err str util
 *   fs      Files                                             uses: sys mem err str text
 *   keep    The keeper, which starts and ends children        uses: sys mem err str poll loop
 *   proc    Commands with pipes                               uses: sys mem err poll loop text keep
 *   re      Expect patterns                                   uses: sys mem err
 *   bash    Which commands are surely complete                uses: sys str
 *   shell   What is typed at a shell, and its marks           uses: str bash
 *   pty     Terminals                                         uses: sys
 *   sess    Live sessions                                     uses: sys mem log err str util json
 *                                                                 model poll loop text re bash
 *                                                                 keep proc shell pty
 *   local   The local runtime                                 uses: mem err str util json model
 *                                                                 loop rt text fs keep proc pty
 *                                                                 sess
 *   dummy   The dummy runtime                                 uses: mem err str util model loop rt
 *   sock    Sockets: names, connecting, listening, streams    uses: sys mem err str poll loop
 *   http    HTTP/1.1: one parser for requests and responses   uses: sys str
 *   multi   multipart/form-data                               uses: str sock http
 *   deflate CRC-32, deflate                                   uses: str
 *   inflate Inflate                                           uses: deflate
 *   zip     Zip archives                                      uses: sys mem err str text fs deflate
 *                                                                 inflate
 *   curl    HTTPS calls by libcurl                            uses: sys mem err poll loop sock
 *   web     HTTP calls to one server                          uses: sys mem err str util loop sock
 *                                                                 http curl
 *   remote  The remote runtime                                uses: sys mem log err str util json
 *                                                                 model loop rt fs zip web
 *   form    Files that come as forms                          uses: sys mem err str util json
 *                                                                 valid fs http multi zip
 *   srv     The server                                        uses: sys mem log err str util json
 *                                                                 model poll loop rt fs local sock
 *                                                                 http multi form
 *   dep     Deployments start and stop in steps               uses: mem log err model loop rt
 *   elf     The static server, found and packed               uses: sys err str
 *   docker  Docker and Podman                                 uses: sys mem log err util model loop
 *                                                                 rt text keep proc remote dep elf
 *   kinds   Deployments by type                               uses: sys err json model local dummy
 *                                                                 remote dep docker
 *   api     The public functions                              uses: sys mem log err str util json
 *                                                                 model poll loop rt local dummy
 *                                                                 remote srv dep docker kinds
 */

#if defined(SWEREX_IMPLEMENTATION) && !defined(SWEREX_H)
#if defined(__GLIBC__) && !(defined(__USE_XOPEN2K8) && defined(__USE_XOPEN) && defined(__USE_MISC))
#error "Put #define SWEREX_IMPLEMENTATION and #include \"swerex.h\" before any other #include."
#endif
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700 /* posix_openpt, strerror_r, ... */
#endif
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1 /* glibc, musl: syscall, TIOCSCTTY, ... */
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64 /* files over 2 GiB where a long has 32 bits */
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE 1 /* macOS: the same */
#endif
#endif

#ifndef SWEREX_H
#define SWEREX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* =============================================================================================
 * Options
 * ========================================================================================== */

#ifndef SWEREX_API
#ifdef SWEREX_STATIC
#if defined(__GNUC__)
#define SWEREX_API __attribute__((unused)) static
#else
#define SWEREX_API static
#endif
#else
#define SWEREX_API extern
#endif
#endif

#if defined(SWEREX_NO_LOCAL) && !defined(SWEREX_NO_SERVER)
#define SWEREX_NO_SERVER
#endif

#if defined(SWEREX_NO_REMOTE) && !defined(SWEREX_NO_DOCKER)
#define SWEREX_NO_DOCKER
#endif

#ifndef SWEREX_USE_CURL
#define SWEREX_USE_CURL 0
#endif

#define SWEREX_POLLER_AUTO 0   /**< epoll on Linux, kqueue on macOS and the BSDs, else poll. */
#define SWEREX_POLLER_EPOLL 1  /**< Linux. */
#define SWEREX_POLLER_KQUEUE 2 /**< macOS, FreeBSD, OpenBSD, NetBSD, DragonFly. */
#define SWEREX_POLLER_POLL 3   /**< Any POSIX system; the loop then has no single descriptor. */

#ifndef SWEREX_POLLER
#define SWEREX_POLLER SWEREX_POLLER_AUTO
#endif
#ifndef SWEREX_LOG_LEVEL
#define SWEREX_LOG_LEVEL SWEREX_LOG_DEBUG
#endif
#ifndef SWEREX_MAX_JSON_DEPTH
#define SWEREX_MAX_JSON_DEPTH 128
#endif
#ifndef SWEREX_MAX_OUTPUT
#define SWEREX_MAX_OUTPUT ((size_t)1 << 30)
#endif
#ifndef SWEREX_MAX_FILE
#define SWEREX_MAX_FILE ((size_t)1 << 30)
#endif

#if defined(__GNUC__)
#define SWEREX_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define SWEREX_PRINTF(text, first)
#endif

/* =============================================================================================
 * Version
 * ========================================================================================== */

#define SWEREX_VERSION_MAJOR 0
#define SWEREX_VERSION_MINOR 1
#define SWEREX_VERSION_PATCH 0
#define SWEREX_VERSION "0.1.0"

/** Return the version of the implementation that was linked, such as "0.1.0". */
SWEREX_API const char *swerex_version(void);

/* =============================================================================================
 * Basics
 * ========================================================================================== */

#define SWEREX_FOREVER (-1.0)  /**< A time limit: none. */
#define SWEREX_NOW (2.3e-308)  /**< A time limit in a struct: over at once (JSON 0). */

/** Text or bytes, with a length; the owner also finds a NUL at data[size]. */
typedef struct swerex_bytes {
  char *data;  /**< NULL when empty and never filled. */
  size_t size; /**< Bytes, without the NUL behind them. */
} swerex_bytes;

/** Release the bytes and reset the struct to zero. */
SWEREX_API void swerex_bytes_clear(swerex_bytes *bytes);

/** Release any single block or string that this library returned; NULL is allowed. */
SWEREX_API void swerex_free(void *block);

/** Where a loop gets its memory. Zero: SWEREX_MALLOC and its kin. */
typedef struct swerex_allocator {
  /** Like realloc: block NULL allocates, size 0 frees; NULL for a size above 0 means no memory. */
  void *(*reallocate)(void *user_data, void *block, size_t size);
  void *user_data; /**< First argument of reallocate. */
} swerex_allocator;

/* =============================================================================================
 * Errors
 * ========================================================================================== */

/**
 * Every error code: X(name, parent, second parent, Python class path, meaning).
 * The parents are those of the Python classes, for swerex_code_is.
 */
#define SWEREX_ERRORS(X)                                                                           \
  X(OK, OK, OK, "", "no error")                                                                    \
  X(EXCEPTION, OK, OK, "builtins.Exception", "any failure")                                        \
  X(RUNTIME, EXCEPTION, OK, "builtins.RuntimeError", "runtime failure")                            \
  X(VALUE, EXCEPTION, OK, "builtins.ValueError", "bad value")                                      \
  X(LOOKUP, EXCEPTION, OK, "builtins.LookupError", "unknown name")                                 \
  X(NO_MEMORY, EXCEPTION, OK, "builtins.MemoryError", "out of memory")                             \
  X(UNSUPPORTED, RUNTIME, OK, "builtins.NotImplementedError", "not available in this build")       \
  X(CANCELLED, EXCEPTION, OK, "asyncio.exceptions.CancelledError", "cancelled by the caller")      \
  X(OS, EXCEPTION, OK, "builtins.OSError", "the system refused")                                   \
  X(FILE_NOT_FOUND, OS, OK, "builtins.FileNotFoundError", "no such file")                          \
  X(PERMISSION, OS, OK, "builtins.PermissionError", "permission denied")                           \
  X(IS_A_DIRECTORY, OS, OK, "builtins.IsADirectoryError", "is a directory")                        \
  X(NOT_A_DIRECTORY, OS, OK, "builtins.NotADirectoryError", "is not a directory")                  \
  X(FILE_EXISTS, OS, OK, "builtins.FileExistsError", "file exists")                                \
  X(TIMEOUT, OS, OK, "builtins.TimeoutError", "time limit reached")                                \
  X(UNICODE_DECODE, VALUE, OK, "builtins.UnicodeDecodeError", "bytes are not valid text")          \
  X(UNICODE_ENCODE, VALUE, OK, "builtins.UnicodeEncodeError", "text cannot be encoded")            \
  X(JSON, VALUE, OK, "json.decoder.JSONDecodeError", "malformed JSON")                             \
  X(VALIDATION, VALUE, OK, "pydantic_core._pydantic_core.ValidationError", "field is not valid")   \
  X(PATTERN, EXCEPTION, OK, "re.error", "expect pattern is not valid")                             \
  X(SWEREX, EXCEPTION, OK, "swerex.exceptions.SwerexException", "SWE-ReX failure")                 \
  X(SESSION_NOT_INITIALIZED, SWEREX, RUNTIME, "swerex.exceptions.SessionNotInitializedError",      \
    "shell session not initialized")                                                               \
  X(NON_ZERO_EXIT_CODE, SWEREX, RUNTIME, "swerex.exceptions.NonZeroExitCodeError",                 \
    "command returned a non-zero exit code")                                                       \
  X(BASH_INCORRECT_SYNTAX, SWEREX, RUNTIME, "swerex.exceptions.BashIncorrectSyntaxError",          \
    "command is not valid bash")                                                                   \
  X(COMMAND_TIMEOUT, SWEREX, TIMEOUT, "swerex.exceptions.CommandTimeoutError",                     \
    "command took too long")                                                                       \
  X(NO_EXIT_CODE, SWEREX, RUNTIME, "swerex.exceptions.NoExitCodeError",                            \
    "no exit code available")                                                                      \
  X(SESSION_EXISTS, SWEREX, VALUE, "swerex.exceptions.SessionExistsError",                         \
    "session exists already")                                                                      \
  X(SESSION_DOES_NOT_EXIST, SWEREX, VALUE, "swerex.exceptions.SessionDoesNotExistError",           \
    "session does not exist")                                                                      \
  X(SESSION_TERMINATED, SWEREX, RUNTIME, "swerex.exceptions.SwerexException",                      \
    "the session's shell has ended")                                                               \
  X(DEPLOYMENT_NOT_STARTED, SWEREX, RUNTIME, "swerex.exceptions.DeploymentNotStartedError",        \
    "deployment not started")                                                                      \
  X(DEPLOYMENT_STARTUP, SWEREX, RUNTIME, "swerex.exceptions.DeploymentStartupError",               \
    "deployment failed to start")                                                                  \
  X(DOCKER_PULL, DEPLOYMENT_STARTUP, OK, "swerex.exceptions.DockerPullError",                      \
    "image could not be pulled")                                                                   \
  X(HTTP, EXCEPTION, OK, "aiohttp.client_exceptions.ClientResponseError",                          \
    "the server's answer is not what was asked for")                                               \
  X(DUMMY_OUTPUTS_EXHAUSTED, SWEREX, RUNTIME, "swerex.exceptions.DummyOutputsExhaustedError",      \
    "the scripted outputs are used up")

/** What went wrong: SWEREX_E_OK (0), SWEREX_E_FILE_NOT_FOUND, SWEREX_E_COMMAND_TIMEOUT, ... */
typedef enum swerex_code {
#define SWEREX__CODE(name, parent, second, path, meaning) SWEREX_E_##name,
  SWEREX_ERRORS(SWEREX__CODE)
#undef SWEREX__CODE
  SWEREX_E_COUNT_
} swerex_code;

/** An error report, filled by the call that failed. Start it as SWEREX_ERROR_INIT. */
typedef struct swerex_error {
  swerex_code code;       /**< SWEREX_E_OK: no error. */
  int sys_errno;          /**< errno of the failed system call, 0 where there was none. */
  int http_status;        /**< Status of the failed HTTP answer, 0 where there was none. */
  const char *message;    /**< What failed, on what, and why. Never NULL once filled. */
  const char *extra_info; /**< JSON object: bash_stdout, bash_stderr, output, ... NULL: none. */
  const char *class_path; /**< Python class, also one that has no code here. */
  const char *traceback;  /**< Of the other side, NULL where there was none. */
  void *block_;           /**< Private: owns the strings. */
} swerex_error;

#ifdef __cplusplus
#define SWEREX_ERROR_INIT {}
#else
#define SWEREX_ERROR_INIT {SWEREX_E_OK, 0, 0, NULL, NULL, NULL, NULL, NULL}
#endif

/** Release the error's strings and reset it to SWEREX_E_OK. */
SWEREX_API void swerex_error_clear(swerex_error *err);

/** Tell whether a code is `ancestor` or derives from it, as Python's isinstance would. */
SWEREX_API bool swerex_code_is(swerex_code code, swerex_code ancestor);

/** Return the name of a code, such as "COMMAND_TIMEOUT"; "UNKNOWN" for a number that is none. */
SWEREX_API const char *swerex_code_name(swerex_code code);

/** Return the Python class path of a code, such as "builtins.FileNotFoundError". */
SWEREX_API const char *swerex_code_class_path(swerex_code code);

/** Return the code for a Python class path; SWEREX_E_SWEREX for one that is not known. */
SWEREX_API swerex_code swerex_code_from_class_path(const char *class_path);

/* =============================================================================================
 * Logging
 * ========================================================================================== */

/** Levels, numbered as in Python's logging module. */
typedef enum swerex_log_level {
  SWEREX_LOG_DEFAULT_ = 0, /**< For a loop: SWE_REX_LOG_STREAM_LEVEL, else WARNING. Else: all. */
  SWEREX_LOG_DEBUG = 10,
  SWEREX_LOG_INFO = 20,
  SWEREX_LOG_WARNING = 30,
  SWEREX_LOG_ERROR = 40,
  SWEREX_LOG_OFF = 100
} swerex_log_level;

/** One message on its way to a logger's write function; borrowed for that call. */
typedef struct swerex_log_record {
  swerex_log_level level;
  const char *name;    /**< Component, such as "rex-deploy". */
  const char *emoji;   /**< The component's emoji. */
  const char *message; /**< One line, without a line feed at its end. */
} swerex_log_record;

/** Where messages go. All zero: to stderr, coloured on a terminal. */
typedef struct swerex_logger {
  /** Receives each message at or above `level`. NULL: print to stderr. */
  void (*write)(void *user_data, const swerex_log_record *record);
  void *user_data;
  swerex_log_level level; /**< Lowest level written. */
  const char *name;       /**< Component name; borrowed. NULL: "rex". */
  const char *emoji;      /**< NULL: the dinosaur of the original. */
} swerex_logger;

typedef struct swerex_loop swerex_loop;

/**
 * Return the loop's logger under a component name and emoji (NULL: the default one).
 * SWE_REX_LOG_STREAM_LEVEL (a number or a name such as INFO), read at swerex_loop_new, sets the
 * level where the loop's logger leaves it open; while SWE_AGENT_LOG_TIME is not empty, the time
 * stands before each line printed.
 */
SWEREX_API swerex_logger swerex_get_logger(swerex_loop *loop, const char *name, const char *emoji);

/** Write one formatted message to a logger. */
SWEREX_API void swerex_log(const swerex_logger *logger, swerex_log_level level,
                           const char *format, ...) SWEREX_PRINTF(3, 4);

/* =============================================================================================
 * Loop and futures
 * ========================================================================================== */

/**
 * A call under way. Made by every _async function, finished only while its loop runs, consumed by
 * swerex_future_take or swerex_future_free.
 */
typedef struct swerex_future swerex_future;

/** How to make a loop; all zero is right for most programs. */
typedef struct swerex_loop_options {
  swerex_allocator allocator; /**< Memory for the loop and all that is made from it. */
  swerex_logger logger;       /**< Where its messages go; strings are copied. */
} swerex_loop_options;

/** Make a loop. options may be NULL. NULL on failure: no memory or no descriptors. */
SWEREX_API swerex_loop *swerex_loop_new(const swerex_loop_options *options, swerex_error *err);

/**
 * Free a loop and everything made from it: futures are cancelled, deployments stopped, sessions
 * closed, children ended (unless keep_daemons let them live). NULL is allowed.
 */
SWEREX_API void swerex_loop_free(swerex_loop *loop);

/**
 * Handle all that is ready, waiting up to `timeout` seconds (0: do not wait; SWEREX_FOREVER) for
 * something to become ready. Returns early when a future finished or the loop was woken.
 * Must not be called from a callback.
 */
SWEREX_API bool swerex_loop_run(swerex_loop *loop, double timeout, swerex_error *err);

/**
 * Return the one descriptor that becomes readable whenever swerex_loop_run has something to do,
 * timers included: put it into the host's own poll, select, epoll or libuv loop.
 * -1 with SWEREX_POLLER_POLL, which has none: use swerex_loop_pollfds and swerex_loop_timeout.
 */
SWEREX_API int swerex_loop_fd(const swerex_loop *loop);

/** Return the seconds until swerex_loop_run has something to do; SWEREX_FOREVER if only events. */
SWEREX_API double swerex_loop_timeout(const swerex_loop *loop);

struct pollfd;

/**
 * Write up to `room` entries for poll(2), and return how many there are in all. Valid until the
 * next call that uses the loop. Works with every SWEREX_POLLER.
 */
SWEREX_API size_t swerex_loop_pollfds(const swerex_loop *loop, struct pollfd *fds, size_t room);

/** Make a swerex_loop_run that waits in another thread return. Async-signal-safe. */
SWEREX_API void swerex_loop_wake(swerex_loop *loop);

/**
 * Return the next finished future that was not returned here before, NULL if there is none. It is
 * the caller's to take. Futures of blocking calls, and those with a `then`, never show here.
 */
SWEREX_API swerex_future *swerex_loop_next(swerex_loop *loop);

/**
 * Run the loop until swerex_loop_next has a future to return, for up to `timeout` seconds.
 * NULL without an error: nothing is pending. NULL with SWEREX_E_TIMEOUT: time is up.
 */
SWEREX_API swerex_future *swerex_loop_wait(swerex_loop *loop, double timeout, swerex_error *err);

/**
 * Run the loop until the future is done, for up to `timeout` seconds. On SWEREX_E_TIMEOUT the call
 * goes on. True says that it is done, not that it succeeded. Must not be called from a callback.
 */
SWEREX_API bool swerex_await(swerex_future *future, double timeout, swerex_error *err);

/** Tell whether the call has finished. */
SWEREX_API bool swerex_future_done(const swerex_future *future);

/**
 * Wait for the call, move its response to `response` (the struct that the blocking form fills;
 * NULL drops it), and free the future. False: the call failed, and *err says why.
 */
SWEREX_API bool swerex_future_take(swerex_future *future, void *response, swerex_error *err);

/**
 * Ask the call to end with SWEREX_E_CANCELLED, at once or at a later swerex_loop_run. A cancelled
 * execute is killed with its children (elsewhere: see swerex_remote_config.kill_on_disconnect); a
 * command in a session goes on, as after a timeout.
 */
SWEREX_API void swerex_future_cancel(swerex_future *future);

/** Cancel the call if it is still under way, and release the future. NULL is allowed. */
SWEREX_API void swerex_future_free(swerex_future *future);

/**
 * Have `then` called, from swerex_loop_run, when the call finishes (never from inside this or the
 * _async call). It may take the future and start other calls, and must not wait for one.
 */
SWEREX_API void swerex_future_then(swerex_future *future,
                                   void (*then)(swerex_future *future, void *user_data),
                                   void *user_data);

/** Attach a pointer of the caller's to the future; NULL at first. */
SWEREX_API void swerex_future_set_user_data(swerex_future *future, void *user_data);

/** Return the pointer attached with swerex_future_set_user_data or swerex_future_then. */
SWEREX_API void *swerex_future_user_data(const swerex_future *future);

/* =============================================================================================
 * Models: requests and responses
 *
 * Fields in the order and with the names of the Python models. A list of strings ends in NULL, as
 * argv does; a map of strings is a list of "KEY=VALUE", as environ is. NULL means not given.
 * ========================================================================================== */

/** BashObservation.exit_code and CommandResponse.exit_code: none known (Python's None). */
#define SWEREX_NO_EXIT_CODE INT32_MIN

/** Which stream a piece of output came from. */
typedef enum swerex_stream { SWEREX_STDOUT = 1, SWEREX_STDERR = 2 } swerex_stream;

/**
 * Output as it arrives. Called from swerex_loop_run, with text as it will stand in the response;
 * also with what `max_output` leaves out of that. It must not wait for a call, nor free the
 * runtime.
 */
typedef struct swerex_output_watch {
  void (*on_output)(void *user_data, swerex_stream stream, const char *text, size_t size);
  void *user_data;
  bool raw; /**< Hand the bytes on as they come: undecoded, terminal escapes and CR kept. */
} swerex_output_watch;

/** IsAlive has no model in Python; here the time limit has one, like every other verb. */
typedef struct swerex_is_alive_request {
  double timeout; /**< Default: the runtime's own. */
} swerex_is_alive_request;

/** IsAliveResponse. */
typedef struct swerex_is_alive_response {
  bool is_alive;
  swerex_bytes message; /**< Why not, where is_alive is false. */
} swerex_is_alive_response;

/** CreateBashSessionRequest (Python's CreateSessionRequest is the same). */
typedef struct swerex_create_bash_session_request {
  const char *const *startup_source; /**< Files to source first, as for `source FILE`. */
  const char *session;               /**< Name. Default "default". */
  double startup_timeout; /**< For the startup files. Default 10 (Python: 1, too short for many). */
  const char *cwd;        /**< Working directory. Default: the runtime's. Ours. */
  const char *const *env; /**< Added to the environment that the session inherits. Ours. */
  bool keep_daemons; /**< At close, spare children that left the session by setsid. Ours. */
  swerex_output_watch watch; /**< Output of the startup files as it arrives. */
} swerex_create_bash_session_request;

/** CreateBashSessionResponse. */
typedef struct swerex_create_bash_session_response {
  swerex_bytes output; /**< What bash and the startup files printed. */
} swerex_create_bash_session_response;

/** BashAction.check: what a non-zero exit code means. */
typedef enum swerex_check {
  SWEREX_CHECK_RAISE = 0, /**< It fails the call with SWEREX_E_NON_ZERO_EXIT_CODE. */
  SWEREX_CHECK_SILENT,    /**< It is reported in exit_code. */
  SWEREX_CHECK_IGNORE     /**< It is not looked at; exit_code is SWEREX_NO_EXIT_CODE. */
} swerex_check;

/**
 * BashAction: a command for a live session. It reaches bash byte for byte, however many lines it
 * has. What it does to the shell (variables, functions, cd, jobs) stays for the next action.
 */
typedef struct swerex_bash_action {
  const char *command;         /**< The command. Required. */
  const char *session;         /**< Default "default". */
  double timeout;              /**< For the whole command. Default none. */
  bool is_interactive_command; /**< Send to the program in front; done at an `expect` or the end. */
  bool is_interactive_quit;    /**< The same, for text that ends that program. */
  swerex_check check;          /**< Default SWEREX_CHECK_RAISE. */
  const char *error_msg;       /**< Put before the message of a non-zero exit code. */
  /**
   * Literal text or Python regular expressions that end the action when the output matches one
   * (dot matches line ends). Each is tried as both. Lookaround, back references and the like are
   * refused by name. A command that is not interactive then has 1.5 s to end and give its exit
   * code, and what it prints meanwhile is output too; if it goes on, the action fails with
   * NO_EXIT_CODE. With SWEREX_CHECK_IGNORE it is answered at once.
   */
  const char *const *expect;
  double idle_timeout;       /**< Give up after so long without output. Default none. Ours. */
  size_t max_output; /**< Bytes of output kept: head, marker, tail. 0: the runtime's. Ours. */
  swerex_output_watch watch; /**< Output as it arrives. Ours. */
} swerex_bash_action;

/** BashInterruptAction: Ctrl-C for what runs in a session, then SIGKILL. */
typedef struct swerex_bash_interrupt_action {
  const char *session;       /**< Default "default". */
  double timeout;            /**< Wait for each try. Default 0.2. */
  int n_retry; /**< Tries of Ctrl-C before what runs is killed. Default 3; < 0: none. */
  const char *const *expect; /**< As in swerex_bash_action. */
} swerex_bash_interrupt_action;

/** BashObservation. */
typedef struct swerex_bash_observation {
  swerex_bytes output;         /**< Output, terminal escapes removed, CRLF as LF. */
  int exit_code; /**< SWEREX_NO_EXIT_CODE: not known. -N: the shell died of signal N. */
  swerex_bytes failure_reason; /**< Set when the command ended the session's shell. */
  swerex_bytes expect_string;  /**< The pattern that ended it; "SHELLPS1PREFIX": the prompt. */
} swerex_bash_observation;

/** CloseBashSessionRequest (Python's CloseSessionRequest is the same). */
typedef struct swerex_close_bash_session_request {
  const char *session; /**< Default "default". */
} swerex_close_bash_session_request;

/** CloseBashSessionResponse: nothing in it. */
typedef struct swerex_close_bash_session_response {
  char unused_;
} swerex_close_bash_session_response;

/** Command: a program to run by itself, as with Python's subprocess.run; stdin is /dev/null. */
typedef struct swerex_command {
  const char *command;       /**< A program's name, or a script with shell. This or argv. */
  const char *const *argv;   /**< The program and its arguments. JSON: a list as "command". */
  double timeout;            /**< Then it is killed with all its children. Default none. */
  bool shell;                /**< Run by /bin/sh -c. */
  bool check;                /**< Fail on a non-zero exit code. */
  const char *error_msg;     /**< Put before the message of a non-zero exit code. */
  const char *const *env;    /**< Replaces the whole environment. NULL: inherited. */
  const char *cwd;           /**< Working directory. Default: the runtime's. */
  bool merge_output_streams; /**< stderr goes to stdout. */
  double idle_timeout;       /**< Give up after so long without output. Default none. Ours. */
  size_t max_output; /**< Bytes of each stream kept: head, marker, tail. 0: the runtime's. Ours. */
  swerex_output_watch watch; /**< Output as it arrives. Ours. */
} swerex_command;

/** CommandResponse. Bytes that are not UTF-8 appear as \xNN. */
typedef struct swerex_command_response {
  swerex_bytes stdout_text; /**< JSON "stdout". */
  swerex_bytes stderr_text; /**< JSON "stderr". */
  int exit_code;            /**< -N: died of signal N. */
} swerex_command_response;

/** ReadFileRequest, like Path.read_text. */
typedef struct swerex_read_file_request {
  const char *path;     /**< Required. */
  const char *encoding; /**< Default "utf-8". Also utf-8-sig, ascii, latin-1, cp1252, utf-16(-le,
                             -be), utf-32(-le, -be), and what the system's iconv knows. */
  const char *errors;   /**< "strict" (default), "ignore", "replace", "backslashreplace",
                             "surrogateescape" (undecodable bytes stay as they are). */
} swerex_read_file_request;

/** ReadFileResponse. */
typedef struct swerex_read_file_response {
  swerex_bytes content; /**< UTF-8, with CRLF and CR as LF. */
} swerex_read_file_response;

/** WriteFileRequest. The file is replaced in one step: an interrupted write leaves the old one. */
typedef struct swerex_write_file_request {
  swerex_bytes content; /**< Borrowed like every input; may hold NUL. */
  const char *path;     /**< Required. Missing folders are made. */
} swerex_write_file_request;

/** WriteFileResponse: nothing in it. */
typedef struct swerex_write_file_response {
  char unused_;
} swerex_write_file_response;

/** UploadRequest: copy a file or a folder, with modes, times and symbolic links. */
typedef struct swerex_upload_request {
  const char *source_path; /**< On this side. Required. */
  const char *target_path; /**< On the runtime's side. Required. A folder must not exist there. */
} swerex_upload_request;

/** UploadResponse: nothing in it. */
typedef struct swerex_upload_response {
  char unused_;
} swerex_upload_response;

/** Close has no request model in Python. */
typedef struct swerex_close_request {
  char unused_;
} swerex_close_request;

/** CloseResponse: nothing in it. */
typedef struct swerex_close_response {
  char unused_;
} swerex_close_response;

/** LocalDeploymentConfig and LocalRuntimeConfig. JSON "type": "local". */
typedef struct swerex_local_config {
  size_t max_output; /**< Default of the requests' max_output. Default SWEREX_MAX_OUTPUT. Ours. */
  size_t max_file;   /**< Largest file that read_file accepts. Default SWEREX_MAX_FILE. Ours. */
  bool keep_daemons; /**< Default of the sessions' keep_daemons, and for execute's. Ours. */
} swerex_local_config;

/** DummyDeploymentConfig and DummyRuntimeConfig. JSON "type": "dummy". */
typedef struct swerex_dummy_config {
  const char *const *outputs; /**< Outputs of run_in_session, in turn; NULL: always "". */
} swerex_dummy_config;

/** RemoteDeploymentConfig and RemoteRuntimeConfig. JSON "type": "remote". */
typedef struct swerex_remote_config {
  const char *auth_token; /**< Sent as X-API-Key. Required in JSON; "" for a server without one. */
  const char *host; /**< Name, number, http:// or https:// address with a path if there is one, or
                         unix:/path. Default "http://127.0.0.1". */
  int port;               /**< Default: the address's own, else 80, and 443 for https. */
  double timeout;         /**< Of is_alive. Default 0.15. */
  double connect_timeout; /**< To reach the server, name lookup included. Default 10. Ours. */
  double request_timeout; /**< For a whole call. Default none: a command may take long. Ours. */
  int num_retries; /**< Of a call that failed on its way, after 0.1, 0.2, 0.4, ... seconds; one that
                        may have arrived is only repeated where the server knows its id (ours), or
                        it changes nothing. Default 3; < 0: none. Ours. */
  bool kill_on_disconnect; /**< A server of ours ends execute's program when its client vanishes, or
                                cancels the call; else it runs to its end. Ours. */
} swerex_remote_config;

/** When a container's image is pulled. */
typedef enum swerex_pull {
  SWEREX_PULL_MISSING, /**< When it is not here. */
  SWEREX_PULL_NEVER,
  SWEREX_PULL_ALWAYS
} swerex_pull;

/** The program that runs containers. */
typedef enum swerex_container_runtime {
  SWEREX_CONTAINER_DOCKER,
  SWEREX_CONTAINER_PODMAN
} swerex_container_runtime;

/** How the server in a container is reached. */
typedef enum swerex_transport {
  SWEREX_TRANSPORT_TCP,  /**< By a port, published on this machine's loopback only. */
  SWEREX_TRANSPORT_STDIO /**< Without any port or network: by `exec` in the container. */
} swerex_transport;

/**
 * DockerDeploymentConfig: a container that is made, given a static swerex-remote, started, and
 * removed by the stop. JSON "type": "docker".
 */
typedef struct swerex_docker_config {
  const char *image; /**< Default "python:3.11". */
  int port;          /**< Of this machine. Default: a free one that the engine chooses. */
  const char *const *docker_args; /**< More options of `docker run`; ends in NULL. A --platform
                                       among them is moved to `platform`. */
  double startup_timeout;         /**< From the made container to its first answer. Default 180. */
  swerex_pull pull;               /**< Default SWEREX_PULL_MISSING. */
  bool remove_images;             /**< Remove the image behind the stop. */
  const char *python_standalone_dir; /**< Not needed here: taken, and a warning is logged. */
  const char *platform;           /**< Such as "linux/arm64". Default: the image's. */
  bool keep_container;            /**< Only end it at the stop. JSON: remove_container, inverted. */
  swerex_container_runtime container_runtime; /**< Default SWEREX_CONTAINER_DOCKER. */
  const char *const *exec_shell;  /**< That starts a server of the image's own where no static one
                                       is found. Default {"/bin/sh", "-c"}. */
  const char *docker_internal_host; /**< Where published ports are reached. Default
                                       "http://127.0.0.1"; with any other they are published on
                                       all interfaces. */
  const char *remote_binary; /**< The static server, or its path without "-x86_64", "-aarch64".
                                  Default: SWEREX_REMOTE_BINARY, then swerex-remote[-CPU] beside the
                                  running program, then on PATH. Ours. */
  swerex_transport transport; /**< Default SWEREX_TRANSPORT_TCP. Ours. */
  const char *const *labels;  /**< "KEY=VALUE" for the container; ends in NULL. Ours. */
} swerex_docker_config;

/** Which deployment a swerex_deployment_config describes. */
typedef enum swerex_deployment_type {
  SWEREX_DEPLOYMENT_LOCAL = 1,
  SWEREX_DEPLOYMENT_DUMMY,
  SWEREX_DEPLOYMENT_REMOTE,
  SWEREX_DEPLOYMENT_DOCKER
} swerex_deployment_type;

/** DeploymentConfig: a type and the configuration that goes with it. */
typedef struct swerex_deployment_config {
  swerex_deployment_type type; /**< Required. */
  union {
    swerex_local_config local;
    swerex_dummy_config dummy;
    swerex_remote_config remote;
    swerex_docker_config docker;
  } u;
} swerex_deployment_config;

/** The structs above that have a JSON form, for swerex_to_json and its kin. */
typedef enum swerex_model {
  SWEREX_MODEL_IS_ALIVE_RESPONSE = 1,
  SWEREX_MODEL_CREATE_BASH_SESSION_REQUEST,
  SWEREX_MODEL_CREATE_BASH_SESSION_RESPONSE,
  SWEREX_MODEL_BASH_ACTION,
  SWEREX_MODEL_BASH_INTERRUPT_ACTION,
  SWEREX_MODEL_BASH_OBSERVATION,
  SWEREX_MODEL_CLOSE_BASH_SESSION_REQUEST,
  SWEREX_MODEL_CLOSE_BASH_SESSION_RESPONSE,
  SWEREX_MODEL_COMMAND,
  SWEREX_MODEL_COMMAND_RESPONSE,
  SWEREX_MODEL_READ_FILE_REQUEST,
  SWEREX_MODEL_READ_FILE_RESPONSE,
  SWEREX_MODEL_WRITE_FILE_REQUEST,
  SWEREX_MODEL_WRITE_FILE_RESPONSE,
  SWEREX_MODEL_UPLOAD_REQUEST,
  SWEREX_MODEL_UPLOAD_RESPONSE,
  SWEREX_MODEL_CLOSE_RESPONSE,
  SWEREX_MODEL_LOCAL_CONFIG,
  SWEREX_MODEL_DUMMY_CONFIG,
  SWEREX_MODEL_REMOTE_CONFIG,
  SWEREX_MODEL_DOCKER_CONFIG,
  SWEREX_MODEL_COUNT_
} swerex_model;

/** Write a model struct as compact JSON. `json` is the caller's to clear. */
SWEREX_API bool swerex_to_json(swerex_model model, const void *value, swerex_bytes *json,
                               swerex_error *err);

/**
 * Fill a model struct from JSON, defaults included. size 0: up to the NUL. The struct is then the
 * caller's to release with swerex_model_clear. On failure it is left zero, and the message names
 * the field by its path or the malformed place by its position; unknown fields of a configuration
 * are refused, those of requests and responses ignored (as in Python).
 */
SWEREX_API bool swerex_from_json(swerex_model model, const char *json, size_t size, void *value,
                                 swerex_error *err);

/** Release what a model struct owns (from swerex_from_json, or a response), and reset it to 0. */
SWEREX_API void swerex_model_clear(swerex_model model, void *value);

/** Release a response and reset it to zero. */
SWEREX_API void swerex_is_alive_response_clear(swerex_is_alive_response *response);
/** Release a response and reset it to zero. */
SWEREX_API void
swerex_create_bash_session_response_clear(swerex_create_bash_session_response *response);
/** Release a response and reset it to zero. */
SWEREX_API void swerex_bash_observation_clear(swerex_bash_observation *observation);
/** Release a response and reset it to zero. */
SWEREX_API void swerex_command_response_clear(swerex_command_response *response);
/** Release a response and reset it to zero. */
SWEREX_API void swerex_read_file_response_clear(swerex_read_file_response *response);

/* =============================================================================================
 * Runtime
 *
 * Each verb has a blocking form, which runs the loop until it is done, and an _async one, which
 * returns a future for the same response (NULL: no memory). A response pointer may be NULL.
 * ========================================================================================== */

/** A place where commands run. Made by a deployment, or by the functions below. */
typedef struct swerex_runtime swerex_runtime;

#ifndef SWEREX_NO_LOCAL
/** Make a runtime that runs everything on this machine (Python: LocalRuntime). config: or NULL. */
SWEREX_API swerex_runtime *swerex_local_runtime_new(swerex_loop *loop,
                                                    const swerex_local_config *config,
                                                    swerex_error *err);
#endif

#ifndef SWEREX_NO_REMOTE
/**
 * Make a runtime at a server that runs elsewhere (Python: RemoteRuntime): `swerex-remote`, ours or
 * the original's. Nothing is sent yet: see swerex_wait_until_alive. Errors: VALUE for a host that
 * is none. Its calls fail besides with OS (no connection), TIMEOUT, HTTP (an answer that is no
 * answer, with http_status), and with what the other side raised, whose class_path and traceback
 * are kept. Live output needs a server of ours; from the original's, `watch` hears it at the end.
 */
SWEREX_API swerex_runtime *swerex_remote_runtime_new(swerex_loop *loop,
                                                     const swerex_remote_config *config,
                                                     swerex_error *err);
#endif

/** Make a runtime for tests that answers from a script (Python: DummyRuntime). config: or NULL. */
SWEREX_API swerex_runtime *swerex_dummy_runtime_new(swerex_loop *loop,
                                                    const swerex_dummy_config *config,
                                                    swerex_error *err);

/**
 * Script a dummy runtime: its next `count` observations, after which run_in_session fails with
 * SWEREX_E_DUMMY_OUTPUTS_EXHAUSTED. They are copied.
 */
SWEREX_API bool swerex_dummy_runtime_set_outputs(swerex_runtime *runtime,
                                                 const swerex_bash_observation *observations,
                                                 size_t count, swerex_error *err);

/** Have a dummy runtime answer every run_in_session with one observation. It is copied. */
SWEREX_API bool swerex_dummy_runtime_set_output(swerex_runtime *runtime,
                                                const swerex_bash_observation *observation,
                                                swerex_error *err);

/** Close a runtime that was made by a _new function, and free it. NULL is allowed. */
SWEREX_API void swerex_runtime_free(swerex_runtime *runtime);

/** Check whether the runtime answers. request may be NULL. Fails only when out of memory. */
SWEREX_API bool swerex_is_alive(swerex_runtime *runtime, const swerex_is_alive_request *request,
                                swerex_is_alive_response *response, swerex_error *err);
/** Check whether the runtime answers: swerex_is_alive_response. */
SWEREX_API swerex_future *swerex_is_alive_async(swerex_runtime *runtime,
                                                const swerex_is_alive_request *request,
                                                swerex_error *err);

/**
 * Wait until the runtime answers, asking again and again for up to `timeout` seconds (0: 60).
 * Error: TIMEOUT, with the last reason.
 */
SWEREX_API bool swerex_wait_until_alive(swerex_runtime *runtime, double timeout,
                                        swerex_error *err);
/** Wait until the runtime answers; no response. */
SWEREX_API swerex_future *swerex_wait_until_alive_async(swerex_runtime *runtime, double timeout,
                                                        swerex_error *err);

/**
 * Open a live bash session (sh where there is no bash). Errors: SESSION_EXISTS; COMMAND_TIMEOUT
 * when the startup files take too long, SESSION_TERMINATED when they end the shell (both with
 * extra_info.output); FILE_NOT_FOUND without any shell.
 */
SWEREX_API bool swerex_create_session(swerex_runtime *runtime,
                                      const swerex_create_bash_session_request *request,
                                      swerex_create_bash_session_response *response,
                                      swerex_error *err);
/** Open a live bash session: swerex_create_bash_session_response. */
SWEREX_API swerex_future *
swerex_create_session_async(swerex_runtime *runtime,
                            const swerex_create_bash_session_request *request, swerex_error *err);

/**
 * Run a command in a session. Actions on one session run in the order of the calls; sessions do
 * not wait for each other. Errors: SESSION_DOES_NOT_EXIST; BASH_INCORRECT_SYNTAX, and nothing has
 * run; NON_ZERO_EXIT_CODE; COMMAND_TIMEOUT with extra_info.output, and the command goes on;
 * PATTERN; NO_EXIT_CODE (see `expect`); SESSION_TERMINATED when the shell was gone before.
 */
SWEREX_API bool swerex_run_in_session(swerex_runtime *runtime, const swerex_bash_action *action,
                                      swerex_bash_observation *observation, swerex_error *err);
/** Run a command in a session: swerex_bash_observation. */
SWEREX_API swerex_future *swerex_run_in_session_async(swerex_runtime *runtime,
                                                      const swerex_bash_action *action,
                                                      swerex_error *err);

/**
 * Interrupt what runs in a session, ahead of the actions that wait (Python: run_in_session with a
 * BashInterruptAction). The observation holds what the interrupted command has printed, also what
 * a timeout has told before. Fails with COMMAND_TIMEOUT where the shell itself is deaf: close the
 * session then.
 */
SWEREX_API bool swerex_interrupt_session(swerex_runtime *runtime,
                                         const swerex_bash_interrupt_action *action,
                                         swerex_bash_observation *observation, swerex_error *err);
/** Interrupt what runs in a session: swerex_bash_observation. */
SWEREX_API swerex_future *
swerex_interrupt_session_async(swerex_runtime *runtime, const swerex_bash_interrupt_action *action,
                               swerex_error *err);

/**
 * Write bytes to a session's terminal, as if typed, with no answer awaited; for programs that
 * hand a person's keys on (tools/swerex shell).
 */
SWEREX_API bool swerex_session_write(swerex_runtime *runtime, const char *session,
                                     const char *bytes, size_t size, swerex_error *err);

/** Set the size of a session's terminal (at first 24 rows, 80 columns). */
SWEREX_API bool swerex_session_resize(swerex_runtime *runtime, const char *session, int rows,
                                      int columns, swerex_error *err);

/** Close a session, and end every process that it started. Error: SESSION_DOES_NOT_EXIST. */
SWEREX_API bool swerex_close_session(swerex_runtime *runtime,
                                     const swerex_close_bash_session_request *request,
                                     swerex_close_bash_session_response *response,
                                     swerex_error *err);
/** Close a session: swerex_close_bash_session_response. */
SWEREX_API swerex_future *
swerex_close_session_async(swerex_runtime *runtime,
                           const swerex_close_bash_session_request *request, swerex_error *err);

/**
 * Run a program to its end and collect its output. Errors: FILE_NOT_FOUND, PERMISSION, ... when it
 * cannot be started; NON_ZERO_EXIT_CODE with check; COMMAND_TIMEOUT, with extra_info.stdout and
 * extra_info.stderr, after which neither it nor any of its children runs.
 */
SWEREX_API bool swerex_execute(swerex_runtime *runtime, const swerex_command *command,
                               swerex_command_response *response, swerex_error *err);
/** Run a program to its end: swerex_command_response. */
SWEREX_API swerex_future *swerex_execute_async(swerex_runtime *runtime,
                                               const swerex_command *command, swerex_error *err);

/** Read a text file. Errors: FILE_NOT_FOUND, ..., UNICODE_DECODE, LOOKUP (unknown encoding). */
SWEREX_API bool swerex_read_file(swerex_runtime *runtime, const swerex_read_file_request *request,
                                 swerex_read_file_response *response, swerex_error *err);
/** Read a text file: swerex_read_file_response. */
SWEREX_API swerex_future *swerex_read_file_async(swerex_runtime *runtime,
                                                 const swerex_read_file_request *request,
                                                 swerex_error *err);

/** Write a file, and the folders above it. Errors: those of the system. */
SWEREX_API bool swerex_write_file(swerex_runtime *runtime,
                                  const swerex_write_file_request *request,
                                  swerex_write_file_response *response, swerex_error *err);
/** Write a file: swerex_write_file_response. */
SWEREX_API swerex_future *swerex_write_file_async(swerex_runtime *runtime,
                                                  const swerex_write_file_request *request,
                                                  swerex_error *err);

/**
 * Copy a file or folder from here to the runtime, with modes, times and links. To a server, a link
 * that leads out of the folder goes as the file that it leads to, and is left out where that is
 * none. Errors: those of the system.
 */
SWEREX_API bool swerex_upload(swerex_runtime *runtime, const swerex_upload_request *request,
                              swerex_upload_response *response, swerex_error *err);
/** Copy a file or folder from here to the runtime: swerex_upload_response. */
SWEREX_API swerex_future *swerex_upload_async(swerex_runtime *runtime,
                                              const swerex_upload_request *request,
                                              swerex_error *err);

/** Close the runtime: its sessions, and all that they and execute left running. Twice is fine. */
SWEREX_API bool swerex_close(swerex_runtime *runtime, const swerex_close_request *request,
                             swerex_close_response *response, swerex_error *err);
/** Close the runtime: swerex_close_response. */
SWEREX_API swerex_future *swerex_close_async(swerex_runtime *runtime,
                                             const swerex_close_request *request,
                                             swerex_error *err);

/* =============================================================================================
 * Deployments
 * ========================================================================================== */

/** Something that gives a runtime: a machine, a container, a cloud sandbox. */
typedef struct swerex_deployment swerex_deployment;

/** DeploymentHook: learns of each step of a start or stop. */
typedef struct swerex_deployment_hook {
  void (*on_custom_step)(void *user_data, const char *message);
  void *user_data;
} swerex_deployment_hook;

/** Make a deployment from its configuration, which is copied. Start it before use. */
SWEREX_API swerex_deployment *swerex_get_deployment(swerex_loop *loop,
                                                    const swerex_deployment_config *config,
                                                    swerex_error *err);

/**
 * Make a deployment from JSON such as {"type": "local"}; size 0: up to the NUL. Errors: JSON with
 * the position; VALIDATION with the path of a field that is unknown, missing or of a wrong type;
 * UNSUPPORTED for a type that this build leaves out.
 */
SWEREX_API swerex_deployment *swerex_get_deployment_json(swerex_loop *loop, const char *json,
                                                         size_t size, swerex_error *err);

/**
 * Stop the deployment if it runs, and free it with its runtime. Waits up to a minute for what has
 * to be taken back elsewhere (a container, a cloud sandbox); in a callback it does not wait, and
 * the deployment goes when that is done. NULL is allowed.
 */
SWEREX_API void swerex_deployment_free(swerex_deployment *deployment);

/** Have a hook called at each step; hooks are called in the order they were added. */
SWEREX_API bool swerex_deployment_add_hook(swerex_deployment *deployment,
                                           swerex_deployment_hook hook, swerex_error *err);

/**
 * Start the deployment. Starting a started one again changes nothing. A start that fails, or that
 * is cancelled, takes back all that it has made; swerex_deployment_stop waits for the end of that.
 */
SWEREX_API bool swerex_deployment_start(swerex_deployment *deployment, swerex_error *err);
/** Start the deployment; no response. */
SWEREX_API swerex_future *swerex_deployment_start_async(swerex_deployment *deployment,
                                                        swerex_error *err);

/** Stop the deployment and close its runtime, whose pointer then ends. Twice is fine. */
SWEREX_API bool swerex_deployment_stop(swerex_deployment *deployment, swerex_error *err);
/** Stop the deployment; no response. */
SWEREX_API swerex_future *swerex_deployment_stop_async(swerex_deployment *deployment,
                                                       swerex_error *err);

/** Check whether the deployment runs and its runtime answers. request may be NULL. */
SWEREX_API bool swerex_deployment_is_alive(swerex_deployment *deployment,
                                           const swerex_is_alive_request *request,
                                           swerex_is_alive_response *response, swerex_error *err);
/** Check whether the deployment runs: swerex_is_alive_response. */
SWEREX_API swerex_future *
swerex_deployment_is_alive_async(swerex_deployment *deployment,
                                 const swerex_is_alive_request *request, swerex_error *err);

/**
 * Return the name of the container that a docker deployment has made, owned by the deployment;
 * NULL while there is none, and for other deployments.
 */
SWEREX_API const char *swerex_deployment_container_name(const swerex_deployment *deployment);

/** Return the runtime, owned by the deployment. Error: DEPLOYMENT_NOT_STARTED. */
SWEREX_API swerex_runtime *swerex_deployment_runtime(swerex_deployment *deployment,
                                                     swerex_error *err);

#ifndef SWEREX_NO_SERVER
/* =============================================================================================
 * Server
 * ========================================================================================== */

/** A local runtime that others reach by HTTP, as the original's `swerex-remote`. */
typedef struct swerex_server swerex_server;

/** How to serve; all zero is a free port on 127.0.0.1 without a token. Strings are borrowed. */
typedef struct swerex_server_options {
  const char *host;       /**< Address to listen on. Default "127.0.0.1" (the original: 0.0.0.0). */
  int port;               /**< 0: a free one; see swerex_server_address. */
  const char *unix_path;  /**< Listen on a local socket instead, for this user only; on Linux
                               "@name" is one outside of the file system, for all users. */
  bool stdio;             /**< Serve one client over stdin and stdout instead. */
  const char *auth_token; /**< What X-API-Key must be. NULL or "": nothing. */
  bool no_auth;           /**< Allow other machines without a token: they can run anything. */
  double idle_timeout;    /**< Done after so long without a connection. Default never. */
  double max_lifetime;    /**< Done after so long. Default never. */
  size_t max_body;        /**< Bytes of a JSON request. Default SWEREX_MAX_FILE; uploads: any. */
  swerex_local_config local; /**< Of the runtime that is served. */
} swerex_server_options;

/**
 * Start to serve, while the loop runs. options may be NULL. The server lives until it is freed, and
 * with it all that its clients have started. Errors: OS and its kin where the address cannot be
 * had; VALUE for an address that others can reach, without a token.
 */
SWEREX_API swerex_server *swerex_server_new(swerex_loop *loop,
                                            const swerex_server_options *options,
                                            swerex_error *err);

/** Return where it listens: "http://127.0.0.1:43121", "unix:/path" or "stdio". */
SWEREX_API const char *swerex_server_address(const swerex_server *server);

/** Tell whether idle_timeout or max_lifetime is over, or the client of stdio has gone. */
SWEREX_API bool swerex_server_done(const swerex_server *server);

/** Stop to serve: connections are closed, sessions and commands ended. NULL is allowed. */
SWEREX_API void swerex_server_free(swerex_server *server);
#endif /* SWEREX_NO_SERVER */

/* =============================================================================================
 * Utilities
 * ========================================================================================== */

/**
 * Find a TCP port that is free now and was not returned before by this loop; 0 on failure.
 * max_attempts 0: 10. sleep_between_attempts 0: 0.1 seconds, as in the original.
 */
SWEREX_API int swerex_find_free_port(swerex_loop *loop, int max_attempts,
                                     double sleep_between_attempts, swerex_error *err);

#ifdef __cplusplus
}
#endif
#endif /* SWEREX_H */

#ifdef SWEREX_IMPLEMENTATION
#ifndef SWEREX_IMPLEMENTATION_DONE_
#define SWEREX_IMPLEMENTATION_DONE_

/* =============================================================================================
 * [sys] The system: headers, and what differs
 * ========================================================================================== */
/* The only includes of the implementation, each with what needs it. Nothing above [poll] and
 * [keep] may test for a system by name outside of this section. */

#ifdef __cplusplus
#error "SWEREX_IMPLEMENTATION is C: put it, and #include \"swerex.h\", into a .c file of its own."
#endif

#include <dirent.h>     /* opendir, for upload */
#include <errno.h>      /* errno */
#include <fcntl.h>      /* open, fcntl */
#include <iconv.h>      /* encodings that are not built in */
#include <limits.h>     /* PATH_MAX, INT_MAX */
#include <netdb.h>       /* getaddrinfo */
#include <netinet/in.h>  /* sockaddr_in */
#include <netinet/tcp.h> /* TCP_NODELAY */
#include <poll.h>       /* struct pollfd */
#include <pthread.h>    /* for getaddrinfo, which blocks */
#include <signal.h>     /* kill, sigaction (in the keeper only) */
#include <stdarg.h>     /* va_list */
#include <stdio.h>      /* vsnprintf */
#include <stdlib.h>     /* malloc, strtod, posix_openpt */
#include <string.h>     /* memcpy, strlen */
#include <sys/ioctl.h>  /* TIOCSCTTY, TIOCSWINSZ */
#include <sys/mman.h>   /* mmap of a spawn request */
#include <sys/resource.h> /* getrlimit, in the keeper */
#include <sys/select.h> /* pselect, in the keeper */
#include <sys/socket.h> /* socketpair, sendmsg */
#include <sys/stat.h>   /* fstat, mkdir */
#include <sys/types.h>  /* pid_t */
#include <sys/uio.h>    /* struct iovec */
#include <sys/un.h>     /* sockaddr_un */
#include <sys/utsname.h> /* uname */
#include <sys/wait.h>   /* waitpid, in the keeper */
#include <termios.h>    /* tcgetattr */
#include <time.h>       /* clock_gettime, strftime */
#include <unistd.h>     /* read, write, fork */

#if defined(__linux__)
#include <sys/prctl.h>   /* PR_SET_CHILD_SUBREAPER */
#include <sys/syscall.h> /* memfd_create, close_range, getdents64 */
#endif

#if defined(__GNUC__) &&                                                                           \
  (defined(SWEREX_NO_LOCAL) || defined(SWEREX_NO_DOCKER) || defined(SWEREX_NO_SERVER))
#define SWEREX__SYS_QUIET 1 /* what only the left-out parts call is not worth a warning */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

#ifdef __linux__
#define SWEREX__SYS_ABSTRACT 1 /* local sockets have names outside of the file system */
#endif

#if !defined(SWEREX_NO_LOCAL) || !defined(SWEREX_NO_DOCKER)
#define SWEREX__SYS_PROCESSES 1 /* commands are started here */
#endif

#ifndef SWEREX_ASSERT
#include <assert.h>
#define SWEREX_ASSERT(condition) assert(condition)
#endif

#if !defined(SWEREX_MALLOC) && !defined(SWEREX_REALLOC) && !defined(SWEREX_FREE)
#define SWEREX_MALLOC(size) malloc(size)
#define SWEREX_REALLOC(block, size) realloc(block, size)
#define SWEREX_FREE(block) free(block)
#elif !defined(SWEREX_MALLOC) || !defined(SWEREX_REALLOC) || !defined(SWEREX_FREE)
#error "Define all of SWEREX_MALLOC, SWEREX_REALLOC and SWEREX_FREE, or none."
#endif

#if SWEREX_POLLER != SWEREX_POLLER_AUTO
#define SWEREX__SYS_POLLER SWEREX_POLLER
#elif defined(__linux__)
#define SWEREX__SYS_POLLER SWEREX_POLLER_EPOLL
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__) || \
    defined(__DragonFly__)
#define SWEREX__SYS_POLLER SWEREX_POLLER_KQUEUE
#else
#define SWEREX__SYS_POLLER SWEREX_POLLER_POLL
#endif

#if SWEREX__SYS_POLLER == SWEREX_POLLER_EPOLL
#include <sys/epoll.h>   /* epoll_create1 */
#include <sys/timerfd.h> /* timerfd_create */
#elif SWEREX__SYS_POLLER == SWEREX_POLLER_KQUEUE
#include <sys/event.h> /* kqueue */
#endif

#if SWEREX_USE_CURL == 1
#include <curl/curl.h> /* https */
#elif SWEREX_USE_CURL == 2
#include <dlfcn.h> /* dlopen of libcurl */
#endif

#define SWEREX__SYS_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SWEREX__SYS_STATIC_ASSERT(condition, name)                                                 \
  typedef char swerex__sys_assert_##name[(condition) ? 1 : -1]

#if defined(__GNUC__)
#define SWEREX__SYS_UNUSED __attribute__((unused))
#else
#define SWEREX__SYS_UNUSED
#endif

#ifdef MSG_NOSIGNAL
#define SWEREX__SYS_NOSIGNAL MSG_NOSIGNAL
#else
#define SWEREX__SYS_NOSIGNAL 0 /* macOS: swerex__sys_socketpair sets SO_NOSIGPIPE */
#endif
#ifdef MSG_CMSG_CLOEXEC
#define SWEREX__SYS_CLOEXEC_MESSAGE MSG_CMSG_CLOEXEC
#else
#define SWEREX__SYS_CLOEXEC_MESSAGE 0
#endif
#ifdef MAP_ANONYMOUS
#define SWEREX__SYS_ANONYMOUS MAP_ANONYMOUS
#else
#define SWEREX__SYS_ANONYMOUS MAP_ANON
#endif
#if defined(__APPLE__)
#define SWEREX__SYS_ATIME(info) ((info)->st_atimespec)
#define SWEREX__SYS_MTIME(info) ((info)->st_mtimespec)
#else
#define SWEREX__SYS_ATIME(info) ((info)->st_atim)
#define SWEREX__SYS_MTIME(info) ((info)->st_mtim)
#endif
#if defined(__GLIBC__)
#define SWEREX__SYS_IOCTL(request) (request)
#else
#define SWEREX__SYS_IOCTL(request) ((int)(request)) /* musl takes an int, the BSDs' fit both */
#endif
#if defined(__linux__)
#define swerex__sys_vfork vfork
#else
#define swerex__sys_vfork fork
#endif

extern char **environ;

/** Make a descriptor close-on-exec and, if asked, nonblocking. */
static bool swerex__sys_prepare_fd(int fd, bool nonblocking) {
  int flags = fcntl(fd, F_GETFD);
  if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0) return false;
  if (!nonblocking) return true;
  flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) >= 0;
}

/** Close a descriptor unless it is -1, and keep errno as it was. */
static void swerex__sys_close(int *fd) {
  int saved = errno;
  if (*fd >= 0) close(*fd);
  *fd = -1;
  errno = saved;
}

/** Make a pipe whose ends are close-on-exec; the reading end is nonblocking. */
static bool swerex__sys_pipe(int ends[2]) {
#if defined(__linux__) && defined(SYS_pipe2)
  if (syscall(SYS_pipe2, ends, O_CLOEXEC) == 0) { /* at once: other threads may fork */
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0) return true;
    swerex__sys_close(&ends[0]);
    swerex__sys_close(&ends[1]);
    return false;
  }
#endif
  if (pipe(ends) != 0) {
    ends[0] = ends[1] = -1;
    return false;
  }
  if (swerex__sys_prepare_fd(ends[0], true) && swerex__sys_prepare_fd(ends[1], false)) return true;
  swerex__sys_close(&ends[0]);
  swerex__sys_close(&ends[1]);
  return false;
}

/** Make a pair of connected stream sockets, close-on-exec; the first is nonblocking. */
static bool swerex__sys_socketpair(int ends[2]) {
#ifdef SOCK_CLOEXEC
  int type = SOCK_STREAM | SOCK_CLOEXEC;
#else
  int type = SOCK_STREAM;
#endif
  if (socketpair(AF_UNIX, type, 0, ends) != 0) {
    ends[0] = ends[1] = -1;
    return false;
  }
#ifdef SO_NOSIGPIPE
  int on = 1;
  setsockopt(ends[0], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
  setsockopt(ends[1], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  if (swerex__sys_prepare_fd(ends[0], true) && swerex__sys_prepare_fd(ends[1], false)) return true;
  swerex__sys_close(&ends[0]);
  swerex__sys_close(&ends[1]);
  return false;
}

/** Open a new, empty file that only we can reach; path receives where others may open it. */
static int swerex__sys_open_scratch(char *path, size_t room) {
  int fd = -1;
#if defined(__linux__) && defined(SYS_memfd_create)
  fd = (int)syscall(SYS_memfd_create, "swerex", 1U /* MFD_CLOEXEC */);
  if (fd >= 0 && prctl(PR_GET_DUMPABLE) == 1) {
    snprintf(path, room, "/proc/%ld/fd/%d", (long)getpid(), fd);
    if (access(path, R_OK) == 0) return fd;
  }
  swerex__sys_close(&fd);
#endif
  const char *folder = getenv("TMPDIR");
  if (folder == NULL || folder[0] != '/' || strlen(folder) + 20 > room) folder = "/tmp";
  snprintf(path, room, "%s/swerex-XXXXXX", folder);
  fd = mkstemp(path);
  if (fd >= 0 && !swerex__sys_prepare_fd(fd, false)) {
    unlink(path);
    swerex__sys_close(&fd);
  }
  return fd;
}

/** Close a scratch file, and remove it where it has a name of its own. */
static void swerex__sys_close_scratch(int *fd, const char *path) {
  if (*fd >= 0 && strncmp(path, "/proc/", 6) != 0) unlink(path);
  swerex__sys_close(fd);
}

/** Write the path of a terminal's other side; false: it has none. */
static bool swerex__sys_terminal_name(int master, char *path, size_t room) {
#if defined(__linux__)
  int number;
  if (ioctl(master, SWEREX__SYS_IOCTL(TIOCGPTN), &number) != 0) return false;
  return snprintf(path, room, "/dev/pts/%d", number) > 0;
#else
  const char *name = ptsname(master);
  return name != NULL && strlen(name) < room && snprintf(path, room, "%s", name) > 0;
#endif
}

/** Ask for large pages in a large block: the system then clears it in few steps, not thousands. */
static void swerex__sys_advise(void *block, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  uintptr_t page = 4096, start = ((uintptr_t)block + page - 1) & ~(page - 1);
  uintptr_t end = ((uintptr_t)block + size) & ~(page - 1);
  int saved = errno;
  if (madvise((void *)start, end - start, MADV_HUGEPAGE) != 0) errno = saved; /* fine */
#else
  (void)block, (void)size;
#endif
}

/** Tell whether a process has something to do now, as far as the system says. */
static bool swerex__sys_is_running(pid_t pid) {
#if defined(__linux__)
  char path[48], text[512];
  snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  swerex__sys_close(&fd);
  if (n <= 0) return false;
  text[n] = '\0';
  const char *name_end = strrchr(text, ')'); /* the state follows the name */
  return name_end != NULL && (name_end[1] != '\0' && name_end[2] != 'S');
#else
  (void)pid;
  return false;
#endif
}

/** Write everything to a descriptor that blocks, such as a file. */
static bool swerex__sys_write_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data += n;
    size -= (size_t)n;
  }
  return true;
}

/** Replace the content of a scratch file. */
static bool swerex__sys_fill_scratch(int fd, const char *data, size_t size) {
  return ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0 &&
         swerex__sys_write_all(fd, data, size);
}

/* =============================================================================================
 * [mem] Memory blocks that know their allocator
 * ========================================================================================== */
/* Each block has a header with its allocator, so that anything can be released without a loop at
 * hand. Sizes are count * size, checked for overflow. A NULL allocator is SWEREX_MALLOC's. */

enum { SWEREX__MEM_LARGE = 4 << 20 };

typedef union swerex__mem_header {
  swerex_allocator allocator;
  long double align_; /* keeps what follows aligned as malloc would */
  void *pointer_;
} swerex__mem_header;

static void *swerex__mem_raw(const swerex_allocator *allocator, void *raw, size_t size) {
  if (allocator->reallocate != NULL)
    return allocator->reallocate(allocator->user_data, raw, size);
  if (size == 0) {
    SWEREX_FREE(raw);
    return NULL;
  }
  raw = raw == NULL ? SWEREX_MALLOC(size) : SWEREX_REALLOC(raw, size);
  if (raw != NULL && size >= SWEREX__MEM_LARGE) swerex__sys_advise(raw, size);
  return raw;
}

/** Resize a block (NULL: make one) to count * size bytes; NULL leaves the old one as it was. */
static void *swerex__mem_grow(const swerex_allocator *allocator, void *block, size_t count,
                              size_t size) {
  swerex__mem_header *header = NULL;
  swerex_allocator home = {NULL, NULL};
  if (size != 0 && count > (SIZE_MAX - sizeof(swerex__mem_header)) / size) return NULL;
  if (block != NULL) {
    header = (swerex__mem_header *)block - 1;
    home = header->allocator;
  } else if (allocator != NULL) {
    home = *allocator;
  }
  header = (swerex__mem_header *)swerex__mem_raw(&home, header, sizeof *header + count * size);
  if (header == NULL) return NULL;
  header->allocator = home;
  return header + 1;
}

/** Make a zeroed block of count * size bytes. */
static void *swerex__mem_new(const swerex_allocator *allocator, size_t count, size_t size) {
  void *block = swerex__mem_grow(allocator, NULL, count, size);
  if (block != NULL) memset(block, 0, count * size);
  return block;
}

/** Release a block; NULL is allowed. */
static void swerex__mem_free(const void *block) {
  if (block == NULL) return;
  swerex__mem_header *header = (swerex__mem_header *)(uintptr_t)block - 1;
  swerex_allocator home = header->allocator;
  swerex__mem_raw(&home, header, 0);
}

/** Copy size bytes, and put a NUL behind them. */
static char *swerex__mem_copy(const swerex_allocator *allocator, const char *data, size_t size) {
  char *copy = size == SIZE_MAX ? NULL : (char *)swerex__mem_grow(allocator, NULL, size + 1, 1);
  if (copy == NULL) return NULL;
  if (size > 0) memcpy(copy, data, size);
  copy[size] = '\0';
  return copy;
}

/** Make room for one more element in a growing array; false leaves it as it was. */
static bool swerex__mem_reserve(const swerex_allocator *allocator, void **array, size_t *room,
                                size_t count, size_t size) {
  if (count < *room) return true;
  size_t wanted = *room < 8 ? 8 : *room * 2;
  void *grown = swerex__mem_grow(allocator, *array, wanted, size);
  if (grown == NULL) return false;
  *array = grown;
  *room = wanted;
  return true;
}

/* =============================================================================================
 * [log] Messages
 * ========================================================================================== */
/* Formats into a bounded line and hands it to the logger. Never fails, never waits. */

#define SWEREX__LOG_EMOJI "\xF0\x9F\xA6\x96" /* the dinosaur of the original */
#define SWEREX__LOG_LINE 2048                /* longest message, in bytes */

typedef struct swerex__log_level {
  swerex_log_level level;
  const char *name;
  const char *colour;
} swerex__log_level;

static const swerex__log_level swerex__log_levels[] = {
  {SWEREX_LOG_DEBUG, "DEBUG", "\033[32m"},
  {SWEREX_LOG_INFO, "INFO", "\033[34m"},
  {SWEREX_LOG_WARNING, "WARNING", "\033[33m"},
  {SWEREX_LOG_ERROR, "ERROR", "\033[1;31m"},
};

/** Name a level; the nearest one below it, for a number between two. */
static const swerex__log_level *swerex__log_find_level(swerex_log_level level) {
  size_t i = SWEREX__SYS_COUNT(swerex__log_levels) - 1;
  while (i > 0 && (int)swerex__log_levels[i].level > (int)level) i--;
  return &swerex__log_levels[i];
}

/** Read a level as Python's logging would: a number, or a name in any case. */
static swerex_log_level swerex__log_parse_level(const char *text, swerex_log_level fallback) {
  static const struct {
    const char *name;
    swerex_log_level level;
  } names[] = {{"debug", SWEREX_LOG_DEBUG},     {"info", SWEREX_LOG_INFO},
               {"warning", SWEREX_LOG_WARNING}, {"warn", SWEREX_LOG_WARNING},
               {"error", SWEREX_LOG_ERROR},     {"critical", SWEREX_LOG_OFF},
               {"fatal", SWEREX_LOG_OFF}};
  if (text == NULL || text[0] == '\0') return fallback;
  if (text[0] >= '0' && text[0] <= '9') {
    long number = strtol(text, NULL, 10);
    if (number <= 0) return SWEREX_LOG_DEBUG;
    return (swerex_log_level)(number > SWEREX_LOG_OFF ? SWEREX_LOG_OFF : number);
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(names); i++) {
    size_t k = 0;
    while (text[k] != '\0' && (text[k] | 0x20) == names[i].name[k]) k++;
    if (text[k] == '\0' && names[i].name[k] == '\0') return names[i].level;
  }
  return fallback;
}

/** Print a record to stderr: time if asked for, emoji, level, component, message. */
static void swerex__log_print(const swerex_log_record *record) {
  const swerex__log_level *level = swerex__log_find_level(record->level);
  const char *with_time = getenv("SWE_AGENT_LOG_TIME");
  bool colour = isatty(STDERR_FILENO) == 1 && getenv("NO_COLOR") == NULL;
  char stamp[32] = "";
  char line[SWEREX__LOG_LINE + 256];
  if (with_time != NULL && with_time[0] != '\0') {
    time_t now = time(NULL);
    struct tm parts;
    if (localtime_r(&now, &parts) != NULL)
      strftime(stamp, sizeof stamp, "[%m/%d/%y %H:%M:%S] ", &parts);
  }
  int n = snprintf(line, sizeof line, "%s%s %s%-8s%s %s: %s\n", stamp, record->emoji,
                   colour ? level->colour : "", level->name, colour ? "\033[0m" : "",
                   record->name, record->message);
  if (n < 0) return;
  if ((size_t)n >= sizeof line) {
    n = (int)sizeof line - 1;
    line[n - 1] = '\n';
  }
  int saved = errno;
  if (!swerex__sys_write_all(STDERR_FILENO, line, (size_t)n)) errno = saved;
}

static void swerex__log_write(const swerex_logger *logger, swerex_log_level level,
                              const char *format, va_list args) {
  char message[SWEREX__LOG_LINE];
  if (level < (swerex_log_level)SWEREX_LOG_LEVEL || level < logger->level) return;
  int n = vsnprintf(message, sizeof message, format, args);
  if (n < 0) return;
  if ((size_t)n >= sizeof message) memcpy(message + sizeof message - 4, "...", 4);
  swerex_log_record record = {level, logger->name != NULL ? logger->name : "rex",
                              logger->emoji != NULL ? logger->emoji : SWEREX__LOG_EMOJI, message};
  if (logger->write != NULL)
    logger->write(logger->user_data, &record);
  else
    swerex__log_print(&record);
}

static void swerex__log(const swerex_logger *logger, swerex_log_level level, const char *format,
                        ...) SWEREX_PRINTF(3, 4);
static void swerex__log(const swerex_logger *logger, swerex_log_level level, const char *format,
                        ...) {
  va_list args;
  va_start(args, format);
  swerex__log_write(logger, level, format, args);
  va_end(args);
}

/* =============================================================================================
 * [err] Errors
 * ========================================================================================== */
/* An error owns one block with all its strings; it comes from SWEREX_MALLOC, as errors exist
 * without a loop. Setting an error releases what it held. Every setter returns false, so that
 * `return swerex__err_set(...)` fails the caller too. */

typedef struct swerex__err_row {
  const char *name;
  swerex_code parent, second;
  const char *class_path;
  const char *meaning;
} swerex__err_row;

static const swerex__err_row swerex__err_rows[] = {
#define SWEREX__ERR_ROW(name, parent, second, path, meaning)                                       \
  {#name, SWEREX_E_##parent, SWEREX_E_##second, path, meaning},
  SWEREX_ERRORS(SWEREX__ERR_ROW)
#undef SWEREX__ERR_ROW
};
SWEREX__SYS_STATIC_ASSERT(SWEREX__SYS_COUNT(swerex__err_rows) == SWEREX_E_COUNT_, err_rows);

/** Which code a system error has; what is not listed is SWEREX_E_OS. */
static const struct {
  int number;
  swerex_code code;
} swerex__err_numbers[] = {
  {ENOENT, SWEREX_E_FILE_NOT_FOUND}, {EACCES, SWEREX_E_PERMISSION},
  {EPERM, SWEREX_E_PERMISSION},      {EISDIR, SWEREX_E_IS_A_DIRECTORY},
  {EEXIST, SWEREX_E_FILE_EXISTS},    {ENOTDIR, SWEREX_E_NOT_A_DIRECTORY},
  {ETIMEDOUT, SWEREX_E_TIMEOUT},     {ENOMEM, SWEREX_E_NO_MEMORY},
};

static bool swerex__err_is(swerex_code code, swerex_code ancestor) {
  while (code != ancestor) {
    if (code <= SWEREX_E_OK || code >= SWEREX_E_COUNT_) return false;
    const swerex__err_row *row = &swerex__err_rows[code];
    if (row->second != SWEREX_E_OK && swerex__err_is(row->second, ancestor)) return true;
    code = row->parent;
  }
  return true;
}

static void swerex__err_clear(swerex_error *err) {
  if (err == NULL) return;
  swerex__mem_free(err->block_);
  memset(err, 0, sizeof *err);
}

/** Fill an error from ready strings; any of them may be NULL. Falls back to the code's meaning. */
static bool swerex__err_fill(swerex_error *err, swerex_code code, const char *const strings[4]) {
  const char **slots[4];
  size_t total = 0;
  if (err == NULL) return false;
  swerex__err_clear(err);
  err->code = code;
  err->message = swerex__err_rows[code].meaning;
  err->class_path = swerex__err_rows[code].class_path;
  slots[0] = &err->message;
  slots[1] = &err->extra_info;
  slots[2] = &err->class_path;
  slots[3] = &err->traceback;
  for (int i = 0; i < 4; i++) total += strings[i] == NULL ? 0 : strlen(strings[i]) + 1;
  char *block = total == 0 ? NULL : (char *)swerex__mem_grow(NULL, NULL, total, 1);
  if (block == NULL) return false;
  err->block_ = block;
  for (int i = 0; i < 4; i++) {
    if (strings[i] == NULL) continue;
    size_t size = strlen(strings[i]) + 1;
    memcpy(block, strings[i], size);
    *slots[i] = block;
    block += size;
  }
  return false;
}

static bool swerex__err_vset(swerex_error *err, swerex_code code, const char *extra_info,
                             const char *format, va_list args) {
  va_list again;
  if (err == NULL) return false;
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, again);
  va_end(again);
  char *message = n < 0 ? NULL : (char *)swerex__mem_grow(NULL, NULL, (size_t)n + 1, 1);
  if (message != NULL) vsnprintf(message, (size_t)n + 1, format, args);
  const char *const strings[4] = {message, extra_info, NULL, NULL};
  swerex__err_fill(err, code, strings);
  swerex__mem_free(message);
  return false;
}

/** Set code and message. Returns false. */
static bool swerex__err_set(swerex_error *err, swerex_code code, const char *format, ...)
  SWEREX_PRINTF(3, 4);
static bool swerex__err_set(swerex_error *err, swerex_code code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  swerex__err_vset(err, code, NULL, format, args);
  va_end(args);
  return false;
}

/** Set SWEREX_E_NO_MEMORY; allocates nothing. Returns false. */
static bool swerex__err_memory(swerex_error *err) {
  static const char *const none[4] = {NULL, NULL, NULL, NULL};
  return swerex__err_fill(err, SWEREX_E_NO_MEMORY, none);
}

/** Return the code for an errno. */
static swerex_code swerex__err_code_of(int number) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__err_numbers); i++)
    if (swerex__err_numbers[i].number == number) return swerex__err_numbers[i].code;
  return SWEREX_E_OS;
}

/** Return the code for a Python class; SWEREX for one that is not known. */
static swerex_code swerex__err_code_of_class(const char *class_path) {
  for (int i = 1; class_path != NULL && i < SWEREX_E_COUNT_; i++)
    if (strcmp(swerex__err_rows[i].class_path, class_path) == 0) return (swerex_code)i;
  return SWEREX_E_SWEREX;
}

typedef struct swerex__err_text {
  int number;
  const char *text;
} swerex__err_text;

/** What Python's callers see on Linux, whichever C library this is built with. */
static const swerex__err_text swerex__err_texts[] = {
  {EPERM, "Operation not permitted"},
  {ENOENT, "No such file or directory"},
  {ESRCH, "No such process"},
  {EINTR, "Interrupted system call"},
  {EIO, "Input/output error"},
  {ENXIO, "No such device or address"},
  {E2BIG, "Argument list too long"},
  {ENOEXEC, "Exec format error"},
  {EBADF, "Bad file descriptor"},
  {EAGAIN, "Resource temporarily unavailable"},
  {ENOMEM, "Cannot allocate memory"},
  {EACCES, "Permission denied"},
  {EFAULT, "Bad address"},
  {EBUSY, "Device or resource busy"},
  {EEXIST, "File exists"},
  {EXDEV, "Invalid cross-device link"},
  {ENODEV, "No such device"},
  {ENOTDIR, "Not a directory"},
  {EISDIR, "Is a directory"},
  {EINVAL, "Invalid argument"},
  {ENFILE, "Too many open files in system"},
  {EMFILE, "Too many open files"},
  {ENOTTY, "Inappropriate ioctl for device"},
  {ETXTBSY, "Text file busy"},
  {EFBIG, "File too large"},
  {ENOSPC, "No space left on device"},
  {ESPIPE, "Illegal seek"},
  {EROFS, "Read-only file system"},
  {EMLINK, "Too many links"},
  {EPIPE, "Broken pipe"},
  {ENAMETOOLONG, "File name too long"},
  {ENOSYS, "Function not implemented"},
  {ENOTEMPTY, "Directory not empty"},
  {ELOOP, "Too many levels of symbolic links"},
  {EILSEQ, "Invalid or incomplete multibyte or wide character"},
  {EOVERFLOW, "Value too large for defined data type"},
  {EOPNOTSUPP, "Operation not supported"},
  {EADDRINUSE, "Address already in use"},
  {EADDRNOTAVAIL, "Cannot assign requested address"},
  {ENETUNREACH, "Network is unreachable"},
  {ECONNRESET, "Connection reset by peer"},
  {ENOTCONN, "Transport endpoint is not connected"},
  {ETIMEDOUT, "Connection timed out"},
  {ECONNREFUSED, "Connection refused"},
  {EHOSTUNREACH, "No route to host"},
  {ESTALE, "Stale file handle"},
  {EDQUOT, "Disk quota exceeded"},
};

/** Describe an errno into a buffer, thread-safely. */
static const char *swerex__err_describe(int number, char *buffer, size_t room) {
  char *text = buffer;
  buffer[0] = '\0';
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__err_texts); i++)
    if (swerex__err_texts[i].number == number) return swerex__err_texts[i].text;
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
  text = strerror_r(number, buffer, room);
#else
  if (strerror_r(number, buffer, room) != 0) snprintf(buffer, room, "Unknown error %d", number);
#endif
  return text;
}

/** Write a name as Python's repr would, but for bytes above ASCII, which stay as they are. */
static void swerex__err_quote(const char *name, char *out, size_t room) {
  static const char special[] = "\t\n\r", letters[] = "tnr", digits[] = "0123456789abcdef";
  char quote = strchr(name, '\'') != NULL && strchr(name, '"') == NULL ? '"' : '\'';
  size_t n = 0;
  out[n++] = quote;
  for (; *name != '\0' && n + 6 < room; name++) {
    unsigned char c = (unsigned char)*name;
    const char *known = strchr(special, c);
    bool control = c < 0x20 || c == 0x7F;
    if (control || c == '\\' || c == (unsigned char)quote) out[n++] = '\\';
    if (known != NULL) {
      out[n++] = letters[known - special];
    } else if (control) {
      out[n++] = 'x';
      out[n++] = digits[c >> 4];
      out[n++] = digits[c & 15U];
    } else {
      out[n++] = (char)c;
    }
  }
  out[n++] = quote;
  out[n] = '\0';
}

/** Set a system error in Python's words: [Errno 2] No such file or directory: 'subject'. */
static bool swerex__err_system(swerex_error *err, int number, const char *subject) {
  char text[128], quoted[PATH_MAX + 64];
  const char *why = swerex__err_describe(number, text, sizeof text);
  swerex_code code = swerex__err_code_of(number);
  if (subject != NULL) {
    swerex__err_quote(subject, quoted, sizeof quoted);
    swerex__err_set(err, code, "[Errno %d] %s: %s", number, why, quoted);
  } else {
    swerex__err_set(err, code, "[Errno %d] %s", number, why);
  }
  if (err != NULL) err->sys_errno = number;
  return false;
}

/** Move an error from one place to another (to may be NULL). Returns false. */
static bool swerex__err_move(swerex_error *to, swerex_error *from) {
  if (to == NULL) {
    swerex__err_clear(from);
  } else {
    swerex__err_clear(to);
    *to = *from;
    memset(from, 0, sizeof *from);
  }
  return false;
}

/* =============================================================================================
 * [str] Growing strings
 * ========================================================================================== */
/* A buffer with a mandatory cap and a sticky failure: append as often as you like, look at
 * `failed` once. After a failure the content is what fitted before. */

typedef struct swerex__str {
  const swerex_allocator *allocator;
  char *data; /* NUL behind data[size] once anything was added */
  size_t size, room, max;
  bool failed; /* no memory, or over max */
} swerex__str;

static swerex__str swerex__str_new(const swerex_allocator *allocator, size_t max) {
  swerex__str s = {allocator, NULL, 0, 0, max, false};
  return s;
}

static void swerex__str_clear(swerex__str *s) {
  swerex__mem_free(s->data);
  s->data = NULL;
  s->size = s->room = 0;
  s->failed = false;
}

/** Make room for `more` bytes and the NUL; returns where they go, NULL on failure. */
static char *swerex__str_reserve(swerex__str *s, size_t more) {
  if (s->failed || more > s->max - s->size) {
    s->failed = true;
    return NULL;
  }
  size_t needed = s->size + more + 1;
  if (needed > s->room) {
    size_t room = s->room < 64 ? 64 : s->room + s->room / 2;
    if (room < needed) room = needed;
    char *data = (char *)swerex__mem_grow(s->allocator, s->data, room, 1);
    if (data == NULL) {
      s->failed = true;
      return NULL;
    }
    s->data = data;
    s->room = room;
  }
  return s->data + s->size;
}

static void swerex__str_add(swerex__str *s, const char *data, size_t size) {
  char *end = swerex__str_reserve(s, size);
  if (end == NULL) return;
  if (size > 0) memcpy(end, data, size);
  s->size += size;
  s->data[s->size] = '\0';
}

static void swerex__str_puts(swerex__str *s, const char *text) {
  swerex__str_add(s, text, strlen(text));
}

static void swerex__str_putc(swerex__str *s, char c) { swerex__str_add(s, &c, 1); }

static void swerex__str_printf(swerex__str *s, const char *format, ...) SWEREX_PRINTF(2, 3);
static void swerex__str_printf(swerex__str *s, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, again);
  va_end(again);
  char *end = n < 0 ? NULL : swerex__str_reserve(s, (size_t)n);
  if (end != NULL) {
    vsnprintf(end, (size_t)n + 1, format, args);
    s->size += (size_t)n;
  }
  va_end(args);
}

/** Drop the first `count` bytes. */
static void swerex__str_drop(swerex__str *s, size_t count) {
  if (count == 0) return;
  s->size -= count;
  memmove(s->data, s->data + count, s->size);
  s->data[s->size] = '\0';
}

/** Give the content away as bytes (never NULL data); false, and nothing is left, on failure. */
static bool swerex__str_take(swerex__str *s, swerex_bytes *out, swerex_error *err) {
  swerex__str_add(s, "", 0);
  if (s->failed) {
    bool full = s->data != NULL && s->max - s->size < s->room;
    swerex__str_clear(s);
    if (full) return swerex__err_set(err, SWEREX_E_VALUE, "text is larger than %zu bytes", s->max);
    return swerex__err_memory(err);
  }
  out->data = s->data;
  out->size = s->size;
  s->data = NULL;
  s->size = s->room = 0;
  return true;
}

/* =============================================================================================
 * [util] Clock, random bytes, numbers, Python notation
 * ========================================================================================== */
/* Numbers are read and written the same under every locale: what goes through strtod has no
 * decimal point, and of what comes from snprintf only the digits and the exponent are looked at.
 * A character of UTF-8 is valid in the strict sense: shortest form, no surrogates, no more than
 * U+10FFFF. */

/** Return the seconds of a clock that nobody sets. */
static double swerex__util_now(void) {
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/** Fill a block with bytes that nobody can guess; false: errno tells why. */
static bool swerex__util_random(void *out, size_t size) {
  char *bytes = (char *)out;
  int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  while (size > 0) {
    ssize_t n = read(fd, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) break;
    bytes += n;
    size -= (size_t)n;
  }
  swerex__sys_close(&fd);
  return size == 0;
}

/** Write bytes as lower-case hexadecimal digits, two each, and a NUL. */
static void swerex__util_hex(char *out, const unsigned char *bytes, size_t size) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < size; i++) {
    *out++ = digits[bytes[i] >> 4];
    *out++ = digits[bytes[i] & 15];
  }
  *out = '\0';
}

/* --- UTF-8 --- */

/** Read the character at the start of size > 0 bytes: its length, 0 if invalid or cut off. */
static size_t swerex__util_utf8_next(const char *text, size_t size, uint32_t *code_point) {
  const unsigned char *bytes = (const unsigned char *)text;
  uint32_t point = bytes[0];
  if (point < 0x80) {
    *code_point = point;
    return 1;
  }
  if (point < 0xC2 || point > 0xF4) return 0;
  size_t length = point < 0xE0 ? 2 : point < 0xF0 ? 3 : 4;
  if (length > size || (bytes[1] & 0xC0) != 0x80) return 0;
  if (length == 2) {
    *code_point = (point & 0x1F) << 6 | (bytes[1] & 0x3Fu);
    return 2;
  }
  if ((bytes[2] & 0xC0) != 0x80) return 0;
  point = (point & 0x0F) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3Fu);
  if (length == 4) {
    if ((bytes[3] & 0xC0) != 0x80) return 0;
    point = point << 6 | (bytes[3] & 0x3Fu);
    if (point < 0x10000 || point > 0x10FFFF) return 0;
  } else if (point < 0x800 || (point >= 0xD800 && point <= 0xDFFF)) {
    return 0;
  }
  *code_point = point;
  return length;
}

/** Write a character; returns its length. Surrogates are written as if they were characters. */
static size_t swerex__util_utf8_put(char out[4], uint32_t code_point) {
  static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
  size_t length = code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--) {
    out[i] = (char)(0x80 | (code_point & 0x3F));
    code_point >>= 6;
  }
  out[0] = (char)(leads[length] | code_point);
  return length;
}

/* --- numbers --- */

#define SWEREX__UTIL_DIGITS 800 /* more digits than any double needs to be read exactly */

/** A decimal number without a point: digits times ten to the exponent. */
typedef struct swerex__util_decimal {
  bool negative;
  size_t count;
  long long exponent;
  char digits[SWEREX__UTIL_DIGITS + 1]; /* no leading zeros */
} swerex__util_decimal;

/** Return the double that is nearest to a decimal number. */
static double swerex__util_to_double(const swerex__util_decimal *number) {
  char text[SWEREX__UTIL_DIGITS + 32];
  snprintf(text, sizeof text, "%s%.*se%lld", number->negative ? "-" : "", (int)number->count,
           number->digits, number->exponent);
  return strtod(text, NULL);
}

/** Take a row of digits; returns how many. Of those too many, only whether all are 0 counts. */
static size_t swerex__util_read_digits(swerex__util_decimal *number, const char *text, size_t size,
                                       bool fraction) {
  size_t i = 0;
  for (; i < size && text[i] >= '0' && text[i] <= '9'; i++) {
    if (fraction) number->exponent--;
    if (number->count == 0 && text[i] == '0') continue;
    if (number->count < SWEREX__UTIL_DIGITS) {
      number->digits[number->count++] = text[i];
    } else {
      number->exponent++;
      if (text[i] != '0') number->digits[SWEREX__UTIL_DIGITS - 1] |= 1; /* no longer a tie */
    }
  }
  return i;
}

/** Take an exponent such as e+10; returns its length, 0 if there is none. */
static size_t swerex__util_read_exponent(swerex__util_decimal *number, const char *text,
                                         size_t size) {
  const long long most = LLONG_MAX / 100;
  long long exponent = 0;
  size_t i = 1;
  if (size < 2 || (text[0] != 'e' && text[0] != 'E')) return 0;
  bool negative = text[1] == '-';
  if (negative || text[1] == '+') i++;
  size_t first = i;
  for (; i < size && text[i] >= '0' && text[i] <= '9'; i++)
    if (exponent < most / 10) exponent = exponent * 10 + (text[i] - '0');
  number->exponent += negative ? -exponent : exponent;
  return i > first ? i : 0;
}

/**
 * Read a number of JSON (also 05, .5 and 5.) that takes up the whole text. What is too large
 * becomes infinite.
 */
static bool swerex__util_parse_double(const char *text, size_t size, double *out) {
  swerex__util_decimal number;
  number.negative = size > 0 && text[0] == '-';
  number.count = 0;
  number.exponent = 0;
  size_t i = number.negative;
  size_t seen = swerex__util_read_digits(&number, text + i, size - i, false);
  i += seen;
  if (i < size && text[i] == '.') {
    size_t more = swerex__util_read_digits(&number, text + i + 1, size - i - 1, true);
    i += more + 1;
    seen += more;
  }
  if (seen > 0 && i < size) i += swerex__util_read_exponent(&number, text + i, size - i);
  if (seen == 0 || i < size) return false;
  if (number.count == 0) number.digits[number.count++] = '0';
  *out = swerex__util_to_double(&number);
  return true;
}

/** Add one to the last digit. */
static void swerex__util_round_up(swerex__util_decimal *number) {
  size_t i = number->count;
  while (i > 0 && number->digits[i - 1] == '9') number->digits[--i] = '0';
  if (i > 0) {
    number->digits[i - 1]++;
  } else {
    number->digits[0] = '1'; /* 999 is now 1000: as many digits, one more place */
    number->exponent++;
  }
}

/**
 * Find the shortest digits that read back as a finite value >= 0. The nearest number of n digits
 * can miss where one a little further off does not: just above a power of two, doubles lie less
 * dense than just below.
 */
static void swerex__util_shorten(swerex__util_decimal *number, double value) {
  char text[64];
  number->negative = false;
  for (int precision = 0; precision <= 16; precision++) {
    const char *c = text;
    snprintf(text, sizeof text, "%.*e", precision, value);
    number->count = 0;
    for (; *c != 'e'; c++)
      if (*c >= '0' && *c <= '9') number->digits[number->count++] = *c;
    number->exponent = strtol(c + 1, NULL, 10) - precision;
    double nearest = swerex__util_to_double(number);
    if (nearest == value) break;
    if (nearest > value || precision == 16) continue;
    swerex__util_round_up(number);
    if (swerex__util_to_double(number) == value) break;
  }
}

/** Append a number as Python's repr() writes a float: 0.2, 5.0, 1e+16, inf. */
static void swerex__util_add_double(swerex__str *s, double value) {
  swerex__util_decimal number;
  double zero = 0;
  if (value != value) {
    swerex__str_puts(s, "nan");
    return;
  }
  if (value < 0 || (value == 0 && memcmp(&value, &zero, sizeof zero) != 0)) {
    swerex__str_putc(s, '-');
    value = -value;
  }
  if (value - value != 0) {
    swerex__str_puts(s, "inf");
    return;
  }
  swerex__util_shorten(&number, value);
  long long point = number.exponent + (long long)number.count; /* digits before the point */
  size_t whole = point > 0 ? (size_t)point : 0;
  if (point > 16 || point < -3) {
    swerex__str_add(s, number.digits, 1);
    if (number.count > 1) swerex__str_putc(s, '.');
    swerex__str_add(s, number.digits + 1, number.count - 1);
    swerex__str_printf(s, "e%c%02lld", point > 0 ? '+' : '-', point > 0 ? point - 1 : 1 - point);
    return;
  }
  if (whole == 0) {
    swerex__str_puts(s, "0.");
    swerex__str_add(s, "0000", (size_t)-point);
  }
  for (size_t i = 0; i < whole; i++)
    swerex__str_putc(s, i < number.count ? number.digits[i] : '0');
  if (whole > 0) swerex__str_putc(s, '.');
  if (number.count > whole) swerex__str_add(s, number.digits + whole, number.count - whole);
  if (number.count <= whole) swerex__str_putc(s, '0');
}

/* --- Python notation --- */

/**
 * Tell whether Python shows a character as it is. Controls, formats, separators but for the space,
 * surrogates and private use are not; of the code points that have no meaning yet, only the large
 * blocks at the end and the permanent noncharacters are known here.
 */
static bool swerex__util_is_printable(uint32_t point) {
  static const uint32_t hidden[][2] = {
    {0x0, 0x1F},         {0x7F, 0xA0},        {0xAD, 0xAD},         {0x600, 0x605},
    {0x61C, 0x61C},      {0x6DD, 0x6DD},      {0x70F, 0x70F},       {0x890, 0x891},
    {0x8E2, 0x8E2},      {0x1680, 0x1680},    {0x180E, 0x180E},     {0x2000, 0x200F},
    {0x2028, 0x202F},    {0x205F, 0x206F},    {0x3000, 0x3000},     {0xD800, 0xF8FF},
    {0xFDD0, 0xFDEF},    {0xFEFF, 0xFEFF},    {0xFFF0, 0xFFFB},     {0xFFFE, 0xFFFF},
    {0x110BD, 0x110BD},  {0x110CD, 0x110CD},  {0x13430, 0x13438},   {0x1BCA0, 0x1BCA3},
    {0x1D173, 0x1D17A},  {0x1FFFE, 0x1FFFF},  {0x2FFFE, 0x2FFFF},   {0x323B0, 0xE00FF},
    {0xE01F0, 0x10FFFF},
  };
  for (size_t i = 0; i < SWEREX__SYS_COUNT(hidden) && point >= hidden[i][0]; i++)
    if (point <= hidden[i][1]) return false;
  return true;
}

/** Append one character in backslash notation: \n, \x1b, \u200b, \U000e0001. */
static void swerex__util_add_escape(swerex__str *s, uint32_t point) {
  static const char letters[][2] = {{'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(letters); i++) {
    if (point != (uint32_t)letters[i][0]) continue;
    swerex__str_putc(s, '\\');
    swerex__str_putc(s, letters[i][1]);
    return;
  }
  if (point < 0x100)
    swerex__str_printf(s, "\\x%02lx", (unsigned long)point);
  else if (point < 0x10000)
    swerex__str_printf(s, "\\u%04lx", (unsigned long)point);
  else
    swerex__str_printf(s, "\\U%08lx", (unsigned long)point);
}

/** Append text as Python's repr() writes a str; bytes that are not UTF-8 become \udcNN. */
static void swerex__util_add_repr(swerex__str *s, const char *text, size_t size) {
  bool single = size > 0 && memchr(text, '\'', size) != NULL;
  char quote = single && memchr(text, '"', size) == NULL ? '"' : '\'';
  size_t start = 0, i = 0; /* from start to i, all is shown as it is */
  swerex__str_putc(s, quote);
  while (i < size) {
    uint32_t point;
    size_t length = swerex__util_utf8_next(text + i, size - i, &point);
    bool plain = length > 0 && point != '\\' && point != (unsigned char)quote &&
                 ((point >= 0x20 && point < 0x7F) || swerex__util_is_printable(point));
    if (!plain) {
      swerex__str_add(s, text + start, i - start);
      if (length == 0) {
        swerex__util_add_escape(s, 0xDC00 + (uint32_t)(unsigned char)text[i]);
        length = 1;
      } else if (point == '\\' || point == (unsigned char)quote) {
        swerex__str_putc(s, '\\');
        swerex__str_putc(s, (char)point);
      } else {
        swerex__util_add_escape(s, point);
      }
      start = i + length;
    }
    i += length;
  }
  if (size > start) swerex__str_add(s, text + start, size - start);
  swerex__str_putc(s, quote);
}

/** Append a list of strings, up to its NULL, as Python's repr() writes it; NULL is empty. */
static void swerex__util_add_repr_list(swerex__str *s, const char *const *items) {
  swerex__str_putc(s, '[');
  for (size_t i = 0; items != NULL && items[i] != NULL; i++) {
    if (i > 0) swerex__str_puts(s, ", ");
    swerex__util_add_repr(s, items[i], strlen(items[i]));
  }
  swerex__str_putc(s, ']');
}

/* =============================================================================================
 * [json] JSON reader and writer
 * ========================================================================================== */
/* Reads a whole text (RFC 8259, strict UTF-8) into nodes that live in one arena, and are gone with
 * one call. Nothing of the text itself is kept. Nesting is bounded by SWEREX_MAX_JSON_DEPTH and
 * costs no stack. A lone \udc80..\udcff stands for the byte 80..ff, which is how Python sends bytes
 * that are not UTF-8; such bytes are written that way too, so that what is written is always valid.
 * Errors have the words and the positions (in characters) of Python's json module. */

typedef enum swerex__json_type {
  SWEREX__JSON_NULL,
  SWEREX__JSON_BOOL,
  SWEREX__JSON_NUMBER,
  SWEREX__JSON_STRING,
  SWEREX__JSON_ARRAY,
  SWEREX__JSON_OBJECT
} swerex__json_type;

/** A value. What does not belong to its type is zero. */
typedef struct swerex__json {
  swerex__json_type type;
  bool boolean;
  bool is_integer;    /* written without fraction or exponent, and fits into `integer` */
  double number;      /* may be infinite: 1e999 */
  int64_t integer;    /* with is_integer */
  const char *string; /* may hold NUL; a NUL is behind it */
  size_t size;        /* of the string in bytes, of the array or object in members */
  const char *key;    /* as a member of an object; may hold NUL */
  size_t key_size;
  struct swerex__json *child; /* first member of an array or object */
  struct swerex__json *next;  /* member after this one */
} swerex__json;

/** Where and why a text is not JSON. */
typedef struct swerex__json_fault {
  const char *reason; /* as Python has it, such as "Expecting value" */
  size_t byte;        /* offset in bytes */
  size_t position;    /* offset in characters */
  size_t line, column;
} swerex__json_fault;

typedef struct swerex__json_block {
  struct swerex__json_block *next;
  size_t used, room; /* of the bytes behind this header */
} swerex__json_block;

typedef struct swerex__json_doc {
  const swerex__json *root;  /* NULL after a failure */
  swerex__json_fault fault;  /* set when the text was malformed */
  swerex__json_block *block; /* the arena, newest block first */
} swerex__json_doc;

/** An array or object that is still open. */
typedef struct swerex__json_frame {
  swerex__json *node, *last;
  const char *key; /* of the member to come */
  size_t key_size;
} swerex__json_frame;

typedef struct swerex__json_reader {
  const swerex_allocator *allocator;
  const char *text;
  size_t size, at;
  swerex__json_doc *doc;
  swerex__json_frame *open;
  size_t depth, room;
  bool failed;
  const char *reason; /* of the failure; NULL: no memory */
  size_t fault_at;
} swerex__json_reader;

/** Compare a counted text with a name. */
static bool swerex__json_same(const char *text, size_t size, const char *name) {
  return text != NULL && strlen(name) == size && memcmp(text, name, size) == 0;
}

/** Tell whether a node is this string. */
static bool swerex__json_is(const swerex__json *node, const char *text) {
  return node != NULL && node->type == SWEREX__JSON_STRING &&
         swerex__json_same(node->string, node->size, text);
}

/** Find a member of an object; NULL where there is none, or no object. */
static const swerex__json *swerex__json_get(const swerex__json *object, const char *key) {
  if (object == NULL || object->type != SWEREX__JSON_OBJECT) return NULL;
  for (const swerex__json *member = object->child; member != NULL; member = member->next)
    if (swerex__json_same(member->key, member->key_size, key)) return member;
  return NULL;
}

/** Tell whether a number is neither infinite nor NaN. */
static bool swerex__json_is_finite(double number) { return number - number == 0.0; }

/** Count the leading bytes that stand for themselves in a string: ASCII, no control, " or \. */
static size_t swerex__json_plain(const char *text, size_t size) {
  const uint64_t ones = UINT64_MAX / 255, high = ones * 0x80;
  size_t n = 0;
  while (size - n >= 8) { /* eight at a time: a high bit in `odd` where one is not plain */
    uint64_t word, quote, slash, odd;
    memcpy(&word, text + n, 8);
    quote = word ^ (ones * '"');
    slash = word ^ (ones * '\\');
    odd = (word - ones * 0x20) | (quote - ones) | (slash - ones) | word;
    if ((odd & high) != 0) break;
    n += 8;
  }
  while (n < size) {
    unsigned char c = (unsigned char)text[n];
    if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') break;
    n++;
  }
  return n;
}

/** Count the leading bytes that stand for themselves: what is plain, and valid UTF-8. */
static size_t swerex__json_run(const char *text, size_t size) {
  size_t n = 0;
  for (;;) {
    uint32_t point;
    size_t step = 0;
    n += swerex__json_plain(text + n, size - n);
    while (n < size && (unsigned char)text[n] >= 0x80) {
      step = (size_t)swerex__util_utf8_next(text + n, size - n, &point);
      if (step == 0) return n;
      n += step;
    }
    if (step == 0) return n;
  }
}

/* --- arena --- */

#define SWEREX__JSON_ALIGN(size) (((size) + 7) & ~(size_t)7)

/** Take bytes from the arena, aligned for a node. */
static void *swerex__json_take(swerex__json_reader *reader, size_t size) {
  swerex__json_block *block = reader->doc->block;
  if (size > SIZE_MAX / 2) return NULL;
  size_t header = SWEREX__JSON_ALIGN(sizeof *block);
  size = SWEREX__JSON_ALIGN(size);
  if (block == NULL || block->room - block->used < size) {
    size_t room = block == NULL ? 1024 : block->room * 2;
    if (room > (size_t)1 << 18) room = (size_t)1 << 18;
    if (room < size) room = size;
    swerex__json_block *fresh = (swerex__json_block *)swerex__mem_grow(
      reader->allocator, NULL, header + room, 1);
    if (fresh == NULL) return NULL;
    fresh->next = block;
    fresh->used = 0;
    fresh->room = room;
    reader->doc->block = block = fresh;
  }
  void *taken = (char *)block + header + block->used;
  block->used += size;
  return taken;
}

/** Release a document; it may be used again. */
static void swerex__json_free(swerex__json_doc *doc) {
  for (swerex__json_block *block = doc->block, *next; block != NULL; block = next) {
    next = block->next;
    swerex__mem_free(block);
  }
  doc->block = NULL;
  doc->root = NULL;
}

/* --- reader --- */

static bool swerex__json_fail(swerex__json_reader *reader, const char *reason, size_t at) {
  reader->failed = true;
  reader->reason = reason;
  reader->fault_at = at;
  return false;
}

/** Skip white space, and return the byte there; -1 at the end. */
static int swerex__json_peek(swerex__json_reader *reader) {
  while (reader->at < reader->size) {
    char c = reader->text[reader->at];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return (unsigned char)c;
    reader->at++;
  }
  return -1;
}

/** Read the four digits of \uXXXX; at is the place of the u. */
static bool swerex__json_read_hex(swerex__json_reader *reader, size_t at, uint32_t *unit) {
  static const char reason[] = "Invalid \\uXXXX escape";
  *unit = 0;
  if (reader->size - at < 6) return swerex__json_fail(reader, reason, at);
  for (size_t i = 1; i <= 4; i++) {
    char c = reader->text[at + i];
    char lower = (char)(c | 0x20);
    if (c >= '0' && c <= '9')
      *unit = *unit * 16 + (uint32_t)(c - '0');
    else if (lower >= 'a' && lower <= 'f')
      *unit = *unit * 16 + (uint32_t)(lower - 'a') + 10;
    else
      return swerex__json_fail(reader, reason, at);
  }
  return true;
}

/** Read \uXXXX, a pair of surrogates joined; reader->at is at the u, and moves behind it all. */
static bool swerex__json_read_unit(swerex__json_reader *reader, char **out) {
  size_t start = reader->at - 1;
  uint32_t unit, low;
  if (!swerex__json_read_hex(reader, reader->at, &unit)) return false;
  reader->at += 5;
  if (unit >= 0xDC80 && unit <= 0xDCFF) {
    *(*out)++ = (char)(unit & 0xFF);
    return true;
  }
  if (unit >= 0xD800 && unit <= 0xDFFF) {
    const char *text = reader->text + reader->at;
    bool escape = reader->size - reader->at >= 2 && text[0] == '\\' && text[1] == 'u';
    if (unit >= 0xDC00 || !escape)
      return swerex__json_fail(reader, "Unpaired surrogate escape", start);
    if (!swerex__json_read_hex(reader, reader->at + 1, &low)) return false;
    if (low < 0xDC00 || low > 0xDFFF)
      return swerex__json_fail(reader, "Unpaired surrogate escape", start);
    reader->at += 6;
    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
  }
  *out += swerex__util_utf8_put(*out, unit);
  return true;
}

/** Read one escape; reader->at is at the backslash, and moves behind the escape. */
static bool swerex__json_read_escape(swerex__json_reader *reader, size_t quote, char **out) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  size_t start = reader->at++;
  if (reader->at == reader->size)
    return swerex__json_fail(reader, "Unterminated string starting at", quote);
  char c = reader->text[reader->at];
  if (c == 'u') return swerex__json_read_unit(reader, out);
  const char *found = (const char *)memchr(names, c, sizeof names - 1);
  if (found == NULL) return swerex__json_fail(reader, "Invalid \\escape", start);
  *(*out)++ = values[found - names];
  reader->at++;
  return true;
}

/** Find the quote that ends a string, or the end of the text: a bound of the string's size. */
static size_t swerex__json_find_quote(const swerex__json_reader *reader, size_t start) {
  size_t at = start;
  while (at < reader->size) {
    const char *found = (const char *)memchr(reader->text + at, '"', reader->size - at);
    if (found == NULL) return reader->size;
    size_t quote = (size_t)(found - reader->text), slash = quote;
    while (slash > at && reader->text[slash - 1] == '\\') slash--;
    if ((quote - slash) % 2 == 0) return quote;
    at = quote + 1;
  }
  return reader->size;
}

/** Read a string; reader->at is at its opening quote, and moves behind the closing one. */
static bool swerex__json_read_string(swerex__json_reader *reader, const char **string,
                                     size_t *size) {
  size_t quote = reader->at;
  size_t bound = swerex__json_find_quote(reader, quote + 1) - quote - 1;
  char *start = (char *)swerex__json_take(reader, bound + 1), *out = start;
  if (start == NULL) return swerex__json_fail(reader, NULL, quote);
  reader->at++;
  for (;;) {
    const char *text = reader->text + reader->at;
    size_t left = reader->size - reader->at, n = swerex__json_run(text, left);
    if (n > 0) {
      memcpy(out, text, n);
      out += n;
      reader->at += n;
    } else if (left == 0) {
      return swerex__json_fail(reader, "Unterminated string starting at", quote);
    } else if (text[0] == '"') {
      break;
    } else if ((unsigned char)text[0] >= 0x80) {
      return swerex__json_fail(reader, "Invalid UTF-8 at", reader->at);
    } else if (text[0] != '\\') {
      return swerex__json_fail(reader, "Invalid control character at", reader->at);
    } else if (!swerex__json_read_escape(reader, quote, &out)) {
      return false;
    }
  }
  reader->at++;
  *out = '\0';
  *string = start;
  *size = (size_t)(out - start);
  return true;
}

/** Count the digits at `at`. */
static size_t swerex__json_digits(const swerex__json_reader *reader, size_t at) {
  size_t n = 0;
  while (at + n < reader->size && reader->text[at + n] >= '0' && reader->text[at + n] <= '9') n++;
  return n;
}

/** Find where a number's fraction and exponent end; as much as is well-formed. */
static size_t swerex__json_find_end(const swerex__json_reader *reader, size_t at) {
  const char *text = reader->text;
  if (at < reader->size && text[at] == '.') {
    size_t n = swerex__json_digits(reader, at + 1);
    if (n > 0) at += 1 + n;
  }
  if (at < reader->size && (text[at] | 0x20) == 'e') {
    size_t sign = at + 1 < reader->size && (text[at + 1] == '+' || text[at + 1] == '-');
    size_t n = swerex__json_digits(reader, at + 1 + sign);
    if (n > 0) at += 1 + sign + n;
  }
  return at;
}

/** Read digits as an integer; false if it does not fit. */
static bool swerex__json_to_integer(const char *digits, size_t count, bool negative,
                                    int64_t *integer) {
  uint64_t value = 0, limit = (uint64_t)INT64_MAX + negative;
  for (size_t i = 0; i < count; i++) {
    uint64_t digit = (uint64_t)(digits[i] - '0');
    if (value > (limit - digit) / 10) return false;
    value = value * 10 + digit;
  }
  if (value == (uint64_t)INT64_MAX + 1)
    *integer = INT64_MIN;
  else
    *integer = negative ? -(int64_t)value : (int64_t)value;
  return true;
}

static bool swerex__json_read_number(swerex__json_reader *reader, swerex__json *node) {
  size_t start = reader->at;
  bool negative = reader->text[start] == '-';
  size_t first = start + negative, count = swerex__json_digits(reader, first);
  if (count == 0) return swerex__json_fail(reader, "Expecting value", start);
  if (reader->text[first] == '0') count = 1; /* a leading zero stands alone */
  size_t end = swerex__json_find_end(reader, first + count);
  node->type = SWEREX__JSON_NUMBER;
  node->is_integer =
    end == first + count &&
    swerex__json_to_integer(reader->text + first, count, negative, &node->integer);
  if (node->is_integer)
    node->number = (double)node->integer;
  else if (!swerex__util_parse_double(reader->text + start, end - start, &node->number))
    return swerex__json_fail(reader, "Number out of range at", start);
  reader->at = end;
  return true;
}

static bool swerex__json_read_scalar(swerex__json_reader *reader, swerex__json *node) {
  static const struct {
    const char *name;
    size_t size;
    swerex__json_type type;
  } words[] = {{"null", 4, SWEREX__JSON_NULL},
               {"true", 4, SWEREX__JSON_BOOL},
               {"false", 5, SWEREX__JSON_BOOL}};
  const char *text = reader->text + reader->at;
  size_t left = reader->size - reader->at;
  if (left > 0 && text[0] == '"') {
    node->type = SWEREX__JSON_STRING;
    return swerex__json_read_string(reader, &node->string, &node->size);
  }
  if (left > 0 && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9')))
    return swerex__json_read_number(reader, node);
  for (size_t i = 0; i < SWEREX__SYS_COUNT(words); i++) {
    if (left < words[i].size || memcmp(text, words[i].name, words[i].size) != 0) continue;
    node->type = words[i].type;
    node->boolean = text[0] == 't';
    reader->at += words[i].size;
    return true;
  }
  return swerex__json_fail(reader, "Expecting value", reader->at);
}

/** Read a member's key and the colon behind it, into the frame of the open object. */
static bool swerex__json_read_key(swerex__json_reader *reader) {
  swerex__json_frame *frame = &reader->open[reader->depth - 1];
  if (swerex__json_peek(reader) != '"')
    return swerex__json_fail(reader, "Expecting property name enclosed in double quotes",
                             reader->at);
  if (!swerex__json_read_string(reader, &frame->key, &frame->key_size)) return false;
  if (swerex__json_peek(reader) != ':')
    return swerex__json_fail(reader, "Expecting ':' delimiter", reader->at);
  reader->at++;
  return true;
}

/** Make a node, as the next member of what is open. */
static swerex__json *swerex__json_add_child(swerex__json_reader *reader) {
  swerex__json *node = (swerex__json *)swerex__json_take(reader, sizeof *node);
  if (node == NULL) return NULL;
  memset(node, 0, sizeof *node);
  if (reader->depth == 0) {
    reader->doc->root = node;
    return node;
  }
  swerex__json_frame *frame = &reader->open[reader->depth - 1];
  node->key = frame->key;
  node->key_size = frame->key_size;
  if (frame->last == NULL)
    frame->node->child = node;
  else
    frame->last->next = node;
  frame->last = node;
  frame->node->size++;
  return node;
}

/** Enter an array or object. */
static bool swerex__json_open(swerex__json_reader *reader, swerex__json *node) {
  void *open = reader->open;
  if (reader->depth >= SWEREX_MAX_JSON_DEPTH)
    return swerex__json_fail(reader, "Nested too deeply at", reader->at);
  if (!swerex__mem_reserve(reader->allocator, &open, &reader->room, reader->depth,
                           sizeof *reader->open))
    return swerex__json_fail(reader, NULL, reader->at);
  reader->open = (swerex__json_frame *)open;
  swerex__json_frame *frame = &reader->open[reader->depth++];
  memset(frame, 0, sizeof *frame);
  frame->node = node;
  node->type =
    reader->text[reader->at] == '{' ? SWEREX__JSON_OBJECT : SWEREX__JSON_ARRAY;
  reader->at++;
  return true;
}

/** A member and its place, for sorting by key. */
typedef struct swerex__json_member {
  swerex__json *node;
  size_t place;
} swerex__json_member;

/** Compare two keys; by length first, as only equality matters. */
static int swerex__json_compare_keys(const swerex__json *a, const swerex__json *b) {
  if (a->key_size != b->key_size) return a->key_size < b->key_size ? -1 : 1;
  return memcmp(a->key, b->key, a->key_size);
}

static int swerex__json_compare_members(const void *left, const void *right) {
  const swerex__json_member *a = (const swerex__json_member *)left;
  const swerex__json_member *b = (const swerex__json_member *)right;
  int order = swerex__json_compare_keys(a->node, b->node);
  if (order != 0) return order;
  return a->place < b->place ? -1 : 1;
}

/** Mark all but the last member of each name, by sorting: a peer chooses keys and number. */
static bool swerex__json_mark_many(swerex__json_reader *reader, const swerex__json *object) {
  size_t n = 0;
  swerex__json_member *members = (swerex__json_member *)swerex__mem_grow(
    reader->allocator, NULL, object->size, sizeof *members);
  if (members == NULL) return swerex__json_fail(reader, NULL, reader->at);
  for (swerex__json *node = object->child; node != NULL; node = node->next, n++) {
    members[n].node = node;
    members[n].place = n;
  }
  qsort(members, n, sizeof *members, swerex__json_compare_members);
  for (size_t i = 0; i + 1 < n; i++)
    if (swerex__json_compare_keys(members[i].node, members[i + 1].node) == 0)
      members[i].node->key = NULL;
  swerex__mem_free(members);
  return true;
}

/** Mark all but the last member of each name, where they are few. */
static void swerex__json_mark_few(swerex__json *object) {
  for (swerex__json *node = object->child; node != NULL; node = node->next) {
    const swerex__json *other = node->next;
    while (other != NULL && swerex__json_compare_keys(node, other) != 0) other = other->next;
    if (other != NULL) node->key = NULL;
  }
}

/** Drop all but the last member of each name. */
static bool swerex__json_drop_duplicates(swerex__json_reader *reader, swerex__json *object) {
  swerex__json **link = &object->child;
  if (object->size <= 16)
    swerex__json_mark_few(object);
  else if (!swerex__json_mark_many(reader, object))
    return false;
  while (*link != NULL) {
    if ((*link)->key != NULL) {
      link = &(*link)->next;
    } else {
      *link = (*link)->next;
      object->size--;
    }
  }
  return true;
}

/** Behind a value: leave what ends here, up to the next member. False at the end or on failure. */
static bool swerex__json_go_on(swerex__json_reader *reader) {
  while (reader->depth > 0) {
    swerex__json *node = reader->open[reader->depth - 1].node;
    bool object = node->type == SWEREX__JSON_OBJECT;
    int c = swerex__json_peek(reader);
    if (c == ',') {
      reader->at++;
      return !object || swerex__json_read_key(reader);
    }
    if (c != (object ? '}' : ']'))
      return swerex__json_fail(reader, "Expecting ',' delimiter", reader->at);
    if (object && !swerex__json_drop_duplicates(reader, node)) return false;
    reader->depth--;
    reader->at++;
  }
  return false;
}

/** Read one value with all that is in it. */
static void swerex__json_read_value(swerex__json_reader *reader) {
  bool more = true;
  while (more) {
    int c = swerex__json_peek(reader);
    swerex__json *node = swerex__json_add_child(reader);
    if (node == NULL) {
      swerex__json_fail(reader, NULL, reader->at);
      return;
    }
    if (c != '{' && c != '[') {
      more = swerex__json_read_scalar(reader, node) && swerex__json_go_on(reader);
      continue;
    }
    if (!swerex__json_open(reader, node)) return;
    if (swerex__json_peek(reader) == (c == '{' ? '}' : ']'))
      more = swerex__json_go_on(reader);
    else
      more = c == '[' || swerex__json_read_key(reader);
  }
}

/* --- writer --- */

/** Write what lies between a member or element and the one before it. */
static void swerex__json_add_comma(swerex__str *s) {
  if (s->size == 0) return;
  char last = s->data[s->size - 1];
  if (last != '{' && last != '[' && last != ':') swerex__str_putc(s, ',');
}

/** Write a string; bytes that are not UTF-8 as \udcXX. */
static void swerex__json_add_string(swerex__str *s, const char *text, size_t size) {
  static const char names[] = "\"\\bfnrt", values[] = "\"\\\b\f\n\r\t";
  if (text == NULL) text = "";
  swerex__str_reserve(s, size); /* what it takes at least: one step where nothing is escaped */
  swerex__str_putc(s, '"');
  for (size_t at = 0; !s->failed;) {
    size_t n = swerex__json_run(text + at, size - at);
    swerex__str_add(s, text + at, n);
    at += n;
    if (at == size) break;
    unsigned char c = (unsigned char)text[at++];
    const char *found = (const char *)memchr(values, c, sizeof values - 1);
    if (found != NULL) {
      swerex__str_putc(s, '\\');
      swerex__str_putc(s, names[found - values]);
    } else {
      swerex__str_printf(s, "\\u%04x", c < 0x80 ? c : 0xDC00U + c);
    }
  }
  swerex__str_putc(s, '"');
}

static void swerex__json_add_text(swerex__str *s, const char *text) {
  swerex__json_add_string(s, text, strlen(text));
}

/** Write the key of the next member, and what goes before and after it. */
static void swerex__json_add_key(swerex__str *s, const char *key) {
  swerex__json_add_comma(s);
  swerex__json_add_text(s, key);
  swerex__str_putc(s, ':');
}

static void swerex__json_add_bool(swerex__str *s, bool value) {
  swerex__str_puts(s, value ? "true" : "false");
}

static void swerex__json_add_integer(swerex__str *s, int64_t value) {
  swerex__str_printf(s, "%lld", (long long)value);
}

/** Write a number; an infinite one as what reads back as such, and NaN as null. */
static void swerex__json_add_number(swerex__str *s, double value) {
  if (swerex__json_is_finite(value))
    swerex__util_add_double(s, value);
  else
    swerex__str_puts(s, value > 0 ? "1e999" : value < 0 ? "-1e999" : "null");
}

/** Write a node with all that is in it. */
static void swerex__json_add_node(swerex__str *s, const swerex__json *node) {
  bool object = node->type == SWEREX__JSON_OBJECT;
  switch (node->type) {
    case SWEREX__JSON_NULL: swerex__str_puts(s, "null"); break;
    case SWEREX__JSON_BOOL: swerex__json_add_bool(s, node->boolean); break;
    case SWEREX__JSON_STRING: swerex__json_add_string(s, node->string, node->size); break;
    case SWEREX__JSON_NUMBER:
      if (node->is_integer)
        swerex__json_add_integer(s, node->integer);
      else
        swerex__json_add_number(s, node->number);
      break;
    case SWEREX__JSON_ARRAY:
    case SWEREX__JSON_OBJECT:
      swerex__str_putc(s, object ? '{' : '[');
      for (const swerex__json *member = node->child; member != NULL && !s->failed;
           member = member->next) {
        swerex__json_add_comma(s);
        if (object) {
          swerex__json_add_string(s, member->key, member->key_size);
          swerex__str_putc(s, ':');
        }
        swerex__json_add_node(s, member);
      }
      swerex__str_putc(s, object ? '}' : ']');
      break;
  }
}

/* --- the whole --- */

/** Find line, column and characters before the place of a fault. */
static swerex__json_fault swerex__json_locate(const swerex__json_reader *reader) {
  swerex__json_fault fault = {reader->reason, reader->fault_at, 0, 1, 1};
  for (size_t i = 0; i < reader->fault_at; i++) {
    char c = reader->text[i];
    if (((unsigned char)c & 0xC0) == 0x80) continue;
    fault.position++;
    fault.column++;
    if (c != '\n') continue;
    fault.line++;
    fault.column = 1;
  }
  return fault;
}

/** Report a malformed text; extra_info is the body of FastAPI's answer 422. Returns false. */
static bool swerex__json_report(const swerex__json_fault *fault, swerex_error *err) {
  char message[160];
  swerex__str detail = swerex__str_new(NULL, 1024);
  snprintf(message, sizeof message, "%s: line %zu column %zu (char %zu)", fault->reason,
           fault->line, fault->column, fault->position);
  swerex__str_printf(&detail,
                     "{\"detail\":[{\"type\":\"json_invalid\",\"loc\":[\"body\",%zu],"
                     "\"msg\":\"JSON decode error\",\"input\":{},\"ctx\":{\"error\":",
                     fault->position);
  swerex__json_add_text(&detail, fault->reason);
  swerex__str_puts(&detail, "}}]}");
  if (detail.failed) {
    swerex__str_clear(&detail);
    return swerex__err_memory(err);
  }
  const char *const strings[4] = {message, detail.data, NULL, NULL};
  swerex__err_fill(err, SWEREX_E_JSON, strings);
  swerex__str_clear(&detail);
  return false;
}

/** Read a text into a document, which is then to be freed; it is empty after a failure. */
static bool swerex__json_parse(const swerex_allocator *allocator, const char *text, size_t size,
                               swerex__json_doc *doc, swerex_error *err) {
  swerex__json_reader reader;
  memset(&reader, 0, sizeof reader);
  memset(doc, 0, sizeof *doc);
  reader.allocator = allocator;
  reader.text = text != NULL ? text : "";
  reader.size = size;
  reader.doc = doc;
  if (size >= 3 && memcmp(reader.text, "\xEF\xBB\xBF", 3) == 0)
    swerex__json_fail(&reader, "Unexpected UTF-8 byte order mark", 0);
  else
    swerex__json_read_value(&reader);
  if (!reader.failed && swerex__json_peek(&reader) >= 0)
    swerex__json_fail(&reader, "Extra data", reader.at);
  swerex__mem_free(reader.open);
  if (!reader.failed) return true;
  swerex__json_free(doc);
  if (reader.reason == NULL) return swerex__err_memory(err);
  doc->fault = swerex__json_locate(&reader);
  return swerex__json_report(&doc->fault, err);
}

/* =============================================================================================
 * [valid] Values from JSON, and what is wrong with them
 * ========================================================================================== */
/* Collects the problems of a document, in pydantic's words: as one line of text for people, and as
 * the body of FastAPI's answer 422. Reads single values as laxly as pydantic does. What a peer sent
 * is repeated only up to a limit. */

/* --- what is wrong with a value --- */

typedef enum swerex__valid_fault {
  SWEREX__VALID_FINE,
  SWEREX__VALID_MISSING,
  SWEREX__VALID_NO_STRING,
  SWEREX__VALID_NO_LIST,
  SWEREX__VALID_NO_DICT,
  SWEREX__VALID_NO_BOOL,
  SWEREX__VALID_BAD_BOOL,
  SWEREX__VALID_NO_FLOAT,
  SWEREX__VALID_BAD_FLOAT,
  SWEREX__VALID_NO_INT,
  SWEREX__VALID_BAD_INT,
  SWEREX__VALID_FRACTION,
  SWEREX__VALID_BIG_INT,
  SWEREX__VALID_NEGATIVE,
  SWEREX__VALID_NOT_CHOICE,
  SWEREX__VALID_EXTRA,
  SWEREX__VALID_NO_OBJECT,
  SWEREX__VALID_NO_TAG,
  SWEREX__VALID_BAD_TAG,
  SWEREX__VALID_FAULT_COUNT
} swerex__valid_fault;

/** pydantic's error types and their words. */
static const struct {
  const char *type, *text;
} swerex__valid_faults[] = {
  {"", ""},
  {"missing", "Field required"},
  {"string_type", "Input should be a valid string"},
  {"list_type", "Input should be a valid list"},
  {"dict_type", "Input should be a valid dictionary"},
  {"bool_type", "Input should be a valid boolean"},
  {"bool_parsing", "Input should be a valid boolean, unable to interpret input"},
  {"float_type", "Input should be a valid number"},
  {"float_parsing", "Input should be a valid number, unable to parse string as a number"},
  {"int_type", "Input should be a valid integer"},
  {"int_parsing", "Input should be a valid integer, unable to parse string as an integer"},
  {"int_from_float", "Input should be a valid integer, got a number with a fractional part"},
  {"int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"},
  {"greater_than_equal", "Input should be greater than or equal to 0"},
  {"literal_error", "Input should be "},
  {"extra_forbidden", "Extra inputs are not permitted"},
  {"model_attributes_type",
   "Input should be a valid dictionary or object to extract fields from"},
  {"union_tag_not_found", "Unable to extract tag using discriminator "},
  {"union_tag_invalid", "Input tag "},
};
SWEREX__SYS_STATIC_ASSERT(SWEREX__SYS_COUNT(swerex__valid_faults) == SWEREX__VALID_FAULT_COUNT,
                          valid_faults);

#define SWEREX__VALID_PROBLEMS 20  /* reported; what is more is counted */
#define SWEREX__VALID_ECHO 16384   /* longest input that a problem repeats */
#define SWEREX__VALID_NAME_MAX 200 /* bytes of a foreign name in a message */

/** Where a problem is: the field, which of a union's rows, which element. */
typedef struct swerex__valid_place {
  const char *name;
  size_t name_size;
  bool whole;        /* the name is not a field's: the problem is with the body itself */
  const char *label; /* or NULL */
  const swerex__json *element; /* or NULL: of a list (by index), or of an object (by key) */
  size_t index;
} swerex__valid_place;

typedef struct swerex__valid_reader {
  const swerex_allocator *allocator;
  const char *tag;
  swerex__str message, detail; /* the problems so far: as text, and as JSON */
  swerex__str more, context;   /* of the next one: behind its words; its ctx */
  size_t problems;
  bool quiet;          /* only find out whether the value fits */
  bool borrow;         /* let bytes stay in the document */
  bool no_memory;
  const char *refused; /* the name of a field whose text C cannot hold, and why */
  const char *why;
} swerex__valid_reader;

static swerex__valid_reader swerex__valid_new_reader(const swerex_allocator *allocator,
                                                     const char *tag) {
  swerex__valid_reader reader;
  memset(&reader, 0, sizeof reader);
  reader.allocator = allocator;
  reader.tag = tag;
  reader.message = reader.detail = swerex__str_new(allocator, (size_t)1 << 20);
  reader.more = reader.context = swerex__str_new(allocator, (size_t)1 << 16);
  return reader;
}

/** Cut a foreign name to a length for messages, between characters. */
static size_t swerex__valid_cut(const char *name, size_t size) {
  if (size <= SWEREX__VALID_NAME_MAX) return size;
  size = SWEREX__VALID_NAME_MAX;
  while (size > 0 && ((unsigned char)name[size] & 0xC0) == 0x80) size--;
  return size;
}

/** Add a foreign name to a message, on one line and without NUL. */
static void swerex__valid_add_name(swerex__str *s, const char *name, size_t size) {
  size = swerex__valid_cut(name, size);
  for (size_t i = 0; i < size; i++)
    swerex__str_putc(s, (unsigned char)name[i] < 0x20 ? '?' : name[i]);
}

/** Add a node as JSON; null for one that is too long to repeat. */
static void swerex__valid_add_input(swerex__str *s, const swerex__json *node) {
  size_t before = s->size, max = s->max;
  if (s->failed) return;
  if (before + SWEREX__VALID_ECHO < max) s->max = before + SWEREX__VALID_ECHO;
  swerex__json_add_node(s, node);
  s->max = max;
  if (!s->failed) return;
  s->failed = false;
  s->size = before;
  swerex__str_puts(s, "null");
}

static void swerex__valid_add_place(swerex__valid_reader *reader,
                                    const swerex__valid_place *place) {
  swerex__str *text = &reader->message, *loc = &reader->detail;
  const swerex__json *element = place->element;
  swerex__str_puts(loc, "\"loc\":[\"body\"");
  if (!place->whole && reader->tag != NULL) {
    swerex__json_add_comma(loc);
    swerex__json_add_text(loc, reader->tag);
  }
  swerex__valid_add_name(text, place->name, place->name_size);
  if (!place->whole) {
    swerex__json_add_comma(loc);
    swerex__json_add_string(loc, place->name, swerex__valid_cut(place->name, place->name_size));
  }
  if (place->label != NULL) {
    swerex__str_printf(text, ".%s", place->label);
    swerex__json_add_comma(loc);
    swerex__json_add_text(loc, place->label);
  }
  if (element != NULL && element->key != NULL) {
    swerex__str_putc(text, '.');
    swerex__valid_add_name(text, element->key, element->key_size);
    swerex__json_add_comma(loc);
    swerex__json_add_string(loc, element->key, swerex__valid_cut(element->key, element->key_size));
  } else if (element != NULL) {
    swerex__str_printf(text, ".%zu", place->index);
    swerex__str_printf(loc, ",%zu", place->index);
  }
  swerex__str_putc(loc, ']');
}

/** Note a problem with a node. Returns false. */
static bool swerex__valid_report(swerex__valid_reader *reader, const swerex__valid_place *place,
                                 swerex__valid_fault fault, const swerex__json *node) {
  swerex__str *text = &reader->message, *detail = &reader->detail;
  swerex__str words = swerex__str_new(reader->allocator, (size_t)1 << 16);
  swerex__str_puts(&words, swerex__valid_faults[fault].text);
  if (reader->more.size > 0) swerex__str_add(&words, reader->more.data, reader->more.size);
  if (words.failed || reader->more.failed || reader->context.failed) {
    reader->no_memory = true;
  } else if (!reader->quiet && reader->problems++ < SWEREX__VALID_PROBLEMS) {
    if (text->size > 0) swerex__str_puts(text, "; ");
    swerex__str_puts(detail, detail->size > 0 ? ",{" : "{\"detail\":[{");
    swerex__str_printf(detail, "\"type\":\"%s\",", swerex__valid_faults[fault].type);
    swerex__valid_add_place(reader, place);
    swerex__str_puts(text, ": ");
    swerex__str_add(text, words.data, words.size);
    swerex__json_add_key(detail, "msg");
    swerex__json_add_string(detail, words.data, words.size);
    swerex__json_add_key(detail, "input");
    swerex__valid_add_input(detail, node);
    if (reader->context.size > 0) {
      swerex__json_add_key(detail, "ctx");
      swerex__str_add(detail, reader->context.data, reader->context.size);
    }
    swerex__str_putc(detail, '}');
  }
  swerex__str_clear(&words);
  swerex__str_clear(&reader->more);
  swerex__str_clear(&reader->context);
  return false;
}

/** Release the reader, and say what it found; true: nothing. */
static bool swerex__valid_finish(swerex__valid_reader *reader, swerex_error *err) {
  bool ok = false;
  if (reader->problems > SWEREX__VALID_PROBLEMS)
    swerex__str_printf(&reader->message, "; and %zu more",
                       reader->problems - SWEREX__VALID_PROBLEMS);
  if (reader->problems > 0) swerex__str_puts(&reader->detail, "]}");
  if (reader->no_memory || reader->message.failed || reader->detail.failed) {
    swerex__err_memory(err);
  } else if (reader->problems > 0) {
    const char *const strings[4] = {reader->message.data, reader->detail.data, NULL, NULL};
    swerex__err_fill(err, SWEREX_E_VALIDATION, strings);
  } else if (reader->refused != NULL) {
    swerex__err_set(err, SWEREX_E_VALUE, "%s: %s", reader->refused, reader->why);
  } else {
    ok = true;
  }
  swerex__str_clear(&reader->message);
  swerex__str_clear(&reader->detail);
  return ok;
}

/* --- single values --- */

/** Skip white space at both ends of a string. */
static const char *swerex__valid_trim(const swerex__json *node, size_t *size) {
  const char *text = node->string, *end = text + node->size;
  while (text < end && (*text == ' ' || (*text >= '\t' && *text <= '\r'))) text++;
  while (text < end && (end[-1] == ' ' || (end[-1] >= '\t' && end[-1] <= '\r'))) end--;
  *size = (size_t)(end - text);
  return text;
}

static swerex__valid_fault swerex__valid_to_bool(const swerex__json *node, bool *out) {
  static const char *const words[] = {"0", "off", "f", "false", "n", "no",
                                      "1", "on",  "t", "true",  "y", "yes"};
  *out = node->boolean;
  if (node->type == SWEREX__JSON_BOOL) return SWEREX__VALID_FINE;
  if (node->type == SWEREX__JSON_NUMBER) {
    *out = node->number == 1;
    if (node->number == 0 || node->number == 1) return SWEREX__VALID_FINE;
    bool whole = node->number > -9e18 && node->number < 9e18 &&
                 (double)(int64_t)node->number == node->number;
    return whole ? SWEREX__VALID_BAD_BOOL : SWEREX__VALID_NO_BOOL;
  }
  if (node->type != SWEREX__JSON_STRING) return SWEREX__VALID_NO_BOOL;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(words); i++) {
    size_t n = 0;
    while (n < node->size && node->string[n] != '\0' &&
           ((node->string[n] | 0x20) == words[i][n] || node->string[n] == words[i][n]))
      n++;
    if (n < node->size || words[i][n] != '\0') continue;
    *out = i >= SWEREX__SYS_COUNT(words) / 2;
    return SWEREX__VALID_FINE;
  }
  return SWEREX__VALID_BAD_BOOL;
}

static swerex__valid_fault swerex__valid_to_double(const swerex__json *node, double *out) {
  size_t size, i = 0;
  *out = node->type == SWEREX__JSON_BOOL ? node->boolean : node->number;
  if (node->type == SWEREX__JSON_BOOL || node->type == SWEREX__JSON_NUMBER)
    return SWEREX__VALID_FINE;
  if (node->type != SWEREX__JSON_STRING) return SWEREX__VALID_NO_FLOAT;
  const char *text = swerex__valid_trim(node, &size);
  while (i < size && text[i] != '\0' && strchr("0123456789+-.eE", text[i]) != NULL) i++;
  bool sign = size > 1 && text[0] == '+' && text[1] != '-' && text[1] != '+';
  if (i == size && swerex__util_parse_double(text + sign, size - sign, out))
    return SWEREX__VALID_FINE;
  return SWEREX__VALID_BAD_FLOAT;
}

/** Read text such as "-12" or "12.0". */
static swerex__valid_fault swerex__valid_text_to_integer(const swerex__json *node, int64_t *out) {
  size_t size, start, end;
  const char *text = swerex__valid_trim(node, &size);
  bool negative = size > 0 && text[0] == '-';
  start = end = negative || (size > 0 && text[0] == '+');
  while (end < size && text[end] >= '0' && text[end] <= '9') end++;
  size_t rest = end;
  if (end + 1 < size && text[end] == '.') {
    rest++;
    while (rest < size && text[rest] == '0') rest++;
  }
  if (end == start || rest < size) return SWEREX__VALID_BAD_INT;
  return swerex__json_to_integer(text + start, end - start, negative, out)
           ? SWEREX__VALID_FINE
           : SWEREX__VALID_BIG_INT;
}

static swerex__valid_fault swerex__valid_to_integer(const swerex__json *node, int64_t *out) {
  *out = node->type == SWEREX__JSON_BOOL ? node->boolean : node->integer;
  if (node->type == SWEREX__JSON_BOOL || node->is_integer) return SWEREX__VALID_FINE;
  if (node->type == SWEREX__JSON_STRING) return swerex__valid_text_to_integer(node, out);
  if (node->type != SWEREX__JSON_NUMBER) return SWEREX__VALID_NO_INT;
  if (!(node->number > -9.2e18 && node->number < 9.2e18)) return SWEREX__VALID_BIG_INT;
  *out = (int64_t)node->number;
  return (double)*out == node->number ? SWEREX__VALID_FINE : SWEREX__VALID_FRACTION;
}

static swerex__valid_fault swerex__valid_to_seconds(const swerex__json *node, double *out) {
  swerex__valid_fault fault = swerex__valid_to_double(node, out);
  if (fault != SWEREX__VALID_FINE) return fault;
  if (*out <= SWEREX_NOW)
    *out = SWEREX_NOW;
  else if (!swerex__json_is_finite(*out))
    *out = SWEREX_FOREVER;
  return SWEREX__VALID_FINE;
}

/* =============================================================================================
 * [model] Structs as JSON
 * ========================================================================================== */
/* One table of rows per struct; all else is one engine: encode, decode with defaults and checks,
 * copy, clear. Rows are in the order of the wire. Two rows with one name are a union: the value
 * takes the first that fits. A row of kind LITERAL has no member. Strings and lists are one block
 * each (a list's pointers and texts together), so that clear needs no lengths. Callbacks are not in
 * JSON, but a copy has them. Errors have pydantic's words; extra_info is FastAPI's body for 422. */

typedef enum swerex__model_kind {
  SWEREX__MODEL_BOOL,
  SWEREX__MODEL_NOT,       /* bool, the opposite of JSON's, which is true by default */
  SWEREX__MODEL_INT,       /* int, zero: the default; JSON 0 or less: -1 */
  SWEREX__MODEL_EXIT_CODE, /* int; SWEREX_NO_EXIT_CODE: null */
  SWEREX__MODEL_SIZE,      /* size_t, zero: the default */
  SWEREX__MODEL_SECONDS,   /* double, zero: the default; negative: null; SWEREX_NOW: 0 */
  SWEREX__MODEL_STRING,    /* const char * */
  SWEREX__MODEL_BYTES,     /* swerex_bytes */
  SWEREX__MODEL_LIST,      /* const char *const *, ends in NULL; JSON: list */
  SWEREX__MODEL_MAP,       /* the same, KEY=VALUE; JSON: object */
  SWEREX__MODEL_ENUM,      /* an enum whose 0 is the default */
  SWEREX__MODEL_LITERAL    /* no member: always the row's text */
} swerex__model_kind;

#define SWEREX__MODEL_REQUIRED 1U
#define SWEREX__MODEL_NULLABLE 2U /* null means not given, and not given is null */
#define SWEREX__MODEL_OURS 4U     /* unknown to Python: written only when it is not the default */

typedef struct swerex__model_row {
  const char *name; /* in JSON */
  swerex__model_kind kind;
  unsigned flags;
  size_t offset;            /* of the member */
  double number;            /* default of a number; of SECONDS, 0: none */
  const char *text;         /* default of a STRING, value of a LITERAL, choices of an ENUM */
  const char *const *names; /* of an ENUM, in the order of its values; ends in NULL */
} swerex__model_row;

#define SWEREX__MODEL_FORBID 1U /* unknown fields are errors */

typedef struct swerex__model {
  const char *name; /* of the Python class */
  size_t size;      /* of the struct */
  const swerex__model_row *rows;
  size_t count;
  unsigned flags;
  const char *tag; /* what a discriminated union of Python's has in an error's loc; or NULL */
} swerex__model;

/* --- tables --- */

static const char *const swerex__model_pulls[] = {"missing", "never", "always", NULL};
static const char *const swerex__model_containers[] = {"docker", "podman", NULL};
static const char *const swerex__model_transports[] = {"tcp", "stdio", NULL};
static const char *const swerex__model_checks[] = {"raise", "silent", "ignore", NULL};
SWEREX__SYS_STATIC_ASSERT(sizeof(swerex_check) == sizeof(int), model_enum);

/* clang-format off */
#define SWEREX__MODEL_ROW(type, member, kind, flags, number, text) \
  {#member, SWEREX__MODEL_##kind, flags, offsetof(swerex_##type, member), number, text, NULL},
#define SWEREX__MODEL_LITERAL_ROW(name, text) \
  {name, SWEREX__MODEL_LITERAL, 0, 0, 0, text, NULL},
#define SWEREX__MODEL_NEED SWEREX__MODEL_REQUIRED
#define SWEREX__MODEL_NULL SWEREX__MODEL_NULLABLE
#define SWEREX__MODEL_NULL_OURS (SWEREX__MODEL_NULLABLE | SWEREX__MODEL_OURS)

static const swerex__model_row swerex__model_is_alive_request_rows[] = {
  SWEREX__MODEL_ROW(is_alive_request, timeout, SECONDS, SWEREX__MODEL_NULL, 0, NULL)
};
static const swerex__model_row swerex__model_is_alive_response_rows[] = {
  SWEREX__MODEL_ROW(is_alive_response, is_alive, BOOL, SWEREX__MODEL_NEED, 0, NULL)
  SWEREX__MODEL_ROW(is_alive_response, message, BYTES, 0, 0, NULL)
};
static const swerex__model_row swerex__model_create_request_rows[] = {
  SWEREX__MODEL_ROW(create_bash_session_request, startup_source, LIST, 0, 0, NULL)
  SWEREX__MODEL_ROW(create_bash_session_request, session, STRING, 0, 0, "default")
  SWEREX__MODEL_LITERAL_ROW("session_type", "bash")
  SWEREX__MODEL_ROW(create_bash_session_request, startup_timeout, SECONDS, 0, 10.0, NULL)
  SWEREX__MODEL_ROW(create_bash_session_request, cwd, STRING, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(create_bash_session_request, env, MAP, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(create_bash_session_request, keep_daemons, BOOL, SWEREX__MODEL_OURS, 0, NULL)
};
static const swerex__model_row swerex__model_create_response_rows[] = {
  SWEREX__MODEL_ROW(create_bash_session_response, output, BYTES, 0, 0, NULL)
  SWEREX__MODEL_LITERAL_ROW("session_type", "bash")
};
static const swerex__model_row swerex__model_action_rows[] = {
  SWEREX__MODEL_ROW(bash_action, command, STRING, SWEREX__MODEL_NEED, 0, NULL)
  SWEREX__MODEL_ROW(bash_action, session, STRING, 0, 0, "default")
  SWEREX__MODEL_ROW(bash_action, timeout, SECONDS, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(bash_action, is_interactive_command, BOOL, 0, 0, NULL)
  SWEREX__MODEL_ROW(bash_action, is_interactive_quit, BOOL, 0, 0, NULL)
  {"check", SWEREX__MODEL_ENUM, 0, offsetof(swerex_bash_action, check), 0,
   "'silent', 'raise' or 'ignore'", swerex__model_checks},
  SWEREX__MODEL_ROW(bash_action, error_msg, STRING, 0, 0, "")
  SWEREX__MODEL_ROW(bash_action, expect, LIST, 0, 0, NULL)
  SWEREX__MODEL_LITERAL_ROW("action_type", "bash")
  SWEREX__MODEL_ROW(bash_action, idle_timeout, SECONDS, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(bash_action, max_output, SIZE, SWEREX__MODEL_NULL_OURS, 0, NULL)
};
static const swerex__model_row swerex__model_interrupt_rows[] = {
  SWEREX__MODEL_ROW(bash_interrupt_action, session, STRING, 0, 0, "default")
  SWEREX__MODEL_ROW(bash_interrupt_action, timeout, SECONDS, 0, 0.2, NULL)
  SWEREX__MODEL_ROW(bash_interrupt_action, n_retry, INT, 0, 3, NULL)
  SWEREX__MODEL_ROW(bash_interrupt_action, expect, LIST, 0, 0, NULL)
  SWEREX__MODEL_LITERAL_ROW("action_type", "bash_interrupt")
};
static const swerex__model_row swerex__model_observation_rows[] = {
  SWEREX__MODEL_ROW(bash_observation, output, BYTES, 0, 0, NULL)
  SWEREX__MODEL_ROW(bash_observation, exit_code, EXIT_CODE, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(bash_observation, failure_reason, BYTES, 0, 0, NULL)
  SWEREX__MODEL_ROW(bash_observation, expect_string, BYTES, 0, 0, NULL)
  SWEREX__MODEL_LITERAL_ROW("session_type", "bash")
};
static const swerex__model_row swerex__model_close_session_rows[] = {
  SWEREX__MODEL_ROW(close_bash_session_request, session, STRING, 0, 0, "default")
  SWEREX__MODEL_LITERAL_ROW("session_type", "bash")
};
static const swerex__model_row swerex__model_session_closed_rows[] = {
  SWEREX__MODEL_LITERAL_ROW("session_type", "bash")
};
static const swerex__model_row swerex__model_command_rows[] = {
  SWEREX__MODEL_ROW(command, command, STRING, SWEREX__MODEL_NEED, 0, NULL)
  {"command", SWEREX__MODEL_LIST, SWEREX__MODEL_NEED, offsetof(swerex_command, argv), 0, NULL,
   NULL},
  SWEREX__MODEL_ROW(command, timeout, SECONDS, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(command, shell, BOOL, 0, 0, NULL)
  SWEREX__MODEL_ROW(command, check, BOOL, 0, 0, NULL)
  SWEREX__MODEL_ROW(command, error_msg, STRING, 0, 0, "")
  SWEREX__MODEL_ROW(command, env, MAP, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(command, cwd, STRING, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(command, merge_output_streams, BOOL, 0, 0, NULL)
  SWEREX__MODEL_ROW(command, idle_timeout, SECONDS, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(command, max_output, SIZE, SWEREX__MODEL_NULL_OURS, 0, NULL)
};
static const swerex__model_row swerex__model_command_response_rows[] = {
  {"stdout", SWEREX__MODEL_BYTES, 0, offsetof(swerex_command_response, stdout_text), 0, NULL,
   NULL},
  {"stderr", SWEREX__MODEL_BYTES, 0, offsetof(swerex_command_response, stderr_text), 0, NULL,
   NULL},
  SWEREX__MODEL_ROW(command_response, exit_code, EXIT_CODE, SWEREX__MODEL_NULL, 0, NULL)
};
static const swerex__model_row swerex__model_read_file_request_rows[] = {
  SWEREX__MODEL_ROW(read_file_request, path, STRING, SWEREX__MODEL_NEED, 0, NULL)
  SWEREX__MODEL_ROW(read_file_request, encoding, STRING, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(read_file_request, errors, STRING, SWEREX__MODEL_NULL, 0, NULL)
};
static const swerex__model_row swerex__model_read_file_response_rows[] = {
  SWEREX__MODEL_ROW(read_file_response, content, BYTES, 0, 0, NULL)
};
static const swerex__model_row swerex__model_write_file_request_rows[] = {
  SWEREX__MODEL_ROW(write_file_request, content, BYTES, SWEREX__MODEL_NEED, 0, NULL)
  SWEREX__MODEL_ROW(write_file_request, path, STRING, SWEREX__MODEL_NEED, 0, NULL)
};
static const swerex__model_row swerex__model_upload_request_rows[] = {
  SWEREX__MODEL_ROW(upload_request, source_path, STRING, SWEREX__MODEL_NEED, 0, NULL)
  SWEREX__MODEL_ROW(upload_request, target_path, STRING, SWEREX__MODEL_NEED, 0, NULL)
};
static const swerex__model_row swerex__model_local_config_rows[] = {
  SWEREX__MODEL_LITERAL_ROW("type", "local")
  SWEREX__MODEL_ROW(local_config, max_output, SIZE, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(local_config, max_file, SIZE, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(local_config, keep_daemons, BOOL, SWEREX__MODEL_OURS, 0, NULL)
};
static const swerex__model_row swerex__model_dummy_config_rows[] = {
  SWEREX__MODEL_LITERAL_ROW("type", "dummy")
  SWEREX__MODEL_ROW(dummy_config, outputs, LIST, SWEREX__MODEL_NULL_OURS, 0, NULL)
};
static const swerex__model_row swerex__model_remote_config_rows[] = {
  SWEREX__MODEL_LITERAL_ROW("type", "remote")
  SWEREX__MODEL_ROW(remote_config, auth_token, STRING, SWEREX__MODEL_NEED, 0, NULL)
  SWEREX__MODEL_ROW(remote_config, host, STRING, 0, 0, "http://127.0.0.1")
  SWEREX__MODEL_ROW(remote_config, port, INT, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(remote_config, timeout, SECONDS, 0, 0.15, NULL)
  SWEREX__MODEL_ROW(remote_config, connect_timeout, SECONDS, SWEREX__MODEL_OURS, 10.0, NULL)
  SWEREX__MODEL_ROW(remote_config, request_timeout, SECONDS, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(remote_config, num_retries, INT, SWEREX__MODEL_OURS, 3, NULL)
  SWEREX__MODEL_ROW(remote_config, kill_on_disconnect, BOOL, SWEREX__MODEL_OURS, 0, NULL)
};

static const swerex__model_row swerex__model_docker_config_rows[] = {
  SWEREX__MODEL_ROW(docker_config, image, STRING, 0, 0, "python:3.11")
  SWEREX__MODEL_ROW(docker_config, port, INT, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(docker_config, docker_args, LIST, 0, 0, NULL)
  SWEREX__MODEL_ROW(docker_config, startup_timeout, SECONDS, 0, 180.0, NULL)
  {"pull", SWEREX__MODEL_ENUM, 0, offsetof(swerex_docker_config, pull), 0,
   "'missing', 'never' or 'always'", swerex__model_pulls},
  SWEREX__MODEL_ROW(docker_config, remove_images, BOOL, 0, 0, NULL)
  SWEREX__MODEL_ROW(docker_config, python_standalone_dir, STRING, SWEREX__MODEL_NULL, 0, NULL)
  SWEREX__MODEL_ROW(docker_config, platform, STRING, SWEREX__MODEL_NULL, 0, NULL)
  {"remove_container", SWEREX__MODEL_NOT, 0, offsetof(swerex_docker_config, keep_container), 0,
   NULL, NULL},
  {"container_runtime", SWEREX__MODEL_ENUM, 0, offsetof(swerex_docker_config, container_runtime), 0,
   "'docker' or 'podman'", swerex__model_containers},
  SWEREX__MODEL_LITERAL_ROW("type", "docker")
  SWEREX__MODEL_ROW(docker_config, exec_shell, LIST, SWEREX__MODEL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(docker_config, docker_internal_host, STRING, SWEREX__MODEL_NULL_OURS, 0, NULL)
  SWEREX__MODEL_ROW(docker_config, remote_binary, STRING, SWEREX__MODEL_NULL_OURS, 0, NULL)
  {"transport", SWEREX__MODEL_ENUM, SWEREX__MODEL_OURS, offsetof(swerex_docker_config, transport),
   0, "'tcp' or 'stdio'", swerex__model_transports},
  SWEREX__MODEL_ROW(docker_config, labels, MAP, SWEREX__MODEL_NULL_OURS, 0, NULL)
};

#define SWEREX__MODEL_OF(name, type, rows, flags, tag) \
  {name, sizeof(swerex_##type), swerex__model_##rows##_rows, \
   SWEREX__SYS_COUNT(swerex__model_##rows##_rows), flags, tag},
#define SWEREX__MODEL_EMPTY(name, type) {name, sizeof(swerex_##type), NULL, 0, 0, NULL},

/** In the order of enum swerex_model. */
static const swerex__model swerex__model_table[] = {
  SWEREX__MODEL_OF("IsAliveResponse", is_alive_response, is_alive_response, 0, NULL)
  SWEREX__MODEL_OF("CreateBashSessionRequest", create_bash_session_request, create_request, 0,
                   "bash")
  SWEREX__MODEL_OF("CreateBashSessionResponse", create_bash_session_response, create_response, 0,
                   NULL)
  SWEREX__MODEL_OF("BashAction", bash_action, action, 0, "bash")
  SWEREX__MODEL_OF("BashInterruptAction", bash_interrupt_action, interrupt, 0, "bash_interrupt")
  SWEREX__MODEL_OF("BashObservation", bash_observation, observation, 0, NULL)
  SWEREX__MODEL_OF("CloseBashSessionRequest", close_bash_session_request, close_session, 0, "bash")
  SWEREX__MODEL_OF("CloseBashSessionResponse", close_bash_session_response, session_closed, 0,
                   NULL)
  SWEREX__MODEL_OF("Command", command, command, 0, NULL)
  SWEREX__MODEL_OF("CommandResponse", command_response, command_response, 0, NULL)
  SWEREX__MODEL_OF("ReadFileRequest", read_file_request, read_file_request, 0, NULL)
  SWEREX__MODEL_OF("ReadFileResponse", read_file_response, read_file_response, 0, NULL)
  SWEREX__MODEL_OF("WriteFileRequest", write_file_request, write_file_request, 0, NULL)
  SWEREX__MODEL_EMPTY("WriteFileResponse", write_file_response)
  SWEREX__MODEL_OF("UploadRequest", upload_request, upload_request, 0, NULL)
  SWEREX__MODEL_EMPTY("UploadResponse", upload_response)
  SWEREX__MODEL_EMPTY("CloseResponse", close_response)
  SWEREX__MODEL_OF("LocalDeploymentConfig", local_config, local_config, SWEREX__MODEL_FORBID, NULL)
  SWEREX__MODEL_OF("DummyDeploymentConfig", dummy_config, dummy_config, SWEREX__MODEL_FORBID, NULL)
  SWEREX__MODEL_OF("RemoteDeploymentConfig", remote_config, remote_config, SWEREX__MODEL_FORBID,
                   NULL)
  SWEREX__MODEL_OF("DockerDeploymentConfig", docker_config, docker_config, SWEREX__MODEL_FORBID,
                   NULL)
};
SWEREX__SYS_STATIC_ASSERT(SWEREX__SYS_COUNT(swerex__model_table) == SWEREX_MODEL_COUNT_ - 1,
                          model_table);

/** Requests that have no model in Python, and travel without a body. */
static const swerex__model swerex__model_is_alive_request =
  {"is_alive", sizeof(swerex_is_alive_request), swerex__model_is_alive_request_rows,
   SWEREX__SYS_COUNT(swerex__model_is_alive_request_rows), 0, NULL};
static const swerex__model swerex__model_close_request =
  {"close", sizeof(swerex_close_request), NULL, 0, 0, NULL};

/* clang-format on */
#undef SWEREX__MODEL_ROW
#undef SWEREX__MODEL_LITERAL_ROW
#undef SWEREX__MODEL_OF
#undef SWEREX__MODEL_EMPTY
#undef SWEREX__MODEL_NEED
#undef SWEREX__MODEL_NULL
#undef SWEREX__MODEL_NULL_OURS

/** Return a model; NULL for a number that is none. */
static const swerex__model *swerex__model_of(swerex_model id) {
  if ((int)id < 1 || (int)id >= (int)SWEREX_MODEL_COUNT_) return NULL;
  return &swerex__model_table[(int)id - 1];
}

/** Count the rows from `first` on that share its name: more than one is a union. */
static size_t swerex__model_group(const swerex__model *model, size_t first) {
  size_t n = 1;
  while (first + n < model->count &&
         strcmp(model->rows[first + n].name, model->rows[first].name) == 0)
    n++;
  return n;
}

static const void *swerex__model_member(const swerex__model_row *row, const void *value) {
  return (const char *)value + row->offset;
}

static bool swerex__model_is_pointer(const swerex__model_row *row) {
  return row->kind == SWEREX__MODEL_STRING || row->kind == SWEREX__MODEL_LIST ||
         row->kind == SWEREX__MODEL_MAP;
}

/** Return what a STRING, LIST or MAP member points to; all are data pointers of one size. */
static const void *swerex__model_pointer(const swerex__model_row *row, const void *value) {
  const void *pointer;
  memcpy(&pointer, swerex__model_member(row, value), sizeof pointer);
  return pointer;
}

/* --- check and encode --- */

static bool swerex__model_check_map(const swerex__model_row *row, const void *value,
                                    swerex_error *err) {
  const char *const *entry = (const char *const *)swerex__model_pointer(row, value);
  for (size_t i = 0; entry != NULL && entry[i] != NULL; i++)
    if (strchr(entry[i], '=') == NULL)
      return swerex__err_set(err, SWEREX_E_VALUE, "%s.%zu: '%.200s' is not KEY=VALUE", row->name,
                             i, entry[i]);
  return true;
}

static bool swerex__model_check_seconds(const swerex__model_row *row, const void *value,
                                        swerex_error *err) {
  double seconds = *(const double *)swerex__model_member(row, value);
  if (seconds == seconds) return true; /* all but NaN */
  return swerex__err_set(err, SWEREX_E_VALUE, "%s: NaN is not a number of seconds", row->name);
}

static bool swerex__model_check_enum(const swerex__model_row *row, const void *value,
                                     swerex_error *err) {
  int number, count = 0;
  memcpy(&number, swerex__model_member(row, value), sizeof number);
  while (row->names[count] != NULL) count++;
  if (number >= 0 && number < count) return true;
  return swerex__err_set(err, SWEREX_E_VALUE, "%s: Input should be %s", row->name, row->text);
}

static bool swerex__model_check_bytes(const swerex__model_row *row, const void *value,
                                      swerex_error *err) {
  const swerex_bytes *bytes = (const swerex_bytes *)swerex__model_member(row, value);
  if (bytes->data != NULL || bytes->size == 0) return true;
  return swerex__err_set(err, SWEREX_E_VALUE, "%s: %zu bytes at NULL", row->name, bytes->size);
}

/** Check that what is required is there; of a union, one and no more. */
static bool swerex__model_check_required(const swerex__model_row *rows, size_t count,
                                         const void *value, swerex_error *err) {
  size_t given = 0;
  if ((rows->flags & SWEREX__MODEL_REQUIRED) == 0 || !swerex__model_is_pointer(rows)) return true;
  for (size_t i = 0; i < count; i++) given += swerex__model_pointer(&rows[i], value) != NULL;
  if (given == 1) return true;
  if (given == 0)
    return swerex__err_set(err, SWEREX_E_VALIDATION, "%s: Field required", rows->name);
  return swerex__err_set(err, SWEREX_E_VALUE, "%s: given as text and as list", rows->name);
}

/** Check a struct that a caller filled. */
static bool swerex__model_check(const swerex__model *model, const void *value, swerex_error *err) {
  bool ok = true;
  for (size_t i = 0; ok && i < model->count; i++) {
    const swerex__model_row *row = &model->rows[i];
    bool first = i == 0 || strcmp(row[-1].name, row->name) != 0;
    if (first)
      ok = swerex__model_check_required(row, swerex__model_group(model, i), value, err);
    if (ok && row->kind == SWEREX__MODEL_MAP) ok = swerex__model_check_map(row, value, err);
    if (ok && row->kind == SWEREX__MODEL_ENUM) ok = swerex__model_check_enum(row, value, err);
    if (ok && row->kind == SWEREX__MODEL_BYTES) ok = swerex__model_check_bytes(row, value, err);
    if (ok && row->kind == SWEREX__MODEL_SECONDS) ok = swerex__model_check_seconds(row, value, err);
  }
  return ok;
}

/** Tell whether a member is as zero would leave it; for rows of our own. */
static bool swerex__model_is_default(const swerex__model_row *row, const void *value) {
  const void *member = swerex__model_member(row, value);
  if (swerex__model_is_pointer(row)) return swerex__model_pointer(row, value) == NULL;
  switch (row->kind) {
    case SWEREX__MODEL_BOOL:
    case SWEREX__MODEL_NOT: return !*(const bool *)member;
    case SWEREX__MODEL_ENUM: return *(const int *)member == 0;
    case SWEREX__MODEL_INT: return *(const int *)member == 0;
    case SWEREX__MODEL_SIZE: return *(const size_t *)member == 0;
    case SWEREX__MODEL_SECONDS:
      return *(const double *)member == 0 || (row->number == 0 && *(const double *)member < 0);
    default: return false;
  }
}

static void swerex__model_write_seconds(const swerex__model_row *row, double seconds,
                                        swerex__str *out) {
  if (seconds == 0) seconds = row->number > 0 ? row->number : SWEREX_FOREVER;
  if (seconds < 0 || !swerex__json_is_finite(seconds))
    swerex__str_puts(out, "null");
  else
    swerex__json_add_number(out, seconds <= SWEREX_NOW ? 0 : seconds);
}

static void swerex__model_write_list(const swerex__model_row *row, const char *const *list,
                                     swerex__str *out) {
  bool map = row->kind == SWEREX__MODEL_MAP;
  if (list == NULL && (row->flags & SWEREX__MODEL_NULLABLE) != 0) {
    swerex__str_puts(out, "null");
    return;
  }
  swerex__str_putc(out, map ? '{' : '[');
  for (; list != NULL && *list != NULL; list++) {
    const char *text = *list, *equals = map ? strchr(text, '=') : NULL;
    swerex__json_add_comma(out);
    if (equals != NULL) {
      swerex__json_add_string(out, text, (size_t)(equals - text));
      swerex__str_putc(out, ':');
      text = equals + 1;
    }
    swerex__json_add_text(out, text);
  }
  swerex__str_putc(out, map ? '}' : ']');
}

static void swerex__model_write_string(const swerex__model_row *row, const char *text,
                                       swerex__str *out) {
  if (text == NULL) text = row->text;
  if (text == NULL)
    swerex__str_puts(out, "null");
  else
    swerex__json_add_text(out, text);
}

static void swerex__model_write(const swerex__model_row *row, const void *value,
                                swerex__str *out) {
  const void *member = swerex__model_member(row, value);
  const swerex_bytes *bytes = (const swerex_bytes *)member;
  int number = 0;
  swerex__json_add_key(out, row->name);
  switch (row->kind) {
    case SWEREX__MODEL_BOOL: swerex__json_add_bool(out, *(const bool *)member); break;
    case SWEREX__MODEL_NOT: swerex__json_add_bool(out, !*(const bool *)member); break;
    case SWEREX__MODEL_INT:
      number = *(const int *)member;
      swerex__json_add_integer(out, number == 0 ? (int)row->number : number < 0 ? 0 : number);
      break;
    case SWEREX__MODEL_EXIT_CODE:
      number = *(const int *)member;
      if (number == SWEREX_NO_EXIT_CODE)
        swerex__str_puts(out, "null");
      else
        swerex__json_add_integer(out, number);
      break;
    case SWEREX__MODEL_SIZE: swerex__str_printf(out, "%zu", *(const size_t *)member); break;
    case SWEREX__MODEL_SECONDS:
      swerex__model_write_seconds(row, *(const double *)member, out);
      break;
    case SWEREX__MODEL_STRING:
      swerex__model_write_string(row, (const char *)swerex__model_pointer(row, value), out);
      break;
    case SWEREX__MODEL_BYTES: swerex__json_add_string(out, bytes->data, bytes->size); break;
    case SWEREX__MODEL_LIST:
    case SWEREX__MODEL_MAP:
      swerex__model_write_list(row, (const char *const *)swerex__model_pointer(row, value), out);
      break;
    case SWEREX__MODEL_ENUM:
      memcpy(&number, member, sizeof number);
      swerex__json_add_text(out, row->names[number]);
      break;
    case SWEREX__MODEL_LITERAL: swerex__json_add_text(out, row->text); break;
  }
}

/** Write a struct as JSON. */
static bool swerex__model_encode(const swerex__model *model, const void *value, swerex__str *out,
                                 swerex_error *err) {
  if (!swerex__model_check(model, value, err)) return false;
  swerex__str_putc(out, '{');
  for (size_t i = 0, n; i < model->count; i += n) {
    const swerex__model_row *row = &model->rows[i];
    n = swerex__model_group(model, i);
    for (size_t k = 0; k + 1 < n && swerex__model_pointer(row, value) == NULL; k++) row++;
    if ((row->flags & SWEREX__MODEL_OURS) != 0 && swerex__model_is_default(row, value)) continue;
    swerex__model_write(row, value, out);
  }
  swerex__str_putc(out, '}');
  return !out->failed || swerex__err_memory(err);
}

/* --- copy and clear --- */

/** Release what a struct owns, all of it or all but its BYTES, and reset it to zero. */
static void swerex__model_release(const swerex__model *model, bool borrowed, void *value) {
  for (size_t i = 0; i < model->count; i++) {
    const swerex__model_row *row = &model->rows[i];
    if (swerex__model_is_pointer(row))
      swerex__mem_free(swerex__model_pointer(row, value));
    else if (row->kind == SWEREX__MODEL_BYTES && !borrowed)
      swerex__mem_free(((const swerex_bytes *)swerex__model_member(row, value))->data);
  }
  memset(value, 0, model->size);
}

static void swerex__model_clear(const swerex__model *model, void *value) {
  swerex__model_release(model, false, value);
}

/** Set a member; `pointer` becomes the struct's. False if it is NULL. */
static bool swerex__model_set(const swerex__model_row *row, void *value, const void *pointer) {
  memcpy((char *)value + row->offset, &pointer, sizeof pointer);
  return pointer != NULL;
}

/** Make a list for `count` texts of `size` bytes in all, NULs included; they go to *text. */
static const char **swerex__model_new_list(const swerex_allocator *allocator, size_t count,
                                           size_t size, char **text) {
  size_t head = (count + 1) * sizeof(char *);
  if (count > SIZE_MAX / sizeof(char *) - 1 || size > SIZE_MAX - head) return NULL;
  const char **list = (const char **)swerex__mem_grow(allocator, NULL, head + size, 1);
  if (list == NULL) return NULL;
  list[count] = NULL;
  *text = (char *)(list + count + 1);
  return list;
}

static const char **swerex__model_copy_list(const swerex_allocator *allocator,
                                            const char *const *from) {
  size_t count = 0, size = 0;
  char *text = NULL;
  for (; from[count] != NULL; count++) size += strlen(from[count]) + 1;
  const char **list = swerex__model_new_list(allocator, count, size, &text);
  for (size_t i = 0; list != NULL && i < count; i++) {
    list[i] = text;
    size = strlen(from[i]) + 1;
    memcpy(text, from[i], size);
    text += size;
  }
  return list;
}

static bool swerex__model_copy_member(const swerex_allocator *allocator,
                                      const swerex__model_row *row, const void *from, void *to) {
  if (row->kind == SWEREX__MODEL_BYTES) {
    const swerex_bytes *source = (const swerex_bytes *)swerex__model_member(row, from);
    swerex_bytes *bytes = (swerex_bytes *)((char *)to + row->offset);
    if (source->data == NULL) return true;
    bytes->data = swerex__mem_copy(allocator, source->data, source->size);
    bytes->size = source->size;
    return bytes->data != NULL;
  }
  const void *pointer = swerex__model_is_pointer(row) ? swerex__model_pointer(row, from) : NULL;
  if (pointer == NULL) return true;
  if (row->kind != SWEREX__MODEL_STRING)
    return swerex__model_set(
      row, to, swerex__model_copy_list(allocator, (const char *const *)pointer));
  const char *text = (const char *)pointer;
  return swerex__model_set(row, to, swerex__mem_copy(allocator, text, strlen(text)));
}

/** Copy a struct with all it points to; `to` is then to be cleared. On failure it is zero. */
static bool swerex__model_copy(const swerex_allocator *allocator, const swerex__model *model,
                               const void *from, void *to, swerex_error *err) {
  bool ok = true;
  memcpy(to, from, model->size);
  for (size_t i = 0; i < model->count; i++) {
    const swerex__model_row *row = &model->rows[i];
    if (swerex__model_is_pointer(row)) swerex__model_set(row, to, NULL);
    if (row->kind == SWEREX__MODEL_BYTES)
      memset((char *)to + row->offset, 0, sizeof(swerex_bytes));
  }
  for (size_t i = 0; ok && i < model->count; i++)
    ok = swerex__model_copy_member(allocator, &model->rows[i], from, to);
  if (ok) return true;
  swerex__model_clear(model, to);
  return swerex__err_memory(err);
}

/* --- decode --- */

/** Read any number into its member. */
static swerex__valid_fault swerex__model_to_number(const swerex__model_row *row,
                                                   const swerex__json *node, void *member) {
  int64_t integer = 0;
  if (row->kind == SWEREX__MODEL_BOOL || row->kind == SWEREX__MODEL_NOT) {
    swerex__valid_fault fault = swerex__valid_to_bool(node, (bool *)member);
    if (row->kind == SWEREX__MODEL_NOT) *(bool *)member = !*(bool *)member;
    return fault;
  }
  if (row->kind == SWEREX__MODEL_SECONDS)
    return swerex__valid_to_seconds(node, (double *)member);
  swerex__valid_fault fault = swerex__valid_to_integer(node, &integer);
  if (fault != SWEREX__VALID_FINE) return fault;
  if (row->kind == SWEREX__MODEL_SIZE) {
    if (integer < 0) return SWEREX__VALID_NEGATIVE;
    if ((uint64_t)integer > SIZE_MAX) return SWEREX__VALID_BIG_INT;
    *(size_t *)member = (size_t)integer;
    return SWEREX__VALID_FINE;
  }
  if (integer > INT_MAX) return SWEREX__VALID_BIG_INT;
  if (row->kind == SWEREX__MODEL_EXIT_CODE) {
    if (integer <= SWEREX_NO_EXIT_CODE) return SWEREX__VALID_BIG_INT;
    *(int *)member = (int)integer;
  } else {
    *(int *)member = integer <= 0 ? -1 : (int)integer;
  }
  return SWEREX__VALID_FINE;
}

static bool swerex__model_problem(swerex__valid_reader *reader, const swerex__model_row *row,
                                  const char *label, swerex__valid_fault fault,
                                  const swerex__json *node) {
  swerex__valid_place place = {row->name, strlen(row->name), false, label, NULL, 0};
  return swerex__valid_report(reader, &place, fault, node);
}

/** Note that a field has a text that C cannot hold; a problem of type or shape goes first. */
static void swerex__model_refuse(swerex__valid_reader *reader, const swerex__model_row *row,
                                 const char *why) {
  if (reader->refused != NULL) return;
  reader->refused = row->name;
  reader->why = why;
}

static void swerex__model_refuse_nul(swerex__valid_reader *reader, const swerex__model_row *row,
                                     const char *text, size_t size) {
  if (memchr(text, '\0', size) != NULL)
    swerex__model_refuse(reader, row, "embedded null byte");
}

/** Check that all elements are strings, and add up their sizes. */
static bool swerex__model_measure(swerex__valid_reader *reader, const swerex__model_row *row,
                                  const char *label, const swerex__json *node, size_t *total) {
  swerex__valid_place place = {row->name, strlen(row->name), false, label, NULL, 0};
  bool ok = true, map = row->kind == SWEREX__MODEL_MAP;
  *total = 0;
  for (place.element = node->child; place.element != NULL; place.element = place.element->next) {
    const swerex__json *element = place.element;
    if (element->type == SWEREX__JSON_STRING)
      *total += element->size + 1 + (map ? element->key_size + 1 : 0);
    else
      ok = swerex__valid_report(reader, &place, SWEREX__VALID_NO_STRING, element);
    place.index++;
  }
  return ok;
}

/** Read a list of strings, or a map of strings as KEY=VALUE. */
static bool swerex__model_read_list(swerex__valid_reader *reader, const swerex__model_row *row,
                                    const char *label, const swerex__json *node, void *value) {
  bool map = row->kind == SWEREX__MODEL_MAP;
  size_t total;
  char *text = NULL;
  if (node->type != (map ? SWEREX__JSON_OBJECT : SWEREX__JSON_ARRAY))
    return swerex__model_problem(reader, row, label,
                                 map ? SWEREX__VALID_NO_DICT : SWEREX__VALID_NO_LIST, node);
  if (!swerex__model_measure(reader, row, label, node, &total)) return false;
  const char **list = swerex__model_new_list(reader->allocator, node->size, total, &text);
  if (!swerex__model_set(row, value, list)) {
    reader->no_memory = true;
    return true;
  }
  for (const swerex__json *element = node->child; element != NULL; element = element->next) {
    *list++ = text;
    if (map) {
      swerex__model_refuse_nul(reader, row, element->key, element->key_size);
      if (memchr(element->key, '=', element->key_size) != NULL)
        swerex__model_refuse(reader, row, "illegal environment variable name");
      memcpy(text, element->key, element->key_size);
      text += element->key_size;
      *text++ = '=';
    }
    swerex__model_refuse_nul(reader, row, element->string, element->size);
    memcpy(text, element->string, element->size + 1);
    text += element->size + 1;
  }
  return true;
}

/** Read a STRING or BYTES. */
static bool swerex__model_read_string(swerex__valid_reader *reader, const swerex__model_row *row,
                                      const char *label, const swerex__json *node, void *value) {
  if (node->type != SWEREX__JSON_STRING)
    return swerex__model_problem(reader, row, label, SWEREX__VALID_NO_STRING, node);
  bool borrow = reader->borrow && row->kind == SWEREX__MODEL_BYTES;
  char *text = borrow ? (char *)(uintptr_t)node->string
                      : swerex__mem_copy(reader->allocator, node->string, node->size);
  if (text == NULL) {
    reader->no_memory = true;
  } else if (row->kind == SWEREX__MODEL_BYTES) {
    swerex_bytes bytes = {text, node->size};
    memcpy((char *)value + row->offset, &bytes, sizeof bytes);
  } else {
    swerex__model_refuse_nul(reader, row, node->string, node->size);
    swerex__model_set(row, value, text);
  }
  return true;
}

/** Read an ENUM, or check a LITERAL. */
static bool swerex__model_read_choice(swerex__valid_reader *reader, const swerex__model_row *row,
                                      const swerex__json *node, void *value) {
  if (row->kind == SWEREX__MODEL_LITERAL) {
    if (swerex__json_is(node, row->text)) return true;
    swerex__str_printf(&reader->more, "'%s'", row->text);
  } else {
    for (int i = 0; row->names[i] != NULL; i++) {
      if (!swerex__json_is(node, row->names[i])) continue;
      memcpy((char *)value + row->offset, &i, sizeof i);
      return true;
    }
    swerex__str_puts(&reader->more, row->text);
  }
  swerex__str_puts(&reader->context, "{\"expected\":");
  if (reader->more.data != NULL) swerex__json_add_text(&reader->context, reader->more.data);
  swerex__str_putc(&reader->context, '}');
  return swerex__model_problem(reader, row, NULL, SWEREX__VALID_NOT_CHOICE, node);
}

/** Give a field that is missing, or null where that means the same, its default. */
static void swerex__model_read_nothing(swerex__valid_reader *reader, const swerex__model_row *row,
                                       void *value) {
  void *member = (char *)value + row->offset;
  if (row->kind == SWEREX__MODEL_INT) *(int *)member = (int)row->number;
  if (row->kind == SWEREX__MODEL_EXIT_CODE) *(int *)member = SWEREX_NO_EXIT_CODE;
  if (row->kind == SWEREX__MODEL_SECONDS) *(double *)member = row->number;
  bool bytes = row->kind == SWEREX__MODEL_BYTES;
  if (!bytes && (row->kind != SWEREX__MODEL_STRING || row->text == NULL)) return;
  const char *text = bytes ? "" : row->text;
  const void *copy = bytes && reader->borrow
                       ? text
                       : swerex__mem_copy(reader->allocator, text, strlen(text));
  if (!swerex__model_set(row, value, copy)) reader->no_memory = true; /* data comes first */
}

/** Read a field. False: its value does not fit. */
static bool swerex__model_read(swerex__valid_reader *reader, const swerex__model_row *row,
                               const char *label, const swerex__json *node, void *value) {
  if (node->type == SWEREX__JSON_NULL) {
    if ((row->flags & SWEREX__MODEL_NULLABLE) != 0) {
      swerex__model_read_nothing(reader, row, value);
      return true;
    }
    if (row->kind == SWEREX__MODEL_SECONDS) {
      *(double *)(void *)((char *)value + row->offset) = SWEREX_FOREVER;
      return true;
    }
  }
  switch (row->kind) {
    case SWEREX__MODEL_STRING:
    case SWEREX__MODEL_BYTES:
      return swerex__model_read_string(reader, row, label, node, value);
    case SWEREX__MODEL_LIST:
    case SWEREX__MODEL_MAP: return swerex__model_read_list(reader, row, label, node, value);
    case SWEREX__MODEL_ENUM:
    case SWEREX__MODEL_LITERAL: return swerex__model_read_choice(reader, row, node, value);
    default: break;
  }
  swerex__valid_fault fault = swerex__model_to_number(row, node, (char *)value + row->offset);
  if (fault == SWEREX__VALID_FINE) return true;
  if (fault == SWEREX__VALID_NEGATIVE) swerex__str_puts(&reader->context, "{\"ge\":0}");
  return swerex__model_problem(reader, row, label, fault, node);
}

/** Read a union: the first of its rows that fits, or the problems of all. */
static void swerex__model_read_union(swerex__valid_reader *reader, const swerex__model_row *rows,
                                     size_t count, const swerex__json *node, void *value) {
  bool done = false;
  reader->quiet = true;
  for (size_t i = 0; i < count && !done; i++)
    done = swerex__model_read(reader, &rows[i], NULL, node, value);
  reader->quiet = false;
  for (size_t i = 0; i < count && !done; i++)
    swerex__model_read(reader, &rows[i],
                       rows[i].kind == SWEREX__MODEL_LIST ? "list[str]" : "str", node, value);
}

/** Report the members of an object that no row names. */
static void swerex__model_refuse_extras(swerex__valid_reader *reader, const swerex__model *model,
                                        const swerex__json *node) {
  for (const swerex__json *member = node->child; member != NULL; member = member->next) {
    size_t i = 0;
    while (i < model->count &&
           !swerex__json_same(member->key, member->key_size, model->rows[i].name))
      i++;
    swerex__valid_place place = {member->key, member->key_size, false, NULL, NULL, 0};
    if (i == model->count) swerex__valid_report(reader, &place, SWEREX__VALID_EXTRA, member);
  }
}

static void swerex__model_read_object(swerex__valid_reader *reader, const swerex__model *model,
                                      const swerex__json *node, void *out) {
  for (size_t i = 0, n; i < model->count; i += n) {
    const swerex__model_row *row = &model->rows[i];
    const swerex__json *member = swerex__json_get(node, row->name);
    n = swerex__model_group(model, i);
    if (member != NULL && n > 1)
      swerex__model_read_union(reader, row, n, member, out);
    else if (member != NULL)
      swerex__model_read(reader, row, NULL, member, out);
    else if ((row->flags & SWEREX__MODEL_REQUIRED) != 0)
      swerex__model_problem(reader, row, NULL, SWEREX__VALID_MISSING, node);
    else
      swerex__model_read_nothing(reader, row, out);
  }
  if ((model->flags & SWEREX__MODEL_FORBID) != 0)
    swerex__model_refuse_extras(reader, model, node);
}

/**
 * Fill a struct from JSON; it is then to be released. On failure it is zero. borrow: its BYTES,
 * which may be large, point into the document.
 */
static bool swerex__model_decode_as(const swerex_allocator *allocator, const swerex__model *model,
                                    const swerex__json *node, bool borrow, void *out,
                                    swerex_error *err) {
  swerex__valid_reader reader = swerex__valid_new_reader(allocator, model->tag);
  swerex__valid_place place = {model->name, strlen(model->name), true, NULL, NULL, 0};
  reader.borrow = borrow;
  memset(out, 0, model->size);
  if (node->type == SWEREX__JSON_OBJECT)
    swerex__model_read_object(&reader, model, node, out);
  else
    swerex__valid_report(&reader, &place, SWEREX__VALID_NO_OBJECT, node);
  if (swerex__valid_finish(&reader, err)) return true;
  swerex__model_release(model, borrow, out);
  return false;
}

/** The same, for a struct that owns all it has. */
static bool swerex__model_decode(const swerex_allocator *allocator, const swerex__model *model,
                                 const swerex__json *node, void *out, swerex_error *err) {
  return swerex__model_decode_as(allocator, model, node, false, out, err);
}

/* --- unions of models, told apart by a field --- */

typedef struct swerex__model_variant {
  const char *tag; /* value of the field */
  const swerex__model *model;
  int type;      /* the enum value that says the same in C */
  size_t offset; /* of the struct in the union that holds it */
} swerex__model_variant;

typedef struct swerex__model_union {
  const char *name; /* in Python */
  const char *field;
  bool lenient; /* without the field, the first variant is meant */
  const swerex__model_variant *variants;
  size_t count;
} swerex__model_union;

static const swerex__model_variant swerex__model_action_variants[] = {
  {"bash", &swerex__model_table[SWEREX_MODEL_BASH_ACTION - 1], SWEREX_MODEL_BASH_ACTION, 0},
  {"bash_interrupt", &swerex__model_table[SWEREX_MODEL_BASH_INTERRUPT_ACTION - 1],
   SWEREX_MODEL_BASH_INTERRUPT_ACTION, 0},
};
/** What run_in_session is sent. */
static const swerex__model_union swerex__model_actions = {
  "Action", "action_type", true, swerex__model_action_variants,
  SWEREX__SYS_COUNT(swerex__model_action_variants)};

static const swerex__model_variant swerex__model_deployment_variants[] = {
  {"local", &swerex__model_table[SWEREX_MODEL_LOCAL_CONFIG - 1], SWEREX_DEPLOYMENT_LOCAL,
   offsetof(swerex_deployment_config, u.local)},
  {"dummy", &swerex__model_table[SWEREX_MODEL_DUMMY_CONFIG - 1], SWEREX_DEPLOYMENT_DUMMY,
   offsetof(swerex_deployment_config, u.dummy)},
  {"remote", &swerex__model_table[SWEREX_MODEL_REMOTE_CONFIG - 1], SWEREX_DEPLOYMENT_REMOTE,
   offsetof(swerex_deployment_config, u.remote)},
  {"docker", &swerex__model_table[SWEREX_MODEL_DOCKER_CONFIG - 1], SWEREX_DEPLOYMENT_DOCKER,
   offsetof(swerex_deployment_config, u.docker)},
};
static const swerex__model_union swerex__model_deployments = {
  "DeploymentConfig", "type", false, swerex__model_deployment_variants,
  SWEREX__SYS_COUNT(swerex__model_deployment_variants)};

/** Describe a tag that is none of a union's. */
static void swerex__model_describe_tag(swerex__valid_reader *reader,
                                       const swerex__model_union *all, const swerex__json *tag) {
  swerex__str *more = &reader->more, *context = &reader->context;
  swerex__str name = swerex__str_new(reader->allocator, SWEREX__VALID_ECHO);
  if (tag->type == SWEREX__JSON_STRING)
    swerex__valid_add_name(&name, tag->string, tag->size);
  else
    swerex__valid_add_input(&name, tag);
  swerex__str_putc(&name, '\0');
  if (name.failed) reader->no_memory = true;
  const char *text = name.failed ? "" : name.data;
  swerex__str_printf(more, "'%s' found using '%s' does not match any of the expected tags: ", text,
                     all->field);
  size_t start = more->size;
  for (size_t i = 0; i < all->count; i++)
    swerex__str_printf(more, "%s'%s'", i > 0 ? ", " : "", all->variants[i].tag);
  swerex__str_printf(context, "{\"discriminator\":\"'%s'\",\"tag\":", all->field);
  swerex__json_add_text(context, text);
  swerex__json_add_key(context, "expected_tags");
  swerex__json_add_text(context, more->failed ? "" : more->data + start);
  swerex__str_putc(context, '}');
  swerex__str_clear(&name);
}

/** Find which of a union's models a node is for; NULL and an error for none. */
static const swerex__model_variant *swerex__model_select(const swerex_allocator *allocator,
                                                         const swerex__model_union *all,
                                                         const swerex__json *node,
                                                         swerex_error *err) {
  swerex__valid_reader reader = swerex__valid_new_reader(allocator, NULL);
  const swerex__json *tag = swerex__json_get(node, all->field);
  const char *name = node->type == SWEREX__JSON_OBJECT ? all->field : all->name;
  swerex__valid_place place = {name, strlen(name), true, NULL, NULL, 0};
  swerex__valid_fault fault = SWEREX__VALID_BAD_TAG;
  if (node->type != SWEREX__JSON_OBJECT) {
    fault = SWEREX__VALID_NO_OBJECT;
  } else if (tag == NULL) {
    if (all->lenient) return &all->variants[0];
    fault = SWEREX__VALID_NO_TAG;
    swerex__str_printf(&reader.more, "'%s'", all->field);
    swerex__str_printf(&reader.context, "{\"discriminator\":\"'%s'\"}", all->field);
  } else {
    for (size_t i = 0; i < all->count; i++)
      if (swerex__json_is(tag, all->variants[i].tag)) return &all->variants[i];
    swerex__model_describe_tag(&reader, all, tag);
  }
  swerex__valid_report(&reader, &place, fault, node);
  swerex__valid_finish(&reader, err);
  return NULL;
}

/** Find the variant of a deployment's type; NULL for none. */
static const swerex__model_variant *
swerex__model_find_deployment(const swerex_deployment_config *config) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__model_deployment_variants); i++)
    if (swerex__model_deployment_variants[i].type == (int)config->type)
      return &swerex__model_deployment_variants[i];
  return NULL;
}

/** Fill a deployment's configuration from JSON; it is then to be cleared. */
static bool swerex__model_decode_deployment(const swerex_allocator *allocator,
                                            const swerex__json *node,
                                            swerex_deployment_config *out, swerex_error *err) {
  memset(out, 0, sizeof *out);
  const swerex__model_variant *variant =
    swerex__model_select(allocator, &swerex__model_deployments, node, err);
  if (variant == NULL) return false;
  char *config = (char *)out + variant->offset;
  if (!swerex__model_decode(allocator, variant->model, node, config, err)) return false;
  out->type = (swerex_deployment_type)variant->type;
  return true;
}

/** Copy a deployment's configuration; `to` is then to be cleared. On failure it is zero. */
static bool swerex__model_copy_deployment(const swerex_allocator *allocator,
                                          const swerex_deployment_config *from,
                                          swerex_deployment_config *to, swerex_error *err) {
  const swerex__model_variant *variant = swerex__model_find_deployment(from);
  memset(to, 0, sizeof *to);
  if (variant == NULL)
    return swerex__err_set(err, SWEREX_E_VALUE, "type: there is no deployment type %d",
                           (int)from->type);
  if (!swerex__model_copy(allocator, variant->model, (const char *)from + variant->offset,
                          (char *)to + variant->offset, err))
    return false;
  to->type = from->type;
  return true;
}

/** Release a deployment's configuration, and reset it to zero. */
static void swerex__model_clear_deployment(swerex_deployment_config *config) {
  const swerex__model_variant *variant = swerex__model_find_deployment(config);
  if (variant != NULL)
    swerex__model_clear(variant->model, (char *)config + variant->offset);
  memset(config, 0, sizeof *config);
}

/* =============================================================================================
 * [poll] Readiness of descriptors: epoll, kqueue, poll
 * ========================================================================================== */
/* Three siblings behind the same five functions (open, close, apply, set_timer, collect), one of
 * which is compiled. All watches stand in one list. A watch may be removed, and freed, while a
 * batch of events is handled: its entries in the batch are then blanked. epoll and kqueue fold the
 * timer into their descriptor, so that the descriptor alone tells a host when to come back. */

enum { SWEREX__POLL_READ = 1, SWEREX__POLL_WRITE = 2, SWEREX__POLL_BATCH = 64 };

typedef struct swerex__poll_watch swerex__poll_watch;
struct swerex__poll_watch {
  int fd;
  unsigned events; /* what is waited for; 0: not in the list */
  void (*ready)(swerex__poll_watch *watch);
  void *owner;
  swerex__poll_watch *previous, *next;
};

typedef struct swerex__poll {
  const swerex_allocator *allocator;
  int fd;         /* epoll, kqueue; -1 with poll */
  int timer_fd;   /* timerfd; -1 elsewhere */
  double timer;   /* when collect must return; < 0: never */
  size_t count;   /* watches in the list */
  swerex__poll_watch *first;
  struct pollfd *fds; /* poll only: room for all watches */
  size_t room;
  swerex__poll_watch *batch[SWEREX__POLL_BATCH]; /* ready, not yet handled */
  size_t ready;
} swerex__poll;

#if SWEREX__SYS_POLLER != SWEREX_POLLER_POLL
/** Write what a host's poll call must watch; returns how many entries there are. */
static size_t swerex__poll_list(const swerex__poll *p, struct pollfd *fds, size_t room) {
  if (room > 0) {
    fds[0].fd = p->fd;
    fds[0].events = POLLIN;
    fds[0].revents = 0;
  }
  return 1;
}
#endif

/** Milliseconds to wait, rounded up, for a poll call; -1: no limit. */
SWEREX__SYS_UNUSED static int swerex__poll_milliseconds(double seconds) {
  if (seconds < 0) return -1;
  if (seconds > 1e6) return 1000000000;
  return (int)(seconds * 1000.0 + 0.999);
}

#if SWEREX__SYS_POLLER == SWEREX_POLLER_EPOLL

static bool swerex__poll_open(swerex__poll *p) {
  struct epoll_event event;
  memset(&event, 0, sizeof event);
  event.events = EPOLLIN;
  p->fd = epoll_create1(EPOLL_CLOEXEC);
  p->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  return p->fd >= 0 && p->timer_fd >= 0 &&
         epoll_ctl(p->fd, EPOLL_CTL_ADD, p->timer_fd, &event) == 0;
}

static void swerex__poll_close(swerex__poll *p) {
  swerex__sys_close(&p->timer_fd);
  swerex__sys_close(&p->fd);
}

static bool swerex__poll_apply(swerex__poll *p, swerex__poll_watch *watch, unsigned before) {
  struct epoll_event event;
  memset(&event, 0, sizeof event);
  event.events = ((watch->events & SWEREX__POLL_READ) ? (uint32_t)EPOLLIN : 0U) |
                 ((watch->events & SWEREX__POLL_WRITE) ? (uint32_t)EPOLLOUT : 0U);
  event.data.ptr = watch;
  int verb = watch->events == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  return epoll_ctl(p->fd, verb, watch->fd, &event) == 0;
}

static void swerex__poll_set_timer(swerex__poll *p, double at) {
  struct itimerspec when;
  memset(&when, 0, sizeof when);
  p->timer = at;
  if (at >= 0) {
    when.it_value.tv_sec = (time_t)at;
    when.it_value.tv_nsec = (long)((at - (double)when.it_value.tv_sec) * 1e9);
    if (when.it_value.tv_sec == 0 && when.it_value.tv_nsec == 0) when.it_value.tv_nsec = 1;
  }
  timerfd_settime(p->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/** Wait, and fill the batch; false on failure. */
static bool swerex__poll_collect(swerex__poll *p, double timeout) {
  struct epoll_event events[SWEREX__POLL_BATCH];
  int n = epoll_wait(p->fd, events, SWEREX__POLL_BATCH, swerex__poll_milliseconds(timeout));
  p->ready = 0;
  for (int i = 0; i < n; i++) {
    uint64_t expired;
    if (events[i].data.ptr != NULL)
      p->batch[p->ready++] = (swerex__poll_watch *)events[i].data.ptr;
    else if (read(p->timer_fd, &expired, sizeof expired) < 0 && errno != EAGAIN)
      return false;
  }
  return n >= 0 || errno == EINTR;
}

#elif SWEREX__SYS_POLLER == SWEREX_POLLER_KQUEUE

static bool swerex__poll_open(swerex__poll *p) {
  p->fd = kqueue();
  return p->fd >= 0 && swerex__sys_prepare_fd(p->fd, false);
}

static void swerex__poll_close(swerex__poll *p) { swerex__sys_close(&p->fd); }

static bool swerex__poll_apply(swerex__poll *p, swerex__poll_watch *watch, unsigned before) {
  static const struct {
    unsigned event;
    int filter;
  } filters[] = {{SWEREX__POLL_READ, EVFILT_READ}, {SWEREX__POLL_WRITE, EVFILT_WRITE}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(filters); i++) {
    struct kevent change;
    unsigned now = watch->events & filters[i].event;
    if (now == (before & filters[i].event)) continue;
    EV_SET(&change, (uintptr_t)watch->fd, (short)filters[i].filter,
           (unsigned short)(now != 0 ? EV_ADD : EV_DELETE), 0, 0, watch);
    if (kevent(p->fd, &change, 1, NULL, 0, NULL) != 0 && now != 0) return false;
  }
  return true;
}

static void swerex__poll_set_timer(swerex__poll *p, double at) {
  struct kevent change;
  struct timespec now;
  p->timer = at;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double wait = at < 0 ? 0 : at - ((double)now.tv_sec + (double)now.tv_nsec / 1e9);
  EV_SET(&change, 1, EVFILT_TIMER, (unsigned short)(at < 0 ? EV_DELETE : EV_ADD | EV_ONESHOT), 0,
         swerex__poll_milliseconds(wait < 0 ? 0 : wait), NULL);
  kevent(p->fd, &change, 1, NULL, 0, NULL); /* deleting a timer that has fired fails: fine */
}

/** Wait, and fill the batch; false on failure. */
static bool swerex__poll_collect(swerex__poll *p, double timeout) {
  struct kevent events[SWEREX__POLL_BATCH];
  struct timespec limit = {0, 0};
  if (timeout > 0) {
    limit.tv_sec = (time_t)timeout;
    limit.tv_nsec = (long)((timeout - (double)limit.tv_sec) * 1e9);
  }
  int n = kevent(p->fd, NULL, 0, events, SWEREX__POLL_BATCH, timeout < 0 ? NULL : &limit);
  p->ready = 0;
  for (int i = 0; i < n; i++)
    if (events[i].filter != EVFILT_TIMER)
      p->batch[p->ready++] = (swerex__poll_watch *)events[i].udata;
  return n >= 0 || errno == EINTR;
}

#else

static bool swerex__poll_open(swerex__poll *p) {
  p->fds = (struct pollfd *)swerex__mem_new(p->allocator, 8, sizeof *p->fds);
  p->room = 8;
  return p->fds != NULL;
}

static void swerex__poll_close(swerex__poll *p) {
  swerex__mem_free(p->fds);
  p->fds = NULL;
}

static bool swerex__poll_apply(swerex__poll *p, swerex__poll_watch *watch, unsigned before) {
  void *fds = p->fds;
  if (before != 0 || watch->events == 0) return true;
  if (!swerex__mem_reserve(p->allocator, &fds, &p->room, p->count + 1, sizeof *p->fds)) {
    errno = ENOMEM;
    return false;
  }
  p->fds = (struct pollfd *)fds;
  return true;
}

static void swerex__poll_set_timer(swerex__poll *p, double at) { p->timer = at; }

/** Write what a host's poll call must watch; returns how many entries there are. */
static size_t swerex__poll_list(const swerex__poll *p, struct pollfd *fds, size_t room) {
  size_t n = 0;
  for (const swerex__poll_watch *w = p->first; w != NULL; w = w->next, n++) {
    if (n >= room) continue;
    fds[n].fd = w->fd;
    fds[n].events = (short)(((w->events & SWEREX__POLL_READ) ? POLLIN : 0) |
                            ((w->events & SWEREX__POLL_WRITE) ? POLLOUT : 0));
    fds[n].revents = 0;
  }
  return n;
}

/** Wait, and fill the batch; false on failure. */
static bool swerex__poll_collect(swerex__poll *p, double timeout) {
  struct timespec now;
  if (p->timer >= 0) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    double wait = p->timer - ((double)now.tv_sec + (double)now.tv_nsec / 1e9);
    if (wait < 0) wait = 0;
    if (timeout < 0 || wait < timeout) timeout = wait;
  }
  size_t count = swerex__poll_list(p, p->fds, p->room);
  int n = poll(p->fds, (nfds_t)count, swerex__poll_milliseconds(timeout));
  size_t i = 0;
  p->ready = 0;
  for (swerex__poll_watch *w = p->first; n > 0 && w != NULL; w = w->next, i++)
    if (p->fds[i].revents != 0 && p->ready < SWEREX__POLL_BATCH) p->batch[p->ready++] = w;
  return n >= 0 || errno == EINTR;
}

#endif

/** Change what a watch waits for; 0 takes it out. Taking out never fails. */
static bool swerex__poll_set(swerex__poll *p, swerex__poll_watch *watch, unsigned events) {
  unsigned before = watch->events;
  if (before == events) return true;
  watch->events = events;
  if (!swerex__poll_apply(p, watch, before) && events != 0) {
    watch->events = before;
    return false;
  }
  if (before == 0) {
    watch->previous = NULL;
    watch->next = p->first;
    if (p->first != NULL) p->first->previous = watch;
    p->first = watch;
    p->count++;
  } else if (events == 0) {
    if (watch->next != NULL) watch->next->previous = watch->previous;
    if (watch->previous != NULL) watch->previous->next = watch->next;
    if (p->first == watch) p->first = watch->next;
    p->count--;
    for (size_t i = 0; i < p->ready; i++)
      if (p->batch[i] == watch) p->batch[i] = NULL;
  }
  return true;
}

/** Stop watching, and close the descriptor. */
static void swerex__poll_drop(swerex__poll *p, swerex__poll_watch *watch) {
  swerex__poll_set(p, watch, 0);
  swerex__sys_close(&watch->fd);
}

/** Hand the batch to the watches' owners. */
static void swerex__poll_dispatch(swerex__poll *p) {
  for (size_t i = 0; i < p->ready; i++) {
    swerex__poll_watch *watch = p->batch[i];
    p->batch[i] = NULL;
    if (watch != NULL) watch->ready(watch);
  }
  p->ready = 0;
}

/* =============================================================================================
 * [loop] Timers, futures, the completion queue
 * ========================================================================================== */
/* One loop drives everything. An operation holds a pending future and ends it with exactly one
 * swerex__loop_finish or _fail; callbacks fire only from swerex__loop_run. Timers stand in a list
 * sorted by time: arming one allocates nothing and walks only past later ones. */

typedef struct swerex__loop_link swerex__loop_link;
struct swerex__loop_link {
  swerex__loop_link *previous, *next; /* circular, with the head; NULL: in no list */
};

typedef struct swerex__loop_timer swerex__loop_timer;
struct swerex__loop_timer {
  swerex__loop_link link; /* first member: a link is a timer */
  double at;
  void (*fire)(swerex__loop_timer *timer);
  void *owner;
};

struct swerex_future {
  swerex__loop_link line; /* first member: in `finished`, then in `queue` */
  swerex__loop_link all;
  swerex_loop *loop;
  const swerex__model *model; /* of the response; NULL: none */
  void *response;
  swerex_error error;
  bool done, ok;
  bool waited; /* a blocking call takes it: keep it out of the queue */
  void (*cancel)(swerex_future *future); /* must finish it; NULL once that cannot be */
  void *operation;
  void (*then)(swerex_future *future, void *user_data);
  void *user_data;
};

/** Anything that a loop frees when it is freed: runtimes, deployments. */
typedef struct swerex__loop_object swerex__loop_object;
struct swerex__loop_object {
  swerex__loop_link link; /* first member */
  void (*destroy)(swerex__loop_object *object);
};

struct swerex_loop {
  swerex_allocator allocator;
  swerex_logger logger;
  char *logger_name, *logger_emoji; /* copies that the logger points to */
  swerex__poll poll;
  swerex__poll_watch wake;
  int wake_fd; /* writing end */
  bool running;
  size_t pending; /* futures that are not done and that nobody blocks on */
  swerex__loop_link timers, futures, finished, queue, objects;
  void *keeper;              /* [keep]: made when first needed */
  void (*free_keeper)(void *keeper);
  int *ports; /* handed out by find_free_port */
  size_t port_count, port_room;
};

static void swerex__loop_link_init(swerex__loop_link *head) { head->previous = head->next = head; }

static bool swerex__loop_link_empty(const swerex__loop_link *head) { return head->next == head; }

/** Put a link in front of another one (of the head: at the end). */
static void swerex__loop_link_insert(swerex__loop_link *before, swerex__loop_link *link) {
  link->next = before;
  link->previous = before->previous;
  before->previous->next = link;
  before->previous = link;
}

static void swerex__loop_link_remove(swerex__loop_link *link) {
  if (link->next == NULL) return;
  link->previous->next = link->next;
  link->next->previous = link->previous;
  link->previous = link->next = NULL;
}

/** Tell the poller when the first timer is due. */
static void swerex__loop_aim(swerex_loop *loop) {
  double at = -1;
  if (!swerex__loop_link_empty(&loop->timers))
    at = ((swerex__loop_timer *)loop->timers.next)->at;
  if ((at < 0) != (loop->poll.timer < 0) || at < loop->poll.timer || at > loop->poll.timer)
    swerex__poll_set_timer(&loop->poll, at);
}

static void swerex__loop_disarm(swerex_loop *loop, swerex__loop_timer *timer) {
  if (timer->link.next == NULL) return;
  swerex__loop_link_remove(&timer->link);
  if (!loop->running) swerex__loop_aim(loop);
}

/** Have `fire` called after `seconds` (< 0: never). An armed timer is moved. */
static void swerex__loop_arm(swerex_loop *loop, swerex__loop_timer *timer,
                                               double seconds,
                                               void (*fire)(swerex__loop_timer *), void *owner) {
  swerex__loop_disarm(loop, timer);
  if (seconds < 0) return;
  timer->at = swerex__util_now() + seconds;
  timer->fire = fire;
  timer->owner = owner;
  swerex__loop_link *place = &loop->timers;
  while (place->previous != &loop->timers &&
         ((swerex__loop_timer *)place->previous)->at > timer->at)
    place = place->previous;
  swerex__loop_link_insert(place, &timer->link);
  if (!loop->running) swerex__loop_aim(loop);
}

static bool swerex__loop_armed(const swerex__loop_timer *timer) {
  return timer->link.next != NULL;
}

/** Make a pending future whose response is a struct of `model`. */
static swerex_future *swerex__loop_promise(swerex_loop *loop, const swerex__model *model,
                                           swerex_error *err) {
  swerex_future *future = (swerex_future *)swerex__mem_new(&loop->allocator, 1, sizeof *future);
  if (future == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  future->loop = loop;
  future->model = model;
  if (model != NULL && model->size > 0) {
    future->response = swerex__mem_new(&loop->allocator, 1, model->size);
    if (future->response == NULL) {
      swerex__mem_free(future);
      swerex__err_memory(err);
      return NULL;
    }
  }
  swerex__loop_link_insert(&loop->futures, &future->all);
  loop->pending++;
  return future;
}

static void swerex__loop_wake(swerex_loop *loop) {
  int saved = errno;
  ssize_t n = write(loop->wake_fd, "", 1);
  (void)n; /* full: a wake-up is on its way already */
  errno = saved;
}

static void swerex__loop_end(swerex_future *future, bool ok) {
  SWEREX_ASSERT(!future->done);
  future->done = true;
  future->ok = ok;
  future->cancel = NULL;
  future->operation = NULL;
  if (!future->waited) future->loop->pending--;
  swerex__loop_link_insert(&future->loop->finished, &future->line);
  if (!future->loop->running) swerex__loop_wake(future->loop);
}

/** End a future whose response is filled. */
static void swerex__loop_finish(swerex_future *future) { swerex__loop_end(future, true); }

/** End a future with an error, which is moved. */
static void swerex__loop_fail(swerex_future *future, swerex_error *error) {
  swerex__err_move(&future->error, error);
  swerex__loop_end(future, false);
}

static void swerex__loop_fail_with(swerex_future *future, swerex_code code, const char *format, ...)
  SWEREX_PRINTF(3, 4);
static void swerex__loop_fail_with(swerex_future *future, swerex_code code, const char *format,
                                   ...) {
  va_list args;
  va_start(args, format);
  swerex__err_vset(&future->error, code, NULL, format, args);
  va_end(args);
  swerex__loop_end(future, false);
}

static void swerex__loop_cancel(swerex_future *future) {
  if (future->done) return;
  if (future->cancel != NULL) future->cancel(future);
  if (!future->done) swerex__loop_fail_with(future, SWEREX_E_CANCELLED, "cancelled by the caller");
}

static void swerex__loop_free_future(swerex_future *future) {
  if (future == NULL) return;
  swerex__loop_cancel(future);
  swerex__loop_link_remove(&future->line);
  swerex__loop_link_remove(&future->all);
  if (future->response != NULL) {
    swerex__model_clear(future->model, future->response);
    swerex__mem_free(future->response);
  }
  swerex__err_clear(&future->error);
  swerex__mem_free(future);
}

/** Call the `then` of each finished future, or put it into the queue. */
static void swerex__loop_deliver(swerex_loop *loop) {
  swerex__loop_link batch; /* what finishes meanwhile waits for the next run */
  swerex__loop_link_init(&batch);
  while (!swerex__loop_link_empty(&loop->finished)) {
    swerex__loop_link *link = loop->finished.next;
    swerex__loop_link_remove(link);
    swerex__loop_link_insert(&batch, link);
  }
  while (!swerex__loop_link_empty(&batch)) {
    swerex_future *future = (swerex_future *)batch.next;
    swerex__loop_link_remove(&future->line);
    if (future->then != NULL)
      future->then(future, future->user_data);
    else if (!future->waited)
      swerex__loop_link_insert(&loop->queue, &future->line);
  }
}

static void swerex__loop_fire_timers(swerex_loop *loop) {
  double now = swerex__util_now();
  while (!swerex__loop_link_empty(&loop->timers)) {
    swerex__loop_timer *timer = (swerex__loop_timer *)loop->timers.next;
    if (timer->at > now) break;
    swerex__loop_link_remove(&timer->link);
    timer->fire(timer);
  }
}

static bool swerex__loop_run(swerex_loop *loop, double timeout, swerex_error *err) {
  if (loop->running)
    return swerex__err_set(err, SWEREX_E_RUNTIME,
                           "the loop is running already: a callback may start calls with their "
                           "_async form, but not wait for one");
  loop->running = true;
  swerex__loop_aim(loop);
  if (!swerex__loop_link_empty(&loop->finished)) timeout = 0;
  bool ok = swerex__poll_collect(&loop->poll, timeout);
  int number = errno;
  if (ok) {
    swerex__poll_dispatch(&loop->poll);
    swerex__loop_fire_timers(loop);
    swerex__loop_deliver(loop);
  }
  loop->running = false;
  swerex__loop_aim(loop);
  return ok || swerex__err_system(err, number, "the loop's wait");
}

/** Run until *flag is set, for up to `timeout` seconds. */
static bool swerex__loop_run_until(swerex_loop *loop, const bool *flag, double timeout,
                                   swerex_error *err) {
  double end = timeout < 0 ? -1 : swerex__util_now() + timeout;
  while (!*flag) {
    double left = end < 0 ? -1 : end - swerex__util_now();
    if (!swerex__loop_run(loop, end >= 0 && left < 0 ? 0 : left, err)) return false;
    if (!*flag && end >= 0 && swerex__util_now() >= end)
      return swerex__err_set(err, SWEREX_E_TIMEOUT, "not done within the time limit");
  }
  return true;
}

/** Stop counting a future as pending: a blocking call waits for it. */
static void swerex__loop_hide(swerex_future *future) {
  if (!future->waited && !future->done) future->loop->pending--;
  future->waited = true;
  if (future->done && future->then == NULL) swerex__loop_link_remove(&future->line);
}

/** Have `then` called from the loop, also for a future that is done already. */
static void swerex__loop_then(swerex_future *future,
                              void (*then)(swerex_future *future, void *user_data),
                              void *user_data) {
  future->then = then;
  future->user_data = user_data;
  if (!future->done || then == NULL) return;
  swerex__loop_link_remove(&future->line); /* from the queue, or from where it was finished */
  swerex__loop_link_insert(&future->loop->finished, &future->line);
  if (!future->loop->running) swerex__loop_wake(future->loop);
}

/** Wait for a future, move its response out, and free it. */
static bool swerex__loop_take(swerex_future *future, void *response, swerex_error *err) {
  if (future == NULL) return false;
  if (!future->done) {
    swerex__loop_hide(future);
    if (!swerex__loop_run_until(future->loop, &future->done, -1, err)) {
      swerex__loop_free_future(future);
      return false;
    }
  }
  bool ok = future->ok;
  if (!ok) {
    swerex__err_move(err, &future->error);
  } else if (response != NULL && future->response != NULL) {
    memcpy(response, future->response, future->model->size);
    memset(future->response, 0, future->model->size);
  }
  swerex__loop_free_future(future);
  return ok;
}

static void swerex__loop_drain_wake(swerex__poll_watch *watch) {
  char buffer[64];
  while (read(watch->fd, buffer, sizeof buffer) > 0) continue;
}

static bool swerex__loop_init_logger(swerex_loop *loop, const swerex_logger *logger) {
  const swerex_allocator *memory = &loop->allocator;
  loop->logger = *logger;
  if (logger->level == SWEREX_LOG_DEFAULT_)
    loop->logger.level =
      swerex__log_parse_level(getenv("SWE_REX_LOG_STREAM_LEVEL"), SWEREX_LOG_WARNING);
  if (logger->name != NULL) {
    loop->logger_name = swerex__mem_copy(memory, logger->name, strlen(logger->name));
    if (loop->logger_name == NULL) return false;
  }
  if (logger->emoji != NULL) {
    loop->logger_emoji = swerex__mem_copy(memory, logger->emoji, strlen(logger->emoji));
    if (loop->logger_emoji == NULL) return false;
  }
  loop->logger.name = loop->logger_name;
  loop->logger.emoji = loop->logger_emoji;
  return true;
}

static void swerex__loop_release(swerex_loop *loop) {
  if (loop->wake.events != 0) swerex__poll_set(&loop->poll, &loop->wake, 0);
  swerex__sys_close(&loop->wake.fd);
  swerex__sys_close(&loop->wake_fd);
  swerex__poll_close(&loop->poll);
  swerex__mem_free(loop->logger_name);
  swerex__mem_free(loop->logger_emoji);
  swerex__mem_free(loop->ports);
  swerex__mem_free(loop);
}

static bool swerex__loop_open(swerex_loop *loop, swerex_error *err) {
  int ends[2];
  loop->poll.allocator = &loop->allocator;
  if (!swerex__poll_open(&loop->poll) || !swerex__sys_pipe(ends))
    return swerex__err_system(err, errno, "the loop's descriptors");
  loop->wake.fd = ends[0];
  loop->wake_fd = ends[1];
  loop->wake.ready = swerex__loop_drain_wake;
  if (!swerex__sys_prepare_fd(ends[1], true) ||
      !swerex__poll_set(&loop->poll, &loop->wake, SWEREX__POLL_READ))
    return swerex__err_system(err, errno, "the loop's descriptors");
  return true;
}

static swerex_loop *swerex__loop_new(const swerex_loop_options *options, swerex_error *err) {
  static const swerex_loop_options none;
  if (options == NULL) options = &none;
  swerex_loop *loop = (swerex_loop *)swerex__mem_new(&options->allocator, 1, sizeof *loop);
  if (loop == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  loop->allocator = options->allocator;
  loop->poll.fd = loop->poll.timer_fd = loop->wake.fd = loop->wake_fd = -1;
  loop->poll.timer = -1;
  swerex__loop_link_init(&loop->timers);
  swerex__loop_link_init(&loop->futures);
  swerex__loop_link_init(&loop->finished);
  swerex__loop_link_init(&loop->queue);
  swerex__loop_link_init(&loop->objects);
  if (!swerex__loop_init_logger(loop, &options->logger)) {
    swerex__err_memory(err);
  } else if (swerex__loop_open(loop, err)) {
    return loop;
  }
  swerex__loop_release(loop);
  return NULL;
}

static void swerex__loop_free(swerex_loop *loop) {
  if (loop == NULL) return;
  while (!swerex__loop_link_empty(&loop->objects)) {
    swerex__loop_object *object = (swerex__loop_object *)loop->objects.previous;
    object->destroy(object);
  }
  while (!swerex__loop_link_empty(&loop->futures)) {
    swerex__loop_link *link = loop->futures.next;
    swerex__loop_free_future(
      (swerex_future *)(void *)((char *)link - offsetof(swerex_future, all)));
  }
  if (loop->free_keeper != NULL) loop->free_keeper(loop->keeper);
  swerex__loop_release(loop);
}

/* =============================================================================================
 * [rt] Runtimes: one table of verbs
 * ========================================================================================== */
/* A runtime is a table of functions, one per verb, that start what a request asks for. The table
 * below says which models a verb takes and gives; checks, defaults, futures and the blocking forms
 * are the same code for all verbs and all runtimes. */

#define SWEREX__RT_WAIT_TIME 60.0
#define SWEREX__RT_WAIT_PAUSE 0.02 /* between two questions to a runtime that does not answer yet */

typedef enum swerex__rt_verb {
  SWEREX__RT_IS_ALIVE,
  SWEREX__RT_CREATE_SESSION,
  SWEREX__RT_RUN_IN_SESSION,
  SWEREX__RT_INTERRUPT_SESSION,
  SWEREX__RT_CLOSE_SESSION,
  SWEREX__RT_EXECUTE,
  SWEREX__RT_READ_FILE,
  SWEREX__RT_WRITE_FILE,
  SWEREX__RT_UPLOAD,
  SWEREX__RT_CLOSE,
  SWEREX__RT_COUNT
} swerex__rt_verb;

typedef struct swerex__rt_row {
  const char *name;     /* Python's, and the path on the wire */
  swerex_model request; /* 0: see swerex__rt_request_model */
  swerex_model response;
} swerex__rt_row;

static const swerex__rt_row swerex__rt_rows[] = {
  {"is_alive", (swerex_model)0, SWEREX_MODEL_IS_ALIVE_RESPONSE},
  {"create_session", SWEREX_MODEL_CREATE_BASH_SESSION_REQUEST,
   SWEREX_MODEL_CREATE_BASH_SESSION_RESPONSE},
  {"run_in_session", SWEREX_MODEL_BASH_ACTION, SWEREX_MODEL_BASH_OBSERVATION},
  {"run_in_session", SWEREX_MODEL_BASH_INTERRUPT_ACTION, SWEREX_MODEL_BASH_OBSERVATION},
  {"close_session", SWEREX_MODEL_CLOSE_BASH_SESSION_REQUEST,
   SWEREX_MODEL_CLOSE_BASH_SESSION_RESPONSE},
  {"execute", SWEREX_MODEL_COMMAND, SWEREX_MODEL_COMMAND_RESPONSE},
  {"read_file", SWEREX_MODEL_READ_FILE_REQUEST, SWEREX_MODEL_READ_FILE_RESPONSE},
  {"write_file", SWEREX_MODEL_WRITE_FILE_REQUEST, SWEREX_MODEL_WRITE_FILE_RESPONSE},
  {"upload", SWEREX_MODEL_UPLOAD_REQUEST, SWEREX_MODEL_UPLOAD_RESPONSE},
  {"close", (swerex_model)0, SWEREX_MODEL_CLOSE_RESPONSE},
};
SWEREX__SYS_STATIC_ASSERT(SWEREX__SYS_COUNT(swerex__rt_rows) == SWEREX__RT_COUNT, rt_rows);

/** Start a verb: true, and the future will be ended; false, and it is untouched. */
typedef bool swerex__rt_start(swerex_runtime *runtime, const void *request, swerex_future *future,
                              swerex_error *err);

typedef struct swerex__rt_kind {
  const char *name; /* in messages */
  swerex__rt_start *start[SWEREX__RT_COUNT];
  /** Starts any verb that has no function of its own above. */
  bool (*any)(swerex_runtime *runtime, swerex__rt_verb verb, const void *request,
              swerex_future *future, swerex_error *err);
  void (*destroy)(swerex_runtime *runtime); /* end all at once, release */
} swerex__rt_kind;

struct swerex_runtime {
  swerex__loop_object object; /* first member: in the loop's list unless a deployment owns it */
  swerex_loop *loop;
  const swerex__rt_kind *kind;
};

static bool swerex__rt_begin(swerex_runtime *runtime, swerex__rt_verb verb, const void *request,
                             swerex_future *future, swerex_error *err) {
  swerex__rt_start *start = runtime->kind->start[verb];
  if (start != NULL) return start(runtime, request, future, err);
  return runtime->kind->any(runtime, verb, request, future, err);
}

static const swerex__model *swerex__rt_request_model(swerex__rt_verb verb) {
  if (verb == SWEREX__RT_IS_ALIVE) return &swerex__model_is_alive_request;
  if (verb == SWEREX__RT_CLOSE) return &swerex__model_close_request;
  return swerex__model_of(swerex__rt_rows[verb].request);
}

/** Start a verb. NULL only when out of memory or without a runtime: else the future tells. */
static swerex_future *swerex__rt_call(swerex_runtime *runtime, swerex__rt_verb verb,
                                      const void *request, swerex_error *err) {
  static const union {
    swerex_bash_action action;
    swerex_command command;
    swerex_create_bash_session_request create;
  } defaults; /* all zero: the largest of the requests */
  swerex_error error = SWEREX_ERROR_INIT;
  if (runtime == NULL) {
    swerex__err_set(err, SWEREX_E_VALUE, "%s: runtime is NULL", swerex__rt_rows[verb].name);
    return NULL;
  }
  const swerex__model *model = swerex__rt_request_model(verb);
  if (request == NULL) request = &defaults;
  swerex_future *future = swerex__loop_promise(
    runtime->loop, swerex__model_of(swerex__rt_rows[verb].response), err);
  if (future == NULL) return NULL;
  if (!swerex__model_check(model, request, &error) ||
      !swerex__rt_begin(runtime, verb, request, future, &error))
    swerex__loop_fail(future, &error);
  return future;
}

/** Start a verb and wait for its answer. */
static bool swerex__rt_call_and_wait(swerex_runtime *runtime, swerex__rt_verb verb,
                                     const void *request, void *response, swerex_error *err) {
  if (runtime != NULL && runtime->loop->running)
    return swerex__err_set(err, SWEREX_E_RUNTIME,
                           "%s: a callback cannot wait for a call; use the _async form",
                           swerex__rt_rows[verb].name);
  return swerex__loop_take(swerex__rt_call(runtime, verb, request, err), response, err);
}

static void swerex__rt_free(swerex_runtime *runtime) {
  if (runtime == NULL) return;
  swerex__loop_link_remove(&runtime->object.link);
  runtime->kind->destroy(runtime);
}

static void swerex__rt_destroy_object(swerex__loop_object *object) {
  swerex__rt_free((swerex_runtime *)object);
}

/** Fill the common part of a runtime, and have the loop free it. */
static void swerex__rt_init(swerex_runtime *runtime, swerex_loop *loop,
                            const swerex__rt_kind *kind) {
  runtime->loop = loop;
  runtime->kind = kind;
  runtime->object.destroy = swerex__rt_destroy_object;
  swerex__loop_link_insert(&loop->objects, &runtime->object.link);
}

/** A wait for a runtime that may not answer yet. */
typedef struct swerex__rt_wait {
  swerex_runtime *runtime;
  swerex_future *future, *probe; /* the caller's; the question under way */
  swerex__loop_timer timer;
  double end, timeout;
} swerex__rt_wait;

static void swerex__rt_wait_free(swerex__rt_wait *wait) {
  swerex__loop_disarm(wait->runtime->loop, &wait->timer);
  swerex__loop_free_future(wait->probe);
  swerex__mem_free(wait);
}

static void swerex__rt_wait_cancel(swerex_future *future) {
  swerex__rt_wait_free((swerex__rt_wait *)future->operation);
}

static void swerex__rt_wait_on_answer(swerex_future *probe, void *user_data);

/** Ask once more; false: that cannot be. */
static void swerex__rt_wait_ask(swerex__loop_timer *timer) {
  swerex__rt_wait *wait = (swerex__rt_wait *)timer->owner;
  swerex_future *future = wait->future;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex_is_alive_request request;
  memset(&request, 0, sizeof request);
  double left = wait->end - swerex__util_now();
  request.timeout = left > 1 ? 1 : left > 0.05 ? left : 0.05;
  wait->probe = swerex__rt_call(wait->runtime, SWEREX__RT_IS_ALIVE, &request, &error);
  if (wait->probe != NULL) {
    wait->probe->then = swerex__rt_wait_on_answer;
    wait->probe->user_data = wait;
    if (!wait->probe->waited && !wait->probe->done) wait->runtime->loop->pending--;
    wait->probe->waited = true;
    return;
  }
  swerex__rt_wait_free(wait);
  swerex__loop_fail(future, &error);
}

static void swerex__rt_wait_on_answer(swerex_future *probe, void *user_data) {
  swerex__rt_wait *wait = (swerex__rt_wait *)user_data;
  const swerex_is_alive_response *response = (const swerex_is_alive_response *)probe->response;
  swerex_future *future = wait->future;
  bool late = swerex__util_now() >= wait->end;
  if (probe->ok && !response->is_alive && !late) {
    swerex__loop_free_future(probe);
    wait->probe = NULL;
    swerex__loop_arm(wait->runtime->loop, &wait->timer, SWEREX__RT_WAIT_PAUSE,
                     swerex__rt_wait_ask, wait);
    return;
  }
  bool alive = probe->ok && response->is_alive;
  if (!alive && probe->ok)
    swerex__err_set(&future->error, SWEREX_E_TIMEOUT,
                    "Runtime did not start within %gs. The last answer was: %s", wait->timeout,
                    response->message.data == NULL ? "" : response->message.data);
  else if (!alive)
    swerex__err_move(&future->error, &probe->error);
  swerex__rt_wait_free(wait);
  swerex__loop_end(future, alive);
}

/** Wait until a runtime answers. */
static swerex_future *swerex__rt_wait_until_alive(swerex_runtime *runtime, double timeout,
                                                  swerex_error *err) {
  swerex_future *future = swerex__loop_promise(runtime->loop, NULL, err);
  swerex__rt_wait *wait =
    (swerex__rt_wait *)swerex__mem_new(&runtime->loop->allocator, 1, sizeof *wait);
  if (future == NULL || wait == NULL) {
    swerex__loop_free_future(future);
    swerex__mem_free(wait);
    swerex__err_memory(err);
    return NULL;
  }
  wait->runtime = runtime;
  wait->future = future;
  wait->timeout = timeout == 0 ? SWEREX__RT_WAIT_TIME : timeout;
  wait->end = swerex__util_now() + (wait->timeout < 0 ? 1e9 : wait->timeout);
  future->operation = wait;
  future->cancel = swerex__rt_wait_cancel;
  swerex__loop_arm(runtime->loop, &wait->timer, 0, swerex__rt_wait_ask, wait);
  return future;
}

/** Answer is_alive: yes. */
static bool swerex__rt_alive(swerex_runtime *runtime, const void *request, swerex_future *future,
                             swerex_error *err) {
  swerex_is_alive_response *response = (swerex_is_alive_response *)future->response;
  (void)request;
  response->message.data = swerex__mem_copy(&runtime->loop->allocator, "", 0);
  if (response->message.data == NULL) return swerex__err_memory(err);
  response->is_alive = true;
  swerex__loop_finish(future);
  return true;
}

/* =============================================================================================
 * [text] Encodings and terminal text
 * ========================================================================================== */
/* Three parts. Decoding turns a whole file into UTF-8 as Python's bytes.decode would, with the
 * same names, error handlers and messages. A filter turns a command's output into UTF-8 piece by
 * piece; how the bytes were split makes no difference. A keep holds output up to a cap: the head
 * in place, and behind it a ring of the newest bytes. */

/* --- valid and invalid UTF-8 --- */

/** What is wrong at a place where no character can be read. */
typedef struct swerex__text_fault {
  size_t size; /* bytes that are bad, 1 or more */
  const char *why;
  bool cut; /* they may be the start of a character, but the data ends */
} swerex__text_fault;

/** Describe why no character starts here. Call it only where that is so. */
static swerex__text_fault swerex__text_utf8_fault(const unsigned char *data, size_t size) {
  swerex__text_fault fault = {1, "invalid start byte", false};
  unsigned lead = data[0];
  if (lead < 0xC2 || lead > 0xF4) return fault;
  size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  fault.why = "invalid continuation byte";
  for (size_t i = 1; i < length; i++) {
    fault.size = i;
    if (i == size) {
      fault.why = "unexpected end of data";
      fault.cut = true;
      return fault;
    }
    if (data[i] < lowest || data[i] > highest) return fault;
    lowest = 0x80;
    highest = 0xBF;
  }
  return fault;
}

/** Count the leading bytes below 0x80, up to a CR if asked to stop there. */
static size_t swerex__text_ascii(const char *text, size_t size, bool stop_at_cr) {
  const uint64_t each = 0x0101010101010101u;
  const uint64_t asked = stop_at_cr ? each * 0x80 : 0;
  uint64_t word;
  size_t n = 0;
  for (; size - n >= sizeof word; n += sizeof word) { /* high bit: not ASCII, or a CR */
    memcpy(&word, text + n, sizeof word);
    if (((word & (each * 0x80)) | (((word ^ (each * '\r')) - each) & asked)) != 0) break;
  }
  while (n < size && (unsigned char)text[n] < 0x80 && !(stop_at_cr && text[n] == '\r')) n++;
  return n;
}

/** Count the leading bytes that are whole, valid characters, up to a CR if asked. */
static size_t swerex__text_run(const char *text, size_t size, bool stop_at_cr) {
  size_t n = 0;
  for (;;) {
    uint32_t point;
    n += swerex__text_ascii(text + n, size - n, stop_at_cr);
    if (n == size || text[n] == '\r') return n;
    do {
      size_t length = swerex__util_utf8_next(text + n, size - n, &point);
      if (length == 0) return n;
      n += length;
    } while (n < size && (unsigned char)text[n] >= 0x80);
  }
}

/** Write a byte as \xff, and a NUL. */
static void swerex__text_escape(char out[5], char byte) {
  unsigned char value = (unsigned char)byte;
  out[0] = '\\';
  out[1] = 'x';
  swerex__util_hex(out + 2, &value, 1);
}

/* --- decoding: characters --- */

/** Read the first character of size > 0 bytes; returns its length, or 0 and what is wrong. */
typedef size_t swerex__text_reader(const unsigned char *data, size_t size, uint32_t *point,
                                   swerex__text_fault *fault);

static size_t swerex__text_fail(swerex__text_fault *fault, size_t size, const char *why) {
  fault->size = size;
  fault->why = why;
  return 0;
}

static size_t swerex__text_read_utf_8(const unsigned char *data, size_t size, uint32_t *point,
                                      swerex__text_fault *fault) {
  size_t length = swerex__util_utf8_next((const char *)data, size, point);
  if (length == 0) *fault = swerex__text_utf8_fault(data, size);
  return length;
}

static size_t swerex__text_read_ascii(const unsigned char *data, size_t size, uint32_t *point,
                                      swerex__text_fault *fault) {
  (void)size;
  *point = data[0];
  if (data[0] < 0x80) return 1;
  return swerex__text_fail(fault, 1, "ordinal not in range(128)");
}

static size_t swerex__text_read_latin_1(const unsigned char *data, size_t size, uint32_t *point,
                                        swerex__text_fault *fault) {
  (void)size, (void)fault;
  *point = data[0];
  return 1;
}

static size_t swerex__text_read_cp1252(const unsigned char *data, size_t size, uint32_t *point,
                                       swerex__text_fault *fault) {
  static const uint16_t points[32] = {
    0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};
  (void)size;
  *point = data[0] < 0x80 || data[0] > 0x9F ? data[0] : points[data[0] - 0x80];
  if (*point != 0 || data[0] == 0) return 1;
  return swerex__text_fail(fault, 1, "character maps to <undefined>");
}

static size_t swerex__text_read_utf_16(const unsigned char *data, size_t size, int high,
                                       uint32_t *point, swerex__text_fault *fault) {
  if (size < 2) return swerex__text_fail(fault, size, "truncated data");
  uint32_t unit = (uint32_t)data[high] << 8 | data[1 - high];
  *point = unit;
  if (unit < 0xD800 || unit > 0xDFFF) return 2;
  if (unit >= 0xDC00) return swerex__text_fail(fault, 2, "illegal encoding");
  if (size < 4) return swerex__text_fail(fault, size, "unexpected end of data");
  uint32_t low = (uint32_t)data[2 + high] << 8 | data[3 - high];
  if (low < 0xDC00 || low > 0xDFFF)
    return swerex__text_fail(fault, 2, "illegal UTF-16 surrogate");
  *point = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
  return 4;
}

static size_t swerex__text_read_utf_16_le(const unsigned char *data, size_t size, uint32_t *point,
                                          swerex__text_fault *fault) {
  return swerex__text_read_utf_16(data, size, 1, point, fault);
}

static size_t swerex__text_read_utf_16_be(const unsigned char *data, size_t size, uint32_t *point,
                                          swerex__text_fault *fault) {
  return swerex__text_read_utf_16(data, size, 0, point, fault);
}

/** `flip` is XORed to the index of a byte: 0 for big endian, 3 for little. */
static size_t swerex__text_read_utf_32(const unsigned char *data, size_t size, unsigned flip,
                                       uint32_t *point, swerex__text_fault *fault) {
  if (size < 4) return swerex__text_fail(fault, size, "truncated data");
  *point = (uint32_t)data[flip] << 24 | (uint32_t)data[1 ^ flip] << 16 |
           (uint32_t)data[2 ^ flip] << 8 | data[3 ^ flip];
  if (*point >= 0xD800 && *point <= 0xDFFF)
    return swerex__text_fail(fault, 4, "code point in surrogate code point range(0xd800, 0xe000)");
  if (*point > 0x10FFFF)
    return swerex__text_fail(fault, 4, "code point not in range(0x110000)");
  return 4;
}

static size_t swerex__text_read_utf_32_le(const unsigned char *data, size_t size, uint32_t *point,
                                          swerex__text_fault *fault) {
  return swerex__text_read_utf_32(data, size, 3, point, fault);
}

static size_t swerex__text_read_utf_32_be(const unsigned char *data, size_t size, uint32_t *point,
                                          swerex__text_fault *fault) {
  return swerex__text_read_utf_32(data, size, 0, point, fault);
}

/* --- decoding: names --- */

typedef enum swerex__text_codec {
  SWEREX__TEXT_UTF_8,
  SWEREX__TEXT_UTF_8_SIG,
  SWEREX__TEXT_ASCII,
  SWEREX__TEXT_LATIN_1,
  SWEREX__TEXT_CP1252,
  SWEREX__TEXT_UTF_16,
  SWEREX__TEXT_UTF_16_LE,
  SWEREX__TEXT_UTF_16_BE,
  SWEREX__TEXT_UTF_32,
  SWEREX__TEXT_UTF_32_LE,
  SWEREX__TEXT_UTF_32_BE,
  SWEREX__TEXT_OTHER /* iconv's */
} swerex__text_codec;

static const struct {
  const char *name; /* as errors call it */
  swerex__text_reader *read;
  bool ascii; /* bytes below 0x80 stand for themselves */
} swerex__text_codecs[] = {
  {"utf-8", swerex__text_read_utf_8, true},
  {"utf-8", swerex__text_read_utf_8, true},
  {"ascii", swerex__text_read_ascii, true},
  {"latin-1", swerex__text_read_latin_1, true},
  {"charmap", swerex__text_read_cp1252, true},
  {"utf-16-le", swerex__text_read_utf_16_le, false}, /* without a mark, as on x86 and arm64 */
  {"utf-16-le", swerex__text_read_utf_16_le, false},
  {"utf-16-be", swerex__text_read_utf_16_be, false},
  {"utf-32-le", swerex__text_read_utf_32_le, false},
  {"utf-32-le", swerex__text_read_utf_32_le, false},
  {"utf-32-be", swerex__text_read_utf_32_be, false},
};
SWEREX__SYS_STATIC_ASSERT(SWEREX__SYS_COUNT(swerex__text_codecs) == SWEREX__TEXT_OTHER, codecs);

/** What a byte order mark at the start makes of a codec. */
static const struct {
  swerex__text_codec codec, becomes;
  bool counted; /* by the positions in error messages */
  unsigned char size;
  char mark[4];
} swerex__text_marks[] = {
  {SWEREX__TEXT_UTF_8_SIG, SWEREX__TEXT_UTF_8, false, 3, {'\xEF', '\xBB', '\xBF', 0}},
  {SWEREX__TEXT_UTF_16, SWEREX__TEXT_UTF_16_LE, true, 2, {'\xFF', '\xFE', 0, 0}},
  {SWEREX__TEXT_UTF_16, SWEREX__TEXT_UTF_16_BE, true, 2, {'\xFE', '\xFF', 0, 0}},
  {SWEREX__TEXT_UTF_32, SWEREX__TEXT_UTF_32_LE, true, 4, {'\xFF', '\xFE', 0, 0}},
  {SWEREX__TEXT_UTF_32, SWEREX__TEXT_UTF_32_BE, true, 4, {0, 0, '\xFE', '\xFF'}},
};

/** Python's names for what is built in, in normal form. */
static const struct {
  swerex__text_codec codec;
  const char *names; /* each followed by a space */
} swerex__text_names[] = {
  {SWEREX__TEXT_UTF_8, "utf_8 u8 utf utf8 utf8_ucs2 utf8_ucs4 cp65001 "},
  {SWEREX__TEXT_UTF_8_SIG, "utf_8_sig "},
  {SWEREX__TEXT_ASCII, "ascii 646 ansi_x3_4_1968 ansi_x3_4_1986 cp367 csascii ibm367 iso646_us "
                       "iso_646_irv_1991 iso_ir_6 us us_ascii "},
  {SWEREX__TEXT_LATIN_1, "latin_1 8859 cp819 csisolatin1 ibm819 iso8859 iso8859_1 iso_8859_1 "
                         "iso_8859_1_1987 iso_ir_100 l1 latin latin1 "},
  {SWEREX__TEXT_CP1252, "cp1252 1252 windows_1252 "},
  {SWEREX__TEXT_UTF_16, "utf_16 u16 utf16 "},
  {SWEREX__TEXT_UTF_16_LE, "utf_16_le unicodelittleunmarked utf_16le "},
  {SWEREX__TEXT_UTF_16_BE, "utf_16_be unicodebigunmarked utf_16be "},
  {SWEREX__TEXT_UTF_32, "utf_32 u32 utf32 "},
  {SWEREX__TEXT_UTF_32_LE, "utf_32_le utf_32le "},
  {SWEREX__TEXT_UTF_32_BE, "utf_32_be utf_32be "},
};

#define SWEREX__TEXT_NAME 40 /* longest name of an encoding, with its NUL */

/** Bring a name into Python's normal form: lower case, one _ between words. */
static bool swerex__text_normalize(char out[SWEREX__TEXT_NAME], const char *name) {
  size_t n = 0;
  bool gap = false;
  for (; *name != '\0'; name++) {
    char c = *name;
    if (c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
    bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if ((unsigned char)c >= 0x80 || n + 2 >= SWEREX__TEXT_NAME) return false;
    if (word && gap && n > 0) out[n++] = '_';
    if (word) out[n++] = c;
    gap = !word;
  }
  out[n] = '\0';
  return n > 0;
}

/** Find what is built in by a name in normal form. */
static swerex__text_codec swerex__text_find(const char *name) {
  size_t size = strlen(name);
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__text_names); i++) {
    const char *at = swerex__text_names[i].names;
    for (const char *end; (end = strchr(at, ' ')) != NULL; at = end + 1)
      if ((size_t)(end - at) == size && memcmp(at, name, size) == 0)
        return swerex__text_names[i].codec;
  }
  return SWEREX__TEXT_OTHER;
}

/* --- decoding: the work --- */

typedef enum swerex__text_handler {
  SWEREX__TEXT_STRICT,
  SWEREX__TEXT_IGNORE,
  SWEREX__TEXT_REPLACE,
  SWEREX__TEXT_BACKSLASH,
  SWEREX__TEXT_KEEP
} swerex__text_handler;

/** Those that Python has for encoding only, or for surrogates, are strict here. */
static const struct {
  const char *name;
  swerex__text_handler handler;
} swerex__text_handlers[] = {
  {"strict", SWEREX__TEXT_STRICT},
  {"ignore", SWEREX__TEXT_IGNORE},
  {"replace", SWEREX__TEXT_REPLACE},
  {"backslashreplace", SWEREX__TEXT_BACKSLASH},
  {"surrogateescape", SWEREX__TEXT_KEEP},
  {"surrogatepass", SWEREX__TEXT_STRICT},
  {"xmlcharrefreplace", SWEREX__TEXT_STRICT},
  {"namereplace", SWEREX__TEXT_STRICT},
};

typedef struct swerex__text_job {
  const char *data;
  size_t size, at;
  size_t origin; /* where position 0 of error messages is */
  const char *name;
  swerex__text_handler handler;
  swerex__str out;
  swerex_error *err;
} swerex__text_job;

/** Report bad bytes at the job's place in Python's words. Returns false. */
static bool swerex__text_refuse(const swerex__text_job *job, const swerex__text_fault *fault) {
  size_t first = job->at - job->origin;
  if (fault->size == 1)
    return swerex__err_set(job->err, SWEREX_E_UNICODE_DECODE,
                           "'%s' codec can't decode byte 0x%02x in position %zu: %s", job->name,
                           (unsigned)(unsigned char)job->data[job->at], first, fault->why);
  return swerex__err_set(job->err, SWEREX_E_UNICODE_DECODE,
                         "'%s' codec can't decode bytes in position %zu-%zu: %s", job->name, first,
                         first + fault->size - 1, fault->why);
}

/** Do with bad bytes what the error handler says, and step over them. */
static bool swerex__text_handle(swerex__text_job *job, const swerex__text_fault *fault) {
  const char *bad = job->data + job->at;
  size_t size = fault->size;
  char escape[5];
  switch (job->handler) {
    case SWEREX__TEXT_IGNORE: break;
    case SWEREX__TEXT_REPLACE: swerex__str_puts(&job->out, "\xEF\xBF\xBD"); break;
    case SWEREX__TEXT_BACKSLASH:
      for (size_t i = 0; i < size; i++) {
        swerex__text_escape(escape, bad[i]);
        swerex__str_add(&job->out, escape, 4);
      }
      break;
    case SWEREX__TEXT_KEEP: /* as Python: only bytes from 0x80, and the rest is read again */
      for (size = 0; size < fault->size && (unsigned char)bad[size] >= 0x80; size++) continue;
      if (size == 0) return swerex__text_refuse(job, fault);
      swerex__str_add(&job->out, bad, size);
      break;
    case SWEREX__TEXT_STRICT: return swerex__text_refuse(job, fault);
  }
  job->at += size;
  return true;
}

/** Decode with what is built in. */
static bool swerex__text_decode_own(swerex__text_job *job, swerex__text_codec codec) {
  bool ascii = swerex__text_codecs[codec].ascii;
  bool utf_8 = swerex__text_codecs[codec].read == swerex__text_read_utf_8;
  swerex__str_reserve(&job->out, ascii ? job->size : job->size / 2);
  while (job->at < job->size && !job->out.failed) {
    const char *data = job->data + job->at;
    size_t left = job->size - job->at, length = 0;
    if (utf_8)
      length = swerex__text_run(data, left, false);
    else if (ascii)
      length = swerex__text_ascii(data, left, false);
    swerex__str_add(&job->out, data, length);
    job->at += length;
    if (length == left) break;
    swerex__text_fault fault = {0, NULL, false};
    uint32_t point = 0;
    char character[4];
    length = swerex__text_codecs[codec].read((const unsigned char *)data + length, left - length,
                                             &point, &fault);
    if (length == 0 && !swerex__text_handle(job, &fault)) return false;
    if (length > 0)
      swerex__str_add(&job->out, character, swerex__util_utf8_put(character, point));
    job->at += length;
  }
  return true;
}

/** Open iconv by a name in normal form, under the spellings that systems have for it. */
static iconv_t swerex__text_open_iconv(const char *name) {
  static const struct {
    const char *start, *instead;
  } rows[] = {{"", ""},
              {"iso8859", "iso-8859"},
              {"iso2022", "iso-2022"},
              {"mac_roman", "macintosh"},
              {"macroman", "macintosh"}};
  char spelled[SWEREX__TEXT_NAME + 16];
  const char *page = name[0] >= '0' && name[0] <= '9' ? "cp" : ""; /* 1251 is cp1251 */
  iconv_t handle = (iconv_t)-1;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(rows) && handle == (iconv_t)-1; i++) {
    size_t skip = strlen(rows[i].start);
    if (strncmp(name, rows[i].start, skip) != 0) continue;
    snprintf(spelled, sizeof spelled, "%s%s%s", page, rows[i].instead, name + skip);
    for (char *c = spelled; *c != '\0'; c++)
      if (*c == '_') *c = '-';
    handle = iconv_open("UTF-8", spelled);
  }
  return handle;
}

/** Describe what iconv stumbled over; a code page of single bytes is a charmap in Python. */
static swerex__text_fault swerex__text_iconv_fault(swerex__text_job *job, const char *name,
                                                   bool cut) {
  static const char *const charmaps[] = {"cp1", "cp4", "cp7", "cp8", "1",   "4",   "7",  "8",
                                         "iso8859", "iso_8859", "latin", "koi8", "mac", "windows"};
  swerex__text_fault fault = {1, "illegal multibyte sequence", cut};
  if (cut) {
    fault.size = job->size - job->at;
    fault.why = "incomplete multibyte sequence";
    return fault;
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(charmaps); i++) {
    if (strncmp(name, charmaps[i], strlen(charmaps[i])) != 0) continue;
    job->name = "charmap";
    fault.why = "character maps to <undefined>";
  }
  return fault;
}

/** Decode with the system's iconv. */
static bool swerex__text_decode_iconv(swerex__text_job *job, iconv_t handle, const char *name) {
  bool ok = true, flushed = false;
  size_t room = job->size + 64;
  while (ok && !flushed) {
    char *in = (char *)(uintptr_t)(job->data + job->at);
    size_t left = job->size - job->at;
    char *out = swerex__str_reserve(&job->out, room);
    if (out == NULL) return true;
    size_t free_room = room;
    bool last = left == 0; /* back to the initial state: some encodings hold a character back */
    size_t result = iconv(handle, last ? NULL : &in, last ? NULL : &left, &out, &free_room);
    int number = errno;
    job->out.size += room - free_room;
    job->at = job->size - left;
    if (result != (size_t)-1) {
      flushed = last;
    } else if (number == EILSEQ || number == EINVAL) {
      if (last) break;
      swerex__text_fault fault = swerex__text_iconv_fault(job, name, number == EINVAL);
      ok = swerex__text_handle(job, &fault);
    } else if (number != E2BIG) {
      ok = swerex__err_system(job->err, number, name);
    }
    room = job->size - job->at + 64;
  }
  swerex__str_add(&job->out, "", 0);
  return ok;
}

/** Turn CRLF and CR into LF. */
static void swerex__text_join_lines(swerex__str *s) {
  char *to = s->data == NULL ? NULL : (char *)memchr(s->data, '\r', s->size);
  if (to == NULL) return;
  const char *from = to, *end = s->data + s->size;
  while (from < end) {
    const char *next = (const char *)memchr(from, '\r', (size_t)(end - from));
    size_t length = (size_t)((next == NULL ? end : next) - from);
    memmove(to, from, length);
    to += length;
    from += length;
    if (next == NULL) break;
    from += end - from > 1 && from[1] == '\n' ? 2 : 1;
    *to++ = '\n';
  }
  *to = '\0';
  s->size = (size_t)(to - s->data);
}

/** Choose codec and place of the first character by a byte order mark. */
static swerex__text_codec swerex__text_take_mark(swerex__text_job *job, swerex__text_codec codec) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__text_marks); i++) {
    size_t size = swerex__text_marks[i].size;
    if (swerex__text_marks[i].codec != codec || job->size < size) continue;
    if (memcmp(job->data, swerex__text_marks[i].mark, size) != 0) continue;
    job->at = size;
    job->origin = swerex__text_marks[i].counted ? 0 : size;
    return swerex__text_marks[i].becomes;
  }
  return codec;
}

/**
 * Decode bytes as Python's bytes.decode(encoding, errors) would, and make every line end in LF.
 * NULL stands for "utf-8" and "strict". What surrogateescape escapes stays in `out` as it is.
 */
static bool swerex__text_decode(const swerex_allocator *allocator, const char *data, size_t size,
                                const char *encoding, const char *errors, swerex_bytes *out,
                                swerex_error *err) {
  swerex__text_job job = {data, size, 0, 0, NULL, SWEREX__TEXT_STRICT,
                          swerex__str_new(allocator, SIZE_MAX / 2), err};
  char name[SWEREX__TEXT_NAME];
  size_t row = 0;
  iconv_t handle = (iconv_t)-1;
  swerex__text_codec codec = SWEREX__TEXT_UTF_8;
  while (errors != NULL && strcmp(swerex__text_handlers[row].name, errors) != 0)
    if (++row == SWEREX__SYS_COUNT(swerex__text_handlers))
      return swerex__err_set(err, SWEREX_E_LOOKUP, "unknown error handler name '%s'", errors);
  job.handler = swerex__text_handlers[row].handler;
  if (encoding != NULL) {
    bool known = swerex__text_normalize(name, encoding);
    if (known) codec = swerex__text_find(name);
    if (known && codec == SWEREX__TEXT_OTHER) {
      handle = swerex__text_open_iconv(name);
      known = handle != (iconv_t)-1;
    }
    if (!known) return swerex__err_set(err, SWEREX_E_LOOKUP, "unknown encoding: %s", encoding);
  }
  bool ok;
  if (codec == SWEREX__TEXT_OTHER) {
    job.name = name;
    ok = swerex__text_decode_iconv(&job, handle, name);
    iconv_close(handle);
  } else {
    codec = swerex__text_take_mark(&job, codec);
    job.name = swerex__text_codecs[codec].name;
    ok = swerex__text_decode_own(&job, codec);
  }
  if (!ok) {
    swerex__str_clear(&job.out);
    return false;
  }
  swerex__text_join_lines(&job.out);
  return swerex__str_take(&job.out, out, err);
}

/* --- command output --- */

#define SWEREX__TEXT_SEQUENCE 4096 /* longest escape sequence */
#define SWEREX__TEXT_BATCH 2048    /* small pieces are handed on together */

typedef enum swerex__text_state {
  SWEREX__TEXT_GROUND,
  SWEREX__TEXT_ESC,        /* after ESC */
  SWEREX__TEXT_BETWEEN,    /* after ESC and bytes such as ( */
  SWEREX__TEXT_PARAMETERS, /* after ESC [ */
  SWEREX__TEXT_COMMAND,    /* after ESC [, parameters, and bytes such as a space */
  SWEREX__TEXT_STRING,     /* after ESC ] and its kin, up to BEL or ESC \ */
  SWEREX__TEXT_STRING_ESC
} swerex__text_state;

/** What to do with a byte of an escape sequence. */
typedef enum swerex__text_step {
  SWEREX__TEXT_HOLD,  /* it is part of the sequence */
  SWEREX__TEXT_DROP,  /* it is the last one, and the sequence goes */
  SWEREX__TEXT_BREAK, /* it does not belong here: there was no sequence */
  SWEREX__TEXT_AGAIN  /* the ESC before it ended a string too early, and starts a sequence */
} swerex__text_step;

typedef struct swerex__text_filter {
  bool terminal;
  bool cr; /* a CR waits for what follows */
  swerex__text_state state;
  size_t partial_size; /* the start of a character that goes on in the next chunk */
  char partial[4];
  size_t held_size; /* an escape sequence so far */
  char held[SWEREX__TEXT_SEQUENCE];
} swerex__text_filter;

/** Where filtered text goes; pieces are whole characters, and small ones come together. */
typedef struct swerex__text_outlet {
  swerex__text_filter *filter;
  void (*sink)(void *user, const char *text, size_t size);
  void *user;
  size_t size;
  char batch[SWEREX__TEXT_BATCH];
} swerex__text_outlet;

static void swerex__text_flush(swerex__text_outlet *to) {
  if (to->size > 0) to->sink(to->user, to->batch, to->size);
  to->size = 0;
}

static void swerex__text_emit(swerex__text_outlet *to, const char *text, size_t size) {
  if (size > sizeof to->batch - to->size) swerex__text_flush(to);
  if (size > sizeof to->batch / 2) {
    swerex__text_flush(to);
    to->sink(to->user, text, size);
    return;
  }
  memcpy(to->batch + to->size, text, size);
  to->size += size;
}

static void swerex__text_emit_escaped(swerex__text_outlet *to, const char *data, size_t size) {
  char escape[5];
  for (size_t i = 0; i < size; i++) {
    swerex__text_escape(escape, data[i]);
    swerex__text_emit(to, escape, 4);
  }
}

/** Give up on the start of a character: its bytes are invalid. */
static void swerex__text_emit_partial(swerex__text_outlet *to) {
  swerex__text_emit_escaped(to, to->filter->partial, to->filter->partial_size);
  to->filter->partial_size = 0;
}

/** Take the next byte of a character that a chunk began; false: it does not belong to it. */
static bool swerex__text_continue(swerex__text_outlet *to, char byte) {
  swerex__text_filter *f = to->filter;
  size_t size = f->partial_size + 1;
  uint32_t point;
  f->partial[f->partial_size] = byte;
  if (swerex__util_utf8_next(f->partial, size, &point) > 0) {
    swerex__text_emit(to, f->partial, size);
    f->partial_size = 0;
    return true;
  }
  if (swerex__text_utf8_fault((const unsigned char *)f->partial, size).cut) {
    f->partial_size = size;
    return true;
  }
  swerex__text_emit_partial(to);
  return false;
}

/** Pass what starts no valid character; it may be one that goes on in the next chunk. */
static size_t swerex__text_pass_invalid(swerex__text_outlet *to, const char *data, size_t size) {
  swerex__text_fault fault = swerex__text_utf8_fault((const unsigned char *)data, size);
  if (!fault.cut) {
    swerex__text_emit_escaped(to, data, fault.size);
  } else {
    memcpy(to->filter->partial, data, size);
    to->filter->partial_size = size;
  }
  return fault.size;
}

/** Pass bytes in which ESC means nothing. */
static void swerex__text_pass(swerex__text_outlet *to, const char *data, size_t size) {
  swerex__text_filter *f = to->filter;
  size_t at = 0;
  while (at < size) {
    if (f->cr && data[at] != '\n') swerex__text_emit(to, "\r", 1);
    f->cr = false;
    if (f->partial_size > 0) {
      at += swerex__text_continue(to, data[at]);
      continue;
    }
    size_t length = swerex__text_run(data + at, size - at, f->terminal);
    if (length > 0) swerex__text_emit(to, data + at, length);
    at += length;
    if (at == size) break;
    f->cr = data[at] == '\r';
    at += f->cr ? 1 : swerex__text_pass_invalid(to, data + at, size - at);
  }
}

/** Tell how a sequence goes on after ESC. */
static swerex__text_step swerex__text_after_esc(swerex__text_filter *f, unsigned char byte) {
  if (byte < 0x20 || byte > 0x7E) return SWEREX__TEXT_BREAK;
  if (byte <= 0x2F)
    f->state = SWEREX__TEXT_BETWEEN;
  else if (byte == '[')
    f->state = SWEREX__TEXT_PARAMETERS;
  else if (strchr("]PX^_", byte) != NULL)
    f->state = SWEREX__TEXT_STRING;
  else
    return SWEREX__TEXT_DROP;
  return SWEREX__TEXT_HOLD;
}

/** Tell how a string such as a window title goes on. */
static swerex__text_step swerex__text_in_string(swerex__text_filter *f, unsigned char byte) {
  bool title = f->held[1] == ']';
  if (f->state == SWEREX__TEXT_STRING) {
    if (byte == '\n') return SWEREX__TEXT_BREAK;
    if (byte == '\a' && title) return SWEREX__TEXT_DROP;
    if (byte == '\033') f->state = SWEREX__TEXT_STRING_ESC;
    return SWEREX__TEXT_HOLD;
  }
  if (byte == '\\') return SWEREX__TEXT_DROP;
  if (byte != '\033' || title) return SWEREX__TEXT_AGAIN;
  f->state = SWEREX__TEXT_STRING; /* ESC ESC: how tmux passes an ESC through */
  return SWEREX__TEXT_HOLD;
}

/** Take one byte of a sequence. */
static swerex__text_step swerex__text_next(swerex__text_filter *f, unsigned char byte) {
  bool between = byte >= 0x20 && byte <= 0x2F;
  switch (f->state) {
    case SWEREX__TEXT_GROUND: break;
    case SWEREX__TEXT_ESC: return swerex__text_after_esc(f, byte);
    case SWEREX__TEXT_BETWEEN:
      if (between) return SWEREX__TEXT_HOLD;
      return byte >= 0x30 && byte <= 0x7E ? SWEREX__TEXT_DROP : SWEREX__TEXT_BREAK;
    case SWEREX__TEXT_PARAMETERS:
      if (byte >= 0x30 && byte <= 0x3F) return SWEREX__TEXT_HOLD;
      if (between) f->state = SWEREX__TEXT_COMMAND;
      /* fall through */
    case SWEREX__TEXT_COMMAND:
      if (between) return SWEREX__TEXT_HOLD;
      return byte >= 0x40 && byte <= 0x7E ? SWEREX__TEXT_DROP : SWEREX__TEXT_BREAK;
    case SWEREX__TEXT_STRING:
    case SWEREX__TEXT_STRING_ESC: return swerex__text_in_string(f, byte);
  }
  return SWEREX__TEXT_BREAK;
}

/** Pass `size` held bytes on as text; of a broken string without its shortest reading. */
static void swerex__text_release(swerex__text_outlet *to, size_t size) {
  swerex__text_filter *f = to->filter;
  size_t from = 0, i = 2;
  if (f->state == SWEREX__TEXT_STRING || f->state == SWEREX__TEXT_STRING_ESC) {
    while (i < size && f->held[i] >= 0x30 && f->held[i] <= 0x3F) i++;
    while (i < size && f->held[i] >= 0x20 && f->held[i] <= 0x2F) i++;
    if (i < size && f->held[i] >= 0x40 && f->held[i] <= 0x7E) from = i + 1;
  }
  f->state = SWEREX__TEXT_GROUND;
  f->held_size = 0;
  swerex__text_pass(to, f->held + from, size - from);
}

static void swerex__text_start_sequence(swerex__text_filter *f) {
  f->state = SWEREX__TEXT_ESC;
  f->held[0] = '\033';
  f->held_size = 1;
}

/** Go on with an escape sequence; returns how many bytes were used. */
static size_t swerex__text_sequence(swerex__text_outlet *to, const char *data, size_t size) {
  swerex__text_filter *f = to->filter;
  for (size_t i = 0; i < size; i++) {
    swerex__text_state before = f->state;
    swerex__text_step step = swerex__text_next(f, (unsigned char)data[i]);
    if (step == SWEREX__TEXT_HOLD && f->held_size < sizeof f->held) {
      f->held[f->held_size++] = data[i];
      continue;
    }
    if (step == SWEREX__TEXT_DROP) {
      f->state = SWEREX__TEXT_GROUND;
      f->held_size = 0;
      return i + 1;
    }
    f->state = before;
    swerex__text_release(to, f->held_size - (step == SWEREX__TEXT_AGAIN));
    if (step == SWEREX__TEXT_AGAIN) {
      swerex__text_emit_partial(to);
      swerex__text_start_sequence(f);
    }
    return i;
  }
  return size;
}

/** Return the length of a whole ESC [ sequence at the start, the common case; 0 if it is not. */
static size_t swerex__text_whole(const char *data, size_t size) {
  size_t i = 2;
  if (size < 3 || data[1] != '[') return 0;
  while (i < size && data[i] >= 0x30 && data[i] <= 0x3F) i++;
  return i < size && i < SWEREX__TEXT_SEQUENCE && data[i] >= 0x40 && data[i] <= 0x7E ? i + 1 : 0;
}

/** Start a filter; a terminal's output also loses its escape sequences, and CRLF becomes LF. */
static void swerex__text_filter_init(swerex__text_filter *f, bool terminal) {
  f->terminal = terminal;
  f->cr = false;
  f->state = SWEREX__TEXT_GROUND;
  f->partial_size = f->held_size = 0;
}

/** Filter a chunk, handing the text on in pieces. */
static void swerex__text_filter_feed(swerex__text_filter *f, const char *data, size_t size,
                                     void (*sink)(void *user, const char *text, size_t size),
                                     void *user) {
  swerex__text_outlet to;
  to.filter = f;
  to.sink = sink;
  to.user = user;
  to.size = 0;
  while (size > 0) {
    size_t used;
    if (f->state != SWEREX__TEXT_GROUND) {
      used = swerex__text_sequence(&to, data, size);
    } else {
      const char *esc = f->terminal ? (const char *)memchr(data, '\033', size) : NULL;
      used = esc == NULL ? size : (size_t)(esc - data);
      swerex__text_pass(&to, data, used);
      if (esc != NULL) {
        size_t whole = swerex__text_whole(esc, size - used);
        swerex__text_emit_partial(&to);
        if (whole == 0) swerex__text_start_sequence(f);
        used += whole > 0 ? whole : 1;
      }
    }
    data += used;
    size -= used;
  }
  swerex__text_flush(&to);
}

/** Hand on what still waited for more; the filter is then as new. */
static void swerex__text_filter_finish(swerex__text_filter *f,
                                       void (*sink)(void *user, const char *text, size_t size),
                                       void *user) {
  swerex__text_outlet to;
  to.filter = f;
  to.sink = sink;
  to.user = user;
  to.size = 0;
  if (f->state != SWEREX__TEXT_GROUND) swerex__text_release(&to, f->held_size);
  swerex__text_emit_partial(&to);
  if (f->cr) swerex__text_emit(&to, "\r", 1);
  f->cr = false;
  swerex__text_flush(&to);
}

/* --- capped keeping --- */

#define SWEREX__TEXT_MARKER 64 /* room for the note on what was left out */

typedef struct swerex__text_keep {
  const swerex_allocator *allocator;
  char *data;
  size_t size, room, max;
  size_t head; /* once over: the ring is data[head] to data[max] ... */
  size_t next; /* ... and here its oldest byte is, which goes next */
  uint64_t left_out;
  bool over, failed;
} swerex__text_keep;

/** Start to keep at most `max` bytes: all, or the first half and the newest. */
static void swerex__text_keep_init(swerex__text_keep *k, const swerex_allocator *allocator,
                                   size_t max) {
  memset(k, 0, sizeof *k);
  k->allocator = allocator;
  k->max = max < SIZE_MAX / 4 ? max : SIZE_MAX / 4;
}

/** Release what was kept; the keep is then as new. */
static void swerex__text_keep_clear(swerex__text_keep *k) {
  swerex__mem_free(k->data);
  swerex__text_keep_init(k, k->allocator, k->max);
}

/** Make room for `size` bytes and the NUL, or when over for all that there will ever be. */
static bool swerex__text_keep_reserve(swerex__text_keep *k, size_t size, bool over) {
  size_t most = k->max + SWEREX__TEXT_MARKER;
  size_t wanted = k->room < 256 ? 256 : k->room * 2;
  if (wanted <= size) wanted = size + 1;
  if (over || wanted > most) wanted = most;
  if (wanted <= k->room || (size < k->room && !over)) return true;
  char *data = (char *)swerex__mem_grow(k->allocator, k->data, wanted, 1);
  if (data == NULL) {
    k->failed = true;
    return false;
  }
  k->data = data;
  k->room = wanted;
  return true;
}

/** Step back to the start of a character, if one is near. */
static size_t swerex__text_boundary(const char *text, size_t at) {
  size_t start = at;
  while (start > 0 && at - start < 3 && (text[start] & 0xC0) == 0x80) start--;
  return (text[start] & 0xC0) == 0x80 ? at : start;
}

/** Overwrite the oldest bytes of the ring. */
static void swerex__text_keep_turn(swerex__text_keep *k, const char *text, size_t size) {
  size_t ring = k->max - k->head;
  k->left_out += size;
  if (size >= ring) {
    if (ring > 0) memcpy(k->data + k->head, text + size - ring, ring);
    k->next = k->head;
    return;
  }
  size_t first = k->max - k->next < size ? k->max - k->next : size;
  memcpy(k->data + k->next, text, first);
  memcpy(k->data + k->head, text + first, size - first);
  k->next = first < size ? k->head + size - first : k->next + first;
  if (k->next == k->max) k->next = k->head;
}

/** Add text. Without memory, nothing more is kept, and `failed` is set. */
static void swerex__text_keep_add(swerex__text_keep *k, const char *text, size_t size) {
  if (k->failed || size == 0) return;
  if (!k->over) {
    size_t fits = k->max - k->size < size ? k->max - k->size : size;
    if (!swerex__text_keep_reserve(k, k->size + fits, fits < size)) return;
    memcpy(k->data + k->size, text, fits);
    k->size += fits;
    if (fits == size) return;
    k->over = true;
    k->head = k->max > 0 ? swerex__text_boundary(k->data, k->max / 2) : 0;
    k->next = k->head;
    text += fits;
    size -= fits;
  }
  swerex__text_keep_turn(k, text, size);
}

static void swerex__text_reverse(char *text, size_t size) {
  for (size_t i = 0; i < size / 2; i++) {
    char c = text[i];
    text[i] = text[size - 1 - i];
    text[size - 1 - i] = c;
  }
}

/** Put the ring in order, in place, and a note on what is missing before it. */
static void swerex__text_keep_join(swerex__text_keep *k) {
  char marker[SWEREX__TEXT_MARKER];
  char *ring = k->data + k->head;
  size_t size = k->max - k->head, older = k->max - k->next, cut = 0;
  swerex__text_reverse(ring, size - older);
  swerex__text_reverse(ring + size - older, older);
  swerex__text_reverse(ring, size);
  while (cut < size && cut < 3 && (ring[cut] & 0xC0) == 0x80) cut++;
  int length = snprintf(marker, sizeof marker, "\n[... %llu bytes left out ...]\n",
                        (unsigned long long)(k->left_out + cut));
  memmove(ring + length, ring + cut, size - cut);
  memcpy(ring, marker, (size_t)length);
  k->size = k->head + (size_t)length + size - cut;
}

/** Give away what was kept, without a copy if that is all there was; the keep is then as new. */
static bool swerex__text_keep_take(swerex__text_keep *k, swerex_bytes *out, swerex_error *err) {
  if (!k->failed) swerex__text_keep_reserve(k, k->size, k->over);
  if (k->failed) {
    swerex__text_keep_clear(k);
    return swerex__err_memory(err);
  }
  if (k->over) swerex__text_keep_join(k);
  k->data[k->size] = '\0';
  out->data = k->data;
  out->size = k->size;
  swerex__text_keep_init(k, k->allocator, k->max);
  return true;
}

/* =============================================================================================
 * [fs] Files
 * ========================================================================================== */
/* Reads and writes whole files, and copies files and trees in bounded steps. Paths mean what they
 * mean to Python's Path. Nothing waits for another process, and no state of the process is used but
 * its working folder and its umask, which are left alone.
 * A file that replaces another is written under a name of its own in the same folder and renamed,
 * so that others see the old content or the new. Where that is refused (a mount point, a folder
 * without write permission) or has no sense (a device, a pipe) it is written in place, as Python
 * would. Other hard links keep the old content. There is no fsync: the promise is about processes
 * that stop, not about power cuts. */

#define SWEREX__FS_STEP ((size_t)1 << 20)    /* bytes that one step of a copy moves */
#define SWEREX__FS_ENTRY ((size_t)1 << 14)   /* what a directory entry counts for, in bytes */
#define SWEREX__FS_CHUNK ((size_t)1 << 17)   /* bytes per read of a copy */
#define SWEREX__FS_READ ((size_t)1 << 12)    /* first read of a file of unknown size */
#define SWEREX__FS_PATH_MAX ((size_t)1 << 24) /* longest path below the root of a copy */
#define SWEREX__FS_LINKS_MAX 40              /* symbolic links followed in a row */

#define SWEREX__FS_INSIDE "a folder cannot be copied into itself"

typedef enum { SWEREX__FS_MORE, SWEREX__FS_DONE, SWEREX__FS_FAILED } swerex__fs_progress;

/* --- errors ------------------------------------------------------------------------------- */

/** What to add where the system's own words do not help. */
static const struct {
  int number;
  const char *why;
} swerex__fs_reasons[] = {
  {EAGAIN, "it would have to wait for another process, which file operations do not"},
  {ENXIO, "a pipe that nobody reads, a socket, or a device that is not there"},
  {EMFILE, "raise ulimit -n; a copy needs two descriptors per level of folders"},
};

/** Set a system error; why: an explanation to put behind it, or NULL. Returns false. */
static bool swerex__fs_explain(swerex_error *err, int number, const char *path, const char *why) {
  char text[128];
  if (number == ENOMEM) return swerex__err_memory(err);
  for (size_t i = 0; why == NULL && i < SWEREX__SYS_COUNT(swerex__fs_reasons); i++)
    if (swerex__fs_reasons[i].number == number) why = swerex__fs_reasons[i].why;
  if (why == NULL) return swerex__err_system(err, number, path);
  swerex__err_set(err, swerex__err_code_of(number), "[Errno %d] %s: '%s' (%s)", number,
                  swerex__err_describe(number, text, sizeof text), path, why);
  if (err != NULL) err->sys_errno = number;
  return false;
}

/** Report errno, which a call on this path has left. Returns false. */
static bool swerex__fs_fail(swerex_error *err, const char *path) {
  return swerex__fs_explain(err, errno, path, NULL);
}

/* --- paths and descriptors ---------------------------------------------------------------- */

static int swerex__fs_open(int folder, const char *path, int flags, mode_t mode) {
  int fd;
  do
    fd = openat(folder, path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

/** Close a file that was written; false: the system could not keep what it had accepted. */
static bool swerex__fs_close(int *fd) {
  int number = *fd;
  *fd = -1;
  return close(number) == 0 || errno == EINTR;
}

static ssize_t swerex__fs_read_some(int fd, char *data, size_t size) {
  ssize_t n;
  do
    n = read(fd, data, size);
  while (n < 0 && errno == EINTR);
  return n;
}

static bool swerex__fs_is_same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool swerex__fs_is_folder(const char *path) {
  struct stat info;
  return fstatat(AT_FDCWD, path, &info, 0) == 0 && S_ISDIR(info.st_mode);
}

/** Return how much of a path names its folder, the last slash included; 0: no folder is named. */
static size_t swerex__fs_folder_size(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/** Put the first `size` bytes of a path before a name; NULL with errno set. */
static char *swerex__fs_join(const swerex_allocator *a, const char *path, size_t size,
                             const char *name) {
  size_t length = strlen(name);
  char *joined = (char *)swerex__mem_grow(a, NULL, size + length + 1, 1);
  if (joined == NULL) {
    errno = ENOMEM;
    return NULL;
  }
  memcpy(joined, path, size);
  memcpy(joined + size, name, length + 1);
  return joined;
}

/** Copy a path without needless "." and slashes, as Python's Path does: "a//./b/" is "a/b". */
static char *swerex__fs_clean(const swerex_allocator *a, const char *path) {
  size_t slashes = strspn(path, "/");
  char *clean = (char *)swerex__mem_grow(a, NULL, strlen(path) + 2, 1);
  char *end = clean;
  if (clean == NULL) return NULL;
  if (slashes > 0) *end++ = '/';
  if (slashes == 2) *end++ = '/'; /* POSIX lets exactly two slashes have a meaning of their own */
  char *start = end;
  for (path += slashes; *path != '\0'; path += strspn(path, "/")) {
    size_t size = strcspn(path, "/");
    if (size != 1 || path[0] != '.') {
      if (end > start) *end++ = '/';
      memcpy(end, path, size);
      end += size;
    }
    path += size;
  }
  if (end == clean) *end++ = '.';
  *end = '\0';
  return clean;
}

/** Make the folders above a path. On failure the path is cut at the one that failed. */
static bool swerex__fs_make_parents(char *path, swerex_error *err) {
  char *end = strrchr(path, '/');
  bool upward = true;
  if (end == NULL || end == path) return true;
  *end = '\0';
  for (;;) {
    int number = mkdirat(AT_FDCWD, path, 0777) == 0 ? 0 : errno;
    if (number != 0 && number != ENOENT && swerex__fs_is_folder(path)) number = 0;
    char *slash = strrchr(path, '/');
    if (number == ENOENT && upward && slash != NULL && slash != path) {
      *slash = '\0';
      continue;
    }
    if (number != 0) return swerex__fs_explain(err, number, path, NULL);
    upward = false;
    size_t done = strlen(path);
    path[done] = '/';
    if (path + done == end) return true;
  }
}

/** Follow the links at the end of a path, also to what is not there; NULL with errno set. */
static char *swerex__fs_follow(const swerex_allocator *a, const char *path) {
  char link[PATH_MAX];
  char *place = swerex__fs_join(a, path, strlen(path), "");
  int number = place == NULL ? ENOMEM : 0;
  for (int i = 0; number == 0; i++) {
    ssize_t n = readlinkat(AT_FDCWD, place, link, sizeof link);
    if (n < 0 && (errno == EINVAL || errno == ENOENT)) return place;
    if (n < 0) {
      number = errno;
    } else if ((size_t)n == sizeof link || i == SWEREX__FS_LINKS_MAX) {
      number = i == SWEREX__FS_LINKS_MAX ? ELOOP : ENAMETOOLONG;
    } else {
      link[n] = '\0';
      size_t size = link[0] == '/' ? 0 : swerex__fs_folder_size(place);
      char *next = swerex__fs_join(a, place, size, link);
      swerex__mem_free(place);
      place = next;
      if (place == NULL) number = ENOMEM;
    }
  }
  swerex__mem_free(place);
  errno = number;
  return NULL;
}

/** Give a written file or folder the mode of another, and its times if asked. */
static bool swerex__fs_set_mode(int fd, const struct stat *like, bool times) {
  struct stat now;
  if (fstat(fd, &now) != 0) return false;
  /* set-id bits speak for the owner: they stay only where the owner does */
  bool same = now.st_uid == like->st_uid && now.st_gid == like->st_gid;
  bool ok = fchmod(fd, like->st_mode & (same ? (mode_t)07777 : (mode_t)01777)) == 0;
  if (ok && times) {
    struct timespec both[2];
    both[0] = SWEREX__SYS_ATIME(like);
    both[1] = SWEREX__SYS_MTIME(like);
    ok = futimens(fd, both) == 0;
  }
  /* refused: the file of another, written in place, or a file system without modes or times */
  return ok || errno == EPERM || errno == ENOTSUP || errno == ENOSYS;
}

/* --- reading ------------------------------------------------------------------------------ */

static bool swerex__fs_too_large(swerex_error *err, const char *path, uintmax_t size, size_t max) {
  char why[256];
  char has[64] = "";
  if (size > 0) snprintf(has, sizeof has, "it has %ju bytes, ", size);
  snprintf(why, sizeof why,
           "%sthe limit is %zu bytes: raise max_file, or read a part of it with a command such as "
           "head",
           has, max);
  return swerex__fs_explain(err, EFBIG, path, why);
}

/** Read to the end of a file that has about `known` bytes; text->max is one above the limit. */
static bool swerex__fs_fill(swerex__str *text, int fd, size_t known, const char *path,
                            swerex_error *err) {
  for (;;) {
    size_t more = text->size < known ? known - text->size + 1 : text->size + SWEREX__FS_READ;
    /* room that is there already suffices, be it for the one byte that is not to come */
    if (text->room > text->size + 1) more = text->room - text->size - 1;
    if (more > text->max - text->size) more = text->max - text->size;
    char *end = swerex__str_reserve(text, more);
    if (end == NULL) return swerex__err_memory(err);
    ssize_t n = swerex__fs_read_some(fd, end, more < INT_MAX ? more : (size_t)INT_MAX);
    if (n < 0) return swerex__fs_fail(err, path);
    text->size += (size_t)n;
    text->data[text->size] = '\0';
    if (n == 0) return true;
    if (text->size == text->max) return swerex__fs_too_large(err, path, 0, text->max - 1);
  }
}

/** Read an open file to its end. */
static bool swerex__fs_read_open(const swerex_allocator *a, int fd, const char *path, size_t max,
                                 swerex_bytes *out, swerex_error *err) {
  struct stat info;
  if (fstat(fd, &info) != 0) return swerex__fs_fail(err, path);
  if (S_ISDIR(info.st_mode)) return swerex__err_system(err, EISDIR, path);
  uintmax_t size = S_ISREG(info.st_mode) && info.st_size > 0 ? (uintmax_t)info.st_size : 0;
  if (max > SIZE_MAX / 4) max = SIZE_MAX / 4;
  if (size > max) return swerex__fs_too_large(err, path, size, max);
  swerex__str text = swerex__str_new(a, max + 1);
  if (swerex__fs_fill(&text, fd, (size_t)size, path, err)) return swerex__str_take(&text, out, err);
  swerex__str_clear(&text);
  return false;
}

/** Read a whole file as it is, of at most max bytes. */
static bool swerex__fs_read(const swerex_allocator *a, const char *path, size_t max,
                            swerex_bytes *out, swerex_error *err) {
  char *clean = swerex__fs_clean(a, path);
  if (clean == NULL) return swerex__err_memory(err);
  int fd = swerex__fs_open(AT_FDCWD, clean, O_RDONLY, 0);
  bool ok = fd >= 0 ? swerex__fs_read_open(a, fd, clean, max, out, err)
                    : swerex__fs_fail(err, clean);
  swerex__sys_close(&fd);
  swerex__mem_free(clean);
  return ok;
}

/** Read a text file, decoded and with its line ends made LF. */
static bool swerex__fs_read_text(const swerex_allocator *a,
                                 const swerex_read_file_request *request, size_t max,
                                 swerex_bytes *out, swerex_error *err) {
  swerex_bytes raw = {NULL, 0};
  if (!swerex__fs_read(a, request->path, max, &raw, err)) return false;
  bool plain = request->encoding == NULL || strcmp(request->encoding, "utf-8") == 0;
  if (plain && request->errors == NULL && swerex__text_run(raw.data, raw.size, true) == raw.size) {
    *out = raw; /* nothing to change */
    return true;
  }
  bool ok = swerex__text_decode(a, raw.data, raw.size, request->encoding, request->errors, out,
                                err);
  swerex__mem_free(raw.data);
  return ok;
}

/* --- replacing a file --------------------------------------------------------------------- */

/** A file that is being replaced, or made. */
typedef struct swerex__fs_target {
  const swerex_allocator *allocator;
  const char *path; /* as asked for; borrowed */
  char *place;      /* path with the links at its end followed */
  char *temp;       /* what is renamed to place; NULL: written in place */
  int fd;           /* where to write */
  int old;          /* the old file, open for writing; -1: there is none, or fd is it */
  struct stat info; /* of the old file */
} swerex__fs_target;

/** Drop the temporary file. errno stays. */
static void swerex__fs_target_drop(swerex__fs_target *file) {
  int number = errno;
  swerex__sys_close(&file->fd);
  if (file->temp != NULL) unlinkat(AT_FDCWD, file->temp, 0);
  swerex__mem_free(file->temp);
  file->temp = NULL;
  errno = number;
}

/** Give up what is not committed, and release everything. */
static void swerex__fs_target_end(swerex__fs_target *file) {
  swerex__fs_target_drop(file);
  swerex__sys_close(&file->old);
  swerex__mem_free(file->place);
  file->place = NULL;
}

/** Go on in the old file itself, emptied; false with errno set. */
static bool swerex__fs_target_in_place(swerex__fs_target *file) {
  swerex__fs_target_drop(file);
  if (S_ISREG(file->info.st_mode) && ftruncate(file->old, 0) != 0) return false;
  file->fd = file->old;
  file->old = -1;
  return true;
}

/** Tell whether errno is a refusal to replace a file which may well be written. */
static bool swerex__fs_target_may_stay(const swerex__fs_target *file) {
  static const int refusals[] = {EACCES, EPERM, EROFS, EBUSY, ENAMETOOLONG, EXDEV};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(refusals); i++)
    if (errno == refusals[i]) return file->old >= 0;
  return false;
}

/** Make a temporary file beside the place; false with errno set. */
static bool swerex__fs_target_make_temp(swerex__fs_target *file) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
  /* where nothing is replaced the system applies the umask; else the old file's mode comes later */
  mode_t mode = file->old >= 0 ? 0600 : 0666;
  struct timespec now;
  size_t size = swerex__fs_folder_size(file->place);
  char *temp = swerex__fs_join(file->allocator, file->place, size, ".swerex-XXXXXX");
  if (temp == NULL) return false;
  char *random = temp + strlen(temp) - 6;
  for (unsigned attempt = 0; attempt < 100 && file->fd < 0; attempt++) {
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = (uint64_t)now.tv_nsec * 2654435761U + (uint64_t)getpid() * 40503U + attempt;
    for (size_t i = 0; i < 6; i++, seed >>= 5) random[i] = letters[seed & 31];
    file->fd = swerex__fs_open(AT_FDCWD, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    if (file->fd < 0 && errno != EEXIST) break;
  }
  int number = errno;
  if (file->fd >= 0)
    file->temp = temp;
  else
    swerex__mem_free(temp);
  errno = number;
  return file->fd >= 0;
}

/** Find the place and prepare it for writing; false with errno set. */
static bool swerex__fs_target_prepare(swerex__fs_target *file) {
  struct stat now;
  if (file->old >= 0 && !S_ISREG(file->info.st_mode)) return swerex__fs_target_in_place(file);
  file->place = swerex__fs_follow(file->allocator, file->path);
  if (file->place == NULL) return false;
  /* a link such as /dev/stdout can lead to a file that has no name, or another one, by now */
  if (file->old >= 0 && (fstatat(AT_FDCWD, file->place, &now, AT_SYMLINK_NOFOLLOW) != 0 ||
                         !swerex__fs_is_same(&now, &file->info)))
    return swerex__fs_target_in_place(file);
  return swerex__fs_target_make_temp(file) ||
         (swerex__fs_target_may_stay(file) && swerex__fs_target_in_place(file));
}

/**
 * Begin to replace a file. source: what it will be a copy of, or NULL. The path is borrowed, and
 * cut when a folder above it fails. The target is the caller's to end, also after a failure.
 */
static bool swerex__fs_target_begin(swerex__fs_target *file, const swerex_allocator *a, char *path,
                                    const struct stat *source, swerex_error *err) {
  memset(file, 0, sizeof *file);
  file->allocator = a;
  file->path = path;
  file->fd = file->old = -1;
  if (!swerex__fs_make_parents(path, err)) return false;
  file->old = swerex__fs_open(AT_FDCWD, path, O_WRONLY, 0);
  if (file->old < 0 && errno != ENOENT) return swerex__fs_fail(err, path);
  if (file->old >= 0 && fstat(file->old, &file->info) != 0) return swerex__fs_fail(err, path);
  if (file->old >= 0 && source != NULL && swerex__fs_is_same(&file->info, source))
    return swerex__fs_explain(err, EINVAL, path, "source and target are the same file");
  return swerex__fs_target_prepare(file) || swerex__fs_fail(err, path);
}

/** Let the new file have the owner of the old one, as far as we may. */
static void swerex__fs_target_keep_owner(const swerex__fs_target *file) {
  struct stat now;
  if (file->old < 0 || fstat(file->fd, &now) != 0) return;
  if (now.st_uid == file->info.st_uid && now.st_gid == file->info.st_gid) return;
  if (fchown(file->fd, file->info.st_uid, file->info.st_gid) == 0) return;
  if (fchown(file->fd, (uid_t)-1, file->info.st_gid) != 0) errno = 0;
}

/**
 * Finish what was written. source: what it is a copy of, or NULL. MORE: the system refused to
 * replace the old file, and all has to be written again, in place.
 */
static swerex__fs_progress swerex__fs_target_commit(swerex__fs_target *file,
                                                    const struct stat *source, swerex_error *err) {
  bool in_place = file->temp == NULL;
  const struct stat *like = source;
  if (in_place && !S_ISREG(file->info.st_mode)) like = NULL; /* never change the mode of a device */
  if (!in_place) swerex__fs_target_keep_owner(file);
  if (!in_place && like == NULL && file->old >= 0) like = &file->info;
  bool ok = like == NULL || swerex__fs_set_mode(file->fd, like, source != NULL);
  if (ok) ok = swerex__fs_close(&file->fd);
  if (ok && !in_place) {
    ok = renameat(AT_FDCWD, file->temp, AT_FDCWD, file->place) == 0;
    if (!ok && swerex__fs_target_may_stay(file) && swerex__fs_target_in_place(file))
      return SWEREX__FS_MORE;
  }
  if (!ok) {
    swerex__fs_fail(err, file->path);
    return SWEREX__FS_FAILED;
  }
  swerex__mem_free(file->temp);
  file->temp = NULL;
  return SWEREX__FS_DONE;
}

/** Write a whole file, and make the folders above it. */
static bool swerex__fs_write(const swerex_allocator *a, const char *path, const char *data,
                             size_t size, swerex_error *err) {
  swerex__fs_target file;
  char *clean = swerex__fs_clean(a, path);
  if (clean == NULL) return swerex__err_memory(err);
  bool ok = swerex__fs_target_begin(&file, a, clean, NULL, err);
  swerex__fs_progress progress = ok ? SWEREX__FS_MORE : SWEREX__FS_FAILED;
  while (progress == SWEREX__FS_MORE) {
    ok = swerex__sys_write_all(file.fd, data, size) || swerex__fs_fail(err, clean);
    progress = ok ? swerex__fs_target_commit(&file, NULL, err) : SWEREX__FS_FAILED;
  }
  swerex__fs_target_end(&file);
  swerex__mem_free(clean);
  return progress == SWEREX__FS_DONE;
}

/* --- copying ------------------------------------------------------------------------------ */

/** A folder that is being copied. */
typedef struct swerex__fs_level {
  DIR *entries;
  int target;
  struct stat info; /* of the source */
  size_t path_size; /* how much of the copy's path is its own */
} swerex__fs_level;

/**
 * A copy under way. Links are followed at the source's root only: below it each entry is reached
 * through the descriptor of its folder, so that no length is a limit and no swapped link leads
 * astray. Folders are 0700 until their content is complete.
 */
typedef struct swerex__fs_copy {
  swerex_allocator allocator;
  char *source, *target;
  swerex__str path;         /* of the present entry, below source and target */
  swerex__fs_level *levels; /* innermost last */
  size_t depth, room;
  struct stat root;         /* of the target folder */
  struct stat info;         /* of in */
  int in, out;              /* the file being copied, -1: none */
  bool unfinished;          /* out is a file to remove if all ends now */
  bool single;              /* a file was asked for: out is file.fd */
  swerex__fs_target file;
  char *buffer; /* SWEREX__FS_CHUNK bytes */
} swerex__fs_copy;

/** Report a failure on the present entry of a side: source or target. Returns false. */
static bool swerex__fs_copy_explain(const swerex__fs_copy *copy, const char *side, int number,
                                    const char *why, swerex_error *err) {
  const char *below = copy->path.data != NULL ? copy->path.data : "";
  char *path = swerex__fs_join(&copy->allocator, side, strlen(side), below);
  if (path == NULL) return swerex__err_memory(err);
  swerex__fs_explain(err, number, path, why);
  swerex__mem_free(path);
  return false;
}

static bool swerex__fs_copy_fail(const swerex__fs_copy *copy, const char *side,
                                 swerex_error *err) {
  return swerex__fs_copy_explain(copy, side, errno, NULL, err);
}

/** Refuse what is neither file nor folder. Returns false. */
static bool swerex__fs_copy_refuse(const swerex__fs_copy *copy, mode_t mode, swerex_error *err) {
  const char *why = "a device cannot be copied";
  if (S_ISSOCK(mode)) why = "a socket cannot be copied";
  if (S_ISFIFO(mode)) why = "a named pipe has no content to copy";
  return swerex__fs_copy_explain(copy, copy->source, EOPNOTSUPP, why, err);
}

/** Make a folder for the one that was opened, and go into both. */
static bool swerex__fs_copy_enter(swerex__fs_copy *copy, int folder, const char *name,
                                  swerex_error *err) {
  swerex__fs_level level = {NULL, -1, copy->info, copy->path.size};
  void *levels = copy->levels;
  bool ok = swerex__mem_reserve(&copy->allocator, &levels, &copy->room, copy->depth, sizeof level);
  copy->levels = (swerex__fs_level *)levels;
  if (!ok) return swerex__err_memory(err);
  level.entries = fdopendir(copy->in);
  if (level.entries == NULL) return swerex__fs_copy_fail(copy, copy->source, err);
  copy->in = -1;
  bool made = mkdirat(folder, name, 0700) == 0;
  if (made) level.target = swerex__fs_open(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
  if (level.target >= 0) {
    copy->levels[copy->depth++] = level;
    return true;
  }
  swerex__fs_copy_fail(copy, copy->target, err);
  if (made) unlinkat(folder, name, AT_REMOVEDIR);
  closedir(level.entries);
  return false;
}

/** Complete the innermost folder: nothing is written into it any more. */
static bool swerex__fs_copy_leave(swerex__fs_copy *copy, swerex_error *err) {
  swerex__fs_level *level = &copy->levels[copy->depth - 1];
  if (!swerex__fs_set_mode(level->target, &level->info, true))
    return swerex__fs_copy_fail(copy, copy->target, err);
  copy->depth--;
  closedir(level->entries);
  swerex__sys_close(&level->target);
  return true;
}

static bool swerex__fs_copy_link(swerex__fs_copy *copy, int from, int to, const char *name,
                                 const struct stat *info, swerex_error *err) {
  struct timespec times[2];
  ssize_t n = readlinkat(from, name, copy->buffer, SWEREX__FS_CHUNK);
  if (n >= (ssize_t)SWEREX__FS_CHUNK) {
    n = -1;
    errno = ENAMETOOLONG;
  }
  if (n < 0) return swerex__fs_copy_fail(copy, copy->source, err);
  copy->buffer[n] = '\0';
  if (symlinkat(copy->buffer, to, name) != 0) return swerex__fs_copy_fail(copy, copy->target, err);
  times[0] = SWEREX__SYS_ATIME(info);
  times[1] = SWEREX__SYS_MTIME(info);
  /* not every file system has times for links, and nobody misses them */
  if (utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) != 0) errno = 0;
  return true;
}

static bool swerex__fs_copy_pipe(swerex__fs_copy *copy, int to, const char *name,
                                 const struct stat *info, swerex_error *err) {
  int fd = -1;
  if (mkfifoat(to, name, 0600) == 0) fd = swerex__fs_open(to, name, O_RDONLY | O_NOFOLLOW, 0);
  bool ok = fd >= 0 && swerex__fs_set_mode(fd, info, true);
  if (!ok) swerex__fs_copy_fail(copy, copy->target, err);
  swerex__sys_close(&fd);
  return ok;
}

/** Begin the entry of the innermost folder that the path leads to. */
static bool swerex__fs_copy_entry(swerex__fs_copy *copy, const char *name, swerex_error *err) {
  int from = dirfd(copy->levels[copy->depth - 1].entries);
  int to = copy->levels[copy->depth - 1].target;
  struct stat info;
  if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
    return swerex__fs_copy_fail(copy, copy->source, err);
  if (S_ISLNK(info.st_mode)) return swerex__fs_copy_link(copy, from, to, name, &info, err);
  if (S_ISFIFO(info.st_mode)) return swerex__fs_copy_pipe(copy, to, name, &info, err);
  bool folder = S_ISDIR(info.st_mode);
  if (!folder && !S_ISREG(info.st_mode)) return swerex__fs_copy_refuse(copy, info.st_mode, err);
  copy->in = swerex__fs_open(from, name, O_RDONLY | O_NOFOLLOW | (folder ? O_DIRECTORY : 0), 0);
  if (copy->in < 0 || fstat(copy->in, &copy->info) != 0)
    return swerex__fs_copy_fail(copy, copy->source, err);
  if (swerex__fs_is_same(&copy->info, &copy->root)) /* possible through a mount */
    return swerex__fs_copy_explain(copy, copy->source, EINVAL, SWEREX__FS_INSIDE, err);
  if (folder) return swerex__fs_copy_enter(copy, to, name, err);
  if (!S_ISREG(copy->info.st_mode)) return swerex__fs_copy_refuse(copy, copy->info.st_mode, err);
  copy->out = swerex__fs_open(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  copy->unfinished = copy->out >= 0;
  return copy->unfinished || swerex__fs_copy_fail(copy, copy->target, err);
}

/** Go on to the next entry of the innermost folder, or leave it. */
static bool swerex__fs_copy_next(swerex__fs_copy *copy, swerex_error *err) {
  swerex__fs_level *level = &copy->levels[copy->depth - 1];
  copy->path.size = level->path_size;
  if (copy->path.data != NULL) copy->path.data[level->path_size] = '\0';
  errno = 0;
  const struct dirent *entry = readdir(level->entries);
  if (entry == NULL && errno != 0) return swerex__fs_copy_fail(copy, copy->source, err);
  if (entry == NULL) return swerex__fs_copy_leave(copy, err);
  if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) return true;
  swerex__str_putc(&copy->path, '/');
  swerex__str_puts(&copy->path, entry->d_name);
  if (copy->path.failed) return swerex__err_memory(err);
  return swerex__fs_copy_entry(copy, entry->d_name, err);
}

/** Complete the file being copied. */
static bool swerex__fs_copy_end_file(swerex__fs_copy *copy, swerex_error *err) {
  if (copy->single) {
    swerex__fs_progress progress = swerex__fs_target_commit(&copy->file, &copy->info, err);
    copy->out = copy->file.fd;
    if (progress == SWEREX__FS_FAILED) return false;
    if (progress == SWEREX__FS_MORE)
      return lseek(copy->in, 0, SEEK_SET) == 0 || swerex__fs_copy_fail(copy, copy->source, err);
  } else {
    if (!swerex__fs_set_mode(copy->out, &copy->info, true) || !swerex__fs_close(&copy->out))
      return swerex__fs_copy_fail(copy, copy->target, err);
    copy->unfinished = false;
  }
  swerex__sys_close(&copy->in);
  return true;
}

/** Move a bounded part of the file being copied. */
static bool swerex__fs_copy_chunk(swerex__fs_copy *copy, size_t *moved, swerex_error *err) {
  ssize_t n = swerex__fs_read_some(copy->in, copy->buffer, SWEREX__FS_CHUNK);
  if (n < 0) return swerex__fs_copy_fail(copy, copy->source, err);
  if (n == 0) return swerex__fs_copy_end_file(copy, err);
  *moved += (size_t)n;
  return swerex__sys_write_all(copy->out, copy->buffer, (size_t)n) ||
         swerex__fs_copy_fail(copy, copy->target, err);
}

/** Refuse a target that would lie below the source folder. */
static bool swerex__fs_copy_check_outside(const swerex__fs_copy *copy, const struct stat *source,
                                          swerex_error *err) {
  struct stat now, last;
  bool inside;
  swerex__str up = swerex__str_new(&copy->allocator, SWEREX__FS_PATH_MAX);
  swerex__str_puts(&up, copy->target);
  memset(&now, 0, sizeof now);
  /* cut it down to what exists, and go up from there */
  for (size_t size = SIZE_MAX; !up.failed && up.size < size;) {
    if (fstatat(AT_FDCWD, up.size > 0 ? up.data : ".", &now, 0) == 0) break;
    size = up.size;
    size_t folder = swerex__fs_folder_size(up.data);
    up.size = folder > 1 ? folder - 1 : folder;
    up.data[up.size] = '\0';
  }
  if (up.size == 0) swerex__str_puts(&up, ".");
  do {
    inside = swerex__fs_is_same(&now, source);
    last = now;
    swerex__str_puts(&up, "/..");
  } while (!up.failed && !inside && fstatat(AT_FDCWD, up.data, &now, 0) == 0 &&
           !swerex__fs_is_same(&now, &last));
  bool failed = up.failed;
  swerex__str_clear(&up);
  if (failed) return swerex__err_memory(err);
  return !inside || swerex__fs_explain(err, EINVAL, copy->target, SWEREX__FS_INSIDE);
}

/** Begin with a folder: its target must not exist. */
static bool swerex__fs_copy_begin_folder(swerex__fs_copy *copy, swerex_error *err) {
  struct stat now;
  if (fstatat(AT_FDCWD, copy->target, &now, AT_SYMLINK_NOFOLLOW) == 0)
    return swerex__err_system(err, EEXIST, copy->target);
  if (!swerex__fs_copy_check_outside(copy, &copy->info, err) ||
      !swerex__fs_make_parents(copy->target, err) ||
      !swerex__fs_copy_enter(copy, AT_FDCWD, copy->target, err))
    return false;
  return fstat(copy->levels[0].target, &copy->root) == 0 || swerex__fs_fail(err, copy->target);
}

/** Begin with a file: a target that is a folder receives it under its own name. */
static bool swerex__fs_copy_begin_file(swerex__fs_copy *copy, swerex_error *err) {
  copy->single = true;
  if (swerex__fs_is_folder(copy->target)) {
    const char *name = copy->source + swerex__fs_folder_size(copy->source);
    size_t size = strlen(copy->target);
    bool slash = copy->target[size - 1] == '/';
    char *target = swerex__fs_join(&copy->allocator, copy->target, slash ? size : size + 1, name);
    if (target == NULL) return swerex__err_memory(err);
    if (!slash) target[size] = '/';
    swerex__mem_free(copy->target);
    copy->target = target;
  }
  if (!swerex__fs_target_begin(&copy->file, &copy->allocator, copy->target, &copy->info, err))
    return false;
  copy->out = copy->file.fd;
  return true;
}

static bool swerex__fs_copy_begin(swerex__fs_copy *copy, swerex_error *err) {
  if (copy->source == NULL || copy->target == NULL || copy->buffer == NULL)
    return swerex__err_memory(err);
  /* looked at before it is opened: to open a device can have effects */
  if (fstatat(AT_FDCWD, copy->source, &copy->info, 0) != 0)
    return swerex__fs_fail(err, copy->source);
  if (!S_ISREG(copy->info.st_mode) && !S_ISDIR(copy->info.st_mode))
    return swerex__fs_copy_refuse(copy, copy->info.st_mode, err);
  copy->in = swerex__fs_open(AT_FDCWD, copy->source, O_RDONLY, 0);
  if (copy->in < 0 || fstat(copy->in, &copy->info) != 0)
    return swerex__fs_fail(err, copy->source);
  return S_ISDIR(copy->info.st_mode) ? swerex__fs_copy_begin_folder(copy, err)
                                     : swerex__fs_copy_begin_file(copy, err);
}

/** End a copy, at any time. An unfinished file is removed, an unfinished folder stays. */
static void swerex__fs_copy_free(swerex__fs_copy *copy) {
  if (copy == NULL) return;
  if (copy->unfinished) {
    const swerex__fs_level *level = &copy->levels[copy->depth - 1];
    unlinkat(level->target, copy->path.data + level->path_size + 1, 0);
  }
  if (!copy->single) swerex__sys_close(&copy->out);
  swerex__fs_target_end(&copy->file);
  swerex__sys_close(&copy->in);
  while (copy->depth > 0) {
    swerex__fs_level *level = &copy->levels[--copy->depth];
    closedir(level->entries);
    swerex__sys_close(&level->target);
  }
  swerex__str_clear(&copy->path);
  swerex__mem_free(copy->levels);
  swerex__mem_free(copy->source);
  swerex__mem_free(copy->target);
  swerex__mem_free(copy->buffer);
  swerex__mem_free(copy);
}

/**
 * Begin to copy a file or a folder, with modes and times. A folder's target must not exist; links
 * in it stay links, pipes are made anew, and set-id bits stay where the owner is the same.
 */
static swerex__fs_copy *swerex__fs_copy_new(const swerex_allocator *a, const char *source,
                                            const char *target, swerex_error *err) {
  swerex__fs_copy *copy = (swerex__fs_copy *)swerex__mem_new(a, 1, sizeof *copy);
  if (copy == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  if (a != NULL) copy->allocator = *a;
  copy->path = swerex__str_new(&copy->allocator, SWEREX__FS_PATH_MAX);
  copy->in = copy->out = copy->file.fd = copy->file.old = -1;
  copy->source = swerex__fs_clean(a, source);
  copy->target = swerex__fs_clean(a, target);
  copy->buffer = (char *)swerex__mem_grow(a, NULL, SWEREX__FS_CHUNK, 1);
  if (swerex__fs_copy_begin(copy, err)) return copy;
  swerex__fs_copy_free(copy);
  return NULL;
}

/** Move about a MiB, or 64 entries. After a failure the copy can only be freed. */
static swerex__fs_progress swerex__fs_copy_step(swerex__fs_copy *copy, swerex_error *err) {
  size_t moved = 0;
  while (moved < SWEREX__FS_STEP) {
    bool ok = true;
    if (copy->in >= 0) {
      ok = swerex__fs_copy_chunk(copy, &moved, err);
    } else if (copy->depth > 0) {
      moved += SWEREX__FS_ENTRY;
      ok = swerex__fs_copy_next(copy, err);
    } else {
      return SWEREX__FS_DONE;
    }
    if (!ok) return SWEREX__FS_FAILED;
  }
  return SWEREX__FS_MORE;
}

#ifdef SWEREX__SYS_PROCESSES

/* =============================================================================================
 * [keep] The keeper, which starts and ends children
 * ========================================================================================== */
/* The first child that a loop needs makes it fork one keeper, which never execs: it holds nothing
 * but a socket to us, starts programs on request (by vfork, so that the host's size does not
 * matter), and reports how they end. A keeper can fork further ones, each with a socket of its own;
 * a runtime, a session and a command with a time limit have one each. On Linux a keeper adopts the
 * orphans among its descendants, and so knows them all, setsid or not. When its socket closes
 * (we asked, or we died) it ends them and exits. Keeper code allocates nothing, as it runs in
 * the fork of a process that may have threads. Elsewhere than on Linux orphans that left their
 * session are out of reach. */

enum {
  SWEREX__KEEP_FDS = 4,
  SWEREX__KEEP_GRACE_MS = 100, /* for a shell that was hung up */
  SWEREX__KEEP_ORPHAN_MS = 100, /* then for what it leaves */
  SWEREX__KEEP_BELOW_MS = 500, /* for keepers below this one */
  SWEREX__KEEP_END_MS = 5000
};

enum swerex__keep_verb {
  SWEREX__KEEP_SPAWN = 1, /* fds: plan, and stdin, stdout, stderr or one terminal */
  SWEREX__KEEP_FORK,      /* fds: socket; flags: the new keeper's policy */
  SWEREX__KEEP_KILL,      /* end child `id` and its descendants */
  SWEREX__KEEP_RELEASE    /* exit at once; what is left falls to the keeper above */
};

enum swerex__keep_flag {
  SWEREX__KEEP_TERMINAL = 1, /* spawn: the one fd is the controlling terminal */
  SWEREX__KEEP_SPARE = 2,    /* fork: descendants that left their session may live */
  SWEREX__KEEP_HANGUP = 4    /* fork: send SIGHUP and wait a little before SIGKILL */
};

typedef struct swerex__keep_request {
  int32_t verb, flags;
  uint32_t id;
  int32_t fds; /* how many come along */
} swerex__keep_request;

enum swerex__keep_news {
  SWEREX__KEEP_STARTED = 1, /* value: process id */
  SWEREX__KEEP_FAILED,      /* value: errno; stage: which call; id 0: the keeper never was */
  SWEREX__KEEP_EXITED,      /* value: wait status */
  SWEREX__KEEP_LOST         /* made on our side: the keeper itself is gone */
};

enum swerex__keep_stage { SWEREX__KEEP_IN_SYSTEM, SWEREX__KEEP_IN_CHDIR, SWEREX__KEEP_IN_EXEC };

typedef struct swerex__keep_report {
  int32_t news, value;
  uint32_t id;
  int32_t stage;
} swerex__keep_report;

/** What to start: a file that we write and the keeper maps. Strings stand behind the table. */
typedef struct swerex__keep_plan {
  uint32_t argv, envp, paths; /* where each list starts in the table */
  uint32_t entries;           /* in the table, each an offset in the file; 0 ends a list */
  uint64_t base, cwd;         /* offsets of folders to change to; 0: none */
} swerex__keep_plan;

/* --- the keeper's side -------------------------------------------------------------------- */

typedef struct swerex__keep_pair {
  pid_t pid;
  uint32_t id; /* 0: a keeper */
} swerex__keep_pair;

typedef struct swerex__keep_state {
  int fd;
  int policy;
  sigset_t wait_mask;          /* for pselect: SIGCHLD open */
  swerex__keep_pair *children; /* started here; an mmap, as nothing else is safe */
  size_t count, room;
} swerex__keep_state;

static void swerex__keep_on_child(int number) { (void)number; }

/** Close every descriptor from `first` on, but `spare`. */
static void swerex__keep_close_all(int first, int spare) {
#if defined(__linux__) && defined(SYS_close_range)
  if ((spare <= first || syscall(SYS_close_range, (unsigned)first, (unsigned)spare - 1, 0U) == 0) &&
      syscall(SYS_close_range, (unsigned)(spare < first ? first : spare + 1), ~0U, 0U) == 0)
    return;
#endif
  struct rlimit limit;
  int last = 65536;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536) last = (int)limit.rlim_cur;
  for (int fd = first; fd < last; fd++)
    if (fd != spare) close(fd);
}

static void swerex__keep_tell(int fd, enum swerex__keep_news news, uint32_t id, int value,
                              int stage) {
  swerex__keep_report report = {(int32_t)news, value, id, stage};
  ssize_t n;
  do n = send(fd, &report, sizeof report, SWEREX__SYS_NOSIGNAL);
  while (n < 0 && errno == EINTR);
}

#if defined(__linux__)
/** Read a small file; returns its size, NUL-terminated in `text`. */
static size_t swerex__keep_read_file(const char *path, char *text, size_t room) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  size_t size = 0;
  while (fd >= 0 && size + 1 < room) {
    ssize_t n = read(fd, text + size, room - 1 - size);
    if (n <= 0) break;
    size += (size_t)n;
  }
  swerex__sys_close(&fd);
  text[size] = '\0';
  return size;
}

/** Add the process ids in a text to a list. */
static size_t swerex__keep_add_pids(const char *text, pid_t *list, size_t count, size_t room) {
  while (*text != '\0') {
    char *end;
    long pid = strtol(text, &end, 10);
    if (end == text) break;
    if (pid > 0 && count < room) list[count++] = (pid_t)pid;
    text = end;
  }
  return count;
}

/** Add the children of a process to a list: those of each of its threads. */
static size_t swerex__keep_add_children(pid_t parent, pid_t *list, size_t count, size_t room) {
  char path[96], text[8192];
  union {
    long align;
    char bytes[2048];
  } entries;
  snprintf(path, sizeof path, "/proc/%ld/task", (long)parent);
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (;;) {
    long size = fd < 0 ? 0 : syscall(SYS_getdents64, fd, entries.bytes, sizeof entries.bytes);
    if (size <= 0) break;
    for (long at = 0; at < size;) {
      uint16_t length; /* struct linux_dirent64: inode 8, offset 8, length 2, type 1, name */
      memcpy(&length, entries.bytes + at + 16, sizeof length);
      const char *name = entries.bytes + at + 19;
      at += length;
      if (name[0] < '0' || name[0] > '9') continue;
      snprintf(path, sizeof path, "/proc/%ld/task/%.20s/children", (long)parent, name);
      if (swerex__keep_read_file(path, text, sizeof text) > 0)
        count = swerex__keep_add_pids(text, list, count, room);
    }
  }
  swerex__sys_close(&fd);
  return count;
}
#else
static size_t swerex__keep_add_children(pid_t parent, pid_t *list, size_t count, size_t room) {
  (void)parent, (void)list, (void)room;
  return count;
}
#endif

/** Send SIGKILL to the descendants of a process; with `session` only to those in that one. */
static void swerex__keep_kill_tree(pid_t root, pid_t session) {
  pid_t list[1024];
  size_t count = swerex__keep_add_children(root, list, 0, SWEREX__SYS_COUNT(list));
  for (size_t i = 0; i < count; i++)
    count = swerex__keep_add_children(list[i], list, count, SWEREX__SYS_COUNT(list));
  for (size_t i = 0; i < count; i++)
    if (session == 0 || getsid(list[i]) == session) kill(list[i], SIGKILL);
}

/** Wait for a message or a child's end, for up to `ms` milliseconds (< 0: no limit). */
static bool swerex__keep_wait(const swerex__keep_state *keeper, int fd, long ms) {
  struct timespec limit = {ms / 1000, ms % 1000 * 1000000};
  fd_set fds;
  FD_ZERO(&fds);
  if (fd >= 0) FD_SET((unsigned)fd, &fds);
  return pselect(fd + 1, fd >= 0 ? &fds : NULL, NULL, NULL, ms < 0 ? NULL : &limit,
                 &keeper->wait_mask) > 0;
}

/** Reap what has ended, and report those that were started here; true: nothing is left. */
static bool swerex__keep_reap(swerex__keep_state *keeper, bool report) {
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return pid < 0 && errno == ECHILD;
    for (size_t i = 0; i < keeper->count; i++) {
      if (keeper->children[i].pid != pid) continue;
      if (report && keeper->children[i].id != 0)
        swerex__keep_tell(keeper->fd, SWEREX__KEEP_EXITED, keeper->children[i].id, status, 0);
      keeper->children[i] = keeper->children[--keeper->count];
      break;
    }
  }
}

/** Send SIGKILL to all that is left here; with the policy SPARE only within their sessions. */
static void swerex__keep_kill_all(const swerex__keep_state *keeper) {
  bool spare = (keeper->policy & SWEREX__KEEP_SPARE) != 0;
  for (size_t i = 0; i < keeper->count; i++) {
    if (spare && keeper->children[i].id == 0) continue; /* its own socket has closed, too */
    if (spare) swerex__keep_kill_tree(keeper->children[i].pid, keeper->children[i].pid);
    kill(-keeper->children[i].pid, SIGKILL);
    kill(keeper->children[i].pid, SIGKILL);
  }
  if (!spare) swerex__keep_kill_tree(getpid(), 0);
}

/** Wait a little while children of a sort (or, with `all`, anything) are left. */
static void swerex__keep_linger(swerex__keep_state *keeper, bool sub_keepers, bool all, long ms) {
  for (; ms > 0; ms -= 5) {
    bool left = all;
    if (swerex__keep_reap(keeper, false)) return;
    for (size_t i = 0; i < keeper->count; i++)
      left = left || (keeper->children[i].id == 0) == sub_keepers;
    if (!left) return;
    swerex__keep_wait(keeper, -1, 5);
  }
}

/**
 * End what was started here, as the policy says, and exit. What is hung up gets the time to run
 * its exit traps; a keeper below this one, whose socket has closed as well, that to do the same.
 */
static void swerex__keep_end(swerex__keep_state *keeper) {
  bool spare = (keeper->policy & SWEREX__KEEP_SPARE) != 0;
  bool hang_up = (keeper->policy & SWEREX__KEEP_HANGUP) != 0;
  for (size_t i = 0; i < keeper->count; i++) {
    if (keeper->children[i].id == 0) continue;
    kill(hang_up ? keeper->children[i].pid : -keeper->children[i].pid, hang_up ? SIGHUP : SIGKILL);
    kill(keeper->children[i].pid, hang_up ? SIGCONT : SIGKILL);
  }
  if (hang_up) swerex__keep_linger(keeper, false, false, SWEREX__KEEP_GRACE_MS);
  if (hang_up && !spare) swerex__keep_linger(keeper, false, true, SWEREX__KEEP_ORPHAN_MS);
  swerex__keep_linger(keeper, true, false, SWEREX__KEEP_BELOW_MS);
  for (long waited = 0; !swerex__keep_reap(keeper, false) && waited < SWEREX__KEEP_END_MS;
       waited += 2) {
    if (spare && keeper->count == 0) break;
    swerex__keep_kill_all(keeper);
    swerex__keep_wait(keeper, -1, 2);
  }
  _exit(0);
}

/** Remember a child; false when there is no memory for it. */
static bool swerex__keep_remember(swerex__keep_state *keeper, pid_t pid, uint32_t id) {
  if (keeper->count == keeper->room) {
    size_t room = keeper->room == 0 ? 256 : keeper->room * 2;
    void *grown = mmap(NULL, room * sizeof(swerex__keep_pair), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | SWEREX__SYS_ANONYMOUS, -1, 0);
    if (grown == MAP_FAILED) return false;
    if (keeper->room > 0) {
      memcpy(grown, keeper->children, keeper->count * sizeof(swerex__keep_pair));
      munmap(keeper->children, keeper->room * sizeof(swerex__keep_pair));
    }
    keeper->children = (swerex__keep_pair *)grown;
    keeper->room = room;
  }
  keeper->children[keeper->count].pid = pid;
  keeper->children[keeper->count++].id = id;
  return true;
}

/** Become the program of a plan: runs in the child, and returns only on failure. */
static void swerex__keep_become(char *const *table, const swerex__keep_plan *plan, const int *fds,
                                bool terminal, volatile swerex__keep_report *failure) {
  const char *map = (const char *)plan;
  int number = ENOENT; /* of the exec calls, the most telling one */
  sigset_t none;
  failure->stage = SWEREX__KEEP_IN_SYSTEM;
  setsid();
  for (int i = 0; i < 3; i++)
    if (fds[terminal ? 0 : i] >= 0 && dup2(fds[terminal ? 0 : i], i) < 0) goto failed;
  if (terminal && ioctl(0, TIOCSCTTY, 0) < 0) goto failed;
  failure->stage = SWEREX__KEEP_IN_CHDIR;
  if (plan->base != 0 && chdir(map + plan->base) < 0 && errno != ENOENT) goto failed;
  if (plan->cwd != 0 && chdir(map + plan->cwd) < 0) goto failed;
  failure->stage = SWEREX__KEEP_IN_EXEC;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (char *const *path = table + plan->paths; *path != NULL; path++) {
    execve(*path, table + plan->argv, table + plan->envp);
    if (errno != ENOENT && (errno != ENOTDIR || table[plan->paths + 1] == NULL)) number = errno;
  }
  errno = number;
failed:
  failure->value = errno;
}

/** Start a child that becomes a program; a function of its own, as vfork lends it our stack. */
static pid_t swerex__keep_fork_program(char *const *table, const swerex__keep_plan *plan,
                                       const int *fds, bool terminal,
                                       volatile swerex__keep_report *failure) {
  pid_t pid = swerex__sys_vfork();
  if (pid != 0) return pid;
  swerex__keep_become(table, plan, fds, terminal, failure);
  _exit(127);
}

/** Start the program of a plan. */
static void swerex__keep_spawn(swerex__keep_state *keeper, const swerex__keep_request *request,
                               int *fds) {
  volatile swerex__keep_report failure = {SWEREX__KEEP_FAILED, 0, request->id, 0};
  struct stat status;
  void *map = MAP_FAILED;
  size_t size = 0;
  pid_t pid = -1;
  if (fstat(fds[0], &status) == 0) {
    size = (size_t)status.st_size;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fds[0], 0);
  }
  if (map != MAP_FAILED) {
    const swerex__keep_plan *plan = (const swerex__keep_plan *)map;
    uintptr_t *table = (uintptr_t *)(void *)((char *)map + sizeof *plan);
    for (uint32_t i = 0; i < plan->entries; i++)
      if (table[i] != 0) table[i] += (uintptr_t)map;
    pid = swerex__keep_fork_program((char *const *)(void *)table, plan, fds + 1,
                                    (request->flags & SWEREX__KEEP_TERMINAL) != 0, &failure);
  }
  if (pid < 0) failure.value = errno;
  if (map != MAP_FAILED) munmap(map, size);
  if (failure.value == 0 && !swerex__keep_remember(keeper, pid, request->id)) {
    kill(pid, SIGKILL);
    failure.value = ENOMEM;
  }
  if (failure.value != 0)
    swerex__keep_tell(keeper->fd, SWEREX__KEEP_FAILED, request->id, failure.value, failure.stage);
  else
    swerex__keep_tell(keeper->fd, SWEREX__KEEP_STARTED, request->id, (int)pid, 0);
}

/** Receive a request and its descriptors; false: the other side has closed. */
static bool swerex__keep_receive(const swerex__keep_state *keeper, swerex__keep_request *request,
                                 int *fds) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(SWEREX__KEEP_FDS * sizeof(int))];
  } control;
  struct iovec part = {request, sizeof *request};
  struct msghdr message;
  ssize_t n;
  memset(&message, 0, sizeof message);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  do n = recvmsg(keeper->fd, &message, SWEREX__SYS_CLOEXEC_MESSAGE);
  while (n < 0 && errno == EINTR);
  for (int i = 0; i < SWEREX__KEEP_FDS; i++) fds[i] = -1;
  struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
    size_t size = header->cmsg_len - CMSG_LEN(0);
    if (size > SWEREX__KEEP_FDS * sizeof(int)) size = SWEREX__KEEP_FDS * sizeof(int);
    memcpy(fds, CMSG_DATA(header), size);
    for (int i = 0; i < SWEREX__KEEP_FDS; i++)
      if (SWEREX__SYS_CLOEXEC_MESSAGE == 0 && fds[i] >= 0) swerex__sys_prepare_fd(fds[i], false);
  }
  return n == (ssize_t)sizeof *request;
}

static void swerex__keep_become_keeper(swerex__keep_state *keeper, int fd, int policy);

static void swerex__keep_handle(swerex__keep_state *keeper, const swerex__keep_request *request,
                                int *fds) {
  if (request->verb == SWEREX__KEEP_SPAWN) {
    swerex__keep_spawn(keeper, request, fds);
  } else if (request->verb == SWEREX__KEEP_FORK) {
    pid_t pid = fork();
    if (pid == 0) swerex__keep_become_keeper(keeper, fds[0], request->flags);
    if (pid < 0) swerex__keep_tell(fds[0], SWEREX__KEEP_FAILED, 0, errno, SWEREX__KEEP_IN_SYSTEM);
    if (pid > 0 && !swerex__keep_remember(keeper, pid, 0)) kill(pid, SIGKILL);
  } else if (request->verb == SWEREX__KEEP_RELEASE) {
    _exit(0);
  } else {
    for (size_t i = 0; i < keeper->count; i++) {
      if (keeper->children[i].id != request->id) continue;
      swerex__keep_kill_tree(keeper->children[i].pid, 0);
      kill(-keeper->children[i].pid, SIGKILL);
      kill(keeper->children[i].pid, SIGKILL);
    }
  }
}

static void swerex__keep_serve(swerex__keep_state *keeper) {
  for (;;) {
    swerex__keep_request request;
    int fds[SWEREX__KEEP_FDS];
    bool message = swerex__keep_wait(keeper, keeper->fd, -1);
    swerex__keep_reap(keeper, true);
    if (!message) continue;
    if (!swerex__keep_receive(keeper, &request, fds)) swerex__keep_end(keeper);
    swerex__keep_handle(keeper, &request, fds);
    for (int i = 0; i < SWEREX__KEEP_FDS; i++) swerex__sys_close(&fds[i]);
  }
}

/** Be a keeper, in a process just forked: drop what the host had, and serve. Never returns. */
static void swerex__keep_become_keeper(swerex__keep_state *keeper, int fd, int policy) {
  struct sigaction action;
  sigset_t block;
  memset(keeper, 0, sizeof *keeper);
  keeper->fd = fd;
  keeper->policy = policy;
  setsid();
  memset(&action, 0, sizeof action);
  sigemptyset(&action.sa_mask);
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < 65; number++) sigaction(number, &action, NULL);
  action.sa_handler = swerex__keep_on_child;
  sigaction(SIGCHLD, &action, NULL);
  sigemptyset(&block);
  sigprocmask(SIG_SETMASK, &block, NULL);
  keeper->wait_mask = block;
  sigaddset(&block, SIGCHLD);
  sigprocmask(SIG_BLOCK, &block, NULL);
  if (keeper->fd != 3 && dup2(keeper->fd, 3) != 3) _exit(1);
  keeper->fd = 3; /* low, whatever number the host had: pselect counts up to FD_SETSIZE */
  swerex__sys_prepare_fd(keeper->fd, false);
  for (int i = 0; i < 3; i++) {
    close(i);
    if (open("/dev/null", O_RDWR) != i) _exit(1);
  }
  swerex__keep_close_all(3, keeper->fd);
  int flags = fcntl(keeper->fd, F_GETFL);
  if (flags >= 0) fcntl(keeper->fd, F_SETFL, flags & ~O_NONBLOCK);
#if defined(__linux__)
  prctl(PR_SET_NAME, "swerex-keeper");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
#endif
  swerex__keep_serve(keeper);
}

/* --- our side ----------------------------------------------------------------------------- */

typedef struct swerex__keep swerex__keep;
typedef struct swerex__keep_child swerex__keep_child;

/** A child that a keeper starts for us; embedded in what owns it. */
struct swerex__keep_child {
  swerex__loop_link link; /* first member; in keep->children while reports may come */
  swerex__keep *keep;
  uint32_t id;
  void (*report)(swerex__keep_child *child, const swerex__keep_report *report);
};

/** A request that waits for room in the socket. */
typedef struct swerex__keep_pending {
  swerex__loop_link link; /* first member */
  swerex__keep_request request;
  int fds[SWEREX__KEEP_FDS];
} swerex__keep_pending;

struct swerex__keep {
  swerex_loop *loop;
  swerex__poll_watch watch;
  pid_t pid; /* of the first keeper, which we must reap; 0: another one's child */
  uint32_t next_id;
  bool lost;   /* its socket has closed */
  int refused; /* errno of the fork that should have made it */
  swerex__loop_link children, pending;
  size_t partial; /* bytes of a report that came so far */
  swerex__keep_report report;
  void (*ended)(swerex__keep *keep); /* after swerex__keep_stop: all is over */
  void *owner;
};

static void swerex__keep_drop_pending(swerex__keep_pending *pending) {
  swerex__loop_link_remove(&pending->link);
  for (int i = 0; i < SWEREX__KEEP_FDS; i++) swerex__sys_close(&pending->fds[i]);
  swerex__mem_free(pending);
}

static void swerex__keep_free(swerex__keep *keep) {
  if (keep == NULL) return;
  while (!swerex__loop_link_empty(&keep->children)) swerex__loop_link_remove(keep->children.next);
  while (!swerex__loop_link_empty(&keep->pending))
    swerex__keep_drop_pending((swerex__keep_pending *)keep->pending.next);
  swerex__poll_drop(&keep->loop->poll, &keep->watch);
  swerex__mem_free(keep);
}

/** Note that the keeper is gone: its children hear of it, then the owner. */
static void swerex__keep_set_lost(swerex__keep *keep) {
  swerex__keep_report lost = {SWEREX__KEEP_LOST, 0, 0, SWEREX__KEEP_IN_SYSTEM};
  keep->lost = true;
  if (keep->refused != 0) lost.news = SWEREX__KEEP_FAILED;
  lost.value = keep->refused;
  swerex__poll_drop(&keep->loop->poll, &keep->watch);
  while (!swerex__loop_link_empty(&keep->children)) {
    swerex__keep_child *child = (swerex__keep_child *)keep->children.next;
    swerex__loop_link_remove(&child->link);
    child->report(child, &lost);
  }
  if (keep->ended != NULL) keep->ended(keep);
}

static void swerex__keep_pass_on(swerex__keep *keep) {
  if (keep->report.id == 0) keep->refused = keep->report.value;
  for (swerex__loop_link *link = keep->children.next; link != &keep->children; link = link->next) {
    swerex__keep_child *child = (swerex__keep_child *)link;
    if (child->id != keep->report.id) continue;
    if (keep->report.news != SWEREX__KEEP_STARTED) swerex__loop_link_remove(link);
    child->report(child, &keep->report);
    return;
  }
}

/** Send one request; 1: sent, 0: no room now, -1: the keeper is gone or refuses. */
static int swerex__keep_send(swerex__keep *keep, const swerex__keep_request *request,
                             const int *fds) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(SWEREX__KEEP_FDS * sizeof(int))];
  } control;
  struct iovec part = {(void *)(uintptr_t)request, sizeof *request};
  struct msghdr message;
  ssize_t n;
  memset(&message, 0, sizeof message);
  memset(&control, 0, sizeof control);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (request->fds > 0) {
    size_t size = (size_t)request->fds * sizeof(int);
    message.msg_control = control.bytes;
    message.msg_controllen = (socklen_t)CMSG_SPACE(size);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = (socklen_t)CMSG_LEN(size);
    memcpy(CMSG_DATA(header), fds, size);
  }
  do n = sendmsg(keep->watch.fd, &message, SWEREX__SYS_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n == (ssize_t)sizeof *request) return 1;
  return n < 0 && (errno == EAGAIN || errno == ETOOMANYREFS) ? 0 : -1;
}

static void swerex__keep_flush(swerex__keep *keep) {
  while (!swerex__loop_link_empty(&keep->pending)) {
    swerex__keep_pending *pending = (swerex__keep_pending *)keep->pending.next;
    if (swerex__keep_send(keep, &pending->request, pending->fds) == 0) return;
    swerex__keep_drop_pending(pending);
  }
  swerex__poll_set(&keep->loop->poll, &keep->watch, SWEREX__POLL_READ);
}

static void swerex__keep_on_ready(swerex__poll_watch *watch) {
  swerex__keep *keep = (swerex__keep *)watch->owner;
  if (!swerex__loop_link_empty(&keep->pending)) swerex__keep_flush(keep);
  for (;;) {
    char *into = (char *)&keep->report + keep->partial;
    ssize_t n = read(watch->fd, into, sizeof keep->report - keep->partial);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) break;
    keep->partial += (size_t)n;
    if (keep->partial < sizeof keep->report) continue;
    keep->partial = 0;
    swerex__keep_pass_on(keep);
    if (watch->fd < 0) return;
  }
  swerex__keep_set_lost(keep);
}

/** Send a request, or keep it (and copies of its descriptors) until there is room. */
static bool swerex__keep_submit(swerex__keep *keep, const swerex__keep_request *request,
                                const int *fds, swerex_error *err) {
  int sent = 0;
  if (keep->lost) return swerex__err_set(err, SWEREX_E_OS, "the keeper process is gone");
  if (swerex__loop_link_empty(&keep->pending)) sent = swerex__keep_send(keep, request, fds);
  if (sent > 0) return true;
  if (sent < 0) {
    swerex__keep_report last;
    int number = errno;
    if (recv(keep->watch.fd, &last, sizeof last, MSG_PEEK) == (ssize_t)sizeof last && last.id == 0)
      number = last.value;
    return swerex__err_system(err, number, "a process to start programs from");
  }
  swerex__keep_pending *pending =
    (swerex__keep_pending *)swerex__mem_new(&keep->loop->allocator, 1, sizeof *pending);
  if (pending == NULL) return swerex__err_memory(err);
  pending->request = *request;
  for (int i = 0; i < SWEREX__KEEP_FDS; i++) {
    pending->fds[i] = i < request->fds ? fcntl(fds[i], F_DUPFD_CLOEXEC, 3) : -1;
    if (i >= request->fds || pending->fds[i] >= 0) continue;
    int number = errno;
    swerex__loop_link_init(&pending->link);
    swerex__keep_drop_pending(pending);
    return swerex__err_system(err, number, "a request to the keeper process");
  }
  swerex__loop_link_insert(&keep->pending, &pending->link);
  return swerex__poll_set(&keep->loop->poll, &keep->watch,
                          SWEREX__POLL_READ | SWEREX__POLL_WRITE) ||
         swerex__err_system(err, errno, "a request to the keeper process");
}

/** Make our end of a keeper around a socket, which it owns from now on. */
static swerex__keep *swerex__keep_wrap(swerex_loop *loop, int fd, swerex_error *err) {
  swerex__keep *keep = (swerex__keep *)swerex__mem_new(&loop->allocator, 1, sizeof *keep);
  if (keep == NULL) {
    swerex__sys_close(&fd);
    swerex__err_memory(err);
    return NULL;
  }
  keep->loop = loop;
  keep->watch.fd = fd;
  keep->watch.ready = swerex__keep_on_ready;
  keep->watch.owner = keep;
  swerex__loop_link_init(&keep->children);
  swerex__loop_link_init(&keep->pending);
  if (swerex__poll_set(&loop->poll, &keep->watch, SWEREX__POLL_READ)) return keep;
  swerex__err_system(err, errno, "the keeper process's socket");
  swerex__keep_free(keep);
  return NULL;
}

/** End the loop's first keeper, wait until all that it kept has ended, and reap it. */
static void swerex__keep_free_root(void *object) {
  swerex__keep *keep = (swerex__keep *)object;
  struct pollfd fd;
  char rest[256];
  int n;
  if (keep == NULL) return;
  if (!keep->lost) {
    shutdown(keep->watch.fd, SHUT_WR);
    fd.fd = keep->watch.fd;
    fd.events = POLLIN;
    while ((n = poll(&fd, 1, 2 * SWEREX__KEEP_END_MS)) > 0 && read(fd.fd, rest, sizeof rest) > 0)
      continue;
    if (n == 0) kill(keep->pid, SIGKILL);
  }
  while (waitpid(keep->pid, NULL, 0) < 0 && errno == EINTR) continue;
  swerex__keep_free(keep);
}

/** Take in what a keeper has said, and tell whether it still lives. */
static bool swerex__keep_is_alive(swerex__keep *keep) {
  if (!keep->lost) keep->watch.ready(&keep->watch);
  return !keep->lost;
}

/** Return the loop's first keeper, forked when it is first needed or was lost. */
static swerex__keep *swerex__keep_root(swerex_loop *loop, swerex_error *err) {
  swerex__keep_state state;
  swerex__keep *keep = (swerex__keep *)loop->keeper;
  int ends[2];
  if (keep != NULL && swerex__keep_is_alive(keep)) return keep;
  swerex__keep_free_root(keep);
  loop->keeper = NULL;
  if (!swerex__sys_socketpair(ends)) {
    swerex__err_system(err, errno, "the keeper process's socket");
    return NULL;
  }
  keep = swerex__keep_wrap(loop, ends[0], err);
  if (keep != NULL) {
    keep->pid = fork();
    if (keep->pid == 0) swerex__keep_become_keeper(&state, ends[1], SWEREX__KEEP_SPARE);
    if (keep->pid < 0) {
      swerex__err_system(err, errno, "fork of the keeper process");
      swerex__keep_free(keep);
      keep = NULL;
    }
  }
  swerex__sys_close(&ends[1]);
  loop->keeper = keep;
  loop->free_keeper = swerex__keep_free_root;
  return keep;
}

/** Have a keeper (NULL: the loop's first) fork one for us, with a policy of its own. */
static swerex__keep *swerex__keep_fork(swerex_loop *loop, swerex__keep *parent, int policy,
                                       swerex_error *err) {
  swerex__keep_request request = {SWEREX__KEEP_FORK, policy, 0, 1};
  int ends[2];
  if (parent == NULL) parent = swerex__keep_root(loop, err);
  if (parent == NULL) return NULL;
  if (!swerex__sys_socketpair(ends)) {
    swerex__err_system(err, errno, "the keeper process's socket");
    return NULL;
  }
  swerex__keep *keep = swerex__keep_wrap(loop, ends[0], err);
  if (keep != NULL && !swerex__keep_submit(parent, &request, &ends[1], err)) {
    swerex__keep_free(keep);
    keep = NULL;
  }
  swerex__sys_close(&ends[1]);
  return keep;
}

/** Ask a keeper to end all; `ended` is called once it has. */
static void swerex__keep_stop(swerex__keep *keep, void (*ended)(swerex__keep *), void *owner) {
  keep->ended = ended;
  keep->owner = owner;
  if (!keep->lost) shutdown(keep->watch.fd, SHUT_WR);
}

/** Have a keeper exit without ending anything. */
static void swerex__keep_release(swerex__keep *keep) {
  swerex__keep_request request = {SWEREX__KEEP_RELEASE, 0, 0, 0};
  if (!keep->lost) swerex__keep_submit(keep, &request, NULL, NULL);
}

/** Ask a keeper to kill a child and its descendants; its end is reported as usual. */
static void swerex__keep_kill(swerex__keep_child *child) {
  swerex__keep_request request = {SWEREX__KEEP_KILL, 0, child->id, 0};
  if (child->link.next != NULL) swerex__keep_submit(child->keep, &request, NULL, NULL);
}

/* --- plans -------------------------------------------------------------------------------- */

/** What to start, in the host's terms. */
typedef struct swerex__keep_program {
  const char *path; /* NULL: argv[0], looked up in PATH */
  const char *const *argv;
  const char *const *env; /* NULL: the host's */
  const char *cwd;        /* NULL: the host's */
  int fds[3];             /* -1: /dev/null; with a terminal only the first counts */
  bool terminal;
} swerex__keep_program;

/** Find a variable in an environment; NULL: not there. */
static const char *swerex__keep_getenv(const char *const *env, const char *name) {
  size_t size = strlen(name);
  for (; *env != NULL; env++)
    if (strncmp(*env, name, size) == 0 && (*env)[size] == '=') return *env + size + 1;
  return NULL;
}

/** A plan under construction. */
typedef struct swerex__keep_draft {
  swerex__str table, text; /* offsets in text so far; made final by adding where text starts */
} swerex__keep_draft;

/** Note where the next string of a list starts (0: the list's end). */
static void swerex__keep_draft_entry(swerex__keep_draft *draft, bool end) {
  uintptr_t offset = end ? 0 : draft->text.size + 1;
  swerex__str_add(&draft->table, (const char *)&offset, sizeof offset);
}

static uint32_t swerex__keep_draft_list(swerex__keep_draft *draft, const char *const *items) {
  uint32_t start = (uint32_t)(draft->table.size / sizeof(uintptr_t));
  for (; *items != NULL; items++) {
    swerex__keep_draft_entry(draft, false);
    swerex__str_add(&draft->text, *items, strlen(*items) + 1);
  }
  swerex__keep_draft_entry(draft, true);
  return start;
}

/** List where the program may be: itself if it has a slash, else below each folder of PATH. */
static uint32_t swerex__keep_draft_paths(swerex__keep_draft *draft, const char *name,
                                         const char *path) {
  uint32_t start = (uint32_t)(draft->table.size / sizeof(uintptr_t));
  if (strchr(name, '/') != NULL) path = NULL;
  do {
    size_t size = path == NULL ? 0 : strcspn(path, ":");
    if (name[0] != '\0') {
      swerex__keep_draft_entry(draft, false);
      if (path != NULL) swerex__str_add(&draft->text, size > 0 ? path : ".", size > 0 ? size : 1);
      if (path != NULL) swerex__str_putc(&draft->text, '/');
      swerex__str_add(&draft->text, name, strlen(name) + 1);
    }
    if (path == NULL || path[size] == '\0') break;
    path += size + 1;
  } while (true);
  swerex__keep_draft_entry(draft, true);
  return start;
}

static uint64_t swerex__keep_draft_string(swerex__keep_draft *draft, const char *text) {
  uint64_t offset = text == NULL ? 0 : draft->text.size + 1;
  if (text != NULL) swerex__str_add(&draft->text, text, strlen(text) + 1);
  return offset;
}

/** Put header, table and text together: offsets become those in the file. */
static void swerex__keep_draft_join(swerex__keep_draft *draft, swerex__keep_plan *plan,
                                    swerex__str *out) {
  size_t start = sizeof *plan + draft->table.size;
  plan->entries = (uint32_t)(draft->table.size / sizeof(uintptr_t));
  if (plan->base != 0) plan->base += start - 1;
  if (plan->cwd != 0) plan->cwd += start - 1;
  swerex__str_add(out, (const char *)plan, sizeof *plan);
  for (size_t i = 0; i < draft->table.size; i += sizeof(uintptr_t)) {
    uintptr_t offset;
    memcpy(&offset, draft->table.data + i, sizeof offset);
    if (offset != 0) offset += start - 1;
    swerex__str_add(out, (const char *)&offset, sizeof offset);
  }
  swerex__str_add(out, draft->text.data, draft->text.size);
  if (draft->table.failed || draft->text.failed) out->failed = true;
}

/** Write the plan of a program to a scratch file; -1 on failure. */
static int swerex__keep_write_plan(swerex_loop *loop, const swerex__keep_program *program,
                                   swerex_error *err) {
  static const char *const nothing[] = {NULL};
  const char *const *env = program->env != NULL ? program->env : (const char *const *)environ;
  swerex__keep_draft draft = {swerex__str_new(&loop->allocator, 1 << 28),
                              swerex__str_new(&loop->allocator, 1 << 28)};
  swerex__str out = swerex__str_new(&loop->allocator, (size_t)1 << 30);
  swerex__keep_plan plan;
  char base[PATH_MAX], path[PATH_MAX];
  const char *search = swerex__keep_getenv(env != NULL ? env : nothing, "PATH");
  int fd = -1;
  memset(&plan, 0, sizeof plan);
  plan.argv = swerex__keep_draft_list(&draft, program->argv);
  plan.envp = swerex__keep_draft_list(&draft, env != NULL ? env : nothing);
  plan.paths = swerex__keep_draft_paths(&draft,
                                        program->path != NULL ? program->path : program->argv[0],
                                        search != NULL ? search : "/bin:/usr/bin");
  plan.base = swerex__keep_draft_string(&draft, getcwd(base, sizeof base));
  plan.cwd = swerex__keep_draft_string(&draft, program->cwd);
  swerex__keep_draft_join(&draft, &plan, &out);
  if (out.failed) {
    swerex__err_memory(err);
  } else {
    fd = swerex__sys_open_scratch(path, sizeof path);
    if (fd >= 0 && strncmp(path, "/proc/", 6) != 0) unlink(path);
    if (fd >= 0 && !swerex__sys_write_all(fd, out.data, out.size)) swerex__sys_close(&fd);
    if (fd < 0) swerex__err_system(err, errno, "the plan of a new process");
  }
  swerex__str_clear(&draft.table);
  swerex__str_clear(&draft.text);
  swerex__str_clear(&out);
  return fd;
}

/** Have a keeper start a program; what becomes of it is reported to `child`. */
static bool swerex__keep_start(swerex__keep *keep, const swerex__keep_program *program,
                               swerex__keep_child *child, swerex_error *err) {
  swerex__keep_request request = {SWEREX__KEEP_SPAWN, 0, ++keep->next_id, 0};
  int fds[SWEREX__KEEP_FDS];
  int null_fd = -1;
  bool ok = true;
  fds[0] = swerex__keep_write_plan(keep->loop, program, err);
  if (fds[0] < 0) return false;
  request.fds = program->terminal ? 2 : 4;
  if (program->terminal) request.flags = SWEREX__KEEP_TERMINAL;
  for (int i = 1; i < request.fds; i++) {
    if (program->fds[i - 1] < 0 && null_fd < 0) null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    fds[i] = program->fds[i - 1] < 0 ? null_fd : program->fds[i - 1];
    ok = ok && (fds[i] >= 0 || swerex__err_system(err, errno, "/dev/null"));
  }
  ok = ok && swerex__keep_submit(keep, &request, fds, err);
  if (ok) {
    child->keep = keep;
    child->id = request.id;
    swerex__loop_link_insert(&keep->children, &child->link);
  }
  swerex__sys_close(&null_fd);
  swerex__sys_close(&fds[0]);
  return ok;
}

/** Forget a child: its reports are no longer wanted. */
static void swerex__keep_forget(swerex__keep_child *child) {
  swerex__loop_link_remove(&child->link);
}

/* =============================================================================================
 * [proc] Commands with pipes
 * ========================================================================================== */
/* Runs one program to its end: stdout and stderr collected through pipes (kept up to a cap), a time
 * limit, an idle limit. Over a limit, or when it is dropped, it is killed with its descendants, and
 * `done` is called once none of them is left. A program with a limit gets a keeper of its own, so
 * that also those that left its session and lost their parent are found; one without shares the
 * parent's, as a fork costs a fifth of the whole start. */

enum { SWEREX__PROC_CHUNK = 65536, SWEREX__PROC_READS = 16 };

typedef enum swerex__proc_end {
  SWEREX__PROC_EXITED = 1,
  SWEREX__PROC_NOT_STARTED, /* failed_errno and failed_stage say why */
  SWEREX__PROC_TIMED_OUT,
  SWEREX__PROC_IDLE,
  SWEREX__PROC_BROKEN /* no memory for the output, the keeper was lost: error says what */
} swerex__proc_end;

typedef struct swerex__proc_spec {
  const char *path; /* NULL: argv[0], looked up in PATH */
  const char *const *argv;
  const char *const *env; /* NULL: the host's */
  const char *cwd;        /* NULL: the host's */
  int input;              /* -1: /dev/null */
  bool merge;
  double timeout, idle_timeout; /* < 0: none */
  size_t max_output;            /* of each stream */
  swerex_output_watch watch;
} swerex__proc_spec;

typedef struct swerex__proc swerex__proc;

typedef struct swerex__proc_pipe {
  swerex__poll_watch watch;
  swerex__proc *proc;
  swerex_stream stream;
  swerex__text_filter filter;
  swerex__text_keep keep;
} swerex__proc_pipe;

struct swerex__proc {
  swerex_loop *loop;
  swerex__keep *own; /* NULL: it shares one */
  swerex__keep_child child;
  swerex__proc_pipe pipes[2];
  swerex__loop_timer deadline, idle;
  double idle_timeout;
  swerex_output_watch watch;
  int status; /* as waitpid gives it */
  bool exited, own_ended;
  int failed_errno, failed_stage; /* with NOT_STARTED */
  swerex__proc_end end; /* 0: still running */
  swerex_error error;
  void (*done)(swerex__proc *proc); /* it then belongs to the caller, to be freed */
  void *owner;
};

/** Release it; what it left running after a regular end lives on below the parent keeper. */
static void swerex__proc_free(swerex__proc *proc) {
  if (proc == NULL) return;
  swerex__keep_forget(&proc->child);
  if (proc->own != NULL && proc->end == SWEREX__PROC_EXITED) swerex__keep_release(proc->own);
  swerex__keep_free(proc->own);
  swerex__loop_disarm(proc->loop, &proc->deadline);
  swerex__loop_disarm(proc->loop, &proc->idle);
  for (int i = 0; i < 2; i++) {
    swerex__poll_drop(&proc->loop->poll, &proc->pipes[i].watch);
    swerex__text_keep_clear(&proc->pipes[i].keep);
  }
  swerex__err_clear(&proc->error);
  swerex__mem_free(proc);
}

/** Return the exit code as subprocess does: -N for signal N. */
static int swerex__proc_exit_code(int status) {
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void swerex__proc_on_done(swerex__loop_timer *timer) {
  swerex__proc *proc = (swerex__proc *)timer->owner;
  void (*done)(swerex__proc *) = proc->done;
  proc->done = NULL;
  done(proc);
}

/** Have `done` called once the program has ended and its pipes, or all its kin, are gone. */
static void swerex__proc_check(swerex__proc *proc) {
  bool open = proc->pipes[0].watch.fd >= 0 || proc->pipes[1].watch.fd >= 0;
  if (proc->done == NULL) return;
  if (proc->end == 0) {
    if (!proc->exited || open) return;
    proc->end = SWEREX__PROC_EXITED;
  }
  if (proc->end != SWEREX__PROC_EXITED) {
    if (proc->own != NULL && !proc->own_ended) return;
    if (proc->own == NULL && !proc->exited) return;
  }
  swerex__loop_disarm(proc->loop, &proc->idle);
  swerex__loop_arm(proc->loop, &proc->deadline, 0, swerex__proc_on_done, proc);
}

/** All processes are gone: take in what they wrote last. */
static void swerex__proc_own_ended(swerex__keep *keep) {
  swerex__proc *proc = (swerex__proc *)keep->owner;
  proc->exited = true;
  for (int i = 0; i < 2; i++)
    if (proc->pipes[i].watch.fd >= 0) proc->pipes[i].watch.ready(&proc->pipes[i].watch);
  proc->own_ended = true;
  swerex__proc_check(proc);
}

/** Stop the program for a reason; `done` follows when all its processes are gone. */
static void swerex__proc_stop(swerex__proc *proc, swerex__proc_end end) {
  if (proc->end != 0) return;
  proc->end = end;
  swerex__loop_disarm(proc->loop, &proc->deadline);
  swerex__loop_disarm(proc->loop, &proc->idle);
  if (proc->own != NULL && !proc->own->lost)
    swerex__keep_stop(proc->own, swerex__proc_own_ended, proc);
  else if (proc->own != NULL)
    proc->own_ended = true;
  else if (!proc->exited)
    swerex__keep_kill(&proc->child);
  swerex__proc_check(proc);
}

static void swerex__proc_sink(void *user, const char *text, size_t size) {
  swerex__proc_pipe *pipe = (swerex__proc_pipe *)user;
  const swerex_output_watch *watch = &pipe->proc->watch;
  swerex__text_keep_add(&pipe->keep, text, size);
  if (watch->on_output != NULL && !watch->raw)
    watch->on_output(watch->user_data, pipe->stream, text, size);
}

static void swerex__proc_on_idle(swerex__loop_timer *timer) {
  swerex__proc_stop((swerex__proc *)timer->owner, SWEREX__PROC_IDLE);
}

static void swerex__proc_on_deadline(swerex__loop_timer *timer) {
  swerex__proc_stop((swerex__proc *)timer->owner, SWEREX__PROC_TIMED_OUT);
}

/** Read a pipe until it is empty, or for a while; closes it at its end. */
static void swerex__proc_read(swerex__poll_watch *watch) {
  swerex__proc_pipe *pipe = (swerex__proc_pipe *)watch->owner;
  swerex__proc *proc = pipe->proc;
  char chunk[SWEREX__PROC_CHUNK];
  ssize_t n = 1;
  for (int i = 0; i < SWEREX__PROC_READS && n > 0; i++) {
    n = read(watch->fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) n = 1;
    else if (n > 0) {
      if (proc->watch.on_output != NULL && proc->watch.raw)
        proc->watch.on_output(proc->watch.user_data, pipe->stream, chunk, (size_t)n);
      swerex__text_filter_feed(&pipe->filter, chunk, (size_t)n, swerex__proc_sink, pipe);
      if (proc->idle_timeout >= 0 && proc->end == 0)
        swerex__loop_arm(proc->loop, &proc->idle, proc->idle_timeout, swerex__proc_on_idle, proc);
      if ((size_t)n < sizeof chunk) break;
    }
  }
  if (pipe->keep.failed && proc->end == 0) {
    swerex__err_memory(&proc->error);
    swerex__proc_stop(proc, SWEREX__PROC_BROKEN);
    return;
  }
  if (n > 0 || (n < 0 && errno == EAGAIN)) return;
  swerex__text_filter_finish(&pipe->filter, swerex__proc_sink, pipe);
  swerex__poll_drop(&proc->loop->poll, watch);
  swerex__proc_check(proc);
}

/** Take in what a keeper says about the program. */
static void swerex__proc_on_report(swerex__keep_child *child, const swerex__keep_report *report) {
  swerex__proc *proc = (swerex__proc *)(void *)((char *)child - offsetof(swerex__proc, child));
  switch (report->news) {
  case SWEREX__KEEP_STARTED: return;
  case SWEREX__KEEP_EXITED:
    proc->status = report->value;
    proc->exited = true;
    break;
  case SWEREX__KEEP_FAILED:
    proc->exited = true;
    if (proc->end != 0) break;
    proc->failed_errno = report->value;
    proc->failed_stage = report->stage;
    swerex__proc_stop(proc, SWEREX__PROC_NOT_STARTED);
    return;
  default:
    proc->exited = true;
    if (proc->end != 0) break;
    swerex__err_set(&proc->error, SWEREX_E_OS,
                    "the process that starts programs is gone: killed, or refused by a limit");
    swerex__proc_stop(proc, SWEREX__PROC_BROKEN);
    return;
  }
  swerex__proc_check(proc);
}

/** Make the pipes; fds receives the ends for the program. */
static bool swerex__proc_open_pipes(swerex__proc *proc, const swerex__proc_spec *spec, int fds[3],
                                    swerex_error *err) {
  for (int i = 0; i < (spec->merge ? 1 : 2); i++) {
    int ends[2];
    if (!swerex__sys_pipe(ends)) return swerex__err_system(err, errno, "a pipe");
    fds[i + 1] = ends[1];
    proc->pipes[i].watch.fd = ends[0];
    if (!swerex__poll_set(&proc->loop->poll, &proc->pipes[i].watch, SWEREX__POLL_READ))
      return swerex__err_system(err, errno, "a pipe");
  }
  return true;
}

static swerex__proc *swerex__proc_new(swerex_loop *loop, const swerex__proc_spec *spec,
                                      void (*done)(swerex__proc *), void *owner) {
  swerex__proc *proc = (swerex__proc *)swerex__mem_new(&loop->allocator, 1, sizeof *proc);
  if (proc == NULL) return NULL;
  proc->loop = loop;
  proc->watch = spec->watch;
  proc->done = done;
  proc->owner = owner;
  proc->idle_timeout = spec->idle_timeout;
  proc->child.report = swerex__proc_on_report;
  for (int i = 0; i < 2; i++) {
    swerex__proc_pipe *pipe = &proc->pipes[i];
    pipe->proc = proc;
    pipe->stream = i == 0 ? SWEREX_STDOUT : SWEREX_STDERR;
    pipe->watch.fd = -1;
    pipe->watch.ready = swerex__proc_read;
    pipe->watch.owner = pipe;
    swerex__text_filter_init(&pipe->filter, false);
    swerex__text_keep_init(&pipe->keep, &loop->allocator, spec->max_output);
  }
  return proc;
}

/**
 * Start a program below a keeper. `done` is called later, never from here, unless this returns
 * NULL, when nothing was started.
 */
static swerex__proc *swerex__proc_start(swerex_loop *loop, swerex__keep *parent,
                                        const swerex__proc_spec *spec,
                                        void (*done)(swerex__proc *), void *owner,
                                        swerex_error *err) {
  swerex__keep_program program = {spec->path, spec->argv, spec->env, spec->cwd,
                                  {spec->input, -1, -1}, false};
  bool limited = spec->timeout >= 0 || spec->idle_timeout >= 0;
  int fds[3] = {-1, -1, -1};
  swerex__proc *proc = swerex__proc_new(loop, spec, done, owner);
  if (proc == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  bool ok = swerex__proc_open_pipes(proc, spec, fds, err);
  if (ok && limited) {
    proc->own = swerex__keep_fork(loop, parent, 0, err);
    ok = proc->own != NULL;
  }
  if (ok) {
    program.fds[1] = fds[1];
    program.fds[2] = spec->merge ? fds[1] : fds[2];
    ok = swerex__keep_start(proc->own != NULL ? proc->own : parent, &program, &proc->child, err);
  }
  swerex__sys_close(&fds[1]);
  swerex__sys_close(&fds[2]);
  if (!ok) {
    swerex__proc_free(proc);
    return NULL;
  }
  swerex__loop_arm(loop, &proc->deadline, spec->timeout, swerex__proc_on_deadline, proc);
  swerex__loop_arm(loop, &proc->idle, spec->idle_timeout, swerex__proc_on_idle, proc);
  return proc;
}

#endif /* SWEREX__SYS_PROCESSES */

#ifndef SWEREX_NO_LOCAL /* up to [dummy] */

/* =============================================================================================
 * [re] Expect patterns
 * ========================================================================================== */
/* Looks for a list of patterns in a stream that comes in chunks: each as literal text and as a
 * regular expression in Python's syntax (dot matches newline). The answer is the one that Python's
 * search would give for the data so far: the earliest start, then the order of the list, then
 * greedy or lazy as written. All patterns are one program; its threads run side by side, in order
 * of preference, so that the time per character is bounded by the size of the program, and there
 * is no way back. Loops over what may match nothing are unrolled into "has matched nothing yet" and
 * "has moved on", which gives Python's preference exactly. What is not valid UTF-8 is one character
 * per byte. Beyond U+0600 the tables of letters are approximate, beyond Cyrillic those of cases.
 * All memory is taken by swerex__re_new. */

#define SWEREX__RE_BYTE 0x110000U    /* plus b: the byte b, where it is not valid UTF-8 */
#define SWEREX__RE_LAST 0x1100FFU    /* the last character, counting those */
#define SWEREX__RE_NONE 0xFFFFFFFFU  /* no character, no node, no instruction */
#define SWEREX__RE_REPEATS 1000U     /* highest count in {m,n} */
#define SWEREX__RE_SIZE 20000U       /* instructions, and characters of one pattern */
#define SWEREX__RE_DEPTH 50          /* groups within groups */
#define SWEREX__RE_WORK 400000U      /* steps to make the program; bounds {0} within {1000} ... */
#define SWEREX__RE_SHOWN 200         /* bytes of a pattern in an error message */
#define SWEREX__RE_ITEMS(rows) rows, SWEREX__SYS_COUNT(rows)

enum swerex__re_flag {
  SWEREX__RE_IGNORECASE = 1,
  SWEREX__RE_MULTILINE = 2,
  SWEREX__RE_DOTALL = 4,
  SWEREX__RE_VERBOSE = 8,
  SWEREX__RE_ASCII = 16,
  SWEREX__RE_UNICODE = 32
};

typedef enum swerex__re_op {
  SWEREX__RE_CHAR,         /* arg: the character */
  SWEREX__RE_ANY,          /* any character */
  SWEREX__RE_CLASS,        /* arg: which class */
  SWEREX__RE_BEGIN,        /* start of the stream */
  SWEREX__RE_BEGIN_LINE,   /* that, or behind a newline */
  SWEREX__RE_END,          /* end of the data so far */
  SWEREX__RE_END_DATA,     /* that, or before a newline there */
  SWEREX__RE_END_LINE,     /* that, or before any newline */
  SWEREX__RE_BOUNDARY,     /* of a word; arg: ASCII only */
  SWEREX__RE_NOT_BOUNDARY, /* the same, inside or outside of a word */
  SWEREX__RE_SPLIT,        /* first `next`, then arg */
  SWEREX__RE_MATCH,        /* arg: which pattern */
  SWEREX__RE_ALL,          /* nodes only: the children in turn */
  SWEREX__RE_EITHER,       /* nodes only: one of the children */
  SWEREX__RE_REPEAT        /* nodes only: the child, min to max times */
} swerex__re_op;

typedef struct swerex__re_code {
  swerex__re_op op;
  uint32_t arg, next;
} swerex__re_code;

typedef struct swerex__re_range {
  uint32_t lo, hi;
} swerex__re_range;

/** Characters, as sorted ranges that do not touch: `count` of re->ranges from `first` on. */
typedef struct swerex__re_class {
  uint32_t first, count;
  uint32_t ascii[4]; /* the first 128 of them as bits */
} swerex__re_class;

/** Where a match that began at `start` has come to. */
typedef struct swerex__re_thread {
  uint32_t at;
  uint64_t start;
} swerex__re_thread;

/** Threads in order of preference. */
typedef struct swerex__re_threads {
  swerex__re_thread *list;
  size_t count;
} swerex__re_threads;

typedef struct swerex__re_match {
  size_t pattern;      /* its place in the list */
  uint64_t start, end; /* bytes from the start of the stream */
} swerex__re_match;

typedef struct swerex__re {
  swerex__re_code *code;
  swerex__re_range *ranges;
  swerex__re_class *classes;
  size_t code_count, range_count, class_count;
  size_t code_room, range_room, class_room;
  uint32_t start;  /* first instruction; NONE: there is no pattern */
  bool first[256]; /* bytes with which a match may start */
  int only;        /* the one such byte; -1: there are several */
  bool looks_back; /* the program asks for the character before */
  bool looks_end;  /* the program has an END_DATA */
  uint32_t *seen;  /* per instruction: the round in which it was last visited */
  uint32_t *stack;
  swerex__re_thread *threads; /* the memory of the lists */
  swerex__re_threads now, next, spare;
  /* the stream */
  uint32_t round;
  uint32_t before; /* the last character; NONE at the start */
  uint64_t offset; /* bytes of whole characters seen */
  uint8_t carry[4];
  size_t carried; /* bytes of a character of which more is to come */
  bool found;
  swerex__re_match match;
} swerex__re;

/** What surrounds a position. */
typedef struct swerex__re_look {
  uint32_t before, after; /* NONE: nothing */
  bool last;              /* after is the last character so far, and a newline */
  bool start;             /* a match may start here */
  uint64_t offset;
} swerex__re_look;

/* --- characters ------------------------------------------------------------------------------ */

static const swerex__re_range swerex__re_ascii_words[] = {
  {'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const swerex__re_range swerex__re_ascii_digits[] = {{'0', '9'}};
static const swerex__re_range swerex__re_ascii_spaces[] = {{'\t', '\r'}, {' ', ' '}};

static const swerex__re_range swerex__re_words[] = {
  {'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'},
  {0xAA, 0xAA}, {0xB2, 0xB3}, {0xB5, 0xB5}, {0xB9, 0xBA}, {0xBC, 0xBE}, {0xC0, 0xD6},
  {0xD8, 0xF6}, {0xF8, 0x2C1}, {0x2C6, 0x2D1}, {0x2E0, 0x2E4}, {0x2EC, 0x2EC}, {0x2EE, 0x2EE},
  {0x370, 0x374}, {0x376, 0x37D}, {0x37F, 0x37F}, {0x386, 0x386}, {0x388, 0x3F5}, {0x3F7, 0x481},
  {0x48A, 0x559}, {0x560, 0x588}, {0x5D0, 0x5F2}, {0x610, 0x6FF}, {0x710, 0x82D}, {0x840, 0xF00},
  {0xF18, 0xFC6}, {0x1000, 0x17F9}, {0x180B, 0x19DA}, {0x1A00, 0x1B59}, {0x1B6B, 0x1B73},
  {0x1B80, 0x1FBC}, {0x1FBE, 0x1FBE}, {0x1FC2, 0x1FCC}, {0x1FD0, 0x1FDB}, {0x1FE0, 0x1FEC},
  {0x1FF2, 0x1FFC}, {0x2070, 0x2079}, {0x207F, 0x2089}, {0x2090, 0x209C}, {0x2102, 0x2102},
  {0x2107, 0x2107}, {0x210A, 0x2113}, {0x2115, 0x2115}, {0x2119, 0x211D}, {0x2124, 0x2124},
  {0x2126, 0x2126}, {0x2128, 0x2128}, {0x212A, 0x212D}, {0x212F, 0x2139}, {0x213C, 0x213F},
  {0x2145, 0x2149}, {0x214E, 0x214E}, {0x2150, 0x2189}, {0x2460, 0x249B}, {0x24EA, 0x24FF},
  {0x2776, 0x2793}, {0x2C00, 0x2CE4}, {0x2CEB, 0x2CEE}, {0x2CF2, 0x2CF3}, {0x2CFD, 0x2CFD},
  {0x2D00, 0x2D6F}, {0x2D80, 0x2DDE}, {0x2E2F, 0x2E2F}, {0x3005, 0x3007}, {0x3021, 0x3029},
  {0x3031, 0x3035}, {0x3038, 0x303C}, {0x3041, 0x3096}, {0x309D, 0x309F}, {0x30A1, 0x30FA},
  {0x30FC, 0x318E}, {0x3192, 0x3195}, {0x31A0, 0x31BF}, {0x31F0, 0x31FF}, {0x3220, 0x3229},
  {0x3248, 0x324F}, {0x3251, 0x325F}, {0x3280, 0x3289}, {0x32B1, 0x32BF}, {0x3400, 0x4DBF},
  {0x4E00, 0xA48C}, {0xA4D0, 0xA6F1}, {0xA717, 0xA9C0}, {0xA9CF, 0xD7FB}, {0xF900, 0xFBB1},
  {0xFBD3, 0xFD3D}, {0xFD50, 0xFDFB}, {0xFE70, 0xFEFC}, {0xFF10, 0xFF19}, {0xFF21, 0xFF3A},
  {0xFF41, 0xFF5A}, {0xFF66, 0xFFDC}, {0x10000, 0x1BFFF}, {0x1D400, 0x1D7FF},
  {0x20000, 0x323AF}};

static const swerex__re_range swerex__re_digits[] = {
  {'0', '9'},
  {0x660, 0x669}, {0x6F0, 0x6F9}, {0x7C0, 0x7C9}, {0x966, 0x96F}, {0x9E6, 0x9EF}, {0xA66, 0xA6F},
  {0xAE6, 0xAEF}, {0xB66, 0xB6F}, {0xBE6, 0xBEF}, {0xC66, 0xC6F}, {0xCE6, 0xCEF}, {0xD66, 0xD6F},
  {0xDE6, 0xDEF}, {0xE50, 0xE59}, {0xED0, 0xED9}, {0xF20, 0xF29}, {0x1040, 0x1049},
  {0x1090, 0x1099}, {0x17E0, 0x17E9}, {0x1810, 0x1819}, {0x1946, 0x194F}, {0x19D0, 0x19D9},
  {0x1A80, 0x1A89}, {0x1A90, 0x1A99}, {0x1B50, 0x1B59}, {0x1BB0, 0x1BB9}, {0x1C40, 0x1C49},
  {0x1C50, 0x1C59}, {0xA620, 0xA629}, {0xA8D0, 0xA8D9}, {0xA900, 0xA909}, {0xA9D0, 0xA9D9},
  {0xA9F0, 0xA9F9}, {0xAA50, 0xAA59}, {0xABF0, 0xABF9}, {0xFF10, 0xFF19}, {0x1D7CE, 0x1D7FF}};

static const swerex__re_range swerex__re_spaces[] = {
  {'\t', '\r'}, {0x1C, ' '}, {0x85, 0x85}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A},
  {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};

/** What \d, \s and \w stand for. */
static const struct {
  char name;
  const swerex__re_range *ascii;
  size_t ascii_count;
  const swerex__re_range *unicode;
  size_t unicode_count;
} swerex__re_categories[] = {
  {'d', SWEREX__RE_ITEMS(swerex__re_ascii_digits), SWEREX__RE_ITEMS(swerex__re_digits)},
  {'s', SWEREX__RE_ITEMS(swerex__re_ascii_spaces), SWEREX__RE_ITEMS(swerex__re_spaces)},
  {'w', SWEREX__RE_ITEMS(swerex__re_ascii_words), SWEREX__RE_ITEMS(swerex__re_words)},
};

/** Every step-th character from lo to hi is another case of the one `shift` further on. */
static const struct {
  uint32_t lo, hi;
  int32_t shift;
  uint32_t step;
} swerex__re_cases[] = {
  {0x41, 0x5A, 32, 1}, /* the first row is all there is with (?a) */
  {0xB5, 0xB5, 775, 1}, {0xC0, 0xD6, 32, 1}, {0xD8, 0xDE, 32, 1}, {0x100, 0x12E, 1, 2},
  {0x130, 0x130, -199, 1}, {0x131, 0x131, -200, 1}, {0x132, 0x136, 1, 2}, {0x139, 0x147, 1, 2},
  {0x14A, 0x176, 1, 2}, {0x178, 0x178, -121, 1}, {0x179, 0x17D, 1, 2}, {0x17F, 0x17F, -268, 1},
  {0x1CD, 0x1DB, 1, 2}, {0x1DE, 0x1EE, 1, 2}, {0x1F8, 0x21E, 1, 2}, {0x222, 0x232, 1, 2},
  {0x370, 0x372, 1, 2}, {0x376, 0x376, 1, 1}, {0x37F, 0x37F, 116, 1}, {0x386, 0x386, 38, 1},
  {0x388, 0x38A, 37, 1}, {0x38C, 0x38C, 64, 1}, {0x38E, 0x38F, 63, 1}, {0x391, 0x3A1, 32, 1},
  {0x3A3, 0x3AB, 32, 1}, {0x3C2, 0x3C2, 1, 1}, {0x3CF, 0x3CF, 8, 1}, {0x3D8, 0x3EE, 1, 2},
  {0x400, 0x40F, 80, 1}, {0x410, 0x42F, 32, 1}, {0x460, 0x480, 1, 2}, {0x48A, 0x4BE, 1, 2},
  {0x4C0, 0x4C0, 15, 1}, {0x4C1, 0x4CD, 1, 2}, {0x4D0, 0x52E, 1, 2}, {0x531, 0x556, 48, 1},
  {0x1E00, 0x1E94, 1, 2}, {0x1EA0, 0x1EFE, 1, 2}, {0x212A, 0x212A, -8383, 1},
  {0x212B, 0x212B, -8262, 1}, {0xFF21, 0xFF3A, 32, 1}};

/** Find a character in sorted ranges. */
static bool swerex__re_in(const swerex__re_range *ranges, size_t count, uint32_t c) {
  size_t low = 0;
  while (low < count) {
    size_t middle = low + (count - low) / 2;
    if (c > ranges[middle].hi)
      low = middle + 1;
    else if (c >= ranges[middle].lo)
      return true;
    else
      count = middle;
  }
  return false;
}

static bool swerex__re_is_word(uint32_t c, bool ascii) {
  if (c < 0x80 || ascii) return swerex__re_in(SWEREX__RE_ITEMS(swerex__re_ascii_words), c);
  return swerex__re_in(SWEREX__RE_ITEMS(swerex__re_words), c);
}

/** Read one character; returns its size, 0 when its end is not there yet. */
static size_t swerex__re_decode(const uint8_t *data, size_t size, uint32_t *c) {
  uint8_t lead = data[0];
  size_t need = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  uint32_t code = need == 2 ? lead & 0x1FU : need == 3 ? lead & 0xFU : lead & 7U;
  *c = lead < 0x80 ? lead : SWEREX__RE_BYTE + lead;
  if (need == 1) return 1;
  for (size_t i = 1; i < need; i++) {
    if (i == size) return 0;
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1) {
      low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
      high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    }
    if (data[i] < low || data[i] > high) return 1;
    code = code << 6 | (data[i] & 0x3FU);
  }
  *c = code;
  return need;
}

/** Read the character that ends at `at`; what is before `from` is not there. */
static uint32_t swerex__re_decode_back(const uint8_t *data, size_t from, size_t at) {
  uint32_t c;
  for (size_t n = 1; n <= 4 && n <= at - from; n++) {
    if ((data[at - n] & 0xC0) == 0x80) continue;
    if (swerex__re_decode(data + at - n, n, &c) == n) return c;
    break;
  }
  return SWEREX__RE_BYTE + data[at - 1];
}

/** Tell how many bytes at the end of the data begin a character that ends later. */
static size_t swerex__re_open_end(const uint8_t *data, size_t size) {
  uint32_t c;
  for (size_t n = 1; n <= 3 && n <= size; n++) {
    uint8_t lead = data[size - n];
    if ((lead & 0xC0) == 0x80) continue;
    return lead >= 0xC0 && swerex__re_decode(data + size - n, n, &c) == 0 ? n : 0;
  }
  return 0;
}

/** Return the first byte of a character. */
static uint8_t swerex__re_lead(uint32_t c) {
  if (c >= SWEREX__RE_BYTE) return (uint8_t)(c & 0xFF);
  if (c < 0x80) return (uint8_t)c;
  return (uint8_t)(c < 0x800 ? 0xC0 | c >> 6 : c < 0x10000 ? 0xE0 | c >> 12 : 0xF0 | c >> 18);
}

/* --- reading a pattern ----------------------------------------------------------------------- */

/** A part of a pattern. */
typedef struct swerex__re_node {
  swerex__re_op op;
  uint32_t arg;      /* as in the instruction */
  uint32_t last;     /* last child, or the only one */
  uint32_t previous; /* the sibling before this one */
  uint32_t min, max; /* REPEAT; max NONE: no limit */
  bool lazy;
  bool nullable; /* may match without a character */
} swerex__re_node;

/** A group with a name: where in the pattern the name stands. */
typedef struct swerex__re_name {
  size_t at, size;
  uint32_t group;
} swerex__re_name;

typedef struct swerex__re_maker {
  const swerex_allocator *allocator;
  swerex__re *re;
  const char *pattern;
  uint32_t *text; /* the pattern's characters */
  size_t size, at;
  uint32_t groups;
  int depth;
  swerex__re_node *nodes;
  swerex__re_range *set; /* the class that is being read */
  swerex__re_name *names;
  size_t node_count, set_count, name_count;
  size_t node_room, set_room, name_room;
  uint32_t work;
  uint32_t choice; /* the last SPLIT between patterns */
  bool failed;
  char reason[160]; /* of the failure; empty: no memory */
  size_t fault_at;  /* in characters */
} swerex__re_maker;

static bool swerex__re_fail(swerex__re_maker *m, size_t at, const char *format, ...)
  SWEREX_PRINTF(3, 4);
static bool swerex__re_fail(swerex__re_maker *m, size_t at, const char *format, ...) {
  va_list args;
  if (m->failed) return false;
  va_start(args, format);
  vsnprintf(m->reason, sizeof m->reason, format, args);
  va_end(args);
  m->fault_at = at;
  m->failed = true;
  return false;
}

static bool swerex__re_fail_memory(swerex__re_maker *m) {
  if (!m->failed) m->reason[0] = '\0';
  m->failed = true;
  return false;
}

static bool swerex__re_fail_size(swerex__re_maker *m) {
  return swerex__re_fail(m, 0, "the patterns are too large");
}

/** Fail with a reason that quotes the pattern's characters from `from` to `to`. */
static bool swerex__re_fail_with(swerex__re_maker *m, size_t at, const char *before, size_t from,
                                 size_t to, const char *behind) {
  const uint8_t *data = (const uint8_t *)m->pattern;
  size_t size = strlen(m->pattern), first = 0, n = 0;
  uint32_t c;
  for (size_t i = 0; i < to && first + n < size; i++) {
    size_t step = swerex__re_decode(data + first + n, size - first - n, &c);
    if (step == 0) step = 1;
    if (i < from)
      first += step;
    else if (n + step <= 60)
      n += step;
    else
      break;
  }
  return swerex__re_fail(m, at, "%s%.*s%s", before, (int)n, m->pattern + first, behind);
}

static bool swerex__re_unsupported(swerex__re_maker *m, size_t at, const char *what) {
  return swerex__re_fail(m, at, "%s not supported", what);
}

static uint32_t swerex__re_peek(const swerex__re_maker *m) {
  return m->at < m->size ? m->text[m->at] : SWEREX__RE_NONE;
}

/** Step over a character if it is the next one. */
static bool swerex__re_take(swerex__re_maker *m, uint32_t c) {
  if (swerex__re_peek(m) != c) return false;
  m->at++;
  return true;
}

static bool swerex__re_one_of(uint32_t c, const char *list) {
  return c > 0 && c < 0x80 && strchr(list, (int)c) != NULL;
}

static bool swerex__re_is_letter(uint32_t c) { return c < 0x80 && (c | 0x20) - 'a' < 26U; }

/** Add a node; returns NONE when out of memory. */
static uint32_t swerex__re_node_new(swerex__re_maker *m, swerex__re_op op, uint32_t arg) {
  void *nodes = m->nodes;
  if (!swerex__mem_reserve(m->allocator, &nodes, &m->node_room, m->node_count,
                           sizeof *m->nodes)) {
    swerex__re_fail_memory(m);
    return SWEREX__RE_NONE;
  }
  m->nodes = (swerex__re_node *)nodes;
  swerex__re_node *node = &m->nodes[m->node_count];
  memset(node, 0, sizeof *node);
  node->op = op;
  node->arg = arg;
  node->last = node->previous = SWEREX__RE_NONE;
  node->nullable = op > SWEREX__RE_CLASS;
  return (uint32_t)m->node_count++;
}

/** Add characters to the class that is being read, which stays sorted. */
static bool swerex__re_set_add(swerex__re_maker *m, uint32_t lo, uint32_t hi) {
  size_t low = 0, high = m->set_count;
  while (low < high) { /* the first range that ends at lo - 1 or later */
    size_t middle = low + (high - low) / 2;
    if (m->set[middle].hi < SWEREX__RE_NONE && m->set[middle].hi + 1 < lo)
      low = middle + 1;
    else
      high = middle;
  }
  size_t end = low;
  for (; end < m->set_count && m->set[end].lo <= hi + 1; end++) {
    if (m->set[end].lo < lo) lo = m->set[end].lo;
    if (m->set[end].hi > hi) hi = m->set[end].hi;
  }
  if (end == low) {
    void *set = m->set;
    if (!swerex__mem_reserve(m->allocator, &set, &m->set_room, m->set_count, sizeof *m->set))
      return swerex__re_fail_memory(m);
    m->set = (swerex__re_range *)set;
  }
  memmove(m->set + low + 1, m->set + end, (m->set_count - end) * sizeof *m->set);
  m->set_count = m->set_count + 1 - (end - low);
  m->set[low].lo = lo;
  m->set[low].hi = hi;
  return true;
}

/** Add those of which some characters are another case, by the table or (back) against it. */
static bool swerex__re_set_add_row(swerex__re_maker *m, size_t row, bool back,
                                   swerex__re_range range, size_t rows) {
  int64_t shift = swerex__re_cases[row].shift;
  uint32_t step = swerex__re_cases[row].step;
  uint32_t from = swerex__re_cases[row].lo, to = swerex__re_cases[row].hi;
  if (back) {
    from = (uint32_t)(from + shift);
    to = (uint32_t)(to + shift);
    shift = -shift;
  }
  if (range.lo > from) from += (range.lo - from + step - 1) / step * step;
  if (range.hi < to) to = range.hi;
  while (from <= to) {
    uint32_t end = step == 1 ? to : from;
    swerex__re_range other = {(uint32_t)(from + shift), (uint32_t)(end + shift)};
    if (!swerex__re_set_add(m, other.lo, other.hi)) return false;
    for (size_t i = 0; !back && i < rows; i++) /* the Kelvin sign is a k, and so is K */
      if (!swerex__re_set_add_row(m, i, true, other, rows)) return false;
    from = end + step;
  }
  return true;
}

/** Add characters and, where case does not matter, their other cases. */
static bool swerex__re_set_add_cases(swerex__re_maker *m, uint32_t lo, uint32_t hi,
                                     unsigned flags) {
  size_t rows = (flags & SWEREX__RE_ASCII) != 0 ? 1 : SWEREX__SYS_COUNT(swerex__re_cases);
  swerex__re_range range = {lo, hi};
  if (!swerex__re_set_add(m, lo, hi)) return false;
  if ((flags & SWEREX__RE_IGNORECASE) == 0 || hi < 'A') return true;
  for (size_t row = 0; row < rows; row++)
    if (!swerex__re_set_add_row(m, row, false, range, rows) ||
        !swerex__re_set_add_row(m, row, true, range, rows))
      return false;
  return true;
}

/** Add what \d, \S, ... stand for. */
static bool swerex__re_set_add_category(swerex__re_maker *m, char letter, unsigned flags) {
  size_t i = 0;
  while (swerex__re_categories[i].name != (letter | 0x20)) i++;
  bool ascii = (flags & SWEREX__RE_ASCII) != 0, negated = (letter & 0x20) == 0;
  const swerex__re_range *rows = swerex__re_categories[i].unicode;
  size_t count = swerex__re_categories[i].unicode_count;
  uint32_t next = 0;
  if (ascii) {
    rows = swerex__re_categories[i].ascii;
    count = swerex__re_categories[i].ascii_count;
  }
  for (size_t k = 0; k < count; k++) {
    uint32_t lo = negated ? next : rows[k].lo, hi = negated ? rows[k].lo - 1 : rows[k].hi;
    if (!swerex__re_set_add(m, lo, hi)) return false;
    next = rows[k].hi + 1;
  }
  return !negated || swerex__re_set_add(m, next, SWEREX__RE_LAST);
}

/** Make the class that was read into a node. */
static bool swerex__re_set_finish(swerex__re_maker *m, bool negated, uint32_t *node) {
  swerex__re *re = m->re;
  void *classes = re->classes, *ranges = re->ranges;
  uint32_t next = 0;
  if (!negated && m->set_count == 1 && m->set[0].lo == m->set[0].hi)
    return (*node = swerex__re_node_new(m, SWEREX__RE_CHAR, m->set[0].lo)) != SWEREX__RE_NONE;
  if (re->range_count + m->set_count >= 8 * SWEREX__RE_SIZE) return swerex__re_fail_size(m);
  if (!swerex__mem_reserve(m->allocator, &classes, &re->class_room, re->class_count,
                           sizeof *re->classes))
    return swerex__re_fail_memory(m);
  re->classes = (swerex__re_class *)classes;
  swerex__re_class *made = &re->classes[re->class_count];
  memset(made, 0, sizeof *made);
  made->first = (uint32_t)re->range_count;
  for (size_t i = 0; i < m->set_count + negated; i++) {
    swerex__re_range row = {next, SWEREX__RE_LAST};
    if (!negated)
      row = m->set[i];
    else if (i < m->set_count)
      row.hi = m->set[i].lo - 1;
    if (i < m->set_count) next = m->set[i].hi + 1;
    if (negated && (row.lo > SWEREX__RE_LAST || row.hi + 1 <= row.lo)) continue;
    if (!swerex__mem_reserve(m->allocator, &ranges, &re->range_room, re->range_count, sizeof row))
      return swerex__re_fail_memory(m);
    re->ranges = (swerex__re_range *)ranges;
    re->ranges[re->range_count++] = row;
    for (uint32_t c = row.lo; c <= row.hi && c < 128; c++) made->ascii[c >> 5] |= 1U << (c & 31);
  }
  made->count = (uint32_t)re->range_count - made->first;
  *node = swerex__re_node_new(m, SWEREX__RE_CLASS, (uint32_t)re->class_count++);
  return *node != SWEREX__RE_NONE;
}

/** Make the node for one character as it was written. */
static bool swerex__re_literal(swerex__re_maker *m, uint32_t c, unsigned flags, uint32_t *node) {
  m->set_count = 0;
  return swerex__re_set_add_cases(m, c, c, flags) && swerex__re_set_finish(m, false, node);
}

static bool swerex__re_category(swerex__re_maker *m, char letter, unsigned flags, uint32_t *node) {
  m->set_count = 0;
  return swerex__re_set_add_category(m, letter, flags) && swerex__re_set_finish(m, false, node);
}

/** Read `count` hexadecimal digits of an escape that began at `from`. */
static bool swerex__re_hex(swerex__re_maker *m, size_t from, int count, uint32_t *c) {
  uint32_t value = 0;
  for (; count > 0 && m->at < m->size; count--, m->at++) {
    uint32_t digit = m->text[m->at];
    if (digit - '0' < 10U)
      digit -= '0';
    else if (swerex__re_is_letter(digit) && (digit | 0x20) <= 'f')
      digit = (digit | 0x20) - 'a' + 10;
    else
      break;
    value = value << 4 | digit;
  }
  if (count > 0) return swerex__re_fail_with(m, from, "incomplete escape ", from, m->at, "");
  if (value > 0x10FFFF) return swerex__re_fail_with(m, from, "bad escape ", from, m->at, "");
  *c = value;
  return true;
}

/** Read up to three octal digits of an escape that began at `from`. */
static bool swerex__re_octal(swerex__re_maker *m, size_t from, uint32_t *c) {
  uint32_t value = 0;
  m->at = from + 1;
  for (int i = 0; i < 3 && swerex__re_peek(m) - '0' < 8U; i++)
    value = value * 8 + (m->text[m->at++] - '0');
  if (value > 0xFF)
    return swerex__re_fail_with(m, from, "octal escape value ", from, m->at,
                                " outside of range 0-0o377");
  *c = value;
  return true;
}

/** Read the number of an octal escape; other numbers mean groups. */
static bool swerex__re_number(swerex__re_maker *m, size_t from, uint32_t *c) {
  const uint32_t *digits = m->text + from + 1;
  size_t left = m->size - from - 1;
  bool octal = digits[0] == '0' || (left >= 3 && digits[0] - '0' < 8U && digits[1] - '0' < 8U &&
                                    digits[2] - '0' < 8U);
  if (octal) return swerex__re_octal(m, from, c);
  uint32_t group = digits[0] - '0';
  if (left >= 2 && digits[1] - '0' < 10U) group = group * 10 + (digits[1] - '0');
  if (group <= m->groups) return swerex__re_unsupported(m, from, "back references are");
  return swerex__re_fail(m, from + 1, "invalid group reference %u", (unsigned)group);
}

/**
 * Read the escape at m->at - 1, behind whose backslash we are. Either *category is set to the
 * letter of a category, a position or boundary, or it is 0 and *c is the character.
 */
static bool swerex__re_escape(swerex__re_maker *m, bool in_class, char *category, uint32_t *c) {
  static const char simple[] = "a\ab\bf\fn\nr\rt\tv\v";
  size_t from = m->at - 1;
  *category = 0;
  if (m->at == m->size) return swerex__re_fail(m, from, "bad escape (end of pattern)");
  uint32_t letter = m->text[m->at++];
  *c = letter;
  if (letter - '0' < 10U) {
    if (!in_class) return swerex__re_number(m, from, c);
    if (letter < '8') return swerex__re_octal(m, from, c);
    return swerex__re_fail(m, from, "bad escape \\%c", (int)letter);
  }
  if (!swerex__re_is_letter(letter)) return true;
  if (swerex__re_one_of(letter, in_class ? "dDsSwW" : "dDsSwWAbBZ")) {
    *category = (char)letter;
    return true;
  }
  for (size_t i = 0; simple[i] != '\0'; i += 2) {
    *c = (uint32_t)simple[i + 1];
    if ((uint32_t)simple[i] == letter) return true;
  }
  if (letter == 'x') return swerex__re_hex(m, from, 2, c);
  if (letter == 'u') return swerex__re_hex(m, from, 4, c);
  if (letter == 'U') return swerex__re_hex(m, from, 8, c);
  if (letter == 'N') return swerex__re_unsupported(m, from, "the escape \\N is");
  return swerex__re_fail(m, from, "bad escape \\%c", (int)letter);
}

/** Read one member of a class: a character, or a category. */
static bool swerex__re_member(swerex__re_maker *m, char *category, uint32_t *c) {
  *category = 0;
  *c = m->text[m->at++];
  return *c != '\\' || swerex__re_escape(m, true, category, c);
}

/** Read a class, behind whose bracket we are. */
static bool swerex__re_class_read(swerex__re_maker *m, unsigned flags, uint32_t *node) {
  size_t here = m->at - 1;
  bool negated = swerex__re_take(m, '^'), empty = true;
  char category = 0, other = 0;
  uint32_t lo = 0, hi = 0;
  m->set_count = 0;
  for (; empty || swerex__re_peek(m) != ']'; empty = false) {
    size_t from = m->at;
    if (m->at == m->size) return swerex__re_fail(m, here, "unterminated character set");
    if (!swerex__re_member(m, &category, &lo)) return false;
    hi = lo;
    if (swerex__re_peek(m) == '-') {
      m->at++;
      if (m->at == m->size) return swerex__re_fail(m, here, "unterminated character set");
      if (swerex__re_peek(m) == ']') {
        m->at--; /* the hyphen is a member */
      } else {
        if (!swerex__re_member(m, &other, &hi)) return false;
        if (category != 0 || other != 0 || hi < lo)
          return swerex__re_fail_with(m, from, "bad character range ", from, m->at, "");
      }
    }
    bool ok = category != 0 ? swerex__re_set_add_category(m, category, flags)
                            : swerex__re_set_add_cases(m, lo, hi, flags);
    if (!ok) return false;
  }
  m->at++;
  return swerex__re_set_finish(m, negated, node);
}

/** Read an escape outside of a class. */
static bool swerex__re_escape_read(swerex__re_maker *m, unsigned flags, uint32_t *node) {
  char category;
  uint32_t c;
  swerex__re_op op;
  if (!swerex__re_escape(m, false, &category, &c)) return false;
  switch (category) {
    case 0: return swerex__re_literal(m, c, flags, node);
    case 'A': op = SWEREX__RE_BEGIN; break;
    case 'Z': op = SWEREX__RE_END; break;
    case 'b': op = SWEREX__RE_BOUNDARY; break;
    case 'B': op = SWEREX__RE_NOT_BOUNDARY; break;
    default: return swerex__re_category(m, category, flags, node);
  }
  *node = swerex__re_node_new(m, op, (flags & SWEREX__RE_ASCII) != 0);
  return *node != SWEREX__RE_NONE;
}

/** Read the count {m,n}; false: it is none, and the brace stands for itself. */
static bool swerex__re_braces(swerex__re_maker *m, uint32_t *min, uint32_t *max) {
  size_t here = m->at;
  uint32_t counts[2] = {0, 0};
  bool given[2] = {false, false}, comma = false;
  if (swerex__re_peek(m) == '}') return false;
  for (int i = 0; i < 2; i++) {
    while (swerex__re_peek(m) - '0' < 10U) {
      counts[i] = counts[i] * 10 + (m->text[m->at++] - '0');
      if (counts[i] > SWEREX__RE_REPEATS) counts[i] = SWEREX__RE_REPEATS + 1;
      given[i] = true;
    }
    if (i == 0 && !(comma = swerex__re_take(m, ','))) break;
  }
  if (!swerex__re_take(m, '}')) {
    m->at = here;
    return false;
  }
  *min = counts[0];
  *max = !comma ? counts[0] : given[1] ? counts[1] : SWEREX__RE_NONE;
  if (!comma && !given[0]) *max = SWEREX__RE_NONE;
  return true;
}

/** What stands before a quantifier. */
typedef enum swerex__re_item {
  SWEREX__RE_NOTHING,
  SWEREX__RE_POSITION, /* ^, \b, ... */
  SWEREX__RE_ATOM,
  SWEREX__RE_QUANTIFIED
} swerex__re_item;

/** Repeat a node; from is where the quantifier stands, behind which we are. */
static bool swerex__re_repeat(swerex__re_maker *m, size_t from, swerex__re_item before,
                              uint32_t min, uint32_t max, uint32_t *node) {
  if (min > SWEREX__RE_REPEATS || (max > SWEREX__RE_REPEATS && max != SWEREX__RE_NONE))
    return swerex__re_fail(m, from, "the repeat count is over %u", SWEREX__RE_REPEATS);
  if (max < min) return swerex__re_fail(m, from + 1, "min repeat greater than max repeat");
  if (before <= SWEREX__RE_POSITION) return swerex__re_fail(m, from, "nothing to repeat");
  if (before == SWEREX__RE_QUANTIFIED) return swerex__re_fail(m, from, "multiple repeat");
  bool lazy = swerex__re_take(m, '?');
  if (!lazy && swerex__re_peek(m) == '+')
    return swerex__re_unsupported(m, from, "possessive quantifiers are");
  uint32_t child = *node, made = swerex__re_node_new(m, SWEREX__RE_REPEAT, 0);
  if (made == SWEREX__RE_NONE) return false;
  swerex__re_node *repeat = &m->nodes[made];
  repeat->last = child;
  repeat->previous = m->nodes[child].previous;
  m->nodes[child].previous = SWEREX__RE_NONE;
  repeat->min = min;
  repeat->max = max;
  repeat->lazy = lazy;
  repeat->nullable = min == 0 || m->nodes[child].nullable;
  *node = made;
  return true;
}

static unsigned swerex__re_flag_of(uint32_t letter) {
  static const char letters[] = "imsxau"; /* in the order of the flags */
  const char *found = swerex__re_one_of(letter, letters) ? strchr(letters, (int)letter) : NULL;
  return found == NULL ? 0 : 1U << (found - letters);
}

/** Read flag letters up to a character of `stops`; missing says what else may stand there. */
static bool swerex__re_letters(swerex__re_maker *m, const char *stops, const char *missing,
                               unsigned *flags) {
  const unsigned kinds = SWEREX__RE_ASCII | SWEREX__RE_UNICODE;
  for (*flags = 0;; m->at++) {
    uint32_t c = swerex__re_peek(m);
    if (c == SWEREX__RE_NONE)
      return swerex__re_fail(m, m->at, "%s", *flags == 0 ? "missing flag" : missing);
    if (*flags != 0 && swerex__re_one_of(c, stops)) return true;
    unsigned flag = swerex__re_flag_of(c);
    if (c == 'L')
      return swerex__re_fail(m, m->at + 1,
                             "bad inline flags: cannot use 'L' flag with a str pattern");
    if (flag == 0) {
      bool letter = swerex__re_is_letter(c) || (c >= 0x80 && swerex__re_is_word(c, false));
      return swerex__re_fail(m, m->at, "%s",
                             letter ? "unknown flag" : *flags == 0 ? "missing flag" : missing);
    }
    *flags |= flag;
    if ((flag & kinds) != 0 && (*flags & kinds) != flag)
      return swerex__re_fail(m, m->at + 1,
                             "bad inline flags: flags 'a', 'u' and 'L' are incompatible");
  }
}

/** Read the flags of (?i) or (?i-s:...); *global tells which of the two it was. */
static bool swerex__re_flags(swerex__re_maker *m, unsigned *flags, bool *global) {
  const unsigned kinds = SWEREX__RE_ASCII | SWEREX__RE_UNICODE;
  unsigned on = 0, off = 0;
  if (swerex__re_peek(m) != '-' && !swerex__re_letters(m, ")-:", "missing -, : or )", &on))
    return false;
  *global = swerex__re_take(m, ')');
  if (!*global && swerex__re_take(m, '-')) {
    if (!swerex__re_letters(m, ":", "missing :", &off)) return false;
    if ((off & kinds) != 0)
      return swerex__re_fail(m, m->at,
                             "bad inline flags: cannot turn off flags 'a', 'u' and 'L'");
  }
  if (!*global) m->at++;
  if ((on & off) != 0)
    return swerex__re_fail(m, m->at - 1, "bad inline flags: flag turned on and off");
  if ((on & kinds) != 0) *flags &= ~kinds;
  *flags = (*flags | on) & ~off;
  return true;
}

/** Read a group's name up to `stop`; its characters are those from *from to m->at - 1. */
static bool swerex__re_name_read(swerex__re_maker *m, uint32_t stop, size_t *from) {
  *from = m->at;
  while (m->at < m->size && m->text[m->at] != stop) m->at++;
  if (m->at == *from) return swerex__re_fail(m, *from, "missing group name");
  if (m->at == m->size)
    return swerex__re_fail(m, *from, "missing %c, unterminated name", (int)stop);
  for (size_t i = *from; i < m->at; i++) {
    uint32_t c = m->text[i];
    if (!swerex__re_is_word(c, false) || (i == *from && c - '0' < 10U))
      return swerex__re_fail_with(m, *from, "bad character in group name '", *from, m->at, "'");
  }
  m->at++;
  return true;
}

/** Return the group of the name at `from`, of which m->at is behind the end; 0: none. */
static uint32_t swerex__re_name_find(const swerex__re_maker *m, size_t from) {
  size_t size = m->at - 1 - from;
  for (size_t i = 0; i < m->name_count; i++)
    if (m->names[i].size == size &&
        memcmp(m->text + m->names[i].at, m->text + from, size * sizeof *m->text) == 0)
      return m->names[i].group;
  return 0;
}

/** Read what follows (?P: a name to remember, or one to refer to. */
static bool swerex__re_named(swerex__re_maker *m) {
  size_t start = m->at - 3, from;
  char what[64];
  if (swerex__re_take(m, '=')) {
    if (!swerex__re_name_read(m, ')', &from)) return false;
    if (swerex__re_name_find(m, from) != 0)
      return swerex__re_unsupported(m, start, "back references are");
    return swerex__re_fail_with(m, from, "unknown group name '", from, m->at - 1, "'");
  }
  if (!swerex__re_take(m, '<')) {
    if (m->at == m->size) return swerex__re_fail(m, m->at, "unexpected end of pattern");
    return swerex__re_fail_with(m, start + 1, "unknown extension ", start + 1, m->at + 1, "");
  }
  if (!swerex__re_name_read(m, '>', &from)) return false;
  uint32_t group = swerex__re_name_find(m, from);
  if (group != 0) {
    snprintf(what, sizeof what, "' as group %u; was group %u", (unsigned)m->groups + 1,
             (unsigned)group);
    return swerex__re_fail_with(m, from, "redefinition of group name '", from, m->at - 1, what);
  }
  void *names = m->names;
  if (!swerex__mem_reserve(m->allocator, &names, &m->name_room, m->name_count, sizeof *m->names))
    return swerex__re_fail_memory(m);
  m->names = (swerex__re_name *)names;
  m->names[m->name_count].at = from;
  m->names[m->name_count].size = m->at - 1 - from;
  m->names[m->name_count++].group = m->groups + 1;
  return true;
}

/** Read what follows (? where it is no flag; *capture: it is a group with a number. */
static bool swerex__re_extension(swerex__re_maker *m, bool *capture, bool *comment) {
  size_t start = m->at - 2;
  uint32_t c = m->text[m->at++];
  *capture = c == 'P';
  if (c == 'P') return swerex__re_named(m);
  if (c == ':') return true;
  if (c == '=' || c == '!') return swerex__re_unsupported(m, start, "lookahead is");
  if (c == '>') return swerex__re_unsupported(m, start, "atomic groups are");
  if (c == '(') return swerex__re_unsupported(m, start, "conditional groups are");
  if (c == '<') {
    c = swerex__re_peek(m);
    if (c == '=' || c == '!') return swerex__re_unsupported(m, start, "lookbehind is");
    if (c == SWEREX__RE_NONE) return swerex__re_fail(m, m->at, "unexpected end of pattern");
    m->at++;
  }
  if (c != '#')
    return swerex__re_fail_with(m, start + 1, "unknown extension ", start + 1, m->at, "");
  *comment = true;
  while (m->at < m->size && m->text[m->at] != ')') m->at++;
  if (m->at == m->size) return swerex__re_fail(m, start, "missing ), unterminated comment");
  m->at++;
  return true;
}

static bool swerex__re_either(swerex__re_maker *m, unsigned flags, uint32_t *node);

/**
 * Read a group, behind whose parenthesis we are; *node is NONE when it has no content. first: it
 * stands at the start of the pattern, where flags may be set for all of it.
 */
static bool swerex__re_group(swerex__re_maker *m, unsigned *flags, bool first, uint32_t *node) {
  size_t start = m->at - 1;
  unsigned inside = *flags;
  bool capture = true, comment = false, global = false;
  *node = SWEREX__RE_NONE;
  if (swerex__re_take(m, '?')) {
    uint32_t c = swerex__re_peek(m);
    if (c == SWEREX__RE_NONE) return swerex__re_fail(m, m->at, "unexpected end of pattern");
    if (c == '-' || c == 'L' || swerex__re_flag_of(c) != 0) {
      capture = false;
      if (!swerex__re_flags(m, &inside, &global)) return false;
    } else if (!swerex__re_extension(m, &capture, &comment)) {
      return false;
    }
  }
  if (comment) return true;
  if (global) {
    if (!first)
      return swerex__re_fail(m, start, "global flags not at the start of the expression");
    *flags = inside;
    return true;
  }
  if (capture) m->groups++;
  if (++m->depth > SWEREX__RE_DEPTH)
    return swerex__re_fail(m, start, "groups are nested more than %d deep", SWEREX__RE_DEPTH);
  if (!swerex__re_either(m, inside, node)) return false;
  m->depth--;
  if (!swerex__re_take(m, ')'))
    return swerex__re_fail(m, start, "missing ), unterminated subpattern");
  return true;
}

/** Step over white space and comments, where they do not count. */
static void swerex__re_skip_verbose(swerex__re_maker *m) {
  for (; m->at < m->size; m->at++) {
    if (m->text[m->at] == '#')
      while (m->at + 1 < m->size && m->text[m->at] != '\n') m->at++;
    else if (!swerex__re_one_of(m->text[m->at], " \t\n\r\v\f"))
      return;
  }
}

/** Read an item that is no quantifier, whose first character c we are behind. */
static bool swerex__re_atom(swerex__re_maker *m, uint32_t c, unsigned flags, uint32_t *node) {
  bool lines = (flags & SWEREX__RE_MULTILINE) != 0;
  switch (c) {
    case '\\': return swerex__re_escape_read(m, flags, node);
    case '[': return swerex__re_class_read(m, flags, node);
    case '.':
      m->set_count = 0;
      if ((flags & SWEREX__RE_DOTALL) == 0)
        return swerex__re_set_add(m, '\n', '\n') && swerex__re_set_finish(m, true, node);
      *node = swerex__re_node_new(m, SWEREX__RE_ANY, 0);
      break;
    case '^':
      *node = swerex__re_node_new(m, lines ? SWEREX__RE_BEGIN_LINE : SWEREX__RE_BEGIN, 0);
      break;
    case '$':
      *node = swerex__re_node_new(m, lines ? SWEREX__RE_END_LINE : SWEREX__RE_END_DATA, 0);
      break;
    default: return swerex__re_literal(m, c, flags, node);
  }
  return *node != SWEREX__RE_NONE;
}

/** Read items up to the end, a bar or a closing parenthesis. */
static bool swerex__re_branch(swerex__re_maker *m, unsigned *flags, bool first, uint32_t *node) {
  swerex__re_item before = SWEREX__RE_NOTHING;
  uint32_t all = swerex__re_node_new(m, SWEREX__RE_ALL, 0), last = SWEREX__RE_NONE;
  if (all == SWEREX__RE_NONE) return false;
  for (;;) {
    uint32_t made = SWEREX__RE_NONE, min = 0, max = SWEREX__RE_NONE;
    if ((*flags & SWEREX__RE_VERBOSE) != 0) swerex__re_skip_verbose(m);
    uint32_t c = swerex__re_peek(m);
    if (c == SWEREX__RE_NONE || c == '|' || c == ')') break;
    size_t from = m->at++;
    if (c == '?') max = 1;
    if (c == '+') min = 1;
    if (c == '*' || c == '?' || c == '+' || (c == '{' && swerex__re_braces(m, &min, &max))) {
      if (!swerex__re_repeat(m, from, before, min, max, &last)) return false;
      before = SWEREX__RE_QUANTIFIED;
      continue;
    }
    if (c == '(') {
      if (!swerex__re_group(m, flags, first && last == SWEREX__RE_NONE, &made)) return false;
      if (made == SWEREX__RE_NONE) continue;
      before = SWEREX__RE_ATOM;
    } else {
      if (!swerex__re_atom(m, c, *flags, &made)) return false;
      before = m->nodes[made].nullable ? SWEREX__RE_POSITION : SWEREX__RE_ATOM;
    }
    m->nodes[made].previous = last;
    last = made;
  }
  m->nodes[all].last = last;
  for (uint32_t i = last; i != SWEREX__RE_NONE; i = m->nodes[i].previous)
    if (!m->nodes[i].nullable) m->nodes[all].nullable = false;
  *node = all;
  return true;
}

/** Read branches with bars between them. */
static bool swerex__re_either(swerex__re_maker *m, unsigned flags, uint32_t *node) {
  uint32_t either = SWEREX__RE_NONE, last = SWEREX__RE_NONE, made;
  for (bool first = m->depth == 0;; first = false) {
    if (!swerex__re_branch(m, &flags, first, &made)) return false;
    m->nodes[made].previous = last;
    last = made;
    if (!swerex__re_take(m, '|')) break;
    if (either == SWEREX__RE_NONE) either = swerex__re_node_new(m, SWEREX__RE_EITHER, 0);
    if (either == SWEREX__RE_NONE) return false;
  }
  *node = last;
  if (either == SWEREX__RE_NONE) return true;
  m->nodes[either].last = last;
  m->nodes[either].nullable = false;
  for (uint32_t i = last; i != SWEREX__RE_NONE; i = m->nodes[i].previous)
    if (m->nodes[i].nullable) m->nodes[either].nullable = true;
  *node = either;
  return true;
}

/* --- making the program ---------------------------------------------------------------------- */

/** Add an instruction; returns NONE on failure. */
static uint32_t swerex__re_emit(swerex__re_maker *m, swerex__re_op op, uint32_t arg,
                                uint32_t next) {
  swerex__re *re = m->re;
  void *code = re->code;
  if (m->failed) return SWEREX__RE_NONE;
  if (re->code_count == SWEREX__RE_SIZE) {
    swerex__re_fail_size(m);
    return SWEREX__RE_NONE;
  }
  if (!swerex__mem_reserve(m->allocator, &code, &re->code_room, re->code_count,
                           sizeof *re->code)) {
    swerex__re_fail_memory(m);
    return SWEREX__RE_NONE;
  }
  re->code = (swerex__re_code *)code;
  re->code[re->code_count].op = op;
  re->code[re->code_count].arg = arg;
  re->code[re->code_count].next = next;
  return (uint32_t)re->code_count++;
}

/** Add a choice between going on with a loop's body and leaving it. */
static uint32_t swerex__re_emit_choice(swerex__re_maker *m, bool lazy, uint32_t body,
                                       uint32_t leave) {
  if (lazy) return swerex__re_emit(m, SWEREX__RE_SPLIT, body, leave);
  return swerex__re_emit(m, SWEREX__RE_SPLIT, leave, body);
}

static uint32_t swerex__re_make(swerex__re_maker *m, uint32_t node, uint32_t next);

/**
 * Make what a node stands for inside of a loop's turn that has not moved yet. Where it still has
 * not moved at its end, it goes on at `still`, else at `moved`.
 */
static uint32_t swerex__re_make_still(swerex__re_maker *m, uint32_t node, uint32_t still,
                                      uint32_t moved);

/** Make one turn of a loop, which leaves when the turn has not moved. */
static uint32_t swerex__re_make_turn(swerex__re_maker *m, uint32_t child, uint32_t leave,
                                     uint32_t again) {
  if (m->nodes[child].nullable) return swerex__re_make_still(m, child, leave, again);
  return swerex__re_make(m, child, again);
}

/** Make the part of a loop in which it may be left; *body is its first turn. */
static uint32_t swerex__re_make_loop(swerex__re_maker *m, uint32_t node, uint32_t next,
                                     uint32_t *body) {
  swerex__re_node loop = m->nodes[node];
  uint32_t entry = next;
  if (loop.max != SWEREX__RE_NONE) {
    for (uint32_t i = loop.min; i < loop.max && !m->failed; i++)
      entry = swerex__re_emit_choice(
        m, loop.lazy, swerex__re_make_turn(m, loop.last, next, entry), next);
    return entry;
  }
  entry = swerex__re_emit(m, SWEREX__RE_SPLIT, next, next);
  if (m->failed) return SWEREX__RE_NONE;
  *body = swerex__re_make_turn(m, loop.last, next, entry);
  if (m->failed) return SWEREX__RE_NONE;
  if (loop.lazy)
    m->re->code[entry].arg = *body;
  else
    m->re->code[entry].next = *body;
  return entry;
}

static uint32_t swerex__re_make_repeat(swerex__re_maker *m, uint32_t node, uint32_t next) {
  swerex__re_node loop = m->nodes[node];
  uint32_t body = SWEREX__RE_NONE, entry = swerex__re_make_loop(m, node, next, &body);
  uint32_t turns = loop.min;
  if (loop.max == SWEREX__RE_NONE && turns > 0 && !m->nodes[loop.last].nullable) {
    entry = body; /* x+ needs no second copy of x */
    turns--;
  }
  for (; turns > 0 && !m->failed; turns--) entry = swerex__re_make(m, loop.last, entry);
  return entry;
}

/** Make the instructions for a node, and return the first; then comes `next`. */
static uint32_t swerex__re_make(swerex__re_maker *m, uint32_t node, uint32_t next) {
  swerex__re_node part = m->nodes[node];
  uint32_t entry = next;
  if (++m->work > SWEREX__RE_WORK) swerex__re_fail_size(m);
  if (m->failed) return SWEREX__RE_NONE;
  switch (part.op) {
    case SWEREX__RE_ALL:
      for (uint32_t i = part.last; i != SWEREX__RE_NONE && !m->failed; i = m->nodes[i].previous)
        entry = swerex__re_make(m, i, entry);
      return entry;
    case SWEREX__RE_EITHER:
      entry = swerex__re_make(m, part.last, next);
      for (uint32_t i = m->nodes[part.last].previous; i != SWEREX__RE_NONE && !m->failed;
           i = m->nodes[i].previous)
        entry = swerex__re_emit(m, SWEREX__RE_SPLIT, entry, swerex__re_make(m, i, next));
      return entry;
    case SWEREX__RE_REPEAT: return swerex__re_make_repeat(m, node, next);
    default: return swerex__re_emit(m, part.op, part.arg, next);
  }
}

static uint32_t swerex__re_make_still_repeat(swerex__re_maker *m, uint32_t node, uint32_t still,
                                             uint32_t moved) {
  swerex__re_node loop = m->nodes[node];
  uint32_t body = SWEREX__RE_NONE, again = moved;
  uint32_t entry = still, entry_moved = moved;
  if (loop.max != loop.min) {
    swerex__re_node saved = loop;
    if (loop.max != SWEREX__RE_NONE) m->nodes[node].max--; /* all turns but the first */
    again = swerex__re_make_loop(m, node, moved, &body);
    m->nodes[node] = saved;
    entry = swerex__re_emit_choice(
      m, loop.lazy, swerex__re_make_still(m, loop.last, still, again), still);
    entry_moved = again;
    if (loop.max != SWEREX__RE_NONE && loop.min > 0 && !m->failed)
      entry_moved = swerex__re_emit_choice(
        m, loop.lazy, swerex__re_make_turn(m, loop.last, moved, again), moved);
  }
  for (uint32_t i = 0; i < loop.min && !m->failed; i++) {
    entry = swerex__re_make_still(m, loop.last, entry, entry_moved);
    if (i + 1 < loop.min) entry_moved = swerex__re_make(m, loop.last, entry_moved);
  }
  return entry;
}

static uint32_t swerex__re_make_still(swerex__re_maker *m, uint32_t node, uint32_t still,
                                      uint32_t moved) {
  swerex__re_node part = m->nodes[node];
  uint32_t entry = still, entry_moved = moved;
  if (!part.nullable) return swerex__re_make(m, node, moved);
  if (++m->work > SWEREX__RE_WORK) swerex__re_fail_size(m);
  if (m->failed) return SWEREX__RE_NONE;
  switch (part.op) {
    case SWEREX__RE_ALL:
      for (uint32_t i = part.last; i != SWEREX__RE_NONE && !m->failed; i = m->nodes[i].previous) {
        entry = swerex__re_make_still(m, i, entry, entry_moved);
        if (m->nodes[i].previous != SWEREX__RE_NONE)
          entry_moved = swerex__re_make(m, i, entry_moved);
      }
      return entry;
    case SWEREX__RE_EITHER:
      entry = swerex__re_make_still(m, part.last, still, moved);
      for (uint32_t i = m->nodes[part.last].previous; i != SWEREX__RE_NONE && !m->failed;
           i = m->nodes[i].previous)
        entry = swerex__re_emit(m, SWEREX__RE_SPLIT, entry,
                                swerex__re_make_still(m, i, still, moved));
      return entry;
    case SWEREX__RE_REPEAT: return swerex__re_make_still_repeat(m, node, still, moved);
    default: return swerex__re_emit(m, part.op, part.arg, still);
  }
}

/** Note with which bytes a match may start, and what the program must know of its place. */
static void swerex__re_find_first(swerex__re *re) {
  size_t depth = 0;
  bool all = false, high = false;
  uint32_t at = re->start;
  for (size_t i = 0; i < re->code_count; i++) {
    swerex__re_op op = re->code[i].op;
    if (op == SWEREX__RE_BOUNDARY || op == SWEREX__RE_NOT_BOUNDARY || op == SWEREX__RE_BEGIN_LINE)
      re->looks_back = true;
    if (op == SWEREX__RE_END_DATA) re->looks_end = true;
  }
  for (;;) {
    const swerex__re_code *in = &re->code[at];
    bool visited = re->seen[at] != 0;
    re->seen[at] = 1;
    if (!visited && in->op == SWEREX__RE_CHAR) re->first[swerex__re_lead(in->arg)] = true;
    if (!visited && in->op == SWEREX__RE_CLASS)
      for (uint32_t i = 0; i < re->classes[in->arg].count; i++) {
        const swerex__re_range *row = &re->ranges[re->classes[in->arg].first + i];
        for (uint32_t c = row->lo; c <= row->hi && c < 128; c++) re->first[c] = true;
        if (row->hi >= 128) high = true;
      }
    if (!visited && (in->op == SWEREX__RE_ANY || in->op == SWEREX__RE_MATCH)) all = true;
    if (!visited && in->op >= SWEREX__RE_BEGIN && in->op <= SWEREX__RE_SPLIT) {
      if (in->op == SWEREX__RE_SPLIT) re->stack[depth++] = in->arg;
      at = in->next;
      continue;
    }
    if (depth == 0) break;
    at = re->stack[--depth];
  }
  int count = 0;
  for (size_t b = 128; b < 256; b++) high = high || re->first[b];
  for (size_t b = 0; b < 256; b++) {
    /* Stopping at each byte that is not ASCII, or at none, keeps to whole characters. */
    re->first[b] = re->first[b] || all || (high && b >= 128);
    if (!re->first[b]) continue;
    re->only = (int)b;
    count++;
  }
  if (count != 1) re->only = -1;
}

/** Take the memory that the threads need, once the program is known. */
static bool swerex__re_equip(swerex__re *re, const swerex_allocator *allocator) {
  size_t leaves = 1;
  for (size_t i = 0; i < re->code_count; i++) leaves += re->code[i].op <= SWEREX__RE_CLASS;
  swerex__re_thread *threads =
    (swerex__re_thread *)swerex__mem_new(allocator, 3 * leaves, sizeof *threads);
  if (threads == NULL) return false;
  re->threads = re->now.list = threads;
  re->next.list = threads + leaves;
  re->spare.list = threads + 2 * leaves;
  re->seen = (uint32_t *)swerex__mem_new(allocator, 2 * re->code_count + 1, sizeof *re->seen);
  if (re->seen == NULL) return false;
  re->stack = re->seen + re->code_count;
  return true;
}

/** Tell whether the pattern's expression is nothing but its own text. */
static bool swerex__re_is_plain(const swerex__re_maker *m) {
  for (size_t i = 0; i < m->size; i++)
    if (swerex__re_one_of(m->text[i], "\\.^$*+?{[|()")) return false;
  return m->size > 0;
}

/** Set m->text to a pattern's characters. */
static bool swerex__re_load(swerex__re_maker *m, const char *pattern) {
  const uint8_t *data = (const uint8_t *)pattern;
  size_t size = strlen(pattern), at = 0;
  m->pattern = pattern;
  m->size = m->at = m->node_count = m->name_count = 0;
  m->groups = 0;
  m->depth = 0;
  if (size > 4 * SWEREX__RE_SIZE) return swerex__re_fail_size(m);
  uint32_t *text = (uint32_t *)swerex__mem_grow(m->allocator, m->text, size + 1, sizeof *text);
  if (text == NULL) return swerex__re_fail_memory(m);
  m->text = text;
  while (at < size) {
    size_t step = swerex__re_decode(data + at, size - at, &text[m->size++]);
    at += step == 0 ? 1 : step;
  }
  return m->size <= SWEREX__RE_SIZE || swerex__re_fail_size(m);
}

/** Put a part of the program behind the others, in order of preference. */
static void swerex__re_append(swerex__re_maker *m, uint32_t part) {
  if (m->failed) return;
  if (m->re->start == SWEREX__RE_NONE) {
    m->re->start = part;
    return;
  }
  uint32_t last = m->choice == SWEREX__RE_NONE ? m->re->start : m->re->code[m->choice].arg;
  uint32_t choice = swerex__re_emit(m, SWEREX__RE_SPLIT, part, last);
  if (choice == SWEREX__RE_NONE) return;
  if (m->choice == SWEREX__RE_NONE)
    m->re->start = choice;
  else
    m->re->code[m->choice].arg = choice;
  m->choice = choice;
}

/** Add a pattern's two readings to the program: as text, and as an expression. */
static void swerex__re_add(swerex__re_maker *m, const char *pattern, size_t index) {
  uint32_t node, match, literal;
  if (!swerex__re_load(m, pattern)) return;
  if (!swerex__re_either(m, SWEREX__RE_DOTALL, &node)) return;
  if (m->at < m->size) {
    swerex__re_fail(m, m->at, "unbalanced parenthesis");
    return;
  }
  match = literal = swerex__re_emit(m, SWEREX__RE_MATCH, (uint32_t)index, 0);
  for (size_t i = m->size; i > 0 && !m->failed; i--)
    literal = swerex__re_emit(m, SWEREX__RE_CHAR, m->text[i - 1], literal);
  if (literal != match) swerex__re_append(m, literal);
  if (!swerex__re_is_plain(m)) swerex__re_append(m, swerex__re_make(m, node, match));
}

/** Put a failure into words. */
static void swerex__re_explain(const swerex__re_maker *m, swerex_error *err) {
  if (m->reason[0] == '\0') {
    swerex__err_memory(err);
    return;
  }
  size_t size = strlen(m->pattern), shown = size;
  if (size > SWEREX__RE_SHOWN) {
    shown = SWEREX__RE_SHOWN;
    while (shown > SWEREX__RE_SHOWN - 4 && (m->pattern[shown] & 0xC0) == 0x80) shown--;
  }
  swerex__err_set(err, SWEREX_E_PATTERN,
                  "expect pattern '%.*s%s': %s at position %zu; escape it to match it literally",
                  (int)shown, m->pattern, shown < size ? "..." : "", m->reason, m->fault_at);
}

static void swerex__re_free(swerex__re *re) {
  if (re == NULL) return;
  swerex__mem_free(re->code);
  swerex__mem_free(re->ranges);
  swerex__mem_free(re->classes);
  swerex__mem_free(re->seen);
  swerex__mem_free(re->threads);
  swerex__mem_free(re);
}

/** Start with a new stream. */
static void swerex__re_reset(swerex__re *re) {
  re->now.count = 0;
  re->before = SWEREX__RE_NONE;
  re->offset = 0;
  re->carried = 0;
  re->found = false;
}

/** Make a matcher for a list that ends with NULL (NULL: an empty one); NULL on failure. */
static swerex__re *swerex__re_new(const swerex_allocator *allocator, const char *const *patterns,
                                  swerex_error *err) {
  swerex__re_maker maker, *m = &maker;
  memset(m, 0, sizeof *m);
  m->allocator = allocator;
  m->re = (swerex__re *)swerex__mem_new(allocator, 1, sizeof *m->re);
  if (m->re == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  m->re->start = SWEREX__RE_NONE;
  m->choice = SWEREX__RE_NONE;
  for (size_t i = 0; patterns != NULL && patterns[i] != NULL && !m->failed; i++)
    swerex__re_add(m, patterns[i], i);
  if (!m->failed && !swerex__re_equip(m->re, allocator)) swerex__re_fail_memory(m);
  if (!m->failed && m->re->start != SWEREX__RE_NONE) swerex__re_find_first(m->re);
  swerex__mem_free(m->text);
  swerex__mem_free(m->nodes);
  swerex__mem_free(m->set);
  swerex__mem_free(m->names);
  if (m->failed) {
    swerex__re_explain(m, err);
    swerex__re_free(m->re);
    return NULL;
  }
  m->re->round = 1;
  swerex__re_reset(m->re);
  return m->re;
}

/* --- running it ------------------------------------------------------------------------------ */

static bool swerex__re_holds(const swerex__re_code *in, const swerex__re_look *look) {
  uint32_t before = look->before, after = look->after;
  switch (in->op) {
    case SWEREX__RE_BEGIN: return before == SWEREX__RE_NONE;
    case SWEREX__RE_BEGIN_LINE: return before == SWEREX__RE_NONE || before == '\n';
    case SWEREX__RE_END: return after == SWEREX__RE_NONE;
    case SWEREX__RE_END_DATA: return after == SWEREX__RE_NONE || look->last;
    case SWEREX__RE_END_LINE: return after == SWEREX__RE_NONE || after == '\n';
    default: break;
  }
  if (before == SWEREX__RE_NONE && after == SWEREX__RE_NONE) return false;
  bool same = swerex__re_is_word(before, in->arg != 0) == swerex__re_is_word(after, in->arg != 0);
  return same == (in->op == SWEREX__RE_NOT_BOUNDARY);
}

static bool swerex__re_class_has(const swerex__re *re, uint32_t index, uint32_t c) {
  const swerex__re_class *set = &re->classes[index];
  if (c < 128) return (set->ascii[c >> 5] >> (c & 31) & 1) != 0;
  return set->count > 0 && swerex__re_in(re->ranges + set->first, set->count, c);
}

/** Follow a thread over one character; true: it has matched before that. */
static bool swerex__re_follow(swerex__re *re, swerex__re_thread thread, swerex__re_threads *to,
                              const swerex__re_look *look) {
  size_t depth = 0;
  uint32_t at = thread.at;
  for (;;) {
    const swerex__re_code *in = &re->code[at];
    if (re->seen[at] != re->round) {
      bool moves = false;
      re->seen[at] = re->round;
      switch (in->op) {
        case SWEREX__RE_CHAR: moves = in->arg == look->after; break;
        case SWEREX__RE_ANY: moves = look->after != SWEREX__RE_NONE; break;
        case SWEREX__RE_CLASS: moves = swerex__re_class_has(re, in->arg, look->after); break;
        case SWEREX__RE_MATCH:
          re->match.pattern = in->arg;
          re->match.start = thread.start;
          re->match.end = look->offset;
          re->found = true;
          return true;
        case SWEREX__RE_SPLIT:
          re->stack[depth++] = in->arg;
          at = in->next;
          continue;
        default:
          if (!swerex__re_holds(in, look)) break;
          at = in->next;
          continue;
      }
      if (moves) {
        to->list[to->count].at = in->next;
        to->list[to->count++].start = thread.start;
      }
    }
    if (depth == 0) return false;
    at = re->stack[--depth];
  }
}

/** Move all threads over one character. Those behind one that has matched are given up. */
static void swerex__re_step(swerex__re *re, const swerex__re_threads *from,
                            swerex__re_threads *to, const swerex__re_look *look) {
  to->count = 0;
  if (++re->round == 0) {
    memset(re->seen, 0, re->code_count * sizeof *re->seen);
    re->round = 1;
  }
  for (size_t i = 0; i < from->count; i++)
    if (swerex__re_follow(re, from->list[i], to, look)) return;
  if (re->found || !look->start) return;
  swerex__re_thread fresh = {re->start, look->offset};
  swerex__re_follow(re, fresh, to, look);
}

/** Move on over a character of `size` bytes. */
static void swerex__re_advance(swerex__re *re, uint32_t c, size_t size, bool start) {
  swerex__re_look look = {re->before, c, false, start, re->offset};
  swerex__re_threads done = re->now;
  swerex__re_step(re, &re->now, &re->next, &look);
  re->now = re->next;
  re->next = done;
  re->before = c;
  re->offset += size;
}

/** Find the next byte with which a match may start. */
static size_t swerex__re_skip(const swerex__re *re, const uint8_t *data, size_t at, size_t size) {
  if (re->only < 0) {
    while (at < size && !re->first[data[at]]) at++;
    return at;
  }
  const uint8_t *found = (const uint8_t *)memchr(data + at, re->only, size - at);
  return found == NULL ? size : (size_t)(found - data);
}

/** Move on over whole characters from `at` to `size`, of `total` bytes that are there. */
static void swerex__re_run(swerex__re *re, const uint8_t *data, size_t at, size_t size,
                           size_t total) {
  uint32_t c;
  size_t from = at;
  while (at < size) {
    if (re->now.count == 0) {
      if (re->found) return;
      size_t next = swerex__re_skip(re, data, at, size);
      if (next > at) re->before = re->looks_back ? swerex__re_decode_back(data, from, next) : 0;
      re->offset += next - at;
      at = next;
      if (at == size) return;
    }
    size_t step = swerex__re_decode(data + at, total - at, &c);
    swerex__re_advance(re, c, step, re->first[data[at]]);
    at += step;
  }
}

/** Complete the character that the last chunk has left open; returns how many bytes that took. */
static size_t swerex__re_run_carry(swerex__re *re, const uint8_t *data, size_t size) {
  size_t used = 0, count;
  uint32_t c;
  while (re->carried > 0 && used < size) {
    re->carry[re->carried++] = data[used++];
    size_t step = swerex__re_decode(re->carry, re->carried, &c);
    if (step == 0) continue;
    count = re->carried;
    re->carried = 0;
    if (step == count) {
      swerex__re_advance(re, c, step, re->first[re->carry[0]]);
      return used;
    }
    for (size_t i = 0; i + 1 < count; i++) /* what it was is now known: single bytes */
      swerex__re_advance(re, SWEREX__RE_BYTE + re->carry[i], 1, re->first[re->carry[i]]);
    return used - 1;
  }
  return used;
}

/** Look for matches that need the end of the data to be here, without moving on. */
static void swerex__re_run_end(swerex__re *re, bool newline) {
  swerex__re_look look = {re->before, SWEREX__RE_NONE, false, true, re->offset};
  if (!newline) {
    swerex__re_step(re, &re->now, &re->spare, &look);
    return;
  }
  swerex__re_threads none = {re->next.list, 0};
  look.after = '\n';
  look.last = true;
  swerex__re_step(re, &re->now, &re->spare, &look);
  look.before = '\n';
  look.after = SWEREX__RE_NONE;
  look.last = false;
  look.offset++;
  swerex__re_step(re, &re->spare, &none, &look);
}

/** Give the matcher more of the stream; true: a pattern has matched, and it must be reset. */
static bool swerex__re_feed(swerex__re *re, const char *data, size_t size,
                            swerex__re_match *match) {
  const uint8_t *bytes = (const uint8_t *)data;
  if (re->start == SWEREX__RE_NONE) {
    re->offset += size;
    return false;
  }
  size_t used = swerex__re_run_carry(re, bytes, size);
  if (used < size) {
    size_t open = swerex__re_open_end(bytes + used, size - used), whole = size - open;
    if (re->looks_end && whole > used && bytes[whole - 1] == '\n') {
      swerex__re_run(re, bytes, used, whole - 1, size);
      used = whole - 1;
      swerex__re_run_end(re, true);
      if (re->found) {
        *match = re->match;
        return true;
      }
    }
    swerex__re_run(re, bytes, used, whole, size);
    if (open > 0) memcpy(re->carry, bytes + size - open, open);
    re->carried = open;
  }
  if (!re->found || re->now.count > 0) swerex__re_run_end(re, false);
  if (re->found) *match = re->match;
  return re->found;
}

/** Return from which byte on the stream may still become part of a match. */
static uint64_t swerex__re_pending(const swerex__re *re) {
  return re->now.count > 0 ? re->now.list[0].start : re->offset;
}

/* =============================================================================================
 * [bash] Which commands are surely complete
 * ========================================================================================== */
/* Asking bash whether a text is valid costs a process. The reader here answers for what is usually
 * typed, in about the time of reading it, without memory of its own: true means that `bash -n`
 * takes the text without a word and that what follows on the next line starts a new command. It
 * follows bash's grammar and gives up (false: not sure) wherever versions, options or locales of
 * bash may differ. Every read_... function starts at the first byte of what it reads, leaves the
 * reader behind it, and moves on with each step, so the time is linear; nesting is limited. */

enum {
  SWEREX__BASH_DEPTH = 20,   /* nested lists, ${...} and arithmetic */
  SWEREX__BASH_HEREDOCS = 8, /* here-documents that start on one line */
  SWEREX__BASH_WORD = 64     /* longest delimiter of a here-document */
};

/** What a character may be; more than one may hold. */
enum {
  SWEREX__BASH_NAME = 0x01,    /* of a name: letters, digits, _ */
  SWEREX__BASH_DIGIT = 0x02,   /* 0 to 9 */
  SWEREX__BASH_PLAIN = 0x04,   /* stands for itself in a word */
  SWEREX__BASH_BREAK = 0x08,   /* ends a word: blank, LF, ; & | < > ( ) */
  SWEREX__BASH_ACTIVE = 0x10,  /* not just text between double quotes */
  SWEREX__BASH_MATH = 0x20,    /* stands for itself in arithmetic */
  SWEREX__BASH_OPERAND = 0x40, /* stands for itself in ${name:-operand} */
  SWEREX__BASH_DOLLAR = 0x80   /* makes a $ before it stand for itself */
};

static const unsigned char swerex__bash_classes[128] = {
  0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xE8, 0x88, 0x00, 0x00, 0x00, 0x00, 0x00,
  0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
  0xE8, 0x64, 0x10, 0x44, 0x10, 0xE4, 0xA8, 0x00, 0x08, 0x88, 0x64, 0xE4, 0xE4, 0x64, 0xC4, 0xE4,
  0x67, 0x67, 0x67, 0x67, 0x67, 0x67, 0x67, 0x67, 0x67, 0x67, 0xE4, 0x88, 0x28, 0xE4, 0x28, 0x64,
  0x44, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65,
  0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x64, 0x90, 0xE4, 0xE4, 0x65,
  0x10, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65,
  0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x65, 0x04, 0xA8, 0x04, 0xE4, 0x00,
};

/** What can stand where a command could: as bits, to name the ends that a list may have. */
enum {
  SWEREX__BASH_END = 0x01,    /* the end of the text */
  SWEREX__BASH_PAREN = 0x02,  /* ) */
  SWEREX__BASH_CLAUSE = 0x04, /* ;; */
  SWEREX__BASH_EMPTY = 0x08,  /* the list may be empty */
  SWEREX__BASH_THEN = 0x10,
  SWEREX__BASH_ELIF = 0x20,
  SWEREX__BASH_ELSE = 0x40,
  SWEREX__BASH_FI = 0x80,
  SWEREX__BASH_DO = 0x100,
  SWEREX__BASH_DONE = 0x200,
  SWEREX__BASH_ESAC = 0x400,
  SWEREX__BASH_CLOSE = 0x800, /* } */
  SWEREX__BASH_CLOSERS = 0xFF0,
  SWEREX__BASH_IF = 0x1000,
  SWEREX__BASH_FOR = 0x2000,
  SWEREX__BASH_LOOP = 0x4000, /* while, until */
  SWEREX__BASH_CASE = 0x8000,
  SWEREX__BASH_IN = 0x10000,
  SWEREX__BASH_FUNCTION = 0x20000,
  SWEREX__BASH_OPEN = 0x40000,     /* { */
  SWEREX__BASH_TEST = 0x80000,     /* [[ */
  SWEREX__BASH_TEST_END = 0x100000, /* ]] */
  SWEREX__BASH_NOT = 0x200000,     /* ! */
  SWEREX__BASH_TIME = 0x400000,
  SWEREX__BASH_OTHER = 0x800000 /* those that are not read */
};

typedef struct swerex__bash_keyword {
  const char *word;
  size_t size;
  unsigned bit;
} swerex__bash_keyword;

static const swerex__bash_keyword swerex__bash_keywords[] = {
  {"if", 2, SWEREX__BASH_IF},       {"then", 4, SWEREX__BASH_THEN},
  {"elif", 4, SWEREX__BASH_ELIF},   {"else", 4, SWEREX__BASH_ELSE},
  {"fi", 2, SWEREX__BASH_FI},       {"for", 3, SWEREX__BASH_FOR},
  {"while", 5, SWEREX__BASH_LOOP},  {"until", 5, SWEREX__BASH_LOOP},
  {"do", 2, SWEREX__BASH_DO},       {"done", 4, SWEREX__BASH_DONE},
  {"case", 4, SWEREX__BASH_CASE},   {"esac", 4, SWEREX__BASH_ESAC},
  {"in", 2, SWEREX__BASH_IN},       {"function", 8, SWEREX__BASH_FUNCTION},
  {"{", 1, SWEREX__BASH_OPEN},      {"}", 1, SWEREX__BASH_CLOSE},
  {"[[", 2, SWEREX__BASH_TEST},     {"]]", 2, SWEREX__BASH_TEST_END},
  {"!", 1, SWEREX__BASH_NOT},       {"time", 4, SWEREX__BASH_TIME},
  {"select", 6, SWEREX__BASH_OTHER}, {"coproc", 6, SWEREX__BASH_OTHER},
};

typedef enum swerex__bash_target {
  SWEREX__BASH_TO_FILE, /* a word follows */
  SWEREX__BASH_TO_COPY, /* a word follows, or - at once */
  SWEREX__BASH_TO_HEREDOC,
  SWEREX__BASH_TO_TABBED /* a here-document whose leading tabs are dropped */
} swerex__bash_target;

/** Redirections; of two that match, the longer stands first. */
static const struct {
  const char *sign;
  size_t size;
  swerex__bash_target target;
} swerex__bash_redirections[] = {
  {"&>>", 3, SWEREX__BASH_TO_FILE},   {"<<<", 3, SWEREX__BASH_TO_FILE},
  {"<<-", 3, SWEREX__BASH_TO_TABBED}, {"<<", 2, SWEREX__BASH_TO_HEREDOC},
  {"&>", 2, SWEREX__BASH_TO_FILE},    {">>", 2, SWEREX__BASH_TO_FILE},
  {">&", 2, SWEREX__BASH_TO_COPY},    {"<&", 2, SWEREX__BASH_TO_COPY},
  {">|", 2, SWEREX__BASH_TO_FILE},    {"<>", 2, SWEREX__BASH_TO_FILE},
  {"<", 1, SWEREX__BASH_TO_FILE},     {">", 1, SWEREX__BASH_TO_FILE},
};

/** The operators between two words of [[ ... ]]. */
static const char *const swerex__bash_comparisons[] = {
  "==", "=", "!=", "=~", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef",
};

typedef struct swerex__bash_heredoc {
  const char *word;
  size_t size;
  bool quoted; /* no expansion: a backslash at the end of a line is only that */
  bool tabbed;
} swerex__bash_heredoc;

typedef struct swerex__bash_reader {
  const char *at, *end;
  int depth;
  int substitutions; /* how many $(...) and <(...) we are in */
  int heredocs;      /* how many are to come after the next LF */
  swerex__bash_heredoc heredoc[SWEREX__BASH_HEREDOCS];
} swerex__bash_reader;

/* --- characters and keywords --- */

/** Return the byte `ahead` of the reader, -1 behind the end. */
static int swerex__bash_peek(const swerex__bash_reader *r, size_t ahead) {
  return ahead < (size_t)(r->end - r->at) ? (unsigned char)r->at[ahead] : -1;
}

/** Tell whether a byte is of any of the classes. Two bytes of UTF-8 are blanks to some systems. */
static bool swerex__bash_is(int c, int classes) {
  if (c < 0) return false;
  if (c < 128) return (swerex__bash_classes[c] & classes) != 0;
  return (classes & SWEREX__BASH_PLAIN) != 0 && c != 0x85 && c != 0xA0;
}

static bool swerex__bash_is_break(int c) { return c < 0 || swerex__bash_is(c, SWEREX__BASH_BREAK); }

/** Tell whether a word ends here, in a way that cannot change its meaning as `(` would. */
static bool swerex__bash_at_break(const swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  return c != '(' && swerex__bash_is_break(c);
}

static bool swerex__bash_at_blank(const swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  return c == ' ' || c == '\t';
}

/** Return the length of the name that starts `ahead`, 0 if none does. */
static size_t swerex__bash_name_size(const swerex__bash_reader *r, size_t ahead) {
  size_t size = 0;
  if (swerex__bash_is(swerex__bash_peek(r, ahead), SWEREX__BASH_DIGIT)) return 0;
  while (swerex__bash_is(swerex__bash_peek(r, ahead + size), SWEREX__BASH_NAME)) size++;
  return size;
}

/** Return the keyword that is the whole word here; NULL if there is none. */
static const swerex__bash_keyword *swerex__bash_find_keyword(const swerex__bash_reader *r) {
  size_t size = 0;
  while (size < 9 && !swerex__bash_is_break(swerex__bash_peek(r, size))) size++;
  if (size == 0 || size == 9) return NULL;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__bash_keywords); i++) {
    const swerex__bash_keyword *keyword = &swerex__bash_keywords[i];
    if (keyword->size == size && keyword->word[0] == r->at[0] &&
        memcmp(keyword->word, r->at, size) == 0)
      return keyword;
  }
  return NULL;
}

static unsigned swerex__bash_keyword_bit(const swerex__bash_reader *r) {
  const swerex__bash_keyword *keyword = swerex__bash_find_keyword(r);
  return keyword == NULL ? 0 : keyword->bit;
}

/** Read a keyword if it is one of those in the mask; return its bit, else 0. */
static unsigned swerex__bash_read_keyword(swerex__bash_reader *r, unsigned mask) {
  const swerex__bash_keyword *keyword = swerex__bash_find_keyword(r);
  if (keyword == NULL || (keyword->bit & mask) == 0) return 0;
  r->at += keyword->size;
  return keyword->bit;
}

/* --- between words --- */

/** Read blanks, also a continued line where it stands beside one, so that it joins no tokens. */
static bool swerex__bash_read_blanks(swerex__bash_reader *r) {
  bool blank = false;
  for (;;) {
    if (swerex__bash_at_blank(r)) {
      r->at++;
      blank = true;
    } else if (swerex__bash_peek(r, 0) == '\\' && swerex__bash_peek(r, 1) == '\n') {
      int next = swerex__bash_peek(r, 2);
      if (next < 0 || (!blank && next != ' ' && next != '\t')) return false;
      r->at += 2;
    } else {
      return true;
    }
  }
}

/** Read one or more blanks. */
static bool swerex__bash_read_gap(swerex__bash_reader *r) {
  return swerex__bash_at_blank(r) && swerex__bash_read_blanks(r);
}

/** Read a comment up to its LF. Older versions misread those in $(...). */
static bool swerex__bash_read_comment(swerex__bash_reader *r) {
  if (r->substitutions > 0) return false;
  const char *newline = (const char *)memchr(r->at, '\n', (size_t)(r->end - r->at));
  r->at = newline == NULL ? r->end : newline;
  return true;
}

/** Count the backslashes that end a line. */
static size_t swerex__bash_count_escapes(const char *line, size_t size) {
  size_t count = 0;
  while (count < size && line[size - 1 - count] == '\\') count++;
  return count;
}

/** Read one line of a here-document, without its LF; false: that was the end of the text. */
static bool swerex__bash_read_line(swerex__bash_reader *r, const char **line, size_t *size) {
  if (r->at >= r->end) return false;
  const char *newline = (const char *)memchr(r->at, '\n', (size_t)(r->end - r->at));
  *line = r->at;
  *size = (size_t)((newline == NULL ? r->end : newline) - r->at);
  r->at = newline == NULL ? r->end : newline + 1;
  return true;
}

/** Read on where a line is continued, unless the joined lines might be the delimiter. */
static bool swerex__bash_read_joined(swerex__bash_reader *r, const swerex__bash_heredoc *doc,
                                     const char *line, size_t size) {
  size_t escapes = swerex__bash_count_escapes(line, size);
  if (escapes == 0) return true;
  if (r->substitutions > 0) return false;
  if (doc->quoted || escapes % 2 == 0) return true;
  if (size - 1 <= doc->size && memcmp(line, doc->word, size - 1) == 0) return false;
  while (escapes % 2 == 1) {
    if (!swerex__bash_read_line(r, &line, &size)) return false;
    escapes = swerex__bash_count_escapes(line, size);
  }
  return true;
}

/** Read the body of a here-document, with the line that ends it. In $(...) some versions look for
 * the delimiter at the start of a line only. */
static bool swerex__bash_read_body(swerex__bash_reader *r, const swerex__bash_heredoc *doc) {
  const char *line;
  size_t size;
  while (swerex__bash_read_line(r, &line, &size)) {
    while (doc->tabbed && size > 0 && *line == '\t') {
      line++;
      size--;
    }
    if (size >= doc->size && memcmp(line, doc->word, doc->size) == 0) {
      if (size == doc->size) return true;
      if (r->substitutions > 0) return false;
    }
    if (!swerex__bash_read_joined(r, doc, line, size)) return false;
  }
  return false;
}

/** Read an LF, and the here-documents that it starts. */
static bool swerex__bash_read_newline(swerex__bash_reader *r) {
  r->at++;
  for (int i = 0; i < r->heredocs; i++)
    if (!swerex__bash_read_body(r, &r->heredoc[i])) return false;
  r->heredocs = 0;
  return true;
}

/** Read blanks, comments and LFs. */
static bool swerex__bash_read_lines(swerex__bash_reader *r) {
  for (;;) {
    if (!swerex__bash_read_blanks(r)) return false;
    int c = swerex__bash_peek(r, 0);
    if (c == '#') {
      if (!swerex__bash_read_comment(r)) return false;
    } else if (c == '\n') {
      if (!swerex__bash_read_newline(r)) return false;
    } else {
      return true;
    }
  }
}

/* --- words --- */

static bool swerex__bash_read_list(swerex__bash_reader *r, unsigned stops);
static bool swerex__bash_read_dollar(swerex__bash_reader *r, bool quoted);

/** Read '...'. */
static bool swerex__bash_read_single_quotes(swerex__bash_reader *r) {
  const char *start = r->at + 1;
  const char *quote = (const char *)memchr(start, '\'', (size_t)(r->end - start));
  if (quote == NULL) return false;
  r->at = quote + 1;
  return true;
}

/** Read $'...'. */
static bool swerex__bash_read_escaped_quotes(swerex__bash_reader *r) {
  r->at += 2;
  for (;;) {
    int c = swerex__bash_peek(r, 0);
    if (c < 0) return false;
    r->at++;
    if (c == '\'') return true;
    if (c != '\\') continue;
    if (swerex__bash_peek(r, 0) < 0) return false;
    r->at++;
  }
}

/** Read `...` with nothing in it but words and pipes: bash looks for its end only. */
static bool swerex__bash_read_backquotes(swerex__bash_reader *r) {
  if (r->substitutions > 0) return false;
  for (;;) {
    r->at++;
    int c = swerex__bash_peek(r, 0);
    if (c == '`') break;
    if (c == ' ' || c == '|' || c == '\'' || c == '"') continue;
    if (c == '$' && swerex__bash_is(swerex__bash_peek(r, 1), SWEREX__BASH_NAME)) continue;
    if (c == '#' || !swerex__bash_is(c, SWEREX__BASH_PLAIN)) return false;
  }
  r->at++;
  return true;
}

/** Read "...". */
static bool swerex__bash_read_double_quotes(swerex__bash_reader *r) {
  r->at++;
  for (;;) {
    int c = swerex__bash_peek(r, 0);
    if (c < 0) return false;
    if (!swerex__bash_is(c, SWEREX__BASH_ACTIVE)) {
      r->at++;
    } else if (c == '"') {
      r->at++;
      return true;
    } else if (c == '\\') {
      if (swerex__bash_peek(r, 1) < 0) return false;
      r->at += 2;
    } else if (c == '`') {
      if (!swerex__bash_read_backquotes(r)) return false;
    } else if (swerex__bash_peek(r, 1) == '"') {
      r->at++;
    } else if (!swerex__bash_read_dollar(r, true)) {
      return false;
    }
  }
}

/** Read $(...) or <(...). */
static bool swerex__bash_read_substitution(swerex__bash_reader *r) {
  if (r->heredocs > 0) return false;
  r->at += 2;
  r->substitutions++;
  if (!swerex__bash_read_list(r, SWEREX__BASH_PAREN | SWEREX__BASH_EMPTY)) return false;
  r->substitutions--;
  r->at++;
  return r->heredocs == 0;
}

/** Read arithmetic from behind (( to behind )); it must hold that many semicolons. */
static bool swerex__bash_read_math(swerex__bash_reader *r, int semicolons) {
  size_t parens = 0;
  if (r->depth >= SWEREX__BASH_DEPTH) return false;
  r->depth++;
  for (;;) {
    int c = swerex__bash_peek(r, 0);
    if (c == ')' && parens == 0) break;
    if (c == '$') {
      if (!swerex__bash_read_dollar(r, true)) return false;
      continue;
    }
    if (c == '(') parens++;
    else if (c == ')') parens--;
    else if (c == ';') semicolons--;
    else if (c == '<' && swerex__bash_peek(r, 1) == '<') return false;
    else if (!swerex__bash_is(c, SWEREX__BASH_MATH) || c >= 128) return false;
    r->at++;
  }
  r->depth--;
  r->at++;
  if (semicolons != 0 || swerex__bash_peek(r, 0) != ')') return false;
  r->at++;
  return true;
}

/** Read the parameter of ${parameter...}, with what may stand around its name. */
static bool swerex__bash_read_parameter(swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  int next = swerex__bash_peek(r, 1);
  if ((c == '#' || c == '!') &&
      (swerex__bash_is(next, SWEREX__BASH_NAME) || next == '@' || next == '*'))
    r->at++;
  c = swerex__bash_peek(r, 0);
  if (c == '@' || c == '*' || c == '?' || c == '#' || c == '!') {
    r->at++;
    return true;
  }
  int class_ = swerex__bash_is(c, SWEREX__BASH_DIGIT) ? SWEREX__BASH_DIGIT : SWEREX__BASH_NAME;
  if (!swerex__bash_is(c, class_)) return false;
  while (swerex__bash_is(swerex__bash_peek(r, 0), class_)) r->at++;
  if (swerex__bash_peek(r, 0) != '[') return true;
  r->at++;
  c = swerex__bash_peek(r, 0);
  if (c == '$') r->at++;
  if (c == '@' || c == '*') r->at++;
  else while (swerex__bash_is(swerex__bash_peek(r, 0), SWEREX__BASH_NAME)) r->at++;
  if (swerex__bash_peek(r, 0) != ']') return false;
  r->at++;
  return true;
}

/** Read one step of the operand in ${name:-operand}; `quoted` if it stands in double quotes. */
static bool swerex__bash_read_operand(swerex__bash_reader *r, bool quoted) {
  int c = swerex__bash_peek(r, 0);
  if (c == '$') return swerex__bash_read_dollar(r, true);
  if (c == '"') return !quoted && swerex__bash_read_double_quotes(r);
  if (c == '\'') return !quoted && swerex__bash_read_single_quotes(r);
  if (c == '\\') {
    int next = swerex__bash_peek(r, 1);
    if (next <= ' ' || next >= 127) return false;
    r->at += 2;
    return true;
  }
  if (!swerex__bash_is(c, SWEREX__BASH_OPERAND | SWEREX__BASH_PLAIN) || c == '{') return false;
  r->at++;
  return true;
}

/** Read ${...}. */
static bool swerex__bash_read_braces(swerex__bash_reader *r, bool quoted) {
  if (r->depth >= SWEREX__BASH_DEPTH) return false;
  r->depth++;
  r->at += 2;
  if (!swerex__bash_read_parameter(r)) return false;
  int c = swerex__bash_peek(r, 0);
  if (c != '}' && (c <= 0 || strchr(":-=+?#%/^,@", c) == NULL)) return false;
  while (swerex__bash_peek(r, 0) != '}')
    if (!swerex__bash_read_operand(r, quoted)) return false;
  r->at++;
  r->depth--;
  return true;
}

/** Tell whether a $ stands for itself, or $$ for the process, whatever reads it. */
static bool swerex__bash_is_lone_dollar(const swerex__bash_reader *r, size_t ahead) {
  int c = swerex__bash_peek(r, ahead);
  if (c == '\\') return swerex__bash_peek(r, ahead + 1) != '\n';
  return c < 0 || swerex__bash_is(c, SWEREX__BASH_DOLLAR);
}

/** Read what starts with $; `quoted` where ' and " have no or another meaning. */
static bool swerex__bash_read_dollar(swerex__bash_reader *r, bool quoted) {
  int c = swerex__bash_peek(r, 1);
  if (c == '{') return swerex__bash_read_braces(r, quoted);
  if (c == '\'') return !quoted && swerex__bash_read_escaped_quotes(r);
  if (c == '(' && swerex__bash_peek(r, 2) == '(') {
    r->at += 3;
    return swerex__bash_read_math(r, 0);
  }
  if (c == '(') return swerex__bash_read_substitution(r);
  size_t size = swerex__bash_name_size(r, 1);
  if (size > 0) {
    r->at += 1 + size;
    return true;
  }
  if (c == '$' && (r->substitutions > 0 || !swerex__bash_is_lone_dollar(r, 2)) &&
      !swerex__bash_is(swerex__bash_peek(r, 2), SWEREX__BASH_NAME))
    return false;
  if (c > 0 && (swerex__bash_is(c, SWEREX__BASH_DIGIT) || strchr("?$!#@*-", c) != NULL)) {
    r->at += 2;
    return true;
  }
  if ((r->substitutions > 0 && !quoted) || !swerex__bash_is_lone_dollar(r, 1)) return false;
  r->at++;
  return true;
}

/** Read the part of a word that starts with a character that does not stand for itself. */
static bool swerex__bash_read_part(swerex__bash_reader *r, int c) {
  if (c == '\'') return swerex__bash_read_single_quotes(r);
  if (c == '"') return swerex__bash_read_double_quotes(r);
  if (c == '$') return swerex__bash_read_dollar(r, false);
  if (c == '`') return swerex__bash_read_backquotes(r);
  int next = swerex__bash_peek(r, 1);
  if (c != '\\' || next < ' ' || next >= 127) return false;
  r->at += 2;
  return true;
}

/** Return the size of the plain [key] that starts `ahead`, 0 if none does. */
static size_t swerex__bash_key_size(const swerex__bash_reader *r, size_t ahead) {
  size_t size = 1;
  for (;; size++) {
    int c = swerex__bash_peek(r, ahead + size);
    if (c == ']') return size == 1 ? 0 : size + 1;
    if (c == '[' || c == '{' || c == '}' || !swerex__bash_is(c, SWEREX__BASH_PLAIN)) return 0;
  }
}

/** Read one word, up to a break. Behind name[ some versions read on to ] as for an array, and in
 * $(...) some take any word for a keyword, or any # for a comment. */
static bool swerex__bash_read_word(swerex__bash_reader *r) {
  const char *start = r->at;
  bool name = true;
  if (swerex__bash_peek(r, 0) == '#') return false;
  if (r->substitutions > 0 && swerex__bash_keyword_bit(r) != 0) return false;
  for (;;) {
    int c = swerex__bash_peek(r, 0);
    if (swerex__bash_is_break(c)) return c != '(' && r->at > start;
    if (c == '[' && name && r->at > start && swerex__bash_key_size(r, 0) == 0) return false;
    if (c == '#' && !name && r->substitutions > 0) return false;
    if (c < 128 && !swerex__bash_is(c, SWEREX__BASH_NAME)) name = false;
    if (swerex__bash_is(c, SWEREX__BASH_PLAIN)) r->at++;
    else if (!swerex__bash_read_part(r, c)) return false;
  }
}

static bool swerex__bash_at_process(const swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  return (c == '<' || c == '>') && swerex__bash_peek(r, 1) == '(';
}

/** Read an argument: a word, or <(...) alone. */
static bool swerex__bash_read_argument(swerex__bash_reader *r) {
  if (!swerex__bash_at_process(r)) return swerex__bash_read_word(r);
  return swerex__bash_read_substitution(r) && swerex__bash_at_break(r);
}

/** Return the size of name=, name+= or name[key]= here; 0 if there is none. */
static size_t swerex__bash_assignment_size(const swerex__bash_reader *r) {
  size_t size = swerex__bash_name_size(r, 0);
  if (size == 0) return 0;
  if (swerex__bash_peek(r, size) == '[') size += swerex__bash_key_size(r, size);
  if (swerex__bash_peek(r, size) == '+') size++;
  return swerex__bash_peek(r, size) == '=' ? size + 1 : 0;
}

/* --- redirections --- */

/** Return the size of the number that starts here. */
static size_t swerex__bash_number_size(const swerex__bash_reader *r) {
  size_t size = 0;
  while (swerex__bash_is(swerex__bash_peek(r, size), SWEREX__BASH_DIGIT)) size++;
  return size;
}

static bool swerex__bash_at_redirection(const swerex__bash_reader *r) {
  size_t size = swerex__bash_number_size(r);
  int c = swerex__bash_peek(r, size);
  int next = swerex__bash_peek(r, size + 1);
  if (c == '&') return size == 0 && next == '>';
  return (c == '<' || c == '>') && (next != '(' || size > 0);
}

/** Read the delimiter of a here-document, and remember it until the next LF. */
static bool swerex__bash_read_delimiter(swerex__bash_reader *r, bool tabbed) {
  int limit = r->substitutions > 0 ? 1 : SWEREX__BASH_HEREDOCS; /* older versions see one there */
  if (!swerex__bash_read_blanks(r) || r->heredocs >= limit) return false;
  int quote = swerex__bash_peek(r, 0);
  bool quoted = quote == '\'' || quote == '"' || quote == '\\';
  if (quoted) r->at++;
  swerex__bash_heredoc doc = {r->at, swerex__bash_name_size(r, 0), quoted, tabbed};
  if (doc.size == 0 || doc.size > SWEREX__BASH_WORD) return false;
  r->at += doc.size;
  if (quote == '\'' || quote == '"') {
    if (swerex__bash_peek(r, 0) != quote) return false;
    r->at++;
  }
  r->heredoc[r->heredocs++] = doc;
  return swerex__bash_at_break(r);
}

/** Read the file of a redirection; with < or > right behind it, it might be a descriptor, and
 * where the command starts with redirections, name=value is no file. */
static bool swerex__bash_read_file(swerex__bash_reader *r) {
  if (!swerex__bash_read_blanks(r) || swerex__bash_assignment_size(r) > 0) return false;
  if (!swerex__bash_read_argument(r)) return false;
  int c = swerex__bash_peek(r, 0);
  return c != '<' && c != '>';
}

static bool swerex__bash_read_redirection(swerex__bash_reader *r) {
  size_t i = 0;
  r->at += swerex__bash_number_size(r);
  size_t left = (size_t)(r->end - r->at);
  while (i < SWEREX__SYS_COUNT(swerex__bash_redirections) &&
         (swerex__bash_redirections[i].size > left ||
          memcmp(swerex__bash_redirections[i].sign, r->at, swerex__bash_redirections[i].size) != 0))
    i++;
  if (i == SWEREX__SYS_COUNT(swerex__bash_redirections)) return false;
  r->at += swerex__bash_redirections[i].size;
  swerex__bash_target target = swerex__bash_redirections[i].target;
  if (target == SWEREX__BASH_TO_HEREDOC) return swerex__bash_read_delimiter(r, false);
  if (target == SWEREX__BASH_TO_TABBED) return swerex__bash_read_delimiter(r, true);
  if (target == SWEREX__BASH_TO_COPY && swerex__bash_peek(r, 0) == '-') {
    r->at++;
    return swerex__bash_at_break(r);
  }
  return swerex__bash_read_file(r);
}

/* --- simple commands --- */

/** Tell whether a command ends here: at the end, LF, ; & | or ). */
static bool swerex__bash_at_end(const swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  if (c == '&') return swerex__bash_peek(r, 1) != '>';
  return c < 0 || c == '\n' || c == ';' || c == '|' || c == ')';
}

/** Read name=(...) from behind the =. */
static bool swerex__bash_read_array(swerex__bash_reader *r) {
  r->at++;
  for (;;) {
    if (!swerex__bash_read_blanks(r)) return false;
    int c = swerex__bash_peek(r, 0);
    if (c == ')') break;
    if (c == '\n' && r->heredocs == 0) r->at++;
    else if (c == '[' || !swerex__bash_read_word(r)) return false;
  }
  r->at++;
  return swerex__bash_at_blank(r) || swerex__bash_at_end(r);
}

/** Read an assignment of that size, with its value. */
static bool swerex__bash_read_assignment(swerex__bash_reader *r, size_t size) {
  bool element = memchr(r->at, '[', size) != NULL;
  r->at += size;
  if (swerex__bash_at_break(r)) return true;
  if (swerex__bash_peek(r, 0) == '(') return !element && swerex__bash_read_array(r);
  return swerex__bash_read_word(r);
}

/** Read assignments, redirections and words up to the end of a command. */
static bool swerex__bash_read_simple(swerex__bash_reader *r) {
  bool any = false, moved = false, named = false; /* seen: anything, a redirection, a word */
  for (;; any = true) {
    size_t size = 0;
    if (!swerex__bash_read_blanks(r)) return false;
    if (swerex__bash_at_end(r)) return any;
    if (swerex__bash_peek(r, 0) == '#') return any && swerex__bash_read_comment(r);
    if (swerex__bash_at_redirection(r)) {
      if (!swerex__bash_read_redirection(r)) return false;
      moved = true;
    } else if (named) {
      if (!swerex__bash_read_argument(r)) return false;
    } else if (swerex__bash_keyword_bit(r) != 0) {
      return false;
    } else if ((size = swerex__bash_assignment_size(r)) > 0) {
      if (moved || !swerex__bash_read_assignment(r, size)) return false;
    } else {
      if (!swerex__bash_read_word(r)) return false;
      named = true;
    }
  }
}

/* --- compound commands --- */

/** Read a list and the keyword that ends it; return which it was, 0 if not sure. */
static unsigned swerex__bash_read_block(swerex__bash_reader *r, unsigned stops) {
  return swerex__bash_read_list(r, stops) ? swerex__bash_read_keyword(r, stops) : 0;
}

static bool swerex__bash_read_if(swerex__bash_reader *r) {
  unsigned found = SWEREX__BASH_ELIF;
  while (found == SWEREX__BASH_ELIF) {
    if (swerex__bash_read_block(r, SWEREX__BASH_THEN) == 0) return false;
    found = swerex__bash_read_block(r, SWEREX__BASH_FI | SWEREX__BASH_ELSE | SWEREX__BASH_ELIF);
  }
  if (found == SWEREX__BASH_ELSE) found = swerex__bash_read_block(r, SWEREX__BASH_FI);
  return found != 0;
}

static bool swerex__bash_read_loop(swerex__bash_reader *r) {
  return swerex__bash_read_block(r, SWEREX__BASH_DO) != 0 &&
         swerex__bash_read_block(r, SWEREX__BASH_DONE) != 0;
}

/** Read the words behind `in`, up to the ; or LF that ends them. */
static bool swerex__bash_read_values(swerex__bash_reader *r) {
  for (;;) {
    int c = swerex__bash_peek(r, 0);
    if (c == ' ' || c == '\t') {
      if (!swerex__bash_read_blanks(r)) return false;
      c = swerex__bash_peek(r, 0);
    } else if (c != ';' && c != '\n') {
      return false;
    }
    if (c == '\n') return swerex__bash_read_newline(r);
    if (c == ';') {
      r->at++;
      return true;
    }
    if (!swerex__bash_read_word(r)) return false;
  }
}

static bool swerex__bash_read_for(swerex__bash_reader *r) {
  if (!swerex__bash_read_gap(r)) return false;
  if (swerex__bash_peek(r, 0) == '(' && swerex__bash_peek(r, 1) == '(') {
    r->at += 2;
    if (!swerex__bash_read_math(r, 2)) return false;
    if (swerex__bash_peek(r, 0) == ';') r->at++;
    else if (swerex__bash_peek(r, 0) != '\n') return false;
  } else {
    size_t size = swerex__bash_name_size(r, 0);
    r->at += size;
    if (size == 0 || !swerex__bash_read_gap(r)) return false;
    if (swerex__bash_read_keyword(r, SWEREX__BASH_IN) == 0 || !swerex__bash_read_values(r))
      return false;
  }
  return swerex__bash_read_lines(r) && swerex__bash_read_keyword(r, SWEREX__BASH_DO) != 0 &&
         swerex__bash_read_block(r, SWEREX__BASH_DONE) != 0;
}

/** Read the patterns of one clause, with the ) behind them. */
static bool swerex__bash_read_patterns(swerex__bash_reader *r) {
  for (;;) {
    if (!swerex__bash_read_blanks(r) || swerex__bash_keyword_bit(r) == SWEREX__BASH_ESAC)
      return false;
    if (!swerex__bash_read_word(r) || !swerex__bash_read_blanks(r)) return false;
    int c = swerex__bash_peek(r, 0);
    if (c != ')' && c != '|') return false;
    r->at++;
    if (c == ')') return true;
  }
}

static bool swerex__bash_read_case(swerex__bash_reader *r) {
  if (r->substitutions > 0 || !swerex__bash_read_gap(r)) return false;
  if (!swerex__bash_read_word(r) || !swerex__bash_read_gap(r)) return false;
  if (swerex__bash_read_keyword(r, SWEREX__BASH_IN) == 0) return false;
  for (;;) {
    if (!swerex__bash_read_lines(r)) return false;
    if (swerex__bash_read_keyword(r, SWEREX__BASH_ESAC) != 0) return true;
    if (!swerex__bash_read_patterns(r)) return false;
    if (!swerex__bash_read_list(r, SWEREX__BASH_CLAUSE | SWEREX__BASH_ESAC | SWEREX__BASH_EMPTY))
      return false;
    if (swerex__bash_peek(r, 0) == ';') r->at += 2;
  }
}

/** Read one operand of [[ ... ]], and the blanks behind it. */
static bool swerex__bash_read_test_word(swerex__bash_reader *r) {
  return swerex__bash_keyword_bit(r) != SWEREX__BASH_TEST_END &&
         swerex__bash_read_word(r) && swerex__bash_read_gap(r);
}

/** Read the operator between two operands of [[ ... ]], and the blanks behind it. */
static bool swerex__bash_read_comparison(swerex__bash_reader *r) {
  size_t size = 0;
  while (size < 4 && !swerex__bash_is_break(swerex__bash_peek(r, size))) size++;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__bash_comparisons); i++) {
    const char *sign = swerex__bash_comparisons[i];
    if (strlen(sign) != size || memcmp(sign, r->at, size) != 0) continue;
    r->at += size;
    return swerex__bash_read_gap(r);
  }
  return false;
}

/** Read one condition of [[ ... ]], and the blanks behind it. */
static bool swerex__bash_read_condition(swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  if (c == '!' && swerex__bash_peek(r, 1) == ' ') {
    r->at++;
    if (!swerex__bash_read_gap(r)) return false;
    c = swerex__bash_peek(r, 0);
  }
  if (c == '!' || c == '#') return false;
  if (c == '-') {
    int letter = swerex__bash_peek(r, 1);
    if (letter <= 0 || strchr("abcdefghkLnprsStuwxz", letter) == NULL) return false;
    r->at += 2;
    return swerex__bash_read_gap(r) && swerex__bash_read_test_word(r);
  }
  if (!swerex__bash_read_test_word(r)) return false;
  if (swerex__bash_keyword_bit(r) == SWEREX__BASH_TEST_END || swerex__bash_at_end(r)) return true;
  return swerex__bash_read_comparison(r) && swerex__bash_read_test_word(r);
}

/** Read [[ ... ]] without parentheses. */
static bool swerex__bash_read_test(swerex__bash_reader *r) {
  for (;;) {
    if (!swerex__bash_read_gap(r) || !swerex__bash_read_condition(r)) return false;
    if (swerex__bash_read_keyword(r, SWEREX__BASH_TEST_END) != 0) return true;
    int c = swerex__bash_peek(r, 0);
    if ((c != '&' && c != '|') || swerex__bash_peek(r, 1) != c) return false;
    r->at += 2;
  }
}

/** Return the size of what can name a function here, 0 if nothing does. */
static size_t swerex__bash_function_size(const swerex__bash_reader *r) {
  size_t size = swerex__bash_name_size(r, 0);
  if (size == 0) return 0;
  while (swerex__bash_peek(r, size) == '-' ||
         swerex__bash_is(swerex__bash_peek(r, size), SWEREX__BASH_NAME))
    size++;
  return size;
}

/** Read the body of a function: only the { ... } that everyone uses. */
static bool swerex__bash_read_function_body(swerex__bash_reader *r) {
  return r->heredocs == 0 && swerex__bash_read_lines(r) &&
         swerex__bash_read_keyword(r, SWEREX__BASH_OPEN) != 0 &&
         swerex__bash_read_block(r, SWEREX__BASH_CLOSE) != 0;
}

/** Read `function name` or `function name()`, and the body. */
static bool swerex__bash_read_function(swerex__bash_reader *r) {
  if (!swerex__bash_read_gap(r) || swerex__bash_keyword_bit(r) != 0) return false;
  size_t size = swerex__bash_function_size(r);
  r->at += size;
  if (size == 0) return false;
  if (swerex__bash_peek(r, 0) == '(' && swerex__bash_peek(r, 1) == ')') r->at += 2;
  else if (!swerex__bash_at_blank(r)) return false;
  return swerex__bash_read_function_body(r);
}

/** Return the size of `name()` or `name ()` here, 0 if there is none. */
static size_t swerex__bash_definition_size(const swerex__bash_reader *r) {
  size_t size = swerex__bash_function_size(r);
  if (size == 0) return 0;
  if (swerex__bash_peek(r, size) == ' ') size++;
  if (swerex__bash_peek(r, size) != '(' || swerex__bash_peek(r, size + 1) != ')') return 0;
  return size + 2;
}

/** Read ( list ) or (( arithmetic )). */
static bool swerex__bash_read_parens(swerex__bash_reader *r) {
  r->at++;
  if (swerex__bash_peek(r, 0) == '(') {
    r->at++;
    return swerex__bash_read_math(r, 0);
  }
  if (!swerex__bash_read_list(r, SWEREX__BASH_PAREN)) return false;
  r->at++;
  return true;
}

/** Read the redirections behind a compound command, up to the end of the command. */
static bool swerex__bash_read_rest(swerex__bash_reader *r) {
  for (;;) {
    const char *start = r->at;
    if (!swerex__bash_read_blanks(r)) return false;
    if (swerex__bash_at_end(r)) return true;
    if (swerex__bash_peek(r, 0) == '#') return r->at > start && swerex__bash_read_comment(r);
    if (swerex__bash_at_process(r) || !swerex__bash_at_redirection(r)) return false;
    if (!swerex__bash_read_redirection(r)) return false;
  }
}

/** Read what follows a keyword that starts a compound command. */
static bool swerex__bash_read_compound(swerex__bash_reader *r, unsigned keyword) {
  switch (keyword) {
  case SWEREX__BASH_IF: return swerex__bash_read_if(r);
  case SWEREX__BASH_FOR: return swerex__bash_read_for(r);
  case SWEREX__BASH_LOOP: return swerex__bash_read_loop(r);
  case SWEREX__BASH_CASE: return swerex__bash_read_case(r);
  case SWEREX__BASH_TEST: return swerex__bash_read_test(r);
  case SWEREX__BASH_OPEN: return swerex__bash_read_block(r, SWEREX__BASH_CLOSE) != 0;
  case SWEREX__BASH_FUNCTION: return swerex__bash_read_function(r);
  default: return false;
  }
}

static bool swerex__bash_read_command(swerex__bash_reader *r) {
  const swerex__bash_keyword *keyword = swerex__bash_find_keyword(r);
  bool read;
  if (keyword != NULL) {
    r->at += keyword->size;
    read = swerex__bash_read_compound(r, keyword->bit);
  } else if (swerex__bash_peek(r, 0) == '(') {
    read = swerex__bash_read_parens(r);
  } else {
    size_t size = swerex__bash_definition_size(r);
    if (size == 0) return swerex__bash_read_simple(r);
    r->at += size;
    read = swerex__bash_read_function_body(r);
  }
  return read && swerex__bash_read_rest(r);
}

/* --- lists --- */

/** Read `!` or `time` before a pipeline, and the blanks behind it. */
static bool swerex__bash_read_prefix(swerex__bash_reader *r) {
  unsigned found = swerex__bash_read_keyword(r, SWEREX__BASH_NOT | SWEREX__BASH_TIME);
  if (found == 0) return true;
  if (found == SWEREX__BASH_TIME && r->substitutions > 0) return false;
  if (!swerex__bash_read_gap(r)) return false;
  int c = swerex__bash_peek(r, 0);
  return c != '-' && c != '!' && c != '#' && !swerex__bash_at_end(r);
}

static bool swerex__bash_read_pipeline(swerex__bash_reader *r) {
  if (!swerex__bash_read_prefix(r)) return false;
  for (;;) {
    if (!swerex__bash_read_command(r)) return false;
    if (swerex__bash_peek(r, 0) != '|' || swerex__bash_peek(r, 1) == '|') return true;
    r->at += swerex__bash_peek(r, 1) == '&' ? 2 : 1;
    if (!swerex__bash_read_lines(r)) return false;
  }
}

/** Read pipelines joined by && and ||. */
static bool swerex__bash_read_chain(swerex__bash_reader *r) {
  for (;;) {
    if (!swerex__bash_read_pipeline(r)) return false;
    int c = swerex__bash_peek(r, 0);
    if ((c != '&' && c != '|') || swerex__bash_peek(r, 1) != c) return true;
    r->at += 2;
    if (!swerex__bash_read_lines(r)) return false;
  }
}

/** Read the ; or & between two commands; what ends the list instead is left. */
static bool swerex__bash_read_separator(swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  if (c == '|') return false;
  if (c != ';' && c != '&') return true;
  if (c == ';' && swerex__bash_peek(r, 1) == ';') return true;
  r->at++;
  if (!swerex__bash_read_blanks(r)) return false;
  c = swerex__bash_peek(r, 0);
  return c != ';' && c != '&' && c != '|';
}

/** Return what ends a list here, 0 if a command starts. */
static unsigned swerex__bash_find_stop(const swerex__bash_reader *r) {
  int c = swerex__bash_peek(r, 0);
  if (c < 0) return SWEREX__BASH_END;
  if (c == ')') return SWEREX__BASH_PAREN;
  if (c == ';') return swerex__bash_peek(r, 1) == ';' ? SWEREX__BASH_CLAUSE : 0;
  return swerex__bash_keyword_bit(r) & SWEREX__BASH_CLOSERS;
}

/** Read commands up to one of the stops, which is left. */
static bool swerex__bash_read_list(swerex__bash_reader *r, unsigned stops) {
  bool empty = true;
  if (r->depth >= SWEREX__BASH_DEPTH) return false;
  r->depth++;
  for (;; empty = false) {
    if (!swerex__bash_read_lines(r)) return false;
    unsigned found = swerex__bash_find_stop(r);
    if (found != 0) {
      r->depth--;
      return (found & stops) != 0 && (!empty || (stops & SWEREX__BASH_EMPTY) != 0);
    }
    if (!swerex__bash_read_chain(r) || !swerex__bash_read_separator(r)) return false;
  }
}

/* --- whole texts --- */

/** Return how many bytes the UTF-8 character has that starts with c; 0 if none does. */
static size_t swerex__bash_utf8_size(unsigned char c) {
  if (c < 0x80) return 1;
  if (c < 0xC2 || c > 0xF4) return 0;
  return c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/** Tell whether a text is UTF-8 with no control characters but tab and LF. */
static bool swerex__bash_is_plain(const char *text, size_t size) {
  const unsigned char *at = (const unsigned char *)text, *end = at + size;
  while (at < end) {
    if ((*at < ' ' && *at != '\n' && *at != '\t') || *at == 127) return false;
    size_t left = swerex__bash_utf8_size(*at++);
    if (left == 0) return false;
    while (--left > 0)
      if (at == end || (*at++ & 0xC0) != 0x80) return false;
  }
  return true;
}

/** Tell whether text is provably complete and valid bash. */
static bool swerex__bash_is_sure(const char *text, size_t size) {
  swerex__bash_reader r;
  if (size == 0) return true;
  if (!swerex__bash_is_plain(text, size)) return false;
  r.at = text;
  r.end = text + size;
  r.depth = r.substitutions = r.heredocs = 0;
  return swerex__bash_read_list(&r, SWEREX__BASH_END | SWEREX__BASH_EMPTY) && r.heredocs == 0;
}

/** Tell whether text holds nothing but blanks, newlines and comments. */
static bool swerex__bash_is_blank(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (text[i] == '#') {
      const char *newline = (const char *)memchr(text + i, '\n', size - i);
      if (newline == NULL) return true;
      i = (size_t)(newline - text);
    } else if (text[i] != ' ' && text[i] != '\t' && text[i] != '\n') {
      return false;
    }
  }
  return true;
}

/* --- quoting --- */

/** Append text as one $'...' word of printable bytes; there is no way to keep a NUL. */
static void swerex__bash_quote(swerex__str *out, const char *text, size_t size) {
  size_t done = 0;
  swerex__str_puts(out, "$'");
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c >= ' ' && c != '\'' && c != '\\' && c != 127) continue;
    swerex__str_add(out, text + done, i - done);
    done = i + 1;
    char escape[4] = {'\\', (char)('0' + (c >> 6)), (char)('0' + ((c >> 3) & 7)),
                      (char)('0' + (c & 7))};
    if (c == '\'' || c == '\\' || c == '\n') {
      escape[1] = c == '\n' ? 'n' : (char)c;
      swerex__str_add(out, escape, 2);
    } else {
      swerex__str_add(out, escape, 4);
    }
  }
  swerex__str_add(out, text + done, size - done);
  swerex__str_putc(out, '\'');
}

/** Append a word in single quotes for sh. */
static void swerex__bash_quote_word(swerex__str *out, const char *word) {
  swerex__str_putc(out, '\'');
  for (const char *quote; (quote = strchr(word, '\'')) != NULL; word = quote + 1) {
    swerex__str_add(out, word, (size_t)(quote - word));
    swerex__str_puts(out, "'\\''");
  }
  swerex__str_puts(out, word);
  swerex__str_putc(out, '\'');
}

/* =============================================================================================
 * [shell] What is typed at a shell, and its marks
 * ========================================================================================== */
/* Pure text. A command is typed as one short line of printable bytes, `eval` of a quoted text that
 * ends in a tail; the tail writes the end mark straight to the terminal, so that it stands behind
 * all that the command wrote, whatever became of the shell's descriptors, prompt and options:
 *   ESC ] 7 ; NONCE ; SEQ ; EXIT CODE ; SHELL FLAGS ;
 * NONCE is secret and random per session, SEQ counts commands. Long texts go through a file. A
 * shell other than bash reads every command from the file with `.`. */

#define SWEREX__SHELL_PROMPT "SHELLPS1PREFIX"

enum { SWEREX__SHELL_LINE = 3800, SWEREX__SHELL_FLAGS = 32, SWEREX__SHELL_MARK = 96 };

typedef struct swerex__shell {
  char nonce[33];
  const char *terminal; /* where marks are written */
  const char *file;     /* what long texts are read from */
  bool posix;           /* no bash: dash, busybox sh, ... */
} swerex__shell;

/** How a command is to be sent. */
typedef struct swerex__shell_form {
  uint64_t seq;
  bool complete; /* the text is known to parse: the tail may stand inside the same eval */
  bool armoured; /* xtrace, verbose or a DEBUG trap are on: silence the wrapper itself */
  bool history;  /* history expansion is on: `!` must not reach a typed line */
  int restore;   /* exit code that $? must have at the start; 0: leave it */
} swerex__shell_form;

typedef struct swerex__shell_mark {
  size_t start, end; /* where it stands in the text */
  uint64_t seq;
  bool begin; /* the begin mark of an armoured command; else the end mark */
  int code;
  char flags[SWEREX__SHELL_FLAGS];
} swerex__shell_mark;

/** Add the tail that reports exit code and flags, without a line end. */
static void swerex__shell_add_tail(const swerex__shell *shell, const swerex__shell_form *form,
                                   swerex__str *out) {
  swerex__str_printf(out, "{ builtin printf '\\033]7;%s;%llu;%%s;%%s;' \"$?\" \"$-\"",
                     shell->nonce, (unsigned long long)form->seq);
  if (form->armoured)
    swerex__str_printf(out, " >%s; PS0= PS1=" SWEREX__SHELL_PROMPT "; } >/dev/null 2>&1",
                       shell->terminal);
  else
    swerex__str_printf(out, "; PS0= PS1=" SWEREX__SHELL_PROMPT "; } >%s 2>/dev/null",
                       shell->terminal);
}

/** Add a tail that works in any POSIX shell, for the end of a file read with `.`. */
static void swerex__shell_add_posix_tail(const swerex__shell *shell, uint64_t seq,
                                         swerex__str *out) {
  swerex__str_printf(out,
                     "{ _swx=$?; printf '\\033]7;%s;%llu;%%s;%%s;' \"$_swx\" \"$-\" >%s; "
                     "case $- in *e*) return 0;; *) return $_swx;; esac; } 2>/dev/null\n",
                     shell->nonce, (unsigned long long)seq, shell->terminal);
}

/** Add the text that goes before a command inside its eval. */
static void swerex__shell_add_head(const swerex__shell *shell, const swerex__shell_form *form,
                                   swerex__str *out) {
  if (form->armoured)
    swerex__str_printf(out, "{ builtin printf '\\033]7;%s;%llu;B;' >%s; } >/dev/null 2>&1\n",
                       shell->nonce, (unsigned long long)form->seq, shell->terminal);
  if (form->restore != 0) swerex__str_printf(out, "(exit %d)\n", form->restore);
}

/** Put together what bash is to evaluate: head, text and, if the text is complete, the tail. */
static void swerex__shell_add_body(const swerex__shell *shell, const swerex__shell_form *form,
                                   const char *text, size_t size, swerex__str *out) {
  swerex__shell_add_head(shell, form, out);
  swerex__str_add(out, text, size);
  if (!form->complete) return;
  swerex__str_putc(out, '\n');
  swerex__shell_add_tail(shell, form, out);
  swerex__str_putc(out, '\n');
}

/**
 * Compose the line to type for a command. `file` receives what must be written to the shell's file
 * before, and stays empty where the line holds everything.
 */
static void swerex__shell_compose(const swerex__shell *shell, const swerex__shell_form *form,
                                  const char *text, size_t size, swerex__str *line,
                                  swerex__str *file) {
  if (shell->posix) {
    swerex__str_add(file, text, size);
    swerex__str_putc(file, '\n');
    swerex__shell_add_posix_tail(shell, form->seq, file);
    swerex__str_printf(line, " . %s\n", shell->file);
    return;
  }
  swerex__str body = swerex__str_new(line->allocator, line->max);
  swerex__shell_add_body(shell, form, text, size, &body);
  bool typed = !(form->history && memchr(text, '!', size) != NULL);
  if (typed && !body.failed && body.size <= SWEREX__SHELL_LINE) {
    swerex__str_puts(line, " :; \\builtin eval ");
    swerex__bash_quote(line, body.data, body.size);
  }
  if (!typed || line->size == 0 || line->size > SWEREX__SHELL_LINE) {
    line->size = 0;
    swerex__str_puts(file, "{ builtin unset _swx; } 2>/dev/null\n");
    swerex__str_add(file, body.data, body.size);
    swerex__str_add(file, "", 1);
    swerex__str_printf(line, " IFS= \\builtin read -rd '' _swx <%s; \\builtin eval \"$_swx\"",
                       shell->file);
  }
  if (!form->complete) {
    swerex__str_puts(line, "; ");
    swerex__shell_add_tail(shell, form, line);
  }
  swerex__str_putc(line, '\n');
  line->failed = line->failed || body.failed;
  swerex__str_clear(&body);
}

/** Compose the line that only asks for the end mark. */
static void swerex__shell_compose_query(const swerex__shell *shell, uint64_t seq,
                                        swerex__str *line) {
  swerex__shell_form form = {seq, true, false, false, 0};
  if (shell->posix) {
    swerex__str_printf(line, " { printf '\\033]7;%s;%llu;%%s;%%s;' \"$?\" \"$-\"; } >%s 2>&1\n",
                       shell->nonce, (unsigned long long)seq, shell->terminal);
    return;
  }
  swerex__str_puts(line, " ");
  swerex__shell_add_tail(shell, &form, line);
  swerex__str_putc(line, '\n');
}

/** Compose the startup file of a session: the user's own, then what keeps the session in step. */
static void swerex__shell_compose_startup(const swerex__shell *shell, const char *const *sources,
                                          swerex__str *out) {
  swerex__shell_form form = {0, true, false, false, 0};
  if (!shell->posix) swerex__str_puts(out, "[ -f ~/.bashrc ] && . ~/.bashrc\n");
  for (; sources != NULL && *sources != NULL; sources++) {
    const char *path = *sources;
    swerex__str_puts(out, shell->posix ? ". " : "source ");
    if (path[0] == '~' && path[1] == '/') {
      swerex__str_puts(out, "~/");
      path += 2;
    } else if (shell->posix && strchr(path, '/') == NULL) {
      swerex__str_puts(out, "./");
    }
    swerex__bash_quote_word(out, path);
    swerex__str_putc(out, '\n');
  }
  if (shell->posix) {
    swerex__str_puts(out, "set +v +x\nPS1=" SWEREX__SHELL_PROMPT " PS2=\nexport PS1 PS2\n");
    swerex__shell_compose_query(shell, 0, out);
    return;
  }
  swerex__str_puts(out, "set +o history +H +v +x; set +o vi +o emacs 2>/dev/null\n"
                        "export PS1=" SWEREX__SHELL_PROMPT " PS2= PS0=\n");
  swerex__shell_add_tail(shell, &form, out);
  swerex__str_putc(out, '\n');
}

/** Read a number that ends in `;`; returns where it ends, NULL: it does not. */
static const char *swerex__shell_read_number(const char *at, const char *end, uint64_t *number) {
  const char *start = at;
  for (*number = 0; at < end && *at >= '0' && *at <= '9' && at - start < 18; at++)
    *number = *number * 10 + (uint64_t)(*at - '0');
  return at > start && at < end && *at == ';' ? at + 1 : NULL;
}

/** Read what follows the nonce of a mark; 1: a mark, 0: cut off, -1: none. */
static int swerex__shell_read_mark(const char *at, const char *end, swerex__shell_mark *mark) {
  uint64_t code;
  const char *limit = end - at > SWEREX__SHELL_MARK ? at + SWEREX__SHELL_MARK : end;
  int cut = limit == end ? 0 : -1;
  const char *next = swerex__shell_read_number(at, limit, &mark->seq);
  if (next == NULL) return memchr(at, ';', (size_t)(limit - at)) == NULL ? cut : -1;
  if (next == limit) return cut;
  mark->begin = *next == 'B';
  if (mark->begin) {
    mark->end = (size_t)(next + 2 - at);
    if (next + 1 == limit) return cut;
    return next[1] == ';' ? 1 : -1;
  }
  const char *flags = swerex__shell_read_number(next, limit, &code);
  if (flags == NULL) return memchr(next, ';', (size_t)(limit - next)) == NULL ? cut : -1;
  const char *stop = (const char *)memchr(flags, ';', (size_t)(limit - flags));
  if (stop == NULL) return cut;
  if (stop - flags >= SWEREX__SHELL_FLAGS) return -1;
  memcpy(mark->flags, flags, (size_t)(stop - flags));
  mark->flags[stop - flags] = '\0';
  mark->code = (int)code;
  mark->end = (size_t)(stop + 1 - at);
  return 1;
}

/**
 * Find the next mark in a text, from `from` on. True: *mark is set. False: there is none, and
 * *safe tells up to where no mark can begin.
 */
static bool swerex__shell_find_mark(const swerex__shell *shell, const char *text, size_t size,
                                    size_t from, swerex__shell_mark *mark, size_t *safe) {
  char head[48];
  size_t length = (size_t)snprintf(head, sizeof head, "\033]7;%s;", shell->nonce);
  while (from < size) {
    const char *esc = (const char *)memchr(text + from, 27, size - from);
    if (esc == NULL) break;
    size_t start = (size_t)(esc - text), have = size - start;
    if (memcmp(esc, head, have < length ? have : length) == 0) {
      int found = have < length ? 0 : swerex__shell_read_mark(esc + length, text + size, mark);
      if (found == 0) {
        *safe = start;
        return false;
      }
      if (found > 0) {
        mark->start = start;
        mark->end += start + length;
        return true;
      }
    }
    from = start + 1;
  }
  *safe = size;
  return false;
}

/** Return how many of the text's last bytes are the prompt: all of it, or 0. */
static size_t swerex__shell_prompt_at_end(const char *text, size_t size) {
  size_t length = sizeof SWEREX__SHELL_PROMPT - 1;
  return size >= length && memcmp(text + size - length, SWEREX__SHELL_PROMPT, length) == 0 ? length
                                                                                          : 0;
}

/** Tell whether a line is a shell's note that a background job is done, such as "[1]+  Done". */
static bool swerex__shell_is_job_note(const char *line, size_t size) {
  size_t i = 1;
  if (size < 8 || line[0] != '[') return false;
  while (i < size && line[i] >= '0' && line[i] <= '9') i++;
  if (i == 1 || i >= size || line[i] != ']') return false;
  i++;
  if (i < size && (line[i] == '+' || line[i] == '-')) i++;
  while (i < size && line[i] == ' ') i++;
  return (size - i >= 4 && memcmp(line + i, "Done", 4) == 0) ||
         (size - i >= 5 && memcmp(line + i, "Exit ", 5) == 0);
}

/** Remove from what came between two commands the prompt and the notes of jobs that are done. */
static void swerex__shell_clean_carry(swerex__str *carry) {
  size_t length = sizeof SWEREX__SHELL_PROMPT - 1, kept = 0;
  for (size_t i = 0; i + length <= carry->size; i++) {
    if (memcmp(carry->data + i, SWEREX__SHELL_PROMPT, length) != 0) continue;
    memmove(carry->data + i, carry->data + i + length, carry->size - i - length);
    carry->size -= length;
    break;
  }
  for (size_t i = 0; i < carry->size;) {
    char *line = carry->data + i;
    const char *feed = (const char *)memchr(line, '\n', carry->size - i);
    size_t size = feed == NULL ? carry->size - i : (size_t)(feed + 1 - line);
    if (!swerex__shell_is_job_note(line, size)) {
      memmove(carry->data + kept, line, size);
      kept += size;
    }
    i += size;
  }
  carry->size = kept;
}

/* =============================================================================================
 * [pty] Terminals
 * ========================================================================================== */
/* Opens a pseudo terminal as a session wants it: 24 rows, 80 columns, no echo, lines ended by CR LF
 * on output; and puts it back into that state before a line is typed. */

/** Set the modes that typing a line relies on; costs one ioctl where they stand already. */
static void swerex__pty_tame(int fd) {
  struct termios modes;
  if (tcgetattr(fd, &modes) != 0) return;
  tcflag_t local = (modes.c_lflag | ICANON | ISIG) & ~(tcflag_t)(ECHO | ECHONL);
  tcflag_t input = (modes.c_iflag | ICRNL) & ~(tcflag_t)(INLCR | IGNCR);
  tcflag_t output = modes.c_oflag | OPOST | ONLCR;
  if (local == modes.c_lflag && input == modes.c_iflag && output == modes.c_oflag) return;
  modes.c_lflag = local;
  modes.c_iflag = input;
  modes.c_oflag = output;
  tcsetattr(fd, TCSANOW, &modes);
}

static bool swerex__pty_resize(int fd, int rows, int columns) {
  struct winsize size;
  memset(&size, 0, sizeof size);
  size.ws_row = (unsigned short)rows;
  size.ws_col = (unsigned short)columns;
  return ioctl(fd, TIOCSWINSZ, &size) == 0;
}

/** Open both sides; `name` receives the path of the slave. False: errno says why. */
static bool swerex__pty_open(int *master, int *slave, char *name, size_t room) {
  *slave = -1;
  *master = posix_openpt(O_RDWR | O_NOCTTY);
  if (*master >= 0 && swerex__sys_prepare_fd(*master, true) && grantpt(*master) == 0 &&
      unlockpt(*master) == 0 && swerex__sys_terminal_name(*master, name, room))
    *slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*slave < 0) {
    swerex__sys_close(master);
    return false;
  }
  swerex__pty_tame(*slave);
  swerex__pty_resize(*slave, 24, 80);
  return true;
}

/**
 * Interrupt what is in front. A program other than the shell gets the signal itself: a Ctrl-C could
 * reach the shell instead, which takes the terminal back just when the program ends. The shell, and
 * what we may not signal, get the key.
 */
static void swerex__pty_interrupt(int master, pid_t shell) {
  struct termios modes;
  pid_t front = tcgetpgrp(master);
  bool known = tcgetattr(master, &modes) == 0;
  bool deaf = known && (modes.c_lflag & ISIG) == 0;
  if (front > 0 && (front != shell || deaf) && kill(-front, SIGINT) == 0) return;
  char key = known && modes.c_cc[VINTR] != 0 ? (char)modes.c_cc[VINTR] : 3;
  ssize_t n = write(master, &key, 1);
  if (n < 0 && front > 0) kill(-front, SIGINT); /* its input is full */
}

/* =============================================================================================
 * [sess] Live sessions
 * ========================================================================================== */
/* One shell at its prompt on a terminal of its own, below a keeper of its own. `front` says what
 * has the terminal; actions queue in order, each going CHECK, WAIT, PROMPT, COLLECT (and CODE),
 * while an interrupt acts at once. Nothing waits for a fixed time before an answer: an end mark, a
 * pattern, the prompt or the shell's end is an event. What the terminal says is read into `in`;
 * the action that collects takes it from there, else it stays for the next one. */

enum {
  SWEREX__SESS_CHUNK = 65536,
  SWEREX__SESS_READS = 16,
  SWEREX__SESS_LEFTOVER = 1 << 20, /* unclaimed output that is kept */
  SWEREX__SESS_HELD = 65536        /* output held back for a pattern that may be about to match */
};

/* Limits of waits for events, in seconds. */
#define SWEREX__SESS_PROMPT_TIME 0.02 /* for the prompt, before the next line is typed */
#define SWEREX__SESS_QUIET_TIME 0.02  /* after a prompt without a mark: command abandoned */
#define SWEREX__SESS_NESTED_TIME 0.08 /* the same with another program in front: nested shell */
#define SWEREX__SESS_CODE_TIME 1.5    /* for the exit code after `expect`; the original: 1 */
#define SWEREX__SESS_DRAIN_TIME 0.02  /* for the last output of a shell that has exited */
#define SWEREX__SESS_PAUSE_TIME 0.005 /* before Ctrl-C for a shell that may be forking */
#define SWEREX__SESS_PAUSES 20        /* for one that is busy; a loop of builtins stays so */
#define SWEREX__SESS_KILL_TIME 1.0    /* for the end of what was killed by an interrupt */

enum swerex__sess_front {
  SWEREX__SESS_STARTING,
  SWEREX__SESS_IDLE,    /* the shell is at its prompt */
  SWEREX__SESS_RUNNING, /* a typed command has not reported its end */
  SWEREX__SESS_NESTED,  /* the same, and it is a shell at its prompt */
  SWEREX__SESS_DEAD
};

enum swerex__sess_stage {
  SWEREX__SESS_QUEUED,
  SWEREX__SESS_CHECK,   /* waits for the syntax check */
  SWEREX__SESS_WAIT,    /* waits for an earlier command to end */
  SWEREX__SESS_PROMPT,  /* waits for the shell's prompt */
  SWEREX__SESS_COLLECT, /* its output is coming */
  SWEREX__SESS_CODE     /* `expect` has matched; waits a little for the exit code */
};

enum swerex__sess_kind { SWEREX__SESS_START, SWEREX__SESS_RUN, SWEREX__SESS_INTERRUPT };

typedef struct swerex__sess swerex__sess;

/** One request to a session, from its call to its answer. */
typedef struct swerex__sess_action {
  swerex__loop_link link; /* first member: in sess->queue or sess->interrupts while it waits */
  swerex__sess *sess;
  enum swerex__sess_kind kind;
  enum swerex__sess_stage stage;
  swerex_future *future;                  /* NULL: cancelled, to be dropped */
  swerex_bash_action run;                 /* RUN; owned */
  swerex_bash_interrupt_action interrupt; /* INTERRUPT; owned */
  swerex_output_watch watch;
  double timeout;
  bool complete;       /* the text is known to parse */
  bool checked;        /* nothing is left to do before it is typed */
  bool await_begin;    /* drop output up to the begin mark */
  bool drop_prompt;    /* a late prompt may stand before the output */
  swerex__proc *check; /* bash -n */
  swerex__re *expect;
  const char *const *patterns; /* of `expect`, borrowed from the request */
  uint64_t fed;                /* bytes that `expect` has seen */
  size_t held;                 /* of those, bytes that still stand at the start of sess->in */
  size_t pattern;              /* which one has matched */
  int tries;                   /* INTERRUPT: steps taken */
  int pauses;                  /* INTERRUPT: given to the shell, to start a program */
  swerex__text_filter filter;
  swerex__text_keep keep;
  swerex__loop_timer deadline, idle;
} swerex__sess_action;

typedef struct swerex__sess_options {
  size_t max_output;
  bool keep_daemons;
} swerex__sess_options;

struct swerex__sess {
  swerex__loop_link link; /* first member: in the runtime's list */
  swerex_loop *loop;
  char *name;
  swerex__sess_options options;
  swerex__keep *keep; /* its own: the shell and syntax checks run below it */
  swerex__keep_child child;
  pid_t pid; /* of the shell; 0: not known yet */
  swerex__poll_watch master;
  int file_fd;
  char file[PATH_MAX], terminal[64], program[PATH_MAX];
  swerex__shell shell;
  enum swerex__sess_front front;
  uint64_t seq; /* of the command in front */
  int last_code;
  char flags[SWEREX__SHELL_FLAGS]; /* the shell's $- after the last command */
  bool armoured;                   /* a DEBUG trap was mentioned once */
  bool prompt_lost;                /* the prompt did not come once: do not wait for it */
  bool querying;                   /* the query line was typed */
  bool queried;                    /* the last end mark came by it */
  bool quiet_once;                 /* the prompt has been quiet once, with another in front */
  bool prompt_is_text;             /* what looks like a prompt is not one */
  bool started;                    /* the startup files have ended */
  bool working;                    /* output is being handed out: do not advance */
  bool leaving;                    /* being closed: nobody may use it any more */
  bool exited, hung_up;
  int status;        /* of the shell, once it has exited */
  size_t scanned;    /* no mark begins before this in `in` */
  swerex__str in;    /* from the terminal, not yet taken */
  swerex_bytes told; /* what an error has told of the command that goes on: an interrupt's too */
  swerex__str out;   /* to the terminal, not yet written */
  swerex__loop_link queue, interrupts;
  swerex__sess_action *current;   /* START or RUN */
  swerex__sess_action *interrupt; /* beside it */
  swerex__loop_timer quiet, settle, death;
  swerex_future *closing;
  void (*closed)(swerex__sess *sess); /* it belongs to the callee then */
  void *owner;
};

/** Do all that can be done now. The one function that callbacks and the steps below share. */
static void swerex__sess_advance(swerex__sess *sess);

/* --- answers ------------------------------------------------------------------------------ */

static void swerex__sess_free_action(swerex__sess_action *action) {
  swerex_loop *loop = action->sess->loop;
  swerex__loop_link_remove(&action->link);
  swerex__loop_disarm(loop, &action->deadline);
  swerex__loop_disarm(loop, &action->idle);
  swerex__proc_free(action->check);
  swerex__re_free(action->expect);
  swerex__text_keep_clear(&action->keep);
  swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_ACTION), &action->run);
  swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_INTERRUPT_ACTION), &action->interrupt);
  swerex__mem_free(action);
}

/** Take an action out of the session and free it; returns its future, NULL if it was cancelled. */
static swerex_future *swerex__sess_retire(swerex__sess_action *action) {
  swerex_future *future = action->future;
  if (action->sess->current == action) action->sess->current = NULL;
  if (action->sess->interrupt == action) action->sess->interrupt = NULL;
  swerex__sess_free_action(action);
  return future;
}

static void swerex__sess_fail(swerex__sess_action *action, swerex_error *error) {
  swerex_future *future = swerex__sess_retire(action);
  if (future != NULL) swerex__loop_fail(future, error);
  swerex__err_clear(error);
}

static void swerex__sess_sink(void *user, const char *text, size_t size) {
  swerex__sess_action *action = (swerex__sess_action *)user;
  swerex__text_keep_add(&action->keep, text, size);
  if (action->watch.on_output != NULL && !action->watch.raw && action->future != NULL)
    action->watch.on_output(action->watch.user_data, SWEREX_STDOUT, text, size);
}

/** Take raw bytes from the terminal as output of an action. */
static void swerex__sess_emit(swerex__sess_action *action, const char *data, size_t size) {
  bool was_working = action->sess->working;
  if (size == 0) return;
  action->sess->working = true; /* a callback that starts calls must not find us half done */
  if (action->watch.on_output != NULL && action->watch.raw && action->future != NULL)
    action->watch.on_output(action->watch.user_data, SWEREX_STDOUT, data, size);
  swerex__text_filter_feed(&action->filter, data, size, swerex__sess_sink, action);
  action->sess->working = was_working;
}

/** Cut off a last line that holds the nonce: the shell's own trace of our wrapper. */
static void swerex__sess_cut_trace(const swerex__sess *sess, swerex_bytes *text) {
  size_t length = strlen(sess->shell.nonce);
  size_t from = text->size > 1024 ? text->size - 1024 : 0;
  for (size_t i = from; i + length <= text->size; i++) {
    if (memcmp(text->data + i, sess->shell.nonce, length) != 0) continue;
    while (i > 0 && text->data[i - 1] != '\n') i--;
    text->size = i;
    text->data[i] = '\0';
    return;
  }
}

/** Cut out a prompt that was shown before we asked for the end mark. */
static void swerex__sess_cut_prompt(swerex_bytes *text) {
  size_t length = sizeof SWEREX__SHELL_PROMPT - 1;
  for (size_t i = text->size; i >= length && text->size - i < 1024; i--) {
    char *at = text->data + i - length;
    if (memcmp(at, SWEREX__SHELL_PROMPT, length) != 0) continue;
    memmove(at, at + length, text->size - i + 1);
    text->size -= length;
    return;
  }
}

/** Take the text that an action has collected so far. */
static bool swerex__sess_take_output(swerex__sess_action *action, swerex_bytes *out,
                                     swerex_error *err) {
  bool was_working = action->sess->working;
  action->sess->working = true;
  swerex__text_filter_finish(&action->filter, swerex__sess_sink, action);
  action->sess->working = was_working;
  if (!swerex__text_keep_take(&action->keep, out, err)) return false;
  if (action->sess->queried) swerex__sess_cut_prompt(out);
  swerex__sess_cut_trace(action->sess, out);
  return true;
}

/** Write {"output": TEXT} for an error's extra_info; *json is NULL when out of memory. */
static void swerex__sess_describe_output(const swerex_bytes *output, swerex__str *json) {
  swerex__str_puts(json, "{\"output\":");
  swerex__json_add_string(json, output->data, output->size);
  swerex__str_putc(json, '}');
}

/** Fail an action with a message and, as extra_info.output, what it has printed. */
static void swerex__sess_fail_with_output(swerex__sess_action *action, swerex_code code,
                                          const char *message) {
  swerex_error error = SWEREX_ERROR_INIT;
  swerex_bytes output = {NULL, 0};
  swerex__str json = swerex__str_new(&action->sess->loop->allocator, SIZE_MAX / 2);
  if (swerex__sess_take_output(action, &output, &error)) {
    swerex__sess_describe_output(&output, &json);
    const char *const strings[4] = {message, json.failed ? NULL : json.data, NULL, NULL};
    swerex__err_fill(&error, code, strings);
  }
  swerex__str_clear(&json);
  swerex__mem_free(action->sess->told.data);
  action->sess->told = output;
  swerex__sess_fail(action, &error);
}

/** The same with a message under construction, which is released. */
static void swerex__sess_fail_with_text(swerex__sess_action *action, swerex_code code,
                                        swerex__str *message) {
  swerex__sess_fail_with_output(action, code, message->failed ? NULL : message->data);
  swerex__str_clear(message);
}

static swerex__str swerex__sess_message(const swerex__sess *sess) {
  return swerex__str_new(&sess->loop->allocator, SIZE_MAX / 2);
}

/** Fail an action because the session has ended, or is about to. */
static void swerex__sess_fail_ended(swerex__sess_action *action, const char *why) {
  swerex__str message = swerex__sess_message(action->sess);
  swerex__str_printf(&message, "session '%s' ", action->sess->name);
  if (why != NULL)
    swerex__str_puts(&message, why);
  else if (action->kind == SWEREX__SESS_START)
    swerex__str_printf(&message, "did not start: its shell ended with exit code %d while its "
                       "startup files ran",
                       swerex__proc_exit_code(action->sess->status));
  else
    swerex__str_printf(&message, "terminated (exit code %d); close it and create a new one",
                       swerex__proc_exit_code(action->sess->status));
  swerex__sess_fail_with_text(action, SWEREX_E_SESSION_TERMINATED, &message);
}

/** Remove blanks at both ends, as Python's strip does. */
static void swerex__sess_strip(swerex_bytes *text, bool end_too) {
  size_t start = 0;
  while (start < text->size && strchr(" \t\n\r\v\f", text->data[start]) != NULL &&
         text->data[start] != '\0')
    start++;
  text->size -= start;
  if (start > 0) memmove(text->data, text->data + start, text->size);
  while (end_too && text->size > 0 && text->data[text->size - 1] != '\0' &&
         strchr(" \t\n\r\v\f", text->data[text->size - 1]) != NULL)
    text->size--;
  if (text->data != NULL) text->data[text->size] = '\0';
}

/** Remove blanks and the echo of an interactive command, as the original does. */
static void swerex__sess_strip_echo(swerex_bytes *text, const char *command) {
  size_t size = strlen(command);
  swerex__sess_strip(text, false);
  if (size > 0 && text->size >= size && memcmp(text->data, command, size) == 0) {
    text->size -= size;
    memmove(text->data, text->data + size, text->size + 1);
  }
  swerex__sess_strip(text, true);
}

static bool swerex__sess_set_text(const swerex__sess *sess, swerex_bytes *to, const char *text) {
  to->data = swerex__mem_copy(&sess->loop->allocator, text, strlen(text));
  to->size = to->data == NULL ? 0 : strlen(text);
  return to->data != NULL;
}

/** Fail a RUN action for its exit code, in the original's words. */
static void swerex__sess_fail_code(swerex__sess_action *action, swerex_bytes *output, int code) {
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__str message = swerex__sess_message(action->sess);
  swerex__str json = swerex__sess_message(action->sess);
  if (action->run.error_msg != NULL && action->run.error_msg[0] != '\0')
    swerex__str_printf(&message, "%s: ", action->run.error_msg);
  swerex__str_puts(&message, "Command ");
  swerex__util_add_repr(&message, action->run.command, strlen(action->run.command));
  swerex__str_printf(&message, " failed with exit code %d. Here is the output:\n", code);
  swerex__util_add_repr(&message, output->data, output->size);
  swerex__sess_describe_output(output, &json);
  const char *const strings[4] = {message.failed ? NULL : message.data,
                                  json.failed ? NULL : json.data, NULL, NULL};
  swerex__err_fill(&error, SWEREX_E_NON_ZERO_EXIT_CODE, strings);
  swerex__str_clear(&message);
  swerex__str_clear(&json);
  swerex__mem_free(output->data);
  swerex__sess_fail(action, &error);
}

/** End an action well. `ended_by` is its expect_string; `reason` its failure_reason or NULL. */
static void swerex__sess_answer(swerex__sess_action *action, int code, const char *ended_by,
                                const char *reason) {
  swerex__sess *sess = action->sess;
  swerex_bash_observation seen;
  swerex_error error = SWEREX_ERROR_INIT;
  memset(&seen, 0, sizeof seen);
  seen.exit_code = code;
  bool ok = swerex__sess_take_output(action, &seen.output, &error);
  if (ok && action->kind == SWEREX__SESS_INTERRUPT) swerex__sess_strip(&seen.output, true);
  if (ok && action->kind == SWEREX__SESS_RUN && action->run.is_interactive_command)
    swerex__sess_strip_echo(&seen.output, action->run.command);
  if (ok && action->kind == SWEREX__SESS_RUN && action->run.check == SWEREX_CHECK_RAISE &&
      code != 0) {
    swerex__sess_fail_code(action, &seen.output, code);
    return;
  }
  if (ok && !(swerex__sess_set_text(sess, &seen.expect_string, ended_by) &&
              swerex__sess_set_text(sess, &seen.failure_reason, reason == NULL ? "" : reason)))
    ok = swerex__err_memory(&error);
  if (!ok) {
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_OBSERVATION), &seen);
    swerex__sess_fail(action, &error);
    return;
  }
  bool starting = action->kind == SWEREX__SESS_START;
  sess->started = true;
  swerex_future *future = swerex__sess_retire(action);
  if (future == NULL || starting) {
    if (future != NULL) {
      ((swerex_create_bash_session_response *)future->response)->output = seen.output;
      memset(&seen.output, 0, sizeof seen.output);
      swerex__loop_finish(future);
    }
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_OBSERVATION), &seen);
    return;
  }
  memcpy(future->response, &seen, sizeof seen);
  swerex__loop_finish(future);
}

/** Return the exit code to report for a RUN action whose command ended with `code`. */
static int swerex__sess_report_code(const swerex__sess_action *action, int code) {
  if (action->kind != SWEREX__SESS_RUN) return 0;
  if (action->run.is_interactive_command || action->run.is_interactive_quit) return 0;
  return action->run.check == SWEREX_CHECK_IGNORE ? SWEREX_NO_EXIT_CODE : code;
}

/* --- closing ----------------------------------------------------------------------------- */

/** Fail every action of a session that is being closed. */
static void swerex__sess_fail_all(swerex__sess *sess) {
  static const char why[] = "was closed";
  while (!swerex__loop_link_empty(&sess->queue))
    swerex__sess_fail_ended((swerex__sess_action *)sess->queue.next, why);
  while (!swerex__loop_link_empty(&sess->interrupts))
    swerex__sess_fail_ended((swerex__sess_action *)sess->interrupts.next, why);
  if (sess->interrupt != NULL) swerex__sess_fail_ended(sess->interrupt, why);
  if (sess->current != NULL) swerex__sess_fail_ended(sess->current, why);
}

/** Release a session; its keeper ends what still runs. */
static void swerex__sess_free(swerex__sess *sess) {
  if (sess == NULL) return;
  swerex__sess_fail_all(sess);
  if (sess->closing != NULL) swerex__loop_cancel(sess->closing);
  swerex__loop_link_remove(&sess->link);
  swerex__loop_disarm(sess->loop, &sess->quiet);
  swerex__loop_disarm(sess->loop, &sess->settle);
  swerex__loop_disarm(sess->loop, &sess->death);
  swerex__poll_drop(&sess->loop->poll, &sess->master);
  swerex__keep_forget(&sess->child);
  swerex__keep_free(sess->keep);
  swerex__sys_close_scratch(&sess->file_fd, sess->file);
  swerex__str_clear(&sess->in);
  swerex__str_clear(&sess->out);
  swerex__mem_free(sess->told.data);
  swerex__mem_free(sess->name);
  swerex__mem_free(sess);
}

static void swerex__sess_on_keep_ended(swerex__keep *keep) {
  swerex__sess *sess = (swerex__sess *)keep->owner;
  swerex_future *closing = sess->closing;
  sess->closing = NULL;
  sess->closed(sess);
  if (closing != NULL) swerex__loop_finish(closing);
}

static void swerex__sess_on_close(swerex__loop_timer *timer) {
  swerex__sess *sess = (swerex__sess *)timer->owner;
  swerex__sess_fail_all(sess);
  swerex__keep_forget(&sess->child);
  swerex__poll_drop(&sess->loop->poll, &sess->master);
  bool lost = sess->keep->lost;
  swerex__keep_stop(sess->keep, swerex__sess_on_keep_ended, sess);
  if (lost) swerex__sess_on_keep_ended(sess->keep);
}

static void swerex__sess_cancel_close(swerex_future *future) {
  ((swerex__sess *)future->operation)->closing = NULL;
}

/** End a session and all its processes; then `closed` is called and the future (or NULL) done. */
static void swerex__sess_close(swerex__sess *sess, swerex_future *future) {
  sess->leaving = true;
  sess->closing = future;
  if (future != NULL) {
    future->operation = sess;
    future->cancel = swerex__sess_cancel_close;
  }
  swerex__loop_disarm(sess->loop, &sess->quiet);
  swerex__loop_disarm(sess->loop, &sess->settle);
  swerex__loop_arm(sess->loop, &sess->death, 0, swerex__sess_on_close, sess);
}

/* --- the terminal ------------------------------------------------------------------------- */

/** Write what waits for the terminal, as far as it takes it. */
static void swerex__sess_flush(swerex__sess *sess) {
  size_t done = 0;
  while (done < sess->out.size) {
    ssize_t n = write(sess->master.fd, sess->out.data + done, sess->out.size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += (size_t)n;
  }
  swerex__str_drop(&sess->out, done);
  if (sess->hung_up) return;
  swerex__poll_set(&sess->loop->poll, &sess->master,
                   SWEREX__POLL_READ | (sess->out.size > 0 ? (unsigned)SWEREX__POLL_WRITE : 0U));
}

static bool swerex__sess_write(swerex__sess *sess, const char *data, size_t size) {
  swerex__str_add(&sess->out, data, size);
  if (sess->out.failed) {
    sess->out.failed = false;
    return false;
  }
  swerex__sess_flush(sess);
  return true;
}

static void swerex__sess_drop_in(swerex__sess *sess, size_t size) {
  swerex__str_drop(&sess->in, size);
  sess->scanned = sess->scanned > size ? sess->scanned - size : 0;
}

/** Type the line that asks for exit code and flags. */
static void swerex__sess_query(swerex__sess *sess) {
  swerex__str line = swerex__sess_message(sess);
  swerex__shell_compose_query(&sess->shell, sess->seq, &line);
  swerex__pty_tame(sess->master.fd);
  if (!line.failed) sess->querying = swerex__sess_write(sess, line.data, line.size);
  swerex__str_clear(&line);
}

/** Tell whether the shell itself has the terminal. */
static bool swerex__sess_shell_in_front(const swerex__sess *sess) {
  pid_t front = tcgetpgrp(sess->master.fd);
  return front <= 0 || sess->pid == 0 || front == sess->pid;
}

/** Tell whether what has the terminal is a shell, by its name; unknown counts as one. */
static bool swerex__sess_is_nested_shell(const swerex__sess *sess) {
  static const char *const names[] = {"bash", "sh", "dash", "ash", "ksh", "mksh", "zsh", "busybox"};
  char path[64], text[64];
  snprintf(path, sizeof path, "/proc/%ld/comm", (long)tcgetpgrp(sess->master.fd));
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  swerex__sys_close(&fd);
  if (n <= 0) return true;
  text[n - 1] = '\0'; /* it ends in a line feed */
  for (size_t i = 0; i < SWEREX__SYS_COUNT(names); i++)
    if (strcmp(text, names[i]) == 0) return true;
  return false;
}

/* --- taking output ------------------------------------------------------------------------ */

/** Return the action that the terminal's output belongs to, if any. */
static swerex__sess_action *swerex__sess_collector(const swerex__sess *sess) {
  swerex__sess_action *action = sess->current;
  if (action != NULL && action->stage >= SWEREX__SESS_COLLECT) return action;
  return sess->interrupt;
}

/** Return where the first prompt stands in what the terminal has said; its size: nowhere. */
static size_t swerex__sess_find_prompt(const swerex__sess *sess) {
  size_t length = sizeof SWEREX__SHELL_PROMPT - 1;
  for (size_t i = 0; i + length <= sess->in.size; i++)
    if (sess->in.data[i] == SWEREX__SHELL_PROMPT[0] &&
        memcmp(sess->in.data + i, SWEREX__SHELL_PROMPT, length) == 0)
      return i;
  return sess->in.size;
}

/** Drop the prompt of the command before, which came only after we had typed the next line. */
static void swerex__sess_drop_late_prompt(swerex__sess *sess, swerex__sess_action *action) {
  size_t length = sizeof SWEREX__SHELL_PROMPT - 1, at = swerex__sess_find_prompt(sess);
  if (at == sess->in.size) return;
  memmove(sess->in.data + at, sess->in.data + at + length, sess->in.size - at - length);
  sess->in.size -= length;
  sess->scanned = 0;
  sess->prompt_lost = action->drop_prompt = false;
}

/** Tell how much of the output an action's patterns may still need. */
static size_t swerex__sess_hold(swerex__sess_action *action, size_t limit) {
  uint64_t base = action->fed - limit, pending = swerex__re_pending(action->expect);
  size_t keep = pending > base ? (size_t)(pending - base) : 0;
  keep = keep > limit ? 0 : limit - keep;
  return keep > SWEREX__SESS_HELD ? SWEREX__SESS_HELD : keep;
}

/**
 * Give the first `limit` bytes of `in` to an action. True: one of its patterns has matched; then
 * `in` starts behind the match. Else what a pattern may still need stays in `in`.
 */
static bool swerex__sess_collect(swerex__sess *sess, swerex__sess_action *action, size_t limit) {
  swerex__re_match match;
  if (limit > action->held) {
    sess->quiet_once = false;
    if (action->idle.owner != NULL && action->stage == SWEREX__SESS_COLLECT)
      swerex__loop_arm(sess->loop, &action->idle, action->run.idle_timeout, action->idle.fire,
                       action);
  }
  if (action->await_begin) {
    swerex__sess_drop_in(sess, limit);
    return false;
  }
  size_t release = limit;
  if (action->expect != NULL && action->stage == SWEREX__SESS_COLLECT && limit > action->held) {
    uint64_t base = action->fed - action->held;
    bool found = swerex__re_feed(action->expect, sess->in.data + action->held,
                                 limit - action->held, &match);
    action->fed += limit - action->held;
    action->held = found ? 0 : swerex__sess_hold(action, limit);
    if (found) {
      action->pattern = match.pattern;
      swerex__sess_emit(action, sess->in.data,
                        match.start > base ? (size_t)(match.start - base) : 0);
      swerex__sess_drop_in(sess, (size_t)(match.end - base));
      return true;
    }
  }
  if (action->expect != NULL && action->stage == SWEREX__SESS_COLLECT) release -= action->held;
  swerex__sess_emit(action, sess->in.data, release);
  swerex__sess_drop_in(sess, release);
  return false;
}

/** Give an action also what was held back for its patterns, up to `limit`. */
static void swerex__sess_collect_rest(swerex__sess *sess, swerex__sess_action *action,
                                      size_t limit) {
  if (!action->await_begin) swerex__sess_emit(action, sess->in.data, limit);
  action->held = 0;
  swerex__sess_drop_in(sess, limit);
}

static void swerex__sess_on_deadline(swerex__loop_timer *timer);

/** One of an action's patterns has matched. */
static void swerex__sess_matched(swerex__sess_action *action) {
  const swerex_bash_action *run = &action->run;
  bool plain = action->kind == SWEREX__SESS_RUN && !run->is_interactive_command &&
               !run->is_interactive_quit && run->check != SWEREX_CHECK_IGNORE;
  if (!plain) {
    swerex__sess_answer(action, swerex__sess_report_code(action, 0),
                        action->patterns[action->pattern], NULL);
    return;
  }
  action->stage = SWEREX__SESS_CODE;
  swerex__loop_disarm(action->sess->loop, &action->idle);
  swerex__loop_arm(action->sess->loop, &action->deadline, SWEREX__SESS_CODE_TIME,
                   swerex__sess_on_deadline, action);
}

/** The command in front has ended, or a nested shell shows its prompt: answer who waits for it. */
static void swerex__sess_ended(swerex__sess *sess, int code) {
  swerex__sess_action *action = sess->current;
  swerex__sess_action *interrupt = sess->interrupt;
  if (action != NULL && action->stage >= SWEREX__SESS_COLLECT) {
    const char *ended_by = action->stage == SWEREX__SESS_CODE ? action->patterns[action->pattern]
                                                              : SWEREX__SHELL_PROMPT;
    swerex__sess_answer(action, swerex__sess_report_code(action, code), ended_by, NULL);
  }
  if (interrupt != NULL) swerex__sess_answer(interrupt, 0, SWEREX__SHELL_PROMPT, NULL);
}

/** A begin or end mark stands at mark->start; all before it was collected as far as it goes. */
static void swerex__sess_on_mark(swerex__sess *sess, const swerex__shell_mark *mark) {
  swerex__sess_action *action = swerex__sess_collector(sess);
  bool ours = mark->seq == sess->seq && sess->front != SWEREX__SESS_IDLE;
  if (mark->begin || !ours) {
    if (ours && action != NULL) action->await_begin = false;
    size_t size = mark->end - mark->start;
    memmove(sess->in.data + mark->start, sess->in.data + mark->end, sess->in.size - mark->end);
    sess->in.size -= size;
    sess->scanned = mark->start;
    return;
  }
  if (action != NULL) {
    swerex__sess_collect_rest(sess, action, mark->start);
    swerex__sess_drop_in(sess, mark->end - mark->start);
  } else {
    swerex__sess_drop_in(sess, mark->end); /* the rest of a command that was given up */
  }
  sess->front = SWEREX__SESS_IDLE;
  sess->queried = sess->querying;
  sess->querying = false;
  sess->last_code = mark->code;
  memcpy(sess->flags, mark->flags, sizeof sess->flags);
  swerex__sess_ended(sess, mark->code);
}

/** Keep unclaimed output within bounds: drop the oldest. */
static void swerex__sess_trim(swerex__sess *sess) {
  if (sess->in.size > SWEREX__SESS_LEFTOVER)
    swerex__sess_drop_in(sess, sess->in.size - SWEREX__SESS_LEFTOVER);
}

static void swerex__sess_on_quiet(swerex__loop_timer *timer);

/** Watch for a prompt at the end of the output that stays there. */
static void swerex__sess_watch_prompt(swerex__sess *sess, bool prompt) {
  bool busy = sess->front != SWEREX__SESS_IDLE && sess->front != SWEREX__SESS_DEAD;
  if (!prompt || !busy)
    swerex__loop_disarm(sess->loop, &sess->quiet);
  else if (!swerex__loop_armed(&sess->quiet))
    swerex__loop_arm(sess->loop, &sess->quiet,
                     sess->quiet_once ? SWEREX__SESS_NESTED_TIME : SWEREX__SESS_QUIET_TIME,
                     swerex__sess_on_quiet, sess);
}

/** Work through what the terminal has said. */
static void swerex__sess_process(swerex__sess *sess) {
  for (;;) {
    swerex__shell_mark mark;
    size_t safe = 0, prompt = 0;
    swerex__sess_action *action = swerex__sess_collector(sess);
    if (action != NULL && action->drop_prompt && action->held == 0)
      swerex__sess_drop_late_prompt(sess, action);
    bool found = swerex__shell_find_mark(&sess->shell, sess->in.data, sess->in.size,
                                         sess->scanned, &mark, &safe);
    if (!found && safe == sess->in.size && !sess->prompt_is_text)
      prompt = swerex__shell_prompt_at_end(sess->in.data, sess->in.size);
    size_t limit = found ? mark.start : safe - prompt;
    sess->scanned = limit;
    if (action != NULL && limit > 0) {
      size_t before = sess->in.size;
      if (swerex__sess_collect(sess, action, limit)) {
        swerex__sess_matched(action);
        sess->scanned = 0;
        continue;
      }
      mark.start -= before - sess->in.size;
      mark.end -= before - sess->in.size;
    }
    if (!found) {
      swerex__sess_watch_prompt(sess, prompt > 0);
      break;
    }
    swerex__sess_on_mark(sess, &mark);
  }
  swerex__sess_trim(sess);
}

/* --- typing ------------------------------------------------------------------------------- */

/** Tell whether the shell's prompt stands in what came after the last end mark. */
static bool swerex__sess_prompt_seen(const swerex__sess *sess) {
  return swerex__sess_find_prompt(sess) < sess->in.size;
}

/** Give an action what came between two commands: late output of background jobs. */
static void swerex__sess_give_carry(swerex__sess *sess, swerex__sess_action *action) {
  swerex__shell_clean_carry(&sess->in);
  if (sess->in.size > 0) swerex__sess_emit(action, sess->in.data, sess->in.size);
  swerex__sess_drop_in(sess, sess->in.size);
  sess->scanned = 0;
}

static swerex__shell_form swerex__sess_form(swerex__sess *sess, const swerex__sess_action *action) {
  const char *text = action->run.command;
  swerex__shell_form form = {++sess->seq, action->complete, false, false, 0};
  if (strstr(text, "DEBUG") != NULL || strstr(text, "exec") != NULL)
    sess->armoured = true; /* traps may run before a command, or the shell's stdin be another */
  form.armoured = sess->armoured || sess->prompt_lost || strpbrk(sess->flags, "xv") != NULL;
  form.history = strchr(sess->flags, 'H') != NULL;
  if (sess->last_code != 0 && strstr(text, "$?") != NULL && strchr(sess->flags, 'e') == NULL)
    form.restore = sess->last_code;
  return form;
}

static void swerex__sess_on_idle(swerex__loop_timer *timer);

/** Forget what was told of the command before. */
static void swerex__sess_forget_told(swerex__sess *sess) {
  swerex__mem_free(sess->told.data);
  sess->told.data = NULL;
  sess->told.size = 0;
}

/** The action's text is on its way: collect what comes. */
static void swerex__sess_begin_collecting(swerex__sess_action *action) {
  action->stage = SWEREX__SESS_COLLECT;
  swerex__sess_forget_told(action->sess);
  if (action->run.idle_timeout > 0)
    swerex__loop_arm(action->sess->loop, &action->idle, action->run.idle_timeout,
                     swerex__sess_on_idle, action);
}

/** Type an action's command at the shell's prompt. */
static void swerex__sess_type(swerex__sess_action *action) {
  swerex__sess *sess = action->sess;
  const char *text = action->run.command;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__str line = swerex__sess_message(sess), file = swerex__sess_message(sess);
  bool seen = swerex__sess_prompt_seen(sess);
  swerex__loop_disarm(sess->loop, &sess->settle);
  swerex__sess_give_carry(sess, action);
  swerex__shell_form form = swerex__sess_form(sess, action);
  swerex__shell_compose(&sess->shell, &form, text, strlen(text), &line, &file);
  swerex__pty_tame(sess->master.fd);
  if (line.failed || file.failed)
    swerex__err_memory(&error);
  else if (file.size > 0 && !swerex__sys_fill_scratch(sess->file_fd, file.data, file.size))
    swerex__err_system(&error, errno, sess->file);
  else if (!swerex__sess_write(sess, line.data, line.size))
    swerex__err_memory(&error);
  if (error.code != SWEREX_E_OK) {
    swerex__sess_fail(action, &error);
  } else {
    sess->front = SWEREX__SESS_RUNNING;
    sess->querying = sess->queried = sess->quiet_once = sess->prompt_is_text = false;
    action->drop_prompt = !seen && !sess->prompt_lost;
    sess->prompt_lost = !seen;
    action->await_begin = form.armoured && !sess->shell.posix;
    swerex__sess_begin_collecting(action);
  }
  swerex__str_clear(&line);
  swerex__str_clear(&file);
}

/** Send an action's text to the program in front. */
static void swerex__sess_send_raw(swerex__sess_action *action) {
  swerex__sess *sess = action->sess;
  swerex_error error = SWEREX_ERROR_INIT;
  const char *text = action->run.command;
  size_t size = strlen(text);
  if (action->run.is_interactive_quit && size > 0 && text[size - 1] == '\n')
    size--; /* a second line would be the shell's */
  if (swerex__sess_write(sess, text, size) && swerex__sess_write(sess, "\n", 1)) {
    swerex__sess_begin_collecting(action);
    return;
  }
  swerex__err_set(&error, SWEREX_E_OS,
                  "session '%s': the program in front does not read its input", sess->name);
  swerex__sess_fail(action, &error);
}

static void swerex__sess_on_settle(swerex__loop_timer *timer) {
  swerex__sess *sess = (swerex__sess *)timer->owner;
  if (sess->current != NULL && sess->current->stage == SWEREX__SESS_PROMPT)
    swerex__sess_type(sess->current);
  swerex__sess_advance(sess);
}

/** Take an action that needs no more checks as far as the state of the session lets it. */
static void swerex__sess_proceed(swerex__sess_action *action) {
  swerex__sess *sess = action->sess;
  bool raw = action->run.is_interactive_command || action->run.is_interactive_quit ||
             sess->front == SWEREX__SESS_NESTED;
  action->checked = true;
  if (sess->front == SWEREX__SESS_IDLE) {
    action->stage = SWEREX__SESS_PROMPT;
    if (sess->prompt_lost || swerex__sess_prompt_seen(sess))
      swerex__sess_type(action);
    else if (!swerex__loop_armed(&sess->settle))
      swerex__loop_arm(sess->loop, &sess->settle, SWEREX__SESS_PROMPT_TIME, swerex__sess_on_settle,
                       sess);
  } else if (raw) {
    swerex__sess_send_raw(action);
  } else {
    action->stage = SWEREX__SESS_WAIT;
  }
}

/* --- the syntax check --------------------------------------------------------------------- */

/** Fail an action for its syntax, in the original's words. */
static void swerex__sess_fail_syntax(swerex__sess_action *action, int code,
                                     const swerex_bytes texts[2]) {
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__str message = swerex__sess_message(action->sess);
  swerex__str json = swerex__sess_message(action->sess);
  swerex__str_printf(&message, "Error (exit code %d) while checking bash command \n", code);
  swerex__util_add_repr(&message, action->run.command, strlen(action->run.command));
  swerex__str_printf(&message, "\n---- Stderr ----\n%s\n---- Stdout ----\n%s", texts[1].data,
                     texts[0].data);
  swerex__str_puts(&json, "{\"bash_stdout\":");
  swerex__json_add_string(&json, texts[0].data, texts[0].size);
  swerex__str_puts(&json, ",\"bash_stderr\":");
  swerex__json_add_string(&json, texts[1].data, texts[1].size);
  swerex__str_putc(&json, '}');
  const char *const strings[4] = {message.failed ? NULL : message.data,
                                  json.failed ? NULL : json.data, NULL, NULL};
  swerex__err_fill(&error, SWEREX_E_BASH_INCORRECT_SYNTAX, strings);
  swerex__str_clear(&message);
  swerex__str_clear(&json);
  swerex__sess_fail(action, &error);
}

static void swerex__sess_on_checked(swerex__proc *proc) {
  swerex__sess_action *action = (swerex__sess_action *)proc->owner;
  swerex__sess *sess = action->sess;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex_bytes texts[2] = {{NULL, 0}, {NULL, 0}};
  bool ok = proc->end == SWEREX__PROC_EXITED;
  int code = swerex__proc_exit_code(proc->status);
  if (!ok && proc->end == SWEREX__PROC_NOT_STARTED)
    swerex__err_system(&error, proc->failed_errno, sess->program);
  else if (!ok)
    swerex__err_move(&error, &proc->error);
  for (int i = 0; i < 2 && ok; i++)
    ok = swerex__text_keep_take(&proc->pipes[i].keep, &texts[i], &error);
  action->check = NULL;
  swerex__proc_free(proc);
  if (!ok) {
    swerex__sess_fail(action, &error);
  } else if (code != 0) {
    swerex__sess_fail_syntax(action, code, texts);
  } else {
    action->complete = texts[1].size == 0;
    swerex__sess_proceed(action);
  }
  swerex__mem_free(texts[0].data);
  swerex__mem_free(texts[1].data);
  swerex__sess_advance(sess);
}

/** Have the shell parse an action's command without running it. */
static bool swerex__sess_check(swerex__sess_action *action, swerex_error *err) {
  swerex__sess *sess = action->sess;
  const char *argv[] = {sess->shell.posix ? "sh" : "bash", "-n", NULL};
  char path[PATH_MAX];
  swerex__proc_spec spec;
  memset(&spec, 0, sizeof spec);
  spec.path = sess->program;
  spec.argv = argv;
  spec.timeout = spec.idle_timeout = -1;
  spec.max_output = 1 << 20;
  spec.input = swerex__sys_open_scratch(path, sizeof path);
  const char *text = action->run.command;
  if (spec.input < 0 || !swerex__sys_write_all(spec.input, text, strlen(text)) ||
      !swerex__sys_write_all(spec.input, "\n", 1) || lseek(spec.input, 0, SEEK_SET) != 0) {
    swerex__err_system(err, errno, path);
  } else {
    action->stage = SWEREX__SESS_CHECK;
    action->check = swerex__proc_start(sess->loop, sess->keep, &spec,
                                       swerex__sess_on_checked, action, err);
  }
  swerex__sys_close_scratch(&spec.input, path);
  return action->check != NULL;
}

/* --- time limits -------------------------------------------------------------------------- */

/** Write a time limit as Python would; SWEREX_NOW is its 0. */
static void swerex__sess_add_seconds(swerex__str *message, double seconds) {
  swerex__util_add_double(message, seconds <= SWEREX_NOW ? 0 : seconds);
}

/** A RUN action has reached a limit; the command goes on. */
static void swerex__sess_time_out(swerex__sess_action *action, bool idle) {
  swerex__sess *sess = action->sess;
  swerex__str message = swerex__sess_message(sess);
  if (action->stage >= SWEREX__SESS_COLLECT && action->held > 0)
    swerex__sess_collect_rest(sess, action, action->held);
  swerex__str_puts(&message, idle ? "no output for " : "timeout after ");
  swerex__sess_add_seconds(&message, idle ? action->run.idle_timeout : action->timeout);
  swerex__str_puts(&message, " seconds while running command ");
  swerex__util_add_repr(&message, action->run.command, strlen(action->run.command));
  if (action->stage == SWEREX__SESS_WAIT)
    swerex__str_printf(&message,
                       ": it has not started, as an earlier command still runs in session '%s' "
                       "(interrupt it, or allow more time)",
                       sess->name);
  swerex__sess_fail_with_text(action, SWEREX_E_COMMAND_TIMEOUT, &message);
}

static void swerex__sess_on_idle(swerex__loop_timer *timer) {
  swerex__sess_action *action = (swerex__sess_action *)timer->owner;
  swerex__sess *sess = action->sess;
  swerex__sess_time_out(action, true);
  swerex__sess_advance(sess);
}

static void swerex__sess_step_interrupt(swerex__sess_action *action);

/** The exit code did not come after an expected output. */
static void swerex__sess_give_up_code(swerex__sess_action *action) {
  if (action->run.check == SWEREX_CHECK_SILENT) {
    swerex__sess_answer(action, SWEREX_NO_EXIT_CODE, action->patterns[action->pattern], NULL);
    return;
  }
  swerex__str message = swerex__sess_message(action->sess);
  swerex__str_puts(&message, "timeout while getting exit code: the output matched ");
  swerex__util_add_repr(&message, action->patterns[action->pattern],
                        strlen(action->patterns[action->pattern]));
  swerex__str_puts(&message, " and the command goes on (for a program that stays in front use "
                             "is_interactive_command, or check \"ignore\")");
  swerex__sess_fail_with_text(action, SWEREX_E_NO_EXIT_CODE, &message);
}

static void swerex__sess_on_deadline(swerex__loop_timer *timer) {
  swerex__sess_action *action = (swerex__sess_action *)timer->owner;
  swerex__sess *sess = action->sess;
  if (action->future == NULL) {
    swerex__sess_retire(action);
  } else if (action->kind == SWEREX__SESS_INTERRUPT) {
    swerex__sess_step_interrupt(action);
  } else if (action->kind == SWEREX__SESS_START) {
    swerex__str message = swerex__sess_message(sess);
    swerex__str_puts(&message, "timeout after ");
    swerex__sess_add_seconds(&message, action->timeout);
    swerex__str_printf(&message,
                       " seconds while starting session '%s': its startup files have not ended "
                       "(allow more with startup_timeout)",
                       sess->name);
    swerex__sess_fail_with_text(action, SWEREX_E_COMMAND_TIMEOUT, &message);
  } else if (action->stage == SWEREX__SESS_CODE) {
    swerex__sess_give_up_code(action);
  } else {
    swerex__sess_time_out(action, false);
  }
  swerex__sess_advance(sess);
}

/* --- interrupts --------------------------------------------------------------------------- */

/** Take the next step of an interrupt: Ctrl-C again, then a question or SIGKILL, then give up. */
static void swerex__sess_step_interrupt(swerex__sess_action *action) {
  swerex__sess *sess = action->sess;
  double wait = action->timeout;
  bool busy = action->pauses == 0 || swerex__sys_is_running(sess->pid);
  if (action->pauses < SWEREX__SESS_PAUSES && swerex__sess_shell_in_front(sess) && busy) {
    action->pauses++; /* it may be about to start a program, and would lose its terminal */
    swerex__loop_arm(sess->loop, &action->deadline, SWEREX__SESS_PAUSE_TIME,
                     swerex__sess_on_deadline, action);
    return;
  }
  swerex__str_drop(&sess->out, sess->out.size); /* what was meant for the interrupted */
  if (action->tries < action->interrupt.n_retry) {
    swerex__pty_interrupt(sess->master.fd, sess->pid);
  } else if (action->tries > action->interrupt.n_retry) {
    swerex__str message = swerex__sess_message(sess);
    swerex__str_printf(&message,
                       "failed to interrupt session '%s': its shell does not react to Ctrl-C; "
                       "close the session",
                       sess->name);
    swerex__sess_fail_with_text(action, SWEREX_E_COMMAND_TIMEOUT, &message);
    return;
  } else if (swerex__sess_shell_in_front(sess)) {
    if (!sess->querying) swerex__sess_query(sess);
  } else {
    kill(-tcgetpgrp(sess->master.fd), SIGKILL);
    wait = wait > SWEREX__SESS_KILL_TIME ? wait : SWEREX__SESS_KILL_TIME;
  }
  action->tries++;
  swerex__loop_arm(sess->loop, &action->deadline, wait, swerex__sess_on_deadline, action);
}

/** Start the next interrupt, if one waits. */
static bool swerex__sess_next_interrupt(swerex__sess *sess) {
  if (sess->interrupt != NULL || swerex__loop_link_empty(&sess->interrupts)) return false;
  swerex__sess_action *action = (swerex__sess_action *)sess->interrupts.next;
  swerex__loop_link_remove(&action->link);
  sess->interrupt = action;
  action->stage = SWEREX__SESS_COLLECT;
  swerex__text_keep_add(&action->keep, sess->told.data, sess->told.size);
  swerex__sess_forget_told(sess);
  if (action->future == NULL)
    swerex__sess_retire(action);
  else if (sess->front == SWEREX__SESS_DEAD)
    swerex__sess_fail_ended(action, NULL);
  else if (sess->front == SWEREX__SESS_IDLE)
    swerex__sess_answer(action, 0, SWEREX__SHELL_PROMPT, NULL);
  else
    swerex__sess_step_interrupt(action);
  return true;
}

/* --- prompts without a mark --------------------------------------------------------------- */

/** A shell in the shell waits at its prompt. */
static void swerex__sess_at_nested_prompt(swerex__sess *sess, size_t prompt) {
  swerex__sess_action *action = swerex__sess_collector(sess);
  sess->front = SWEREX__SESS_NESTED;
  if (action != NULL)
    swerex__sess_collect_rest(sess, action, sess->in.size - prompt);
  swerex__sess_drop_in(sess, prompt);
  swerex__sess_ended(sess, 0);
}

/** The prompt stands at the end of the output, and nothing has followed for a while. */
static void swerex__sess_on_quiet(swerex__loop_timer *timer) {
  swerex__sess *sess = (swerex__sess *)timer->owner;
  size_t prompt = swerex__shell_prompt_at_end(sess->in.data, sess->in.size);
  if (prompt == 0) return;
  if (sess->front == SWEREX__SESS_NESTED && !swerex__sess_shell_in_front(sess)) {
    swerex__sess_at_nested_prompt(sess, prompt);
  } else if (swerex__sess_shell_in_front(sess)) {
    swerex__sess_action *action = swerex__sess_collector(sess);
    if (action != NULL) swerex__sess_collect_rest(sess, action, sess->in.size - prompt);
    swerex__sess_drop_in(sess, prompt);
    if (action != NULL) action->await_begin = false;
    if (!sess->querying) {
      swerex__sess_query(sess);
    } else if (sess->pid > 0) {
      swerex__log(&sess->loop->logger, SWEREX_LOG_WARNING,
                  "session '%s': the shell was replaced by another program; ending it", sess->name);
      kill(sess->pid, SIGKILL);
    }
  } else if (!sess->quiet_once) {
    sess->quiet_once = true;
  } else if (swerex__sess_is_nested_shell(sess) && sess->front == SWEREX__SESS_RUNNING) {
    swerex__sess_at_nested_prompt(sess, prompt);
  } else {
    sess->prompt_is_text = true;
  }
  swerex__sess_advance(sess);
}

/* --- the shell's end ---------------------------------------------------------------------- */

/** The shell is gone and all its output is in. */
static void swerex__sess_die(swerex__sess *sess) {
  swerex__sess_action *action = swerex__sess_collector(sess);
  char reason[96];
  int code = swerex__proc_exit_code(sess->status);
  if (sess->front == SWEREX__SESS_DEAD) return;
  sess->front = SWEREX__SESS_DEAD;
  swerex__loop_disarm(sess->loop, &sess->quiet);
  swerex__loop_disarm(sess->loop, &sess->settle);
  swerex__loop_disarm(sess->loop, &sess->death);
  if (action != NULL) {
    swerex__sess_process(sess);
    action = swerex__sess_collector(sess);
  }
  if (action != NULL) swerex__sess_collect_rest(sess, action, sess->in.size);
  snprintf(reason, sizeof reason, "the session's shell has exited (exit code %d)", code);
  action = sess->current;
  if (action != NULL && action->await_begin)
    swerex__sess_fail_ended(action, "cannot run this: its shell ended before the command began; "
                                    "close it and create a new one");
  else if (action != NULL && action->kind == SWEREX__SESS_RUN &&
           action->stage >= SWEREX__SESS_COLLECT)
    swerex__sess_answer(action, swerex__sess_report_code(action, code), "", reason);
  else if (action != NULL)
    swerex__sess_fail_ended(action, NULL);
  if (sess->interrupt != NULL) swerex__sess_answer(sess->interrupt, 0, "", reason);
}

static void swerex__sess_on_death(swerex__loop_timer *timer) {
  swerex__sess *sess = (swerex__sess *)timer->owner;
  swerex__sess_die(sess);
  swerex__sess_advance(sess);
}

/** Take in what the keeper says about the shell. */
static void swerex__sess_on_report(swerex__keep_child *child, const swerex__keep_report *report) {
  swerex__sess *sess = (swerex__sess *)(void *)((char *)child - offsetof(swerex__sess, child));
  if (report->news == SWEREX__KEEP_STARTED) {
    sess->pid = (pid_t)report->value;
    return;
  }
  sess->exited = true;
  sess->status = report->news == SWEREX__KEEP_EXITED ? report->value : SIGKILL;
  if (report->news == SWEREX__KEEP_LOST && sess->pid > 0) kill(sess->pid, SIGKILL);
  if (report->news == SWEREX__KEEP_FAILED && sess->current != NULL) {
    swerex_error error = SWEREX_ERROR_INIT;
    bool folder = report->stage == SWEREX__KEEP_IN_CHDIR;
    swerex__err_system(&error, report->value,
                       folder ? sess->current->run.command : sess->program);
    swerex__sess_fail(sess->current, &error);
  }
  if (!sess->leaving)
    swerex__loop_arm(sess->loop, &sess->death, sess->hung_up ? 0 : SWEREX__SESS_DRAIN_TIME,
                     swerex__sess_on_death, sess);
}

/** Read the terminal until it is empty, or for a while. */
static void swerex__sess_on_ready(swerex__poll_watch *watch) {
  swerex__sess *sess = (swerex__sess *)watch->owner;
  if (sess->out.size > 0) swerex__sess_flush(sess);
  for (int i = 0; i < SWEREX__SESS_READS; i++) {
    char *into = swerex__str_reserve(&sess->in, SWEREX__SESS_CHUNK);
    if (into == NULL) {
      sess->in.failed = false;
      break;
    }
    ssize_t n = read(watch->fd, into, SWEREX__SESS_CHUNK);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) {
      sess->hung_up = true;
      swerex__poll_set(&sess->loop->poll, watch, 0);
      if (sess->exited && !sess->leaving)
        swerex__loop_arm(sess->loop, &sess->death, 0, swerex__sess_on_death, sess);
      break;
    }
    sess->in.size += (size_t)n;
    sess->prompt_is_text = false;
    swerex__loop_disarm(sess->loop, &sess->quiet);
    swerex__sess_process(sess);
  }
  swerex__sess_advance(sess);
}

/* --- the queue ---------------------------------------------------------------------------- */

/** Take the next action from the queue as far as it goes now; false: there is none to take. */
static bool swerex__sess_next(swerex__sess *sess) {
  swerex_error error = SWEREX_ERROR_INIT;
  if (sess->current != NULL || !sess->started || swerex__loop_link_empty(&sess->queue))
    return false;
  if (sess->exited) swerex__sess_die(sess);
  swerex__sess_action *action = (swerex__sess_action *)sess->queue.next;
  const swerex_bash_action *run = &action->run;
  swerex__loop_link_remove(&action->link);
  sess->current = action;
  if (action->future == NULL) {
    swerex__sess_retire(action);
    return true;
  }
  if (sess->front == SWEREX__SESS_DEAD) {
    swerex__sess_fail_ended(action, NULL);
    return true;
  }
  swerex__loop_arm(sess->loop, &action->deadline, action->timeout, swerex__sess_on_deadline,
                   action);
  bool interactive = run->is_interactive_command || run->is_interactive_quit;
  size_t size = strlen(run->command);
  if (!interactive && swerex__bash_is_blank(run->command, size)) {
    action->stage = SWEREX__SESS_COLLECT;
    swerex__sess_answer(action, swerex__sess_report_code(action, 0), SWEREX__SHELL_PROMPT, NULL);
    return true;
  }
  action->complete = !sess->shell.posix && swerex__bash_is_sure(run->command, size);
  if (action->complete || interactive)
    swerex__sess_proceed(action);
  else if (!swerex__sess_check(action, &error))
    swerex__sess_fail(action, &error);
  return true;
}

static void swerex__sess_advance(swerex__sess *sess) {
  bool again = !sess->working;
  while (again) {
    swerex__sess_process(sess);
    swerex__sess_action *action = sess->current;
    again = swerex__sess_next_interrupt(sess);
    if (action == NULL) {
      again = swerex__sess_next(sess) || again;
    } else if (action->stage == SWEREX__SESS_WAIT && sess->front == SWEREX__SESS_DEAD) {
      swerex__sess_fail_ended(action, NULL);
      again = true;
    } else if (action->stage == SWEREX__SESS_WAIT && sess->front != SWEREX__SESS_RUNNING) {
      swerex__sess_proceed(action);
      again = true;
    } else if (action->stage == SWEREX__SESS_PROMPT && swerex__sess_prompt_seen(sess)) {
      swerex__sess_type(action);
      again = true;
    }
  }
  if (!sess->started && !sess->leaving && sess->current == NULL) swerex__sess_close(sess, NULL);
}

/** The caller no longer wants an answer: it is dropped when nothing is using it. */
static void swerex__sess_cancel(swerex_future *future) {
  swerex__sess_action *action = (swerex__sess_action *)future->operation;
  action->future = NULL;
  swerex__loop_arm(action->sess->loop, &action->deadline, 0, swerex__sess_on_deadline, action);
}

static swerex__sess_action *swerex__sess_new_action(swerex__sess *sess,
                                                    enum swerex__sess_kind kind,
                                                    swerex_future *future, swerex_error *err) {
  swerex__sess_action *action =
    (swerex__sess_action *)swerex__mem_new(&sess->loop->allocator, 1, sizeof *action);
  if (action == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  action->sess = sess;
  action->kind = kind;
  swerex__text_filter_init(&action->filter, true);
  swerex__text_keep_init(&action->keep, &sess->loop->allocator, sess->options.max_output);
  action->future = future;
  return action;
}

/** Hand the action over: from now on the future ends by it. */
static void swerex__sess_bind(swerex__sess_action *action) {
  action->future->operation = action;
  action->future->cancel = swerex__sess_cancel;
}

/** Queue a command. On failure the future is untouched. */
static bool swerex__sess_run(swerex__sess *sess, const swerex_bash_action *run,
                             swerex_future *future, swerex_error *err) {
  swerex__sess_action *action = swerex__sess_new_action(sess, SWEREX__SESS_RUN, future, err);
  if (action == NULL) return false;
  bool ok = swerex__model_copy(&sess->loop->allocator, swerex__model_of(SWEREX_MODEL_BASH_ACTION),
                               run, &action->run, err);
  if (ok && run->expect != NULL && run->expect[0] != NULL) {
    action->expect = swerex__re_new(&sess->loop->allocator, action->run.expect, err);
    action->patterns = action->run.expect;
    ok = action->expect != NULL;
  }
  if (!ok) {
    swerex__sess_free_action(action);
    return false;
  }
  action->watch = run->watch;
  action->timeout = run->timeout == 0 ? SWEREX_FOREVER : run->timeout;
  if (run->max_output > 0)
    swerex__text_keep_init(&action->keep, &sess->loop->allocator, run->max_output);
  swerex__sess_bind(action);
  swerex__loop_link_insert(&sess->queue, &action->link);
  swerex__keep_is_alive(sess->keep); /* learn of a shell that has ended meanwhile */
  swerex__sess_advance(sess);
  return true;
}

/** Interrupt what runs. On failure the future is untouched. */
static bool swerex__sess_start_interrupt(swerex__sess *sess,
                                         const swerex_bash_interrupt_action *request,
                                         swerex_future *future, swerex_error *err) {
  swerex__sess_action *action = swerex__sess_new_action(sess, SWEREX__SESS_INTERRUPT, future, err);
  if (action == NULL) return false;
  bool ok = swerex__model_copy(&sess->loop->allocator,
                               swerex__model_of(SWEREX_MODEL_BASH_INTERRUPT_ACTION), request,
                               &action->interrupt, err);
  if (ok && request->expect != NULL && request->expect[0] != NULL) {
    action->expect = swerex__re_new(&sess->loop->allocator, action->interrupt.expect, err);
    action->patterns = action->interrupt.expect;
    ok = action->expect != NULL;
  }
  if (!ok) {
    swerex__sess_free_action(action);
    return false;
  }
  action->timeout = request->timeout == 0 ? 0.2 : request->timeout;
  if (action->interrupt.n_retry == 0) action->interrupt.n_retry = 3;
  if (action->interrupt.n_retry < 0) action->interrupt.n_retry = 0;
  swerex__sess_bind(action);
  swerex__loop_link_insert(&sess->interrupts, &action->link);
  swerex__sess_advance(sess);
  return true;
}

/* --- opening ------------------------------------------------------------------------------ */

/** Find a program on a PATH; false: it is not there. */
static bool swerex__sess_find_program(const char *name, const char *path, char *out, size_t room) {
  while (path != NULL && *path != '\0') {
    size_t size = strcspn(path, ":");
    struct stat status;
    int n = snprintf(out, room, "%.*s/%s", (int)size, path, name);
    if (size > 0 && n > 0 && (size_t)n < room && access(out, X_OK) == 0 &&
        stat(out, &status) == 0 && S_ISREG(status.st_mode))
      return true;
    path += size;
    if (*path == ':') path++;
  }
  return false;
}

/** Put the environment of a session together: inherited, asked for, ours. */
static const char **swerex__sess_environment(const swerex__sess *sess,
                                             const char *const *extra, const char *startup) {
  const char *const ours[] = {"PS1=" SWEREX__SHELL_PROMPT, "PS2=", "PS0=", startup};
  const char *const *const sources[] = {(const char *const *)environ, extra, ours};
  size_t counts[3] = {0, 0, startup != NULL ? 4 : 3}, count = 0;
  while (environ != NULL && environ[counts[0]] != NULL) counts[0]++;
  while (extra != NULL && extra[counts[1]] != NULL) counts[1]++;
  const char **list = (const char **)swerex__mem_new(&sess->loop->allocator,
                                                     counts[0] + counts[1] + 5, sizeof *list);
  if (list == NULL) return NULL;
  for (size_t s = 0; s < 3; s++)
    for (size_t i = 0; i < counts[s]; i++) {
      const char *entry = sources[s][i];
      size_t key = strcspn(entry, "="), at = 0;
      while (at < count && (strncmp(list[at], entry, key) != 0 || list[at][key] != '=')) at++;
      list[at] = entry;
      if (at == count) count++;
    }
  return list;
}

/** Find bash, else sh, for a session with this environment. */
static bool swerex__sess_find_shell(swerex__sess *sess, const char *const *env,
                                    swerex_error *err) {
  const char *path = swerex__keep_getenv(env, "PATH");
  if (path == NULL) path = "/usr/local/bin:/usr/bin:/bin";
  if (swerex__sess_find_program("bash", path, sess->program, sizeof sess->program)) return true;
  sess->shell.posix = true;
  if (swerex__sess_find_program("sh", path, sess->program, sizeof sess->program) ||
      swerex__sess_find_program("sh", "/bin", sess->program, sizeof sess->program))
    return true;
  swerex__err_set(err, SWEREX_E_FILE_NOT_FOUND,
                  "session '%s': neither bash nor sh is in PATH (%s); install bash, or set PATH in "
                  "the request's env",
                  sess->name, path);
  return false;
}

/** Write the startup file and start the shell on its terminal. */
static bool swerex__sess_launch(swerex__sess *sess, int slave,
                                const swerex_create_bash_session_request *request,
                                swerex_error *err) {
  char variable[PATH_MAX + 8];
  const char *argv[] = {"bash", "--noediting", "--rcfile", sess->file, "-i", NULL};
  swerex__keep_program program = {sess->program, argv, NULL, request->cwd, {slave, -1, -1}, true};
  swerex__str startup = swerex__sess_message(sess);
  snprintf(variable, sizeof variable, "ENV=%s", sess->file);
  const char **env = swerex__sess_environment(sess, request->env, NULL);
  bool ok = env != NULL ? swerex__sess_find_shell(sess, env, err) : swerex__err_memory(err);
  if (ok && sess->shell.posix) {
    swerex__mem_free(env);
    env = swerex__sess_environment(sess, request->env, variable);
    ok = env != NULL || swerex__err_memory(err);
    argv[0] = "sh";
    argv[1] = "-i";
    argv[2] = NULL;
  }
  if (ok) {
    program.env = env;
    swerex__shell_compose_startup(&sess->shell, request->startup_source, &startup);
    ok = startup.failed ? swerex__err_memory(err)
                        : swerex__sys_fill_scratch(sess->file_fd, startup.data, startup.size) ||
                            swerex__err_system(err, errno, sess->file);
  }
  ok = ok && swerex__keep_start(sess->keep, &program, &sess->child, err);
  swerex__mem_free(env);
  swerex__str_clear(&startup);
  return ok;
}

/** Make the parts of a session that need the system. */
static bool swerex__sess_equip(swerex__sess *sess, swerex__keep *parent, int *slave,
                               swerex_error *err) {
  unsigned char nonce[16];
  int policy = SWEREX__KEEP_HANGUP | (sess->options.keep_daemons ? SWEREX__KEEP_SPARE : 0);
  if (!swerex__util_random(nonce, sizeof nonce))
    return swerex__err_system(err, errno, "/dev/urandom");
  swerex__util_hex(sess->shell.nonce, nonce, sizeof nonce);
  sess->file_fd = swerex__sys_open_scratch(sess->file, sizeof sess->file);
  if (sess->file_fd < 0) return swerex__err_system(err, errno, sess->file);
  if (!swerex__pty_open(&sess->master.fd, slave, sess->terminal, sizeof sess->terminal) ||
      !swerex__poll_set(&sess->loop->poll, &sess->master, SWEREX__POLL_READ))
    return swerex__err_system(err, errno, "pseudo terminal");
  sess->shell.terminal = access("/dev/tty", F_OK) == 0 ? "/dev/tty" : sess->terminal;
  sess->shell.file = sess->file;
  sess->keep = swerex__keep_fork(sess->loop, parent, policy, err);
  return sess->keep != NULL;
}

/** Make the action that waits for the end of the startup files. */
static bool swerex__sess_expect_start(swerex__sess *sess,
                                      const swerex_create_bash_session_request *request,
                                      swerex_future *future, swerex_error *err) {
  const char *cwd = request->cwd != NULL ? request->cwd : "";
  swerex__sess_action *action = swerex__sess_new_action(sess, SWEREX__SESS_START, future, err);
  if (action == NULL) return false;
  action->stage = SWEREX__SESS_COLLECT;
  action->watch = request->watch;
  action->timeout = request->startup_timeout == 0 ? 10.0 : request->startup_timeout;
  action->run.command = swerex__mem_copy(&sess->loop->allocator, cwd, strlen(cwd));
  if (action->run.command == NULL) {
    swerex__sess_free_action(action);
    return swerex__err_memory(err);
  }
  swerex__sess_bind(action);
  sess->current = action;
  swerex__loop_arm(sess->loop, &action->deadline, action->timeout, swerex__sess_on_deadline,
                   action);
  return true;
}

/** Open a session below a runtime's keeper. NULL: failed, and the future is untouched. */
static swerex__sess *swerex__sess_open(swerex_loop *loop, swerex__keep *runtime_keep,
                                       const char *name, const swerex__sess_options *options,
                                       const swerex_create_bash_session_request *request,
                                       swerex_future *future, swerex_error *err) {
  int slave = -1;
  swerex__sess *sess = (swerex__sess *)swerex__mem_new(&loop->allocator, 1, sizeof *sess);
  if (sess == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  sess->loop = loop;
  sess->options = *options;
  sess->master.fd = sess->file_fd = -1;
  sess->master.ready = swerex__sess_on_ready;
  sess->master.owner = sess;
  sess->child.report = swerex__sess_on_report;
  sess->in = swerex__str_new(&loop->allocator, SIZE_MAX / 2);
  sess->out = swerex__str_new(&loop->allocator, 1 << 24);
  swerex__loop_link_init(&sess->queue);
  swerex__loop_link_init(&sess->interrupts);
  sess->name = swerex__mem_copy(&loop->allocator, name, strlen(name));
  bool ok = sess->name != NULL || swerex__err_memory(err);
  ok = ok && swerex__sess_equip(sess, runtime_keep, &slave, err);
  ok = ok && swerex__sess_launch(sess, slave, request, err);
  ok = ok && swerex__sess_expect_start(sess, request, future, err);
  swerex__sys_close(&slave);
  if (ok) return sess;
  swerex__sess_free(sess);
  return NULL;
}

/* =============================================================================================
 * [local] The local runtime
 * ========================================================================================== */
/* Sessions, commands and files of this machine. One keeper below the loop's holds all its
 * processes: closing the runtime ends it, and with it whatever is left. */

#define SWEREX__LOCAL_UPLOAD_PAUSE 0.0 /* between two steps of an upload: let others work */

typedef struct swerex__local {
  swerex_runtime base; /* first member */
  swerex_local_config config;
  swerex__keep *keep;          /* NULL: not needed yet, or closed */
  swerex__loop_link sessions;  /* swerex__sess */
  swerex__loop_link jobs;      /* swerex__local_job: commands and uploads under way */
  swerex_future *closing;
} swerex__local;

/** A command or an upload under way. */
typedef struct swerex__local_job {
  swerex__loop_link link; /* first member */
  swerex__local *local;
  swerex_future *future; /* NULL: cancelled */
  swerex_command command; /* owned */
  swerex__proc *proc;
  swerex__fs_copy *copy;
  swerex__loop_timer step;
} swerex__local_job;

static swerex__keep *swerex__local_keep(swerex__local *local, swerex_error *err) {
  if (local->keep != NULL && !swerex__keep_is_alive(local->keep)) {
    swerex__keep_free(local->keep);
    local->keep = NULL;
  }
  if (local->keep == NULL)
    local->keep = swerex__keep_fork(local->base.loop, NULL,
                                    local->config.keep_daemons ? SWEREX__KEEP_SPARE : 0, err);
  return local->keep;
}

static const char *swerex__local_session_name(const char *name) {
  return name == NULL ? "default" : name;
}

/** Find an open session; NULL, and the original's words, if there is none of that name. */
static swerex__sess *swerex__local_find(const swerex__local *local, const char *name,
                                        swerex_error *err) {
  name = swerex__local_session_name(name);
  for (swerex__loop_link *link = local->sessions.next; link != &local->sessions;
       link = link->next) {
    swerex__sess *sess = (swerex__sess *)link;
    if (!sess->leaving && strcmp(sess->name, name) == 0) return sess;
  }
  swerex__str message = swerex__str_new(&local->base.loop->allocator, 1 << 20);
  swerex__util_add_repr(&message, name, strlen(name));
  swerex__err_set(err, SWEREX_E_SESSION_DOES_NOT_EXIST, "session %s does not exist",
                  message.failed ? name : message.data);
  swerex__str_clear(&message);
  return NULL;
}

static void swerex__local_check_closed(swerex__local *local);

static void swerex__local_session_closed(swerex__sess *sess) {
  swerex__local *local = (swerex__local *)sess->owner;
  swerex__sess_free(sess);
  swerex__local_check_closed(local);
}

static bool swerex__local_create_session(swerex_runtime *runtime, const void *request,
                                         swerex_future *future, swerex_error *err) {
  swerex__local *local = (swerex__local *)runtime;
  const swerex_create_bash_session_request *create =
    (const swerex_create_bash_session_request *)request;
  const char *name = swerex__local_session_name(create->session);
  swerex__sess_options options = {local->config.max_output,
                                  create->keep_daemons || local->config.keep_daemons};
  if (swerex__local_find(local, name, NULL) != NULL)
    return swerex__err_set(err, SWEREX_E_SESSION_EXISTS, "session %s already exists", name);
  swerex__keep *keep = swerex__local_keep(local, err);
  if (keep == NULL) return false;
  swerex__sess *sess =
    swerex__sess_open(runtime->loop, keep, name, &options, create, future, err);
  if (sess == NULL) return false;
  sess->closed = swerex__local_session_closed;
  sess->owner = local;
  swerex__loop_link_insert(&local->sessions, &sess->link);
  return true;
}

static bool swerex__local_run_in_session(swerex_runtime *runtime, const void *request,
                                         swerex_future *future, swerex_error *err) {
  const swerex_bash_action *action = (const swerex_bash_action *)request;
  if (action->is_interactive_command && action->is_interactive_quit)
    return swerex__err_set(err, SWEREX_E_VALUE,
                           "is_interactive_command and is_interactive_quit exclude each other");
  swerex__sess *sess = swerex__local_find((swerex__local *)runtime, action->session, err);
  return sess != NULL && swerex__sess_run(sess, action, future, err);
}

static bool swerex__local_interrupt_session(swerex_runtime *runtime, const void *request,
                                            swerex_future *future, swerex_error *err) {
  const swerex_bash_interrupt_action *action = (const swerex_bash_interrupt_action *)request;
  swerex__sess *sess = swerex__local_find((swerex__local *)runtime, action->session, err);
  return sess != NULL && swerex__sess_start_interrupt(sess, action, future, err);
}

static bool swerex__local_close_session(swerex_runtime *runtime, const void *request,
                                        swerex_future *future, swerex_error *err) {
  const swerex_close_bash_session_request *close =
    (const swerex_close_bash_session_request *)request;
  swerex__sess *sess = swerex__local_find((swerex__local *)runtime, close->session, err);
  if (sess == NULL) return false;
  swerex__sess_close(sess, future);
  return true;
}

/* --- execute ------------------------------------------------------------------------------ */

static void swerex__local_free_job(swerex__local_job *job) {
  swerex__loop_link_remove(&job->link);
  swerex__loop_disarm(job->local->base.loop, &job->step);
  swerex__proc_free(job->proc);
  swerex__fs_copy_free(job->copy);
  swerex__model_clear(swerex__model_of(SWEREX_MODEL_COMMAND), &job->command);
  swerex__mem_free(job);
}

/** End a job's future with an error (moved), or well, and free the job. */
static void swerex__local_end_job(swerex__local_job *job, bool ok, swerex_error *error) {
  swerex__local *local = job->local;
  swerex_future *future = job->future;
  swerex__local_free_job(job);
  if (future != NULL && ok) swerex__loop_finish(future);
  if (future != NULL && !ok) swerex__loop_fail(future, error);
  swerex__err_clear(error);
  swerex__local_check_closed(local);
}

static swerex__local_job *swerex__local_new_job(swerex__local *local, swerex_future *future,
                                                swerex_error *err) {
  swerex__local_job *job =
    (swerex__local_job *)swerex__mem_new(&local->base.loop->allocator, 1, sizeof *job);
  if (job == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  job->local = local;
  job->future = future;
  swerex__loop_link_insert(&local->jobs, &job->link);
  return job;
}

/** Write the command as Python's repr would show it. */
static void swerex__local_add_command(swerex__str *message, const swerex_command *command) {
  if (command->argv != NULL)
    swerex__util_add_repr_list(message, command->argv);
  else
    swerex__util_add_repr(message, command->command, strlen(command->command));
}

/** Set an error with the output so far: {"stdout": ..., "stderr": ...}. */
static void swerex__local_set_error(const swerex__local_job *job, swerex_error *error,
                                    swerex_code code, swerex__str *message,
                                    const swerex_command_response *response) {
  swerex__str json = swerex__str_new(&job->local->base.loop->allocator, SIZE_MAX / 2);
  swerex__str_puts(&json, "{\"stdout\":");
  swerex__json_add_string(&json, response->stdout_text.data, response->stdout_text.size);
  swerex__str_puts(&json, ",\"stderr\":");
  swerex__json_add_string(&json, response->stderr_text.data, response->stderr_text.size);
  swerex__str_putc(&json, '}');
  const char *const strings[4] = {message->failed ? NULL : message->data,
                                  json.failed ? NULL : json.data, NULL, NULL};
  swerex__err_fill(error, code, strings);
  swerex__str_clear(message);
  swerex__str_clear(&json);
}

/** Describe a time limit that was reached, in the original's words where it has some. */
static void swerex__local_set_timeout(const swerex__local_job *job, swerex_error *error,
                                      const swerex_command_response *response) {
  bool idle = job->proc->end == SWEREX__PROC_IDLE;
  double limit = idle ? job->command.idle_timeout : job->command.timeout;
  swerex__str message = swerex__str_new(&job->local->base.loop->allocator, SIZE_MAX / 2);
  swerex__str_puts(&message, idle ? "No output for " : "Timeout (");
  swerex__util_add_double(&message, limit <= SWEREX_NOW ? 0 : limit);
  swerex__str_puts(&message, idle ? "s" : "s) exceeded");
  swerex__str_puts(&message, " while running command");
  swerex__local_set_error(job, error, SWEREX_E_COMMAND_TIMEOUT, &message, response);
}

/** Describe a non-zero exit code in the original's words. */
static void swerex__local_set_exit_code(const swerex__local_job *job, swerex_error *error,
                                        const swerex_command_response *response) {
  swerex__str message = swerex__str_new(&job->local->base.loop->allocator, SIZE_MAX / 2);
  if (job->command.error_msg != NULL && job->command.error_msg[0] != '\0')
    swerex__str_printf(&message, "%s: ", job->command.error_msg);
  swerex__str_puts(&message, "Command ");
  swerex__local_add_command(&message, &job->command);
  swerex__str_printf(&message, " failed with exit code %d. Stdout:\n", response->exit_code);
  swerex__util_add_repr(&message, response->stdout_text.data, response->stdout_text.size);
  swerex__str_puts(&message, "\nStderr:\n");
  swerex__util_add_repr(&message, response->stderr_text.data, response->stderr_text.size);
  swerex__local_set_error(job, error, SWEREX_E_NON_ZERO_EXIT_CODE, &message, response);
}

/** Describe why a command could not be started. */
static void swerex__local_set_not_started(const swerex__local_job *job, swerex_error *error) {
  const swerex_command *command = &job->command;
  const char *program = command->shell           ? "/bin/sh"
                        : command->argv != NULL ? command->argv[0]
                                                : command->command;
  if (job->proc->failed_stage == SWEREX__KEEP_IN_CHDIR && command->cwd != NULL)
    program = command->cwd;
  swerex__err_system(error, job->proc->failed_errno, program);
}

/** The command is over: give its answer. */
static void swerex__local_on_executed(swerex__proc *proc) {
  swerex__local_job *job = (swerex__local_job *)proc->owner;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex_command_response response;
  memset(&response, 0, sizeof response);
  response.exit_code = swerex__proc_exit_code(proc->status);
  bool ok = swerex__text_keep_take(&proc->pipes[0].keep, &response.stdout_text, &error) &&
            swerex__text_keep_take(&proc->pipes[1].keep, &response.stderr_text, &error);
  if (ok && proc->end != SWEREX__PROC_EXITED) {
    ok = false;
    if (proc->end == SWEREX__PROC_NOT_STARTED)
      swerex__local_set_not_started(job, &error);
    else if (proc->end == SWEREX__PROC_BROKEN)
      swerex__err_move(&error, &proc->error);
    else
      swerex__local_set_timeout(job, &error, &response);
  } else if (ok && job->command.check && response.exit_code != 0) {
    ok = false;
    swerex__local_set_exit_code(job, &error, &response);
  }
  if (ok && job->future != NULL)
    memcpy(job->future->response, &response, sizeof response);
  else
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_COMMAND_RESPONSE), &response);
  swerex__local_end_job(job, ok, &error);
}

static void swerex__local_cancel_job(swerex_future *future) {
  swerex__local_job *job = (swerex__local_job *)future->operation;
  job->future = NULL;
  if (job->proc != NULL) swerex__proc_stop(job->proc, SWEREX__PROC_TIMED_OUT);
}

/** Make argv as subprocess does: the shell's, the list, or the one name. */
static const char **swerex__local_argv(const swerex__local *local, const swerex_command *command) {
  const char *const single[] = {command->command, NULL};
  const char *const *list = command->argv != NULL ? command->argv : single;
  size_t count = 0, at = 0;
  while (list[count] != NULL) count++;
  const char **argv = (const char **)swerex__mem_new(&local->base.loop->allocator, count + 3,
                                                     sizeof *argv);
  if (argv == NULL) return NULL;
  if (command->shell) {
    argv[at++] = "/bin/sh";
    argv[at++] = "-c";
  }
  for (size_t i = 0; i < count; i++) argv[at++] = list[i];
  return argv;
}

static double swerex__local_limit(double seconds) {
  return seconds == 0 ? SWEREX_FOREVER : seconds;
}

static bool swerex__local_execute(swerex_runtime *runtime, const void *request,
                                  swerex_future *future, swerex_error *err) {
  swerex__local *local = (swerex__local *)runtime;
  const swerex_command *command = (const swerex_command *)request;
  swerex__proc_spec spec;
  if (command->argv != NULL && command->argv[0] == NULL)
    return swerex__err_set(err, SWEREX_E_VALUE, "command is an empty list");
  swerex__keep *keep = swerex__local_keep(local, err);
  swerex__local_job *job = keep == NULL ? NULL : swerex__local_new_job(local, future, err);
  if (job == NULL) return false;
  const char **argv = swerex__local_argv(local, command);
  memset(&spec, 0, sizeof spec);
  spec.argv = argv;
  spec.env = command->env;
  spec.cwd = command->cwd;
  spec.input = -1;
  spec.merge = command->merge_output_streams;
  spec.timeout = swerex__local_limit(command->timeout);
  spec.idle_timeout = swerex__local_limit(command->idle_timeout);
  spec.max_output = command->max_output > 0 ? command->max_output : local->config.max_output;
  spec.watch = command->watch;
  bool ok = argv != NULL || swerex__err_memory(err);
  ok = ok && swerex__model_copy(&runtime->loop->allocator, swerex__model_of(SWEREX_MODEL_COMMAND),
                                command, &job->command, err);
  if (ok) {
    job->proc =
      swerex__proc_start(runtime->loop, keep, &spec, swerex__local_on_executed, job, err);
    ok = job->proc != NULL;
  }
  swerex__mem_free(argv);
  if (!ok) {
    swerex__local_free_job(job);
    return false;
  }
  future->operation = job;
  future->cancel = swerex__local_cancel_job;
  return true;
}

/* --- files -------------------------------------------------------------------------------- */

static bool swerex__local_read_file(swerex_runtime *runtime, const void *request,
                                    swerex_future *future, swerex_error *err) {
  const swerex__local *local = (const swerex__local *)runtime;
  swerex_read_file_response *response = (swerex_read_file_response *)future->response;
  if (!swerex__fs_read_text(&runtime->loop->allocator, (const swerex_read_file_request *)request,
                            local->config.max_file, &response->content, err))
    return false;
  swerex__loop_finish(future);
  return true;
}

static bool swerex__local_write_file(swerex_runtime *runtime, const void *request,
                                     swerex_future *future, swerex_error *err) {
  const swerex_write_file_request *write_file = (const swerex_write_file_request *)request;
  if (!swerex__fs_write(&runtime->loop->allocator, write_file->path, write_file->content.data,
                        write_file->content.size, err))
    return false;
  swerex__loop_finish(future);
  return true;
}

/** Do a bounded part of an upload, and come back for the rest. */
static void swerex__local_on_step(swerex__loop_timer *timer) {
  swerex__local_job *job = (swerex__local_job *)timer->owner;
  swerex_error error = SWEREX_ERROR_INIT;
  if (job->future == NULL) {
    swerex__local_end_job(job, false, &error);
    return;
  }
  swerex__fs_progress progress = swerex__fs_copy_step(job->copy, &error);
  if (progress == SWEREX__FS_MORE)
    swerex__loop_arm(job->local->base.loop, &job->step, SWEREX__LOCAL_UPLOAD_PAUSE,
                     swerex__local_on_step, job);
  else
    swerex__local_end_job(job, progress == SWEREX__FS_DONE, &error);
}

static bool swerex__local_upload(swerex_runtime *runtime, const void *request,
                                 swerex_future *future, swerex_error *err) {
  swerex__local *local = (swerex__local *)runtime;
  const swerex_upload_request *upload = (const swerex_upload_request *)request;
  swerex__local_job *job = swerex__local_new_job(local, future, err);
  if (job == NULL) return false;
  job->copy = swerex__fs_copy_new(&runtime->loop->allocator, upload->source_path,
                                  upload->target_path, err);
  if (job->copy == NULL) {
    swerex__local_free_job(job);
    return false;
  }
  future->operation = job;
  future->cancel = swerex__local_cancel_job;
  swerex__loop_arm(runtime->loop, &job->step, 0, swerex__local_on_step, job);
  return true;
}

/* --- closing ------------------------------------------------------------------------------ */

static void swerex__local_on_keep_ended(swerex__keep *keep) {
  swerex__local *local = (swerex__local *)keep->owner;
  swerex_future *closing = local->closing;
  local->closing = NULL;
  if (closing != NULL) swerex__loop_finish(closing);
}

/** While closing: once sessions and commands have ended, end the keeper. */
static void swerex__local_check_closed(swerex__local *local) {
  if (local->closing == NULL || !swerex__loop_link_empty(&local->sessions) ||
      !swerex__loop_link_empty(&local->jobs))
    return;
  if (local->keep == NULL || local->keep->lost) {
    swerex_future *closing = local->closing;
    local->closing = NULL;
    swerex__loop_finish(closing);
  } else {
    swerex__keep_stop(local->keep, swerex__local_on_keep_ended, local);
  }
}

static void swerex__local_cancel_close(swerex_future *future) {
  ((swerex__local *)future->operation)->closing = NULL;
}

static bool swerex__local_close(swerex_runtime *runtime, const void *request,
                                swerex_future *future, swerex_error *err) {
  swerex__local *local = (swerex__local *)runtime;
  (void)request;
  if (local->closing != NULL)
    return swerex__err_set(err, SWEREX_E_RUNTIME, "the runtime is being closed already");
  local->closing = future;
  future->operation = local;
  future->cancel = swerex__local_cancel_close;
  for (swerex__loop_link *link = local->sessions.next; link != &local->sessions;
       link = link->next)
    if (!((swerex__sess *)link)->leaving) swerex__sess_close((swerex__sess *)link, NULL);
  for (swerex__loop_link *link = local->jobs.next; link != &local->jobs; link = link->next) {
    swerex__local_job *job = (swerex__local_job *)link;
    swerex_future *cancelled = job->future;
    if (cancelled != NULL) swerex__loop_cancel(cancelled);
  }
  swerex__local_check_closed(local);
  return true;
}

static void swerex__local_destroy(swerex_runtime *runtime) {
  swerex__local *local = (swerex__local *)runtime;
  swerex_future *closing = local->closing;
  local->closing = NULL;
  if (closing != NULL) {
    closing->cancel = NULL;
    swerex__loop_cancel(closing);
  }
  while (!swerex__loop_link_empty(&local->sessions))
    swerex__sess_free((swerex__sess *)local->sessions.next);
  while (!swerex__loop_link_empty(&local->jobs)) {
    swerex__local_job *job = (swerex__local_job *)local->jobs.next;
    swerex_future *future = job->future;
    swerex__local_free_job(job);
    if (future != NULL) {
      future->cancel = NULL;
      swerex__loop_cancel(future);
    }
  }
  swerex__keep_free(local->keep);
  swerex__mem_free(local);
}

static const swerex__rt_kind swerex__local_kind = {
  "local",
  {swerex__rt_alive, swerex__local_create_session, swerex__local_run_in_session,
   swerex__local_interrupt_session, swerex__local_close_session, swerex__local_execute,
   swerex__local_read_file, swerex__local_write_file, swerex__local_upload, swerex__local_close},
  NULL,
  swerex__local_destroy,
};

static swerex_runtime *swerex__local_new(swerex_loop *loop, const swerex_local_config *config,
                                         swerex_error *err) {
  swerex__local *local = (swerex__local *)swerex__mem_new(&loop->allocator, 1, sizeof *local);
  if (local == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  if (config != NULL) local->config = *config;
  if (local->config.max_output == 0) local->config.max_output = SWEREX_MAX_OUTPUT;
  if (local->config.max_file == 0) local->config.max_file = SWEREX_MAX_FILE;
  swerex__loop_link_init(&local->sessions);
  swerex__loop_link_init(&local->jobs);
  swerex__rt_init(&local->base, loop, &swerex__local_kind);
  return &local->base;
}

/** Return a session of a local runtime, for its terminal. */
static swerex__sess *swerex__local_terminal(swerex_runtime *runtime, const char *name,
                                            swerex_error *err) {
  if (runtime->kind != &swerex__local_kind) {
    swerex__err_set(err, SWEREX_E_UNSUPPORTED, "a %s runtime has no terminals",
                    runtime->kind->name);
    return NULL;
  }
  swerex__sess *sess = swerex__local_find((swerex__local *)runtime, name, err);
  if (sess == NULL) return NULL;
  if (sess->master.fd >= 0 && sess->front != SWEREX__SESS_DEAD) return sess;
  swerex__err_set(err, SWEREX_E_SESSION_TERMINATED, "session '%s' has ended", sess->name);
  return NULL;
}

static bool swerex__local_session_write(swerex_runtime *runtime, const char *name,
                                        const char *bytes, size_t size, swerex_error *err) {
  swerex__sess *sess = swerex__local_terminal(runtime, name, err);
  if (sess == NULL) return false;
  if (swerex__sess_write(sess, bytes, size)) return true;
  return swerex__err_set(err, SWEREX_E_OS,
                         "session '%s': the program in front does not read its input", sess->name);
}

static bool swerex__local_session_resize(swerex_runtime *runtime, const char *name, int rows,
                                         int columns, swerex_error *err) {
  swerex__sess *sess = swerex__local_terminal(runtime, name, err);
  if (sess == NULL) return false;
  if (rows < 1 || columns < 1 || rows > 65535 || columns > 65535)
    return swerex__err_set(err, SWEREX_E_VALUE, "a terminal cannot have %d rows and %d columns",
                           rows, columns);
  return swerex__pty_resize(sess->master.fd, rows, columns) ||
         swerex__err_system(err, errno, sess->terminal);
}

#endif /* SWEREX_NO_LOCAL */

/* =============================================================================================
 * [dummy] The dummy runtime
 * ========================================================================================== */
/* Answers at once, from a script: for tests of programs that use a runtime. */

typedef struct swerex__dummy {
  swerex_runtime base;              /* first member */
  swerex_bash_observation *outputs; /* scripted, or the one fixed */
  size_t count, next;
  bool scripted; /* they are used up in turn */
} swerex__dummy;

static void swerex__dummy_clear(swerex__dummy *dummy) {
  for (size_t i = 0; i < dummy->count; i++)
    swerex__model_clear(swerex__model_of(SWEREX_MODEL_BASH_OBSERVATION), &dummy->outputs[i]);
  swerex__mem_free(dummy->outputs);
  dummy->outputs = NULL;
  dummy->count = dummy->next = 0;
}

/** Replace the script. */
static bool swerex__dummy_set(swerex__dummy *dummy, const swerex_bash_observation *observations,
                              size_t count, bool scripted, swerex_error *err) {
  const swerex__model *model = swerex__model_of(SWEREX_MODEL_BASH_OBSERVATION);
  const swerex_allocator *memory = &dummy->base.loop->allocator;
  swerex__dummy fresh = {dummy->base, NULL, 0, 0, scripted};
  fresh.outputs = (swerex_bash_observation *)swerex__mem_new(memory, count > 0 ? count : 1,
                                                             sizeof *fresh.outputs);
  if (fresh.outputs == NULL) return swerex__err_memory(err);
  while (fresh.count < count) {
    size_t i = fresh.count++;
    if (!swerex__model_copy(memory, model, &observations[i], &fresh.outputs[i], err)) {
      fresh.count = i;
      swerex__dummy_clear(&fresh);
      return false;
    }
  }
  swerex__dummy_clear(dummy);
  dummy->outputs = fresh.outputs;
  dummy->count = count;
  dummy->scripted = scripted;
  return true;
}

static bool swerex__dummy_run(swerex_runtime *runtime, const void *request, swerex_future *future,
                              swerex_error *err) {
  swerex__dummy *dummy = (swerex__dummy *)runtime;
  const swerex_bash_action *action = (const swerex_bash_action *)request;
  if (dummy->scripted && dummy->next >= dummy->count) {
    swerex__str text = swerex__str_new(&runtime->loop->allocator, SIZE_MAX / 2);
    swerex__util_add_repr(&text, action->command, strlen(action->command));
    swerex__err_set(err, SWEREX_E_DUMMY_OUTPUTS_EXHAUSTED,
                    "Dummy runtime's run_in_session_outputs list is empty: No output for %s",
                    text.failed ? "the command" : text.data);
    swerex__str_clear(&text);
    return false;
  }
  if (!swerex__model_copy(&runtime->loop->allocator,
                          swerex__model_of(SWEREX_MODEL_BASH_OBSERVATION),
                          &dummy->outputs[dummy->next], future->response, err))
    return false;
  if (dummy->scripted) dummy->next++;
  swerex__loop_finish(future);
  return true;
}

static bool swerex__dummy_interrupt(swerex_runtime *runtime, const void *request,
                                    swerex_future *future, swerex_error *err) {
  static const swerex_bash_action action = {"^C", NULL, 0, false, false, SWEREX_CHECK_RAISE, NULL,
                                            NULL, 0, 0, {NULL, NULL, false}};
  (void)request;
  return swerex__dummy_run(runtime, &action, future, err);
}

/** Answer with the response's defaults. */
static bool swerex__dummy_answer(swerex_runtime *runtime, const void *request,
                                 swerex_future *future, swerex_error *err) {
  (void)runtime, (void)request, (void)err;
  swerex__loop_finish(future);
  return true;
}

static void swerex__dummy_destroy(swerex_runtime *runtime) {
  swerex__dummy_clear((swerex__dummy *)runtime);
  swerex__mem_free(runtime);
}

static const swerex__rt_kind swerex__dummy_kind = {
  "dummy",
  {swerex__rt_alive, swerex__dummy_answer, swerex__dummy_run, swerex__dummy_interrupt,
   swerex__dummy_answer, swerex__dummy_answer, swerex__dummy_answer, swerex__dummy_answer,
   swerex__dummy_answer, swerex__dummy_answer},
  NULL,
  swerex__dummy_destroy,
};

/** Script a dummy runtime with plain outputs, all with exit code 0. */
static bool swerex__dummy_set_texts(swerex__dummy *dummy, const char *const *outputs,
                                    swerex_error *err) {
  size_t count = 0;
  while (outputs[count] != NULL) count++;
  swerex_bash_observation *list = (swerex_bash_observation *)swerex__mem_new(
    &dummy->base.loop->allocator, count > 0 ? count : 1, sizeof *list);
  if (list == NULL) return swerex__err_memory(err);
  for (size_t i = 0; i < count; i++) {
    list[i].output.data = (char *)(uintptr_t)outputs[i];
    list[i].output.size = strlen(outputs[i]);
  }
  bool ok = swerex__dummy_set(dummy, list, count, true, err);
  swerex__mem_free(list);
  return ok;
}

static swerex_runtime *swerex__dummy_new(swerex_loop *loop, const swerex_dummy_config *config,
                                         swerex_error *err) {
  static const swerex_bash_observation nothing;
  swerex__dummy *dummy = (swerex__dummy *)swerex__mem_new(&loop->allocator, 1, sizeof *dummy);
  if (dummy == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  swerex__rt_init(&dummy->base, loop, &swerex__dummy_kind);
  bool ok = config != NULL && config->outputs != NULL
              ? swerex__dummy_set_texts(dummy, config->outputs, err)
              : swerex__dummy_set(dummy, &nothing, 1, false, err);
  if (ok) return &dummy->base;
  swerex__rt_free(&dummy->base);
  return NULL;
}

/** Return a runtime as a dummy one; NULL, and an error, if it is another. */
static swerex__dummy *swerex__dummy_of(swerex_runtime *runtime, swerex_error *err) {
  if (runtime != NULL && runtime->kind == &swerex__dummy_kind) return (swerex__dummy *)runtime;
  swerex__err_set(err, SWEREX_E_VALUE, "not a dummy runtime: only those can be scripted");
  return NULL;
}

/* =============================================================================================
 * [sock] Sockets: names, connecting, listening, streams
 * ========================================================================================== */
/* Numbers and "localhost" need no resolver; other names are looked up by getaddrinfo in a thread
 * that shares nothing with us but its own small job. A stream is a nonblocking connection with
 * what waits to be sent; its owner hears of input, of room, and of the end. */

enum {
  SWEREX__SOCK_ADDRESSES = 16, /* tried per name */
  SWEREX__SOCK_HOST_MAX = 255,
  SWEREX__SOCK_CHUNK = 65536,
  SWEREX__SOCK_BACKLOG = 512
};

typedef union swerex__sock_address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un local;
} swerex__sock_address;

typedef struct swerex__sock_target {
  swerex__sock_address address;
  socklen_t size;
} swerex__sock_target;

/** Make a new socket nonblocking, closed on exec, and free of SIGPIPE; closes it on failure. */
static bool swerex__sock_prepare(int *fd) {
  int on = 1;
  if (*fd < 0) return false;
#ifdef SO_NOSIGPIPE
  setsockopt(*fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a local socket: fine */
  setsockopt(*fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  if (swerex__sys_prepare_fd(*fd, true)) return true;
  swerex__sys_close(fd);
  return false;
}

/** Fill a local socket's address; false: the path is too long. */
static bool swerex__sock_local_target(const char *path, swerex__sock_target *target,
                                      swerex_error *err) {
  struct sockaddr_un *local = &target->address.local;
  memset(target, 0, sizeof *target);
  local->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof local->sun_path)
    return swerex__err_system(err, ENAMETOOLONG, path);
  memcpy(local->sun_path, path, strlen(path) + 1);
  target->size = (socklen_t)sizeof *local;
#ifdef SWEREX__SYS_ABSTRACT
  if (path[0] == '@') { /* a name outside of the file system, as ss(8) writes it */
    local->sun_path[0] = '\0';
    target->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  }
#endif
  return true;
}

/** Take the addresses of a lookup; returns how many. */
static size_t swerex__sock_collect(const struct addrinfo *list, swerex__sock_target *targets) {
  size_t count = 0;
  for (; list != NULL && count < SWEREX__SOCK_ADDRESSES; list = list->ai_next) {
    if (list->ai_addrlen > sizeof targets->address) continue;
    memset(&targets[count], 0, sizeof targets[count]);
    memcpy(&targets[count].address, list->ai_addr, list->ai_addrlen);
    targets[count++].size = (socklen_t)list->ai_addrlen;
  }
  return count;
}

/** Look a name up, with getaddrinfo's flags; returns its status. */
static int swerex__sock_lookup(const char *host, int port, int flags, swerex__sock_target *targets,
                               size_t *count) {
  struct addrinfo hints, *list = NULL;
  char service[16];
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  snprintf(service, sizeof service, "%d", port);
  int status = getaddrinfo(host, service, &hints, &list);
  *count = status == 0 ? swerex__sock_collect(list, targets) : 0;
  if (status == 0) freeaddrinfo(list);
  return status;
}

/** Look up what needs no resolver: numbers, and localhost. */
static size_t swerex__sock_lookup_known(const char *host, int port, swerex__sock_target *targets) {
  size_t count = 0, more = 0;
  if (strcmp(host, "localhost") != 0) {
    swerex__sock_lookup(host, port, AI_NUMERICHOST, targets, &count);
    return count;
  }
  swerex__sock_lookup("127.0.0.1", port, AI_NUMERICHOST, targets, &count);
  swerex__sock_lookup("::1", port, AI_NUMERICHOST, targets + count, &more);
  return count + more;
}

/* --- names -------------------------------------------------------------------------------- */

/** A lookup in a thread. Freed by the last of its two users. */
typedef struct swerex__sock_job {
  pthread_mutex_t lock;
  int users;
  int wake; /* the thread's end of a pipe */
  char host[SWEREX__SOCK_HOST_MAX + 1];
  int port, status;
  swerex__sock_target targets[SWEREX__SOCK_ADDRESSES];
  size_t count;
} swerex__sock_job;

static void swerex__sock_leave_job(swerex__sock_job *job) {
  pthread_mutex_lock(&job->lock);
  int users = --job->users;
  pthread_mutex_unlock(&job->lock);
  if (users > 0) return;
  pthread_mutex_destroy(&job->lock);
  swerex__mem_free(job);
}

static void *swerex__sock_run_job(void *argument) {
  swerex__sock_job *job = (swerex__sock_job *)argument;
  job->status = swerex__sock_lookup(job->host, job->port, 0, job->targets, &job->count);
  swerex__sys_close(&job->wake); /* the other end becomes readable: done */
  swerex__sock_leave_job(job);
  return NULL;
}

/** Start a lookup; *ready receives a descriptor that ends when it is done. */
static swerex__sock_job *swerex__sock_start_job(const char *host, int port, int *ready,
                                                swerex_error *err) {
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  int ends[2];
  swerex__sock_job *job = (swerex__sock_job *)swerex__mem_new(NULL, 1, sizeof *job);
  if (job == NULL || !swerex__sys_pipe(ends)) {
    swerex__mem_free(job);
    swerex__err_system(err, errno, "a lookup of a name");
    return NULL;
  }
  job->users = 2;
  job->wake = ends[1];
  job->port = port;
  snprintf(job->host, sizeof job->host, "%s", host);
  pthread_mutex_init(&job->lock, NULL);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the host's own threads' */
  int number = pthread_create(&thread, &attributes, swerex__sock_run_job, job);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  *ready = ends[0];
  if (number == 0) return job;
  swerex__sys_close(&ends[0]);
  swerex__sys_close(&ends[1]);
  pthread_mutex_destroy(&job->lock);
  swerex__mem_free(job);
  swerex__err_system(err, number, "a thread for the lookup of a name");
  return NULL;
}

/* --- connecting --------------------------------------------------------------------------- */

typedef struct swerex__sock_dial swerex__sock_dial;

/** A connection on its way: the addresses of a name, tried in turn. */
struct swerex__sock_dial {
  swerex_loop *loop;
  char *name;                /* in messages */
  swerex__sock_job *job;     /* NULL: the addresses are known */
  swerex__poll_watch watch;  /* the lookup's end, then the socket */
  swerex__loop_timer timer;
  swerex__sock_target targets[SWEREX__SOCK_ADDRESSES];
  size_t count, next;
  int number;                /* errno of the last try */
  double patience;
  /** Called once: with a connected descriptor, or -1 and an error to move. */
  void (*done)(void *owner, int fd, swerex_error *error);
  void *owner;
};

static void swerex__sock_dial_free(swerex__sock_dial *dial) {
  if (dial == NULL) return;
  swerex__loop_disarm(dial->loop, &dial->timer);
  swerex__poll_drop(&dial->loop->poll, &dial->watch);
  if (dial->job != NULL) swerex__sock_leave_job(dial->job);
  swerex__mem_free(dial->name);
  swerex__mem_free(dial);
}

/** Hand the result over, and free the dial. */
static void swerex__sock_dial_end(swerex__sock_dial *dial, int fd, swerex_error *error) {
  void (*done)(void *, int, swerex_error *) = dial->done;
  void *owner = dial->owner;
  swerex__sock_dial_free(dial);
  done(owner, fd, error);
  swerex__err_clear(error);
}

/** Start on the next address; false: none is left. */
static bool swerex__sock_dial_next(swerex__sock_dial *dial) {
  while (dial->next < dial->count) {
    const swerex__sock_target *target = &dial->targets[dial->next++];
    swerex__poll_drop(&dial->loop->poll, &dial->watch);
    dial->watch.fd = socket(target->address.any.sa_family, SOCK_STREAM, 0);
    bool begun = swerex__sock_prepare(&dial->watch.fd) &&
                 (connect(dial->watch.fd, &target->address.any, target->size) == 0 ||
                  errno == EINPROGRESS) &&
                 swerex__poll_set(&dial->loop->poll, &dial->watch, SWEREX__POLL_WRITE);
    if (begun) return true;
    dial->number = errno;
  }
  return false;
}

static void swerex__sock_dial_give_up(swerex__sock_dial *dial) {
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__err_system(&error, dial->number != 0 ? dial->number : EADDRNOTAVAIL, dial->name);
  swerex__sock_dial_end(dial, -1, &error);
}

static void swerex__sock_dial_on_time(swerex__loop_timer *timer) {
  swerex__sock_dial *dial = (swerex__sock_dial *)timer->owner;
  dial->number = ETIMEDOUT;
  swerex__sock_dial_give_up(dial);
}

static void swerex__sock_dial_on_ready(swerex__poll_watch *watch) {
  swerex__sock_dial *dial = (swerex__sock_dial *)watch->owner;
  swerex_error error = SWEREX_ERROR_INIT;
  int number = 0;
  socklen_t size = sizeof number;
  if (dial->job != NULL) {
    swerex__sock_job *job = dial->job;
    dial->job = NULL;
    int status = job->status;
    dial->count = job->count;
    memcpy(dial->targets, job->targets, sizeof dial->targets);
    swerex__sock_leave_job(job);
    if (status != 0) {
      swerex__err_set(&error, SWEREX_E_OS, "%s: %s", dial->name, gai_strerror(status));
      swerex__sock_dial_end(dial, -1, &error);
      return;
    }
  } else if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &number, &size) == 0 && number == 0) {
    int fd = watch->fd;
    swerex__poll_set(&dial->loop->poll, watch, 0);
    watch->fd = -1;
    swerex__sock_dial_end(dial, fd, &error);
    return;
  } else {
    dial->number = number;
  }
  if (!swerex__sock_dial_next(dial)) swerex__sock_dial_give_up(dial);
}

static void swerex__sock_dial_on_start(swerex__loop_timer *timer) {
  swerex__sock_dial *dial = (swerex__sock_dial *)timer->owner;
  swerex__loop_arm(dial->loop, timer, dial->patience, swerex__sock_dial_on_time, dial);
  if (dial->job == NULL && !swerex__sock_dial_next(dial)) swerex__sock_dial_give_up(dial);
}

/**
 * Begin to connect, within `patience` seconds. host: a name, a number, or "unix:/path".
 * `done` is called from the loop, never from here.
 */
static swerex__sock_dial *swerex__sock_dial_new(swerex_loop *loop, const char *host, int port,
                                                double patience, const char *name,
                                                void (*done)(void *, int, swerex_error *),
                                                void *owner, swerex_error *err) {
  swerex__sock_dial *dial =
    (swerex__sock_dial *)swerex__mem_new(&loop->allocator, 1, sizeof *dial);
  if (dial != NULL) dial->name = swerex__mem_copy(&loop->allocator, name, strlen(name));
  if (dial == NULL || dial->name == NULL) {
    swerex__mem_free(dial);
    swerex__err_memory(err);
    return NULL;
  }
  dial->loop = loop;
  dial->watch.fd = -1;
  dial->watch.ready = swerex__sock_dial_on_ready;
  dial->watch.owner = dial;
  dial->done = done;
  dial->owner = owner;
  dial->patience = patience;
  bool ok = true;
  if (strncmp(host, "unix:", 5) == 0) {
    ok = swerex__sock_local_target(host + 5, &dial->targets[0], err);
    dial->count = 1;
  } else if ((dial->count = swerex__sock_lookup_known(host, port, dial->targets)) == 0) {
    dial->job = swerex__sock_start_job(host, port, &dial->watch.fd, err);
    ok = dial->job != NULL && (swerex__poll_set(&loop->poll, &dial->watch, SWEREX__POLL_READ) ||
                               swerex__err_system(err, errno, name));
  }
  if (!ok) {
    swerex__sock_dial_free(dial);
    return NULL;
  }
  swerex__loop_arm(loop, &dial->timer, 0, swerex__sock_dial_on_start, dial);
  return dial;
}

/* --- listening ---------------------------------------------------------------------------- */

/** Bind a socket and listen; -1 with errno set. */
static int swerex__sock_listen_at(const swerex__sock_target *target) {
  int on = 1, fd = socket(target->address.any.sa_family, SOCK_STREAM, 0);
  if (!swerex__sock_prepare(&fd)) return -1;
  if (target->address.any.sa_family != AF_UNIX)
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, &target->address.any, target->size) == 0 && listen(fd, SWEREX__SOCK_BACKLOG) == 0)
    return fd;
  swerex__sys_close(&fd);
  return -1;
}

/** Listen on a host's port (0: any); *bound receives which, *loopback who can reach it. */
static int swerex__sock_listen(const char *host, int port, int *bound, bool *loopback,
                               swerex_error *err) {
  swerex__sock_target targets[SWEREX__SOCK_ADDRESSES];
  swerex__sock_address *address = &targets[0].address;
  size_t count = swerex__sock_lookup_known(host, port, targets);
  int status = count > 0 ? 0 : swerex__sock_lookup(host, port, AI_PASSIVE, targets, &count);
  char name[SWEREX__SOCK_HOST_MAX + 16];
  snprintf(name, sizeof name, "%s:%d", host, port);
  if (status != 0 || count == 0) {
    swerex__err_set(err, SWEREX_E_OS, "%s: %s", name, gai_strerror(status));
    return -1;
  }
  *loopback = address->any.sa_family == AF_INET6
                ? IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr) != 0
                : (ntohl(address->v4.sin_addr.s_addr) >> 24) == 127;
  int fd = swerex__sock_listen_at(&targets[0]);
  socklen_t size = sizeof *address;
  if (fd < 0 || getsockname(fd, &address->any, &size) != 0) {
    swerex__err_system(err, errno, name);
    swerex__sys_close(&fd);
    return -1;
  }
  *bound = ntohs(address->any.sa_family == AF_INET6 ? address->v6.sin6_port
                                                     : address->v4.sin_port);
  return fd;
}

/** Listen on a local socket that only our user can reach; a dead one at the path is replaced. */
static int swerex__sock_listen_local(const char *path, swerex_error *err) {
  swerex__sock_target target;
  if (!swerex__sock_local_target(path, &target, err)) return -1;
  int probe = socket(AF_UNIX, SOCK_STREAM, 0);
  bool taken = probe >= 0 && connect(probe, &target.address.any, target.size) == 0;
  bool dead = !taken && errno == ECONNREFUSED && path[0] != '@';
  swerex__sys_close(&probe);
  if (dead) unlink(path);
  if (taken) errno = EADDRINUSE;
  int fd = taken ? -1 : swerex__sock_listen_at(&target);
  if (fd >= 0 && path[0] != '@' && chmod(path, 0600) != 0) swerex__sys_close(&fd);
  if (fd < 0) swerex__err_system(err, errno, path);
  return fd;
}

/* --- streams ------------------------------------------------------------------------------ */

typedef struct swerex__sock_stream swerex__sock_stream;
struct swerex__sock_stream {
  swerex_loop *loop;
  swerex__poll_watch in, out; /* out.fd is -1 where one descriptor serves both ways */
  swerex__str unsent;
  size_t sent;                /* of unsent */
  bool reading, broken;
  void (*on_input)(swerex__sock_stream *stream);
  void (*on_room)(swerex__sock_stream *stream); /* all was sent, or nothing can be any more */
  void *owner;
};

static size_t swerex__sock_waiting(const swerex__sock_stream *stream) {
  return stream->unsent.size - stream->sent;
}

/** Have the poller watch what matters now. */
static bool swerex__sock_update(swerex__sock_stream *stream) {
  unsigned in = stream->reading ? SWEREX__POLL_READ : 0;
  unsigned out = swerex__sock_waiting(stream) > 0 ? SWEREX__POLL_WRITE : 0;
  swerex__poll *poll = &stream->loop->poll;
  if (stream->out.fd < 0) return swerex__poll_set(poll, &stream->in, in | out);
  return swerex__poll_set(poll, &stream->in, in) && swerex__poll_set(poll, &stream->out, out);
}

/** Write as much as the system takes now; returns how much. */
static size_t swerex__sock_write(swerex__sock_stream *stream, const char *data, size_t size) {
  size_t done = 0;
  while (!stream->broken && done < size) {
    ssize_t n = stream->out.fd >= 0
                  ? write(stream->out.fd, data + done, size - done)
                  : send(stream->in.fd, data + done, size - done, SWEREX__SYS_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (n < 0) stream->broken = true;
    if (n > 0) done += (size_t)n;
  }
  return done;
}

/** Write what waits, as far as the system takes it. */
static void swerex__sock_flush(swerex__sock_stream *stream) {
  const char *data = stream->unsent.data + stream->sent;
  stream->sent += swerex__sock_write(stream, data, swerex__sock_waiting(stream));
  if (!stream->broken && swerex__sock_waiting(stream) > 0) return;
  stream->sent = stream->unsent.size = 0;
  if (stream->unsent.room > SWEREX__SOCK_CHUNK) swerex__str_clear(&stream->unsent);
}

static void swerex__sock_on_ready(swerex__poll_watch *watch) {
  swerex__sock_stream *stream = (swerex__sock_stream *)watch->owner;
  if (swerex__sock_waiting(stream) > 0) {
    swerex__sock_flush(stream);
    if (stream->broken || swerex__sock_waiting(stream) == 0) {
      swerex__sock_update(stream);
      stream->on_room(stream);
      return; /* the owner may have gone; the poller tells again of input */
    }
  }
  if (stream->reading && watch == &stream->in) stream->on_input(stream);
}

/** Take over connected descriptors (output -1: the same one), and begin to read. */
static bool swerex__sock_stream_open(swerex__sock_stream *stream, swerex_loop *loop, int input,
                                     int output, size_t max, void *owner) {
  stream->loop = loop;
  stream->in.fd = input;
  stream->out.fd = output;
  stream->in.ready = stream->out.ready = swerex__sock_on_ready;
  stream->in.owner = stream->out.owner = stream;
  stream->unsent = swerex__str_new(&loop->allocator, max);
  stream->owner = owner;
  stream->reading = true;
  return swerex__sock_update(stream);
}

static void swerex__sock_stream_close(swerex__sock_stream *stream) {
  swerex__poll_drop(&stream->loop->poll, &stream->in);
  if (stream->out.fd >= 0) swerex__poll_drop(&stream->loop->poll, &stream->out);
  swerex__str_clear(&stream->unsent);
}

/** Read what has come: > 0 bytes, 0 at the end, -1 nothing now. */
static ssize_t swerex__sock_receive(swerex__sock_stream *stream, char *data, size_t room) {
  ssize_t n;
  do n = read(stream->in.fd, data, room);
  while (n < 0 && errno == EINTR);
  if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
    stream->broken = true;
    return 0;
  }
  return n;
}

/** Start or stop reading. */
static void swerex__sock_set_reading(swerex__sock_stream *stream, bool reading) {
  stream->reading = reading;
  if (!swerex__sock_update(stream)) stream->broken = true;
}

/** Send bytes, now or when there is room; false: nothing can be sent any more. */
static bool swerex__sock_send(swerex__sock_stream *stream, const char *data, size_t size) {
  size_t done = 0;
  if (swerex__sock_waiting(stream) == 0) done = swerex__sock_write(stream, data, size);
  if (stream->sent > SWEREX__SOCK_CHUNK) {
    swerex__str_drop(&stream->unsent, stream->sent);
    stream->sent = 0;
  }
  if (done < size) swerex__str_add(&stream->unsent, data + done, size - done);
  if (stream->unsent.failed || !swerex__sock_update(stream)) stream->broken = true;
  return !stream->broken;
}

/* =============================================================================================
 * [http] HTTP/1.1: one parser for requests and responses
 * ========================================================================================== */
/* Incremental and strict: what two parsers could read in two ways is refused (lengths that are
 * given twice or beside Transfer-Encoding, bare line feeds, folded headers, space before a colon).
 * The caller hands in bytes and gets one event at a time, so it can stop between any two. */

enum {
  SWEREX__HTTP_HEAD_MAX = 65536,
  SWEREX__HTTP_TARGET_MAX = 8192,
  SWEREX__HTTP_HEADERS = 100,
  SWEREX__HTTP_CHUNK_LINE = 1024,
  SWEREX__HTTP_BLANK_LINES = 4 /* before a head: some clients send one too many */
};

typedef enum swerex__http_event {
  SWEREX__HTTP_MORE,  /* all was taken: bring more */
  SWEREX__HTTP_HEAD,  /* the head is complete */
  SWEREX__HTTP_BODY,  /* `piece` of the body */
  SWEREX__HTTP_END,   /* the message is complete */
  SWEREX__HTTP_BROKEN /* see `fault` and `why`; nothing more can be read */
} swerex__http_event;

typedef enum swerex__http_state {
  SWEREX__HTTP_IN_HEAD,
  SWEREX__HTTP_AT_BODY, /* the head was handed over */
  SWEREX__HTTP_IN_LENGTH,
  SWEREX__HTTP_IN_CHUNK_SIZE,
  SWEREX__HTTP_IN_CHUNK,
  SWEREX__HTTP_IN_CHUNK_END,
  SWEREX__HTTP_IN_TRAILER,
  SWEREX__HTTP_UNTIL_CLOSE,
  SWEREX__HTTP_IN_NOTHING, /* no body */
  SWEREX__HTTP_OVER,
  SWEREX__HTTP_FAILED
} swerex__http_state;

/** A piece of the head, not NUL-terminated. */
typedef struct swerex__http_text {
  const char *data;
  size_t size;
} swerex__http_text;

typedef struct swerex__http_header {
  swerex__http_text name, value;
} swerex__http_header;

typedef struct swerex__http {
  bool response; /* what is read; else requests */
  bool to_head;  /* the response answers HEAD: it has no body */
  swerex__http_state state;
  swerex__str head; /* its lines; method, headers and so on point into it */
  swerex__str tail; /* the present line between chunks, or of the trailer */
  size_t line;      /* where the present line starts in the head */
  size_t blank, trailer; /* blank lines before the head; bytes of the trailer so far */
  swerex__http_text method, target, reason;
  int status, minor; /* of HTTP/1.minor */
  swerex__http_header headers[SWEREX__HTTP_HEADERS];
  size_t count;
  uint64_t left;    /* of the body, or of a chunk */
  bool chunked, sized, keep_alive, expects; /* expects: 100-continue */
  int fault;        /* the status that fits a malformed request */
  const char *why;
  const char *piece;
  size_t piece_size;
} swerex__http;

static void swerex__http_init(swerex__http *http, const swerex_allocator *allocator,
                              bool response) {
  memset(http, 0, sizeof *http);
  http->response = response;
  http->head = swerex__str_new(allocator, SWEREX__HTTP_HEAD_MAX);
  http->tail = swerex__str_new(allocator, SWEREX__HTTP_CHUNK_LINE);
}

static void swerex__http_free(swerex__http *http) {
  swerex__str_clear(&http->head);
  swerex__str_clear(&http->tail);
}

/** Go on to the next message. */
static void swerex__http_restart(swerex__http *http) {
  swerex__str head = http->head, tail = http->tail;
  bool response = http->response;
  memset(http, 0, sizeof *http);
  head.size = tail.size = 0;
  http->head = head;
  http->tail = tail;
  http->response = response;
}

static swerex__http_event swerex__http_fail(swerex__http *http, int fault, const char *why) {
  http->state = SWEREX__HTTP_FAILED;
  http->fault = fault;
  http->why = why;
  return SWEREX__HTTP_BROKEN;
}

static char swerex__http_lower(char c) { return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c); }

/** Compare with a name in lower case, whatever the text's case. */
static bool swerex__http_is(swerex__http_text text, const char *name) {
  size_t i = 0;
  while (i < text.size && name[i] != '\0' && swerex__http_lower(text.data[i]) == name[i]) i++;
  return i == text.size && name[i] == '\0';
}

/** Find a header by its name in lower case; data NULL: not there. */
static swerex__http_text swerex__http_find(const swerex__http *http, const char *name) {
  static const swerex__http_text none = {NULL, 0};
  for (size_t i = 0; i < http->count; i++)
    if (swerex__http_is(http->headers[i].name, name)) return http->headers[i].value;
  return none;
}

/** Tell whether a comma-separated list has an element, given in lower case. */
static bool swerex__http_lists(swerex__http_text list, const char *element) {
  size_t at = 0;
  while (at < list.size) {
    swerex__http_text part = {list.data + at, 0};
    while (at + part.size < list.size && part.data[part.size] != ',') part.size++;
    at += part.size + 1;
    while (part.size > 0 && (part.data[0] == ' ' || part.data[0] == '\t')) {
      part.data++;
      part.size--;
    }
    while (part.size > 0 && (part.data[part.size - 1] == ' ' || part.data[part.size - 1] == '\t'))
      part.size--;
    if (swerex__http_is(part, element)) return true;
  }
  return false;
}

static bool swerex__http_is_token(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/** Read digits; false if there are none, others, or too many. */
static bool swerex__http_number(swerex__http_text text, uint64_t *out) {
  *out = 0;
  if (text.size == 0 || text.size > 18) return false;
  for (size_t i = 0; i < text.size; i++) {
    if (text.data[i] < '0' || text.data[i] > '9') return false;
    *out = *out * 10 + (uint64_t)(text.data[i] - '0');
  }
  return true;
}

/* --- the head ----------------------------------------------------------------------------- */

/** Read "HTTP/1.x" at the start of a text. */
static bool swerex__http_version(swerex__http *http, swerex__http_text text) {
  if (text.size != 8 || memcmp(text.data, "HTTP/1.", 7) != 0 || text.data[7] < '0' ||
      text.data[7] > '9')
    return false;
  http->minor = text.data[7] - '0';
  return true;
}

static bool swerex__http_request_line(swerex__http *http, swerex__http_text line) {
  const char *end = line.data + line.size;
  const char *space = (const char *)memchr(line.data, ' ', line.size);
  const char *last = NULL;
  if (space != NULL) last = (const char *)memchr(space + 1, ' ', (size_t)(end - space - 1));
  if (last == NULL) {
    swerex__http_fail(http, 400, "the request line is not METHOD TARGET HTTP/1.1");
    return false;
  }
  swerex__http_text version = {last + 1, (size_t)(end - last - 1)};
  http->method.data = line.data;
  http->method.size = (size_t)(space - line.data);
  http->target.data = space + 1;
  http->target.size = (size_t)(last - space - 1);
  bool clean = http->method.size > 0 && http->target.size > 0;
  for (size_t i = 0; i < http->method.size; i++)
    clean = clean && swerex__http_is_token(http->method.data[i]);
  for (size_t i = 0; i < http->target.size; i++)
    clean = clean && (unsigned char)http->target.data[i] > 0x20 && http->target.data[i] != 0x7F;
  if (!clean)
    swerex__http_fail(http, 400, "the request line is malformed");
  else if (http->target.size > SWEREX__HTTP_TARGET_MAX)
    swerex__http_fail(http, 414, "the request's target is too long");
  else if (!swerex__http_version(http, version))
    swerex__http_fail(http, version.size > 5 && memcmp(version.data, "HTTP/", 5) == 0 ? 505 : 400,
                      "the request is not HTTP/1.1");
  return http->state != SWEREX__HTTP_FAILED;
}

static bool swerex__http_status_line(swerex__http *http, swerex__http_text line) {
  swerex__http_text version = {line.data, line.size < 8 ? line.size : 8};
  uint64_t status = 0;
  if (line.size >= 12 && line.data[8] == ' ') {
    swerex__http_text digits = {line.data + 9, 3};
    if (!swerex__http_number(digits, &status)) status = 0;
  }
  http->status = (int)status;
  if (!swerex__http_version(http, version) || status < 100 || status > 599 ||
      (line.size > 12 && line.data[12] != ' ')) {
    swerex__http_fail(http, 502, "the answer does not start as HTTP does");
    return false;
  }
  http->reason.data = line.data + (line.size > 12 ? 13 : 12);
  http->reason.size = (size_t)(line.data + line.size - http->reason.data);
  return true;
}

static bool swerex__http_header_line(swerex__http *http, swerex__http_text line) {
  size_t colon = 0, end = line.size;
  while (colon < line.size && swerex__http_is_token(line.data[colon])) colon++;
  if (colon == 0 || colon == line.size || line.data[colon] != ':') {
    swerex__http_fail(http, 400, "a header line is malformed");
    return false;
  }
  if (http->count == SWEREX__HTTP_HEADERS) {
    swerex__http_fail(http, 431, "there are too many headers");
    return false;
  }
  size_t start = colon + 1;
  while (start < end && (line.data[start] == ' ' || line.data[start] == '\t')) start++;
  while (end > start && (line.data[end - 1] == ' ' || line.data[end - 1] == '\t')) end--;
  for (size_t i = start; i < end; i++) {
    unsigned char c = (unsigned char)line.data[i];
    if ((c >= 0x20 && c != 0x7F) || c == '\t') continue;
    swerex__http_fail(http, 400, "a header has a control character");
    return false;
  }
  swerex__http_header header = {{line.data, colon}, {line.data + start, end - start}};
  http->headers[http->count++] = header;
  return true;
}

/** How often a header is there. */
static size_t swerex__http_times(const swerex__http *http, const char *name) {
  size_t times = 0;
  for (size_t i = 0; i < http->count; i++)
    times += swerex__http_is(http->headers[i].name, name);
  return times;
}

/** Find out how long the body is, and what becomes of the connection. */
static bool swerex__http_frame(swerex__http *http) {
  swerex__http_text coding = swerex__http_find(http, "transfer-encoding");
  swerex__http_text length = swerex__http_find(http, "content-length");
  swerex__http_text connection = swerex__http_find(http, "connection");
  swerex__http_text expect = swerex__http_find(http, "expect");
  http->chunked = coding.data != NULL;
  http->sized = length.data != NULL;
  http->keep_alive = http->minor > 0 ? !swerex__http_lists(connection, "close")
                                     : swerex__http_lists(connection, "keep-alive");
  http->expects = expect.data != NULL && swerex__http_is(expect, "100-continue");
  if (!http->response && http->minor > 0 && swerex__http_times(http, "host") != 1)
    swerex__http_fail(http, 400, "there must be one Host header");
  else if (swerex__http_times(http, "content-length") > 1 ||
           swerex__http_times(http, "transfer-encoding") > 1)
    swerex__http_fail(http, 400, "the body's length is given twice");
  else if (http->chunked && http->sized)
    swerex__http_fail(http, 400, "Content-Length and Transfer-Encoding exclude each other");
  else if (http->chunked && http->minor == 0)
    swerex__http_fail(http, 400, "Transfer-Encoding needs HTTP/1.1");
  else if (http->chunked && !swerex__http_is(coding, "chunked"))
    swerex__http_fail(http, 501, "only the transfer encoding chunked is known");
  else if (http->sized && !swerex__http_number(length, &http->left))
    swerex__http_fail(http, 400, "Content-Length is no number");
  else if (expect.data != NULL && !http->expects)
    swerex__http_fail(http, 417, "only Expect: 100-continue is known");
  return http->state != SWEREX__HTTP_FAILED;
}

/** Read the complete head: start line, headers, framing. */
static bool swerex__http_read_head(swerex__http *http) {
  const char *at = http->head.data, *end = at + http->head.size;
  bool first = true;
  while (at < end) {
    const char *feed = (const char *)memchr(at, '\n', (size_t)(end - at));
    swerex__http_text line = {at, (size_t)(feed - at) - 1}; /* without CR LF */
    at = feed + 1;
    if (line.size == 0) break;
    bool ok = !first           ? swerex__http_header_line(http, line)
              : http->response ? swerex__http_status_line(http, line)
                               : swerex__http_request_line(http, line);
    if (!ok) return false;
    first = false;
  }
  return swerex__http_frame(http);
}

/** Add bytes to `text` up to the end of the line at `line`; false: it is not complete yet. */
static bool swerex__http_take_line(swerex__http *http, swerex__str *text, size_t line,
                                   const char **data, size_t *size) {
  const char *feed = (const char *)memchr(*data, '\n', *size);
  size_t count = feed == NULL ? *size : (size_t)(feed - *data) + 1;
  swerex__str_add(text, *data, count);
  *data += count;
  *size -= count;
  if (text->failed) {
    swerex__http_fail(http, line == 0 ? 414 : 431, "a line, or the head as a whole, is too long");
  } else if (feed != NULL) {
    if (text->size - line >= 2 && text->data[text->size - 2] == '\r' &&
        memchr(text->data + line, '\r', text->size - line - 2) == NULL)
      return true;
    swerex__http_fail(http, 400, "a line does not end in CR LF");
  }
  return false;
}

static swerex__http_event swerex__http_in_head(swerex__http *http, const char **data,
                                               size_t *size) {
  while (*size > 0) {
    if (!swerex__http_take_line(http, &http->head, http->line, data, size)) break;
    bool blank = http->head.size - http->line == 2;
    if (blank && http->line == 0) {
      http->head.size = 0;
      if (++http->blank > SWEREX__HTTP_BLANK_LINES)
        return swerex__http_fail(http, 400, "a request starts with a line, not with blank ones");
      continue;
    }
    http->line = http->head.size;
    if (!blank) continue;
    http->state = SWEREX__HTTP_AT_BODY;
    return swerex__http_read_head(http) ? SWEREX__HTTP_HEAD : SWEREX__HTTP_BROKEN;
  }
  return http->state == SWEREX__HTTP_FAILED ? SWEREX__HTTP_BROKEN : SWEREX__HTTP_MORE;
}

/* --- the body ----------------------------------------------------------------------------- */

static swerex__http_state swerex__http_body_state(const swerex__http *http) {
  bool none = http->response && (http->to_head || http->status < 200 || http->status == 204 ||
                                 http->status == 304);
  if (none) return SWEREX__HTTP_IN_NOTHING;
  if (http->chunked) return SWEREX__HTTP_IN_CHUNK_SIZE;
  if (http->sized) return http->left > 0 ? SWEREX__HTTP_IN_LENGTH : SWEREX__HTTP_IN_NOTHING;
  return http->response ? SWEREX__HTTP_UNTIL_CLOSE : SWEREX__HTTP_IN_NOTHING;
}

/** Hand over as much of the body as is there, up to what is left of it. */
static swerex__http_event swerex__http_in_body(swerex__http *http, const char **data,
                                               size_t *size, swerex__http_state next) {
  size_t count = *size;
  if (http->state != SWEREX__HTTP_UNTIL_CLOSE && count > http->left) count = (size_t)http->left;
  if (count == 0) return SWEREX__HTTP_MORE;
  http->piece = *data;
  http->piece_size = count;
  *data += count;
  *size -= count;
  if (http->state == SWEREX__HTTP_UNTIL_CLOSE) return SWEREX__HTTP_BODY;
  http->left -= count;
  if (http->left == 0) http->state = next;
  return SWEREX__HTTP_BODY;
}

/** Read the line before a chunk: its size, and extensions that are ignored. */
static bool swerex__http_chunk_size(swerex__http *http) {
  const char *at = http->tail.data, *end = http->tail.data + http->tail.size - 2;
  int digits = 0;
  http->left = 0;
  for (; at < end; at++, digits++) {
    char c = swerex__http_lower(*at);
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) break;
    if (digits >= 15) break;
    http->left = http->left * 16 + (uint64_t)digit;
  }
  while (at < end && (*at == ' ' || *at == '\t')) at++;
  bool ok = digits > 0 && (at == end || *at == ';');
  for (; at < end; at++) ok = ok && ((unsigned char)*at >= 0x20 || *at == '\t');
  if (!ok) swerex__http_fail(http, 400, "a chunk's size is malformed");
  return ok;
}

/** The end of a chunk: CR LF and nothing else. */
static bool swerex__http_chunk_end(swerex__http *http) {
  bool ok = http->tail.size == 2;
  if (!ok) swerex__http_fail(http, 400, "a chunk is longer than its size says");
  return ok;
}

/** Read a line between chunks. MORE: go on. */
static swerex__http_event swerex__http_in_chunks(swerex__http *http, const char **data,
                                                 size_t *size) {
  if (!swerex__http_take_line(http, &http->tail, 0, data, size))
    return http->state == SWEREX__HTTP_FAILED ? SWEREX__HTTP_BROKEN : SWEREX__HTTP_MORE;
  if (http->state == SWEREX__HTTP_IN_CHUNK_SIZE) {
    if (!swerex__http_chunk_size(http)) return SWEREX__HTTP_BROKEN;
    http->state = http->left > 0 ? SWEREX__HTTP_IN_CHUNK : SWEREX__HTTP_IN_TRAILER;
  } else if (http->state == SWEREX__HTTP_IN_CHUNK_END) {
    if (!swerex__http_chunk_end(http)) return SWEREX__HTTP_BROKEN;
    http->state = SWEREX__HTTP_IN_CHUNK_SIZE;
  } else if (http->tail.size == 2) {
    http->state = SWEREX__HTTP_IN_NOTHING;
  } else if ((http->trailer += http->tail.size) > SWEREX__HTTP_HEAD_MAX) {
    return swerex__http_fail(http, 431, "the trailer is too long"); /* it is read, and forgotten */
  }
  http->tail.size = 0;
  return SWEREX__HTTP_MORE;
}

/** Read on: takes from *data, and returns the next event. */
static swerex__http_event swerex__http_read(swerex__http *http, const char **data, size_t *size) {
  for (;;) {
    swerex__http_event event = SWEREX__HTTP_MORE;
    switch (http->state) {
    case SWEREX__HTTP_IN_HEAD: return swerex__http_in_head(http, data, size);
    case SWEREX__HTTP_AT_BODY: http->state = swerex__http_body_state(http); continue;
    case SWEREX__HTTP_IN_LENGTH:
      return swerex__http_in_body(http, data, size, SWEREX__HTTP_IN_NOTHING);
    case SWEREX__HTTP_IN_CHUNK:
      return swerex__http_in_body(http, data, size, SWEREX__HTTP_IN_CHUNK_END);
    case SWEREX__HTTP_UNTIL_CLOSE:
      return swerex__http_in_body(http, data, size, SWEREX__HTTP_UNTIL_CLOSE);
    case SWEREX__HTTP_IN_NOTHING: http->state = SWEREX__HTTP_OVER; return SWEREX__HTTP_END;
    case SWEREX__HTTP_OVER: return SWEREX__HTTP_MORE;
    case SWEREX__HTTP_FAILED: return SWEREX__HTTP_BROKEN;
    default: event = swerex__http_in_chunks(http, data, size); break;
    }
    if (event != SWEREX__HTTP_MORE || (*size == 0 && http->state != SWEREX__HTTP_IN_NOTHING))
      return event;
  }
}

/** The connection has closed: END if that ends the message well. */
static swerex__http_event swerex__http_close(swerex__http *http) {
  if (http->state == SWEREX__HTTP_AT_BODY) http->state = swerex__http_body_state(http);
  if (http->state == SWEREX__HTTP_UNTIL_CLOSE || http->state == SWEREX__HTTP_IN_NOTHING) {
    http->state = SWEREX__HTTP_OVER;
    return SWEREX__HTTP_END;
  }
  return swerex__http_fail(http, 400, "the connection closed in the middle of a message");
}

/** Tell whether nothing of the next message has come yet. */
static bool swerex__http_is_idle(const swerex__http *http) {
  return http->state == SWEREX__HTTP_IN_HEAD && http->head.size == 0;
}

/** Name a status. */
static const char *swerex__http_phrase(int status) {
  static const struct {
    int status;
    const char *phrase;
  } phrases[] = {{100, "Continue"}, {200, "OK"}, {400, "Bad Request"}, {401, "Unauthorized"},
                 {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
                 {408, "Request Timeout"}, {413, "Content Too Large"}, {414, "URI Too Long"},
                 {417, "Expectation Failed"}, {422, "Unprocessable Entity"},
                 {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
                 {501, "Not Implemented"}, {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}, {511, "Network Authentication Required"}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(phrases); i++)
    if (phrases[i].status == status) return phrases[i].phrase;
  return "Unknown";
}

/* =============================================================================================
 * [multi] multipart/form-data
 * ========================================================================================== */
/* Reads a form piece by piece (RFC 7578): small fields are kept, the content of files is handed on
 * as it comes. Of a piece, the last bytes stay behind until it is sure that they do not begin the
 * boundary. */

enum {
  SWEREX__MULTI_BOUNDARY = 200, /* RFC 2046 says 70; some clients are longer */
  SWEREX__MULTI_HEAD = 8192,    /* the headers of one part */
  SWEREX__MULTI_NAME = 64,
  SWEREX__MULTI_FILE = 256,
  SWEREX__MULTI_PARTS = 100,
  SWEREX__MULTI_PADDING = 100 /* blanks behind a boundary */
};

typedef enum swerex__multi_state {
  SWEREX__MULTI_PREAMBLE,
  SWEREX__MULTI_AFTER, /* a boundary: CR LF or -- follows */
  SWEREX__MULTI_HEADERS,
  SWEREX__MULTI_CONTENT,
  SWEREX__MULTI_EPILOGUE,
  SWEREX__MULTI_FAILED
} swerex__multi_state;

typedef struct swerex__multi {
  swerex__multi_state state;
  char boundary[SWEREX__MULTI_BOUNDARY + 8]; /* CR LF - - and the name */
  size_t boundary_size;
  swerex__str rest;                   /* not looked at to the end yet */
  char name[SWEREX__MULTI_NAME];      /* of the present part */
  char file[SWEREX__MULTI_FILE];      /* its filename; "": it is a field */
  size_t parts;
  const char *why;
  /** Receives content; with size 0 when a part begins, and `last` when it ends. */
  bool (*content)(void *owner, const char *data, size_t size, bool last);
  void *owner;
} swerex__multi;

static bool swerex__multi_fail(swerex__multi *multi, const char *why) {
  multi->state = SWEREX__MULTI_FAILED;
  multi->why = why;
  return false;
}

static bool swerex__multi_is_space(char c) { return c == ' ' || c == '\t'; }

/** Copy a parameter's value, quoted or not, from *at on; returns its whole length. */
static size_t swerex__multi_copy_value(swerex__http_text text, size_t *at, char *out,
                                       size_t room) {
  bool quoted = *at < text.size && text.data[*at] == '"';
  size_t size = 0;
  if (quoted) (*at)++;
  for (; *at < text.size; (*at)++) {
    char c = text.data[*at];
    if (quoted ? c == '"' : c == ';' || swerex__multi_is_space(c)) break;
    if (quoted && c == '\\' && *at + 1 < text.size) c = text.data[++*at];
    if (size + 1 < room) out[size] = c;
    size++;
  }
  if (quoted && *at < text.size) (*at)++;
  out[size < room ? size : room - 1] = '\0';
  return size;
}

/** Find a parameter such as boundary="x" in a header's value; *size receives its length. */
static bool swerex__multi_parameter(swerex__http_text value, const char *name, char *out,
                                    size_t room, size_t *size) {
  size_t at = 0;
  for (;;) {
    while (at < value.size && value.data[at] != ';') at++;
    out[0] = '\0';
    if (at == value.size) return false;
    at++;
    while (at < value.size && swerex__multi_is_space(value.data[at])) at++;
    swerex__http_text key = {value.data + at, 0};
    while (at < value.size && swerex__http_is_token(value.data[at])) at++;
    key.size = (size_t)(value.data + at - key.data);
    if (at == value.size || value.data[at] != '=') continue;
    at++;
    *size = swerex__multi_copy_value(value, &at, out, room);
    if (swerex__http_is(key, name)) return true;
  }
}

/** Begin to read a form whose Content-Type this is. */
static bool swerex__multi_init(swerex__multi *multi, const swerex_allocator *allocator,
                               swerex__http_text type) {
  char name[SWEREX__MULTI_BOUNDARY + 1];
  size_t size = 0;
  static const char kind[] = "multipart/form-data";
  memset(multi, 0, sizeof *multi);
  multi->rest = swerex__str_new(allocator, SWEREX__SOCK_CHUNK * 2);
  swerex__http_text start = {type.data, sizeof kind - 1};
  if (type.size < start.size || !swerex__http_is(start, kind)) {
    multi->state = SWEREX__MULTI_EPILOGUE; /* no form: one without fields */
    return true;
  }
  if (!swerex__multi_parameter(type, "boundary", name, sizeof name, &size) || size == 0 ||
      size >= sizeof name)
    return swerex__multi_fail(multi, "Missing boundary in multipart.");
  multi->boundary_size =
    (size_t)snprintf(multi->boundary, sizeof multi->boundary, "\r\n--%s", name);
  swerex__str_puts(&multi->rest, "\r\n"); /* so that the first boundary is like the others */
  return !multi->rest.failed || swerex__multi_fail(multi, "out of memory");
}

static void swerex__multi_free(swerex__multi *multi) { swerex__str_clear(&multi->rest); }

/** Find the boundary in what is there; else, how much surely is content. */
static bool swerex__multi_find(const swerex__multi *multi, size_t *at) {
  const char *data = multi->rest.data;
  size_t size = multi->rest.size;
  *at = 0;
  while (*at < size) {
    const char *cr = (const char *)memchr(data + *at, '\r', size - *at);
    if (cr == NULL) {
      *at = size;
      return false;
    }
    *at = (size_t)(cr - data);
    size_t there = size - *at < multi->boundary_size ? size - *at : multi->boundary_size;
    if (memcmp(cr, multi->boundary, there) == 0) return there == multi->boundary_size;
    (*at)++;
  }
  return false;
}

/** Read the headers of a part, up to the blank line at `end`. */
static bool swerex__multi_read_headers(swerex__multi *multi, size_t end) {
  const char *at = multi->rest.data, *stop = at + end;
  size_t size = 0;
  multi->name[0] = '\0';
  multi->file[0] = '\0';
  while (at < stop) {
    const char *feed = (const char *)memchr(at, '\n', (size_t)(stop - at));
    const char *next = feed == NULL ? stop : feed + 1;
    const char *colon = (const char *)memchr(at, ':', (size_t)(next - at));
    if (colon == NULL) return swerex__multi_fail(multi, "a part's header is malformed");
    swerex__http_text name = {at, (size_t)(colon - at)};
    swerex__http_text value = {colon + 1, (size_t)(next - colon - 1)};
    at = next;
    while (value.size > 0 && (unsigned char)value.data[value.size - 1] <= 0x20) value.size--;
    if (!swerex__http_is(name, "content-disposition")) continue;
    if (!swerex__multi_parameter(value, "name", multi->name, sizeof multi->name, &size) ||
        size >= sizeof multi->name)
      return swerex__multi_fail(multi, "a part has no name that can be read");
    if (!swerex__multi_parameter(value, "filename", multi->file, sizeof multi->file, &size))
      swerex__multi_parameter(value, "filename*", multi->file, sizeof multi->file, &size);
  }
  if (multi->name[0] == '\0')
    return swerex__multi_fail(multi,
                              "The Content-Disposition header field \"name\" must be provided.");
  return true;
}

static bool swerex__multi_hand_on(swerex__multi *multi, size_t size, bool last) {
  bool ok = multi->content(multi->owner, multi->rest.data, size, last);
  swerex__str_drop(&multi->rest, size);
  return ok || swerex__multi_fail(multi, NULL);
}

/** Do one step with what is there; false: more is needed, or it failed. */
static bool swerex__multi_step(swerex__multi *multi) {
  swerex__str *rest = &multi->rest;
  size_t at = 0;
  switch (multi->state) {
  case SWEREX__MULTI_PREAMBLE:
  case SWEREX__MULTI_CONTENT: {
    bool content = multi->state == SWEREX__MULTI_CONTENT;
    bool found = swerex__multi_find(multi, &at);
    if (content && !swerex__multi_hand_on(multi, at, found)) return false;
    if (!content) swerex__str_drop(rest, at);
    if (!found) return false;
    swerex__str_drop(rest, multi->boundary_size);
    multi->state = SWEREX__MULTI_AFTER;
    return true;
  }
  case SWEREX__MULTI_AFTER:
    if (rest->size < 2) return false;
    if (memcmp(rest->data, "--", 2) == 0) {
      multi->state = SWEREX__MULTI_EPILOGUE;
      return true;
    }
    while (at < rest->size && (rest->data[at] == ' ' || rest->data[at] == '\t')) at++;
    if (at > SWEREX__MULTI_PADDING)
      return swerex__multi_fail(multi, "a boundary does not end its line");
    if (rest->size - at < 2) return false;
    if (memcmp(rest->data + at, "\r\n", 2) != 0)
      return swerex__multi_fail(multi, "a boundary does not end its line");
    swerex__str_drop(rest, at + 2);
    if (++multi->parts > SWEREX__MULTI_PARTS)
      return swerex__multi_fail(multi, "the form has too many parts");
    multi->state = SWEREX__MULTI_HEADERS;
    return true;
  case SWEREX__MULTI_HEADERS:
    while (at + 4 <= rest->size && memcmp(rest->data + at, "\r\n\r\n", 4) != 0) at++;
    if (at > SWEREX__MULTI_HEAD) return swerex__multi_fail(multi, "a part's headers are too long");
    if (at + 4 > rest->size) return false;
    if (!swerex__multi_read_headers(multi, at + 2)) return false;
    swerex__str_drop(rest, at + 4);
    multi->state = SWEREX__MULTI_CONTENT;
    return swerex__multi_hand_on(multi, 0, false);
  default: rest->size = 0; return false;
  }
}

/** Read a piece of the form. False: see `why`, which is NULL where the receiver refused. */
static bool swerex__multi_read(swerex__multi *multi, const char *data, size_t size) {
  while (size > 0 && multi->state != SWEREX__MULTI_FAILED) {
    size_t count = size < SWEREX__SOCK_CHUNK ? size : SWEREX__SOCK_CHUNK;
    swerex__str_add(&multi->rest, data, count);
    data += count;
    size -= count;
    if (multi->rest.failed) return swerex__multi_fail(multi, "a part's headers are too long");
    while (swerex__multi_step(multi)) continue;
  }
  return multi->state != SWEREX__MULTI_FAILED;
}

/** Tell whether the form is complete. */
static bool swerex__multi_complete(const swerex__multi *multi) {
  return multi->state == SWEREX__MULTI_EPILOGUE;
}

/* =============================================================================================
 * [deflate] CRC-32, deflate
 * ========================================================================================== */
/* RFC 1951, in blocks of 64 KiB with 32 KiB of history: hash chains, one step of lazy matching, and
 * of the three forms of a block the one that is smallest. */

enum {
  SWEREX__DEFLATE_WINDOW = 32768,
  SWEREX__DEFLATE_FAST = 10, /* bits looked up at once */
  SWEREX__DEFLATE_LITERALS = 288,
  SWEREX__DEFLATE_DISTANCES = 30,
  SWEREX__DEFLATE_LENGTHS = 19,
  SWEREX__DEFLATE_MAX_BITS = 15,
  SWEREX__DEFLATE_MAX_MATCH = 258
};

static const uint16_t swerex__deflate_length_base[] = {3,  4,  5,  6,  7,  8,  9,  10,  11,  13,
                                                       15, 17, 19, 23, 27, 31, 35, 43,  51,  59,
                                                       67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t swerex__deflate_length_bits[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                      2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t swerex__deflate_distance_base[] = {
  1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
  193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t swerex__deflate_order[] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                11, 4,  12, 3, 13, 2, 14, 1, 15};

static unsigned swerex__deflate_distance_bits(unsigned symbol) {
  return symbol < 4 ? 0 : symbol / 2 - 1;
}

/* --- CRC-32 ------------------------------------------------------------------------------- */

typedef struct swerex__deflate_crc {
  uint32_t table[4][256]; /* of one byte, and of one with 1, 2, 3 behind it */
} swerex__deflate_crc;

static void swerex__deflate_crc_init(swerex__deflate_crc *crc) {
  for (uint32_t n = 0; n < 256; n++) {
    uint32_t value = n;
    for (int bit = 0; bit < 8; bit++) value = value & 1U ? 0xEDB88320U ^ (value >> 1) : value >> 1;
    crc->table[0][n] = value;
  }
  for (int k = 1; k < 4; k++)
    for (uint32_t n = 0; n < 256; n++) {
      uint32_t before = crc->table[k - 1][n];
      crc->table[k][n] = crc->table[0][before & 255U] ^ (before >> 8);
    }
}

static uint32_t swerex__deflate_crc_add(const swerex__deflate_crc *crc, uint32_t sum,
                                        const void *data, size_t size) {
  const unsigned char *at = (const unsigned char *)data;
  sum = ~sum;
  for (; size >= 4; size -= 4, at += 4) {
    sum ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    sum = crc->table[3][sum & 255U] ^ crc->table[2][(sum >> 8) & 255U] ^
          crc->table[1][(sum >> 16) & 255U] ^ crc->table[0][sum >> 24];
  }
  for (; size > 0; size--) sum = crc->table[0][(sum ^ *at++) & 255U] ^ (sum >> 8);
  return ~sum;
}

/* --- deflate ------------------------------------------------------------------------------ */

enum {
  SWEREX__DEFLATE_BLOCK = 65536,
  SWEREX__DEFLATE_HASH = 32768,
  SWEREX__DEFLATE_CHAIN = 48,  /* candidates looked at */
  SWEREX__DEFLATE_NICE = 128,  /* long enough to stop looking */
  SWEREX__DEFLATE_NONE = -1
};

typedef struct swerex__deflate_symbol {
  uint16_t length, distance; /* distance 0: a literal */
} swerex__deflate_symbol;

typedef struct swerex__deflate {
  unsigned char data[SWEREX__DEFLATE_WINDOW + SWEREX__DEFLATE_BLOCK];
  size_t start, size; /* of what is not deflated yet; history lies before it */
  int32_t head[SWEREX__DEFLATE_HASH], previous[SWEREX__DEFLATE_WINDOW + SWEREX__DEFLATE_BLOCK];
  swerex__deflate_symbol symbols[SWEREX__DEFLATE_BLOCK];
  size_t symbol_count;
  uint64_t bits;
  unsigned count;
  swerex__str *out;
} swerex__deflate;

static void swerex__deflate_init(swerex__deflate *d, swerex__str *out) {
  memset(d, 0, sizeof *d);
  memset(d->head, 0xFF, sizeof d->head);
  d->out = out;
}

static void swerex__deflate_put(swerex__deflate *d, unsigned value, unsigned count) {
  d->bits |= (uint64_t)value << d->count;
  d->count += count;
  while (d->count >= 8) {
    swerex__str_putc(d->out, (char)(unsigned char)(d->bits & 255U));
    d->bits >>= 8;
    d->count -= 8;
  }
}

static unsigned swerex__deflate_hash(const unsigned char *at) {
  uint32_t three = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
  return (three * 0x9E3779B1U) >> 17;
}

/** Enter a place into the chain of its hash; returns the place before it there. */
static int32_t swerex__deflate_enter(swerex__deflate *d, size_t at, size_t end) {
  if (at + 3 > end) return SWEREX__DEFLATE_NONE;
  unsigned hash = swerex__deflate_hash(d->data + at);
  int32_t before = d->head[hash];
  d->previous[at] = before;
  d->head[hash] = (int32_t)at;
  return before;
}

/** Find the longest match for a place among the candidates; its length, 0: none. */
static size_t swerex__deflate_find(const swerex__deflate *d, size_t at, size_t end,
                                   int32_t candidate, size_t *distance) {
  size_t best = 2,
         most = end - at < SWEREX__DEFLATE_MAX_MATCH ? end - at : SWEREX__DEFLATE_MAX_MATCH;
  const unsigned char *here = d->data + at;
  if (most < 3) return 0;
  for (int tries = 0; candidate >= 0 && tries < SWEREX__DEFLATE_CHAIN; tries++) {
    const unsigned char *there = d->data + candidate;
    size_t length = 0;
    if (at - (size_t)candidate > SWEREX__DEFLATE_WINDOW) break;
    if (there[best] == here[best]) {
      while (length < most && there[length] == here[length]) length++;
      if (length > best) {
        best = length;
        *distance = at - (size_t)candidate;
        if (best >= SWEREX__DEFLATE_NICE || best == most) break;
      }
    }
    candidate = d->previous[candidate];
  }
  return best > 2 ? best : 0;
}

static void swerex__deflate_note(swerex__deflate *d, size_t length, size_t distance) {
  d->symbols[d->symbol_count].length = (uint16_t)length;
  d->symbols[d->symbol_count++].distance = (uint16_t)distance;
}

/** Turn the waiting data into literals and matches. */
static void swerex__deflate_match(swerex__deflate *d) {
  size_t at = d->start, end = d->start + d->size, distance = 0, later = 0;
  d->symbol_count = 0;
  size_t length = swerex__deflate_find(d, at, end, swerex__deflate_enter(d, at, end), &distance);
  while (at < end) {
    size_t next = 0;
    if (at + 1 < end) { /* a longer match one byte on is worth a literal */
      int32_t candidate = swerex__deflate_enter(d, at + 1, end);
      if (length < SWEREX__DEFLATE_NICE)
        next = swerex__deflate_find(d, at + 1, end, candidate, &later);
    }
    if (length == 0 || next > length) {
      swerex__deflate_note(d, d->data[at], 0);
      at++;
      length = next;
      distance = later;
      continue;
    }
    swerex__deflate_note(d, length, distance);
    for (size_t i = 2; i < length; i++) swerex__deflate_enter(d, at + i, end);
    at += length;
    length =
      at < end ? swerex__deflate_find(d, at, end, swerex__deflate_enter(d, at, end), &distance) : 0;
  }
}

static unsigned swerex__deflate_length_symbol(unsigned length) {
  unsigned low = 0, high = 28;
  while (low < high) {
    unsigned middle = (low + high + 1) / 2;
    if (swerex__deflate_length_base[middle] <= length)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

static unsigned swerex__deflate_distance_symbol(unsigned distance) {
  unsigned low = 0, high = SWEREX__DEFLATE_DISTANCES - 1;
  while (low < high) {
    unsigned middle = (low + high + 1) / 2;
    if (swerex__deflate_distance_base[middle] <= distance)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

/** A set of codes to write by. */
typedef struct swerex__deflate_set {
  uint32_t uses[SWEREX__DEFLATE_LITERALS];
  uint8_t lengths[SWEREX__DEFLATE_LITERALS];
  uint16_t codes[SWEREX__DEFLATE_LITERALS]; /* bits reversed, as they are written */
} swerex__deflate_set;

/** Shorten codes to `limit` bits: how many codes there are of each length stays a full set. */
static void swerex__deflate_limit(unsigned *counts, unsigned longest, unsigned limit) {
  unsigned long total = 0;
  for (unsigned bits = limit + 1; bits <= longest; bits++) counts[limit] += counts[bits];
  for (unsigned bits = limit; bits > 0; bits--)
    total += (unsigned long)counts[bits] << (limit - bits);
  while (total > 1UL << limit) {
    unsigned bits = limit - 1;
    counts[limit]--;
    while (counts[bits] == 0) bits--;
    counts[bits]--;
    counts[bits + 1] += 2;
    total--;
  }
}

/** Find how long each symbol's code is; `order` has the used ones, rarest first. */
static void swerex__deflate_measure(swerex__deflate_set *set, const uint16_t *order, unsigned used,
                                    unsigned limit) {
  uint32_t weight[2 * SWEREX__DEFLATE_LITERALS];
  uint16_t parent[2 * SWEREX__DEFLATE_LITERALS], depth[2 * SWEREX__DEFLATE_LITERALS];
  unsigned counts[2 * SWEREX__DEFLATE_LITERALS], leaf = 0, inner = used, nodes = used, longest = 1;
  memset(counts, 0, sizeof counts);
  for (unsigned i = 0; i < used; i++) weight[i] = set->uses[order[i]];
  while (nodes < 2 * used - 1) { /* join the two lightest: both rows are sorted */
    weight[nodes] = 0;
    for (int k = 0; k < 2; k++) {
      bool take_leaf = leaf < used && (inner >= nodes || weight[leaf] <= weight[inner]);
      unsigned child = take_leaf ? leaf++ : inner++;
      weight[nodes] += weight[child];
      parent[child] = (uint16_t)nodes;
    }
    nodes++;
  }
  depth[nodes - 1] = 0;
  for (unsigned i = nodes - 1; i-- > 0;) depth[i] = (uint16_t)(depth[parent[i]] + 1);
  for (unsigned i = 0; i < used; i++) {
    counts[depth[i]]++;
    if (depth[i] > longest) longest = depth[i];
  }
  if (longest > limit) swerex__deflate_limit(counts, longest, limit);
  unsigned i = 0, most = longest < limit ? longest : limit;
  for (unsigned bits = most; bits > 0; bits--)
    for (unsigned k = 0; k < counts[bits]; k++) set->lengths[order[i++]] = (uint8_t)bits;
}

/** Give each length its codes. */
static void swerex__deflate_assign(swerex__deflate_set *set, unsigned n) {
  unsigned counts[SWEREX__DEFLATE_MAX_BITS + 1] = {0}, next[SWEREX__DEFLATE_MAX_BITS + 2] = {0};
  for (unsigned i = 0; i < n; i++) counts[set->lengths[i]]++;
  counts[0] = 0;
  for (unsigned bits = 1; bits <= SWEREX__DEFLATE_MAX_BITS; bits++)
    next[bits + 1] = (next[bits] + counts[bits]) << 1;
  for (unsigned i = 0; i < n; i++) {
    unsigned bits = set->lengths[i], code = bits > 0 ? next[bits]++ : 0, reversed = 0;
    for (unsigned k = 0; k < bits; k++) reversed |= ((code >> k) & 1U) << (bits - 1 - k);
    set->codes[i] = (uint16_t)reversed;
  }
}

/** Make the best codes for how often the symbols are used; at least two of them get one. */
static void swerex__deflate_plan(swerex__deflate_set *set, unsigned n, unsigned limit) {
  uint16_t order[SWEREX__DEFLATE_LITERALS];
  unsigned used = 0;
  memset(set->lengths, 0, sizeof set->lengths);
  for (unsigned i = 0; i < n; i++) used += set->uses[i] > 0;
  for (unsigned i = 0; used < 2; i++) {
    used += set->uses[i] == 0;
    if (set->uses[i] == 0) set->uses[i] = 1;
  }
  used = 0;
  for (unsigned i = 0; i < n; i++)
    if (set->uses[i] > 0) order[used++] = (uint16_t)i;
  for (unsigned gap = 121; gap > 0; gap /= 3) /* Shell's sort: a few hundred at most */
    for (unsigned i = gap; i < used; i++) {
      uint16_t symbol = order[i];
      unsigned k = i;
      for (; k >= gap && set->uses[order[k - gap]] > set->uses[symbol]; k -= gap)
        order[k] = order[k - gap];
      order[k] = symbol;
    }
  swerex__deflate_measure(set, order, used, limit);
  swerex__deflate_assign(set, n);
}

/** What a block's codes look like on the wire. */
typedef struct swerex__deflate_tree {
  swerex__deflate_set literals, distances, lengths;
  uint8_t runs[SWEREX__DEFLATE_LITERALS + 32], extra[SWEREX__DEFLATE_LITERALS + 32];
  unsigned run_count, literal_count, distance_count, order_count;
  size_t bits; /* of the whole block */
} swerex__deflate_tree;

/** Count how often each symbol of the block is used. */
static void swerex__deflate_count(const swerex__deflate *d, swerex__deflate_tree *tree) {
  tree->literals.uses[256] = 1;
  for (size_t i = 0; i < d->symbol_count; i++) {
    const swerex__deflate_symbol *symbol = &d->symbols[i];
    if (symbol->distance == 0) {
      tree->literals.uses[symbol->length]++;
      continue;
    }
    unsigned length = swerex__deflate_length_symbol(symbol->length);
    unsigned distance = swerex__deflate_distance_symbol(symbol->distance);
    tree->literals.uses[257 + length]++;
    tree->distances.uses[distance]++;
    tree->bits += swerex__deflate_length_bits[length] + swerex__deflate_distance_bits(distance);
  }
}

/** Write the lengths of both sets as runs. */
static void swerex__deflate_run(swerex__deflate_tree *tree) {
  uint8_t all[SWEREX__DEFLATE_LITERALS + 32];
  unsigned total = tree->literal_count + tree->distance_count;
  memcpy(all, tree->literals.lengths, tree->literal_count);
  memcpy(all + tree->literal_count, tree->distances.lengths, tree->distance_count);
  for (unsigned i = 0; i < total;) {
    unsigned run = 1, value = all[i], symbol = value, extra = 0;
    while (i + run < total && all[i + run] == value) run++;
    if (value == 0 && run >= 3) {
      if (run > 138) run = 138;
      symbol = run <= 10 ? 17 : 18;
      extra = run - (run <= 10 ? 3 : 11);
    } else if (value != 0 && run >= 4) { /* one itself, then its repetition */
      run = run > 7 ? 6 : run - 1;
      tree->runs[tree->run_count++] = (uint8_t)value;
      tree->lengths.uses[value]++;
      i++;
      symbol = 16;
      extra = run - 3;
    } else {
      run = 1;
    }
    tree->extra[tree->run_count] = (uint8_t)extra;
    tree->runs[tree->run_count++] = (uint8_t)symbol;
    tree->lengths.uses[symbol]++;
    i += run;
  }
}

static void swerex__deflate_grow(const swerex__deflate *d, swerex__deflate_tree *tree) {
  static const uint8_t extra[] = {2, 3, 7};
  memset(tree, 0, sizeof *tree);
  swerex__deflate_count(d, tree);
  swerex__deflate_plan(&tree->literals, 286, SWEREX__DEFLATE_MAX_BITS);
  swerex__deflate_plan(&tree->distances, SWEREX__DEFLATE_DISTANCES, SWEREX__DEFLATE_MAX_BITS);
  tree->literal_count = 286;
  while (tree->literals.lengths[tree->literal_count - 1] == 0) tree->literal_count--;
  tree->distance_count = SWEREX__DEFLATE_DISTANCES;
  while (tree->distances.lengths[tree->distance_count - 1] == 0) tree->distance_count--;
  swerex__deflate_run(tree);
  swerex__deflate_plan(&tree->lengths, SWEREX__DEFLATE_LENGTHS, 7);
  tree->order_count = SWEREX__DEFLATE_LENGTHS;
  while (tree->lengths.lengths[swerex__deflate_order[tree->order_count - 1]] == 0)
    tree->order_count--;
  tree->bits += 17 + 3 * (size_t)tree->order_count;
  for (unsigned i = 0; i < 286; i++)
    tree->bits += (size_t)tree->literals.uses[i] * tree->literals.lengths[i];
  for (unsigned i = 0; i < SWEREX__DEFLATE_DISTANCES; i++)
    tree->bits += (size_t)tree->distances.uses[i] * tree->distances.lengths[i];
  for (unsigned i = 0; i < tree->run_count; i++)
    tree->bits +=
      tree->lengths.lengths[tree->runs[i]] + (tree->runs[i] >= 16 ? extra[tree->runs[i] - 16] : 0U);
}

static void swerex__deflate_write(swerex__deflate *d, const swerex__deflate_set *set,
                                  unsigned symbol) {
  swerex__deflate_put(d, set->codes[symbol], set->lengths[symbol]);
}

/** Write the block with codes of its own. */
static void swerex__deflate_write_codes(swerex__deflate *d, const swerex__deflate_tree *tree,
                                        bool last) {
  static const uint8_t extra[] = {2, 3, 7};
  swerex__deflate_put(d, (last ? 1U : 0U) | 2U << 1, 3);
  swerex__deflate_put(d, tree->literal_count - 257, 5);
  swerex__deflate_put(d, tree->distance_count - 1, 5);
  swerex__deflate_put(d, tree->order_count - 4, 4);
  for (unsigned i = 0; i < tree->order_count; i++)
    swerex__deflate_put(d, tree->lengths.lengths[swerex__deflate_order[i]], 3);
  for (unsigned i = 0; i < tree->run_count; i++) {
    swerex__deflate_write(d, &tree->lengths, tree->runs[i]);
    if (tree->runs[i] >= 16) swerex__deflate_put(d, tree->extra[i], extra[tree->runs[i] - 16]);
  }
  for (size_t i = 0; i < d->symbol_count; i++) {
    const swerex__deflate_symbol *symbol = &d->symbols[i];
    if (symbol->distance == 0) {
      swerex__deflate_write(d, &tree->literals, symbol->length);
      continue;
    }
    unsigned length = swerex__deflate_length_symbol(symbol->length);
    unsigned distance = swerex__deflate_distance_symbol(symbol->distance);
    swerex__deflate_write(d, &tree->literals, 257 + length);
    swerex__deflate_put(d, symbol->length - swerex__deflate_length_base[length],
                        swerex__deflate_length_bits[length]);
    swerex__deflate_write(d, &tree->distances, distance);
    swerex__deflate_put(d, symbol->distance - swerex__deflate_distance_base[distance],
                        swerex__deflate_distance_bits(distance));
  }
  swerex__deflate_write(d, &tree->literals, 256);
}

/** Write the block as it is, in parts of at most 65,535 bytes. */
static void swerex__deflate_write_stored(swerex__deflate *d, bool last) {
  const unsigned char *at = d->data + d->start;
  size_t left = d->size;
  do {
    size_t size = left > 65535 ? 65535 : left;
    left -= size;
    swerex__deflate_put(d, last && left == 0 ? 1 : 0, 3);
    if (d->count > 0) swerex__deflate_put(d, 0, 8 - d->count);
    swerex__deflate_put(d, (unsigned)size, 16);
    swerex__deflate_put(d, (unsigned)size ^ 0xFFFFU, 16);
    swerex__str_add(d->out, (const char *)at, size);
    at += size;
  } while (left > 0);
}

/** Keep the last 32 KiB as history. */
static void swerex__deflate_slide(swerex__deflate *d) {
  size_t end = d->start + d->size;
  size_t keep = end < SWEREX__DEFLATE_WINDOW ? end : SWEREX__DEFLATE_WINDOW, cut = end - keep;
  if (cut > 0) {
    memmove(d->data, d->data + cut, keep);
    memmove(d->previous, d->previous + cut, keep * sizeof *d->previous);
    for (size_t i = 0; i < keep; i++)
      d->previous[i] =
        d->previous[i] >= (int32_t)cut ? d->previous[i] - (int32_t)cut : SWEREX__DEFLATE_NONE;
    for (size_t i = 0; i < SWEREX__DEFLATE_HASH; i++)
      d->head[i] = d->head[i] >= (int32_t)cut ? d->head[i] - (int32_t)cut : SWEREX__DEFLATE_NONE;
  }
  d->start = keep;
  d->size = 0;
}

/** Write what waits as a block. */
static void swerex__deflate_flush(swerex__deflate *d, bool last) {
  swerex__deflate_tree tree;
  swerex__deflate_match(d);
  swerex__deflate_grow(d, &tree);
  if (tree.bits / 8 > d->size + 8)
    swerex__deflate_write_stored(d, last);
  else
    swerex__deflate_write_codes(d, &tree, last);
  if (last && d->count > 0) swerex__deflate_put(d, 0, 8 - d->count);
  swerex__deflate_slide(d);
}

/** Deflate more; last: and end. The output is appended to `out`. */
static void swerex__deflate_add(swerex__deflate *d, const void *data, size_t size, bool last) {
  const unsigned char *from = (const unsigned char *)data;
  while (size > 0) {
    size_t room = sizeof d->data - d->start - d->size, count = size < room ? size : room;
    if (d->size + count > SWEREX__DEFLATE_BLOCK) count = SWEREX__DEFLATE_BLOCK - d->size;
    memcpy(d->data + d->start + d->size, from, count);
    d->size += count;
    from += count;
    size -= count;
    if (d->size == SWEREX__DEFLATE_BLOCK && (size > 0 || !last)) swerex__deflate_flush(d, false);
  }
  if (last) swerex__deflate_flush(d, true);
}

/* =============================================================================================
 * [inflate] Inflate
 * ========================================================================================== */
/* Takes input and gives output in pieces of any size: a symbol is read as a whole or not at all,
 * so the state between two pieces is small. */

typedef enum swerex__inflate_status {
  SWEREX__INFLATE_MORE, /* input or room is used up */
  SWEREX__INFLATE_DONE,
  SWEREX__INFLATE_BROKEN
} swerex__inflate_status;

typedef enum swerex__inflate_state {
  SWEREX__INFLATE_AT_BLOCK,
  SWEREX__INFLATE_AT_STORED,
  SWEREX__INFLATE_IN_STORED,
  SWEREX__INFLATE_AT_SIZES,
  SWEREX__INFLATE_IN_ORDER,
  SWEREX__INFLATE_IN_LENGTHS,
  SWEREX__INFLATE_IN_CODES,
  SWEREX__INFLATE_AT_END,
  SWEREX__INFLATE_IN_ERROR
} swerex__inflate_state;

/** A set of prefix codes, to read by: short ones by table, long ones bit by bit. */
typedef struct swerex__inflate_codes {
  uint16_t fast[1 << SWEREX__DEFLATE_FAST]; /* symbol << 4 | bits; 0: longer, or none */
  uint16_t count[SWEREX__DEFLATE_MAX_BITS + 1], symbols[SWEREX__DEFLATE_LITERALS];
} swerex__inflate_codes;

typedef struct swerex__inflate {
  swerex__inflate_state state;
  uint64_t bits; /* read ahead, the next at the low end */
  unsigned count;
  bool last;
  unsigned literals, distances, orders, have;
  size_t stored;
  uint8_t lengths[SWEREX__DEFLATE_LITERALS + 32];
  swerex__inflate_codes codes[2]; /* literals and lengths; distances */
  uint8_t window[2 * SWEREX__DEFLATE_WINDOW];
  uint64_t made, given; /* bytes of output: in the window, handed over */
  const unsigned char *in, *end;
} swerex__inflate;

static void swerex__inflate_init(swerex__inflate *z) {
  memset(z, 0, offsetof(swerex__inflate, codes)); /* codes and window are written before use */
  z->made = z->given = 0;
}

/** Read ahead; at least as many bits as asked for, if they are there. */
static bool swerex__inflate_fill(swerex__inflate *z, unsigned wanted) {
  while (z->count <= 56 && z->in < z->end) {
    z->bits |= (uint64_t)*z->in++ << z->count;
    z->count += 8;
  }
  return z->count >= wanted;
}

static unsigned swerex__inflate_take(swerex__inflate *z, unsigned count) {
  unsigned value = (unsigned)(z->bits & (((uint64_t)1 << count) - 1));
  z->bits >>= count;
  z->count -= count;
  return value;
}

/** Build codes from their lengths; false: they are no complete set. */
static bool swerex__inflate_build(swerex__inflate_codes *codes, const uint8_t *lengths, unsigned n,
                                  bool may_lack) {
  uint16_t next[SWEREX__DEFLATE_MAX_BITS + 2], offset[SWEREX__DEFLATE_MAX_BITS + 2];
  int left = 1;
  unsigned longest = 0;
  memset(codes, 0, sizeof *codes);
  for (unsigned i = 0; i < n; i++) codes->count[lengths[i]]++;
  codes->count[0] = 0;
  next[1] = offset[1] = 0;
  for (unsigned bits = 1; bits <= SWEREX__DEFLATE_MAX_BITS; bits++) {
    left = left * 2 - codes->count[bits];
    if (left < 0) return false;
    if (codes->count[bits] > 0) longest = bits;
    next[bits + 1] = (uint16_t)((next[bits] + codes->count[bits]) << 1);
    offset[bits + 1] = (uint16_t)(offset[bits] + codes->count[bits]);
  }
  if (left > 0 && !(may_lack && longest <= 1)) return false;
  for (unsigned i = 0; i < n; i++) {
    unsigned bits = lengths[i], reversed = 0;
    if (bits == 0) continue;
    codes->symbols[offset[bits]++] = (uint16_t)i;
    unsigned code = next[bits]++;
    if (bits > SWEREX__DEFLATE_FAST) continue;
    for (unsigned k = 0; k < bits; k++) reversed |= ((code >> k) & 1U) << (bits - 1 - k);
    for (; reversed < 1U << SWEREX__DEFLATE_FAST; reversed += 1U << bits)
      codes->fast[reversed] = (uint16_t)(i << 4 | bits);
  }
  return true;
}

/** Read a symbol: >= 0; -1: more input is needed; -2: there is no such code. */
static int swerex__inflate_symbol(swerex__inflate *z, const swerex__inflate_codes *codes) {
  unsigned entry = codes->fast[z->bits & ((1U << SWEREX__DEFLATE_FAST) - 1)];
  if (entry != 0 && (entry & 15U) <= z->count) {
    swerex__inflate_take(z, entry & 15U);
    return (int)(entry >> 4);
  }
  int code = 0, first = 0, index = 0;
  for (unsigned bits = 1; bits <= SWEREX__DEFLATE_MAX_BITS; bits++) {
    if (bits > z->count) return -1;
    code |= (int)(z->bits >> (bits - 1) & 1U);
    int count = codes->count[bits];
    if (code - first < count) {
      swerex__inflate_take(z, bits);
      return codes->symbols[index + code - first];
    }
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  return -2;
}

static swerex__inflate_status swerex__inflate_fail(swerex__inflate *z) {
  z->state = SWEREX__INFLATE_IN_ERROR;
  return SWEREX__INFLATE_BROKEN;
}

static void swerex__inflate_put(swerex__inflate *z, unsigned byte) {
  z->window[z->made++ % sizeof z->window] = (uint8_t)byte;
}

static size_t swerex__inflate_room(const swerex__inflate *z) {
  return SWEREX__DEFLATE_WINDOW - (size_t)(z->made - z->given);
}

/** Use the codes that the format itself defines. */
static void swerex__inflate_use_fixed(swerex__inflate *z) {
  memset(z->lengths, 8, 144);
  memset(z->lengths + 144, 9, 112);
  memset(z->lengths + 256, 7, 24);
  memset(z->lengths + 280, 8, 8);
  swerex__inflate_build(&z->codes[0], z->lengths, 288, false);
  memset(z->lengths, 5, 30);
  memset(z->lengths + 30, 5, 2); /* make the set complete; never used */
  swerex__inflate_build(&z->codes[1], z->lengths, 32, false);
}

/** Read the head of a block. */
static swerex__inflate_status swerex__inflate_block(swerex__inflate *z) {
  if (!swerex__inflate_fill(z, 3)) return SWEREX__INFLATE_MORE;
  z->last = swerex__inflate_take(z, 1) != 0;
  unsigned type = swerex__inflate_take(z, 2);
  if (type == 3) return swerex__inflate_fail(z);
  if (type == 0) swerex__inflate_take(z, z->count % 8);
  if (type == 1) swerex__inflate_use_fixed(z);
  z->state = type == 0   ? SWEREX__INFLATE_AT_STORED
             : type == 1 ? SWEREX__INFLATE_IN_CODES
                         : SWEREX__INFLATE_AT_SIZES;
  return SWEREX__INFLATE_DONE;
}

static swerex__inflate_status swerex__inflate_stored(swerex__inflate *z) {
  if (z->state == SWEREX__INFLATE_AT_STORED) {
    if (!swerex__inflate_fill(z, 32)) return SWEREX__INFLATE_MORE;
    unsigned size = swerex__inflate_take(z, 16), check = swerex__inflate_take(z, 16);
    if ((size ^ check) != 0xFFFFU) return swerex__inflate_fail(z);
    z->stored = size;
    z->state = SWEREX__INFLATE_IN_STORED;
  }
  while (z->stored > 0) {
    if (swerex__inflate_room(z) == 0 || !swerex__inflate_fill(z, 8)) return SWEREX__INFLATE_MORE;
    swerex__inflate_put(z, swerex__inflate_take(z, 8));
    z->stored--;
  }
  z->state = z->last ? SWEREX__INFLATE_AT_END : SWEREX__INFLATE_AT_BLOCK;
  return SWEREX__INFLATE_DONE;
}

/** Read the lengths of the codes that the lengths of the codes are written in. */
static swerex__inflate_status swerex__inflate_sizes(swerex__inflate *z) {
  if (z->state == SWEREX__INFLATE_AT_SIZES) {
    if (!swerex__inflate_fill(z, 14)) return SWEREX__INFLATE_MORE;
    z->literals = swerex__inflate_take(z, 5) + 257;
    z->distances = swerex__inflate_take(z, 5) + 1;
    z->orders = swerex__inflate_take(z, 4) + 4;
    z->have = 0;
    if (z->literals > 286 || z->distances > 30) return swerex__inflate_fail(z);
    memset(z->lengths, 0, sizeof z->lengths);
    z->state = SWEREX__INFLATE_IN_ORDER;
  }
  for (; z->have < z->orders; z->have++) {
    if (!swerex__inflate_fill(z, 3)) return SWEREX__INFLATE_MORE;
    z->lengths[swerex__deflate_order[z->have]] = (uint8_t)swerex__inflate_take(z, 3);
  }
  if (!swerex__inflate_build(&z->codes[0], z->lengths, SWEREX__DEFLATE_LENGTHS, false))
    return swerex__inflate_fail(z);
  z->have = 0;
  z->state = SWEREX__INFLATE_IN_LENGTHS;
  return SWEREX__INFLATE_DONE;
}

/** Read one length, or a run of equal ones. */
static swerex__inflate_status swerex__inflate_length(swerex__inflate *z) {
  static const uint8_t bits[] = {2, 3, 7}, base[] = {3, 3, 11};
  uint64_t ahead = z->bits;
  unsigned count = z->count, repeat = 1, value;
  int symbol = swerex__inflate_symbol(z, &z->codes[0]);
  if (symbol == -1) return SWEREX__INFLATE_MORE;
  if (symbol < 0) return swerex__inflate_fail(z);
  value = (unsigned)symbol;
  if (symbol >= 16) {
    unsigned extra = bits[symbol - 16];
    if (z->count < extra) {
      z->bits = ahead;
      z->count = count;
      return SWEREX__INFLATE_MORE;
    }
    repeat = base[symbol - 16] + swerex__inflate_take(z, extra);
    if (symbol == 16 && z->have == 0) return swerex__inflate_fail(z);
    value = symbol == 16 ? z->lengths[z->have - 1] : 0;
  }
  if (z->have + repeat > z->literals + z->distances) return swerex__inflate_fail(z);
  memset(z->lengths + z->have, (int)value, repeat);
  z->have += repeat;
  return SWEREX__INFLATE_DONE;
}

static swerex__inflate_status swerex__inflate_lengths(swerex__inflate *z) {
  while (z->have < z->literals + z->distances) {
    swerex__inflate_fill(z, 0);
    swerex__inflate_status status = swerex__inflate_length(z);
    if (status != SWEREX__INFLATE_DONE) return status;
  }
  if (z->lengths[256] == 0 ||
      !swerex__inflate_build(&z->codes[1], z->lengths + z->literals, z->distances, true) ||
      !swerex__inflate_build(&z->codes[0], z->lengths, z->literals, true))
    return swerex__inflate_fail(z);
  z->state = SWEREX__INFLATE_IN_CODES;
  return SWEREX__INFLATE_DONE;
}

/** Copy what came `distance` bytes before. */
static void swerex__inflate_copy(swerex__inflate *z, size_t distance, size_t length) {
  size_t to = (size_t)(z->made % sizeof z->window);
  size_t from = (size_t)((z->made - distance) % sizeof z->window);
  z->made += length;
  if (distance >= length && to + length <= sizeof z->window && from + length <= sizeof z->window) {
    memcpy(z->window + to, z->window + from, length);
    return;
  }
  for (; length > 0; length--, to++, from++)
    z->window[to % sizeof z->window] = z->window[from % sizeof z->window];
}

/** Read the rest of a match whose length symbol was read. DONE, MORE or BROKEN. */
static swerex__inflate_status swerex__inflate_match(swerex__inflate *z, unsigned symbol) {
  if (symbol > 285) return SWEREX__INFLATE_BROKEN;
  unsigned extra = swerex__deflate_length_bits[symbol - 257];
  if (z->count < extra) return SWEREX__INFLATE_MORE;
  size_t length = swerex__deflate_length_base[symbol - 257] + swerex__inflate_take(z, extra);
  int distance_symbol = swerex__inflate_symbol(z, &z->codes[1]);
  if (distance_symbol == -1) return SWEREX__INFLATE_MORE;
  if (distance_symbol < 0 || distance_symbol >= SWEREX__DEFLATE_DISTANCES)
    return SWEREX__INFLATE_BROKEN;
  extra = swerex__deflate_distance_bits((unsigned)distance_symbol);
  if (z->count < extra) return SWEREX__INFLATE_MORE;
  size_t distance =
    swerex__deflate_distance_base[distance_symbol] + swerex__inflate_take(z, extra);
  if (distance > z->made) return SWEREX__INFLATE_BROKEN;
  swerex__inflate_copy(z, distance, length);
  return SWEREX__INFLATE_DONE;
}

static swerex__inflate_status swerex__inflate_read_codes(swerex__inflate *z) {
  while (swerex__inflate_room(z) >= SWEREX__DEFLATE_MAX_MATCH) {
    swerex__inflate_fill(z, 0);
    uint64_t ahead = z->bits;
    unsigned count = z->count;
    int symbol = swerex__inflate_symbol(z, &z->codes[0]);
    if (symbol == -1) return SWEREX__INFLATE_MORE;
    if (symbol < 0) return swerex__inflate_fail(z);
    if (symbol < 256) {
      swerex__inflate_put(z, (unsigned)symbol);
      continue;
    }
    if (symbol == 256) {
      z->state = z->last ? SWEREX__INFLATE_AT_END : SWEREX__INFLATE_AT_BLOCK;
      return SWEREX__INFLATE_DONE;
    }
    swerex__inflate_status status = swerex__inflate_match(z, (unsigned)symbol);
    if (status == SWEREX__INFLATE_BROKEN) return swerex__inflate_fail(z);
    if (status == SWEREX__INFLATE_DONE) continue;
    z->bits = ahead;
    z->count = count;
    return status;
  }
  return SWEREX__INFLATE_MORE;
}

/** Hand over output that stands in the window. */
static size_t swerex__inflate_give(swerex__inflate *z, unsigned char *out, size_t room) {
  size_t total = 0;
  while (z->given < z->made && total < room) {
    size_t from = (size_t)(z->given % sizeof z->window), size = (size_t)(z->made - z->given);
    if (size > sizeof z->window - from) size = sizeof z->window - from;
    if (size > room - total) size = room - total;
    memcpy(out + total, z->window + from, size);
    z->given += size;
    total += size;
  }
  return total;
}

/**
 * Inflate: *in_size is what is there, then what was used; *out_size the room, then what was made.
 * DONE: the data's end was reached, and all output is out. Some bytes may be used ahead of it.
 */
static swerex__inflate_status swerex__inflate_run(swerex__inflate *z, const unsigned char *in,
                                                  size_t *in_size, unsigned char *out,
                                                  size_t *out_size) {
  swerex__inflate_status status = SWEREX__INFLATE_DONE;
  size_t made = 0;
  z->in = in;
  z->end = in + *in_size;
  for (;;) {
    made += swerex__inflate_give(z, out + made, *out_size - made);
    if (z->state == SWEREX__INFLATE_AT_END || z->state == SWEREX__INFLATE_IN_ERROR) break;
    uint64_t before = z->made;
    switch (z->state) {
    case SWEREX__INFLATE_AT_BLOCK: status = swerex__inflate_block(z); break;
    case SWEREX__INFLATE_AT_STORED:
    case SWEREX__INFLATE_IN_STORED: status = swerex__inflate_stored(z); break;
    case SWEREX__INFLATE_AT_SIZES:
    case SWEREX__INFLATE_IN_ORDER: status = swerex__inflate_sizes(z); break;
    case SWEREX__INFLATE_IN_LENGTHS: status = swerex__inflate_lengths(z); break;
    default: status = swerex__inflate_read_codes(z); break;
    }
    if (status == SWEREX__INFLATE_MORE && z->made == before &&
        (z->in == z->end || made == *out_size))
      break;
  }
  *in_size = (size_t)(z->in - in);
  *out_size = made;
  if (z->state == SWEREX__INFLATE_IN_ERROR) return SWEREX__INFLATE_BROKEN;
  return z->state == SWEREX__INFLATE_AT_END && z->given == z->made ? SWEREX__INFLATE_DONE
                                                                   : SWEREX__INFLATE_MORE;
}

/* =============================================================================================
 * [zip] Zip archives
 * ========================================================================================== */
/* Packing walks a folder and gives the archive's bytes as they are asked for, so that it needs
 * neither a file of its own nor to know sizes before. Unpacking believes nothing: the whole
 * directory is checked, and what would leave the target folder, or swell beyond the limits, is
 * refused before the first file is written. Below the target no link is followed. */

enum {
  SWEREX__ZIP_LEVELS = 256,
  SWEREX__ZIP_CHUNK = 65536,
  SWEREX__ZIP_NAME_MAX = 4096,
  SWEREX__ZIP_STEP_BYTES = 1 << 20,
  SWEREX__ZIP_STEP_ENTRIES = 64,
  SWEREX__ZIP_DIRECTORY_MAX = 256 << 20,
  SWEREX__ZIP_RATIO_FROM = 1 << 20 /* a small file may be as dense as it likes */
};

#define SWEREX__ZIP_BIG 0xFFFFFFFFU /* the field is in the zip64 record */

/** What an archive may become. All zero: the defaults. */
typedef struct swerex__zip_limits {
  uint64_t bytes;   /* default 64 GiB */
  uint64_t entries; /* default 1,000,000 */
  uint64_t ratio;   /* of an entry; default 1,100, which deflate itself cannot exceed */
} swerex__zip_limits;

static uint32_t swerex__zip_get(const unsigned char *at, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint32_t)at[i] << (8 * i);
  return value;
}

static uint64_t swerex__zip_get64(const unsigned char *at) {
  return swerex__zip_get(at, 4) | (uint64_t)swerex__zip_get(at + 4, 4) << 32;
}

static void swerex__zip_put(swerex__str *out, uint64_t value, int bytes) {
  char text[8];
  for (int i = 0; i < bytes; i++) text[i] = (char)(unsigned char)(value >> (8 * i) & 255U);
  swerex__str_add(out, text, (size_t)bytes);
}

/** Refuse an archive in Python's class. Returns false. */
static bool swerex__zip_bad(swerex_error *err, const char *format, ...) SWEREX_PRINTF(2, 3);
static bool swerex__zip_bad(swerex_error *err, const char *format, ...) {
  char message[SWEREX__ZIP_NAME_MAX + 256];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  const char *const strings[4] = {message, NULL, "zipfile.BadZipFile", NULL};
  return swerex__err_fill(err, SWEREX_E_VALUE, strings);
}

/* --- packing ------------------------------------------------------------------------------ */

typedef struct swerex__zip_level {
  DIR *entries;
  size_t path_size; /* of the folder's own path */
} swerex__zip_level;

/** An archive that is being made. */
typedef struct swerex__zip_pack {
  const swerex_allocator *allocator;
  char *root;
  swerex__zip_level levels[SWEREX__ZIP_LEVELS];
  int depth;
  swerex__str path;      /* of the present entry, below the root */
  swerex__str out;       /* made, not yet taken */
  size_t taken;          /* of out */
  swerex__str directory; /* the central one so far */
  uint64_t offset, count;
  bool over;
  int fd; /* of the present file; -1: none */
  struct stat info;
  uint64_t start, size, packed_from; /* of the present file: its header; bytes read */
  uint32_t sum;
  swerex__deflate_crc crc;
  swerex__deflate deflate;
  swerex__str packed; /* deflated, before it goes to out */
  uint64_t packed_size;
} swerex__zip_pack;

static void swerex__zip_pack_free(swerex__zip_pack *pack) {
  if (pack == NULL) return;
  while (pack->depth > 0) closedir(pack->levels[--pack->depth].entries);
  swerex__sys_close(&pack->fd);
  swerex__str_clear(&pack->path);
  swerex__str_clear(&pack->out);
  swerex__str_clear(&pack->directory);
  swerex__str_clear(&pack->packed);
  swerex__mem_free(pack->root);
  swerex__mem_free(pack);
}

/** Report a failure on the present entry. Returns false. */
static bool swerex__zip_pack_fail(const swerex__zip_pack *pack, int number, swerex_error *err) {
  swerex__str path = swerex__str_new(pack->allocator, SWEREX__ZIP_NAME_MAX * 2);
  swerex__str_printf(&path, "%s/%s", pack->root, pack->path.data == NULL ? "" : pack->path.data);
  swerex__err_system(err, number, path.failed ? pack->root : path.data);
  swerex__str_clear(&path);
  return false;
}

/** Open a folder and go into it. */
static bool swerex__zip_pack_enter(swerex__zip_pack *pack, int fd, swerex_error *err) {
  int number = errno;
  DIR *entries = fd < 0 || pack->depth == SWEREX__ZIP_LEVELS ? NULL : fdopendir(fd);
  if (entries == NULL) {
    if (fd >= 0) number = pack->depth == SWEREX__ZIP_LEVELS ? ENAMETOOLONG : errno;
    if (fd >= 0) close(fd);
    return swerex__zip_pack_fail(pack, number, err);
  }
  pack->levels[pack->depth].entries = entries;
  pack->levels[pack->depth++].path_size = pack->path.size;
  return true;
}

static swerex__zip_pack *swerex__zip_pack_new(const swerex_allocator *a, const char *folder,
                                              swerex_error *err) {
  swerex__zip_pack *pack = (swerex__zip_pack *)swerex__mem_new(a, 1, sizeof *pack);
  if (pack != NULL) pack->root = swerex__mem_copy(a, folder, strlen(folder));
  if (pack == NULL || pack->root == NULL) {
    swerex__mem_free(pack);
    swerex__err_memory(err);
    return NULL;
  }
  pack->allocator = a;
  pack->fd = -1;
  pack->path = swerex__str_new(a, SWEREX__ZIP_NAME_MAX);
  pack->out = pack->packed = swerex__str_new(a, (size_t)1 << 24);
  pack->directory = swerex__str_new(a, SWEREX__ZIP_DIRECTORY_MAX);
  swerex__deflate_crc_init(&pack->crc);
  if (swerex__zip_pack_enter(pack, swerex__fs_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0),
                             err))
    return pack;
  swerex__zip_pack_free(pack);
  return NULL;
}

/** The time of an entry as DOS has it: date << 16 | time. */
static uint32_t swerex__zip_dos_time(time_t when) {
  struct tm parts;
  if (localtime_r(&when, &parts) == NULL || parts.tm_year < 80) return 0x00210000U; /* 1980 */
  if (parts.tm_year > 207) parts.tm_year = 207;
  return (uint32_t)(parts.tm_year - 80) << 25 | (uint32_t)(parts.tm_mon + 1) << 21 |
         (uint32_t)parts.tm_mday << 16 | (uint32_t)parts.tm_hour << 11 |
         (uint32_t)parts.tm_min << 5 | (uint32_t)parts.tm_sec / 2;
}

/** A file of more than this may need 64 bits when it is packed: its header says so at once. */
static bool swerex__zip_is_big(const struct stat *info) { return info->st_size > 0x7FFFFFFF; }

/** Write what a local header and a directory entry have in common: version to time. */
static void swerex__zip_pack_common(const swerex__zip_pack *pack, swerex__str *out, bool deflated,
                                    bool big) {
  swerex__zip_put(out, big ? 45 : 20, 2);
  bool utf_8 = swerex__text_run(pack->path.data, pack->path.size, false) == pack->path.size;
  swerex__zip_put(out, (utf_8 ? 0x800U : 0U) | (deflated ? 8U : 0U), 2); /* sizes follow the data */
  swerex__zip_put(out, deflated ? 8 : 0, 2);
  swerex__zip_put(out, swerex__zip_dos_time(pack->info.st_mtime), 4);
}

/** Write the header in front of an entry's data. */
static void swerex__zip_pack_local(swerex__zip_pack *pack, bool deflated, uint64_t size) {
  bool big = deflated && swerex__zip_is_big(&pack->info);
  swerex__str *out = &pack->out;
  pack->start = pack->offset;
  size_t before = out->size;
  swerex__zip_put(out, 0x04034B50U, 4);
  swerex__zip_pack_common(pack, out, deflated, big);
  swerex__zip_put(out, deflated ? 0 : pack->sum, 4);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : deflated ? 0 : size, 4);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : deflated ? 0 : size, 4);
  swerex__zip_put(out, pack->path.size, 2);
  swerex__zip_put(out, big ? 20 : 0, 2);
  swerex__str_add(out, pack->path.data, pack->path.size);
  if (big) {
    swerex__zip_put(out, 1, 2);
    swerex__zip_put(out, 16, 2);
    swerex__zip_put(out, 0, 8);
    swerex__zip_put(out, 0, 8);
  }
  pack->offset += out->size - before;
}

/** Write an entry's line in the directory. */
static void swerex__zip_pack_list(swerex__zip_pack *pack, bool deflated, uint64_t size,
                                  uint64_t packed) {
  swerex__str *out = &pack->directory;
  bool big = size >= SWEREX__ZIP_BIG || packed >= SWEREX__ZIP_BIG ||
             pack->start >= SWEREX__ZIP_BIG || (deflated && swerex__zip_is_big(&pack->info));
  swerex__zip_put(out, 0x02014B50U, 4);
  swerex__zip_put(out, 3U << 8 | (big ? 45U : 20U), 2); /* made by Unix: modes are kept */
  swerex__zip_pack_common(pack, out, deflated, big);
  swerex__zip_put(out, pack->sum, 4);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : packed, 4);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : size, 4);
  swerex__zip_put(out, pack->path.size, 2);
  swerex__zip_put(out, (big ? 28U : 0U) + 9, 2);
  swerex__zip_put(out, 0, 6); /* no comment, first disk, no internal attributes */
  swerex__zip_put(out,
                  (uint64_t)pack->info.st_mode << 16 | (S_ISDIR(pack->info.st_mode) ? 16U : 0U), 4);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : pack->start, 4);
  swerex__str_add(out, pack->path.data, pack->path.size);
  if (big) {
    swerex__zip_put(out, 1, 2);
    swerex__zip_put(out, 24, 2);
    swerex__zip_put(out, size, 8);
    swerex__zip_put(out, packed, 8);
    swerex__zip_put(out, pack->start, 8);
  }
  swerex__zip_put(out, 0x5455U, 2); /* the time in seconds, which DOS cannot say */
  swerex__zip_put(out, 5, 2);
  swerex__zip_put(out, 1, 1);
  swerex__zip_put(out, (uint64_t)pack->info.st_mtime, 4);
  pack->count++;
}

/** Write an entry whose data is at hand: a folder, a link. */
static void swerex__zip_pack_small(swerex__zip_pack *pack, const char *data, size_t size) {
  pack->sum = swerex__deflate_crc_add(&pack->crc, 0, data, size);
  swerex__zip_pack_local(pack, false, size);
  swerex__str_add(&pack->out, data, size);
  pack->offset += size;
  swerex__zip_pack_list(pack, false, size, size);
}

/** Begin an entry that is a file. */
static void swerex__zip_pack_begin(swerex__zip_pack *pack) {
  pack->sum = 0;
  pack->size = pack->packed_size = 0;
  swerex__deflate_init(&pack->deflate, &pack->packed);
  swerex__zip_pack_local(pack, true, 0);
}

/** Pack the next piece of the present file. */
static bool swerex__zip_pack_piece(swerex__zip_pack *pack, swerex_error *err) {
  char data[SWEREX__ZIP_CHUNK];
  ssize_t n = swerex__fs_read_some(pack->fd, data, sizeof data);
  if (n < 0) return swerex__zip_pack_fail(pack, errno, err);
  pack->sum = swerex__deflate_crc_add(&pack->crc, pack->sum, data, (size_t)n);
  pack->size += (uint64_t)n;
  swerex__deflate_add(&pack->deflate, data, (size_t)n, n == 0);
  if (pack->packed.failed) return swerex__err_memory(err);
  swerex__str_add(&pack->out, pack->packed.data, pack->packed.size);
  pack->packed_size += pack->packed.size;
  pack->offset += pack->packed.size;
  pack->packed.size = 0;
  if (n > 0) return true;
  int width = swerex__zip_is_big(&pack->info) ? 8 : 4;
  if (width == 4 && pack->size >= SWEREX__ZIP_BIG) /* it has grown since it was looked at */
    return swerex__zip_pack_fail(pack, EFBIG, err);
  swerex__zip_put(&pack->out, 0x08074B50U, 4);
  swerex__zip_put(&pack->out, pack->sum, 4);
  swerex__zip_put(&pack->out, pack->packed_size, width);
  swerex__zip_put(&pack->out, pack->size, width);
  pack->offset += 8 + 2 * (uint64_t)width;
  swerex__sys_close(&pack->fd);
  swerex__zip_pack_list(pack, true, pack->size, pack->packed_size);
  return true;
}

/**
 * Tell whether a link may lead out of the folder: ".." may only begin its target, and not too
 * often. Behind another name it would depend on where that name, perhaps a link too, leads.
 */
static bool swerex__zip_leads_out(const char *name, const char *target) {
  int depth = 0;
  bool out = target[0] == '/', named = false;
  for (const char *c = name; *c != '\0'; c++) depth += *c == '/';
  for (const char *at = target; *at != '\0' && !out;) {
    size_t length = strcspn(at, "/");
    bool up = length == 2 && at[0] == '.' && at[1] == '.';
    if (up)
      out = named || --depth < 0;
    else
      named = named || (length > 0 && !(length == 1 && at[0] == '.'));
    at += length;
    while (*at == '/') at++;
  }
  return out;
}

/** Begin an entry that is a file; `follow` for the one that a link leads to. */
static bool swerex__zip_pack_file(swerex__zip_pack *pack, int folder, const char *name, bool follow,
                                  swerex_error *err) {
  pack->fd = swerex__fs_open(folder, name, O_RDONLY | (follow ? 0 : O_NOFOLLOW), 0);
  if (pack->fd < 0 || fstat(pack->fd, &pack->info) != 0 || !S_ISREG(pack->info.st_mode))
    return swerex__zip_pack_fail(pack, pack->fd < 0 ? errno : EINVAL, err);
  swerex__zip_pack_begin(pack);
  return true;
}

/** Begin an entry that is a link. One that leads out is its file, or left out if that is none. */
static bool swerex__zip_pack_link(swerex__zip_pack *pack, int folder, const char *name,
                                  swerex_error *err) {
  char target[SWEREX__ZIP_NAME_MAX + 1];
  struct stat info;
  ssize_t size = readlinkat(folder, name, target, sizeof target - 1);
  if (size < 0) return swerex__zip_pack_fail(pack, errno, err);
  target[size] = '\0';
  if (!swerex__zip_leads_out(pack->path.data, target))
    swerex__zip_pack_small(pack, target, (size_t)size);
  else if (fstatat(folder, name, &info, 0) == 0 && S_ISREG(info.st_mode))
    return swerex__zip_pack_file(pack, folder, name, true, err);
  return true;
}

/** Begin the entry that the path leads to. */
static bool swerex__zip_pack_entry(swerex__zip_pack *pack, int folder, const char *name,
                                   swerex_error *err) {
  if (fstatat(folder, name, &pack->info, AT_SYMLINK_NOFOLLOW) != 0)
    return swerex__zip_pack_fail(pack, errno, err);
  if (S_ISLNK(pack->info.st_mode)) return swerex__zip_pack_link(pack, folder, name, err);
  if (S_ISREG(pack->info.st_mode)) return swerex__zip_pack_file(pack, folder, name, false, err);
  if (!S_ISDIR(pack->info.st_mode))
    return swerex__err_set(err, SWEREX_E_VALUE, "%s/%s is neither a file nor a folder nor a link",
                           pack->root, pack->path.data);
  int fd = swerex__fs_open(folder, name, O_RDONLY | O_NOFOLLOW | O_DIRECTORY, 0);
  if (fd >= 0) {
    swerex__str_putc(&pack->path, '/');
    if (!pack->path.failed) swerex__zip_pack_small(pack, "", 0);
  }
  return swerex__zip_pack_enter(pack, fd, err);
}

/** Write the directory and the archive's end. */
static void swerex__zip_pack_finish(swerex__zip_pack *pack) {
  swerex__str *out = &pack->out;
  uint64_t start = pack->offset, size = pack->directory.size;
  bool big = start >= SWEREX__ZIP_BIG || size >= SWEREX__ZIP_BIG || pack->count >= 0xFFFF;
  out->max = SWEREX__ZIP_DIRECTORY_MAX + 65536;
  swerex__str_add(out, pack->directory.data, pack->directory.size);
  if (big) {
    swerex__zip_put(out, 0x06064B50U, 4);
    swerex__zip_put(out, 44, 8);
    swerex__zip_put(out, 3U << 8 | 45U, 2);
    swerex__zip_put(out, 45, 2);
    swerex__zip_put(out, 0, 8); /* disks */
    swerex__zip_put(out, pack->count, 8);
    swerex__zip_put(out, pack->count, 8);
    swerex__zip_put(out, size, 8);
    swerex__zip_put(out, start, 8);
    swerex__zip_put(out, 0x07064B50U, 4);
    swerex__zip_put(out, 0, 4);
    swerex__zip_put(out, start + size, 8);
    swerex__zip_put(out, 1, 4);
  }
  swerex__zip_put(out, 0x06054B50U, 4);
  swerex__zip_put(out, 0, 4);
  swerex__zip_put(out, big ? 0xFFFFU : pack->count, 2);
  swerex__zip_put(out, big ? 0xFFFFU : pack->count, 2);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : size, 4);
  swerex__zip_put(out, big ? SWEREX__ZIP_BIG : start, 4);
  swerex__zip_put(out, 0, 2);
  pack->over = true;
}

/** Go on to the next entry of the innermost folder, or leave it. */
static bool swerex__zip_pack_next(swerex__zip_pack *pack, swerex_error *err) {
  swerex__zip_level *level = &pack->levels[pack->depth - 1];
  errno = 0;
  const struct dirent *entry = readdir(level->entries);
  pack->path.size = level->path_size;
  if (pack->path.data != NULL) pack->path.data[pack->path.size] = '\0';
  if (entry == NULL && errno != 0) return swerex__zip_pack_fail(pack, errno, err);
  if (entry == NULL) {
    closedir(level->entries);
    if (--pack->depth == 0) swerex__zip_pack_finish(pack);
    return true;
  }
  if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) return true;
  swerex__str_puts(&pack->path, entry->d_name);
  if (pack->path.failed) return swerex__zip_pack_fail(pack, ENAMETOOLONG, err);
  return swerex__zip_pack_entry(pack, dirfd(level->entries), entry->d_name, err);
}

/** Give the next bytes of the archive; *got 0: its end. */
static bool swerex__zip_pack_read(swerex__zip_pack *pack, char *out, size_t room, size_t *got,
                                  swerex_error *err) {
  while (pack->taken == pack->out.size && !pack->over) {
    pack->out.size = pack->taken = 0;
    bool ok = pack->fd >= 0 ? swerex__zip_pack_piece(pack, err) : swerex__zip_pack_next(pack, err);
    if (!ok) return false;
    if (pack->out.failed || pack->directory.failed)
      return swerex__err_set(err, SWEREX_E_VALUE, "%s has too many files", pack->root);
  }
  size_t size = pack->out.size - pack->taken;
  *got = size < room ? size : room;
  if (*got > 0) memcpy(out, pack->out.data + pack->taken, *got);
  pack->taken += *got;
  return true;
}

/* --- unpacking: the directory ------------------------------------------------------------- */

typedef struct swerex__zip_entry {
  char *name; /* clean: no "." and no empty part; without a slash at its end */
  size_t name_size;
  uint64_t offset, packed, size;
  uint32_t sum, mode;
  unsigned method;
  int64_t time;
  bool folder, link;
} swerex__zip_entry;

typedef struct swerex__zip_unpack {
  const swerex_allocator *allocator;
  int fd; /* the archive; borrowed */
  int target;
  char *target_path;
  swerex__zip_limits limits;
  uint64_t archive, shift, directory; /* sizes; where the directory starts */
  swerex__zip_entry *entries;
  size_t count, room, next;
  char *names; /* of all entries */
  int out;     /* the file that is being written; -1: none */
  uint64_t at, left, made;
  uint32_t sum;
  swerex__deflate_crc crc;
  swerex__inflate inflate;
} swerex__zip_unpack;

/** Open the folder that an entry is in, making what is missing; *name is the entry's last part. */
static int swerex__zip_open_parent(const swerex__zip_unpack *unpack, swerex__zip_entry *entry,
                                   const char **name) {
  int folder = fcntl(unpack->target, F_DUPFD_CLOEXEC, 3);
  char *at = entry->name, *slash;
  while (folder >= 0 && (slash = strchr(at, '/')) != NULL) {
    *slash = '\0';
    if (mkdirat(folder, at, 0777) != 0 && errno != EEXIST) swerex__sys_close(&folder);
    int next =
      folder < 0 ? -1 : swerex__fs_open(folder, at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    *slash = '/';
    swerex__sys_close(&folder);
    folder = next;
    at = slash + 1;
  }
  *name = at;
  return folder;
}

/** Remove a file that did not come whole. */
static void swerex__zip_drop_file(swerex__zip_unpack *unpack, swerex__zip_entry *entry) {
  const char *name = NULL;
  swerex__sys_close(&unpack->out);
  if (entry->folder || entry->link || entry->name_size == 0) return;
  int folder = swerex__zip_open_parent(unpack, entry, &name);
  if (folder >= 0) unlinkat(folder, name, 0);
  swerex__sys_close(&folder);
}

static void swerex__zip_unpack_free(swerex__zip_unpack *unpack) {
  if (unpack == NULL) return;
  if (unpack->out >= 0) swerex__zip_drop_file(unpack, &unpack->entries[unpack->next - 1]);
  swerex__sys_close(&unpack->target);
  swerex__mem_free(unpack->target_path);
  swerex__mem_free(unpack->entries);
  swerex__mem_free(unpack->names);
  swerex__mem_free(unpack);
}

/** Read bytes at a place of the archive; false: they are not all there. */
static bool swerex__zip_read_at(const swerex__zip_unpack *unpack, uint64_t at, void *data,
                                size_t size) {
  char *into = (char *)data;
  if (at > unpack->archive || size > unpack->archive - at) return false;
  while (size > 0) {
    ssize_t n = pread(unpack->fd, into, size, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    into += n;
    at += (uint64_t)n;
    size -= (size_t)n;
  }
  return true;
}

/** Find the record at the archive's end, behind which only a comment stands. */
static bool swerex__zip_find_end(const swerex__zip_unpack *unpack, uint64_t *at,
                                 unsigned char end[22]) {
  unsigned char tail[66000];
  size_t size = unpack->archive < sizeof tail ? (size_t)unpack->archive : sizeof tail;
  if (size < 22 || !swerex__zip_read_at(unpack, unpack->archive - size, tail, size)) return false;
  for (size_t i = size - 22 + 1; i-- > 0;) {
    if (swerex__zip_get(tail + i, 4) != 0x06054B50U ||
        i + 22 + swerex__zip_get(tail + i + 20, 2) != size)
      continue;
    *at = unpack->archive - size + i;
    memcpy(end, tail + i, 22);
    return true;
  }
  return false;
}

/** Find out where the directory is, how large, and how many entries it has. */
static bool swerex__zip_find_directory(swerex__zip_unpack *unpack, uint64_t *size,
                                       uint64_t *count, swerex_error *err) {
  unsigned char end[22], locator[20], big[56];
  uint64_t at = 0;
  if (!swerex__zip_find_end(unpack, &at, end))
    return swerex__zip_bad(err, "File is not a zip file");
  uint64_t start = swerex__zip_get(end + 16, 4);
  *size = swerex__zip_get(end + 12, 4);
  *count = swerex__zip_get(end + 10, 2);
  bool disks = swerex__zip_get(end + 4, 4) != 0;
  if (at >= 76 && swerex__zip_read_at(unpack, at - 20, locator, 20) &&
      swerex__zip_get(locator, 4) == 0x07064B50U) {
    at -= 76; /* the long record stands right before its locator, whatever that says */
    if (!swerex__zip_read_at(unpack, at, big, 56) || swerex__zip_get(big, 4) != 0x06064B50U)
      return swerex__zip_bad(err, "Corrupt zip64 end of central directory record");
    disks = swerex__zip_get64(big + 16) != 0;
    *count = swerex__zip_get64(big + 32);
    *size = swerex__zip_get64(big + 40);
    start = swerex__zip_get64(big + 48);
  }
  if (disks) return swerex__zip_bad(err, "zipfiles that span multiple disks are not supported");
  if (*size > at || start > at - *size)
    return swerex__zip_bad(err, "Bad offset for central directory");
  unpack->directory = at - *size;
  unpack->shift = unpack->directory - start; /* bytes that stand before the archive */
  if (*size > SWEREX__ZIP_DIRECTORY_MAX || *count > unpack->limits.entries)
    return swerex__zip_bad(err, "the archive has more than %llu entries",
                           (unsigned long long)unpack->limits.entries);
  return true;
}

/** Clean a name in place: no empty part, no "."; false: it leads out of the folder. */
static bool swerex__zip_clean(char *name, size_t *size, bool *folder) {
  size_t out = 0, at = 0;
  if (*size == 0 || name[0] == '/' || memchr(name, '\0', *size) != NULL) return false;
  *folder = name[*size - 1] == '/';
  while (at < *size) {
    size_t length = 0;
    while (at + length < *size && name[at + length] != '/') length++;
    bool dots = length == 2 && name[at] == '.' && name[at + 1] == '.';
    if (dots) return false;
    if (length > 0 && !(length == 1 && name[at] == '.')) {
      if (out > 0) name[out++] = '/';
      memmove(name + out, name + at, length);
      out += length;
    }
    at += length + 1;
  }
  name[out] = '\0';
  *size = out;
  return out > 0 || *folder;
}

/** Read the parts of an entry that did not fit 32 bits, and its time. */
static void swerex__zip_read_extra(swerex__zip_entry *entry, const unsigned char *extra,
                                   size_t size) {
  while (size >= 4) {
    uint32_t id = swerex__zip_get(extra, 2);
    size_t length = swerex__zip_get(extra + 2, 2), at = 4;
    if (length > size - 4) return;
    uint64_t *const fields[] = {&entry->size, &entry->packed, &entry->offset};
    for (int i = 0; id == 1 && i < 3; i++)
      if (*fields[i] == SWEREX__ZIP_BIG && at + 8 <= length + 4) {
        *fields[i] = swerex__zip_get64(extra + at);
        at += 8;
      }
    if (id == 0x5455U && length >= 5 && (extra[4] & 1U) != 0)
      entry->time = (int32_t)swerex__zip_get(extra + 5, 4);
    extra += 4 + length;
    size -= 4 + length;
  }
}

/** Turn DOS's local time into seconds. */
static int64_t swerex__zip_unix_time(uint32_t dos) {
  struct tm parts;
  memset(&parts, 0, sizeof parts);
  parts.tm_year = (int)(dos >> 25) + 80;
  parts.tm_mon = (int)(dos >> 21 & 15U) - 1;
  parts.tm_mday = (int)(dos >> 16 & 31U);
  parts.tm_hour = (int)(dos >> 11 & 31U);
  parts.tm_min = (int)(dos >> 5 & 63U);
  parts.tm_sec = (int)(dos & 31U) * 2;
  parts.tm_isdst = -1;
  return (int64_t)mktime(&parts);
}

/** Check one entry by what the directory says of it. */
static bool swerex__zip_check_entry(const swerex__zip_unpack *unpack, swerex__zip_entry *entry,
                                    unsigned flags, swerex_error *err) {
  const char *name = entry->name;
  if (!swerex__zip_clean(entry->name, &entry->name_size, &entry->folder))
    return swerex__zip_bad(err, "%.200s: this name leads out of the folder, or is none", name);
  if ((flags & 1U) != 0) return swerex__zip_bad(err, "%s is encrypted", name);
  if (entry->method != 0 && entry->method != 8)
    return swerex__zip_bad(err, "%s: compression method %u is not supported", name, entry->method);
  if (entry->method == 0 && entry->packed != entry->size)
    return swerex__zip_bad(err, "%s: its two sizes differ, though it is not compressed", name);
  if (entry->packed > unpack->directory || entry->offset > unpack->directory - entry->packed)
    return swerex__zip_bad(err, "%s lies outside of the archive", name);
  if (entry->size > SWEREX__ZIP_RATIO_FROM && entry->size / unpack->limits.ratio > entry->packed)
    return swerex__zip_bad(err, "%s: %llu bytes from %llu: refused as a bomb", name,
                           (unsigned long long)entry->size, (unsigned long long)entry->packed);
  entry->link = (entry->mode & 0170000U) == 0120000U;
  if (entry->link && (entry->folder || entry->size == 0 || entry->size >= SWEREX__ZIP_NAME_MAX))
    return swerex__zip_bad(err, "%s: a link of %llu bytes", name, (unsigned long long)entry->size);
  return true;
}

/** Read the whole directory. */
static bool swerex__zip_read_entries(swerex__zip_unpack *unpack, const unsigned char *data,
                                     size_t size, uint64_t count, swerex_error *err) {
  char *names = unpack->names;
  uint64_t total = 0;
  for (uint64_t i = 0; i < count; i++) {
    void *entries = unpack->entries;
    if (size < 46 || swerex__zip_get(data, 4) != 0x02014B50U)
      return swerex__zip_bad(err, "Bad magic number for central directory");
    size_t name = swerex__zip_get(data + 28, 2), extra = swerex__zip_get(data + 30, 2);
    size_t whole = 46 + name + extra + swerex__zip_get(data + 32, 2);
    if (whole > size || name > SWEREX__ZIP_NAME_MAX)
      return swerex__zip_bad(err, "Truncated central directory");
    if (!swerex__mem_reserve(unpack->allocator, &entries, &unpack->room, unpack->count,
                             sizeof *unpack->entries))
      return swerex__err_memory(err);
    unpack->entries = (swerex__zip_entry *)entries;
    swerex__zip_entry *entry = &unpack->entries[unpack->count++];
    memset(entry, 0, sizeof *entry);
    entry->method = swerex__zip_get(data + 10, 2);
    entry->time = swerex__zip_unix_time(swerex__zip_get(data + 12, 4));
    entry->sum = swerex__zip_get(data + 16, 4);
    entry->packed = swerex__zip_get(data + 20, 4);
    entry->size = swerex__zip_get(data + 24, 4);
    if (data[5] == 3) entry->mode = swerex__zip_get(data + 38, 4) >> 16;
    entry->offset = swerex__zip_get(data + 42, 4);
    swerex__zip_read_extra(entry, data + 46 + name, extra);
    entry->offset += unpack->shift;
    entry->name = names;
    entry->name_size = name;
    memcpy(names, data + 46, name);
    names[name] = '\0';
    names += name + 1;
    if (!swerex__zip_check_entry(unpack, entry, swerex__zip_get(data + 8, 2), err)) return false;
    total += entry->size;
    if (entry->size > unpack->limits.bytes || total > unpack->limits.bytes)
      return swerex__zip_bad(err, "the archive would take more than %llu bytes",
                             (unsigned long long)unpack->limits.bytes);
    data += whole;
    size -= whole;
  }
  return true;
}

/* --- unpacking: what entries are to each other -------------------------------------------- */

static int swerex__zip_by_offset(const void *left, const void *right) {
  const swerex__zip_entry *a = *(const swerex__zip_entry *const *)left;
  const swerex__zip_entry *b = *(const swerex__zip_entry *const *)right;
  return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int swerex__zip_by_name(const void *left, const void *right) {
  const swerex__zip_entry *a = *(const swerex__zip_entry *const *)left;
  const swerex__zip_entry *b = *(const swerex__zip_entry *const *)right;
  return strcmp(a->name, b->name);
}

/** Refuse entries that share data: so do bombs. */
static bool swerex__zip_check_overlap(swerex__zip_unpack *unpack, swerex__zip_entry **list,
                                      swerex_error *err) {
  qsort(list, unpack->count, sizeof(void *), swerex__zip_by_offset);
  for (size_t i = 0; i + 1 < unpack->count; i++)
    if (list[i + 1]->offset - list[i]->offset < 30 + list[i]->packed)
      return swerex__zip_bad(err, "Overlapped entries: '%s' (possible zip bomb)", list[i]->name);
  return true;
}

/** Refuse entries whose path goes through a link of the archive. */
static bool swerex__zip_check_links(swerex__zip_unpack *unpack, swerex__zip_entry **list,
                                    swerex_error *err) {
  qsort(list, unpack->count, sizeof(void *), swerex__zip_by_name);
  for (size_t i = 0; i < unpack->count; i++) {
    const swerex__zip_entry *link = list[i];
    if (!link->link) continue;
    for (size_t k = i + 1; k < unpack->count; k++) {
      const char *name = list[k]->name;
      if (strncmp(name, link->name, link->name_size) != 0) break;
      if (name[link->name_size] == '/')
        return swerex__zip_bad(err, "%s: its path goes through a link of the archive", name);
    }
  }
  return true;
}

/** Find where an entry's data starts. */
static bool swerex__zip_find_data(const swerex__zip_unpack *unpack, const swerex__zip_entry *entry,
                                  uint64_t *at, swerex_error *err) {
  unsigned char head[30];
  if (!swerex__zip_read_at(unpack, entry->offset, head, sizeof head) ||
      swerex__zip_get(head, 4) != 0x04034B50U)
    return swerex__zip_bad(err, "Bad magic number for file header");
  *at = entry->offset + 30 + swerex__zip_get(head + 26, 2) + swerex__zip_get(head + 28, 2);
  if (*at > unpack->directory || entry->packed > unpack->directory - *at)
    return swerex__zip_bad(err, "%s lies outside of the archive", entry->name);
  return true;
}

/** Take the data of a small entry. */
static bool swerex__zip_read_small(swerex__zip_unpack *unpack, const swerex__zip_entry *entry,
                                   char *out, swerex_error *err) {
  unsigned char packed[2 * SWEREX__ZIP_NAME_MAX];
  uint64_t at = 0;
  size_t in = (size_t)entry->packed, made = (size_t)entry->size + 1;
  if (!swerex__zip_find_data(unpack, entry, &at, err)) return false;
  if (entry->packed > sizeof packed || !swerex__zip_read_at(unpack, at, packed, in))
    return swerex__zip_bad(err, "%s: a link that cannot be read", entry->name);
  if (entry->method == 8) {
    swerex__inflate_init(&unpack->inflate);
    if (swerex__inflate_run(&unpack->inflate, packed, &in, (unsigned char *)out, &made) !=
        SWEREX__INFLATE_DONE)
      made = SIZE_MAX;
  } else {
    memcpy(out, packed, in);
    made = in;
  }
  if (made != entry->size || swerex__deflate_crc_add(&unpack->crc, 0, out, made) != entry->sum)
    return swerex__zip_bad(err, "Bad CRC-32 for file '%s'", entry->name);
  out[made] = '\0';
  return true;
}

static bool swerex__zip_check_target(const swerex__zip_entry *entry, const char *target,
                                     swerex_error *err) {
  if (strlen(target) == entry->size && !swerex__zip_leads_out(entry->name, target)) return true;
  return swerex__zip_bad(err, "%s: a link that leads out of the folder", entry->name);
}

/** Check all that can be known before anything is written. */
static bool swerex__zip_check(swerex__zip_unpack *unpack, swerex_error *err) {
  char target[SWEREX__ZIP_NAME_MAX + 1];
  swerex__zip_entry **list = (swerex__zip_entry **)swerex__mem_grow(
    unpack->allocator, NULL, unpack->count + 1, sizeof *list);
  if (list == NULL) return swerex__err_memory(err);
  for (size_t i = 0; i < unpack->count; i++) list[i] = &unpack->entries[i];
  bool ok = swerex__zip_check_overlap(unpack, list, err) &&
            swerex__zip_check_links(unpack, list, err);
  swerex__mem_free(list);
  for (size_t i = 0; ok && i < unpack->count; i++)
    if (unpack->entries[i].link)
      ok = swerex__zip_read_small(unpack, &unpack->entries[i], target, err) &&
           swerex__zip_check_target(&unpack->entries[i], target, err);
  return ok;
}

/** Read and check the directory. */
static bool swerex__zip_unpack_open(swerex__zip_unpack *unpack, swerex_error *err) {
  uint64_t size = 0, count = 0;
  struct stat info;
  if (fstat(unpack->fd, &info) != 0) return swerex__err_system(err, errno, "the archive");
  unpack->archive = (uint64_t)info.st_size;
  if (!swerex__zip_find_directory(unpack, &size, &count, err)) return false;
  unsigned char *data =
    (unsigned char *)swerex__mem_grow(unpack->allocator, NULL, (size_t)size + 1, 1);
  unpack->names = (char *)swerex__mem_grow(unpack->allocator, NULL, (size_t)size + 1, 1);
  bool ok = (data != NULL && unpack->names != NULL) || swerex__err_memory(err);
  if (ok && !swerex__zip_read_at(unpack, unpack->directory, data, (size_t)size))
    ok = swerex__zip_bad(err, "Truncated central directory");
  ok = ok && swerex__zip_read_entries(unpack, data, (size_t)size, count, err) &&
       swerex__zip_check(unpack, err);
  swerex__mem_free(data);
  return ok;
}

/** Begin to unpack an open archive into a folder, which is made. limits may be NULL. */
static swerex__zip_unpack *swerex__zip_unpack_new(const swerex_allocator *a, int fd,
                                                  const char *target,
                                                  const swerex__zip_limits *limits,
                                                  swerex_error *err) {
  swerex__zip_unpack *unpack = (swerex__zip_unpack *)swerex__mem_new(a, 1, sizeof *unpack);
  if (unpack == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  unpack->allocator = a;
  unpack->fd = fd;
  unpack->target = unpack->out = -1;
  if (limits != NULL) unpack->limits = *limits;
  if (unpack->limits.bytes == 0) unpack->limits.bytes = (uint64_t)64 << 30;
  if (unpack->limits.entries == 0) unpack->limits.entries = 1000000;
  if (unpack->limits.ratio == 0) unpack->limits.ratio = 1100;
  swerex__deflate_crc_init(&unpack->crc);
  unpack->target_path = swerex__mem_copy(a, target, strlen(target));
  bool ok = unpack->target_path != NULL || swerex__err_memory(err);
  ok = ok && swerex__zip_unpack_open(unpack, err);
  if (ok && mkdir(target, 0777) != 0 && errno != EEXIST)
    ok = swerex__err_system(err, errno, target);
  if (ok) unpack->target = swerex__fs_open(AT_FDCWD, target, O_RDONLY | O_DIRECTORY, 0);
  if (ok && unpack->target >= 0) return unpack;
  if (ok) swerex__err_system(err, errno, target);
  swerex__zip_unpack_free(unpack);
  return NULL;
}

/* --- unpacking: the files ----------------------------------------------------------------- */

/** Report a failure on an entry's file. Returns false. */
static bool swerex__zip_unpack_fail(const swerex__zip_unpack *unpack,
                                    const swerex__zip_entry *entry, swerex_error *err) {
  int number = errno;
  swerex__str path = swerex__str_new(unpack->allocator, SWEREX__ZIP_NAME_MAX * 4);
  swerex__str_printf(&path, "%s/%s", unpack->target_path, entry->name);
  swerex__err_system(err, number, path.failed ? unpack->target_path : path.data);
  swerex__str_clear(&path);
  return false;
}

static void swerex__zip_get_times(const swerex__zip_entry *entry, struct timespec times[2]) {
  times[0].tv_sec = times[1].tv_sec = (time_t)entry->time;
  times[0].tv_nsec = times[1].tv_nsec = 0;
}

/** Make a link, with its time where the file system has one for links. */
static bool swerex__zip_make_link(const swerex__zip_entry *entry, const char *target, int folder,
                                  const char *name) {
  struct timespec times[2];
  swerex__zip_get_times(entry, times);
  if (symlinkat(target, folder, name) != 0) return false;
  if (entry->time > 0 && utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW) != 0) errno = 0;
  return true;
}

/** Set mode and times of a file or folder that was written. File systems without them: fine. */
static void swerex__zip_set_mode(int fd, const swerex__zip_entry *entry) {
  struct timespec times[2];
  swerex__zip_get_times(entry, times);
  if ((entry->mode & 0777U) != 0 && fchmod(fd, (mode_t)(entry->mode & 0777U)) != 0) errno = 0;
  if (entry->time > 0 && futimens(fd, times) != 0) errno = 0;
}

/** Begin an entry: make the folder or the link, or open the file. */
static bool swerex__zip_begin(swerex__zip_unpack *unpack, swerex__zip_entry *entry,
                              swerex_error *err) {
  char target[SWEREX__ZIP_NAME_MAX + 1];
  const char *name = NULL;
  if (entry->link && !swerex__zip_read_small(unpack, entry, target, err)) return false;
  if (entry->name_size == 0) return true; /* "./": the target itself */
  int folder = swerex__zip_open_parent(unpack, entry, &name);
  if (folder < 0) return swerex__zip_unpack_fail(unpack, entry, err);
  bool ok = true;
  if (entry->folder) {
    ok = mkdirat(folder, name, 0777) == 0 || errno == EEXIST;
  } else {
    ok = unlinkat(folder, name, 0) == 0 || errno == ENOENT;
    if (ok && entry->link) ok = swerex__zip_make_link(entry, target, folder, name);
    if (ok && !entry->link) {
      unpack->out = swerex__fs_open(folder, name,
                                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
      ok = unpack->out >= 0;
    }
  }
  if (!ok) swerex__zip_unpack_fail(unpack, entry, err);
  swerex__sys_close(&folder);
  if (!ok || unpack->out < 0) return ok;
  unpack->sum = 0;
  unpack->made = 0;
  unpack->left = entry->packed;
  swerex__inflate_init(&unpack->inflate);
  return swerex__zip_find_data(unpack, entry, &unpack->at, err);
}

/** Complete the file that is being written. */
static bool swerex__zip_end_file(swerex__zip_unpack *unpack, const swerex__zip_entry *entry,
                                 swerex_error *err) {
  swerex__zip_set_mode(unpack->out, entry);
  bool closed = swerex__fs_close(&unpack->out);
  if (!closed) return swerex__zip_unpack_fail(unpack, entry, err);
  if (unpack->made != entry->size || unpack->sum != entry->sum)
    return swerex__zip_bad(err, "Bad CRC-32 for file '%s'", entry->name);
  return true;
}

/** Write output of an entry; never more than the directory has said. */
static bool swerex__zip_write(swerex__zip_unpack *unpack, const swerex__zip_entry *entry,
                              const unsigned char *data, size_t size, swerex_error *err) {
  if (size > entry->size - unpack->made)
    return swerex__zip_bad(err, "%s is larger than the archive says", entry->name);
  unpack->sum = swerex__deflate_crc_add(&unpack->crc, unpack->sum, data, size);
  unpack->made += size;
  return swerex__sys_write_all(unpack->out, (const char *)data, size) ||
         swerex__zip_unpack_fail(unpack, entry, err);
}

/** Move a piece of the present file; its end closes it. */
static bool swerex__zip_piece(swerex__zip_unpack *unpack, const swerex__zip_entry *entry,
                              swerex_error *err) {
  unsigned char in[SWEREX__ZIP_CHUNK], out[SWEREX__ZIP_CHUNK];
  size_t size = unpack->left < sizeof in ? (size_t)unpack->left : sizeof in, at = 0;
  in[0] = 0; /* for an entry without data, which some compilers take for one not read */
  swerex__inflate_status status = SWEREX__INFLATE_MORE;
  if (!swerex__zip_read_at(unpack, unpack->at, in, size))
    return swerex__zip_bad(err, "%s is cut off", entry->name);
  unpack->at += size;
  unpack->left -= size;
  if (entry->method == 0) {
    if (!swerex__zip_write(unpack, entry, in, size, err)) return false;
    return unpack->left > 0 || swerex__zip_end_file(unpack, entry, err);
  }
  for (;;) {
    size_t used = size - at, made = sizeof out;
    status = swerex__inflate_run(&unpack->inflate, in + at, &used, out, &made);
    at += used;
    if (status == SWEREX__INFLATE_BROKEN)
      return swerex__zip_bad(err, "%s: its compressed data is malformed", entry->name);
    if (!swerex__zip_write(unpack, entry, out, made, err)) return false;
    if (status == SWEREX__INFLATE_DONE) return swerex__zip_end_file(unpack, entry, err);
    if (made < sizeof out && at == size) break;
  }
  if (unpack->left == 0)
    return swerex__zip_bad(err, "%s: its compressed data is cut off", entry->name);
  return true;
}

/** Give the folders their modes and times, innermost last written: nothing goes into them now. */
static void swerex__zip_finish(swerex__zip_unpack *unpack) {
  for (size_t i = unpack->count; i-- > 0;) {
    swerex__zip_entry *entry = &unpack->entries[i];
    const char *name = NULL;
    if (!entry->folder || entry->name_size == 0) continue;
    int parent = swerex__zip_open_parent(unpack, entry, &name);
    int fd =
      parent < 0 ? -1 : swerex__fs_open(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd >= 0) swerex__zip_set_mode(fd, entry);
    swerex__sys_close(&fd);
    swerex__sys_close(&parent);
  }
}

/** Move about a MiB, or 64 entries. After a failure the archive can only be freed. */
static swerex__fs_progress swerex__zip_unpack_step(swerex__zip_unpack *unpack, swerex_error *err) {
  uint64_t before = unpack->at;
  for (int i = 0; i < SWEREX__ZIP_STEP_ENTRIES; i++) {
    if (unpack->out < 0 && unpack->next == unpack->count) {
      swerex__zip_finish(unpack);
      return SWEREX__FS_DONE;
    }
    swerex__zip_entry *entry = &unpack->entries[unpack->out < 0 ? unpack->next : unpack->next - 1];
    bool begin = unpack->out < 0;
    if (begin) unpack->next++;
    if (begin && !swerex__zip_begin(unpack, entry, err)) return SWEREX__FS_FAILED;
    while (unpack->out >= 0) {
      if (!swerex__zip_piece(unpack, entry, err)) {
        swerex__zip_drop_file(unpack, entry);
        return SWEREX__FS_FAILED;
      }
      if (unpack->at - before > SWEREX__ZIP_STEP_BYTES) break;
    }
    if (unpack->out >= 0) break;
  }
  return SWEREX__FS_MORE;
}

#ifndef SWEREX_NO_REMOTE

/* =============================================================================================
 * [curl] HTTPS calls by libcurl
 * ========================================================================================== */
/* A curl is a multi handle that our loop drives, with the connections it keeps; a job is one call.
 * libcurl must not be called from its own callbacks: what they start and stop there is only noted,
 * and done as soon as libcurl has returned. Certificates are checked; redirects, cookies and what
 * else a browser would do are off, as they are in libcurl; proxies come from the environment.
 *
 * SWEREX_USE_CURL 1 takes the prototypes from <curl/curl.h>; 2 needs no header, and loads the
 * library when it is first needed. All else is the same, and 1 checks the numbers of 2. libcurl is
 * prepared with curl_global_init, which counts: under a lock of ours, once for each curl, and never
 * undone, as others in the process may use it. Hosts whose other threads call curl_global_init at
 * the same time need libcurl 7.84, or call it before any other thread. No curl is ever unloaded:
 * its name lookups run in threads. Before libcurl 7.87 the end of a call whose name is still looked
 * up waits for that. */

#if SWEREX_USE_CURL

#define SWEREX__CURL_UNKNOWN UINT64_MAX /* a body's length: sent in chunks */

enum {
  SWEREX__CURL_IDLE_MAX = 64,
  SWEREX__CURL_WORDS = 256,       /* CURL_ERROR_SIZE */
  SWEREX__CURL_ABORT = 0x10000000 /* CURL_READFUNC_ABORT */
};

/** The numbers of libcurl that are used, by their names behind CURL. */
#define SWEREX__CURL_NUMBERS(X)                                                                    \
  X(OPT_POST, 47)                                                                                  \
  X(OPT_FRESH_CONNECT, 74)                                                                         \
  X(OPT_FORBID_REUSE, 75)                                                                          \
  X(OPT_HTTPGET, 80)                                                                               \
  X(OPT_HTTP_VERSION, 84)                                                                          \
  X(OPT_NOSIGNAL, 99)                                                                              \
  X(OPT_CONNECTTIMEOUT_MS, 156)                                                                    \
  X(OPT_PATH_AS_IS, 234)                                                                           \
  X(OPT_PIPEWAIT, 237)                                                                             \
  X(OPT_SUPPRESS_CONNECT_HEADERS, 265)                                                             \
  X(OPT_WRITEDATA, 10001)                                                                          \
  X(OPT_URL, 10002)                                                                                \
  X(OPT_READDATA, 10009)                                                                           \
  X(OPT_ERRORBUFFER, 10010)                                                                        \
  X(OPT_HTTPHEADER, 10023)                                                                         \
  X(OPT_HEADERDATA, 10029)                                                                         \
  X(OPT_CUSTOMREQUEST, 10036)                                                                      \
  X(OPT_CAINFO, 10065)                                                                             \
  X(OPT_CAPATH, 10097)                                                                             \
  X(OPT_PRIVATE, 10103)                                                                            \
  X(OPT_COPYPOSTFIELDS, 10165)                                                                     \
  X(OPT_WRITEFUNCTION, 20011)                                                                      \
  X(OPT_READFUNCTION, 20012)                                                                       \
  X(OPT_HEADERFUNCTION, 20079)                                                                     \
  X(OPT_OPENSOCKETFUNCTION, 20163)                                                                 \
  X(OPT_POSTFIELDSIZE_LARGE, 30120)                                                                \
  X(MOPT_MAXCONNECTS, 6)                                                                           \
  X(MOPT_SOCKETDATA, 10002)                                                                        \
  X(MOPT_TIMERDATA, 10005)                                                                         \
  X(MOPT_SOCKETFUNCTION, 20001)                                                                    \
  X(MOPT_TIMERFUNCTION, 20004)                                                                     \
  X(INFO_EFFECTIVE_URL, 0x100001)                                                                  \
  X(INFO_PRIVATE, 0x100015)                                                                        \
  X(INFO_REQUEST_SIZE, 0x20000C)                                                                   \
  X(MSG_DONE, 1)                                                                                   \
  X(_HTTP_VERSION_1_1, 2)                                                                          \
  X(_HTTP_VERSION_2TLS, 4)                                                                         \
  X(_GLOBAL_ALL, 3)                                                                                \
  X(_POLL_REMOVE, 4)                                                                               \
  X(_SOCKET_TIMEOUT, -1)                                                                           \
  X(E_OK, 0)                                                                                       \
  X(E_UNSUPPORTED_PROTOCOL, 1)                                                                     \
  X(E_NOT_BUILT_IN, 4)                                                                             \
  X(E_WEIRD_SERVER_REPLY, 8)                                                                       \
  X(E_HTTP2, 16)                                                                                   \
  X(E_PARTIAL_FILE, 18)                                                                            \
  X(E_OUT_OF_MEMORY, 27)                                                                           \
  X(E_OPERATION_TIMEDOUT, 28)                                                                      \
  X(E_UNKNOWN_OPTION, 48)                                                                          \
  X(E_GOT_NOTHING, 52)                                                                             \
  X(E_SEND_ERROR, 55)                                                                              \
  X(E_RECV_ERROR, 56)                                                                              \
  X(E_PEER_FAILED_VERIFICATION, 60)                                                                \
  X(E_BAD_CONTENT_ENCODING, 61)                                                                    \
  X(E_HTTP2_STREAM, 92)                                                                            \
  X(M_OK, 0)

#define SWEREX__CURL_ROW(name, number) SWEREX__CURL_##name = number,
enum { SWEREX__CURL_NUMBERS(SWEREX__CURL_ROW) SWEREX__CURL_OPT_QUICK_EXIT = 322 /* 7.87 */ };
#undef SWEREX__CURL_ROW

#if SWEREX_USE_CURL == 1

#define SWEREX__CURL_ROW(name, number)                                                             \
  SWEREX__SYS_STATIC_ASSERT((int)CURL##name == (number), curl_##name);
SWEREX__CURL_NUMBERS(SWEREX__CURL_ROW)
#undef SWEREX__CURL_ROW

typedef CURL swerex__curl_easy;
typedef CURLM swerex__curl_multi;
typedef CURLcode swerex__curl_code;
typedef CURLMcode swerex__curl_status;
typedef CURLoption swerex__curl_option;
typedef CURLMoption swerex__curl_setting;
typedef CURLINFO swerex__curl_info;
typedef CURLMsg swerex__curl_message;
typedef curlsocktype swerex__curl_purpose;
typedef struct curl_slist swerex__curl_list;
typedef struct curl_sockaddr swerex__curl_address;

#else

typedef void swerex__curl_easy;
typedef void swerex__curl_multi;
typedef int swerex__curl_code, swerex__curl_status, swerex__curl_option, swerex__curl_setting;
typedef int swerex__curl_info, swerex__curl_purpose;
typedef struct swerex__curl_list swerex__curl_list;

typedef struct swerex__curl_message {
  int msg;
  swerex__curl_easy *easy_handle;
  union {
    void *whatever;
    swerex__curl_code result;
  } data;
} swerex__curl_message;

typedef struct swerex__curl_address {
  int family, socktype, protocol;
  unsigned addrlen;
  struct sockaddr addr;
} swerex__curl_address;

#endif

/** The functions of libcurl that are used: type, name behind curl_, arguments. */
#define SWEREX__CURL_CALLS(X)                                                                      \
  X(swerex__curl_code, global_init, (long flags))                                                  \
  X(swerex__curl_easy *, easy_init, (void))                                                        \
  X(swerex__curl_code, easy_setopt, (swerex__curl_easy * easy, swerex__curl_option option, ...))   \
  X(swerex__curl_code, easy_getinfo, (swerex__curl_easy * easy, swerex__curl_info info, ...))      \
  X(void, easy_cleanup, (swerex__curl_easy * easy))                                                \
  X(const char *, easy_strerror, (swerex__curl_code code))                                         \
  X(swerex__curl_list *, slist_append, (swerex__curl_list * list, const char *text))               \
  X(void, slist_free_all, (swerex__curl_list * list))                                              \
  X(swerex__curl_multi *, multi_init, (void))                                                      \
  X(swerex__curl_status, multi_setopt,                                                             \
    (swerex__curl_multi * multi, swerex__curl_setting setting, ...))                               \
  X(swerex__curl_status, multi_assign, (swerex__curl_multi * multi, int fd, void *pointer))        \
  X(swerex__curl_status, multi_add_handle, (swerex__curl_multi * multi, swerex__curl_easy * easy)) \
  X(swerex__curl_status, multi_remove_handle,                                                      \
    (swerex__curl_multi * multi, swerex__curl_easy * easy))                                        \
  X(swerex__curl_status, multi_socket_action,                                                      \
    (swerex__curl_multi * multi, int fd, int events, int *running))                                \
  X(swerex__curl_message *, multi_info_read, (swerex__curl_multi * multi, int *left))              \
  X(swerex__curl_status, multi_cleanup, (swerex__curl_multi * multi))

#define SWEREX__CURL_ROW(type, name, arguments) type(*name) arguments;
typedef struct swerex__curl_api {
  SWEREX__CURL_CALLS(SWEREX__CURL_ROW)
} swerex__curl_api;
#undef SWEREX__CURL_ROW

/** What to call, and whom to tell. Strings are borrowed for swerex__curl_start. */
typedef struct swerex__curl_request {
  const char *method, *url;
  const char *headers; /* lines, each with its CR LF */
  size_t headers_size;
  const char *body;
  size_t body_size;
  uint64_t length; /* of a body from `read` */
  double connect_timeout; /* seconds; < 0: none */
  bool reuse; /* a connection that was used before may serve, and may be kept */
  bool http2; /* where the server speaks it; else HTTP/1.1 */
  /** Give the next bytes of the body; *got 0: its end. NULL: `body` is it. */
  bool (*read)(void *owner, char *out, size_t room, size_t *got, swerex_error *err);
  void (*on_status)(void *owner, int status);
  /** Take a header, or after the body a trailer. */
  void (*on_header)(void *owner, const char *name, size_t name_size, const char *value,
                    size_t value_size);
  /** Take a piece of the answer's body. False: give up. */
  bool (*on_data)(void *owner, const char *data, size_t size, swerex_error *err);
  /** Called once, from the loop, the job being freed; sent: the request may have arrived. */
  void (*done)(void *owner, bool sent, swerex_error *error);
  void *owner;
} swerex__curl_request;

/** What was set aside while SIGPIPE is held back. */
typedef struct swerex__curl_guard {
  sigset_t mask;
  bool pending;
} swerex__curl_guard;

typedef struct swerex__curl {
  swerex_loop *loop;
  swerex__curl_api api;
  swerex__curl_multi *multi;
  swerex__loop_timer timer;
  swerex__loop_link jobs, watches;
  swerex__curl_guard guard;
  bool inside; /* libcurl runs: it must not be called */
  bool busy;   /* so it does, or calls are being ended */
  bool noted;  /* a job waits to be added, or to be freed */
  bool closed; /* free it when it is not busy any more */
  int number;  /* errno of a watch that failed */
} swerex__curl;

typedef struct swerex__curl_job {
  swerex__loop_link link; /* first member */
  swerex__curl *curl;
  swerex__curl_request request;
  swerex__curl_easy *easy;
  swerex__curl_list *headers;
  bool added, stopped;
  swerex__curl_code refused; /* the first option that was not taken */
  int status;
  uint64_t body_sent;
  swerex_error error; /* of read and on_data */
  char words[SWEREX__CURL_WORDS];
} swerex__curl_job;

typedef struct swerex__curl_watch {
  swerex__loop_link link; /* first member */
  swerex__poll_watch poll;
} swerex__curl_watch;

/* --- the library -------------------------------------------------------------------------- */

#if SWEREX_USE_CURL == 1

static bool swerex__curl_load(swerex__curl_api *api, swerex_error *err) {
#define SWEREX__CURL_ROW(type, name, arguments) api->name = curl_##name;
  SWEREX__CURL_CALLS(SWEREX__CURL_ROW)
#undef SWEREX__CURL_ROW
  (void)err;
  return true;
}

#else

static bool swerex__curl_load(swerex__curl_api *api, swerex_error *err) {
  static const char *const files[] = {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl.4.dylib"};
  char why[256] = "";
  void *library = NULL, *symbol;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(files) && library == NULL; i++) {
    library = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
    const char *text = library == NULL && i == 0 ? dlerror() : NULL;
    if (text != NULL) snprintf(why, sizeof why, "%s", text);
  }
  if (library == NULL)
    return swerex__err_set(err, SWEREX_E_UNSUPPORTED,
                           "libcurl.so.4 is not installed: apt-get install libcurl4, or what the "
                           "system's package is called; https needs it (%s)",
                           why);
#define SWEREX__CURL_ROW(type, name, arguments)                                                    \
  symbol = dlsym(library, "curl_" #name);                                                          \
  if (symbol == NULL)                                                                              \
    return swerex__err_set(err, SWEREX_E_UNSUPPORTED, "libcurl has no curl_" #name);               \
  memcpy(&api->name, &symbol, sizeof symbol);
  SWEREX__CURL_CALLS(SWEREX__CURL_ROW)
#undef SWEREX__CURL_ROW
  return true;
}

#endif

/** Hold SIGPIPE back from this thread: TLS libraries write to sockets like to files. */
static void swerex__curl_enter(swerex__curl_guard *guard) {
  sigset_t broken, pending;
  sigemptyset(&broken);
  sigaddset(&broken, SIGPIPE);
  sigemptyset(&pending);
  sigpending(&pending);
  guard->pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &broken, &guard->mask);
}

/** Forget a SIGPIPE that came meanwhile, and let later ones in. */
static void swerex__curl_leave(const swerex__curl_guard *guard) {
  sigset_t broken, pending;
  int number;
  sigemptyset(&broken);
  sigaddset(&broken, SIGPIPE);
  sigemptyset(&pending);
  sigpending(&pending);
  if (!guard->pending && sigismember(&pending, SIGPIPE) == 1) sigwait(&broken, &number);
  pthread_sigmask(SIG_SETMASK, &guard->mask, NULL);
}

/* --- jobs --------------------------------------------------------------------------------- */

static void swerex__curl_free_job(swerex__curl_job *job) {
  const swerex__curl_api *api = &job->curl->api;
  swerex__curl_guard guard;
  job->stopped = true; /* should a callback still come */
  swerex__curl_enter(&guard);
  if (job->added) api->multi_remove_handle(job->curl->multi, job->easy);
  if (job->easy != NULL) api->easy_cleanup(job->easy);
  api->slist_free_all(job->headers);
  swerex__curl_leave(&guard);
  swerex__loop_link_remove(&job->link);
  swerex__err_clear(&job->error);
  swerex__mem_free(job);
}

/** Stop a call without a word, at once; NULL is allowed. */
static void swerex__curl_stop(swerex__curl_job *job) {
  if (job == NULL) return;
  job->stopped = true;
  if (job->curl->inside)
    job->curl->noted = true;
  else
    swerex__curl_free_job(job);
}

/** Let the job's connection serve others behind it, whatever its request says. */
static void swerex__curl_keep(swerex__curl_job *job) {
  job->curl->api.easy_setopt(job->easy, (swerex__curl_option)SWEREX__CURL_OPT_FORBID_REUSE, 0L);
}

/** Describe why a call failed. */
static void swerex__curl_describe(swerex__curl_job *job, swerex__curl_code result,
                                  swerex_error *error) {
  static const struct {
    int result;
    swerex_code code;
  } codes[] = {
    {SWEREX__CURL_E_UNSUPPORTED_PROTOCOL, SWEREX_E_HTTP}, /* an answer of HTTP/0.9 */
    {SWEREX__CURL_E_WEIRD_SERVER_REPLY, SWEREX_E_HTTP},
    {SWEREX__CURL_E_HTTP2, SWEREX_E_HTTP},
    {SWEREX__CURL_E_PARTIAL_FILE, SWEREX_E_HTTP},
    {SWEREX__CURL_E_GOT_NOTHING, SWEREX_E_HTTP},
    {SWEREX__CURL_E_SEND_ERROR, SWEREX_E_HTTP},
    {SWEREX__CURL_E_RECV_ERROR, SWEREX_E_HTTP},
    {SWEREX__CURL_E_BAD_CONTENT_ENCODING, SWEREX_E_HTTP},
    {SWEREX__CURL_E_HTTP2_STREAM, SWEREX_E_HTTP},
    {SWEREX__CURL_E_OPERATION_TIMEDOUT, SWEREX_E_TIMEOUT},
    {SWEREX__CURL_E_NOT_BUILT_IN, SWEREX_E_UNSUPPORTED},
    {SWEREX__CURL_E_UNKNOWN_OPTION, SWEREX_E_UNSUPPORTED},
  };
  const swerex__curl_api *api = &job->curl->api;
  char *url = NULL;
  swerex_code code = SWEREX_E_OS;
  if ((int)result == SWEREX__CURL_E_OUT_OF_MEMORY) {
    swerex__err_memory(error);
    return;
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(codes); i++)
    if (codes[i].result == (int)result) code = codes[i].code;
  api->easy_getinfo(job->easy, (swerex__curl_info)SWEREX__CURL_INFO_EFFECTIVE_URL, &url);
  swerex__err_set(error, code, "%s: %s%s", url == NULL ? "https" : url,
                  job->words[0] != '\0' ? job->words : api->easy_strerror(result),
                  (int)result == SWEREX__CURL_E_PEER_FAILED_VERIFICATION
                    ? " (SSL_CERT_FILE may name the certificates to trust)"
                    : "");
}

/** End a call, and free its job. */
static void swerex__curl_end(swerex__curl_job *job, swerex__curl_code result,
                             swerex_error *error) {
  swerex__curl_request request = job->request;
  long sent = 0;
  job->curl->api.easy_getinfo(job->easy, (swerex__curl_info)SWEREX__CURL_INFO_REQUEST_SIZE, &sent);
  if (error->code != SWEREX_E_OK)
    (void)result; /* known already */
  else if (job->error.code != SWEREX_E_OK)
    swerex__err_move(error, &job->error);
  else if ((int)result != SWEREX__CURL_E_OK)
    swerex__curl_describe(job, result, error);
  else if (job->status == 0)
    swerex__curl_describe(job, (swerex__curl_code)SWEREX__CURL_E_WEIRD_SERVER_REPLY, error);
  swerex__curl_free_job(job);
  request.done(request.owner, sent > 0, error);
  swerex__err_clear(error);
}

/* --- what libcurl calls ------------------------------------------------------------------- */

static size_t swerex__curl_on_read(char *out, size_t size, size_t count, void *user) {
  swerex__curl_job *job = (swerex__curl_job *)user;
  const swerex__curl_request *request = &job->request;
  size_t got = 0, more = 0;
  char extra;
  if (job->stopped) return SWEREX__CURL_ABORT;
  bool ok = request->read(request->owner, out, size * count, &got, &job->error);
  job->body_sent += got;
  if (ok && request->length != SWEREX__CURL_UNKNOWN) {
    if (got > 0 && job->body_sent == request->length) /* libcurl will not ask for its end */
      ok = request->read(request->owner, &extra, 1, &more, &job->error);
    if (ok && (more > 0 || job->body_sent > request->length ||
               (got == 0 && job->body_sent < request->length)))
      ok = swerex__err_set(&job->error, SWEREX_E_OS, "the file changed its size while it was sent");
  }
  return ok && !job->stopped ? got : SWEREX__CURL_ABORT;
}

static size_t swerex__curl_on_write(char *data, size_t size, size_t count, void *user) {
  swerex__curl_job *job = (swerex__curl_job *)user;
  swerex__curl *curl = job->curl;
  if (size * count == 0) return 0;
  if (job->stopped) return 0;
  swerex__curl_leave(&curl->guard); /* the host's own code may run */
  bool ok = job->request.on_data(job->request.owner, data, size * count, &job->error);
  swerex__curl_enter(&curl->guard);
  return ok && !job->stopped ? size * count : 0;
}

static size_t swerex__curl_on_header(char *line, size_t unit, size_t count, void *user) {
  swerex__curl_job *job = (swerex__curl_job *)user;
  const swerex__curl_request *request = &job->request;
  size_t total = unit * count, size = total;
  if (job->stopped) return 0;
  while (size > 0 && (line[size - 1] == '\r' || line[size - 1] == '\n' || line[size - 1] == ' ' ||
                      line[size - 1] == '\t'))
    size--;
  const char *colon = size == 0 ? NULL : (const char *)memchr(line, ':', size);
  if (job->status < 200 && size > 5 && memcmp(line, "HTTP/", 5) == 0) { /* 100 and such go by */
    const char *space = (const char *)memchr(line, ' ', size);
    job->status = 0;
    for (const char *c = space == NULL ? line + size : space + 1; c < line + size; c++) {
      if (*c < '0' || *c > '9' || job->status > 99) break;
      job->status = job->status * 10 + (*c - '0');
    }
    if (job->status >= 200) request->on_status(request->owner, job->status);
  } else if (job->status >= 200 && colon != NULL) {
    const char *value = colon + 1;
    while (value < line + size && (*value == ' ' || *value == '\t')) value++;
    request->on_header(request->owner, line, (size_t)(colon - line), value,
                       (size_t)(line + size - value));
  }
  return job->stopped ? 0 : total;
}

static int swerex__curl_open_socket(void *user, swerex__curl_purpose purpose,
                                    swerex__curl_address *address) {
  int fd = socket(address->family, address->socktype, address->protocol);
  (void)user;
  (void)purpose;
  return swerex__sock_prepare(&fd) ? fd : -1;
}

/* --- driving libcurl ---------------------------------------------------------------------- */

static void swerex__curl_destroy(swerex__curl *curl) {
  swerex__curl_guard guard;
  while (!swerex__loop_link_empty(&curl->jobs))
    swerex__curl_free_job((swerex__curl_job *)curl->jobs.next);
  swerex__curl_enter(&guard);
  if (curl->multi != NULL) curl->api.multi_cleanup(curl->multi);
  swerex__curl_leave(&guard);
  while (!swerex__loop_link_empty(&curl->watches)) {
    swerex__curl_watch *watch = (swerex__curl_watch *)curl->watches.next;
    swerex__poll_set(&curl->loop->poll, &watch->poll, 0);
    swerex__loop_link_remove(&watch->link);
    swerex__mem_free(watch);
  }
  swerex__loop_disarm(curl->loop, &curl->timer);
  swerex__mem_free(curl);
}

/** Stop all calls, close the connections; NULL is allowed. */
static void swerex__curl_close(swerex__curl *curl) {
  if (curl == NULL) return;
  for (swerex__loop_link *link = curl->jobs.next; link != &curl->jobs; link = link->next)
    ((swerex__curl_job *)link)->stopped = true;
  curl->closed = curl->noted = true;
  if (!curl->busy) swerex__curl_destroy(curl);
}

/** Hand a job to libcurl. */
static bool swerex__curl_add(swerex__curl_job *job) {
  swerex__curl *curl = job->curl;
  swerex__curl_guard guard;
  swerex__curl_enter(&guard);
  job->added =
    (int)curl->api.multi_add_handle(curl->multi, job->easy) == (int)SWEREX__CURL_M_OK;
  swerex__curl_leave(&guard);
  return job->added;
}

/** Do what callbacks could only note. */
static void swerex__curl_catch_up(swerex__curl *curl) {
  while (curl->noted) {
    swerex__loop_link *link = curl->jobs.next;
    curl->noted = false;
    while (link != &curl->jobs) {
      swerex__curl_job *job = (swerex__curl_job *)link;
      swerex_error error = SWEREX_ERROR_INIT;
      link = link->next;
      if (job->stopped) {
        swerex__curl_free_job(job);
      } else if (!job->added && !swerex__curl_add(job)) {
        swerex__err_memory(&error);
        swerex__curl_end(job, (swerex__curl_code)SWEREX__CURL_E_OK, &error);
        link = curl->jobs.next; /* other jobs may have gone */
      }
    }
  }
}

/** End the calls that are over. */
static void swerex__curl_settle(swerex__curl *curl) {
  swerex__curl_message *message;
  swerex_error error = SWEREX_ERROR_INIT;
  int left;
  swerex__curl_catch_up(curl);
  while (!curl->closed &&
         (message = curl->api.multi_info_read(curl->multi, &left)) != NULL) {
    char *job = NULL;
    if ((int)message->msg != SWEREX__CURL_MSG_DONE) continue;
    swerex__curl_code result = message->data.result;
    curl->api.easy_getinfo(message->easy_handle, (swerex__curl_info)SWEREX__CURL_INFO_PRIVATE,
                           &job);
    swerex__curl_end((swerex__curl_job *)(void *)job, result, &error);
  }
  while (!curl->closed && curl->number != 0 && !swerex__loop_link_empty(&curl->jobs)) {
    swerex__err_system(&error, curl->number, "a connection of libcurl");
    swerex__curl_end((swerex__curl_job *)curl->jobs.next, (swerex__curl_code)SWEREX__CURL_E_OK,
                     &error);
  }
  curl->number = 0;
}

/** Let libcurl work on a descriptor, or on what is due (fd: SWEREX__CURL__SOCKET_TIMEOUT). */
static void swerex__curl_act(swerex__curl *curl, int fd) {
  int running;
  curl->busy = curl->inside = true;
  swerex__curl_enter(&curl->guard);
  curl->api.multi_socket_action(curl->multi, fd, 0, &running);
  swerex__curl_leave(&curl->guard);
  curl->inside = false;
  swerex__curl_settle(curl);
  curl->busy = false;
  if (curl->closed) swerex__curl_destroy(curl);
}

static void swerex__curl_on_ready(swerex__poll_watch *watch) {
  swerex__curl_act((swerex__curl *)watch->owner, watch->fd);
}

static void swerex__curl_on_time(swerex__loop_timer *timer) {
  swerex__curl_act((swerex__curl *)timer->owner, SWEREX__CURL__SOCKET_TIMEOUT);
}

static int swerex__curl_on_socket(swerex__curl_easy *easy, int fd, int what, void *user,
                                  void *pointer) {
  swerex__curl *curl = (swerex__curl *)user;
  swerex__curl_watch *watch = (swerex__curl_watch *)pointer;
  (void)easy;
  if (watch == NULL && what != SWEREX__CURL__POLL_REMOVE) {
    watch = (swerex__curl_watch *)swerex__mem_new(&curl->loop->allocator, 1, sizeof *watch);
    if (watch == NULL) {
      curl->number = ENOMEM;
      return 0;
    }
    watch->poll.fd = fd;
    watch->poll.ready = swerex__curl_on_ready;
    watch->poll.owner = curl;
    swerex__loop_link_insert(&curl->watches, &watch->link);
    curl->api.multi_assign(curl->multi, fd, watch);
  }
  if (what != SWEREX__CURL__POLL_REMOVE) { /* the bits for in and out are the poller's too */
    if (!swerex__poll_set(&curl->loop->poll, &watch->poll, (unsigned)what)) curl->number = errno;
  } else if (watch != NULL) {
    swerex__poll_set(&curl->loop->poll, &watch->poll, 0);
    swerex__loop_link_remove(&watch->link);
    swerex__mem_free(watch);
  }
  return 0;
}

static int swerex__curl_on_timer(swerex__curl_multi *multi, long milliseconds, void *user) {
  swerex__curl *curl = (swerex__curl *)user;
  (void)multi;
  swerex__loop_arm(curl->loop, &curl->timer,
                   milliseconds < 0 ? -1 : (double)milliseconds / 1000.0, swerex__curl_on_time,
                   curl);
  return 0;
}

/** Load libcurl and make a multi handle. */
static swerex__curl *swerex__curl_new(swerex_loop *loop, swerex_error *err) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  swerex__curl *curl = (swerex__curl *)swerex__mem_new(&loop->allocator, 1, sizeof *curl);
  if (curl == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  const swerex__curl_api *api = &curl->api;
  curl->loop = loop;
  swerex__loop_link_init(&curl->jobs);
  swerex__loop_link_init(&curl->watches);
  bool ok = swerex__curl_load(&curl->api, err);
  if (!ok) {
    swerex__mem_free(curl);
    return NULL;
  }
  pthread_mutex_lock(&lock);
  ok = (int)api->global_init(SWEREX__CURL__GLOBAL_ALL) == SWEREX__CURL_E_OK;
  pthread_mutex_unlock(&lock);
  curl->multi = ok ? api->multi_init() : NULL;
  if (curl->multi == NULL) {
    swerex__err_set(err, SWEREX_E_OS, "libcurl cannot be prepared");
    swerex__curl_destroy(curl);
    return NULL;
  }
  api->multi_setopt(curl->multi, (swerex__curl_setting)SWEREX__CURL_MOPT_SOCKETDATA,
                    (void *)curl);
  api->multi_setopt(curl->multi, (swerex__curl_setting)SWEREX__CURL_MOPT_SOCKETFUNCTION,
                    swerex__curl_on_socket);
  api->multi_setopt(curl->multi, (swerex__curl_setting)SWEREX__CURL_MOPT_TIMERDATA, (void *)curl);
  api->multi_setopt(curl->multi, (swerex__curl_setting)SWEREX__CURL_MOPT_TIMERFUNCTION,
                    swerex__curl_on_timer);
  api->multi_setopt(curl->multi, (swerex__curl_setting)SWEREX__CURL_MOPT_MAXCONNECTS,
                    (long)SWEREX__CURL_IDLE_MAX);
  return curl;
}

/* --- calls -------------------------------------------------------------------------------- */

/** Remember the first option that was refused. */
static void swerex__curl_note(swerex__curl_job *job, swerex__curl_code code) {
  if ((int)job->refused == SWEREX__CURL_E_OK) job->refused = code;
}

static void swerex__curl_set_number(swerex__curl_job *job, int option, long value) {
  swerex__curl_note(job, job->curl->api.easy_setopt(job->easy, (swerex__curl_option)option, value));
}

static void swerex__curl_set_pointer(swerex__curl_job *job, int option, const void *value) {
  swerex__curl_note(job, job->curl->api.easy_setopt(job->easy, (swerex__curl_option)option, value));
}

/** Add one line to the request's head; "Name:" keeps libcurl's own out. */
static void swerex__curl_add_line(swerex__curl_job *job, const char *line) {
  swerex__curl_list *list =
    line == NULL ? NULL : job->curl->api.slist_append(job->headers, line);
  if (list == NULL)
    swerex__curl_note(job, (swerex__curl_code)SWEREX__CURL_E_OUT_OF_MEMORY);
  else
    job->headers = list;
}

static void swerex__curl_set_headers(swerex__curl_job *job) {
  static const char *const unwanted[] = {"Accept:", "Content-Type:", "Expect:"};
  const swerex__curl_request *request = &job->request;
  const char *at = request->headers_size > 0 ? request->headers : "";
  const char *end = at + request->headers_size;
  while (at < end) {
    const char *stop = (const char *)memchr(at, '\r', (size_t)(end - at));
    if (stop == NULL) stop = end;
    char *line = swerex__mem_copy(&job->curl->loop->allocator, at, (size_t)(stop - at));
    swerex__curl_add_line(job, line);
    swerex__mem_free(line);
    at = end - stop > 2 ? stop + 2 : end;
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(unwanted); i++) swerex__curl_add_line(job, unwanted[i]);
  if (request->read != NULL && request->length == SWEREX__CURL_UNKNOWN && !request->http2)
    swerex__curl_add_line(job, "Transfer-Encoding: chunked");
  swerex__curl_set_pointer(job, SWEREX__CURL_OPT_HTTPHEADER, job->headers);
}

/** Say what is sent. */
static void swerex__curl_set_body(swerex__curl_job *job) {
  const swerex__curl_api *api = &job->curl->api;
  const swerex__curl_request *request = &job->request;
  bool unknown = request->length == SWEREX__CURL_UNKNOWN;
  if (strcmp(request->method, "GET") == 0) {
    swerex__curl_set_number(job, SWEREX__CURL_OPT_HTTPGET, 1);
    return;
  }
  swerex__curl_set_number(job, SWEREX__CURL_OPT_POST, 1);
  int64_t size = request->read == NULL ? (int64_t)request->body_size
                 : unknown             ? -1
                                       : (int64_t)request->length;
  swerex__curl_note(job, api->easy_setopt(
                           job->easy, (swerex__curl_option)SWEREX__CURL_OPT_POSTFIELDSIZE_LARGE,
                           size));
  if (request->read == NULL) { /* a copy: the caller may stop the call and free the body */
    swerex__curl_set_pointer(job, SWEREX__CURL_OPT_COPYPOSTFIELDS,
                             request->body_size > 0 ? request->body : "");
  } else {
    swerex__curl_set_pointer(job, SWEREX__CURL_OPT_READDATA, job);
    swerex__curl_note(job, api->easy_setopt(job->easy,
                                            (swerex__curl_option)SWEREX__CURL_OPT_READFUNCTION,
                                            swerex__curl_on_read));
  }
  if (strcmp(request->method, "POST") != 0)
    swerex__curl_set_pointer(job, SWEREX__CURL_OPT_CUSTOMREQUEST, request->method);
}

/** Say whom to trust, as the programs curl and openssl do. */
static void swerex__curl_set_trust(swerex__curl_job *job) {
  const char *file = getenv("CURL_CA_BUNDLE"), *folder = getenv("SSL_CERT_DIR");
  if (file == NULL || file[0] == '\0') file = getenv("SSL_CERT_FILE");
  if (file != NULL && file[0] != '\0')
    swerex__curl_set_pointer(job, SWEREX__CURL_OPT_CAINFO, file);
  if (folder != NULL && folder[0] != '\0') /* not every TLS library can do that */
    job->curl->api.easy_setopt(job->easy, (swerex__curl_option)SWEREX__CURL_OPT_CAPATH, folder);
}

/** Say how the call is made. A body from a reader cannot be sent twice: it gets a new connection,
 * as only on one that was used before libcurl tries again by itself. */
static void swerex__curl_set_options(swerex__curl_job *job) {
  const swerex__curl_api *api = &job->curl->api;
  const swerex__curl_request *request = &job->request;
  double patience = request->connect_timeout;
  long limit = swerex__poll_milliseconds(patience < 0 ? 1e6 : patience);
  const struct {
    int option;
    long value;
  } numbers[] = {
    {SWEREX__CURL_OPT_NOSIGNAL, 1},
    {SWEREX__CURL_OPT_PATH_AS_IS, 1},
    {SWEREX__CURL_OPT_SUPPRESS_CONNECT_HEADERS, 1},
    {SWEREX__CURL_OPT_CONNECTTIMEOUT_MS, limit > 0 ? limit : 1},
    {SWEREX__CURL_OPT_HTTP_VERSION,
     request->http2 ? SWEREX__CURL__HTTP_VERSION_2TLS : SWEREX__CURL__HTTP_VERSION_1_1},
    {SWEREX__CURL_OPT_PIPEWAIT, request->http2},
    {SWEREX__CURL_OPT_FRESH_CONNECT, !request->reuse || (request->read != NULL && !request->http2)},
    {SWEREX__CURL_OPT_FORBID_REUSE, !request->reuse},
  };
  for (size_t i = 0; i < SWEREX__SYS_COUNT(numbers); i++)
    swerex__curl_set_number(job, numbers[i].option, numbers[i].value);
  api->easy_setopt(job->easy, (swerex__curl_option)SWEREX__CURL_OPT_QUICK_EXIT, 1L);
  swerex__curl_set_pointer(job, SWEREX__CURL_OPT_URL, request->url);
  swerex__curl_set_pointer(job, SWEREX__CURL_OPT_PRIVATE, job);
  swerex__curl_set_pointer(job, SWEREX__CURL_OPT_ERRORBUFFER, job->words);
  swerex__curl_set_pointer(job, SWEREX__CURL_OPT_WRITEDATA, job);
  swerex__curl_set_pointer(job, SWEREX__CURL_OPT_HEADERDATA, job);
  swerex__curl_note(job, api->easy_setopt(job->easy,
                                          (swerex__curl_option)SWEREX__CURL_OPT_WRITEFUNCTION,
                                          swerex__curl_on_write));
  swerex__curl_note(job, api->easy_setopt(job->easy,
                                          (swerex__curl_option)SWEREX__CURL_OPT_HEADERFUNCTION,
                                          swerex__curl_on_header));
  swerex__curl_note(job, api->easy_setopt(job->easy,
                                          (swerex__curl_option)SWEREX__CURL_OPT_OPENSOCKETFUNCTION,
                                          swerex__curl_open_socket));
}

/** Start a call. It is the caller's to stop until `done`, which is never called from here. */
static swerex__curl_job *swerex__curl_start(swerex__curl *curl,
                                            const swerex__curl_request *request,
                                            swerex_error *err) {
  swerex__curl_job *job =
    (swerex__curl_job *)swerex__mem_new(&curl->loop->allocator, 1, sizeof *job);
  if (job != NULL) job->easy = curl->api.easy_init();
  if (job == NULL || job->easy == NULL) {
    swerex__mem_free(job);
    swerex__err_memory(err);
    return NULL;
  }
  job->curl = curl;
  job->request = *request;
  swerex__loop_link_insert(&curl->jobs, &job->link);
  swerex__curl_set_options(job);
  swerex__curl_set_trust(job);
  swerex__curl_set_headers(job);
  swerex__curl_set_body(job);
  job->request.method = job->request.url = job->request.headers = job->request.body = NULL;
  if ((int)job->refused != SWEREX__CURL_E_OK) {
    swerex__curl_describe(job, job->refused, err);
  } else if (curl->inside) {
    curl->noted = true;
    return job;
  } else if (swerex__curl_add(job)) {
    return job;
  } else {
    swerex__err_memory(err);
  }
  swerex__curl_free_job(job);
  return NULL;
}

#endif /* SWEREX_USE_CURL */

/* =============================================================================================
 * [web] HTTP calls to one server
 * ========================================================================================== */
/* A web is a server's address and the connections to it that are open and idle. A call sends one
 * request, its body from memory or from a reader, and hands the answer over whole or as it comes.
 * https is the same call made by libcurl. Connections are used again only where the caller says
 * that a request may safely be sent twice: an idle connection may just be closing. */

enum {
  SWEREX__WEB_IDLE_MAX = 64,
  SWEREX__WEB_AHEAD = 262144, /* of a body from a reader */
  SWEREX__WEB_TYPE = 64,
  SWEREX__WEB_INTERIM_MAX = 16
};

#define SWEREX__WEB_UNKNOWN UINT64_MAX /* a body's length: sent in chunks */
#define SWEREX__WEB_ANSWER_MAX (SWEREX_MAX_FILE + SWEREX_MAX_FILE / 8) /* with JSON's escapes */

typedef struct swerex__web_url {
  bool tls;
  int port;
  char *host;   /* a name, a number, "unix:/path" */
  char *prefix; /* before each path; "" mostly */
  char *text;   /* in messages */
} swerex__web_url;

typedef struct swerex__web {
  swerex_loop *loop;
  swerex__web_url url;
  swerex__loop_link idle; /* swerex__web_conn, the last used at the end */
  size_t idle_count;
  bool reuse; /* connections may serve more than one call */
  /** Open a connection instead of dialing the address: a descriptor, or -1. NULL: dial. */
  int (*dial)(void *opener, swerex_error *err);
  void *dialler;
#if SWEREX_USE_CURL
  swerex__curl *curl; /* NULL: not needed yet */
#endif
} swerex__web;

typedef struct swerex__web_conn swerex__web_conn;
typedef struct swerex__web_call swerex__web_call;

/** A request and its answer; embedded in what makes it. */
struct swerex__web_call {
  const char *method, *path; /* borrowed */
  swerex__str headers;       /* lines, each with its CR LF */
  swerex__str body;
  uint64_t length;           /* of a body from `read` */
  /** Give the next bytes of the body; *got 0: its end. NULL: `body` is it. */
  bool (*read)(void *owner, char *out, size_t room, size_t *got, swerex_error *err);
  /** Take answer bytes of status 200; NULL: they are kept in `answer`. False: give up. */
  bool (*on_data)(void *owner, const char *data, size_t size, swerex_error *err);
  /** Take a header of the answer or, behind its body, of the trailer; https only. May be NULL. */
  void (*on_header)(void *owner, const char *name, size_t name_size, const char *value,
                    size_t value_size);
  bool http2; /* https: where the server speaks it */
  /** Called once, from the loop; error code OK: there is an answer, of any status. */
  void (*done)(void *owner, swerex_error *error);
  void *owner;
  double connect_timeout, timeout; /* seconds; < 0: none */
  /* results */
  int status;
  char type[SWEREX__WEB_TYPE];
  bool ours; /* the server is one of this library */
  bool sent; /* the request may have arrived */
  swerex__str answer;
  /* private */
  swerex__web *web;
  swerex__sock_dial *dial;
  swerex__web_conn *conn;
#if SWEREX_USE_CURL
  swerex__curl_job *job;
#endif
  swerex__loop_timer timer;
  bool body_over;
  uint64_t body_sent;
};

struct swerex__web_conn {
  swerex__loop_link link; /* first member; in `idle`, or in no list */
  swerex__web *web;
  swerex__sock_stream stream;
  swerex__http http;
  swerex__web_call *call; /* NULL: idle */
  int interim;            /* answers before the real one */
};

/* --- addresses ---------------------------------------------------------------------------- */

static void swerex__web_clear_url(swerex__web_url *url) {
  swerex__mem_free(url->host);
  swerex__mem_free(url->prefix);
  swerex__mem_free(url->text);
  memset(url, 0, sizeof *url);
}

/** Skip a scheme; false: it is none that we speak. */
static bool swerex__web_scheme(const char **text, bool *tls) {
  static const struct {
    const char *scheme;
    bool tls;
  } schemes[] = {{"http://", false}, {"https://", true}};
  *tls = false;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(schemes); i++) {
    size_t size = strlen(schemes[i].scheme);
    if (strncmp(*text, schemes[i].scheme, size) != 0) continue;
    *text += size;
    *tls = schemes[i].tls;
    return true;
  }
  return strstr(*text, "://") == NULL;
}

/** Read "[http[s]://]host[:port][/prefix]" or "unix:/path"; port > 0 goes before its own. */
static bool swerex__web_parse_url(const swerex_allocator *memory, const char *text, int port,
                                  swerex__web_url *url, swerex_error *err) {
  const char *at = text, *host, *end;
  memset(url, 0, sizeof *url);
  bool local = strncmp(at, "unix:", 5) == 0;
  if (!swerex__web_scheme(&at, &url->tls))
    return swerex__err_set(err, SWEREX_E_VALUE, "host %s: only http, https and unix are known",
                           text);
  bool bracket = *at == '[';
  host = bracket ? at + 1 : at;
  end = local ? at + strlen(at) : host + strcspn(host, bracket ? "]" : ":/?#");
  const char *rest = bracket && *end == ']' ? end + 1 : end;
  url->port = url->tls ? 443 : 80;
  if (!local && *rest == ':') {
    char *stop;
    long number = strtol(rest + 1, &stop, 10);
    if (stop == rest + 1 || number < 1 || number > 65535 || (*stop != '\0' && *stop != '/'))
      return swerex__err_set(err, SWEREX_E_VALUE, "host %s: the port is not a number up to 65535",
                             text);
    url->port = (int)number;
    rest = stop;
  }
  if (port > 0) url->port = port;
  if (end == host || (bracket && *end != ']') || (local && host[5] == '\0') ||
      end - host > SWEREX__SOCK_HOST_MAX || (*rest != '\0' && *rest != '/'))
    return swerex__err_set(err, SWEREX_E_VALUE, "host %s is not a host", text);
  size_t prefix = strlen(rest);
  while (prefix > 0 && rest[prefix - 1] == '/') prefix--;
  for (const char *c = text; *c != '\0'; c++)
    if ((unsigned char)*c <= 0x20 || *c == 0x7F || *c == '@')
      return swerex__err_set(err, SWEREX_E_VALUE, "host %s: a blank or @ cannot be in it", text);
  char name[SWEREX__SOCK_HOST_MAX + 32];
  snprintf(name, sizeof name,
           local     ? "%.*s"
           : bracket ? "[%.*s]:%d"
                     : "%.*s:%d",
           (int)(end - host), host, url->port);
  url->host = swerex__mem_copy(memory, host, (size_t)(end - host));
  url->prefix = swerex__mem_copy(memory, rest, prefix);
  url->text = swerex__mem_copy(memory, name, strlen(name));
  if (url->host != NULL && url->prefix != NULL && url->text != NULL) return true;
  swerex__web_clear_url(url);
  return swerex__err_memory(err);
}

/* --- connections -------------------------------------------------------------------------- */

static void swerex__web_free_conn(swerex__web_conn *conn) {
  if (conn->link.next != NULL) conn->web->idle_count--;
  swerex__loop_link_remove(&conn->link);
  if (conn->call != NULL) conn->call->conn = NULL;
  swerex__sock_stream_close(&conn->stream);
  swerex__http_free(&conn->http);
  swerex__mem_free(conn);
}

/** Take a call from its connection, which is closed or kept. */
static void swerex__web_detach(swerex__web_call *call, bool keep) {
  swerex__web_conn *conn = call->conn;
  swerex__web *web = call->web;
  swerex__loop_disarm(web->loop, &call->timer);
  swerex__sock_dial_free(call->dial);
  call->dial = NULL;
  call->conn = NULL;
#if SWEREX_USE_CURL
  swerex__curl_stop(call->job);
  call->job = NULL;
#endif
  if (conn == NULL) return;
  conn->call = NULL;
  if (!keep || !web->reuse || web->idle_count >= SWEREX__WEB_IDLE_MAX) {
    swerex__web_free_conn(conn);
    return;
  }
  swerex__http_restart(&conn->http);
  swerex__loop_link_insert(&web->idle, &conn->link);
  web->idle_count++;
}

/** End a call: well where the error is NULL or OK. */
static void swerex__web_end(swerex__web_call *call, bool keep, swerex_error *error) {
  swerex_error none = SWEREX_ERROR_INIT;
  swerex__web_detach(call, keep);
  if (error == NULL) error = &none;
  call->done(call->owner, error);
  swerex__err_clear(error); /* `done` may have set one of its own */
}

static void swerex__web_fail(swerex__web_call *call, const char *why) {
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__err_set(&error, SWEREX_E_HTTP, "%s from %s%s", why, call->web->url.text, call->path);
  swerex__web_end(call, false, &error);
}

/** Send more of a body that comes from a reader. False: the call has ended. */
static bool swerex__web_send_body(swerex__web_call *call) {
  swerex__sock_stream *stream = &call->conn->stream;
  bool chunked = call->length == SWEREX__WEB_UNKNOWN;
  char data[16384], line[32];
  while (!call->body_over && swerex__sock_waiting(stream) < SWEREX__WEB_AHEAD && !stream->broken) {
    swerex_error error = SWEREX_ERROR_INIT;
    size_t got = 0;
    bool ok = call->read(call->owner, data, sizeof data, &got, &error);
    call->body_sent += got;
    call->body_over = got == 0;
    if (ok && !chunked && (call->body_over ? call->body_sent < call->length
                                           : call->body_sent > call->length))
      ok = swerex__err_set(&error, SWEREX_E_OS, "the file changed its size while it was sent");
    if (!ok) {
      swerex__web_end(call, false, &error);
      return false;
    }
    if (chunked) {
      int n = snprintf(line, sizeof line, "%zx\r\n", got);
      swerex__sock_send(stream, line, (size_t)n);
    }
    swerex__sock_send(stream, data, got);
    if (chunked) swerex__sock_send(stream, "\r\n", 2);
  }
  return true;
}

/** Send the request. */
static void swerex__web_send(swerex__web_call *call) {
  const swerex__web_url *url = &call->web->url;
  swerex__sock_stream *stream = &call->conn->stream;
  swerex__str head = swerex__str_new(&call->web->loop->allocator, 65536);
  bool local = strncmp(url->host, "unix:", 5) == 0;
  swerex__str_printf(&head, "%s %s%s HTTP/1.1\r\nhost: %s\r\n", call->method, url->prefix,
                     call->path, local ? "localhost" : url->text);
  if (call->headers.size > 0) swerex__str_add(&head, call->headers.data, call->headers.size);
  if (call->read != NULL && call->length == SWEREX__WEB_UNKNOWN)
    swerex__str_puts(&head, "transfer-encoding: chunked\r\n");
  else if (strcmp(call->method, "GET") != 0)
    swerex__str_printf(&head, "content-length: %llu\r\n",
                       (unsigned long long)(call->read != NULL ? call->length : call->body.size));
  if (!call->web->reuse) swerex__str_puts(&head, "connection: close\r\n");
  swerex__str_puts(&head, "\r\n");
  if (call->read == NULL && call->body.size < 65536) /* one packet */
    swerex__str_add(&head, call->body.data, call->body.size);
  if (head.failed) stream->broken = true;
  call->sent = true;
  if (!head.failed) swerex__sock_send(stream, head.data, head.size);
  if (call->read == NULL && call->body.size >= 65536)
    swerex__sock_send(stream, call->body.data, call->body.size);
  swerex__str_clear(&head);
  if (call->read != NULL) swerex__web_send_body(call);
}

static void swerex__web_take_type(swerex__web_call *call, swerex__http_text type) {
  size_t size = 0;
  while (size < type.size && size + 1 < sizeof call->type && type.data[size] != ';') size++;
  if (size > 0) memcpy(call->type, type.data, size);
  call->type[size] = '\0';
}

static void swerex__web_take_server(swerex__web_call *call, swerex__http_text server) {
  call->ours = server.size > 7 && memcmp(server.data, "swerex/", 7) == 0;
  if (call->ours) call->web->reuse = true;
}

/** Take what the head of an answer says. */
static void swerex__web_on_head(swerex__web_call *call, const swerex__http *http) {
  call->status = http->status;
  swerex__web_take_type(call, swerex__http_find(http, "content-type"));
  swerex__web_take_server(call, swerex__http_find(http, "server"));
}

/** Keep a piece of an answer's body. */
static bool swerex__web_keep(swerex__web_call *call, const char *data, size_t size,
                             swerex_error *err) {
  swerex__str_add(&call->answer, data, size);
  if (!call->answer.failed) return true;
  return swerex__err_set(err, SWEREX_E_HTTP, "the answer of %s%s is larger than %zu bytes",
                         call->web->url.text, call->path, call->answer.max);
}

/** Hand a piece of an answer's body over, or keep it. */
static bool swerex__web_take_body(swerex__web_call *call, const char *data, size_t size,
                                  swerex_error *err) {
  if (call->on_data != NULL && call->status == 200)
    return call->on_data(call->owner, data, size, err);
  return swerex__web_keep(call, data, size, err);
}

/** Take a piece of an answer's body; false: the call has ended. */
static bool swerex__web_on_body(swerex__web_call *call, const swerex__http *http) {
  swerex_error error = SWEREX_ERROR_INIT;
  bool ok = swerex__web_take_body(call, http->piece, http->piece_size, &error);
  if (!ok) swerex__web_end(call, false, &error);
  return ok;
}

/** Read an answer as far as it is there. */
static void swerex__web_feed(swerex__web_conn *conn, const char *data, size_t size) {
  swerex__http *http = &conn->http;
  for (;;) {
    swerex__web_call *call = conn->call;
    switch (swerex__http_read(http, &data, &size)) {
    case SWEREX__HTTP_HEAD:
      if (http->status >= 200) swerex__web_on_head(call, http);
      break;
    case SWEREX__HTTP_BODY:
      if (!swerex__web_on_body(call, http)) return;
      break;
    case SWEREX__HTTP_END:
      if (http->status < 200 && conn->interim++ < SWEREX__WEB_INTERIM_MAX) {
        /* 100 Continue and its like: the answer follows */
        swerex__http_restart(http);
        break;
      }
      swerex__web_end(call,
                      http->keep_alive && size == 0 && swerex__sock_waiting(&conn->stream) == 0 &&
                        (call->read == NULL || call->body_over),
                      NULL);
      return;
    case SWEREX__HTTP_BROKEN: swerex__web_fail(call, http->why); return;
    default: return;
    }
  }
}

static void swerex__web_on_input(swerex__sock_stream *stream) {
  swerex__web_conn *conn = (swerex__web_conn *)stream->owner;
  char data[SWEREX__SOCK_CHUNK];
  ssize_t n = swerex__sock_receive(stream, data, sizeof data);
  if (n < 0) return;
  if (conn->call == NULL) { /* idle: the server closes, or is out of step */
    swerex__web_free_conn(conn);
  } else if (n > 0) {
    swerex__web_feed(conn, data, (size_t)n);
  } else if (swerex__http_is_idle(&conn->http)) {
    swerex__web_fail(conn->call, "the connection closed without an answer");
  } else if (swerex__http_close(&conn->http) == SWEREX__HTTP_END) {
    swerex__web_end(conn->call, false, NULL);
  } else {
    swerex__web_fail(conn->call, "the connection closed in the middle of the answer");
  }
}

static void swerex__web_on_room(swerex__sock_stream *stream) {
  swerex__web_conn *conn = (swerex__web_conn *)stream->owner;
  swerex__web_call *call = conn->call;
  if (call != NULL && !stream->broken && call->read != NULL) swerex__web_send_body(call);
  /* a broken one still has to be read: the server may have said why */
}

static swerex__web_conn *swerex__web_new_conn(swerex__web *web, int fd, swerex_error *err) {
  swerex__web_conn *conn =
    (swerex__web_conn *)swerex__mem_new(&web->loop->allocator, 1, sizeof *conn);
  if (conn == NULL) {
    close(fd);
    swerex__err_memory(err);
    return NULL;
  }
  conn->web = web;
  swerex__http_init(&conn->http, &web->loop->allocator, true);
  conn->stream.on_input = swerex__web_on_input;
  conn->stream.on_room = swerex__web_on_room;
  if (swerex__sock_stream_open(&conn->stream, web->loop, fd, -1, SIZE_MAX / 2, conn)) return conn;
  swerex__err_system(err, errno, web->url.text);
  swerex__web_free_conn(conn);
  return NULL;
}

/* --- calls -------------------------------------------------------------------------------- */

static void swerex__web_on_time(swerex__loop_timer *timer) {
  swerex__web_call *call = (swerex__web_call *)timer->owner;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__str text = swerex__str_new(NULL, 64);
  swerex__util_add_double(&text, call->timeout);
  swerex__err_set(&error, SWEREX_E_TIMEOUT, "no answer from %s%s within %s seconds",
                  call->web->url.text, call->path, text.failed ? "its" : text.data);
  swerex__str_clear(&text);
  swerex__web_end(call, false, &error);
}

static void swerex__web_use(swerex__web_call *call, swerex__web_conn *conn) {
  call->conn = conn;
  conn->call = call;
  conn->http.to_head = false;
  conn->interim = 0;
  swerex__web_send(call);
}

static void swerex__web_on_dialed(void *owner, int fd, swerex_error *error) {
  swerex__web_call *call = (swerex__web_call *)owner;
  call->dial = NULL;
  swerex__web_conn *conn = fd < 0 ? NULL : swerex__web_new_conn(call->web, fd, error);
  if (conn == NULL)
    swerex__web_end(call, false, error);
  else
    swerex__web_use(call, conn);
}

/** Make a call ready to be filled and started. */
static void swerex__web_init_call(swerex__web_call *call, swerex__web *web, void *owner) {
  const swerex_allocator *memory = &web->loop->allocator;
  memset(call, 0, sizeof *call);
  call->web = web;
  call->owner = owner;
  call->headers = swerex__str_new(memory, 65536);
  call->body = swerex__str_new(memory, SIZE_MAX / 2);
  call->answer = swerex__str_new(memory, SWEREX__WEB_ANSWER_MAX);
}

/** Stop a call without a word, and release what it holds. */
static void swerex__web_clear_call(swerex__web_call *call) {
  if (call->web == NULL) return;
  swerex__web_detach(call, false);
  swerex__str_clear(&call->headers);
  swerex__str_clear(&call->body);
  swerex__str_clear(&call->answer);
}

#if SWEREX_USE_CURL

static bool swerex__web_tls_read(void *owner, char *out, size_t room, size_t *got,
                                 swerex_error *err) {
  swerex__web_call *call = (swerex__web_call *)owner;
  return call->read(call->owner, out, room, got, err);
}

static void swerex__web_tls_on_status(void *owner, int status) {
  swerex__web_call *call = (swerex__web_call *)owner;
  call->status = status;
  call->sent = true;
  call->ours = false;
}

static void swerex__web_tls_on_header(void *owner, const char *name, size_t name_size,
                                      const char *value, size_t value_size) {
  swerex__web_call *call = (swerex__web_call *)owner;
  swerex__http_text key = {name, name_size}, text = {value, value_size};
  if (swerex__http_is(key, "content-type")) swerex__web_take_type(call, text);
  if (swerex__http_is(key, "server")) swerex__web_take_server(call, text);
  if (call->ours) swerex__curl_keep(call->job);
  if (call->on_header != NULL)
    call->on_header(call->owner, name, name_size, value, value_size);
}

static bool swerex__web_tls_on_data(void *owner, const char *data, size_t size,
                                    swerex_error *err) {
  return swerex__web_take_body((swerex__web_call *)owner, data, size, err);
}

static void swerex__web_tls_on_done(void *owner, bool sent, swerex_error *error) {
  swerex__web_call *call = (swerex__web_call *)owner;
  call->job = NULL;
  call->sent = call->sent || sent;
  swerex__web_end(call, false, error);
}

/** Start a call by libcurl. */
static bool swerex__web_start_tls(swerex__web_call *call, swerex_error *err) {
  swerex__web *web = call->web;
  swerex__curl_request request;
  swerex__str url = swerex__str_new(&web->loop->allocator, 65536);
  if (web->curl == NULL) web->curl = swerex__curl_new(web->loop, err);
  if (web->curl == NULL) return false;
  memset(&request, 0, sizeof request);
  swerex__str_printf(&url, "https://%s%s%s", web->url.text, web->url.prefix, call->path);
  request.method = call->method;
  request.url = url.data;
  request.headers = call->headers.data;
  request.headers_size = call->headers.size;
  request.body = call->body.data;
  request.body_size = call->body.size;
  request.length = call->length;
  request.connect_timeout = call->connect_timeout;
  request.reuse = web->reuse;
  request.http2 = call->http2;
  request.read = call->read == NULL ? NULL : swerex__web_tls_read;
  request.on_status = swerex__web_tls_on_status;
  request.on_header = swerex__web_tls_on_header;
  request.on_data = swerex__web_tls_on_data;
  request.done = swerex__web_tls_on_done;
  request.owner = call;
  if (url.failed)
    swerex__err_memory(err);
  else
    call->job = swerex__curl_start(web->curl, &request, err);
  swerex__str_clear(&url);
  if (call->job != NULL)
    swerex__loop_arm(web->loop, &call->timer, call->timeout, swerex__web_on_time, call);
  return call->job != NULL;
}

#else

static bool swerex__web_start_tls(swerex__web_call *call, swerex_error *err) {
  return swerex__err_set(err, SWEREX_E_UNSUPPORTED,
                         "%s: https is not in this build: compile with -DSWEREX_USE_CURL=1 and "
                         "-lcurl, or with -DSWEREX_USE_CURL=2 to load libcurl when it is needed",
                         call->web->url.text);
}

#endif

/** Start a call, or start it again. `done` is called from the loop, unless this fails. */
static bool swerex__web_start(swerex__web_call *call, swerex_error *err) {
  swerex__web *web = call->web;
  call->status = 0;
  call->sent = call->body_over = false;
  call->body_sent = 0;
  call->answer.size = 0;
  call->type[0] = '\0';
  if (web->url.tls) return swerex__web_start_tls(call, err);
  swerex__loop_arm(web->loop, &call->timer, call->timeout, swerex__web_on_time, call);
  if (web->reuse && !swerex__loop_link_empty(&web->idle)) {
    swerex__web_conn *conn = (swerex__web_conn *)web->idle.previous;
    swerex__loop_link_remove(&conn->link);
    web->idle_count--;
    swerex__web_use(call, conn);
    return true;
  }
  if (web->dial != NULL) {
    int fd = web->dial(web->dialler, err);
    swerex__web_conn *conn = fd < 0 ? NULL : swerex__web_new_conn(web, fd, err);
    if (conn != NULL) swerex__web_use(call, conn);
    if (conn == NULL) swerex__loop_disarm(web->loop, &call->timer);
    return conn != NULL;
  }
  call->dial = swerex__sock_dial_new(web->loop, web->url.host, web->url.port, call->connect_timeout,
                                     web->url.text, swerex__web_on_dialed, call, err);
  if (call->dial == NULL) swerex__loop_disarm(web->loop, &call->timer);
  return call->dial != NULL;
}

static bool swerex__web_open(swerex__web *web, swerex_loop *loop, const char *host, int port,
                             swerex_error *err) {
  memset(web, 0, sizeof *web);
  web->loop = loop;
  swerex__loop_link_init(&web->idle);
  return swerex__web_parse_url(&loop->allocator, host, port, &web->url, err);
}

static void swerex__web_close(swerex__web *web) {
  while (web->idle.next != NULL && !swerex__loop_link_empty(&web->idle))
    swerex__web_free_conn((swerex__web_conn *)web->idle.next);
#if SWEREX_USE_CURL
  swerex__curl_close(web->curl);
  web->curl = NULL;
#endif
  swerex__web_clear_url(&web->url);
}

/* =============================================================================================
 * [remote] The remote runtime
 * ========================================================================================== */
/* Each verb is a call to a server, ours or the Python one. A call that failed before its request
 * was sent is made again; one that failed later only where that is safe: the server is ours, which
 * knows a request by its id, or the verb changes nothing. Where output is watched, ours sends it
 * as it comes, and a broken answer is taken up where it ended. Errors of the other side keep their
 * class path; nothing is done because of it. */

#define SWEREX__REMOTE_CONNECT_TIME 10.0
#define SWEREX__REMOTE_ALIVE_TIME 0.15
#define SWEREX__REMOTE_FIRST_DELAY 0.1
#define SWEREX__REMOTE_MAX_DELAY 5.0

typedef struct swerex__remote {
  swerex_runtime base; /* first member */
  swerex_remote_config config; /* owned */
  swerex_logger logger;
  swerex__web web;
  swerex__loop_link calls;
} swerex__remote;

/** The parts of an upload's body, in turn. */
typedef enum swerex__remote_part {
  SWEREX__REMOTE_FIELDS,
  SWEREX__REMOTE_CONTENT,
  SWEREX__REMOTE_TAIL,
  SWEREX__REMOTE_END
} swerex__remote_part;

typedef struct swerex__remote_call {
  swerex__loop_link link; /* first member */
  swerex__remote *remote;
  swerex__rt_verb verb;
  swerex_future *future;
  swerex__web_call web;
  char path[32];
  char *session; /* of run_in_session; NULL: its order does not matter */
  bool held;     /* until the one before it in its session is done */
  int tries;
  double delay;
  swerex__loop_timer again;
  swerex_output_watch watch;
  bool live;       /* the answer came as a stream */
  swerex__str line; /* of the stream, not complete yet */
  uint64_t cursor; /* complete lines taken */
  swerex__str last; /* the answer at the stream's end */
  int last_status;
  char *source; /* of an upload */
  int fd;
  swerex__zip_pack *pack;
  swerex__remote_part part;
  swerex__str fields; /* what goes before the content */
  char boundary[40];  /* random: no file can hold it on purpose */
  size_t at;
} swerex__remote_call;

/** Find a call in a session, from `link` on; `held`: one that waits. NULL: there is none. */
static swerex__remote_call *swerex__remote_find(const swerex__remote *remote,
                                                swerex__loop_link *link, const char *session,
                                                bool held) {
  for (; link != &remote->calls; link = link->next) {
    swerex__remote_call *call = (swerex__remote_call *)link;
    if (call->session != NULL && strcmp(call->session, session) == 0 && (call->held || !held))
      return call;
  }
  return NULL;
}

static void swerex__remote_on_again(swerex__loop_timer *timer);

/** A call is over: send the one that waited for it. */
static void swerex__remote_let_next(swerex__remote_call *call) {
  swerex__remote *remote = call->remote;
  if (call->session == NULL || call->held) return;
  call = swerex__remote_find(remote, remote->calls.next, call->session, true);
  if (call == NULL) return;
  call->held = false;
  swerex__loop_arm(remote->base.loop, &call->again, 0, swerex__remote_on_again, call);
}

static void swerex__remote_free_call(swerex__remote_call *call) {
  swerex__loop_link_remove(&call->link);
  swerex__remote_let_next(call);
  swerex__mem_free(call->session);
  swerex__loop_disarm(call->remote->base.loop, &call->again);
  swerex__web_clear_call(&call->web);
  swerex__zip_pack_free(call->pack);
  swerex__sys_close(&call->fd);
  swerex__str_clear(&call->line);
  swerex__str_clear(&call->last);
  swerex__str_clear(&call->fields);
  swerex__mem_free(call->source);
  swerex__mem_free(call);
}

static void swerex__remote_cancel(swerex_future *future) {
  swerex__remote_free_call((swerex__remote_call *)future->operation);
}

/** End a call with an error, which is moved. */
static void swerex__remote_fail(swerex__remote_call *call, swerex_error *error) {
  swerex_future *future = call->future;
  swerex_is_alive_response *alive = (swerex_is_alive_response *)future->response;
  swerex__remote *remote = call->remote;
  bool asked = call->verb == SWEREX__RT_IS_ALIVE;
  swerex__remote_free_call(call);
  if (!asked) {
    swerex__loop_fail(future, error);
    return;
  }
  swerex__str text = swerex__str_new(&remote->base.loop->allocator, 65536);
  swerex__str_printf(&text, "Failed to connect to %s\n%s", remote->web.url.text, error->message);
  if (!swerex__str_take(&text, &alive->message, error))
    swerex__loop_fail(future, error);
  else
    swerex__loop_finish(future);
  swerex__err_clear(error);
}

/* --- answers ------------------------------------------------------------------------------ */

/** Find the code that the server means: by name where it is ours, else by the Python class. */
static swerex_code swerex__remote_code(const swerex__json *exception, const char *class_path) {
  const swerex__json *name = swerex__json_get(exception, "code");
  for (int i = 1; name != NULL && i < SWEREX_E_COUNT_; i++)
    if (name->type == SWEREX__JSON_STRING && swerex__json_is(name, swerex__err_rows[i].name) &&
        strcmp(swerex__err_rows[i].class_path, class_path) == 0)
      return (swerex_code)i;
  return swerex__err_code_of_class(class_path);
}

/** Copy a string member of an exception, NULs cut off; NULL: it is not there. */
static char *swerex__remote_string(const swerex__json *object, const char *name) {
  const swerex__json *node = swerex__json_get(object, name);
  if (node == NULL || node->type != SWEREX__JSON_STRING) return NULL;
  return swerex__mem_copy(NULL, node->string, node->size);
}

/** Take an exception of the other side: a value like any other. */
static bool swerex__remote_take_exception(const swerex__json *root, swerex_error *error) {
  const swerex__json *exception = swerex__json_get(root, "swerexception");
  if (exception == NULL || exception->type != SWEREX__JSON_OBJECT) return false;
  const swerex__json *info = swerex__json_get(exception, "extra_info");
  swerex__str extra = swerex__str_new(NULL, SIZE_MAX / 2);
  char *message = swerex__remote_string(exception, "message");
  char *path = swerex__remote_string(exception, "class_path");
  char *traceback = swerex__remote_string(exception, "traceback");
  if (info != NULL && info->type == SWEREX__JSON_OBJECT) swerex__json_add_node(&extra, info);
  const char *strings[4] = {message, extra.failed || extra.size <= 2 ? NULL : extra.data, path,
                            traceback != NULL && traceback[0] != '\0' ? traceback : NULL};
  swerex__err_fill(error, swerex__remote_code(exception, path == NULL ? "" : path), strings);
  error->http_status = 511;
  swerex__str_clear(&extra);
  swerex__mem_free(message);
  swerex__mem_free(path);
  swerex__mem_free(traceback);
  return true;
}

/** Describe an answer that is neither the verb's nor an exception. */
static void swerex__remote_set_status(const swerex__remote_call *call, int status,
                                      const swerex__json *root, const char *text, size_t size,
                                      swerex_error *error) {
  const swerex__json *detail = swerex__json_get(root, "detail");
  swerex__str words = swerex__str_new(NULL, SIZE_MAX / 2);
  if (detail != NULL && detail->type == SWEREX__JSON_STRING)
    swerex__str_add(&words, detail->string, detail->size);
  else if (detail != NULL)
    swerex__json_add_node(&words, detail);
  else
    for (size_t i = 0; i < size && i < 200; i++)
      swerex__str_putc(&words, (unsigned char)text[i] < 0x20 ? ' ' : text[i]);
  swerex__err_set(error, SWEREX_E_HTTP, "Status code %d from http%s://%s%s%s. Message: %s", status,
                  call->remote->web.url.tls ? "s" : "", call->remote->web.url.text,
                  call->remote->web.url.prefix, call->path,
                  words.failed || words.size == 0 ? "none" : words.data);
  error->http_status = status;
  swerex__str_clear(&words);
}

/** Hand over the whole output where it did not come as a stream. */
static void swerex__remote_show(const swerex__remote_call *call) {
  const swerex_output_watch *watch = &call->watch;
  swerex_bytes parts[2];
  memset(parts, 0, sizeof parts);
  if (watch->on_output == NULL || call->live) return;
  if (call->verb == SWEREX__RT_EXECUTE) {
    const swerex_command_response *response =
      (const swerex_command_response *)call->future->response;
    parts[0] = response->stdout_text;
    parts[1] = response->stderr_text;
  } else if (call->verb == SWEREX__RT_RUN_IN_SESSION) {
    parts[0] = ((const swerex_bash_observation *)call->future->response)->output;
  }
  for (int i = 0; i < 2; i++)
    if (parts[i].size > 0)
      watch->on_output(watch->user_data, i == 0 ? SWEREX_STDOUT : SWEREX_STDERR, parts[i].data,
                       parts[i].size);
}

/** Read an answer and end the call with what it says. */
static void swerex__remote_answer(swerex__remote_call *call, int status, const char *text,
                                  size_t size) {
  const swerex_allocator *memory = &call->remote->base.loop->allocator;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__json_doc doc;
  memset(&doc, 0, sizeof doc);
  bool ok = swerex__json_parse(memory, text, size, &doc, &error);
  if (status == 511 && ok && swerex__remote_take_exception(doc.root, &error)) {
    ok = false;
  } else if (status != 200) {
    swerex__remote_set_status(call, status, doc.root, text, size, &error);
    ok = false;
  } else if (!ok || !swerex__model_decode(memory, call->future->model, doc.root,
                                          call->future->response, &error)) {
    swerex_error why = SWEREX_ERROR_INIT;
    swerex__err_move(&why, &error);
    swerex__err_set(&error, SWEREX_E_HTTP, "the answer of %s%s cannot be read: %s",
                    call->remote->web.url.text, call->path, why.message);
    swerex__err_clear(&why);
    ok = false;
  }
  swerex__json_free(&doc);
  if (!ok) {
    swerex__remote_fail(call, &error);
    swerex__err_clear(&error);
    return;
  }
  swerex__remote_show(call);
  swerex_future *future = call->future;
  swerex__remote_free_call(call);
  swerex__loop_finish(future);
}

/* --- streams ------------------------------------------------------------------------------ */

/** Take one line of a stream. */
static bool swerex__remote_take_line(swerex__remote_call *call, swerex_error *err) {
  const swerex_output_watch *watch = &call->watch;
  swerex__json_doc doc;
  if (call->line.size <= 1) return true; /* a sign of life */
  if (!swerex__json_parse(call->line.allocator, call->line.data, call->line.size, &doc, err)) {
    swerex_error why = SWEREX_ERROR_INIT;
    if (err->code == SWEREX_E_NO_MEMORY) return false;
    swerex__err_move(&why, err);
    swerex__err_set(err, SWEREX_E_HTTP, "the answer of %s%s cannot be read: %s",
                    call->remote->web.url.text, call->path, why.message);
    swerex__err_clear(&why);
    return false;
  }
  const swerex__json *answer = swerex__json_get(doc.root, "answer");
  const swerex__json *status = swerex__json_get(doc.root, "status");
  const swerex__json *lost = swerex__json_get(doc.root, "lost");
  const swerex__json *at = swerex__json_get(doc.root, "at");
  if (status != NULL && answer != NULL && status->type == SWEREX__JSON_NUMBER &&
      status->integer >= 100 && status->integer <= 999) {
    call->last_status = (int)status->integer;
    call->last.size = 0;
    swerex__json_add_node(&call->last, answer);
  } else if (lost != NULL && at != NULL) {
    call->cursor = (uint64_t)at->integer;
  } else {
    static const char *const names[] = {"stdout", "stderr"};
    call->cursor += call->line.size;
    for (int i = 0; i < 2; i++) {
      const swerex__json *text = swerex__json_get(doc.root, names[i]);
      if (text != NULL && text->type == SWEREX__JSON_STRING)
        watch->on_output(watch->user_data, i == 0 ? SWEREX_STDOUT : SWEREX_STDERR, text->string,
                         text->size);
    }
  }
  swerex__json_free(&doc);
  return true;
}

/** Take a piece of an answer, which is a stream if the server can do that. */
static bool swerex__remote_on_data(void *owner, const char *data, size_t size, swerex_error *err) {
  swerex__remote_call *call = (swerex__remote_call *)owner;
  call->live = strcmp(call->web.type, "application/x-ndjson") == 0;
  if (!call->live) {
    return swerex__web_keep(&call->web, data, size, err);
  }
  while (size > 0) {
    const char *feed = (const char *)memchr(data, '\n', size);
    size_t count = feed == NULL ? size : (size_t)(feed - data) + 1;
    swerex__str_add(&call->line, data, count);
    if (call->line.failed)
      return swerex__err_set(err, SWEREX_E_HTTP, "a line of the answer of %s%s is too long",
                             call->remote->web.url.text, call->path);
    data += count;
    size -= count;
    if (feed == NULL) break;
    if (!swerex__remote_take_line(call, err)) return false;
    call->line.size = 0;
  }
  return true;
}

/* --- uploads ------------------------------------------------------------------------------ */

/** Give the next bytes of an upload's body. */
static bool swerex__remote_read(void *owner, char *out, size_t room, size_t *got,
                                swerex_error *err) {
  swerex__remote_call *call = (swerex__remote_call *)owner;
  char tail[64];
  int tail_size = snprintf(tail, sizeof tail, "\r\n--%s--\r\n", call->boundary);
  *got = 0;
  while (*got == 0 && call->part != SWEREX__REMOTE_END) {
    bool fields = call->part == SWEREX__REMOTE_FIELDS;
    if (call->part == SWEREX__REMOTE_CONTENT) {
      ssize_t n = 0;
      if (call->pack != NULL) {
        if (!swerex__zip_pack_read(call->pack, out, room, got, err)) return false;
      } else if ((n = swerex__fs_read_some(call->fd, out, room)) < 0) {
        return swerex__err_system(err, errno, call->source);
      } else {
        *got = (size_t)n;
      }
    } else {
      const char *text = fields ? call->fields.data : tail;
      size_t size = fields ? call->fields.size : (size_t)tail_size;
      *got = size - call->at < room ? size - call->at : room;
      memcpy(out, text + call->at, *got);
      call->at += *got;
    }
    if (*got == 0) {
      call->part = (swerex__remote_part)((int)call->part + 1);
      call->at = 0;
    }
  }
  return true;
}

/** Write a text into a header's quoted parameter, as browsers do. */
static void swerex__remote_quote(swerex__str *out, const char *text) {
  for (; *text != '\0'; text++) {
    if (*text == '"')
      swerex__str_puts(out, "%22");
    else if (*text == '\r' || *text == '\n')
      swerex__str_printf(out, "%%%02X", (unsigned)*text);
    else
      swerex__str_putc(out, *text);
  }
}

static void swerex__remote_field(swerex__remote_call *call, const char *name, const char *value) {
  swerex__str_printf(&call->fields,
                     "--%s\r\ncontent-disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n",
                     call->boundary, name, value);
}

/** Open the source of an upload, and write what goes before its content. */
static bool swerex__remote_open_source(swerex__remote_call *call, swerex_error *err) {
  const swerex_allocator *memory = &call->remote->base.loop->allocator;
  struct stat info;
  bool folder;
  swerex__sys_close(&call->fd);
  swerex__zip_pack_free(call->pack);
  call->pack = NULL;
  call->part = SWEREX__REMOTE_FIELDS;
  call->at = 0;
  if (stat(call->source, &info) != 0) return swerex__err_system(err, errno, call->source);
  folder = S_ISDIR(info.st_mode);
  if (!folder && !S_ISREG(info.st_mode))
    return swerex__err_set(err, SWEREX_E_VALUE, "Source path %s is not a file or directory",
                           call->source);
  if (folder) {
    call->pack = swerex__zip_pack_new(memory, call->source, err);
    if (call->pack == NULL) return false;
    call->web.length = SWEREX__WEB_UNKNOWN;
    return true;
  }
  call->fd = open(call->source, O_RDONLY | O_CLOEXEC);
  if (call->fd < 0 || fstat(call->fd, &info) != 0)
    return swerex__err_system(err, errno, call->source);
  call->web.length = call->fields.size + (uint64_t)info.st_size +
                     strlen(call->boundary) + sizeof "\r\n----\r\n" - 1;
  return true;
}

/** Write the fields of an upload's form. */
static bool swerex__remote_fill_upload(swerex__remote_call *call,
                                       const swerex_upload_request *upload, swerex_error *err) {
  swerex__str *out = &call->fields;
  struct stat info;
  char number[64];
  call->source = swerex__mem_copy(&call->remote->base.loop->allocator, upload->source_path,
                                  strlen(upload->source_path));
  if (call->source == NULL) return swerex__err_memory(err);
  unsigned char id[16];
  if (!swerex__util_random(id, sizeof id)) return swerex__err_system(err, errno, "/dev/urandom");
  memcpy(call->boundary, "swerex-", 8);
  for (int i = 0; i < 16; i++) snprintf(call->boundary + 7 + 2 * i, 3, "%02x", id[i]);
  if (stat(call->source, &info) != 0) return swerex__err_system(err, errno, call->source);
  bool folder = S_ISDIR(info.st_mode);
  const char *slash = strrchr(call->source, '/');
  swerex__remote_field(call, "target_path", upload->target_path);
  swerex__remote_field(call, "unzip", folder ? "true" : "false");
  if (!folder) {
    snprintf(number, sizeof number, "%o", (unsigned)info.st_mode & 0777U);
    swerex__remote_field(call, "mode", number);
    snprintf(number, sizeof number, "%lld", (long long)info.st_mtime);
    swerex__remote_field(call, "mtime", number);
  }
  swerex__str_printf(out, "--%s\r\ncontent-disposition: form-data; name=\"file\"; filename=\"",
                     call->boundary);
  swerex__remote_quote(out, folder ? "zipped_transfer.zip"
                            : slash != NULL && slash[1] != '\0' ? slash + 1
                                                                : call->source);
  swerex__str_puts(out, folder ? "\"\r\ncontent-type: application/zip\r\n\r\n"
                               : "\"\r\ncontent-type: application/octet-stream\r\n\r\n");
  call->web.read = swerex__remote_read;
  return !out->failed || swerex__err_memory(err);
}

/* --- calls -------------------------------------------------------------------------------- */

static void swerex__remote_on_done(void *owner, swerex_error *error);

/** Send the request, the first time or again. */
static bool swerex__remote_send(swerex__remote_call *call, swerex_error *err) {
  size_t size = call->web.headers.size;
  call->line.size = 0;
  if (call->source != NULL && !swerex__remote_open_source(call, err)) return false;
  if (call->cursor > 0)
    swerex__str_printf(&call->web.headers, "x-stream-offset: %llu\r\n",
                       (unsigned long long)call->cursor);
  bool ok = swerex__web_start(&call->web, err);
  call->web.headers.size = size;
  return ok;
}

static void swerex__remote_on_again(swerex__loop_timer *timer) {
  swerex__remote_call *call = (swerex__remote_call *)timer->owner;
  swerex_error error = SWEREX_ERROR_INIT;
  if (!swerex__remote_send(call, &error)) swerex__remote_fail(call, &error);
  swerex__err_clear(&error);
}

/** Tell whether a call that failed may be made again. */
static bool swerex__remote_may_retry(const swerex__remote_call *call, const swerex_error *error) {
  bool harmless = call->verb == SWEREX__RT_READ_FILE;
  if (call->verb == SWEREX__RT_IS_ALIVE || call->tries >= call->remote->config.num_retries)
    return false;
  if (error->code == SWEREX_E_UNSUPPORTED || error->code == SWEREX_E_NO_MEMORY ||
      error->code == SWEREX_E_CANCELLED || error->code == SWEREX_E_TIMEOUT)
    return false;
  return !call->web.sent || harmless || call->remote->web.reuse;
}

/** The call has an answer, or failed. */
static void swerex__remote_on_done(void *owner, swerex_error *error) {
  swerex__remote_call *call = (swerex__remote_call *)owner;
  swerex__remote *remote = call->remote;
  if (error->code == SWEREX_E_OK && call->live && call->last_status == 0)
    swerex__err_set(error, SWEREX_E_HTTP, "the stream of %s%s ended without an answer",
                    remote->web.url.text, call->path);
  if (error->code == SWEREX_E_OK) {
    if (call->live)
      swerex__remote_answer(call, call->last_status, call->last.data, call->last.size);
    else
      swerex__remote_answer(call, call->web.status,
                            call->web.answer.data == NULL ? "" : call->web.answer.data,
                            call->web.answer.size);
  } else if (swerex__remote_may_retry(call, error)) {
    swerex__log(&remote->logger, SWEREX_LOG_INFO, "%s; trying again", error->message);
    call->tries++;
    swerex__loop_arm(remote->base.loop, &call->again, call->delay, swerex__remote_on_again, call);
    call->delay =
      call->delay * 2 < SWEREX__REMOTE_MAX_DELAY ? call->delay * 2 : SWEREX__REMOTE_MAX_DELAY;
  } else {
    swerex__remote_fail(call, error);
  }
}

/** Write the headers: token, request id, what is accepted. */
static bool swerex__remote_fill_headers(swerex__remote_call *call, bool json, swerex_error *err) {
  swerex__str *out = &call->web.headers;
  const char *token = call->remote->config.auth_token;
  unsigned char id[16];
  if (token != NULL && token[0] != '\0') swerex__str_printf(out, "x-api-key: %s\r\n", token);
  if (call->verb != SWEREX__RT_IS_ALIVE) {
    if (!swerex__util_random(id, sizeof id)) return swerex__err_system(err, errno, "/dev/urandom");
    id[6] = (unsigned char)((id[6] & 0x0FU) | 0x40U); /* a UUID of version 4 */
    id[8] = (unsigned char)((id[8] & 0x3FU) | 0x80U);
    swerex__str_puts(out, "x-request-id: ");
    for (int i = 0; i < 16; i++)
      swerex__str_printf(out, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
    swerex__str_puts(out, "\r\n");
  }
  if (json) swerex__str_puts(out, "content-type: application/json\r\n");
  if (call->verb == SWEREX__RT_EXECUTE && call->remote->config.kill_on_disconnect)
    swerex__str_puts(out, "x-on-disconnect: kill\r\n");
  if (call->source != NULL)
    swerex__str_printf(out, "content-type: multipart/form-data; boundary=%s\r\n", call->boundary);
  if (call->watch.on_output != NULL)
    swerex__str_puts(out, "accept: application/x-ndjson, application/json\r\n");
  return !out->failed || swerex__err_memory(err);
}

static double swerex__remote_or(double seconds, double otherwise) {
  return seconds == 0 ? otherwise : seconds <= SWEREX_NOW && seconds > 0 ? 0 : seconds;
}

/** Fill what is the verb's own. */
static bool swerex__remote_fill(swerex__remote_call *call, const void *request, swerex_error *err) {
  const swerex_remote_config *config = &call->remote->config;
  const swerex__model *model = swerex__rt_request_model(call->verb);
  call->web.method = "POST";
  call->web.connect_timeout =
    swerex__remote_or(config->connect_timeout, SWEREX__REMOTE_CONNECT_TIME);
  call->web.timeout = swerex__remote_or(config->request_timeout, SWEREX_FOREVER);
  bool json = call->verb != SWEREX__RT_IS_ALIVE && call->verb != SWEREX__RT_CLOSE &&
              call->verb != SWEREX__RT_UPLOAD;
  if (call->verb == SWEREX__RT_IS_ALIVE) {
    call->web.method = "GET";
    call->web.timeout =
      swerex__remote_or(((const swerex_is_alive_request *)request)->timeout,
                        swerex__remote_or(config->timeout, SWEREX__REMOTE_ALIVE_TIME));
  } else if (call->verb == SWEREX__RT_UPLOAD) {
    if (!swerex__remote_fill_upload(call, (const swerex_upload_request *)request, err))
      return false;
  } else if (json && !swerex__model_encode(model, request, &call->web.body, err)) {
    return false;
  }
  if (call->verb == SWEREX__RT_EXECUTE) call->watch = ((const swerex_command *)request)->watch;
  if (call->verb == SWEREX__RT_RUN_IN_SESSION) {
    const swerex_bash_action *action = (const swerex_bash_action *)request;
    const char *name = action->session == NULL ? "default" : action->session;
    call->watch = action->watch;
    call->held = swerex__remote_find(call->remote, call->remote->calls.next, name, false) != NULL;
    call->session = swerex__mem_copy(&call->remote->base.loop->allocator, name, strlen(name));
    if (call->session == NULL) return swerex__err_memory(err);
  }
  if (call->watch.on_output != NULL) call->web.on_data = swerex__remote_on_data;
  return swerex__remote_fill_headers(call, json, err);
}

static bool swerex__remote_start(swerex_runtime *runtime, swerex__rt_verb verb,
                                 const void *request, swerex_future *future, swerex_error *err) {
  swerex__remote *remote = (swerex__remote *)runtime;
  const swerex_allocator *memory = &runtime->loop->allocator;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__remote_call *call = (swerex__remote_call *)swerex__mem_new(memory, 1, sizeof *call);
  if (call == NULL) return swerex__err_memory(err);
  call->remote = remote;
  call->verb = verb;
  call->future = future;
  call->fd = -1;
  call->delay = SWEREX__REMOTE_FIRST_DELAY;
  call->line = call->last = call->fields = swerex__str_new(memory, SWEREX__WEB_ANSWER_MAX);
  snprintf(call->path, sizeof call->path, "/%s", swerex__rt_rows[verb].name);
  swerex__loop_link_insert(&remote->calls, &call->link);
  swerex__web_init_call(&call->web, &remote->web, call);
  call->web.path = call->path;
  call->web.done = swerex__remote_on_done;
  future->operation = call;
  future->cancel = swerex__remote_cancel;
  if (swerex__remote_fill(call, request, &error) &&
      (call->held || swerex__remote_send(call, &error)))
    return true;
  swerex__remote_fail(call, &error); /* is_alive has an answer to this too */
  swerex__err_clear(&error);
  return true;
}

static void swerex__remote_destroy(swerex_runtime *runtime) {
  swerex__remote *remote = (swerex__remote *)runtime;
  while (!swerex__loop_link_empty(&remote->calls))
    swerex__loop_cancel(((swerex__remote_call *)remote->calls.next)->future);
  swerex__web_close(&remote->web);
  swerex__model_clear(swerex__model_of(SWEREX_MODEL_REMOTE_CONFIG), &remote->config);
  swerex__mem_free(remote);
}

static const swerex__rt_kind swerex__remote_kind = {
  "remote",
  {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
  swerex__remote_start,
  swerex__remote_destroy,
};

static swerex_runtime *swerex__remote_new(swerex_loop *loop, const swerex_remote_config *config,
                                          swerex_error *err) {
  swerex__remote *remote = (swerex__remote *)swerex__mem_new(&loop->allocator, 1, sizeof *remote);
  const swerex__model *model = swerex__model_of(SWEREX_MODEL_REMOTE_CONFIG);
  if (remote == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  swerex__rt_init(&remote->base, loop, &swerex__remote_kind);
  swerex__loop_link_init(&remote->calls);
  remote->logger = loop->logger;
  remote->logger.name = "rex-runtime";
  bool ok = swerex__model_copy(&loop->allocator, model, config, &remote->config, err);
  const char *token = remote->config.auth_token;
  for (; ok && token != NULL && *token != '\0'; token++)
    if ((unsigned char)*token < 0x20 || *token == 0x7F)
      ok = swerex__err_set(err, SWEREX_E_VALUE, "auth_token has a control character");
  if (ok && remote->config.num_retries == 0) remote->config.num_retries = 3;
  const char *host = remote->config.host == NULL ? "http://127.0.0.1" : remote->config.host;
  if (ok && swerex__web_open(&remote->web, loop, host, remote->config.port, err))
    return &remote->base;
  swerex__rt_free(&remote->base);
  return NULL;
}

/** Have connections opened by a function instead of to the address. */
static void swerex__remote_dial_by(swerex_runtime *runtime,
                                   int (*dial)(void *dialler, swerex_error *err), void *dialler) {
  swerex__remote *remote = (swerex__remote *)runtime;
  remote->web.dial = dial;
  remote->web.dialler = dialler;
}

#endif /* SWEREX_NO_REMOTE */

#ifndef SWEREX_NO_SERVER

/* =============================================================================================
 * [form] Files that come as forms
 * ========================================================================================== */
/* An upload: fields that say where to, and a file, which is written as it comes: beside its target
 * where that is known by then. When the form is complete, the file is renamed or copied to its
 * place, or unpacked there, in bounded steps. */

enum { SWEREX__FORM_FIELD_MAX = 8192 };

/** A form that comes in, and what becomes of the file in it. */
typedef struct swerex__form {
  const swerex_allocator *memory;
  swerex__multi multi;
  int fd;
  char *spool;  /* path of the file while it is written; NULL: none yet */
  char *target; /* NULL: not named yet */
  char *name;   /* the file's own */
  swerex__str field;
  bool unzip, bad_unzip;
  unsigned mode; /* 0: not said */
  double mtime;  /* < 0: not said */
  swerex_error error;
  swerex__zip_unpack *unpack;
  swerex__fs_copy *copy;
} swerex__form;

static void swerex__form_free(swerex__form *form) {
  if (form == NULL) return;
  swerex__zip_unpack_free(form->unpack);
  swerex__fs_copy_free(form->copy);
  swerex__sys_close(&form->fd);
  if (form->spool != NULL) unlink(form->spool);
  swerex__multi_free(&form->multi);
  swerex__str_clear(&form->field);
  swerex__err_clear(&form->error);
  swerex__mem_free(form->spool);
  swerex__mem_free(form->target);
  swerex__mem_free(form->name);
  swerex__mem_free(form);
}

/** Note the first failure; the rest of the form is read all the same. */
static void swerex__form_fail(swerex__form *form, const char *path) {
  if (form->error.code == SWEREX_E_OK) swerex__err_system(&form->error, errno, path);
  swerex__sys_close(&form->fd);
}

/** Open a new file for the content in the first folder that takes one; its path, or NULL. */
static char *swerex__form_make_file(swerex__form *form) {
  const char *const folders[] = {getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm", ".", "/"};
  static const char name[] = ".swerex-upload-XXXXXX";
  size_t size = form->target == NULL ? 0 : swerex__fs_folder_size(form->target);
  char *path = NULL;
  if (form->target != NULL) {
    path = swerex__fs_join(form->memory, form->target, size, name);
    form->fd = path == NULL ? -1 : mkstemp(path);
  }
  for (size_t i = 0; form->fd < 0 && i < SWEREX__SYS_COUNT(folders); i++) {
    char whole[PATH_MAX];
    if (folders[i] == NULL || folders[i][0] == '\0') continue;
    swerex__mem_free(path);
    int n = snprintf(whole, sizeof whole, "%s/%s", folders[i], name);
    path = n < (int)sizeof whole ? swerex__mem_copy(form->memory, whole, (size_t)n) : NULL;
    form->fd = path == NULL ? -1 : mkstemp(path);
  }
  return path;
}

/** Open a file to receive the content. */
static bool swerex__form_open(swerex__form *form) {
  if (form->target != NULL && !swerex__fs_make_parents(form->target, &form->error)) return false;
  char *path = swerex__form_make_file(form);
  if (form->fd < 0 || !swerex__sys_prepare_fd(form->fd, false)) {
    swerex__form_fail(form, path == NULL ? "a file for the upload" : path);
    swerex__mem_free(path);
    return false;
  }
  form->spool = path;
  return true;
}

/** Keep a field of the form. */
static void swerex__form_take_field(swerex__form *form) {
  const char *name = form->multi.name;
  const char *text = form->field.data == NULL ? "" : form->field.data;
  size_t size = form->field.size;
  double number = 0;
  if (strcmp(name, "target_path") == 0 && strlen(text) == size) {
    swerex__mem_free(form->target);
    form->target = swerex__fs_clean(form->memory, text);
  } else if (strcmp(name, "target_path") == 0) {
    swerex__err_set(&form->error, SWEREX_E_VALUE, "target_path: embedded null byte");
  } else if (strcmp(name, "unzip") == 0) {
    swerex__json node;
    memset(&node, 0, sizeof node);
    node.type = SWEREX__JSON_STRING;
    node.string = text;
    node.size = size;
    form->bad_unzip = swerex__valid_to_bool(&node, &form->unzip) != SWEREX__VALID_FINE;
  } else if (strcmp(name, "mode") == 0) {
    form->mode = (unsigned)strtoul(text, NULL, 8) & 0777U;
  } else if (strcmp(name, "mtime") == 0 && swerex__util_parse_double(text, size, &number)) {
    form->mtime = number;
  }
  form->field.size = 0;
}

/** Take a piece of the form. */
static bool swerex__form_on_content(void *owner, const char *data, size_t size, bool last) {
  swerex__form *form = (swerex__form *)owner;
  if (form->multi.file[0] == '\0') {
    swerex__str_add(&form->field, data, size);
    if (form->field.failed) return swerex__multi_fail(&form->multi, "a field is too long");
    if (last) swerex__form_take_field(form);
    return true;
  }
  if (strcmp(form->multi.name, "file") != 0 || form->error.code != SWEREX_E_OK) return true;
  if (form->spool == NULL) {
    const char *slash = strrchr(form->multi.file, '/');
    const char *name = slash == NULL ? form->multi.file : slash + 1;
    form->name = swerex__mem_copy(form->memory, name, strlen(name));
    if (!swerex__form_open(form)) return true;
  }
  if (size > 0 && !swerex__sys_write_all(form->fd, data, size))
    swerex__form_fail(form, form->spool);
  return true;
}

/** Begin to take in a form of this Content-Type. */
static swerex__form *swerex__form_new(const swerex_allocator *memory, swerex__http_text type) {
  swerex__form *form = (swerex__form *)swerex__mem_new(memory, 1, sizeof *form);
  if (form == NULL) return NULL;
  form->memory = memory;
  form->fd = -1;
  form->mtime = -1;
  form->field = swerex__str_new(memory, SWEREX__FORM_FIELD_MAX);
  swerex__multi_init(&form->multi, memory, type);
  form->multi.content = swerex__form_on_content;
  form->multi.owner = form;
  return form;
}

/** Give the complete file its mode and time. Some file systems have neither: no failure. */
static void swerex__form_finish(const swerex__form *form) {
  struct timespec times[2];
  double whole = (double)(time_t)form->mtime;
  times[0].tv_sec = times[1].tv_sec = (time_t)form->mtime;
  times[0].tv_nsec = times[1].tv_nsec = (long)((form->mtime - whole) * 1e9);
  if (fchmod(form->fd, form->mode != 0 ? (mode_t)form->mode : 0644) != 0) errno = 0;
  if (form->mtime >= 0 && futimens(form->fd, times) != 0) errno = 0;
}

/** Append the file's own name to a target that is a folder. */
static bool swerex__form_aim(swerex__form *form) {
  if (form->name == NULL || !swerex__fs_is_folder(form->target)) return true;
  swerex__str path = swerex__str_new(form->memory, PATH_MAX);
  swerex__str_printf(&path, "%s/%s", form->target, form->name);
  if (path.failed) {
    swerex__str_clear(&path);
    return false;
  }
  swerex__mem_free(form->target);
  form->target = path.data;
  return true;
}

/** Bring the file to its place. */
static swerex__fs_progress swerex__form_place(swerex__form *form, swerex_error *err) {
  if (form->copy != NULL) return swerex__fs_copy_step(form->copy, err);
  if (!swerex__fs_make_parents(form->target, err)) return SWEREX__FS_FAILED;
  if (!swerex__form_aim(form)) {
    swerex__err_memory(err);
    return SWEREX__FS_FAILED;
  }
  if (rename(form->spool, form->target) == 0) {
    swerex__mem_free(form->spool);
    form->spool = NULL;
    return SWEREX__FS_DONE;
  }
  if (errno != EXDEV) {
    swerex__err_system(err, errno, form->target);
    return SWEREX__FS_FAILED;
  }
  form->copy = swerex__fs_copy_new(form->memory, form->spool, form->target, err);
  return form->copy == NULL ? SWEREX__FS_FAILED : SWEREX__FS_MORE;
}

/** Do a bounded part of what a complete form asks for. */
static swerex__fs_progress swerex__form_step(swerex__form *form, swerex_error *err) {
  if (!form->unzip) return swerex__form_place(form, err);
  if (form->unpack != NULL) return swerex__zip_unpack_step(form->unpack, err);
  if (!swerex__fs_make_parents(form->target, err)) return SWEREX__FS_FAILED;
  form->unpack = swerex__zip_unpack_new(form->memory, form->fd, form->target, NULL, err);
  return form->unpack == NULL ? SWEREX__FS_FAILED : SWEREX__FS_MORE;
}

/** Describe in FastAPI's form what a complete form lacks; false: nothing. */
static bool swerex__form_describe(const swerex__form *form, swerex__str *out) {
  static const char *const names[] = {"file", "target_path"};
  bool failed = form->error.code != SWEREX_E_OK;
  const bool lacks[] = {form->spool == NULL && !failed, form->target == NULL && !failed};
  swerex__str_puts(out, "{\"detail\":[");
  for (int i = 0; i < 2; i++) {
    if (!lacks[i]) continue;
    swerex__json_add_comma(out);
    swerex__str_printf(out,
                       "{\"type\":\"missing\",\"loc\":[\"body\",\"%s\"],\"msg\":\"Field "
                       "required\",\"input\":null}",
                       names[i]);
  }
  if (form->bad_unzip) {
    swerex__json_add_comma(out);
    swerex__str_puts(out, "{\"type\":\"bool_parsing\",\"loc\":[\"body\",\"unzip\"],\"msg\":\"Input "
                          "should be a valid boolean, unable to interpret input\",\"input\":null}");
  }
  swerex__str_puts(out, "]}");
  return lacks[0] || lacks[1] || form->bad_unzip;
}

/* =============================================================================================
 * [srv] The server
 * ========================================================================================== */
/* A local runtime behind HTTP, in the loop's one thread. A request becomes an operation, which
 * lives on when its connection is lost: the same X-Request-ID finds it again, running or done, and
 * gets its one answer. Connections are read only as far as they are answered, so what is in flight
 * bounds the memory. A connection that asks for it gets output as it comes: lines of JSON, which
 * stand on the operation's tape and are sent from any place of it. */

enum {
  SWEREX__SRV_DONE_MAX = 1024,       /* answers kept for requests that come again */
  SWEREX__SRV_DONE_BYTES = 64 << 20, /* their size in all */
  SWEREX__SRV_ID_MAX = 256,
  SWEREX__SRV_TAPE_MAX = 4 << 20,
  SWEREX__SRV_AHEAD = 256 << 10, /* sent, but not taken by the peer yet */
  SWEREX__SRV_AT_ONCE = 16 << 20, /* of a body, whose room is made as soon as its length is known */
  SWEREX__SRV_READS = 16         /* of one connection, before others have their turn */
};

#define SWEREX__SRV_NO_TIME 1e9     /* no limit */
#define SWEREX__SRV_HEAD_TIME 30.0  /* for a head, from its first byte */
#define SWEREX__SRV_IDLE_TIME 300.0 /* between two requests */
#define SWEREX__SRV_STALL_TIME 60.0 /* without a byte, either way */
#define SWEREX__SRV_BEAT_TIME 20.0  /* between signs of life on a live answer */
#define SWEREX__SRV_LINGER 2.0      /* for a refused peer to read why */
#define SWEREX__SRV_PAUSE 0.1       /* when no descriptor is left for a new connection */
#define SWEREX__SRV_LIVE "application/x-ndjson"

typedef struct swerex__srv_conn swerex__srv_conn;
typedef struct swerex__srv_op swerex__srv_op;

struct swerex_server {
  swerex__loop_object object; /* first member */
  swerex_loop *loop;
  swerex_logger logger;
  swerex_runtime *runtime;
  swerex_server_options options;
  char *token, *address, *unix_path; /* owned; NULL: none */
  swerex__poll_watch listener;       /* fd -1: one client, over two descriptors */
  swerex__loop_link conns, ops;      /* operations: oldest first */
  size_t conn_count, running, done_count, done_bytes;
  swerex__loop_timer idle, lifetime, pause;
  bool done;
};

struct swerex__srv_op {
  swerex__loop_link link; /* first member */
  swerex_server *server;
  char *id; /* NULL: none */
  swerex__loop_link readers; /* connections that wait for the answer, by their `wait` */
  swerex_future *future;     /* NULL: not the runtime's work, or over */
  swerex__form *form; /* NULL: no upload, or over */
  swerex__loop_timer step;
  bool done, ending; /* ending: the answer is being given to the readers */
  int status;
  swerex__str answer;
  swerex__str tape;    /* lines of output so far, the last SWEREX__SRV_TAPE_MAX of them */
  uint64_t tape_start; /* bytes that were dropped before it */
};

struct swerex__srv_conn {
  swerex__loop_link link; /* first member */
  swerex_server *server;
  swerex__sock_stream stream;
  swerex__loop_timer timer;
  swerex__http http;
  swerex__str rest; /* came too early: the next request */
  swerex__str body;
  swerex__form *form; /* that comes in */
  int row;          /* of the routes */
  bool closed;      /* only to be freed */
  bool ended;       /* the peer sends no more */
  bool busy;        /* a request is being answered */
  bool last;        /* close after the answer */
  bool head_only;   /* the request was HEAD */
  bool live, kill;  /* asked for output as it comes; to end the command with the connection */
  bool draining;    /* the rest of a refused body is read and dropped */
  bool lingering;   /* only that, and no more answers */
  bool in_head;     /* a head has begun to arrive */
  bool resume;      /* the timer is to go on with `rest` */
  char id[SWEREX__SRV_ID_MAX];
  swerex__srv_op *op;     /* waited for */
  swerex__loop_link wait; /* among its readers */
  uint64_t cursor;        /* on its tape */
  size_t seen_unsent;     /* at the last look: no progress since? */
  double due;             /* when the time limit is reached; the timer may fire before */
};

/** Bodies of requests. */
typedef enum swerex__srv_body {
  SWEREX__SRV_NONE,
  SWEREX__SRV_JSON,
  SWEREX__SRV_FORM
} swerex__srv_body;

typedef struct swerex__srv_route {
  const char *method, *path;
  swerex__srv_body body;
  swerex__rt_verb verb; /* COUNT: none; run_in_session's depends on the body */
} swerex__srv_route;

static const swerex__srv_route swerex__srv_routes[] = {
  {"GET", "/", SWEREX__SRV_NONE, SWEREX__RT_COUNT},
  {"GET", "/is_alive", SWEREX__SRV_NONE, SWEREX__RT_IS_ALIVE},
  {"POST", "/create_session", SWEREX__SRV_JSON, SWEREX__RT_CREATE_SESSION},
  {"POST", "/run_in_session", SWEREX__SRV_JSON, SWEREX__RT_RUN_IN_SESSION},
  {"POST", "/close_session", SWEREX__SRV_JSON, SWEREX__RT_CLOSE_SESSION},
  {"POST", "/execute", SWEREX__SRV_JSON, SWEREX__RT_EXECUTE},
  {"POST", "/read_file", SWEREX__SRV_JSON, SWEREX__RT_READ_FILE},
  {"POST", "/write_file", SWEREX__SRV_JSON, SWEREX__RT_WRITE_FILE},
  {"POST", "/upload", SWEREX__SRV_FORM, SWEREX__RT_UPLOAD},
  {"POST", "/close", SWEREX__SRV_NONE, SWEREX__RT_CLOSE},
};

/* --- operations --------------------------------------------------------------------------- */

static void swerex__srv_on_idle(swerex__loop_timer *timer) {
  ((swerex_server *)timer->owner)->done = true;
}

/** With nothing to do, the time to the end begins. */
static void swerex__srv_check_idle(swerex_server *server) {
  if (server->options.idle_timeout > 0 && server->conn_count == 0 && server->running == 0)
    swerex__loop_arm(server->loop, &server->idle, server->options.idle_timeout,
                     swerex__srv_on_idle, server);
}

static void swerex__srv_free_op(swerex__srv_op *op) {
  swerex_server *server = op->server;
  if (op->done) {
    server->done_count--;
    server->done_bytes -= op->answer.size + op->tape.size;
  } else {
    server->running--;
  }
  swerex__loop_link_remove(&op->link);
  swerex__loop_free_future(op->future);
  swerex__loop_disarm(server->loop, &op->step);
  swerex__form_free(op->form);
  swerex__str_clear(&op->answer);
  swerex__str_clear(&op->tape);
  swerex__mem_free(op->id);
  swerex__mem_free(op);
}

/** Find the operation that a request has started before. */
static swerex__srv_op *swerex__srv_find_op(const swerex_server *server, const char *id) {
  for (swerex__loop_link *link = server->ops.previous; id[0] != '\0' && link != &server->ops;
       link = link->previous) {
    swerex__srv_op *op = (swerex__srv_op *)link;
    if (op->id != NULL && strcmp(op->id, id) == 0) return op;
  }
  return NULL;
}

static swerex__srv_op *swerex__srv_new_op(swerex_server *server, const char *id) {
  const swerex_allocator *memory = &server->loop->allocator;
  swerex__srv_op *op = (swerex__srv_op *)swerex__mem_new(memory, 1, sizeof *op);
  if (op == NULL) return NULL;
  if (id[0] != '\0' && (op->id = swerex__mem_copy(memory, id, strlen(id))) == NULL) {
    swerex__mem_free(op);
    return NULL;
  }
  op->server = server;
  op->answer = swerex__str_new(memory, SIZE_MAX / 2);
  op->tape = swerex__str_new(memory, 2 * SWEREX__SRV_TAPE_MAX);
  swerex__loop_link_init(&op->readers);
  swerex__loop_link_insert(&server->ops, &op->link);
  server->running++;
  return op;
}

/** Forget the oldest answers that are too many. */
static void swerex__srv_trim(swerex_server *server) {
  swerex__loop_link *link = server->ops.next;
  while (link != &server->ops && (server->done_count > SWEREX__SRV_DONE_MAX ||
                                  server->done_bytes > SWEREX__SRV_DONE_BYTES)) {
    swerex__srv_op *op = (swerex__srv_op *)link;
    link = link->next;
    if (op->done && swerex__loop_link_empty(&op->readers)) swerex__srv_free_op(op);
  }
}

/** Write an error as the original transfers exceptions. */
static void swerex__srv_write_error(swerex__str *out, const swerex_error *error) {
  const char *path = error->class_path == NULL ? "" : error->class_path;
  swerex__str_puts(out, "{\"swerexception\":{\"message\":");
  swerex__json_add_text(out, error->message);
  swerex__str_puts(out, ",\"class_path\":");
  swerex__json_add_text(out, path);
  swerex__str_puts(out, ",\"traceback\":");
  swerex__json_add_text(out, error->traceback == NULL ? "" : error->traceback);
  swerex__str_printf(out, ",\"extra_info\":%s",
                     error->extra_info == NULL ? "{}" : error->extra_info);
  if (strcmp(path, swerex__err_rows[error->code].class_path) == 0 &&
      swerex__err_code_of_class(path) != error->code) /* ours says more than Python's class */
    swerex__str_printf(out, ",\"code\":\"%s\"", swerex__err_rows[error->code].name);
  swerex__str_puts(out, "}}");
}

/* --- answers ------------------------------------------------------------------------------ */

/** Set the time limit of what comes next. A timer that fires early is cheaper than a moved one. */
static void swerex__srv_arm(swerex__srv_conn *conn, double seconds) {
  conn->seen_unsent = swerex__sock_waiting(&conn->stream);
  conn->due = swerex__util_now() + seconds;
  if (!swerex__loop_armed(&conn->timer) || conn->timer.at > conn->due)
    swerex__loop_arm(conn->server->loop, &conn->timer, seconds, conn->timer.fire, conn);
}

static void swerex__srv_leave_op(swerex__srv_conn *conn) {
  swerex__srv_op *op = conn->op;
  conn->op = NULL;
  if (op == NULL) return;
  swerex__loop_link_remove(&conn->wait);
  if (op->done && !op->ending && op->id == NULL && swerex__loop_link_empty(&op->readers))
    swerex__srv_free_op(op);
}

/** Close a connection; its memory stays until the loop's next turn, for those who still use it. */
static void swerex__srv_close_conn(swerex__srv_conn *conn) {
  swerex__srv_op *op = conn->op;
  if (conn->closed) return;
  conn->closed = true;
  if (op != NULL && conn->kill && !op->done && op->future != NULL)
    swerex__loop_cancel(op->future);
  swerex__srv_leave_op(conn);
  swerex__sock_stream_close(&conn->stream);
  swerex__form_free(conn->form);
  conn->form = NULL;
  swerex__loop_arm(conn->server->loop, &conn->timer, 0, conn->timer.fire, conn);
}

/** Close a connection whose last answer was sent; a peer that still sends may read it first. */
static void swerex__srv_hang_up(swerex__srv_conn *conn) {
  bool linger = conn->draining && !conn->ended && !conn->stream.broken && !conn->lingering;
  if (!linger) {
    swerex__srv_close_conn(conn);
    return;
  }
  conn->lingering = true;
  shutdown(conn->stream.in.fd, SHUT_WR);
  swerex__srv_arm(conn, SWEREX__SRV_LINGER);
}

/** The answer is sent, or waits to be: what comes next? */
static void swerex__srv_end_request(swerex__srv_conn *conn) {
  swerex__str_clear(&conn->body);
  swerex__srv_leave_op(conn);
  conn->busy = conn->live = conn->kill = false;
  if (!conn->http.keep_alive || (conn->ended && conn->rest.size == 0)) conn->last = true;
  if (conn->stream.broken || (conn->last && swerex__sock_waiting(&conn->stream) == 0)) {
    swerex__srv_hang_up(conn);
    return;
  }
  if (!conn->draining) swerex__http_restart(&conn->http);
  conn->in_head = false;
}

/** Send a complete answer. */
static void swerex__srv_reply(swerex__srv_conn *conn, int status, const char *headers,
                              const char *body, size_t size) {
  char head[512];
  if (!conn->http.keep_alive || (conn->ended && conn->rest.size == 0)) conn->last = true;
  int n = snprintf(head, sizeof head,
                   "HTTP/1.1 %d %s\r\nserver: swerex/" SWEREX_VERSION
                   "\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n%s%s\r\n",
                   status, swerex__http_phrase(status), size, headers,
                   conn->last ? "connection: close\r\n" : "");
  swerex__log(&conn->server->logger, SWEREX_LOG_DEBUG, "answer %d, %zu bytes", status, size);
  if (size <= 2048 && !conn->head_only) { /* one packet */
    char whole[sizeof head + 2048];
    memcpy(whole, head, (size_t)n);
    if (size > 0) memcpy(whole + n, body, size);
    swerex__sock_send(&conn->stream, whole, (size_t)n + size);
  } else {
    swerex__sock_send(&conn->stream, head, (size_t)n);
    if (!conn->head_only) swerex__sock_send(&conn->stream, body, size);
  }
}

/** Refuse a request in FastAPI's form. */
static void swerex__srv_refuse(swerex__srv_conn *conn, int status, const char *headers,
                               const char *detail) {
  swerex__str body = swerex__str_new(&conn->server->loop->allocator, 65536);
  swerex__str_puts(&body, "{\"detail\":");
  swerex__json_add_text(&body, detail);
  swerex__str_puts(&body, "}");
  if (body.failed) conn->stream.broken = true;
  swerex__srv_reply(conn, status, headers, body.failed ? "" : body.data, body.size);
  swerex__str_clear(&body);
}

/** Send one chunk of a live answer. */
static void swerex__srv_send_chunk(swerex__srv_conn *conn, const char *data, size_t size) {
  char line[32];
  int n = snprintf(line, sizeof line, "%zx\r\n", size);
  swerex__sock_send(&conn->stream, line, (size_t)n);
  swerex__sock_send(&conn->stream, data, size);
  swerex__sock_send(&conn->stream, "\r\n", 2);
}

static void swerex__srv_send_line(swerex__srv_conn *conn, const char *format, ...)
  SWEREX_PRINTF(2, 3);
static void swerex__srv_send_line(swerex__srv_conn *conn, const char *format, ...) {
  char line[128];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  swerex__srv_send_chunk(conn, line, (size_t)n);
}

/** Send what is new on the tape, as far as the peer keeps up; true: all of it. */
static bool swerex__srv_play(swerex__srv_conn *conn) {
  const swerex__srv_op *op = conn->op;
  uint64_t end = op->tape_start + op->tape.size;
  if (conn->cursor > end) conn->cursor = end;
  while (conn->cursor < end && !conn->stream.broken) {
    if (swerex__sock_waiting(&conn->stream) >= SWEREX__SRV_AHEAD) return false;
    if (conn->cursor < op->tape_start) {
      swerex__srv_send_line(conn, "{\"lost\":%llu,\"at\":%llu}\n",
                            (unsigned long long)(op->tape_start - conn->cursor),
                            (unsigned long long)op->tape_start);
      conn->cursor = op->tape_start;
    }
    size_t from = (size_t)(conn->cursor - op->tape_start), size = op->tape.size - from;
    if (size > SWEREX__SOCK_CHUNK) size = SWEREX__SOCK_CHUNK;
    swerex__srv_send_chunk(conn, op->tape.data + from, size);
    conn->cursor += size;
  }
  return true;
}

/** Give a connection what its operation has for it. */
static void swerex__srv_pump(swerex__srv_conn *conn) {
  swerex__srv_op *op = conn->op;
  if (conn->live && !swerex__srv_play(conn)) return;
  if (!op->done) return;
  if (conn->live) {
    char head[32];
    swerex__str line = swerex__str_new(&conn->server->loop->allocator, SIZE_MAX / 2);
    snprintf(head, sizeof head, "{\"status\":%d,\"answer\":", op->status);
    swerex__str_puts(&line, head);
    swerex__str_add(&line, op->answer.data, op->answer.size);
    swerex__str_puts(&line, "}\n");
    if (line.failed) conn->stream.broken = true;
    if (!line.failed) swerex__srv_send_chunk(conn, line.data, line.size);
    swerex__sock_send(&conn->stream, "0\r\n\r\n", 5);
    swerex__str_clear(&line);
  } else {
    swerex__srv_reply(conn, op->status, "", op->answer.data, op->answer.size);
  }
  swerex__srv_end_request(conn);
  if (conn->closed) return;
  conn->resume = true; /* what came meanwhile has its turn later: this may be the feeding of it */
  swerex__srv_arm(conn, 0);
}

/** An operation is over: its answer stands. */
static void swerex__srv_end_op(swerex__srv_op *op) {
  swerex_server *server = op->server;
  static const char no_memory[] =
    "{\"swerexception\":{\"message\":\"out of memory\",\"class_path\":\"builtins.MemoryError\","
    "\"traceback\":\"\",\"extra_info\":{}}}";
  if (op->answer.failed) {
    swerex__str_clear(&op->answer);
    swerex__str_puts(&op->answer, no_memory);
    op->status = 511;
  }
  op->done = op->ending = true;
  server->running--;
  server->done_count++;
  server->done_bytes += op->answer.size + op->tape.size;
  swerex__loop_link *link = op->readers.next;
  while (link != &op->readers) {
    swerex__loop_link *next = link->next;
    swerex__srv_pump((swerex__srv_conn *)(void *)((char *)link - offsetof(swerex__srv_conn, wait)));
    link = next;
  }
  op->ending = false;
  if (op->id == NULL && swerex__loop_link_empty(&op->readers))
    swerex__srv_free_op(op);
  else
    swerex__srv_trim(server);
  swerex__srv_check_idle(server);
}

/** End an operation with an error, or with `{}`. */
static void swerex__srv_end_with(swerex__srv_op *op, const swerex_error *error) {
  op->status = error != NULL ? 511 : 200;
  if (error != NULL)
    swerex__srv_write_error(&op->answer, error);
  else
    swerex__str_puts(&op->answer, "{}");
  swerex__srv_end_op(op);
}

/** The runtime has answered. */
static void swerex__srv_on_answer(swerex_future *future, void *user_data) {
  swerex__srv_op *op = (swerex__srv_op *)user_data;
  swerex_error error = SWEREX_ERROR_INIT;
  op->future = NULL;
  bool ok = future->ok;
  if (ok && !swerex__model_encode(future->model, future->response, &op->answer, &error)) {
    ok = false;
    swerex__str_clear(&op->answer);
  } else if (!ok) {
    swerex__err_move(&error, &future->error);
  }
  swerex__loop_free_future(future);
  if (ok) {
    op->status = 200;
    swerex__srv_end_op(op);
  } else {
    swerex__srv_end_with(op, &error);
  }
  swerex__err_clear(&error);
}

/** Put output on the tape, and send it to those who watch. */
static void swerex__srv_on_output(void *user_data, swerex_stream stream, const char *text,
                                  size_t size) {
  swerex__srv_op *op = (swerex__srv_op *)user_data;
  swerex__str_puts(&op->tape, stream == SWEREX_STDOUT ? "{\"stdout\":" : "{\"stderr\":");
  swerex__json_add_string(&op->tape, text, size);
  swerex__str_puts(&op->tape, "}\n");
  if (op->tape.size > SWEREX__SRV_TAPE_MAX || op->tape.failed) {
    size_t drop = op->tape.failed ? op->tape.size : op->tape.size - SWEREX__SRV_TAPE_MAX / 2;
    while (drop < op->tape.size && op->tape.data[drop - 1] != '\n') drop++;
    op->tape_start += drop;
    swerex__str_drop(&op->tape, drop);
    op->tape.failed = false;
  }
  for (swerex__loop_link *link = op->readers.next, *next; link != &op->readers; link = next) {
    next = link->next;
    swerex__srv_pump((swerex__srv_conn *)(void *)((char *)link - offsetof(swerex__srv_conn, wait)));
  }
}

/** Have a connection wait for an operation. */
static void swerex__srv_join(swerex__srv_conn *conn, swerex__srv_op *op) {
  conn->op = op;
  swerex__loop_link_insert(&op->readers, &conn->wait);
  if (conn->live) {
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: swerex/" SWEREX_VERSION
                               "\r\ncontent-type: " SWEREX__SRV_LIVE
                               "\r\ntransfer-encoding: chunked\r\n\r\n";
    swerex__sock_send(&conn->stream, head, sizeof head - 1);
    swerex__srv_arm(conn, SWEREX__SRV_BEAT_TIME);
  } else {
    swerex__loop_disarm(conn->server->loop, &conn->timer);
  }
  if (op->done || conn->live) swerex__srv_pump(conn);
}

/* --- requests ----------------------------------------------------------------------------- */

/** Read a request's JSON and start its verb. */
static bool swerex__srv_start(swerex__srv_conn *conn, swerex__srv_op *op, swerex__rt_verb verb,
                              const swerex__json *root, swerex_error *err) {
  union {
    swerex_create_bash_session_request create;
    swerex_bash_action action;
    swerex_command command;
    swerex_read_file_request read_file;
    swerex_write_file_request write_file;
    swerex_close_bash_session_request close;
  } request;
  swerex_server *server = conn->server;
  const swerex_allocator *memory = &server->loop->allocator;
  const swerex__model *model = swerex__rt_request_model(verb);
  swerex_output_watch watch = {swerex__srv_on_output, op, false};
  memset(&request, 0, sizeof request);
  if (root != NULL && !swerex__model_decode_as(memory, model, root, true, &request, err))
    return false;
  if (conn->live && verb == SWEREX__RT_EXECUTE) request.command.watch = watch;
  if (conn->live && verb == SWEREX__RT_RUN_IN_SESSION) request.action.watch = watch;
  op->future = swerex__rt_call(server->runtime, verb, &request, err);
  swerex__model_release(model, true, &request);
  if (op->future == NULL) return false;
  op->future->then = swerex__srv_on_answer;
  op->future->user_data = op;
  return true;
}

/** Answer 422 for a body that is not what it should be, and 511 for what Python would raise. */
static void swerex__srv_reply_error(swerex__srv_conn *conn, const swerex_error *error) {
  swerex__str body = swerex__str_new(&conn->server->loop->allocator, SIZE_MAX / 2);
  bool invalid = error->code == SWEREX_E_JSON || error->code == SWEREX_E_VALIDATION;
  if (invalid && error->extra_info != NULL)
    swerex__str_puts(&body, error->extra_info);
  else
    swerex__srv_write_error(&body, error);
  if (body.failed) conn->stream.broken = true;
  swerex__srv_reply(conn, invalid ? 422 : 511, "", body.failed ? "" : body.data, body.size);
  swerex__str_clear(&body);
  swerex__srv_end_request(conn);
}

/** A request with a JSON body, or none, is complete: do it. */
static void swerex__srv_run(swerex__srv_conn *conn) {
  static const char missing[] =
    "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\","
    "\"input\":null}]}";
  const swerex__srv_route *route = &swerex__srv_routes[conn->row];
  const swerex_allocator *memory = &conn->server->loop->allocator;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__rt_verb verb = route->verb;
  swerex__json_doc doc;
  memset(&doc, 0, sizeof doc);
  bool json = route->body == SWEREX__SRV_JSON;
  if (json && conn->body.size == 0) {
    swerex__srv_reply(conn, 422, "", missing, sizeof missing - 1);
    swerex__srv_end_request(conn);
    return;
  }
  bool ok = !json || swerex__json_parse(memory, conn->body.data, conn->body.size, &doc, &error);
  if (ok && verb == SWEREX__RT_RUN_IN_SESSION) {
    const swerex__model_variant *variant =
      swerex__model_select(memory, &swerex__model_actions, doc.root, &error);
    ok = variant != NULL;
    if (ok && variant->type == SWEREX_MODEL_BASH_INTERRUPT_ACTION)
      verb = SWEREX__RT_INTERRUPT_SESSION;
  }
  swerex__srv_op *op = ok ? swerex__srv_new_op(conn->server, conn->id) : NULL;
  if (ok && op == NULL) ok = swerex__err_memory(&error);
  if (ok && !swerex__srv_start(conn, op, verb, doc.root, &error)) {
    swerex__srv_free_op(op);
    ok = false;
  }
  swerex__json_free(&doc);
  swerex__str_clear(&conn->body);
  if (ok)
    swerex__srv_join(conn, op);
  else
    swerex__srv_reply_error(conn, &error);
  swerex__err_clear(&error);
}

/** Compare with the token in a time that does not tell how much of it is right. */
static bool swerex__srv_is_token(const char *token, swerex__http_text key) {
  size_t size = strlen(token);
  unsigned difference = size != key.size;
  for (size_t i = 0; i < key.size; i++)
    difference |=
      (unsigned)(unsigned char)key.data[i] ^ (unsigned char)token[size > 0 ? i % size : 0];
  return difference == 0;
}

/** Write a target's path without its query, percent-encodings decoded; false: it is malformed. */
static bool swerex__srv_path(swerex__http_text target, char *path, size_t room) {
  size_t n = 0;
  if (target.size > 7 && memcmp(target.data, "http://", 7) == 0) { /* as sent to a proxy */
    const char *slash = (const char *)memchr(target.data + 7, '/', target.size - 7);
    if (slash == NULL) return false;
    target.size -= (size_t)(slash - target.data);
    target.data = slash;
  }
  for (size_t i = 0; i < target.size && target.data[i] != '?' && target.data[i] != '#'; i++) {
    unsigned code = (unsigned char)target.data[i];
    if (code == '%') {
      char digits[3] = {0, 0, 0};
      char *end = digits;
      if (i + 2 >= target.size) return false;
      memcpy(digits, target.data + i + 1, 2);
      code = (unsigned)strtoul(digits, &end, 16);
      if (end != digits + 2 || digits[0] == '-' || digits[0] == '+' || code == 0) return false;
      i += 2;
    }
    if (n + 1 >= room) break; /* longer than any route */
    path[n++] = (char)code;
  }
  path[n] = '\0';
  return true;
}

/** Find the route; returns the status: 200, 400, 404 or 405, with *allow the method it has. */
static int swerex__srv_find_route(swerex__srv_conn *conn, const char **allow) {
  char path[64];
  int status = 404;
  if (!swerex__srv_path(conn->http.target, path, sizeof path)) return 400;
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__srv_routes); i++) {
    const swerex__srv_route *route = &swerex__srv_routes[i];
    if (strcmp(route->path, path) != 0) continue;
    *allow = route->method;
    conn->row = (int)i;
    status = 405;
    if (conn->http.method.size == strlen(route->method) &&
        memcmp(conn->http.method.data, route->method, conn->http.method.size) == 0)
      return 200;
  }
  return status;
}

/** After a refusal: read on only where the rest of the request is short, so that the next fits. */
static void swerex__srv_refused(swerex__srv_conn *conn) {
  bool body = conn->http.chunked || conn->http.left > 0;
  conn->draining = body;
  if (body && (conn->http.chunked || conn->http.left > SWEREX__SOCK_CHUNK || conn->http.expects))
    conn->last = true;
  conn->busy = false;
}

/** Refuse by the head alone; true: refused. */
static bool swerex__srv_check(swerex__srv_conn *conn) {
  const swerex_server *server = conn->server;
  swerex__http_text key = swerex__http_find(&conn->http, "x-api-key");
  const char *allow = "", *detail = NULL;
  char headers[64] = "";
  int status = 200;
  if (server->token != NULL && key.data == NULL) {
    status = 401;
    detail = "Not authenticated";
    snprintf(headers, sizeof headers, "www-authenticate: APIKey\r\n");
  } else if (server->token != NULL && !swerex__srv_is_token(server->token, key)) {
    status = 401;
    detail = "Invalid API Key";
  } else if ((status = swerex__srv_find_route(conn, &allow)) != 200) {
    detail = swerex__http_phrase(status);
    if (status == 405) snprintf(headers, sizeof headers, "allow: %s\r\n", allow);
  } else if (conn->http.sized && conn->http.left > server->options.max_body &&
             swerex__srv_routes[conn->row].body != SWEREX__SRV_FORM) {
    status = 413;
    detail = "the body is larger than the server's limit";
  }
  if (status == 200) return false;
  swerex__srv_refused(conn);
  swerex__srv_refuse(conn, status, headers, detail);
  swerex__srv_end_request(conn);
  return true;
}

/* --- uploads ------------------------------------------------------------------------------ */

/** Do a bounded part of an upload, and come back for the rest. */
static void swerex__srv_on_step(swerex__loop_timer *timer) {
  swerex__srv_op *op = (swerex__srv_op *)timer->owner;
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__fs_progress progress = swerex__form_step(op->form, &error);
  if (progress == SWEREX__FS_MORE) {
    swerex__loop_arm(op->server->loop, timer, 0, swerex__srv_on_step, op);
    return;
  }
  swerex__form_free(op->form);
  op->form = NULL;
  swerex__srv_end_with(op, progress == SWEREX__FS_DONE ? NULL : &error);
  swerex__err_clear(&error);
}

/** Answer a form that is broken, or lacks something; true: it does. */
static bool swerex__srv_refuse_form(swerex__srv_conn *conn, const swerex__form *form) {
  swerex__str body = swerex__str_new(&conn->server->loop->allocator, 65536);
  bool whole = swerex__multi_complete(&form->multi), bad = swerex__form_describe(form, &body);
  if (body.failed) conn->stream.broken = true;
  if (!whole)
    swerex__srv_refuse(conn, 400, "", form->multi.why != NULL
                                        ? form->multi.why
                                        : "There was an error parsing the body");
  else if (bad && !body.failed)
    swerex__srv_reply(conn, 422, "", body.data, body.size);
  swerex__str_clear(&body);
  if (!whole || bad) swerex__srv_end_request(conn);
  return !whole || bad;
}

/** A form has come: bring its file to its place, step by step. */
static void swerex__srv_run_form(swerex__srv_conn *conn) {
  swerex__form *form = conn->form;
  conn->form = NULL;
  if (swerex__srv_refuse_form(conn, form)) {
    swerex__form_free(form);
    return;
  }
  swerex__srv_op *op = NULL;
  if (form->error.code == SWEREX_E_OK && (op = swerex__srv_new_op(conn->server, conn->id)) == NULL)
    swerex__err_memory(&form->error);
  if (op == NULL) {
    swerex__srv_reply_error(conn, &form->error);
    swerex__form_free(form);
    return;
  }
  swerex__form_finish(form);
  op->form = form;
  swerex__loop_arm(conn->server->loop, &op->step, 0, swerex__srv_on_step, op);
  swerex__srv_join(conn, op);
}

/* --- connections -------------------------------------------------------------------------- */

/** Note what a head says, before it is overwritten. */
static void swerex__srv_on_head(swerex__srv_conn *conn) {
  swerex__http_text id = swerex__http_find(&conn->http, "x-request-id");
  swerex__http_text offset = swerex__http_find(&conn->http, "x-stream-offset");
  swerex__http_text gone = swerex__http_find(&conn->http, "x-on-disconnect");
  swerex__http_text accept = swerex__http_find(&conn->http, "accept");
  conn->head_only = conn->http.method.size == 4 && memcmp(conn->http.method.data, "HEAD", 4) == 0;
  conn->id[0] = '\0';
  conn->cursor = 0;
  conn->busy = true;
  if (swerex__srv_check(conn)) return;
  if (id.size < sizeof conn->id && id.size > 0) {
    memcpy(conn->id, id.data, id.size);
    conn->id[id.size] = '\0';
  }
  swerex__rt_verb verb = swerex__srv_routes[conn->row].verb;
  bool streams = verb == SWEREX__RT_EXECUTE || verb == SWEREX__RT_RUN_IN_SESSION;
  conn->live = streams && conn->http.minor > 0 && accept.data != NULL &&
               swerex__http_lists(accept, SWEREX__SRV_LIVE);
  conn->kill = verb == SWEREX__RT_EXECUTE && gone.data != NULL && swerex__http_is(gone, "kill");
  if (conn->live && offset.data != NULL) swerex__http_number(offset, &conn->cursor);
  conn->busy = false;
  if (swerex__srv_routes[conn->row].body == SWEREX__SRV_FORM) {
    swerex__http_text type = swerex__http_find(&conn->http, "content-type");
    conn->form = swerex__form_new(&conn->server->loop->allocator, type);
    if (conn->form == NULL) conn->stream.broken = true;
  } else if (conn->http.left > 0 && conn->http.left <= SWEREX__SRV_AT_ONCE) {
    swerex__str_reserve(&conn->body, (size_t)conn->http.left); /* a larger one has to show first */
  }
  if (conn->http.expects && (conn->http.chunked || conn->http.left > 0))
    swerex__sock_send(&conn->stream, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

static void swerex__srv_on_body(swerex__srv_conn *conn) {
  const swerex__http *http = &conn->http;
  if (conn->draining) return;
  if (conn->form != NULL) {
    swerex__multi_read(&conn->form->multi, http->piece, http->piece_size);
    return;
  }
  swerex__str_add(&conn->body, http->piece, http->piece_size);
  if (!conn->body.failed) return;
  conn->draining = conn->last = true;
  swerex__srv_refuse(conn, 413, "", "the body is larger than the server's limit");
  swerex__srv_end_request(conn);
}

/** The request is complete: answer it, or find the operation that does. */
static void swerex__srv_on_end(swerex__srv_conn *conn) {
  static const char hello[] = "{\"message\":\"hello world\"}";
  swerex__rt_verb verb = swerex__srv_routes[conn->row].verb;
  if (conn->draining) {
    conn->draining = false;
    swerex__http_restart(&conn->http);
    return;
  }
  conn->busy = true;
  swerex__srv_op *known = swerex__srv_find_op(conn->server, conn->id);
  if (known != NULL) {
    swerex__form_free(conn->form);
    conn->form = NULL;
    swerex__srv_join(conn, known);
  } else if (verb == SWEREX__RT_COUNT) {
    swerex__srv_reply(conn, 200, "", hello, sizeof hello - 1);
    swerex__srv_end_request(conn);
  } else if (conn->form != NULL) {
    swerex__srv_run_form(conn);
  } else {
    swerex__srv_run(conn);
  }
}

/** Refuse what is not HTTP, and say why. */
static void swerex__srv_on_broken(swerex__srv_conn *conn) {
  conn->last = conn->draining = true;
  swerex__srv_refuse(conn, conn->http.fault, "", conn->http.why);
  swerex__srv_end_request(conn);
}

/** Handle bytes until a request is being answered; returns how many. */
static size_t swerex__srv_feed(swerex__srv_conn *conn, const char *data, size_t size) {
  const char *start = data;
  while (!conn->busy && !conn->closed) {
    if (conn->lingering) return (size_t)(data - start) + size;
    switch (swerex__http_read(&conn->http, &data, &size)) {
    case SWEREX__HTTP_HEAD: swerex__srv_on_head(conn); break;
    case SWEREX__HTTP_BODY: swerex__srv_on_body(conn); break;
    case SWEREX__HTTP_END: swerex__srv_on_end(conn); break;
    case SWEREX__HTTP_BROKEN:
      if (!conn->last) swerex__srv_on_broken(conn);
      return (size_t)(data - start) + size;
    default: return (size_t)(data - start);
    }
  }
  return (size_t)(data - start);
}

/** Go on with what came while a request was answered. */
static void swerex__srv_go_on(swerex__srv_conn *conn) {
  while (!conn->closed && !conn->busy && conn->rest.size > 0) {
    size_t used = swerex__srv_feed(conn, conn->rest.data, conn->rest.size);
    swerex__str_drop(&conn->rest, used);
    if (used == 0) break;
  }
  if (conn->closed) return;
  if (!conn->ended && conn->rest.size < SWEREX__SOCK_CHUNK && !conn->stream.reading)
    swerex__sock_set_reading(&conn->stream, true);
  if (conn->ended && !conn->busy && swerex__sock_waiting(&conn->stream) == 0)
    swerex__srv_close_conn(conn);
}

/** The peer sends no more. */
static void swerex__srv_on_eof(swerex__srv_conn *conn) {
  conn->ended = true;
  swerex__sock_set_reading(&conn->stream, false);
  bool waits = conn->busy || swerex__sock_waiting(&conn->stream) > 0;
  if (conn->kill && conn->op != NULL) waits = false;
  if (!waits || conn->stream.broken) swerex__srv_close_conn(conn);
}

/** Watch over the time that a peer takes for what it sends. */
static void swerex__srv_rearm(swerex__srv_conn *conn) {
  if (conn->closed || conn->lingering || conn->op != NULL) return;
  if (conn->http.state == SWEREX__HTTP_IN_HEAD && !swerex__http_is_idle(&conn->http)) {
    if (!conn->in_head) swerex__srv_arm(conn, SWEREX__SRV_HEAD_TIME);
    conn->in_head = true;
  } else {
    bool idle = swerex__http_is_idle(&conn->http) && swerex__sock_waiting(&conn->stream) == 0;
    bool only = conn->server->listener.fd < 0; /* of stdio: it may be idle as long as it lives */
    conn->in_head = false;
    swerex__srv_arm(conn, !idle  ? SWEREX__SRV_STALL_TIME
                          : only ? SWEREX__SRV_NO_TIME
                                 : SWEREX__SRV_IDLE_TIME);
  }
}

static void swerex__srv_on_input(swerex__sock_stream *stream) {
  swerex__srv_conn *conn = (swerex__srv_conn *)stream->owner;
  char data[SWEREX__SOCK_CHUNK];
  for (int i = 0; i < SWEREX__SRV_READS && !conn->closed && stream->reading; i++) {
    ssize_t n = swerex__sock_receive(stream, data, sizeof data);
    if (n < 0) break;
    if (n == 0) {
      swerex__srv_on_eof(conn);
      return;
    }
    size_t used = conn->rest.size > 0 ? 0 : swerex__srv_feed(conn, data, (size_t)n);
    if (conn->closed) return;
    swerex__str_add(&conn->rest, data + used, (size_t)n - used);
    if (conn->rest.size >= SWEREX__SOCK_CHUNK) swerex__sock_set_reading(stream, false);
    swerex__srv_go_on(conn);
    if ((size_t)n < sizeof data) break;
  }
  swerex__srv_rearm(conn);
}

static void swerex__srv_on_room(swerex__sock_stream *stream) {
  swerex__srv_conn *conn = (swerex__srv_conn *)stream->owner;
  if (stream->broken) {
    swerex__srv_close_conn(conn);
    return;
  }
  if (conn->op != NULL) swerex__srv_pump(conn);
  if (!conn->closed && !conn->busy && conn->last && swerex__sock_waiting(stream) == 0)
    swerex__srv_hang_up(conn);
  if (!conn->closed && !conn->busy) swerex__srv_go_on(conn);
}

static void swerex__srv_free_conn(swerex__srv_conn *conn) {
  swerex_server *server = conn->server;
  swerex__srv_close_conn(conn);
  swerex__loop_disarm(server->loop, &conn->timer);
  swerex__loop_link_remove(&conn->link);
  swerex__http_free(&conn->http);
  swerex__str_clear(&conn->rest);
  swerex__str_clear(&conn->body);
  swerex__mem_free(conn);
  server->conn_count--;
}

/** Time is up for what the connection was waiting for, or it is to go on. */
static void swerex__srv_on_timer(swerex__loop_timer *timer) {
  swerex__srv_conn *conn = (swerex__srv_conn *)timer->owner;
  swerex_server *server = conn->server;
  size_t unsent = conn->closed ? 0 : swerex__sock_waiting(&conn->stream);
  double left = conn->due - swerex__util_now();
  if (conn->closed) {
    bool only = server->listener.fd < 0;
    swerex__srv_free_conn(conn);
    if (only) server->done = true; /* the one client has gone */
    swerex__srv_check_idle(server);
  } else if (conn->resume) {
    conn->resume = false;
    swerex__srv_go_on(conn);
    swerex__srv_rearm(conn);
  } else if (left > 0) {
    swerex__loop_arm(server->loop, timer, left, swerex__srv_on_timer, conn);
  } else if (conn->op != NULL && unsent == 0) {
    swerex__srv_send_chunk(conn, "\n", 1); /* still at work */
    swerex__srv_arm(conn, SWEREX__SRV_BEAT_TIME);
  } else if (unsent > 0 && unsent != conn->seen_unsent) {
    swerex__srv_arm(conn, SWEREX__SRV_STALL_TIME);
  } else if (conn->in_head) {
    conn->last = conn->draining = true;
    swerex__srv_refuse(conn, 408, "", "the request took too long to arrive");
    swerex__srv_end_request(conn);
  } else {
    swerex__srv_close_conn(conn);
  }
}

/** Take over a connection (output -1: one descriptor for both ways), or close it. */
static bool swerex__srv_add_conn(swerex_server *server, int input, int output, swerex_error *err) {
  const swerex_allocator *memory = &server->loop->allocator;
  swerex__srv_conn *conn = (swerex__srv_conn *)swerex__mem_new(memory, 1, sizeof *conn);
  if (conn == NULL) {
    close(input);
    return swerex__err_memory(err);
  }
  conn->server = server;
  conn->timer.fire = swerex__srv_on_timer;
  conn->rest = swerex__str_new(memory, SWEREX__SOCK_CHUNK * 2);
  conn->body = swerex__str_new(memory, server->options.max_body);
  swerex__http_init(&conn->http, memory, false);
  swerex__loop_link_insert(&server->conns, &conn->link);
  swerex__loop_disarm(server->loop, &server->idle);
  server->conn_count++;
  conn->stream.on_input = swerex__srv_on_input;
  conn->stream.on_room = swerex__srv_on_room;
  if (!swerex__sock_stream_open(&conn->stream, server->loop, input, output, SIZE_MAX / 2, conn)) {
    swerex__err_system(err, errno, "a connection");
    swerex__srv_free_conn(conn);
    return false;
  }
  swerex__srv_arm(conn, output < 0 ? SWEREX__SRV_HEAD_TIME : SWEREX__SRV_NO_TIME);
  return true;
}

/* --- the server --------------------------------------------------------------------------- */

static void swerex__srv_on_pause(swerex__loop_timer *timer) {
  swerex_server *server = (swerex_server *)timer->owner;
  swerex__poll_set(&server->loop->poll, &server->listener, SWEREX__POLL_READ);
}

static void swerex__srv_on_connection(swerex__poll_watch *watch) {
  swerex_server *server = (swerex_server *)watch->owner;
  for (int i = 0; i < SWEREX__SRV_READS; i++) {
    int fd = accept(watch->fd, NULL, NULL);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (fd < 0) {
      swerex__log(&server->logger, SWEREX_LOG_WARNING, "no new connections for a moment: %s",
                  strerror(errno));
      swerex__poll_set(&server->loop->poll, watch, 0);
      swerex__loop_arm(server->loop, &server->pause, SWEREX__SRV_PAUSE, swerex__srv_on_pause,
                       server);
      return;
    }
    if (swerex__sock_prepare(&fd)) swerex__srv_add_conn(server, fd, -1, NULL);
  }
}

static void swerex__srv_free(swerex_server *server) {
  if (server == NULL) return;
  swerex__loop_link_remove(&server->object.link);
  while (!swerex__loop_link_empty(&server->conns))
    swerex__srv_free_conn((swerex__srv_conn *)server->conns.next);
  while (!swerex__loop_link_empty(&server->ops)) {
    swerex__srv_op *op = (swerex__srv_op *)server->ops.next;
    if (op->future != NULL) op->future->then = NULL;
    swerex__srv_free_op(op);
  }
  swerex__loop_disarm(server->loop, &server->idle);
  swerex__loop_disarm(server->loop, &server->lifetime);
  swerex__loop_disarm(server->loop, &server->pause);
  swerex__poll_drop(&server->loop->poll, &server->listener);
  if (server->unix_path != NULL && server->unix_path[0] != '@') unlink(server->unix_path);
  swerex__rt_free(server->runtime);
  swerex__mem_free(server->token);
  swerex__mem_free(server->address);
  swerex__mem_free(server->unix_path);
  swerex__mem_free(server);
}

static void swerex__srv_destroy(swerex__loop_object *object) {
  swerex__srv_free((swerex_server *)object);
}

/** Listen where the options say, and write the address. */
static bool swerex__srv_listen(swerex_server *server, swerex_error *err) {
  const swerex_server_options *options = &server->options;
  const swerex_allocator *memory = &server->loop->allocator;
  const char *host = options->host != NULL ? options->host : "127.0.0.1";
  char address[SWEREX__SOCK_HOST_MAX + 32];
  bool loopback = true;
  int port = 0;
  if (options->unix_path != NULL) {
    server->listener.fd = swerex__sock_listen_local(options->unix_path, err);
    if (server->listener.fd < 0) return false;
    server->unix_path = swerex__mem_copy(memory, options->unix_path, strlen(options->unix_path));
    snprintf(address, sizeof address, "unix:%s", options->unix_path);
  } else {
    server->listener.fd = swerex__sock_listen(host, options->port, &port, &loopback, err);
    if (server->listener.fd < 0) return false;
    snprintf(address, sizeof address, strchr(host, ':') != NULL ? "http://[%s]:%d" : "http://%s:%d",
             host, port);
  }
  if (!loopback && server->token == NULL && !options->no_auth)
    return swerex__err_set(err, SWEREX_E_VALUE,
                           "%s can be reached from other machines, which could run anything here: "
                           "set an auth token, or no_auth if that is wanted",
                           host);
  server->address = swerex__mem_copy(memory, address, strlen(address));
  server->listener.ready = swerex__srv_on_connection;
  server->listener.owner = server;
  return (server->address != NULL &&
          (options->unix_path == NULL || server->unix_path != NULL)) ||
         swerex__err_memory(err);
}

/** Take what the options point to, and start to serve. */
static bool swerex__srv_open(swerex_server *server, swerex_error *err) {
  const swerex_server_options *options = &server->options;
  const swerex_allocator *memory = &server->loop->allocator;
  if (options->auth_token != NULL && options->auth_token[0] != '\0') {
    server->token = swerex__mem_copy(memory, options->auth_token, strlen(options->auth_token));
    if (server->token == NULL) return swerex__err_memory(err);
  }
  server->runtime = swerex__local_new(server->loop, &options->local, err);
  if (server->runtime == NULL) return false;
  swerex__loop_link_remove(&server->runtime->object.link); /* ours to free */
  if (swerex__local_keep((swerex__local *)server->runtime, err) == NULL) return false;
  if (options->stdio) {
    server->address = swerex__mem_copy(memory, "stdio", 5);
    if (server->address == NULL) return swerex__err_memory(err);
    if (!swerex__sys_prepare_fd(STDIN_FILENO, true) || !swerex__sys_prepare_fd(STDOUT_FILENO, true))
      return swerex__err_system(err, errno, "standard input and output");
    return swerex__srv_add_conn(server, STDIN_FILENO, STDOUT_FILENO, err);
  }
  return swerex__srv_listen(server, err) &&
         (swerex__poll_set(&server->loop->poll, &server->listener, SWEREX__POLL_READ) ||
          swerex__err_system(err, errno, server->address));
}

static swerex_server *swerex__srv_new(swerex_loop *loop, const swerex_server_options *options,
                                      swerex_error *err) {
  static const swerex_server_options none;
  swerex_server *server = (swerex_server *)swerex__mem_new(&loop->allocator, 1, sizeof *server);
  if (server == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  server->loop = loop;
  server->logger = loop->logger;
  server->logger.name = "rex-server";
  server->options = options != NULL ? *options : none;
  if (server->options.max_body == 0) server->options.max_body = SWEREX_MAX_FILE;
  server->listener.fd = -1;
  swerex__loop_link_init(&server->conns);
  swerex__loop_link_init(&server->ops);
  server->object.destroy = swerex__srv_destroy;
  swerex__loop_link_insert(&loop->objects, &server->object.link);
  if (!swerex__srv_open(server, err)) {
    swerex__srv_free(server);
    return NULL;
  }
  if (server->options.max_lifetime > 0)
    swerex__loop_arm(loop, &server->lifetime, server->options.max_lifetime, swerex__srv_on_idle,
                     server);
  swerex__srv_check_idle(server);
  return server;
}

#endif /* SWEREX_NO_SERVER */

/* =============================================================================================
 * [dep] Deployments start and stop in steps
 * ========================================================================================== */
/* A deployment starts and stops what a runtime runs in. What its kind does is a table of steps;
 * the engine here takes them in order, and takes them back in reverse order when one fails, when
 * the start is given up, and when the deployment stops. */

#define SWEREX__DEP_FREE_TIME 60.0 /* for a stop that a free waits for */

typedef struct swerex__dep_step {
  const char *message; /* told to hooks and log when the step begins; NULL: nothing */
  /** Begin. The future that the step waits for; NULL: done if *err is empty, else failed. */
  swerex_future *(*run)(swerex_deployment *deployment, swerex_error *err);
  /** Use the finished future. NULL: a failed one fails the step. */
  bool (*took)(swerex_deployment *deployment, swerex_future *future, swerex_error *err);
  /** Take back what the step has made, or half made. As run. NULL: there is nothing. */
  swerex_future *(*undo)(swerex_deployment *deployment, swerex_error *err);
  bool keep; /* a stop leaves in place what a failed start takes back */
} swerex__dep_step;

typedef struct swerex__dep_kind {
  const char *name; /* "type" in JSON */
  size_t state_size;
  const swerex__dep_step *steps;
  size_t step_count;
  double close_time; /* for the runtime to close, well or not; 0: as long as it takes, and well */
  /** Refuse a configuration when the deployment is made. NULL: none is. */
  bool (*check)(swerex_deployment *deployment, swerex_error *err);
  /** Ask whether what the runtime runs in still runs, before the runtime is asked. NULL: it does */
  swerex_future *(*is_alive)(swerex_deployment *deployment, swerex_error *err);
  /** Free what the state holds. Must not wait. */
  void (*release)(swerex_deployment *deployment);
} swerex__dep_kind;

typedef enum swerex__dep_phase {
  SWEREX__DEP_IDLE,
  SWEREX__DEP_STARTING,
  SWEREX__DEP_STARTED,
  SWEREX__DEP_GIVING_UP, /* what a start has made is taken back */
  SWEREX__DEP_CLOSING,   /* a stop waits for the runtime */
  SWEREX__DEP_STOPPING   /* a stop takes the steps back */
} swerex__dep_phase;

struct swerex_deployment {
  swerex__loop_object object; /* first member */
  swerex_loop *loop;
  const swerex__dep_kind *kind;
  swerex_deployment_config config; /* owned */
  void *state;                     /* the kind's own */
  swerex_runtime *runtime;         /* NULL: none yet */
  swerex_logger logger;
  swerex__dep_phase phase;
  size_t step;            /* under way; while taking back: how many are left */
  swerex_future *waiting; /* what the step, or the runtime's close, waits for */
  swerex_future *caller;  /* ends with the start or stop; NULL: nobody waits */
  swerex__loop_timer timer;
  swerex_error failure; /* the first */
  bool idle;            /* the phase is IDLE */
  bool doomed;          /* freed from a callback: goes when the stop is done */
  swerex__loop_link checks;
  swerex_deployment_hook *hooks;
  size_t hook_count, hook_room;
};

/** Tell hooks and log about a step. */
static void swerex__dep_tell(swerex_deployment *deployment, const char *message) {
  swerex__log(&deployment->logger, SWEREX_LOG_INFO, "%s", message);
  for (size_t i = 0; i < deployment->hook_count; i++)
    deployment->hooks[i].on_custom_step(deployment->hooks[i].user_data, message);
}

/** Keep the first failure; later ones only go to the log. The error is used up. */
static void swerex__dep_note(swerex_deployment *deployment, swerex_error *error) {
  if (deployment->failure.code == SWEREX_E_OK) {
    swerex__err_move(&deployment->failure, error);
    return;
  }
  swerex__log(&deployment->logger, SWEREX_LOG_WARNING, "%s", error->message);
  swerex__err_clear(error);
}

static void swerex__dep_drop_runtime(swerex_deployment *deployment) {
  swerex__rt_free(deployment->runtime);
  deployment->runtime = NULL;
}

/** Make a runtime the deployment's. NULL: it could not be made, *err says why. */
static void swerex__dep_own(swerex_deployment *deployment, swerex_runtime *runtime) {
  deployment->runtime = runtime;
  if (runtime != NULL) swerex__loop_link_remove(&runtime->object.link); /* ours to free */
}

/* --- is_alive ----------------------------------------------------------------------------- */

/** A question to what the runtime runs in, then to the runtime. */
typedef struct swerex__dep_check {
  swerex__loop_link link; /* first member: in the deployment's list */
  swerex_deployment *deployment;
  swerex_future *future, *probe;
  swerex_is_alive_request request;
  bool asked_runtime;
} swerex__dep_check;

static void swerex__dep_free_check(swerex__dep_check *check) {
  swerex__loop_link_remove(&check->link);
  swerex__loop_free_future(check->probe);
  swerex__mem_free(check);
}

static void swerex__dep_cancel_check(swerex_future *future) {
  swerex__dep_free_check((swerex__dep_check *)future->operation);
}

static void swerex__dep_drop_checks(swerex_deployment *deployment) {
  while (!swerex__loop_link_empty(&deployment->checks))
    swerex__loop_cancel(((swerex__dep_check *)deployment->checks.next)->future);
}

/** Give a future the message of an is_alive that says no, and end it. */
static void swerex__dep_deny(swerex_future *future, const char *message) {
  swerex_is_alive_response *response = (swerex_is_alive_response *)future->response;
  response->message.size = strlen(message);
  response->message.data =
    swerex__mem_copy(&future->loop->allocator, message, response->message.size);
  if (response->message.data == NULL) response->message.size = 0;
  swerex__loop_finish(future);
}

static void swerex__dep_on_check(swerex_future *probe, void *user_data);

static void swerex__dep_probe(swerex__dep_check *check, swerex_future *probe) {
  check->probe = probe;
  swerex__loop_hide(probe);
  swerex__loop_then(probe, swerex__dep_on_check, check);
}

static void swerex__dep_on_check(swerex_future *probe, void *user_data) {
  swerex__dep_check *check = (swerex__dep_check *)user_data;
  swerex_deployment *deployment = check->deployment;
  swerex_future *future = check->future;
  swerex_is_alive_response *answer = (swerex_is_alive_response *)probe->response;
  bool yes = probe->ok && answer->is_alive;
  if (yes && !check->asked_runtime && deployment->phase == SWEREX__DEP_STARTED) {
    swerex_future *next =
      swerex__rt_call(deployment->runtime, SWEREX__RT_IS_ALIVE, &check->request, &probe->error);
    if (next != NULL) {
      swerex__loop_free_future(probe);
      check->asked_runtime = true;
      swerex__dep_probe(check, next);
      return;
    }
    probe->ok = false;
  }
  bool ok = probe->ok;
  if (ok) {
    memcpy(future->response, answer, sizeof *answer);
    memset(answer, 0, sizeof *answer);
  } else {
    swerex__err_move(&future->error, &probe->error);
  }
  swerex__dep_free_check(check);
  swerex__loop_end(future, ok);
}

static swerex_future *swerex__dep_is_alive(swerex_deployment *deployment,
                                           const swerex_is_alive_request *request,
                                           swerex_error *err) {
  if (deployment->phase == SWEREX__DEP_STARTED && deployment->kind->is_alive == NULL)
    return swerex__rt_call(deployment->runtime, SWEREX__RT_IS_ALIVE, request, err);
  swerex_future *future = swerex__loop_promise(
    deployment->loop, swerex__model_of(SWEREX_MODEL_IS_ALIVE_RESPONSE), err);
  if (future == NULL) return NULL;
  if (deployment->phase != SWEREX__DEP_STARTED) {
    swerex__dep_deny(future, "Runtime is None.");
    return future;
  }
  swerex__dep_check *check = (swerex__dep_check *)swerex__mem_new(
    &deployment->loop->allocator, 1, sizeof *check);
  swerex_future *probe = NULL;
  if (check == NULL)
    swerex__err_memory(err);
  else
    probe = deployment->kind->is_alive(deployment, err);
  if (probe == NULL) {
    swerex__mem_free(check);
    swerex__loop_free_future(future);
    return NULL;
  }
  check->deployment = deployment;
  check->future = future;
  if (request != NULL) check->request = *request;
  future->operation = check;
  future->cancel = swerex__dep_cancel_check;
  swerex__loop_link_insert(&deployment->checks, &check->link);
  swerex__dep_probe(check, probe);
  return future;
}

/** Free a deployment with which nothing is under way that must be waited for. */
static void swerex__dep_release(swerex_deployment *deployment) {
  swerex_future *caller = deployment->caller;
  deployment->caller = NULL;
  swerex__loop_link_remove(&deployment->object.link);
  swerex__loop_disarm(deployment->loop, &deployment->timer);
  swerex__loop_free_future(deployment->waiting);
  swerex__dep_drop_checks(deployment);
  swerex__dep_drop_runtime(deployment);
  if (deployment->kind->release != NULL && deployment->state != NULL)
    deployment->kind->release(deployment);
  swerex__mem_free(deployment->state);
  swerex__model_clear_deployment(&deployment->config);
  swerex__err_clear(&deployment->failure);
  swerex__mem_free(deployment->hooks);
  swerex__mem_free(deployment);
  if (caller != NULL) {
    caller->cancel = NULL;
    swerex__loop_cancel(caller);
  }
}

/* --- the engine --------------------------------------------------------------------------- */

static void swerex__dep_on_answer(swerex_future *future, void *user_data);

/** Go on when a future is done. */
static void swerex__dep_wait(swerex_deployment *deployment, swerex_future *future) {
  deployment->waiting = future;
  swerex__loop_hide(future);
  swerex__loop_then(future, swerex__dep_on_answer, deployment);
}

/** Nothing is under way any more: tell who waits. */
static void swerex__dep_settle(swerex_deployment *deployment, swerex__dep_phase phase) {
  swerex_future *caller = deployment->caller;
  deployment->phase = phase;
  deployment->idle = phase == SWEREX__DEP_IDLE;
  deployment->caller = NULL;
  if (caller != NULL && deployment->failure.code != SWEREX_E_OK)
    swerex__loop_fail(caller, &deployment->failure);
  else if (caller != NULL)
    swerex__loop_finish(caller);
  swerex__err_clear(&deployment->failure);
  if (deployment->doomed) swerex__dep_release(deployment);
}

/** Take back the steps that are left, last first. */
static void swerex__dep_take_back(swerex_deployment *deployment) {
  while (deployment->step > 0) {
    const swerex__dep_step *step = &deployment->kind->steps[--deployment->step];
    swerex_error error = SWEREX_ERROR_INIT;
    if (step->undo == NULL || (step->keep && deployment->phase == SWEREX__DEP_STOPPING)) continue;
    swerex_future *future = step->undo(deployment, &error);
    if (future != NULL) {
      swerex__dep_wait(deployment, future);
      return;
    }
    if (error.code != SWEREX_E_OK) swerex__dep_note(deployment, &error);
  }
  swerex__dep_settle(deployment, SWEREX__DEP_IDLE);
}

/** End a start that has failed with this error, or that nobody wants any more. */
static void swerex__dep_give_up(swerex_deployment *deployment, swerex_error *error) {
  swerex_future *waiting = deployment->waiting;
  deployment->waiting = NULL;
  deployment->phase = SWEREX__DEP_GIVING_UP;
  deployment->step++; /* the one under way may have done half */
  swerex__dep_note(deployment, error);
  swerex__loop_free_future(waiting);
  swerex__dep_drop_runtime(deployment);
  swerex__dep_take_back(deployment);
}

/** Take the steps from here on. */
static void swerex__dep_advance(swerex_deployment *deployment) {
  while (deployment->step < deployment->kind->step_count) {
    const swerex__dep_step *step = &deployment->kind->steps[deployment->step];
    swerex_error error = SWEREX_ERROR_INIT;
    if (step->message != NULL) swerex__dep_tell(deployment, step->message);
    swerex_future *future = step->run(deployment, &error);
    if (future != NULL) {
      swerex__dep_wait(deployment, future);
      return;
    }
    if (error.code != SWEREX_E_OK) {
      swerex__dep_give_up(deployment, &error);
      return;
    }
    deployment->step++;
  }
  swerex__dep_settle(deployment, SWEREX__DEP_STARTED);
}

/** The runtime is closed, or has not closed in time. */
static void swerex__dep_on_closed(swerex_deployment *deployment) {
  swerex__loop_disarm(deployment->loop, &deployment->timer);
  swerex__dep_drop_runtime(deployment);
  deployment->phase = SWEREX__DEP_STOPPING;
  deployment->step = deployment->kind->step_count;
  swerex__dep_take_back(deployment);
}

/** What a step, an undo or the close has waited for is done. */
static void swerex__dep_on_answer(swerex_future *future, void *user_data) {
  swerex_deployment *deployment = (swerex_deployment *)user_data;
  swerex_error error = SWEREX_ERROR_INIT;
  bool ok = future->ok;
  deployment->waiting = NULL;
  if (deployment->phase == SWEREX__DEP_STARTING &&
      deployment->kind->steps[deployment->step].took != NULL)
    ok = deployment->kind->steps[deployment->step].took(deployment, future, &error);
  else if (!ok)
    swerex__err_move(&error, &future->error);
  swerex__loop_free_future(future);
  if (deployment->phase == SWEREX__DEP_STARTING) {
    if (!ok) {
      swerex__dep_give_up(deployment, &error);
      return;
    }
    deployment->step++;
    swerex__dep_advance(deployment);
    return;
  }
  bool closing = deployment->phase == SWEREX__DEP_CLOSING;
  if (!ok && closing && deployment->kind->close_time > 0) {
    swerex__log(&deployment->logger, SWEREX_LOG_INFO, "%s", error.message); /* it goes anyway */
    swerex__err_clear(&error);
  } else if (!ok) {
    swerex__dep_note(deployment, &error);
  }
  if (closing)
    swerex__dep_on_closed(deployment);
  else
    swerex__dep_take_back(deployment);
}

/* --- start, stop, free -------------------------------------------------------------------- */

static void swerex__dep_cancel_start(swerex_future *future) {
  swerex_deployment *deployment = (swerex_deployment *)future->operation;
  swerex_error error = SWEREX_ERROR_INIT;
  deployment->caller = NULL;
  if (deployment->phase == SWEREX__DEP_STARTING) swerex__dep_give_up(deployment, &error);
}

static void swerex__dep_cancel_stop(swerex_future *future) {
  ((swerex_deployment *)future->operation)->caller = NULL;
}

static void swerex__dep_begin(swerex_deployment *deployment, swerex_future *future,
                              void (*cancel)(swerex_future *)) {
  deployment->caller = future;
  future->operation = deployment;
  future->cancel = cancel;
}

static swerex_future *swerex__dep_start(swerex_deployment *deployment, swerex_error *err) {
  swerex_future *future = swerex__loop_promise(deployment->loop, NULL, err);
  if (future == NULL) return NULL;
  if (deployment->phase == SWEREX__DEP_STARTED) {
    swerex__log(&deployment->logger, SWEREX_LOG_WARNING,
                "the deployment is started already: this start changes nothing");
    swerex__loop_finish(future);
  } else if (!deployment->idle) {
    swerex__loop_fail_with(future, SWEREX_E_DEPLOYMENT_STARTUP, "the deployment is being %s",
                           deployment->phase == SWEREX__DEP_STARTING ? "started already"
                                                                     : "stopped");
  } else {
    swerex__dep_begin(deployment, future, swerex__dep_cancel_start);
    deployment->phase = SWEREX__DEP_STARTING;
    deployment->idle = false;
    deployment->step = 0;
    swerex__dep_advance(deployment);
  }
  return future;
}

static void swerex__dep_on_late_close(swerex__loop_timer *timer) {
  swerex_deployment *deployment = (swerex_deployment *)timer->owner;
  swerex_future *waiting = deployment->waiting;
  swerex__log(&deployment->logger, SWEREX_LOG_WARNING,
              "the runtime did not close within %gs: going on without it",
              deployment->kind->close_time);
  deployment->waiting = NULL;
  swerex__loop_free_future(waiting);
  swerex__dep_on_closed(deployment);
}

/** Close the runtime of a started deployment. */
static void swerex__dep_close(swerex_deployment *deployment) {
  swerex_error error = SWEREX_ERROR_INIT;
  swerex__dep_tell(deployment, "Stopping runtime");
  deployment->phase = SWEREX__DEP_CLOSING;
  swerex_future *closing = swerex__rt_call(deployment->runtime, SWEREX__RT_CLOSE, NULL, &error);
  if (closing == NULL) {
    swerex__dep_note(deployment, &error);
    swerex__dep_on_closed(deployment);
    return;
  }
  swerex__dep_wait(deployment, closing);
  if (deployment->kind->close_time > 0)
    swerex__loop_arm(deployment->loop, &deployment->timer, deployment->kind->close_time,
                     swerex__dep_on_late_close, deployment);
}

/** Stop, or have a start given up; `future` may be NULL. */
static void swerex__dep_begin_stop(swerex_deployment *deployment, swerex_future *future) {
  swerex_future *starting = deployment->caller;
  if (future != NULL) swerex__dep_begin(deployment, future, swerex__dep_cancel_stop);
  if (deployment->phase == SWEREX__DEP_STARTED) {
    swerex__dep_close(deployment);
  } else if (deployment->phase == SWEREX__DEP_STARTING) {
    swerex_error error = SWEREX_ERROR_INIT;
    if (future == NULL) deployment->caller = NULL;
    if (starting != NULL)
      swerex__loop_fail_with(starting, SWEREX_E_DEPLOYMENT_STARTUP,
                             "the deployment was stopped while it was starting");
    swerex__dep_give_up(deployment, &error);
  }
}

static swerex_future *swerex__dep_stop(swerex_deployment *deployment, swerex_error *err) {
  swerex_future *future = swerex__loop_promise(deployment->loop, NULL, err);
  if (future == NULL) return NULL;
  if (deployment->idle)
    swerex__loop_finish(future);
  else if (deployment->caller != NULL && deployment->phase != SWEREX__DEP_STARTING)
    swerex__loop_fail_with(future, SWEREX_E_RUNTIME, "the deployment is being stopped already");
  else
    swerex__dep_begin_stop(deployment, future);
  return future;
}

/** Tell whether there may be something that only a stop takes back. */
static bool swerex__dep_holds(const swerex_deployment *deployment) {
  for (size_t i = 0; i < deployment->kind->step_count; i++)
    if (deployment->kind->steps[i].undo != NULL) return !deployment->idle;
  return false;
}

static void swerex__dep_free(swerex_deployment *deployment) {
  if (deployment == NULL) return;
  if (swerex__dep_holds(deployment)) {
    swerex_loop *loop = deployment->loop;
    deployment->doomed = loop->running;
    swerex__dep_begin_stop(deployment, NULL);
    if (loop->running) return; /* a callback cannot wait: it goes when the stop is done */
    swerex__loop_run_until(loop, &deployment->idle, SWEREX__DEP_FREE_TIME, NULL);
  }
  swerex__dep_release(deployment);
}

static void swerex__dep_destroy(swerex__loop_object *object) {
  swerex_deployment *deployment = (swerex_deployment *)object;
  deployment->doomed = false;
  swerex__dep_free(deployment);
}

/* --- making one --------------------------------------------------------------------------- */

static swerex_deployment *swerex__dep_new(swerex_loop *loop, const swerex__dep_kind *kind,
                                          const swerex_deployment_config *config,
                                          swerex_error *err) {
  swerex_deployment *deployment =
    (swerex_deployment *)swerex__mem_new(&loop->allocator, 1, sizeof *deployment);
  if (deployment == NULL) {
    swerex__err_memory(err);
    return NULL;
  }
  deployment->loop = loop;
  deployment->kind = kind;
  deployment->idle = true;
  deployment->logger = loop->logger;
  deployment->logger.name = "rex-deploy";
  deployment->object.destroy = swerex__dep_destroy;
  swerex__loop_link_init(&deployment->checks);
  swerex__loop_link_insert(&loop->objects, &deployment->object.link);
  if (kind->state_size > 0)
    deployment->state = swerex__mem_new(&loop->allocator, 1, kind->state_size);
  if (kind->state_size > 0 && deployment->state == NULL)
    swerex__err_memory(err);
  else if (swerex__model_copy_deployment(&loop->allocator, config, &deployment->config, err) &&
           (kind->check == NULL || kind->check(deployment, err)))
    return deployment;
  swerex__dep_release(deployment);
  return NULL;
}

static bool swerex__dep_add_hook(swerex_deployment *deployment, swerex_deployment_hook hook,
                                 swerex_error *err) {
  void *hooks = deployment->hooks;
  if (hook.on_custom_step == NULL)
    return swerex__err_set(err, SWEREX_E_VALUE, "on_custom_step is NULL");
  if (!swerex__mem_reserve(&deployment->loop->allocator, &hooks, &deployment->hook_room,
                           deployment->hook_count, sizeof hook))
    return swerex__err_memory(err);
  deployment->hooks = (swerex_deployment_hook *)hooks;
  deployment->hooks[deployment->hook_count++] = hook;
  return true;
}

#ifndef SWEREX_NO_DOCKER

/* =============================================================================================
 * [elf] The static server, found and packed
 * ========================================================================================== */
/* What goes into an image is one static binary, swerex-remote. It is looked for in the given place,
 * in SWEREX_REMOTE_BINARY, beside the running program and on PATH, for the processor asked for. */

typedef struct swerex__elf_machine {
  const char *names[3]; /* of images, then our own suffix */
  int number;           /* e_machine */
} swerex__elf_machine;

static const swerex__elf_machine swerex__elf_machines[] = {
  {{"amd64", "x86_64", "x86_64"}, 62},
  {{"arm64", "aarch64", "aarch64"}, 183},
};

/** Find a processor by its name; NULL: not known. */
static const swerex__elf_machine *swerex__elf_find_machine(const char *name) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(swerex__elf_machines); i++)
    for (size_t k = 0; k < 2; k++)
      if (strcmp(name, swerex__elf_machines[i].names[k]) == 0) return &swerex__elf_machines[i];
  return NULL;
}

/** Say why a file is no static binary for a processor; NULL: it is one. */
static const char *swerex__elf_fault(const char *path, const swerex__elf_machine *machine) {
  static const unsigned char sign[6] = {0x7F, 'E', 'L', 'F', 2, 1}; /* 64 bits, little endian */
  unsigned char head[4096];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  ssize_t size = read(fd, head, sizeof head);
  close(fd);
  if (size < 64 || memcmp(head, sign, sizeof sign) != 0) return "it is not a 64-bit ELF program";
  if ((head[18] | head[19] << 8) != machine->number) return "it is for another processor";
  size_t at = (size_t)(head[32] | head[33] << 8), each = (size_t)(head[54] | head[55] << 8);
  for (int left = head[56] | head[57] << 8; left > 0; left--, at += each) {
    if (at + 4 > (size_t)size) return "its program headers are out of reach";
    if (head[at] == 3 && (head[at + 1] | head[at + 2] | head[at + 3]) == 0)
      return "it is not static: it asks for a loader that the image may not have";
  }
  return NULL;
}

/** Try FOLDER/swerex-remote-CPU and FOLDER/swerex-remote. */
static bool swerex__elf_try_folder(const char *folder, size_t size,
                                   const swerex__elf_machine *machine, char path[PATH_MAX]) {
  const char *const suffixes[] = {"-", ""};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(suffixes); i++) {
    int n = snprintf(path, PATH_MAX, "%.*s/swerex-remote%s%s", (int)size, folder, suffixes[i],
                     i == 0 ? machine->names[2] : "");
    if (n > 0 && n < PATH_MAX && swerex__elf_fault(path, machine) == NULL) return true;
  }
  return false;
}

/** Use a place that was named: a file, or that with the processor behind it. */
static bool swerex__elf_use(const char *given, const char *by, const swerex__elf_machine *machine,
                            char path[PATH_MAX], swerex_error *err) {
  const char *fault = swerex__elf_fault(given, machine);
  int n = snprintf(path, PATH_MAX, "%s", given);
  if (n > 0 && n < PATH_MAX && fault == NULL) return true;
  n = snprintf(path, PATH_MAX, "%s-%s", given, machine->names[2]);
  if (n > 0 && n < PATH_MAX && swerex__elf_fault(path, machine) == NULL) return true;
  return swerex__err_set(err, SWEREX_E_DEPLOYMENT_STARTUP,
                         "%s %s cannot serve in an image for %s: %s; build it with "
                         "`make -C tools static`",
                         by, given, machine->names[0], fault != NULL ? fault : "too long a path");
}

/** Find a static server. path "": there is none. False: one was named, and it is not fit. */
static bool swerex__elf_find(const char *given, const swerex__elf_machine *machine,
                             char path[PATH_MAX], swerex_error *err) {
  const char *named = getenv("SWEREX_REMOTE_BINARY"), *folders = getenv("PATH");
  if (given != NULL && given[0] != '\0')
    return swerex__elf_use(given, "remote_binary", machine, path, err);
  if (named != NULL && named[0] != '\0')
    return swerex__elf_use(named, "SWEREX_REMOTE_BINARY", machine, path, err);
  char self[PATH_MAX];
  ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
  while (size > 0 && self[size - 1] != '/') size--;
  if (size > 0 && swerex__elf_try_folder(self, (size_t)size - 1, machine, path)) return true;
  while (folders != NULL && *folders != '\0') {
    size_t length = strcspn(folders, ":");
    if (length > 0 && swerex__elf_try_folder(folders, length, machine, path)) return true;
    folders += length + (folders[length] == ':');
  }
  path[0] = '\0';
  return true;
}

/** Write the header of one file or folder of a tar archive. */
static void swerex__elf_add_header(swerex__str *tar, const char *name, char type, size_t size) {
  char head[512];
  unsigned sum = 0;
  memset(head, 0, sizeof head);
  snprintf(head, 100, "%s", name);
  snprintf(head + 100, 8, "%07o", 0755U);
  snprintf(head + 108, 8, "%07o", 0U);
  snprintf(head + 116, 8, "%07o", 0U);
  snprintf(head + 124, 12, "%011lo", (unsigned long)size);
  snprintf(head + 136, 12, "%011o", 0U);
  memset(head + 148, ' ', 8);
  head[156] = type;
  memcpy(head + 257, "ustar\0" "00", 8);
  for (size_t i = 0; i < sizeof head; i++) sum += (unsigned char)head[i];
  snprintf(head + 148, 8, "%06o", sum);
  swerex__str_add(tar, head, sizeof head);
}

/** Pack a program as the file `name` of a tar archive: an open descriptor, or -1. */
static int swerex__elf_pack(const swerex_allocator *memory, const char *path, const char *name,
                            swerex_error *err) {
  static const char nothing[1024];
  char scratch[PATH_MAX];
  struct stat info;
  swerex__str tar = swerex__str_new(memory, 1 << 28);
  int out = -1, fd = open(path, O_RDONLY | O_CLOEXEC);
  bool ok = fd >= 0 && fstat(fd, &info) == 0 && info.st_size < 1 << 27;
  size_t size = ok ? (size_t)info.st_size : 0;
  if (ok) swerex__elf_add_header(&tar, name, '0', size);
  for (size_t got = 0; ok && got < size;) {
    char *into = swerex__str_reserve(&tar, size - got);
    ssize_t n = into == NULL ? -1 : read(fd, into, size - got);
    ok = n > 0;
    if (!ok) break;
    tar.size += (size_t)n;
    got += (size_t)n;
  }
  swerex__str_add(&tar, nothing, (512 - size % 512) % 512);
  swerex__str_add(&tar, nothing, sizeof nothing);
  if (ok && !tar.failed) out = swerex__sys_open_scratch(scratch, sizeof scratch);
  if (out >= 0 && strncmp(scratch, "/proc/", 6) != 0) unlink(scratch);
  if (out >= 0 && (!swerex__sys_write_all(out, tar.data, tar.size) || lseek(out, 0, SEEK_SET) != 0))
    swerex__sys_close(&out);
  if (out < 0) swerex__err_system(err, errno, path);
  swerex__sys_close(&fd);
  swerex__str_clear(&tar);
  return out;
}

/* =============================================================================================
 * [docker] Docker and Podman
 * ========================================================================================== */
/* A container is made, given the static server, and started with its output attached: the server's
 * line "listening" says that it is ready, the end of that output that it has ended. The engine is
 * its command line, started without a shell. With the transport "stdio" no port is published: each
 * connection is an `exec` in the container, which joins its stdin and stdout to the server's local
 * socket. */

#define SWEREX__DOCKER_PORT 8000
#define SWEREX__DOCKER_TAIL 16384     /* kept of the container's output */
#define SWEREX__DOCKER_LINE 4096
#define SWEREX__DOCKER_TIMEOUT 180.0
#define SWEREX__DOCKER_STOP_TIME 30.0 /* for each command of a stop */
#define SWEREX__DOCKER_PULL_TIME 86400.0
#define SWEREX__DOCKER_CLOSE_TIME 5.0
#define SWEREX__DOCKER_ASK_PAUSE 0.05 /* before the port of what starts is asked for */

typedef struct swerex__docker {
  swerex__keep *keep; /* above all its processes */
  char name[128];     /* of the container */
  char id[80];        /* "": not made yet */
  bool named;         /* by the user: it may be another's container */
  char token[40];
  char platform[64];
  char arch[72];         /* of the image; "": not known */
  char guess[72];        /* the same, before it was looked at */
  char binary[PATH_MAX]; /* "": the image has a server of its own */
  char inside[32];       /* where it is in the container */
  bool missing, host_network, read_only, listening;
  int port;
  swerex_future *creating; /* begun while the image is looked at; NULL: not begun, or taken */
  swerex_future *asking;   /* for the port, while the container starts */
  swerex__loop_timer ask;
  swerex__proc *attached; /* the container's output */
  swerex_future *ready;   /* pending until the server listens */
  swerex__loop_timer deadline;
  char line[2][SWEREX__DOCKER_LINE]; /* of stdout and stderr, so far */
  size_t line_size[2];
  bool exited;
  int exit_code;
  swerex_bytes output; /* of a container that has ended */
  swerex__loop_link relays;
} swerex__docker;

static swerex__docker *swerex__docker_of(const swerex_deployment *deployment) {
  return (swerex__docker *)deployment->state;
}

static const swerex_docker_config *swerex__docker_config(const swerex_deployment *deployment) {
  return &deployment->config.u.docker;
}

static const char *swerex__docker_program(const swerex_deployment *deployment) {
  bool podman = swerex__docker_config(deployment)->container_runtime == SWEREX_CONTAINER_PODMAN;
  return podman ? "podman" : "docker";
}

static const char *swerex__docker_image(const swerex_deployment *deployment) {
  const char *image = swerex__docker_config(deployment)->image;
  return image == NULL ? "python:3.11" : image;
}

static double swerex__docker_limit(const swerex_deployment *deployment) {
  double seconds = swerex__docker_config(deployment)->startup_timeout;
  return seconds == 0 ? SWEREX__DOCKER_TIMEOUT : seconds;
}

/* --- arguments ---------------------------------------------------------------------------- */

/** An argument vector that grows; it borrows its texts. */
typedef struct swerex__docker_argv {
  const swerex_allocator *memory;
  void *list; /* const char ** */
  size_t count, room;
  bool failed;
} swerex__docker_argv;

static void swerex__docker_add(swerex__docker_argv *argv, const char *text) {
  argv->failed = argv->failed ||
                 !swerex__mem_reserve(argv->memory, &argv->list, &argv->room, argv->count,
                                      sizeof(const char *));
  if (!argv->failed) ((const char **)argv->list)[argv->count++] = text;
}

/** Begin with the engine's program and the words up to NULL. */
static swerex__docker_argv swerex__docker_words(const swerex_deployment *deployment,
                                                const char *const *words) {
  swerex__docker_argv argv = {&deployment->loop->allocator, NULL, 0, 0, false};
  swerex__docker_add(&argv, swerex__docker_program(deployment));
  for (; *words != NULL; words++) swerex__docker_add(&argv, *words);
  return argv;
}

/** Tell whether an argument is an option, alone or with "=VALUE", whose text is then *value. */
static bool swerex__docker_is(const char *argument, const char *option, const char **value) {
  size_t size = strlen(option);
  if (strncmp(argument, option, size) != 0) return false;
  *value = argument[size] == '=' ? argument + size + 1 : NULL;
  return argument[size] == '=' || argument[size] == '\0';
}

/** Find an option in docker_args; NULL: it is not there, "": it has no value. */
static const char *swerex__docker_option(const swerex_deployment *deployment, const char *option) {
  const char *const *args = swerex__docker_config(deployment)->docker_args;
  const char *value;
  for (; args != NULL && *args != NULL; args++) {
    if (!swerex__docker_is(*args, option, &value)) continue;
    return value != NULL ? value : args[1] != NULL ? args[1] : "";
  }
  return NULL;
}

/* --- the engine's answers ----------------------------------------------------------------- */

typedef struct swerex__docker_advice {
  const char *words, *advice;
} swerex__docker_advice;

/** What engines say, and what to do about it. */
static const swerex__docker_advice swerex__docker_advices[] = {
  {"permission denied while trying to connect",
   "this user may not use the engine's socket: add it to the group docker, or use sudo or podman"},
  {"dial unix", "is the engine running? Start it, or set DOCKER_HOST"},
  {"Cannot connect to", "is the engine running? Start it, or set DOCKER_HOST"},
  {"port is already allocated", "choose another port, or leave it out for a free one"},
  {"address already in use", "choose another port, or leave it out for a free one"},
  {"is already in use by", "remove that container, or leave --name out"},
  {"exec format error", "the image is for another processor: set platform, or install QEMU"},
  {"read-only", "give the container a writable place, such as --tmpfs /tmp"},
};

/** Remove blanks at the end of what a program said. */
static int swerex__docker_trim(const swerex_bytes *text) {
  size_t size = text->size;
  while (size > 0 && strchr(" \r\n\t", text->data[size - 1]) != NULL) size--;
  return (int)(size < 4000 ? size : 4000);
}

/** Say what failed, in the engine's words, and what to do. False, always. */
static bool swerex__docker_fail(swerex_error *err, swerex_code code, const char *what,
                                const swerex_bytes *said) {
  const char *advice = NULL, *text = said->data == NULL ? "" : said->data;
  for (size_t i = 0; advice == NULL && i < SWEREX__SYS_COUNT(swerex__docker_advices); i++)
    if (strstr(text, swerex__docker_advices[i].words) != NULL)
      advice = swerex__docker_advices[i].advice;
  return swerex__err_set(err, code, "%s: %.*s%s%s", what, swerex__docker_trim(said), text,
                         advice != NULL ? " - " : "", advice != NULL ? advice : "");
}

/* --- commands of the engine --------------------------------------------------------------- */

/** A command of the engine under way. */
typedef struct swerex__docker_job {
  swerex_future *future; /* its response: swerex_command_response */
  swerex__proc *proc;
  const char *program;
  char what[32];    /* its first words */
  const char *fine; /* said by a failure that is none; NULL: look at no failure */
  double timeout;
} swerex__docker_job;

static void swerex__docker_free_job(swerex__docker_job *job) {
  swerex__proc_free(job->proc);
  swerex__mem_free(job);
}

static void swerex__docker_cancel_job(swerex_future *future) {
  swerex__docker_free_job((swerex__docker_job *)future->operation);
}

/** Say why a command did not come to an end of its own. */
static void swerex__docker_set_broken(const swerex__docker_job *job, swerex_error *error) {
  if (job->proc->end == SWEREX__PROC_NOT_STARTED && job->proc->failed_errno == ENOENT)
    swerex__err_set(error, SWEREX_E_DEPLOYMENT_STARTUP,
                    "there is no `%s` on PATH: install it, or set container_runtime to the engine "
                    "that is there",
                    job->program);
  else if (job->proc->end == SWEREX__PROC_NOT_STARTED)
    swerex__err_system(error, job->proc->failed_errno, job->program);
  else if (job->proc->end == SWEREX__PROC_BROKEN)
    swerex__err_move(error, &job->proc->error);
  else
    swerex__err_set(error, SWEREX_E_DEPLOYMENT_STARTUP, "%s: no answer from the engine within %gs",
                    job->what, job->timeout);
}

static void swerex__docker_on_ran(swerex__proc *proc) {
  swerex__docker_job *job = (swerex__docker_job *)proc->owner;
  swerex_future *future = job->future;
  swerex_command_response *response = (swerex_command_response *)future->response;
  swerex_error error = SWEREX_ERROR_INIT;
  bool ok = proc->end == SWEREX__PROC_EXITED;
  if (!ok) swerex__docker_set_broken(job, &error);
  ok = ok && swerex__text_keep_take(&proc->pipes[0].keep, &response->stdout_text, &error) &&
       swerex__text_keep_take(&proc->pipes[1].keep, &response->stderr_text, &error);
  response->exit_code = swerex__proc_exit_code(proc->status);
  if (ok && job->fine != NULL && response->exit_code != 0 &&
      (job->fine[0] == '\0' || strstr(response->stderr_text.data, job->fine) == NULL))
    ok = swerex__docker_fail(&error, SWEREX_E_DEPLOYMENT_STARTUP, job->what,
                             &response->stderr_text);
  swerex__docker_free_job(job);
  if (ok)
    swerex__loop_finish(future);
  else
    swerex__loop_fail(future, &error);
}

typedef struct swerex__docker_call {
  double timeout;
  const char *fine; /* see swerex__docker_job */
  int input;        /* -1: nothing */
  const char *const *env;
  swerex_output_watch watch;
} swerex__docker_call;

/** Start a command of the engine; argv is used up. */
static swerex_future *swerex__docker_run(swerex_deployment *deployment, swerex__docker_argv *argv,
                                         const swerex__docker_call *call, swerex_error *err) {
  swerex_loop *loop = deployment->loop;
  swerex__proc_spec spec;
  swerex__docker_add(argv, NULL);
  swerex_future *future =
    swerex__loop_promise(loop, swerex__model_of(SWEREX_MODEL_COMMAND_RESPONSE), err);
  swerex__docker_job *job =
    (swerex__docker_job *)swerex__mem_new(&loop->allocator, 1, sizeof *job);
  memset(&spec, 0, sizeof spec);
  if (future == NULL || job == NULL || argv->failed) {
    swerex__err_memory(err);
  } else {
    const char *const *words = (const char *const *)argv->list;
    spec.argv = words;
    spec.env = call->env;
    spec.input = call->input;
    spec.timeout = job->timeout = call->timeout;
    spec.idle_timeout = SWEREX_FOREVER;
    spec.max_output = 1 << 20;
    spec.watch = call->watch;
    job->future = future;
    job->program = swerex__docker_program(deployment);
    job->fine = call->fine;
    snprintf(job->what, sizeof job->what, "%s %s", words[0], words[1]);
    job->proc = swerex__proc_start(loop, swerex__docker_of(deployment)->keep, &spec,
                                   swerex__docker_on_ran, job, err);
  }
  swerex__mem_free(argv->list);
  if (job != NULL && job->proc != NULL) {
    future->operation = job;
    future->cancel = swerex__docker_cancel_job;
    return future;
  }
  swerex__mem_free(job);
  swerex__loop_free_future(future);
  return NULL;
}

static const swerex_command_response *swerex__docker_answer(const swerex_future *future) {
  return (const swerex_command_response *)future->response;
}

/* --- the image ---------------------------------------------------------------------------- */

/** Forget the container of a start before this one. */
static void swerex__docker_reset(swerex_deployment *deployment) {
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex__loop_disarm(deployment->loop, &docker->ask);
  swerex__loop_free_future(docker->creating);
  swerex__loop_free_future(docker->asking);
  docker->creating = docker->asking = NULL;
  swerex__proc_free(docker->attached);
  swerex__mem_free(docker->output.data);
  docker->attached = NULL;
  docker->output.data = NULL;
  docker->output.size = 0;
  docker->exited = docker->missing = docker->listening = false;
  docker->id[0] = docker->arch[0] = docker->binary[0] = '\0';
  docker->line_size[0] = docker->line_size[1] = 0;
  docker->port = swerex__docker_config(deployment)->port;
}

/** Make up a name as the original does: of the image's, and a random part. */
static bool swerex__docker_make_names(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  static const char letters[] =
    "-_.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  unsigned char bytes[32];
  size_t size = 0;
  const char *given = swerex__docker_option(deployment, "--name");
  if (!swerex__util_random(bytes, sizeof bytes))
    return swerex__err_system(err, errno, "/dev/urandom");
  for (size_t i = 0; i < 16; i++)
    snprintf(docker->token + 2 * i, 3, "%02x", bytes[i]);
  docker->named = given != NULL;
  if (given != NULL) {
    snprintf(docker->name, sizeof docker->name, "%s", given);
    return true;
  }
  for (const char *c = swerex__docker_image(deployment); *c != '\0' && size < 60; c++)
    if (strchr(size > 0 ? letters : letters + 3, *c) != NULL) docker->name[size++] = *c;
  for (size_t i = 16; i < 32; i++)
    size += (size_t)snprintf(docker->name + size, 4, i == 16 ? "-%02x" : "%02x", bytes[i]);
  return true;
}

static swerex_future *swerex__docker_inspect(swerex_deployment *deployment, swerex_error *err) {
  const char *const words[] = {"image", "inspect", "--format", "{{.Architecture}}",
                               swerex__docker_image(deployment), NULL};
  swerex__docker_call call = {swerex__docker_limit(deployment), NULL, -1, NULL,
                              {NULL, NULL, false}};
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  return swerex__docker_run(deployment, &argv, &call, err);
}

/** Take the architecture of the image, or learn that the image is not here. */
static bool swerex__docker_looked(swerex_deployment *deployment, swerex_future *future,
                                  swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_command_response *ran = swerex__docker_answer(future);
  if (!future->ok) return swerex__err_move(err, &future->error);
  if (ran->exit_code == 0) {
    snprintf(docker->arch, sizeof docker->arch, "%.*s", swerex__docker_trim(&ran->stdout_text),
             ran->stdout_text.data);
    return true;
  }
  if (strstr(ran->stderr_text.data, "o such image") == NULL &&
      strstr(ran->stderr_text.data, "image not known") == NULL &&
      strstr(ran->stderr_text.data, "failed to find image") == NULL)
    return swerex__docker_fail(err, SWEREX_E_DEPLOYMENT_STARTUP,
                               swerex__docker_program(deployment), &ran->stderr_text);
  docker->missing = true;
  if (swerex__docker_config(deployment)->pull != SWEREX_PULL_NEVER) return true;
  return swerex__err_set(err, SWEREX_E_DOCKER_PULL,
                         "image %s is not here, and pull is \"never\": pull it, or set pull to "
                         "\"missing\"",
                         swerex__docker_image(deployment));
}

/** Hand the lines of a pull on to hooks and log. */
static void swerex__docker_on_pull(void *user_data, swerex_stream stream, const char *text,
                                   size_t size) {
  swerex_deployment *deployment = (swerex_deployment *)user_data;
  (void)stream;
  while (size > 0) {
    const char *end = (const char *)memchr(text, '\n', size);
    size_t length = end == NULL ? size : (size_t)(end - text);
    char line[256];
    snprintf(line, sizeof line, "Pulling: %.*s", (int)(length < 200 ? length : 200), text);
    if (length > 0) swerex__dep_tell(deployment, line);
    if (end == NULL) return;
    text += length + 1;
    size -= length + 1;
  }
}

static swerex_future *swerex__docker_pull(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const char *const words[] = {"pull", NULL};
  swerex__docker_call call = {SWEREX__DOCKER_PULL_TIME, NULL, -1, NULL,
                              {swerex__docker_on_pull, deployment, false}};
  if (!docker->missing && swerex__docker_config(deployment)->pull != SWEREX_PULL_ALWAYS)
    return NULL;
  swerex__dep_tell(deployment, "Pulling container image");
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  if (docker->platform[0] != '\0') swerex__docker_add(&argv, "--platform");
  if (docker->platform[0] != '\0') swerex__docker_add(&argv, docker->platform);
  swerex__docker_add(&argv, swerex__docker_image(deployment));
  docker->arch[0] = '\0';
  return swerex__docker_run(deployment, &argv, &call, err);
}

static bool swerex__docker_pulled(swerex_deployment *deployment, swerex_future *future,
                                  swerex_error *err) {
  char what[300];
  if (!future->ok) return swerex__err_move(err, &future->error);
  if (swerex__docker_answer(future)->exit_code == 0) return true;
  snprintf(what, sizeof what, "Failed to pull image %.250s", swerex__docker_image(deployment));
  return swerex__docker_fail(err, SWEREX_E_DOCKER_PULL, what,
                             &swerex__docker_answer(future)->stderr_text);
}

/** Remove the image, where that is asked for. */
static swerex_future *swerex__docker_remove_image(swerex_deployment *deployment,
                                                  swerex_error *err) {
  const char *const words[] = {"rmi", swerex__docker_image(deployment), NULL};
  swerex__docker_call call = {SWEREX__DOCKER_STOP_TIME, "o such image", -1, NULL,
                              {NULL, NULL, false}};
  if (!swerex__docker_config(deployment)->remove_images) return NULL;
  if (swerex__docker_of(deployment)->keep == NULL) return NULL;
  swerex__dep_tell(deployment, "Removing image");
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  return swerex__docker_run(deployment, &argv, &call, err);
}

/* --- the container ------------------------------------------------------------------------ */

static swerex_future *swerex__docker_look_again(swerex_deployment *deployment, swerex_error *err) {
  bool known = swerex__docker_of(deployment)->arch[0] != '\0';
  return known ? NULL : swerex__docker_inspect(deployment, err);
}

/** Find the binary for the image. */
static bool swerex__docker_choose(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_docker_config *config = swerex__docker_config(deployment);
  const char *arch = docker->arch;
  const swerex__elf_machine *machine = swerex__elf_find_machine(arch);
  if (machine != NULL && !swerex__elf_find(config->remote_binary, machine, docker->binary, err))
    return false;
  if (docker->binary[0] != '\0') return true;
  if (config->transport == SWEREX_TRANSPORT_STDIO)
    return swerex__err_set(err, SWEREX_E_DEPLOYMENT_STARTUP,
                           "the transport \"stdio\" needs a static swerex-remote for %s: set "
                           "remote_binary, or build it with `make -C tools static`",
                           arch);
  swerex__log(&deployment->logger, SWEREX_LOG_WARNING,
              "no static swerex-remote for %s is here (see remote_binary): counting on the one in "
              "the image, or on pipx there",
              arch);
  return true;
}

/** A label by which a container's owner is found: machine, process, and when that began. */
static void swerex__docker_owner(long pid, char *label, size_t room) {
  char host[256] = "", text[1024], start[32] = "0";
  snprintf(text, sizeof text, "/proc/%ld/stat", pid);
  int fd = open(text, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  swerex__sys_close(&fd);
  gethostname(host, sizeof host - 1);
  text[n > 0 ? n : 0] = '\0';
  const char *at = strrchr(text, ')'); /* the name may hold blanks; field 22 is the 20th behind */
  for (int field = 0; at != NULL && field < 20; field++) at = strchr(at + 1, ' ');
  if (at != NULL) snprintf(start, sizeof start, "%.*s", (int)strcspn(at + 1, " "), at + 1);
  snprintf(label, room, "swerex.owner=%s/%ld/%s", host, pid, start);
}

/** Add docker_args, without what goes elsewhere. */
static void swerex__docker_add_users(const swerex_deployment *deployment,
                                     swerex__docker_argv *argv) {
  static const char *const ours[] = {"--platform", "--name", "-d", "--detach", "--rm"};
  const char *const *args = swerex__docker_config(deployment)->docker_args;
  const char *value = NULL;
  for (; args != NULL && *args != NULL; args++) {
    size_t i = 0;
    while (i < SWEREX__SYS_COUNT(ours) && !swerex__docker_is(*args, ours[i], &value)) i++;
    if (i == SWEREX__SYS_COUNT(ours))
      swerex__docker_add(argv, *args);
    else if (i < 2 && value == NULL && args[1] != NULL)
      args++; /* its value */
  }
}

/** The program that the container runs, behind the image's name. */
static void swerex__docker_add_command(swerex_deployment *deployment, swerex__docker_argv *argv,
                                       char *address, size_t room) {
  static const char *const sh[] = {"/bin/sh", "-c", NULL};
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_docker_config *config = swerex__docker_config(deployment);
  bool own = swerex__docker_option(deployment, "--entrypoint") != NULL;
  bool shell = docker->binary[0] == '\0';
  const char *const *exec = config->exec_shell;
  if (exec == NULL || exec[0] == NULL) exec = sh;
  if (!own) swerex__docker_add(argv, "--entrypoint");
  if (!own) swerex__docker_add(argv, shell ? exec[0] : docker->inside);
  swerex__docker_add(argv, swerex__docker_image(deployment));
  if (own) swerex__docker_add(argv, shell ? exec[0] : docker->inside);
  if (shell) {
    for (exec++; *exec != NULL; exec++) swerex__docker_add(argv, *exec);
    swerex__docker_add(argv,
                       "swerex-remote --auth-token \"$SWEREX_AUTH_TOKEN\" || (python3 -m pip "
                       "install pipx && python3 -m pipx ensurepath && pipx run swe-rex "
                       "--auth-token \"$SWEREX_AUTH_TOKEN\")");
    return;
  }
  bool local = config->transport == SWEREX_TRANSPORT_STDIO;
  if (local)
    snprintf(address, room, "@%s", docker->name);
  else
    snprintf(address, room, "%d", docker->host_network ? docker->port : SWEREX__DOCKER_PORT);
  swerex__docker_add(argv, local ? "--unix" : "--port");
  swerex__docker_add(argv, address);
  if (docker->host_network && !local) {
    swerex__docker_add(argv, "--host");
    swerex__docker_add(argv, "127.0.0.1");
  }
}

/** The address that a port is published on: this machine only, unless it is reached otherwise. */
static bool swerex__docker_is_local(const swerex_deployment *deployment) {
  const char *host = swerex__docker_config(deployment)->docker_internal_host;
  return host == NULL || strstr(host, "127.0.0.1") != NULL || strstr(host, "localhost") != NULL;
}

/** Copy the environment with the token behind it; borrowed texts. NULL: no memory. */
static const char **swerex__docker_env(const swerex_deployment *deployment, const char *token) {
  size_t count = 0;
  while (environ != NULL && environ[count] != NULL) count++;
  const char **env =
    (const char **)swerex__mem_new(&deployment->loop->allocator, count + 2, sizeof *env);
  if (env == NULL) return NULL;
  for (size_t i = 0; i < count; i++) env[i] = environ[i];
  env[count] = token;
  return env;
}

/** Make the container, for the processor in docker->arch. */
static swerex_future *swerex__docker_make(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_docker_config *config = swerex__docker_config(deployment);
  const char *network = swerex__docker_option(deployment, "--network");
  const char *read_only = swerex__docker_option(deployment, "--read-only");
  char owner[400], publish[64], address[160], token[80];
  if (!swerex__docker_choose(deployment, err)) return NULL;
  if (network == NULL) network = swerex__docker_option(deployment, "--net");
  docker->host_network = network != NULL && strcmp(network, "host") == 0;
  docker->read_only = read_only != NULL && strcmp(read_only, "false") != 0;
  snprintf(docker->inside, sizeof docker->inside, "%s/swerex-remote",
           docker->read_only ? "/.swerex" : "");
  const char *const words[] = {"create", "--pull=never", "--label", owner, "-e",
                               "SWEREX_AUTH_TOKEN", NULL};
  swerex__docker_owner((long)getpid(), owner, sizeof owner);
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  if (!config->keep_container) swerex__docker_add(&argv, "--rm");
  if (docker->read_only) {
    swerex__docker_add(&argv, "--mount");
    swerex__docker_add(&argv, "type=volume,dst=/.swerex");
  }
  for (const char *const *label = config->labels; label != NULL && *label != NULL; label++) {
    swerex__docker_add(&argv, "--label");
    swerex__docker_add(&argv, *label);
  }
  if (docker->platform[0] != '\0') swerex__docker_add(&argv, "--platform");
  if (docker->platform[0] != '\0') swerex__docker_add(&argv, docker->platform);
  char number[16] = "";
  if (docker->port > 0) snprintf(number, sizeof number, "%d", docker->port);
  bool wide = !swerex__docker_is_local(deployment);
  snprintf(publish, sizeof publish, "%s%s%s%d", wide ? "" : "127.0.0.1:", number,
           wide && number[0] == '\0' ? "" : ":", SWEREX__DOCKER_PORT);
  if (config->transport == SWEREX_TRANSPORT_TCP && !docker->host_network) {
    swerex__docker_add(&argv, "-p");
    swerex__docker_add(&argv, publish);
  }
  swerex__docker_add(&argv, "--name");
  swerex__docker_add(&argv, docker->name);
  swerex__docker_add_users(deployment, &argv);
  swerex__docker_add_command(deployment, &argv, address, sizeof address);
  snprintf(token, sizeof token, "SWEREX_AUTH_TOKEN=%s", docker->token);
  const char **env = swerex__docker_env(deployment, token);
  swerex__docker_call call = {swerex__docker_limit(deployment), "", -1, env, {NULL, NULL, false}};
  swerex_future *future = swerex__docker_run(deployment, &argv, &call, err);
  swerex__mem_free(env);
  return future;
}

/** The processor that an image most likely is for, in the engine's words. */
static void swerex__docker_guess(const swerex_deployment *deployment, char *arch, size_t room) {
  const char *slash = strrchr(swerex__docker_of(deployment)->platform, '/');
  struct utsname system;
  const char *name = slash != NULL ? slash + 1 : uname(&system) == 0 ? system.machine : "";
  const swerex__elf_machine *machine = swerex__elf_find_machine(name);
  snprintf(arch, room, "%s", machine == NULL ? name : machine->names[0]);
}

/** Look at the image; meanwhile make a container of it, in the hope that it is as it is mostly. */
static swerex_future *swerex__docker_look(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex__docker_reset(deployment);
  if (docker->keep != NULL && !swerex__keep_is_alive(docker->keep)) {
    swerex__keep_free(docker->keep);
    docker->keep = NULL;
  }
  if (docker->keep == NULL) docker->keep = swerex__keep_fork(deployment->loop, NULL, 0, err);
  if (docker->keep == NULL || !swerex__docker_make_names(deployment, err)) return NULL;
  swerex_future *future = swerex__docker_inspect(deployment, err);
  if (future == NULL || swerex__docker_config(deployment)->pull == SWEREX_PULL_ALWAYS)
    return future;
  swerex__docker_guess(deployment, docker->guess, sizeof docker->guess);
  snprintf(docker->arch, sizeof docker->arch, "%s", docker->guess);
  docker->creating = swerex__docker_make(deployment, NULL);
  if (docker->creating != NULL) swerex__loop_hide(docker->creating);
  docker->arch[0] = '\0';
  return future;
}

/** Make the container, if it was not made for the right processor while the image was looked at. */
static swerex_future *swerex__docker_create(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex_future *creating = docker->creating;
  bool right = !docker->missing && strcmp(docker->arch, docker->guess) == 0;
  docker->creating = NULL;
  if (right && creating != NULL) return creating;
  swerex__loop_free_future(creating);
  return swerex__docker_make(deployment, err);
}

/** Remove a container that was made for the wrong processor. */
static swerex_future *swerex__docker_unmake(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const char *const words[] = {"rm", "-f", docker->name, NULL};
  swerex__docker_call call = {SWEREX__DOCKER_STOP_TIME, "o such container", -1, NULL,
                              {NULL, NULL, false}};
  if (docker->creating == NULL || docker->missing || docker->named ||
      strcmp(docker->arch, docker->guess) == 0)
    return NULL;
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  return swerex__docker_run(deployment, &argv, &call, err);
}

static bool swerex__docker_created(swerex_deployment *deployment, swerex_future *future,
                                   swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  if (!future->ok) return swerex__err_move(err, &future->error);
  const swerex_bytes *out = &swerex__docker_answer(future)->stdout_text;
  int end = swerex__docker_trim(out), start = end;
  while (start > 0 && out->data[start - 1] != '\n') start--;
  snprintf(docker->id, sizeof docker->id, "%.*s", end - start, out->data + start);
  if (docker->id[0] != '\0') return true;
  return swerex__err_set(err, SWEREX_E_DEPLOYMENT_STARTUP, "%s create did not give an id",
                         swerex__docker_program(deployment));
}

/** Remove the container, or end it where it is to be kept. */
static swerex_future *swerex__docker_remove(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_docker_config *config = swerex__docker_config(deployment);
  bool keep = config->keep_container;
  const char *target = docker->id[0] != '\0' ? docker->id : docker->name;
  bool podman = config->container_runtime == SWEREX_CONTAINER_PODMAN; /* which waits by default */
  const char *const removal[] = {"rm", "-f", "-v", target, podman ? "-t" : NULL, "0", NULL};
  const char *const kill[] = {"kill", target, NULL};
  swerex__docker_call call = {SWEREX__DOCKER_STOP_TIME, keep ? "not running" : "o such container",
                              -1, NULL, {NULL, NULL, false}};
  swerex__loop_disarm(deployment->loop, &docker->ask);
  swerex__loop_free_future(docker->asking);
  docker->asking = NULL;
  if (docker->id[0] == '\0' && (docker->named || docker->keep == NULL)) return NULL;
  if (keep && (docker->id[0] == '\0' || docker->exited)) return NULL;
  swerex__dep_tell(deployment, "Stopping container");
  swerex__docker_argv argv = swerex__docker_words(deployment, keep ? kill : removal);
  return swerex__docker_run(deployment, &argv, &call, err);
}

static swerex_future *swerex__docker_put(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  char target[160];
  snprintf(target, sizeof target, "%s:%s", docker->id, docker->read_only ? "/.swerex" : "/");
  const char *const words[] = {"cp", "-", target, NULL};
  if (docker->binary[0] == '\0') return NULL;
  int fd = swerex__elf_pack(&deployment->loop->allocator, docker->binary, "swerex-remote", err);
  if (fd < 0) return NULL;
  swerex__docker_call call = {swerex__docker_limit(deployment), "", fd, NULL, {NULL, NULL, false}};
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  swerex_future *future = swerex__docker_run(deployment, &argv, &call, err);
  swerex__sys_close(&fd);
  return future;
}

/* --- its output --------------------------------------------------------------------------- */

/** End the wait for the server. */
static void swerex__docker_settle(swerex_deployment *deployment, swerex_error *error) {
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex_future *ready = docker->ready;
  docker->ready = NULL;
  swerex__loop_disarm(deployment->loop, &docker->deadline);
  if (ready != NULL && error != NULL)
    swerex__loop_fail(ready, error);
  else if (ready != NULL)
    swerex__loop_finish(ready);
}

/** It is ready once the server listens and the port is known. */
static void swerex__docker_check_ready(swerex_deployment *deployment) {
  const swerex__docker *docker = swerex__docker_of(deployment);
  bool tcp = swerex__docker_config(deployment)->transport == SWEREX_TRANSPORT_TCP;
  if (docker->listening && (!tcp || docker->port > 0)) swerex__docker_settle(deployment, NULL);
}

/** Take a whole line of the container's output: to the log, and is it the one waited for? */
static void swerex__docker_on_line(swerex_deployment *deployment, const char *line) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const char *listening = strstr(line, " listening on "), *colon = strrchr(line, ':');
  swerex__log(&deployment->logger, SWEREX_LOG_DEBUG, "%.12s: %s", docker->id, line);
  if (docker->ready == NULL) return;
  if (listening == NULL && strstr(line, "Uvicorn running on ") == NULL) return;
  if (docker->host_network && colon != NULL && docker->port == 0) docker->port = atoi(colon + 1);
  docker->listening = true;
  swerex__docker_check_ready(deployment);
}

static void swerex__docker_on_output(void *user_data, swerex_stream stream, const char *text,
                                     size_t size) {
  swerex_deployment *deployment = (swerex_deployment *)user_data;
  swerex__docker *docker = swerex__docker_of(deployment);
  size_t which = stream == SWEREX_STDERR ? 1 : 0;
  for (size_t i = 0; i < size; i++) {
    bool full = docker->line_size[which] == SWEREX__DOCKER_LINE - 1;
    if (text[i] != '\n' && !full) docker->line[which][docker->line_size[which]++] = text[i];
    if (text[i] != '\n' && !full) continue;
    docker->line[which][docker->line_size[which]] = '\0';
    docker->line_size[which] = 0;
    swerex__docker_on_line(deployment, docker->line[which]);
  }
}

/** Say that the container has ended, with its last output. */
static void swerex__docker_set_ended(const swerex_deployment *deployment, swerex_error *error) {
  const swerex__docker *docker = swerex__docker_of(deployment);
  char what[200];
  const char *said = docker->output.data == NULL ? "" : docker->output.data;
  bool refused = strncmp(said, "Error", 5) == 0; /* the engine's own words */
  snprintf(what, sizeof what, refused ? "container %.100s could not be started"
                                      : "container %.100s ended with exit code %d",
           docker->name, docker->exit_code);
  swerex__docker_fail(error, SWEREX_E_DEPLOYMENT_STARTUP, what, &docker->output);
}

/** The container has ended, or could not be started. */
static void swerex__docker_on_ended(swerex__proc *proc) {
  swerex_deployment *deployment = (swerex_deployment *)proc->owner;
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex_error error = SWEREX_ERROR_INIT;
  docker->exited = true;
  docker->exit_code = swerex__proc_exit_code(proc->status);
  swerex__text_keep_take(&proc->pipes[0].keep, &docker->output, NULL);
  docker->attached = NULL;
  swerex__proc_free(proc);
  if (docker->ready != NULL) {
    swerex__docker_set_ended(deployment, &error);
    swerex__docker_settle(deployment, &error);
  } else if (deployment->phase == SWEREX__DEP_STARTING && deployment->runtime != NULL &&
             deployment->waiting != NULL) {
    swerex__loop_cancel(deployment->waiting); /* the step then says why */
  }
}

static void swerex__docker_on_late(swerex__loop_timer *timer) {
  swerex_deployment *deployment = (swerex_deployment *)timer->owner;
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex_error error = SWEREX_ERROR_INIT;
  swerex_bytes so_far = {NULL, 0};
  char what[200];
  snprintf(what, sizeof what,
           "Runtime did not start within %gs in container %.100s. Its output so far",
           swerex__docker_limit(deployment), docker->name);
  if (docker->attached != NULL)
    swerex__text_keep_take(&docker->attached->pipes[0].keep, &so_far, NULL);
  swerex__docker_fail(&error, SWEREX_E_DEPLOYMENT_STARTUP, what, &so_far);
  swerex__mem_free(so_far.data);
  swerex__docker_settle(deployment, &error);
}

static void swerex__docker_cancel_ready(swerex_future *future) {
  swerex_deployment *deployment = (swerex_deployment *)future->operation;
  swerex__docker_of(deployment)->ready = NULL;
  swerex__loop_disarm(deployment->loop, &swerex__docker_of(deployment)->deadline);
}

static swerex_future *swerex__docker_ask_port(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const char *const words[] = {"port", docker->id, "8000/tcp", NULL};
  swerex__docker_call call = {swerex__docker_limit(deployment), "", -1, NULL, {NULL, NULL, false}};
  swerex__docker_argv argv = swerex__docker_words(deployment, words);
  return swerex__docker_run(deployment, &argv, &call, err);
}

/** Read the port at the end of "127.0.0.1:32768"; 0: there is none. */
static int swerex__docker_read_port(const swerex_future *future) {
  const char *text = swerex__docker_answer(future)->stdout_text.data;
  if (!future->ok || text == NULL) return 0;
  const char *line = text + strcspn(text, "\n"), *colon = line;
  while (colon > text && *colon != ':') colon--;
  return *colon == ':' ? atoi(colon + 1) : 0;
}

static void swerex__docker_on_asked(swerex_future *future, void *user_data);

/**
 * Ask for the port while the container starts: the engine answers as soon as it has started it,
 * which is while the server comes up.
 */
static void swerex__docker_on_ask(swerex__loop_timer *timer) {
  swerex_deployment *deployment = (swerex_deployment *)timer->owner;
  swerex__docker *docker = swerex__docker_of(deployment);
  docker->asking = docker->ready == NULL ? NULL : swerex__docker_ask_port(deployment, NULL);
  if (docker->asking == NULL) return;
  swerex__loop_hide(docker->asking);
  swerex__loop_then(docker->asking, swerex__docker_on_asked, deployment);
}

static void swerex__docker_on_asked(swerex_future *future, void *user_data) {
  swerex_deployment *deployment = (swerex_deployment *)user_data;
  swerex__docker *docker = swerex__docker_of(deployment);
  docker->asking = NULL;
  docker->port = swerex__docker_read_port(future);
  swerex__loop_free_future(future);
  if (docker->port > 0)
    swerex__docker_check_ready(deployment);
  else
    swerex__loop_arm(deployment->loop, &docker->ask, SWEREX__DOCKER_ASK_PAUSE,
                     swerex__docker_on_ask, deployment);
}

static swerex_future *swerex__docker_start(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const char *const argv[] = {swerex__docker_program(deployment), "start", "-a", docker->id, NULL};
  swerex__proc_spec spec;
  memset(&spec, 0, sizeof spec);
  spec.argv = argv;
  spec.input = -1;
  spec.merge = true;
  spec.timeout = spec.idle_timeout = SWEREX_FOREVER;
  spec.max_output = SWEREX__DOCKER_TAIL;
  spec.watch.on_output = swerex__docker_on_output;
  spec.watch.user_data = deployment;
  swerex_future *future = swerex__loop_promise(deployment->loop, NULL, err);
  if (future == NULL) return NULL;
  docker->attached = swerex__proc_start(deployment->loop, docker->keep, &spec,
                                        swerex__docker_on_ended, deployment, err);
  if (docker->attached == NULL) {
    swerex__loop_free_future(future);
    return NULL;
  }
  docker->ready = future;
  future->operation = deployment;
  future->cancel = swerex__docker_cancel_ready;
  swerex__loop_arm(deployment->loop, &docker->deadline, swerex__docker_limit(deployment),
                   swerex__docker_on_late, deployment);
  bool tcp = swerex__docker_config(deployment)->transport == SWEREX_TRANSPORT_TCP;
  if (tcp && docker->port == 0 && !docker->host_network)
    swerex__loop_arm(deployment->loop, &docker->ask, SWEREX__DOCKER_ASK_PAUSE,
                     swerex__docker_on_ask, deployment);
  return future;
}

/* --- reaching it -------------------------------------------------------------------------- */

/** A connection of the transport "stdio": an `exec` in the container. */
typedef struct swerex__docker_relay {
  swerex__loop_link link; /* first member */
  swerex__keep_child child;
} swerex__docker_relay;

static void swerex__docker_free_relay(swerex__docker_relay *relay) {
  swerex__loop_link_remove(&relay->link);
  swerex__keep_forget(&relay->child);
  swerex__mem_free(relay);
}

/** The exec has ended; the connection ends with it. */
static void swerex__docker_on_relay(swerex__keep_child *child, const swerex__keep_report *report) {
  if (report->news == SWEREX__KEEP_STARTED) return;
  size_t offset = offsetof(swerex__docker_relay, child);
  swerex__docker_free_relay((swerex__docker_relay *)(void *)((char *)child - offset));
}

/** Open a connection: a descriptor, or -1. */
static int swerex__docker_open(void *owner, swerex_error *err) {
  swerex_deployment *deployment = (swerex_deployment *)owner;
  swerex__docker *docker = swerex__docker_of(deployment);
  char address[160];
  snprintf(address, sizeof address, "@%s", docker->name);
  const char *const argv[] = {swerex__docker_program(deployment), "exec", "-i", docker->id,
                              docker->inside, "--connect", address, NULL};
  int ends[2];
  swerex__docker_relay *relay = (swerex__docker_relay *)swerex__mem_new(
    &deployment->loop->allocator, 1, sizeof *relay);
  if (relay == NULL) {
    swerex__err_memory(err);
    return -1;
  }
  if (!swerex__sys_socketpair(ends)) {
    swerex__mem_free(relay);
    swerex__err_system(err, errno, "a connection to the container");
    return -1;
  }
  swerex__keep_program program = {NULL, argv, NULL, NULL, {ends[1], ends[1], -1}, false};
  relay->child.report = swerex__docker_on_relay;
  swerex__loop_link_insert(&docker->relays, &relay->link);
  bool ok = swerex__keep_start(docker->keep, &program, &relay->child, err);
  swerex__sys_close(&ends[1]);
  if (ok) return ends[0];
  swerex__sys_close(&ends[0]);
  swerex__docker_free_relay(relay);
  return -1;
}

static swerex_future *swerex__docker_connect(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_docker_config *config = swerex__docker_config(deployment);
  bool tcp = config->transport == SWEREX_TRANSPORT_TCP;
  swerex_remote_config remote;
  char host[160];
  memset(&remote, 0, sizeof remote);
  snprintf(host, sizeof host, "http://%.120s", docker->name);
  remote.auth_token = docker->token;
  remote.host = !tcp                                   ? host
                : config->docker_internal_host != NULL ? config->docker_internal_host
                                                       : "http://127.0.0.1";
  remote.port = tcp ? docker->port : 0;
  remote.timeout = tcp ? 0 : 10; /* an exec takes its time */
  swerex__dep_own(deployment, swerex__remote_new(deployment->loop, &remote, err));
  if (deployment->runtime == NULL) return NULL;
  if (!tcp) swerex__remote_dial_by(deployment->runtime, swerex__docker_open, deployment);
  return swerex__rt_wait_until_alive(deployment->runtime, swerex__docker_limit(deployment), err);
}

static bool swerex__docker_connected(swerex_deployment *deployment, swerex_future *future,
                                     swerex_error *err) {
  if (future->ok) return true;
  if (!swerex__docker_of(deployment)->exited) return swerex__err_move(err, &future->error);
  swerex__docker_set_ended(deployment, err);
  return false;
}

/* --- the kind ----------------------------------------------------------------------------- */

/** Move a --platform out of docker_args, and refuse what cannot be. */
static bool swerex__docker_check(swerex_deployment *deployment, swerex_error *err) {
  swerex__docker *docker = swerex__docker_of(deployment);
  const swerex_docker_config *config = swerex__docker_config(deployment);
  const char *platform = swerex__docker_option(deployment, "--platform");
  swerex__loop_link_init(&docker->relays);
  if (platform != NULL && config->platform != NULL)
    return swerex__err_set(err, SWEREX_E_VALIDATION,
                           "Cannot specify platform both via 'platform' field and '--platform' in "
                           "docker_args");
  if (platform != NULL && platform[0] == '\0')
    return swerex__err_set(err, SWEREX_E_VALIDATION,
                           "--platform argument must be followed by a value");
  if (platform == NULL) platform = config->platform;
  if (platform != NULL) snprintf(docker->platform, sizeof docker->platform, "%s", platform);
  if (config->port < 0 || config->port > 65535)
    return swerex__err_set(err, SWEREX_E_VALIDATION, "port: %d is not a port", config->port);
  if (config->python_standalone_dir != NULL && config->python_standalone_dir[0] != '\0')
    swerex__log(&deployment->logger, SWEREX_LOG_WARNING,
                "python_standalone_dir is not needed here: a static server is put into the "
                "container");
  return true;
}

/** Tell that a container has ended, without asking the engine. */
static swerex_future *swerex__docker_is_alive(swerex_deployment *deployment, swerex_error *err) {
  const swerex__docker *docker = swerex__docker_of(deployment);
  swerex_error why = SWEREX_ERROR_INIT;
  swerex_future *future = swerex__loop_promise(
    deployment->loop, swerex__model_of(SWEREX_MODEL_IS_ALIVE_RESPONSE), err);
  if (future == NULL) return NULL;
  if (docker->exited) {
    swerex__docker_set_ended(deployment, &why);
    swerex__dep_deny(future, why.message);
    swerex__err_clear(&why);
    return future;
  }
  ((swerex_is_alive_response *)future->response)->is_alive = true;
  swerex__loop_finish(future);
  return future;
}

static void swerex__docker_release(swerex_deployment *deployment) {
  swerex__docker *docker = swerex__docker_of(deployment);
  swerex__loop_disarm(deployment->loop, &docker->deadline);
  swerex__loop_disarm(deployment->loop, &docker->ask);
  swerex__loop_free_future(docker->creating);
  swerex__loop_free_future(docker->asking);
  while (docker->relays.next != NULL && !swerex__loop_link_empty(&docker->relays))
    swerex__docker_free_relay((swerex__docker_relay *)docker->relays.next);
  swerex__proc_free(docker->attached);
  swerex__mem_free(docker->output.data);
  swerex__keep_free(docker->keep);
}

static const swerex__dep_step swerex__docker_steps[] = {
  {NULL, swerex__docker_look, swerex__docker_looked, NULL, false},
  {NULL, swerex__docker_pull, swerex__docker_pulled, swerex__docker_remove_image, false},
  {NULL, swerex__docker_look_again, swerex__docker_looked, NULL, false},
  {NULL, swerex__docker_unmake, NULL, NULL, false},
  {"Creating container", swerex__docker_create, swerex__docker_created, swerex__docker_remove,
   false},
  {NULL, swerex__docker_put, NULL, NULL, false},
  {"Starting runtime", swerex__docker_start, NULL, NULL, false},
  {NULL, swerex__docker_connect, swerex__docker_connected, NULL, false},
};
static const swerex__dep_kind swerex__docker_kind = {"docker",
                                                     sizeof(swerex__docker),
                                                     swerex__docker_steps,
                                                     SWEREX__SYS_COUNT(swerex__docker_steps),
                                                     SWEREX__DOCKER_CLOSE_TIME,
                                                     swerex__docker_check,
                                                     swerex__docker_is_alive,
                                                     swerex__docker_release};

#endif /* SWEREX_NO_DOCKER */

/* =============================================================================================
 * [kinds] Deployments by type
 * ========================================================================================== */
/* One row per type. A type that the build leaves out keeps its row, which says how to get it. */

#ifdef SWEREX_NO_LOCAL
#define SWEREX__KINDS_LOCAL NULL
#else
static swerex_future *swerex__kinds_run_local(swerex_deployment *deployment, swerex_error *err) {
  swerex__dep_own(deployment,
                  swerex__local_new(deployment->loop, &deployment->config.u.local, err));
  return NULL;
}
static const swerex__dep_step swerex__kinds_local_steps[] = {
  {"Starting runtime", swerex__kinds_run_local, NULL, NULL, false}};
static const swerex__dep_kind swerex__kinds_local = {
  "local", 0, swerex__kinds_local_steps, 1, 0, NULL, NULL, NULL};
#define SWEREX__KINDS_LOCAL &swerex__kinds_local
#endif

static swerex_future *swerex__kinds_run_dummy(swerex_deployment *deployment, swerex_error *err) {
  swerex__dep_own(deployment,
                  swerex__dummy_new(deployment->loop, &deployment->config.u.dummy, err));
  return NULL;
}
static const swerex__dep_step swerex__kinds_dummy_steps[] = {
  {"Starting runtime", swerex__kinds_run_dummy, NULL, NULL, false}};
static const swerex__dep_kind swerex__kinds_dummy = {
  "dummy", 0, swerex__kinds_dummy_steps, 1, 0, NULL, NULL, NULL};

#ifdef SWEREX_NO_REMOTE
#define SWEREX__KINDS_REMOTE NULL
#else
static swerex_future *swerex__kinds_run_remote(swerex_deployment *deployment, swerex_error *err) {
  swerex__dep_own(deployment,
                  swerex__remote_new(deployment->loop, &deployment->config.u.remote, err));
  return NULL;
}
static const swerex__dep_step swerex__kinds_remote_steps[] = {
  {"Starting runtime", swerex__kinds_run_remote, NULL, NULL, false}};
static const swerex__dep_kind swerex__kinds_remote = {
  "remote", 0, swerex__kinds_remote_steps, 1, 0, NULL, NULL, NULL};
#define SWEREX__KINDS_REMOTE &swerex__kinds_remote
#endif

#ifdef SWEREX_NO_DOCKER
#define SWEREX__KINDS_DOCKER NULL
#else
#define SWEREX__KINDS_DOCKER &swerex__docker_kind
#endif

typedef struct swerex__kinds_row {
  const char *name;
  const swerex__dep_kind *kind; /* NULL: left out */
  const char *left_out_by;
} swerex__kinds_row;

static const swerex__kinds_row swerex__kinds_rows[] = {
  /* in the order of swerex_deployment_type */
  {"local", SWEREX__KINDS_LOCAL, "SWEREX_NO_LOCAL"},
  {"dummy", &swerex__kinds_dummy, NULL},
  {"remote", SWEREX__KINDS_REMOTE, "SWEREX_NO_REMOTE"},
  {"docker", SWEREX__KINDS_DOCKER, "SWEREX_NO_DOCKER and SWEREX_NO_REMOTE"},
};

static swerex_deployment *swerex__kinds_make(swerex_loop *loop,
                                             const swerex_deployment_config *config,
                                             swerex_error *err) {
  size_t index = (size_t)config->type - 1;
  if (config->type < SWEREX_DEPLOYMENT_LOCAL || index >= SWEREX__SYS_COUNT(swerex__kinds_rows)) {
    swerex__err_set(err, SWEREX_E_VALIDATION, "type: %d is not a deployment type",
                    (int)config->type);
    return NULL;
  }
  const swerex__kinds_row *row = &swerex__kinds_rows[index];
  if (row->kind != NULL) return swerex__dep_new(loop, row->kind, config, err);
  swerex__err_set(err, SWEREX_E_UNSUPPORTED,
                  "the %s deployment is not in this build: compile without %s", row->name,
                  row->left_out_by);
  return NULL;
}

static swerex_deployment *swerex__kinds_make_from_json(swerex_loop *loop, const char *json,
                                                       size_t size, swerex_error *err) {
  swerex_deployment *deployment = NULL;
  swerex_deployment_config config;
  swerex__json_doc doc;
  memset(&config, 0, sizeof config);
  if (!swerex__json_parse(&loop->allocator, json, size, &doc, err)) return NULL;
  if (swerex__model_decode_deployment(&loop->allocator, doc.root, &config, err))
    deployment = swerex__kinds_make(loop, &config, err);
  swerex__model_clear_deployment(&config);
  swerex__json_free(&doc);
  return deployment;
}

/* =============================================================================================
 * [api] The public functions
 * ========================================================================================== */
/* Each checks its arguments, fills defaults and calls down. Nothing else in this file is visible
 * outside of it. */

SWEREX_API const char *swerex_version(void) { return SWEREX_VERSION; }

SWEREX_API void swerex_free(void *block) { swerex__mem_free(block); }

SWEREX_API void swerex_bytes_clear(swerex_bytes *bytes) {
  swerex__mem_free(bytes->data);
  bytes->data = NULL;
  bytes->size = 0;
}

/* --- errors and messages ------------------------------------------------------------------ */

SWEREX_API void swerex_error_clear(swerex_error *err) { swerex__err_clear(err); }

SWEREX_API bool swerex_code_is(swerex_code code, swerex_code ancestor) {
  return swerex__err_is(code, ancestor);
}

SWEREX_API const char *swerex_code_name(swerex_code code) {
  bool known = (int)code >= 0 && code < SWEREX_E_COUNT_;
  return known ? swerex__err_rows[code].name : "UNKNOWN";
}

SWEREX_API const char *swerex_code_class_path(swerex_code code) {
  bool known = (int)code >= 0 && code < SWEREX_E_COUNT_;
  return swerex__err_rows[known ? code : SWEREX_E_SWEREX].class_path;
}

SWEREX_API swerex_code swerex_code_from_class_path(const char *class_path) {
  return swerex__err_code_of_class(class_path);
}

SWEREX_API swerex_logger swerex_get_logger(swerex_loop *loop, const char *name,
                                           const char *emoji) {
  swerex_logger logger = loop->logger;
  if (name != NULL) logger.name = name;
  if (emoji != NULL) logger.emoji = emoji;
  return logger;
}

SWEREX_API void swerex_log(const swerex_logger *logger, swerex_log_level level,
                           const char *format, ...) {
  va_list args;
  va_start(args, format);
  swerex__log_write(logger, level, format, args);
  va_end(args);
}

/* --- loop and futures --------------------------------------------------------------------- */

SWEREX_API swerex_loop *swerex_loop_new(const swerex_loop_options *options, swerex_error *err) {
  return swerex__loop_new(options, err);
}

SWEREX_API void swerex_loop_free(swerex_loop *loop) { swerex__loop_free(loop); }

SWEREX_API bool swerex_loop_run(swerex_loop *loop, double timeout, swerex_error *err) {
  return swerex__loop_run(loop, timeout, err);
}

SWEREX_API int swerex_loop_fd(const swerex_loop *loop) { return loop->poll.fd; }

SWEREX_API double swerex_loop_timeout(const swerex_loop *loop) {
  if (!swerex__loop_link_empty(&loop->finished)) return 0;
  if (loop->poll.timer < 0) return SWEREX_FOREVER;
  double left = loop->poll.timer - swerex__util_now();
  return left > 0 ? left : 0;
}

SWEREX_API size_t swerex_loop_pollfds(const swerex_loop *loop, struct pollfd *fds, size_t room) {
  return swerex__poll_list(&loop->poll, fds, room);
}

SWEREX_API void swerex_loop_wake(swerex_loop *loop) { swerex__loop_wake(loop); }

SWEREX_API swerex_future *swerex_loop_next(swerex_loop *loop) {
  if (swerex__loop_link_empty(&loop->queue)) return NULL;
  swerex_future *future = (swerex_future *)loop->queue.next;
  swerex__loop_link_remove(&future->line);
  return future;
}

SWEREX_API swerex_future *swerex_loop_wait(swerex_loop *loop, double timeout, swerex_error *err) {
  double end = timeout < 0 ? -1 : swerex__util_now() + timeout;
  for (;;) {
    swerex_future *future = swerex_loop_next(loop);
    if (future != NULL) return future;
    if (loop->pending == 0 && swerex__loop_link_empty(&loop->finished)) return NULL;
    double left = end < 0 ? -1 : end - swerex__util_now();
    if (end >= 0 && left < 0) {
      swerex__err_set(err, SWEREX_E_TIMEOUT, "nothing finished within the time limit");
      return NULL;
    }
    if (!swerex__loop_run(loop, left, err)) return NULL;
  }
}

SWEREX_API bool swerex_await(swerex_future *future, double timeout, swerex_error *err) {
  return swerex__loop_run_until(future->loop, &future->done, timeout, err);
}

SWEREX_API bool swerex_future_done(const swerex_future *future) { return future->done; }

SWEREX_API bool swerex_future_take(swerex_future *future, void *response, swerex_error *err) {
  if (future == NULL) return swerex__err_set(err, SWEREX_E_VALUE, "future is NULL");
  return swerex__loop_take(future, response, err);
}

SWEREX_API void swerex_future_cancel(swerex_future *future) { swerex__loop_cancel(future); }

SWEREX_API void swerex_future_free(swerex_future *future) { swerex__loop_free_future(future); }

SWEREX_API void swerex_future_then(swerex_future *future,
                                   void (*then)(swerex_future *future, void *user_data),
                                   void *user_data) {
  swerex__loop_then(future, then, user_data);
}

SWEREX_API void swerex_future_set_user_data(swerex_future *future, void *user_data) {
  future->user_data = user_data;
}

SWEREX_API void *swerex_future_user_data(const swerex_future *future) {
  return future->user_data;
}

/* --- models ------------------------------------------------------------------------------- */

static const swerex__model *swerex__api_model(swerex_model model, const void *value,
                                              swerex_error *err) {
  if ((int)model > 0 && model < SWEREX_MODEL_COUNT_ && value != NULL)
    return swerex__model_of(model);
  swerex__err_set(err, SWEREX_E_VALUE, value == NULL ? "value is NULL" : "%d is not a model",
                  (int)model);
  return NULL;
}

SWEREX_API bool swerex_to_json(swerex_model model, const void *value, swerex_bytes *json,
                               swerex_error *err) {
  const swerex__model *table = swerex__api_model(model, value, err);
  swerex__str out = swerex__str_new(NULL, SIZE_MAX / 2);
  if (table == NULL) return false;
  if (swerex__model_encode(table, value, &out, err)) return swerex__str_take(&out, json, err);
  swerex__str_clear(&out);
  return false;
}

SWEREX_API bool swerex_from_json(swerex_model model, const char *json, size_t size, void *value,
                                 swerex_error *err) {
  const swerex__model *table = swerex__api_model(model, value, err);
  swerex__json_doc doc;
  if (table == NULL) return false;
  memset(value, 0, table->size);
  if (!swerex__json_parse(NULL, json, size > 0 ? size : strlen(json), &doc, err)) return false;
  bool ok = swerex__model_decode(NULL, table, doc.root, value, err);
  swerex__json_free(&doc);
  return ok;
}

SWEREX_API void swerex_model_clear(swerex_model model, void *value) {
  const swerex__model *table = swerex__api_model(model, value, NULL);
  if (table != NULL) swerex__model_clear(table, value);
}

SWEREX_API void swerex_is_alive_response_clear(swerex_is_alive_response *response) {
  swerex_model_clear(SWEREX_MODEL_IS_ALIVE_RESPONSE, response);
}

SWEREX_API void
swerex_create_bash_session_response_clear(swerex_create_bash_session_response *response) {
  swerex_model_clear(SWEREX_MODEL_CREATE_BASH_SESSION_RESPONSE, response);
}

SWEREX_API void swerex_bash_observation_clear(swerex_bash_observation *observation) {
  swerex_model_clear(SWEREX_MODEL_BASH_OBSERVATION, observation);
}

SWEREX_API void swerex_command_response_clear(swerex_command_response *response) {
  swerex_model_clear(SWEREX_MODEL_COMMAND_RESPONSE, response);
}

SWEREX_API void swerex_read_file_response_clear(swerex_read_file_response *response) {
  swerex_model_clear(SWEREX_MODEL_READ_FILE_RESPONSE, response);
}

/* --- runtimes ----------------------------------------------------------------------------- */

#ifndef SWEREX_NO_LOCAL
SWEREX_API swerex_runtime *swerex_local_runtime_new(swerex_loop *loop,
                                                    const swerex_local_config *config,
                                                    swerex_error *err) {
  return swerex__local_new(loop, config, err);
}
#endif

#ifndef SWEREX_NO_REMOTE
SWEREX_API swerex_runtime *swerex_remote_runtime_new(swerex_loop *loop,
                                                     const swerex_remote_config *config,
                                                     swerex_error *err) {
  return swerex__remote_new(loop, config, err);
}
#endif

SWEREX_API swerex_runtime *swerex_dummy_runtime_new(swerex_loop *loop,
                                                    const swerex_dummy_config *config,
                                                    swerex_error *err) {
  return swerex__dummy_new(loop, config, err);
}

SWEREX_API bool swerex_dummy_runtime_set_outputs(swerex_runtime *runtime,
                                                 const swerex_bash_observation *observations,
                                                 size_t count, swerex_error *err) {
  swerex__dummy *dummy = swerex__dummy_of(runtime, err);
  return dummy != NULL && swerex__dummy_set(dummy, observations, count, true, err);
}

SWEREX_API bool swerex_dummy_runtime_set_output(swerex_runtime *runtime,
                                                const swerex_bash_observation *observation,
                                                swerex_error *err) {
  swerex__dummy *dummy = swerex__dummy_of(runtime, err);
  return dummy != NULL && swerex__dummy_set(dummy, observation, 1, false, err);
}

SWEREX_API void swerex_runtime_free(swerex_runtime *runtime) { swerex__rt_free(runtime); }

SWEREX_API bool swerex_is_alive(swerex_runtime *runtime, const swerex_is_alive_request *request,
                                swerex_is_alive_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_IS_ALIVE, request, response, err);
}

SWEREX_API swerex_future *swerex_is_alive_async(swerex_runtime *runtime,
                                                const swerex_is_alive_request *request,
                                                swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_IS_ALIVE, request, err);
}

SWEREX_API bool swerex_wait_until_alive(swerex_runtime *runtime, double timeout,
                                        swerex_error *err) {
  return swerex__loop_take(swerex__rt_wait_until_alive(runtime, timeout, err), NULL, err);
}

SWEREX_API swerex_future *swerex_wait_until_alive_async(swerex_runtime *runtime, double timeout,
                                                        swerex_error *err) {
  return swerex__rt_wait_until_alive(runtime, timeout, err);
}

SWEREX_API bool swerex_create_session(swerex_runtime *runtime,
                                      const swerex_create_bash_session_request *request,
                                      swerex_create_bash_session_response *response,
                                      swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_CREATE_SESSION, request, response, err);
}

SWEREX_API swerex_future *
swerex_create_session_async(swerex_runtime *runtime,
                            const swerex_create_bash_session_request *request, swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_CREATE_SESSION, request, err);
}

SWEREX_API bool swerex_run_in_session(swerex_runtime *runtime, const swerex_bash_action *action,
                                      swerex_bash_observation *observation, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_RUN_IN_SESSION, action, observation, err);
}

SWEREX_API swerex_future *swerex_run_in_session_async(swerex_runtime *runtime,
                                                      const swerex_bash_action *action,
                                                      swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_RUN_IN_SESSION, action, err);
}

SWEREX_API bool swerex_interrupt_session(swerex_runtime *runtime,
                                         const swerex_bash_interrupt_action *action,
                                         swerex_bash_observation *observation,
                                         swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_INTERRUPT_SESSION, action, observation, err);
}

SWEREX_API swerex_future *swerex_interrupt_session_async(swerex_runtime *runtime,
                                                         const swerex_bash_interrupt_action *action,
                                                         swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_INTERRUPT_SESSION, action, err);
}

SWEREX_API bool swerex_close_session(swerex_runtime *runtime,
                                     const swerex_close_bash_session_request *request,
                                     swerex_close_bash_session_response *response,
                                     swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_CLOSE_SESSION, request, response, err);
}

SWEREX_API swerex_future *
swerex_close_session_async(swerex_runtime *runtime,
                           const swerex_close_bash_session_request *request, swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_CLOSE_SESSION, request, err);
}

SWEREX_API bool swerex_execute(swerex_runtime *runtime, const swerex_command *command,
                               swerex_command_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_EXECUTE, command, response, err);
}

SWEREX_API swerex_future *swerex_execute_async(swerex_runtime *runtime,
                                               const swerex_command *command,
                                               swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_EXECUTE, command, err);
}

SWEREX_API bool swerex_read_file(swerex_runtime *runtime,
                                 const swerex_read_file_request *request,
                                 swerex_read_file_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_READ_FILE, request, response, err);
}

SWEREX_API swerex_future *swerex_read_file_async(swerex_runtime *runtime,
                                                 const swerex_read_file_request *request,
                                                 swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_READ_FILE, request, err);
}

SWEREX_API bool swerex_write_file(swerex_runtime *runtime,
                                  const swerex_write_file_request *request,
                                  swerex_write_file_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_WRITE_FILE, request, response, err);
}

SWEREX_API swerex_future *swerex_write_file_async(swerex_runtime *runtime,
                                                  const swerex_write_file_request *request,
                                                  swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_WRITE_FILE, request, err);
}

SWEREX_API bool swerex_upload(swerex_runtime *runtime, const swerex_upload_request *request,
                              swerex_upload_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_UPLOAD, request, response, err);
}

SWEREX_API swerex_future *swerex_upload_async(swerex_runtime *runtime,
                                              const swerex_upload_request *request,
                                              swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_UPLOAD, request, err);
}

SWEREX_API bool swerex_close(swerex_runtime *runtime, const swerex_close_request *request,
                             swerex_close_response *response, swerex_error *err) {
  return swerex__rt_call_and_wait(runtime, SWEREX__RT_CLOSE, request, response, err);
}

SWEREX_API swerex_future *swerex_close_async(swerex_runtime *runtime,
                                             const swerex_close_request *request,
                                             swerex_error *err) {
  return swerex__rt_call(runtime, SWEREX__RT_CLOSE, request, err);
}

SWEREX_API bool swerex_session_write(swerex_runtime *runtime, const char *session,
                                     const char *bytes, size_t size, swerex_error *err) {
#ifdef SWEREX_NO_LOCAL
  (void)session, (void)bytes, (void)size;
  return swerex__err_set(err, SWEREX_E_UNSUPPORTED, "a %s runtime has no terminals",
                         runtime->kind->name);
#else
  return swerex__local_session_write(runtime, session, bytes, size, err);
#endif
}

SWEREX_API bool swerex_session_resize(swerex_runtime *runtime, const char *session, int rows,
                                      int columns, swerex_error *err) {
#ifdef SWEREX_NO_LOCAL
  (void)session, (void)rows, (void)columns;
  return swerex__err_set(err, SWEREX_E_UNSUPPORTED, "a %s runtime has no terminals",
                         runtime->kind->name);
#else
  return swerex__local_session_resize(runtime, session, rows, columns, err);
#endif
}

/* --- deployments -------------------------------------------------------------------------- */

SWEREX_API swerex_deployment *swerex_get_deployment(swerex_loop *loop,
                                                    const swerex_deployment_config *config,
                                                    swerex_error *err) {
  return swerex__kinds_make(loop, config, err);
}

SWEREX_API swerex_deployment *swerex_get_deployment_json(swerex_loop *loop, const char *json,
                                                         size_t size, swerex_error *err) {
  return swerex__kinds_make_from_json(loop, json, size > 0 ? size : strlen(json), err);
}

SWEREX_API void swerex_deployment_free(swerex_deployment *deployment) {
  swerex__dep_free(deployment);
}

SWEREX_API bool swerex_deployment_add_hook(swerex_deployment *deployment,
                                           swerex_deployment_hook hook, swerex_error *err) {
  return swerex__dep_add_hook(deployment, hook, err);
}

SWEREX_API swerex_future *swerex_deployment_start_async(swerex_deployment *deployment,
                                                        swerex_error *err) {
  return swerex__dep_start(deployment, err);
}

SWEREX_API bool swerex_deployment_start(swerex_deployment *deployment, swerex_error *err) {
  return swerex__loop_take(swerex__dep_start(deployment, err), NULL, err);
}

SWEREX_API swerex_future *swerex_deployment_stop_async(swerex_deployment *deployment,
                                                       swerex_error *err) {
  return swerex__dep_stop(deployment, err);
}

SWEREX_API bool swerex_deployment_stop(swerex_deployment *deployment, swerex_error *err) {
  return swerex__loop_take(swerex__dep_stop(deployment, err), NULL, err);
}

SWEREX_API swerex_future *
swerex_deployment_is_alive_async(swerex_deployment *deployment,
                                 const swerex_is_alive_request *request, swerex_error *err) {
  return swerex__dep_is_alive(deployment, request, err);
}

SWEREX_API bool swerex_deployment_is_alive(swerex_deployment *deployment,
                                           const swerex_is_alive_request *request,
                                           swerex_is_alive_response *response, swerex_error *err) {
  return swerex__loop_take(swerex__dep_is_alive(deployment, request, err), response, err);
}

SWEREX_API const char *swerex_deployment_container_name(const swerex_deployment *deployment) {
#ifndef SWEREX_NO_DOCKER
  if (deployment->kind == &swerex__docker_kind && !deployment->idle)
    return swerex__docker_of(deployment)->id[0] == '\0' ? NULL
                                                       : swerex__docker_of(deployment)->name;
#endif
  (void)deployment;
  return NULL;
}

SWEREX_API swerex_runtime *swerex_deployment_runtime(swerex_deployment *deployment,
                                                     swerex_error *err) {
  if (deployment->phase != SWEREX__DEP_STARTED) {
    swerex__err_set(err, SWEREX_E_DEPLOYMENT_NOT_STARTED, "Deployment not started");
    return NULL;
  }
  return deployment->runtime;
}

/* --- server ------------------------------------------------------------------------------- */

#ifndef SWEREX_NO_SERVER
SWEREX_API swerex_server *swerex_server_new(swerex_loop *loop,
                                            const swerex_server_options *options,
                                            swerex_error *err) {
  return swerex__srv_new(loop, options, err);
}

SWEREX_API const char *swerex_server_address(const swerex_server *server) {
  return server->address;
}

SWEREX_API bool swerex_server_done(const swerex_server *server) { return server->done; }

SWEREX_API void swerex_server_free(swerex_server *server) { swerex__srv_free(server); }
#endif

/* --- utilities ---------------------------------------------------------------------------- */

/** Ask the system for a free port; 0 on failure, errno says why. */
static int swerex__api_ask_port(void) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM, 0), port = 0;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  if (fd >= 0 && swerex__sys_prepare_fd(fd, false) &&
      bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
      getsockname(fd, (struct sockaddr *)&address, &size) == 0)
    port = ntohs(address.sin_port);
  swerex__sys_close(&fd);
  return port;
}

SWEREX_API int swerex_find_free_port(swerex_loop *loop, int max_attempts,
                                     double sleep_between_attempts, swerex_error *err) {
  void *ports = loop->ports;
  int attempts = max_attempts > 0 ? max_attempts : 10;
  double pause = sleep_between_attempts > 0 ? sleep_between_attempts : 0.1;
  struct timespec wait = {(time_t)pause, (long)((pause - (double)(time_t)pause) * 1e9)};
  for (int i = 0; i < attempts; i++) {
    size_t known = 0;
    int port = swerex__api_ask_port();
    if (port == 0) {
      swerex__err_system(err, errno, "a TCP socket");
      return 0;
    }
    while (known < loop->port_count && loop->ports[known] != port) known++;
    if (known == loop->port_count) {
      if (!swerex__mem_reserve(&loop->allocator, &ports, &loop->port_room, loop->port_count,
                               sizeof *loop->ports)) {
        swerex__err_memory(err);
        return 0;
      }
      loop->ports = (int *)ports;
      loop->ports[loop->port_count++] = port;
      return port;
    }
    nanosleep(&wait, NULL);
  }
  swerex__err_set(err, SWEREX_E_RUNTIME, "Failed to find a unique free port after %d attempts",
                  attempts);
  return 0;
}

/* =============================================================================================
 * Releases, newest first. Names with two underscores may change in any of them; there is no
 * promise about the binary interface, so rebuild.
 *
 *   0.1.0  sessions, commands and files on this machine; the dummy deployment
 * ========================================================================================== */

#ifdef SWEREX__SYS_QUIET
#pragma GCC diagnostic pop
#endif
#endif /* SWEREX_IMPLEMENTATION_DONE_ */
#endif /* SWEREX_IMPLEMENTATION */

/*
 * MIT License
 *
 * Copyright (c) 2026 the swerex.h authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy
 * of this software and associated documentation files (the "Software"), to deal
 * in the Software without restriction, including without limitation the rights
 * to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 * copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all
 * copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 * LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
 * SOFTWARE.
 */
