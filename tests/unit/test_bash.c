/* [word], [bash], [shell]: what is accepted as surely complete, compared with bash itself; quoting;
 * what is typed, and what is left out of what comes between two commands. */
#define SWEREX_IMPLEMENTATION
#include "swerex.h"
#include "test.h"

/** Commands as coding agents type them; each is valid, each should be accepted. */
static const char *const bash_agent_commands[] = {
  "ls -la", "pwd", "cd /testbed && git status", "git diff", "git log --oneline -10",
  "git diff HEAD~1 -- src/main.c | head -100", "git show HEAD:setup.py",
  "git stash && git stash pop", "git log --pretty=format:'%h %an %s' --since=\"2 weeks ago\"",
  "git checkout -b fix/issue-123",
  "git add -A && git commit -m \"Fix: don't crash on empty input\"",
  "git commit -m \"$(cat <<'EOF'\nFix parser (again)\n\nIt's what `foo` \"needs\".\nEOF\n)\"",
  "git branch --show-current 2>/dev/null || echo detached", "git grep -n \"def foo(\" -- '*.py'",
  "git config user.email \"a@b.c\" && git config user.name 'A B'", "git rev-parse HEAD~{1}",
  "git blame -L 10,20 src/x.py", "git reset --hard HEAD@{1}",
  "git apply --check <<'PATCH'\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b's\nPATCH\n",
  "git ls-files | xargs wc -l | sort -n | tail -5", "grep -rn \"class Foo\" --include=\"*.py\" .",
  "grep -rn 'foo(\\|bar$' src/ | head -20", "grep -E \"^(import|from) [a-z]+$\" -r . | sort -u",
  "grep -n \"TODO\\|FIXME\" *.c", "grep -c . file.txt",
  "grep -rnw /path -e 'pattern' --exclude-dir={.git,node_modules}",
  "grep -rn \"\\$HOME\" ~/.bashrc", "grep -A5 -B2 'error: .*' build.log",
  "grep -oP '(?<=v)\\d+' VERSION", "find . -name '*.py' -not -path './.git/*' | head",
  "find . -type f -size +1M -exec ls -lh {} \\;", "find . -name \"*.pyc\" -delete",
  "find / -name \"libfoo*\" 2>/dev/null",
  "find . \\( -name '*.c' -o -name '*.h' \\) -print0 | xargs -0 grep -l foo",
  "find src -name '*.ts' -exec grep -l 'useState' {} +", "sed -n '10,20p' file.py",
  "sed -i 's/foo/bar/g' src/*.py", "sed -i \"s/version = .*/version = \\\"1.2\\\"/\" setup.cfg",
  "sed -i '5a\\    return None' x.py", "sed -e 's|/usr|/opt|' -e '/^#/d' conf > conf.new",
  "sed -n \"${start},${end}p\" \"$file\"", "sed -i 's/a/b/;s/c/d/' f && cat f",
  "awk '{print $1, $NF}' access.log | sort | uniq -c | sort -rn | head",
  "awk -F: '$3 >= 1000 {print $1}' /etc/passwd", "awk 'NR==FNR{a[$1];next} $1 in a' f1 f2",
  "cat file.txt", "cat -A x | head -3",
  "cat << 'EOF' > test.py\nimport os\nprint(\"it's\")\nEOF\npython test.py",
  "cat > /tmp/reproduce.py <<EOF\nimport x\nprint(x.y)\nEOF",
  "cat <<EOF >> Dockerfile\nRUN apt-get update && \\\n    apt-get install -y git\nEOF",
  "cat <<-EOF | tee a.txt\n\thello $USER\n\tEOF\n",
  "python3 - <<'EOF'\nimport sys\nfor i in range(3):\n    print(f\"{i}\", '$x', `1`)\nEOF",
  "python -c \"import sys; print(sys.version)\"", "python -c 'print(\"hi\")'",
  "python -c \"\nimport foo\nprint(foo.bar(1, 'x'))\n\"",
  "python -m pytest tests/test_x.py::TestY::test_z -xvs",
  "python -m pytest -q -k 'not slow' 2>&1 | tail -30",
  "cd /testbed && python -m pytest tests/ -x -q 2>&1 | tail -20; echo \"exit ${PIPESTATUS[0]}\"",
  "PYTHONPATH=src python -m foo --bar=1",
  "PYTHONPATH=$PYTHONPATH:/x DEBUG=1 python a.py &> out.log", "pip install -e . 2>&1 | tail -3",
  "pip install 'numpy>=1.20' pytest==7.4.0", "pip install -e .[dev,test]",
  "pip install uvicorn[standard]", "pip list --format=freeze | grep -i django",
  "source venv/bin/activate && which python",
  ". /opt/conda/etc/profile.d/conda.sh; conda activate testbed",
  "export PATH=\"$HOME/.local/bin:$PATH\"", "export FOO=bar BAZ='q u x'", "unset FOO; env | sort",
  "echo $?", "echo \"Done: $?\"", "echo \"hello world\" > /tmp/a.txt", "echo -e \"a\\nb\" >> f",
  "printf '%s\\n' \"$x\" a b", "printf 'a\\tb\\n' | od -c", "echo $'tab\\there'",
  "echo {1..5} {a,b}.txt", "echo \"${HOME}/x ${FOO:-default} ${#FOO}\"",
  "echo \"Files: $(ls | wc -l) in $(pwd)\"", "echo \"100$ and 5% of $5\"",
  "echo \"na\xC3\xAFve \xE2\x86\x92 d\xC3\xA9j\xC3\xA0 vu\"", "echo caf\xC3\xA9",
  "npm install --save-dev jest@29", "npm test -- --coverage 2>&1 | tee out.txt",
  "npx tsc --noEmit -p .", "yarn build && yarn test",
  "node -e \"console.log(require('./package.json').version)\"",
  "cargo build --release 2>&1 | grep -E '^(warning|error)' | head -50",
  "cargo test -- --nocapture", "go test ./... -run 'TestFoo$' -v",
  "go vet ./... && go build -o bin/x ./cmd/x", "make -j$(nproc) 2>&1 | tail -5",
  "make clean all CC=clang CFLAGS='-O2 -g'",
  "mkdir -p build && cd build && cmake .. -DCMAKE_BUILD_TYPE=Debug",
  "gcc -Wall -o x x.c && ./x < in.txt > out.txt 2>&1",
  "./configure --prefix=/usr && make && make install",
  "docker ps -a --format '{{.Names}}\\t{{.Status}}'",
  "docker run --rm -v \"$PWD\":/w -w /w python:3.11 bash -c \"ls && pwd\"",
  "curl -s https://example.com/a?b=c\\&d=e | jq '.items[] | .name'",
  "curl -fsSL -H \"Authorization: Bearer $TOKEN\" \"$URL/x\" -o /dev/null -w '%{http_code}\\n'",
  "curl -X POST -d '{\"a\": 1}' http://localhost:8080/api",
  "wget -q -O - http://x.y/z | tar xz -C /tmp --strip-components=1",
  "tar -czf a.tgz --exclude='*.o' src", "ps aux | grep python | grep -v grep",
  "kill -9 $(pgrep -f server.py) || true", "nohup python server.py > server.log 2>&1 &",
  "sleep 2; curl localhost:8000", "timeout 60 ./run.sh; echo \"rc=$?\"", "time make test",
  "! grep -q foo bar && echo absent", "which -a python3 pip",
  "command -v rg >/dev/null 2>&1 || echo no rg",
  "for f in *.py; do echo \"== $f\"; head -5 \"$f\"; done", "for i in 1 2 3; do\n  echo $i\ndone",
  "for i in $(seq 1 10); do ./t $i || break; done",
  "for i in {1..3}; do python t.py --seed $i; done | tee log",
  "for ((i=0; i<3; i++)); do echo $i; done", "for d in */; do (cd \"$d\" && git pull); done",
  "while read -r line; do echo \"$line\"; done < file.txt",
  "ls | while IFS= read -r f; do mv \"$f\" \"${f%.txt}.md\"; done",
  "while ! nc -z localhost 80; do sleep 1; done",
  "until curl -s localhost:8080; do sleep 0.5; done",
  "while IFS=, read -r a b; do echo $a; done < <(tail -n +2 x.csv)",
  "if [ -f setup.py ]; then pip install -e .; fi",
  "if [[ $? -eq 0 ]]; then echo ok; else echo bad; fi",
  "if [ \"$x\" = \"y\" ] && [ -n \"$z\" ]; then\n  echo a\nelif [ -d /tmp ]; then\n  echo b\n"
    "else\n  echo c\nfi",
  "[ -d node_modules ] || npm ci", "[[ -f .env && -r .env ]] && source .env",
  "[[ \"$x\" =~ ^v[0-9]+$ ]] || exit 1", "[[ $name == *.tar.gz ]] && tar tzf \"$name\"",
  "test -e x && rm -rf x", "true && false || echo $((1 + 2 * 3))", "x=$((x + 1)); echo $x",
  "n=$(wc -l < file); echo $((n / 2))", "((count++)) || true",
  "files=(a.py b.py); for f in \"${files[@]}\"; do echo $f; done",
  "VERSION=`cat VERSION`; echo $VERSION",
  "case \"$1\" in\n  start) echo s;;\n  stop|halt)\n    echo t\n    ;;\n  *) echo usage; exit "
    "1 ;;\nesac",
  "run() { echo \"+ $*\"; \"$@\"; }\nrun ls -l", "function die() { echo \"$1\" >&2; exit 1; }",
  "cleanup() {\n  rm -rf \"$tmp\"\n}\ntrap cleanup EXIT", "set -e; set -o pipefail; ls | head",
  "set -euo pipefail\ncd /repo\n# run the tests\nmake test # all\n", "(cd sub && make) && echo ok",
  "{ echo a; echo b; } > out", "diff <(sort a.txt) <(sort b.txt)",
  "diff -u a b > p.patch; test $? -le 1", "ls -l | tee >(wc -l >&2) | head -2",
  "apt-get update && apt-get install -y --no-install-recommends \\\n    git \\\n    curl && "
    "\\\n  rm -rf /var/lib/apt/lists/*",
  "sudo -n true 2>/dev/null && echo root", "chmod +x run.sh && ./run.sh --flag='a b' -- \"$@\"",
  "cp -r src/{a,b} /tmp/ && ls /tmp/a", "rm -f /tmp/*.log; df -h / | tail -1",
  "xxd -l 64 bin | head", "head -c 100 /dev/urandom | base64 -w0",
  "stat -c '%s %n' * 2>/dev/null | sort -n", "jq -r '.[] | select(.a > 1) | \"\\(.b)\"' x.json",
  "perl -pe 's/(\\w+)/<$1>/g' f", "perl -ne 'print if /foo/../bar/' x",
  "ruby -e 'puts [1,2].map { |x| x*2 }.inspect'",
  "sqlite3 db.sqlite \"SELECT name FROM sqlite_master WHERE type='table';\"",
  "mysql -e 'show tables' -u root -p\"$PW\" db", "psql -c \"\\dt\"", "echo 'a' | tr a-z A-Z | rev",
  "tee conf.yml > /dev/null <<'YAML'\na:\n  - \"b\"\n  - 'c'\nYAML\ncat conf.yml",
  "patch -p1 < fix.patch", "ls *.{c,h} 2>/dev/null | wc -l",
  "str_replace_editor view /repo/x.py --view_range 1 50",
  "export A=$(python -c \"import os; print(os.sep)\")", "echo \"$(date +%Y-%m-%d) $(hostname)\"",
  "python manage.py test app.tests.TestX --parallel=4 --keepdb 2>&1 | grep -v '^$' | tail -40",
  "sed 's/^[ \\t]*//;s/[ \\t]*$//' f",
};

