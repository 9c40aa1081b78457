package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

func abiProbes() []probe {
	return []probe{
		{
			id: "abi.i386", title: "32-bit programs (i386)", try: i386,
			cost: "nothing: no container runs any either",
		},
		{
			id: "abi.x32", title: "x32 calls", try: x32,
			cost: "nothing: x32 calls get ENOSYS, as from the kernel",
		},
	}
}

func x32(context.Context) finding {
	const x32Bit = 0x40000000 // __X32_SYSCALL_BIT of asm/unistd.h
	_, _, errno := unix.RawSyscall(x32Bit|unix.SYS_GETPID, 0, 0, 0)
	if errno != 0 {
		return tell(os.NewSyscallError("getpid", errno), unix.ENOSYS)
	}
	return yes("")
}

// i386 runs a program from memory.
func i386(ctx context.Context) finding {
	fd, err := unix.MemfdCreate("callgate-doctor", unix.MFD_CLOEXEC)
	if err != nil {
		return unsure(os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "callgate-doctor")
	defer func() { _ = f.Close() }()
	if _, err := f.Write(exit32()); err != nil {
		return unsure(err)
	}
	err = exec.CommandContext(ctx, "/proc/self/fd/"+strconv.Itoa(fd)).Run()
	var killed *exec.ExitError
	if errors.As(err, &killed) {
		return no(err.Error()) // int 0x80 that is switched off (ia32_emulation=0) is a SIGSEGV
	}
	return tell(err, unix.ENOEXEC)
}

// exit32 is an ELF program for i386 that calls exit(0) and has nothing else.
func exit32() []byte {
	const base, headers = 0x10000, 52 + 32
	code := []byte{0x31, 0xdb, 0x31, 0xc0, 0x40, 0xcd, 0x80} // xor ebx,ebx; xor eax,eax; inc eax; int 0x80
	size := uint32(headers + len(code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, part := range []any{
		// Elf32_Ehdr after e_ident: ET_EXEC, EM_386, EV_CURRENT, entry, phoff, shoff, flags, …
		[2]uint16{2, 3}, [5]uint32{1, base + headers, 52, 0, 0}, [6]uint16{52, 32, 1, 0, 0, 0},
		// Elf32_Phdr: PT_LOAD, offset, vaddr, paddr, filesz, memsz, R|X, align
		[8]uint32{1, 0, base, base, size, size, 5, 0x1000},
		code,
	} {
		_ = binary.Write(&b, binary.LittleEndian, part) // a Buffer takes everything
	}
	return b.Bytes()
}
