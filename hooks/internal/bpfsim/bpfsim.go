// Package bpfsim runs seccomp filter programs on made-up system calls, for tests.
//
// It knows the part of classic BPF that the kernel admits in a seccomp filter (kernel/seccomp.c, seccomp_check_filter) and libseccomp emits:
// 32-bit absolute loads from struct seccomp_data, scratch memory, arithmetic, jumps, returns. Anything else is an error, so that a program this package
// runs is one the kernel takes.
package bpfsim

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is struct seccomp_data (include/uapi/linux/seccomp.h).
type Call struct {
	Nr   uint32
	Arch uint32 // AUDIT_ARCH_*
	IP   uint64
	Args [6]uint64
}

// word reads the 32 bits at an offset, as on a little-endian machine.
func (c Call) word(off uint32) (uint32, error) {
	if off%4 != 0 || off >= 64 {
		return 0, fmt.Errorf("load from offset %d of seccomp_data", off)
	}
	switch {
	case off == 0:
		return c.Nr, nil
	case off == 4:
		return c.Arch, nil
	}
	v := c.IP
	if off >= 16 {
		v = c.Args[(off-16)/8]
	}
	if off%8 != 0 {
		v >>= 32
	}
	return uint32(v), nil
}

// Run gives the value that the program returns for a call: a SECCOMP_RET_* action in the upper 16 bits, its data in the lower.
func Run(prog []unix.SockFilter, call Call) (uint32, error) {
	ret, _, err := Count(prog, call)
	return ret, err
}

// Count is Run that also gives the number of instructions carried out, the return among them: what the filter costs this call.
func Count(prog []unix.SockFilter, call Call) (ret uint32, executed int, err error) {
	var m machine
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		executed++
		if in.Code == unix.BPF_RET|unix.BPF_K {
			return in.K, executed, nil
		}
		if in.Code == unix.BPF_RET|unix.BPF_A {
			return m.a, executed, nil
		}
		skip, err := m.step(in, call)
		if err != nil {
			return 0, executed, fmt.Errorf("instruction %d: %w", pc, err)
		}
		pc += int(skip)
	}
	return 0, executed, fmt.Errorf("ran past the end")
}

type machine struct {
	a, x uint32
	mem  [16]uint32
}

// step carries out all but returns and says how many instructions to skip.
func (m *machine) step(in unix.SockFilter, call Call) (skip uint32, err error) {
	switch in.Code & 0x07 {
	case unix.BPF_LD:
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			m.a, err = call.word(in.K)
			return 0, err
		case unix.BPF_LD | unix.BPF_IMM:
			m.a = in.K
			return 0, nil
		case unix.BPF_LD | unix.BPF_MEM:
			return 0, m.slot(in.K, func(p *uint32) { m.a = *p })
		}
	case unix.BPF_LDX:
		switch in.Code {
		case unix.BPF_LDX | unix.BPF_IMM:
			m.x = in.K
			return 0, nil
		case unix.BPF_LDX | unix.BPF_MEM:
			return 0, m.slot(in.K, func(p *uint32) { m.x = *p })
		}
	case unix.BPF_ST:
		return 0, m.slot(in.K, func(p *uint32) { *p = m.a })
	case unix.BPF_STX:
		return 0, m.slot(in.K, func(p *uint32) { *p = m.x })
	case unix.BPF_ALU:
		return 0, m.alu(in)
	case unix.BPF_JMP:
		return m.jump(in)
	case unix.BPF_MISC:
		switch in.Code & 0xf8 {
		case unix.BPF_TAX:
			m.x = m.a
			return 0, nil
		case unix.BPF_TXA:
			m.a = m.x
			return 0, nil
		}
	}
	return 0, fmt.Errorf("unknown code %#x", in.Code)
}

func (m *machine) slot(k uint32, use func(*uint32)) error {
	if k >= uint32(len(m.mem)) {
		return fmt.Errorf("scratch slot %d", k)
	}
	use(&m.mem[k])
	return nil
}

func (m *machine) operand(in unix.SockFilter) uint32 {
	if in.Code&unix.BPF_X != 0 {
		return m.x
	}
	return in.K
}

func (m *machine) alu(in unix.SockFilter) error {
	v := m.operand(in)
	switch in.Code & 0xf0 {
	case unix.BPF_AND:
		m.a &= v
	case unix.BPF_OR:
		m.a |= v
	case unix.BPF_XOR:
		m.a ^= v
	case unix.BPF_ADD:
		m.a += v
	case unix.BPF_SUB:
		m.a -= v
	case unix.BPF_LSH:
		m.a <<= v
	case unix.BPF_RSH:
		m.a >>= v
	default:
		return fmt.Errorf("unknown arithmetic %#x", in.Code)
	}
	return nil
}

func (m *machine) jump(in unix.SockFilter) (uint32, error) {
	v := m.operand(in)
	var taken bool
	switch in.Code & 0xf0 {
	case unix.BPF_JA:
		return in.K, nil
	case unix.BPF_JEQ:
		taken = m.a == v
	case unix.BPF_JGT:
		taken = m.a > v
	case unix.BPF_JGE:
		taken = m.a >= v
	case unix.BPF_JSET:
		taken = m.a&v != 0
	default:
		return 0, fmt.Errorf("unknown jump %#x", in.Code)
	}
	if taken {
		return uint32(in.Jt), nil
	}
	return uint32(in.Jf), nil
}