/** Valid, but for bash to say so; or not valid; or they leave something open. */
static const char *const bash_unsure[] = {
  "echo \"", "echo '", "echo $(", "echo ${x", "echo $((1", "echo `", "echo a |", "echo a &&",
  "if true", "if true; then", "for x in a; do", "for x in a b", "case x in", "f() {", "f()", "(",
  "((1", "[[ a", "[[ a ]", "{ ls;", "a=(", "a=(1", "cat <<E", "cat <<E\na", "cat <<E\nE ",
  "cat <<E\n E\n", "cat <<'E'\na\n\"E\"\n", "cat <<E\n\\\nE", "cat <<EOF\nE\\\nOF\n",
  "cat <<E\nx\\", "cat <<E\nx\\\n", "echo a \\", "echo a\\", "echo a \\\n", "\\", "\\\n", "echo )",
  "ls; }", "fi", "done", "then", ";", "; ls", "ls ;; ls", "ls | | ls", "ls && ; ls", "& ls",
  "ls & & ls", "! ", "!", "! ! ls", "! | ls", "if ls; then fi", "while do ls; done",
  "for x in a; done", "for in in a; do", "for 1 in a; do ls; done", "case x in a) ls",
  "case x in a ls;; esac", "case x in esac) ls;; esac", "case x a) ls;; esac", "echo (a)",
  "a=b(c)", "a(b)", "f() ls", "f( ) { ls; }", "1f() { ls; }", "if() { ls; }", "echo a>(b", "ls >",
  "ls > ;", "ls > > f", "ls >f>g", "ls > 1>f", "ls > {a}>f", "ls <<", "ls << ;", "ls <<<",
  "ls >& ;", "ls >&-x", "2>&1-(", "[[ a b ]]", "[[ -f ]]", "[[ a == ]]", "[[ ]]", "[[ ! ]]",
  "[[ a && ]]", "[[ a ]] b", "[[ (a) ]]", "[[ a=b]]", "[[ a < ]]", "echo $((1<<2))",
  "echo $((1+(2))", "echo $((1)+(2))", "for ((;)); do ls; done", "for ((;;;)); do ls; done",
  "select x in a; do ls; done", "coproc ls", "time", "time; ls", "ls | time ls", "time -p ls",
  "echo $\"a\"", "echo $[1+2]", "echo $\\\n(ls)", "echo \"$\\\n(ls)\"", "$(\\\n(ls))",
  "echo `ls \\`a\\``", "echo `ls # a`", "echo \"`ls \\\"a\\\"`\"", "a[1", "a[x y]=1", "a[0]=(1)",
  "declare a=(1)", ">f a=(1)", "echo a[$(ls", "echo ${}", "echo ${ x}", "echo ${x y}",
  "echo ${x|y}", "echo \"${x:-'a'}\"", "echo ${x:-(a)}", "echo ${x:-`a`}", "echo ${x:-<(a)}",
  "echo $(ls # a\n)", "echo $(case x in a) ls;; esac)", "echo $(time ls)", "echo $(cat <<E\na)",
  "echo $(cat <<E)\na\nE\n", "cat <<E $(ls\n)\nE\n", "cat <<E <(ls)\nE\n", "ls |&& ls",
  "ls ||| ls", "ls &&& ls", "ls;;", "a=(1)b", "a=(1)(2)", "a=(<(ls))", "a=([0]=1)", "a=(1;2)",
  "a=(1 # c\n)", "function f ls", "function { ls; }", "function f", "function if { ls; }",
  "\xC3\xA9[1", "a\xC3\xA0", "ls > f(", "echo a#b(", "x=#(a", "\"a\"(b)", "$x(b)", "esac", "in",
  "$(cat <<E\nEx\n)\nE\n)", "$(cat <<E <<F\nE\nF\n)", "$(cat <<E\na\\\nb\nE\n)", "$($(ls)#)",
  "<(a=(1); echo $\n{a)", "$(cat case x in)", ">(cat case x in> f)", "a[\"$({ { ls; }; })\"",
  "a[]=x", "<<<x &>>fa= b", "a >b=c", "<x a=b c[1", "<x a=b", "echo $$(ls)", "echo \"$${x\"",
};

