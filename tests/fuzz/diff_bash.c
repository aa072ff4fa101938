/* Compares the reader that says "surely complete" with bash itself: random texts, each that is
 * accepted is given to `bash -n`, which must take it without a word. One in four is also given
 * with a line `}` behind it, which must fail there: else the text left something open.
 *
 * Use: diff_bash SEED COUNT [BASH [OPTION...]]
 * COUNT is how many accepted texts are judged. Ends with 1 if one was accepted wrongly. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"

#include <spawn.h>

enum { DIFF_ROOM = 1500, DIFF_SEEN = 1 << 22 };

typedef struct diff_text {
  char data[DIFF_ROOM + 512];
  size_t size;
} diff_text;

typedef struct diff_judge {
  char *argv[16];
  int input, output;
} diff_judge;

/* Pieces that are joined at random, and put into or over other texts. */
static const char *const diff_pieces[] = {
  "echo", "a", "b", "ls -l", "x", "name", "git", "'q'", "'it s'", "\"d $x\"", "\"$(echo y)\"",
  "$(ls)", "$x", "${y}", "${y:-z}", "${#y}", "${y%.*}", "${y//a/b}", "${y:-\"q\"}", "${y:1:2}",
  "${!y}", "${y[@]}", "${y[0]}", "${@:2}", "${y:='q'}", "${y:-$(ls)}", "${", "$((", "))", "((",
  "$((1+2))", "$((x*(y+1)))", "$((10#$x))", "$((x<<1))", "((i++))", "((x>1))", "$'x\\n'",
  "$'it\\'s'", "$\"x\"", "$", "$$", "$?", "$!", "$#", "$@", "$1", "$-", "$[1]", "$'", "`", "`ls`",
  "`ls -l $x | wc`", "\\", "\\\n", " \\\n", "\\ ", "\\$", "\\\"", "\\'", " ", "  ", "\t", "\n",
  "\n\n", ";", ";;", ";&", ";;&", "&", "&&", "||", "|", "|&", "(", ")", "()", "f()", "f ()",
  "f() {", "function f {", "function f()", "function", "{", "}", "{a,b}", "{fd}", "{1..3}", "if",
  "then", "else", "elif", "fi", "for", "in", "do", "done", "while", "until", "case", "esac",
  "select", "time", "time -p", "coproc", "!", "[[", "]]", "[", "]", "[ -f x ]", "[[ -f x ]]",
  "[[ $a == b* ]]", "[[ $a =~ ^[0-9]+$ ]]", "[[ a && ! -z b ]]", "-f", "-n", "-eq", "==", "=~",
  "!=", "=", "+=", "a=b", "a=", "a=(", "a=(1 2)", "a+=(x)", "a[0]=1", "a[", "a[1]", "x[y]=z",
  "a[b,c]", "a[b-1]=c", "a[$x]", "a[\"b\"]", "a['b']",
  "declare a=(1)", "local", "export a=b", "case x in", "a)", "a|b)", "*)", "a) ls;;", "esac)",
  "(a)", "for ((i=0;i<3;i++))", "for x in a b", "for x", "; do", "; then", "; fi", "; done",
  "then\n", "do\n", "do ls;", "#", "# c\n", " #c", "#'", "$#", "~", "*", "?", "?(a)", "@(a|b)",
  "!(a)", "+(", "=(", "^", "%", "@", ",", ":", ".", "/", "-", "--", "0", "1", "12", "2>", "2>&1",
  ">&2", ">f", "> f", ">>f", ">|f", "<f", "<>f", "<&-", ">&-", "2>&-", "&>f", "&>>f", ">& f",
  "<<<w", "<<<$x", "<(ls)", ">(cat)", "< <(ls)", "<(", ">(", "<<E", "<<'E'", "<<\"E\"", "<<\\E",
  "<<-E", "<<E\n", "<<'E'\nit's $( `\nE\n", "<<E\n$x \\\nE\n", "\nE\n", "\nE", "E", "E\n",
  "\tE\n", "E\\\n", "\\\nE\n", "x\\\\\nE\n", "\nEx\n", "\n E\n", "\nE)\n", "\nE )", "$(cat <<E\n",
  "<<A <<B\na\nA\nb\nB\n", "'", "\"", "\"$\"", "\"a$\"",
  "\"$'\"", "\"\\\n\"", "\"$\\\n(\"", "$\\\n(", "\"`ls`\"", "`a 'b c`", "`a | b \"c\"`",
  "\"`a '{b $1}'`\"", "\"`a \"b`\"", "\"${x:-'}\"", "\"${x:-'a'}\"",
  "${x:-'}'}", "\"${x%\\}}\"", "\"${x:-\"y\"}\"", "${x#\\'}", "${x/\\//_}", "\xC3\xA9",
  "\xC3\xA0", "\xE2\x86\x92", "\"\xE2\x80\xA6\"", "\xC3\xA9[", "\xC3\xA9=(", "\xFF", "\xC3",
  "\r", "\v", "\x01", "\x7F", "\xF0\x9F\x98\x80",
};

