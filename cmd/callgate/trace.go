package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/callgate/callgate/agent"
)

// event is a line of the agent's GET /v1/events.
type event struct {
	Time        time.Time `json:"time"`
	Container   string    `json:"container"`
	PID         int       `json:"pid"`
	Syscall     string    `json:"syscall"`
	Outcome     string    `json:"outcome"`
	Reason      string    `json:"reason"`
	Detail      string    `json:"detail"`
	Errno       string    `json:"errno"`
	Error       string    `json:"error"`
	TookSeconds float64   `json:"tookSeconds"`
	Lost        uint64    `json:"lost"`
}

// tracing is callgate trace's flags and streams.
type tracing struct {
	socket    string
	container string // "": all
	json      bool
	out, note io.Writer
}

func traceCommand() *cobra.Command {
	var t tracing
	cmd := &cobra.Command{
		Use:   "trace [flags] [CONTAINER]",
		Short: "Show calls as they are decided, one a line",
		Long: `Shows the calls of all containers, or of the one that callgate ps lists under
this name, as the agent decides them:

  TIME CONTAINER[TID] CALL → RESULT (OUTCOME, TIME IT TOOK) REASON "DETAIL"

RESULT is ok, an errno, or ? where the kernel decides or nobody waits any more.
Text that may be a container's own is quoted where it is not plain. The agent
waits for nobody: of what is read too slowly, the number of missing calls is
shown. Ends, with status 0, by SIGINT or SIGTERM.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				t.container = args[0]
			}
			t.out, t.note = cmd.OutOrStdout(), cmd.ErrOrStderr()
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			err := t.follow(ctx)
			if ctx.Err() != nil {
				return nil // the operator has seen enough
			}
			return err
		},
	}
	cmd.Flags().StringVar(&t.socket, "control", agent.DefaultControl, "the agent's control socket")
	cmd.Flags().BoolVar(&t.json, "json", false, "print the agent's JSON lines as they are")
	return cmd
}

// follow shows calls until the agent ends, which is an error, or ctx does.
func (t *tracing) follow(ctx context.Context) error {
	client := controlClient(t.socket)
	defer client.CloseIdleConnections()
	stream, err := subscribe(ctx, client, t.container)
	if err != nil {
		return fmt.Errorf("ask the agent at %s: %w", t.socket, err)
	}
	defer func() { _ = stream.Close() }()
	if err := t.noteAbsent(ctx); err != nil {
		return fmt.Errorf("ask the agent at %s: %w", t.socket, err)
	}
	show := t.text()
	if t.json {
		show = func(line []byte) error { _, err := t.out.Write(line); return err }
	}
	for lines := bufio.NewReader(stream); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil { // in the middle of a line or not, the agent ends connections only with itself
			return fmt.Errorf("agent at %s has ended", t.socket)
		}
		if err := show(line); err != nil {
			return err
		}
	}
}

// controlClient is an HTTP client of the control socket, with no limit to how long an answer may go on.
func controlClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		ResponseHeaderTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func subscribe(ctx context.Context, client *http.Client, container string) (io.ReadCloser, error) {
	to := "http://callgate/v1/events"
	if container != "" {
		to += "?" + url.Values{"container": {container}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 256
	why, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("HTTP status %s: %s", resp.Status, unlessOdd(strings.TrimSpace(string(why)), ""))
}

// noteAbsent says that there may be nothing to see for a while. It is asked
// after subscribing: a container that comes in between is not missed.
func (t *tracing) noteAbsent(ctx context.Context) error {
	if t.container == "" {
		return nil
	}
	list, err := containers(ctx, t.socket)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(c served) bool { return c.ID == t.container }) {
		fmt.Fprintf(t.note, "callgate: no container %q is served yet: waiting for it\n", t.container)
	}
	return nil
}

// text shows events as lines for people.
func (t *tracing) text() func(line []byte) error {
	table := traceTable{zone: time.Local}
	return func(line []byte) error {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		_, err := fmt.Fprintln(t.out, table.line(&e))
		return err
	}
}

// traceTable aligns lines with those before them: a column is as wide as the
// widest that was in it.
type traceTable struct {
	zone              *time.Location
	who, call, result int
}

func (t *traceTable) line(e *event) string {
	if e.Lost > 0 {
		return fmt.Sprintf("--- %d calls are missing: they were read too slowly ---", e.Lost)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s → %s (%s, %v)",
		e.Time.In(t.zone).Format("15:04:05.000000"),
		pad(fmt.Sprintf("%s[%d]", name(e.Container), e.PID), &t.who),
		pad(name(e.Syscall), &t.call),
		pad(result(e), &t.result),
		name(e.Outcome), took(e.TookSeconds))
	if e.Reason != "" {
		b.WriteString(" " + unlessOdd(e.Reason, ""))
	}
	if e.Detail != "" {
		b.WriteString(" " + strconv.Quote(e.Detail))
	}
	if e.Error != "" {
		b.WriteString(" error " + strconv.Quote(e.Error))
	}
	return b.String()
}

func pad(s string, width *int) string {
	*width = max(*width, utf8.RuneCountInString(s))
	return fmt.Sprintf("%-*s", *width, s)
}

// result is what the call gave, as far as the agent knows.
func result(e *event) string {
	switch {
	case e.Errno != "":
		return name(e.Errno)
	case e.Outcome == "answered":
		return "ok"
	default:
		return "?"
	}
}

// took has three digits or so: more are noise.
func took(seconds float64) time.Duration {
	d := time.Duration(math.Round(seconds * 1e9))
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	default:
		return d.Round(100 * time.Nanosecond)
	}
}

// name is one word, whatever a container or whoever registered it has called
// itself: it can pass for no other part of the line.
func name(s string) string {
	const most = 64 // a container's, in hexadecimal
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-1]) + "…"
	}
	return cmp.Or(unlessOdd(s, " []()→\"\\"), `""`)
}

// unlessOdd is s, quoted where a terminal might take it for a command, or a
// reader for something else: where it holds one of odd.
func unlessOdd(s, odd string) string {
	isOdd := func(r rune) bool { return !strconv.IsPrint(r) || strings.ContainsRune(odd, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, isOdd) {
		return s
	}
	return strconv.Quote(s)
}
