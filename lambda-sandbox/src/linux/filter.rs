//! Compiles the list of system calls into the program that the kernel runs at each of them.
//!
//! The kernel tries a new filter on every number there is before it takes it, so that a chain of comparisons costs
//! its square: half a millisecond of each start with the list of this crate. Here a tree decides on the
//! number in nine comparisons at the most, and only calls whose arguments matter go on to a chain.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::profile::SystemCalls;
use super::seccomp::{
    ABSENT, ALLOWED, FAMILIES, IGNORED, NEW_FIRST, NEW_NAMESPACES, PAIRS, PERSONALITIES,
    TERMINAL_CALLS,
};
use crate::Error;

/// Compiles the filter into the form that the init loads: a count of instructions, then these.
pub(super) fn compile(profile: SystemCalls) -> Result<Vec<u8>, Error> {
    let program = program(profile).map_err(|error| Error::Unavailable {
        what: "the system call filter",
        why: error.to_string(),
        remedy: "report it: the filter's data is wrong",
    })?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(program.len() as u64).to_ne_bytes());
    for instruction in &program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// What becomes of a call, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Refused,
    Absent,
    Ignored,
    Deadly,
    /// Its arguments decide.
    LookedAt,
}

fn program(profile: SystemCalls) -> Result<BpfProgram, BackendError> {
    let mut looked_at = looked_at()?;
    looked_at.retain(|call, _| !has(profile.less(), *call));
    let runs = runs(&looked_at.keys().copied().collect(), profile);
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE_AT),
        sock_filter { jt: 1, ..instruction(JUMP_IF_EQUAL, ARCHITECTURE) },
        instruction(RETURN, KILL_PROCESS),
        instruction(LOAD, NUMBER_AT),
    ];
    let mut exits = Vec::new();
    tree(&runs, &mut program, &mut exits);
    leave(&exits, &mut program);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let rest = SeccompFilter::new(looked_at, refused, SeccompAction::Allow, TargetArch::x86_64)?;
    program.extend(BpfProgram::try_from(rest)?);
    Ok(program)
}

/// Cuts all numbers into runs of one verdict: where each begins, in order. Of what is in no list, old calls are refused, as are
/// the numbers of the x32 interface, and new ones are not there.
fn runs(looked_at: &BTreeSet<i64>, profile: SystemCalls) -> Vec<(u32, Verdict)> {
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let allowed = (ALLOWED.iter().flat_map(|group| group.calls).chain(profile.more()))
        .filter(|(_, it)| !has(profile.less(), *it))
        .map(|(_, it)| (*it, Verdict::Allowed));
    let absent = ABSENT.iter().map(|(_, it)| (*it, Verdict::Absent));
    let ignored = IGNORED.iter().map(|(_, it)| (*it, Verdict::Ignored));
    let looked_at = looked_at.iter().map(|it| (*it, Verdict::LookedAt));
    let deadly = profile.deadly().iter().map(|(_, it)| (*it, Verdict::Deadly));
    let listed = allowed.chain(absent).chain(ignored).chain(looked_at).chain(deadly);
    let known: BTreeMap<u32, Verdict> = listed.map(|(it, verdict)| (number(it), verdict)).collect();
    let new = number(NEW_FIRST);
    let mut runs = vec![(0, Verdict::Refused)];
    let mut next = 0;
    let mut begin = |at: u32, verdict| match runs.last_mut() {
        Some(last) if last.1 == verdict => {}
        Some(last) if last.0 == at => last.1 = verdict,
        _ => runs.push((at, verdict)),
    };
    for (number, verdict) in known {
        if next < number && next < new {
            begin(next, Verdict::Refused);
        }
        if next.max(new) < number {
            begin(next.max(new), Verdict::Absent);
        }
        begin(number, verdict);
        next = number + 1;
    }
    begin(next.max(new), Verdict::Absent);
    begin(X32_FIRST, Verdict::Refused);
    runs
}

fn has(calls: &[(&str, i64)], wanted: i64) -> bool {
    calls.iter().any(|(_, call)| *call == wanted)
}

/// A branch that leaves the tree: the place of its instruction, whether it is the one taken, and the verdict it leads to.
type Exit = (usize, bool, Verdict);