static bool bash_sure(const char *text) { return swerex__bash_is_sure(text, strlen(text)); }

/** Let bash judge a text; true if it takes it without a word. */
static bool bash_judge(const char *text) {
  char path[PATH_MAX], command[PATH_MAX + 64], first[16];
  int fd = swerex__sys_open_scratch(path, sizeof path);
  if (fd < 0 || !swerex__sys_write_all(fd, text, strlen(text)) ||
      !swerex__sys_write_all(fd, "\n", 1))
    return false;
  snprintf(command, sizeof command, "bash -n < %s 2>&1", path);
  FILE *pipe_ = popen(command, "r");
  bool quiet = pipe_ != NULL && fread(first, 1, sizeof first, pipe_) == 0;
  bool taken = pipe_ != NULL && pclose(pipe_) == 0;
  swerex__sys_close_scratch(&fd, path);
  return quiet && taken;
}

TEST(bash_classes_match_their_description) {
  static const char *const sets[8] = {
    "_", "", "_-./:=,+@%^~*?[]{}#!", " \t\n;&|<>()", "\"\\$`", "_ \t+-*/%<>=!&|^~?:,[]",
    "_ \t-./:=,+@%^~*?[]#!", " \t\n;&|)./,:%+=~^]\\"};
  for (int c = 1; c < 128; c++) {
    bool digit = c >= '0' && c <= '9';
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    for (int i = 0; i < 8; i++) {
      bool expected = strchr(sets[i], c) != NULL;
      if (i == 0 || i == 2 || i == 5 || i == 6) expected = expected || digit || letter;
      if (i == 1) expected = digit;
      CHECK_INT(swerex__word_is(c, 1 << i), expected);
    }
  }
  CHECK(!swerex__word_is(0, 0xFF));
  CHECK(!swerex__word_is(-1, 0xFF));
}

