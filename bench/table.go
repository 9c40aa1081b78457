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

// pair measures two things in turns: what others are compared with, and what is
// compared. bar says what the second has to clear, and whether it does.
func (t *table) pair(base, name string, bar func(base, l line) (string, bool), run func() ([][]time.Duration, error)) error {
	var all [][2]line
	for range runs {
		times, err := run()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, [2]line{figures(base, times[0]), figures(name, times[1])})
	}
	// The median of what is asked for, not of one of its two sides.
	slices.SortFunc(all, func(a, b [2]line) int { return int(a[1].p50 - a[0].p50 - (b[1].p50 - b[0].p50)) })
	lines := all[len(all)/2]
	lines[1].add(bar(lines[0], lines[1]))
	t.lines = append(t.lines, lines[:]...)
	return nil
}

// within bounds what is lost to the other by a time.
func within(most time.Duration) func(base, l line) (string, bool) {
	return func(base, l line) (string, bool) {
		lost := l.p50 - base.p50
		return fmt.Sprintf("p50 ≤ native + %d µs (%+.0f µs, %.2f ×)", most.Microseconds(), micro(lost), ratio(l.p50, base.p50)), lost <= most
	}
}

// factor bounds it by a ratio.
func factor(most float64) func(base, l line) (string, bool) {
	return func(base, l line) (string, bool) {
		times := ratio(l.p50, base.p50)
		return fmt.Sprintf("p50 ≤ %g × stock profile (%+.2f µs, %.3f ×)", most, micro(l.p50-base.p50), times), times <= most
	}
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
		all = append(all, figures(name, times))
	}
	slices.SortFunc(all, func(a, b line) int { return int(a.p50 - b.p50) })
	return all[len(all)/2], nil
}

// figures sorts the times.
func figures(name string, times []time.Duration) line {
	slices.Sort(times)
	return line{name: name, p50: times[len(times)/2], p99: times[len(times)*99/100]}
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
