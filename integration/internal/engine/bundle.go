package engine

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// writeBundle makes a bundle for c in dir; its process is never a terminal's.
func writeBundle(dir string, c Container) error {
	config, err := json.MarshalIndent(spec(c), "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
}

func process(c Container, args []string) *specs.Process {
	caps := c.capabilities()
	return &specs.Process{
		User: specs.User{UID: 0, GID: 0},
		Args: args,
		Env:  []string{"PATH=/bin"},
		Cwd:  "/",
		Capabilities: &specs.LinuxCapabilities{
			Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps,
		},
		NoNewPrivileges: c.NoNewPrivileges,
	}
}

func spec(c Container) *specs.Spec {
	s := &specs.Spec{
		Version:     "1.0.2",
		Process:     process(c, c.Args),
		Root:        &specs.Root{Path: c.Rootfs},
		Hostname:    "probe",
		Annotations: c.Annotations,
		// As `runc spec` writes them, as far as the probe needs them.
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
				Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
				Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + c.ID,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
			// What may be opened is not the question here, what may be made is.
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}},
			Seccomp:   c.Seccomp,
		},
	}
	s.Mounts = append(s.Mounts, c.Mounts...)
	if c.UserNamespace {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: HostID, Size: IDs}}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	}
	return s
}