TEST(bash_agent_commands_are_sure) {
  size_t count = SWEREX__SYS_COUNT(bash_agent_commands);
  for (size_t i = 0; i < count; i++) {
    if (!bash_sure(bash_agent_commands[i])) printf("# not sure: %s\n", bash_agent_commands[i]);
    CHECK(bash_sure(bash_agent_commands[i]));
    if (!bash_judge(bash_agent_commands[i])) printf("# not valid: %s\n", bash_agent_commands[i]);
    CHECK(bash_judge(bash_agent_commands[i]));
  }
}

TEST(bash_open_and_invalid_texts_are_unsure) {
  for (size_t i = 0; i < SWEREX__SYS_COUNT(bash_unsure); i++) {
    if (bash_sure(bash_unsure[i])) printf("# sure: %s\n", bash_unsure[i]);
    CHECK(!bash_sure(bash_unsure[i]));
  }
}

/* Whatever stands at its start of a valid text may be valid or not; it is accepted only if it is,
 * and then a } behind it must not be. */
TEST(bash_prefixes_are_judged_as_bash_does) {
  static const char *const texts[] = {
    "git commit -m \"$(cat <<'EOF'\nit's (a\nEOF\n)\" && x=`ls`; a=(1 2)\n",
    "case $x in a|b) ls;; *) f() { [[ -f a ]] && ls; };; esac\n",
    "for ((i=0;i<2;i++)); do echo $((i+(1))) ${x:-\"a}\"}; done < <(ls) # c\n",
    "if a; then\ncat <<A <<-'B'\n\\\\\nAb\\\nA\nA\n\tB\nfi\n"};
  char text[256];
  for (size_t i = 0; i < SWEREX__SYS_COUNT(texts); i++) {
    CHECK(bash_sure(texts[i]));
    for (size_t size = 0; size <= strlen(texts[i]); size++) {
      if (!swerex__bash_is_sure(texts[i], size)) continue;
      memcpy(text, texts[i], size);
      text[size] = '\0';
      CHECK(bash_judge(text));
      memcpy(text + size, "\n}", 3);
      CHECK(!bash_judge(text));
    }
  }
}

