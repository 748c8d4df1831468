//! Compiles the lists of system calls into the BPF program that the kernel runs at each call.
//!
//! The kernel tries a new filter on every call number when it is loaded, so loading a chain of
//! comparisons takes quadratic time: half a millisecond of each start for the lists of this crate.
//! Here a binary tree finds the verdict on a number in at most nine comparisons, and only calls
//! with rules about their arguments continue with a chain.

use std::collections::BTreeMap;

use libc::sock_filter;

use crate::linux::guard::arguments::{Answer, BY_ARGUMENT, ByArgument, Case, Condition};
use crate::linux::guard::profile::SystemCalls;
use crate::linux::guard::seccomp::{ABSENT, ALLOWED, IGNORED, NEW_FIRST, NOT_SUPPORTED};

/// Compiles the filter into the form that the init loads: the number of instructions (8 bytes),
/// then the instructions.
pub(in crate::linux) fn compile(profile: SystemCalls) -> Vec<u8> {
    let program = program(profile);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(program.len() as u64).to_ne_bytes());
    for instruction in &program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    bytes
}

type Program = Vec<sock_filter>;

/// The verdict on a call by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The filter's return value (`SECCOMP_RET_*`).
    Answer(u32),
    /// The arguments decide; the index of the call in [`BY_ARGUMENT`].
    LookedAt(usize),
}

const REFUSED: Verdict = Verdict::Answer(ERRNO | libc::EPERM.unsigned_abs());
const MISSING: Verdict = Verdict::Answer(ERRNO | libc::ENOSYS.unsigned_abs());
const IGNORE: Verdict = Verdict::Answer(ERRNO);
const UNSUPPORTED: Verdict = Verdict::Answer(ERRNO | libc::EOPNOTSUPP.unsigned_abs());

const DEADLY: Verdict = Verdict::Answer(KILL_PROCESS);

fn program(profile: SystemCalls) -> Program {
    let runs = runs(profile);
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE_AT),
        sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, ARCHITECTURE) },
        instruction(RETURN, KILL_PROCESS),
        instruction(LOAD, NUMBER_AT),
    ];
    let mut exits = Vec::new();
    tree(&runs, &mut program, &mut exits);
    leave(&exits, &mut program);
    program
}

/// Divides all call numbers into runs with the same verdict, and returns the first number of each,
/// in ascending order. Calls in no list are refused with EPERM if they are old or of the x32
/// interface, and with ENOSYS if they are new ([`NEW_FIRST`]).
fn runs(profile: SystemCalls) -> Vec<(u32, Verdict)> {
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let each = |list: &'static [(&str, i64)], verdict| list.iter().map(move |it| (it.1, verdict));
    let looked_at = (BY_ARGUMENT.iter().enumerate())
        .map(|(place, call)| (call.number, Verdict::LookedAt(place)));
    let known: BTreeMap<u32, Verdict> = (ALLOWED.iter())
        .flat_map(|group| each(group.calls, Verdict::Answer(ALLOW)))
        .chain(looked_at)
        .chain(each(profile.more(), Verdict::Answer(ALLOW)))
        .filter(|(call, _)| !has(profile.less(), *call))
        .filter(|(call, _)| profile.only().is_none_or(|only| has(only, *call)))
        .chain(each(ABSENT, MISSING))
        .chain(each(IGNORED, IGNORE))
        .chain(each(NOT_SUPPORTED, UNSUPPORTED))
        .chain(each(profile.deadly(), DEADLY))
        .map(|(it, verdict)| (number(it), verdict))
        .collect();
    let new = number(NEW_FIRST);
    let mut runs = vec![(0, REFUSED)];
    let mut next = 0;
    let mut begin = |at: u32, verdict| match runs.last_mut() {
        Some(last) if last.1 == verdict => {}
        Some(last) if last.0 == at => last.1 = verdict,
        _ => runs.push((at, verdict)),
    };
    for (number, verdict) in known {
        if next < number && next < new {
            begin(next, REFUSED);
        }
        if next.max(new) < number {
            begin(next.max(new), MISSING);
        }
        begin(number, verdict);
        next = number + 1;
    }
    begin(next.max(new), MISSING);
    begin(X32_FIRST, REFUSED);
    runs
}

fn has(calls: &[(&str, i64)], wanted: i64) -> bool {
    calls.iter().any(|(_, call)| *call == wanted)
}

