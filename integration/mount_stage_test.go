package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/integration/internal/agent"
	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/need"
	"github.com/callgate/callgate/integration/internal/probe"
)

// mountSettings are the containers that mount's tests go through.
var mountSettings = []setting{
	{engine: "runc", userNamespace: true},
	{engine: "crun", userNamespace: true},
	{engine: "run", userNamespace: true}, // callgate run
	{engine: "runc"},
}

// filesystem is a type that the tests mount.
type filesystem struct {
	name     string
	readOnly bool
	size     int64 // of the image; 0: what it takes
	program  string
	make     func(image, tree string) *exec.Cmd
}

var filesystems = []filesystem{
	{"ext4", false, 16 << 20, "mkfs.ext4", func(image, tree string) *exec.Cmd {
		return exec.Command("mkfs.ext4", "-q", "-F", "-d", tree, image)
	}},
	{"xfs", false, 300 << 20, "mkfs.xfs", func(image, tree string) *exec.Cmd {
		return exec.Command("mkfs.xfs", "-q", "-p", tree+".proto", image)
	}},
	{"btrfs", false, 128 << 20, "mkfs.btrfs", func(image, tree string) *exec.Cmd {
		return exec.Command("mkfs.btrfs", "-q", "-m", "single", "--rootdir", tree, image)
	}},
	{"squashfs", true, 0, "mksquashfs", func(image, tree string) *exec.Cmd {
		return exec.Command("mksquashfs", tree, image, "-quiet", "-no-progress", "-noappend")
	}},
	{"erofs", true, 0, "mkfs.erofs", func(image, tree string) *exec.Cmd {
		return exec.Command("mkfs.erofs", "--quiet", image, tree)
	}},
}

// prototype is the tree for mkfs.xfs (mkfs.xfs(8), -p).
const prototype = `/none
0 0
d--755 0 0
file ---644 0 0 TREE/file
suid -u-755 0 0 TREE/suid
null c--666 0 0 1 3
link l--777 0 0 file
dir d--777 0 0
$
$
`

// What mount's tests make once: mountprobe, and a folder with the images.
var (
	mountProbe  = sync.OnceValues(buildMountProbe)
	mountImages = sync.OnceValues(makeImages)
)

func output(cmd *exec.Cmd) (string, error) {
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), nil
}

func buildMountProbe() (string, error) {
	out := filepath.Join(shared.dir, "mountprobe")
	files, err := filepath.Glob("mountprobe/*.c")
	if err != nil {
		return "", err
	}
	args := []string{"-std=gnu11", "-static", "-O1", "-pthread", "-Wall", "-Wextra", "-o", out}
	_, err = output(exec.Command("gcc", append(args, files...)...))
	return out, err
}