/* Texts that are changed a little. */
static const char *const diff_texts[] = {
  "for x in a b; do echo $x; done",
  "if ls; then echo a; elif true; then echo b; else echo \"b\"; fi",
  "while true; do echo; done | cat", "until ls; do sleep 1; done > f 2>&1 &",
  "cat <<E\nhi $x\nE\n", "cat <<-'E' > f && ls\n\thi 'x\n\tE\necho b", "( cd a && ls ) > f 2>&1",
  "{ echo a; echo b; } | wc -l", "a=$(ls | wc -l); echo \"$a x\"",
  "echo a && echo b || echo c &\necho d", "python <<'E'\nprint(1)\nE\necho ok",
  "! grep -q x f; echo $?", "cd /tmp\nls -la # list\nmake -j2 2>&1 | tail -5",
  "case $x in\n  a|b) echo 1;;\n  *.py) echo 2\n  ;;\n  *) ;;\nesac",
  "case a in b) ls;; esac | cat",
  "case \"$1\" in -h|--help) echo; ;; [a-z]*) f;; esac; echo x",
  "f() { echo $1; }; f a", "f ()\n{\n  local x=1\n  return 0\n}\nf", "function g { ls; } > f",
  "function h() { if a; then b; fi; }", "[[ -f x && $y == z* ]] && echo ok",
  "if [[ ! -d $x || -n \"$y\" ]]; then ls; fi", "[[ $x =~ ^[0-9]+$ ]]; echo $?",
  "[ -f x ] || exit 1", "((i++)); echo $((i*2+(3-1)))", "for ((i=0; i<10; i++)); do echo $i; done",
  "for ((;;))\ndo break; done", "(( x > 1 )) && ls", "a=(1 2 \"$x\"); echo ${a[@]} ${#a[@]}",
  "A=(\n a\n b\n) B=c", "a[0]=x; a+=(y) ; echo ${a[0]}", "x=1 y=2 env | grep ^x$",
  "echo ${x:-y} ${x%.*} ${x##*/} \"${x/a/b}\" ${x:0:3}", "echo \"${x:-$(date)}\" ${y:+'a b'}",
  "echo $'a\\tb' $'it\\'s'", "diff <(sort a) <(sort b)", "while read x; do echo $x; done < <(ls)",
  "tee >(cat > f) < g", "x=`date`; echo \"`ls | wc -l`\"", "x=`a \"$1\" 'b'`; \"`c 'd'`\"",
  "time make -j4 2>&1 | tail",
  "git commit -m \"$(cat <<'E'\nfix: it's (a) \"b\"\n\nbody\nE\n)\"",
  "x=$(cat <<E\na $y\nE\n) && echo $x", "find . -name '*.py' -exec grep -n foo {} \\; | head",
  "sed -i 's/a/b/g' f && sed -n '1,5p' f", "grep -rn \"foo$\\|^bar\" . --include=*.py",
  "echo a \\\n  b \\\n  c", "a && \\\nb |\\\n  c", "awk '{print $1}' f | sort | uniq -c",
  "exec 3>&1 4<&0 5>&-; echo a >&3", "echo {a,b}{1..3} ~/x ?[a-z]*", "export A=1 B=\"$x\"",
  "cat <<A <<B; ls\na\nA\nb\nB\necho", "cat > f <<E\na \\\nb\nE\nls", "cat <<'E' | (\na\nE\nls)",
  "if true; then\n  cat <<E\nx\nE\nfi", "echo \"a $(echo \"b $(echo 'c')\")\"",
  "(ls; (ls)); ( (ls) )",
  "echo \xC3\xA9 '\xE2\x86\x92' \"\xE2\x80\xA6\"", "$(ls) $x ${x}y", "{ { ls; }; }",
  "x=${y:=${z:-1}}",
  "echo $(( $(ls | wc -l) + ${#x} ))", "echo \"$(case x in a) ls;; esac)\"",
  "echo $$ /tmp/a.$$ \"$!\"",
  "pip install a[b] c==1.0 'd>=2'", "echo a#b # c\n# d\n\nls", "f() { case $1 in a) ls;; esac; }",
};