/// A branch that leaves the tree: the index of its instruction, whether it is the taken branch, and
/// its verdict.
type Exit = (usize, bool, Verdict);

/// Adds the binary search for the run of a number: one instruction for each run but the first.
fn tree(runs: &[(u32, Verdict)], program: &mut Program, exits: &mut Vec<Exit>) {
    let (left, right) = runs.split_at(runs.len() / 2);
    let Some((first, _)) = right.first().filter(|_| !left.is_empty()) else {
        return;
    };
    let at = program.len();
    program.push(instruction(JUMP_IF_AT_LEAST, *first));
    for (half, taken) in [(left, false), (right, true)] {
        if let [(_, verdict)] = half {
            exits.push((at, taken, *verdict));
        } else {
            branch_here(program, at, taken);
            tree(half, program, exits);
        }
    }
}

/// Adds the targets of the tree's branches, each once: the kernel compiles every instruction at
/// each start. The chains for arguments follow behind jumps, because they are further away than a
/// branch can reach.
fn leave(exits: &[Exit], program: &mut Program) {
    let leave_by = |program: &mut Program, verdict| {
        for (at, taken, _) in exits.iter().filter(|exit| exit.2 == verdict) {
            branch_here(program, *at, *taken);
        }
    };
    let used = |verdict| exits.iter().any(|exit| exit.2 == verdict);
    let ends = [Verdict::Answer(ALLOW), MISSING, IGNORE, UNSUPPORTED, DEADLY, REFUSED];
    for verdict in ends.into_iter().filter(|verdict| used(*verdict)) {
        leave_by(program, verdict);
        if let Verdict::Answer(answer) = verdict {
            program.push(instruction(RETURN, answer));
        }
    }
    let jumps = program.len();
    for place in 0..BY_ARGUMENT.len() {
        leave_by(program, Verdict::LookedAt(place));
        program.push(instruction(JUMP, 0));
    }
    for (place, call) in BY_ARGUMENT.iter().enumerate() {
        let jump = jumps + place;
        program[jump].k = u32::try_from(program.len() - jump - 1).unwrap_or(u32::MAX);
        look(call, program);
    }
}

/// Adds the instructions that decide on a call by its arguments.
fn look(call: &ByArgument, program: &mut Program) {
    for Case { conditions, answer } in call.cases {
        let mut fails = Vec::new();
        for condition in *conditions {
            hold(condition, program, &mut fails);
        }
        program.push(instruction(RETURN, returned(*answer)));
        for (at, taken) in fails {
            branch_here(program, at, taken);
        }
    }
    program.push(instruction(RETURN, returned(call.otherwise)));
}

fn returned(answer: Answer) -> u32 {
    match answer {
        Answer::Made => ALLOW,
        Answer::Error(errno) => ERRNO | errno.unsigned_abs(),
    }
}

/// Adds the instructions for one condition. If it holds, they fall through; otherwise a branch in
/// `fails` is taken.
fn hold(condition: &Condition, program: &mut Program, fails: &mut Vec<(usize, bool)>) {
    let mut unless = |program: &mut Program, code, k, taken| {
        fails.push((program.len(), taken));
        program.push(instruction(code, k));
    };
    match condition {
        Condition::Null { argument } => {
            for half in [0, 4] {
                program.push(instruction(LOAD, ARGUMENTS_AT + 8 * argument + half));
                unless(program, JUMP_IF_EQUAL, 0, false);
            }
        }
        Condition::Among { argument, bits, ranges } => {
            program.push(instruction(LOAD, ARGUMENTS_AT + 8 * argument));
            if *bits != u32::MAX {
                program.push(instruction(AND, *bits));
            }
            let mut hits = Vec::new();
            for (place, (first, last)) in ranges.iter().enumerate() {
                let is_last = place + 1 == ranges.len();
                if first == last && is_last {
                    unless(program, JUMP_IF_EQUAL, *first, false);
                } else if first == last {
                    hits.push((program.len(), true));
                    program.push(instruction(JUMP_IF_EQUAL, *first));
                } else {
                    // A number below this range was in no earlier range: it is in none.
                    unless(program, JUMP_IF_AT_LEAST, *first, false);
                    if is_last && *last == u32::MAX {
                        continue;
                    }
                    if is_last {
                        unless(program, JUMP_IF_GREATER, *last, true);
                    } else {
                        hits.push((program.len(), false));
                        program.push(instruction(JUMP_IF_GREATER, *last));
                    }
                }
            }
            for (at, taken) in hits {
                branch_here(program, at, taken);
            }
        }
    }
}