// makeImages makes an image of each filesystem, with the same tree in it: a
// file, a setuid program, a device node, a symlink, and a directory for all.
func makeImages() (string, error) {
	program, err := mountProbe()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(shared.dir, "images")
	tree := filepath.Join(dir, "tree")
	null := filepath.Join(tree, "null")
	err = errors.Join(
		os.MkdirAll(filepath.Join(tree, "dir"), 0o755),
		os.Chmod(filepath.Join(tree, "dir"), 0o777),
		os.WriteFile(filepath.Join(tree, "file"), []byte("hello"), 0o644),
		os.Symlink("file", filepath.Join(tree, "link")),
		unix.Mknod(null, unix.S_IFCHR, int(unix.Mkdev(1, 3))), os.Chmod(null, 0o666),
		copySparse(program, filepath.Join(tree, "suid")),
		os.Chmod(filepath.Join(tree, "suid"), 0o755|os.ModeSetuid),
		os.WriteFile(tree+".proto", []byte(strings.ReplaceAll(prototype, "TREE", tree)), 0o644),
	)
	if err != nil {
		return "", err
	}
	for _, fs := range filesystems {
		image := filepath.Join(dir, fs.name)
		if fs.size > 0 {
			if err := os.WriteFile(image, nil, 0o644); err != nil {
				return "", err
			}
			if err := os.Truncate(image, fs.size); err != nil {
				return "", err
			}
		}
		if _, err := output(fs.make(image, tree)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func copySparse(from, to string) error {
	_, err := output(exec.Command("cp", "--sparse=always", from, to))
	return err
}

// mountStage is a stage for mount's tests: loop devices come first, then the
// agent whose policy names them.
type mountStage struct {
	*stage
	program string // mountprobe
	images  string
	config  string // the file
	filters map[string]*specs.LinuxSeccomp
}

func newMountStage(t *testing.T) *mountStage {
	t.Helper()
	s := &mountStage{stage: newBareStage(t), filters: make(map[string]*specs.LinuxSeccomp)}
	need.Program(t, "losetup", "nsenter")
	for _, fs := range filesystems {
		need.Program(t, fs.program)
	}
	var err error
	if s.program, err = mountProbe(); err != nil {
		t.Fatal(err)
	}
	if s.images, err = mountImages(); err != nil {
		t.Fatal(err)
	}
	return s
}

// under is the stage with another test to report to.
func (s *mountStage) under(t *testing.T) *mountStage {
	sub, inner := *s, *s.stage
	inner.t = t
	sub.stage = &inner
	return &sub
}

// loop is a loop device that the test attached.
type loop struct {
	number int
	image  string
}

func (l loop) rule() string { return fmt.Sprintf("%q", fmt.Sprintf("b 7:%d", l.number)) }

// attach gives a copy of an image a loop device, until the test ends.
func (s *mountStage) attach(fstype, name string) loop {
	s.t.Helper()
	l := loop{image: filepath.Join(s.dir, name)}
	if err := copySparse(filepath.Join(s.images, fstype), l.image); err != nil {
		s.t.Fatal(err)
	}
	l.number = s.losetup(l.image)
	return l
}

func (s *mountStage) losetup(image string) int {
	s.t.Helper()
	device, err := output(exec.Command("losetup", "--find", "--show", image))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if _, err := output(exec.Command("losetup", "--detach", device)); err != nil {
			s.t.Error(err)
		}
	})
	number, err := strconv.Atoi(strings.TrimPrefix(device, "/dev/loop"))
	if err != nil {
		s.t.Fatalf("losetup gives %q", device)
	}
	return number
}

// start starts the agent. Each profile is chosen by the annotation
// callgate.profile, and has the rules given, one a line, as its allow list.
func (s *mountStage) startAgent(profiles map[string][]string) {
	s.t.Helper()
	config, choose := "profiles:\n", "select:\n"
	for name, rules := range profiles {
		config += "  " + name + ":\n    mount:\n      allow:\n"
		for _, rule := range rules {
			config += "        - {" + rule + "}\n"
		}
		choose += fmt.Sprintf("  - {annotation: callgate.profile=%s, profile: %s}\n", name, name)
	}
	callgate, err := shared.callgate()
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent = agent.Start(s.t, callgate, s.dir, "allowUids: [0]\n"+config+choose)
	s.config = filepath.Join(s.dir, "config.yaml")
}

// box is a container for mountprobe, or natively its root directory.
type box struct {
	s       *mountStage
	v       setting
	profile string
	c       engine.Container
	log     string // callgate run's
}

// native is the setting of a box without a container.
var native = setting{engine: "native"}

func (s *mountStage) box(v setting, profile string) *box {
	s.t.Helper()
	b := &box{s: s, v: v, profile: profile}
	b.c = engine.Container{
		ID:            fmt.Sprintf("callgate-test-%d-%d", os.Getpid(), containers.Add(1)),
		UserNamespace: v.userNamespace, NoNewPrivileges: v.noNewPrivileges,
		Annotations: map[string]string{"callgate.profile": profile},
		// Without one that can be seen a user namespace may not mount another.
		Mounts: []specs.Mount{{Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"ro", "nosuid", "nodev", "noexec"}}},
	}
	b.c.Rootfs = filepath.Join(s.dir, "rootfs-"+b.c.ID)
	if err := engine.MakeRootfs(b.c.Rootfs, b.owner() != 0, s.program); err != nil {
		s.t.Fatal(err)
	}
	if v.engine == "runc" || v.engine == "crun" {
		b.c.Seccomp = s.filter(v.engine, profile)
	}
	for _, dir := range []string{"blk", "img", "mnt", "at"} {
		b.dir(dir)
	}
	return b
}

// filter is the seccomp profile for an engine, made once: it says who is asked
// about which calls, which is the same for all profiles of the policy here.
func (s *mountStage) filter(engine, profile string) *specs.LinuxSeccomp {
	s.t.Helper()
	if s.filters[engine] == nil {
		flags := []string{"--profile", profile}
		if engine == "crun" { // runc 1.1 rejects any flag
			flags = append(flags, "--wait-killable")
		}
		seccomp, err := s.agent.Profile(flags...)
		if err != nil {
			s.t.Fatal(err)
		}
		s.filters[engine] = seccomp
	}
	return s.filters[engine]
}

// owner is what on disk is the container's root.
func (b *box) owner() int {
	if b.v.userNamespace && b.v.engine != "run" { // which maps the ids itself
		return engine.HostID
	}
	return 0
}

func (b *box) path(name string) string { return filepath.Join(b.c.Rootfs, name) }

func (b *box) own(name string) {
	b.s.t.Helper()
	if err := os.Lchown(b.path(name), b.owner(), b.owner()); err != nil {
		b.s.t.Fatal(err)
	}
}

func (b *box) dir(name string) {
	b.s.t.Helper()
	if err := os.MkdirAll(b.path(name), 0o755); err != nil {
		b.s.t.Fatal(err)
	}
	b.own(name)
}

func (b *box) file(name, text string) {
	b.s.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
		b.s.t.Fatal(err)
	}
	b.own(name)
}

// node makes a block device; an image is a copy of a filesystem's.
func (b *box) node(name string, major, minor int) {
	b.s.t.Helper()
	dev := unix.Mkdev(uint32(major), uint32(minor))
	if err := unix.Mknod(b.path(name), unix.S_IFBLK|0o660, int(dev)); err != nil {
		b.s.t.Fatal(err)
	}
	b.own(name)
}

