//! The built-in problem, the sum of a list of numbers, and 20 submissions: right, wrong and hostile
//! ones.

use std::time::Duration;

use crate::contest::{Language, Problem, Submission, Test};

/// Returns the problem: print the sum of the numbers of the input.
pub(crate) fn problem() -> Problem {
    let test =
        |input: &str, expected: &str| Test { input: input.into(), expected: expected.into() };
    let many: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    Problem {
        tests: vec![test("1\n2\n3\n", "6\n"), test("-5\n", "-5\n"), test(&many, "200010000\n")],
        time: Duration::from_secs(1),
        memory_mb: 64,
        output_bytes_max: 64 * 1024,
    }
}

pub(crate) fn submissions() -> Vec<Submission> {
    SUBMISSIONS
        .iter()
        .map(|(name, source)| Submission {
            name: (*name).to_owned(),
            language: name
                .rsplit_once('.')
                .and_then(|(_, ending)| Language::of_ending(ending))
                .unwrap_or(Language::Shell),
            source: source.as_bytes().to_vec(),
        })
        .collect()
}

const SUBMISSIONS: [(&str, &str); 20] = [
    (
        "right.c",
        r#"
#include <stdio.h>
int main(void) { long sum = 0, x; while (scanf("%ld", &x) == 1) sum += x; printf("%ld\n", sum); }
"#,
    ),
    ("right.py", "import sys\nprint(sum(map(int, sys.stdin)))\n"),
    ("right.sh", "sum=0; while read -r x; do sum=$((sum + x)); done; echo $sum\n"),
    (
        "right-with-threads.py",
        "
import sys, concurrent.futures
with concurrent.futures.ThreadPoolExecutor(4) as pool: print(sum(pool.map(int, sys.stdin)))
",
    ),
    ("right-by-a-file.sh", "cat > /tmp/a; awk '{ sum += $1 } END { print sum }' /tmp/a\n"),
    (
        "wrong.c",
        r#"
#include <stdio.h>
int main(void) { int sum = 0, x; while (scanf("%d", &x) == 1) sum += x > 0 ? x : 0; printf("%d\n", sum); }
"#,
    ),
    ("wrong-nothing.py", ""),
    ("slow.py", "while True: pass\n"),
    ("slow-children.sh", "for i in 1 2 3; do while :; do :; done & done; wait\n"),
    ("sleeper.sh", "sleep 1000\n"),
    ("hungry.py", "b = []\nwhile True: b.append(bytearray(1 << 20))\n"),
    (
        "hungry.c",
        r#"
#include <stdlib.h>
#include <string.h>
int main(void) { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }
"#,
    ),
    ("hungry-disk.sh", "while head -c 1000000 /dev/zero >> /tmp/a; do :; done; exit 1\n"),
    ("chatty.sh", "yes\n"),
    ("chatty-errors.sh", "yes >&2\n"),
    ("crash.c", "int main(void) { *(volatile int *)8 = 1; }\n"),
    ("crash.py", "raise SystemExit(3)\n"),
    ("fork-bomb.sh", "f() { f | f & }; f; exit 1\n"),
    (
        "attack-trace.c",
        r#"
#include <sys/ptrace.h>
int main(void) { ptrace(PTRACE_TRACEME, 0, 0, 0); return 0; }
"#,
    ),
    ("does-not-compile.c", "int main(void) { return nothing; }\n"),
];
