// Package mknod emulates mknod(2) and mknodat(2) for character and block
// devices: it makes the node as the caller, with the one capability that the
// kernel wants from the initial user namespace and the container cannot have.
package mknod

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// Kind is the mknod emulator's. Its policy is a list of devices:
//
//	mknod:
//	  allow: ["c 1:3", "c 10:200", "b 7:*", "b 8:0-15"]
//
// Without allow it is the eight that every container has: c 1:3, 1:5, 1:7,
// 1:8, 1:9, 5:0, 5:1 and 5:2.
func Kind() emulators.Kind {
	shop := &workshop{}
	return emulators.Kind{
		Name:     "mknod",
		Syscalls: []string{"mknod", "mknodat"},
		New: func(p emulators.Policy) (emulators.Emulator, error) {
			e := &emulator{bench: shop.bench()}
			if err := p.Decode(&e.policy); err != nil {
				return nil, err
			}
			if e.policy.Allow == nil {
				e.policy.Allow = defaults()
			}
			return e, nil
		},
	}
}

type emulator struct {
	policy policy
	bench  *bench
}

// Close drops the devices that were bound for the container.
func (e *emulator) Close() error { return e.bench.close() }

// Emulate makes the node.
func (e *emulator) Emulate(_ context.Context, req *emulators.Request) (emulators.Response, error) {
	c := decode(req)
	if !c.device() {
		// The caller's own rights are all that the kernel asks for, and what
		// decides it, mode and dev, are registers that cannot change.
		return emulators.Continue(), nil
	}
	if !e.policy.allows(&c) {
		return emulators.Response{}, req.Deny("policy allows no such device")
	}
	if err := req.Require(unix.CAP_MKNOD, "CAP_MKNOD"); err != nil {
		return emulators.Response{}, err
	}
	m := maker{req: req, call: c, bench: e.bench}
	if err := m.locate(); err != nil {
		m.close()
		return answer(err)
	}
	if err := m.make(); err != nil {
		m.close()
		return answer(err)
	}
	return emulators.Return(0).After(func(delivered bool) {
		if !delivered {
			m.undo()
		}
		m.close()
	}).Repeating(m.keep, m.repeats), nil
}

// answer makes the kernel's errno the caller's, and keeps what is not the
// kernel's verdict on the caller an error.
func answer(err error) (emulators.Response, error) {
	var errno syscall.Errno
	var argument emulators.BadArgument
	var denied emulators.Denied
	switch {
	case errors.As(err, &argument), errors.As(err, &denied):
	case errors.Is(err, emulators.ErrGone), errors.Is(err, emulators.ErrBlocks), errors.Is(err, tracee.ErrThread):
	case errors.As(err, &errno):
		return emulators.Fail(errno), nil
	}
	return emulators.Response{}, fmt.Errorf("mknod: %w", err)
}
