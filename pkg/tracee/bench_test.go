package tracee

import (
	"os"
	"testing"

	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func BenchmarkTracee(b *testing.B) {
	notifytest.NeedRoot(b)
	c := notifytest.Start(b, notifytest.Options{})
	path := c.String(b, "/dev/some/null")
	tr, answer := stopped(b, c)
	defer answer()
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("Valid", tr.StillWaiting)
	run("Status", func() error { tr.known = false; _, err := tr.Status(); return err })
	run("Pidfd", func() error { tr.Reset(tr.tid, tr.waiting); _, err := tr.Pidfd(); return err })
	run("NamespaceID", func() error { _, err := tr.NamespaceID(pidfd.NSUser); return err })
	run("Root", func() error { _, err := tr.Root(); return err })
	run("ReadString", func() error { _, err := tr.ReadString(path, PathMax); return err })
	run("OwnsMount", func() error {
		h := dir(b, "/")
		defer h.Close()
		st, err := h.Stat()
		if err == nil {
			_, err = tr.OwnsMount(h, &st, true)
		}
		return err
	})
}

func BenchmarkThread(b *testing.B) {
	notifytest.NeedRoot(b)
	root := tree(b, "a/b/c/")
	must(b, os.Chmod(root+"/a", 0o700))
	must(b, os.Chown(root+"/a", 1000, 1000))
	who := mapped(own(b, alive), overriding)
	stranger := mapped(who.caller, overriding)
	stranger.FSUID = 1001
	at := Lookup{Root: dir(b, root), Dir: dir(b, root)}
	var th *Thread
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) { // on another goroutine, and so on another thread
			b.ReportAllocs()
			onThread(b, func(own *Thread) {
				th = own
				must(b, f())
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
	run("As", func() error { return th.As(&who.Identity, 0, func() error { return nil }) })
	run("AsTwo", func() error {
		_ = th.As(&who.Identity, 0, func() error { return nil })
		return th.As(&stranger.Identity, 0, func() error { return nil })
	})
	patient := at
	patient.Patient = true
	onThread(b, func(th *Thread) { // what is not cached yet, such as an ACL, would block
		h, err := th.Open(who, patient, "/a/b/c", pathDir)
		must(b, err)
		h.Close()
	})
	run("Open3Cached", func() error { h, err := th.Open(who, at, "/a/b/c", pathDir); h.Close(); return err })
	run("Open3Walk", func() error { h, err := th.Open(stranger, patient, "/a/b/c", pathDir); h.Close(); return err })
	run("Stat", func() error { _, err := at.Root.Stat(); return err })
}
