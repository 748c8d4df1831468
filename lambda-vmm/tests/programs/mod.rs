//! Guests of a few instructions that drive devices by the rules. They begin at 2 MiB.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses a part")]
#![expect(unsafe_code, reason = "the programs lie between symbols of this one")]

// Registers: edi holds the address of the device's registers, dx the available index of the queue
// that is flooded. The rings of queue N lie in the page at 1 MiB + N * 4 KiB: the descriptors at
// its start, the available ring at 0x400, the used ring at 0x800.
core::arch::global_asm!(
    r"
    .pushsection .rodata
    .code32

    .macro set_up_device
8:  // Sets a device with ebp queues of 16 up.
    mov dword ptr [edi + 0x70], 0
    mov dword ptr [edi + 0x70], 1
    mov dword ptr [edi + 0x70], 3
    // Of the first word of features, those that are offered and in esi.
    mov dword ptr [edi + 0x14], 0
    mov dword ptr [edi + 0x24], 0
    and esi, [edi + 0x10]
    mov [edi + 0x20], esi
    mov dword ptr [edi + 0x24], 1
    mov dword ptr [edi + 0x20], 1
    mov dword ptr [edi + 0x70], 11
    xor ecx, ecx
9:  mov [edi + 0x30], ecx
    mov dword ptr [edi + 0x38], 16
    mov eax, ecx
    shl eax, 12
    add eax, 0x100000
    mov [edi + 0x80], eax
    add eax, 0x400
    mov [edi + 0x90], eax
    add eax, 0x400
    mov [edi + 0xa0], eax
    mov dword ptr [edi + 0x44], 1
    inc ecx
    cmp ecx, ebp
    jb 9b
    mov dword ptr [edi + 0x70], 15
    ret
    .endm

    // Random bytes into 16 buffers, as fast as the device fills them.
    .global flood_entropy_start
    .global flood_entropy_end
flood_entropy_start:
    mov esp, 0x1f0000
    mov edi, 0xd0001000
    mov ebp, 1
    xor esi, esi
    call 8f
    xor ecx, ecx
1:  mov ebx, ecx
    shl ebx, 4
    mov dword ptr [ebx + 0x100000], 0x110000
    mov dword ptr [ebx + 0x100008], 256
    mov dword ptr [ebx + 0x10000c], 2
    mov [ecx * 2 + 0x100404], cx
    inc ecx
    cmp ecx, 16
    jb 1b
    xor edx, edx
2:  add edx, 16
    mov [0x100402], dx
    mov dword ptr [edi + 0x50], 0
3:  cmp dx, [0x100802]
    jne 3b
    jmp 2b
    set_up_device
flood_entropy_end:

    // Pairs of packets for ever: a request for a stream to port 1 of the host, and its reset. Each
    // pair has a port of its own.
    .global flood_vsock_start
    .global flood_vsock_end
flood_vsock_start:
    mov esp, 0x1f0000
    mov edi, 0xd0000000
    mov ebp, 3
    xor esi, esi
    call 8f
    xor ecx, ecx
1:  mov ebx, ecx
    shl ebx, 4
    // A buffer of a page for packets of the host.
    mov eax, ecx
    shl eax, 12
    add eax, 0x120000
    mov [ebx + 0x100000], eax
    mov dword ptr [ebx + 0x100008], 4096
    mov dword ptr [ebx + 0x10000c], 2
    mov [ecx * 2 + 0x100404], cx
    // A packet.
    mov esi, ecx
    shl esi, 6
    add esi, 0x110000
    mov [ebx + 0x101000], esi
    mov dword ptr [ebx + 0x101008], 44
    mov [ecx * 2 + 0x101404], cx
    mov dword ptr [esi], 3
    mov dword ptr [esi + 8], 2
    mov eax, ecx
    shr eax, 1
    mov [esi + 16], eax
    mov dword ptr [esi + 20], 1
    mov eax, ecx
    and eax, 1
    shl eax, 17
    add eax, 0x10001
    mov [esi + 28], eax
    mov dword ptr [esi + 36], 0x10000
    inc ecx
    cmp ecx, 16
    jb 1b
    xor edx, edx
2:  xor ecx, ecx
4:  mov esi, ecx
    shl esi, 6
    add dword ptr [esi + 0x110010], 8
    inc ecx
    cmp ecx, 16
    jb 4b
    add edx, 16
    mov [0x101402], dx
    mov dword ptr [edi + 0x50], 1
3:  mov ax, [0x100802]
    add ax, 16
    mov [0x100402], ax
    mov dword ptr [edi + 0x50], 0
    cmp dx, [0x101802]
    jne 3b
    jmp 2b
    set_up_device
flood_vsock_end:

    // Sends the frame that lies 4 KiB behind the program's start, behind its length, waits for a
    // frame of the host, writes 5 bytes of its UDP payload to the console, and resets.
    .global network_start
    .global network_end
network_start:
    mov esp, 0x1f0000
    mov edi, 0xd0002000
    mov ebp, 2
    // All features that are offered in the first word: checksums and segments.
    mov esi, 0xffffffff
    call 8f
    mov dword ptr [0x100000], 0x120000
    mov dword ptr [0x100008], 65562
    mov dword ptr [0x10000c], 2
    mov word ptr [0x100402], 1
    mov dword ptr [edi + 0x50], 0
    // The device's header, of zeros, and the frame.
    mov dword ptr [0x101000], 0x110000
    mov dword ptr [0x101008], 12
    mov dword ptr [0x10100c], 0x10001
    mov dword ptr [0x101010], 0x201004
    mov eax, [0x201000]
    mov [0x101018], eax
    mov word ptr [0x101402], 1
    mov dword ptr [edi + 0x50], 1
3:  cmp word ptr [0x100802], 1
    jne 3b
    // Behind the headers of the device, Ethernet, IPv4 and UDP.
    mov esi, 0x120036
    mov edx, 0x3f8
    mov ecx, 5
4:  mov al, [esi]
    out dx, al
    inc esi
    dec ecx
    jnz 4b
    mov al, 0xfe
    out 0x64, al
    hlt
    set_up_device
network_end:
    .code64
    .popsection
"
);

unsafe extern "C" {
    static flood_entropy_start: u8;
    static flood_entropy_end: u8;
    static flood_vsock_start: u8;
    static flood_vsock_end: u8;
    static network_start: u8;
    static network_end: u8;
}

/// Keeps the queue of the entropy device busy for ever.
pub fn flood_entropy() -> Vec<u8> {
    between(&raw const flood_entropy_start, &raw const flood_entropy_end)
}

/// Asks for streams and resets them for ever.
pub fn flood_vsock() -> Vec<u8> {
    between(&raw const flood_vsock_start, &raw const flood_vsock_end)
}

/// Sends this frame over the third device, and writes what comes back to the console.
pub fn network(frame: &[u8]) -> Vec<u8> {
    let mut code = between(&raw const network_start, &raw const network_end);
    code.resize(4096, 0);
    code.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
    code.extend(frame);
    code
}

/// Returns the bytes between two of the symbols.
fn between(start: *const u8, end: *const u8) -> Vec<u8> {
    // SAFETY: both symbols belong to the bytes of one program that is assembled above, the second
    // behind the first.
    let length = unsafe { end.offset_from_unsigned(start) };
    // SAFETY: the bytes between the symbols are read-only data of this program.
    unsafe { std::slice::from_raw_parts(start, length) }.to_vec()
}
