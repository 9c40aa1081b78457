package agent_test

import (
	"context"
	"log"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent"
)

// An agent like `callgate agent`: runtimes register listeners on its socket,
// until a signal ends it.
func ExampleAgent_Serve() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
	defer stop()
	if err := agent.New(agent.Config{}).Serve(ctx); err != nil {
		log.Fatal(err)
	}
}

// A container manager with an agent of its own: no sockets, and a listener
// that it got from the container's first process.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	a := agent.New(agent.Config{
		Socket:  agent.None,
		Control: agent.None,
		ConfigText: `
profiles:
  builder:
    mknod: {allow: ["c 1:3", "c 10:229"]}
`,
	})
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx) }()

	listener, pid := startContainer()
	err := a.Register(ctx, agent.Registration{Listener: listener, ID: "build-1", PID: pid, Profile: "builder"})
	if err != nil {
		log.Print(err) // the listener is closed: the container's calls fail with ENOSYS
	}
	// … until the container has ended:
	stop()
	if err := <-served; err != nil {
		log.Print(err)
	}
}

// startContainer stands for the manager's own: seccomp(2) with
// SECCOMP_FILTER_FLAG_NEW_LISTENER in the container, whose first process is
// pid.
func startContainer() (listener, pid int) { return -1, 0 }