static unsigned long long diff_state;

static unsigned diff_random(unsigned limit) {
  diff_state = diff_state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (unsigned)(diff_state >> 33) % limit;
}

static void diff_insert(diff_text *text, size_t at, const char *data, size_t size) {
  if (text->size + size > DIFF_ROOM) return;
  memmove(text->data + at + size, text->data + at, text->size - at);
  memcpy(text->data + at, data, size);
  text->size += size;
}

static void diff_append(diff_text *text, const char *data) {
  diff_insert(text, text->size, data, strlen(data));
}

static const char *diff_piece(void) {
  return diff_pieces[diff_random((unsigned)SWEREX__SYS_COUNT(diff_pieces))];
}

static const char *diff_seed(void) {
  return diff_texts[diff_random((unsigned)SWEREX__SYS_COUNT(diff_texts))];
}

static void diff_delete(diff_text *text, size_t at, size_t size) {
  if (at >= text->size) return;
  if (size > text->size - at) size = text->size - at;
  memmove(text->data + at, text->data + at + size, text->size - at - size);
  text->size -= size;
}

/** Return a random place, half of the time one where a word starts or ends. */
static size_t diff_place(const diff_text *text) {
  size_t at = diff_random((unsigned)text->size + 1);
  if (diff_random(2) == 0) return at;
  while (at < text->size && strchr(" \n;|()", text->data[at]) == NULL) at++;
  return at + (at < text->size ? diff_random(2) : 0);
}

static void diff_change(diff_text *text) {
  size_t at = diff_place(text);
  const char *piece = diff_piece();
  switch (diff_random(8)) {
  case 0: diff_delete(text, at, 1 + diff_random(4)); break;
  case 1: diff_delete(text, at, 1 + diff_random(20)); break;
  case 2: {
    const char *seed = diff_seed();
    size_t start = diff_random((unsigned)strlen(seed));
    diff_insert(text, at, seed + start, diff_random((unsigned)(strlen(seed) - start) + 1));
    break;
  }
  case 3: diff_insert(text, at, diff_random(2) != 0 ? " " : "\n", 1); break;
  case 4:
    diff_delete(text, at, strlen(piece));
    diff_insert(text, at, piece, strlen(piece));
    break;
  default: diff_insert(text, at, piece, strlen(piece)); break;
  }
}

/** Put a text into a place of another where a command or a word can stand. */
static void diff_nest(diff_text *text, const char *inner) {
  static const char *const frames[][2] = {
    {"( ", " )"},        {"{ ", "; }"},        {"x=$(", ")"},         {"echo \"$(", ")\""},
    {"if ", "; then ls; fi"}, {"if a; then\n", "\nfi"}, {"for x in a; do ", "; done"},
    {"f() {\n", "\n}"},  {"case x in a) ", ";; esac"}, {"! ", " | cat"}, {"a && ", " || b"},
    {"cat <(", ")"},     {"while ", "; do ls; done"}, {"cat <<E; ", "\nE"}, {"time ", ""},
    {"echo ${x:-", "}"}, {"\"${x:-", "}\""}, {"$((", "))"}, {"[[ ", " ]]"}, {"a=(", ")"},
    {"$(", ")"},         {"x=\"$(", ")\""},   {"cat <(", ")"},
    {"cat <<E\n", "\nE\n"}, {"$(cat <<'E'\n", "\nE\n)"}, {"`", "`"}, {"\"", "\""}, {"'", "'"},
  };
  unsigned i = diff_random((unsigned)SWEREX__SYS_COUNT(frames));
  diff_append(text, frames[i][0]);
  diff_append(text, inner);
  diff_append(text, frames[i][1]);
}

static void diff_make(diff_text *text) {
  unsigned kind = diff_random(8);
  text->size = 0;
  if (kind == 0) {
    for (unsigned left = 1 + diff_random(9); left > 0; left--) {
      diff_append(text, diff_piece());
      if (diff_random(2) == 0) diff_append(text, " ");
    }
    return;
  }
  if (kind < 3) diff_nest(text, diff_random(3) == 0 ? diff_piece() : diff_seed());
  else diff_append(text, diff_seed());
  if (kind == 7) {
    static const char *const joints[] = {"\n", "; ", " && ", " | ", " & ", "|", " ", "\n# c\n"};
    diff_append(text, joints[diff_random((unsigned)SWEREX__SYS_COUNT(joints))]);
    diff_append(text, diff_seed());
  }
  for (unsigned left = 1 + diff_random(4); left > 0; left--) diff_change(text);
}

