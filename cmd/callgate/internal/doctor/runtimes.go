package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

func runtimeProbes() []probe {
	return []probe{
		{
			id: "runc", title: "runc hands over listeners (1.1)", cost: "no containers of runc's with callgate",
			try: func(ctx context.Context) finding { return ociRuntime(ctx, "runc") },
		},
		{
			id: "crun", title: "crun hands over listeners (0.19)", cost: "no containers of crun's with callgate",
			try: func(ctx context.Context) finding { return ociRuntime(ctx, "crun") },
		},
		{
			id: "podman", title: "podman", cost: "nothing, if it is not used",
			try: func(ctx context.Context) finding { return program(ctx, "podman", "--version") },
		},
		{
			id: "lxc", title: "LXC (not served yet)", cost: "nothing",
			try: func(ctx context.Context) finding { return program(ctx, "lxc-start", "--version") },
		},
	}
}

// ociRuntime asks an OCI runtime for its features, if it can tell them, and
// otherwise only finds its version.
func ociRuntime(ctx context.Context, name string) finding {
	f := program(ctx, name, "--version")
	if f.state != OK {
		return f
	}
	out, err := output(ctx, name, "features")
	if err != nil {
		return finding{state: Unknown, found: f.found + ", does not tell its features", cost: "nothing, if it is 0.19 or later (crun) or 1.1 or later (runc)"}
	}
	notifies, err := notifies(out)
	switch {
	case err != nil:
		return unsure(fmt.Errorf("%s, features: %w", f.found, err))
	case !notifies:
		return no(f.found + ", without SCMP_ACT_NOTIFY")
	}
	return f
}

// notifies reads features.json of the OCI runtime specification.
func notifies(text []byte) (bool, error) {
	var features struct {
		Linux struct {
			Seccomp struct {
				Enabled *bool    `json:"enabled"`
				Actions []string `json:"actions"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(text, &features); err != nil {
		return false, err
	}
	s := features.Linux.Seccomp
	return s.Enabled != nil && *s.Enabled && slices.Contains(s.Actions, "SCMP_ACT_NOTIFY"), nil
}

// program finds a program's version.
func program(ctx context.Context, name string, args ...string) finding {
	path, err := exec.LookPath(name)
	if err != nil {
		return no("not in PATH")
	}
	out, err := output(ctx, path, args...)
	if err != nil {
		return unsure(fmt.Errorf("%s: %w", name, err))
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	fields := strings.Fields(first)
	if len(fields) == 0 {
		return unsure(fmt.Errorf("%s: says no version", name))
	}
	return yes(fields[len(fields)-1])
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	return cmd.Output()
}
