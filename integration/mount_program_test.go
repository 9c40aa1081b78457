package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/callgate/callgate/integration/internal/need"
)

// mountProgram is a mount(8) with its libraries: files by their paths in a
// container.
type mountProgram struct {
	name    string
	version string                               // a regular expression
	files   func(t *testing.T) map[string]string // where it is in the container → on the host
}

var mountPrograms = []mountProgram{
	{"host", `2\.`, hostMount},
	{"trixie", `2\.4[0-9]`, trixieMount},
}

// hostMount is the machine's own.
func hostMount(t *testing.T) map[string]string {
	t.Helper()
	need.Program(t, "mount", "umount", "ldd")
	files := make(map[string]string)
	for _, name := range []string{"mount", "umount"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		files["/usr/bin/"+name] = path
		list, err := output(exec.Command("ldd", path))
		if err != nil {
			t.Fatal(err)
		}
		// "libc.so.6 => /lib/…/libc.so.6 (0x…)" or "/lib64/ld-linux… (0x…)"
		for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(list, -1) {
			files[m[1]] = m[1]
		}
	}
	return files
}

// fetched is the folder with a current mount(8).
var fetched = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../bin/tools/util-linux-trixie")
	if err != nil {
		return "", err
	}
	_, err = output(exec.Command("../scripts/fetch-util-linux.sh", dir))
	return dir, err
})

// trixieMount is Debian trixie's, which tries fsopen(2) first.
func trixieMount(t *testing.T) map[string]string {
	t.Helper()
	dir, err := fetched()
	if err != nil {
		need.Missing(t, "needs a current util-linux: "+err.Error())
	}
	files := make(map[string]string)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return errors.Join(err)
		}
		name := strings.TrimPrefix(path, dir)
		library := strings.Contains(filepath.Base(name), ".so") && !strings.Contains(name, "/gconv/")
		if library || name == "/usr/bin/mount" || name == "/usr/bin/umount" {
			files[name] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// install puts the program into the container, whose /lib and /lib64 are
// those below /usr.
func (b *box) install(p mountProgram) {
	b.s.t.Helper()
	for _, dir := range []string{"lib", "lib64"} {
		b.dir("usr/" + dir)
		if err := os.Symlink("usr/"+dir, b.path(dir)); err != nil {
			b.s.t.Fatal(err)
		}
	}
	for name, from := range p.files(b.s.t) {
		to := b.path(strings.Replace(name, "/", "usr/", 1))
		if strings.HasPrefix(name, "/usr/") {
			to = b.path(name)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			b.s.t.Fatal(err)
		}
		if _, err := output(exec.Command("cp", "--dereference", from, to)); err != nil {
			b.s.t.Fatal(err)
		}
	}
	if _, err := output(exec.Command("chown", "-R", "-h", fmt.Sprintf("%d:%d", b.owner(), b.owner()), b.path("usr"))); err != nil {
		b.s.t.Fatal(err)
	}
}

// TestMountProgram: mount(8) as distributions have it, one that uses mount(2)
// and one that tries the calls by descriptor first.
func TestMountProgram(t *testing.T) {
	s := newMountStage(t)
	l, erofs := s.attach("ext4", "program"), s.attach("erofs", "erofs")
	s.startAgent(map[string][]string{"program": {
		"type: ext4, source: [" + l.rule() + "], options: [noatime, 'data=ordered', nodelalloc]",
	}})
	const mount, umount = "exec /usr/bin/mount ", "exec /usr/bin/umount "
	device := fmt.Sprintf("/blk/loop%d", l.number)
	for _, p := range mountPrograms {
		for _, v := range mountSettings {
			t.Run(p.name+","+v.String(), func(t *testing.T) {
				b := s.under(t).box(v, "program")
				b.install(p)
				b.node(device, 7, l.number)
				b.node("blk/erofs", 7, erofs.number)
				steps := []step{
					section(p.name),
					{"mark", ""},
					{mount + "--version", `~^mount from util-linux ` + p.version},
					{mount + "-t ext4 " + device + " /mnt", ""},
					{"info /mnt", `~^ext4 ` + device + ` rw,nosuid,nodev,relatime(,idmapped)? rw`},
					{"write /mnt/made text", ""},
					{mount + "-o remount,ro /mnt", ""},
					{"write /mnt/made text", "EROFS"},
					{mount + "-o remount,rw /mnt", ""},
					{"write /mnt/made text", ""},
					{mount + "-o remount,bind,ro /mnt", ""},
					{"write /mnt/made text", "EROFS"},
					{mount + "-o remount,bind,rw /mnt", ""},
					{mount + "--bind /mnt /at", ""},
					{"read /at/made", "text"},
					{mount + "--make-private /at", ""},
					{mount + "--make-shared /at", ""},
					{mount + "--make-rprivate /at", ""},
					{umount + "/at", ""},
					{umount + "/mnt", ""},
					{"unchanged", ""},
					{mount + "-t ext4 -o ro,noatime,nodelalloc " + device + " /mnt", ""},
					{"info /mnt", `~^ext4 \S+ ro,nosuid,nodev,noatime(,idmapped)? ro,\S*nodelalloc`},
					{umount + "/mnt", ""},
					{mount + "-t tmpfs -o size=1m tmpfs /mnt", ""},
					{umount + "/mnt", ""},
					{mount + "-t ext4 -o noload " + device + " /mnt", "~^E"},
					{mount + "-t erofs -o ro /blk/erofs /mnt", "~^E"},
					{mount + "-t ext4 /blk/erofs /mnt", "~^E"},
					{mount + "-t ext4 /blk/missing /mnt", "~^E"},
					{"unchanged", ""},
				}
				judge(t, steps, b.run(steps))
			})
		}
	}
}