/** Tell whether a text was made before, as far as a table of this size can. */
static bool diff_seen(const diff_text *text) {
  static unsigned char seen[DIFF_SEEN];
  unsigned long long hash = 1469598103934665603ULL;
  for (size_t i = 0; i < text->size; i++)
    hash = (hash ^ (unsigned char)text->data[i]) * 1099511628211ULL;
  unsigned char *slot = &seen[(hash >> 8) % DIFF_SEEN];
  unsigned char mark = (unsigned char)(hash | 1);
  if (*slot == mark) return true;
  *slot = mark;
  return false;
}

/** Give a text and one more line to bash; return its exit code, and whether it said anything. */
static int diff_run(diff_judge *judge, const diff_text *text, const char *line, bool *said) {
  posix_spawn_file_actions_t actions;
  struct stat info;
  pid_t child;
  int status = -1;
  if (ftruncate(judge->output, 0) != 0 ||
      !swerex__sys_fill_scratch(judge->input, text->data, text->size) ||
      !swerex__sys_write_all(judge->input, line, strlen(line)))
    return -1;
  lseek(judge->input, 0, SEEK_SET);
  lseek(judge->output, 0, SEEK_SET);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, judge->input, 0);
  posix_spawn_file_actions_adddup2(&actions, judge->output, 1);
  posix_spawn_file_actions_adddup2(&actions, judge->output, 2);
  if (posix_spawn(&child, judge->argv[0], &actions, NULL, judge->argv, environ) == 0)
    waitpid(child, &status, 0);
  posix_spawn_file_actions_destroy(&actions);
  *said = fstat(judge->output, &info) != 0 || info.st_size != 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void diff_print(const char *what, int code, const diff_text *text) {
  printf("%s (exit code %d): ", what, code);
  for (size_t i = 0; i < text->size; i++) {
    unsigned char c = (unsigned char)text->data[i];
    if (c == '\n') printf("\\n");
    else if (c < ' ' || c >= 127) printf("\\x%02x", c);
    else putchar(c);
  }
  printf("\n");
  fflush(stdout);
}

/** Judge one accepted text. */
static bool diff_check(diff_judge *judge, const diff_text *text, bool twice) {
  bool said;
  int code = diff_run(judge, text, "\n", &said);
  if (code != 0 || said) {
    diff_print("accepted, but not valid", code, text);
    return false;
  }
  if (!twice) return true;
  code = diff_run(judge, text, "\n}\n", &said);
  if (code == 0) diff_print("accepted, but left open", code, text);
  return code != 0;
}

int main(int argc, char **argv) {
  static diff_text text;
  char path[2][PATH_MAX];
  unsigned long made = 0, accepted = 0, wrong = 0;
  if (argc < 3) {
    fprintf(stderr, "usage: diff_bash SEED COUNT [BASH [OPTION...]]\n");
    return 2;
  }
  diff_state = strtoull(argv[1], NULL, 10) * 2654435761ULL + 1;
  unsigned long count = strtoul(argv[2], NULL, 10);
  char bash[] = "/bin/bash", check[] = "-n";
  diff_judge judge = {{argc > 3 ? argv[3] : bash, check}, -1, -1};
  for (int i = 4; i < argc && i < 16; i++) judge.argv[i - 2] = argv[i];
  judge.input = swerex__sys_open_scratch(path[0], sizeof path[0]);
  judge.output = swerex__sys_open_scratch(path[1], sizeof path[1]);
  if (judge.input < 0 || judge.output < 0) return 2;
  while (accepted < count && wrong < 20) {
    diff_make(&text);
    made++;
    if (!swerex__bash_is_sure(text.data, text.size) || diff_seen(&text)) continue;
    accepted++;
    if (!diff_check(&judge, &text, accepted % 4 == 0)) wrong++;
  }
  swerex__sys_close_scratch(&judge.input, path[0]);
  swerex__sys_close_scratch(&judge.output, path[1]);
  printf("made %lu, accepted and judged %lu, wrong %lu\n", made, accepted, wrong);
  return wrong == 0 ? 0 : 1;
}