/// Adds the instructions that find the run of a number, one for each run but the first.
fn tree(runs: &[(u32, Verdict)], program: &mut BpfProgram, exits: &mut Vec<Exit>) {
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

/// Adds what the tree ends in, each once: the kernel compiles every instruction at each start.
fn leave(exits: &[Exit], program: &mut BpfProgram) {
    let ends = [
        (Verdict::Allowed, instruction(RETURN, ALLOW)),
        (Verdict::Absent, instruction(RETURN, ERRNO | libc::ENOSYS.unsigned_abs())),
        (Verdict::Ignored, instruction(RETURN, ERRNO)),
        (Verdict::Deadly, instruction(RETURN, KILL_PROCESS)),
        (Verdict::Refused, instruction(RETURN, ERRNO | libc::EPERM.unsigned_abs())),
    ];
    let leave_by = |program: &mut BpfProgram, verdict| {
        for (at, taken, _) in exits.iter().filter(|exit| exit.2 == verdict) {
            branch_here(program, *at, *taken);
        }
    };
    let used = |verdict| exits.iter().any(|exit| exit.2 == verdict);
    for (verdict, end) in ends.into_iter().filter(|(verdict, _)| used(*verdict)) {
        leave_by(program, verdict);
        program.push(end);
    }
    // The rest of the program is what looks at arguments.
    leave_by(program, Verdict::LookedAt);
}

/// Lets a branch lead to the next instruction. A test holds that none is longer than a branch can be.
fn branch_here(program: &mut BpfProgram, at: usize, taken: bool) {
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

/// Returns the rules of the calls whose arguments matter.
fn looked_at() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let is = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let one_of = |values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|value| SeccompRule::new(vec![is(0, *value)?])).collect()
    };
    let up_to = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Le, value)
    };
    let families = (FAMILIES.iter())
        .map(|(family, protocol)| SeccompRule::new(vec![is(0, *family)?, up_to(2, *protocol)?]))
        .collect::<Result<Vec<_>, _>>()?;
    let no_namespace = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(NEW_NAMESPACES),
        0,
    )?;
    let not_terminal = TERMINAL_CALLS
        .iter()
        .map(|call| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *call))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(BTreeMap::from([
        (libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]),
        (libc::SYS_socket, families),
        (libc::SYS_socketpair, one_of(&[PAIRS])?),
        (libc::SYS_personality, one_of(&PERSONALITIES)?),
        (libc::SYS_ioctl, vec![SeccompRule::new(not_terminal)?]),
    ]))
}

