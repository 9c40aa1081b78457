package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/anchor"
	"github.com/callgate/callgate/agent/internal/config"
	"github.com/callgate/callgate/agent/internal/control"
	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/agent/internal/eventlog"
	"github.com/callgate/callgate/agent/internal/events"
	"github.com/callgate/callgate/agent/internal/intake"
	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/agent/internal/unixsock"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/tracee"
)

const (
	// DefaultSocket is the listenerPath of profiles.
	DefaultSocket = "/run/callgate/agent.sock"
	// DefaultControl is where the agent answers its operator.
	DefaultControl = "/run/callgate/control.sock"
	// DefaultConfig is the configuration file. Where there is none, the
	// profile "default" has mknod on, and nothing else.
	DefaultConfig = "/etc/callgate/config.yaml"
	// None as a socket's path means that there is to be none.
	None = "none"
)

// drainTime is how long calls in flight may take once the agent is to end.
const drainTime = 5 * time.Second

// Config is what an agent is made of. The zero value is the one that
// `callgate agent` without flags has.
type Config struct {
	Socket  string // where runtimes register; "": DefaultSocket
	Control string // HTTP for the operator; "": DefaultControl
	Metrics string // TCP address for /metrics and /healthz; "": none
	// ConfigFile must exist if it is named. "": DefaultConfig, if that exists.
	ConfigFile string
	// ConfigText is a configuration in place of a file.
	ConfigText string
	// Kinds are the emulators; nil: Kinds().
	Kinds []emulators.Kind
	// Log gets one line for each call (debug; info for denied ones; error for
	// what is the agent's fault) and for what befalls listeners.
	// nil: logrus's standard logger.
	Log *logrus.Logger
	// Reactors is how many threads receive calls. 0: as many as CPUs, from 2
	// to 8.
	Reactors int
}

// Agent is one agent. Serve runs it, once.
type Agent struct {
	cfg   Config
	log   *logrus.Logger
	ready chan struct{}

	served  atomic.Bool
	config  atomic.Pointer[config.Config]
	proc    *tracee.Proc
	metrics *metrics.Metrics
	calls   *eventlog.Log
	events  events.Hub
	serving atomic.Pointer[dispatch.Dispatcher]

	mu         sync.Mutex // guards the rest
	containers map[key]*entry
	listeners  map[uint32]int // by registering user
}

// New makes an agent; nothing happens before Serve.
func New(cfg Config) *Agent {
	set := func(field *string, to string) {
		if *field == "" {
			*field = to
		}
	}
	set(&cfg.Socket, DefaultSocket)
	set(&cfg.Control, DefaultControl)
	if cfg.Kinds == nil {
		cfg.Kinds = Kinds()
	}
	if cfg.Log == nil {
		cfg.Log = logrus.StandardLogger()
	}
	return &Agent{
		cfg:        cfg,
		log:        cfg.Log,
		ready:      make(chan struct{}),
		containers: make(map[key]*entry),
		listeners:  make(map[uint32]int),
	}
}

