// Command bench measures what an intercepted call costs, against a floor that
// is measured in the same run: a loop that receives and answers and does
// nothing else. Machines differ and are noisy: take the ratios.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == subjectName {
		runtime.LockOSThread()
		exit(subject())
	}
	calls := flag.Int("n", 20000, "calls for each row")
	idle := flag.Int("idle", 1000, "idle listeners")
	strict := flag.Bool("strict", false, "exit 1 if a bar is missed")
	flag.Parse()
	// SIGPIPE: what reads the table may have seen enough.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	defer stop()
	exit(bench(ctx, *calls, *idle, *strict))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bench prepares a place of its own, measures, prints. A signal ends the
// subjects and thereby whatever waits for one.
func bench(ctx context.Context, calls, idle int, strict bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A thread in a mount namespace of its own makes children there.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare CLONE_NEWNS", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount MS_PRIVATE", err)
	}
	dir, err := os.MkdirTemp("", "callgate-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The containers' root has to get there.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := mountRoot(dir, root); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("umount2", unix.Unmount(root, unix.MNT_DETACH))) }()
	table := &table{}
	if err := measure(ctx, table, root, calls, idle); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if err := measureMount(ctx, table, root, calls); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	table.print(os.Stdout)
	if missed := table.missed(); strict && missed > 0 {
		return fmt.Errorf("%d bars missed", missed)
	}
	return nil
}

// mountRoot makes the containers' root filesystem: a new ext4, so that the
// host's own, however full, is not what is measured.
func mountRoot(dir, root string) error {
	image := filepath.Join(dir, "image")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(64<<20), f.Close()); err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", image},
		{"mount", "-o", "loop", image, root},
		{"chmod", "0777", root},
		{"mkdir", filepath.Join(root, "dev"), filepath.Join(root, "mnt"), filepath.Join(root, "images")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", args, err, out)
		}
	}
	return nil
}
