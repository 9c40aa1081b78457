package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// The rows that others are compared with.
const (
	rowFloor   = "floor: receive and answer, nothing else"
	rowNative  = "mknod natively as real root, root filesystem"
	rowNothing = "agent, emulator that does nothing"
	rowNode    = "mknod emulated, root filesystem"
)

// line is one row: a median run's figures, and the bars it has to clear.
type line struct {
	name     string
	p50, p99 time.Duration
	bar      string
	missed   bool
}

type table struct {
	lines []line
	notes []line
}

func (t *table) find(name string) line {
	for _, l := range t.lines {
		if l.name == name {
			return l
		}
	}
	return line{}
}

// row measures. floors bounds p50 in floors, tail bounds p99 in p50s; 0: no
// bar.
func (t *table) row(name string, floors, tail float64, run func() ([]time.Duration, error)) error {
	l, err := median(name, run)
	if err != nil {
		return err
	}
	if floors > 0 {
		l.add(fmt.Sprintf("p50 ≤ %g × floor", floors), ratio(l.p50, t.find(rowFloor).p50) <= floors)
	}
	if tail > 0 {
		l.add(fmt.Sprintf("p99 ≤ %g × p50", tail), ratio(l.p99, l.p50) <= tail)
	}
	t.lines = append(t.lines, l)
	return nil
}

// rowBeside measures something again that must not have changed by a fifth.
func (t *table) rowBeside(name, alone string, run func() ([]time.Duration, error)) error {
	l, err := median(name, run)
	if err != nil {
		return err
	}
	change := ratio(l.p50, t.find(alone).p50)
	l.add(fmt.Sprintf("p50 within 20 %% of alone (%.2f ×)", change), change < 1.2)
	t.lines = append(t.lines, l)
	return nil
}

func (t *table) perListener(n int, kib float64) {
	l := line{name: fmt.Sprintf("resident memory of one of %d idle listeners: %.1f KiB", n, kib)}
	l.add("≤ 40 KiB", kib <= 40)
	t.notes = append(t.notes, l)
}

func (l *line) add(bar string, cleared bool) {
	if l.bar != "" {
		l.bar += ", "
	}
	l.bar += bar
	if !cleared {
		l.bar += " MISSED"
		l.missed = true
	}
}

func median(name string, run func() ([]time.Duration, error)) (line, error) {
	var all []line
	for range runs {
		times, err := run()
		if err != nil {
			return line{}, fmt.Errorf("%s: %w", name, err)
		}
		slices.Sort(times)
		all = append(all, line{name: name, p50: times[len(times)/2], p99: times[len(times)*99/100]})
	}
	slices.SortFunc(all, func(a, b line) int { return int(a.p50 - b.p50) })
	return all[len(all)/2], nil
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func (t *table) missed() int {
	n := 0
	for _, l := range slices.Concat(t.lines, t.notes) {
		if l.missed {
			n++
		}
	}
	return n
}

func (t *table) print(out io.Writer) {
	base := t.find(rowFloor).p50
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\tp50\tp99\t× floor\tp99/p50\tbar")
	for _, l := range t.lines {
		fmt.Fprintf(w, "%s\t%.1f µs\t%.1f µs\t%.2f\t%.1f\t%s\n", l.name, micro(l.p50), micro(l.p99), ratio(l.p50, base), ratio(l.p99, l.p50), l.bar)
	}
	_ = w.Flush() // out is standard output
	for _, l := range t.notes {
		fmt.Fprintf(out, "%s (%s)\n", l.name, l.bar)
	}
}

func micro(d time.Duration) float64 { return float64(d) / 1e3 }