// Ready is closed once Serve accepts listeners.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Serve runs the agent until ctx is done, then answers what is in flight and
// returns nil. If it cannot start it returns an error and has left nothing
// behind.
func (a *Agent) Serve(ctx context.Context) (err error) {
	if a.served.Swap(true) {
		return errors.New("agent has been served before")
	}
	if err := a.prepare(); err != nil {
		return err
	}
	drained := true
	defer func() {
		if drained { // else a call that is stuck may still come to look
			a.proc.Close()
		}
	}()
	logs, stopLogs := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { a.calls.Run(logs) })
	defer background.Wait()
	defer stopLogs()

	d, err := dispatch.New(a.dispatchOptions())
	if err != nil {
		return err
	}
	a.serving.Store(d)
	defer func() {
		stuck := a.drain(d)
		drained = stuck == nil
		err = errors.Join(err, stuck)
	}()

	failed := make(chan error, 2)
	server := control.New(control.Options{Gatherer: a.metrics.Gatherer(), Containers: a.Containers, Events: &a.events})
	defer server.Close()
	defer a.events.Close()
	if err := a.listenControl(server, &background, failed); err != nil {
		return err
	}
	front, err := a.listen()
	if err != nil {
		return err
	}
	if front != nil {
		defer front.Close()
	}
	close(a.ready)
	a.log.WithFields(logrus.Fields{"socket": a.cfg.Socket, "control": a.cfg.Control}).Info("agent serves")
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// prepare does what needs no cleaning up.
func (a *Agent) prepare() error {
	if err := seccompnotify.Usable(); err != nil {
		return fmt.Errorf("this kernel cannot be used: %w", err)
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	a.config.Store(cfg)
	if err := checkCapabilities(); err != nil {
		return err
	}
	if a.proc, err = tracee.OpenProc(); err != nil {
		return err
	}
	a.metrics = metrics.New(
		func() float64 { return float64(a.dispatcher((*dispatch.Dispatcher).Listeners)) },
		func() float64 { return float64(a.dispatcher((*dispatch.Dispatcher).InFlight)) },
	)
	a.calls = eventlog.New(a.log)
	return nil
}

// dispatcher asks the dispatcher for a number, 0 while there is none.
func (a *Agent) dispatcher(ask func(*dispatch.Dispatcher) int) int {
	if d := a.serving.Load(); d != nil {
		return ask(d)
	}
	return 0
}

func (a *Agent) dispatchOptions() dispatch.Options {
	limits := a.config.Load().Limits
	return dispatch.Options{
		Kinds:   a.cfg.Kinds,
		Proc:    a.proc,
		Metrics: a.metrics,
		Limits: dispatch.Limits{
			CallsPerContainer:   limits.CallsPerContainer,
			WorkersPerContainer: limits.WorkersPerContainer,
			CallTimeout:         limits.CallTimeout,
		},
		Reactors: a.reactors(),
		Report:   a.report,
		Fail:     func(err error) { go a.log.WithError(err).Error("agent is in trouble") },
		Anchor:   anchor.FromCaller,
		Ended:    a.ended,
	}
}

// report tells of a call, on the thread that carried it out.
func (a *Agent) report(o dispatch.Outcome) {
	a.calls.Call(o)
	a.events.Publish(&o)
}

func (a *Agent) reactors() int {
	if a.cfg.Reactors > 0 {
		return a.cfg.Reactors
	}
	return min(max(runtime.NumCPU(), 2), 8)
}

func (a *Agent) loadConfig() (*config.Config, error) {
	switch {
	case a.cfg.ConfigText != "":
		return config.Parse("configuration", []byte(a.cfg.ConfigText), a.cfg.Kinds)
	case a.cfg.ConfigFile != "":
		return config.Load(a.cfg.ConfigFile, a.cfg.Kinds)
	}
	cfg, err := config.Load(DefaultConfig, a.cfg.Kinds)
	if errors.Is(err, os.ErrNotExist) {
		return config.Default(a.cfg.Kinds)
	}
	return cfg, err
}

// Reload reads the configuration again. Listeners that come from now on are
// served by it; those that are served keep what they have. If it is bad the
// error says why, and the old one stays.
func (a *Agent) Reload() error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	a.config.Store(cfg)
	return nil
}

func (a *Agent) listenControl(server *control.Server, background *sync.WaitGroup, failed chan<- error) error {
	serve := func(l net.Listener, how func(net.Listener) error) {
		background.Go(func() {
			if err := how(l); err != nil {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
	if a.cfg.Control != None {
		l, err := unixsock.Listen(a.cfg.Control)
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		serve(l, server.Control)
	}
	if a.cfg.Metrics != "" {
		l, err := net.Listen("tcp", a.cfg.Metrics)
		if err != nil {
			return fmt.Errorf("metrics address: %w", err)
		}
		serve(l, server.Metrics)
	}
	return nil
}

func (a *Agent) listen() (*intake.Server, error) {
	if a.cfg.Socket == None {
		return nil, nil
	}
	limits := a.config.Load().Limits
	front, err := intake.Listen(a.cfg.Socket, intake.Options{
		Allowed:    func(uid uint32) bool { return a.config.Load().MayRegister(uid) },
		Register:   a.fromRuntime,
		Failed:     a.refused,
		MaxBytes:   limits.RegistrationBytes,
		MaxWaiting: limits.WaitingConnectionsPerUID,
	})
	if err != nil {
		return nil, fmt.Errorf("agent socket: %w", err)
	}
	return front, nil
}

func (a *Agent) refused(peer unix.Ucred, err error) {
	a.log.WithFields(logrus.Fields{"uid": peer.Uid, "pid": peer.Pid, "error": err.Error()}).Warn("registration refused")
}

func (a *Agent) drain(d *dispatch.Dispatcher) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return d.Close(ctx)
}
