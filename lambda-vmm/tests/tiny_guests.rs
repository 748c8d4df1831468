//! Guests of a few instructions, which every `/dev/kvm` can run, also one that emulates.

#![expect(clippy::unwrap_used, reason = "tests")]

mod machine;

use lambda_vmm::{Cause, Event};
use machine::{Machine, TIME, boot, kvm, tiny};

fn end(machine: &mut Machine) -> (Cause, lambda_vmm::Report) {
    match machine.vm.event(TIME).unwrap() {
        Event::Ended { cause, report } => (cause, report),
        other => panic!("{other:?}"),
    }
}

/// `mov al, byte; out dx, al` for each byte, with dx = 0x3f8, and a reset by the keyboard
/// controller.
fn says(text: &[u8]) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03];
    for byte in text {
        code.extend([0xb0, *byte, 0xee]);
    }
    code.extend(RESET);
    code
}

/// `mov al, 0xfe; out 0x64, al; hlt`
const RESET: [u8; 5] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4];

#[test]
fn a_guest_writes_to_its_console_and_resets() {
    let Some(kvm) = kvm("a_guest_writes_to_its_console_and_resets") else { return };
    let mut machine = boot(&kvm, &tiny(), &says(b"hello")).unwrap();
    let calls = machine.vm.system_calls();
    // One more where std checks descriptors.
    let devices = 20 + u16::from(cfg!(debug_assertions));
    assert_eq!((calls.vcpu, calls.devices), (6, devices));
    let (cause, report) = end(&mut machine);
    assert_eq!((cause, &report.console[..]), (Cause::Shutdown, &b"hello"[..]));
    assert_eq!((report.ports, report.exits()), (6, 6));
    assert!(machine.process.0.wait().unwrap().success());
}

#[test]
fn a_guest_reads_registers_of_the_devices() {
    let Some(kvm) = kvm("a_guest_reads_registers_of_the_devices") else { return };
    // mov eax, [0xd0000008]; add al, '0'; mov dx, 0x3f8; out dx, al; the same of the next device.
    let mut code = Vec::new();
    for place in [0xd0_u8, 0xd0] {
        let page = if code.is_empty() { 0x00 } else { 0x10 };
        code.extend([0xa1, 0x08, page, 0x00, place, 0x04, b'0', 0x66, 0xba, 0xf8, 0x03, 0xee]);
    }
    code.extend(RESET);
    let (cause, report) = end(&mut boot(&kvm, &tiny(), &code).unwrap());
    // A vsock device (19) and an entropy device (4).
    assert_eq!((cause, &report.console[..]), (Cause::Shutdown, &[b'0' + 19, b'4'][..]));
    assert_eq!(report.mmio_reads, 2);
}