func (b *box) image(name, fstype string) {
	b.s.t.Helper()
	if err := copySparse(filepath.Join(b.s.images, fstype), b.path(name)); err != nil {
		b.s.t.Fatal(err)
	}
	b.own(name)
}

// step is one line of a script and what is right: "" for a success without a
// text, an errno's name, a text, a regular expression after "~", or "*" for
// anything.
type step struct{ do, want string }

// section begins another part of a script.
func section(name string) step { return step{do: "# " + name} }

func (st step) isSection() bool { return strings.HasPrefix(st.do, "# ") }

// mountCall is a line with a mount(2); "-" is a null pointer.
func mountCall(source, target, fstype string, flags uint64, data string) string {
	return fmt.Sprintf("mount %s %s %s %#x %s", source, target, fstype, flags, data)
}

// remountCall changes a mount.
func remountCall(target string, flags uint64) string {
	return mountCall("-", target, "-", flags|unix.MS_REMOUNT, "-")
}

func script(steps []step) string {
	var text strings.Builder
	for _, st := range steps {
		text.WriteString(st.do + "\n")
	}
	return text.String()
}

// run runs the steps in the container, from its start to its end.
func (b *box) run(steps []step) []probe.Result {
	b.s.t.Helper()
	b.file("script", script(steps))
	args := []string{"/bin/mountprobe", "run", "/script", "/work"}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch b.v.engine {
	case "native":
		results, err := probe.Native(b.c.Rootfs, args[0], "/script", "/work")
		if err != nil {
			b.s.t.Fatal(err)
		}
		return results
	case "run":
		return b.runAlone(ctx, args)
	default:
		b.c.Args = args
		return b.s.runContainer(b.v, b.c)
	}
}

// runAlone is `callgate run`.
func (b *box) runAlone(ctx context.Context, args []string) []probe.Result {
	b.s.t.Helper()
	callgate, err := shared.callgate()
	if err != nil {
		b.s.t.Fatal(err)
	}
	args = append([]string{"run", "--config", b.s.config, "--profile", b.profile, "--log-level", "info",
		"--rootfs", b.c.Rootfs, "--"}, args...)
	cmd := exec.CommandContext(ctx, callgate, args...)
	cmd.Env = agent.Environ()
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	b.log = log.String()
	if err != nil {
		b.s.t.Fatalf("callgate run: %v\n%s\n%s", err, out, b.log)
	}
	return b.s.parse(out, nil)
}

// pause starts the container, which stays until the test ends.
func (b *box) pause() *engine.Runtime {
	b.s.t.Helper()
	r := b.s.runtime(b.v.engine)
	b.c.Args = []string{"/bin/mountprobe", "pause"}
	b.s.start(r, b.c)
	return r
}

// exec runs the steps in a container that is there.
func (b *box) exec(r *engine.Runtime, steps []step) []probe.Result {
	b.s.t.Helper()
	b.file("script", script(steps))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := r.Exec(ctx, b.c, "/bin/mountprobe", "run", "/script", "/work")
	return b.s.parse(out, err)
}

// outcome is what came of a step.
func outcome(r probe.Result) string {
	if r.Ret < 0 {
		return r.ErrName
	}
	return r.Read
}

// agrees says whether an outcome is what a step wants.
func agrees(want, got string) bool {
	if expression, ok := strings.CutPrefix(want, "~"); ok {
		return regexp.MustCompile(expression).MatchString(got)
	}
	return want == "*" || want == got
}

// judge compares every step with its outcome.
func judge(t *testing.T, steps []step, results []probe.Result) {
	t.Helper()
	i := 0
	for _, st := range steps {
		if st.isSection() {
			continue
		}
		if i == len(results) {
			t.Errorf("no results from %q on", st.do)
			return
		}
		r := results[i]
		i++
		if r.Name != st.do {
			t.Fatalf("result %d is of %q, not of %q", i, r.Name, st.do)
		}
		if got := outcome(r); !agrees(st.want, got) {
			extra := ""
			if r.Ret < 0 && r.Read != "" {
				extra = ": " + r.Read
			}
			t.Errorf("%s: %s: %q%s, want %q", r.Scenario, r.Name, got, extra, st.want)
		}
	}
}

// requests is how many calls of a kind the agent has had.
func (s *mountStage) requests(pattern string) int {
	s.t.Helper()
	text, err := s.agent.Get("/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	line := regexp.MustCompile(`^callgate_requests_total\{[^}]*` + pattern + `[^}]*\} (\d+)`)
	total := 0
	for _, l := range strings.Split(text, "\n") {
		if m := line.FindStringSubmatch(l); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				s.t.Fatal(err)
			}
			total += n
		}
	}
	return total
}

// loopsOf lists the loop devices whose image has the given name at its end, as
// sysfs tells.
func loopsOf(name string) (found []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), name) {
			found = append(found, file+": "+strings.TrimSpace(string(text)))
		}
	}
	return found
}

// noLoops waits until no loop device has such an image any more.
func noLoops(t *testing.T, name string) {
	t.Helper()
	eventually(t, func() bool { return len(loopsOf(name)) == 0 })
}
