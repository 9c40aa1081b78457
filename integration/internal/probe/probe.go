// Package probe builds the C program of integration/probe, reads what it prints, and
// runs it natively for comparison.
package probe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Result is one line of the probe: the outcome of one call and what then stood
// in its place.
type Result struct {
	Scenario string `json:"scenario"`
	Name     string `json:"name"`
	Ret      int64  `json:"ret"`
	Errno    int    `json:"errno"`
	ErrName  string `json:"errname"`
	Node     *Node  `json:"node"`
	Open     string `json:"open"` // "ok", an errno's name, or "" where nothing was opened
	Read     string `json:"read"` // up to four bytes in hexadecimal, "eof", or an errno's name

	// A measurement: nothing to compare.
	Time  bool  `json:"time"`
	Calls int64 `json:"calls"`
	NS    int64 `json:"ns"`
}

// Node is an inode as the probe sees it, ids as in its own user namespace.
type Node struct {
	Type  string `json:"type"`
	Mode  string `json:"mode"` // octal, with the type's bits
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// Key names the call: scenario and label.
func (r Result) Key() string { return r.Scenario + "/" + r.Name }

// String is the outcome without the name, for messages and comparison.
func (r Result) String() string {
	s := fmt.Sprintf("ret %d", r.Ret)
	if r.ErrName != "" {
		s += " " + r.ErrName
	}
	if r.Node == nil {
		return s + ", no node"
	}
	n := r.Node
	s += fmt.Sprintf(", %s %s %d:%d of %d:%d", n.Type, n.Mode, n.Major, n.Minor, n.UID, n.GID)
	if r.Open != "" {
		s += ", open " + r.Open
	}
	if r.Read != "" {
		s += ", read " + r.Read
	}
	return s
}

// Parse reads the probe's standard output.
func Parse(output []byte) ([]Result, error) {
	var results []Result
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read the probe's line %q: %w", lines.Text(), err)
		}
		results = append(results, r)
	}
	return results, lines.Err()
}

// Binaries are the paths of the built probe.
type Binaries struct {
	Native string // 64-bit
	I386   string // -m32
}

// Build compiles the C files of source into dir with the machine's gcc.
func Build(source, dir string) (Binaries, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.c"))
	if err != nil {
		return Binaries{}, err
	}
	b := Binaries{Native: filepath.Join(dir, "probe"), I386: filepath.Join(dir, "probe32")}
	for out, flags := range map[string][]string{b.Native: nil, b.I386: {"-m32"}} {
		flags = append(flags, "-std=gnu11", "-static", "-O1", "-pthread", "-Wall", "-Wextra",
			"-D_FILE_OFFSET_BITS=64", "-o", out)
		cmd := exec.Command("gcc", append(flags, files...)...)
		if text, err := cmd.CombinedOutput(); err != nil {
			return Binaries{}, fmt.Errorf("compile %s: %w\n%s", out, err, text)
		}
	}
	return b, nil
}

// nativeScript makes rootfs the root of a mount and pid namespace of its own:
// pivot_root and not chroot, because a chrooted process may not unshare its
// user namespace. Everything ends with the probe.
const nativeScript = `set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t tmpfs -o nosuid,strictatime,mode=755,size=65536k tmpfs dev
mkdir -p .old
pivot_root . .old
exec /bin/busybox sh -c 'umount -l /.old && exec "$@"' sh "$2" run "$3" "$4"`

// Native runs scenarios (separated by commas, or "all") as the host's real
// root in rootfs, without a user namespace and without a seccomp filter. The
// program and dir are paths below rootfs.
func Native(rootfs, program, scenarios, dir string) ([]Result, error) {
	cmd := exec.Command("unshare", "-m", "-p", "-f", "--kill-child", "sh", "-c", nativeScript, "sh",
		rootfs, program, scenarios, dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run the probe natively: %w\n%s%s", err, &stdout, &stderr)
	}
	return Parse(stdout.Bytes())
}