/// Makes a branch lead to the next instruction. A test checks that no branch is longer than 255.
fn branch_here(program: &mut Program, at: usize, taken: bool) {
    let distance = u8::try_from(program.len() - at - 1).unwrap_or(u8::MAX);
    if taken {
        program[at].jt = distance;
    } else {
        program[at].jf = distance;
    }
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

// Instructions of classic BPF, and return values of a filter (linux/filter.h, linux/seccomp.h,
// linux/audit.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARCHITECTURE: u32 = 0xC000_003E;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7FFF_0000;
/// The first call number of the x32 interface.
const X32_FIRST: u32 = 0x4000_0000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Runs a filter on a call as the kernel does. Returns its answer and the number of
    /// instructions executed.
    fn answer(program: &Program, architecture: u32, number: u32, arguments: &[u64]) -> (u32, u32) {
        let mut data = [0_u32; 16];
        (data[0], data[1]) = (number, architecture);
        for (slot, argument) in arguments.iter().enumerate() {
            data[4 + 2 * slot] = u32::try_from(argument & 0xFFFF_FFFF).unwrap();
            data[5 + 2 * slot] = u32::try_from(argument >> 32).unwrap();
        }
        let (mut at, mut accumulator, mut steps) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let branch = |taken: bool| usize::from(if taken { jt } else { jf });
            steps += 1;
            at += 1;
            match code {
                LOAD => accumulator = data[k as usize / 4],
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += branch(accumulator == k),
                JUMP_IF_AT_LEAST => at += branch(accumulator >= k),
                JUMP_IF_GREATER => at += branch(accumulator > k),
                RETURN => return (k, steps),
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const REFUSE: u32 = ERRNO | 1;

    #[test]
    fn every_number_gets_the_verdict_of_the_list() {
        let program = program(SystemCalls::Default);
        let listed: BTreeSet<i64> =
            ALLOWED.iter().flat_map(|group| group.calls).map(|(_, number)| *number).collect();
        let looked_at: BTreeSet<i64> = BY_ARGUMENT.iter().map(|call| call.number).collect();
        assert!(looked_at.is_disjoint(&listed));
        let is = |list: &[(&str, i64)], number| list.iter().any(|(_, it)| *it == number);
        for number in (0..2_000).chain((0..2_000).map(|it| 0x4000_0000 + it)).chain([u32::MAX]) {
            let (found, steps) = answer(&program, ARCHITECTURE, number, &[]);
            let number = i64::from(number);
            let new = (NEW_FIRST..0x4000_0000).contains(&number) && !listed.contains(&number);
            if number == libc::SYS_clone3 || new {
                assert_eq!(found, ERRNO | 38, "{number}");
            } else if is(IGNORED, number) {
                assert_eq!(found, ERRNO, "{number}");
            } else if is(NOT_SUPPORTED, number) {
                assert_eq!(found, ERRNO | 95, "{number}");
            } else if listed.contains(&number) {
                assert_eq!(found, ALLOW, "{number}");
            } else if !looked_at.contains(&number) {
                assert_eq!(found, REFUSE, "{number}");
            }
            assert!(steps <= 60, "{number}: {steps} instructions");
        }
        assert_eq!(answer(&program, 0x4000_0003, 1, &[]).0, KILL_PROCESS, "32-bit calls");
    }

    fn check(call: libc::c_long, arguments: &[u64], expected: u32) {
        let number = u32::try_from(call).unwrap();
        let (found, _) = answer(&program(SystemCalls::Default), ARCHITECTURE, number, arguments);
        assert_eq!(found, expected, "{call} {arguments:x?}");
    }

    #[test]
    fn profiles_differ_from_the_default_by_their_lists() {
        let all = SystemCalls::ALL.map(program);
        for number in 0..NEW_FIRST {
            let call = u32::try_from(number).unwrap();
            let [default, strict, tripwire, wide] =
                [0, 1, 2, 3].map(|it: usize| answer(&all[it], ARCHITECTURE, call, &[1, 0, 0]).0);
            let deadly = has(SystemCalls::Tripwire.deadly(), number);
            assert_eq!(tripwire, if deadly { KILL_PROCESS } else { strict }, "{number}");
            assert!(!deadly || default != ALLOW, "{number} is an ordinary call");
            let less = has(SystemCalls::Strict.less(), number);
            assert_eq!(strict, if less { REFUSE } else { default }, "{number} by strict");
            let more = has(SystemCalls::Wide.more(), number);
            assert_eq!(wide, if more { ALLOW } else { default }, "{number} by wide");
            assert!(!more || default == REFUSE, "{number} is allowed by default");
            let (monitor, _) = answer(&all[4], ARCHITECTURE, call, &[1, 0, 0]);
            let only = SystemCalls::Monitor.only().is_some_and(|only| has(only, number));
            let restricts = has(SystemCalls::Monitor.more(), number);
            assert_eq!(monitor == ALLOW, only && (default == ALLOW || restricts), "{number}");
        }
    }

    #[test]
    fn families_and_namespaces_are_by_list() {
        check(libc::SYS_clone, &[0x11], ALLOW);
        check(libc::SYS_clone, &[0x3D_0F00], ALLOW);
        check(libc::SYS_clone, &[0x4111], ALLOW);
        check(libc::SYS_clone, &[0x411], REFUSE);
        for bit in
            [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
        {
            check(libc::SYS_clone, &[bit | 0x11], REFUSE);
        }
        for family in [17, 38, 40, 0x1_0000_0011] {
            check(libc::SYS_socket, &[family, 0, 0], REFUSE);
        }
        for (family, kind, protocol, verdict) in [
            (1, 1, 0, ALLOW),
            (1, 0x80801, 0, ALLOW),
            (1, 5, 1, ALLOW),
            (1, 1, 2, REFUSE),
            (1, 4, 0, REFUSE),
            (2, 1, 0, ALLOW),
            (2, 1, 6, ALLOW),
            (2, 2, 17, ALLOW),
            (10, 0x80802, 17, ALLOW),
            (10, 1, 0x1_0000_0006, ALLOW),
            (2, 1, 17, REFUSE),
            (2, 1, 2, REFUSE),
            (2, 1, 262, REFUSE),
            (2, 1, 0xFFFF_FFFF, REFUSE),
            (2, 2, 1, REFUSE),
            (2, 2, 136, REFUSE),
            (2, 3, 0, REFUSE),
            (2, 6, 0, REFUSE),
            (2, 0x1F, 0, REFUSE),
            (16, 3, 0, ERRNO | 97),
            (16, 3, 15, ERRNO | 97),
        ] {
            check(libc::SYS_socket, &[family, kind, protocol], verdict);
        }
        check(libc::SYS_socketpair, &[1, 1, 0], ALLOW);
        for family in [2, 16, 30, 40] {
            check(libc::SYS_socketpair, &[family, 1, 0], REFUSE);
        }
    }

    #[test]
    fn what_is_left_out_of_lists_is_refused() {
        for (level, option) in [(1, 2), (1, 7), (1, 9), (6, 1), (0, 15), (41, 26), (17, 103)] {
            check(libc::SYS_setsockopt, &[3, level, option], ALLOW);
        }
        check(libc::SYS_setsockopt, &[3, 1, 8], ERRNO);
        // SO_RCVLOWAT, programs, groups, labels, protocols over TCP, keys, encapsulation, time
        // stamps; unknown levels.
        for (level, option) in [
            (1, 18),
            (1, 26),
            (1, 27),
            (1, 50),
            (1, 51),
            (1, 52),
            (1, 29),
            (1, 60),
            (0, 4),
            (0, 35),
            (0, 64),
            (41, 20),
            (41, 32),
            (41, 54),
            (6, 31),
            (6, 14),
            (17, 1),
            (17, 100),
            (132, 1),
            (270, 1),
        ] {
            check(libc::SYS_setsockopt, &[3, level, option], ERRNO | 92);
        }
        for request in [0x5401, 0x5413, 0x5421, 0x541B, 0x8912, 0x8933, 0x8004_5430, 0xF_0000_5401]
        {
            check(libc::SYS_ioctl, &[0, request], ALLOW);
        }
        for request in [0x5412, 0x541C, 0x541D, 0x5423, 0xFFFF_FFFF_0000_5412] {
            check(libc::SYS_ioctl, &[0, request], REFUSE);
        }
        for request in [0x8940, 0x8982, 0x8914, 0xC020_660B, 0xC004_5877, 0x5200, 0, 0xFFFF_FFFF] {
            check(libc::SYS_ioctl, &[0, request], ERRNO | 25);
        }
        for (command, verdict) in
            [(6, ALLOW), (1030, ALLOW), (1033, ALLOW), (37, 22), (1024, 22), (1026, 22), (1031, 1)]
        {
            let verdict = if verdict == ALLOW { ALLOW } else { ERRNO | verdict };
            check(libc::SYS_fcntl, &[1, command], verdict);
        }
        check(libc::SYS_personality, &[0xFFFF_FFFF], ALLOW);
        check(libc::SYS_personality, &[0x40_0000], REFUSE);
        for (option, verdict) in [(4, ALLOW), (15, ALLOW), (38, ALLOW), (0x5356_4D41, ALLOW)] {
            check(libc::SYS_prctl, &[option], verdict);
        }
        for (option, errno) in [(22, 22), (62, 22), (67, 22), (35, 1)] {
            check(libc::SYS_prctl, &[option, 2], ERRNO | errno);
        }
        check(libc::SYS_seccomp, &[1, 0], ERRNO | 22);
        check(libc::SYS_seccomp, &[2, 0], ALLOW);
    }

    #[test]
    fn limits_are_asked_for_and_set_but_for_core_dumps_and_pid_1() {
        let (core, files, somewhere) = (4, 7, 0x7FFF_0000_0000);
        for (arguments, verdict) in [
            ([0, files, somewhere, 0], ALLOW),
            ([0, files, somewhere, somewhere], ALLOW),
            ([7, core, 0, somewhere], ALLOW),
            ([0, core, somewhere, 0], ERRNO),
            ([0, core, 0x1_0000_0000, somewhere], REFUSE),
            ([1, files, 0, somewhere], REFUSE),
            ([0x1_0000_0001, files, somewhere, 0], REFUSE),
        ] {
            check(libc::SYS_prlimit64, &arguments, verdict);
        }
        check(libc::SYS_setrlimit, &[files, somewhere], ALLOW);
        check(libc::SYS_setrlimit, &[core, somewhere], ERRNO);
    }

    #[test]
    fn memory_and_files_are_looked_at() {
        for (call, at, bad, errno) in [
            (libc::SYS_mmap, 3, 0x4_0022, 12),
            (libc::SYS_memfd_create, 1, 4, 22),
            (libc::SYS_shmget, 2, 0o4000, 22),
            (libc::SYS_madvise, 2, 12, 22),
            (libc::SYS_msync, 2, 4, 0),
            (libc::SYS_fadvise64, 3, 4, 0),
            (libc::SYS_preadv2, 5, 8, 95),
            (libc::SYS_preadv2, 5, 0x80, 95),
            (libc::SYS_sendto, 3, 0x8000, 95),
            (libc::SYS_sendmsg, 2, 0x8040, 95),
            (libc::SYS_sendmmsg, 3, 0x400_0000, 95),
            (libc::SYS_mknod, 1, 0x21B6, 1),
            (libc::SYS_mknod, 1, 0x61B6, 1),
            (libc::SYS_mknodat, 2, 0x21B6, 1),
        ] {
            let mut arguments = [0; 6];
            check(call, &arguments, ALLOW);
            arguments[at] = bad;
            check(call, &arguments, ERRNO | errno);
        }
        check(libc::SYS_madvise, &[0, 0, 4], ALLOW);
        check(libc::SYS_mknod, &[0, 0x11B6], ALLOW);
    }

    #[test]
    fn the_filter_fits_what_the_init_reads_and_its_jumps_what_they_can_be() {
        for profile in SystemCalls::ALL {
            assert!(compile(profile).len() < 32_768);
        }
        let runs = runs(SystemCalls::Default);
        // An instruction for each run but the first, a target for each verdict, a jump for each
        // call with rules.
        let ends = 6 + BY_ARGUMENT.len();
        assert!(runs.len() + ends < 255, "{} runs, {ends} ends", runs.len());
        let ranges = |condition: &Condition| match condition {
            Condition::Among { ranges, .. } => {
                assert!(ranges.windows(2).all(|it| it[0].1 < it[1].0), "{ranges:x?}");
                2 * ranges.len()
            }
            Condition::Null { .. } => 4,
        };
        for case in BY_ARGUMENT.iter().flat_map(|call| call.cases) {
            assert!(case.conditions.iter().map(ranges).sum::<usize>() < 200);
        }
    }
}