// Instructions of classic BPF, and what a filter may answer (linux/filter.h, linux/seccomp.h, linux/audit.h).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARCHITECTURE: u32 = 0xC000_003E;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7FFF_0000;
/// The first number of the x32 interface.
const X32_FIRST: u32 = 0x4000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    const JUMP: u16 = 0x05;

    /// Runs a filter on a call as the kernel does; returns its answer and how many instructions that took.
    fn answer(
        program: &BpfProgram,
        architecture: u32,
        number: u32,
        arguments: [u64; 3],
    ) -> (u32, u32) {
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
                // The bitwise and of the masked comparison.
                0x54 => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += branch(accumulator == k),
                JUMP_IF_AT_LEAST => at += branch(accumulator >= k),
                0x25 => at += branch(accumulator > k),
                RETURN => return (k, steps),
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const REFUSE: u32 = ERRNO | 1;

    #[test]
    fn every_number_gets_the_verdict_of_the_list() {
        let program = program(SystemCalls::Default).unwrap();
        let listed: BTreeSet<i64> =
            ALLOWED.iter().flat_map(|group| group.calls).map(|(_, number)| *number).collect();
        let looked_at = looked_at().unwrap();
        for number in (0..2_000).chain((0..2_000).map(|it| 0x4000_0000 + it)).chain([u32::MAX]) {
            let (found, steps) = answer(&program, ARCHITECTURE, number, [0; 3]);
            let number = i64::from(number);
            let ignored = IGNORED.iter().any(|(_, it)| *it == number);
            let new = (NEW_FIRST..0x4000_0000).contains(&number) && !listed.contains(&number);
            if number == libc::SYS_clone3 || new {
                assert_eq!(found, ERRNO | 38, "{number}");
            } else if ignored {
                assert_eq!(found, ERRNO, "{number}");
            } else if listed.contains(&number) {
                assert_eq!(found, ALLOW, "{number}");
            } else if !looked_at.contains_key(&number) {
                assert_eq!(found, REFUSE, "{number}");
            }
            assert!(steps <= 40, "{number}: {steps} instructions");
        }
        assert_eq!(answer(&program, 0x4000_0003, 1, [0; 3]).0, KILL_PROCESS, "32-bit calls");
    }

    #[test]
    fn profiles_differ_from_the_default_by_their_lists() {
        let all = SystemCalls::ALL.map(|it| program(it).unwrap());
        for number in 0..NEW_FIRST {
            let call = u32::try_from(number).unwrap();
            let [default, strict, tripwire, wide] =
                [0, 1, 2, 3].map(|it: usize| answer(&all[it], ARCHITECTURE, call, [1, 0, 0]).0);
            let deadly = has(SystemCalls::Tripwire.deadly(), number);
            assert_eq!(tripwire, if deadly { KILL_PROCESS } else { strict }, "{number}");
            assert!(!deadly || default != ALLOW, "{number} is an ordinary call");
            let less = has(SystemCalls::Strict.less(), number);
            assert_eq!(strict, if less { REFUSE } else { default }, "{number} by strict");
            let more = has(SystemCalls::Wide.more(), number);
            assert_eq!(wide, if more { ALLOW } else { default }, "{number} by wide");
            assert!(!more || default == REFUSE, "{number} is allowed by default");
        }
    }

    #[test]
    fn arguments_decide_where_they_matter() {
        let program = program(SystemCalls::Default).unwrap();
        let check = |call: libc::c_long, arguments: [u64; 3], expected: u32| {
            let number = u32::try_from(call).unwrap();
            let (found, _) = answer(&program, ARCHITECTURE, number, arguments);
            assert_eq!(found, expected, "{call} {arguments:x?}");
        };
        check(libc::SYS_clone, [0x11, 0, 0], ALLOW);
        for bit in
            [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
        {
            check(libc::SYS_clone, [bit | 0x11, 0, 0], REFUSE);
        }
        check(libc::SYS_socket, [2, 1, 0], ALLOW);
        for family in [17, 38, 40, 0x1_0000_0011] {
            check(libc::SYS_socket, [family, 0, 0], REFUSE);
        }
        for (family, protocol, verdict) in [
            (1, 0, ALLOW),
            (1, 2, REFUSE),
            (2, 6, ALLOW),
            (10, 17, ALLOW),
            (2, 262, REFUSE),
            (10, 0x1_0000_0006, ALLOW),
            (2, 0xFFFF_FFFF, REFUSE),
            (16, 0, ALLOW),
            (16, 15, REFUSE),
        ] {
            check(libc::SYS_socket, [family, 3, protocol], verdict);
        }
        check(libc::SYS_socketpair, [1, 1, 0], ALLOW);
        for family in [2, 16, 30, 40] {
            check(libc::SYS_socketpair, [family, 1, 0], REFUSE);
        }
        check(libc::SYS_personality, [0xFFFF_FFFF, 0, 0], ALLOW);
        check(libc::SYS_personality, [0x40_0000, 0, 0], REFUSE);
        check(libc::SYS_ioctl, [0, 0x5401, 0], ALLOW);
        check(libc::SYS_ioctl, [0, 0x5412, 0], REFUSE);
        check(libc::SYS_ioctl, [0, 0xFFFF_FFFF_0000_5412, 0], REFUSE);
    }

    #[test]
    fn the_filter_fits_what_the_init_reads_and_its_jumps_what_they_can_be() {
        for profile in SystemCalls::ALL {
            assert!(compile(profile).unwrap().len() < 32_768);
        }
        let runs = runs(&looked_at().unwrap().keys().copied().collect(), SystemCalls::Default);
        // An instruction for each run but the first, and four ends.
        assert!(runs.len() + 3 < 255, "{} runs", runs.len());
    }
}