TEST(bash_control_characters_and_broken_utf8_are_unsure) {
  char text[] = "echo 'x' # x";
  for (int c = 0; c < 256; c++) {
    bool allowed = c == '\t' || c == '\n' || (c >= ' ' && c < 127 && c != '\'');
    text[6] = (char)c;
    CHECK_INT(swerex__bash_is_sure(text, strlen("echo 'x' # x")), allowed);
  }
  CHECK(bash_sure("echo '\xC3\xA9\xE2\x86\x92\xF0\x9F\x98\x80' \"\xC3\xA0\""));
  CHECK(!bash_sure("echo '\xC3"));
  CHECK(!bash_sure("echo '\xE2\x86'"));
  CHECK(!bash_sure("echo \xF5\x80\x80\x80"));
  CHECK(!bash_sure("echo \xC3\xA0"));
  CHECK(!bash_sure("echo a\r"));
}

TEST(bash_nesting_and_here_documents_are_limited) {
  char text[4096];
  const char *const pairs[][2] = {
    {"(", ")"}, {"$(", ")"}, {"${x:-", "}"}, {"$((", "))"}, {"\"$(", ")\""}};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(pairs); i++) {
    for (int depth = 1; depth < 300; depth += 1 + depth / 8) {
      text[0] = '\0';
      if (i > 0) strcat(text, "a ");
      for (int k = 0; k < depth; k++) strcat(strcat(text, pairs[i][0]), i == 0 ? " " : "");
      strcat(text, i == 3 ? "1" : "b");
      for (int k = 0; k < depth; k++) strcat(text, pairs[i][1]);
      bool sure = bash_sure(text);
      CHECK(depth > 5 || sure);
      CHECK(depth <= SWEREX__WORD_DEPTH || !sure);
    }
  }
  CHECK(bash_sure("a <<A <<A <<A <<A <<A <<A <<A <<A\nA\nA\nA\nA\nA\nA\nA\nA\n"));
  CHECK(!bash_sure("a <<A <<A <<A <<A <<A <<A <<A <<A <<A\nA\nA\nA\nA\nA\nA\nA\nA\nA\n"));
}

