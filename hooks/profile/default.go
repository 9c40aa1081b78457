package profile

import (
	_ "embed"
	"slices"
)

// defaultJSON is in Docker's format, made for this program.
//
// It allows what Docker's and podman's allow to an ordinary program, and differs from both where a container that is given callgate differs:
//
//   - What no rule names gets ENOSYS, as with podman. Docker has EPERM there, which breaks every program that falls back from a system call
//     newer than the profile only when told that it does not exist; runc repairs that by a stub in front of the filter, crun and
//     `callgate run` have none. What is known and refused gets EPERM by name.
//   - The calls that make and change namespaces and mounts are allowed whatever the capabilities, as with podman. The container has a
//     user namespace of its own, so the kernel grants it nothing of the host's by them, and what callgate is for, containers and
//     image builds inside the container, cannot be done without.
//   - As with Docker, io_uring stays out (its operations pass by the filter, and by interception), and so do socket families with no
//     use in a container and a history of bugs; these say EAFNOSUPPORT.
//
//go:embed default.json
var defaultJSON []byte

// Default gives the built-in base profile, in Docker's format.
func Default() []byte { return slices.Clone(defaultJSON) }
