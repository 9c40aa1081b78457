//go:build linux

package pidfd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"syscall"

	"github.com/callgate/callgate/pkg/pidfd"
)

// A child is watched and stopped without its number being used again.
func Example() {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	// Its number is safe to use here: nobody else can reap it.
	f, err := pidfd.Open(cmd.Process.Pid)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()

	info, err := f.Info()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("our child:", int(info.PPID) == os.Getpid())

	ours, err := pidfd.Open(os.Getpid())
	if err != nil {
		log.Fatal(err)
	}
	defer ours.Close()
	a, errA := f.NamespaceID(pidfd.NSUser)
	b, errB := ours.NamespaceID(pidfd.NSUser)
	if err := errors.Join(errA, errB); err != nil {
		log.Fatal(err)
	}
	fmt.Println("in our user namespace:", a == b)

	if err := f.SendSignal(syscall.SIGKILL); err != nil {
		log.Fatal(err)
	}
	if err := f.Wait(context.Background()); err != nil {
		log.Fatal(err)
	}
	_ = cmd.Wait() // from here on the number may be anybody's

	_, err = f.Info()
	fmt.Println("gone:", errors.Is(err, syscall.ESRCH))
	// Output:
	// our child: true
	// in our user namespace: true
	// gone: true
}