/* 256 KiB of each piece, and of pieces that open and never close, takes no more than a moment. */
TEST(bash_large_texts_take_linear_time) {
  static const char *const pieces[] = {
    "a ", "a", "ls\n", "ls; ", "ls | ", "ls && ", "(", ")", "{ ", "$(", "${x", "$((", "((", "'",
    "\"", "\"$", "\\\n", " \\\n", "\\", "`", "`a", "#", "#\n", "<<E ", "<<E\n", "a=(", "a[", "if ",
    "case x in a) ", "f() { ", "[[ a && ", "1", "1>", "\xC3\xA9", "$x", "$", "$$", "!", "! ", "\t",
    "\n", "E\n", "a\\\n", "\"$(", "\"${", "${x:-", "x=$(cat <<E\n", ";;", "a) ;;",
  };
  size_t size = 1 << 18;
  char *text = (char *)malloc(size + 64);
  CHECK(text != NULL);
  for (size_t i = 0; text != NULL && i < SWEREX__SYS_COUNT(pieces); i++) {
    size_t piece = strlen(pieces[i]), used = 0;
    while (used + piece <= size) {
      memcpy(text + used, pieces[i], piece);
      used += piece;
    }
    struct timespec start, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    swerex__bash_is_sure(text, used);
    swerex__bash_is_sure(text + 1, used - 1);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    CHECK((double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9 < 1.0);
  }
  free(text);
}

TEST(bash_blank_texts) {
  static const char *const blank[] = {"", " ", "\t\n ", "# a", "# a\n", "\n  # 'a\n\n\t# b"};
  static const char *const other[] = {"a", "# a\nb", ":", "\\\n", "\r", " ;", "\v", "#\n\xC2\xA0"};
  for (size_t i = 0; i < SWEREX__SYS_COUNT(blank); i++) {
    CHECK(swerex__bash_is_blank(blank[i], strlen(blank[i])));
    CHECK(bash_sure(blank[i]));
  }
  for (size_t i = 0; i < SWEREX__SYS_COUNT(other); i++)
    CHECK(!swerex__bash_is_blank(other[i], strlen(other[i])));
  CHECK(!swerex__bash_is_blank("\0", 1));
}

TEST(bash_quote_escapes_what_a_terminal_would_take) {
  swerex__str out = swerex__str_new(NULL, 1000);
  swerex__bash_quote(&out, "", 0);
  CHECK_STR(out.data, "$''");
  swerex__str_clear(&out);
  swerex__bash_quote(&out, "a'b\\c\nd\te\x7F\x01\x1B\xC3\xA9 \"$x`!", 20);
  CHECK_STR(out.data, "$'a\\'b\\\\c\\nd\\011e\\177\\001\\033\xC3\xA9 \"$x`!'");
  swerex__str_clear(&out);
  swerex__bash_quote(&out, "1\0002", 3);
  CHECK_STR(out.data, "$'1\\0002'");
  swerex__str_clear(&out);
  swerex__bash_quote_word(&out, "");
  CHECK_STR(out.data, "''");
  swerex__str_clear(&out);
  swerex__bash_quote_word(&out, "it's 'a' \\ $x");
  CHECK_STR(out.data, "'it'\\''s '\\''a'\\'' \\ $x'");
  swerex__str_clear(&out);
}

TEST(bash_quote_keeps_to_the_limit_of_its_string) {
  for (size_t max = 0; max < 12; max++) {
    swerex__str out = swerex__str_new(NULL, max);
    swerex__bash_quote(&out, "a\n'b\x01", 5);
    CHECK_INT(out.failed, max < 13);
    swerex__bash_quote_word(&out, "a'b");
    CHECK(out.failed);
    CHECK(out.size <= max);
    swerex__str_clear(&out);
  }
}

/** Write a script that prints 100 random texts, each quoted in both ways; return what it prints. */
static bool bash_round_trip(unsigned seed, const char *locale) {
  swerex__str script = swerex__str_new(NULL, 1 << 20), expected = swerex__str_new(NULL, 1 << 20);
  char path[PATH_MAX], command[PATH_MAX + 64], text[65];
  bool same = true;
  for (int i = 0; i < 100; i++) {
    size_t size = 0;
    for (; size < 1 + seed % 64; size++) {
      seed = seed * 1103515245U + 12345U;
      text[size] = (char)(1 + (seed >> 16) % 255);
    }
    text[size] = '\0';
    swerex__str_puts(&script, "printf '%s|%s;' ");
    swerex__bash_quote(&script, text, size);
    swerex__str_putc(&script, ' ');
    swerex__bash_quote_word(&script, text);
    swerex__str_putc(&script, '\n');
    swerex__str_printf(&expected, "%s|%s;", text, text);
  }
  int fd = swerex__sys_open_scratch(path, sizeof path);
  same = fd >= 0 && swerex__sys_write_all(fd, script.data, script.size);
  snprintf(command, sizeof command, "LC_ALL=%s bash %s", locale, path);
  FILE *pipe_ = popen(command, "r");
  for (size_t i = 0; same && pipe_ != NULL && i < expected.size; i++)
    same = fgetc(pipe_) == (unsigned char)expected.data[i];
  same = same && pipe_ != NULL && fgetc(pipe_) == EOF;
  if (pipe_ != NULL) pclose(pipe_);
  swerex__sys_close_scratch(&fd, path);
  swerex__str_clear(&script);
  swerex__str_clear(&expected);
  return same;
}

TEST(bash_reads_quoted_text_as_it_was) {
  for (unsigned seed = 1; seed <= 20; seed++) {
    CHECK(bash_round_trip(seed * 7919, "C"));
    CHECK(bash_round_trip(seed * 104729, "C.UTF-8"));
  }
}

/** Where there is no memory file, a long text goes through one below TMPDIR, whatever that is. */
TEST(shell_reads_a_file_of_any_name) {
  static const char file[] = "/tmp/it's a $(folder)/x";
  char text[5000];
  swerex__shell shell = {"0123456789abcdef0123456789abcdef", "/dev/tty", file, false};
  swerex__shell_form form = {1, true, false, false, false, 0};
  swerex__str line = swerex__str_new(NULL, 10000), content = swerex__str_new(NULL, 10000);
  memset(text, 'a', sizeof text);
  swerex__shell_compose(&shell, &form, text, sizeof text, &line, &content);
  CHECK_STR(line.data, " IFS= \\builtin read -rd '' _swx <'/tmp/it'\\''s a $(folder)/x'; "
                       "\\builtin eval \"$_swx\"\n");
  CHECK(content.size > sizeof text);
  swerex__str_clear(&line);
  shell.posix = true;
  swerex__shell_compose(&shell, &form, "ls", 2, &line, &content);
  CHECK_STR(line.data, " . '/tmp/it'\\''s a $(folder)/x'\n");
  swerex__str_clear(&line);
  swerex__str_clear(&content);
}

TEST(shell_leaves_out_prompts_and_jobs_that_are_done) {
  swerex__str carry = swerex__str_new(NULL, 1000);
  swerex__str_puts(&carry, "SHELLPS1PREFIX[1]+  Done   a\r\nlate\r\n[2] - Exit 3   b\r\n"
                           "[3] + Done   c\r\n[4]   Killed   d\r\n[x] Done\r\nSHELLPS1PREFIX[5]");
  swerex__shell_clean_carry(&carry);
  CHECK_MEM(carry.data, carry.size, "late\r\n[4]   Killed   d\r\n[x] Done\r\n[5]");
  swerex__str_clear(&carry);
}

TEST_MAIN()
